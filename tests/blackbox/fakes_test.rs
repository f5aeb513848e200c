//! The fakes themselves: what a wrong fake lets through, no test above it can see.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::dinie::faults::{Call, Fault};
use crate::support::dinie::truth::{Key, Owner};
use crate::support::dinie::{Dinie, Options};
use crate::support::wire::{Answer, Ask, Target};

async fn call(fake: &Dinie, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Option<Answer> {
    let ask = Ask { method, path, headers, body };
    Target::Tcp(fake.address).raw(&ask.bytes()).await.expect("the connection ends")
}

async fn token_reply(fake: &Dinie, id: &str, secret: &str) -> Option<Answer> {
    let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let headers = [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    call(fake, "POST", "/v3/auth/token", &headers, Some(b"grant_type=client_credentials")).await
}

async fn bearer(fake: &Dinie, key: &Key) -> String {
    let answer = token_reply(fake, &key.client_id, &key.secret).await.expect("an answer");
    assert_eq!(answer.status, 200);
    format!("Bearer {}", answer.json()["access_token"].as_str().expect("a token"))
}

async fn create(fake: &Dinie, token: &str, idempotency: &str) -> Option<Answer> {
    let body = json!({"name": "kw-test"}).to_string();
    let headers = [("authorization", token), ("x-idempotency-key", idempotency)];
    call(fake, "POST", "/v3/auth/credentials", &headers, Some(body.as_bytes())).await
}

async fn begun(options: Options) -> (std::sync::Arc<Dinie>, Key, String) {
    let fake = Dinie::start(options).await;
    let key = fake.seed_key("first", Owner::Enrolled);
    let token = bearer(&fake, &key).await;
    (fake, key, token)
}

#[tokio::test]
async fn a_key_is_made_listed_used_and_revoked() {
    let (fake, key, token) = begun(Options { page_limit: 2, ..Options::new("sandbox") }).await;
    for name in ["other one", "other two"] {
        fake.seed_key(name, Owner::Foreign);
    }
    let made = create(&fake, &token, "a").await.expect("an answer");
    assert_eq!(made.status, 201);
    assert!(made.header("date").is_some() && made.header("x-ratelimit-remaining").is_some());
    let made = made.json();
    let text = |name: &str| made[name].as_str().expect("a string").to_owned();
    assert!(text("client_id").starts_with("dinie_ci_test_") && text("client_secret").len() == 14 + 32);

    let mut names = Vec::new();
    let mut path = "/v3/auth/credentials?limit=50".to_owned();
    loop {
        let page = call(&fake, "GET", &path, &[("authorization", &token)], None).await.expect("a page").json();
        let rows = page["data"].as_array().expect("rows").clone();
        assert!(rows.len() <= 2 && rows.iter().all(|row| row.get("client_secret").is_none()));
        names.extend(rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()));
        if page["has_more"] != Value::Bool(true) {
            break;
        }
        let last = rows.last().expect("a row")["id"].as_str().expect("an id").to_owned();
        path = format!("/v3/auth/credentials?limit=50&starting_after={last}");
    }
    assert_eq!(names, ["first", "other one", "other two", "kw-test"]);

    let path = format!("/v3/auth/credentials/{}", key.client_id);
    let gone = call(&fake, "DELETE", &path, &[("authorization", &token)], None).await.expect("an answer");
    assert_eq!(gone.status, 204);
    assert!(!fake.alive(&key.secret) && fake.accepts(&text("client_secret"), Instant::now()));
    assert_eq!(token_reply(&fake, &key.client_id, &key.secret).await.expect("an answer").status, 401);
    // Its token lives on, as at the real one; that it revoked itself is remembered.
    assert_eq!(create(&fake, &token, "b").await.expect("an answer").status, 201);
    let state = fake.lock();
    assert_eq!(state.truth.key(&key.client_id).and_then(|key| key.revoked_by.clone()), Some(key.client_id.clone()));
    state.truth.assert_foreign_untouched();
    assert_eq!(state.truth.timeline.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [1, 1, 1, 2, 1, 2]);
}

#[tokio::test]
async fn idempotency_keys_replay_where_they_work() {
    for (idempotency, keys) in [(true, 2), (false, 3)] {
        let (fake, _, token) = begun(Options { idempotency, ..Options::new("sandbox") }).await;
        fake.lock().faults.next_time(Call::Create, Fault::LoseReply);
        assert!(create(&fake, &token, "same").await.is_none(), "the reply is lost on the wire");
        let made = create(&fake, &token, "same").await.expect("an answer").json();
        assert_eq!(fake.lock().truth.keys.len(), keys);
        assert!(fake.alive(made["client_secret"].as_str().expect("a secret")));
    }
}

#[tokio::test]
async fn new_keys_take_their_time_and_flap() {
    let options = Options { propagation: Duration::from_millis(700), ..Options::new("production") };
    for flapping in [false, true] {
        let (fake, _, token) = begun(Options { flapping, ..options.clone() }).await;
        let made = create(&fake, &token, "a").await.expect("an answer").json();
        let text = |name: &str| made[name].as_str().expect("a string").to_owned();
        let (id, secret) = (text("client_id"), text("client_secret"));
        let mut statuses = Vec::new();
        for _ in 0..2 {
            statuses.push(token_reply(&fake, &id, &secret).await.expect("an answer").status);
        }
        assert_eq!(statuses, if flapping { [401, 200] } else { [401, 401] });
        assert!(!fake.accepts(&secret, Instant::now()));
        tokio::time::sleep(Duration::from_millis(750)).await;
        assert!(fake.accepts(&secret, Instant::now()));
        assert_eq!(token_reply(&fake, &id, &secret).await.expect("an answer").status, 200);
    }
}

#[tokio::test]
async fn slots_are_refused_or_evict() {
    let (fake, key, token) = begun(Options { slots: Some(1), ..Options::new("sandbox") }).await;
    assert_eq!(create(&fake, &token, "a").await.expect("an answer").status, 422);
    assert!(fake.alive(&key.secret));
    let (fake, key, token) = begun(Options { slots: Some(1), evicts: true, ..Options::new("sandbox") }).await;
    assert_eq!(create(&fake, &token, "a").await.expect("an answer").status, 201);
    assert!(!fake.alive(&key.secret));
}

#[tokio::test]
async fn each_fault_is_what_it_says() {
    let (fake, key, token) = begun(Options::new("sandbox")).await;
    let next = |fault| fake.lock().faults.next_time(Call::Token, fault);
    let reply = || token_reply(&fake, &key.client_id, &key.secret);
    next(Fault::Throttle { retry_after_seconds: 7 });
    let answer = reply().await.expect("an answer");
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("7")));
    next(Fault::EchoError);
    let answer = reply().await.expect("an answer");
    assert_eq!(answer.status, 500);
    assert!(String::from_utf8_lossy(&answer.body).contains("Basic "), "its headers are echoed");
    next(Fault::NotJson);
    assert!(serde_json::from_slice::<Value>(&reply().await.expect("an answer").body).is_err());
    next(Fault::NotUtf8);
    assert!(String::from_utf8(reply().await.expect("an answer").body).is_err());
    next(Fault::HugeBody);
    assert!(reply().await.expect("an answer").body.len() > 1024 * 1024);
    next(Fault::Redirect);
    assert!(reply().await.expect("an answer").header("location").is_some());
    next(Fault::DropRequest);
    assert!(reply().await.is_none());
    next(Fault::Slow(Duration::from_millis(300)));
    let start = Instant::now();
    assert_eq!(reply().await.expect("an answer").status, 200);
    assert!(start.elapsed() >= Duration::from_millis(300));

    fake.hang_after(0).await;
    assert_eq!(reply().await.expect("what changes nothing gets through").status, 200);
    let body = json!({"name": "kw-hung"}).to_string();
    let headers = [("authorization", token.as_str())];
    tokio::select! {
        answer = call(&fake, "POST", "/v3/auth/credentials", &headers, Some(body.as_bytes())) => {
            panic!("it was answered: {answer:?}");
        }
        reached = fake.reached() => assert_eq!(reached, Some(Call::Create)),
    }
    assert!(fake.lock().truth.keys.iter().any(|key| key.name == "kw-hung"), "the effect has happened");
}

#[tokio::test]
async fn random_faults_let_a_call_through_after_two() {
    let (fake, key, _) = begun(Options::new("sandbox")).await;
    fake.lock().faults.at_random(100, &[Fault::Throttle { retry_after_seconds: 1 }]);
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(token_reply(&fake, &key.client_id, &key.secret).await.expect("an answer").status);
    }
    assert_eq!(statuses, [429, 429, 200, 429, 429, 200]);
}

#[tokio::test]
async fn odd_secrets_are_known_to_the_scanner_as_they_were_minted() {
    let (fake, _, token) = begun(Options { odd_secrets: true, ..Options::new("sandbox") }).await;
    for number in 0..17 {
        create(&fake, &token, &number.to_string()).await.expect("an answer");
    }
    let canaries = fake.canaries();
    assert!(canaries.iter().any(|canary| canary.name == "Pem" && canary.cores.len() > 1));
    let scanner = crate::support::scanner::Scanner::new(&canaries);
    assert!(scanner.scan("frames", b"-----BEGIN PRIVATE KEY-----\n dinie_cs_live_ dinie_at_").is_empty());
    for key in &fake.lock().truth.keys {
        assert!(!scanner.scan("minted", key.secret.as_bytes()).is_empty());
    }
}
