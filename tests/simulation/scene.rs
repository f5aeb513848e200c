//! What outlives every process: true time, the wall clock, the dice, and the model that watches. Each pass of a seam asks here
//! what becomes of it.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keywright::issuers::memory::{MemoryIssuer, SimClock};

use super::model::Model;
use super::rng::Rng;
use super::setting::start_of_time;

/// The parts of the outside that can be away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seam {
    Store,
    Journal,
    Audit,
    Issuer,
}

/// What becomes of one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Go,
    /// It fails without effect, or with one that nobody is told of.
    FailBefore,
    FailAfter,
    Throttle(Option<Duration>),
    Twice,
    DieBefore,
    DieAfter,
    PauseBefore,
    PauseAfter,
}

/// One process: one engine, from its start to its death. A deposed one may live on, paused.
#[derive(Debug, Default)]
pub struct Process {
    pub number: u64,
    pub dead: AtomicBool,
    pub paused: AtomicBool,
    pub may_pause: AtomicBool,
    pub term: AtomicU64,
}

impl Process {
    pub fn is(flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed)
    }
}

/// All that is shared.
pub struct Scene {
    pub issuer: MemoryIssuer,
    pub theirs: SimClock,
    inner: Mutex<Inner>,
}

pub struct Inner {
    /// True time since the start.
    pub at: Duration,
    /// How far the wall clock is off.
    pub off: SignedDuration,
    pub rng: Rng,
    pub rates: [usize; 4],
    /// Until when each seam is away.
    pub away: [Duration; 4],
    /// Nothing was disturbed since.
    pub quiet_since: Duration,
    pub faults: u64,
    /// Passes of all seams so far.
    pub passes: u64,
    pub newest: u64,
    pub model: Model,
    pub trace: Option<Vec<String>>,
}

impl Scene {
    pub fn new(rng: Rng, rates: [usize; 4], model: Model, traced: bool) -> Scene {
        let theirs = SimClock::new(start_of_time());
        let inner = Inner {
            at: Duration::ZERO,
            off: SignedDuration::ZERO,
            rng,
            rates,
            away: [Duration::ZERO; 4],
            quiet_since: Duration::ZERO,
            faults: 0,
            passes: 0,
            newest: 0,
            model,
            trace: traced.then(Vec::new),
        };
        Scene { issuer: MemoryIssuer::new(theirs.clone()), theirs, inner: Mutex::new(inner) }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn advance(&self, by: Duration) {
        let mut inner = self.lock();
        inner.at += by;
        self.theirs.set(truly(inner.at));
    }

    pub fn note(&self, line: impl FnOnce() -> String) {
        self.lock().note(line);
    }

    /// Lets one pass meet its fate. `None`: it failed, as far as the caller knows.
    pub async fn pass<T>(&self, process: &Process, seam: Seam, word: &str, writes: bool, act: impl Future<Output = T>) -> Option<T> {
        let fate = self.lock().fate(process, seam, writes);
        self.note(|| format!("p{} {word}{}", process.number, if fate == Fate::Go { String::new() } else { format!(" {fate:?}") }));
        self.meet(process, fate, act).await
    }

    /// As [`Scene::pass`], once the fate is known.
    pub async fn meet<T>(&self, process: &Process, fate: Fate, act: impl Future<Output = T>) -> Option<T> {
        match fate {
            Fate::Go | Fate::Twice => Some(act.await),
            Fate::FailBefore | Fate::Throttle(_) => None,
            Fate::FailAfter => {
                act.await;
                None
            }
            Fate::DieBefore => die(process).await,
            Fate::DieAfter => {
                act.await;
                die(process).await
            }
            Fate::PauseBefore => {
                pause(process).await;
                Some(act.await)
            }
            Fate::PauseAfter => {
                let done = act.await;
                pause(process).await;
                Some(done)
            }
        }
    }
}

async fn die<T>(process: &Process) -> T {
    process.dead.store(true, Ordering::Relaxed);
    std::future::pending().await
}

/// Stands still until somebody lets it go on.
async fn pause(process: &Process) {
    process.paused.store(true, Ordering::Relaxed);
    poll_fn(|_| if Process::is(&process.paused) { Poll::Pending } else { Poll::Ready(()) }).await;
}

pub fn truly(at: Duration) -> Timestamp {
    start_of_time().checked_add(at).unwrap()
}

impl Inner {
    pub fn wall(&self) -> Timestamp {
        truly(self.at).checked_add(self.off).unwrap_or(Timestamp::MAX)
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let at = self.at.as_secs_f64();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{at:>12.3} {}", line()));
        }
    }

    /// Something was in the way until then: promises that count undisturbed time count from there.
    pub fn disturb(&mut self, until: Duration) {
        self.faults += 1;
        self.quiet_since = self.quiet_since.max(until);
    }

    pub fn fate(&mut self, process: &Process, seam: Seam, writes: bool) -> Fate {
        self.passes += 1;
        if self.at < self.away[seam as usize] {
            self.disturb(self.at);
            return Fate::FailBefore;
        }
        let [crash, write, call, pause] = self.rates;
        let roll = self.rng.below(10_000);
        let after = self.rng.chance(50);
        let fate = if !writes {
            let rate = if seam == Seam::Issuer { call } else { write / 4 };
            if roll < rate { Fate::FailBefore } else { return Fate::Go }
        } else if roll < crash {
            if after { Fate::DieAfter } else { Fate::DieBefore }
        } else if roll < crash + pause && Process::is(&process.may_pause) {
            if after { Fate::PauseAfter } else { Fate::PauseBefore }
        } else if seam == Seam::Issuer && roll < crash + pause + 3 * call {
            self.called(after)
        } else if seam != Seam::Issuer && roll < crash + pause + write {
            if after { Fate::FailAfter } else { Fate::FailBefore }
        } else {
            return Fate::Go;
        };
        let until = if let Fate::Throttle(Some(wait)) = fate { self.at + wait } else { self.at };
        self.disturb(until);
        fate
    }

    fn called(&mut self, after: bool) -> Fate {
        match self.rng.below(8) {
            0 => Fate::Throttle(None),
            1 => Fate::Throttle(Some(Duration::from_secs(self.rng.below(600) as u64))),
            2 => Fate::Twice,
            _ if after => Fate::FailAfter,
            _ => Fate::FailBefore,
        }
    }
}

/// A process's share of the scene.
#[derive(Clone)]
pub struct Seat {
    pub scene: Arc<Scene>,
    pub process: Arc<Process>,
}
