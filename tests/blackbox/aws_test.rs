//! Whole rotations with AWS Secrets Manager as the store, on moto and on LocalStack, while boto3 looks at the value all the time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::oidc_test::{
    CREDENTIAL, Client, confirm, fields_of, keeps_secrets, next_version, takes_over, wait_for_problem, wait_till_steady,
};
use crate::proxy::{Fate, Proxy};
use crate::support::aws::{CREDENTIALS, LocalStack, Moto, Reader};
use crate::support::daemon::Daemon;
use crate::support::oidc::Oidc;
use crate::support::site::Site;
use crate::support::wire::{Ask, Events};

#[tokio::test(flavor = "multi_thread")]
async fn values_are_kept_on_moto() {
    let moto = Moto::start().await;
    // Its plain answer stays on the old version after a label moved; the stage is what a plain call means.
    rotated_twice(&moto.endpoint, "AWSCURRENT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_kept_on_localstack() {
    let localstack = LocalStack::start().await;
    rotated_twice(&localstack.endpoint, "plain").await;
}

/// A daemon whose store is there, with one client of a real OAuth server.
async fn installed(endpoint: &str, overlap: &str) -> (Oidc, Daemon, Value, String) {
    let server = Oidc::start().await;
    let first = server.register().await;
    let mut site = Site::new();
    site.store = format!("{{aws: {{endpoint: \"{endpoint}\", prefix: team/keywright}}}}");
    site.provider("oauth-registration", "sandbox", &server.issuer);
    // Waits are a twentieth of this at most: half a minute.
    site.rotation("still", &format!("maxAge: 10m, overlap: {overlap}, spread: 1s"));
    site.credential(CREDENTIAL, "oauth-registration", "sandbox", "still");
    let token = site.application("payments", "sandbox", &[CREDENTIAL], "lease: 1s");
    (server, Daemon::start_with(site, &CREDENTIALS).await, first, format!("Bearer {token}"))
}

async fn rotated_twice(endpoint: &str, stage: &str) {
    let (server, mut daemon, first, bearer) = installed(endpoint, "1s").await;
    let address = format!("team/keywright/sandbox/{CREDENTIAL}");
    let reader = Reader::start(endpoint, &address, stage);
    daemon.submit(CREDENTIAL, &fields_of(&first)).await;
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    let mut clients: Vec<Client> = Vec::new();
    for killed in [None, Some(false), Some(true)] {
        if killed.is_some() {
            daemon.cli(&["rotate", CREDENTIAL]).await.assert_code(0);
        }
        if killed == Some(true) {
            // Somewhere after the server's reply: lost before, nobody could tell what it made, for it keeps no list.
            while matches!(daemon.status(CREDENTIAL).await["phase"].as_str(), Some("steady" | "planned")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            daemon.kill().await;
            daemon.again().await;
        }
        let mut events = Events::open(&daemon.site.tcp(), "/v1/events", &headers).await.expect("it answers").expect("a stream");
        let pushed = tokio::time::timeout(Duration::from_secs(35), next_version(&mut events, &clients)).await;
        let Ok(new) = pushed else { panic!("{killed:?}: {}\n{}", daemon.status(CREDENTIAL).await, daemon.log_tail()) };
        match clients.last() {
            None => confirm(&daemon.site.tcp(), &bearer, &new).await,
            Some(old) => takes_over(&daemon, &server, &bearer, old, &new).await,
        }
        clients.push(new);
        wait_till_steady(&daemon).await;
    }
    saw_each_in_its_turn(reader, &clients).await;
    let management = first["registration_access_token"].as_str().expect("a token");
    keeps_secrets(&daemon, &clients, &[("the registration access token", management)]);
    daemon.cli(&["audit", "verify"]).await.assert_code(0);
}

/// A native reader saw nothing first, then each promoted value in its turn, and nothing else.
async fn saw_each_in_its_turn(reader: Reader, clients: &[Client]) {
    let (seen, looks) = reader.seen().await;
    assert!(looks > 20, "it looked {looks} times");
    let nothing = json!({"error": "ResourceNotFoundException"});
    let values: Vec<Value> = seen.iter().filter(|line| **line != nothing).map(value_of).collect();
    let promoted: Vec<Value> = clients.iter().map(|client| json!({"client_id": client.id, "client_secret": client.secret})).collect();
    assert_eq!(values, promoted, "each promoted value in its turn, and nothing else");
    assert!(seen.iter().skip_while(|line| **line == nothing).all(|line| line.get("value").is_some()), "once there, it is always there");
}

/// Five writes in a second, and of all calls some are lost after their effect, some fail, and some take seconds.
fn rough(mut written: Vec<Instant>) -> impl FnMut(usize, &str) -> Fate {
    move |number, name| {
        let reads = matches!(name, "DescribeSecret" | "GetSecretValue" | "ListSecrets");
        written.retain(|at| at.elapsed() < Duration::from_secs(1));
        if !reads && written.len() >= 5 {
            return Fate::Throttled;
        }
        if !reads {
            written.push(Instant::now());
        }
        match number {
            n if n % 17 == 7 => Fate::Delayed(Duration::from_secs(2)),
            n if n % 5 == 3 => Fate::AnswerLost,
            n if n % 4 == 2 => Fate::Fails,
            _ => Fate::Passes,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_end_well_in_rough_weather() {
    let moto = Moto::start().await;
    let proxy = Proxy::start(&moto.endpoint).await;
    proxy.judge(rough(Vec::new()));
    let (server, daemon, first, bearer) = installed(&proxy.endpoint, "1s").await;
    let reader = Reader::start(&moto.endpoint, &format!("team/keywright/sandbox/{CREDENTIAL}"), "AWSCURRENT");
    let fields = fields_of(&first).to_string();
    let mut refused = 0;
    while daemon.cli_with(&["submit", CREDENTIAL], fields.as_bytes()).await.code() != Some(0) {
        refused += 1;
        assert!(refused < 20, "{}", daemon.log_tail());
    }
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    let mut events = Events::open(&daemon.site.tcp(), "/v1/events", &headers).await.expect("it answers").expect("a stream");
    let mut clients = vec![next_version(&mut events, &[]).await];
    confirm(&daemon.site.tcp(), &bearer, &clients[0]).await;
    for _ in 0..2 {
        daemon.cli(&["rotate", CREDENTIAL]).await.assert_code(0);
        let new = next_version(&mut events, &clients).await;
        takes_over(&daemon, &server, &bearer, clients.last().expect("there is an old one"), &new).await;
        clients.push(new);
        wait_till_steady(&daemon).await;
    }
    saw_each_in_its_turn(reader, &clients).await;
    assert!(proxy.calls().len() > 60, "{} calls", proxy.calls().len());
    keeps_secrets(&daemon, &clients, &[]);
    daemon.cli(&["audit", "verify"]).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_waited_for() {
    let mut moto = Moto::start().await;
    let endpoint = moto.endpoint.clone();
    waited_for(&endpoint, async |there| if there { moto.again().await } else { moto.stop().await }).await;
}

/// Another process each time, with what the one before kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_localstack_that_is_restarted_is_waited_for() {
    let mut localstack = LocalStack::start().await;
    let endpoint = localstack.endpoint.clone();
    waited_for(&endpoint, async |there| if there { localstack.again().await } else { localstack.stop().await }).await;
}

/// While its store is away a rotation waits, over a crash too, and the old key lives and is served; when it is back, the rotation ends.
async fn waited_for(endpoint: &str, mut is_there: impl AsyncFnMut(bool)) {
    // What was kept is served for half of the overlap.
    let (server, mut daemon, first, bearer) = installed(endpoint, "12s").await;
    daemon.submit(CREDENTIAL, &fields_of(&first)).await;
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    let mut events = Events::open(&daemon.site.tcp(), "/v1/events", &headers).await.expect("it answers").expect("a stream");
    let old = next_version(&mut events, &[]).await;
    confirm(&daemon.site.tcp(), &bearer, &old).await;
    is_there(false).await;
    daemon.cli(&["rotate", CREDENTIAL]).await.assert_code(0);
    wait_for_problem(&daemon, "store-unavailable").await;
    let path = format!("/v1/credentials/{CREDENTIAL}");
    let served = daemon.site.tcp().ask(Ask { method: "GET", path: &path, headers: &headers, body: None }).await.json();
    assert!(served["stale"] == true && served["fields"]["client_secret"] == old.secret.as_str(), "the one that lives is served: {served}");
    assert_eq!(server.token_status(&old.id, &old.secret).await, 200, "the old key lives");
    // Another life finds the rotation open, and the store still away.
    daemon.kill().await;
    daemon.again().await;
    wait_for_problem(&daemon, "store-unavailable").await;
    is_there(true).await;
    let mut events = Events::open(&daemon.site.tcp(), "/v1/events", &headers).await.expect("it answers").expect("a stream");
    let known = [old];
    let new = next_version(&mut events, &known).await;
    takes_over(&daemon, &server, &bearer, &known[0], &new).await;
    wait_till_steady(&daemon).await;
    keeps_secrets(&daemon, &[new], &[("the first secret", &known[0].secret)]);
}

fn value_of(line: &Value) -> Value {
    let text = line["value"].as_str().unwrap_or_else(|| panic!("a native reader got {line}"));
    serde_json::from_str(text).expect("a flat object")
}
