//! Following: a replica's ledgers are kept as the journal says, whoever writes it, and what it hands out for the first time is looked
//! up afresh.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::cell::Cell;
use super::drive::reach;
use super::errors::StartError;
use super::start::added_up;
use crate::delivery::Change;
use crate::domain::holders::Holding;
use crate::domain::ids::{InstanceName, Name, VersionId};
use crate::domain::ledger::Ledger;
use crate::journal::{Changed, Cursor, History, JournalError};

/// How long one question waits for news; an answer, also an empty one, is contact.
const NEWS_WAIT: Duration = Duration::from_secs(5);
/// Between two questions that weren't answered.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Out of contact for longer, what is served is marked as stale.
const STALE_AFTER: Duration = Duration::from_secs(15);
/// Out of contact for longer than this, or half of the shortest overlap, nothing is served: who leads may have ended it meanwhile (I6).
const SERVED_FOR_MAX: Duration = Duration::from_secs(3_600);
/// How many journals are asked for at once.
const PAGE: usize = 1_000;

/// What a follower knows of where it is.
#[derive(Debug, Default)]
pub(super) struct Followed {
    cursor: Cursor,
    /// Running time of the last contact with the journal.
    contact: Duration,
    was_cut_off: bool,
}

/// How long ago the journal was heard of, judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contact {
    Fresh,
    Stale,
    /// Too long ago for anything to be served.
    CutOff,
}

impl Engine {
    pub(super) fn follow_from(&self, cursor: Cursor) {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).cursor = cursor;
    }

    /// The journal, or the rows beside it, answered.
    pub(super) fn in_contact(&self) {
        let running = self.seams.clock.now().running;
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).contact = running;
    }

    /// Where one process has the journal to itself, it is always in contact.
    pub(super) fn contact(&self) -> Contact {
        if self.roll.is_none() {
            return Contact::Fresh;
        }
        let last = self.followed.lock().unwrap_or_else(PoisonError::into_inner).contact;
        let silent = self.seams.clock.now().running.saturating_sub(last);
        let most = self.served_for_max();
        match silent {
            silent if silent >= most => Contact::CutOff,
            silent if silent > STALE_AFTER => Contact::Stale,
            _ => Contact::Fresh,
        }
    }

    /// How long what is known is served without contact.
    pub(super) fn served_for_max(&self) -> Duration {
        let shortest = || self.policies().shortest_overlap().map_or(SERVED_FOR_MAX, |overlap| overlap.as_duration() / 2);
        self.options.max_stale.unwrap_or_else(|| shortest().min(SERVED_FOR_MAX))
    }

    /// Nothing may be served: streams end, so that applications go to a replica that knows more.
    pub fn is_cut_off(&self) -> bool {
        self.contact() == Contact::CutOff
    }

    /// Keeps up with the journal until `stop`.
    pub async fn keep_up(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let caught_up = tokio::select! {
                () = stop.cancelled() => return,
                caught_up = self.catch_up(NEWS_WAIT.min(self.served_for_max() / 4)) => caught_up,
            };
            let Err(error) = caught_up else {
                self.set_problem("journal-away", None);
                continue;
            };
            self.set_problem(
                "journal-away",
                Some(format!("{error}: what is known here is served on, for a while; nothing is rotated from here")),
            );
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(ASK_AGAIN) => {}
            }
        }
    }

    /// Takes over what others wrote since the last time; waits for news for so long at most.
    ///
    /// # Errors
    /// [`StartError`]: what couldn't be loaded is asked for again the next time.
    pub async fn catch_up(&self, wait: Duration) -> Result<(), StartError> {
        let cursor = self.followed.lock().unwrap_or_else(PoisonError::into_inner).cursor.clone();
        let changes = self.seams.journal.changes(&cursor, wait).await?;
        let (names, general) = match changes.changed {
            Changed::Everything => (self.all_journals().await?, true),
            Changed::These { credentials, general } => (credentials, general),
        };
        let names: Vec<Name> = names.into_iter().collect();
        for page in names.chunks(PAGE) {
            for (name, history) in page.iter().zip(self.seams.journal.load_each(page).await?) {
                self.take_in(name, history).await?;
            }
        }
        if general {
            self.load_general().await?;
            self.seams.delivery.announce(Change::Policies);
        }
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        // Who took or left office meanwhile begins somewhere else.
        if followed.cursor == cursor {
            followed.cursor = changes.cursor;
        }
        drop(followed);
        self.in_contact();
        Ok(())
    }

    async fn all_journals(&self) -> Result<BTreeSet<Name>, JournalError> {
        let mut names = BTreeSet::new();
        loop {
            let page = self.seams.journal.credentials(names.last(), PAGE).await?;
            if page.is_empty() {
                return Ok(names);
            }
            names.extend(page);
        }
    }

    /// What belongs to no credential.
    pub(super) async fn load_general(&self) -> Result<(), JournalError> {
        let pause = self.seams.journal.pause().await?;
        let launches = self.seams.journal.launches().await?.into_iter().collect();
        *self.all_paused.write().unwrap_or_else(PoisonError::into_inner) = pause;
        *self.launches.write().unwrap_or_else(PoisonError::into_inner) = launches;
        Ok(())
    }

    /// A journal as somebody else wrote it. Who leads writes it himself, and knows.
    async fn take_in(&self, name: &Name, history: History) -> Result<(), StartError> {
        if self.term() != 0 {
            return Ok(());
        }
        let ledger = added_up(name, &history)?;
        let cell = self
            .cells
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Cell::empty(name.clone(), 0)))
            .clone();
        let mut work = cell.work.lock().await;
        // A reading that took long must not bring an older ledger back.
        if work.term != 0 || history.position.revision <= work.position.revision {
            return Ok(());
        }
        (work.position, work.events, work.sealed) = (history.position, history.events.len(), history.sealed);
        let before = cell.ledger();
        let changed = before.revision != ledger.revision || reach(&before) != reach(&ledger);
        let revision = ledger.revision;
        cell.set_ledger(ledger);
        drop(work);
        if changed {
            self.seams.delivery.announce(Change::Credential { name: name.clone(), revision });
        }
        Ok(())
    }

    /// The ledger of a credential as its journal says in a reading that began after this call; many who ask share one.
    ///
    /// # Errors
    /// [`JournalError`]: what is current isn't known for certain.
    pub(super) async fn afresh(&self, cell: &Cell) -> Result<Arc<Ledger>, JournalError> {
        let reading = async {
            let history = self.seams.journal.load(&cell.name).await?;
            let ledger = added_up(&cell.name, &history).map_err(|_| JournalError::Damaged("it doesn't add up"))?;
            self.in_contact();
            self.take_in(&cell.name, history).await.map_err(|_| JournalError::Damaged("it doesn't add up"))?;
            Ok(Arc::new(ledger))
        };
        cell.readings.share(reading).await
    }

    /// An application has seen this revision, or version, of a credential somewhere: a replica that knows less looks first. False if it
    /// can't: then what is known here would take the application back.
    pub async fn has_been_shown(&self, name: &Name, revision: Option<u64>, version: Option<&VersionId>) -> bool {
        if self.roll.is_none() || self.leads() {
            return true;
        }
        let Some(cell) = self.cell(name) else { return true };
        let ledger = cell.ledger();
        let current = ledger.current.as_ref().map_or(0, |current| Engine::order_in(&ledger, current));
        let is_ahead = |shown: &VersionId| !ledger.versions.contains_key(shown) || Engine::order_in(&ledger, shown) > current;
        let is_behind = revision.is_some_and(|shown| ledger.revision < shown) || version.is_some_and(is_ahead);
        !is_behind || self.afresh(&cell).await.is_ok()
    }

    /// Which of two versions came later.
    pub(super) fn order_in(ledger: &Ledger, version: &VersionId) -> u64 {
        ledger.versions.get(version).map_or(0, |facts| facts.generation)
    }

    pub(super) fn order_of(&self, credential: &Name, version: &VersionId) -> u64 {
        self.cell(credential).map_or(0, |cell| Engine::order_in(&cell.ledger(), version))
    }

    /// What everyone holds of a credential, wherever they were served.
    pub(super) fn holdings_of(&self, credential: &Name, ledger: &Ledger) -> Vec<Holding> {
        self.book.holdings_of(credential, &|version| Engine::order_in(ledger, version))
    }

    /// What one instance holds of it, wherever it was served.
    pub(super) fn holding_anywhere(&self, application: &Name, instance: &InstanceName, credential: &Name) -> Option<Holding> {
        let ledger = self.cell(credential)?.ledger();
        self.book.holding_anywhere(application, instance, credential, &|version| Engine::order_in(&ledger, version))
    }

    /// Tells the streams once when nothing may be served any more: each of them looks, and ends.
    pub(super) fn tell_of_contact(&self) {
        let is_cut_off = self.is_cut_off();
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = is_cut_off != followed.was_cut_off;
        followed.was_cut_off = is_cut_off;
        drop(followed);
        if is_news {
            self.announce_all();
        }
    }
}
