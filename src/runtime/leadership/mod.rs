//! Who may act: one replica at a time leads, by a lease that all of them see.
//!
//! The lease keeps replicas from working against each other; it isn't what makes them safe. Safety comes from the compare-and-set of
//! each append and each promotion (I7): a leader that was paused finds its term deposed. Times are compared with the own monotonic
//! clock alone: a lease is over when the record hasn't changed for its duration *while we looked on*, whatever wall clocks say.

mod candidate;
mod clock;
pub mod contract;
pub mod lease;
pub mod memory;
mod run;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

pub use clock::{BootClock, Monotonic};
pub use run::Leadership;

/// The times of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Others wait for so long without a change before they take over.
    pub lease: Duration,
    /// How often a leader renews, and others look.
    pub renew_every: Duration,
    /// A leader that couldn't renew for so long leads no more. Shorter than the lease, so that it ends before others begin.
    pub renew_deadline: Duration,
    /// The longest call.
    pub call_max: Duration,
}

impl Timing {
    /// Take-over of a dead leader: 10 s, and up to 2 s until its last renewal was seen. So within 15 s.
    pub const DEFAULT: Timing = Timing {
        lease: Duration::from_secs(10),
        renew_every: Duration::from_secs(2),
        renew_deadline: Duration::from_secs(6),
        call_max: Duration::from_secs(2),
    };
}

/// Who this process is among the replicas: no two processes are ever the same, so one that starts again isn't its own predecessor.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<str>);

impl Identity {
    /// The host's name, which is the pod's, and a part of chance.
    pub fn of_this_process() -> Identity {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let chance = uuid::Uuid::new_v4().simple().to_string();
        Identity(format!("{host}_{}", &chance[..12]).into())
    }

    /// As others wrote it, or for tests.
    pub fn new(text: &str) -> Identity {
        Identity(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the part of chance: the pod's name.
    pub fn host(&self) -> &str {
        self.0.rsplit_once('_').map_or(&self.0, |(host, _)| host)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.0)
    }
}

/// Whether we lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// With the leader, as far as one is known.
    Following { leader: Option<Identity> },
    /// The number grows with each tenure, also with two of the same process, and is never used twice while the lease exists.
    /// `since` is monotonic.
    Leading { transitions: u64, since: Duration },
}

impl Standing {
    pub fn is_leading(&self) -> bool {
        matches!(self, Standing::Leading { .. })
    }
}

/// What stands in the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `None`: it was given back.
    pub holder: Option<Identity>,
    /// How often the holder changed.
    pub transitions: u64,
    /// How long its holder asked others to wait. `None` where it doesn't say.
    pub duration: Option<Duration>,
    /// Differs after each write of a holder, and says nothing else: the time that stands there is another clock's.
    pub mark: String,
}

/// A record as it was read, and what a write compares with.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub record: Record,
    pub stamp: Stamp,
}

/// Which state of the lease was seen; what it is made of is the store's business.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamp(pub(crate) Value);

/// What a candidate writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// `None` gives the lease back.
    pub holder: Option<Identity>,
    pub transitions: u64,
    pub duration: Duration,
    /// Whether the tenure begins with this write: then its beginning is written too.
    pub is_new: bool,
}

/// Why a lease wasn't read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// It isn't as it was seen: somebody else wrote, created or deleted it.
    #[error("the lease was changed since it was read")]
    Changed,
    /// No answer, or one that says to come again: a write may have had its effect.
    #[error("the lease can't be reached")]
    Unavailable { retry_after: Option<Duration> },
    /// Our rights don't suffice, or our token isn't taken.
    #[error("the lease may not be used by us: give our service account `get`, `create` and `update` of it")]
    Forbidden,
    /// Nowhere to put it.
    #[error("there is no such namespace")]
    NoNamespace,
    /// What stands there, or what we wrote, isn't a lease.
    #[error("the lease isn't one")]
    Invalid,
}

/// Where the lease lies: one object, written by compare-and-set.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// `None` where there is none.
    ///
    /// # Errors
    /// [`LeaseError`], never [`LeaseError::Changed`].
    async fn read(&self) -> Result<Option<Seen>, LeaseError>;

    /// Writes if the lease is as it was seen; with `None`, if there is none.
    ///
    /// # Errors
    /// [`LeaseError::Changed`] without an effect. After [`LeaseError::Unavailable`] it may have had its effect, or may have it later.
    async fn write(&self, seen: Option<&Stamp>, claim: &Claim) -> Result<Seen, LeaseError>;
}
