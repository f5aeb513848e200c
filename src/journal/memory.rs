//! The journal as a fake: events in memory, shared by its copies, so that an engine can be rebuilt on what a crash left.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use uuid::Uuid;

use super::changes::Tally;
use super::{
    Changes, Cursor, FaultyJournal, Heartbeat, History, HoldingChange, Holdings, Journal, JournalError, Pause, Position, SealedCopy,
};
use crate::domain::delivery::Way;
use crate::domain::dispatch::Dispatch;
use crate::domain::holders::Holding;
use crate::domain::ids::{InstallationId, InstanceName, Name};
use crate::domain::launch::Launch;
use crate::domain::rotation::Event;
use crate::faults::Faults;

#[derive(Debug, Clone, Default)]
struct State {
    installation: Option<InstallationId>,
    former: Vec<InstallationId>,
    term: u64,
    histories: BTreeMap<Name, History>,
    holdings: BTreeMap<(Name, InstanceName, Name), Holding>,
    seen: BTreeSet<(Name, Name)>,
    heartbeat: Heartbeat,
    pause: Option<Pause>,
    launches: BTreeMap<Name, Launch>,
    dispatches: BTreeMap<(Name, Way), Dispatch>,
    tally: Tally,
}

impl State {
    /// What belongs to no credential is the newest process's to write.
    fn led_by(&mut self, term: u64) -> Result<&mut State, JournalError> {
        if term < self.term { Err(JournalError::Deposed) } else { Ok(self) }
    }
}

/// Loses everything with its last copy.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes who waits for a change.
    moved: Notify,
}

impl MemoryJournal {
    /// With a given identity, so that a test's ids are the same each time.
    pub fn of_installation(installation: InstallationId) -> MemoryJournal {
        let journal = MemoryJournal::default();
        journal.state().installation = Some(installation);
        journal
    }

    /// The same journal, with a fault point at every write.
    pub fn faulty(&self, faults: &Faults) -> FaultyJournal<MemoryJournal> {
        FaultyJournal::new(self.clone(), faults.clone())
    }

    /// All that it holds now, in a journal of its own: a backup.
    #[must_use]
    pub fn snapshot(&self) -> MemoryJournal {
        MemoryJournal(Arc::new(Shared { state: Mutex::new(self.state().clone()), moved: Notify::new() }))
    }

    /// A backup comes back: as another installation, in a higher term, each of its credentials marked (I8, I10).
    pub fn come_back_as(&self, installation: InstallationId) {
        let mut state = self.state();
        let former = state.installation.replace(installation);
        state.former.extend(former);
        state.term += 1;
        let term = state.term;
        let State { histories, tally, .. } = &mut *state;
        for (name, history) in histories {
            history.events.push(Event::Restored);
            history.position = Position { term, revision: history.position.revision + 1 };
            tally.credential(name);
        }
        drop(state);
        self.0.moved.notify_waiters();
    }

    fn change_setting(&self, term: u64, change: impl FnOnce(&mut State)) -> Result<(), JournalError> {
        let mut state = self.state();
        change(state.led_by(term)?);
        state.tally.general();
        drop(state);
        self.0.moved.notify_waiters();
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn advance(&mut self, credential: &Name, expected: Position, term: u64) -> Result<&mut History, JournalError> {
        let position = self.histories.get(credential).map(|history| history.position).unwrap_or_default();
        if position != expected || term < self.term {
            return Err(JournalError::Conflict { credential: credential.clone() });
        }
        self.term = term;
        self.tally.credential(credential);
        let history = self.histories.entry(credential.clone()).or_default();
        history.position = Position { term, revision: expected.revision + 1 };
        Ok(history)
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn installation(&self) -> Result<InstallationId, JournalError> {
        Ok(*self.state().installation.get_or_insert_with(|| InstallationId(Uuid::new_v4())))
    }

    async fn former_installations(&self) -> Result<Vec<InstallationId>, JournalError> {
        Ok(self.state().former.clone())
    }

    async fn begin_term(&self) -> Result<u64, JournalError> {
        let mut state = self.state();
        state.term += 1;
        Ok(state.term)
    }

    async fn credentials(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, JournalError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.state().histories.range::<Name, _>((from, Bound::Unbounded)).take(limit).map(|(name, _)| name.clone()).collect())
    }

    async fn load(&self, credential: &Name) -> Result<History, JournalError> {
        Ok(self.state().histories.get(credential).cloned().unwrap_or_default())
    }

    async fn append(
        &self,
        credential: &Name,
        expected: Position,
        term: u64,
        event: &Event,
        sealed: SealedCopy,
    ) -> Result<Position, JournalError> {
        let mut state = self.state();
        let history = state.advance(credential, expected, term)?;
        history.events.push(event.clone());
        match sealed {
            SealedCopy::Keep => {}
            SealedCopy::Put(copy) => history.sealed = Some(copy),
            SealedCopy::Erase => history.sealed = None,
        }
        self.0.moved.notify_waiters();
        Ok(history.position)
    }

    async fn compact(&self, credential: &Name, expected: Position, term: u64, snapshot: &Event) -> Result<Position, JournalError> {
        let mut state = self.state();
        let history = state.advance(credential, expected, term)?;
        history.events = vec![snapshot.clone()];
        self.0.moved.notify_waiters();
        Ok(history.position)
    }

    async fn holdings(&self) -> Result<Holdings, JournalError> {
        let state = self.state();
        Ok(Holdings { holdings: state.holdings.values().cloned().collect(), seen: state.seen.iter().cloned().collect() })
    }

    async fn write_holdings(&self, term: u64, changes: &[HoldingChange]) -> Result<(), JournalError> {
        let mut state = self.state();
        let Some(first) = changes.first() else { return Ok(()) };
        if term < state.term {
            return Err(JournalError::Conflict { credential: first.credential().clone() });
        }
        for change in changes.iter().cloned() {
            match change {
                HoldingChange::Put(holding) => {
                    let key = (holding.application.clone(), holding.instance.clone(), holding.credential.clone());
                    state.holdings.insert(key, holding);
                }
                HoldingChange::Remove { application, instance, credential } => {
                    state.holdings.remove(&(application, instance, credential));
                }
                HoldingChange::Seen { application, credential } => {
                    state.seen.insert((application, credential));
                }
            }
        }
        Ok(())
    }

    async fn heartbeat(&self) -> Result<Heartbeat, JournalError> {
        Ok(self.state().heartbeat.clone())
    }

    async fn write_heartbeat(&self, term: u64, heartbeat: Heartbeat) -> Result<(), JournalError> {
        self.state().led_by(term)?.heartbeat = heartbeat;
        Ok(())
    }

    async fn pause(&self) -> Result<Option<Pause>, JournalError> {
        Ok(self.state().pause)
    }

    async fn write_pause(&self, term: u64, pause: Option<Pause>) -> Result<(), JournalError> {
        self.change_setting(term, |state| state.pause = pause)
    }

    async fn launches(&self) -> Result<Vec<(Name, Launch)>, JournalError> {
        Ok(self.state().launches.clone().into_iter().collect())
    }

    async fn write_launch(&self, term: u64, application: &Name, launch: &Launch) -> Result<(), JournalError> {
        self.change_setting(term, |state| drop(state.launches.insert(application.clone(), launch.clone())))
    }

    async fn dispatches(&self) -> Result<Vec<((Name, Way), Dispatch)>, JournalError> {
        Ok(self.state().dispatches.clone().into_iter().collect())
    }

    async fn write_dispatch(&self, term: u64, application: &Name, way: Way, dispatch: &Dispatch) -> Result<(), JournalError> {
        self.state().led_by(term)?.dispatches.insert((application.clone(), way), dispatch.clone());
        Ok(())
    }

    async fn changes(&self, since: &Cursor, wait: Duration) -> Result<Changes, JournalError> {
        let followed = async {
            loop {
                let moved = self.0.moved.notified();
                let known = self.state().tally.since(since);
                match known {
                    Some(changes) => return changes,
                    None => moved.await,
                }
            }
        };
        Ok(tokio::time::timeout(wait, followed).await.unwrap_or_else(|_| Changes::none(since)))
    }
}
