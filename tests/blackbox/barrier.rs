//! The barrier: who never confirms keeps the old key alive, by name, past its age; released, the old key dies.

use std::time::Duration;

use crate::support::app::Mode;
use crate::support::eventually;
use crate::support::wire::Ask;
use crate::world::{PRODUCTION, Plan, World};

async fn held_past_its_age() -> World {
    let mut world = World::start(Plan { lease: "60s", ..Plan::quick() }).await;
    world.production_app("pod-good", Mode::Confirms);
    world.production_app("pod-stuck", Mode::NeverConfirms);
    let secret = world.enrolled_production.secret.clone();
    let both = |world: &World| world.apps.iter().all(|app| app.versions() >= 2);
    assert!(eventually(Duration::from_secs(20), || both(&world)).await, "{}", world.daemon.log_tail());
    // Past maxAge (15 s) and overlap (3 s), counted from the key's making.
    while world.enrolled_production.created.elapsed() < Duration::from_secs(19) {
        assert!(world.production.alive(&secret), "revoked while it is held");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_never_confirms_holds_the_old_key_by_name_until_it_is_released() {
    let world = held_past_its_age().await;
    let row = world.daemon.status(PRODUCTION).await;
    assert!(row["reason"].as_str().unwrap_or("").contains("overdue"), "{row}");
    assert!(!row["previous_version"].is_null(), "{row}");
    let instances = row["applications"].as_array().expect("applications");
    let stuck = instances.iter().find(|entry| entry["instance"] == "pod-stuck").expect("it is named");
    assert_eq!(stuck["name"], "payments-api");
    // It holds the old version and was served the new one: the contract has one word for each.
    assert!(["holds", "served"].contains(&stuck["state"].as_str().unwrap_or("")), "{row}");
    let good = instances.iter().find(|entry| entry["instance"] == "pod-good").expect("it is named");
    assert_eq!(good["state"], "confirmed", "{row}");

    let path = "/v1/applications/payments-api/instances/pod-stuck";
    let answer = world.daemon.site.socket().ask(Ask { method: "DELETE", path, headers: &[], body: None }).await;
    assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
    let secret = &world.enrolled_production.secret;
    assert!(eventually(Duration::from_secs(10), || !world.production.alive(secret)).await, "released, yet it lives");
    world.apps[0].assert_never_dead();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_survives_sigkill_of_the_daemon() {
    let mut world = held_past_its_age().await;
    world.daemon.kill().await;
    world.daemon.again().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(world.production.alive(&world.enrolled_production.secret), "holders are durable");
    world.daemon.cli(&["release", "payments-api", "pod-stuck"]).await.assert_code(0);
    let secret = &world.enrolled_production.secret;
    assert!(eventually(Duration::from_secs(10), || !world.production.alive(secret)).await, "released, yet it lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_instance_holds_until_its_lease_ends() {
    let mut world = World::start(Plan { lease: "3s", ..Plan::quick() }).await;
    world.production_app("pod-good", Mode::Confirms);
    world.production_app("pod-gone", Mode::NeverConfirms);
    assert!(eventually(Duration::from_secs(20), || world.apps[1].versions() >= 2).await);
    let stopped = std::time::Instant::now();
    world.apps[1].stop();
    let secret = world.enrolled_production.secret.clone();
    assert!(eventually(Duration::from_secs(25), || !world.production.alive(&secret)).await, "its lease has ended");
    assert!(stopped.elapsed() >= Duration::from_millis(2800), "revoked within the lease");
    world.apps[0].assert_never_dead();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_never_seen_blocks_the_first_revocation() {
    let world = World::start(Plan::quick()).await;
    let made = |world: &World| world.production.lock().truth.living().len() == 2;
    assert!(eventually(Duration::from_secs(20), || made(&world)).await, "{}", world.daemon.log_tail());
    while world.enrolled_production.created.elapsed() < Duration::from_secs(18) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(world.production.alive(&world.enrolled_production.secret), "unknown use counts as use");
    let row = world.daemon.status(PRODUCTION).await;
    assert!(row["reason"].as_str().unwrap_or("").contains("no-instance-seen"), "{row}");
    world.daemon.cli(&["release", "payments-api"]).await.assert_code(0);
    let secret = &world.enrolled_production.secret;
    assert!(eventually(Duration::from_secs(10), || !world.production.alive(secret)).await, "released, yet it lives");
}
