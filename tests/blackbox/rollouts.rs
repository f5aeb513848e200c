//! Canaries and rehearsals against the real process: a new version is tried by some before all have it, and in the sandbox before that.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::app::Mode;
use crate::support::dinie::faults::Fault;
use crate::support::eventually;
use crate::support::wire::{Answer, Ask};
use crate::world::{PRODUCTION, Plan, SANDBOX, World};

const INSTANCES: [&str; 5] = ["pod-1", "pod-2", "pod-3", "pod-4", "pod-5"];
/// Patience of a step: 10 s.
const PATIENT: &str = "maxAge: 90d, overlap: 40s, spread: 1s, rollout: [1, 50%, 100%]";
/// And of one: 2 s.
const BRIEF: &str = "maxAge: 90d, overlap: 8s, spread: 1s, rollout: [1, 50%, 100%]";
const SOON: Duration = Duration::from_secs(15);

async fn begun(rotation: &str, mode: Mode) -> World {
    let mut world = World::start(Plan { rotation, lease: "60s", ..Plan::still() }).await;
    for instance in INSTANCES {
        world.production_app(instance, mode);
    }
    let all = || world.apps.iter().all(|app| app.versions() == 1);
    assert!(eventually(SOON, all).await, "{}", world.daemon.log_tail());
    world.daemon.cli(&["rotate", PRODUCTION]).await.assert_code(0);
    world
}

/// How many have been handed a second version.
fn have_new(world: &World) -> usize {
    world.apps.iter().filter(|app| app.versions() >= 2).count()
}

async fn report(world: &World, instance: &str, version: &str, outcome: &str) -> Answer {
    let bearer = format!("Bearer {}", world.production_token);
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", instance)];
    let body = json!({"credential": PRODUCTION, "version": version, "instance": instance, "outcome": outcome}).to_string();
    world.daemon.site.tcp().ask(Ask { method: "POST", path: "/v1/reports", headers: &headers, body: Some(body.as_bytes()) }).await
}

async fn has_problem(world: &World, code: &str) -> bool {
    let status = world.daemon.cli(&["status", "--json"]).await.json();
    status["problems"].as_array().expect("problems").iter().any(|problem| problem["code"] == code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_goes_to_one_then_to_half_then_to_all_and_the_old_key_dies_after_the_overlap() {
    let world = begun(BRIEF, Mode::Slow(Duration::from_millis(700))).await;
    let mut seen = Vec::new();
    let began = Instant::now();
    while have_new(&world) < INSTANCES.len() && began.elapsed() < SOON {
        let row: Value = world.daemon.status(PRODUCTION).await;
        if let Some(step) = row["rollout"]["step"].as_u64()
            && seen.last() != Some(&step)
        {
            seen.push(step);
            assert_eq!(row["rollout"]["of"], 3, "{row}");
            assert!(have_new(&world) <= [0, 1, 3, 5][step as usize], "step {step}: {} have it", have_new(&world));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(seen.contains(&1) && seen.contains(&2), "{seen:?}");
    let secret = &world.enrolled_production.secret;
    let full = Instant::now();
    assert!(eventually(Duration::from_secs(20), || !world.production.alive(secret)).await, "{}", world.daemon.log_tail());
    assert!(full.elapsed() >= Duration::from_secs(6), "the overlap begins with the last step");
    world.assert_all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_report_takes_it_back_over_a_sigkill_and_nobody_has_a_dead_key() {
    let mut world = begun(PATIENT, Mode::NeverConfirms).await;
    assert!(eventually(SOON, || have_new(&world) == 1).await, "{}", world.daemon.log_tail());
    let canary = world.apps.iter().find(|app| app.versions() == 2).expect("one has it").instance.clone();
    let other = world.apps.iter().find(|app| app.versions() == 1).expect("others don't").instance.clone();
    let handed = |world: &World| world.apps.iter().find(|app| app.instance == canary).expect("it runs").seen().handed[1].clone();
    let failed = handed(&world);
    assert_eq!(report(&world, &other, &failed.version, "failed").await.status, 409, "it never had it");
    assert_eq!(report(&world, &canary, &failed.version, "works").await.status, 400);
    assert_eq!(report(&world, &canary, &failed.version, "failed").await.status, 204);
    // A 204 is on disk.
    world.daemon.kill().await;
    world.daemon.again().await;
    let back = || world.apps.iter().all(|app| app.seen().handed.last().is_some_and(|last| last.secret == world.enrolled_production.secret));
    let taken_back = || back() && world.apps.iter().all(|app| app.seen().handed.last().is_some_and(|last| last.version != failed.version));
    let again = || world.apps.iter().all(|app| app.seen().handed.last().map(|last| last.revision) > Some(failed.revision));
    assert!(eventually(SOON, || taken_back() && again()).await, "{}", world.daemon.log_tail());
    assert_eq!(have_new(&world), INSTANCES.len(), "each as a new version");
    assert!(has_problem(&world, "canary-failed").await);
    assert!(world.production.alive(&failed.secret) && world.production.alive(&world.enrolled_production.secret));
    assert_eq!(report(&world, &canary, &failed.version, "failed").await.status, 409, "it has a newer one");
    world.apps.iter().for_each(|app| app.assert_never_dead());
    world.production.lock().truth.assert_foreign_untouched();
    world.daemon.cli(&["audit", "verify"]).await.assert_code(0);
    world.assert_silent(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_takes_it_back_and_the_failed_key_dies_when_nobody_holds_it() {
    let mut world = begun(BRIEF, Mode::NeverConfirms).await;
    let made = || world.production.lock().truth.living().len() == 2;
    assert!(eventually(SOON, made).await, "the old one and the new one: {}", world.daemon.log_tail());
    assert!(eventually(SOON, || have_new(&world) == INSTANCES.len()).await, "{}", world.daemon.log_tail());
    assert!(has_problem(&world, "canary-silent").await);
    let old = world.enrolled_production.secret.clone();
    assert!(world.apps.iter().all(|app| app.seen().handed.last().is_some_and(|last| last.secret == old)), "the old value is back");
    assert!(world.apps.iter().filter(|app| app.versions() == 3).count() <= 1, "one has had the other");
    for app in &mut world.apps {
        app.assert_never_dead();
        app.stop();
    }
    // The canary holds the failed key until somebody says that it doesn't.
    world.daemon.cli(&["release", "payments-api"]).await.assert_code(0);
    assert!(eventually(Duration::from_secs(25), || world.production.revoked_of_ours() == 1).await, "{}", world.daemon.log_tail());
    assert!(world.production.alive(&old), "and the old key lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn production_waits_for_a_sandbox_that_fails_and_goes_on_when_it_works() {
    let rotation = "maxAge: 30s, overlap: 3s, spread: 1s, rehearse: sandbox";
    let mut world = World::start(Plan { rotation, lease: "60s", ..Plan::still() }).await;
    world.production_app("pod-1", Mode::Confirms);
    world.sandbox_app("pod-1", Mode::Confirms);
    {
        let mut state = world.sandbox.lock();
        state.faults.at_random(100, &[Fault::EchoError]);
        state.faults.at_most_in_a_row(u32::MAX);
    }
    let mut row = Value::Null;
    for _ in 0..300 {
        row = world.daemon.status(PRODUCTION).await;
        if row["reason"] == "rehearsal-failed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(row["reason"], "rehearsal-failed", "{row}");
    let plan = world.daemon.cli(&["plan", "--json"]).await.json();
    let entry = plan["plan"].as_array().expect("entries").iter().find(|entry| entry["name"] == PRODUCTION).expect("it is planned").clone();
    assert!(entry["blocked_by"].as_array().expect("reasons").contains(&json!(SANDBOX)), "{entry}");
    while world.enrolled_production.created.elapsed() < Duration::from_secs(31) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(world.production.alive(&world.enrolled_production.secret), "past its deadline it lives on");
    assert!(has_problem(&world, "overdue").await);
    world.sandbox.lock().faults.clear();
    let (secret, limit) = (world.enrolled_production.secret.clone(), Duration::from_secs(60));
    assert!(eventually(limit, || !world.production.alive(&secret)).await, "{}", world.daemon.log_tail());
    assert!(!world.sandbox.alive(&world.enrolled_sandbox.secret), "the sandbox went first");
    world.apps.iter().for_each(|app| app.assert_never_dead());
    world.assert_silent(&[]);
}
