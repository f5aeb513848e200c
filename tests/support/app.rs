//! An application as the contract asks for one: streams, tries the new key at the provider, then confirms.
//! A second task looks every 100 ms whether a key that it uses or was handed has died.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::confirmation_proof;
use super::dinie::Dinie;
use super::rng::Rng;
use super::wire::{Ask, Events, Target};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    Confirms,
    /// Confirms only after this long.
    Slow(Duration),
    NeverConfirms,
    /// Ends its stream after a random part of this time, again and again.
    Reconnects(Duration),
    /// Never streams: asks twice a second.
    Polls,
}

#[derive(Debug, Clone)]
pub(crate) struct Handed {
    pub(crate) version: String,
    pub(crate) revision: u64,
    pub(crate) client_id: String,
    pub(crate) secret: String,
    pub(crate) at: Instant,
    /// Just before its first confirmation went out: the key before it may not die sooner.
    pub(crate) asked: Option<Instant>,
    /// That a confirmation was answered with 204.
    pub(crate) confirmed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) handed: Vec<Handed>,
    /// The version it works with: the newest one only once a call with that succeeded.
    pub(crate) in_use: Option<usize>,
    pub(crate) violations: Vec<String>,
    pub(crate) refused_confirmations: Vec<u16>,
    pub(crate) byes: u32,
    pub(crate) connects: u32,
    pub(crate) looks: u64,
}

impl Seen {
    pub(crate) fn of(&self, client_id: &str) -> Option<&Handed> {
        self.handed.iter().find(|handed| handed.client_id == client_id)
    }
}

pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) instance: String,
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

struct Job {
    target: Target,
    token: String,
    credential: String,
    instance: String,
    mode: Mode,
    provider: Arc<Dinie>,
    seen: Arc<Mutex<Seen>>,
}

impl App {
    pub(crate) fn start(target: Target, credential: &str, token: &str, instance: &str, mode: Mode, provider: &Arc<Dinie>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let job = Job {
            target,
            token: token.to_owned(),
            credential: credential.to_owned(),
            instance: instance.to_owned(),
            mode,
            provider: provider.clone(),
            seen: seen.clone(),
        };
        let watch = tokio::spawn(watch(seen.clone(), provider.clone(), instance.to_owned()));
        Self { name: credential.to_owned(), instance: instance.to_owned(), seen, tasks: vec![tokio::spawn(job.run()), watch] }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no task died in here")
    }

    pub(crate) fn versions(&self) -> usize {
        self.seen().handed.len()
    }

    pub(crate) fn assert_never_dead(&self) {
        let seen = self.seen();
        assert!(seen.looks > 0 && !seen.handed.is_empty(), "`{}` was never handed a key", self.instance);
        assert!(seen.violations.is_empty(), "`{}`: {:#?}", self.instance, seen.violations);
    }

    /// Like a SIGKILL to the application: no goodbye, its connection just ends.
    pub(crate) fn stop(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn watch(seen: Arc<Mutex<Seen>>, provider: Arc<Dinie>, instance: String) {
    loop {
        {
            let mut seen = seen.lock().expect("no task died in here");
            seen.looks += 1;
            let newest = seen.handed.len().checked_sub(1);
            let dead: Vec<String> = [newest, seen.in_use]
                .into_iter()
                .flatten()
                .map(|at| &seen.handed[at])
                .filter(|handed| !provider.alive(&handed.secret))
                .map(|handed| format!("{instance} holds dead version {} ({})", handed.version, handed.client_id))
                .collect();
            for violation in dead {
                if !seen.violations.contains(&violation) {
                    seen.violations.push(violation);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Job {
    async fn run(self) {
        let mut rng = Rng::new(self.instance.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte)));
        loop {
            match self.mode {
                Mode::Polls => self.poll().await,
                Mode::Reconnects(most) => {
                    let patience = most.mul_f64((rng.below(900) + 100) as f64 / 1000.0);
                    let _ = tokio::time::timeout(patience, self.stream()).await;
                }
                _ => self.stream().await,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn stream(&self) {
        let bearer = format!("Bearer {}", self.token);
        let path = format!("/v1/events?credentials={}", self.credential);
        let headers = [("authorization", bearer.as_str()), ("keywright-instance", self.instance.as_str())];
        let Ok(Ok(mut events)) = Events::open(&self.target, &path, &headers).await else {
            return;
        };
        self.seen().connects += 1;
        while let Some(event) = events.next().await {
            match event.name.as_str() {
                "credential" => self.take(&event.data).await,
                "bye" => self.seen().byes += 1,
                _ => {}
            }
        }
    }

    async fn poll(&self) {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("keywright-instance", self.instance.as_str())];
        let path = format!("/v1/credentials/{}", self.credential);
        let request = Ask { method: "GET", path: &path, headers: &headers, body: None }.bytes();
        if let Ok(Some(answer)) = self.target.raw(&request).await
            && answer.status == 200
        {
            self.take(&String::from_utf8_lossy(&answer.body)).await;
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
    }

    async fn take(&self, data: &str) {
        let document: Value = serde_json::from_str(data).expect("an event carries a JSON document");
        if let Some(at) = self.note(&document) {
            self.settle(at).await;
        }
    }

    /// Where the version stands that is to be tried and confirmed; `None` where nothing is to be done.
    fn note(&self, document: &Value) -> Option<usize> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let revision = document["revision"].as_u64().expect("a revision is a whole number");
        let mut seen = self.seen();
        if let Some(newest) = seen.handed.last_mut() {
            if revision < newest.revision {
                return None;
            }
            if document["version"] == newest.version.as_str() {
                newest.revision = revision;
                let done = newest.confirmed || self.mode == Mode::NeverConfirms;
                return (!done).then(|| seen.handed.len() - 1);
            }
        }
        seen.handed.push(Handed {
            version: text(&document["version"]),
            revision,
            client_id: text(&document["fields"]["client_id"]),
            secret: text(&document["fields"]["client_secret"]),
            at: Instant::now(),
            asked: None,
            confirmed: false,
        });
        Some(seen.handed.len() - 1)
    }

    /// Tries the key, uses it from then on, says so.
    async fn settle(&self, at: usize) {
        let handed = self.seen().handed[at].clone();
        if self.mode == Mode::NeverConfirms && at > 0 {
            // It stays with its first key: that one must live.
            return;
        }
        while !self.works(&handed).await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.seen().in_use = Some(at);
        if let Mode::Slow(delay) = self.mode {
            tokio::time::sleep(delay).await;
        }
        if self.mode == Mode::NeverConfirms {
            return;
        }
        self.seen().handed[at].asked.get_or_insert_with(Instant::now);
        // A daemon that is away or busy is asked again; after its restart the snapshot brings us here once more.
        for _ in 0..20 {
            match self.confirm(&handed).await {
                Some(204) => {
                    self.seen().handed[at].confirmed = true;
                    return;
                }
                Some(status @ (429 | 503)) => {
                    self.seen().refused_confirmations.push(status);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Some(status) => {
                    self.seen().refused_confirmations.push(status);
                    return;
                }
                None => return,
            }
        }
    }

    async fn works(&self, handed: &Handed) -> bool {
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", handed.client_id, handed.secret)));
        let headers =
            [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded"), (super::dinie::EXEMPT_HEADER, "1")];
        let body = Some(b"grant_type=client_credentials".as_slice());
        let request = Ask { method: "POST", path: "/v3/auth/token", headers: &headers, body }.bytes();
        matches!(Target::Tcp(self.provider.address).raw(&request).await, Ok(Some(answer)) if answer.status == 200)
    }

    async fn confirm(&self, handed: &Handed) -> Option<u16> {
        let proof = confirmation_proof(&handed.secret, &self.credential, &handed.version, &self.instance);
        let body = json!({
            "credential": self.credential,
            "version": handed.version,
            "instance": self.instance,
            "field": "client_secret",
            "proof": proof,
        });
        let body = body.to_string();
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("keywright-instance", self.instance.as_str())];
        let request = Ask { method: "POST", path: "/v1/confirmations", headers: &headers, body: Some(body.as_bytes()) };
        self.target.raw(&request.bytes()).await.ok().flatten().map(|answer| answer.status)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no task died in here")
    }
}
