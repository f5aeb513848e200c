//! Against a real OAuth server: enrol, rotate, push, confirm, and the old client is gone; twice in a row.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::canaries::Canary;
use crate::support::confirmation_proof;
use crate::support::daemon::Daemon;
use crate::support::oidc::Oidc;
use crate::support::scanner::Scanner;
use crate::support::site::Site;
use crate::support::wire::{Ask, Events, Target};

const CREDENTIAL: &str = "oauth-sandbox";

struct Client {
    id: String,
    secret: String,
    version: String,
}

/// The next version on the stream, which must not be one of `known`, and nothing but the two fields.
async fn next_version(events: &mut Events, known: &[Client]) -> Client {
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

async fn confirm(target: &Target, token: &str, client: &Client) {
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
    let names = ["client_id", "client_secret", "registration_access_token", "registration_client_uri"];
    let submitted: serde_json::Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), first[*name].clone())).collect();
    daemon.submit(CREDENTIAL, &Value::Object(submitted)).await;

    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    let mut events = Events::open(&daemon.site.tcp(), "/v1/events", &headers).await.expect("it answers").expect("a stream");
    let mut clients = vec![next_version(&mut events, &[]).await];
    assert_eq!(clients[0].id, first["client_id"].as_str().expect("an id"));
    confirm(&daemon.site.tcp(), &bearer, &clients[0]).await;

    for _ in 0..2 {
        daemon.cli(&["rotate", CREDENTIAL]).await.assert_code(0);
        let new = next_version(&mut events, &clients).await;
        let old = clients.last().expect("there is an old one");
        assert_ne!(new.id, old.id, "the server makes a new client");
        assert_eq!(server.token_status(&new.id, &new.secret).await, 200);
        assert_eq!(server.token_status(&old.id, &old.secret).await, 200, "nobody has confirmed the new one yet");
        confirm(&daemon.site.tcp(), &bearer, &new).await;
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
        clients.push(new);
        wait_till_steady(&daemon).await;
    }

    let mut canaries: Vec<Canary> = clients.iter().map(|client| Canary::whole("a client's secret", &client.secret)).collect();
    let management = first["registration_access_token"].as_str().expect("a token");
    canaries.push(Canary::whole("the registration access token", management));
    let scanner = Scanner::new(&canaries);
    for (path, bytes) in daemon.logs().into_iter().chain(daemon.site.data_files()) {
        let leaks = scanner.scan(&path.display().to_string(), &bytes);
        assert!(leaks.is_empty(), "{leaks:#?}");
    }
    daemon.cli(&["audit", "verify"]).await.assert_code(0);
}

async fn wait_till_steady(daemon: &Daemon) {
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
