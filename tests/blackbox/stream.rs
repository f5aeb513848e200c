//! The event stream: its format, its snapshot, its resumption, its end.

use std::time::Duration;

use serde_json::Value;

use crate::support::wire::Events;
use crate::world::{PRODUCTION, Plan, SANDBOX, World};

const SOON: Duration = Duration::from_secs(10);

async fn open(world: &World, path: &str, more: &[(&str, &str)]) -> Events {
    let token = format!("Bearer {}", world.production_token);
    let mut headers = vec![("authorization", token.as_str()), ("keywright-instance", "pod-1")];
    headers.extend_from_slice(more);
    match Events::open(&world.daemon.site.tcp(), path, &headers).await.expect("it answers") {
        Ok(events) => events,
        Err(answer) => panic!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn begins_with_a_snapshot_and_then_tells_of_each_change() {
    let world = World::start(Plan::still()).await;
    let mut events = open(&world, "/v1/events", &[]).await;
    let kind = events.head.header("content-type").unwrap_or("").to_owned();
    assert!(kind.starts_with("text/event-stream"), "{kind}");
    events.head.assert_common();
    let mut retry = None;
    let first = loop {
        let event = events.next_within(SOON).await.expect("a snapshot");
        retry = retry.or(event.retry.clone());
        if event.name == "credential" {
            break event;
        }
    };
    assert_eq!(retry.as_deref(), Some("1000"));
    assert_eq!(first.data_lines, 1, "data is one line");
    assert!(first.id.is_some_and(|id| !id.is_empty()));
    let snapshot: Value = serde_json::from_str(&first.data).expect("JSON");
    assert_eq!(snapshot["name"], PRODUCTION);
    assert_eq!(snapshot["fields"]["client_secret"], world.enrolled_production.secret.as_str());

    world.daemon.cli(&["rotate", PRODUCTION]).await.assert_code(0);
    loop {
        let event = events.wait_for("credential", Duration::from_secs(20)).await.expect("the new version");
        let document: Value = serde_json::from_str(&event.data).expect("JSON");
        assert!(document["revision"].as_u64() > snapshot["revision"].as_u64());
        if document["version"] != snapshot["version"] {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_loses_nothing_across_a_restart() {
    let mut world = World::start(Plan::still()).await;
    let mut events = open(&world, "/v1/events", &[]).await;
    let first = events.wait_for("credential", SOON).await.expect("a snapshot");
    let before: Value = serde_json::from_str(&first.data).expect("JSON");
    drop(events);
    world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    world.daemon.kill().await;
    world.daemon.again().await;
    let id = first.id.expect("an id");
    let mut events = open(&world, "/v1/events", &[("last-event-id", id.as_str())]).await;
    let event = events.wait_for("credential", SOON).await.expect("what was missed");
    let after: Value = serde_json::from_str(&event.data).expect("JSON");
    assert_ne!(after["version"], before["version"]);
    assert!(after["revision"].as_u64() > before["revision"].as_u64(), "revisions grow across restarts");
    // A cursor that nobody gave out is no error: a snapshot is always valid.
    let mut events = open(&world, "/v1/events", &[("last-event-id", "what-is-this")]).await;
    assert!(events.wait_for("credential", SOON).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_shows_that_it_lives() {
    let world = World::start(Plan::still()).await;
    let mut events = open(&world, &format!("/v1/events?credentials={PRODUCTION}"), &[]).await;
    assert!(events.wait_for("credential", SOON).await.is_some());
    let sign = events.next_within(Duration::from_secs(17)).await.expect("a comment at least every 15 s");
    assert!(sign.comment, "{}", sign.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_says_bye_and_ends_within_ten_seconds() {
    let mut world = World::start(Plan::still()).await;
    let mut events = open(&world, "/v1/events", &[]).await;
    assert!(events.wait_for("credential", SOON).await.is_some());
    let listening = tokio::spawn(async move {
        let bye = events.wait_for("bye", SOON).await;
        (bye.is_some(), events.next_within(SOON).await.is_none())
    });
    assert!(world.daemon.terminate().await.success(), "{}", world.daemon.log_tail());
    assert_eq!(listening.await.expect("it listens"), (true, true), "`bye`, then the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn access_that_ends_is_withdrawn() {
    let mut world = World::start(Plan::still()).await;
    let mut events = open(&world, "/v1/events", &[]).await;
    assert!(events.wait_for("credential", SOON).await.is_some());
    let token_hash = crate::support::sha256_hex(world.production_token.as_bytes());
    world.daemon.site.forget_document("payments-api");
    let spec = format!("environment: production, credentials: [], identity: {{token: {{sha256: \"{token_hash}\"}}}}, lease: 2s");
    world.daemon.site.document("Application", "payments-api", &spec);
    world.daemon.reload();
    let event = events.wait_for("withdrawn", SOON).await.expect("access has ended");
    let document: Value = serde_json::from_str(&event.data).expect("JSON");
    assert_eq!(document["name"], PRODUCTION);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_what_one_may_not_read_is_refused() {
    let world = World::start(Plan::still()).await;
    let token = format!("Bearer {}", world.production_token);
    let headers = [("authorization", token.as_str())];
    for name in [SANDBOX, "does-not-exist"] {
        let path = format!("/v1/events?credentials={name}");
        let answer = Events::open(&world.daemon.site.tcp(), &path, &headers).await.expect("it answers");
        answer.err().expect("no stream").assert_problem(403, "forbidden");
    }
    let answer = Events::open(&world.daemon.site.tcp(), "/v1/events", &[]).await.expect("it answers");
    answer.err().expect("no stream").assert_problem(401, "unauthenticated");
}
