//! What a person is asked for, where nobody else can do it: a new key, or the removal of an old one. And how urgent that is.

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::due::{DueReason, deadline_of, reserve};
use super::environment::EvidenceKind;
use super::ledger::VersionFacts;
use super::policy::RotationPolicy;
use super::provider::{Provider, Template};
use super::rotation::{Facts, Instant};

/// What a description says of the work of a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manual {
    /// How a new key is made, step by step.
    pub create: Vec<Template>,
    /// How the old one is removed.
    pub remove: Vec<Template>,
    /// The old key dies when the new one is made: there is no overlap, and nothing to remove.
    pub replaces: bool,
}

/// What may stand in braces in a step, beside the credential's variables. None of it is a value.
pub const STEP_FACTS: [&str; 4] = ["credential", "environment", "old_issued_at", "old_version"];

/// How urgent a request is: a function of time alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Urgency {
    Notice,
    Soon,
    Urgent,
    Overdue,
}

impl Urgency {
    pub const fn as_str(self) -> &'static str {
        match self {
            Urgency::Notice => "notice",
            Urgency::Soon => "soon",
            Urgency::Urgent => "urgent",
            Urgency::Overdue => "overdue",
        }
    }
}

/// What a person is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Asks {
    NewKey,
    OldKeyRemoval,
}

impl Asks {
    pub const fn as_str(self) -> &'static str {
        match self {
            Asks::NewKey => "new-key",
            Asks::OldKeyRemoval => "old-key-removal",
        }
    }
}

/// Something that a person is asked for, until it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub opened_at: Timestamp,
    pub deadline_at: Timestamp,
    pub reason: String,
    /// The schedule opened it, and closes it when it isn't due any more.
    pub by_time: bool,
    /// The level that was told last.
    pub urgency: Urgency,
    pub reminded_at: Option<Timestamp>,
    pub reminders: u32,
}

impl Request {
    pub fn new(opened_at: Timestamp, deadline_at: Timestamp, reason: &str, by_time: bool) -> Request {
        Request { opened_at, deadline_at, reason: reason.to_owned(), by_time, urgency: Urgency::Notice, reminded_at: None, reminders: 0 }
    }

    /// From when each level counts: a half and three quarters of the time, and its end. The time is the policy's, so short
    /// policies are reminded of sooner.
    fn levels(&self) -> [(Urgency, Timestamp); 3] {
        let whole = Duration::try_from(self.deadline_at.duration_since(self.opened_at)).unwrap_or_default();
        let at = |part: Duration| self.opened_at.checked_add(part).unwrap_or(Timestamp::MAX).min(self.deadline_at);
        [(Urgency::Soon, at(whole / 2)), (Urgency::Urgent, at(whole / 4 * 3)), (Urgency::Overdue, self.deadline_at)]
    }

    pub fn urgency_at(&self, now: Timestamp) -> Urgency {
        let reached = self.levels().into_iter().rev().find(|(_, from)| *from <= now);
        reached.map_or(Urgency::Notice, |(level, _)| level)
    }

    /// When the next level is reached.
    pub fn rises_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.levels().into_iter().map(|(_, from)| from).find(|from| *from > now)
    }

    pub fn remind(&mut self, at: Timestamp, urgency: Urgency) {
        self.urgency = urgency;
        self.reminded_at = Some(at);
        self.reminders = self.reminders.saturating_add(1);
    }
}

/// A person is asked to remove an old key. What the provider said of it since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    pub request: Request,
    /// It was accepted when it was last looked at.
    pub lives: bool,
    /// It was accepted at some look: a refusal means something.
    pub answered: bool,
    /// Since when it is refused.
    pub refused_first: Option<Instant>,
}

impl Removal {
    pub fn new(request: Request) -> Removal {
        Removal { request, lives: false, answered: false, refused_first: None }
    }

    /// What one more refusal, seen now, adds up to: refused twice, apart by more than the provider's replicas may differ, and
    /// accepted before.
    pub fn is_proved(&self, old: &VersionFacts, running: Duration, replicas_differ: Duration) -> bool {
        let asked_before = || old.proof.as_ref().is_some_and(|proof| proof.evidence.iter().any(|piece| piece.kind == EvidenceKind::Probe));
        let apart = |first: Instant| running.saturating_sub(first.running) >= replicas_differ.max(Duration::from_millis(1));
        (self.answered || asked_before()) && self.refused_first.is_some_and(apart)
    }
}

/// How often it is looked whether a key that a person is to remove still lives.
pub fn look_every(policy: &RotationPolicy) -> Duration {
    Duration::from_secs(900).min(policy.max_age.as_duration() / 20)
}

/// How long a person has, where no deadline says it.
fn lead(policy: &RotationPolicy, provider: &Provider) -> Duration {
    provider.timing.manual_lead.unwrap_or_else(|| reserve(policy, provider))
}

/// By when a new key is to be submitted, so that the old one can be dead in time.
pub fn submit_by(facts: &Facts<'_>, reason: DueReason) -> Timestamp {
    let now = facts.now.wall;
    if let Some(incident) = facts.ledger.open_incident().filter(|_| reason == DueReason::Compromised) {
        return incident.limit_at();
    }
    let overlap = if facts.provider.manual.replaces { Duration::ZERO } else { facts.policy.terms.overlap.as_duration() };
    let before = overlap + facts.policy.propagation(facts.provider);
    let latest = facts.ledger.current_facts().map_or(now, |current| earlier(deadline_of(current, facts.policy), before));
    match reason {
        DueReason::Requested => latest.min(later(now, lead(facts.policy, facts.provider))),
        _ => latest,
    }
}

/// By when an old key is to be removed. However late it is, there is time for a person, and for a few looks.
pub fn remove_by(old: &VersionFacts, facts: &Facts<'_>) -> Timestamp {
    let now = facts.now.wall;
    let looks = later(now, look_every(facts.policy) * 4);
    if let Some(incident) = facts.ledger.open_incident() {
        return incident.limit_at().max(looks);
    }
    let lead = later(now, lead(facts.policy, facts.provider)).max(looks);
    // Where nobody can be asked whether it lives, waiting until the deadline would tell nothing more.
    if facts.provider.has_check() { deadline_of(old, facts.policy).max(lead) } else { lead }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixtures::at;

    #[test]
    fn urgency_rises_with_time_alone() {
        let request = Request::new(at("2026-01-01T00:00:00Z"), at("2026-01-05T00:00:00Z"), "max-age", true);
        for (now, urgency, next) in [
            ("2026-01-01T00:00:00Z", Urgency::Notice, Some("2026-01-03T00:00:00Z")),
            ("2026-01-02T23:59:59Z", Urgency::Notice, Some("2026-01-03T00:00:00Z")),
            ("2026-01-03T00:00:00Z", Urgency::Soon, Some("2026-01-04T00:00:00Z")),
            ("2026-01-04T00:00:00Z", Urgency::Urgent, Some("2026-01-05T00:00:00Z")),
            ("2026-01-05T00:00:00Z", Urgency::Overdue, None),
            ("2036-01-05T00:00:00Z", Urgency::Overdue, None),
        ] {
            assert_eq!((request.urgency_at(at(now)), request.rises_at(at(now))), (urgency, next.map(at)), "{now}");
        }
    }

    #[test]
    fn what_is_asked_too_late_is_overdue_at_once() {
        let request = Request::new(at("2026-01-05T00:00:00Z"), at("2026-01-01T00:00:00Z"), "max-age", true);
        assert_eq!(request.urgency_at(at("2026-01-05T00:00:00Z")), Urgency::Overdue);
    }
}
