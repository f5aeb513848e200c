//! The application of the demo: takes each version up from the stream, tries it, stops using the old one, confirms, and
//! looks every 50 ms whether the key it holds is accepted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::domain::material::Secret;

use super::loopback::{ask_token, call, sensitive};
use super::story::{News, NewsSender};
use crate::cli::sse::{Event, EventReader};

pub(super) const NAME: &str = "payments-api";
/// The instance that does what it should.
pub(super) const INSTANCE: &str = "demo-1";
const CHECK_EVERY: Duration = Duration::from_millis(50);
const RECONNECT_AFTER: Duration = Duration::from_millis(200);
/// A fresh key may be refused for a moment; the daemon has tried it already, so this is short.
const TAKE_UP_TRIES: u32 = 20;

/// What an instance does with a version that is newer than its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    TakesUp,
    /// Goes on with the first one that it got, and never confirms another.
    KeepsTheFirst,
}

/// Where everything is, and who we are.
pub(super) struct Surroundings {
    pub(super) instance: &'static str,
    pub(super) manner: Manner,
    pub(super) daemon: SocketAddr,
    pub(super) provider: SocketAddr,
    pub(super) token: Zeroizing<String>,
    pub(super) news: NewsSender,
}

/// The key in use.
struct Held {
    version: String,
    revision: u64,
    client_id: Secret,
    client_secret: Secret,
}

/// How often the key in use was accepted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    /// The provider gave no answer: nothing is known.
    pub(super) unanswered: AtomicU64,
}

/// The application, running until it is stopped.
pub(super) struct Application {
    state: Arc<State>,
    stop: CancellationToken,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

struct State {
    surroundings: Surroundings,
    counts: Counts,
    /// Locked while a call is made with the key, so that after a change no call with the old one is under way.
    held: Mutex<Option<Held>>,
}

#[derive(Deserialize)]
struct Document {
    name: String,
    version: String,
    revision: u64,
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    client_id: String,
    client_secret: String,
}

impl Application {
    pub(super) fn start(surroundings: Surroundings) -> Application {
        let state = Arc::new(State { surroundings, counts: Counts::default(), held: Mutex::default() });
        let stop = CancellationToken::new();
        let until = |token: CancellationToken, work: Arc<State>, stream: bool| {
            tokio::spawn(async move {
                let work = async { if stream { work.follow().await } else { work.keep_checking().await } };
                token.run_until_cancelled(work).await.unwrap_or_default();
            })
        };
        let tasks = [until(stop.clone(), Arc::clone(&state), true), until(stop.clone(), Arc::clone(&state), false)];
        Application { state, stop, tasks }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.state.counts
    }

    /// Whether the key that it holds now is accepted.
    pub(super) async fn holds_a_living_key(&self) -> bool {
        self.state.check().await == Some(StatusCode::OK)
    }

    /// The version that it uses.
    pub(super) async fn version(&self) -> Option<String> {
        self.state.held.lock().await.as_ref().map(|held| held.version.clone())
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            // A panic of the demo's own application shows as missing checks.
            let _ = task.await;
        }
    }
}

impl State {
    /// Follows the stream, and comes back after each end of it.
    async fn follow(&self) {
        let mut last_id = String::new();
        loop {
            self.read_stream(&mut last_id).await;
            tokio::time::sleep(RECONNECT_AFTER).await;
        }
    }

    async fn read_stream(&self, last_id: &mut String) -> Option<()> {
        let mut request = self.request(Method::GET, "/v1/events")?.header("accept", "text/event-stream");
        if !last_id.is_empty() {
            request = request.header("last-event-id", last_id.as_str());
        }
        let response = call(self.surroundings.daemon, request, "").await?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let mut events = EventReader::new(response.into_body());
        while let Some(event) = events.next().await {
            if event.name == "credential" {
                self.take_up(&event).await;
            }
            if !event.id.is_empty() {
                last_id.clone_from(&event.id);
            }
        }
        None
    }

    fn request(&self, method: Method, path: &str) -> Option<http::request::Builder> {
        let bearer = Zeroizing::new(format!("Bearer {}", &*self.surroundings.token));
        let request = Request::builder().method(method).uri(path);
        Some(request.header(AUTHORIZATION, sensitive(&bearer)?).header("keywright-instance", self.surroundings.instance))
    }

    /// The order matters: try the new key, switch over, and only then confirm. Confirmed earlier, the daemon might have
    /// the old key revoked while it is still in use.
    async fn take_up(&self, event: &Event) -> Option<()> {
        let document: Document = serde_json::from_str(&event.data).ok()?;
        let received = Instant::now();
        let keeps = self.surroundings.manner == Manner::KeepsTheFirst;
        if self.held.lock().await.as_ref().is_some_and(|held| keeps || held.revision >= document.revision) {
            return None;
        }
        let instance = self.surroundings.instance;
        let fresh = Held {
            version: document.version.clone(),
            revision: document.revision,
            client_id: Secret::from(document.fields.client_id),
            client_secret: Secret::from(document.fields.client_secret),
        };
        self.surroundings.news.tell(News::Pushed { instance, version: document.version.clone(), at: received });
        self.until_accepted(&fresh).await?;
        let proof = proof_of_possession(&document.name, &document.version, instance, &fresh.client_secret);
        *self.held.lock().await = Some(fresh);
        self.confirm(&document.name, &document.version, &proof).await
    }

    async fn until_accepted(&self, held: &Held) -> Option<()> {
        for _ in 0..TAKE_UP_TRIES {
            if ask_token(self.surroundings.provider, &held.client_id, &held.client_secret).await == Some(StatusCode::OK) {
                return Some(());
            }
            tokio::time::sleep(RECONNECT_AFTER).await;
        }
        None
    }

    async fn confirm(&self, credential: &str, version: &str, proof: &str) -> Option<()> {
        let instance = self.surroundings.instance;
        let body = json!({"credential": credential, "version": version, "instance": instance, "field": "client_secret", "proof": proof});
        let request = self.request(Method::POST, "/v1/confirmations")?.header("content-type", "application/json");
        let status = call(self.surroundings.daemon, request, body.to_string()).await?.status();
        self.surroundings.news.tell(News::Confirmed { instance, version: version.to_owned(), status: status.as_u16() });
        Some(())
    }

    async fn keep_checking(&self) {
        let mut beat = tokio::time::interval(CHECK_EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            beat.tick().await;
            if self.held.lock().await.is_some() {
                let counter = match self.check().await {
                    Some(StatusCode::OK) => &self.counts.accepted,
                    Some(StatusCode::UNAUTHORIZED) => &self.counts.refused,
                    _ => &self.counts.unanswered,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn check(&self) -> Option<StatusCode> {
        let held = self.held.lock().await;
        let held = held.as_ref()?;
        ask_token(self.surroundings.provider, &held.client_id, &held.client_secret).await
    }
}

/// Shows that we have the value, without sending it.
fn proof_of_possession(credential: &str, version: &str, instance: &str, secret: &Secret) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    hex::encode(hmac::sign(&key, format!("keywright-confirm\n{credential}\n{version}\n{instance}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_demo_proof_is_the_one_of_the_contract() {
        // printf 'keywright-confirm\nc\nv1\ndemo-1' | openssl dgst -sha256 -hmac s
        let proof = proof_of_possession("c", "v1", "demo-1", &Secret::from("s".to_owned()));
        assert_eq!(proof, "3662ddd2db2ba342a428e1fc9fe0ae2b4161fa36c3ccddf2b5d9ab71675cfb6f");
    }
}
