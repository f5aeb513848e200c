//! What the delivery asks of the Kubernetes API: the seam that its contract suite and its memory fake stand beside.
//!
//! No call reads the data of a Secret, so the right to read Secrets isn't needed for more than their metadata, and nothing that
//! others wrote there can come out of us.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;

use super::contents::Contents;
use super::owner::Owner;
use crate::cluster::ClusterError;
use crate::domain::ids::{Name, ObjectName};
use crate::domain::restarts::{Seen, Workload};

/// Under this name our fields of a Secret are managed.
pub const MANAGER: &str = "keywright";

/// One Secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretAt {
    pub namespace: Name,
    pub name: ObjectName,
}

impl SecretAt {
    /// The annotation of a pod template that makes its pods new. 63 characters of a name at most, which documents see to.
    pub fn checksum_key(&self) -> String {
        format!("keywright.dev/checksum-{}", self.name)
    }

    /// The annotation of a workload that remembers when it was restarted for this Secret.
    pub fn restarts_key(&self) -> String {
        format!("keywright.dev/restarts-{}", self.name)
    }

    /// Under this name our fields of a workload are managed. One per Secret: what is applied for one leaves out what is another's.
    pub fn workload_manager(&self) -> String {
        format!("{MANAGER}-{}", self.name)
    }
}

impl fmt::Display for SecretAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secrets/{} in {}", self.name, self.namespace)
    }
}

/// What a Secret tells without its data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretSeen {
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The names of the data that we applied and nobody has changed since.
    pub ours: BTreeSet<String>,
    /// Whether anybody else manages a field of it.
    pub has_others: bool,
    /// It is being deleted, and something holds that up.
    pub is_ending: bool,
}

/// What is applied: everything of ours, and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Intent<'a> {
    pub owner: &'a Owner,
    pub contents: &'a Contents,
    /// Exactly this one is written over: if it changed since, or is gone, that is a conflict. `None`: it is to be created.
    pub over: Option<&'a SecretSeen>,
}

/// A workload that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadSeen {
    pub uid: String,
    pub seen: Seen,
}

/// What a restart writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Into the template.
    pub checksum: String,
    /// All restarts that still count, this one included.
    pub restarted: Vec<Timestamp>,
}

/// The calls. After [`ClusterError::Unavailable`] a change may have had its effect: who calls looks again.
#[async_trait]
pub trait Objects: Send + Sync + fmt::Debug {
    /// `None`: there is no such Secret, or no such namespace.
    async fn secret(&self, at: &SecretAt) -> Result<Option<SecretSeen>, ClusterError>;

    /// Server-side apply as [`MANAGER`]. Over one that we looked at, fields that others took are taken back; where it is to be
    /// created, a field that somebody else owns is [`ClusterError::Owned`].
    async fn apply_secret(&self, at: &SecretAt, intent: Intent<'_>) -> Result<SecretSeen, ClusterError>;

    /// Gives up all fields that we manage.
    async fn release_secret(&self, at: &SecretAt, over: &SecretSeen) -> Result<(), ClusterError>;

    /// The workload, and those of its pods that may run. `None`: there is none.
    async fn workload(&self, secret: &SecretAt, workload: &Workload) -> Result<Option<WorkloadSeen>, ClusterError>;

    /// Marks the workload with this uid, and no other of its name.
    async fn restart(&self, secret: &SecretAt, workload: &Workload, uid: &str, mark: &Mark) -> Result<(), ClusterError>;
}
