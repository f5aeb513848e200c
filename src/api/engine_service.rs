//! The engine behind the API's seam.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::service::{Confirmation, NotLeading, Service, StreamGuard};
use crate::domain::ids::{InstanceName, ItemId, Name, OperationId, VersionId};
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
use crate::engine::{Engine, Reader, VersionView};

/// The engine, which lives behind an `Arc` because its streams hold it.
#[derive(Debug, Clone)]
pub struct EngineService(pub Arc<Engine>);

#[async_trait]
impl Service for EngineService {
    fn policies(&self) -> Arc<Policies> {
        self.0.policies()
    }

    fn takes_orders(&self) -> Result<(), NotLeading> {
        if self.0.leads() {
            return Ok(());
        }
        Err(NotLeading { leader: self.0.leadership().and_then(|leadership| leadership.leader) })
    }

    fn is_cut_off(&self) -> bool {
        self.0.is_cut_off()
    }

    async fn has_been_shown(&self, name: &Name, revision: Option<u64>, version: Option<&VersionId>) -> bool {
        self.0.has_been_shown(name, revision, version).await
    }

    async fn read(&self, reader: &Reader, name: &Name) -> Result<Document, ReadError> {
        self.0.read(reader, name).await
    }

    fn current(&self, reader: &Reader, name: &Name) -> Option<(VersionId, u64)> {
        self.0.current_for(reader, name)
    }

    async fn list(&self, reader: &Reader) -> Vec<Listed> {
        self.0.list(reader).await
    }

    fn touch(&self, application: &Name, instance: &InstanceName) {
        self.0.touch(application, instance);
    }

    fn open_stream(&self, application: &Name, instance: &InstanceName) -> StreamGuard {
        Box::new(self.0.open_stream(application, instance))
    }

    async fn confirm(&self, it: &Confirmation) -> Result<(), ConfirmError> {
        self.0.confirm(&it.application, &it.instance, &it.credential, &it.version, &it.field, &it.proof).await
    }

    async fn report_failed(&self, it: &Report) -> Result<(), ReportError> {
        self.0.report_failed(it).await
    }

    async fn release(&self, order: Order, application: &Name, instance: Option<&InstanceName>) -> Result<(), ReleaseError> {
        self.0.release(order, application, instance).await
    }

    async fn submit(&self, actor: Actor, name: &Name, material: Material) -> Result<Submitted, SubmitError> {
        self.0.submit(actor, name, material).await
    }

    async fn adopt(&self, actor: Actor, name: &Name, brought: Material) -> Result<Submitted, SubmitError> {
        self.0.adopt(actor, name, brought).await
    }

    async fn rotate(&self, order: Order, name: &Name) -> Result<OperationId, RotateError> {
        self.0.rotate(order, name).await
    }

    async fn compromised(&self, order: Order, name: &Name, within: Duration) -> Result<OperationId, RotateError> {
        self.0.compromised(order, name, within).await
    }

    async fn roll_back(&self, order: Order, name: &Name) -> Result<RolledBack, RollbackError> {
        self.0.roll_back(order, name).await
    }

    async fn revoke_version(&self, order: Order, name: &Name, version: &VersionId, force: bool) -> Result<(), RevokeError> {
        self.0.revoke_version(order, name, version, force).await
    }

    async fn forget(&self, order: Order, name: &Name, force: bool) -> Result<(), ForgetError> {
        self.0.forget(order, name, force).await
    }

    async fn pause(&self, order: Order, name: Option<&Name>) -> Result<(), PauseError> {
        self.0.pause(order, name).await
    }

    async fn resume(&self, order: Order, name: Option<&Name>) -> Result<(), PauseError> {
        self.0.resume(order, name).await
    }

    async fn launch(&self, application: &Name) -> Option<LaunchView> {
        self.0.launch(application).await
    }

    async fn confirm_item(&self, order: Order, application: &Name, item: &ItemId, by: &Signer) -> Result<(), LaunchError> {
        self.0.confirm_item(order, application, item, by).await
    }

    async fn withdraw_item(&self, order: Order, application: &Name, item: &ItemId) -> Result<(), LaunchError> {
        self.0.withdraw_item(order, application, item).await
    }

    fn status(&self, name: Option<&Name>, after: Option<&Name>, limit: usize) -> Option<Status> {
        self.0.status(name, after, limit)
    }

    fn plan(&self, days: u32, after: Option<&Name>, limit: usize) -> Plan {
        self.0.plan(days, after, limit)
    }

    fn versions(&self, name: &Name) -> Option<Vec<VersionView>> {
        self.0.versions(name)
    }
}
