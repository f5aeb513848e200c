//! What is written down before it takes effect: the seam to the audit trail (I17).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::ids::{Name, VersionId};
use crate::domain::reason::Reason;
use crate::journal::Anchor;

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    /// The daemon, following a policy.
    Daemon,
    /// An operator, by uid or by the short form of its token's hash.
    Operator {
        who: String,
    },
    Application {
        name: String,
        instance: String,
    },
}

/// What a person told us to do: who it was, and why, where they said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub by: Actor,
    pub reason: Option<Reason>,
}

impl From<Actor> for Order {
    fn from(by: Actor) -> Order {
        Order { by, reason: None }
    }
}

impl Order {
    /// The record of it. The reason stands last, so that no text of a person is taken for ours.
    pub(super) fn action(self, action: &str, credential: Option<&Name>, version: Option<&VersionId>, detail: Option<&str>) -> Action {
        let reason = self.reason.map(|reason| format!("reason: {reason}"));
        let detail: Vec<&str> = detail.into_iter().chain(reason.as_deref()).collect();
        Action {
            actor: self.by,
            action: action.to_owned(),
            credential: credential.map(Name::to_string),
            version: version.map(VersionId::to_string),
            detail: (!detail.is_empty()).then(|| detail.join("; ")),
        }
    }
}

/// What is about to happen, or was refused. Holds names, never material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    pub actor: Actor,
    /// A short, stable word: `planned`, `disclosed`, `confirmed`, `promoted`, `revoke-intended`, `submission-refused`, …
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit trail can't be written")]
pub struct AuditError;

/// Keeps the trail.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Durable when it returns. Many callers at once share one write.
    ///
    /// # Errors
    /// [`AuditError`]: what was about to happen must not happen.
    async fn record(&self, at: Timestamp, action: Action) -> Result<(), AuditError>;

    /// A repetition of a disclosure that was recorded before: counted, and written once a minute.
    fn repeated(&self, action: Action);

    /// Whether the last record could be written.
    fn is_writing(&self) -> bool {
        true
    }

    /// The last durable record, for the journal to remember. `None` for a trail that has none, or no chain.
    fn anchor(&self) -> Option<Anchor> {
        None
    }
}

/// What goes wrong with one record of a [`MemoryAudit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFault {
    /// Nothing is written, and the caller is told.
    Refused,
    /// Written, but the caller is told that it wasn't: an fsync that failed late.
    WrittenAndRefused,
}

/// A trail in memory, with faults: for tests and simulations.
#[derive(Debug, Default)]
pub struct MemoryAudit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<(Timestamp, Action)>,
    repeated: Vec<Action>,
    /// What happens to the next records, one by one.
    script: VecDeque<Option<AuditFault>>,
    /// What happens to all records once the script is over.
    always: Option<AuditFault>,
}

impl MemoryAudit {
    pub fn new() -> MemoryAudit {
        MemoryAudit::default()
    }

    /// All records until `None` is given.
    pub fn fail_always(&self, fault: Option<AuditFault>) {
        self.state().always = fault;
    }

    /// One record, after `after` that are not touched. Replaces what was planned before.
    pub fn fail_once(&self, after: usize, fault: AuditFault) {
        self.state().script = std::iter::repeat_n(None, after).chain([Some(fault)]).collect();
    }

    /// All that was written, oldest first.
    pub fn records(&self) -> Vec<(Timestamp, Action)> {
        self.state().records.clone()
    }

    /// All that was counted as a repetition.
    pub fn repetitions(&self) -> Vec<Action> {
        self.state().repeated.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Audit for MemoryAudit {
    async fn record(&self, at: Timestamp, action: Action) -> Result<(), AuditError> {
        let mut state = self.state();
        let fault = state.script.pop_front().unwrap_or(state.always);
        if fault != Some(AuditFault::Refused) {
            state.records.push((at, action));
        }
        fault.map_or(Ok(()), |_| Err(AuditError))
    }

    fn repeated(&self, action: Action) {
        self.state().repeated.push(action);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_memory_audit_fails_where_it_is_told_to() {
        let audit = MemoryAudit::new();
        let action = |word: &str| Action { actor: Actor::Daemon, action: word.into(), credential: None, version: None, detail: None };
        audit.fail_once(1, AuditFault::Refused);
        let mut outcomes = Vec::new();
        for word in ["a", "b", "c"] {
            outcomes.push(audit.record(Timestamp::UNIX_EPOCH, action(word)).await.is_ok());
        }
        audit.fail_always(Some(AuditFault::WrittenAndRefused));
        outcomes.push(audit.record(Timestamp::UNIX_EPOCH, action("d")).await.is_ok());
        audit.repeated(action("e"));
        assert_eq!(outcomes, [true, false, true, false]);
        let words: Vec<String> = audit.records().into_iter().map(|(_, action)| action.action).collect();
        assert_eq!(words, ["a", "c", "d"]);
        assert_eq!(audit.repetitions(), [action("e")]);
    }

    #[test]
    fn the_record_of_an_order_ends_with_its_reason() {
        let detail = |order: Order, detail: Option<&str>| order.action("paused", None, None, detail).detail;
        let boss = || Actor::Operator { who: "uid:0".into() };
        let order = |reason: &str| Order { by: boss(), reason: Some(reason.parse().unwrap()) };
        assert_eq!(detail(boss().into(), None), None);
        assert_eq!(detail(boss().into(), Some("all")).as_deref(), Some("all"));
        assert_eq!(detail(order("INC-7"), None).as_deref(), Some("reason: INC-7"));
        assert_eq!(
            detail(order("x; held or not"), Some("unless somebody holds it")).as_deref(),
            Some("unless somebody holds it; reason: x; held or not")
        );
    }
}
