//! Every call of every seam is a numbered point, reads too, at which something can be made to go wrong.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use keywright::domain::delivery::Way;
use keywright::domain::dispatch::Dispatch;
use keywright::domain::ids::{InstallationId, Name, VersionId};
use keywright::domain::launch::Launch;
use keywright::domain::rotation::Event;
use keywright::engine::audit::{Action, Audit, AuditError};
use keywright::faults::{Fault, Faults, Point, When};
use keywright::issuers::memory::FaultAction;
use keywright::journal::{
    Changes, Cursor, Heartbeat, History, HoldingChange, Holdings, Journal, JournalError, Pause, Position, SealedCopy, append_point,
};
use keywright::stores::{Append, Promoter, Promotion, PromotionError, SecretStore, Slot, Stages, StoreError, VersionBytes};

/// What happens at one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// The process dies there.
    Stop(When),
    /// It can't be reached, before or after its effect.
    Error(When),
    /// It answers another error of its seam.
    Other,
    /// It panics, with a secret in its message.
    Panic,
}

impl Blow {
    /// The audit trail has one error only.
    pub fn strikes(self, point: &str) -> bool {
        self != Blow::Other || !point.starts_with("audit.")
    }
}

/// How a call ends that was struck before its effect.
enum Struck {
    Unreachable,
    Other,
}

/// The points of one life; clones are the same points.
#[derive(Clone)]
pub struct Calls {
    pub faults: Faults,
    blow: Arc<Mutex<Option<Blow>>>,
    /// What a panic says.
    secret: Arc<str>,
}

impl Calls {
    pub fn new(faults: Faults, secret: &str) -> Calls {
        Calls { faults, blow: Arc::default(), secret: secret.into() }
    }

    pub fn arm(&self, point: usize, blow: Blow) {
        *self.blow.lock().unwrap() = Some(blow);
        match blow {
            Blow::Stop(when) => self.faults.crash_at(point, when),
            Blow::Error(when) => self.faults.arm(point, when),
            Blow::Other | Blow::Panic => self.faults.arm(point, When::Before),
        }
    }

    fn struck(&self, point: &Point) -> Option<Struck> {
        point.before().err()?;
        let blow = *self.blow.lock().unwrap();
        match blow {
            Some(Blow::Panic) => panic!("{}", self.secret),
            Some(Blow::Other) => Some(Struck::Other),
            _ => Some(Struck::Unreachable),
        }
    }

    /// For the provider in memory, which asks at each of its calls.
    pub fn at_the_provider(&self, name: &'static str) -> FaultAction {
        let point = self.faults.point(name);
        match self.struck(&point) {
            Some(Struck::Unreachable) => FaultAction::Unreachable,
            // What each call is likeliest to be refused with.
            Some(Struck::Other) if matches!(name, "issuer.list" | "issuer.revoke") => FaultAction::Unauthenticated,
            Some(Struck::Other) => FaultAction::Refuse(500),
            None if point.after().is_err() => FaultAction::LoseReply,
            None => FaultAction::Proceed,
        }
    }
}

/// A seam, all of whose calls are points.
pub struct Watched<S: ?Sized> {
    pub inner: Arc<S>,
    pub calls: Calls,
}

/// One call: `$other` is the error of [`Blow::Other`].
macro_rules! pass {
    ($self:ident, $name:expr, $other:expr, $call:expr) => {{
        let point = $self.calls.faults.point($name);
        match $self.calls.struck(&point) {
            Some(Struck::Unreachable) => return Err(Fault.into()),
            Some(Struck::Other) => return Err($other),
            None => {}
        }
        let outcome = $call.await;
        point.after()?;
        outcome
    }};
}

#[async_trait]
impl SecretStore for Watched<dyn SecretStore> {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        pass!(self, "store.stages", store_damaged(slot), self.inner.stages(slot))
    }

    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
        let other = || StoreError::DifferentValue { credential: slot.credential.clone(), version: version.clone() };
        pass!(self, "store.put_pending", other(), self.inner.put_pending(slot, version, bytes))
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        pass!(self, "store.read", store_damaged(slot), self.inner.read(slot, version))
    }

    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
        let other = || StoreError::CurrentChanged { credential: slot.credential.clone(), version: version.clone() };
        pass!(self, "store.promote", other(), self.inner.promote(slot, version, replacing))
    }

    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        let other = || StoreError::IsCurrent { credential: slot.credential.clone(), version: version.clone() };
        pass!(self, "store.forget", other(), self.inner.forget(slot, version))
    }

    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        pass!(self, "store.clear", store_damaged(slot), self.inner.clear(slot, versions))
    }

    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        pass!(self, "store.list", StoreError::Unavailable("another reason"), self.inner.list(after, limit))
    }
}

#[async_trait]
impl Promoter for Watched<dyn Promoter> {
    async fn promote_with(&self, promotion: Promotion<'_>, append: Append<'_>) -> Result<Position, PromotionError> {
        let (credential, version) = (promotion.slot.credential.clone(), promotion.version.clone());
        let other = PromotionError::Store(StoreError::CurrentChanged { credential, version });
        pass!(self, "store.promote with its event", other, self.inner.promote_with(promotion, append))
    }
}

fn store_damaged(slot: &Slot) -> StoreError {
    StoreError::Damaged { credential: slot.credential.clone() }
}

const JOURNAL_DAMAGED: JournalError = JournalError::Damaged("on purpose");

#[async_trait]
impl Journal for Watched<dyn Journal> {
    async fn installation(&self) -> Result<InstallationId, JournalError> {
        pass!(self, "journal.installation", JOURNAL_DAMAGED, self.inner.installation())
    }

    async fn begin_term(&self) -> Result<u64, JournalError> {
        pass!(self, "journal.begin_term", JOURNAL_DAMAGED, self.inner.begin_term())
    }

    async fn credentials(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, JournalError> {
        pass!(self, "journal.credentials", JOURNAL_DAMAGED, self.inner.credentials(after, limit))
    }

    async fn load(&self, credential: &Name) -> Result<History, JournalError> {
        pass!(self, "journal.load", JOURNAL_DAMAGED, self.inner.load(credential))
    }

    async fn append(
        &self,
        credential: &Name,
        expected: Position,
        term: u64,
        event: &Event,
        sealed: SealedCopy,
    ) -> Result<Position, JournalError> {
        let other = || JournalError::Conflict { credential: credential.clone() };
        pass!(self, append_point(event), other(), self.inner.append(credential, expected, term, event, sealed))
    }

    async fn compact(&self, credential: &Name, expected: Position, term: u64, snapshot: &Event) -> Result<Position, JournalError> {
        let other = || JournalError::Conflict { credential: credential.clone() };
        pass!(self, "journal.compact", other(), self.inner.compact(credential, expected, term, snapshot))
    }

    async fn holdings(&self) -> Result<Holdings, JournalError> {
        pass!(self, "journal.holdings", JOURNAL_DAMAGED, self.inner.holdings())
    }

    async fn write_holdings(&self, term: u64, changes: &[HoldingChange]) -> Result<(), JournalError> {
        pass!(self, "journal.write_holdings", JOURNAL_DAMAGED, self.inner.write_holdings(term, changes))
    }

    async fn heartbeat(&self) -> Result<Heartbeat, JournalError> {
        pass!(self, "journal.heartbeat", JOURNAL_DAMAGED, self.inner.heartbeat())
    }

    async fn write_heartbeat(&self, term: u64, heartbeat: Heartbeat) -> Result<(), JournalError> {
        pass!(self, "journal.write_heartbeat", JOURNAL_DAMAGED, self.inner.write_heartbeat(term, heartbeat))
    }

    async fn pause(&self) -> Result<Option<Pause>, JournalError> {
        pass!(self, "journal.pause", JOURNAL_DAMAGED, self.inner.pause())
    }

    async fn write_pause(&self, term: u64, pause: Option<Pause>) -> Result<(), JournalError> {
        pass!(self, "journal.write_pause", JOURNAL_DAMAGED, self.inner.write_pause(term, pause))
    }

    async fn launches(&self) -> Result<Vec<(Name, Launch)>, JournalError> {
        pass!(self, "journal.launches", JOURNAL_DAMAGED, self.inner.launches())
    }

    async fn write_launch(&self, term: u64, application: &Name, launch: &Launch) -> Result<(), JournalError> {
        pass!(self, "journal.write_launch", JOURNAL_DAMAGED, self.inner.write_launch(term, application, launch))
    }

    async fn dispatches(&self) -> Result<Vec<((Name, Way), Dispatch)>, JournalError> {
        pass!(self, "journal.dispatches", JOURNAL_DAMAGED, self.inner.dispatches())
    }

    async fn write_dispatch(&self, term: u64, application: &Name, way: Way, dispatch: &Dispatch) -> Result<(), JournalError> {
        pass!(self, "journal.write_dispatch", JOURNAL_DAMAGED, self.inner.write_dispatch(term, application, way, dispatch))
    }

    async fn changes(&self, since: &Cursor, wait: Duration) -> Result<Changes, JournalError> {
        pass!(self, "journal.changes", JOURNAL_DAMAGED, self.inner.changes(since, wait))
    }
}

#[async_trait]
impl Audit for Watched<dyn Audit> {
    async fn record(&self, at: Timestamp, action: Action) -> Result<(), AuditError> {
        let point = self.calls.faults.point("audit.record");
        if self.calls.struck(&point).is_some() {
            return Err(AuditError);
        }
        let outcome = self.inner.record(at, action).await;
        point.after().map_err(|_| AuditError)?;
        outcome
    }

    fn repeated(&self, action: Action) {
        self.inner.repeated(action);
    }
}
