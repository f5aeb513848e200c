//! What couriers have to remember, in the journal: read once in each term, written through.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::Engine;
use crate::delivery::{CourierError, Outboxes};
use crate::domain::delivery::Way;
use crate::domain::dispatch::{Dispatch, Fate, Place, Placed, fate};
use crate::domain::ids::Name;
use crate::domain::outbox::Outbox;
use crate::journal::JournalError;

type Key = (Name, Way);

/// As the journal has them, in the term in which it was read: another leader may have written since an earlier one.
#[derive(Debug, Default)]
pub(super) struct Dispatches {
    term: u64,
    by_way: BTreeMap<Key, Dispatch>,
    /// Being written, or written without an answer: the journal knows better.
    in_doubt: BTreeSet<Key>,
}

impl Dispatches {
    fn of(&self, key: &Key) -> Dispatch {
        self.by_way.get(key).cloned().unwrap_or_default()
    }
}

impl Engine {
    fn known_dispatches(&self) -> MutexGuard<'_, Dispatches> {
        // A panic while it was held leaves whole entries.
        self.dispatches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The term in which this process leads.
    fn term_of_office(&self) -> Result<u64, JournalError> {
        let term = self.term();
        if term != 0 && self.leads() { Ok(term) } else { Err(JournalError::Deposed) }
    }

    /// With all that was written before it was called; the key is one whose entry is asked for.
    async fn recall(&self, key: Option<&Key>) -> Result<u64, JournalError> {
        let term = self.term_of_office()?;
        let is_known = |known: &Dispatches| known.term == term && key.is_none_or(|key| !known.in_doubt.contains(key));
        if is_known(&self.known_dispatches()) {
            return Ok(term);
        }
        let _one_reads = self.recalling.lock().await;
        if is_known(&self.known_dispatches()) {
            return Ok(term);
        }
        let mut rows: BTreeMap<Key, Dispatch> = self.seams.journal.dispatches().await?.into_iter().collect();
        let mut known = self.known_dispatches();
        if self.term_of_office()? != term {
            return Err(JournalError::Deposed);
        }
        if known.term != term {
            *known = Dispatches { term, by_way: rows, in_doubt: BTreeSet::new() };
        } else if let Some(key) = key {
            // The others may have been written since they were read.
            known.by_way.insert(key.clone(), rows.remove(key).unwrap_or_default());
            known.in_doubt.remove(key);
        }
        Ok(term)
    }

    /// What is durable about the delivery to an application on one way, and the term in which that is so. One task asks and keeps for
    /// each.
    ///
    /// # Errors
    /// [`JournalError::Deposed`] while another process leads.
    pub async fn dispatch(&self, application: &Name, way: Way) -> Result<(u64, Dispatch), JournalError> {
        let key = (application.clone(), way);
        let term = self.recall(Some(&key)).await?;
        let known = self.known_dispatches();
        if known.term == term { Ok((term, known.of(&key))) } else { Err(JournalError::Deposed) }
    }

    /// Durable when it returns. `term` is that in which was read what this follows from.
    ///
    /// # Errors
    /// As [`Engine::dispatch`]: what isn't durable isn't so.
    pub async fn keep_dispatch(&self, application: &Name, way: Way, term: u64, dispatch: Dispatch) -> Result<(), JournalError> {
        let key = (application.clone(), way);
        if self.term_of_office()? != term {
            return Err(JournalError::Deposed);
        }
        self.known_dispatches().in_doubt.insert(key.clone());
        self.seams.journal.write_dispatch(term, application, way, &dispatch).await?;
        let mut known = self.known_dispatches();
        if known.term == term {
            known.in_doubt.remove(&key);
            known.by_way.insert(key, dispatch);
        }
        Ok(())
    }

    /// Ways on which values were brought to an application, whether they are still asked for or not.
    ///
    /// # Errors
    /// As [`Engine::dispatch`].
    pub async fn ways_with_places(&self) -> Result<Vec<(Name, Way)>, JournalError> {
        self.recall(None).await?;
        let known = self.known_dispatches();
        let with_places = known.by_way.iter().filter(|(_, dispatch)| !dispatch.places.is_empty()).map(|(of, _)| of);
        Ok(with_places.chain(&known.in_doubt).cloned().collect())
    }

    /// Whose machine this is; `None`: there is one daemon only.
    pub fn replica(&self) -> Option<&Name> {
        self.roll.as_ref().map(|roll| roll.me())
    }

    /// Where the application's document, as it is now, wants its values to be.
    pub fn asked_place(&self, application: &Name, way: Way) -> Option<Place> {
        self.recipient(application, way).and_then(|document| Place::of(&document.delivery, way, self.replica()))
    }

    /// Whether it is on record that values of this application may lie there. What isn't known for certain isn't.
    fn is_placed(&self, application: &Name, way: Way, place: &Place) -> bool {
        let (known, key) = (self.known_dispatches(), (application.clone(), way));
        known.term == self.term() && !known.in_doubt.contains(&key) && known.of(&key).has(place)
    }

    /// Whether another application's values lie there too, and were asked for until a moment ago: then nobody's time is over.
    fn is_anothers_of_late(&self, application: &Name, place: &Place, now: Timestamp) -> bool {
        let settle = self.look_at_targets_every();
        let is_of_late = |placed: &Placed| placed.place.is_at(place) && fate(placed, now, settle, Duration::MAX) == Fate::Stays;
        let known = self.known_dispatches();
        let mut others = known.by_way.iter().filter(|((other, _), _)| other != application);
        others.any(|(_, dispatch)| dispatch.places.iter().any(is_of_late))
    }

    /// What becomes of a place that its application's document doesn't name.
    pub fn fate_of(&self, application: &Name, way: Way, placed: &Placed, now: Timestamp) -> Fate {
        let (policies, place) = (self.policies(), &placed.place);
        let is_named = |asked: Option<Place>| asked.is_some_and(|asked| asked.is_at(place));
        // Documents that are gone as a whole are a folder that wasn't mounted, more often than a wish.
        let are_gone = policies.applications.is_empty() && policies.credentials.is_empty();
        if are_gone || !place.is_within_reach_of(self.replica()) || is_named(self.asked_place(application, way)) {
            return Fate::Stays;
        }
        for other in policies.applications.keys().filter(|other| *other != application && is_named(self.asked_place(other, way))) {
            // A Secret says itself whose it is. A folder doesn't: until the other one's values are on record there, these are.
            match place {
                Place::Secret { .. } => {}
                Place::Folder { .. } if self.is_placed(other, way, place) => return Fate::IsAnothers,
                Place::Folder { .. } => return Fate::Stays,
            }
        }
        if matches!(place, Place::Folder { .. }) && self.is_anothers_of_late(application, place, now) {
            return Fate::Stays;
        }
        fate(placed, now, self.look_at_targets_every(), self.give_up_after())
    }
}

const ELSEWHERE: CourierError = CourierError::Unavailable("another replica leads");

/// The errors of the journal, as a courier's: their text names no object.
fn refused(error: &JournalError) -> CourierError {
    match error {
        JournalError::Deposed | JournalError::Conflict { .. } => ELSEWHERE,
        JournalError::Damaged(_) => CourierError::Refused("what was delivered before is damaged in the journal: restore it from a backup"),
        JournalError::Unavailable(_) => CourierError::Unavailable("what is delivered can't be kept in the journal now"),
    }
}

#[async_trait]
impl Outboxes for Engine {
    async fn outbox(&self, application: &Name) -> Result<(u64, Outbox), CourierError> {
        let (term, dispatch) = self.dispatch(application, Way::Webhook).await.map_err(|error| refused(&error))?;
        Ok((term, dispatch.outbox))
    }

    async fn keep(&self, application: &Name, term: u64, outbox: &Outbox) -> Result<(), CourierError> {
        let dispatch = Dispatch { outbox: outbox.clone(), ..Dispatch::default() };
        self.keep_dispatch(application, Way::Webhook, term, dispatch).await.map_err(|error| refused(&error))
    }
}
