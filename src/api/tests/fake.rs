//! An engine that answers what the test wants, and remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::api::service::{Confirmation, RewrapRefusal, RewrapState, RewrapView, Rewraps, Service, SnapshotError, Snapshots, StreamGuard};
use crate::domain::access::{Identity, may_read, needs_reason};
use crate::domain::credential::{Credential, Environment};
use crate::domain::environment::{Proof, Verdict};
use crate::domain::ids::{InstallationId, InstanceName, ItemId, Name, OperationId, VersionId};
use crate::domain::launch::Signer;
use crate::domain::material::{Material, Secret};
use crate::domain::policy::{Application, Policies, Uptake};
use crate::domain::replicas::Report;
use crate::engine::audit::{Actor, Order};
use crate::engine::errors::{
    ConfirmError, ForgetError, LaunchError, PauseError, ReadError, ReleaseError, ReportError, RevokeError, RollbackError, RotateError,
    SubmitError,
};
use crate::engine::launch_view::LaunchView;
use crate::engine::views::{Document, Listed, Plan, Previous, RolledBack, Status, StoreStatus, Submitted};
use crate::engine::{Reader, VersionView};
use crate::issuers::BreakerState;

/// The values that no refusal may hold.
pub(super) const CANARY: &str = "canary-\"quoted\"-\\-☃-0123456789";

pub(super) struct Fake {
    policies: Mutex<Arc<Policies>>,
    /// Revision and value of what has a version.
    served: Mutex<BTreeMap<Name, (u64, String)>>,
    previous: Mutex<Option<Arc<Previous>>>,
    pub(super) read: Mutex<Option<ReadError>>,
    pub(super) confirm: Mutex<Option<ConfirmError>>,
    pub(super) report: Mutex<Option<ReportError>>,
    pub(super) submit: Mutex<Option<SubmitError>>,
    pub(super) rotate: Mutex<Option<RotateError>>,
    pub(super) release: Mutex<Option<ReleaseError>>,
    pub(super) rollback: Mutex<Option<RollbackError>>,
    pub(super) revoke: Mutex<Option<RevokeError>>,
    pub(super) forget: Mutex<Option<ForgetError>>,
    pub(super) pause: Mutex<Option<PauseError>>,
    pub(super) launch: Mutex<Option<LaunchError>>,
    /// What it was asked, in words.
    log: Mutex<Vec<String>>,
    pub(super) streams: Arc<AtomicUsize>,
}

pub(super) fn token(token: &str) -> Identity {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref());
    Identity::Token { sha256 }
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn application(text: &str, identity: Identity, credentials: &[&str]) -> Application {
    Application {
        name: name(text),
        environment: Environment::Sandbox,
        credentials: credentials.iter().map(|text| name(text)).collect(),
        identity,
        uptake: Uptake::Stream,
        lease: None,
        callback: None,
        webhook: None,
        delivery: Default::default(),
    }
}

fn credential(text: &str) -> Credential {
    Credential {
        name: name(text),
        provider: name("provider"),
        environment: Environment::Sandbox,
        rotation: name("rotation"),
        path: text.to_owned(),
        variables: BTreeMap::new(),
        account: name("account"),
        administered_by: None,
        twin: None,
        accept_undetermined: None,
        rehearsal_time: Duration::ZERO,
        require_go_live: false,
    }
}

/// Credentials `one` and `two` with a version, `empty` without, `foreign` of nobody; applications `app` and `other`.
pub(super) fn policies(applications: Vec<Application>) -> Policies {
    let credentials = ["one", "two", "empty", "foreign"].map(|text| (name(text), Arc::new(credential(text))));
    Policies {
        credentials: credentials.into_iter().collect(),
        applications: applications.into_iter().map(|it| (it.name.clone(), Arc::new(it))).collect(),
        ..Policies::default()
    }
}

pub(super) fn applications() -> Vec<Application> {
    vec![application("app", token(super::APP), &["one", "two", "empty"]), application("other", token(super::OTHER), &[])]
}

impl Fake {
    pub(super) fn new() -> Fake {
        let served = ["one", "two", "foreign"].map(|text| (name(text), (1, CANARY.to_owned())));
        Fake {
            policies: Mutex::new(Arc::new(policies(applications()))),
            served: Mutex::new(served.into_iter().collect()),
            previous: Mutex::default(),
            read: Mutex::default(),
            confirm: Mutex::default(),
            report: Mutex::default(),
            submit: Mutex::default(),
            rotate: Mutex::default(),
            release: Mutex::default(),
            rollback: Mutex::default(),
            revoke: Mutex::default(),
            forget: Mutex::default(),
            pause: Mutex::default(),
            launch: Mutex::default(),
            log: Mutex::default(),
            streams: Arc::default(),
        }
    }

    pub(super) fn set(&self, text: &str, revision: u64, value: &str) {
        self.served.lock().unwrap().insert(name(text), (revision, value.to_owned()));
    }

    pub(super) fn set_policies(&self, applications: Vec<Application>) {
        *self.policies.lock().unwrap() = Arc::new(policies(applications));
    }

    /// From now on this credential is production's.
    pub(super) fn make_production(&self, text: &str) {
        let mut policies = self.policies.lock().unwrap();
        let document = Credential { environment: Environment::Production, ..credential(text) };
        Arc::make_mut(&mut policies).credentials.insert(name(text), Arc::new(document));
    }

    /// From now on each document has a previous version to verify with.
    pub(super) fn verify_with(&self, old: &str) {
        let fields = [("signing_secret".parse().unwrap(), Secret::from(old.to_owned()))].into_iter().collect();
        let valid_until = "2026-11-22T04:19:07Z".parse().unwrap();
        *self.previous.lock().unwrap() = Some(Arc::new(Previous { version: version(0), fields, valid_until }));
    }

    /// What it was asked since the last call.
    pub(super) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn note(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }
}

fn version(revision: u64) -> VersionId {
    format!("v{revision}").parse().unwrap()
}

struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Snapshots for Fake {
    async fn take(&self, actor: Actor) -> Result<std::fs::File, SnapshotError> {
        use std::io::{Seek, Write};
        self.note(format!("backup {actor:?}"));
        let mut file = tempfile::tempfile().map_err(|_| SnapshotError::Unavailable)?;
        file.write_all(&backup_bytes()).and_then(|()| file.rewind()).map_err(|_| SnapshotError::Unavailable)?;
        Ok(file)
    }
}

#[async_trait]
impl Rewraps for Fake {
    async fn begin(&self, actor: Actor, file: Option<std::path::PathBuf>) -> Result<RewrapView, RewrapRefusal> {
        self.note(format!("rewrap {actor:?} {file:?}"));
        match file.as_deref().and_then(|file| file.to_str()) {
            Some("/bad") => Err(RewrapRefusal::BadKey("the new key file `/bad` doesn't hold exactly 32 bytes".to_owned())),
            Some("/later") => Err(RewrapRefusal::NotNow("a rewrap is under way".to_owned())),
            Some("/away") => Err(RewrapRefusal::Unavailable("the disk is full".to_owned())),
            Some("/unheard") => Err(RewrapRefusal::AuditUnavailable),
            _ => Ok(RewrapView { state: RewrapState::UnderWay, rows_left: 7, ..RewrapView::default() }),
        }
    }

    async fn view(&self) -> Result<RewrapView, RewrapRefusal> {
        Ok(RewrapView::default())
    }
}

/// Longer than one chunk, and not a whole number of them.
pub(super) fn backup_bytes() -> Vec<u8> {
    b"0123456789".repeat(20_001)
}

#[async_trait]
impl Service for Fake {
    fn policies(&self) -> Arc<Policies> {
        self.policies.lock().unwrap().clone()
    }

    async fn read(&self, reader: &Reader, name: &Name) -> Result<Document, ReadError> {
        self.note(format!("read {name} {reader:?}"));
        if let Some(error) = *self.read.lock().unwrap() {
            return Err(error);
        }
        let policies = self.policies();
        let allowed = match reader {
            Reader::Application { application, .. } => may_read(&policies, &policies.applications[application], name),
            Reader::Operator { .. } => policies.credentials.contains_key(name),
        };
        let unexplained = matches!(reader, Reader::Operator { reason: None, .. });
        if unexplained && policies.credentials.get(name).is_some_and(|credential| needs_reason(credential.environment)) {
            return Err(ReadError::ReasonMissing);
        }
        if !allowed {
            return Err(ReadError::Forbidden);
        }
        let (revision, value) = self.served.lock().unwrap().get(name).cloned().ok_or(ReadError::NoVersion)?;
        let fields: Material = [("client_secret".parse().unwrap(), Secret::from(value))].into_iter().collect();
        Ok(Document {
            name: name.clone(),
            provider: super::fake::name("provider"),
            environment: Environment::Sandbox,
            version: version(revision),
            revision,
            issued_at: Timestamp::UNIX_EPOCH,
            stale: false,
            fields: Arc::new(fields),
            previous: self.previous.lock().unwrap().clone(),
        })
    }

    fn current(&self, _: &Reader, name: &Name) -> Option<(VersionId, u64)> {
        self.served.lock().unwrap().get(name).map(|(revision, _)| (version(*revision), *revision))
    }

    async fn list(&self, reader: &Reader) -> Vec<Listed> {
        self.note(format!("list {reader:?}"));
        vec![Listed { name: name("one"), environment: Environment::Sandbox, version: None, revision: 0 }]
    }

    fn touch(&self, application: &Name, instance: &InstanceName) {
        self.note(format!("touch {application} {instance}"));
    }

    fn open_stream(&self, _: &Name, _: &InstanceName) -> StreamGuard {
        self.streams.fetch_add(1, Ordering::SeqCst);
        Box::new(Guard(self.streams.clone()))
    }

    async fn confirm(&self, confirmation: &Confirmation) -> Result<(), ConfirmError> {
        self.note(format!("confirm {} {} {}", confirmation.application, confirmation.instance, confirmation.version));
        self.confirm.lock().unwrap().map_or(Ok(()), Err)
    }

    async fn report_failed(&self, report: &Report) -> Result<(), ReportError> {
        self.note(format!("report {} {} {}", report.application, report.instance, report.version));
        self.report.lock().unwrap().map_or(Ok(()), Err)
    }

    async fn release(&self, order: Order, application: &Name, instance: Option<&InstanceName>) -> Result<(), ReleaseError> {
        self.note(format!("release {application} {instance:?} {order:?}"));
        self.release.lock().unwrap().map_or(Ok(()), Err)
    }

    async fn submit(&self, actor: Actor, name: &Name, material: Material) -> Result<Submitted, SubmitError> {
        self.note(format!("submit {name} {} {actor:?}", material.len()));
        if let Some(error) = self.submit.lock().unwrap().clone() {
            return Err(error);
        }
        assert!(name.as_str() != "panics", "{}", CANARY);
        Ok(Submitted { name: name.clone(), version: version(1), proof: Proof { verdict: Verdict::Match, evidence: vec![] } })
    }

    async fn adopt(&self, actor: Actor, name: &Name, brought: Material) -> Result<Submitted, SubmitError> {
        self.note(format!("adopt {name}"));
        self.submit(actor, name, brought).await
    }

    async fn rotate(&self, order: Order, name: &Name) -> Result<OperationId, RotateError> {
        self.note(format!("rotate {name} {order:?}"));
        let id = OperationId::new(InstallationId(uuid::Uuid::nil()), name, 1, 1);
        self.rotate.lock().unwrap().map_or(Ok(id), Err)
    }

    async fn compromised(&self, order: Order, name: &Name, within: Duration) -> Result<OperationId, RotateError> {
        self.note(format!("compromised {name} {} {order:?}", within.as_secs()));
        let id = OperationId::new(InstallationId(uuid::Uuid::nil()), name, 1, 1);
        self.rotate.lock().unwrap().map_or(Ok(id), Err)
    }

    async fn roll_back(&self, order: Order, name: &Name) -> Result<RolledBack, RollbackError> {
        self.note(format!("rollback {name} {order:?}"));
        self.rollback.lock().unwrap().map_or(Ok(RolledBack { version: version(3), revision: 3 }), Err)
    }

    async fn revoke_version(&self, order: Order, name: &Name, version: &VersionId, force: bool) -> Result<(), RevokeError> {
        self.note(format!("revoke {name} {version} {force} {order:?}"));
        self.revoke.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    async fn forget(&self, order: Order, name: &Name, force: bool) -> Result<(), ForgetError> {
        self.note(format!("forget {name} {force} {order:?}"));
        self.forget.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    async fn pause(&self, order: Order, name: Option<&Name>) -> Result<(), PauseError> {
        self.note(format!("pause {name:?} {order:?}"));
        self.pause.lock().unwrap().map_or(Ok(()), Err)
    }

    async fn resume(&self, order: Order, name: Option<&Name>) -> Result<(), PauseError> {
        self.note(format!("resume {name:?} {order:?}"));
        self.pause.lock().unwrap().map_or(Ok(()), Err)
    }

    async fn launch(&self, application: &Name) -> Option<LaunchView> {
        self.note(format!("launch {application}"));
        let policies = self.policies();
        policies.applications.get(application).map(|it| LaunchView {
            application: it.name.clone(),
            environment: it.environment,
            ready: false,
            credentials: vec![],
            items: vec![],
        })
    }

    async fn confirm_item(&self, order: Order, application: &Name, item: &ItemId, by: &Signer) -> Result<(), LaunchError> {
        self.note(format!("sign off {application} {item} {by} {order:?}"));
        self.launch.lock().unwrap().map_or(Ok(()), Err)
    }

    async fn withdraw_item(&self, order: Order, application: &Name, item: &ItemId) -> Result<(), LaunchError> {
        self.note(format!("withdraw {application} {item} {order:?}"));
        self.launch.lock().unwrap().map_or(Ok(()), Err)
    }

    fn status(&self, name: Option<&Name>, after: Option<&Name>, limit: usize) -> Option<Status> {
        self.note(format!("status {name:?} {after:?} {limit}"));
        let known = name.is_none_or(|name| self.policies().credentials.contains_key(name));
        let store = StoreStatus { breaker: BreakerState::Closed, stale_for_seconds: None };
        let (deliveries, leadership) = (vec![], None);
        known.then(|| Status { credentials: vec![], problems: vec![], providers: vec![], store, deliveries, leadership, next: None })
    }

    fn plan(&self, days: u32, after: Option<&Name>, limit: usize) -> Plan {
        self.note(format!("plan {days} {after:?} {limit}"));
        Plan { plan: vec![], next: None, herds: vec![], uncounted: vec![] }
    }

    fn versions(&self, name: &Name) -> Option<Vec<VersionView>> {
        let view =
            |revision| VersionView { version: version(revision), stage: "current", issued_at: Timestamp::UNIX_EPOCH, revoked_at: None };
        self.policies().credentials.contains_key(name).then(|| (1..=3).map(view).collect())
    }
}
