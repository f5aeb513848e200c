//! The whole job: both environments rotate by policy under running applications, with and without faults and kills.

use std::time::Duration;

use crate::support::app::{App, Mode};
use crate::support::dinie::faults::{Fault, RECOVERABLE};
use crate::support::dinie::truth::{Key, Owner};
use crate::support::dinie::{Dinie, Options};
use crate::support::rng::Rng;
use crate::support::wire::Ask;
use crate::world::{ACCEPTANCE, PRODUCTION, Plan, SANDBOX, World};

/// Promotion is not seen from outside; being handed the new version is, a moment later.
const PUSH_TOLERANCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn both_environments_rotate_in_time_under_streaming_applications() {
    let plan = Plan { rotation: ACCEPTANCE, lease: "5s", ..Plan::still() };
    let mut world = World::start(plan).await;
    world.production_app("pod-a", Mode::Confirms);
    world.production_app("pod-b", Mode::Slow(Duration::from_secs(2)));
    world.production_app("pod-c", Mode::Reconnects(Duration::from_secs(3)));
    world.sandbox_app("pod-a", Mode::Confirms);
    world.wait_for_revocations(2, Duration::from_secs(110)).await;

    for (fake, key, credential) in
        [(&world.sandbox, &world.enrolled_sandbox, SANDBOX), (&world.production, &world.enrolled_production, PRODUCTION)]
    {
        let limits = (Duration::from_secs(40), Duration::from_secs(8));
        let apps: Vec<&App> = world.apps.iter().filter(|app| app.name == credential).collect();
        assert_rotated_in_time(fake, key, &apps, limits);
    }
    world.assert_all_is_well().await;
}

/// Dead before its age limit, not before the overlap, and not before every instance had confirmed the next one.
fn assert_rotated_in_time(fake: &Dinie, old: &Key, apps: &[&App], (max_age, overlap): (Duration, Duration)) {
    let state = fake.lock();
    let report = state.truth.report();
    let revoked = state.truth.key(&old.client_id).and_then(|key| key.revoked).expect("it was revoked");
    assert!(revoked.duration_since(old.created) < max_age, "{report}");
    let new = state.truth.keys.iter().find(|key| key.owner == Owner::Daemon).expect("a key was made");
    assert!(revoked.duration_since(new.created) >= overlap, "{report}");
    for app in apps {
        let seen = app.seen();
        let handed = seen.of(&new.client_id).unwrap_or_else(|| panic!("{} never got it", app.instance));
        let asked = handed.asked.unwrap_or_else(|| panic!("{} never confirmed", app.instance));
        assert!(revoked >= asked, "revoked before {} confirmed{report}", app.instance);
        if app.instance == "pod-a" {
            assert!(revoked.duration_since(handed.at) + PUSH_TOLERANCE >= overlap, "{report}");
        }
    }
}

/// One variant: each call fails with one in four, in every way that there is.
async fn rotates_with_faults(options: fn(Options) -> Options, kinds: &[Fault]) {
    let mut world = World::start(Plan { options, ..Plan::quick() }).await;
    world.production_app("pod-a", Mode::Confirms);
    world.production_app("pod-b", Mode::Reconnects(Duration::from_secs(2)));
    world.sandbox_app("pod-a", Mode::Confirms);
    world.sandbox_app("pod-b", Mode::Polls);
    for fake in [&world.sandbox, &world.production] {
        fake.lock().faults.at_random(25, kinds);
    }
    world.wait_for_revocations(3, Duration::from_secs(100)).await;
    for fake in [&world.sandbox, &world.production] {
        let mut state = fake.lock();
        assert!(!state.faults.injected().is_empty(), "no fault was met");
        state.faults.clear();
    }
    world.assert_all_is_well().await;
}

/// The age limit holds while `KEYWRIGHT_TEST_FAULT_PERCENT` of all calls fail, in every way that there is, slow answers of seconds
/// among them; for `KEYWRIGHT_TEST_FAULT_ROUNDS` keys in each environment.
#[tokio::test(flavor = "multi_thread")]
async fn every_key_dies_in_time_although_many_calls_fail() {
    let number = |name: &str, usual: usize| std::env::var(name).map_or(usual, |text| text.parse().expect("a number"));
    let (percent, rounds) = (number("KEYWRIGHT_TEST_FAULT_PERCENT", 25), number("KEYWRIGHT_TEST_FAULT_ROUNDS", 3));
    let options = |options| Options { idempotency: false, page_limit: 2, ..options };
    let mut world = World::start(Plan { rotation: ACCEPTANCE, lease: "5s", options, ..Plan::still() }).await;
    world.production_app("pod-a", Mode::Confirms);
    world.production_app("pod-b", Mode::Reconnects(Duration::from_secs(3)));
    world.sandbox_app("pod-a", Mode::Confirms);
    let kinds: Vec<Fault> = RECOVERABLE.into_iter().chain([Fault::Slow(Duration::from_secs(3))]).collect();
    for fake in [&world.sandbox, &world.production] {
        let mut state = fake.lock();
        state.faults.at_random(u8::try_from(percent).expect("a percentage"), &kinds);
        state.faults.at_most_in_a_row(4);
    }
    // One rotation after another: a rotation is over in forty seconds, and begins twenty after the one before.
    tokio::time::sleep(Duration::from_secs(25 * rounds as u64 + 20)).await;
    let mut ages = Vec::new();
    for fake in [&world.sandbox, &world.production] {
        let mut state = fake.lock();
        state.faults.clear();
        ages.extend(state.truth.ages());
    }
    println!(
        "{percent} % of calls failed; how old our keys became, in seconds: {:.1?}",
        ages.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()
    );
    assert!(ages.iter().filter(|age| age.as_secs() >= 20).count() >= rounds, "not {rounds} rotations: {ages:?}");
    assert!(ages.iter().all(|age| *age < Duration::from_secs(40)), "{ages:?}");
    world.assert_all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_replies_with_working_idempotency_keys() {
    rotates_with_faults(|options| options, &[Fault::LoseReply, Fault::DropRequest]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_replies_without_working_idempotency_keys() {
    let options = |options| Options { idempotency: false, page_limit: 2, ..options };
    rotates_with_faults(options, &[Fault::LoseReply, Fault::DropRequest]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_errors_garbage_and_slowness() {
    let options = |options| Options { idempotency: false, epoch_times: true, ..options };
    rotates_with_faults(options, &RECOVERABLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_that_work_late_and_on_some_replicas_first() {
    let options = |options| Options { propagation: Duration::from_millis(1500), flapping: true, page_limit: 2, ..options };
    rotates_with_faults(options, &[Fault::Slow(Duration::from_millis(300))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_just_enough_slots_is_never_overfilled() {
    // Two of somebody else, one enrolled, one to rotate into: a fourth of ours would evict a living key.
    let options = |options| Options { slots: Some(4), evicts: true, idempotency: false, page_limit: 2, ..options };
    rotates_with_faults(options, &[Fault::LoseReply]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_account_stops_the_rotation_and_kills_nothing() {
    let plan = Plan { options: |options| Options { slots: Some(3), ..options }, ..Plan::quick() };
    let world = World::start(plan).await;
    tokio::time::sleep(Duration::from_secs(18)).await;
    assert_eq!(world.production.revoked_of_ours(), 0);
    assert!(world.production.alive(&world.enrolled_production.secret));
    let row = world.daemon.status(PRODUCTION).await;
    assert!(row["reason"].is_string(), "a rotation that can't begin says why: {row}");
}

/// SIGKILL, `KEYWRIGHT_TEST_KILLS` times; three in four between a provider's effect and its reply.
#[tokio::test(flavor = "multi_thread")]
async fn survives_sigkill_between_effect_and_reply() {
    let kills: u32 = std::env::var("KEYWRIGHT_TEST_KILLS").map_or(100, |text| text.parse().expect("a number"));
    let mut rng = Rng::new(Rng::fresh_seed());
    let plan = Plan { options: |options| Options { idempotency: false, page_limit: 2, ..options }, ..Plan::quick() };
    let mut world = World::start(plan).await;
    world.production_app("pod-a", Mode::Confirms);
    world.production_app("pod-b", Mode::Confirms);
    world.sandbox_app("pod-a", Mode::Confirms);

    let mut aimed = std::collections::BTreeMap::new();
    for kill in 0..kills {
        ask_for_rotations(&world).await;
        if rng.chance(75) {
            // The next call that changes something, or the one after it: a create, or a delete.
            let calls = rng.below(2) as u32;
            world.sandbox.hang_after(calls).await;
            world.production.hang_after(calls).await;
            let reached = async {
                tokio::select! { call = world.sandbox.reached() => call, call = world.production.reached() => call }
            };
            if let Ok(Some(call)) = tokio::time::timeout(Duration::from_secs(6), reached).await {
                *aimed.entry(format!("{call:?}")).or_insert(0) += 1;
            }
        } else {
            tokio::time::sleep(Duration::from_millis(rng.below(1500) as u64)).await;
        }
        world.daemon.kill().await;
        for fake in [&world.sandbox, &world.production] {
            fake.lock().faults.clear();
        }
        world.daemon.again().await;
        if kill % 10 == 9 {
            println!("{} of {kills} kills; between an effect and its reply: {aimed:?}", kill + 1);
        }
    }
    // One more in each: kills that meet creates again and again make the numbers of the two differ by much.
    let before = (world.sandbox.revoked_of_ours(), world.production.revoked_of_ours());
    world.wait_for_revocations_in((before.0 + 1, before.1 + 1), Duration::from_secs(60)).await;
    println!("{kills} kills, {} starts; between an effect and its reply: {aimed:?}", world.daemon.starts);
    assert!(aimed.values().sum::<u32>() * 2 >= kills, "of {kills} kills only these were aimed: {aimed:?}");
    world.assert_all_is_well().await;
}

/// Not only by policy: so that there is always a rotation to be killed in. One that is open already answers 409.
async fn ask_for_rotations(world: &World) {
    for credential in [SANDBOX, PRODUCTION] {
        let path = format!("/v1/credentials/{credential}/rotations");
        let request = Ask { method: "POST", path: &path, headers: &[], body: Some(b"{}") }.bytes();
        let answer = world.daemon.site.socket().raw(&request).await;
        let status = answer.ok().flatten().map(|answer| answer.status);
        assert!(matches!(status, None | Some(202 | 409 | 503)), "asked for a rotation, got {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_nothing_changed_changes_nothing() {
    let mut world = World::start(Plan::still()).await;
    world.production_app("pod-a", Mode::Confirms);
    let app_seen = |world: &World| world.apps[0].versions();
    assert!(crate::support::eventually(Duration::from_secs(10), || app_seen(&world) == 1).await);
    let before = world.daemon.status(PRODUCTION).await;
    assert!(world.daemon.terminate().await.success(), "{}", world.daemon.log_tail());
    world.daemon.again().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = world.daemon.status(PRODUCTION).await;
    assert_eq!(before["version"], after["version"]);
    assert_eq!(before["issued_at"], after["issued_at"]);
    assert_eq!(app_seen(&world), 1);
    assert!(world.apps[0].seen().byes >= 1, "a stream ends with `bye` before a shutdown");
    world.assert_all_is_well().await;
}
