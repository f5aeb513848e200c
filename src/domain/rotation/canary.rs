//! A rollout within a rotation: its next step, and its events. Each step begins when the one before has proved itself; a failure
//! takes the new version back by the way of every rollback.

use std::time::Duration;

use jiff::Timestamp;

use super::apply::{Applied, illegal, in_phase};
use super::next::{later, wait};
use super::{Event, Facts, Instant, Phase, Plan, Rotation, Step, WaitReason};
use crate::domain::holders::Blocker;
use crate::domain::ids::OperationId;
use crate::domain::ledger::{Failure, Ledger, Origin};
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::policy::{Confirmation, RotationPolicy};
use crate::domain::rollout::{Member, Reach, Rollout, StopReason, Stopped, patience, reach_of};
use crate::domain::succession::Succession;

/// What the rollout of a promoted version asks for; `None` once it is everybody's.
pub(super) fn roll_out(rotation: &Rotation, facts: &Facts<'_>) -> Option<Step> {
    let rollout = rotation.rollout.as_ref()?;
    if let Some(stopped) = &rollout.stopped {
        return Some(take_back(rotation, stopped, facts));
    }
    if rollout.full.is_some() {
        return None;
    }
    if rollout.reach == Reach::Everybody || old_expires(rotation, facts, left_for_steps(rotation, rollout)) {
        return Some(for_all(rotation, facts));
    }
    if rollout.step == 0 {
        return Some(begin(rotation, rollout, rollout.step, facts));
    }
    if facts.ledger.refused_since.is_some() {
        return Some(stop(StopReason::CanaryFailed, Vec::new(), facts));
    }
    Some(step_under_way(rotation, rollout, facts))
}

fn step_under_way(rotation: &Rotation, rollout: &Rollout, facts: &Facts<'_>) -> Step {
    let left = patience_of(rotation).saturating_sub(facts.now.since(rollout.began));
    let confirmation = rotation.plan.terms.confirmation;
    let reached: Vec<&Member> = facts.crew.iter().filter(|member| rollout.reach.includes(member.rank)).collect();
    let silent: Vec<Blocker> = reached.iter().filter(|member| !member.has_proved(confirmation)).map(|member| member.who.clone()).collect();
    let proved = match confirmation {
        // Nobody says anything: a step lasts its time.
        Confirmation::None => left.is_zero(),
        _ => silent.is_empty() || is_on(Mutant::CanaryStepSkipped),
    };
    // Whoever had it is gone, and took what it knew along: the next in line tries it.
    if reached.is_empty() && !facts.crew.is_empty() && !(confirmation == Confirmation::None && proved) {
        return begin(rotation, rollout, rollout.step - 1, facts);
    }
    if proved {
        return begin(rotation, rollout, rollout.step, facts);
    }
    if left.is_zero() {
        return stop(StopReason::CanarySilent, silent, facts);
    }
    wait(WaitReason::Rollout, Some(later(facts, left)))
}

/// Begins the step of this index, or lets it reach further.
fn begin(rotation: &Rotation, rollout: &Rollout, index: usize, facts: &Facts<'_>) -> Step {
    match rotation.plan.rollout.get(index).map(|share| reach_of(*share, rollout.reach, facts.crew)) {
        Some(reach) if reach != Reach::Everybody => Step::Journal(Event::RolledOut { step: index + 1, reach, at: facts.now.instant() }),
        _ => for_all(rotation, facts),
    }
}

fn for_all(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    Step::Journal(Event::RolledOut { step: rotation.plan.rollout.len(), reach: Reach::Everybody, at: facts.now.instant() })
}

fn stop(reason: StopReason, who: Vec<Blocker>, facts: &Facts<'_>) -> Step {
    let next_try_at = next_try(facts.ledger, facts.policy, facts.now.wall);
    Step::Journal(Event::RolloutStopped { reason, who, next_try_at })
}

/// When the next try may be after this one was stopped: each time later. The failed key has its own overlap before.
pub fn next_try(ledger: &Ledger, policy: &RotationPolicy, wall: Timestamp) -> Timestamp {
    let count = ledger.failure.as_ref().map_or(0, |failure| failure.count).min(16);
    let overlap = policy.terms.overlap.as_duration();
    let grown = overlap.saturating_mul(2_u32.pow(count)).saturating_add(overlap);
    wall.checked_add(grown.min(policy.canary_wait_max())).unwrap_or(Timestamp::MAX)
}

fn take_back(rotation: &Rotation, stopped: &Stopped, facts: &Facts<'_>) -> Step {
    if stopped.no_way_back {
        return wait(WaitReason::RolloutStopped, None);
    }
    if old_expires(rotation, facts, Duration::ZERO) {
        return for_all(rotation, facts);
    }
    let (generation, attempt) = (facts.ledger.generation + 1, facts.ledger.attempts + 1);
    let operation = OperationId::new(facts.installation, &facts.credential.name, generation, attempt);
    Step::Journal(Event::RollbackPlanned {
        plan: Plan {
            generation,
            attempt,
            operation,
            version: operation.version(generation),
            origin: Origin::RolledBack,
            reason: stopped.reason.as_str().to_owned(),
            terms: facts.policy.terms,
            planned_at: facts.now.wall,
            serves_previous: false,
            succession: Succession::Beside,
            rollout: Vec::new(),
            twin_rotations: rotation.plan.twin_rotations,
            replacing: None,
        },
    })
}

/// Whether the provider itself ends the old key within this time: then nobody may be left with it.
fn old_expires(rotation: &Rotation, facts: &Facts<'_>, within: Duration) -> bool {
    let old = rotation.old.as_ref().and_then(|old| facts.ledger.versions.get(old));
    let expires = old.and_then(|old| old.expires_at);
    facts.now.trusted && expires.is_some_and(|expires| expires <= later(facts, within))
}

fn patience_of(rotation: &Rotation) -> Duration {
    patience(rotation.plan.terms.overlap.as_duration(), rotation.plan.rollout.len())
}

/// The longest that the steps take which are still to come.
fn left_for_steps(rotation: &Rotation, rollout: &Rollout) -> Duration {
    let left = rotation.plan.rollout.len().saturating_sub(rollout.step);
    patience_of(rotation) * u32::try_from(left).unwrap_or(u32::MAX)
}

/// Whether a version that is being promoted goes to its instances step by step: only where the version before lives, and nobody has
/// reason to leave it at once.
pub(super) fn begins(ledger: &Ledger, rotation: &Rotation, at: Instant) -> Option<Rollout> {
    let lives = |old| ledger.versions.get(old).is_some_and(|facts| !facts.is_going());
    let in_peace = ledger.open_incident().is_none() && ledger.refused_since.is_none() && !ledger.unverified && rotation.turned.is_none();
    let staged = !rotation.plan.rollout.is_empty() && rotation.plan.origin != Origin::RolledBack;
    let replaces = ledger.replaces_a_key(rotation) && rotation.old.as_ref().is_some_and(lives) && ledger.current == rotation.old;
    (staged && replaces && in_peace).then(|| Rollout::begin(at, ledger.revision))
}

pub(super) fn rolled_out(ledger: Ledger, step: usize, reach: Reach, at: Instant) -> Applied {
    let Some(rollout) = ledger.rotation.as_ref().and_then(|rotation| rotation.rollout.as_ref()) else {
        return illegal("rolled-out", "the version isn't rolled out step by step");
    };
    let steps = ledger.rotation.as_ref().map_or(0, |rotation| rotation.plan.rollout.len());
    if rollout.full.is_some() {
        return illegal("rolled-out", "everybody has it");
    }
    if reach < rollout.reach || (reach == rollout.reach && step == rollout.step) {
        return illegal("rolled-out", "who has it keeps it");
    }
    let for_all = reach == Reach::Everybody;
    if for_all != (step == steps) || !(for_all || step == rollout.step + 1 || (step == rollout.step && step > 0)) {
        return illegal("rolled-out", "the step isn't the next one");
    }
    if rollout.stopped.is_some() && !for_all {
        return illegal("rolled-out", "the rollout was stopped");
    }
    in_phase(ledger, "rolled-out", &[Phase::Promoted], |rotation| {
        if let Some(rollout) = &mut rotation.rollout {
            if step != rollout.step {
                rollout.began = at;
            }
            (rollout.step, rollout.reach) = (step, reach);
            (rollout.full, rollout.stopped) = (for_all.then_some(at), None);
        }
    })
}

pub(super) fn stopped(ledger: Ledger, reason: StopReason, next_try_at: Timestamp) -> Applied {
    let rollout = ledger.rotation.as_ref().and_then(|rotation| rotation.rollout.as_ref());
    match rollout {
        None => return illegal("rollout-stopped", "the version isn't rolled out step by step"),
        Some(rollout) if rollout.stopped.is_some() => return illegal("rollout-stopped", "it was stopped before"),
        Some(rollout) if rollout.step == 0 => return illegal("rollout-stopped", "nobody has it yet"),
        Some(_) => {}
    }
    if ledger.open_incident().is_some() || ledger.rotation.as_ref().is_some_and(|rotation| rotation.revocation.is_some()) {
        return illegal("rollout-stopped", "there is no way back");
    }
    in_phase(ledger, "rollout-stopped", &[Phase::Promoted], |rotation| {
        if let Some(rollout) = &mut rotation.rollout {
            rollout.stopped = Some(Stopped { reason, next_try_at, no_way_back: false });
        }
    })
}

/// What a promotion leaves of earlier failures: one that took a failed version back is itself the news, and one whose new version is
/// being tried isn't over yet.
pub(super) fn failure_after(ledger: &Ledger, taken_back: Option<&Stopped>, staged: bool) -> Option<Failure> {
    match taken_back {
        Some(stopped) => Some(Failure {
            reason: stopped.reason.as_abandoned(),
            count: ledger.failure.as_ref().map_or(0, |failure| failure.count).saturating_add(1),
            next_try_at: stopped.next_try_at,
        }),
        None => ledger.failure.clone().filter(|_| staged),
    }
}

/// A way back that failed: if the old key is dead, everybody needs the new one; else a person decides.
pub(super) fn way_back_failed(turned: &mut Rotation, old_is_dead: bool) {
    let Some(rollout) = &mut turned.rollout else { return };
    if old_is_dead {
        rollout.hasten();
    } else if let Some(stopped) = &mut rollout.stopped {
        stopped.no_way_back = true;
    }
}
