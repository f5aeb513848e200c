//! Against a real OAuth server: enrol, rotate, push, confirm, and the old client is gone; twice in a row, and where another
//! credential signs the registration.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::canaries::Canary;
use crate::support::confirmation_proof;
use crate::support::daemon::Daemon;
use crate::support::oidc::Oidc;
use crate::support::scanner::Scanner;
use crate::support::site::Site;
use crate::support::wire::{Ask, Events, Target};

pub(super) const CREDENTIAL: &str = "oauth-sandbox";

pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) version: String,
}

/// The next version on the stream, which must not be one of `known`, and nothing but the two fields.
pub(super) async fn next_version(events: &mut Events, known: &[Client]) -> Client {
    for _ in 0..20 {
        let event = events.wait_for("credential", Duration::from_secs(40)).await.expect("a new version is pushed");
        let document: Value = serde_json::from_str(&event.data).expect("JSON");
        let fields = document["fields"].as_object().expect("fields");
        let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["client_id", "client_secret"], "management fields are never served");
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let version = text(&document["version"]);
        if known.iter().all(|client| client.version != version) {
            return Client { id: text(&fields["client_id"]), secret: text(&fields["client_secret"]), version };
        }
    }
    panic!("the same version again and again");
}

pub(super) async fn confirm(target: &Target, token: &str, client: &Client) {
    let proof = confirmation_proof(&client.secret, CREDENTIAL, &client.version, "pod-1");
    let body = json!({
        "credential": CREDENTIAL,
        "version": client.version,
        "instance": "pod-1",
        "field": "client_secret",
        "proof": proof,
    })
    .to_string();
    let headers = [("authorization", token), ("keywright-instance", "pod-1")];
    let ask = Ask { method: "POST", path: "/v1/confirmations", headers: &headers, body: Some(body.as_bytes()) };
    let answer = target.ask(ask).await;
    assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_servers_client_is_rotated_twice() {
    let server = Oidc::start().await;
    let first = server.register().await;
    let mut site = Site::new();
    site.provider("oauth-registration", "sandbox", &server.issuer);
    site.rotation("still", "maxAge: 90d, overlap: 1s, spread: 1s");
    site.credential(CREDENTIAL, "oauth-registration", "sandbox", "still");
    let token = site.application("payments", "sandbox", &[CREDENTIAL], "lease: 1s");
    let daemon = Daemon::start(site).await;
    daemon.submit(CREDENTIAL, &fields_of(&first)).await;

    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    let mut events = Events::open(&daemon.site.tcp(), "/v1/events", &headers).await.expect("it answers").expect("a stream");
    let mut clients = vec![next_version(&mut events, &[]).await];
    assert_eq!(clients[0].id, first["client_id"].as_str().expect("an id"));
    confirm(&daemon.site.tcp(), &bearer, &clients[0]).await;

    for _ in 0..2 {
        daemon.cli(&["rotate", CREDENTIAL]).await.assert_code(0);
        let new = next_version(&mut events, &clients).await;
        takes_over(&daemon, &server, &bearer, clients.last().expect("there is an old one"), &new).await;
        clients.push(new);
        wait_till_steady(&daemon).await;
    }

    let management = first["registration_access_token"].as_str().expect("a token");
    keeps_secrets(&daemon, &clients, &[("the registration access token", management)]);
    daemon.cli(&["audit", "verify"]).await.assert_code(0);
}

/// Both work until the new one is confirmed; then the old one dies.
pub(super) async fn takes_over(daemon: &Daemon, server: &Oidc, bearer: &str, old: &Client, new: &Client) {
    assert_ne!(new.id, old.id, "the server makes a new client");
    assert_eq!(server.token_status(&new.id, &new.secret).await, 200);
    assert_eq!(server.token_status(&old.id, &old.secret).await, 200, "nobody has confirmed the new one yet");
    confirm(&daemon.site.tcp(), bearer, new).await;
    let mut status = 200;
    for _ in 0..100 {
        status = server.token_status(&old.id, &old.secret).await;
        if status != 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(status, 401, "the old client lives on:\n{}", daemon.log_tail());
    assert_eq!(server.token_status(&new.id, &new.secret).await, 200);
}

/// No secret of these clients, and none of the others, stands in what the daemon wrote.
pub(super) fn keeps_secrets(daemon: &Daemon, clients: &[Client], others: &[(&str, &str)]) {
    let secrets = clients.iter().map(|client| ("a client's secret", client.secret.as_str()));
    let canaries: Vec<Canary> = secrets.chain(others.iter().copied()).map(|(what, value)| Canary::whole(what, value)).collect();
    let scanner = Scanner::new(&canaries);
    for (path, bytes) in daemon.logs().into_iter().chain(daemon.site.data_files()) {
        let leaks = scanner.scan(&path.display().to_string(), &bytes);
        assert!(leaks.is_empty(), "{leaks:#?}");
    }
}

/// The fields of a client, as they are submitted.
pub(super) fn fields_of(client: &Value) -> Value {
    let names = ["client_id", "client_secret", "registration_access_token", "registration_client_uri"];
    Value::Object(names.iter().map(|name| ((*name).to_owned(), client[*name].clone())).collect())
}

const GUARD: &str = "iat-9Vt2Kx7Qm4Rz8Lw1Np6Yc3Hd5Jb0Sg";
const ADMINISTRATOR: &str = "oauth-registrar";

/// A server that registers nobody without [`GUARD`], and a daemon whose client is registered with another credential.
async fn guarded() -> (Oidc, Daemon, Value, String) {
    let server = Oidc::guarded(GUARD).await;
    let (status, refused) = server.try_to_register(None).await;
    assert_eq!(status, 401, "without the token nobody registers: {refused}");
    let (status, refused) = server.try_to_register(Some("iat-of-somebody-else-entirely")).await;
    assert_eq!(status, 401, "nor with another one: {refused}");
    let (status, first) = server.try_to_register(Some(GUARD)).await;
    assert_eq!(status, 201, "{first}");
    let mut site = Site::new();
    site.provider("oauth-registration", "sandbox", &server.issuer);
    site.rotation("still", "maxAge: 90d, overlap: 1s, spread: 1s");
    site.credential(ADMINISTRATOR, "oauth-initial-access", "sandbox", "still");
    let administered = format!("provider: oauth-registration, environment: sandbox, rotation: still, administeredBy: {ADMINISTRATOR}");
    site.document("Credential", CREDENTIAL, &administered);
    let token = site.application("payments", "sandbox", &[CREDENTIAL], "lease: 1s");
    (server, Daemon::start(site).await, first, format!("Bearer {token}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_another_credential_registers_is_rotated() {
    let (server, daemon, first, bearer) = guarded().await;
    daemon.submit(CREDENTIAL, &fields_of(&first)).await;
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    let mut events = Events::open(&daemon.site.tcp(), "/v1/events", &headers).await.expect("it answers").expect("a stream");
    let mut clients = vec![next_version(&mut events, &[]).await];
    confirm(&daemon.site.tcp(), &bearer, &clients[0]).await;

    // The same rotation waits until the administering credential is there.
    daemon.cli(&["rotate", CREDENTIAL]).await.assert_code(0);
    wait_for_problem(&daemon, "administrator-missing").await;
    daemon.submit(ADMINISTRATOR, &json!({"initial_access_token": GUARD})).await;
    let new = next_version(&mut events, &clients).await;
    takes_over(&daemon, &server, &bearer, clients.last().expect("there is an old one"), &new).await;
    clients.push(new);
    wait_till_steady(&daemon).await;

    keeps_secrets(&daemon, &clients, &[("the initial access token", GUARD)]);
    let headers = [("authorization", bearer.as_str())];
    let read = Ask { method: "GET", path: &format!("/v1/credentials/{ADMINISTRATOR}"), headers: &headers, body: None };
    assert_eq!(daemon.site.tcp().ask(read).await.status, 403, "no application reads what administers");
    daemon.cli(&["audit", "verify"]).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_initial_access_token_leaves_the_old_key_alive_until_a_right_one_comes() {
    let (server, daemon, first, bearer) = guarded().await;
    let wrong = "iat-of-somebody-else-7Hs3Wq9Zk2";
    daemon.submit(ADMINISTRATOR, &json!({"initial_access_token": wrong})).await;
    daemon.submit(CREDENTIAL, &fields_of(&first)).await;
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    let mut events = Events::open(&daemon.site.tcp(), "/v1/events", &headers).await.expect("it answers").expect("a stream");
    let mut clients = vec![next_version(&mut events, &[]).await];
    confirm(&daemon.site.tcp(), &bearer, &clients[0]).await;

    daemon.cli(&["rotate", CREDENTIAL]).await.assert_code(0);
    wait_for_problem(&daemon, "administrator-refused").await;
    // Some more refusals, each after a longer wait: more than what a refused key of its own would be believed after.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let codes = problems(&daemon).await;
    assert!(codes.contains(&"administrator-refused".to_owned()), "{codes:?}");
    assert!(!codes.iter().any(|code| code == "current-refused" || code == "possible-orphan"), "{codes:?}");
    assert_eq!(server.token_status(&clients[0].id, &clients[0].secret).await, 200, "the old key lives");
    assert_eq!(daemon.status(CREDENTIAL).await["version"], clients[0].version.as_str());

    daemon.submit(ADMINISTRATOR, &json!({"initial_access_token": GUARD})).await;
    let new = next_version(&mut events, &clients).await;
    takes_over(&daemon, &server, &bearer, &clients[0], &new).await;
    clients.push(new);
    wait_till_steady(&daemon).await;
    keeps_secrets(&daemon, &clients, &[("the initial access token", GUARD), ("the wrong token", wrong)]);
}

/// The problems that `status` tells of the client.
async fn problems(daemon: &Daemon) -> Vec<String> {
    let status = daemon.cli(&["status", CREDENTIAL, "--json"]).await.json();
    let problems = status["problems"].as_array().expect("a list");
    problems.iter().map(|problem| problem["code"].as_str().expect("a code").to_owned()).collect()
}

pub(super) async fn wait_for_problem(daemon: &Daemon, code: &str) {
    for _ in 0..100 {
        if problems(daemon).await.iter().any(|known| known == code) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("`{code}` isn't told: {:?}\n{}", problems(daemon).await, daemon.log_tail());
}

pub(super) async fn wait_till_steady(daemon: &Daemon) {
    for _ in 0..100 {
        if daemon.status(CREDENTIAL).await["phase"] == "steady" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the rotation stays open: {}", daemon.status(CREDENTIAL).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_itself_answers_as_the_tests_expect() {
    let server = Oidc::start().await;
    let client = server.register().await;
    let text = |name: &str| client[name].as_str().expect("a string").to_owned();
    assert_eq!(server.token_status(&text("client_id"), &text("client_secret")).await, 200);
    assert_eq!(server.token_status(&text("client_id"), "not-its-secret").await, 401);
    assert_eq!(server.delete(&client).await, 204);
    assert_eq!(server.token_status(&text("client_id"), &text("client_secret")).await, 401);
}
