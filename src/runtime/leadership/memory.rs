//! A lease in memory, with faults: for tests and simulations.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::{Claim, LeaseError, LeaseStore, Record, Seen, Stamp};

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No effect, no answer, and perhaps a wish to be left alone.
    Fails(Option<Duration>),
    /// The effect, and then no answer.
    LosesReply,
    /// The effect takes place so much later, and the answer comes then.
    Delays(Duration),
    /// Our rights don't suffice.
    Forbids,
}

/// Whether the call is a write.
type Plan = Box<dyn FnMut(bool) -> Option<Fault> + Send>;

#[derive(Default)]
struct State {
    record: Option<Record>,
    version: u64,
    writes: u64,
}

/// Clones are the same lease, each as seen by one replica: faults are planned for one.
#[derive(Clone, Default)]
pub struct MemoryLease {
    shared: Arc<Mutex<State>>,
    plan: Arc<Mutex<Option<Plan>>>,
}

impl fmt::Debug for MemoryLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLease").field("record", &self.record()).finish_non_exhaustive()
    }
}

impl MemoryLease {
    /// The same lease, seen by another replica.
    pub fn of_another(&self) -> MemoryLease {
        MemoryLease { shared: self.shared.clone(), plan: Arc::default() }
    }

    /// What goes wrong from now on; the argument says whether the call is a write.
    pub fn plan(&self, plan: impl FnMut(bool) -> Option<Fault> + Send + 'static) {
        *lock(&self.plan) = Some(Box::new(plan));
    }

    pub fn nothing_goes_wrong(&self) {
        *lock(&self.plan) = None;
    }

    pub fn record(&self) -> Option<Record> {
        lock(&self.shared).record.clone()
    }

    /// Somebody else writes or deletes it.
    pub fn edit(&self, edit: impl FnOnce(&mut Option<Record>)) {
        let mut state = lock(&self.shared);
        edit(&mut state.record);
        state.version += 1;
    }

    fn fault(&self, writes: bool) -> Option<Fault> {
        lock(&self.plan).as_mut().and_then(|plan| plan(writes))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const SILENT: LeaseError = LeaseError::Unavailable { retry_after: None };

async fn with_fault<T>(fault: Option<Fault>, effect: impl FnOnce() -> Result<T, LeaseError> + Send) -> Result<T, LeaseError> {
    match fault {
        Some(Fault::Fails(retry_after)) => Err(LeaseError::Unavailable { retry_after }),
        Some(Fault::Forbids) => Err(LeaseError::Forbidden),
        Some(Fault::LosesReply) => effect().and(Err(SILENT)),
        Some(Fault::Delays(long)) => {
            tokio::time::sleep(long).await;
            effect()
        }
        None => effect(),
    }
}

#[async_trait]
impl LeaseStore for MemoryLease {
    async fn read(&self) -> Result<Option<Seen>, LeaseError> {
        with_fault(self.fault(false), || {
            let state = lock(&self.shared);
            Ok(state.record.clone().map(|record| Seen { record, stamp: Stamp(json!(state.version)) }))
        })
        .await
    }

    async fn write(&self, seen: Option<&Stamp>, claim: &Claim) -> Result<Seen, LeaseError> {
        let (fault, shared) = (self.fault(true), self.shared.clone());
        let (seen, claim) = (seen.cloned(), claim.clone());
        // What is under way takes place, also if nobody waits for it any more.
        let call = tokio::spawn(async move {
            with_fault(fault, || {
                let mut state = lock(&shared);
                let is_as_seen = match &seen {
                    Some(stamp) => state.record.is_some() && *stamp == Stamp(json!(state.version)),
                    None => state.record.is_none(),
                };
                if !is_as_seen {
                    return Err(LeaseError::Changed);
                }
                state.version += 1;
                state.writes += 1;
                let mark = state.writes.to_string();
                let record = Record { holder: claim.holder, transitions: claim.transitions, duration: Some(claim.duration), mark };
                state.record = Some(record.clone());
                Ok(Seen { record, stamp: Stamp(json!(state.version)) })
            })
            .await
        });
        call.await.unwrap_or(Err(SILENT))
    }
}
