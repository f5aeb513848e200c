//! Start: loads the journals, adds them up, and begins a term, or follows who has one. Nothing is performed yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::Notify;

use super::book::Book;
use super::cell::{Cell, Work};
use super::errors::StartError;
use super::gather::Documents;
use super::office::Office;
use super::roll::Roll;
use super::{Engine, Options, Replica, Seams};
use crate::domain::ids::{InstallationId, Name};
use crate::domain::ledger::Ledger;
use crate::domain::policy::Policies;
use crate::domain::rotation::{IllegalEvent, apply};
use crate::journal::{Cursor, History, Holdings, Journal};

/// How many names are asked for at once.
const PAGE: usize = 1_000;
/// How many pages are read and checked side by side, while the one before is added up.
const PAGES_AT_ONCE: usize = 4;

impl Engine {
    /// Loads everything, begins a leadership term, and takes up open rotations where they stood.
    ///
    /// # Errors
    /// [`StartError`] if the journal can't be read or doesn't add up; nothing has been changed then but the term.
    pub async fn start(seams: Seams, policies: Policies, options: Options) -> Result<Arc<Engine>, StartError> {
        let installation = seams.journal.installation().await?;
        let former = seams.journal.former_installations().await?;
        let term = seams.journal.begin_term().await?;
        let cells = load_cells(seams.journal.as_ref(), term).await?;
        let book = Book::load(seams.journal.holdings().await?, seams.clock.now().running);
        let engine =
            Engine::built(seams, policies, options, Built { installation, former, office: Office::for_ever(term), roll: None, book });
        engine.set_loaded(cells).await
    }

    /// One of several on the same journal: serves, and follows who leads until it takes office.
    ///
    /// # Errors
    /// [`StartError`] if the journal or the rows can't be read, or don't add up.
    pub async fn follow(seams: Seams, replica: Replica, policies: Policies, options: Options) -> Result<Arc<Engine>, StartError> {
        let installation = seams.journal.installation().await?;
        let former = seams.journal.former_installations().await?;
        // What happens from here on is told, so that nothing falls between.
        let cursor = seams.journal.changes(&Cursor::default(), Duration::ZERO).await?.cursor;
        let cells = load_cells(seams.journal.as_ref(), 0).await?;
        // Who holds what stands in the rows; what the journal keeps is who was ever seen.
        let seen = Holdings { holdings: Vec::new(), seen: seams.journal.holdings().await?.seen };
        let running = seams.clock.now().running;
        let book = Book::load(seen, running);
        let roll = Some(Roll::new(replica.rows, replica.name));
        let engine = Engine::built(seams, policies, options, Built { installation, former, office: Office::default(), roll, book });
        engine.follow_from(cursor);
        engine.in_contact();
        let engine = engine.set_loaded(cells).await?;
        engine.look_at_rows().await?;
        Ok(engine)
    }

    fn built(seams: Seams, policies: Policies, options: Options, built: Built) -> Engine {
        let Built { installation, former, office, roll, book } = built;
        Engine {
            seams,
            options,
            installation,
            former,
            office,
            roll,
            followed: Mutex::default(),
            documents: RwLock::new(Documents::of(policies)),
            cells: RwLock::default(),
            book,
            accounts: Mutex::default(),
            submissions: tokio::sync::Mutex::default(),
            problems: Mutex::default(),
            looks: Mutex::default(),
            wake: Notify::new(),
            beat_at: Mutex::default(),
            all_paused: RwLock::default(),
            launches: RwLock::default(),
            launching: tokio::sync::Mutex::default(),
            deliveries: Mutex::default(),
            dispatches: Mutex::default(),
            recalling: tokio::sync::Mutex::default(),
        }
    }

    async fn set_loaded(self, cells: BTreeMap<Name, Arc<Cell>>) -> Result<Arc<Engine>, StartError> {
        *self.cells.write().unwrap_or_else(PoisonError::into_inner) = cells;
        self.load_general().await?;
        self.adopt_policies();
        Ok(Arc::new(self))
    }
}

/// What a start and a following differ in.
struct Built {
    installation: InstallationId,
    former: Vec<InstallationId>,
    office: Office,
    roll: Option<Roll>,
    book: Book,
}

pub(super) async fn load_cells(journal: &dyn Journal, term: u64) -> Result<BTreeMap<Name, Arc<Cell>>, StartError> {
    let mut pages = Vec::new();
    let mut after: Option<Name> = None;
    loop {
        let names = journal.credentials(after.as_ref(), PAGE).await?;
        let Some(last) = names.last() else { break };
        after = Some(last.clone());
        pages.push(load_page(journal, names));
    }
    let mut cells = BTreeMap::new();
    let mut loading = futures_util::stream::iter(pages).buffered(PAGES_AT_ONCE);
    while let Some(page) = loading.next().await {
        let (names, histories) = page?;
        for (name, history) in names.into_iter().zip(histories) {
            let cell = replay(&name, history, term)?;
            cells.insert(name, Arc::new(cell));
        }
    }
    Ok(cells)
}

async fn load_page(journal: &dyn Journal, names: Vec<Name>) -> Result<(Vec<Name>, Vec<History>), StartError> {
    let histories = journal.load_each(&names).await?;
    Ok((names, histories))
}

/// Adds a journal up through the same function that a running rotation uses.
fn replay(name: &Name, history: History, term: u64) -> Result<Cell, StartError> {
    let ledger = added_up(name, &history)?;
    let work = Work { term, position: history.position, events: history.events.len(), sealed: history.sealed, ..Work::default() };
    Ok(Cell::new(name.clone(), ledger, work))
}

pub(super) fn added_up(name: &Name, history: &History) -> Result<Ledger, StartError> {
    let broken = |error: IllegalEvent| StartError::JournalBroken { credential: name.clone(), reason: error.to_string() };
    history.events.iter().try_fold(Ledger::default(), |ledger, event| apply(&ledger, event).map_err(broken))
}
