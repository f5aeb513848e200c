//! The contest itself: looks, claims, renews, steps down in time, and gives the lease back at the end.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::candidate::{Candidate, Move};
use super::{Identity, LeaseError, LeaseStore, Monotonic, Stamp, Standing, Timing};

/// Between a write that came too late and the look that follows.
const BREATH: Duration = Duration::from_millis(50);

/// No tenure.
const NEVER: u64 = 0;

/// A replica's part in the contest. Clones are the same. It ends with [`Leadership::resign`]; a process that just dies leaves a lease
/// that runs out.
#[derive(Clone)]
pub struct Leadership {
    identity: Identity,
    standing: watch::Receiver<Standing>,
    deadline: Arc<Deadline>,
    ending: CancellationToken,
    task: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

/// Until when we lead, for whoever wants to know it at this very moment.
struct Deadline {
    /// Nanoseconds of the clock; [`NEVER`] while we don't lead.
    until: AtomicU64,
    clock: Arc<dyn Monotonic>,
}

impl Deadline {
    fn set(&self, until: Option<Duration>) {
        let nanos = until.map_or(NEVER, |until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX));
        self.until.store(nanos, Ordering::SeqCst);
    }

    fn is_ahead(&self) -> bool {
        self.clock.now().as_nanos() < u128::from(self.until.load(Ordering::SeqCst))
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership").field("identity", &self.identity).field("standing", &self.standing()).finish_non_exhaustive()
    }
}

impl Leadership {
    /// Enters the contest. Within a runtime of tokio.
    pub fn start(store: Arc<dyn LeaseStore>, identity: Identity, timing: Timing, clock: Arc<dyn Monotonic>) -> Leadership {
        let (told, standing) = watch::channel(Standing::Following { leader: None });
        let deadline = Arc::new(Deadline { until: AtomicU64::new(NEVER), clock: clock.clone() });
        let ending = CancellationToken::new();
        let contest = Contest {
            identity: identity.clone(),
            candidate: Candidate::new(identity.clone(), timing),
            stamp: None,
            store,
            timing,
            clock,
            told,
            deadline: deadline.clone(),
            failing: None,
        };
        let task = tokio::spawn(contest.run(ending.clone()));
        Leadership { identity, standing, deadline, ending, task: Arc::new(tokio::sync::Mutex::new(Some(task))) }
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether we lead at this moment. Looks at the clock: a process that was stopped past its deadline learns it here, before the
    /// task that renews has run again. To be asked before each step that only a leader may do.
    pub fn leads(&self) -> bool {
        self.deadline.is_ahead()
    }

    /// As far as we know at this moment: see [`Leadership::leads`].
    pub fn standing(&self) -> Standing {
        let standing = self.standing.borrow().clone();
        if standing.is_leading() && !self.leads() { Standing::Following { leader: None } } else { standing }
    }

    /// Tells each change. A value of `Leading` is from when it was sent: ask [`Leadership::leads`] before acting on it.
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Leaves the contest and gives the lease back, so that another one leads at once. To be called when nothing acts any more: until
    /// then the lease is renewed. Ends within the longest call.
    pub async fn resign(&self) {
        self.ending.cancel();
        if let Some(task) = self.task.lock().await.take() {
            // It only ends early by a panic, which was logged by its place.
            let _ = task.await;
        }
    }
}

struct Contest {
    identity: Identity,
    candidate: Candidate,
    /// What the next write compares with. Of the last read or write.
    stamp: Option<Stamp>,
    store: Arc<dyn LeaseStore>,
    timing: Timing,
    clock: Arc<dyn Monotonic>,
    told: watch::Sender<Standing>,
    deadline: Arc<Deadline>,
    /// The last error that was logged: each is, once.
    failing: Option<LeaseError>,
}

impl Contest {
    async fn run(mut self, ending: CancellationToken) {
        loop {
            let pause = tokio::select! {
                biased;
                () = ending.cancelled() => break,
                pause = self.step() => pause,
            };
            self.tell();
            if let Some(pause) = pause {
                tokio::select! {
                    () = ending.cancelled() => break,
                    () = tokio::time::sleep(self.at_most(pause)) => {}
                }
            }
        }
        self.give_back().await;
    }

    /// One move; and for how long there is nothing to do.
    async fn step(&mut self) -> Option<Duration> {
        let now = self.clock.now();
        match self.candidate.next(now) {
            Move::WaitUntil(moment) => Some(moment.saturating_sub(now)),
            Move::StepDown => {
                tracing::warn!("leadership ended: the lease couldn't be renewed in time");
                self.candidate.step_down();
                None
            }
            Move::Look => match within(self.at_most(self.timing.call_max), self.store.read()).await {
                Ok(seen) => {
                    self.candidate.observe(seen.as_ref().map(|seen| &seen.record), self.clock.now());
                    self.stamp = seen.map(|seen| seen.stamp);
                    self.failing = None;
                    None
                }
                Err(error) => Some(self.pause_after(error)),
            },
            Move::Write(claim) => {
                let longest = self.at_most(self.timing.call_max);
                match within(longest, self.store.write(self.stamp.as_ref(), &claim)).await {
                    Ok(seen) => {
                        self.candidate.wrote(&claim, &seen.record, now, self.clock.now());
                        self.stamp = Some(seen.stamp);
                        self.failing = None;
                        None
                    }
                    Err(LeaseError::Changed) => {
                        self.candidate.forget();
                        Some(BREATH)
                    }
                    Err(error) => {
                        self.candidate.forget();
                        Some(self.pause_after(error))
                    }
                }
            }
        }
    }

    /// A leader waits for nothing beyond its deadline.
    fn at_most(&self, pause: Duration) -> Duration {
        match self.candidate.leads_until() {
            // Zero would be a time-out before the first byte.
            Some(until) => pause.min(until.saturating_sub(self.clock.now()).max(Duration::from_millis(1))),
            None => pause,
        }
    }

    fn pause_after(&mut self, error: LeaseError) -> Duration {
        if self.failing.replace(error) != Some(error) {
            tracing::warn!(%error, "the lease can't be used now");
        }
        // Two tries fit in where one was.
        let LeaseError::Unavailable { retry_after: Some(asked) } = error else { return self.timing.renew_every / 2 };
        // A leader keeps to its renewals, however long it is told to wait: a take-over would cost the API more than one call.
        if self.candidate.leads_until().is_some() { asked.min(self.timing.renew_every) } else { asked }
    }

    fn tell(&self) {
        let standing = match self.candidate.leads_until() {
            // Stopped between a write and its answer: what was won is over already.
            Some(until) if self.clock.now() >= until => Standing::Following { leader: None },
            _ => self.candidate.standing(),
        };
        self.deadline.set(self.candidate.leads_until());
        self.told.send_if_modified(|told| {
            let is_new = *told != standing;
            if is_new {
                match &standing {
                    Standing::Leading { transitions, .. } => tracing::info!(transitions, "leading"),
                    Standing::Following { leader } => {
                        tracing::info!(leader = leader.as_ref().map_or("nobody", Identity::as_str), "following");
                    }
                }
                *told = standing;
            }
            is_new
        });
    }

    /// First nobody here leads, then others may.
    async fn give_back(mut self) {
        let release = self.candidate.release();
        self.candidate.step_down();
        self.tell();
        let Some(claim) = release else { return };
        let call_max = self.timing.call_max;
        let mut outcome = within(call_max, self.store.write(self.stamp.as_ref(), &claim)).await;
        if outcome == Err(LeaseError::Changed)
            && let Ok(Some(seen)) = within(call_max, self.store.read()).await
            && seen.record.holder.as_ref() == Some(&self.identity)
        {
            // By hand, or by a renewal of ours whose answer was lost.
            outcome = within(call_max, self.store.write(Some(&seen.stamp), &claim)).await;
        }
        if let Err(error) = outcome {
            tracing::warn!(%error, "the lease wasn't given back: it runs out by itself");
        }
    }
}

async fn within<T>(longest: Duration, call: impl Future<Output = Result<T, LeaseError>>) -> Result<T, LeaseError> {
    tokio::time::timeout(longest, call).await.unwrap_or(Err(LeaseError::Unavailable { retry_after: None }))
}
