//! The key files of a rewrap: a new one is read or made, and, where we made it, takes the place of the former one.
//!
//! The key file's own place is never empty, and the former key isn't destroyed: backups of its time open with nothing else.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{NewKey, RewrapError, Step};
use crate::embedded::keys::{Rewrap, lies_at};
use crate::sealing::{KeyError, Keyring};

/// A new key is made under the key file's name with this after it.
const NEW: &str = ".new";
/// So many characters of the former key's id stand after the name that it is kept under.
const ID_SHOWN: usize = 8;

pub(super) fn new_key(key_file: &Path, file: Option<PathBuf>) -> Result<NewKey, RewrapError> {
    let replaces = file.is_none();
    let (keyring, file) = match file {
        Some(file) => (Keyring::read(&file), file),
        None => {
            let file = with_suffix(key_file, NEW);
            // A link is how keys are mounted: what it points at is somebody else's to change.
            let is_ours = fs::symlink_metadata(key_file).is_ok_and(|metadata| metadata.is_file());
            let not_ours = || RewrapError::NotOurs { file: key_file.to_owned() };
            if !is_ours {
                return Err(not_ours());
            }
            // Cut off while it was made: no store was ever sealed with less than a key.
            if matches!(Keyring::read(&file), Err(KeyError::NoKey { .. })) {
                fs::remove_file(&file).map_err(|_| not_ours())?;
            }
            let made = Keyring::read_or_create(&file);
            if matches!(&made, Err(KeyError::Unreadable { .. })) {
                return Err(not_ours());
            }
            (made, file)
        }
    };
    let keyring = keyring.map_err(|error| match error {
        KeyError::Missing { file } => RewrapError::NoNewKey { file },
        KeyError::NoKey { file } => RewrapError::BadNewKey { file },
        error => RewrapError::Key(error),
    })?;
    make_durable(&file)?;
    Ok(NewKey { keyring, file, replaces })
}

/// Whoever wrote a key may not have waited for the disk, and soon nothing else opens the store. Where a disk can't be written,
/// as a mounted one, it isn't ours to lose.
pub(super) fn make_durable(file: &Path) -> Result<(), RewrapError> {
    let synced = File::open(file).and_then(|opened| opened.sync_all()).and_then(|()| sync_parent(file));
    match synced.map_err(|error| (error.kind(), error)) {
        Ok(()) | Err((ErrorKind::ReadOnlyFilesystem | ErrorKind::InvalidInput | ErrorKind::PermissionDenied, _)) => Ok(()),
        Err((_, error)) => Err(unwritable(file, &error)),
    }
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.file_name().map_or_else(OsString::new, OsString::from);
    name.push(suffix);
    file.with_file_name(name)
}

/// Where the keys of a finished rewrap lie.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) key_file: PathBuf,
    pub(super) rewrap: Rewrap,
}

impl Place {
    /// Changes nothing.
    pub(super) fn next(&self) -> Result<Step, RewrapError> {
        let there = Keyring::read(&self.key_file).map(|keyring| keyring.id());
        match there {
            Ok(id) if id == self.rewrap.to => Ok(Step::Settle),
            Ok(id) if self.rewrap.replaces && id == self.rewrap.from => match Keyring::read(&self.kept()) {
                Ok(kept) if kept.id() == self.rewrap.from => Ok(Step::Replace),
                Err(KeyError::Missing { .. }) => Ok(Step::KeepFormer),
                _ => Err(RewrapError::Foreign { file: self.kept() }),
            },
            _ => Ok(Step::AwaitKeyFile),
        }
    }

    pub(super) fn keep_former(&self) -> Result<(), RewrapError> {
        let kept = self.kept();
        let linked = fs::hard_link(&self.key_file, &kept).and_then(|()| sync_parent(&kept));
        linked.map_err(|error| unwritable(&kept, &error))
    }

    pub(super) fn replace(&self) -> Result<(), RewrapError> {
        // Looked at once more: whatever lies there takes the key file's place.
        let new = lies_at(&self.rewrap.file, &self.key_file);
        if Keyring::read(&new)?.id() != self.rewrap.to {
            return Err(RewrapError::Foreign { file: new });
        }
        let renamed = fs::rename(&new, &self.key_file).and_then(|()| sync_parent(&self.key_file));
        renamed.map_err(|error| unwritable(&self.key_file, &error))
    }

    fn kept(&self) -> PathBuf {
        former(&self.key_file, &self.rewrap.from)
    }
}

/// Where the former key, of this id, is kept.
pub(super) fn former(key_file: &Path, id: &str) -> PathBuf {
    with_suffix(key_file, &format!(".{}", id.get(..ID_SHOWN).unwrap_or_default()))
}

fn unwritable(file: &Path, error: &io::Error) -> RewrapError {
    let kind = if error.kind() == ErrorKind::NotFound { ErrorKind::Other } else { error.kind() };
    RewrapError::Key(KeyError::Unreadable { file: file.to_owned(), kind })
}

fn sync_parent(file: &Path) -> io::Result<()> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
