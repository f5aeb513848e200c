//! What couriers have to remember, in the journal: read once in each term, written through.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::Engine;
use crate::delivery::{CourierError, Outboxes};
use crate::domain::delivery::Way;
use crate::domain::dispatch::{Dispatch, Place};
use crate::domain::ids::Name;
use crate::domain::outbox::Outbox;
use crate::journal::JournalError;

/// As the journal has them, in the term in which it was read: another leader may have written since an earlier one.
#[derive(Debug, Default)]
pub(super) struct Dispatches {
    term: u64,
    by_way: BTreeMap<(Name, Way), Dispatch>,
}

impl Engine {
    async fn read_dispatches(&self) -> Result<tokio::sync::MutexGuard<'_, Dispatches>, JournalError> {
        let mut known = self.dispatches.lock().await;
        let term = self.term();
        if !self.leads() {
            return Err(JournalError::Deposed);
        }
        if known.term != term {
            let by_way = self.seams.journal.dispatches().await?.into_iter().collect();
            *known = Dispatches { term, by_way };
        }
        Ok(known)
    }

    /// What is durable about the delivery to an application on one way.
    ///
    /// # Errors
    /// [`JournalError::Deposed`] while another process leads.
    pub async fn dispatch(&self, application: &Name, way: Way) -> Result<Dispatch, JournalError> {
        let known = self.read_dispatches().await?;
        Ok(known.by_way.get(&(application.clone(), way)).cloned().unwrap_or_default())
    }

    /// Durable when it returns.
    ///
    /// # Errors
    /// As [`Engine::dispatch`]: what isn't durable isn't so.
    pub async fn keep_dispatch(&self, application: &Name, way: Way, dispatch: Dispatch) -> Result<(), JournalError> {
        let mut known = self.read_dispatches().await?;
        self.seams.journal.write_dispatch(known.term, application, way, &dispatch).await?;
        known.by_way.insert((application.clone(), way), dispatch);
        Ok(())
    }

    /// Ways on which values were brought to an application, whether they are still asked for or not.
    ///
    /// # Errors
    /// As [`Engine::dispatch`].
    pub async fn ways_with_places(&self) -> Result<Vec<(Name, Way)>, JournalError> {
        let known = self.read_dispatches().await?;
        let with_places = known.by_way.iter().filter(|(_, dispatch)| !dispatch.places.is_empty());
        Ok(with_places.map(|(of, _)| of.clone()).collect())
    }

    /// What becomes of a place that its application's document doesn't name any more.
    pub fn fate_of(&self, application: &Name, place: &Place) -> Fate {
        let policies = self.policies();
        // Documents that are gone as a whole are a folder that wasn't mounted, more often than a wish.
        if policies.applications.is_empty() && policies.credentials.is_empty() {
            return Fate::Stays;
        }
        let mut others = policies.applications.values().filter(|other| other.name != *application);
        if others.any(|other| place.holds_files_of(&other.delivery)) { Fate::IsAnothers } else { Fate::IsEmptied }
    }
}

/// What becomes of a place where values were brought, and where nobody wants them any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing is done, and nothing forgotten, as long as there is no document at all.
    Stays,
    /// Another application's files go there by now, over what is there.
    IsAnothers,
    IsEmptied,
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
    async fn outbox(&self, application: &Name) -> Result<Outbox, CourierError> {
        Ok(self.dispatch(application, Way::Webhook).await.map_err(|error| refused(&error))?.outbox)
    }

    async fn keep(&self, application: &Name, outbox: &Outbox) -> Result<(), CourierError> {
        let dispatch = Dispatch { outbox: outbox.clone(), ..Dispatch::default() };
        self.keep_dispatch(application, Way::Webhook, dispatch).await.map_err(|error| refused(&error))
    }
}
