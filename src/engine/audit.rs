//! What is written down before it takes effect: the seam to the audit trail (I17).

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
}
