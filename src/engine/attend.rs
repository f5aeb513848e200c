//! What a replica does beside serving: its row is kept, the others' are read; who leads clears up, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::pods::BoundPod;
use crate::domain::ids::{InstanceName, Name};
use crate::domain::replicas::{Instance, page_of};
use crate::journal::{HoldingChange, JournalError};
use crate::replicas::RowsError;

/// The shortest round, where policies are of seconds.
const EVERY_MIN: Duration = Duration::from_millis(100);

impl From<RowsError> for JournalError {
    fn from(error: RowsError) -> JournalError {
        match error {
            RowsError::Damaged(what) => JournalError::Damaged(what),
            RowsError::Conflict => JournalError::Unavailable("a row is written by others all the time"),
            RowsError::Full => JournalError::Unavailable("there are more instances than a row holds"),
            RowsError::Unavailable(what) => JournalError::Unavailable(what),
        }
    }
}

impl Engine {
    /// Keeps this replica's row, and reads the others', until `stop`.
    pub async fn run_attendance(self: Arc<Self>, stop: CancellationToken) {
        let mut round = 0_u32;
        while !stop.is_cancelled() {
            let every = self.part_of_shortest(200, EVERY_MIN, Duration::from_secs(1)).min(self.served_for_max() / 8).max(EVERY_MIN);
            let attended = self.attend(round).await;
            let problem = attended.err().map(|error| format!("{error}: first disclosures wait, and nothing is revoked"));
            self.set_problem("rows-away", problem);
            round = round.wrapping_add(1);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    /// One round: our own row each time; of the rest, who leads does all each time, and who follows now and then.
    ///
    /// # Errors
    /// [`JournalError`]: the rest waits for the next round.
    pub async fn attend(&self, round: u32) -> Result<(), JournalError> {
        let Some(roll) = &self.roll else { return Ok(()) };
        self.tell_of_contact();
        self.book.tell_calls(self.seams.clock.now().running);
        let dirty = self.book.take_dirty();
        if let Err(error) = roll.flush(&self.book, &dirty).await {
            dirty.iter().for_each(|page| self.book.make_dirty(*page));
            return Err(error.into());
        }
        if round.is_multiple_of(2) {
            roll.answered_live(|application, credential| self.is_let_out(application, credential));
            roll.keep_reports(|report| self.may_stop_at(report));
            roll.beat(&self.book).await?;
            self.in_contact();
        }
        let leads = self.leads();
        if leads || round.is_multiple_of(4) {
            self.look_at_rows().await?;
        }
        if leads {
            // The rows were just read, and all leases began anew if that wasn't possible for a while.
            self.expire_leases().await;
            self.keep_seen().await?;
            self.let_out_asked().await?;
            self.stop_reported().await?;
            roll.clear_gone(|credential, version| self.order_of(credential, version)).await?;
            // Those that wait for somebody: what they wait for may have happened elsewhere.
            for cell in self.all_cells().iter().filter(|cell| cell.ledger().previous().is_some()) {
                self.look_at(&cell.name);
            }
        }
        Ok(())
    }

    /// Reads all rows, in a reading that began after this call. Where there is one process, there are none.
    ///
    /// # Errors
    /// [`RowsError`]: who holds what isn't known, so nothing is revoked.
    pub(super) async fn look_at_rows(&self) -> Result<(), RowsError> {
        let Some(roll) = &self.roll else { return Ok(()) };
        let order = |credential: &Name, version: &_| self.order_of(credential, version);
        roll.look(&self.book, order, || self.seams.clock.now().running).await?;
        self.in_contact();
        Ok(())
    }

    /// What instances hold, made durable: in this replica's row, or in the journal where there is one process.
    pub(super) async fn keep_holdings(&self, changes: &[HoldingChange]) -> Result<(), JournalError> {
        let Some(roll) = &self.roll else { return self.seams.journal.write_holdings(self.term(), changes).await };
        let mut pages = BTreeSet::new();
        for change in changes {
            match change {
                HoldingChange::Put(holding) => drop(pages.insert(page_of(&holding.application, &holding.instance))),
                HoldingChange::Remove { application, instance, .. } => drop(pages.insert(page_of(application, instance))),
                // Follows from what is held; who leads writes it into the journal.
                HoldingChange::Seen { .. } => {}
            }
        }
        roll.flush(&self.book, &pages).await?;
        self.in_contact();
        Ok(())
    }

    /// What our row says of an instance is durable when this returns, also where the last write failed or is under way.
    pub(super) async fn keep_unwritten(&self, application: &Name, instance: &InstanceName) -> Result<(), JournalError> {
        let Some(roll) = &self.roll else { return Ok(()) };
        Ok(roll.flush(&self.book, &BTreeSet::from([page_of(application, instance)])).await?)
    }

    /// Who was ever served outlives the row that said so.
    pub(super) async fn keep_seen(&self) -> Result<(), JournalError> {
        let Some(roll) = &self.roll else { return Ok(()) };
        let new = roll.unkept(self.book.all_seen());
        if new.is_empty() {
            return Ok(());
        }
        let seen = |(application, credential): &(Name, Name)| HoldingChange::Seen {
            application: application.clone(),
            credential: credential.clone(),
        };
        let changes: Vec<HoldingChange> = new.iter().map(seen).collect();
        self.seams.journal.write_holdings(self.term(), &changes).await?;
        roll.note_kept(new);
        Ok(())
    }

    /// Makes these instances hold nothing any more in the rows of the others, durably when it returns.
    pub(super) async fn strike_elsewhere(&self, wanted: impl Fn(&Instance) -> bool, expired: bool) -> Result<(), JournalError> {
        let Some(roll) = &self.roll else { return Ok(()) };
        let removals: BTreeMap<_, _> = roll.removals_of(wanted, expired);
        if removals.is_empty() {
            return Ok(());
        }
        roll.strike(removals).await?;
        self.look_at_rows().await?;
        Ok(())
    }

    /// A pod is gone: frees what it alone held at the others, durably when it returns.
    pub(super) async fn strike_pod_elsewhere(&self, gone: &BoundPod) -> Result<(), JournalError> {
        let Some(roll) = &self.roll else { return Ok(()) };
        let removals = roll.removals_of_pod(gone);
        if removals.is_empty() {
            return Ok(());
        }
        roll.strike(removals).await?;
        self.look_at_rows().await?;
        Ok(())
    }
}
