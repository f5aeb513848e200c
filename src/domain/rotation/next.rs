//! Which step comes next in an open rotation. Only computes: asked twice, it answers the same.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::canary::roll_out;
use super::manual::removal;
use super::rehearsal::before_issue;
use super::{
    AbandonReason, CANDIDATE_REFUSALS_MAX, CREATE_ATTEMPTS_MAX, Event, Facts, POSSIBLE_ORPHANS_MAX, Phase, RevocationAsked, Rotation, Step,
    Wait, WaitReason,
};
use crate::domain::due::deadline_of;
use crate::domain::holders::Blocker;
use crate::domain::ids::OperationId;
use crate::domain::ledger::Origin;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::policy::{Confirmation, Unconfirmed};
use crate::domain::rollout::time_of;
use crate::domain::succession::Succession;
use crate::domain::windows;

/// The next step. `rotation` is the open one of `facts.ledger`.
pub fn next(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    if is_on(Mutant::StolenRevokedFirst)
        && facts.ledger.open_incident().is_some()
        && let Some(key_id) = facts.ledger.current_facts().and_then(|facts| facts.key_id.clone())
    {
        return Step::RevokeOrphan { key_id };
    }
    if let Some(key_id) = facts.ledger.orphans.first() {
        if !facts.paused() {
            return Step::RevokeOrphan { key_id: key_id.clone() };
        }
        // No further key while one too many lives. What is past its create goes on.
        if rotation.phase == Phase::Planned {
            return wait(WaitReason::Paused, None);
        }
    }
    if rotation.abandoning.is_some() {
        return undo(rotation, facts);
    }
    let tighter = rotation.plan.terms.safer(facts.policy.terms);
    if tighter != rotation.plan.terms {
        return Step::Journal(Event::TermsTightened { terms: tighter });
    }
    match rotation.phase {
        Phase::Planned => before_issue(rotation, facts).unwrap_or_else(|| issue(rotation, facts)),
        Phase::Issued => Step::Store,
        Phase::Stored if rotation.refusals >= CANDIDATE_REFUSALS_MAX && !is_on(Mutant::NeverGivenUp) => {
            abandon(AbandonReason::CandidateRefused)
        }
        Phase::Stored => Step::Verify,
        Phase::Verified => promote(rotation, facts),
        Phase::Promoted => roll_out(rotation, facts).unwrap_or_else(|| confirm(rotation, facts)),
        Phase::Confirmed => retire(rotation, facts),
        Phase::Retired => revoke(rotation, facts),
        Phase::Revoked => Step::Forget,
    }
}

fn abandon(reason: AbandonReason) -> Step {
    Step::Journal(Event::Abandoning { reason })
}

pub(super) fn wait(reason: WaitReason, until: Option<Timestamp>) -> Step {
    Step::Wait(Wait { reason, until })
}

fn issue(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    match rotation.plan.origin {
        Origin::Minted => {}
        Origin::Chosen => return choose(rotation, facts),
        Origin::Submitted | Origin::RolledBack => return abandon(AbandonReason::SubmissionInterrupted),
    }
    if rotation.create_open && !facts.create_unsent && !facts.provider.can_find_orphans() {
        return reply_lost(rotation, facts);
    }
    let spares_the_old = rotation.plan.succession.spares_the_old();
    if !spares_the_old && let Some(wait) = paused(facts).or_else(|| clock_untrusted(facts)) {
        return wait;
    }
    if rotation.create_open && facts.create_unsent {
        return Step::Create;
    }
    // A reply was lost where nobody can look for the key: the attempt ends here, and the next one waits longer. Where there is
    // one secret, asking for the next one heals it.
    if rotation.attempt_burned && spares_the_old && !facts.provider.can_find_orphans() && !facts.provider.has_secondary() {
        return abandon(AbandonReason::ReplyLost);
    }
    // Each lost reply costs the provider a key made and revoked: pause, and let the next try wait longer.
    if rotation.attempt_burned && rotation.attempt + 1 >= rotation.plan.attempt + CREATE_ATTEMPTS_MAX {
        return abandon(AbandonReason::ReplyLost);
    }
    let before_deadline = after_promotion(rotation) + facts.policy.propagation(facts.provider);
    if let Some(closed) = window_closed(rotation, facts, before_deadline) {
        return closed;
    }
    if facts.provider.has_secondary() && !facts.ledger.possible_orphans.is_empty() {
        return paused(facts).unwrap_or(Step::CancelSecondary);
    }
    let none = BTreeSet::new();
    let Some(seen) = facts.seen.or(is_on(Mutant::NoSurveyBeforeCreate).then_some(&none)) else { return Step::Survey };
    // A further key would take a slot that isn't there, or evict a living one (I9).
    let slots = facts.provider.slots.and_then(|slots| usize::try_from(slots).ok());
    if slots.zip(facts.living).is_some_and(|(slots, living)| living >= slots) {
        return abandon(AbandonReason::NoFreeSlot);
    }
    // The same operation is tried again, unless its key was met and given up: an idempotency key must never bring a
    // revoked key back.
    let attempt = if rotation.attempt_burned && !is_on(Mutant::AttemptReused) { facts.ledger.attempts + 1 } else { rotation.attempt };
    let generation = rotation.plan.generation;
    let operation = OperationId::new(facts.installation, &facts.credential.name, generation, attempt);
    Step::Journal(Event::CreateIntended { attempt, operation, version: operation.version(generation), seen: seen.clone() })
}

/// The outcome of a create is unknown, and no list tells it.
fn reply_lost(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    let (operation, now) = (rotation.operation, facts.now.wall);
    let lives_for = match rotation.plan.succession {
        Succession::Beside => return Step::Journal(Event::PossibleOrphan { operation, at: now }),
        // It was asked for before now, so the old key ends no later than this; the next create follows at once.
        Succession::EndsOld => facts.provider.overlap_given(overlap(rotation)),
        Succession::ReplacesOld => Duration::ZERO,
    };
    let repeats = facts.provider.calls.create.as_ref().is_some_and(|create| !create.idempotency_headers.is_empty());
    Step::Journal(Event::ReplyLost { operation, burns_attempt: !repeats, old_ends_at: later(facts, lives_for) })
}

fn choose(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    changes_in_window(rotation, facts, after_promotion(rotation)).unwrap_or(Step::Choose)
}

/// As [`window_closed`], for what replaces a living version: where nothing is used yet, nothing needs a window.
fn changes_in_window(rotation: &Rotation, facts: &Facts<'_>, before_deadline: Duration) -> Option<Step> {
    let nothing_served = rotation.plan.origin == Origin::Chosen && (rotation.old.is_none() || facts.ledger.unverified);
    if nothing_served { None } else { window_closed(rotation, facts, before_deadline) }
}

fn promote(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    if rotation.refusals >= CANDIDATE_REFUSALS_MAX {
        return abandon(AbandonReason::CandidateRefused);
    }
    if rotation.verified_term != Some(facts.term) && !is_on(Mutant::PromotedInAnotherTerm) {
        return Step::Verify;
    }
    // What a person submits takes effect at once: the person chose the time.
    if rotation.plan.origin.is_by_policy()
        && let Some(closed) = changes_in_window(rotation, facts, after_promotion(rotation))
    {
        return closed;
    }
    Step::Promote
}

fn confirm(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    if !facts.ledger.replaces_a_key(rotation) {
        return Step::Journal(Event::Closed);
    }
    if facts.blockers.is_empty() {
        return Step::Journal(Event::Confirmed { stragglers: Vec::new() });
    }
    let left = left_to_holders(rotation, facts);
    if left == Some(Duration::ZERO) {
        if !facts.now.trusted {
            return wait(WaitReason::ClockUntrusted, None);
        }
        let named = if is_on(Mutant::StragglersUnnamed) { &[] } else { facts.blockers };
        return Step::Journal(Event::Confirmed { stragglers: named.to_vec() });
    }
    held(rotation, facts, left.unwrap_or_else(|| overlap_left(rotation, facts)))
}

/// How long those who hold the old key are waited for before it goes in spite of them; `None`: for as long as they hold it.
fn left_to_holders(rotation: &Rotation, facts: &Facts<'_>) -> Option<Duration> {
    let by_incident = match facts.ledger.open_incident() {
        Some(_) if is_on(Mutant::LimitForgotten) => None,
        Some(_) if is_on(Mutant::LimitCutShort) => Some(Duration::ZERO),
        Some(incident) => Some(incident.left(facts.now, facts.ledger.is_stolen(&rotation.version))),
        None => None,
    };
    let by_hand = (rotation.revocation == Some(RevocationAsked::Anyway)).then_some(Duration::ZERO);
    // A policy that doesn't wait for holders leaves them the overlap, though it counts for nothing else.
    let by_policy = (rotation.plan.terms.unconfirmed == Unconfirmed::Revoke).then(|| left_since_promotion(rotation, facts));
    // Nobody can hold what the provider ends by itself.
    let by_provider = (!rotation.plan.succession.spares_the_old()).then(|| left_to_the_old(rotation, facts));
    [by_incident, by_hand, by_policy, by_provider].into_iter().flatten().min()
}

/// How long the provider lets the old key live, where it ends it by itself.
fn left_to_the_old(rotation: &Rotation, facts: &Facts<'_>) -> Duration {
    if rotation.plan.succession != Succession::EndsOld {
        return Duration::ZERO;
    }
    let old = rotation.old.as_ref().and_then(|old| facts.ledger.versions.get(old));
    let left = old.and_then(|old| old.expires_at).map(|end| Duration::try_from(end.duration_since(facts.now.wall)));
    left.and_then(Result::ok).unwrap_or_default()
}

/// A stolen key, or a person who wants the old one gone: overlap and windows don't count.
fn hurried(rotation: &Rotation, facts: &Facts<'_>) -> bool {
    facts.ledger.open_incident().is_some() || rotation.revocation.is_some()
}

fn held(rotation: &Rotation, facts: &Facts<'_>, left: Duration) -> Step {
    let until = (!left.is_zero()).then(|| later(facts, left));
    let old = rotation.old.as_ref().and_then(|old| facts.ledger.versions.get(old));
    let overdue = old.is_some_and(|old| deadline_of(old, facts.policy) <= facts.now.wall);
    let unseen = facts.blockers.iter().all(|blocker| blocker.instance.is_none());
    // That nobody was seen is what a person must act on, also when it is late; `status` tells of both.
    let reason = match (unseen, overdue) {
        (true, _) => WaitReason::NoInstanceSeen,
        (false, true) => WaitReason::Overdue,
        (false, false) => WaitReason::Held,
    };
    wait(reason, until)
}

fn retire(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    // The clock needn't be believed for this: verifying destroys nothing, and the provider's answer brings its time.
    held_back(rotation, facts).unwrap_or(Step::Retire)
}

fn revoke(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    let doomed = rotation.old.as_ref().and_then(|old| facts.ledger.versions.get(old)).is_some_and(|old| old.doomed);
    // An intent to revoke is final: what follows only finishes it, and asks neither holders nor windows again.
    let waits = if doomed { paused(facts) } else { held_back(rotation, facts) };
    if let Some(wait) = waits {
        return wait;
    }
    // Nobody here can end it: a person is asked to, whatever is thought of the current key by then.
    if doomed && facts.provider.is_manual() {
        return removal(rotation, facts);
    }
    // Afresh means: in this term, and not refused since.
    if rotation.retired_term != Some(facts.term) || facts.ledger.refused_since.is_some() {
        return Step::Retire;
    }
    if let Some(wait) = clock_untrusted(facts) {
        return wait;
    }
    if !doomed && !is_on(Mutant::RevokeIntentNotJournaled) {
        return Step::Journal(Event::RevokeIntended);
    }
    disable_first(rotation, facts).unwrap_or(Step::Revoke)
}

/// Where the provider can disable before it deletes: disable, soak, delete (I5).
fn disable_first(rotation: &Rotation, facts: &Facts<'_>) -> Option<Step> {
    facts.provider.calls.disable.as_ref()?;
    // What nothing names at the provider can't be disabled either.
    rotation.old.as_ref().and_then(|old| facts.ledger.versions.get(old))?.key_id.as_ref()?;
    let Some(disabled) = rotation.disabled else { return Some(Step::Disable) };
    let soak = if hurried(rotation, facts) { Duration::ZERO } else { facts.policy.soak(facts.provider) };
    let left = soak.saturating_sub(facts.now.since(disabled));
    (!left.is_zero()).then(|| wait(WaitReason::Soak, Some(later(facts, left))))
}

/// What destroys waits for a clock that is believed (I13).
fn clock_untrusted(facts: &Facts<'_>) -> Option<Step> {
    (!facts.now.trusted && !is_on(Mutant::JumpedClockBelieved)).then(|| wait(WaitReason::ClockUntrusted, None))
}

fn paused(facts: &Facts<'_>) -> Option<Step> {
    facts.paused().then(|| wait(WaitReason::Paused, None))
}

/// What keeps the old key alive after its overlap, beside a clock that isn't believed.
fn held_back(rotation: &Rotation, facts: &Facts<'_>) -> Option<Step> {
    let terms = rotation.plan.terms;
    let left = overlap_left(rotation, facts);
    if !left.is_zero() {
        return Some(wait(WaitReason::Overlap, Some(later(facts, left))));
    }
    if facts.paused() {
        return paused(facts);
    }
    let somebody_counts = terms.confirmation != Confirmation::None || hurried(rotation, facts);
    if !facts.blockers.is_empty() && somebody_counts {
        match left_to_holders(rotation, facts) {
            None => return Some(held(rotation, facts, Duration::ZERO)),
            Some(left) if !left.is_zero() => return Some(held(rotation, facts, left)),
            Some(_) => {}
        }
        if let Some(names) = unnamed_stragglers(rotation, facts) {
            return Some(Step::Journal(Event::Confirmed { stragglers: names }));
        }
    }
    window_closed(rotation, facts, Duration::ZERO)
}

/// All stragglers, if some came after the others were named: nobody's key dies unnamed (I5).
fn unnamed_stragglers(rotation: &Rotation, facts: &Facts<'_>) -> Option<Vec<Blocker>> {
    if is_on(Mutant::StragglersUnnamed) {
        return None;
    }
    let late = facts.blockers.iter().filter(|blocker| !rotation.stragglers.contains(blocker));
    let all: Vec<Blocker> = rotation.stragglers.iter().chain(late).cloned().collect();
    (all.len() > rotation.stragglers.len()).then_some(all)
}

fn undo(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    if rotation.plan.origin == Origin::Minted {
        if facts.paused() && rotation.key_id.is_some() {
            return wait(WaitReason::Paused, None);
        }
        if let Some(key_id) = &rotation.key_id {
            return Step::UndoKey { key_id: key_id.clone() };
        }
        if rotation.create_open {
            return undo_create(rotation, facts);
        }
        // Nothing of ours stays beside the primary secret until the next try. Where that one is dead, nobody can sign for it.
        let can_sign = facts.ledger.refused_since.is_none();
        if facts.provider.has_secondary() && !facts.ledger.possible_orphans.is_empty() && can_sign {
            return paused(facts).unwrap_or(Step::CancelSecondary);
        }
    }
    Step::Discard
}

fn undo_create(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    if facts.create_unsent {
        return Step::Journal(Event::Undone);
    }
    if !facts.provider.can_find_orphans() {
        return reply_lost(rotation, facts);
    }
    match facts.seen {
        None => Step::Survey,
        Some(_) => Step::Journal(Event::Undone),
    }
}

/// A wait for the next window, unless none opens in time: then the deadline comes first. What follows the action takes
/// `before_deadline`: a window that opens later than that is as good as none.
fn window_closed(rotation: &Rotation, facts: &Facts<'_>, before_deadline: Duration) -> Option<Step> {
    if hurried(rotation, facts) {
        return None;
    }
    let opens = windows::next_open(&facts.policy.windows, facts.now.wall)?;
    if opens <= facts.now.wall || is_on(Mutant::WindowsIgnored) {
        return None;
    }
    let old = rotation.old.as_ref().and_then(|old| facts.ledger.versions.get(old));
    let latest = |old| deadline_of(old, facts.policy).checked_sub(before_deadline).unwrap_or(Timestamp::MIN);
    let in_time = old.is_none_or(|old| opens < latest(old));
    in_time.then(|| wait(WaitReason::WindowClosed, Some(opens)))
}

fn overlap(rotation: &Rotation) -> Duration {
    rotation.plan.terms.overlap.as_duration()
}

/// The longest that the old key lives on beside the new one by plan: the steps of the rollout, then the overlap.
fn after_promotion(rotation: &Rotation) -> Duration {
    overlap(rotation) + time_of(overlap(rotation), rotation.plan.rollout.len())
}

/// How much of the overlap is left, by the smaller of wall time and running time (I13).
fn overlap_left(rotation: &Rotation, facts: &Facts<'_>) -> Duration {
    // Where the new key's coming was the old one's end, there is nothing to overlap with.
    let replaced = facts.provider.is_manual() && facts.provider.manual.replaces;
    let by_terms = if replaced || hurried(rotation, facts) { Duration::ZERO } else { left_since_promotion(rotation, facts) };
    by_terms.max(left_to_the_old(rotation, facts))
}

fn left_since_promotion(rotation: &Rotation, facts: &Facts<'_>) -> Duration {
    // Who gets the new version last has the whole overlap for it.
    let since = match &rotation.rollout {
        Some(rollout) if !is_on(Mutant::CanaryOverlapCutShort) => rollout.full,
        _ => rotation.promoted,
    };
    match since {
        Some(_) if is_on(Mutant::OverlapCutShort) => Duration::ZERO,
        Some(at) => overlap(rotation).saturating_sub(facts.now.since(at)),
        None => overlap(rotation),
    }
}

pub(super) fn later(facts: &Facts<'_>, wait: Duration) -> Timestamp {
    facts.now.wall.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// Whether so many creates were lost that a person must look first.
pub(crate) fn too_many_possible_orphans(facts: &Facts<'_>) -> bool {
    // What may stand beside a primary secret is taken back before the next try: nobody has to look for it.
    !facts.provider.has_secondary() && facts.ledger.unseen_possible_orphans() >= POSSIBLE_ORPHANS_MAX
}
