//! Pause and resume: all that destroys stops until a person lets it go on. Durable before it is answered.

use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;

use super::Engine;
use super::audit::Order;
use super::drive::Hindrance;
use super::errors::PauseError;
use crate::domain::ids::Name;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::rotation::Event;
use crate::journal::{Pause, SealedCopy};

/// How long a pause of everything waits for steps under way, so that nothing is destroyed after it was answered.
const STEPS_UNDER_WAY_MAX: Duration = Duration::from_secs(10);

impl Engine {
    /// Since when everything is paused, if it is.
    pub fn all_paused(&self) -> Option<Timestamp> {
        self.all_paused.read().unwrap_or_else(PoisonError::into_inner).map(|pause| pause.since)
    }

    /// Stops all that destroys: of one credential, or of all, those included that come later. Again is fine.
    ///
    /// # Errors
    /// [`PauseError`]. [`PauseError::Unavailable`] holds until the daemon ends, and may not outlive it.
    pub async fn pause(&self, order: Order, name: Option<&Name>) -> Result<(), PauseError> {
        let since = self.seams.clock.now().wall;
        if let Some(name) = name {
            return self.switch(order, name, &Event::Paused { at: Some(since) }).await;
        }
        self.record_for_all(order, "pause-requested").await?;
        let pause = self.all_paused().map_or(Pause { since }, |since| Pause { since });
        // In memory first: what is decided from now on destroys nothing, however long the write takes.
        *self.all_paused.write().unwrap_or_else(PoisonError::into_inner) = Some(pause);
        if !is_on(Mutant::PauseNotDurable) {
            self.seams.journal.write_pause(self.term(), Some(pause)).await.map_err(|_| PauseError::Unavailable)?;
        }
        let steps = async {
            for cell in self.all_cells() {
                drop(cell.work.lock().await);
            }
        };
        // A step that takes longer has its answer underway already: nothing could stop it.
        tokio::select! {
            biased;
            () = steps => {}
            () = self.seams.clock.time_out(STEPS_UNDER_WAY_MAX) => {}
        }
        Ok(())
    }

    /// Lets go on what a pause of the same kind stopped: a credential that is paused by itself stays so when all are resumed.
    ///
    /// # Errors
    /// [`PauseError`]; it stays paused then.
    pub async fn resume(&self, order: Order, name: Option<&Name>) -> Result<(), PauseError> {
        if let Some(name) = name {
            return self.switch(order, name, &Event::Resumed).await;
        }
        self.record_for_all(order, "resume-requested").await?;
        self.seams.journal.write_pause(self.term(), None).await.map_err(|_| PauseError::Unavailable)?;
        *self.all_paused.write().unwrap_or_else(PoisonError::into_inner) = None;
        for cell in self.all_cells() {
            self.look_at(&cell.name);
        }
        Ok(())
    }

    async fn switch(&self, order: Order, name: &Name, event: &Event) -> Result<(), PauseError> {
        let Some(cell) = self.cell(name) else { return Err(PauseError::Unknown) };
        let mut work = cell.work.lock().await;
        let pauses = matches!(event, Event::Paused { .. });
        if cell.ledger().paused == pauses {
            return Ok(());
        }
        let word = if pauses { "pause-requested" } else { "resume-requested" };
        self.record(order, word, Some(name), None, None).await.map_err(|_| PauseError::AuditUnavailable)?;
        let refused = |hindrance: Hindrance| match hindrance.trouble.code {
            "audit-unavailable" => PauseError::AuditUnavailable,
            _ => PauseError::Unavailable,
        };
        self.begin_journal(&cell, &mut work).await.map_err(refused)?;
        self.append(&cell, &mut work, event, SealedCopy::Keep).await.map_err(refused)?;
        drop(work);
        self.look_at(name);
        Ok(())
    }

    async fn record_for_all(&self, order: Order, word: &str) -> Result<(), PauseError> {
        self.record(order, word, None, None, Some("all credentials")).await.map_err(|_| PauseError::AuditUnavailable)
    }
}
