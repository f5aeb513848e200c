//! The contract where there is a primary and a secondary secret, kept over HTTP by Twilio's own description, against a fake of its
//! documented calls.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Json;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{quick, request};
use crate::domain::material::{Material, Secret};
use crate::domain::provider::Provider;
use crate::issuers::secondary_contract::{Subject, run};
use crate::issuers::{Issuer, IssuerError, fixtures};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

#[derive(Default)]
struct Tokens {
    primary: String,
    secondary: Option<String>,
    made: usize,
}

#[derive(Clone)]
struct Account(Arc<Mutex<Tokens>>);

impl Account {
    fn new() -> Account {
        Account(Arc::new(Mutex::new(Tokens { primary: token(0), ..Tokens::default() })))
    }

    fn accepts(&self, token: &str) -> bool {
        let tokens = self.0.lock().unwrap();
        tokens.primary == token || tokens.secondary.as_deref() == Some(token)
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let basic = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
        let decoded = basic.and_then(|basic| String::from_utf8(STANDARD.decode(basic).ok()?).ok()).unwrap_or_default();
        decoded.split_once(':').is_some_and(|(id, token)| id == ACCOUNT && self.accepts(token))
    }
}

fn token(number: usize) -> String {
    format!("{number:08x}{}", "0123456789abcdef01234567")
}

fn unauthorized() -> (StatusCode, Json<Value>) {
    (StatusCode::UNAUTHORIZED, Json(json!({"code": 20003, "status": 401})))
}

async fn create(State(account): State<Account>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    if !account.knows(&headers) {
        return unauthorized();
    }
    let mut tokens = account.0.lock().unwrap();
    if tokens.secondary.is_some() {
        return (StatusCode::CONFLICT, Json(json!({"status": 409})));
    }
    tokens.made += 1;
    let made = token(tokens.made);
    tokens.secondary = Some(made.clone());
    (StatusCode::CREATED, Json(json!({"account_sid": ACCOUNT, "secondary_auth_token": made, "date_created": "2026-11-21T10:00:00Z"})))
}

async fn cancel(State(account): State<Account>, headers: HeaderMap) -> StatusCode {
    if !account.knows(&headers) {
        return StatusCode::UNAUTHORIZED;
    }
    let taken = account.0.lock().unwrap().secondary.take();
    if taken.is_some() { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn promote(State(account): State<Account>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    if !account.knows(&headers) {
        return unauthorized();
    }
    let mut tokens = account.0.lock().unwrap();
    let Some(promoted) = tokens.secondary.take() else { return (StatusCode::NOT_FOUND, Json(json!({"status": 404}))) };
    tokens.primary.clone_from(&promoted);
    (StatusCode::OK, Json(json!({"account_sid": ACCOUNT, "auth_token": promoted})))
}

async fn public_keys(State(account): State<Account>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    if account.knows(&headers) { (StatusCode::OK, Json(json!({"credentials": []}))) } else { unauthorized() }
}

async fn serve(account: &Account) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/v1/AuthTokens/Secondary", post(create).delete(cancel))
        .route("/v1/AuthTokens/Promote", post(promote))
        .route("/v1/Credentials/PublicKeys", get(public_keys))
        .with_state(account.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn twilio() -> Provider {
    let policies = crate::policies::parse(&[], jiff::Timestamp::UNIX_EPOCH).unwrap();
    let provider = &policies.providers[&"twilio".parse::<crate::domain::ids::Name>().unwrap()];
    Provider::clone(provider)
}

fn material(token: &str) -> Material {
    let value = |text: &str| Secret::from(text.to_owned());
    [(fixtures::field("account_sid"), value(ACCOUNT)), (fixtures::field("auth_token"), value(token))].into_iter().collect()
}

#[tokio::test]
async fn twilio_keeps_the_contract_of_a_primary_and_a_secondary_secret() {
    let account = Account::new();
    let target = fixtures::target(twilio(), &serve(&account).await);
    let truth = account.clone();
    let accepts = move |material: &Material| truth.accepts(material.get(&fixtures::field("auth_token")).unwrap().expose_str().unwrap());
    run(&Subject { issuer: Arc::new(quick()), target, primary: material(&token(0)), accepts: Arc::new(accepts) }).await;
}

#[tokio::test]
async fn what_is_beside_already_and_what_cant_be_promoted_is_refused_and_ends_nothing() {
    let account = Account::new();
    let (issuer, target) = (quick(), fixtures::target(twilio(), &serve(&account).await));
    let primary = material(&token(0));
    issuer.create(&target, &primary, &request()).await.unwrap();
    let again = issuer.create(&target, &primary, &request()).await;
    assert!(again.unwrap_err().had_no_effect() && account.accepts(&token(0)) && account.accepts(&token(1)));
    issuer.cancel(&target, &primary, None).await.unwrap();
    // Somebody took the secondary one back: the primary one isn't to be ended by it, and lives.
    let refused = issuer.revoke(&target, &material(&token(1)), &"any".parse().unwrap(), Some(&primary)).await;
    assert_eq!(refused, Err(IssuerError::Refused { status: 404 }));
    assert!(account.accepts(&token(0)));
}
