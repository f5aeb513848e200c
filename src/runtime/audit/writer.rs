//! The one thread that writes: many waiting callers share one write and one fsync.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustix::fs::OFlags;
use tokio::sync::{mpsc, oneshot};

use super::OpenError;
use super::chain::{VerifyError, tail};
use super::record::{Entry, Head, append};
use crate::engine::audit::{Action, Actor, AuditError};

/// Most entries in one write, which then has some MiB.
const BATCH_ENTRIES_MAX: usize = 16_384;

/// Entries that become durable together, and where to say so.
pub(super) struct Request {
    pub(super) entries: Vec<Entry>,
    pub(super) done: oneshot::Sender<Result<(), AuditError>>,
}

/// What others may see of the writer.
#[derive(Debug, Default)]
pub(super) struct Progress {
    head: Mutex<Head>,
    syncs: AtomicU64,
}

impl Progress {
    pub(super) fn head(&self) -> Head {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

/// The open file, and how far it is known to be durable.
pub(super) struct Writer {
    path: PathBuf,
    /// `None` after a failure: what the file ends with isn't known, so nothing may be chained to it.
    pub(super) file: Option<File>,
    head: Head,
    durable_bytes: u64,
    /// The last commit failed: said once, not for each of many callers.
    failing: bool,
    progress: Arc<Progress>,
}

impl Writer {
    /// Opens the trail, removes a torn last line, and records that.
    pub(super) fn open(path: &Path, at: Timestamp, progress: Arc<Progress>) -> Result<Writer, OpenError> {
        let mut file = open_locked(path)?;
        let tail = tail(&mut file)?;
        let (head, durable_bytes) = (tail.head, tail.whole_bytes);
        let mut writer = Writer { path: path.to_owned(), file: Some(file), head, durable_bytes, failing: false, progress };
        if tail.torn_bytes > 0 {
            writer.cut()?;
            let entry = own_entry(at, "torn-line-removed", format!("{} bytes without a newline", tail.torn_bytes));
            writer.write(&[entry])?;
        }
        writer.publish();
        Ok(writer)
    }

    /// Serves requests until nobody is left to ask.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut batch = vec![first];
            let mut size = batch[0].entries.len();
            while size < BATCH_ENTRIES_MAX {
                let Ok(next) = requests.try_recv() else { break };
                size += next.entries.len();
                batch.push(next);
            }
            let outcome = self.commit(&batch);
            for request in batch {
                // A caller that went away doesn't need the answer; its record stands.
                let _gone = request.done.send(outcome);
            }
        }
    }

    pub(super) fn commit(&mut self, batch: &[Request]) -> Result<(), AuditError> {
        let outcome = self.try_commit(batch);
        match (&outcome, self.failing) {
            (Err(reason), false) => tracing::error!(%reason, "the audit trail can't be written: changes and first disclosures are refused"),
            (Ok(()), true) => tracing::info!("the audit trail is written again"),
            _ => {}
        }
        self.failing = outcome.is_err();
        outcome.map_err(|_| AuditError)
    }

    fn try_commit(&mut self, batch: &[Request]) -> Result<(), OpenError> {
        let mut entries: Vec<Entry> = batch.iter().flat_map(|request| &request.entries).cloned().collect();
        let Some(first) = entries.first() else { return Ok(()) };
        if self.file.is_none() {
            let removed = self.reopen()?;
            entries.insert(0, own_entry(first.at, "trail-reopened", format!("{removed} unacknowledged bytes removed")));
        }
        if let Err(error) = self.write(&entries) {
            // Closing also gives the lock up, so that the file can be opened again.
            self.file = None;
            return Err(error.into());
        }
        self.publish();
        Ok(())
    }

    fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        let Some(file) = self.file.as_mut() else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut lines = Vec::new();
        let mut head = self.head.clone();
        for entry in entries {
            append(&mut lines, &mut head, entry).ok_or(io::ErrorKind::InvalidInput)?;
        }
        let metadata = file.metadata()?;
        if metadata.nlink() == 0 || (metadata.is_file() && metadata.len() != self.durable_bytes) {
            // Deleted, truncated or written by somebody else: a record there would be lost, or would break the chain.
            return Err(io::ErrorKind::InvalidData.into());
        }
        file.write_all(&lines)?;
        file.sync_data()?;
        self.progress.syncs.fetch_add(1, Ordering::Relaxed);
        self.head = head;
        self.durable_bytes += lines.len() as u64;
        Ok(())
    }

    /// Opens the file again after a failure. What was written behind the last acknowledged record is cut off, even if it looks
    /// whole: after a failed fsync, what is read back is not what is on disk. Its callers were told that it isn't recorded.
    fn reopen(&mut self) -> Result<u64, OpenError> {
        let mut file = open_locked(&self.path)?;
        let length = file.metadata()?.len();
        let removed = length.checked_sub(self.durable_bytes).ok_or(OpenError::Replaced)?;
        file.set_len(self.durable_bytes)?;
        file.sync_all()?;
        let tail = tail(&mut file)?;
        if tail.head != self.head || tail.torn_bytes > 0 {
            return Err(OpenError::Replaced);
        }
        self.file = Some(file);
        Ok(removed)
    }

    fn cut(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.set_len(self.durable_bytes)?;
        file.sync_all()
    }

    fn publish(&self) {
        *self.progress.head.lock().unwrap_or_else(PoisonError::into_inner) = self.head.clone();
    }
}

fn own_entry(at: Timestamp, action: &str, detail: String) -> Entry {
    let action = Action { actor: Actor::Daemon, action: action.to_owned(), credential: None, version: None, detail: Some(detail) };
    Entry { at, action, count: None }
}

/// Never through a symlink, which could lead the trail elsewhere; never shared, because two writers would break the chain.
fn open_locked(path: &Path) -> Result<File, OpenError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path).map_err(|error| {
        if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) { OpenError::Symlink } else { error.into() }
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(OpenError::NotAFile);
    }
    file.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => OpenError::InUse,
        std::fs::TryLockError::Error(error) => error.into(),
    })?;
    if metadata.size() == 0 {
        // A new file's name must be as durable as its first record.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

impl From<VerifyError> for OpenError {
    fn from(error: VerifyError) -> OpenError {
        match error {
            VerifyError::Broken(broken) => OpenError::Broken(broken),
            VerifyError::Unreadable(kind) => OpenError::Unusable(kind),
        }
    }
}
