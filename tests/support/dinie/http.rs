//! The fake's HTTP side. On hyper itself, because a lost reply must be lost on the wire, not become a 500.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::faults::Call;
use super::replies::{Reply, after_effect, instead_of_effect, problem, unauthorised, with_json, with_status};
use super::truth::{Key, Owner};
use super::{Dinie, State, TOKEN_PREFIX};

/// Set by the tests' own applications: faults are meant for the daemon.
pub(crate) const EXEMPT_HEADER: &str = "x-test-exempt";

pub(super) async fn serve(listener: tokio::net::TcpListener, fake: Arc<Dinie>) {
    while let Ok((stream, _)) = listener.accept().await {
        let fake = fake.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(fake.clone(), request));
            // An error is a connection that we cut, or that the daemon did: both are part of the game.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

pub(super) struct Received {
    pub(super) head: http::request::Parts,
    pub(super) body: Bytes,
}

async fn answer(fake: Arc<Dinie>, request: Request<Incoming>) -> Result<Reply, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let received = Received { head, body };
    let Some(call) = which(&received) else {
        return Ok(problem(StatusCode::NOT_FOUND, "not_found", json!({})));
    };
    let exempt = received.head.headers.contains_key(EXEMPT_HEADER);
    let fault = {
        let mut state = fake.lock();
        if exempt {
            None
        } else {
            *state.truth.calls.entry(call).or_default() += 1;
            state.faults.draw(call)
        }
    };
    if let Some(fault) = fault.filter(|fault| fault.comes_before_the_effect()) {
        return instead_of_effect(fault, &received);
    }
    let reply = effect(&fake, call, &received);
    match fault {
        None => Ok(reply),
        Some(fault) => after_effect(&fake, call, fault, reply).await,
    }
}

fn which(received: &Received) -> Option<Call> {
    let path = received.head.uri.path();
    match (received.head.method.as_str(), path) {
        ("POST", "/v3/auth/token") => Some(Call::Token),
        ("POST", "/v3/auth/credentials") => Some(Call::Create),
        ("GET", "/v3/auth/credentials") => Some(Call::List),
        ("DELETE", path) if path.starts_with("/v3/auth/credentials/") => Some(Call::Delete),
        _ => None,
    }
}

fn effect(fake: &Dinie, call: Call, received: &Received) -> Reply {
    let mut state = fake.lock();
    let state = &mut *state;
    let mut reply = match call {
        Call::Token => token(fake, state, received),
        Call::Create => authorised(state, received, |state, _| create(fake, state, received)),
        Call::List => authorised(state, received, |state, _| list(fake, state, received)),
        Call::Delete => authorised(state, received, |state, by| delete(state, received, by)),
    };
    let headers = reply.headers_mut();
    headers.insert("x-request-id", uuid::Uuid::new_v4().to_string().parse().expect("a valid header"));
    for (name, value) in [("x-ratelimit-limit", 1000), ("x-ratelimit-remaining", 900), ("x-ratelimit-reset", 60)] {
        headers.insert(name, value.into());
    }
    reply
}

fn token(fake: &Dinie, state: &mut State, received: &Received) -> Reply {
    let form = String::from_utf8_lossy(&received.body);
    if !form.split('&').any(|pair| pair == "grant_type=client_credentials") {
        return problem(StatusCode::BAD_REQUEST, "unsupported_grant_type", json!({}));
    }
    let Some((client_id, secret)) = basic(received) else {
        return unauthorised("missing_token");
    };
    let token = format!("{TOKEN_PREFIX}{}", state.rng.alnum(40));
    let now = Instant::now();
    let flapping = fake.options.flapping;
    let Some(key) = state.truth.key_mut(&client_id).filter(|key| key.secret == secret && key.revoked.is_none()) else {
        return unauthorised("invalid_token");
    };
    key.looks += 1;
    let reaches_a_new_replica = flapping && key.looks.is_multiple_of(2);
    if now < key.settled && !reaches_a_new_replica {
        return unauthorised("invalid_token");
    }
    key.last_used_at = Some(Timestamp::now());
    state.truth.tokens.insert(token.clone(), (client_id, now + Duration::from_secs(3600)));
    with_json(StatusCode::OK, &json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}))
}

fn basic(received: &Received) -> Option<(String, String)> {
    let value = received.head.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// Tokens outlive the key that they were issued to: that is how Dinie is, so the fake lets them.
fn authorised(state: &mut State, received: &Received, then: impl FnOnce(&mut State, String) -> Reply) -> Reply {
    let bearer = received.head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) else {
        return unauthorised("missing_token");
    };
    match state.truth.tokens.get(token).cloned() {
        None => unauthorised("invalid_token"),
        Some((_, ends)) if ends <= Instant::now() => unauthorised("token_expired"),
        Some((client_id, _)) => then(state, client_id),
    }
}

fn create(fake: &Dinie, state: &mut State, received: &Received) -> Reply {
    let headers = &received.head.headers;
    let replay = headers.get("idempotency-key").or_else(|| headers.get("x-idempotency-key"));
    let replay = replay.and_then(|value| value.to_str().ok()).filter(|_| fake.options.idempotency);
    if let Some(known) = replay.and_then(|replay| state.truth.replays.get(replay)) {
        return with_status(StatusCode::CREATED, known.clone().into_bytes());
    }
    let Ok(Value::Object(asked)) = serde_json::from_slice(&received.body) else {
        return problem(StatusCode::BAD_REQUEST, "invalid_body", json!({}));
    };
    let Some(name) = asked.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
        let errors = json!([{"field": "name", "message": "is required"}]);
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", json!({"errors": errors}));
    };
    if let Some(refusal) = no_room(fake, state) {
        return refusal;
    }
    let secret = fake.next_secret(state);
    let expires_at = asked.get("expires_at").and_then(Value::as_str).map(str::to_owned);
    let key = fake.make_key(state, name, secret, expires_at, Owner::Daemon);
    let mut document = described(fake, &key);
    document["client_secret"] = json!(key.secret);
    if let Some(replay) = replay {
        state.truth.replays.insert(replay.to_owned(), document.to_string());
    }
    with_json(StatusCode::CREATED, &document)
}

/// Counts everybody's keys: slots belong to the account.
fn no_room(fake: &Dinie, state: &mut State) -> Option<Reply> {
    let living = state.truth.keys.iter().filter(|key| key.revoked.is_none());
    let (count, oldest) = living.fold((0, None), |(count, oldest), key| {
        (count + 1, oldest.or_else(|| (key.owner != Owner::Foreign).then(|| key.client_id.clone())))
    });
    if count < fake.options.slots? {
        return None;
    }
    if !fake.options.evicts {
        let errors = json!([{"field": "name", "message": "too many credentials"}]);
        return Some(problem(StatusCode::UNPROCESSABLE_ENTITY, "limit_reached", json!({"errors": errors})));
    }
    if let Some(oldest) = oldest {
        state.truth.revoke(&oldest, None);
    }
    None
}

fn list(fake: &Dinie, state: &State, received: &Received) -> Reply {
    let query = received.head.uri.query().unwrap_or("");
    let parameter =
        |name: &str| query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|(_, value)| value);
    let limit = parameter("limit").and_then(|text| text.parse().ok()).unwrap_or(20).min(fake.options.page_limit);
    let keys = &state.truth.keys;
    // The cursor may be either of a key's two names: the docs do not say which.
    let start = match parameter("starting_after") {
        None => 0,
        Some(after) => match keys.iter().position(|key| key.id == after || key.client_id == after) {
            Some(position) => position + 1,
            None => return problem(StatusCode::BAD_REQUEST, "unknown_cursor", json!({})),
        },
    };
    let page: Vec<Value> = keys.iter().skip(start).take(limit).map(|key| described(fake, key)).collect();
    let has_more = start + page.len() < keys.len();
    with_json(StatusCode::OK, &json!({"data": page, "has_more": has_more}))
}

fn delete(state: &mut State, received: &Received, by: String) -> Reply {
    let client_id = received.head.uri.path().rsplit('/').next().unwrap_or("").to_owned();
    match state.truth.key(&client_id) {
        None => problem(StatusCode::NOT_FOUND, "not_found", json!({})),
        Some(key) if key.revoked.is_some() => problem(StatusCode::NOT_FOUND, "not_found", json!({})),
        Some(_) => {
            state.truth.revoke(&client_id, Some(by));
            with_status(StatusCode::NO_CONTENT, Vec::new())
        }
    }
}

fn described(fake: &Dinie, key: &Key) -> Value {
    let time = |at: Timestamp| {
        if fake.options.epoch_times { json!(at.as_second()) } else { json!(at.to_string()) }
    };
    json!({
        "id": key.id,
        "client_id": key.client_id,
        "name": key.name,
        "status": if key.revoked.is_some() { "revoked" } else { "active" },
        "expires_at": key.expires_at,
        "created_at": time(key.created_at),
        "updated_at": time(key.updated_at),
        "last_used_at": key.last_used_at.map(time),
    })
}
