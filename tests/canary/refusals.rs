//! What is refused, with a secret in every place of it that an error likes to repeat.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use keywright::domain::ids::Name;
use keywright::domain::material::{Material, Secret};
use serde_json::json;

use crate::cast::Cast;
use crate::installation::Process;
use crate::life::CREDENTIAL;
use crate::support::outputs::Outputs;
use crate::support::wire::{Ask, Target};
use crate::world::{name, operator};

/// Public fields of nobody's keys.
const LIVE: &str = "dinie_ci_live_0nobodys";
const TEST: &str = "dinie_ci_test_0nobodys";
/// Longer ones are refused for their length alone.
const HEAD_VALUE_MAX: usize = 4096;

/// Those that get as far as a call of a seam: in each life, with its fault.
pub async fn collect(process: &Process, cast: &Cast, outputs: &mut Outputs) {
    let secret = cast.refused.value.as_str();
    let path = format!("/v1/credentials/{CREDENTIAL}/submission");
    for id in [LIVE, TEST, secret] {
        let body = json!({"fields": {"client_id": id, "client_secret": secret}}).to_string();
        put("socket", &process.socket, Ask { method: "PUT", path: &path, headers: &[], body: Some(body.as_bytes()) }, outputs).await;
    }
    directly(process, secret, outputs).await;
}

/// Those that are refused before that: over both listeners, in a life without faults.
pub async fn collect_all(process: &Process, cast: &Cast, outputs: &mut Outputs) {
    let secret = cast.refused.value.as_str();
    for (word, target) in [("tcp", &process.tcp), ("socket", &process.socket)] {
        bodies(word, target, cast, secret, outputs).await;
        heads(word, target, secret, outputs).await;
    }
    outputs.error("error", &secret.parse::<Name>().unwrap_err());
    outputs.error("error", &Material::from_json(format!("{{\"a\":[\"{secret}\"]}}").as_bytes()).unwrap_err());
}

async fn bodies(word: &str, target: &Target, cast: &Cast, secret: &str, outputs: &mut Outputs) {
    let bearer = format!("Bearer {}", cast.token.value);
    // The socket knows the operator by its uid; two identities would be an error of its own.
    let identity = [("authorization", bearer.as_str())];
    let identity = if word == "tcp" { &identity[..] } else { &[] };
    let submissions = [
        json!({"fields": {"client_id": LIVE, "client_secret": format!(" {secret}")}}).to_string(),
        json!({"fields": {"client_id": LIVE, "client_secret": secret, "more": secret}}).to_string(),
        json!({"fields": {"client_secret": secret}}).to_string(),
        json!({"fields": {"client_secret": [secret]}}).to_string(),
        json!({"fields": {secret: "a name"}}).to_string(),
        json!({"fields": secret}).to_string(),
        json!({secret: {}}).to_string(),
        format!("{{\"fields\": {{\"client_secret\": \"{secret}"),
        secret.to_owned(),
    ];
    let path = format!("/v1/credentials/{CREDENTIAL}/submission");
    for body in &submissions {
        put(word, target, Ask { method: "PUT", path: &path, headers: identity, body: Some(body.as_bytes()) }, outputs).await;
    }
    let confirmation = |key: &str| {
        let mut body = json!({"credential": CREDENTIAL, "version": "v1", "instance": "default", "field": "client_secret", "proof": "00"});
        body[key] = secret.into();
        body.to_string()
    };
    for key in ["credential", "version", "instance", "outcome", secret] {
        let mut body = json!({"credential": CREDENTIAL, "version": "v1", "instance": "default", "outcome": "failed"});
        body[key] = secret.into();
        let body = body.to_string();
        let ask = Ask { method: "POST", path: "/v1/reports", headers: identity, body: Some(body.as_bytes()) };
        put(word, target, ask, outputs).await;
    }
    for key in ["credential", "version", "instance", "field", "proof", secret] {
        let body = confirmation(key);
        let ask = Ask { method: "POST", path: "/v1/confirmations", headers: identity, body: Some(body.as_bytes()) };
        put(word, target, ask, outputs).await;
    }
}

async fn heads(word: &str, target: &Target, secret: &str, outputs: &mut Outputs) {
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let plain = secret.len() <= HEAD_VALUE_MAX && !secret.bytes().any(|byte| byte.is_ascii_control());
    let shown = if plain { secret } else { &percent[..percent.len().min(3 * HEAD_VALUE_MAX)] };
    let path = &percent[..percent.len().min(3 * HEAD_VALUE_MAX)];
    let paths = [
        format!("/v1/credentials/{path}"),
        format!("/v1/credentials/{path}/submission"),
        format!("/v1/status?limit={path}"),
        format!("/v1/status?{path}=1"),
        format!("/v1/events?credentials={path}"),
        format!("/{path}"),
    ];
    for path in &paths {
        put(word, target, Ask { method: "GET", path, headers: &[], body: None }, outputs).await;
    }
    let own = format!("/v1/credentials/{CREDENTIAL}");
    let bearer = format!("Bearer {shown}");
    for header in [("authorization", bearer.as_str()), ("keywright-instance", shown), ("content-type", shown), ("forwarded", shown)] {
        let headers = [header];
        put(word, target, Ask { method: "PUT", path: &format!("{own}/submission"), headers: &headers, body: Some(b"{}") }, outputs).await;
        if header.0 != "content-type" {
            put(word, target, Ask { method: "GET", path: &own, headers: &headers, body: None }, outputs).await;
        }
    }
}

async fn put(word: &str, target: &Target, ask: Ask<'_>, outputs: &mut Outputs) {
    // A head that is no HTTP may end a connection without an answer.
    let Ok(Some(answer)) = target.raw(&ask.bytes()).await else { return };
    assert!(answer.status >= 400, "{} {} is refused, not {}", ask.method, ask.path, answer.status);
    outputs.answer(&format!("refusal, {word}"), &answer);
}

/// The engine's own errors, with all that their `Debug` tells.
async fn directly(process: &Process, secret: &str, outputs: &mut Outputs) {
    let fields = |id: &str| -> Material {
        let pair = [("client_id", id), ("client_secret", secret)];
        pair.into_iter().map(|(field, value)| (field.parse().unwrap(), Secret::from(value.to_owned()))).collect()
    };
    let credential = name(CREDENTIAL);
    for id in [LIVE, secret] {
        let material = fields(id);
        outputs.add("debug", format!("{material:#?}"));
        // The fault of this life may be a panic.
        let submitting = AssertUnwindSafe(process.engine.submit(operator(), &credential, material)).catch_unwind();
        if let Ok(outcome) = submitting.await {
            outputs.error("error", &outcome.unwrap_err());
        }
    }
}
