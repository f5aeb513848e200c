//! Replies of providers that were changed, in bytes and on the wire: a key is minted only if all of it stands there, and nothing
//! that stands there is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::super::check::usable_token;
use super::super::create::minted;
use super::super::list::Page;
use super::super::refusal;
use super::super::reply::{Reply, time};
use super::super::request::SignedBy;
use super::super::transport::parse;
use super::raw::{Answer, Raw, json, reply};
use super::{NEW_SECRET, SECRET, TOKEN, acting, issuer, request};
use crate::domain::material::{Material, Secret};
use crate::domain::provider::{ListedKey, Meaning, Provider};
use crate::fuzz::{JSON, Judged, Target, Verdict, broken, tells};
use crate::issuers::{Issuer, IssuerError, Minted, fixtures};

const MANAGEMENT: &str = "dinie_rat_Hs8LpQ2wEr6TyU4i";

fn words() -> Vec<&'static str> {
    let mut words = vec![
        "client_id",
        "client_secret",
        "\"client_secret\":\"\",",
        "\"client_secret\":\"<redacted>\",",
        "\"****\"",
        "\"[REDACTED]\"",
        "\"changeme\"",
        "\"  \"",
        "\"null\"",
        "data",
        "status",
        "active",
        "revoked",
        "has_more",
        "access_token",
        "name",
        "expires_at",
        "created_at",
        "error",
        "invalid_client",
        "201",
        "200",
        "204",
        "401",
        "403",
        "404",
        "409",
        "422",
        "429",
        "500",
        "302",
        "retry-after: 3\n",
        "retry-after: 99999999999\n",
        "date: Fri, 15 Jan 2027 08:00:00 GMT\n",
        "x-ratelimit-reset: 12\n",
        "x-ratelimit-remaining: -1\n",
        "x-ratelimit-limit: 1e9\n",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "1800000021",
        "inf",
    ];
    words.extend([SECRET, NEW_SECRET, TOKEN]);
    words
}

fn minted_reply() -> String {
    format!("{{\"client_id\":\"dinie_ci_test_new\",\"client_secret\":\"{NEW_SECRET}\",\"created_at\":1800000000,\"expires_at\":null}}")
}

fn registered() -> String {
    format!(
        "{{\"client_id\":\"s6BhdRkqt3\",\"client_secret\":\"{NEW_SECRET}\",\"registration_access_token\":\"{MANAGEMENT}\",\
         \"registration_client_uri\":\"http://127.0.0.1/reg/s6\",\"client_id_issued_at\":1800000000,\"client_secret_expires_at\":0}}"
    )
}

fn listed() -> String {
    let key = |id: &str, status: &str| {
        format!(
            "{{\"client_id\":\"{id}\",\"name\":\"kw-7-dinie-2-1\",\"status\":\"{status}\",\"created_at\":\"2027-01-15T08:00:00Z\",\"expires_at\":null}}"
        )
    };
    format!("{{\"data\":[{},{},{}],\"has_more\":false}}", key("a-1", "active"), key("a-2", "revoked"), key("17", "active"))
}

/// A status, headers, an empty line, a body.
fn replies() -> Target {
    let head = "date: Fri, 15 Jan 2027 08:00:00 GMT\nx-ratelimit-limit: 600\nx-ratelimit-remaining: 599\nx-ratelimit-reset: 1800000021\n";
    let token = format!("{{\"access_token\":\"{TOKEN}\",\"expires_in\":3600}}");
    let bodies = [
        (201, minted_reply()),
        (201, registered()),
        (200, listed()),
        (200, token),
        (401, format!("{{\"error\":\"invalid_client\",\"detail\":\"{SECRET}\"}}")),
    ];
    let others = [(429, "{}".to_owned()), (204, String::new()), (500, SECRET.to_owned())];
    let corpus = bodies.into_iter().chain(others).map(|(status, body)| format!("{status}\n{head}retry-after: 3\n\n{body}").into_bytes());
    Target::new("replies", corpus.collect(), &[JSON, &words()])
}

fn reply_of(input: &[u8]) -> Option<(Reply, Vec<u8>)> {
    let at = input.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, body) = (std::str::from_utf8(&input[..at]).ok()?, &input[at + 2..]);
    let mut lines = head.lines();
    let status = lines.next()?.parse().ok().filter(|status| (100..1_000).contains(status))?;
    let pairs = lines.filter_map(|line| line.split_once(": "));
    let header = |(name, value): (&str, &str)| Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?));
    let headers: HeaderMap = pairs.filter_map(header).collect();
    Some((Reply { status, headers, body: parse(body) }, body.to_vec()))
}

/// What is certainly no value, by a rule of our own (I12).
fn is_no_value(value: &Secret) -> bool {
    let text = value.expose_str().unwrap_or_default();
    let marks = ["", "null", "none", "redacted", "[redacted]", "<redacted>", "changeme", "placeholder", "secret", "password"];
    text.trim() != text || text.contains("****") || text.len() > 65_536 || marks.contains(&text.to_ascii_lowercase().as_str())
}

/// Nothing of ours, and nothing of what came back.
fn told_of(error: &IssuerError, body: &[u8]) -> Option<String> {
    let said = format!("{error} {error:?}");
    let theirs = serde_json::from_slice::<Value>(body).ok();
    let fields = theirs
        .iter()
        .flat_map(|json| ["/client_secret", "/registration_access_token", "/access_token"].map(|pointer| json.pointer(pointer)));
    let theirs: Vec<&str> = fields.flatten().filter_map(Value::as_str).collect();
    let all = [SECRET, NEW_SECRET, TOKEN, MANAGEMENT].into_iter().chain(theirs);
    all.into_iter().any(|secret| tells(&said, secret)).then_some(said)
}

type Mint = fn(&Provider, &Value, &Material) -> Result<Minted, IssuerError>;

fn mint(provider: &Provider, json: &Value, acting: &Material) -> Result<Minted, IssuerError> {
    minted(provider.calls.create.as_ref().unwrap(), provider, json, acting, "an-operation")
}

/// All fields of the description, as they stand, and an id.
fn is_whole(provider: &Provider, minted: &Minted, json: &Value) -> bool {
    let create = provider.calls.create.as_ref().unwrap();
    let field = |(name, pointer): (_, &String)| {
        let (Some(value), Some(theirs)) = (minted.material.get(name), json.pointer(pointer).and_then(Value::as_str)) else { return false };
        value.expose() == theirs.as_bytes() && !is_no_value(value)
    };
    let id = json.pointer(create.key_id.as_ref().unwrap()).map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
    let is_id =
        |id: &String| id == minted.key_id.as_str() && id.bytes().all(|byte| byte.is_ascii_graphic()) && (1..=256).contains(&id.len());
    create.fields.iter().all(field) && id.as_ref().is_some_and(is_id)
}

fn judge_create(mint: Mint, provider: &Provider, reply: &Reply, body: &[u8]) -> Judged {
    let create = provider.calls.create.as_ref().unwrap();
    let target = fixtures::target(provider.clone(), "http://127.0.0.1:1");
    let outcome = match reply.meaning(&create.call.rules) {
        Meaning::Works => reply.json().and_then(|json| mint(provider, json, &acting())),
        other => Err(refusal(reply, other, &target, SignedBy::Acting)),
    };
    match outcome {
        Ok(minted) => {
            let json = serde_json::from_slice(body).map_err(|_| "a key out of what is no JSON")?;
            let whole = matches!(reply.status, 200..=299) && is_whole(provider, &minted, &json);
            if whole { Ok(Verdict::Accepted) } else { broken("a key counts as minted that isn't whole") }
        }
        Err(error) => told_of(&error, body).map_or(Ok(Verdict::Refused), |said| broken(format!("it is told: {said}"))),
    }
}

fn judge_list(read: impl Fn(&Value) -> Result<Vec<ListedKey>, IssuerError>, reply: &Reply, body: &[u8]) -> Judged {
    let Ok(json) = reply.json() else { return Ok(Verdict::Refused) };
    let keys = match read(json) {
        Ok(keys) => keys,
        Err(error) => return told_of(&error, body).map_or(Ok(Verdict::Refused), |said| broken(format!("it is told: {said}"))),
    };
    let items = json.pointer("/data").and_then(Value::as_array).ok_or("a list out of what is none")?;
    let same = |(key, item): (&ListedKey, &Value)| {
        let id = item["client_id"].as_str().map_or_else(|| item["client_id"].to_string(), str::to_owned);
        id == key.key_id.as_str() && key.alive == (item["status"] == "active") && key.name.as_deref() == item["name"].as_str()
    };
    let mut ids: Vec<&str> = keys.iter().map(|key| key.key_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let whole = keys.len() == items.len() && ids.len() == keys.len() && keys.iter().zip(items).all(same);
    if whole { Ok(Verdict::Accepted) } else { broken("the list isn't the one that came") }
}

fn read_page(json: &Value) -> Result<Vec<ListedKey>, IssuerError> {
    Page::read(fixtures::dinie().calls.list.as_ref().unwrap(), json).map(|page| page.keys)
}

/// Headers and tokens: bounded, printable, silent.
fn judge_rest(provider: &Provider, reply: &Reply, body: &[u8]) -> Judged {
    let limits = &provider.limits;
    if let IssuerError::Throttled { retry_after: Some(wait) } = reply.throttled(limits)
        && wait > Duration::from_secs(86_400)
    {
        return broken(format!("we are made to wait for {wait:?}"));
    }
    let (_quota, _date) = (reply.quota(limits), reply.date());
    let Ok(json) = reply.json() else { return Ok(Verdict::Refused) };
    let _times = ["/created_at", "/expires_at", "/client_secret_expires_at"].map(|pointer| time(json, Some(pointer)).is_ok());
    match usable_token(json, "/access_token") {
        Ok(token) if is_no_value(&token) || !token.expose().iter().all(u8::is_ascii_graphic) => broken("a token that can't be one is used"),
        Ok(_) => Ok(Verdict::Accepted),
        Err(error) => told_of(&error, body).map_or(Ok(Verdict::Refused), |said| broken(format!("it is told: {said}"))),
    }
}

fn judge(mint: Mint, read: impl Fn(&Value) -> Result<Vec<ListedKey>, IssuerError>, input: &[u8]) -> Judged {
    let Some((reply, body)) = reply_of(input) else { return Ok(Verdict::Refused) };
    let (dinie, oauth) = (fixtures::dinie(), fixtures::oauth_registration());
    let all = [
        judge_create(mint, &dinie, &reply, &body)?,
        judge_create(mint, &oauth, &reply, &body)?,
        judge_list(read, &reply, &body)?,
        judge_rest(&dinie, &reply, &body)?,
    ];
    Ok(if all.contains(&Verdict::Accepted) { Verdict::Accepted } else { Verdict::Refused })
}

#[test]
fn fuzz_replies() {
    replies().run(|input| judge(mint, read_page, input));
}

#[test]
fn fuzz_replies_notices_faults() {
    let lenient: Mint = |provider, json, acting| {
        let mut json = json.clone();
        if json.is_object() && json["client_secret"].is_null() {
            json["client_secret"] = NEW_SECRET.into();
        }
        mint(provider, &json, acting)
    };
    replies().notices("a secret that is missing is made up", |input| judge(lenient, read_page, input));
    let unchecked: Mint = |provider, json, acting| {
        let mut minted = mint(provider, json, acting);
        if let (Err(_), Some(text)) = (&minted, json["client_secret"].as_str()) {
            let mut whole = json.clone();
            whole["client_secret"] = NEW_SECRET.into();
            minted = mint(provider, &whole, acting);
            if let Ok(minted) = &mut minted {
                minted.material.insert(fixtures::field("client_secret"), Secret::new(text.as_bytes()));
            }
        }
        minted
    };
    replies().notices("placeholders are taken for values", |input| judge(unchecked, read_page, input));
    replies().notices("keys that can't be read are left out of the list", |input| {
        let partial = |json: &Value| {
            let mut json = json.clone();
            if let Some(items) = json.pointer_mut("/data").and_then(Value::as_array_mut) {
                items.retain(|item| item["client_id"].is_string() && item["status"].is_string());
            }
            read_page(&json)
        };
        judge(mint, partial, input)
    });
}

/// All that a server may send instead of an answer.
fn wire() -> Target {
    let throttled = json(429, &[("retry-after", "3"), ("date", "Fri, 15 Jan 2027 08:00:00 GMT")], SECRET);
    let chunked = format!(
        "HTTP/1.1 201 X\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        minted_reply().len(),
        minted_reply()
    );
    let bare = format!("HTTP/1.0 201 Created\r\n\r\n{}", minted_reply());
    let corpus = vec![
        json(201, &[], &minted_reply()),
        json(201, &[("etag", "x")], &minted_reply()),
        throttled,
        reply(500, &[], SECRET.as_bytes()),
        chunked.into_bytes(),
        bare.into_bytes(),
    ];
    let heads = [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "transfer-encoding: chunked\r\n",
        "content-length: 5\r\n",
        "content-encoding: gzip\r\n",
        "location: http://127.0.0.1:1/\r\n",
        "\r\n\r\n",
    ];
    Target::new("wire", corpus, &[JSON, &words(), &heads]).costing(6)
}

/// One server, and what it answers next to everything but requests for a token.
struct Server {
    runtime: tokio::runtime::Runtime,
    raw: Raw,
    next: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    fn new() -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let next = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&next);
        let answer = move |request: &str| (!request.contains("/auth/token")).then(|| Answer::Bytes(said.lock().unwrap().clone()));
        let raw = runtime.block_on(Raw::start(answer));
        Server { runtime, raw, next }
    }

    fn judge(&self, input: &[u8], told: impl Fn(IssuerError) -> IssuerError) -> Judged {
        input.clone_into(&mut self.next.lock().unwrap());
        let before = self.raw.requests().len();
        let call = async { issuer(Duration::from_secs(4)).create(&self.raw.target(), &acting(), &request()).await };
        let outcome = self.runtime.block_on(call);
        let sent = self.raw.requests()[before..].iter().filter(|text| text.starts_with("POST /v3/auth/credentials")).count();
        if sent != 1 {
            return broken(format!("the call was sent {sent} times"));
        }
        match outcome {
            Ok(minted) => {
                let values: Vec<bool> = ["client_id", "client_secret"]
                    .iter()
                    .map(|name| minted.material.get(&fixtures::field(name)).is_none_or(is_no_value))
                    .collect();
                if values.contains(&true) { broken("a key counts as minted that isn't whole") } else { Ok(Verdict::Accepted) }
            }
            Err(error) => told_of(&told(error), input).map_or(Ok(Verdict::Refused), |said| broken(format!("it is told: {said}"))),
        }
    }
}

#[test]
fn fuzz_wire() {
    let server = Server::new();
    wire().run(|input| server.judge(input, |error| error));
}

#[test]
fn fuzz_wire_notices_faults() {
    let server = Server::new();
    wire().notices("what a failing provider says is told", |input| server.judge(input, |_| IssuerError::Unclear(SECRET)));
}
