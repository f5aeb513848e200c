//! The durable record of what was intended and what happened: the seam to where it is kept.
//!
//! Each append is a compare-and-set on (term, revision): a deposed leader's append fails (I7). Events hold no material; the
//! sealed copy of a minted reply lies beside them, from `issued` until `stored` (I11).

mod changes;
pub mod contract;
pub mod embedded;
mod faulty;
pub mod kubernetes;
pub mod memory;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::delivery::Way;
use crate::domain::dispatch::Dispatch;
use crate::domain::holders::Holding;
use crate::domain::ids::{InstallationId, InstanceName, Name, VersionId};
use crate::domain::launch::Launch;
use crate::domain::rotation::Event;
use crate::sealing::{Context, Sealed};

pub use changes::{Changed, Changes, Cursor};
pub use faulty::{FaultyJournal, append_point};

/// How far the journal of one credential has come. The first append expects the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Leadership term of the last append.
    pub term: u64,
    /// Appends so far.
    pub revision: u64,
}

/// What happens to the sealed copy, in the same durable write as the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealedCopy {
    Keep,
    Put(Sealed),
    Erase,
}

/// What the sealed copy of a minted or submitted version is sealed for.
pub fn copy_of<'a>(credential: &'a Name, version: &'a VersionId) -> Context<'a> {
    Context { table: "journal", name: credential.as_str(), version: version.as_str(), part: "issued" }
}

/// The journal of one credential, as loaded.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub position: Position,
    pub events: Vec<Event>,
    pub sealed: Option<Sealed>,
}

/// A change of what instances hold. Batched: one durable write for many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldingChange {
    Put(Holding),
    Remove {
        application: Name,
        instance: InstanceName,
        credential: Name,
    },
    /// The application was served this credential, or a person released it: it no longer counts as never seen.
    Seen {
        application: Name,
        credential: Name,
    },
}

impl HoldingChange {
    pub fn credential(&self) -> &Name {
        match self {
            HoldingChange::Put(holding) => &holding.credential,
            HoldingChange::Remove { credential, .. } | HoldingChange::Seen { credential, .. } => credential,
        }
    }
}

/// All that is durable about instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    pub holdings: Vec<Holding>,
    /// (application, credential)
    pub seen: Vec<(Name, Name)>,
}

/// What outlives a restart of the daemon itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Time that the daemon has been running, all runs added up (I13).
    pub running: Duration,
    /// The wall clock at the last heartbeat; what it should have shown, where it wasn't believed.
    pub wall: Option<Timestamp>,
    /// What it showed while it wasn't believed, and was ahead or contradicted by a provider: from there on it isn't believed after
    /// a restart either, until a provider confirms it (I13).
    #[serde(default)]
    pub doubted: Option<Timestamp>,
    /// How far the audit trail had come, so that records cut from its end are missed (I17).
    #[serde(default)]
    pub audit: Option<Anchor>,
}

/// One record of an audit trail, remembered outside of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Its number, counted from 1.
    pub record: u64,
    /// Lower-case hex.
    pub hash: String,
}

/// Everything is paused, credentials that come later included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Somebody else appended, or a newer term began.
    #[error("the journal of `{credential}` has moved on: another process leads")]
    Conflict { credential: Name },
    /// As [`JournalError::Conflict`], of what belongs to no credential.
    #[error("the journal has moved on: another process leads")]
    Deposed,
    #[error("the journal is damaged ({0}): restore it from a backup")]
    Damaged(&'static str),
    /// Whether it took effect isn't known.
    #[error("the journal can't be reached: {0}")]
    Unavailable(&'static str),
}

#[async_trait]
pub trait Journal: Send + Sync {
    /// This installation's identity, made on first use.
    async fn installation(&self) -> Result<InstallationId, JournalError>;

    /// What this installation was called before it was restored from backups: keys with these markers may be ours, or those of
    /// a copy that lives on.
    async fn former_installations(&self) -> Result<Vec<InstallationId>, JournalError> {
        Ok(Vec::new())
    }

    /// Begins a new leadership term, higher than all before, durable before it is returned.
    async fn begin_term(&self) -> Result<u64, JournalError>;

    /// Credentials with a journal, by name, at most `limit` after `after`.
    async fn credentials(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, JournalError>;

    async fn load(&self, credential: &Name) -> Result<History, JournalError>;

    /// The same for several, in their order: a start loads all there are.
    async fn load_each(&self, credentials: &[Name]) -> Result<Vec<History>, JournalError> {
        let mut histories = Vec::with_capacity(credentials.len());
        for credential in credentials {
            histories.push(self.load(credential).await?);
        }
        Ok(histories)
    }

    /// Appends one event durably, together with the change of the sealed copy. `expected` is the position that the caller
    /// read or was last given; `term` is the caller's and becomes that of the new position.
    ///
    /// # Errors
    /// [`JournalError::Conflict`] if the position isn't `expected`, or `term` is lower than the highest begun;
    /// nothing has changed then.
    async fn append(
        &self,
        credential: &Name,
        expected: Position,
        term: u64,
        event: &Event,
        sealed: SealedCopy,
    ) -> Result<Position, JournalError>;

    /// Replaces all events of a credential by one snapshot, under the same compare-and-set. Counts as one append; the sealed copy stays.
    async fn compact(&self, credential: &Name, expected: Position, term: u64, snapshot: &Event) -> Result<Position, JournalError>;

    async fn holdings(&self) -> Result<Holdings, JournalError>;

    /// Durable when it returns. `term` is the caller's.
    ///
    /// # Errors
    /// [`JournalError::Conflict`] if a higher term has begun: who holds what is the newest process's to say, and a removal that
    /// arrives late must not strike who has come back since (I5, I7). Nothing has changed then.
    async fn write_holdings(&self, term: u64, changes: &[HoldingChange]) -> Result<(), JournalError>;

    async fn heartbeat(&self) -> Result<Heartbeat, JournalError>;

    /// # Errors
    /// [`JournalError::Deposed`] if a higher term has begun: a heartbeat that arrives late would add the running time of two
    /// processes up, and an overlap would end before it has lasted (I13). Nothing has changed then.
    async fn write_heartbeat(&self, term: u64, heartbeat: Heartbeat) -> Result<(), JournalError>;

    /// Whether everything is paused.
    async fn pause(&self) -> Result<Option<Pause>, JournalError>;

    /// Durable when it returns; `None` resumes.
    /// # Errors
    /// [`JournalError::Deposed`] if a higher term has begun. Nothing has changed then.
    async fn write_pause(&self, term: u64, pause: Option<Pause>) -> Result<(), JournalError>;

    /// What was signed off of going-live lists, and what is live, by application.
    async fn launches(&self) -> Result<Vec<(Name, Launch)>, JournalError>;

    /// Durable when it returns; what was kept of this application before is replaced. `term` is the caller's.
    ///
    /// # Errors
    /// [`JournalError::Deposed`] if a higher term has begun; nothing has changed then.
    async fn write_launch(&self, term: u64, application: &Name, launch: &Launch) -> Result<(), JournalError>;

    /// What couriers have to remember of each application and way.
    async fn dispatches(&self) -> Result<Vec<((Name, Way), Dispatch)>, JournalError>;

    /// Durable when it returns; what was kept of this application and way before is replaced. `term` is the caller's.
    ///
    /// # Errors
    /// [`JournalError::Deposed`] if a higher term has begun: who leads now knows what was sent since. Nothing has changed then.
    async fn write_dispatch(&self, term: u64, application: &Name, way: Way, dispatch: &Dispatch) -> Result<(), JournalError>;

    /// What changed after `since`, as soon as something has; nothing, once it has waited for `wait`. A journal that no other
    /// process can write tells nothing but that everything is new to who asks first.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`]: `since` stays good.
    async fn changes(&self, since: &Cursor, wait: Duration) -> Result<Changes, JournalError>;
}
