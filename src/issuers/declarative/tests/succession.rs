//! The contract where there is one secret, kept over HTTP: Dinie's webhook secret, and a client that is updated (RFC 7592).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Json;
use axum::routing::{post, put};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{pair, quick};
use crate::domain::material::{Material, Secret};
use crate::domain::provider::{Provider, Signature};
use crate::issuers::fixtures;
use crate::issuers::succession_contract::{Subject, run};

const ADMINISTRATOR: &str = "the-administrator-8Kq2";

/// The secrets that there ever were, each with its end, and what the server keeps beside them.
struct Secrets {
    now: Timestamp,
    secrets: Vec<(String, Option<Timestamp>)>,
    replies: Vec<(String, Value)>,
    renews_management: bool,
    management: String,
}

#[derive(Clone)]
struct Fake(Arc<Mutex<Secrets>>);

impl Fake {
    fn new() -> Fake {
        let (now, secrets) = (Timestamp::from_second(1_800_000_000).unwrap(), vec![(secret(0), None)]);
        let management = "rat-0".to_owned();
        Fake(Arc::new(Mutex::new(Secrets { now, secrets, replies: Vec::new(), renews_management: false, management })))
    }

    fn accepts(&self, secret: &str) -> bool {
        let state = self.0.lock().unwrap();
        state.secrets.iter().any(|(known, end)| known == secret && end.is_none_or(|end| state.now < end))
    }

    fn next(&self, overlap: Duration) -> (String, Timestamp) {
        let mut state = self.0.lock().unwrap();
        let (end, made) = (state.now + overlap, secret(state.secrets.len()));
        state.secrets.iter_mut().for_each(|(_, known)| *known = Some(known.map_or(end, |known| known.min(end))));
        state.secrets.push((made.clone(), None));
        (made, end)
    }
}

fn secret(number: usize) -> String {
    format!("whsec_{number}_0123456789abcdefghij")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

async fn rotate(
    State(fake): State<Fake>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    if bearer(&headers) != Some(ADMINISTRATOR) {
        return (StatusCode::UNAUTHORIZED, Json(json!({"code": "invalid_token"})));
    }
    let operation = headers["idempotency-key"].to_str().unwrap().to_owned();
    if let Some((_, reply)) = fake.0.lock().unwrap().replies.iter().find(|(known, _)| *known == operation) {
        return (StatusCode::OK, Json(reply.clone()));
    }
    // A number, not a text: else the answer is 422, as the documentation has it for fields of a wrong form.
    let Some(seconds) = body["expire_current_in"].as_u64() else {
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"errors": [{"field": "expire_current_in"}]})));
    };
    let (secret, end) = fake.next(Duration::from_secs(seconds));
    let reply = json!({"id": id, "secret": secret, "previous_secret_expires_at": end.to_string()});
    fake.0.lock().unwrap().replies.push((operation, reply.clone()));
    (StatusCode::OK, Json(reply))
}

async fn update(
    State(fake): State<Fake>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    if bearer(&headers) != Some(&fake.0.lock().unwrap().management) {
        return (StatusCode::UNAUTHORIZED, Json(json!({"error": "invalid_token"})));
    }
    assert_eq!(body["client_id"], id.as_str(), "RFC 7592, section 2.2: the client's own id");
    let (secret, _) = fake.next(Duration::ZERO);
    let mut reply = json!({"client_id": id, "client_secret": secret});
    let mut state = fake.0.lock().unwrap();
    if state.renews_management {
        state.management = format!("rat-{}", state.secrets.len());
        reply["registration_access_token"] = state.management.as_str().into();
    }
    (StatusCode::OK, Json(reply))
}

async fn token(State(fake): State<Fake>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    let basic = headers["authorization"].to_str().unwrap().strip_prefix("Basic ").unwrap_or_default();
    let decoded = String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap();
    if fake.accepts(decoded.split_once(':').unwrap_or_default().1) {
        return (StatusCode::OK, Json(json!({"access_token": "at", "token_type": "Bearer"})));
    }
    (StatusCode::UNAUTHORIZED, Json(json!({"error": "invalid_client"})))
}

async fn serve(fake: &Fake) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/hooks/{id}/secret/rotate", post(rotate))
        .route("/reg/{id}", put(update))
        .route("/token", post(token))
        .with_state(fake.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn subject(fake: &Fake, target: crate::issuers::Target, current: Material, idempotent: bool) -> Subject {
    let (truth, hands) = (fake.clone(), fake.clone());
    let secret = |material: &Material| material.get(&fixtures::field("client_secret")).unwrap().expose_str().unwrap().to_owned();
    Subject {
        issuer: Arc::new(quick()),
        target,
        current,
        accepts: Arc::new(move |material| truth.accepts(&secret(material))),
        wait: Arc::new(move |by| {
            let mut state = hands.0.lock().unwrap();
            state.now += by;
        }),
        idempotent,
    }
}

#[tokio::test]
async fn a_secret_that_ends_by_itself_keeps_the_contract() {
    let fake = Fake::new();
    let url = serve(&fake).await;
    let signs = Some(Signature::Bearer { field: fixtures::field("client_secret") });
    let administrator = pair("administrator", ADMINISTRATOR);
    let target = fixtures::target(fixtures::rotating(), &url);
    let target = fixtures::signed_by(target, Provider { signs, ..fixtures::dinie() }, "http://127.0.0.1:1", administrator);
    run(&subject(&fake, target, pair("hook", &secret(0)), true)).await;
}

#[tokio::test]
async fn a_secret_that_is_replaced_keeps_the_contract() {
    let fake = Fake::new();
    let url = serve(&fake).await;
    let mut current = pair("client", &secret(0));
    current.insert(fixtures::field("registration_access_token"), Secret::from("rat-0".to_owned()));
    current.insert(fixtures::field("registration_client_uri"), Secret::from(format!("{url}/reg/client")));
    run(&subject(&fake, fixtures::target(fixtures::replacing(), &url), current, false)).await;
}

/// RFC 7592, section 2.2: an update may bring a new registration access token; the one before it is dead.
#[tokio::test]
async fn management_fields_that_an_update_renews_are_taken_over() {
    let fake = Fake::new();
    fake.0.lock().unwrap().renews_management = true;
    let url = serve(&fake).await;
    let mut current = pair("client", &secret(0));
    current.insert(fixtures::field("registration_access_token"), Secret::from("rat-0".to_owned()));
    current.insert(fixtures::field("registration_client_uri"), Secret::from(format!("{url}/reg/client")));
    let target = fixtures::target(fixtures::replacing(), &url);
    use crate::issuers::Issuer;
    for number in 2..4 {
        let minted = quick().create(&target, &current, &super::request()).await.unwrap();
        let token = minted.material.get(&fixtures::field("registration_access_token")).unwrap();
        assert_eq!(token.expose_str(), Some(format!("rat-{number}").as_str()));
        current = minted.material;
    }
}
