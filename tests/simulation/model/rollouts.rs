//! What must be true of a new version that goes to its instances step by step, and of rehearsals: told by the journal's events, by who
//! was served what, and by what the copies said.

use std::time::Duration;

use keywright::domain::ids::{InstanceName, Name, VersionId};
use keywright::domain::ledger::Origin;
use keywright::domain::policy::{Confirmation, Uptake};
use keywright::domain::rollout::{Reach, StopReason, patience, rank};
use keywright::domain::rotation::{AbandonReason, Event, Plan};

use super::{CopyId, Known, Lost};
use crate::scene::Inner;

/// A new version on its way.
#[derive(Debug, Clone)]
pub struct Rolling {
    pub new: VersionId,
    pub old: VersionId,
    pub steps: usize,
    pub step: usize,
    pub reach: Reach,
    pub began: Duration,
    pub full: Option<Duration>,
    pub stopped: Option<StopReason>,
    /// Everybody is to have it, whatever was confirmed.
    pub hastened: bool,
}

/// How often each was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rollouts {
    pub steps: u64,
    pub failed: u64,
    pub silent: u64,
    pub rehearsed: u64,
}

impl std::ops::AddAssign for Rollouts {
    fn add_assign(&mut self, other: Rollouts) {
        self.steps += other.steps;
        self.failed += other.failed;
        self.silent += other.silent;
        self.rehearsed += other.rehearsed;
    }
}

impl Known {
    /// A promotion is durable: whether its version goes step by step, as the contract tells it.
    pub fn begin_rollout(&mut self, at: Duration) {
        // The first version, too, counts from what its twin had then.
        if self.plan.as_ref().is_some_and(|plan| plan.origin != Origin::RolledBack) {
            self.rehearsed = self.rehearsal;
        }
        let (Some(plan), Some(new), Some(old)) = (&self.plan, &self.candidate, &self.old) else { return self.rolling = None };
        let key = |version: &VersionId| self.versions.get(version).map(|version| version.key.clone());
        let hurried = self.is_hurried() || self.refused_told || self.unverified || self.turned.is_some() || self.back.is_some();
        let staged = !plan.rollout.is_empty() && plan.origin != Origin::RolledBack && key(new) != key(old) && !hurried;
        let lives = self.versions.get(old).is_some_and(|old| !old.doomed && !old.ended);
        self.rolling = (staged && lives).then(|| Rolling {
            new: new.clone(),
            old: old.clone(),
            steps: plan.rollout.len(),
            step: 0,
            reach: Reach::Nobody,
            began: at,
            full: None,
            stopped: None,
            hastened: false,
        });
    }

    /// What the events of a rollout make of it.
    pub fn roll(&mut self, event: &Event, at: Duration) {
        match event {
            Event::Planned { plan } => self.rehearsal = plan.twin_rotations,
            Event::Rehearsed { rotations } => self.rehearsal = *rotations,
            Event::TermsTightened { terms } => self.plan.iter_mut().for_each(|plan| plan.terms = *terms),
            Event::Compromised { .. } | Event::RevocationAsked { .. } | Event::Restored => self.hasten(),
            Event::Abandoning { reason } if self.back.is_some() => self.gives_up = Some(*reason),
            Event::Forgotten => self.rolling = None,
            Event::Confirmed { .. } => self.confirmed = true,
            Event::Promoted { .. } => self.confirmed = false,
            Event::Revoked { .. } => self.rotations += u64::from(self.plan.as_ref().is_some_and(|plan| plan.origin != Origin::RolledBack)),
            Event::RolloutStopped { reason, .. } => {
                self.stopped_at = Some(at);
                self.rolling.iter_mut().for_each(|rolling| rolling.stopped = Some(*reason));
            }
            Event::RolledOut { step, reach, .. } => {
                if let Some(rolling) = &mut self.rolling {
                    if rolling.step != *step {
                        rolling.began = at;
                    }
                    (rolling.step, rolling.reach, rolling.stopped) = (*step, *reach, None);
                    rolling.full = (*reach == Reach::Everybody).then_some(at);
                }
            }
            _ => {}
        }
    }

    /// The way back failed: if the old key was refused, everybody needs the new one.
    pub fn way_back_failed(&mut self) {
        if self.gives_up.take() == Some(AbandonReason::CandidateRefused) {
            self.hasten();
        }
    }

    /// A report still counts.
    pub fn promoted_phase(&self) -> bool {
        !self.confirmed && self.rolling.as_ref().is_some_and(|rolling| rolling.step > 0)
    }

    pub fn hasten(&mut self) {
        if let Some(rolling) = &mut self.rolling {
            (rolling.hastened, rolling.reach, rolling.stopped) = (true, Reach::Everybody, None);
        }
    }

    /// What this copy has to be served while the new version isn't everybody's.
    pub fn due_to(&self, id: &CopyId) -> Option<&VersionId> {
        due_in(self.rolling.as_ref(), id)
    }

    /// Whether this version is what was to be served before an event that the process doesn't know of.
    pub fn was_due(&self, id: &CopyId, version: &VersionId) -> bool {
        let before = |lost: &Lost| due_in(lost.rolling.as_ref(), id).or(lost.told.as_ref()) == Some(version);
        self.lost.as_ref().is_some_and(before)
    }
}

fn due_in<'a>(rolling: Option<&'a Rolling>, id: &CopyId) -> Option<&'a VersionId> {
    let rolling = rolling.filter(|rolling| rolling.reach != Reach::Everybody)?;
    let instance: InstanceName = id.1.parse().ok()?;
    Some(if rolling.reach.includes(rank(&id.0, &instance)) { &rolling.new } else { &rolling.old })
}

impl Inner {
    /// Who is served what while a new version is on its way: each its own, and never an older one again.
    pub fn served_in_turn(&mut self, id: &CopyId, name: &Name, version: &VersionId) {
        let known = &self.model.known[name];
        let due = known.due_to(id).cloned();
        let fits = due.as_ref().is_none_or(|due| due == version) || known.was_due(id, version);
        self.require(fits, "I4", || format!("{name}: {}/{} was served {version}, and {due:?} is its turn", id.0, id.1));
        let generation = |version: &VersionId| self.model.known[name].versions.get(version).map(|version| version.generation);
        let before = self.model.copies.get(id).and_then(|copy| copy.newest.clone());
        let back = before.as_ref().and_then(generation).zip(generation(version)).is_some_and(|(before, now)| now < before);
        self.require(!back, "I10", || format!("{name}: {}/{} had {before:?} and is served {version}", id.0, id.1));
    }

    /// A step, or the end of one, becomes durable.
    pub fn may_roll(&mut self, name: &Name, event: &Event) {
        match event {
            Event::RolledOut { step, reach, .. } => self.may_step(name, *step, *reach),
            Event::RolloutStopped { reason, .. } => self.may_stop(name, *reason),
            Event::Rehearsed { rotations } => {
                let twin = self.twin_rotations(name);
                self.require(Some(*rotations) == twin, "rehearsal", || format!("{name}: {rotations} rehearsals are claimed, not {twin:?}"));
            }
            Event::CreateIntended { .. } => self.was_rehearsed(name),
            Event::Planned { plan } => self.may_rehearse(name, plan),
            Event::Retired { .. } | Event::RevokeIntended | Event::Closed => {
                let stopped = self.model.known[name].rolling.as_ref().is_some_and(|rolling| rolling.stopped.is_some());
                let turned = self.model.known[name].back.is_some();
                self.require(!stopped || turned, "rollout", || format!("{name}: it was stopped, and goes on"));
            }
            _ => {}
        }
    }

    fn may_step(&mut self, name: &Name, step: usize, reach: Reach) {
        self.model.rollouts.steps += 1;
        let Some(rolling) = self.model.known[name].rolling.clone() else {
            return self.broken("rollout", format!("{name}: a step of what goes to all at once"));
        };
        let in_turn = step == rolling.step || step == rolling.step + 1;
        self.require(in_turn || rolling.hastened, "rollout", || format!("{name}: step {step} comes after {}", rolling.step));
        self.require(reach >= rolling.reach, "rollout", || format!("{name}: who had it loses it"));
        self.require(rolling.stopped.is_none(), "rollout", || format!("{name}: it was stopped, and goes on"));
        if step == rolling.step || rolling.hastened || rolling.step == 0 {
            return;
        }
        let known = &self.model.known[name];
        let confirmation = known.plan.as_ref().map_or(known.policy.terms.confirmation, |plan| plan.terms.confirmation);
        let silent = self.model.copies.iter().find(|(id, copy)| {
            let reached = id.1.parse().is_ok_and(|instance: InstanceName| rolling.reach.includes(rank(&id.0, &instance)));
            let living = copy.credential == *name && !copy.forgotten(self.at) && reached && !copy.held.is_empty();
            let record = format!("disclosed {name} {} {}/{}", rolling.new, id.0, id.1);
            let served = self.model.records.contains(&record);
            let counts = served || self.model.uptakes.get(&id.0) != Some(&Uptake::Start);
            let proved = match confirmation {
                Confirmation::Required => copy.held.iter().all(|version| *version == rolling.new),
                Confirmation::Observed => served,
                Confirmation::None => true,
            };
            living && counts && !proved
        });
        let silent = silent.map(|(id, _)| format!("{}/{}", id.0, id.1));
        self.require(silent.is_none(), "rollout", || format!("{name}: step {step} begins and {silent:?} hasn't confirmed"));
        let waited = confirmation != Confirmation::None || self.at >= rolling.began + self.patience(name, rolling.steps);
        self.require(waited, "rollout", || format!("{name}: step {step} begins before its time"));
    }

    fn patience(&self, name: &Name, steps: usize) -> Duration {
        let known = &self.model.known[name];
        let overlap = known.plan.as_ref().map_or(known.policy.terms.overlap, |plan| plan.terms.overlap);
        patience(overlap.as_duration(), steps)
    }

    fn may_stop(&mut self, name: &Name, reason: StopReason) {
        let known = &self.model.known[name];
        let Some(rolling) = known.rolling.clone().filter(|rolling| rolling.step > 0 && rolling.stopped.is_none()) else {
            return self.broken("rollout", format!("{name}: what isn't rolled out is stopped"));
        };
        let (reported, refused) = (known.reported.contains(&rolling.new), known.refused_told);
        match reason {
            StopReason::CanaryFailed => {
                self.model.rollouts.failed += 1;
                self.require(reported || refused, "rollout", || format!("{name}: it was stopped and nobody said that it fails"));
            }
            StopReason::CanarySilent => {
                self.model.rollouts.silent += 1;
                let over = self.at >= rolling.began + self.patience(name, rolling.steps) && rolling.full.is_none();
                self.require(over, "rollout", || format!("{name}: it was stopped by silence before its time"));
            }
        }
    }

    fn twin_rotations(&self, name: &Name) -> Option<u64> {
        let twin = self.model.twins.get(name)?;
        Some(self.model.known[twin].rotations)
    }

    /// A production key is made after its rehearsal.
    fn was_rehearsed(&mut self, name: &Name) {
        let known = &self.model.known[name];
        let Some(rotations) = self.twin_rotations(name).filter(|_| known.policy.rehearse) else { return };
        let free = known.is_hurried() || known.told.is_none() || known.unverified;
        let rehearsed = known.rehearsed;
        self.model.rollouts.rehearsed += u64::from(!free);
        self.require(free || rotations > rehearsed, "rehearsal", || {
            format!("{name}: a key is made, and its twin has ended {rotations} rotations, {rehearsed} of them before")
        });
    }

    /// A twin rotates for a rehearsal only where somebody needs it.
    fn may_rehearse(&mut self, name: &Name, plan: &Plan) {
        if plan.reason != "rehearsal" {
            return;
        }
        let rotations = self.model.known[name].rotations;
        let needs = |(production, _): &(&Name, &Name)| rotations <= self.model.known[*production].rehearsed;
        let wanted = self.model.twins.iter().filter(|(_, twin)| *twin == name).any(|pair| needs(&pair));
        self.require(wanted, "rehearsal", || format!("{name}: it rotates once more for nobody"));
    }
}
