//! A webhook secret that the daemon makes: applications sign with the current one, and check with both while they change over.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::canaries::Canary;
use crate::support::confirmation_proof;
use crate::support::daemon::Daemon;
use crate::support::scanner::Scanner;
use crate::support::site::Site;
use crate::support::wire::{Ask, Events};

const HOOK: &str = "payments-webhook";

async fn installed() -> (Daemon, String) {
    let mut site = Site::new();
    site.rotation("still", "maxAge: 90d, overlap: 3s, spread: 1s");
    site.credential(HOOK, "webhook-secret", "production", "still");
    let token = site.application("payments-api", "production", &[HOOK], "lease: 60s");
    (Daemon::start(site).await, token)
}

/// The next document of the stream that this holds for.
async fn document(events: &mut Events, holds: impl Fn(&Value) -> bool) -> Value {
    let wanted = async {
        while let Some(event) = events.next().await {
            if event.name == "credential" {
                let document: Value = serde_json::from_str(&event.data).expect("an event carries a JSON document");
                if holds(&document) {
                    return document;
                }
            }
        }
        panic!("the stream ended");
    };
    tokio::time::timeout(Duration::from_secs(30), wanted).await.expect("the document comes")
}

fn secret(document: &Value) -> &str {
    document["fields"]["signing_secret"].as_str().expect("a text")
}

async fn confirm(daemon: &Daemon, token: &str, document: &Value) {
    let version = document["version"].as_str().expect("a text");
    let proof = confirmation_proof(secret(document), HOOK, version, "pod-1");
    let body = json!({"credential": HOOK, "version": version, "instance": "pod-1", "field": "signing_secret", "proof": proof}).to_string();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    let ask = Ask { method: "POST", path: "/v1/confirmations", headers: &headers, body: Some(body.as_bytes()) };
    assert_eq!(daemon.site.tcp().ask(ask).await.status, 204);
}

#[tokio::test]
async fn it_makes_the_first_one_itself_and_hands_out_the_previous_one_to_check_with() {
    let (mut daemon, token) = installed().await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    let mut events = Events::open(&daemon.site.tcp(), "/v1/events", &headers).await.expect("it connects").expect("it streams");
    let first = document(&mut events, |document| document["name"] == HOOK).await;
    assert!(secret(&first).starts_with("whsec_") && secret(&first).len() == "whsec_".len() + 44, "32 bytes in base64");
    assert!(first.get("previous").is_none());
    confirm(&daemon, &token, &first).await;
    let row = daemon.status(HOOK).await;
    assert_eq!((&row["phase"], &row["proof"]["verdict"], &row["endpoint"]), (&json!("steady"), &json!("match"), &Value::Null));

    daemon.cli(&["rotate", HOOK, "--wait"]).await.assert_code(0);
    let second = document(&mut events, |document| document["version"] != first["version"]).await;
    let previous = &second["previous"];
    assert_eq!((&previous["version"], &previous["fields"]), (&first["version"], &first["fields"]), "what signed before is checked with it");
    assert!(previous["valid_until"].as_str().is_some_and(|text| text.ends_with('Z')), "{previous}");
    assert_ne!(secret(&second), secret(&first));
    let read = daemon.site.tcp().get(&format!("/v1/credentials/{HOOK}"), &headers).await.json();
    assert_eq!(read, second, "a read gives the same document");

    // A restart in between changes nothing.
    daemon.kill().await;
    daemon.again().await;
    let mut events = Events::open(&daemon.site.tcp(), "/v1/events", &headers).await.expect("it connects").expect("it streams");
    let again = document(&mut events, |document| document["name"] == HOOK).await;
    assert_eq!((&again["version"], &again["previous"]["version"]), (&second["version"], &first["version"]));
    confirm(&daemon, &token, &again).await;
    let after = document(&mut events, |document| document.get("previous").is_none()).await;
    assert_eq!(after["version"], second["version"]);
    assert!(after["revision"].as_u64() > second["revision"].as_u64());

    daemon.cli(&["audit", "verify"]).await.assert_code(0);
    let canaries = [&first, &second].map(|document| Canary::after("webhook secret", "whsec_", secret(document)));
    let scanner = Scanner::new(&canaries);
    for (path, bytes) in daemon.logs().into_iter().chain(daemon.site.data_files()) {
        let leaks = scanner.scan(&path.display().to_string(), &bytes);
        assert!(leaks.is_empty(), "{leaks:#?}");
    }
}
