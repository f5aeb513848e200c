//! What the engine shows: the documents of `status`, `plan` and the reads, as the contract words them.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::credential::Environment;
use crate::domain::environment::Proof;
use crate::domain::holders::HoldingState;
use crate::domain::ids::{InstanceName, Name, VersionId};
use crate::domain::material::Material;

/// What an application gets: the served fields of one version, never a mix.
#[derive(Debug)]
pub struct Document {
    pub name: Name,
    pub provider: Name,
    pub environment: Environment,
    pub version: VersionId,
    /// Grows with each change that an application can see.
    pub revision: u64,
    pub issued_at: Timestamp,
    /// The store was away when this was served; the value is from the cache.
    pub stale: bool,
    /// Served fields only.
    pub fields: Arc<Material>,
    /// During the overlap, where a field's use is to verify.
    pub previous: Option<Arc<Previous>>,
}

/// The version before, for those who check what others signed with it.
#[derive(Debug)]
pub struct Previous {
    pub version: VersionId,
    /// The fields whose use is to verify.
    pub fields: Material,
    /// The end of the overlap. It stays listed for longer while somebody still holds it: as long as it is listed, it is good.
    pub valid_until: Timestamp,
}

/// One row of `GET /v1/credentials`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub name: Name,
    pub environment: Environment,
    /// `None`: nothing was submitted yet.
    pub version: Option<VersionId>,
    pub revision: u64,
}

/// `status --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    pub credentials: Vec<CredentialStatus>,
    pub problems: Vec<StatusProblem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Name>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CredentialStatus {
    pub name: Name,
    pub provider: Name,
    pub environment: Environment,
    /// The base URL in use; `None` for values of our own.
    pub endpoint: Option<String>,
    pub proof: Option<Proof>,
    pub version: Option<VersionId>,
    pub previous_version: Option<VersionId>,
    /// `missing`, `steady`, or a phase.
    pub phase: String,
    pub generation: u64,
    pub issued_at: Option<Timestamp>,
    pub age_seconds: Option<i64>,
    /// When the next rotation starts.
    pub due_at: Option<Timestamp>,
    pub deadline_at: Option<Timestamp>,
    pub overlap_ends_at: Option<Timestamp>,
    /// Why it stands where it stands: a documented reason of the domain.
    pub reason: Option<String>,
    pub paused: bool,
    pub applications: Vec<ApplicationStatus>,
    /// How many keep the old version alive, applications never seen included. For metrics; `reason` and `problems` name them.
    #[serde(skip)]
    pub holders_of_previous: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ApplicationStatus {
    pub name: Name,
    /// `None`: listed, and without a living instance.
    pub instance: Option<InstanceName>,
    pub version: Option<VersionId>,
    pub state: Option<HoldingState>,
}

/// Something that a person should know. `credential` is absent for problems of the daemon itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusProblem {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Name>,
    /// A short, stable word: `overdue`, `unmanaged`, `current-refused`, `possible-orphan`, `policies-invalid`, …
    pub code: String,
    /// What is wrong and what to do next.
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    pub plan: Vec<PlanEntry>,
    pub next: Option<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanEntry {
    pub name: Name,
    pub starts_at: Timestamp,
    pub deadline_at: Timestamp,
    pub reason: String,
    pub blocked_by: Vec<String>,
}

/// 201 of a submission.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Submitted {
    pub name: Name,
    pub version: VersionId,
    pub proof: Proof,
}
