//! Opening the file: who may read it, that nobody else has it open, that it is whole, and that the key is the right one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use redb::{Builder, Database, DatabaseError, StorageError};

use super::clean;
use super::header;
use super::keys::{self, Since};
use super::rows::{ALL_ROWS, Broken, EVENTS, META};
use crate::sealing::{KeyError, Keyring};

/// The file's name in the data directory.
pub const FILE_NAME: &str = "keywright.redb";
/// The store is made, or made anew, under this name and then renamed: a file under its own name is never half made.
pub(super) const UNFINISHED_NAME: &str = "keywright.redb.new";
/// Bytes of pages kept in memory.
const CACHE_BYTES: usize = 64 << 20;

/// Why the embedded store can't be opened. Each says the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the data directory `{directory}` may be written by others: give it to the daemon's user with `chown`, and `chmod 700` it")]
    Exposed { directory: PathBuf },
    #[error("the store in `{directory}` is open in another process: stop that one, or choose another directory")]
    AlreadyOpen { directory: PathBuf },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(
        "the store `{file}` was sealed with the key of id {needed}{since}, and that in `{key_file}` is {found}: put the right key back from your backup"
    )]
    WrongKey { file: PathBuf, key_file: PathBuf, needed: String, found: String, since: Since },
    #[error(
        "the store `{file}` is sealed with the key of id {needed} since the rewrap of {begun_at}, and `{key_file}` holds the former one: put the new key back as `{new_key}`, or where `key.file` says"
    )]
    NewKeyMissing { file: PathBuf, key_file: PathBuf, new_key: PathBuf, needed: String, begun_at: Timestamp },
    #[error("the store `{file}` is damaged ({what}): restore it from a backup, then look for newer versions at the providers")]
    Damaged { file: PathBuf, what: &'static str },
    #[error("could not read or write `{path}`: {kind}")]
    Unreadable { path: PathBuf, kind: io::ErrorKind },
}

pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) keyring: Keyring,
    pub(super) lock: File,
}

pub(super) fn open(directory: &Path, key_file: &Path) -> Result<Opened, OpenError> {
    prepare_directory(directory)?;
    let lock = lock_directory(directory)?;
    let file = directory.join(FILE_NAME);
    let exists = file.try_exists().map_err(|error| unreadable(&file, &error))?;
    let keyring = if exists { Keyring::read(key_file)? } else { Keyring::read_or_create(key_file)? };
    if !exists {
        create(directory, &keyring)?;
    }
    restrict(&file)?;
    // A damaged page can make the library panic; the lock is held here, so that a file given up half-way stays ours.
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let opened = open_checked(&file, key_file, keyring)?;
        clean::without_old_pages(directory, &file, key_file, opened)
    }));
    let (database, keyring) = attempt.unwrap_or(Err(OpenError::Damaged { file, what: "it can't be read" }))?;
    Ok(Opened { database, keyring, lock })
}

pub(super) fn prepare_directory(directory: &Path) -> Result<(), OpenError> {
    let failed = |error: io::Error| unreadable(directory, &error);
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let metadata = fs::metadata(directory).map_err(failed)?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if metadata.is_dir() && ours && metadata.mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(OpenError::Exposed { directory: directory.to_owned() })
    }
}

/// Taken on the directory, before the file is looked at: redb has a lock of its own, but it is on a file that may not exist yet.
pub(super) fn lock_directory(directory: &Path) -> Result<File, OpenError> {
    let lock = File::open(directory).map_err(|error| unreadable(directory, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::AlreadyOpen { directory: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(unreadable(directory, &error)),
    }
}

fn create(directory: &Path, keyring: &Keyring) -> Result<(), OpenError> {
    let (unfinished, file) = (directory.join(UNFINISHED_NAME), directory.join(FILE_NAME));
    let failed = |error: io::Error| unreadable(&unfinished, &error);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
    let (at, check) = keys::first_check(keyring).map_err(KeyError::from)?;
    let fill = || -> Result<(), Broken> {
        let database = Builder::new().create_file(created).map_err(database_error)?;
        let mut transaction = database.begin_write()?;
        transaction.set_two_phase_commit(true);
        for rows in ALL_ROWS {
            transaction.open_table(rows)?;
        }
        transaction.open_table(EVENTS)?;
        transaction.open_table(META)?.insert(at, check.0.as_slice())?;
        Ok(transaction.commit()?)
    };
    fill().map_err(|broken| open_error(&unfinished, broken))?;
    fs::rename(&unfinished, &file).and_then(|()| File::open(directory)?.sync_all()).map_err(failed)
}

/// Values are sealed, names aren't: nobody else reads them. A backup may come back with a wider mode.
fn restrict(file: &Path) -> Result<(), OpenError> {
    let failed = |error: io::Error| unreadable(file, &error);
    let metadata = fs::symlink_metadata(file).map_err(failed)?;
    if !metadata.is_file() {
        return Err(OpenError::Damaged { file: file.to_owned(), what: "it is no regular file" });
    }
    if metadata.mode() & 0o777 != 0o600 {
        fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    }
    Ok(())
}

/// Every page is looked at, and whether the key is the right one. What comes back opens all of it.
pub(super) fn open_checked(file: &Path, key_file: &Path, keyring: Keyring) -> Result<(Database, Keyring), OpenError> {
    let damaged = |what| OpenError::Damaged { file: file.to_owned(), what };
    if fs::metadata(file).map_err(|error| unreadable(file, &error))?.len() == 0 {
        // redb would take it for a new one.
        return Err(damaged("it is empty"));
    }
    header::prefer_newest_commit(file).map_err(|error| unreadable(file, &error))?;
    let opened = Builder::new().set_cache_size(CACHE_BYTES).open(file);
    let mut database = opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::AlreadyOpen { directory: file.parent().unwrap_or(file).to_owned() },
        error => open_error(file, database_error(error)),
    })?;
    // Every page against its checksum: a bit that flipped while we were away is found now, not when its page is needed.
    database.check_integrity().map_err(|error| open_error(file, database_error(error)))?;
    let keyring = keys::unlock(&database, file, key_file, keyring)?;
    Ok((database, keyring))
}

pub(super) fn database_error(error: DatabaseError) -> Broken {
    match error {
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => Broken::File("it is no store"),
        DatabaseError::Storage(error) => error.into(),
        DatabaseError::UpgradeRequired(_) => Broken::File("it is of an older format"),
        _ => Broken::File("it can't be repaired"),
    }
}

pub(super) fn open_error(path: &Path, broken: Broken) -> OpenError {
    match broken {
        Broken::Row(what) | Broken::File(what) => OpenError::Damaged { file: path.to_owned(), what },
        Broken::Away(_) => OpenError::Unreadable { path: path.to_owned(), kind: io::ErrorKind::Other },
    }
}

fn unreadable(path: &Path, error: &io::Error) -> OpenError {
    OpenError::Unreadable { path: path.to_owned(), kind: error.kind() }
}
