//! The simulated provider keeps the contract, and its faults do what they say.

use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::domain::ids::OperationId;
use crate::domain::ledger::Closure;
use crate::issuers::contract::{self, Subject};
use crate::issuers::{fixtures, secondary_contract, succession_contract};

fn start() -> (Arc<MemoryIssuer>, SimClock, Target, KeyId, Material) {
    let clock = SimClock::new(Timestamp::from_second(1_800_000_000).unwrap());
    let issuer = Arc::new(MemoryIssuer::new(clock.clone()));
    let (key_id, current) = issuer.enrol(Environment::Sandbox, "made by hand");
    (issuer, clock, fixtures::target(fixtures::dinie(), "http://127.0.0.1:1"), key_id, current)
}

fn request(number: u128) -> CreateRequest {
    let installation = crate::domain::ids::InstallationId(Uuid::from_u128(number));
    CreateRequest {
        operation: OperationId::new(installation, &"dinie".parse().unwrap(), 1, 1),
        marker: format!("kw-{number}"),
        overlap: Duration::ZERO,
    }
}

#[tokio::test]
async fn the_simulated_provider_keeps_the_contract() {
    for (idempotent, blind) in [(true, false), (false, true)] {
        let (issuer, clock, target, current_key, current) = start();
        issuer.behave(|behaviour| (behaviour.idempotent, behaviour.blind) = (idempotent, blind));
        let truth = issuer.clone();
        let accepts = Arc::new(move |key: &KeyId| truth.accepts(key, clock.now()));
        contract::run(&Subject { issuer, target, current, current_key, accepts, can_list: !blind, signed: true, idempotent }).await;
    }
}

#[tokio::test]
async fn where_keys_are_disabled_first_it_keeps_the_contract() {
    let (issuer, clock, _, current_key, current) = start();
    let target = fixtures::target(fixtures::slotted(), "http://127.0.0.1:1");
    let truth = issuer.clone();
    let accepts = Arc::new(move |key: &KeyId| truth.accepts(key, clock.now()));
    contract::run(&Subject { issuer, target, current, current_key, accepts, can_list: true, signed: true, idempotent: false }).await;
}

#[tokio::test]
async fn where_there_is_one_secret_it_keeps_that_contract() {
    for provider in [fixtures::rotating(), fixtures::replacing()] {
        for idempotent in [true, false] {
            let (issuer, clock, _, _, current) = start();
            let (_, administrator) = issuer.enrol(Environment::Sandbox, "the administrator");
            let mut current = current;
            for field in provider.fields.keys().filter(|field| provider.is_management(field)) {
                current.insert(field.clone(), crate::domain::material::Secret::from("a-management-field-7Gh2".to_owned()));
            }
            let target = fixtures::target(provider.clone(), "http://127.0.0.1:1");
            let target = fixtures::signed_by(target, fixtures::dinie(), "http://127.0.0.1:2", administrator);
            issuer.behave(|behaviour| behaviour.idempotent = idempotent);
            let (truth, now, hands) = (issuer.clone(), clock.clone(), clock);
            succession_contract::run(&succession_contract::Subject {
                issuer,
                target,
                current,
                accepts: Arc::new(move |material| truth.accepts_material(Environment::Sandbox, material, now.now())),
                wait: Arc::new(move |by| hands.advance(by)),
                idempotent,
            })
            .await;
        }
    }
}

#[tokio::test]
async fn where_there_is_a_secondary_secret_it_keeps_that_contract() {
    let (issuer, clock, _, _, primary) = start();
    let target = fixtures::target(fixtures::promoting(), "http://127.0.0.1:1");
    let truth = issuer.clone();
    let accepts = Arc::new(move |material: &Material| truth.accepts_material(Environment::Sandbox, material, clock.now()));
    secondary_contract::run(&secondary_contract::Subject { issuer, target, primary, accepts }).await;
}

#[tokio::test]
async fn an_administrator_signs_where_the_description_says_so() {
    let (issuer, clock, _, current_key, current) = start();
    let (_, administrator) = issuer.enrol(Environment::Sandbox, "the administrator");
    let target = fixtures::target(fixtures::administered(), "http://127.0.0.1:1");
    let target = fixtures::signed_by(target, fixtures::dinie(), "http://127.0.0.1:2", administrator);
    issuer.behave(|behaviour| behaviour.idempotent = true);
    let truth = issuer.clone();
    let accepts = Arc::new(move |key: &KeyId| truth.accepts(key, clock.now()));
    contract::run(&Subject { issuer, target, current, current_key, accepts, can_list: true, signed: false, idempotent: true }).await;
}

#[tokio::test]
async fn a_new_key_works_after_its_propagation_and_flaps_before() {
    let (issuer, clock, target, _, current) = start();
    issuer.behave(|behaviour| behaviour.propagation = Duration::from_secs(60));
    let minted = issuer.create(&target, &current, &request(1)).await.unwrap();
    assert_eq!(issuer.probe(&target, &minted.material).await.unwrap().outcome, ProbeOutcome::Dead);
    issuer.behave(|behaviour| behaviour.flapping = true);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(issuer.probe(&target, &minted.material).await.unwrap().outcome);
    }
    assert!(seen.contains(&ProbeOutcome::Works) && seen.contains(&ProbeOutcome::Dead));
    assert!(!issuer.accepts(&minted.key_id, clock.now()));
    clock.advance(Duration::from_secs(60));
    assert!(issuer.accepts_material(Environment::Sandbox, &minted.material, clock.now()));
    assert!(!issuer.accepts_material(Environment::Production, &minted.material, clock.now()));
}

#[tokio::test]
async fn faults_strike_before_or_after_the_effect() {
    let (issuer, _, target, _, current) = start();
    let living = || issuer.living(Environment::Sandbox).len();
    for (action, error, keys) in [
        (FaultAction::Unreachable, IssuerError::Unreachable("simulated"), 1),
        (FaultAction::Throttle(None), IssuerError::Throttled { retry_after: None }, 1),
        (FaultAction::Refuse(422), IssuerError::Refused { status: 422 }, 1),
        (FaultAction::LoseReply, IssuerError::Unclear("simulated loss"), 2),
    ] {
        issuer.inject("issuer.create", action);
        assert_eq!(issuer.create(&target, &current, &request(1)).await.unwrap_err(), error);
        assert_eq!(living(), keys, "{action:?}");
    }
    issuer.inject("issuer.create", FaultAction::Twice);
    issuer.create(&target, &current, &request(2)).await.unwrap();
    assert_eq!(living(), 4, "no idempotency: twice makes two");
    issuer.inject("issuer.create", FaultAction::StopAfter);
    let stopped = tokio::time::timeout(Duration::from_millis(20), issuer.create(&target, &current, &request(3))).await;
    assert!(stopped.is_err() && living() == 5);
    assert_eq!(issuer.calls("issuer.create"), 6);
}

#[tokio::test]
async fn every_point_is_asked_by_its_name() {
    let (issuer, _, target, key, current) = start();
    let (_, other) = issuer.enrol(Environment::Sandbox, "another");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    issuer.hook(Arc::new(move |point| {
        log.lock().unwrap().push(point);
        FaultAction::Proceed
    }));
    issuer.create(&target, &current, &request(1)).await.unwrap();
    issuer.probe(&target, &current).await.unwrap();
    issuer.list(&target, &current).await.unwrap();
    let can_disable = fixtures::target(fixtures::slotted(), "http://127.0.0.1:1");
    issuer.disable(&can_disable, &other, &key, Some(&current)).await.unwrap();
    issuer.revoke(&target, &other, &key, Some(&current)).await.unwrap();
    let promoting = fixtures::target(fixtures::promoting(), "http://127.0.0.1:1");
    issuer.cancel(&promoting, &other, None).await.unwrap();
    issuer.is_dead(&target, &current).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), POINTS);
}

#[tokio::test]
async fn slots_run_full_or_evict_the_oldest() {
    let (issuer, clock, target, first, current) = start();
    issuer.behave(|behaviour| behaviour.slots = Some(1));
    assert_eq!(issuer.create(&target, &current, &request(1)).await.unwrap_err(), IssuerError::Full);
    issuer.behave(|behaviour| behaviour.evicts = true);
    let minted = issuer.create(&target, &current, &request(1)).await.unwrap();
    assert!(!issuer.accepts(&first, clock.now()) && issuer.accepts(&minted.key_id, clock.now()));
}

#[tokio::test]
async fn a_revoked_key_may_lag_and_the_past_stays_known() {
    let (issuer, clock, target, _, current) = start();
    let minted = issuer.create(&target, &current, &request(1)).await.unwrap();
    let before = clock.now();
    issuer.behave(|behaviour| (behaviour.revocation_lag, behaviour.blind) = (Duration::from_secs(5), true));
    let early = issuer.revoke(&target, &current, &minted.key_id, Some(&minted.material)).await;
    assert!(matches!(early, Err(IssuerError::Unclear(_))));
    clock.advance(Duration::from_secs(5));
    let later = issuer.revoke(&target, &current, &minted.key_id, Some(&minted.material)).await.unwrap();
    assert_eq!(later.closure, Closure::Proved);
    assert!(issuer.accepts(&minted.key_id, before) && !issuer.accepts(&minted.key_id, clock.now()));
    let unknown = issuer.revoke(&target, &current, &"nobody".parse().unwrap(), None).await;
    assert!(matches!(unknown, Err(IssuerError::Unclear(_))));
}
