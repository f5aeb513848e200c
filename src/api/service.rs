//! What the API asks of the engine: the one seam between them, so that the API is tested over real sockets without one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::ids::{FieldName, InstanceName, ItemId, Name, OperationId, VersionId};
use crate::domain::launch::Signer;
use crate::domain::material::Material;
use crate::domain::policy::Policies;
use crate::domain::replicas::Report;
use crate::engine::audit::{Actor, Order};
use crate::engine::errors::{
    ConfirmError, ForgetError, LaunchError, PauseError, ReadError, ReleaseError, ReportError, RevokeError, RollbackError, RotateError,
    SubmitError,
};
use crate::engine::launch_view::LaunchView;
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

/// Why no rewrap begins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewrapRefusal {
    /// The new key can't be used.
    #[error("{0}")]
    BadKey(String),
    /// Another one comes first.
    #[error("{0}")]
    NotNow(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("the audit trail can't be written")]
    AuditUnavailable,
}

/// How far a rewrap is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RewrapState {
    /// There never was one.
    #[default]
    None,
    UnderWay,
    /// Everything is sealed with the new key, and `key.file` is still to hold it: a person's to do.
    KeyFileOld,
    Done,
}

/// The last rewrap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Rewrap")]
pub struct RewrapView {
    pub state: RewrapState,
    /// Id of the former key. Ids tell keys apart, and nothing else about them.
    pub from: Option<String>,
    /// Id of the new key.
    pub to: Option<String>,
    /// Where the new key lies.
    pub file: Option<String>,
    /// Where the former key is kept, if the daemon put the new one in its place: backups of its time open with nothing else.
    pub former_file: Option<String>,
    pub begun_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// How many rows are still sealed with the former key.
    pub rows_left: u64,
    /// Free pages of the store's file may hold what the former key sealed. The next start writes the file anew, without them.
    pub old_pages: bool,
    /// Why it can't go on; it is tried again.
    pub problem: Option<String>,
}

/// A new key-encryption key for the store.
#[async_trait]
pub trait Rewraps: Send + Sync {
    /// From here on the key in this file opens everything; without a file, one that is made for it. Audited before it begins.
    /// Asked again for the same, the one under way is told.
    async fn begin(&self, actor: Actor, file: Option<PathBuf>) -> Result<RewrapView, RewrapRefusal>;

    async fn view(&self) -> Result<RewrapView, RewrapRefusal>;
}

/// Why an order isn't taken here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this replica doesn't lead, so it takes no orders: {}", .leader.as_ref().map_or_else(
    || "nobody is known to lead yet, try again in a few seconds".to_owned(),
    |leader| format!("send them to {leader}, which does"),
))]
pub struct NotLeading {
    /// The name of the replica that leads: in Kubernetes its pod's.
    pub leader: Option<String>,
}

/// The engine, as far as the API needs it. The rights of operators are checked here in the API, those of applications
/// in the engine.
#[async_trait]
pub trait Service: Send + Sync {
    fn policies(&self) -> Arc<Policies>;

    /// Whether orders are taken here: one of several replicas leads, and all of them serve.
    fn takes_orders(&self) -> Result<(), NotLeading> {
        Ok(())
    }

    /// It knows nothing recent of what is current: nothing is served, and streams end, so that applications go elsewhere.
    fn is_cut_off(&self) -> bool {
        false
    }

    /// The caller has seen this revision, or this version, somewhere. Where less is known here, that is looked up before it returns;
    /// false if that isn't possible now, so that what is known here would take the caller back.
    async fn has_been_shown(&self, _name: &Name, _revision: Option<u64>, _version: Option<&VersionId>) -> bool {
        true
    }

    /// Recorded and audited before it returns. [`ReadError::Forbidden`] for what an application may not read.
    async fn read(&self, reader: &Reader, name: &Name) -> Result<Document, ReadError>;

    /// Version and revision that would be served. Discloses nothing, and is cheap.
    fn current(&self, reader: &Reader, name: &Name) -> Option<(VersionId, u64)>;

    async fn list(&self, reader: &Reader) -> Vec<Listed>;

    /// Renews the lease of an instance.
    fn touch(&self, application: &Name, instance: &InstanceName);

    fn open_stream(&self, application: &Name, instance: &InstanceName) -> StreamGuard;

    async fn confirm(&self, confirmation: &Confirmation) -> Result<(), ConfirmError>;

    /// An instance says that a version doesn't work. Durable when it returns.
    async fn report_failed(&self, report: &Report) -> Result<(), ReportError>;

    async fn release(&self, order: Order, application: &Name, instance: Option<&InstanceName>) -> Result<(), ReleaseError>;

    async fn submit(&self, actor: Actor, name: &Name, material: Material) -> Result<Submitted, SubmitError>;

    /// Takes over what lies in the store, or puts what was brought in its place.
    ///
    /// # Errors
    /// [`SubmitError`].
    async fn adopt(&self, actor: Actor, name: &Name, brought: Material) -> Result<Submitted, SubmitError>;

    async fn rotate(&self, order: Order, name: &Name) -> Result<OperationId, RotateError>;

    /// Somebody else may have the current key.
    async fn compromised(&self, order: Order, name: &Name, within: Duration) -> Result<OperationId, RotateError>;

    async fn roll_back(&self, order: Order, name: &Name) -> Result<RolledBack, RollbackError>;

    async fn revoke_version(&self, order: Order, name: &Name, version: &VersionId, force: bool) -> Result<(), RevokeError>;

    async fn forget(&self, order: Order, name: &Name, force: bool) -> Result<(), ForgetError>;

    /// One credential, or all of them.
    async fn pause(&self, order: Order, name: Option<&Name>) -> Result<(), PauseError>;

    async fn resume(&self, order: Order, name: Option<&Name>) -> Result<(), PauseError>;

    /// The going-live list; `None`: there is no such application.
    async fn launch(&self, application: &Name) -> Option<LaunchView>;

    async fn confirm_item(&self, order: Order, application: &Name, item: &ItemId, by: &Signer) -> Result<(), LaunchError>;

    async fn withdraw_item(&self, order: Order, application: &Name, item: &ItemId) -> Result<(), LaunchError>;

    /// `None`: `name` is unknown.
    fn status(&self, name: Option<&Name>, after: Option<&Name>, limit: usize) -> Option<Status>;

    fn plan(&self, days: u32, after: Option<&Name>, limit: usize) -> Plan;

    /// `None`: `name` is unknown.
    fn versions(&self, name: &Name) -> Option<Vec<VersionView>>;
}
