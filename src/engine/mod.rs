//! Gathers facts, asks the domain what is next, performs it through the seams, and journals it.
//!
//! **Architecture invariant:** sees traits only; no adapter is named here. What is decided is decided in `domain`.

mod administrator;
mod agenda;
mod attend;
pub mod audit;
mod backoff;
mod book;
mod cell;
pub mod clock;
mod confirm;
mod deliveries;
mod dispatches;
mod drift;
mod drive;
pub mod errors;
mod follow;
mod foreign;
mod forget;
mod gather;
mod health;
mod hindrance;
mod holdings;
mod incident;
mod launch;
pub mod launch_view;
mod manual;
mod material;
pub mod meter;
pub mod office;
mod pause;
mod perform;
mod plan;
mod pods;
mod reads;
mod reconcile;
mod restored;
mod roll;
mod rollout;
mod secondary;
mod slots;
mod start;
mod status;
mod submit;
mod successor;
mod taken_up;
#[cfg(test)]
mod tests;
mod turns;
mod verify;
pub mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;

use crate::delivery::{Change, Delivery};
use crate::domain::credential::Environment;
use crate::domain::delivery::Way;
use crate::domain::due::DueReason;
use crate::domain::ids::{InstallationId, InstanceName, Name, OperationId, VersionId};
use crate::domain::launch::Launch;
use crate::domain::ledger::Ledger;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::policy::{Application, Policies, Uptake};
use crate::domain::reason::Reason;
use crate::domain::workload::Workload;
use crate::issuers::Issuer;
use crate::journal::{Journal, Pause};
use crate::replicas::Rows;
use crate::sealing::Keyring;
use crate::stores::{Promoter, SecretStore};

use audit::{Action, Actor, Audit, Order};
use book::Book;
use cell::Cell;
use clock::Clock;
use errors::RotateError;
use follow::Followed;
use gather::{Context, Documents};
use meter::Meter;
use office::Office;
use roll::Roll;
use views::DeliveryStatus;

pub use deliveries::{Reference, Withheld};
use dispatches::Dispatches;
pub use holdings::StreamGuard;
pub use pods::BoundPod;
pub use status::VersionView;

/// Who reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reader {
    Application {
        application: Name,
        instance: InstanceName,
        /// The pod that it is, where its token shows one.
        pod: Option<Workload>,
    },
    /// A person with the right to read. Persons hold nothing; a production credential is read for a reason.
    Operator { who: String, reason: Option<Reason> },
}

impl Reader {
    fn actor(&self) -> Actor {
        match self {
            Reader::Application { application, instance, .. } => {
                Actor::Application { name: application.to_string(), instance: instance.to_string() }
            }
            Reader::Operator { who, .. } => Actor::Operator { who: who.clone() },
        }
    }

    /// Persons are no instance of anything.
    fn instance(&self) -> Option<(&Name, &InstanceName)> {
        match self {
            Reader::Application { application, instance, .. } => Some((application, instance)),
            Reader::Operator { .. } => None,
        }
    }

    /// What the record of a disclosure says beside who it was: the pod, the reason.
    fn remarks(&self) -> Option<String> {
        match self {
            Reader::Application { pod, .. } => pod.as_ref().map(Workload::to_string),
            Reader::Operator { reason, .. } => reason.as_ref().map(|reason| format!("reason: {reason}")),
        }
    }
}

/// Everything outside that the engine works through.
pub struct Seams {
    pub store: Arc<dyn SecretStore>,
    pub journal: Arc<dyn Journal>,
    /// Of this store and this journal.
    pub promoter: Arc<dyn Promoter>,
    pub issuer: Arc<dyn Issuer>,
    pub audit: Arc<dyn Audit>,
    pub clock: Arc<dyn Clock>,
    pub delivery: Arc<dyn Delivery>,
    pub meter: Arc<dyn Meter>,
    pub keyring: Arc<Keyring>,
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seams(..)")
    }
}

/// What the configuration says to the engine.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where a provider's environments really are, where that isn't as described.
    pub base_urls: BTreeMap<Name, BTreeMap<Environment, String>>,
    /// How long a replica serves what it has while it hears nothing of the journal [half of the shortest overlap, an hour at most].
    pub max_stale: Option<Duration>,
}

/// One of several processes on the same journal.
pub struct Replica {
    /// A name that no other process ever had.
    pub name: Name,
    pub rows: Arc<dyn Rows>,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The engine of one process. Always behind an `Arc`.
pub struct Engine {
    seams: Seams,
    options: Options,
    installation: InstallationId,
    /// What it was called before it was restored from backups.
    former: Vec<InstallationId>,
    office: Office,
    /// Where there are several replicas: what this one says, and what the others do.
    roll: Option<Roll>,
    followed: Mutex<Followed>,
    documents: RwLock<Arc<Documents>>,
    cells: RwLock<BTreeMap<Name, Arc<Cell>>>,
    book: Book,
    /// Minting, slots and orphan search are serialised per account.
    accounts: Mutex<BTreeMap<Name, Arc<tokio::sync::Mutex<()>>>>,
    /// Held from the last look at the fingerprints until they are journaled, so that two can't bring the same value past them.
    submissions: tokio::sync::Mutex<()>,
    problems: Mutex<BTreeMap<&'static str, String>>,
    /// Credentials to look at now, whatever the schedule says.
    looks: Mutex<BTreeSet<Name>>,
    wake: Notify,
    /// Running time of the next heartbeat.
    beat_at: Mutex<Duration>,
    /// Everything is paused, as the journal says too.
    all_paused: RwLock<Option<Pause>>,
    /// What was signed off of each application's going-live list, and what is live, as the journal says too.
    launches: RwLock<BTreeMap<Name, Launch>>,
    /// Held while one of them changes.
    launching: tokio::sync::Mutex<()>,
    /// How the ways of delivery beside the stream stand; in memory, because each start looks at every target anew.
    deliveries: Mutex<BTreeMap<(Name, Way), DeliveryStatus>>,
    /// What couriers have to remember, as the journal says too.
    dispatches: Mutex<Dispatches>,
    /// Held while they are read again.
    recalling: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("installation", &self.installation).field("term", &self.term()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Which installation leads, in which term.
    pub fn leading(&self) -> (InstallationId, u64) {
        (self.installation, self.term())
    }

    pub fn policies(&self) -> Arc<Policies> {
        self.documents().policies.clone()
    }

    fn documents(&self) -> Arc<Documents> {
        self.documents.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over policies that were read again. Open rotations keep their terms, save for safer ones.
    pub async fn set_policies(&self, policies: Policies) {
        let detail = Some(format!("digest {}", policies.digest));
        let action = Action { actor: Actor::Daemon, action: "policies-loaded".to_owned(), credential: None, version: None, detail };
        // A reload that can't be audited isn't applied: the last good policies stay in force.
        if self.seams.audit.record(self.seams.clock.now().wall, action).await.is_err() {
            self.set_problem("audit-unavailable", Some("new policies wait until the audit trail can be written".to_owned()));
            return;
        }
        self.set_problem("audit-unavailable", None);
        *self.documents.write().unwrap_or_else(PoisonError::into_inner) = Documents::of(policies);
        self.adopt_policies();
        self.seams.delivery.announce(Change::Policies);
        let names: Vec<Name> = self.all_cells().iter().map(|cell| cell.name.clone()).collect();
        names.iter().for_each(|name| self.look_at(name));
    }

    /// Cells for new documents, leases for known instances.
    fn adopt_policies(&self) {
        let policies = self.policies();
        let mut cells = self.cells.write().unwrap_or_else(PoisonError::into_inner);
        for name in policies.credentials.keys() {
            cells.entry(name.clone()).or_insert_with(|| Arc::new(Cell::empty(name.clone(), self.term())));
        }
        drop(cells);
        for application in policies.applications.values() {
            self.book.set_lease(&application.name, lease_of(application, &policies));
        }
        self.adopt_deliveries(&policies);
    }

    /// A problem of the daemon itself, shown in `status` until it is cleared with `None`.
    pub fn set_problem(&self, code: &'static str, message: Option<String>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            Some(message) => drop(problems.insert(code, message)),
            None => drop(problems.remove(code)),
        }
    }

    fn cell(&self, name: &Name) -> Option<Arc<Cell>> {
        self.cells.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn all_cells(&self) -> Vec<Arc<Cell>> {
        self.cells.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// At most so many, by name: a page costs what is on it, wherever it begins.
    fn cells_after(&self, after: Option<&Name>, limit: usize) -> Vec<Arc<Cell>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        cells.range::<Name, _>((from, Bound::Unbounded)).take(limit).map(|(_, cell)| cell.clone()).collect()
    }

    fn account(&self, name: &Name) -> Arc<tokio::sync::Mutex<()>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default().clone()
    }

    async fn audit(
        &self,
        actor: Actor,
        action: &str,
        credential: &Name,
        version: Option<String>,
        detail: Option<String>,
    ) -> Result<(), audit::AuditError> {
        if is_on(Mutant::AuditSkipped) {
            return Ok(());
        }
        let action = Action { actor, action: action.to_owned(), credential: Some(credential.to_string()), version, detail };
        self.seams.audit.record(self.seams.clock.now().wall, action).await
    }

    /// Records a person's order, before anything of it is done.
    async fn record(
        &self,
        order: Order,
        action: &str,
        credential: Option<&Name>,
        version: Option<&VersionId>,
        detail: Option<&str>,
    ) -> Result<(), audit::AuditError> {
        if is_on(Mutant::AuditSkipped) {
            return Ok(());
        }
        let action = order.action(action, credential, version, detail);
        self.seams.audit.record(self.seams.clock.now().wall, action).await
    }

    /// Rotates now, spread and schedule aside; windows still bind.
    ///
    /// # Errors
    /// [`RotateError`] if one is open, or none can begin.
    pub async fn rotate(&self, order: Order, name: &Name) -> Result<OperationId, RotateError> {
        let (Some(cell), Some(context)) = (self.cell(name), self.context(name)) else { return Err(RotateError::UnknownCredential) };
        self.may_rotate(&cell.ledger(), &context)?;
        self.record(order, "rotation-requested", Some(name), None, None).await.map_err(|_| RotateError::AuditUnavailable)?;
        // Planned here, so that the answer is durable; the steps follow in the loop.
        let mut work = cell.work.lock().await;
        self.may_rotate(&cell.ledger(), &context)?;
        let planned = if context.provider.is_manual() {
            self.ask_for_new_key(&cell, &mut work, &context, DueReason::Requested).await
        } else {
            self.plan_rotation(&cell, &mut work, &context, "requested").await
        };
        let operation = planned.map_err(|hindrance| match hindrance.trouble.code {
            "audit-unavailable" => RotateError::AuditUnavailable,
            _ => RotateError::StoreUnavailable,
        })?;
        work.backoff.succeeded();
        drop(work);
        self.look_at(name);
        Ok(operation)
    }

    fn may_rotate(&self, ledger: &Ledger, context: &Context) -> Result<(), RotateError> {
        let is_open = ledger.rotation.as_ref().is_some_and(|open| !open.awaits_removal());
        match ledger {
            _ if is_open => Err(RotateError::RotationOpen),
            ledger if ledger.current.is_none() => Err(RotateError::NoVersion),
            ledger if ledger.refused_since.is_some() => Err(RotateError::CurrentRefused),
            ledger if ledger.paused || self.all_paused().is_some() => Err(RotateError::Paused),
            _ if context.provider.is_manual() && !context.provider.retired => Ok(()),
            _ if !context.provider.can_issue() => Err(RotateError::CannotMint),
            _ => Ok(()),
        }
    }
}

/// The lease of an application's instances: the document's, else `min(15 min, overlap)` for streams, else none.
fn lease_of(application: &Application, policies: &Policies) -> Option<Duration> {
    if let Some(lease) = application.lease {
        return Some(lease.as_duration());
    }
    if application.uptake == Uptake::Start {
        return None;
    }
    let listed = application.credentials.iter().filter_map(|name| policies.credentials.get(name));
    let overlaps = listed.filter_map(|credential| policies.rotation_of(credential)).map(|policy| policy.terms.overlap.as_duration());
    Some(overlaps.min().unwrap_or(Duration::MAX).min(Duration::from_secs(900)))
}
