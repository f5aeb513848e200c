//! Tokens of service accounts: what is read of their claims stands there, once and so, and nothing but a token has any.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keywright::domain::workload::Claims;

use crate::harness::json::Json;
use crate::harness::{JSON, Judged, Target, Verdict, broken};

const BOUND: &str = r#"{"iss":"https://kubernetes.default.svc","sub":"system:serviceaccount:payments:payments-api","aud":["keywright"],"iat":1700000000,"exp":1700003600,"kubernetes.io":{"namespace":"payments","pod":{"name":"api-1","uid":"5c0ee3a4"},"serviceaccount":{"name":"payments-api","uid":"a1"}}}"#;
const ONE: &str = r#"{"sub":"system:serviceaccount:a:b.c","aud":"keywright","exp":4000000000}"#;
const LEGACY: &str =
    r#"{"iss":"kubernetes/serviceaccount","sub":"system:serviceaccount:a:b","kubernetes.io/serviceaccount/namespace":"a"}"#;
const NODE: &str = r#"{"sub":"system:node:a:b","aud":["keywright"],"exp":4000000000}"#;

fn claims() -> Target {
    let corpus = [BOUND, ONE, LEGACY, NODE].map(|text| text.as_bytes().to_vec());
    let words =
        ["system:serviceaccount:", "\"aud\":\"vault\",", "\"exp\":1,", "\"sub\":\"system:serviceaccount:x:y\",", "[]", "null", "..", "A"];
    Target::new("claims", corpus.into(), &[JSON, &words])
}

fn token(payload: &[u8]) -> Vec<u8> {
    format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(payload)).into_bytes()
}

/// The one member of this name.
fn one<'a>(json: &'a Json, name: &str) -> Option<&'a Json> {
    let mut found = json.members()?.iter().filter(|(known, _)| known == name);
    let (_, value) = found.next()?;
    found.next().is_none().then_some(value)
}

fn text(json: Option<&Json>) -> Option<&str> {
    if let Some(Json::Text(text)) = json { Some(text) } else { None }
}

fn judge(read: impl Fn(&[u8]) -> Option<Claims>, payload: &[u8]) -> Judged {
    let Some(claims) = read(&token(payload)) else { return Ok(Verdict::Refused) };
    let json = Json::read(payload).ok_or("taken, and it is no JSON")?;
    let account = format!("system:serviceaccount:{}:{}", claims.account.namespace, claims.account.name);
    if text(one(&json, "sub")) != Some(account.as_str()) {
        return broken("the account isn't the one that stands there");
    }
    let audiences: Option<Vec<&str>> = match one(&json, "aud") {
        Some(Json::Array(items)) => items.iter().map(|item| text(Some(item))).collect(),
        other => text(other).map(|audience| vec![audience]),
    };
    if audiences.is_none_or(|audiences| audiences != claims.audiences) {
        return broken("the audiences aren't those that stand there");
    }
    if one(&json, "exp") != Some(&Json::Other) {
        return broken("it has no end, or two");
    }
    let pod = one(&json, "kubernetes.io").and_then(|cluster| one(cluster, "pod"));
    let names_pod = pod.is_some_and(|pod| text(one(pod, "name")).is_some() && text(one(pod, "uid")).is_some());
    if claims.is_of_pod != names_pod {
        return broken("whether it is of a pod isn't what stands there");
    }
    Ok(Verdict::Accepted)
}

#[test]
fn fuzz_claims() {
    claims().run(|input| judge(Claims::read, input));
}

#[test]
fn fuzz_claims_notices_faults() {
    let payload_of = |whole: &[u8]| URL_SAFE_NO_PAD.decode(whole.split(|byte| *byte == b'.').nth(1).unwrap()).unwrap();
    claims().notices("the last of two members counts", |input| {
        let lenient = |whole: &[u8]| {
            let value: serde_json::Value = serde_json::from_slice(&payload_of(whole)).ok()?;
            Claims::read(&token(value.to_string().as_bytes()))
        };
        judge(lenient, input)
    });
    claims().notices("a node passes for an account", |input| {
        let lenient = |whole: &[u8]| {
            let text = String::from_utf8(payload_of(whole)).ok()?.replace("system:node:", "system:serviceaccount:");
            Claims::read(&token(text.as_bytes()))
        };
        judge(lenient, input)
    });
}

fn tokens() -> Target {
    let corpus = [BOUND, ONE, LEGACY].map(|text| token(text.as_bytes()));
    Target::new("tokens", corpus.into(), &[&[".", "..", "=", "%", " ", "+", "/", "e30", "\u{0}", "é"]])
}

fn judge_token(read: impl Fn(&[u8]) -> Option<Claims>, input: &[u8]) -> Judged {
    if read(input).is_none() {
        return Ok(Verdict::Refused);
    }
    let parts: Vec<&[u8]> = input.split(|byte| *byte == b'.').collect();
    let is_part = |part: &&[u8]| !part.is_empty() && part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
    if parts.len() != 3 || !parts.iter().all(is_part) { broken("taken, and it isn't three parts") } else { Ok(Verdict::Accepted) }
}

#[test]
fn fuzz_tokens() {
    tokens().run(|input| judge_token(Claims::read, input));
}

#[test]
fn fuzz_tokens_notices_faults() {
    tokens().notices("a fourth part is passed over", |input| {
        let three = |whole: &[u8]| {
            let parts: Vec<&[u8]> = whole.split(|byte| *byte == b'.').take(3).collect();
            Claims::read(&parts.join(&b'.'))
        };
        judge_token(three, input)
    });
}
