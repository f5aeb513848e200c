//! Is a rotation due? A chain of named questions over one set of facts; the chain is the documentation.
//!
//! Planned backward from the deadline, by which the old version is to be dead.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::credential::Credential;
use super::ids::Name;
use super::ledger::{Ledger, Origin, VersionFacts};
use super::manual::{Asks, submit_by};
use super::mutants::{Mutant, is_on};
use super::policy::RotationPolicy;
use super::provider::Provider;
use super::rotation::{AbandonReason, Event, Facts, Step, Wait, WaitReason, next, rehearsal_missing};
use super::windows;

/// What is to be done about one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing was submitted yet.
    Missing,
    /// Nothing to do before `wake_at`.
    Steady {
        wake_at: Timestamp,
    },
    Due {
        reason: DueReason,
    },
    /// It should run and may not yet.
    Blocked {
        reason: BlockReason,
        until: Option<Timestamp>,
    },
    /// A person is needed.
    Stuck {
        reason: StuckReason,
    },
    /// A rotation is open: its next step.
    Step(Step),
}

/// Why a rotation starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DueReason {
    /// An operator asked.
    Requested,
    /// A production credential is due, and rehearses with this one.
    Rehearsal,
    /// Somebody else may have the current key.
    Compromised,
    /// A value of our own that isn't there yet: nobody needs to bring it.
    FirstVersion,
    /// The policy's `maxAge` comes near.
    MaxAge,
    /// The provider itself ends the key, before `maxAge` does.
    Expires,
    /// The time has come and no window opens before the deadline: it starts at once.
    NoWindowBeforeDeadline,
}

/// Why a due rotation waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockReason {
    Paused,
    /// The last try failed: the next one waits a while.
    RetryLater,
    /// The wall clock jumped; time alone starts nothing until it is believed again.
    ClockUntrusted,
    /// The sandbox twin hasn't rotated since the current version was made.
    Rehearsal,
    /// As [`BlockReason::Rehearsal`], and the twin's last try failed.
    RehearsalFailed,
}

/// Why a person is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StuckReason {
    /// The provider refuses the current version: submit a working one.
    CurrentRefused,
    /// Too many creates with unknown outcome: look at the provider, remove what is left over, then `rotate`.
    PossibleOrphans,
    /// It is due, and the description has no way to make a key: submit a new one.
    NoCreateCall,
}

macro_rules! reason_texts {
    ($type:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl $type {
            pub const fn as_str(self) -> &'static str {
                match self { $($type::$variant => $text),+ }
            }
        }
    };
}

reason_texts!(DueReason {
    Requested => "requested",
    Rehearsal => "rehearsal",
    Compromised => "compromised",
    FirstVersion => "first-version",
    MaxAge => "max-age",
    Expires => "expires",
    NoWindowBeforeDeadline => "no-window-before-deadline",
});
reason_texts!(BlockReason {
    Paused => "paused",
    RetryLater => "retry-later",
    ClockUntrusted => "clock-untrusted",
    Rehearsal => "rehearsal",
    RehearsalFailed => "rehearsal-failed",
});
reason_texts!(StuckReason {
    CurrentRefused => "current-refused",
    PossibleOrphans => "possible-orphans",
    NoCreateCall => "no-create-call",
});

/// When a rotation starts, and by when the old version is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    pub starts_at: Timestamp,
    pub deadline_at: Timestamp,
    pub reason: DueReason,
}

/// What to do now. Pure: the same facts give the same decision.
pub fn decide(facts: &Facts<'_>) -> Decision {
    clearing(facts)
        .or_else(|| continue_open(facts))
        .or_else(|| missing(facts))
        .or_else(|| asked(facts))
        .or_else(|| current_refused(facts))
        .or_else(|| paused(facts))
        .or_else(|| requested(facts))
        .or_else(|| incident(facts))
        .or_else(|| possible_orphans(facts))
        .or_else(|| rehearses(facts))
        .unwrap_or_else(|| by_time(facts))
}

fn clearing(facts: &Facts<'_>) -> Option<Decision> {
    let clear = Decision::Step(Step::Clear);
    facts.ledger.clearing.then(|| paused(facts).unwrap_or(clear))
}

fn continue_open(facts: &Facts<'_>) -> Option<Decision> {
    if let Some(rotation) = &facts.ledger.rotation {
        let step = next(rotation, facts);
        return Some(if rotation.awaits_removal() { beside_removal(facts, step) } else { Decision::Step(step) });
    }
    let orphan = facts.ledger.orphans.first()?;
    (!facts.paused()).then(|| Decision::Step(Step::RevokeOrphan { key_id: orphan.clone() }))
}

fn missing(facts: &Facts<'_>) -> Option<Decision> {
    // What we make ourselves begins by itself; a provider that has ceased gets nothing new.
    let begins_by_itself = facts.provider.is_generated() && !facts.provider.retired;
    (facts.ledger.current.is_none() && !begins_by_itself).then_some(Decision::Missing)
}

fn current_refused(facts: &Facts<'_>) -> Option<Decision> {
    facts.ledger.refused_since.map(|_| Decision::Stuck { reason: StuckReason::CurrentRefused })
}

fn paused(facts: &Facts<'_>) -> Option<Decision> {
    facts.paused().then_some(Decision::Blocked { reason: BlockReason::Paused, until: None })
}

fn requested(facts: &Facts<'_>) -> Option<Decision> {
    // What is asked for already isn't asked for again.
    (facts.requested && facts.ledger.request.is_none()).then(|| start(facts, DueReason::Requested))
}

/// A person has been asked for a new key: reminded, or no longer asked. What is worse than that is said first.
fn asked(facts: &Facts<'_>) -> Option<Decision> {
    let request = facts.ledger.request.as_ref()?;
    let stolen = facts.ledger.current.as_ref().is_some_and(|current| facts.ledger.is_stolen(current));
    let cannot = !facts.provider.is_manual() || facts.provider.retired;
    if cannot || (request.by_time && matches!(by_time(facts), Decision::Steady { .. })) {
        return Some(Decision::Step(Step::Journal(Event::ManualWithdrawn)));
    }
    if stolen && submit_by(facts, DueReason::Compromised) < request.deadline_at {
        return Some(start(facts, DueReason::Compromised));
    }
    let now = facts.now.wall;
    let urgency = request.urgency_at(now);
    if urgency > request.urgency && facts.now.trusted {
        return Some(Decision::Step(Step::Journal(Event::ManualReminded { at: now, asks: Asks::NewKey, urgency })));
    }
    let to_be_closed = facts.ledger.open_incident().is_some() && !stolen;
    if facts.ledger.refused_since.is_some() || to_be_closed {
        return None;
    }
    Some(Decision::Step(Step::Wait(Wait { reason: WaitReason::ManualRequest, until: request.rises_at(now) })))
}

/// While a person takes time to remove an old key, the next new one is asked for in its own time.
fn beside_removal(facts: &Facts<'_>, step: Step) -> Decision {
    let Step::Wait(wait) = step else { return Decision::Step(step) };
    let stolen = facts.ledger.current.as_ref().is_some_and(|current| facts.ledger.is_stolen(current));
    let new_key = match &facts.ledger.request {
        Some(_) => asked(facts),
        None if facts.paused() || facts.ledger.refused_since.is_some() => None,
        None if stolen => Some(start(facts, DueReason::Compromised)),
        None => Some(by_time(facts)),
    };
    let until = match new_key {
        Some(Decision::Step(Step::Wait(other))) => other.until,
        Some(Decision::Steady { wake_at }) => Some(wake_at),
        Some(step @ Decision::Step(_)) => return step,
        _ => None,
    };
    let until = [wait.until, until].into_iter().flatten().min();
    Decision::Step(Step::Wait(Wait { until, ..wait }))
}

/// A stolen key is replaced whatever the schedule says; once all are, the provider's keys are looked through once more.
fn incident(facts: &Facts<'_>) -> Option<Decision> {
    facts.ledger.open_incident()?;
    let current = facts.ledger.current.as_ref()?;
    if !facts.ledger.is_stolen(current) {
        return Some(Decision::Step(Step::CloseIncident));
    }
    if let Some(stuck) = possible_orphans(facts) {
        return Some(stuck);
    }
    // By the wall clock, which may have jumped: the wait must neither last for years nor be none.
    if facts.ledger.failure.is_some() && !facts.now.trusted {
        return Some(Decision::Blocked { reason: BlockReason::ClockUntrusted, until: None });
    }
    Some(start_unless_failing(facts, DueReason::Compromised))
}

fn possible_orphans(facts: &Facts<'_>) -> Option<Decision> {
    super::rotation::too_many_possible_orphans(facts).then_some(Decision::Stuck { reason: StuckReason::PossibleOrphans })
}

/// Asked again while it fails, each time later, as long as somebody waits for it.
fn rehearses(facts: &Facts<'_>) -> Option<Decision> {
    (facts.rehearses && facts.now.trusted).then(|| start_unless_failing(facts, DueReason::Rehearsal))
}

fn by_time(facts: &Facts<'_>) -> Decision {
    // A clock that isn't believed can't say "not yet" either: what was due stays due when it jumps back (I13).
    if !facts.now.trusted && !is_on(Mutant::StartedUnderJumpedClock) {
        return Decision::Blocked { reason: BlockReason::ClockUntrusted, until: None };
    }
    let now = facts.now.wall;
    let Some(current) = facts.ledger.current_facts() else { return start_unless_failing(facts, DueReason::FirstVersion) };
    let wanted = wanted_start(facts.credential, facts.policy, facts.provider, facts.ledger.generation, current);
    if now < wanted {
        // Windows can only move it later, and are searched for when the time has come: most looks end here.
        return Decision::Steady { wake_at: wanted };
    }
    // Before windows are looked at: the twin's rotation takes its time.
    if let Some(reason) = rehearsal_missing(facts) {
        return Decision::Blocked { reason, until: None };
    }
    let schedule = in_window(facts.policy, facts.provider, current, wanted);
    if now < schedule.starts_at {
        return Decision::Steady { wake_at: schedule.starts_at };
    }
    start_unless_failing(facts, schedule.reason)
}

fn start_unless_failing(facts: &Facts<'_>, reason: DueReason) -> Decision {
    match retry_at(facts.ledger, facts.policy, facts.now.wall) {
        Some(until) => Decision::Blocked { reason: BlockReason::RetryLater, until: Some(until) },
        None => start(facts, reason),
    }
}

/// Until when the next try waits because the last one failed; `None` if it didn't, or the wait is over.
pub fn retry_at(ledger: &Ledger, policy: &RotationPolicy, wall: Timestamp) -> Option<Timestamp> {
    let failure = ledger.failure.as_ref()?;
    let next_try_at = failure.next_try_at;
    let longest = match failure.reason {
        AbandonReason::CanaryFailed | AbandonReason::CanarySilent => policy.canary_wait_max(),
        _ => policy.retry_wait_max(),
    };
    // A time further away than any wait was set by a clock that ran ahead.
    let furthest = later(wall, longest);
    (wall < next_try_at && next_try_at <= furthest).then_some(next_try_at)
}

/// How a rotation begins: where only a person can make a key, by asking for one.
pub fn start(facts: &Facts<'_>, reason: DueReason) -> Decision {
    if facts.provider.is_manual() && !facts.provider.retired {
        let by_time = matches!(reason, DueReason::MaxAge | DueReason::Expires | DueReason::NoWindowBeforeDeadline);
        let (at, deadline) = (facts.now.wall, submit_by(facts, reason));
        return Decision::Step(Step::Journal(Event::ManualRequested { at, deadline, reason: reason.as_str().to_owned(), by_time }));
    }
    if !facts.provider.can_issue() {
        return Decision::Stuck { reason: StuckReason::NoCreateCall };
    }
    Decision::Due { reason }
}

/// By when a version is to be dead: `issued_at + maxAge`, or the provider's own end if that is sooner.
pub fn deadline_of(version: &VersionFacts, policy: &RotationPolicy) -> Timestamp {
    let by_age = later(version.issued_at, policy.max_age.as_duration());
    version.expires_at.map_or(by_age, |expires| expires.min(by_age))
}

/// The start of the next rotation, counted backward from the deadline of the current version.
pub fn schedule(
    credential: &Credential,
    policy: &RotationPolicy,
    provider: &Provider,
    generation: u64,
    current: &VersionFacts,
) -> Schedule {
    in_window(policy, provider, current, wanted_start(credential, policy, provider, generation, current))
}

/// The start that the deadline asks for, before windows are looked at.
fn wanted_start(
    credential: &Credential,
    policy: &RotationPolicy,
    provider: &Provider,
    generation: u64,
    current: &VersionFacts,
) -> Timestamp {
    let overlap = policy.terms.overlap.as_duration();
    let spread = policy.spread.mul_f64(spread_factor(&credential.name, generation));
    let lead = match () {
        () if is_on(Mutant::StartedLate) => Duration::ZERO,
        () if is_on(Mutant::StartedEarly) => policy.max_age.as_duration(),
        () => overlap + spread + reserve(policy, provider) + credential.rehearsal_time,
    };
    earlier(deadline_of(current, policy), lead)
}

/// Moves a start into the next window, unless that would be too late to end by the deadline.
fn in_window(policy: &RotationPolicy, provider: &Provider, current: &VersionFacts, wanted: Timestamp) -> Schedule {
    let deadline_at = deadline_of(current, policy);
    let lead = provider.timing.manual_lead.unwrap_or_default();
    let after_promotion = policy.rollout_time() + policy.terms.overlap.as_duration();
    let latest = earlier(deadline_at, after_promotion + policy.propagation(provider) + lead);
    let by_age = later(current.issued_at, policy.max_age.as_duration());
    let reason = if deadline_at < by_age { DueReason::Expires } else { DueReason::MaxAge };
    match windows::next_open(&policy.windows, wanted) {
        Some(open) if open <= latest => Schedule { starts_at: open, deadline_at, reason },
        _ => Schedule { starts_at: wanted, deadline_at, reason: DueReason::NoWindowBeforeDeadline },
    }
}

/// `clamp(maxAge/20, 1 s, 24 h)`, and what the policy and the description add: propagation, the steps of a rollout, a
/// person's lead, the longest wait for a window.
pub fn reserve(policy: &RotationPolicy, provider: &Provider) -> Duration {
    let max_age = policy.max_age.as_duration();
    let base = (max_age / 20).clamp(Duration::from_secs(1), Duration::from_secs(86_400));
    base + policy.propagation(provider) + policy.rollout_time() + provider.timing.manual_lead.unwrap_or_default() + policy.window_wait
}

/// In [0, 1), by hash of name and generation: the same for ever, so that a restart moves nothing (I15).
pub fn spread_factor(credential: &Name, generation: u64) -> f64 {
    let bytes = b"keywright:spread:".iter().copied().chain(credential.as_str().bytes()).chain(generation.to_be_bytes());
    let hash = even_hash(bytes);
    // 32 bits are exact in an f64, and divided by 2^32 they stay below one.
    f64::from(u32::try_from(hash >> 32).unwrap_or(0)) / 4_294_967_296.0
}

/// FNV-1a with a finaliser that lets each bit reach all others: asked for each credential at each look, so it allocates
/// nothing. It needs no secrecy, only evenness.
pub(super) fn even_hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

/// Whether an application that was never seen may hold this old version from elsewhere: only what a person submitted
/// was ever anywhere but here. A rollback's copy of it is the same key.
pub fn may_be_held_elsewhere(ledger: &Ledger) -> bool {
    let old = ledger.rotation.as_ref().and_then(|rotation| rotation.old.as_ref()).filter(|_| !is_on(Mutant::UnseenIgnored));
    old.is_some_and(|old| ledger.origin_of(old) == Some(Origin::Submitted))
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;
