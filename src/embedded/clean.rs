//! The file written anew, once a rewrap is finished: pages that are free again keep what was written in them, so what the former
//! key sealed would lie there until it is written over. Only at a start, when nobody reads or writes.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::{Builder, Database, Durability, ReadableDatabase};

use super::backup::copy_all;
use super::keys::{self, Rewrap};
use super::open::{OpenError, UNFINISHED_NAME, database_error, open_checked};
use super::rows::{Broken, META};
use crate::sealing::Keyring;

/// The same store, without what free pages hold. Where there is no room for a copy, it stays as it is, until the next start.
///
/// # Errors
/// [`OpenError`]: as for any store that is opened.
pub(super) fn without_old_pages(
    directory: &Path,
    file: &Path,
    key_file: &Path,
    opened: (Database, Keyring),
) -> Result<(Database, Keyring), OpenError> {
    let (database, keyring) = opened;
    let unfinished = directory.join(UNFINISHED_NAME);
    match copy(&database, &keyring, &unfinished) {
        Ok(false) => return Ok((database, keyring)),
        Ok(true) => {}
        Err(_) => {
            drop(fs::remove_file(&unfinished));
            return Ok((database, keyring));
        }
    }
    drop(database);
    let renamed = fs::rename(&unfinished, file).and_then(|()| File::open(directory)?.sync_all());
    renamed.map_err(|error| OpenError::Unreadable { path: file.to_owned(), kind: error.kind() })?;
    open_checked(file, key_file, keyring)
}

/// Whether there was anything to do.
fn copy(database: &Database, keyring: &Keyring, to: &Path) -> Result<bool, Broken> {
    const NO_ROOM: Broken = Broken::Away("the copy can't be made");
    let reading = database.begin_read()?;
    let rewrap = keys::rewrap_of(&reading.open_table(META)?, keyring)?;
    let Some(rewrap @ Rewrap { finished_at: Some(_), is_clean: false, .. }) = rewrap else { return Ok(false) };
    // Of a start that was cut off.
    match fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(NO_ROOM),
        _ => {}
    }
    let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(to).map_err(|_| NO_ROOM)?;
    let target = Builder::new().create_file(created).map_err(database_error)?;
    let mut writing = target.begin_write()?;
    writing.set_durability(Durability::Immediate).map_err(|_| NO_ROOM)?;
    writing.set_two_phase_commit(true);
    copy_all(&reading, &writing)?;
    keys::put_rewrap(&writing, keyring, &Rewrap { is_clean: true, ..rewrap })?;
    writing.commit()?;
    Ok(true)
}
