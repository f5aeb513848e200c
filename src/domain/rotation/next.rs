//! Which step comes next in an open rotation. Only computes: asked twice, it answers the same.

use std::time::Duration;

use jiff::Timestamp;

use super::{AbandonReason, CANDIDATE_REFUSALS_MAX, Event, Facts, POSSIBLE_ORPHANS_MAX, Phase, Rotation, Step, Wait, WaitReason};
use crate::domain::due::deadline_of;
use crate::domain::ids::OperationId;
use crate::domain::ledger::Origin;
use crate::domain::policy::{Confirmation, Unconfirmed};
use crate::domain::windows;

/// The next step. `rotation` is the open one of `facts.ledger`.
pub fn next(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    if let Some(key_id) = facts.ledger.orphans.first() {
        return Step::RevokeOrphan { key_id: key_id.clone() };
    }
    if let Some(reason) = rotation.abandoning {
        return undo(rotation, facts, reason);
    }
    let tighter = rotation.plan.terms.safer(facts.policy.terms);
    if tighter != rotation.plan.terms {
        return Step::Journal(Event::TermsTightened { terms: tighter });
    }
    match rotation.phase {
        Phase::Planned => issue(rotation, facts),
        Phase::Issued => Step::Store,
        Phase::Stored if rotation.refusals >= CANDIDATE_REFUSALS_MAX => abandon(AbandonReason::CandidateRefused),
        Phase::Stored => Step::Verify,
        Phase::Verified => promote(rotation, facts),
        Phase::Promoted => confirm(rotation, facts),
        Phase::Confirmed => retire(rotation, facts),
        Phase::Retired => revoke(rotation, facts),
        Phase::Revoked => Step::Forget,
    }
}

fn abandon(reason: AbandonReason) -> Step {
    Step::Journal(Event::Abandoning { reason })
}

fn wait(reason: WaitReason, until: Option<Timestamp>) -> Step {
    Step::Wait(Wait { reason, until })
}

fn issue(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    if rotation.plan.origin != Origin::Minted {
        return abandon(AbandonReason::SubmissionInterrupted);
    }
    if rotation.create_open && facts.create_unsent {
        return Step::Create;
    }
    if rotation.create_open && !facts.provider.can_find_orphans() {
        return Step::Journal(Event::PossibleOrphan { operation: rotation.operation, at: facts.now.wall });
    }
    // A reply was lost where nobody can look for the key: the attempt ends here, and the next one waits longer.
    if rotation.attempt_burned && !facts.provider.can_find_orphans() {
        return abandon(AbandonReason::ReplyLost);
    }
    if let Some(closed) = window_closed(rotation, facts) {
        return closed;
    }
    let Some(seen) = facts.seen else { return Step::Survey };
    // The same operation is tried again, unless its key was met and given up: an idempotency key must never bring a
    // revoked key back.
    let attempt = if rotation.attempt_burned { facts.ledger.attempts + 1 } else { rotation.attempt };
    let generation = rotation.plan.generation;
    let operation = OperationId::new(facts.installation, &facts.credential.name, generation, attempt);
    Step::Journal(Event::CreateIntended { attempt, operation, version: operation.version(generation), seen: seen.clone() })
}

fn promote(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    if rotation.refusals >= CANDIDATE_REFUSALS_MAX {
        return abandon(AbandonReason::CandidateRefused);
    }
    if rotation.verified_term != Some(facts.term) {
        return Step::Verify;
    }
    // What a person submits takes effect at once: the person chose the time.
    if rotation.plan.origin == Origin::Minted
        && let Some(closed) = window_closed(rotation, facts)
    {
        return closed;
    }
    Step::Promote
}

fn confirm(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    if rotation.old.is_none() {
        return Step::Journal(Event::Closed);
    }
    if facts.blockers.is_empty() {
        return Step::Journal(Event::Confirmed { stragglers: Vec::new() });
    }
    let left = overlap_left(rotation, facts);
    if left.is_zero() && rotation.plan.terms.unconfirmed == Unconfirmed::Revoke && facts.now.trusted {
        return Step::Journal(Event::Confirmed { stragglers: facts.blockers.to_vec() });
    }
    held(rotation, facts, left)
}

fn held(rotation: &Rotation, facts: &Facts<'_>, left: Duration) -> Step {
    let until = (!left.is_zero()).then(|| later(facts, left));
    let old = rotation.old.as_ref().and_then(|old| facts.ledger.versions.get(old));
    let overdue = old.is_some_and(|old| deadline_of(old, facts.policy) <= facts.now.wall);
    let unseen = facts.blockers.iter().all(|blocker| blocker.instance.is_none());
    let reason = match (overdue, unseen) {
        (true, _) => WaitReason::Overdue,
        (false, true) => WaitReason::NoInstanceSeen,
        (false, false) => WaitReason::Held,
    };
    wait(reason, until)
}

fn retire(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    let left = overlap_left(rotation, facts);
    if !left.is_zero() {
        return wait(WaitReason::Overlap, Some(later(facts, left)));
    }
    may_destroy(rotation, facts).unwrap_or(Step::Retire)
}

fn revoke(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    let doomed = rotation.old.as_ref().and_then(|old| facts.ledger.versions.get(old)).is_some_and(|old| old.doomed);
    // An intent to revoke is final: what follows only finishes it.
    if !doomed {
        if let Some(wait) = may_destroy(rotation, facts) {
            return wait;
        }
        if rotation.retired_term != Some(facts.term) {
            return Step::Retire;
        }
        return Step::Journal(Event::RevokeIntended);
    }
    if facts.ledger.paused {
        return wait(WaitReason::Paused, None);
    }
    if rotation.retired_term != Some(facts.term) {
        return Step::Retire;
    }
    Step::Revoke
}

/// What stands in the way of destroying the old key, if anything does.
fn may_destroy(rotation: &Rotation, facts: &Facts<'_>) -> Option<Step> {
    if facts.ledger.paused {
        return Some(wait(WaitReason::Paused, None));
    }
    if !facts.now.trusted {
        return Some(wait(WaitReason::ClockUntrusted, None));
    }
    let terms = rotation.plan.terms;
    let held_back = !facts.blockers.is_empty() && terms.unconfirmed == Unconfirmed::Hold && terms.confirmation != Confirmation::None;
    if held_back {
        return Some(held(rotation, facts, Duration::ZERO));
    }
    window_closed(rotation, facts)
}

fn undo(rotation: &Rotation, facts: &Facts<'_>, _reason: AbandonReason) -> Step {
    if rotation.plan.origin == Origin::Minted {
        if facts.ledger.paused && rotation.key_id.is_some() {
            return wait(WaitReason::Paused, None);
        }
        if let Some(key_id) = &rotation.key_id {
            return Step::UndoKey { key_id: key_id.clone() };
        }
        if rotation.create_open {
            return undo_create(rotation, facts);
        }
    }
    Step::Discard
}

fn undo_create(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    if facts.create_unsent {
        return Step::Journal(Event::Undone);
    }
    if !facts.provider.can_find_orphans() {
        return Step::Journal(Event::PossibleOrphan { operation: rotation.operation, at: facts.now.wall });
    }
    match facts.seen {
        None => Step::Survey,
        Some(_) => Step::Journal(Event::Undone),
    }
}

/// A wait for the next window, unless none opens before the deadline: then the deadline comes first.
fn window_closed(rotation: &Rotation, facts: &Facts<'_>) -> Option<Step> {
    if windows::any_open(&facts.policy.windows, facts.now.wall) {
        return None;
    }
    let opens = windows::next_open(&facts.policy.windows, facts.now.wall)?;
    let old = rotation.old.as_ref().and_then(|old| facts.ledger.versions.get(old));
    let in_time = old.is_none_or(|old| opens < deadline_of(old, facts.policy));
    in_time.then(|| wait(WaitReason::WindowClosed, Some(opens)))
}

/// How much of the overlap is left, by the smaller of wall time and running time (I13).
fn overlap_left(rotation: &Rotation, facts: &Facts<'_>) -> Duration {
    let overlap = rotation.plan.terms.overlap.as_duration();
    match rotation.promoted {
        Some(at) => overlap.saturating_sub(facts.now.since(at)),
        None => overlap,
    }
}

fn later(facts: &Facts<'_>, wait: Duration) -> Timestamp {
    facts.now.wall.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// Whether so many creates were lost that a person must look first.
pub(crate) fn too_many_possible_orphans(facts: &Facts<'_>) -> bool {
    facts.ledger.possible_orphans.len() >= POSSIBLE_ORPHANS_MAX
}
