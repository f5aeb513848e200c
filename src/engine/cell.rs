//! The state of one credential in memory: its ledger, what is served, and what only the driving task may touch.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use jiff::Timestamp;

use super::backoff::Backoff;
use super::drift::Drift;
use super::errors::ReadError;
use super::foreign::ChangeTried;
use super::turns::Turns;
use super::views::Previous;
use crate::domain::ids::{KeyId, Name, VersionId};
use crate::domain::ledger::Ledger;
use crate::domain::material::Material;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::rollout::{View, under_way};
use crate::journal::{JournalError, Position};
use crate::sealing::Sealed;
use crate::stores::Mark;

/// One credential.
pub(super) struct Cell {
    pub(super) name: Name,
    ledger: RwLock<Arc<Ledger>>,
    served: RwLock<Option<Arc<Served>>>,
    /// The version before, as those get it who wait for a new one that is rolled out.
    waiting: RwLock<Option<Arc<Served>>>,
    /// Held by whoever drives the rotation: one at a time.
    pub(super) work: tokio::sync::Mutex<Work>,
    /// The old version that was said in the log to be overdue: once each, not at every look.
    overdue_told: Mutex<Option<VersionId>>,
    /// Living keys with the marker of a former installation, as last listed: for a person to look at.
    former_keys: Mutex<Vec<KeyId>>,
    /// What last went wrong, for `status`; constant words, nothing of a reply.
    trouble: Mutex<Option<Trouble>>,
    /// How the store was last found to differ from the journal.
    drift: Mutex<Option<Drift>>,
    /// A read met other bytes than were stored: the store is to be looked at.
    suspected: AtomicBool,
    /// What the store told last of the value that native readers have.
    told: Mutex<Told>,
    /// What somebody else made current in the store, and why it isn't taken up.
    refused: Mutex<Option<(VersionId, String)>>,
    /// Readings of its journal that several share.
    pub(super) readings: Turns<Result<Arc<Ledger>, JournalError>>,
    /// Readings of the store that several share.
    pub(super) loads: Turns<Shared>,
}

/// One reading of the store, as those see it who share it. It keeps no secret alive.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) of: Wanted,
    /// As [`Loaded`], for as long as somebody else has it.
    pub(super) outcome: Result<(Weak<Served>, bool), ReadError>,
}

/// What a reading of the store is to find: who wants something else can't take it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) version: VersionId,
    pub(super) revision: u64,
    /// By which documents it is judged: see `Context::documents_id`.
    pub(super) documents: usize,
}

/// What is served, and whether the store was away when it was looked at.
pub(super) type Loaded = (Arc<Served>, bool);

/// The store's mark of the value that native readers have.
#[derive(Default)]
struct Told {
    /// It was asked since the start.
    is_known: bool,
    mark: Option<Mark>,
    /// Running time at which it was last told.
    at: Option<Duration>,
}

/// A version as applications get it.
pub(super) struct Served {
    pub(super) version: VersionId,
    pub(super) revision: u64,
    pub(super) issued_at: Timestamp,
    /// Served fields only.
    pub(super) fields: Arc<Material>,
    pub(super) previous: Option<Arc<Previous>>,
}

/// Belongs to the driving task.
#[derive(Default)]
pub(super) struct Work {
    /// In which it was loaded, and in which it appends; 0 for what is only followed.
    pub(super) term: u64,
    pub(super) position: Position,
    /// Events since the last snapshot.
    pub(super) events: usize,
    pub(super) sealed: Option<Sealed>,
    /// The open create intent was written by this task, and the create certainly had no effect yet.
    pub(super) create_unsent: bool,
    /// The provider's keys as last listed, if that was after the last create of unknown outcome.
    pub(super) seen: Option<BTreeSet<KeyId>>,
    /// How many of them lived. Old with [`Work::seen`].
    pub(super) living: Option<usize>,
    pub(super) backoff: Backoff,
    /// Refusals of the current version in a row, and the running time of the first.
    pub(super) current_refusals: u32,
    pub(super) current_refused_first: Option<Duration>,
    /// Running times of the last search for orphans and of the last look at the current key.
    pub(super) swept_at: Option<Duration>,
    pub(super) checked_at: Option<Duration>,
    /// Of the last look at the store, and at a key that a person is to remove.
    pub(super) store_looked_at: Option<Duration>,
    pub(super) removal_looked_at: Option<Duration>,
    pub(super) change_tried: ChangeTried,
    pub(super) upkeep_backoff: Backoff,
    /// What is asked of the provider is a routine look: rotations come first.
    pub(super) routine: bool,
    /// Signs in the place of the current version while a submission replaces one that the provider refuses.
    pub(super) stand_in: Option<Material>,
}

impl Work {
    pub(super) fn current_accepted(&mut self) {
        self.current_refusals = 0;
        self.current_refused_first = None;
    }

    /// Counts a refusal of the current version. True once it is to be believed: seen several times, over at least the time in
    /// which the provider's replicas may differ.
    pub(super) fn current_refused(&mut self, running: Duration, replicas_differ: Duration) -> bool {
        let first = *self.current_refused_first.get_or_insert(running);
        self.current_refusals += 1;
        let believed = self.current_refusals >= CURRENT_REFUSALS_MIN && running.saturating_sub(first) >= replicas_differ;
        if believed {
            self.current_accepted();
        }
        believed
    }
}

/// How often in a row the current version is refused before that is believed.
const CURRENT_REFUSALS_MIN: u32 = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// `provider-throttled`, `store-unavailable`, …
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Cell {
    pub(super) fn empty(name: Name, term: u64) -> Cell {
        Cell::new(name, Ledger::default(), Work { term, ..Work::default() })
    }

    /// The same credential as it is known now, in another term. Where the journal has come isn't known any more.
    pub(super) fn as_known(&self, term: u64) -> Cell {
        let ledger = (*self.ledger()).clone();
        Cell::new(self.name.clone(), ledger, Work { term, ..Work::default() })
    }

    /// Takes over what is served, and what was told, from the cell of another term.
    pub(super) fn inherit(&self, old: &Cell) {
        for (place, other) in [(&self.served, &old.served), (&self.waiting, &old.waiting)] {
            let served = other.read().unwrap_or_else(PoisonError::into_inner).clone();
            *place.write().unwrap_or_else(PoisonError::into_inner) = served;
        }
        let told = old.overdue_told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        *self.overdue_told.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }

    pub(super) fn new(name: Name, ledger: Ledger, work: Work) -> Cell {
        Cell {
            name,
            ledger: RwLock::new(Arc::new(ledger)),
            served: RwLock::new(None),
            waiting: RwLock::new(None),
            work: tokio::sync::Mutex::new(work),
            overdue_told: Mutex::new(None),
            former_keys: Mutex::default(),
            trouble: Mutex::new(None),
            drift: Mutex::new(None),
            suspected: AtomicBool::new(false),
            told: Mutex::default(),
            refused: Mutex::default(),
            readings: Turns::default(),
            loads: Turns::default(),
        }
    }

    pub(super) fn ledger(&self) -> Arc<Ledger> {
        self.ledger.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_ledger(&self, ledger: Ledger) {
        if under_way(&ledger).is_none() {
            *self.waiting.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        *self.ledger.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ledger);
    }

    /// What is served of this version in this revision, if it is in memory.
    pub(super) fn served(&self, view: View<'_>) -> Option<Arc<Served>> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner).clone();
        if is_on(Mutant::OldValueServed) && served.is_some() {
            return served;
        }
        let waiting = || self.waiting.read().unwrap_or_else(PoisonError::into_inner).clone();
        let fits = |served: &Arc<Served>| served.version == *view.version && served.revision == view.revision;
        served.filter(fits).or_else(|| waiting().filter(fits))
    }

    /// The same for who names the version.
    pub(super) fn served_as(&self, version: &VersionId) -> Option<Arc<Served>> {
        let ledger = self.ledger();
        let waiting = under_way(&ledger).map(|(rollout, old)| View { version: old, revision: rollout.revision });
        let current = ledger.current.as_ref().map(|current| View { version: current, revision: ledger.revision });
        self.served([waiting, current].into_iter().flatten().find(|view| view.version == version)?)
            .filter(|served| served.version == *version)
    }

    /// Keeps what was read of the version that is current by this ledger, or of the one before.
    pub(super) fn set_served(&self, ledger: &Ledger, served: Arc<Served>) {
        let place = if ledger.current.as_ref() == Some(&served.version) { &self.served } else { &self.waiting };
        *place.write().unwrap_or_else(PoisonError::into_inner) = Some(served);
    }

    /// True the first time that this old version is found overdue.
    pub(super) fn is_news_that_overdue(&self, old: &VersionId) -> bool {
        let mut told = self.overdue_told.lock().unwrap_or_else(PoisonError::into_inner);
        told.replace(old.clone()).as_ref() != Some(old)
    }

    /// Nothing is served any more.
    pub(super) fn drop_served(&self) {
        for place in [&self.served, &self.waiting] {
            *place.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    pub(super) fn former_keys(&self) -> Vec<KeyId> {
        self.former_keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_former_keys(&self, keys: Vec<KeyId>) {
        *self.former_keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    pub(super) fn drift(&self) -> Option<Drift> {
        self.drift.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_drift(&self, drift: Option<Drift>) {
        *self.drift.lock().unwrap_or_else(PoisonError::into_inner) = drift;
    }

    pub(super) fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Relaxed)
    }

    pub(super) fn suspect(&self, suspected: bool) {
        self.suspected.store(suspected, Ordering::Relaxed);
    }

    /// Takes note of a mark; true if it isn't the one that was known.
    pub(super) fn tell(&self, mark: Option<Mark>, running: Duration) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = !told.is_known || told.mark != mark;
        // Of a place without a mark nothing was told.
        *told = Told { is_known: true, at: mark.is_some().then_some(running), mark };
        is_news
    }

    /// Running time at which a mark was last told. With a newer one the store would have been looked at.
    pub(super) fn told_at(&self) -> Option<Duration> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).at
    }

    /// What somebody else made current in the store.
    pub(super) fn foreign(&self) -> Option<VersionId> {
        match self.drift() {
            Some(Drift::OtherCurrent(foreign)) => foreign,
            _ => None,
        }
    }

    /// Why that isn't taken up, as far as it was looked at.
    pub(super) fn refusal(&self) -> Option<String> {
        let foreign = self.foreign()?;
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        refused.filter(|(version, _)| *version == foreign).map(|(_, why)| why)
    }

    pub(super) fn set_refusal(&self, version: VersionId, why: String) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, why));
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_trouble(&self, trouble: Option<Trouble>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}
