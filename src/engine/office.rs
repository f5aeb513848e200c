//! Who leads: an engine is in office, with a term, or follows one that is.
//!
//! Whoever begins to lead begins a term and loads everything again, into new cells: what was under way in an earlier term of the same
//! process has an old cell and an old term, and its appends fail as anybody's would.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use schemars::JsonSchema;
use serde::Serialize;

use super::Engine;
use super::cell::Cell;
use super::errors::StartError;
use super::start::load_cells;
use crate::delivery::Change;
use crate::domain::ids::Name;
use crate::journal::Cursor;

/// What an office rests on: asked before each step, so that a process that was stopped for a while knows before it acts.
pub trait Mandate: Send + Sync {
    /// Whether it still holds, by a clock that goes on while a process is stopped.
    fn holds(&self) -> bool;
}

/// How this process stands to the others, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LeadershipStatus {
    pub leads: bool,
    /// The name of the replica that leads, as far as this one knows.
    pub leader: Option<String>,
    /// Of the replica that answers, while it leads.
    pub term: Option<u64>,
}

#[derive(Default)]
pub(super) struct Office {
    /// 0 while it follows: a term that no journal takes an append of.
    term: AtomicU64,
    mandate: RwLock<Option<Arc<dyn Mandate>>>,
    leader: RwLock<Option<String>>,
}

impl fmt::Debug for Office {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Office").field("term", &self.term).finish_non_exhaustive()
    }
}

impl Office {
    /// Of one process, which always leads.
    pub(super) fn for_ever(term: u64) -> Office {
        Office { term: AtomicU64::new(term), ..Office::default() }
    }

    pub(super) fn term(&self) -> u64 {
        self.term.load(Ordering::SeqCst)
    }

    /// Whether it may act now.
    pub(super) fn is_held(&self) -> bool {
        let mandate = self.mandate.read().unwrap_or_else(PoisonError::into_inner);
        self.term() != 0 && mandate.as_ref().is_none_or(|mandate| mandate.holds())
    }
}

impl Engine {
    /// 0 while it follows.
    pub(super) fn term(&self) -> u64 {
        self.office.term()
    }

    /// Whether this process may act now. One that doesn't share its journal always may.
    pub fn leads(&self) -> bool {
        self.office.is_held()
    }

    /// Who leads, where there are several replicas.
    pub fn leadership(&self) -> Option<LeadershipStatus> {
        let roll = self.roll.as_ref()?;
        let leads = self.leads();
        let known = self.office.leader.read().unwrap_or_else(PoisonError::into_inner).clone();
        let leader = if leads { Some(roll.me().to_string()) } else { known };
        Some(LeadershipStatus { leads, leader, term: Some(self.term()).filter(|_| leads) })
    }

    /// Who leads, by what others say: for answers to those who ask here.
    pub fn set_leader(&self, leader: Option<String>) {
        *self.office.leader.write().unwrap_or_else(PoisonError::into_inner) = leader;
    }

    /// Begins a term, loads everything again, and takes up open rotations where they stood; the loop ([`Engine::run`]) is the caller's
    /// to start. Leases begin anew.
    ///
    /// # Errors
    /// [`StartError`]: it goes on following. A term may have begun all the same, which harms nobody.
    pub async fn take_office(&self, mandate: Arc<dyn Mandate>) -> Result<u64, StartError> {
        let term = self.seams.journal.begin_term().await?;
        let loaded = load_cells(self.seams.journal.as_ref(), term).await?;
        self.load_general().await?;
        self.look_at_rows().await?;
        let running = self.seams.clock.now().running;
        if let Some(roll) = &self.roll {
            roll.begin_anew(running);
        }
        self.look_at_rows().await?;
        self.book.begin_leases_anew(running);
        *self.office.mandate.write().unwrap_or_else(PoisonError::into_inner) = Some(mandate);
        self.renew_cells(term, loaded);
        self.adopt_policies();
        self.announce_all();
        tracing::info!(term, "this replica leads");
        Ok(term)
    }

    /// Acts no more, and goes on serving as a follower. Steps under way keep their old cells, and can't append.
    pub fn leave_office(&self) {
        if self.term() == 0 {
            return;
        }
        self.renew_cells(0, BTreeMap::new());
        // What came while we led, or believed so, is loaded again.
        self.follow_from(Cursor::default());
        tracing::info!("this replica doesn't lead any more");
    }

    /// New cells, and the term with them: nobody finds a cell of another term. What isn't loaded stays as it was known.
    fn renew_cells(&self, term: u64, mut loaded: BTreeMap<Name, Arc<Cell>>) {
        let mut cells = self.cells.write().unwrap_or_else(PoisonError::into_inner);
        for (name, old) in cells.iter() {
            let new = loaded.entry(name.clone()).or_insert_with(|| Arc::new(old.as_known(term)));
            new.inherit(old);
        }
        *cells = loaded;
        self.office.term.store(term, Ordering::SeqCst);
    }

    pub(super) fn announce_all(&self) {
        for cell in self.all_cells() {
            self.seams.delivery.announce(Change::Credential { name: cell.name.clone(), revision: cell.ledger().revision });
        }
    }
}
