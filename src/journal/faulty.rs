//! Any journal, with a fault point at every write.

use std::time::Duration;

use async_trait::async_trait;

use super::{Changes, Cursor, Heartbeat, History, HoldingChange, Holdings, Journal, JournalError, Pause, Position, SealedCopy};
use crate::domain::delivery::Way;
use crate::domain::dispatch::Dispatch;
use crate::domain::ids::{InstallationId, Name};
use crate::domain::launch::Launch;
use crate::domain::rotation::Event;
use crate::faults::{Fault, Faults};

/// Wraps a journal: a point that fails answers [`JournalError::Unavailable`], with or without the effect.
#[derive(Debug, Clone)]
pub struct FaultyJournal<J> {
    inner: J,
    faults: Faults,
}

impl<J> FaultyJournal<J> {
    pub fn new(inner: J, faults: Faults) -> FaultyJournal<J> {
        FaultyJournal { inner, faults }
    }

    pub fn inner(&self) -> &J {
        &self.inner
    }
}

impl From<Fault> for JournalError {
    fn from(_: Fault) -> JournalError {
        JournalError::Unavailable(Fault::REASON)
    }
}

#[async_trait]
impl<J: Journal> Journal for FaultyJournal<J> {
    async fn installation(&self) -> Result<InstallationId, JournalError> {
        let point = self.faults.point("journal.installation");
        point.before()?;
        let outcome = self.inner.installation().await;
        point.after()?;
        outcome
    }

    async fn former_installations(&self) -> Result<Vec<InstallationId>, JournalError> {
        self.faults.alive()?;
        self.inner.former_installations().await
    }

    async fn begin_term(&self) -> Result<u64, JournalError> {
        let point = self.faults.point("journal.begin_term");
        point.before()?;
        let outcome = self.inner.begin_term().await;
        point.after()?;
        outcome
    }

    async fn credentials(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, JournalError> {
        self.faults.alive()?;
        self.inner.credentials(after, limit).await
    }

    async fn load(&self, credential: &Name) -> Result<History, JournalError> {
        self.faults.alive()?;
        self.inner.load(credential).await
    }

    async fn append(
        &self,
        credential: &Name,
        expected: Position,
        term: u64,
        event: &Event,
        sealed: SealedCopy,
    ) -> Result<Position, JournalError> {
        let point = self.faults.point(append_point(event));
        point.before()?;
        let outcome = self.inner.append(credential, expected, term, event, sealed).await;
        point.after()?;
        outcome
    }

    async fn compact(&self, credential: &Name, expected: Position, term: u64, snapshot: &Event) -> Result<Position, JournalError> {
        let point = self.faults.point("journal.compact");
        point.before()?;
        let outcome = self.inner.compact(credential, expected, term, snapshot).await;
        point.after()?;
        outcome
    }

    async fn holdings(&self) -> Result<Holdings, JournalError> {
        self.faults.alive()?;
        self.inner.holdings().await
    }

    async fn write_holdings(&self, term: u64, changes: &[HoldingChange]) -> Result<(), JournalError> {
        let point = self.faults.point("journal.write_holdings");
        point.before()?;
        let outcome = self.inner.write_holdings(term, changes).await;
        point.after()?;
        outcome
    }

    async fn heartbeat(&self) -> Result<Heartbeat, JournalError> {
        self.faults.alive()?;
        self.inner.heartbeat().await
    }

    async fn write_heartbeat(&self, term: u64, heartbeat: Heartbeat) -> Result<(), JournalError> {
        let point = self.faults.point("journal.write_heartbeat");
        point.before()?;
        let outcome = self.inner.write_heartbeat(term, heartbeat).await;
        point.after()?;
        outcome
    }

    async fn pause(&self) -> Result<Option<Pause>, JournalError> {
        self.faults.alive()?;
        self.inner.pause().await
    }

    async fn write_pause(&self, term: u64, pause: Option<Pause>) -> Result<(), JournalError> {
        let point = self.faults.point("journal.write_pause");
        point.before()?;
        let outcome = self.inner.write_pause(term, pause).await;
        point.after()?;
        outcome
    }

    async fn launches(&self) -> Result<Vec<(Name, Launch)>, JournalError> {
        self.faults.alive()?;
        self.inner.launches().await
    }

    async fn write_launch(&self, term: u64, application: &Name, launch: &Launch) -> Result<(), JournalError> {
        let point = self.faults.point("journal.write_launch");
        point.before()?;
        let outcome = self.inner.write_launch(term, application, launch).await;
        point.after()?;
        outcome
    }

    async fn dispatches(&self) -> Result<Vec<((Name, Way), Dispatch)>, JournalError> {
        self.faults.alive()?;
        self.inner.dispatches().await
    }

    async fn write_dispatch(&self, term: u64, application: &Name, way: Way, dispatch: &Dispatch) -> Result<(), JournalError> {
        let point = self.faults.point("journal.write_dispatch");
        point.before()?;
        let outcome = self.inner.write_dispatch(term, application, way, dispatch).await;
        point.after()?;
        outcome
    }

    async fn changes(&self, since: &Cursor, wait: Duration) -> Result<Changes, JournalError> {
        self.faults.alive()?;
        self.inner.changes(since, wait).await
    }
}

/// Each kind of event is a point of its own name, so that the crash matrix says which write it stopped at.
pub fn append_point(event: &Event) -> &'static str {
    match event {
        Event::Planned { .. } => "journal.append planned",
        Event::CreateIntended { .. } => "journal.append create-intended",
        Event::Issued { .. } => "journal.append issued",
        Event::Stored => "journal.append stored",
        Event::Verified { .. } => "journal.append verified",
        Event::Refused { .. } => "journal.append refused",
        Event::Promoted { .. } => "journal.append promoted",
        Event::Confirmed { .. } => "journal.append confirmed",
        Event::Disabled { .. } => "journal.append disabled",
        Event::Retired { .. } => "journal.append retired",
        Event::RevokeIntended => "journal.append revoke-intended",
        Event::Revoked { .. } => "journal.append revoked",
        Event::Closed => "journal.append closed",
        Event::Abandoning { .. } => "journal.append abandoning",
        Event::Undone => "journal.append undone",
        Event::Abandoned { .. } => "journal.append abandoned",
        Event::OrphanFound { .. } => "journal.append orphan-found",
        Event::OrphanRevoked { .. } => "journal.append orphan-revoked",
        Event::PossibleOrphan { .. } => "journal.append possible-orphan",
        Event::SecondaryCancelled => "journal.append secondary-cancelled",
        Event::ReplyLost { .. } => "journal.append reply-lost",
        Event::CurrentRefused { .. } => "journal.append current-refused",
        Event::CurrentAccepted => "journal.append current-accepted",
        Event::RollbackPlanned { .. } => "journal.append rollback-planned",
        Event::TermsTightened { .. } => "journal.append terms-tightened",
        Event::Paused { .. } => "journal.append paused",
        Event::Resumed => "journal.append resumed",
        Event::Restored => "journal.append restored",
        Event::Compromised { .. } => "journal.append compromised",
        Event::IncidentClosed { .. } => "journal.append incident-closed",
        Event::RevocationAsked { .. } => "journal.append revocation-asked",
        Event::ManualRequested { .. } => "journal.append manual-requested",
        Event::ManualReminded { .. } => "journal.append manual-reminded",
        Event::ManualWithdrawn => "journal.append manual-withdrawn",
        Event::RemovalAsked { .. } => "journal.append removal-asked",
        Event::RemovalSeen { .. } => "journal.append removal-seen",
        Event::Forgotten => "journal.append forgotten",
        Event::Cleared => "journal.append cleared",
        Event::Rehearsed { .. } => "journal.append rehearsed",
        Event::RolledOut { .. } => "journal.append rolled-out",
        Event::RolloutStopped { .. } => "journal.append rollout-stopped",
        Event::Snapshot { .. } => "journal.append snapshot",
    }
}
