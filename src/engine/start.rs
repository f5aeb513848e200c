//! Start: loads the journals, adds them up, and begins a term. Nothing is performed yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

use futures_util::StreamExt as _;
use tokio::sync::Notify;

use super::book::Book;
use super::cell::{Cell, Work};
use super::errors::StartError;
use super::gather::Documents;
use super::{Engine, Options, Seams};
use crate::domain::ids::Name;
use crate::domain::ledger::Ledger;
use crate::domain::policy::Policies;
use crate::domain::rotation::apply;
use crate::journal::{History, Journal};

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
        let cells = load_cells(seams.journal.as_ref()).await?;
        let pause = seams.journal.pause().await?;
        let launches = seams.journal.launches().await?.into_iter().collect();
        let book = Book::load(seams.journal.holdings().await?, seams.clock.now().running);
        let engine = Arc::new(Engine {
            seams,
            options,
            installation,
            former,
            term,
            documents: RwLock::new(Documents::of(policies)),
            cells: RwLock::new(cells),
            book,
            accounts: Mutex::default(),
            submissions: tokio::sync::Mutex::default(),
            problems: Mutex::default(),
            looks: Mutex::default(),
            wake: Notify::new(),
            beat_at: Mutex::default(),
            all_paused: RwLock::new(pause),
            launches: RwLock::new(launches),
            launching: tokio::sync::Mutex::default(),
            deliveries: Mutex::default(),
        });
        engine.adopt_policies();
        Ok(engine)
    }
}

async fn load_cells(journal: &dyn Journal) -> Result<BTreeMap<Name, Arc<Cell>>, StartError> {
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
            let cell = replay(&name, history)?;
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
fn replay(name: &Name, history: History) -> Result<Cell, StartError> {
    let mut ledger = Ledger::default();
    for event in &history.events {
        ledger =
            apply(&ledger, event).map_err(|error| StartError::JournalBroken { credential: name.clone(), reason: error.to_string() })?;
    }
    let work = Work { position: history.position, events: history.events.len(), sealed: history.sealed, ..Work::default() };
    Ok(Cell::new(name.clone(), ledger, work))
}
