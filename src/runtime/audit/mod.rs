//! The audit trail in a file: hash-chained lines of JSON, durable before the effect (I17).
//!
//! What was acknowledged is on disk, and every acknowledged record follows from the one before it. A trail whose end isn't
//! known is never continued: after a failure nothing is recorded until the file was opened and its end checked again.

mod chain;
mod leading;
mod record;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::engine::audit::{Action, Actor, Audit, AuditError};
use crate::journal::Anchor;
use record::Entry;
use writer::{Progress, Request, Writer};

pub use chain::{Broken, Verified, VerifyError, verify};
pub use leading::{Leading, STARTED, last_leading};
pub use record::{Flaw, Head};

/// Most different repetitions that are counted one by one between two flushes; what is beyond shares one count.
const REPEATS_MAX: usize = 10_000;
/// Requests that wait for the writer; more than these wait for their turn to wait. As many as instances may ask for a new version at
/// once: those who come on record together are then written into their replica's row together.
const WAITING_MAX: usize = 16_384;

/// Why the trail can't be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the audit file is a symlink: give the path of the file itself")]
    Symlink,
    #[error("the audit file is not a regular file")]
    NotAFile,
    #[error("another process writes this audit file: each daemon needs its own")]
    InUse,
    #[error("the audit file doesn't end as it was left: it was truncated or replaced")]
    Replaced,
    #[error("the audit file ends with a broken record ({0}): keep it as evidence under another name; a new trail then begins")]
    Broken(Broken),
    #[error("the audit file can't be used: {0}")]
    Unusable(io::ErrorKind),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Unusable(error.kind())
    }
}

/// The trail in one file, written by one thread.
#[derive(Debug)]
pub struct AuditFile {
    requests: mpsc::Sender<Request>,
    repeats: Mutex<Repeats>,
    progress: Arc<Progress>,
    /// The last write failed.
    failing: AtomicBool,
}

#[derive(Debug, Default)]
struct Repeats {
    counts: HashMap<RepeatKey, u64>,
    /// Repetitions that found no room in `counts`.
    others: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RepeatKey {
    actor: Actor,
    action: String,
    credential: Option<String>,
    version: Option<String>,
}

impl AuditFile {
    /// Opens or makes the file (mode 0600), checks its end, removes and records a torn last line (at `at`), and starts the
    /// writer. The writer ends when the last clone of the trail is dropped.
    ///
    /// # Errors
    /// [`OpenError::Broken`] if the end of the trail isn't whole: it isn't continued.
    pub fn open(path: &Path, at: Timestamp) -> Result<AuditFile, OpenError> {
        let progress = Arc::new(Progress::default());
        let writer = Writer::open(path, at, Arc::clone(&progress))?;
        AuditFile::start(writer, progress)
    }

    fn start(writer: Writer, progress: Arc<Progress>) -> Result<AuditFile, OpenError> {
        let (requests, receiver) = mpsc::channel(WAITING_MAX);
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(receiver))?;
        Ok(AuditFile { requests, repeats: Mutex::default(), progress, failing: AtomicBool::new(false) })
    }

    /// The last durable record, to be anchored in the journal (I17) and given to [`verify`].
    pub fn head(&self) -> Head {
        self.progress.head()
    }

    /// Writes with fsync so far: how well callers share them.
    pub fn syncs(&self) -> u64 {
        self.progress.syncs()
    }

    /// Writes the repetitions counted since the last flush, one record each. To be called every minute and before the end.
    ///
    /// # Errors
    /// [`AuditError`]: the counts are kept for the next flush.
    pub async fn flush_repeats(&self, at: Timestamp) -> Result<(), AuditError> {
        let taken = std::mem::take(&mut *self.repeats.lock().unwrap_or_else(PoisonError::into_inner));
        let entries = taken.entries(at);
        let outcome = if entries.is_empty() { Ok(()) } else { self.submit(entries).await };
        if outcome.is_err() {
            self.repeats.lock().unwrap_or_else(PoisonError::into_inner).merge(taken);
        }
        outcome
    }

    async fn submit(&self, entries: Vec<Entry>) -> Result<(), AuditError> {
        let (done, outcome) = oneshot::channel();
        let sent = self.requests.send(Request { entries, done }).await.map_err(|_| AuditError);
        let outcome = if sent.is_ok() { outcome.await.unwrap_or(Err(AuditError)) } else { Err(AuditError) };
        self.failing.store(outcome.is_err(), Ordering::Relaxed);
        outcome
    }
}

#[async_trait]
impl Audit for AuditFile {
    async fn record(&self, at: Timestamp, action: Action) -> Result<(), AuditError> {
        self.submit(vec![Entry { at, action, count: None }]).await
    }

    fn repeated(&self, action: Action) {
        let key = RepeatKey { actor: action.actor, action: action.action, credential: action.credential, version: action.version };
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner).add(key, 1);
    }

    fn is_writing(&self) -> bool {
        !self.failing.load(Ordering::Relaxed)
    }

    fn anchor(&self) -> Option<Anchor> {
        let Head { seq, hash } = self.head();
        (seq > 0).then_some(Anchor { record: seq, hash })
    }
}

impl Repeats {
    fn add(&mut self, key: RepeatKey, count: u64) {
        let room = self.counts.len() < REPEATS_MAX;
        match self.counts.get_mut(&key) {
            Some(counted) => *counted = counted.saturating_add(count),
            None if room => drop(self.counts.insert(key, count)),
            None => self.others = self.others.saturating_add(count),
        }
    }

    fn merge(&mut self, other: Repeats) {
        self.others = self.others.saturating_add(other.others);
        for (key, count) in other.counts {
            self.add(key, count);
        }
    }

    fn entries(&self, at: Timestamp) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.counts.iter().map(|(key, count)| key.entry(at, *count)).collect();
        entries.sort_by(|a, b| (&a.action.credential, &a.action.version).cmp(&(&b.action.credential, &b.action.version)));
        if self.others > 0 {
            let detail = Some("too many different ones to count one by one".to_owned());
            let action = Action { actor: Actor::Daemon, action: "other-repetitions".to_owned(), credential: None, version: None, detail };
            entries.push(Entry { at, action, count: Some(self.others) });
        }
        entries
    }
}

impl RepeatKey {
    fn entry(&self, at: Timestamp, count: u64) -> Entry {
        let RepeatKey { actor, action, credential, version } = self.clone();
        Entry { at, action: Action { actor, action, credential, version, detail: None }, count: Some(count) }
    }
}
