//! The contract, kept over HTTP against two fakes of the documented shapes: Dinie's, and RFC 7591/7592's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Json;
use axum::routing::{delete, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{SECRET, pair, quick};
use crate::domain::ids::KeyId;
use crate::domain::material::{Material, Secret};
use crate::domain::provider::{Provider, Signature};
use crate::issuers::contract::{self, Subject};
use crate::issuers::{Target, fixtures};

struct Key {
    client_id: String,
    secret: String,
    name: String,
    alive: bool,
    disabled: bool,
}

/// The truth, shared with the server.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Keys>>);

#[derive(Default)]
struct Keys {
    url: String,
    /// What registration asks for, where it isn't open to all.
    initial_access_token: Option<String>,
    keys: Vec<Key>,
    replies: BTreeMap<String, Value>,
}

impl Fake {
    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap()
    }

    fn accepts(&self, key: &KeyId) -> bool {
        self.keys().keys.iter().any(|known| known.client_id == key.as_str() && known.alive && !known.disabled)
    }

    /// Tokens and registration tokens are `<prefix>:<client_id>`.
    fn holder(&self, headers: &HeaderMap, prefix: &str) -> Option<String> {
        let token = headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")?;
        token.strip_prefix(prefix).map(str::to_owned)
    }

    fn make(&self, name: &str) -> (String, String) {
        let mut state = self.keys();
        let number = state.keys.len();
        let (client_id, secret) = (format!("dinie_ci_test_{number}"), format!("dinie_cs_live_{number}_0123456789abcdef"));
        state.keys.push(Key { client_id: client_id.clone(), secret: secret.clone(), name: name.to_owned(), alive: true, disabled: false });
        (client_id, secret)
    }

    fn end(&self, client_id: &str) -> bool {
        let mut state = self.keys();
        let key = state.keys.iter_mut().find(|key| key.client_id == client_id && key.alive);
        key.map(|key| key.alive = false).is_some()
    }
}

async fn token(State(fake): State<Fake>, headers: HeaderMap, body: String) -> (StatusCode, Json<Value>) {
    let basic = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
    let decoded = basic.and_then(|basic| String::from_utf8(STANDARD.decode(basic).ok()?).ok()).unwrap_or_default();
    let (id, secret) = decoded.split_once(':').unwrap_or_default();
    let known = fake.keys().keys.iter().any(|key| key.client_id == id && key.secret == secret && key.alive && !key.disabled);
    if !known || body != "grant_type=client_credentials" {
        return (StatusCode::UNAUTHORIZED, Json(json!({"error": "invalid_client"})));
    }
    (StatusCode::OK, Json(json!({"access_token": format!("at:{id}"), "token_type": "Bearer", "expires_in": 3600})))
}

async fn dinie_create(State(fake): State<Fake>, headers: HeaderMap, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    if fake.holder(&headers, "at:").is_none() {
        return (StatusCode::UNAUTHORIZED, Json(json!({"code": "invalid_token"})));
    }
    let idempotency = headers["idempotency-key"].to_str().unwrap().to_owned();
    if let Some(reply) = fake.keys().replies.get(&idempotency) {
        return (StatusCode::CREATED, Json(reply.clone()));
    }
    let (client_id, secret) = fake.make(body["name"].as_str().unwrap());
    let reply = json!({
        "id": format!("cred_{client_id}"), "client_id": client_id, "client_secret": secret, "name": body["name"],
        "status": "active", "expires_at": null, "created_at": 1_800_000_000,
    });
    fake.keys().replies.insert(idempotency, reply.clone());
    (StatusCode::CREATED, Json(reply))
}

/// Pages of two, whatever the limit.
async fn dinie_list(
    State(fake): State<Fake>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> (StatusCode, Json<Value>) {
    if fake.holder(&headers, "at:").is_none() {
        return (StatusCode::UNAUTHORIZED, Json(json!({"code": "invalid_token"})));
    }
    let state = fake.keys();
    let after = query.get("starting_after");
    let start = after.map_or(0, |after| state.keys.iter().position(|key| format!("cred_{}", key.client_id) == *after).unwrap() + 1);
    let page = state.keys.iter().skip(start).take(2).map(|key| {
        let status = if !key.alive { "revoked" } else if key.disabled { "disabled" } else { "active" };
        json!({"id": format!("cred_{}", key.client_id), "client_id": key.client_id, "name": key.name, "status": status, "created_at": 1_800_000_000})
    });
    let page: Vec<Value> = page.collect();
    (StatusCode::OK, Json(json!({"has_more": start + page.len() < state.keys.len(), "data": page})))
}

async fn dinie_revoke(State(fake): State<Fake>, headers: HeaderMap, Path(id): Path<String>) -> StatusCode {
    match fake.holder(&headers, "at:") {
        None => StatusCode::UNAUTHORIZED,
        Some(_) if fake.end(&id) => StatusCode::NO_CONTENT,
        Some(_) => StatusCode::NOT_FOUND,
    }
}

/// What is disabled already is refused.
async fn deactivate(State(fake): State<Fake>, headers: HeaderMap, Path(id): Path<String>) -> StatusCode {
    let is_authorised = fake.holder(&headers, "at:").is_some();
    let mut state = fake.keys();
    match state.keys.iter_mut().find(|key| key.client_id == id && key.alive) {
        _ if !is_authorised => StatusCode::UNAUTHORIZED,
        None => StatusCode::NOT_FOUND,
        Some(key) if key.disabled => StatusCode::CONFLICT,
        Some(key) => {
            key.disabled = true;
            StatusCode::NO_CONTENT
        }
    }
}

/// As Okta has it: what works can't be removed.
async fn remove_disabled(State(fake): State<Fake>, headers: HeaderMap, Path(id): Path<String>) -> StatusCode {
    let works = fake.keys().keys.iter().any(|key| key.client_id == id && key.alive && !key.disabled);
    if works { StatusCode::FORBIDDEN } else { dinie_revoke(State(fake), headers, Path(id)).await }
}

async fn register(State(fake): State<Fake>, headers: HeaderMap, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let wanted = fake.keys().initial_access_token.clone();
    if wanted.is_some() && fake.holder(&headers, "") != wanted {
        return (StatusCode::UNAUTHORIZED, Json(json!({"error": "invalid_token"})));
    }
    let (client_id, secret) = fake.make(body["client_name"].as_str().unwrap());
    let reply = json!({
        "client_id": client_id, "client_secret": secret, "client_secret_expires_at": 0, "client_id_issued_at": 1_800_000_000,
        "registration_access_token": format!("rat:{client_id}"), "registration_client_uri": format!("{}/reg/{client_id}", fake.keys().url),
    });
    (StatusCode::CREATED, Json(reply))
}

async fn deregister(State(fake): State<Fake>, headers: HeaderMap, Path(id): Path<String>) -> StatusCode {
    let authorised = fake.holder(&headers, "rat:").is_some_and(|holder| holder == id);
    if authorised && fake.end(&id) { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED }
}

async fn serve(router: Router<Fake>) -> (Fake, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let fake = Fake::default();
    fake.keys().url.clone_from(&url);
    let service = router.with_state(fake.clone());
    tokio::spawn(async move { axum::serve(listener, service).await });
    (fake, url)
}

#[tokio::test]
async fn a_provider_of_dinies_shape_keeps_the_contract() {
    let router = Router::new()
        .route("/v3/auth/token", post(token))
        .route("/v3/auth/credentials", post(dinie_create).get(dinie_list))
        .route("/v3/auth/credentials/{id}", delete(dinie_revoke));
    let (fake, url) = serve(router).await;
    fake.make("somebody else's");
    let (id, secret) = fake.make("made by hand");
    let (truth, current_key) = (fake.clone(), id.parse().unwrap());
    contract::run(&Subject {
        issuer: Arc::new(quick()),
        target: fixtures::target(fixtures::dinie(), &format!("{url}/v3")),
        current: pair(&id, &secret),
        current_key,
        accepts: Arc::new(move |key| truth.accepts(key)),
        can_list: true,
        signed: true,
        idempotent: true,
    })
    .await;
    assert!(fake.accepts(&"dinie_ci_test_0".parse().unwrap()), "somebody else's key is untouched");
}

#[tokio::test]
async fn a_provider_that_removes_only_what_is_disabled_keeps_the_contract() {
    let router = Router::new()
        .route("/v3/auth/token", post(token))
        .route("/v3/auth/credentials", post(dinie_create).get(dinie_list))
        .route("/v3/auth/credentials/{id}/deactivate", post(deactivate))
        .route("/v3/auth/credentials/{id}", delete(remove_disabled));
    let (fake, url) = serve(router).await;
    let (id, secret) = fake.make("made by hand");
    let (truth, current_key) = (fake.clone(), id.parse().unwrap());
    contract::run(&Subject {
        issuer: Arc::new(quick()),
        target: fixtures::target(fixtures::slotted(), &format!("{url}/v3")),
        current: pair(&id, &secret),
        current_key,
        accepts: Arc::new(move |key| truth.accepts(key)),
        can_list: true,
        signed: true,
        idempotent: true,
    })
    .await;
}

/// A living client, as its registration was answered.
fn registered(fake: &Fake, url: &str) -> (KeyId, Material) {
    let (id, secret) = fake.make("made by hand");
    let mut current = pair(&id, &secret);
    current.insert(fixtures::field("registration_access_token"), Secret::from(format!("rat:{id}")));
    current.insert(fixtures::field("registration_client_uri"), Secret::from(format!("{url}/reg/{id}")));
    assert_ne!(secret, SECRET);
    (id.parse().unwrap(), current)
}

fn registration_server() -> Router<Fake> {
    Router::new().route("/token", post(token)).route("/reg", post(register)).route("/reg/{id}", delete(deregister))
}

async fn registration_keeps_the_contract(fake: Fake, target: Target, (current_key, current): (KeyId, Material)) {
    let truth = fake.clone();
    contract::run(&Subject {
        issuer: Arc::new(quick()),
        target,
        current,
        current_key,
        accepts: Arc::new(move |key| truth.accepts(key)),
        can_list: false,
        signed: false,
        idempotent: false,
    })
    .await;
    let orphan = fake.keys().keys.iter().filter(|key| key.alive).count();
    assert_eq!(orphan, 1, "no key is left behind");
}

#[tokio::test]
async fn a_server_of_rfc_7591_and_7592_keeps_the_contract() {
    let (fake, url) = serve(registration_server()).await;
    let current = registered(&fake, &url);
    registration_keeps_the_contract(fake, fixtures::target(fixtures::oauth_registration(), &url), current).await;
}

#[tokio::test]
async fn a_server_that_asks_for_an_initial_access_token_keeps_the_contract() {
    let (fake, url) = serve(registration_server()).await;
    fake.keys().initial_access_token = Some("an-initial-access-token-8Kq2".to_owned());
    let current = registered(&fake, &url);
    let open = fixtures::target(fixtures::oauth_registration(), &url);
    let administrator = [(fixtures::field("client_secret"), Secret::from("an-initial-access-token-8Kq2".to_owned()))].into_iter().collect();
    let signs = Some(Signature::Bearer { field: fixtures::field("client_secret") });
    let target = fixtures::signed_by(open.clone(), Provider { signs, ..fixtures::dinie() }, "http://127.0.0.1:1", administrator);
    registration_keeps_the_contract(fake, target, current).await;
}

/// Two servers: at home the administrator's key becomes a token, and the other one takes that token.
#[tokio::test]
async fn keys_that_an_administrator_makes_with_its_token_keep_the_contract() {
    let (home, home_url) = serve(Router::new().route("/token", post(token))).await;
    let (id, secret) = home.make("the administrator");
    let router = Router::new()
        .route("/v3/auth/token", post(token))
        .route("/v3/auth/credentials", post(dinie_create).get(dinie_list))
        .route("/v3/auth/credentials/{id}", delete(dinie_revoke));
    let (fake, url) = serve(router).await;
    let (current_id, current_secret) = fake.make("made by hand");
    let at_home = Provider { signs: Some(Signature::Token), ..fixtures::oauth_registration() };
    let target = fixtures::target(fixtures::administered(), &format!("{url}/v3"));
    let (truth, current_key) = (fake.clone(), current_id.parse().unwrap());
    contract::run(&Subject {
        issuer: Arc::new(quick()),
        target: fixtures::signed_by(target, at_home, &home_url, pair(&id, &secret)),
        current: pair(&current_id, &current_secret),
        current_key,
        accepts: Arc::new(move |key| truth.accepts(key)),
        can_list: true,
        signed: false,
        idempotent: true,
    })
    .await;
}
