//! A new key-encryption key while the file is in use: first everything can be opened with it, then row by row is sealed with
//! it, then the former key goes.
//!
//! What comes next is read off the file and the key files alone, and each step is durable by itself: whoever goes on after a
//! crash does what the one before would have done.

mod key_files;
mod sweep;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::Embedded;
use super::keys::{self, Rewrap};
use super::rows::{Broken, META};
use crate::sealing::{KeyError, Keyring};
use key_files::Place;
use sweep::{Cursor, Swept};

/// Why a rewrap doesn't begin, or doesn't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewrapError {
    #[error("there is no new key in `{file}`: make one, for example `(umask 077; head -c 32 /dev/urandom > {file})`")]
    NoNewKey { file: PathBuf },
    #[error("the new key file `{file}` doesn't hold exactly 32 bytes: `head -c 32 /dev/urandom` makes a key")]
    BadNewKey { file: PathBuf },
    #[error("`{file}` holds the key that the store is sealed with already: name the file of a new one")]
    SameKey { file: PathBuf },
    #[error(
        "no new key can be put in the place of `{file}`, which is a link or can't be written: make one elsewhere, and name it with `--to`"
    )]
    NotOurs { file: PathBuf },
    #[error("a rewrap to the key of id {to} is under way: wait for its end, or name that key")]
    UnderWay { to: String },
    #[error("`key.file` doesn't hold the key of id {to} yet, which the rewrap before brought: point it at `{file}` first")]
    KeyFileIsOld { to: String, file: PathBuf },
    #[error(
        "what is kept of {credentials} is damaged and can't be sealed anew: restore it, or `keywright forget` it; until then the former key stays in the store, sealed with the new one"
    )]
    Damaged { credentials: String },
    #[error("`{file}` holds another key than the rewrap expects there: put it aside")]
    Foreign { file: PathBuf },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the store can't be read or written: {0}")]
    Store(&'static str),
}

impl From<Broken> for RewrapError {
    fn from(broken: Broken) -> RewrapError {
        match broken {
            Broken::Row(what) | Broken::File(what) | Broken::Away(what) => RewrapError::Store(what),
        }
    }
}

/// A key that is to come, read and checked.
#[derive(Debug)]
pub struct NewKey {
    keyring: Keyring,
    file: PathBuf,
    /// We made it, to take the place of the key file.
    replaces: bool,
}

impl NewKey {
    pub fn id(&self) -> String {
        self.keyring.id()
    }

    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// Where the last rewrap stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub from: String,
    pub to: String,
    /// Where the new key lies.
    pub file: PathBuf,
    /// Where the former key is kept, once we put the new one in its place.
    pub former_file: Option<PathBuf>,
    pub begun_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// `key.file` is still to hold the new key.
    pub awaits_key_file: bool,
    /// Free pages of the file may hold what was sealed with the former key; the next start writes the file anew.
    pub has_old_pages: bool,
}

/// One step. Each is durable by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Seal some rows anew.
    Reseal,
    /// No row is left: let the former key go.
    Finish,
    /// Give the former key's file a second name, for backups of its time.
    KeepFormer,
    /// Put the new key in the place of the key file.
    Replace,
    /// Note that the key file holds the new key.
    Settle,
    /// A person has to point `key.file` at the new key.
    AwaitKeyFile,
    /// There is nothing to do.
    Rest,
}

/// Takes a rewrap further. One at a time.
#[derive(Debug)]
pub struct Rewrapper {
    embedded: Embedded,
    cursor: Option<Cursor>,
    damaged: Vec<String>,
    /// A whole way through the tables found nothing more.
    is_swept: bool,
    left: u64,
}

impl Embedded {
    /// Reads a new key, with the checks that the key file is read with; without one, makes it beside the key file.
    ///
    /// # Errors
    /// [`RewrapError`].
    pub async fn new_key(&self, file: Option<PathBuf>) -> Result<NewKey, RewrapError> {
        let (key_file, id) = (Arc::clone(&self.key_file), self.keyring.id());
        let reading = tokio::task::spawn_blocking(move || key_files::new_key(&key_file, file));
        let key = reading.await.map_err(|_| RewrapError::Store("a key file can't be read"))??;
        if key.id() == id { Err(RewrapError::SameKey { file: key.file }) } else { Ok(key) }
    }

    /// From here on the new key opens everything, whatever happens.
    ///
    /// # Errors
    /// [`RewrapError::UnderWay`], [`RewrapError::KeyFileIsOld`]; [`RewrapError::Store`] may have begun it all the same.
    pub async fn begin_rewrap(&self, key: NewKey, at: Timestamp) -> Result<(), RewrapError> {
        let NewKey { keyring: next, file, replaces } = key;
        let next = Arc::new(next);
        let taking_over = Arc::clone(&next);
        let begun = self.write(move |transaction, keyring| {
            let (last, awaits) = {
                let meta = transaction.open_table(META)?;
                (keys::rewrap_of(&meta, keyring)?, keys::awaits_key_file(&meta)?)
            };
            match last {
                Some(Rewrap { finished_at: None, to, .. }) => return Ok(Err(RewrapError::UnderWay { to })),
                Some(Rewrap { to, file, .. }) if awaits => return Ok(Err(RewrapError::KeyFileIsOld { to, file })),
                _ => {}
            }
            let (from, to) = (keyring.id(), next.id());
            let rewrap = Rewrap { from, to, file, replaces, begun_at: at, finished_at: None, is_clean: false };
            keys::begin(transaction, keyring, &next, &rewrap)?;
            Ok(Ok(()))
        });
        begun.await??;
        self.keyring.succeed(&taking_over);
        Ok(())
    }

    /// `None` before the first rewrap.
    ///
    /// # Errors
    /// [`RewrapError::Store`].
    pub async fn rewrap_standing(&self) -> Result<Option<Standing>, RewrapError> {
        let Some((rewrap, awaits_key_file)) = self.last_rewrap().await? else { return Ok(None) };
        let former_file = (rewrap.replaces && !awaits_key_file).then(|| key_files::former(&self.key_file, &rewrap.from));
        let Rewrap { from, to, file, begun_at, finished_at, is_clean, .. } = rewrap;
        Ok(Some(Standing { from, to, file, former_file, begun_at, finished_at, awaits_key_file, has_old_pages: !is_clean }))
    }

    async fn last_rewrap(&self) -> Result<Option<(Rewrap, bool)>, RewrapError> {
        let read = self.read(|transaction, keyring| {
            let meta = transaction.open_table(META)?;
            let awaits = keys::awaits_key_file(&meta)?;
            Ok(keys::rewrap_of(&meta, keyring)?.map(|rewrap| (rewrap, awaits)))
        });
        Ok(read.await?)
    }
}

impl Rewrapper {
    pub fn new(embedded: Embedded) -> Rewrapper {
        Rewrapper { embedded, cursor: None, damaged: Vec::new(), is_swept: false, left: 0 }
    }

    /// How many rows are still under the former key, as last counted.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// What comes next. Changes nothing.
    ///
    /// # Errors
    /// [`RewrapError`]: it can't go on; asked again, it looks anew.
    pub async fn next(&mut self) -> Result<Step, RewrapError> {
        let Some((rewrap, awaits)) = self.embedded.last_rewrap().await? else { return Ok(Step::Rest) };
        if rewrap.finished_at.is_none() {
            if self.embedded.keyring.id() != rewrap.to {
                // It began, and whoever began it wasn't told: by our key no row would be left, and the former one must not go for that.
                return Err(RewrapError::Store("a rewrap began, and this process hasn't its key: start the daemon again"));
            }
            return self.next_of_rows().await;
        }
        if !awaits {
            return Ok(Step::Rest);
        }
        let place = self.place(rewrap);
        tokio::task::spawn_blocking(move || place.next()).await.map_err(|_| RewrapError::Store("a key file can't be read"))?
    }

    async fn next_of_rows(&mut self) -> Result<Step, RewrapError> {
        if self.is_swept {
            return Ok(Step::Finish);
        }
        if self.cursor.is_some() {
            return Ok(Step::Reseal);
        }
        self.left = self.embedded.read(sweep::count_left).await?;
        if self.left == 0 {
            self.is_swept = true;
            return Ok(Step::Finish);
        }
        if !self.damaged.is_empty() {
            let mut credentials = std::mem::take(&mut self.damaged);
            credentials.dedup();
            return Err(RewrapError::Damaged { credentials: credentials.join(", ") });
        }
        self.cursor = Some(Cursor::default());
        Ok(Step::Reseal)
    }

    /// Does one step. Done again after a crash, it does no harm.
    ///
    /// # Errors
    /// [`RewrapError`].
    pub async fn perform(&mut self, step: Step, at: Timestamp) -> Result<(), RewrapError> {
        let Some((rewrap, _)) = self.embedded.last_rewrap().await? else { return Ok(()) };
        match step {
            Step::Reseal => self.reseal().await,
            Step::Finish => {
                let rewrap = Rewrap { finished_at: Some(at), ..rewrap };
                Ok(self.embedded.write(move |transaction, keyring| keys::finish(transaction, keyring, &rewrap)).await?)
            }
            Step::KeepFormer | Step::Replace => {
                let place = self.place(rewrap);
                let work = move || if step == Step::KeepFormer { place.keep_former() } else { place.replace() };
                tokio::task::spawn_blocking(work).await.map_err(|_| RewrapError::Store("a key file can't be written"))?
            }
            Step::Settle => {
                let key_file = Arc::clone(&self.embedded.key_file);
                let syncing = tokio::task::spawn_blocking(move || key_files::make_durable(&key_file));
                syncing.await.map_err(|_| RewrapError::Store("a key file can't be written"))??;
                let rewrap = Rewrap { file: self.embedded.key_file.to_path_buf(), ..rewrap };
                Ok(self.embedded.write(move |transaction, keyring| keys::settle(transaction, keyring, &rewrap)).await?)
            }
            Step::AwaitKeyFile | Step::Rest => Ok(()),
        }
    }

    async fn reseal(&mut self) -> Result<(), RewrapError> {
        let from = self.cursor.clone().unwrap_or_default();
        let swept = self.embedded.write(move |transaction, keyring| sweep::sweep(transaction, keyring, &from)).await;
        let Swept { resealed, damaged, next } = swept.inspect_err(|_| self.cursor = None)?;
        self.left = self.left.saturating_sub(resealed);
        self.damaged.extend(damaged);
        self.cursor = next;
        Ok(())
    }

    fn place(&self, rewrap: Rewrap) -> Place {
        Place { key_file: self.embedded.key_file.to_path_buf(), rewrap }
    }
}
