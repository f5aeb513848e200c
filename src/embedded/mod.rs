//! The one file of the embedded store and journal, so that a stage and its journal are kept, lost and restored together.
//!
//! **Architecture invariant:** nothing secret lies in it in clear, and nothing in it is believed unchecked: values are sealed,
//! every other row carries a keyed code, the events of a journal are chained.

mod backup;
mod clean;
#[cfg(test)]
mod fuzz;
mod header;
mod keys;
mod open;
mod rewrap;
pub(crate) mod rows;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod torn;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::journal::embedded::EmbeddedJournal;
use crate::sealing::Keyring;
use crate::stores::embedded::EmbeddedStore;
use rows::Broken;
use writer::Writer;

pub use crate::journal::embedded::Standing;
pub use backup::{Restore, RestoreError, Restored, restore};
pub use open::{FILE_NAME, OpenError};
pub use rewrap::{NewKey, RewrapError, Rewrapper, Standing as RewrapStanding, Step as RewrapStep};

/// The open file. Its copies are the same file; it is closed with the last of them, and of the stores and journals made of it.
#[derive(Clone)]
pub struct Embedded {
    // Dropped in this order: the writer finishes first, the lock goes last.
    writer: Arc<Writer>,
    database: Arc<Database>,
    keyring: Arc<Keyring>,
    directory: Arc<Path>,
    key_file: Arc<Path>,
    _lock: Arc<File>,
}

impl Embedded {
    /// Opens the store of a data directory, or makes both if there is none. Reads the whole file once to see that it is sound.
    /// Blocks.
    ///
    /// # Errors
    /// [`OpenError`]: each says what is wrong with which file, and the way out.
    pub fn open(directory: &Path, key_file: &Path) -> Result<Embedded, OpenError> {
        let opened = open::open(directory, key_file)?;
        let database = Arc::new(opened.database);
        let keyring = Arc::new(opened.keyring);
        let writer = Writer::start(Arc::clone(&database), Arc::clone(&keyring));
        let writer = writer.map_err(|error| OpenError::Unreadable { path: directory.join(FILE_NAME), kind: error.kind() })?;
        let (directory, key_file) = (directory.into(), key_file.into());
        Ok(Embedded { writer: Arc::new(writer), database, keyring, directory, key_file, _lock: Arc::new(opened.lock) })
    }

    pub fn store(&self) -> EmbeddedStore {
        EmbeddedStore::new(self.clone())
    }

    pub fn journal(&self) -> EmbeddedJournal {
        EmbeddedJournal::new(self.clone())
    }

    /// What the store is sealed with; also gives fingerprints.
    pub fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring)
    }

    /// Durable transactions so far: many operations share one.
    pub fn commits(&self) -> u64 {
        self.writer.commits()
    }

    /// Reads in a snapshot of its own, off the async threads.
    pub(crate) async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction, &Keyring) -> Result<R, Broken> + Send + 'static,
    ) -> Result<R, Broken> {
        let (database, keyring) = (Arc::clone(&self.database), Arc::clone(&self.keyring));
        let reading = tokio::task::spawn_blocking(move || work(&database.begin_read()?, &keyring));
        // A damaged page can make the library panic: that is damage, not our end.
        reading.await.map_err(|_| Broken::File("the file can't be read"))?
    }

    /// Looks and writes in a transaction that is durable when this returns. The work must not write before it has looked: if it
    /// answers with a refusal of its own, what it wrote would be kept.
    pub(crate) async fn write<R: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction, &Keyring) -> Result<R, Broken> + Send + 'static,
    ) -> Result<R, Broken> {
        self.writer.ask(work).await
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("keyring", &self.keyring).finish_non_exhaustive()
    }
}
