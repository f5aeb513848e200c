//! A copy of the file while it is in use, and the way back. What comes back is another installation: it knows that it doesn't know
//! what happened since (I8, I10).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Builder, Durability, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use uuid::Uuid;

use super::open::{self, FILE_NAME, OpenError};
use super::rows::{ALL_ROWS, Broken, EVENTS};
use super::{Embedded, Standing};
use crate::domain::ids::InstallationId;
use crate::journal::embedded::{renew, standing};
use crate::sealing::{KeyError, Keyring};

/// A copy is made ready under this name, and takes its place by a rename.
const RESTORED_NAME: &str = "keywright.redb.restored";

/// What is to come back, and where.
#[derive(Debug, Clone, Copy)]
pub struct Restore<'a> {
    pub directory: &'a Path,
    pub key_file: &'a Path,
    /// `None`: the store that lies there was put back by hand, and is taken for a backup.
    pub backup: Option<&'a Path>,
    /// A store that lies there is put aside.
    pub force: bool,
    /// The audit trail of the backup is still there.
    pub has_trail: bool,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    pub installation: InstallationId,
    pub credentials: usize,
    /// Where the store lies that was there before.
    pub replaced: Option<PathBuf>,
}

/// Why nothing came back. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("there is a store in `{file}` already: choose another folder, or say `--force` to put it aside")]
    Occupied { file: PathBuf },
    #[error("there is no store in `{file}`: name the backup that is to come back")]
    Nothing { file: PathBuf },
    #[error("the key file `{file}` is missing: put that of the backup there; it isn't part of a backup")]
    NoKey { file: PathBuf },
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Embedded {
    /// A copy of everything as it is now, sealed as it is, in a file that has no name any more. The daemon goes on meanwhile.
    pub async fn snapshot(&self) -> io::Result<File> {
        let (database, directory) = (self.database.clone(), self.directory.clone());
        let copying = tokio::task::spawn_blocking(move || {
            let path = directory.join(format!("{FILE_NAME}.{}", Uuid::new_v4().simple()));
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            // Without a name from here on: whatever happens, nothing is left over.
            fs::remove_file(&path)?;
            let mut copy = file.try_clone()?;
            let fill = || -> Result<(), Broken> {
                let target = Builder::new().create_file(file).map_err(open::database_error)?;
                let mut writing = target.begin_write()?;
                writing.set_durability(Durability::Immediate).map_err(|_| Broken::Away("the copy can't be written durably"))?;
                copy_all(&database.begin_read()?, &writing)?;
                Ok(writing.commit()?)
            };
            fill().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            copy.seek(SeekFrom::Start(0))?;
            Ok(copy)
        });
        copying.await.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?
    }

    /// Which installation this is, and how far it has come.
    ///
    /// # Errors
    /// As a sentence, where the file can't be read.
    pub async fn standing(&self) -> Result<Standing, &'static str> {
        self.read(standing).await.map_err(|broken| match broken {
            Broken::Row(what) | Broken::File(what) | Broken::Away(what) => what,
        })
    }
}

pub(super) fn copy_all(from: &ReadTransaction, to: &WriteTransaction) -> Result<(), Broken> {
    for rows in ALL_ROWS {
        let mut target = to.open_table(rows)?;
        for row in from.open_table(rows)?.iter()? {
            let (at, value) = row?;
            target.insert(at.value(), value.value())?;
        }
    }
    let mut target = to.open_table(EVENTS)?;
    for row in from.open_table(EVENTS)?.iter()? {
        let (at, value) = row?;
        target.insert(at.value(), value.value())?;
    }
    Ok(())
}

/// Puts a backup in the place of a store, as another installation. Everything is made ready beside it; one rename decides.
///
/// # Errors
/// [`RestoreError`]; nothing has changed then.
pub fn restore(asked: &Restore<'_>) -> Result<Restored, RestoreError> {
    open::prepare_directory(asked.directory)?;
    let _lock = open::lock_directory(asked.directory)?;
    let (file, ready) = (asked.directory.join(FILE_NAME), asked.directory.join(RESTORED_NAME));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| OpenError::Unreadable { path: path.clone(), kind: error.kind() }
    };
    let exists = file.try_exists().map_err(failed(&file))?;
    match asked.backup {
        Some(_) if exists && !asked.force => return Err(RestoreError::Occupied { file }),
        None if !exists => return Err(RestoreError::Nothing { file }),
        _ => {}
    }
    let keyring = Keyring::read(asked.key_file).map_err(|error| match error {
        KeyError::Missing { file } => RestoreError::NoKey { file },
        error => OpenError::from(error).into(),
    })?;
    let source = asked.backup.unwrap_or(&file);
    let copied = copy_file(source, &ready).map_err(failed(source));
    // A damaged page can make the library panic: that is a damaged backup, and its copy is removed like any other.
    let prepare = || make_ready(&ready, asked, keyring);
    let prepared = copied.and_then(|()| {
        let damaged = || Err(OpenError::Damaged { file: source.to_owned(), what: "it can't be read" });
        catch_unwind(AssertUnwindSafe(prepare)).unwrap_or_else(|_| damaged())
    });
    let (installation, credentials) = match prepared {
        Ok(renewed) => renewed,
        Err(error) => {
            drop(fs::remove_file(&ready));
            return Err(error.into());
        }
    };
    let replaced = exists.then(|| put_aside(asked.directory, &file)).transpose().map_err(failed(&file))?;
    fs::rename(&ready, &file).and_then(|()| File::open(asked.directory)?.sync_all()).map_err(failed(&file))?;
    Ok(Restored { installation, credentials, replaced })
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut File::open(from)?, &mut target)?;
    target.sync_all()
}

fn make_ready(ready: &Path, asked: &Restore<'_>, keyring: Keyring) -> Result<(InstallationId, usize), OpenError> {
    let (database, keyring) = open::open_checked(ready, asked.key_file, keyring)?;
    let renewed = || -> Result<_, Broken> {
        let mut transaction = database.begin_write()?;
        transaction.set_two_phase_commit(true);
        let renewed = renew(&transaction, &keyring, asked.has_trail)?;
        transaction.commit()?;
        Ok(renewed)
    };
    renewed().map_err(|broken| open::open_error(ready, broken))
}

/// The store that was there keeps its bytes under another name; its place is never empty.
fn put_aside(directory: &Path, file: &Path) -> io::Result<PathBuf> {
    for number in 1_u32.. {
        let aside = directory.join(format!("{FILE_NAME}.replaced-{number}"));
        match fs::hard_link(file, &aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
