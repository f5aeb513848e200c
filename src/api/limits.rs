//! Bounds on what one identity, and all together, may have open at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// The bounds of the server. The defaults are the contract's; tests make them small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, for each listener on its own: a flood over TCP doesn't keep operators off the socket.
    pub connections: usize,
    /// Open event streams of one identity: of all running copies of an application together.
    pub streams_per_identity: usize,
    /// Open event streams of all; fewer than the connections, so that requests always find room beside them.
    pub streams: usize,
    /// Requests under way of one identity.
    pub requests_per_identity: usize,
    /// For the TLS handshake, where there is one.
    pub handshake_timeout: Duration,
    /// For the head of a request, idle time before it included.
    pub header_timeout: Duration,
    /// For the whole body of a request.
    pub body_timeout: Duration,
    /// How long a reader may take nothing at all before it is cut off.
    pub write_timeout: Duration,
    /// Comment lines keep a silent stream alive; the contract promises one every 15 s.
    pub comment_every: Duration,
    /// The first wait after a read for a stream failed; doubles up to 32 times itself.
    pub retry_first: Duration,
    /// What may still be under way this long after a stop; then it is cut off.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1024,
            streams_per_identity: 256,
            streams: 768,
            requests_per_identity: 64,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            comment_every: Duration::from_secs(10),
            retry_first: Duration::from_millis(250),
            drain: Duration::from_secs(5),
        }
    }
}

/// Counts what is open.
#[derive(Debug)]
pub(super) struct Counters {
    requests: Arc<PerIdentity>,
    streams: Arc<PerIdentity>,
    all_streams: Arc<Semaphore>,
}

/// One thing that is open, until dropped.
#[derive(Debug)]
pub(super) struct Permit {
    counter: Arc<PerIdentity>,
    key: String,
    _shared: Option<OwnedSemaphorePermit>,
}

/// Has an entry only for who has something open, so it can't grow beyond what is open.
#[derive(Debug)]
struct PerIdentity {
    max: usize,
    open: Mutex<BTreeMap<String, usize>>,
}

impl Counters {
    pub(super) fn new(limits: &Limits) -> Counters {
        let per_identity = |max| Arc::new(PerIdentity { max, open: Mutex::default() });
        Counters {
            requests: per_identity(limits.requests_per_identity),
            streams: per_identity(limits.streams_per_identity),
            all_streams: Arc::new(Semaphore::new(limits.streams)),
        }
    }

    /// # Errors
    /// `too-many`.
    pub(super) fn request(&self, key: String) -> Result<Permit, Problem> {
        enter(&self.requests, key, None)
    }

    /// # Errors
    /// `too-many`.
    pub(super) fn stream(&self, key: String) -> Result<Permit, Problem> {
        let shared = self.all_streams.clone().try_acquire_owned().map_err(|_| Problem::too_many())?;
        enter(&self.streams, key, Some(shared))
    }
}

fn enter(counter: &Arc<PerIdentity>, key: String, shared: Option<OwnedSemaphorePermit>) -> Result<Permit, Problem> {
    let mut open = counter.open.lock().unwrap_or_else(PoisonError::into_inner);
    let count = open.get(&key).copied().unwrap_or(0);
    if count >= counter.max {
        return Err(Problem::too_many());
    }
    open.insert(key.clone(), count + 1);
    drop(open);
    Ok(Permit { counter: counter.clone(), key, _shared: shared })
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.counter.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_limits_are_per_identity_and_leave_nothing_behind() {
        let limits = Limits { streams_per_identity: 2, streams: 3, ..Limits::default() };
        let counters = Counters::new(&limits);
        let open: Vec<Permit> = (0..2).map(|_| counters.stream("a".to_owned()).unwrap()).collect();
        assert!(counters.stream("a".to_owned()).is_err());
        let other = counters.stream("b".to_owned()).unwrap();
        assert!(counters.stream("c".to_owned()).is_err());
        drop((open, other));
        assert!(counters.streams.open.lock().unwrap().is_empty());
        assert!(counters.stream("c".to_owned()).is_ok());
    }
}
