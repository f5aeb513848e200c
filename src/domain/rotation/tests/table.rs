//! All events × all places: an event that doesn't fit is an error, never ignored.

use super::*;
use crate::domain::environment::Says;
use crate::domain::fixtures::proof;
use crate::domain::ledger::Closure;
use crate::domain::manual::{Asks, Urgency};
use crate::domain::rollout::{Reach, StopReason};

/// Where a ledger can stand. The columns of the table.
fn places() -> [(&'static str, World); 14] {
    let mut abandoning = World::in_phase(Phase::Stored, true);
    abandoning.journal(Event::Abandoning { reason: AbandonReason::BadValue });
    let mut undone = abandoning.clone();
    undone.journal(Event::Undone);
    let mut doomed = World::in_phase(Phase::Retired, true);
    doomed.journal(Event::RevokeIntended);
    let mut intended = World::in_phase(Phase::Planned, true);
    intended.step_until(|world| world.create_unsent);
    [
        ("enrolled", World::enrolled(true)),
        ("planned", World::in_phase(Phase::Planned, true)),
        ("intended", intended),
        ("issued", World::in_phase(Phase::Issued, true)),
        ("stored", World::in_phase(Phase::Stored, true)),
        ("verified", World::in_phase(Phase::Verified, true)),
        ("promoted", World::in_phase(Phase::Promoted, true)),
        ("canary", World::on_step(1)),
        ("confirmed", World::in_phase(Phase::Confirmed, true)),
        ("retired", World::in_phase(Phase::Retired, true)),
        ("doomed", doomed),
        ("revoked", World::in_phase(Phase::Revoked, true)),
        ("abandoning", abandoning),
        ("undone", undone),
    ]
}

fn event_for(name: &str, world: &World) -> Event {
    let at = world.now.wall;
    let operation = world.ledger.rotation.as_ref().map_or(world.plan(Origin::Minted, "").operation, |rotation| rotation.operation);
    let version = operation.version(world.ledger.generation + 1);
    match name {
        "planned" => Event::Planned { plan: world.plan(Origin::Minted, "max-age") },
        "create-intended" => Event::CreateIntended { attempt: 1, operation, version, seen: BTreeSet::new() },
        "issued" => world.issued(&key("fresh"), None),
        "stored" => Event::Stored,
        "verified" => Event::Verified { proof: proof(Says::For), term: 1 },
        "refused" => Event::Refused { at: world.now.instant(), counted: true },
        "rehearsed" => Event::Rehearsed { rotations: 1 },
        "promoted" => Event::Promoted { at: world.now.instant() },
        "rolled-out" => Event::RolledOut { step: 2, reach: Reach::UpTo(u64::MAX), at: world.now.instant() },
        "rollout-stopped" => Event::RolloutStopped { reason: StopReason::CanaryFailed, who: Vec::new(), next_try_at: at },
        "confirmed" => Event::Confirmed { stragglers: Vec::new() },
        "retired" => Event::Retired { term: 1 },
        "revoke-intended" => Event::RevokeIntended,
        "disabled" => Event::Disabled { at: world.now.instant() },
        "revoked" => Event::Revoked { at, closure: Closure::Proved },
        "closed" => Event::Closed,
        "abandoning" => Event::Abandoning { reason: AbandonReason::BadValue },
        "undone" => Event::Undone,
        "abandoned" => Event::Abandoned { at, next_try_at: at },
        "orphan-found" => Event::OrphanFound { key_id: key("stray"), burns_attempt: false },
        "orphan-revoked" => Event::OrphanRevoked { key_id: key("stray") },
        "reply-lost" => Event::ReplyLost { operation, burns_attempt: true, old_ends_at: at },
        "possible-orphan" => Event::PossibleOrphan { operation, at },
        "secondary-cancelled" => Event::SecondaryCancelled,
        "current-refused" => Event::CurrentRefused { at },
        "current-accepted" => Event::CurrentAccepted,
        "rollback-planned" => Event::RollbackPlanned { plan: world.plan(Origin::RolledBack, "rollback") },
        "terms-tightened" => Event::TermsTightened { terms: world.policy.terms },
        "paused" => Event::Paused { at: Some(at) },
        "resumed" => Event::Resumed,
        "restored" => Event::Restored,
        "compromised" => Event::Compromised { at: world.now.instant(), within: Duration::from_secs(600) },
        "incident-closed" => Event::IncidentClosed { at, unknown_keys: None },
        "revocation-asked" => Event::RevocationAsked { asked: RevocationAsked::IfUnheld, stragglers: Vec::new() },
        "manual-requested" => Event::ManualRequested { at, deadline: at, reason: "max-age".to_owned(), by_time: true },
        "manual-reminded" => Event::ManualReminded { at, asks: Asks::NewKey, urgency: Urgency::Soon },
        "manual-withdrawn" => Event::ManualWithdrawn,
        "removal-asked" => Event::RemovalAsked { at, deadline: at },
        "removal-seen" => Event::RemovalSeen { at: world.now.instant(), alive: true },
        "forgotten" => Event::Forgotten,
        "cleared" => Event::Cleared,
        "snapshot" => Event::Snapshot { ledger: Box::new(world.ledger.clone()) },
        other => panic!("no such event: {other}"),
    }
}

/// Where each event fits. `*` is everywhere.
const FITS: [(&str, &str); 42] = [
    ("planned", "enrolled"),
    ("create-intended", "planned intended"),
    ("issued", "intended"),
    ("stored", "issued"),
    ("verified", "stored verified"),
    ("refused", "stored verified"),
    ("rehearsed", "planned intended"),
    ("promoted", "verified"),
    ("rolled-out", "canary"),
    ("rollout-stopped", "canary"),
    ("confirmed", "promoted confirmed retired doomed"),
    ("retired", "confirmed retired doomed"),
    ("revoke-intended", "retired doomed"),
    ("disabled", "doomed"),
    ("revoked", "doomed"),
    ("closed", "revoked"),
    ("abandoning", "planned intended issued stored verified abandoning undone"),
    ("undone", "abandoning undone"),
    ("abandoned", "undone"),
    ("orphan-found", "*"),
    ("orphan-revoked", ""),
    ("possible-orphan", "intended"),
    // Where a reply was lost, which is none of these places.
    ("secondary-cancelled", ""),
    // Where there is one secret, which is none of these places.
    ("reply-lost", ""),
    ("current-refused", "*"),
    ("current-accepted", "*"),
    ("rollback-planned", "promoted canary confirmed"),
    ("terms-tightened", "planned intended issued stored verified promoted canary confirmed retired doomed revoked"),
    ("compromised", "*"),
    ("incident-closed", ""),
    ("revocation-asked", "promoted canary confirmed retired doomed"),
    ("manual-requested", "*"),
    ("manual-reminded", ""),
    ("manual-withdrawn", ""),
    ("removal-asked", "doomed"),
    ("removal-seen", ""),
    ("forgotten", "*"),
    ("cleared", ""),
    ("paused", "*"),
    ("resumed", "*"),
    ("restored", "*"),
    ("snapshot", "*"),
];

#[test]
fn each_event_fits_where_the_table_says_and_nowhere_else() {
    let places = places();
    for (event, fits) in FITS {
        for (place, world) in &places {
            let expected = fits == "*" || fits.split(' ').any(|fit| fit == *place);
            let applied = apply(&world.ledger, &event_for(event, world));
            assert_eq!(applied.is_ok(), expected, "`{event}` at `{place}`: {:?}", applied.err());
        }
    }
}

#[test]
fn the_table_has_every_event_that_the_journal_knows() {
    let world = World::enrolled(true);
    let mut named: Vec<String> = Vec::new();
    for (name, _) in FITS {
        let json = serde_json::to_value(event_for(name, &world)).unwrap();
        assert_eq!(json["event"], name);
        named.push(name.to_owned());
    }
    // An unknown tag makes serde list the known ones: a new event must come into the table.
    let error = serde_json::from_str::<Event>(r#"{"event":"?"}"#).unwrap_err().to_string();
    let known = error.matches('`').count() / 2 - 1;
    assert_eq!(named.len(), known, "{error}");
}

#[test]
fn nothing_open_and_nothing_current_takes_only_a_beginning() {
    let world = World::empty(true);
    let fits = ["planned", "orphan-found", "paused", "resumed", "restored", "snapshot"];
    for (name, _) in FITS {
        assert_eq!(apply(&world.ledger, &event_for(name, &world)).is_ok(), fits.contains(&name), "{name}");
    }
}

#[test]
fn what_fits_by_its_place_may_still_be_wrong() {
    let planned = World::in_phase(Phase::Planned, true);
    let mut intended = planned.clone();
    intended.step_until(|world| world.create_unsent);
    let no_id = Event::Issued {
        key_id: None,
        issued_at: planned.now.wall,
        expires_at: None,
        fingerprints: Vec::new(),
        copy_of: None,
        old_ends_at: None,
    };
    let operation = OperationId::new(installation(), &"other".parse().unwrap(), 9, 9);
    let grown = |attempt| Event::CreateIntended { attempt, operation, version: operation.version(2), seen: BTreeSet::new() };
    let mut wrong_generation = World::enrolled(true).plan(Origin::Minted, "max-age");
    wrong_generation.generation += 1;
    let stored = World::in_phase(Phase::Stored, true);
    let mut given_up = intended.clone();
    given_up.journal(Event::Abandoning { reason: AbandonReason::CreateRefused });
    let abandoned = Event::Abandoned { at: planned.now.wall, next_try_at: planned.now.wall };
    for (why, world, event) in [
        ("a minted key needs an id", &intended, no_id),
        ("the current key isn't minted again", &intended, intended.issued(&key("submitted-1"), None)),
        ("attempts grow one by one", &planned, grown(3)),
        ("attempts never shrink", &planned, grown(0)),
        ("generations follow each other", &World::enrolled(true), Event::Planned { plan: wrong_generation }),
        ("a rollback isn't planned anew", &World::enrolled(true), Event::Planned { plan: planned.plan(Origin::RolledBack, "") }),
        ("the disproved isn't verified", &stored, Event::Verified { proof: proof(Says::Against), term: 1 }),
        ("another operation's create", &intended, Event::PossibleOrphan { operation, at: planned.now.wall }),
        ("a create of unknown outcome is looked for first", &given_up, abandoned),
        ("a known key is no orphan", &planned, Event::OrphanFound { key_id: key("submitted-1"), burns_attempt: false }),
    ] {
        assert!(apply(&world.ledger, &event).is_err(), "{why}");
    }
}
