//! An incident: somebody else may have a key. What is set aside until it is replaced and dead, and what is known afterwards.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::holders::Blocker;
use super::ids::{KeyId, VersionId};
use super::rotation::{Instant, Moment};
use super::span::Span;

/// The longest time that an incident may leave to those who hold the stolen key.
pub const WITHIN_MAX: Duration = Duration::from_secs(86_400);
/// What they are left unless the operator says otherwise.
pub const WITHIN_DEFAULT: Duration = Duration::from_secs(600);

/// How long holders are waited for, as an operator writes it: `0s` to [`WITHIN_MAX`], in the form of a policy's durations.
pub fn parse_within(text: &str) -> Option<Duration> {
    let none =
        text.strip_suffix(['s', 'm', 'h', 'd']).is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit == b'0'));
    let within = if none { Duration::ZERO } else { text.parse::<Span>().ok()?.as_duration() };
    (within <= WITHIN_MAX).then_some(within)
}

/// A stolen key, and all older ones with it. While it is open, spread, windows and overlap don't count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The version that was current.
    pub version: VersionId,
    /// Of the key that was current: this one and all before it are to die.
    pub generation: u64,
    pub at: Instant,
    /// How long those who hold the old key are waited for.
    pub within: Duration,
    /// The provider's keys as they were listed before the stolen key was made: who has that key can't have made these.
    pub seen: BTreeSet<KeyId>,
    /// When the stolen key was made.
    pub issued_at: Timestamp,
    /// Who still held an old key when it went.
    pub stragglers: Vec<Blocker>,
    pub closed: Option<ClosedIncident>,
}

/// How an incident ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedIncident {
    pub at: Timestamp,
    /// Generation of the version that was current then.
    pub generation: u64,
    /// Living keys at the provider that nobody here knows, and that may have been made with the stolen one: named, never touched.
    /// `None`: the provider can't list keys.
    pub unknown_keys: Option<BTreeSet<KeyId>>,
}

impl Incident {
    /// How much of the limit is left for a rotation. By the smaller of wall time and running time (I13).
    ///
    /// Where the key that replaces an old one was stolen itself, a further rotation follows, and its holders need time, too: the
    /// first one has half of it.
    pub fn left(&self, now: Moment, replaced_by_a_stolen_key: bool) -> Duration {
        let limit = if replaced_by_a_stolen_key { self.within / 2 } else { self.within };
        limit.saturating_sub(now.since(self.at))
    }

    /// When those who hold the old key are waited for no more, by the wall clock.
    pub fn limit_at(&self) -> Timestamp {
        self.at.wall.checked_add(self.within).unwrap_or(Timestamp::MAX)
    }

    /// Names who is left, each once.
    pub(super) fn name(&mut self, stragglers: &[Blocker]) {
        for straggler in stragglers {
            if !self.stragglers.contains(straggler) {
                self.stragglers.push(straggler.clone());
            }
        }
    }
}
