//! One thread writes: operations that arrive while it commits share the next transaction, and are answered after its commit.
//!
//! Each operation looks before it writes, within the transaction: what is refused has written nothing, so that it doesn't fail the others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use redb::{Database, Durability, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::rows::Broken;
use crate::sealing::Keyring;

/// How many operations wait at most; more wait at the door.
const QUEUE_MAX: usize = 1024;
/// How many share one transaction at most.
const BATCH_MAX: usize = 512;

const STOPPED: Broken = Broken::Away("the writer stopped");

/// An operation: looks, then writes. `Err` in the inner result is its own refusal.
pub(crate) trait Operation: Send {
    /// # Errors
    /// [`Broken`] unless [`Broken::Row`]: the whole batch is given up.
    fn perform(&mut self, transaction: &WriteTransaction, keyring: &Keyring) -> Result<(), Broken>;

    fn answer(self: Box<Self>, committed: Result<(), Broken>);
}

struct Asked<W, R> {
    work: Option<W>,
    outcome: Option<Result<R, Broken>>,
    reply: oneshot::Sender<Result<R, Broken>>,
}

impl<W, R> Operation for Asked<W, R>
where
    W: FnOnce(&WriteTransaction, &Keyring) -> Result<R, Broken> + Send,
    R: Send,
{
    fn perform(&mut self, transaction: &WriteTransaction, keyring: &Keyring) -> Result<(), Broken> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let outcome = work(transaction, keyring);
        let fatal = outcome.as_ref().err().copied().filter(|broken| !matches!(broken, Broken::Row(_)));
        self.outcome = Some(outcome);
        fatal.map_or(Ok(()), Err)
    }

    fn answer(self: Box<Self>, committed: Result<(), Broken>) {
        let Asked { outcome, reply, .. } = *self;
        let outcome = committed.and_then(|()| outcome.unwrap_or(Err(STOPPED)));
        // Who asked may have gone: the effect stays.
        drop(reply.send(outcome));
    }
}

/// The writer's end, and its thread. Dropped, it finishes what was asked, then the thread ends.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Operation>>>,
    thread: Option<JoinHandle<()>>,
    commits: Arc<AtomicU64>,
}

impl Writer {
    pub(crate) fn start(database: Arc<Database>, keyring: Arc<Keyring>) -> std::io::Result<Writer> {
        let (queue, asked) = mpsc::channel(QUEUE_MAX);
        let commits = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&commits);
        let run = move || run(&database, &keyring, asked, &counted);
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(run)?;
        Ok(Writer { queue: Some(queue), thread: Some(thread), commits })
    }

    /// Transactions committed so far.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(crate) async fn ask<R: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction, &Keyring) -> Result<R, Broken> + Send + 'static,
    ) -> Result<R, Broken> {
        let (reply, answer) = oneshot::channel();
        let operation = Box::new(Asked { work: Some(work), outcome: None, reply });
        let queue = self.queue.as_ref().ok_or(STOPPED)?;
        queue.send(operation).await.map_err(|_| STOPPED)?;
        answer.await.map_err(|_| STOPPED)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run(database: &Database, keyring: &Keyring, mut asked: mpsc::Receiver<Box<dyn Operation>>, commits: &AtomicU64) {
    while let Some(first) = asked.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX {
            let Ok(next) = asked.try_recv() else { break };
            batch.push(next);
        }
        // A damaged page can make the library panic: whoever asked is answered, and the next one may fare better.
        let attempt = catch_unwind(AssertUnwindSafe(|| commit(database, keyring, &mut batch)));
        let committed = attempt.unwrap_or(Err(Broken::File("the file can't be read")));
        if committed.is_ok() {
            commits.fetch_add(1, Ordering::Relaxed);
        }
        batch.into_iter().for_each(|operation| operation.answer(committed));
    }
}

fn commit(database: &Database, keyring: &Keyring, batch: &mut [Box<dyn Operation>]) -> Result<(), Broken> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate).map_err(|_| Broken::Away("the file can't be written durably"))?;
    // The commit before stays whole until this one is on the disk, whatever a torn write leaves.
    transaction.set_two_phase_commit(true);
    for operation in batch {
        operation.perform(&transaction, keyring)?;
    }
    Ok(transaction.commit()?)
}
