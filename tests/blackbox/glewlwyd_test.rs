//! Against Glewlwyd, where an update of a client kills its old secret at once: no policy may ask for an overlap there, and without one
//! the secret is replaced in place.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::canaries::Canary;
use crate::support::confirmation_proof;
use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::glewlwyd::Glewlwyd;
use crate::support::scanner::Scanner;
use crate::support::site::Site;
use crate::support::wire::{Ask, Events};

const CREDENTIAL: &str = "glewlwyd-sandbox";
const FIELDS: [&str; 4] = ["client_id", "client_secret", "registration_access_token", "registration_client_uri"];

fn installed(server: &Glewlwyd, rotation: &str) -> (Site, String) {
    let mut site = Site::new();
    site.provider("glewlwyd", "sandbox", &server.base);
    site.rotation("in-place", rotation);
    let spec = "provider: glewlwyd, environment: sandbox, rotation: in-place, variables: {scope: billing}";
    site.document("Credential", CREDENTIAL, spec);
    let token = site.application("payments", "sandbox", &[CREDENTIAL], "lease: 60s");
    (site, token)
}

async fn next_version(events: &mut Events, known: &[Value]) -> Value {
    let wanted = async {
        loop {
            let event = events.wait_for("credential", Duration::from_secs(60)).await.expect("a new version is pushed");
            let document: Value = serde_json::from_str(&event.data).expect("JSON");
            if known.iter().all(|older| older["version"] != document["version"]) {
                return document;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), wanted).await.expect("another version comes")
}

async fn status_of(server: &Glewlwyd, document: &Value) -> u16 {
    let field = |name: &str| document["fields"][name].as_str().expect("a text");
    server.token_status(field("client_id"), field("client_secret")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_that_asks_for_an_overlap_is_refused_with_the_reason() {
    let server = Glewlwyd::start().await;
    let (mut site, _) = installed(&server, "maxAge: 90d, overlap: 24h");
    site.write();
    let policies = site.path("policies");
    let path = policies.to_str().expect("a plain path");
    let printed = crate::support::daemon::keywright(site.folder(), &["check", path, "--json"], &[], b"").await;
    printed.assert_code(2);
    let problems = printed.json();
    let problem = &problems["problems"][0];
    assert_eq!((problems["problems"].as_array().map(Vec::len), &problem["code"]), (Some(1), &json!("no-overlap-possible")), "{problems}");
    let message = problem["message"].as_str().expect("a text");
    for part in ["`glewlwyd`", "`in-place`", "asks for 1d", "dies"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(problem["help"].as_str().is_some_and(|help| help.contains("overlap: 0s")), "{problem}");
    assert!(problem["file"].as_str().is_some_and(|file| file.ends_with("all.yaml")), "{problem}");
    assert!(problem["line"].as_u64() > Some(4) && problem["column"].as_u64() > Some(1), "the credential that joins the two: {problem}");

    // The default would be an overlap, too.
    site.forget_document("in-place");
    site.rotation("in-place", "maxAge: 90d");
    site.write();
    crate::support::daemon::keywright(site.folder(), &["check", path], &[], b"").await.assert_code(2);
    site.forget_document("in-place");
    site.rotation("in-place", "maxAge: 90d, overlap: 0s");
    let mut daemon = Daemon::start(site).await;
    daemon.cli(&["check"]).await.assert_code(0);

    // At a reload the last good policies stay in force, and the log says why.
    daemon.site.forget_document("in-place");
    daemon.site.rotation("in-place", "maxAge: 90d, overlap: 1h");
    daemon.reload();
    let told = || daemon.log_tail().contains("no overlap is possible, and policy `in-place` asks for 1h");
    assert!(eventually(Duration::from_secs(30), told).await, "{}", daemon.log_tail());
    let status = daemon.cli(&["status", "--json"]).await.json();
    let codes: Vec<&str> = status["problems"].as_array().expect("a list").iter().filter_map(|problem| problem["code"].as_str()).collect();
    assert!(codes.contains(&"policies-invalid"), "{codes:?}");
    assert_eq!(daemon.status(CREDENTIAL).await["phase"], "missing", "the credential is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_replaced_in_place_twice() {
    let server = Glewlwyd::start().await;
    let first = server.register().await;
    let (site, token) = installed(&server, "maxAge: 90d, overlap: 0s");
    let daemon = Daemon::start(site).await;
    let fields: Value = FIELDS.iter().map(|name| ((*name).to_owned(), first[*name].clone())).collect::<serde_json::Map<_, _>>().into();
    daemon.submit(CREDENTIAL, &fields).await;

    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    let mut events = Events::open(&daemon.site.tcp(), "/v1/events", &headers).await.expect("it answers").expect("a stream");
    let mut versions = vec![next_version(&mut events, &[]).await];
    for _ in 0..2 {
        let old = versions.last().expect("there is one").clone();
        assert_eq!(status_of(&server, &old).await, 200);
        daemon.cli(&["rotate", CREDENTIAL, "--wait"]).await.assert_code(0);
        let new = next_version(&mut events, &versions).await;
        assert_eq!(new["fields"]["client_id"], old["fields"]["client_id"], "the client stays");
        assert_ne!(new["fields"]["client_secret"], old["fields"]["client_secret"]);
        assert_eq!(status_of(&server, &new).await, 200, "the new secret works");
        assert_eq!(status_of(&server, &old).await, 403, "the old one is dead: nobody had confirmed anything yet");
        confirm(&daemon, &bearer, &new).await;
        versions.push(new);
        closes_as_proved(&daemon).await;
    }
    let rolled_back = daemon.cli(&["rollback", CREDENTIAL]).await;
    rolled_back.assert_code(1);

    let secrets =
        versions.iter().map(|document| Canary::whole("a client's secret", document["fields"]["client_secret"].as_str().expect("a text")));
    let management = first["registration_access_token"].as_str().expect("a text");
    let canaries: Vec<Canary> = secrets.chain([Canary::whole("the registration access token", management)]).collect();
    let scanner = Scanner::new(&canaries);
    for (path, bytes) in daemon.logs().into_iter().chain(daemon.site.data_files()) {
        let leaks = scanner.scan(&path.display().to_string(), &bytes);
        assert!(leaks.is_empty(), "{leaks:#?}");
    }
    daemon.cli(&["audit", "verify"]).await.assert_code(0);
}

/// Nobody is waited for, and the server itself says that the old secret is dead.
async fn closes_as_proved(daemon: &Daemon) {
    let closed = || async {
        let row = daemon.status(CREDENTIAL).await;
        row["phase"] == "steady" && row["previous_version"].is_null()
    };
    for _ in 0..300 {
        if closed().await {
            let trail = std::fs::read_to_string(daemon.site.path("data/audit.jsonl")).expect("the trail is read");
            let last = trail.lines().rev().find(|line| line.contains("\"revoked\"")).expect("the end of the old secret is on record");
            assert!(last.contains("proved"), "{last}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the rotation stays open: {}\n{}", daemon.status(CREDENTIAL).await, daemon.log_tail());
}

async fn confirm(daemon: &Daemon, bearer: &str, document: &Value) {
    let (version, secret) = (document["version"].as_str().expect("a text"), document["fields"]["client_secret"].as_str().expect("a text"));
    let proof = confirmation_proof(secret, CREDENTIAL, version, "pod-1");
    let body =
        json!({"credential": CREDENTIAL, "version": version, "instance": "pod-1", "field": "client_secret", "proof": proof}).to_string();
    let headers = [("authorization", bearer), ("keywright-instance", "pod-1")];
    let ask = Ask { method: "POST", path: "/v1/confirmations", headers: &headers, body: Some(body.as_bytes()) };
    let answer = daemon.site.tcp().ask(ask).await;
    assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
}
