//! Keys that only a person makes and removes: asked for, waited for across restarts, submitted wrongly and rightly, and closed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::confirmation_proof;
use crate::support::daemon::Daemon;
use crate::support::exposition::parse;
use crate::support::scanner::Scanner;
use crate::support::site::Site;
use crate::support::tap::Tap;
use crate::support::wire::{Ask, Events};
use crate::world::left_behind;

const KEY: &str = "tap-production";

struct World {
    daemon: Daemon,
    tap: Arc<Tap>,
    token: String,
    first: String,
}

impl World {
    async fn start(rotation: &str) -> World {
        let tap = Tap::start().await;
        let mut site = Site::new();
        for environment in ["sandbox", "production"] {
            site.provider("tap", environment, &tap.base_url());
        }
        site.rotation("quick", rotation);
        site.credential(KEY, "tap", "production", "quick");
        let token = site.application("shop", "production", &[KEY], "lease: 60s");
        let daemon = Daemon::start(site).await;
        let (first, public) = tap.make("live");
        daemon.submit(KEY, &fields(&first, &public)).await;
        World { daemon, tap, token, first }
    }

    async fn status(&self) -> Value {
        self.daemon.status(KEY).await
    }

    /// Waits until this holds of the credential's row.
    async fn until(&self, what: &str, limit: u64, holds: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let row = self.status().await;
            if holds(&row) {
                return row;
            }
            assert!(start.elapsed() < Duration::from_secs(limit), "not {what} in {limit} s: {row}\n{}", self.daemon.log_tail());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn fetch(&self) -> Value {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
        let answer = self.daemon.site.tcp().get(&format!("/v1/credentials/{KEY}"), &headers).await;
        assert_eq!(answer.status, 200);
        answer.json()
    }

    /// Takes up what is current, and says so. The two fields are one value.
    async fn take_up(&self) -> Value {
        let document = self.fetch().await;
        assert_paired(&document);
        let secret = document["fields"]["webhook_key"].as_str().expect("a text");
        let version = document["version"].as_str().expect("a text");
        let proof = confirmation_proof(secret, KEY, version, "pod-1");
        let body = json!({"credential": KEY, "version": version, "instance": "pod-1", "field": "webhook_key", "proof": proof}).to_string();
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
        let ask = Ask { method: "POST", path: "/v1/confirmations", headers: &headers, body: Some(body.as_bytes()) };
        assert_eq!(self.daemon.site.tcp().ask(ask).await.status, 204);
        document
    }

    /// Submits; the exit status, and what is on standard error.
    async fn submit(&self, secret: &str, public: &str) -> (Option<i32>, String) {
        let printed = self.daemon.cli_with(&["submit", KEY], fields(secret, public).to_string().as_bytes()).await;
        (printed.code(), printed.err())
    }

    fn audited(&self, action: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.daemon.site.path("data/audit.jsonl")).expect("the trail");
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|record| record.to_string().contains(&format!("\"{action}\""))).collect()
    }

    fn assert_closed_as(&self, closure: &str) {
        let records = self.audited("revoked");
        assert!(records.iter().any(|record| record.to_string().contains(closure)), "not {closure}: {records:?}");
    }

    async fn assert_silent(&self) {
        self.daemon.cli(&["audit", "verify"]).await.assert_code(0);
        left_behind(&self.daemon.site).assert_silent(&Scanner::new(&self.tap.canaries()));
    }
}

fn fields(secret: &str, public: &str) -> Value {
    json!({"secret_key": secret, "public_key": public})
}

fn assert_paired(document: &Value) {
    assert_eq!(document["fields"]["secret_key"], document["fields"]["webhook_key"], "all fields of one version, never a mix");
    assert_eq!(document["fields"]["secret_key"].as_str().map(|key| &key[..8]), Some("sk_live_"));
}

fn asks(row: &Value) -> Option<&str> {
    row["request"]["asks"].as_str()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_for_a_person_and_for_the_old_keys_removal() {
    let mut world = World::start("maxAge: 30s, overlap: 2s, spread: 1s").await;
    world.take_up().await;
    let row = world.until("asked for", 40, |row| asks(row) == Some("new-key")).await;
    assert_eq!((&row["phase"], &row["reason"]), (&json!("planned"), &json!("manual-request")));
    let steps = row["request"]["instructions"].to_string();
    assert!(steps.contains("dashboard of Tap Payments") && steps.contains("keywright submit tap-production"), "{steps}");
    let text = world.daemon.cli(&["status", KEY]).await.out();
    assert!(text.contains("a person is asked") && text.contains("1. In the dashboard"), "{text}");

    world.daemon.kill().await;
    world.daemon.again().await;
    let again = world.status().await;
    assert_eq!(again["request"]["opened_at"], row["request"]["opened_at"], "it waits across a restart");

    // Wrongly: a key of the sandbox, which is sent nowhere, and one that is dead.
    let (of_the_sandbox, public) = world.tap.make("test");
    let (code, reason) = world.submit(&of_the_sandbox, &public).await;
    assert!(code == Some(1) && reason.contains("environment"), "{reason}");
    assert_eq!(world.tap.was_shown(&of_the_sandbox), 0);
    let (dead, public) = world.tap.make("live");
    world.tap.remove(&dead);
    let (code, reason) = world.submit(&dead, &public).await;
    assert!(code == Some(1) && reason.contains("isn't valid"), "{reason}");
    let told = || world.audited("manual-reminded").iter().map(Value::to_string).collect::<Vec<String>>();
    world.until("overdue", 20, |_| told().iter().any(|record| record.contains("new-key: overdue"))).await;
    // What was looked at last may be older than the record.
    let row = world.status().await;
    assert_eq!((asks(&row), row["request"]["urgency"].as_str()), (Some("new-key"), Some("overdue")), "still open: {row}");
    let metrics = world.daemon.site.socket().get("/metrics", &[]).await;
    let metrics = String::from_utf8(metrics.body).expect("text");
    let of_it = [("credential", KEY), ("asks", "new-key"), ("urgency", "overdue")];
    assert_eq!(parse(&metrics)["keywright_manual_requests"].value("", &of_it), Some(1.0), "{metrics}");
    assert!(parse(&metrics)["keywright_manual_request_seconds"].value("", &of_it).is_some_and(|left| left < 0.0));
    // A busy machine may pass a level by; none is told twice, restart or not.
    let levels = ["new-key: soon", "new-key: urgent", "new-key: overdue"];
    let counts = levels.map(|level| told().iter().filter(|record| record.contains(level)).count());
    assert!(counts.iter().all(|count| *count <= 1) && row["request"]["reminders"] == counts.iter().sum::<usize>(), "{counts:?} in {row}");

    // Rightly. A stream sees both fields change together.
    let bearer = format!("Bearer {}", world.token);
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    let mut events = Events::open(&world.daemon.site.tcp(), "/v1/events", &headers).await.expect("it connects").expect("it streams");
    let (second, public) = world.tap.make("live");
    let (code, reason) = world.submit(&second, &public).await;
    assert_eq!(code, Some(0), "{reason}");
    let document = loop {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await.expect("in time").expect("it goes on");
        if event.name != "credential" {
            continue;
        }
        let document: Value = serde_json::from_str(&event.data).expect("a document");
        assert_paired(&document);
        if document["fields"]["secret_key"] == second.as_str() {
            break document;
        }
    };
    assert_eq!(document["previous"]["fields"], json!({"webhook_key": world.first}), "webhooks are checked with both");
    world.take_up().await;

    // The old one lives on at first.
    let row = world.until("asked to remove it", 20, |row| asks(row) == Some("old-key-removal")).await;
    assert_eq!(row["phase"], "retired");
    let shown = world.tap.was_shown(&world.first);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(world.tap.was_shown(&world.first) > shown, "it is looked at");
    assert_eq!((world.status().await["phase"].clone(), world.audited("revoked").len()), (json!("retired"), 0), "it lives");
    world.daemon.kill().await;
    world.daemon.again().await;
    world.tap.remove(&world.first);
    world.until("closed", 25, |row| asks(row) != Some("old-key-removal")).await;
    world.assert_closed_as("proved");
    assert!(world.tap.accepts(&second) && world.fetch().await["fields"]["secret_key"] == second.as_str());
    world.assert_silent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_asks_and_says_that_the_old_key_is_removed() {
    let world = World::start("maxAge: 90d, overlap: 2s, spread: 1s").await;
    world.take_up().await;
    let printed = world.daemon.cli(&["rotate", KEY]).await;
    printed.assert_code(0);
    assert!(printed.out().contains("In the dashboard of Tap Payments"), "{}", printed.out());
    let (second, public) = world.tap.make("live");
    assert_eq!(world.submit(&second, &public).await.0, Some(0));
    world.take_up().await;
    let row = world.until("asked to remove it", 20, |row| asks(row) == Some("old-key-removal")).await;
    let old = row["previous_version"].as_str().expect("the old version").to_owned();
    let printed = world.daemon.cli(&["revoke", KEY, "--version", &old, "--reason", "removed, as TICKET-7 says"]).await;
    printed.assert_code(1);
    assert!(printed.err().contains("still accepts"), "the provider knows better: {}", printed.err());
    assert_eq!(world.audited("revoked").len(), 0);
    world.daemon.cli(&["revoke", KEY, "--version", &old, "--force", "--reason", "it can't be removed before May"]).await.assert_code(0);
    world.until("closed", 10, |row| row["phase"] == "steady").await;
    world.assert_closed_as("reported");
    world.assert_silent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_be_asked_it_ends_all_the_same() {
    let mut site = Site::new();
    site.rotation("quick", "maxAge: 40s, overlap: 2s, spread: 1s");
    site.credential("checkout-sandbox", "checkout", "sandbox", "quick");
    let daemon = Daemon::start(site).await;
    for key in ["sk_sbox_aaaabbbbccccdddd", "sk_sbox_eeeeffffgggghhhh"] {
        daemon.submit("checkout-sandbox", &json!({"secret_key": key})).await;
    }
    let start = Instant::now();
    let mut asked = false;
    loop {
        let row = daemon.status("checkout-sandbox").await;
        asked |= asks(&row) == Some("old-key-removal");
        if row["phase"] == "steady" {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(25), "{row}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(asked, "a person was asked before");
    let text = std::fs::read_to_string(daemon.site.path("data/audit.jsonl")).expect("the trail");
    assert!(text.lines().any(|line| line.contains("\"revoked\"") && line.contains("unproved")), "{text}");
}
