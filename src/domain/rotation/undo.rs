//! The way back: giving a rotation up, turning it round, and keys that nobody knows.

use jiff::Timestamp;

use super::apply::{Applied, ends_no_later, illegal, open};
use super::canary::way_back_failed;
use super::{AbandonReason, Event, Phase, Plan, Rotation};
use crate::domain::ids::VersionId;
use crate::domain::ledger::{Closure, Ended, Failure, Ledger, Origin, PossibleOrphan, VersionFacts};
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::rollout::Rollout;

pub(super) fn abandon(mut ledger: Ledger, event: &Event) -> Applied {
    let Some(rotation) = ledger.rotation.as_mut() else { return illegal("abandoning", "no rotation is open") };
    match event {
        Event::Abandoning { .. } if rotation.phase >= Phase::Promoted => illegal("abandoning", "after promotion it rolls forward"),
        Event::Abandoning { reason } => {
            rotation.abandoning.get_or_insert(*reason);
            Ok(ledger)
        }
        _ if rotation.abandoning.is_none() => illegal("undone", "the rotation isn't being abandoned"),
        Event::Undone => {
            rotation.key_id = None;
            rotation.create_open = false;
            Ok(ledger)
        }
        Event::Abandoned { .. } => abandoned(ledger, event),
        _ => illegal("abandoning", "another event"),
    }
}

fn abandoned(mut ledger: Ledger, event: &Event) -> Applied {
    let Event::Abandoned { at, next_try_at } = event else { return illegal("abandoned", "another event") };
    let Some(rotation) = ledger.rotation.take() else { return illegal("abandoned", "no rotation is open") };
    let by_policy = rotation.plan.origin.is_by_policy();
    if rotation.create_open || (by_policy && rotation.key_id.is_some()) {
        return illegal("abandoned", "the new key isn't undone");
    }
    if by_policy {
        if let Some(facts) = ledger.versions.get_mut(&rotation.version) {
            facts.doomed = true;
            facts.ended = Some(Ended { at: *at, closure: Closure::Reported });
        }
    } else {
        // Nothing of a refused submission is kept; a failed copy leaves the original as it is.
        ledger.versions.remove(&rotation.version);
    }
    let count = ledger.failure.as_ref().map_or(0, |failure| failure.count).saturating_add(1);
    if let (Some(reason), true) = (rotation.abandoning, by_policy) {
        ledger.failure = Some(Failure { reason, count, next_try_at: *next_try_at });
    }
    let old_is_dead = rotation.abandoning == Some(AbandonReason::CandidateRefused);
    let turns_back = rotation.plan.origin == Origin::RolledBack;
    ledger.rotation = rotation.turned;
    if let Some(turned) = ledger.rotation.as_mut().filter(|_| turns_back) {
        way_back_failed(turned, old_is_dead);
    }
    ledger.trim();
    Ok(ledger)
}

/// What a restore adds to the revisions: more than came and went between the backup and its return, so that an application which
/// saw those takes up what comes now.
const RESTORED_REVISIONS: u64 = 1 << 20;

/// What is open at a provider goes on: each of its steps asks the provider first. A value of our own has nobody to ask: it may
/// have been ended since, so nothing of it is carried on, and a new one takes its place.
pub(super) fn restored(mut ledger: Ledger) -> Ledger {
    ledger.revision += RESTORED_REVISIONS;
    ledger.refused_since = None;
    ledger.unverified = ledger.current.is_some();
    let Some(rotation) = &mut ledger.rotation else { return ledger };
    // What became of the old key isn't known: nobody is served it any more.
    let turned = rotation.turned.as_mut().and_then(|turned| turned.rollout.as_mut());
    turned.into_iter().for_each(Rollout::hasten);
    rotation.rollout.iter_mut().for_each(Rollout::hasten);
    rotation.verified_before_restore = rotation.promoted.is_none() && rotation.verified_term.is_some();
    let Some(rotation) = &ledger.rotation else { return ledger };
    if ledger.origin_of(&rotation.version).unwrap_or(rotation.plan.origin) != Origin::Chosen {
        return ledger;
    }
    let mut ends = Vec::new();
    if let Some(rotation) = ledger.rotation.as_mut() {
        ends.extend(carry_nothing_on(rotation));
        // A rollback that is given up would go on with what it turned round.
        ends.extend(rotation.turned.as_deref_mut().and_then(carry_nothing_on));
    }
    for (old, at) in ends {
        for version in ledger.same_key(&old) {
            if let Some(facts) = ledger.versions.get_mut(&version) {
                facts.doomed = true;
                facts.ended.get_or_insert(Ended { at, closure: Closure::Unproved });
            }
        }
    }
    ledger
}

/// A rotation of values of our own ends here. Its old version, and when that was replaced, if it lived until now.
fn carry_nothing_on(rotation: &mut Rotation) -> Option<(VersionId, Timestamp)> {
    let Some(promoted) = rotation.promoted else {
        rotation.abandoning.get_or_insert(AbandonReason::Restored);
        return None;
    };
    let old = rotation.old.clone()?;
    let lived = rotation.phase < Phase::Revoked;
    rotation.phase = Phase::Revoked;
    lived.then_some((old, promoted.wall))
}

pub(super) fn orphan(mut ledger: Ledger, event: &Event) -> Applied {
    match event {
        Event::OrphanFound { key_id, burns_attempt } => {
            if ledger.knows_key(key_id) {
                return illegal("orphan-found", "the key is in the journal");
            }
            if !ledger.orphans.insert(key_id.clone()) {
                return illegal("orphan-found", "the orphan was found before");
            }
            if let (Some(rotation), true) = (ledger.rotation.as_mut(), *burns_attempt) {
                rotation.attempt_burned = true;
            }
        }
        Event::OrphanRevoked { key_id } => {
            if !ledger.orphans.remove(key_id) {
                return illegal("orphan-revoked", "no such orphan was found");
            }
        }
        Event::PossibleOrphan { operation, at } => {
            let open = ledger.rotation.as_mut().filter(|rotation| rotation.create_open && rotation.operation == *operation);
            let Some(rotation) = open else { return illegal("possible-orphan", "no such create is under way") };
            rotation.create_open = false;
            rotation.attempt_burned = true;
            ledger.possible_orphans.push(PossibleOrphan { operation: *operation, at: *at });
        }
        Event::ReplyLost { operation, burns_attempt, old_ends_at } => {
            let open = ledger.rotation.as_mut().filter(|rotation| rotation.create_open && rotation.operation == *operation);
            let Some(rotation) = open.filter(|rotation| !rotation.plan.succession.spares_the_old()) else {
                return illegal("reply-lost", "no create of a next secret is under way");
            };
            rotation.create_open = false;
            rotation.attempt_burned |= *burns_attempt;
            ends_no_later(&mut ledger, *old_ends_at);
        }
        _ => return illegal("orphan-found", "another event"),
    }
    Ok(ledger)
}

/// The account has no key of ours but the current one.
pub(super) fn none_left_over(ledger: Ledger) -> Applied {
    if !ledger.rotation.as_ref().is_some_and(|open| open.phase == Phase::Planned && !open.create_open) {
        return illegal("secondary-cancelled", "a key that is on its way would go with it");
    }
    if ledger.possible_orphans.is_empty() {
        return illegal("secondary-cancelled", "no reply to a create was lost");
    }
    Ok(Ledger { possible_orphans: Vec::new(), possible_orphans_seen: 0, ..ledger })
}

pub(super) fn rollback_planned(mut ledger: Ledger, plan: &Plan) -> Applied {
    let Some(rotation) = ledger.rotation.take() else { return illegal("rollback-planned", "no rotation is open") };
    if ledger.open_incident().is_some() {
        return illegal("rollback-planned", "the old key is stolen");
    }
    if rotation.revocation.is_some() {
        return illegal("rollback-planned", "the old key's revocation was asked for");
    }
    if !matches!(rotation.phase, Phase::Promoted | Phase::Confirmed) && !is_on(Mutant::RolledBackToDoomed) {
        return illegal("rollback-planned", "there is a way back between promotion and retirement only");
    }
    if !rotation.plan.succession.spares_the_old() {
        return illegal("rollback-planned", "making the new key ended the old one: it is dead, or dies by itself");
    }
    let Some(original) = rotation.old.clone() else { return illegal("rollback-planned", "there is no old version") };
    let Some(facts) = ledger.versions.get(&original).cloned() else { return illegal("rollback-planned", "the old version is unknown") };
    if facts.is_going() && !is_on(Mutant::RolledBackToDoomed) {
        return illegal("rollback-planned", "the old key is being revoked");
    }
    if plan.generation != ledger.generation + 1 || plan.attempt != ledger.attempts + 1 {
        return illegal("rollback-planned", "generation and attempt aren't the next ones");
    }
    if plan.origin != Origin::RolledBack {
        return illegal("rollback-planned", "the plan is of another kind");
    }
    if ledger.versions.contains_key(&plan.version) {
        return illegal("rollback-planned", "the version exists already");
    }
    ledger.attempts = plan.attempt;
    let copy = VersionFacts {
        operation: plan.operation,
        generation: plan.generation,
        origin: Origin::RolledBack,
        copy_of: Some(original),
        proof: None,
        issued_at: if is_on(Mutant::RollbackRejuvenates) { plan.planned_at } else { facts.issued_at },
        ..*facts
    };
    let mut back = open(plan, ledger.current.clone(), Phase::Issued);
    back.key_id.clone_from(&copy.key_id);
    back.issued_at = Some(copy.issued_at);
    back.turned = Some(rotation);
    ledger.versions.insert(plan.version.clone(), Box::new(copy));
    ledger.rotation = Some(Box::new(back));
    Ok(ledger)
}
