//! Incidents: a stolen key is replaced within seconds, the old one is dead, stragglers and a thief's keys are named; the way back,
//! revocation by hand, pause over a restart, and what is forgotten.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::app::Mode;
use crate::support::dinie::truth::{Key, Owner};
use crate::support::dinie::{Dinie, EXEMPT_HEADER};
use crate::support::eventually;
use crate::support::wire::{Ask, Target};
use crate::world::{PRODUCTION, Plan, SANDBOX, World, fields};

/// What the provider answers who asks for a token with this key.
async fn token_status(fake: &Dinie, key: &Key) -> u16 {
    let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", key.client_id, key.secret)));
    let headers = [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded"), (EXEMPT_HEADER, "1")];
    let body = Some(b"grant_type=client_credentials".as_slice());
    let request = Ask { method: "POST", path: "/v3/auth/token", headers: &headers, body }.bytes();
    Target::Tcp(fake.address).raw(&request).await.expect("the fake answers").expect("whole").status
}

fn entry<'a>(report: &'a Value, name: &str) -> &'a Value {
    let entries = report["credentials"].as_array().expect("a report has credentials");
    entries.iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("`{name}` is not in {report}"))
}

async fn call(world: &World, method: &str, path: &str) -> (u16, String) {
    let answer = world.daemon.site.socket().ask(Ask { method, path, headers: &[], body: None }).await;
    let slug = if answer.body.is_empty() { String::new() } else { answer.json()["type"].as_str().unwrap_or_default().to_owned() };
    (answer.status, slug.rsplit('/').next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_key_is_replaced_within_seconds_and_dead_and_the_report_names_stragglers_and_a_thiefs_key() {
    let mut world = World::start(Plan { rotation: "maxAge: 90d, overlap: 24h", lease: "60s", ..Plan::still() }).await;
    world.production_app("pod-good", Mode::Confirms);
    world.production_app("pod-stuck", Mode::NeverConfirms);
    let fetched = |world: &World| world.apps.iter().all(|app| app.versions() == 1);
    assert!(eventually(Duration::from_secs(20), || fetched(&world)).await, "{}", world.daemon.log_tail());
    let before = world.daemon.status(PRODUCTION).await;
    let thiefs = world.production.seed_key("backup", Owner::Foreign);

    let began = Instant::now();
    let printed = world.daemon.cli(&["rotate", PRODUCTION, "--compromised", "--within", "3s", "--json"]).await;
    printed.assert_code(0);
    assert!(began.elapsed() >= Duration::from_secs(3), "the one that never confirms is waited for");
    assert!(began.elapsed() < Duration::from_secs(60), "replaced within seconds");
    assert_eq!(token_status(&world.production, &world.enrolled_production).await, 401);

    let report = printed.json();
    assert_eq!(report["done"], true, "{report}");
    let entry = entry(&report, PRODUCTION);
    assert_eq!((&entry["outcome"], &entry["old_version"]), (&"done".into(), &before["version"]), "{report}");
    assert_eq!(entry["old_closure"], "proved", "{report}");
    assert!(entry["old_died_at"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{report}");
    assert_eq!(entry["stragglers"], serde_json::json!([{"application": "payments-api", "instance": "pod-stuck"}]), "{report}");
    assert_eq!(entry["unknown_keys"], serde_json::json!([thiefs.client_id]), "older keys of others aren't named: {report}");
    let after = world.daemon.status(PRODUCTION).await;
    assert_eq!((&after["version"], &after["phase"]), (&entry["version"], &"steady".into()));
    assert_ne!(after["version"], before["version"]);
    assert!(!after["incident"]["closed_at"].is_null(), "{after}");

    world.apps[0].assert_never_dead();
    assert!(world.production.alive(&thiefs.secret), "named, never touched");
    world.production.lock().truth.assert_foreign_untouched();
    world.daemon.cli(&["audit", "verify"]).await.assert_code(0);
    world.assert_silent(&[]);
    let problems = world.daemon.cli(&["status"]).await.out();
    assert!(problems.contains("unknown-keys") && problems.contains(&thiefs.client_id), "{problems}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_of_a_provider_are_replaced_at_once_and_each_change_is_told() {
    let mut world = World::start(Plan { lease: "60s", ..Plan::still() }).await;
    world.production_app("pod-1", Mode::Confirms);
    world.sandbox_app("box-1", Mode::Confirms);
    assert!(eventually(Duration::from_secs(20), || world.apps.iter().all(|app| app.versions() == 1)).await);
    let printed = world.daemon.cli(&["rotate", "--provider", "dinie", "--compromised", "--within", "60s"]).await;
    printed.assert_code(0);
    let (out, told) = (printed.out(), printed.err());
    for name in [SANDBOX, PRODUCTION] {
        let row = out.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{out}"));
        assert!(row.contains("done") && row.contains("proved"), "{out}");
        assert!(told.lines().any(|line| line.starts_with(name) && line.contains("done")), "{told}");
    }
    assert!(out.contains("nobody held the old key"), "{out}");
    for (fake, key) in [(&world.sandbox, &world.enrolled_sandbox), (&world.production, &world.enrolled_production)] {
        assert_eq!(token_status(fake, key).await, 401);
    }
    world.assert_all_is_well().await;

    // By application, one after the other, and nothing stolen: promoted is enough.
    let printed = world.daemon.cli(&["rotate", "--application", "payments-api", "--at-once", "1", "--json"]).await;
    printed.assert_code(0);
    let report = printed.json();
    assert_eq!(report["credentials"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!(entry(&report, PRODUCTION)["outcome"], "done", "{report}");
    world.daemon.cli(&["rotate", "--provider", "nobody", "--compromised"]).await.assert_code(1);
    world.daemon.cli(&["rotate", PRODUCTION, "--provider", "dinie"]).await.assert_code(2);
    world.daemon.cli(&["rotate", PRODUCTION, "--within", "5m"]).await.assert_code(2);
    world.daemon.cli(&["rotate", PRODUCTION, "--compromised", "--within", "25h"]).await.assert_code(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_brings_the_old_key_back_as_a_new_version_until_it_is_revoked() {
    let world = World::start(Plan::still()).await;
    let (status, slug) = call(&world, "POST", &format!("/v1/credentials/{PRODUCTION}/rollback")).await;
    assert_eq!((status, slug.as_str()), (409, "version-conflict"), "nothing to go back to");
    let first = world.daemon.status(PRODUCTION).await["version"].clone();
    world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    let second = world.daemon.status(PRODUCTION).await["version"].clone();
    let printed = world.daemon.cli(&["rollback", PRODUCTION, "--json"]).await;
    printed.assert_code(0);
    let done = printed.json();
    assert!(done["revision"].as_u64().is_some() && ![&first, &second].contains(&&done["version"]), "a label never returns: {done}");
    let secret = world.daemon.cli(&["get", PRODUCTION, "--field", "client_secret", "--reason", "after the rollback"]).await.out();
    assert_eq!(secret.trim_end(), world.enrolled_production.secret);
    // The new key is retired: from then on there is no way back.
    let gone = || world.production.revoked_of_ours() == 1;
    assert!(eventually(Duration::from_secs(30), gone).await, "{}", world.daemon.log_tail());
    let (status, slug) = call(&world, "POST", &format!("/v1/credentials/{PRODUCTION}/rollback")).await;
    assert_eq!((status, slug.as_str()), (409, "version-conflict"));
    assert!(world.production.alive(&world.enrolled_production.secret));
    world.daemon.cli(&["rollback", PRODUCTION]).await.assert_code(1);
    world.daemon.cli(&["rollback", "nobody"]).await.assert_code(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_is_revoked_by_hand_unless_it_is_held_or_current() {
    let world = World::start(Plan { rotation: "maxAge: 90d, overlap: 24h", ..Plan::still() }).await;
    let first = world.daemon.status(PRODUCTION).await["version"].as_str().unwrap_or_default().to_owned();
    let path = |version: &str| format!("/v1/credentials/{PRODUCTION}/versions/{version}");
    assert_eq!(call(&world, "DELETE", &path(&first)).await, (409, "not-revocable".to_owned()), "it is current");
    assert_eq!(call(&world, "DELETE", &path("v9-unknown")).await, (404, "not-found".to_owned()));
    world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    let second = world.daemon.status(PRODUCTION).await["version"].as_str().unwrap_or_default().to_owned();
    assert_eq!(call(&world, "DELETE", &path(&second)).await, (409, "not-revocable".to_owned()), "even by force");
    // The submitted key may be in use by an application that was never seen.
    let refused = world.daemon.cli(&["revoke", PRODUCTION, "--version", &first]).await;
    refused.assert_code(1);
    assert!(refused.err().contains("payments-api") && refused.err().contains("--force"), "{}", refused.err());
    assert!(world.production.alive(&world.enrolled_production.secret));
    world.daemon.cli(&["revoke", PRODUCTION, "--version", &first, "--force"]).await.assert_code(0);
    let secret = &world.enrolled_production.secret;
    assert!(eventually(Duration::from_secs(20), || !world.production.alive(secret)).await, "{}", world.daemon.log_tail());
    for _ in 0..2 {
        assert_eq!(call(&world, "DELETE", &path(&first)).await.0, 204, "again is fine");
    }
    assert_eq!(world.daemon.status(PRODUCTION).await["version"], second.as_str());
    world.daemon.cli(&["audit", "verify"]).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_a_revocation_over_a_restart_and_resume_lets_it_go() {
    for (pause, resume) in [(&["pause", PRODUCTION][..], &["resume", PRODUCTION][..]), (&["pause"], &["resume"])] {
        let mut world = World::start(Plan::still()).await;
        world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
        world.daemon.cli(pause).await.assert_code(0);
        // Nothing but the pause keeps the old key alive from here on.
        world.daemon.cli(&["release", "payments-api"]).await.assert_code(0);
        tokio::time::sleep(Duration::from_secs(4)).await;
        let secret = world.enrolled_production.secret.clone();
        assert!(world.production.alive(&secret));
        world.daemon.kill().await;
        world.daemon.again().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(world.production.alive(&secret), "a pause is durable");
        let row = world.daemon.status(PRODUCTION).await;
        assert_eq!((&row["paused"], row["reason"].as_str()), (&true.into(), Some("paused")), "{row}");
        assert!(row["paused_since"].as_str().is_some(), "{row}");
        let document = world.daemon.cli(&["status", "--json"]).await.json();
        let of_daemon = document["problems"].as_array().is_some_and(|all| all.iter().any(|problem| problem["code"] == "paused"));
        assert_eq!(of_daemon, pause.len() == 1, "{document}");
        let refused = world.daemon.cli(&["rotate", PRODUCTION, "--compromised", "--within", "0s"]).await;
        refused.assert_code(1);
        assert!((refused.out() + &refused.err()).contains("keywright resume"), "it says what to do next: {}", refused.out());
        world.daemon.cli(resume).await.assert_code(0);
        assert!(eventually(Duration::from_secs(20), || !world.production.alive(&secret)).await, "{}", world.daemon.log_tail());
        world.daemon.cli(&["audit", "verify"]).await.assert_code(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_gone_here_and_lives_on_at_the_provider() {
    let mut world = World::start(Plan::still()).await;
    let refused = world.daemon.cli(&["forget", PRODUCTION]).await;
    refused.assert_code(1);
    assert!(refused.err().contains("--force") && refused.err().contains("No key is revoked"), "{}", refused.err());
    let done = world.daemon.cli(&["forget", PRODUCTION, "--force"]).await;
    done.assert_code(0);
    assert!(done.out().contains("live on"), "{}", done.out());
    world.daemon.cli(&["forget", PRODUCTION, "--force"]).await.assert_code(0);
    world.daemon.cli(&["forget", "nobody", "--force"]).await.assert_code(1);
    world.daemon.kill().await;
    world.daemon.again().await;
    assert_eq!(world.daemon.status(PRODUCTION).await["phase"], "missing");
    world.daemon.cli(&["get", PRODUCTION]).await.assert_code(1);
    assert!(world.production.alive(&world.enrolled_production.secret), "forgetting revokes nothing");
    // It can come back, and be rotated as before.
    world.daemon.submit(PRODUCTION, &fields(&world.enrolled_production)).await;
    world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    world.daemon.cli(&["audit", "verify"]).await.assert_code(0);
    world.assert_silent(&[]);
}
