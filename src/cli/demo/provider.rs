//! The simulated provider: stands in for Dinie on loopback, as its public documentation tells, and knows the truth
//! about its keys.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use crate::domain::credential::Environment;
use crate::domain::ids::FieldName;
use crate::domain::material::{Material, Secret};
use crate::runtime::clock::wall_now;

use super::random::letters;
use super::story::{News, NewsSender};

/// A fresh key is refused for this long: real providers have several servers.
const PROPAGATION: Duration = Duration::from_millis(300);
/// Access tokens remembered at once; the oldest are forgotten.
const TOKENS_MAX: usize = 10_000;

/// One key pair, as the provider remembers it.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) client_id: String,
    pub(super) secret: Secret,
    pub(super) name: String,
    pub(super) created: Instant,
    pub(super) revoked: Option<Instant>,
    created_at: String,
    idempotency: Option<String>,
}

/// What really is so, whatever anyone believes.
#[derive(Default)]
pub(super) struct Truth {
    pub(super) keys: Vec<Key>,
    /// Access token → client id. They outlive their key, as at the real one.
    pub(super) tokens: BTreeMap<String, String>,
    /// Calls with a client id that this environment never made.
    pub(super) strangers: u64,
}

pub(super) struct Shared {
    environment: Environment,
    truth: Mutex<Truth>,
    news: NewsSender,
}

/// One environment of the provider, listening until dropped.
pub(super) struct SimulatedProvider {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

impl SimulatedProvider {
    pub(super) async fn start(environment: Environment, news: NewsSender) -> std::io::Result<SimulatedProvider> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { environment, truth: Mutex::default(), news });
        let router = router(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap_or_default() });
        Ok(SimulatedProvider { address, shared, server })
    }

    /// What the configuration names as this environment's address.
    pub(super) fn base_url(&self) -> String {
        format!("http://{}/v3", self.address)
    }

    pub(super) fn truth(&self) -> MutexGuard<'_, Truth> {
        self.shared.truth()
    }

    /// A key that a person made in the provider's dashboard, not the daemon. Returned once, as there.
    pub(super) fn make_by_hand(&self, name: &str) -> std::io::Result<Material> {
        let key = self.shared.new_key(name, None).ok_or(std::io::ErrorKind::Other)?;
        let mut material = Material::default();
        for (field, value) in [("client_id", Secret::from(key.client_id.clone())), ("client_secret", key.secret.duplicate())] {
            let field: FieldName = field.parse().map_err(|_| std::io::ErrorKind::InvalidInput)?;
            material.insert(field, value);
        }
        self.truth().keys.push(Key { created: before_propagation(key.created), ..key });
        Ok(material)
    }
}

impl Drop for SimulatedProvider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Made long enough ago to be known on all servers.
fn before_propagation(at: Instant) -> Instant {
    at.checked_sub(PROPAGATION).unwrap_or(at)
}

impl Shared {
    fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_key(&self, name: &str, idempotency: Option<String>) -> Option<Key> {
        let mark = if self.environment == Environment::Sandbox { "test" } else { "live" };
        Some(Key {
            id: format!("cred_{}", &*letters(16)?),
            client_id: format!("dinie_ci_{mark}_{}", &*letters(24)?),
            // `live` in the sandbox, too: so it is in the provider's own examples.
            secret: Secret::new(format!("dinie_cs_live_{}", &*letters(32)?).into_bytes()),
            name: name.to_owned(),
            created: Instant::now(),
            created_at: wall_now().to_string(),
            revoked: None,
            idempotency,
        })
    }
}

impl Key {
    fn view(&self) -> Value {
        json!({
            "id": self.id, "client_id": self.client_id, "name": self.name,
            "status": if self.revoked.is_some() { "revoked" } else { "active" },
            "expires_at": null, "created_at": self.created_at, "updated_at": self.created_at, "last_used_at": null,
        })
    }

    fn view_with_secret(&self) -> Value {
        let mut view = self.view();
        view["client_secret"] = self.secret.expose_str().unwrap_or_default().into();
        view
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v3/auth/token", post(token))
        .route("/v3/auth/credentials", get(list).post(create))
        .route("/v3/auth/credentials/{client_id}", delete(revoke))
        .layer(from_fn(rate_headers))
        .with_state(shared)
}

async fn rate_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert("x-ratelimit-remaining", header::HeaderValue::from_static("1000"));
    response
}

async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Some((client_id, secret)) = basic(&headers) else { return refuse(StatusCode::UNAUTHORIZED, "invalid_client") };
    let mut truth = shared.truth();
    let Some(key) = truth.keys.iter().find(|key| key.client_id == client_id) else {
        truth.strangers += 1;
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client");
    };
    if key.revoked.is_some() || key.created.elapsed() < PROPAGATION || !key.secret.same_as(&secret) {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let Some(letters) = letters(40) else { return refuse(StatusCode::INTERNAL_SERVER_ERROR, "no_randomness") };
    let token = format!("dinie_at_{}", &*letters);
    if truth.tokens.len() >= TOKENS_MAX {
        truth.tokens.pop_first();
    }
    truth.tokens.insert(token.clone(), client_id);
    Json(json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600})).into_response()
}

#[derive(Deserialize)]
struct NewCredential {
    name: String,
}

async fn create(State(shared): State<Arc<Shared>>, headers: HeaderMap, Json(body): Json<NewCredential>) -> Response {
    if !bearer_is_known(&shared, &headers) {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_token");
    }
    let idempotency = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut truth = shared.truth();
    let repeated = |key: &&Key| idempotency.is_some() && key.idempotency == idempotency;
    if let Some(key) = truth.keys.iter().find(repeated) {
        return (StatusCode::CREATED, Json(key.view_with_secret())).into_response();
    }
    let Some(key) = shared.new_key(&body.name, idempotency.clone()) else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "no_randomness");
    };
    let answer = (StatusCode::CREATED, Json(key.view_with_secret())).into_response();
    shared.news.tell(News::KeyMade { name: key.name.clone(), at: key.created });
    truth.keys.push(key);
    answer
}

#[derive(Deserialize)]
struct Page {
    limit: Option<usize>,
    starting_after: Option<String>,
}

async fn list(State(shared): State<Arc<Shared>>, headers: HeaderMap, Query(page): Query<Page>) -> Response {
    if !bearer_is_known(&shared, &headers) {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_token");
    }
    let truth = shared.truth();
    let start = match &page.starting_after {
        Some(id) => truth.keys.iter().position(|key| key.id == *id).map_or(truth.keys.len(), |at| at + 1),
        None => 0,
    };
    let limit = page.limit.unwrap_or(10).clamp(1, 100);
    let data: Vec<Value> = truth.keys.iter().skip(start).take(limit).map(Key::view).collect();
    let has_more = start + data.len() < truth.keys.len();
    Json(json!({"data": data, "has_more": has_more})).into_response()
}

async fn revoke(State(shared): State<Arc<Shared>>, headers: HeaderMap, Path(client_id): Path<String>) -> Response {
    if !bearer_is_known(&shared, &headers) {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_token");
    }
    let mut truth = shared.truth();
    let Some(key) = truth.keys.iter_mut().find(|key| key.client_id == client_id && key.revoked.is_none()) else {
        return refuse(StatusCode::NOT_FOUND, "not_found");
    };
    let now = Instant::now();
    key.revoked = Some(now);
    shared.news.tell(News::KeyDeleted { name: key.name.clone(), age: now - key.created, at: now });
    StatusCode::NO_CONTENT.into_response()
}

fn bearer_is_known(shared: &Shared, headers: &HeaderMap) -> bool {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|text| text.strip_prefix("Bearer "));
    token.is_some_and(|token| shared.truth().tokens.contains_key(token))
}

fn basic(headers: &HeaderMap) -> Option<(String, Secret)> {
    let encoded = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let decoded = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let (client_id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((client_id.to_owned(), Secret::new(secret.as_bytes())))
}

fn refuse(status: StatusCode, code: &str) -> Response {
    let problem = json!({"type": "about:blank", "title": code, "status": status.as_u16(), "code": code});
    (status, [(header::CONTENT_TYPE, "application/problem+json")], problem.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::super::loopback::{ask_token, call};
    use super::super::story::news_channel;
    use super::*;
    use http_body_util::BodyExt;

    async fn pair(provider: &SimulatedProvider, name: &str) -> (Secret, Secret) {
        let material = provider.make_by_hand(name).unwrap();
        let field = |name: &str| material.get(&name.parse().unwrap()).unwrap().duplicate();
        (field("client_id"), field("client_secret"))
    }

    async fn send(provider: &SimulatedProvider, method: &str, path: &str, token: &str, body: &str) -> (StatusCode, Value) {
        let request = http::Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let response = call(provider.address, request.header("content-type", "application/json"), body.to_owned()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn cli_demo_provider_makes_lists_and_deletes_keys() {
        let (news, _receiver) = news_channel();
        let provider = SimulatedProvider::start(Environment::Sandbox, news).await.unwrap();
        let (old_id, old_secret) = pair(&provider, "one").await;
        assert_eq!(ask_token(provider.address, &old_id, &old_secret).await, Some(StatusCode::OK));
        assert_eq!(ask_token(provider.address, &old_id, &old_id).await, Some(StatusCode::UNAUTHORIZED));
        let token = provider.truth().tokens.keys().next().unwrap().clone();

        let path = "/v3/auth/credentials";
        let (status, made) = send(&provider, "POST", path, &token, r#"{"name":"kw-1"}"#).await;
        assert_eq!((status, made["name"].as_str()), (StatusCode::CREATED, Some("kw-1")));
        let text = |key: &str| Secret::from(made[key].as_str().unwrap().to_owned());
        let (new_id, new_secret) = (text("client_id"), text("client_secret"));
        assert_eq!(ask_token(provider.address, &new_id, &new_secret).await, Some(StatusCode::UNAUTHORIZED), "not known everywhere yet");
        tokio::time::sleep(PROPAGATION).await;
        assert_eq!(ask_token(provider.address, &new_id, &new_secret).await, Some(StatusCode::OK));

        let (_, page) = send(&provider, "GET", "/v3/auth/credentials?limit=1", &token, "").await;
        assert_eq!(page["has_more"], true);
        let next = format!("/v3/auth/credentials?limit=1&starting_after={}", page["data"][0]["id"].as_str().unwrap());
        let (_, page) = send(&provider, "GET", &next, &token, "").await;
        assert_eq!((page["has_more"].as_bool(), page["data"][0].get("client_secret")), (Some(false), None));

        let delete = format!("{path}/{}", old_id.expose_str().unwrap());
        assert_eq!(send(&provider, "DELETE", &delete, &token, "").await.0, StatusCode::NO_CONTENT);
        assert_eq!(send(&provider, "DELETE", &delete, &token, "").await.0, StatusCode::NOT_FOUND);
        assert_eq!(send(&provider, "DELETE", &delete, "wrong", "").await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(ask_token(provider.address, &old_id, &old_secret).await, Some(StatusCode::UNAUTHORIZED));
    }
}
