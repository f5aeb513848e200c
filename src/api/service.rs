//! What the API asks of the engine: the one seam between them, so that the API is tested over real sockets without one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::ids::{FieldName, InstanceName, Name, OperationId, VersionId};
use crate::domain::material::Material;
use crate::domain::policy::Policies;
use crate::engine::audit::{Actor, Order};
use crate::engine::errors::{
    ConfirmError, ForgetError, PauseError, ReadError, ReleaseError, RevokeError, RollbackError, RotateError, SubmitError,
};
use crate::engine::views::{Document, Listed, Plan, RolledBack, Status, Submitted};
use crate::engine::{Reader, VersionView};

/// While it lives, the instance has a stream; dropping it starts the lease.
pub type StreamGuard = Box<dyn Send + Sync>;

/// A confirmation, as it was sent.
#[derive(Debug)]
pub struct Confirmation {
    pub application: Name,
    pub instance: InstanceName,
    pub credential: Name,
    pub version: VersionId,
    pub field: FieldName,
    /// As sent; the engine compares.
    pub proof: String,
}

/// Why there is no copy of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the store can't be copied: look whether its disk is full")]
    Unavailable,
    #[error("the audit trail can't be written")]
    AuditUnavailable,
}

/// Copies of the store, for backups.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// All of it at one moment, sealed as it is, read from its beginning. Audited before it is made.
    async fn take(&self, actor: Actor) -> Result<std::fs::File, SnapshotError>;
}

/// The engine, as far as the API needs it. The rights of operators are checked here in the API, those of applications
/// in the engine.
#[async_trait]
pub trait Service: Send + Sync {
    fn policies(&self) -> Arc<Policies>;

    /// Recorded and audited before it returns. [`ReadError::Forbidden`] for what an application may not read.
    async fn read(&self, reader: &Reader, name: &Name) -> Result<Document, ReadError>;

    /// Version and revision that would be served. Discloses nothing, and is cheap.
    fn current(&self, name: &Name) -> Option<(VersionId, u64)>;

    fn list(&self, reader: &Reader) -> Vec<Listed>;

    /// Renews the lease of an instance.
    fn touch(&self, application: &Name, instance: &InstanceName);

    fn open_stream(&self, application: &Name, instance: &InstanceName) -> StreamGuard;

    async fn confirm(&self, confirmation: &Confirmation) -> Result<(), ConfirmError>;

    async fn release(&self, order: Order, application: &Name, instance: Option<&InstanceName>) -> Result<(), ReleaseError>;

    async fn submit(&self, actor: Actor, name: &Name, material: Material) -> Result<Submitted, SubmitError>;

    async fn rotate(&self, order: Order, name: &Name) -> Result<OperationId, RotateError>;

    /// Somebody else may have the current key.
    async fn compromised(&self, order: Order, name: &Name, within: Duration) -> Result<OperationId, RotateError>;

    async fn roll_back(&self, order: Order, name: &Name) -> Result<RolledBack, RollbackError>;

    async fn revoke_version(&self, order: Order, name: &Name, version: &VersionId, force: bool) -> Result<(), RevokeError>;

    async fn forget(&self, order: Order, name: &Name, force: bool) -> Result<(), ForgetError>;

    /// One credential, or all of them.
    async fn pause(&self, order: Order, name: Option<&Name>) -> Result<(), PauseError>;

    async fn resume(&self, order: Order, name: Option<&Name>) -> Result<(), PauseError>;

    /// `None`: `name` is unknown.
    fn status(&self, name: Option<&Name>, after: Option<&Name>, limit: usize) -> Option<Status>;

    fn plan(&self, days: u32, after: Option<&Name>, limit: usize) -> Plan;

    /// `None`: `name` is unknown.
    fn versions(&self, name: &Name) -> Option<Vec<VersionView>>;
}
