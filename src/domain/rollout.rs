//! A new version goes to a few instances first: who they are, how far it has come, and what each instance is served meanwhile.
//!
//! Who comes first is told by a hash of the instance's name: the same at each look, on each replica and after each restart. A step
//! is one number in the journal, up to which the new version is served, so that who has it keeps it, and who comes later gets what
//! its own hash says.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::due::even_hash;
use super::holders::{Blocker, HoldingState};
use super::ids::{InstanceName, Name, VersionId};
use super::ledger::Ledger;
use super::mutants::{Mutant, is_on};
use super::policy::Confirmation;
use super::rotation::{AbandonReason, Instant};

/// How many steps a policy may have, and how many instances a step may name.
pub const STEPS_MAX: usize = 16;
pub const STEP_INSTANCES_MAX: u32 = 10_000;

/// How many instances have the new version after one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Share {
    Instances(u32),
    /// Of all, rounded up; 1 to 100.
    Percent(u8),
}

/// Up to which rank the new version is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    Nobody,
    /// This rank included.
    UpTo(u64),
    Everybody,
}

impl Reach {
    pub fn includes(self, rank: u64) -> bool {
        match self {
            Reach::Nobody => false,
            Reach::UpTo(highest) => rank <= highest,
            Reach::Everybody => true,
        }
    }
}

/// How far a new version has come among the instances. An open rotation has one if its version is rolled out step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The step under way, counted from 1; 0 before the first.
    pub step: usize,
    pub reach: Reach,
    /// When this step began.
    pub began: Instant,
    /// When the last step began: the overlap counts from there.
    pub full: Option<Instant>,
    /// The revision of the version before, which the others see on.
    pub revision: u64,
    pub stopped: Option<Stopped>,
}

/// Why the new version is taken back, and when the next try may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    pub reason: StopReason,
    pub next_try_at: Timestamp,
    /// The way back failed, and not because the old key is dead: a person decides.
    #[serde(default)]
    pub no_way_back: bool,
}

/// What stops a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// An instance says that the new version doesn't work, or the provider refuses it.
    CanaryFailed,
    /// Not all instances of a step have confirmed in their time.
    CanarySilent,
}

impl StopReason {
    pub const fn as_str(self) -> &'static str {
        self.as_abandoned().as_str()
    }

    /// The same, as what the last rotation ended by.
    pub const fn as_abandoned(self) -> AbandonReason {
        match self {
            StopReason::CanaryFailed => AbandonReason::CanaryFailed,
            StopReason::CanarySilent => AbandonReason::CanarySilent,
        }
    }
}

/// One living instance that can be served the new version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub who: Blocker,
    pub rank: u64,
    /// How it stands to the new version.
    pub state: HoldingState,
}

impl Member {
    /// Whether it has done what a step waits for.
    pub fn has_proved(&self, confirmation: Confirmation) -> bool {
        match confirmation {
            Confirmation::Required => self.state == HoldingState::Confirmed,
            Confirmation::Observed => self.state != HoldingState::Holds,
            Confirmation::None => true,
        }
    }
}

impl Rollout {
    pub fn begin(at: Instant, revision: u64) -> Rollout {
        Rollout { step: 0, reach: Reach::Nobody, began: at, full: None, revision, stopped: None }
    }

    /// From here on the new version is for all: there is no time for steps, or no way back any more.
    pub fn hasten(&mut self) {
        self.reach = Reach::Everybody;
        self.stopped = None;
    }
}

/// Where an instance stands in the line: by the hash of its name, for ever. It needs evenness only, no secrecy.
pub fn rank(application: &Name, instance: &InstanceName) -> u64 {
    let name = instance.as_str().bytes();
    even_hash(b"keywright:rollout:".iter().copied().chain(application.as_str().bytes()).chain([b'/']).chain(name))
}

/// How far a step reaches: the so many first of these instances, and never less far than the step before.
pub fn reach_of(share: Share, before: Reach, crew: &[Member]) -> Reach {
    if share == Share::Percent(100) {
        return Reach::Everybody;
    }
    let mut ranks: Vec<u64> = crew.iter().map(|member| member.rank).collect();
    ranks.sort_unstable();
    let wanted = match share {
        Share::Instances(count) => usize::try_from(count).unwrap_or(usize::MAX),
        Share::Percent(percent) => (ranks.len() * usize::from(percent)).div_ceil(100),
    };
    let last = ranks.get(wanted.clamp(1, ranks.len().max(1)) - 1);
    last.map_or(before, |last| before.max(Reach::UpTo(*last)))
}

/// How long a step waits for its confirmations: the steps together take less than another overlap.
pub fn patience(overlap: Duration, steps: usize) -> Duration {
    let parts = u32::try_from(steps).unwrap_or(u32::MAX).saturating_add(1);
    (overlap / parts).max(Duration::from_secs(1))
}

/// The longest that all steps before the last take.
pub fn time_of(overlap: Duration, steps: usize) -> Duration {
    patience(overlap, steps) * u32::try_from(steps.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// What is served to one reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<'l> {
    pub version: &'l VersionId,
    pub revision: u64,
}

/// The version that this instance is served, and its revision. `None` for who reads: a person, who gets the current one.
pub fn view<'l>(ledger: &'l Ledger, reader: Option<(&Name, &InstanceName)>) -> Option<View<'l>> {
    let current = View { version: ledger.current.as_ref()?, revision: ledger.revision };
    let (Some((rollout, old)), Some((application, instance))) = (under_way(ledger), reader) else { return Some(current) };
    let first = rollout.reach.includes(rank(application, instance)) || is_on(Mutant::CanaryServedToAll);
    Some(if first { current } else { View { version: old, revision: rollout.revision } })
}

/// The version that every instance may have by now: for an application that is told once for all of them, which is told when the
/// last one is served it. Who is chosen for an earlier step has a stream, and is told there.
pub fn common_view(ledger: &Ledger) -> Option<View<'_>> {
    let current = View { version: ledger.current.as_ref()?, revision: ledger.revision };
    Some(under_way(ledger).map_or(current, |(rollout, old)| View { version: old, revision: rollout.revision }))
}

/// The rollout that isn't everybody's yet, and the version that the others have.
pub fn under_way(ledger: &Ledger) -> Option<(&Rollout, &VersionId)> {
    let open = ledger.rotation.as_deref()?;
    // A rollback that isn't promoted yet changes nothing: what it turned round still holds.
    let rotation = open.turned.as_deref().unwrap_or(open);
    let rollout = rotation.rollout.as_ref().filter(|rollout| rollout.reach != Reach::Everybody)?;
    let old = rotation.old.as_ref()?;
    let lives = ledger.versions.get(old).is_some_and(|facts| !facts.is_going());
    (ledger.current.as_ref() == Some(&rotation.version) && lives).then_some((rollout, old))
}

#[cfg(test)]
mod tests;
