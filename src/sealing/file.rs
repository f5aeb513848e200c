//! The key-encryption key as a file: 32 bytes that only the daemon's own user may read.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::{KEY_LENGTH, Keyring, SealError};

/// Why there is no key-encryption key. Each names the file and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error(
        "the key file `{file}` is missing, but there is a store that was sealed with it: put the key back from your backup; without it the store can't be opened"
    )]
    Missing { file: PathBuf },
    #[error("the key file `{file}` may be used by others: give it to the daemon's user with `chown`, and `chmod 600` it")]
    Exposed { file: PathBuf },
    #[error("the key file `{file}` doesn't hold exactly 32 bytes: put the key back from your backup")]
    NoKey { file: PathBuf },
    #[error("could not read or write the key file `{file}`: {kind}")]
    Unreadable { file: PathBuf, kind: io::ErrorKind },
    #[error("the cryptographic library failed")]
    Library,
}

impl From<SealError> for KeyError {
    fn from(_: SealError) -> KeyError {
        KeyError::Library
    }
}

impl Keyring {
    /// Reads the key of an existing store.
    ///
    /// # Errors
    /// [`KeyError`]: missing, readable by others, of another length, unreadable.
    pub fn read(file: &Path) -> Result<Keyring, KeyError> {
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => KeyError::Missing { file: file.to_owned() },
            kind => KeyError::Unreadable { file: file.to_owned(), kind },
        };
        let mut opened = File::open(file).map_err(unreadable)?;
        // Of the opened file, not of the path: what is checked is what is read. Symbolic links are how Kubernetes mounts secrets.
        let metadata = opened.metadata().map_err(unreadable)?;
        if is_exposed(&metadata) {
            return Err(KeyError::Exposed { file: file.to_owned() });
        }
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        let mut more = [0; 1];
        let exact = opened.read_exact(key.as_mut()).is_ok() && opened.read(&mut more).map_err(unreadable)? == 0;
        if !exact {
            return Err(KeyError::NoKey { file: file.to_owned() });
        }
        Ok(Keyring::derive(&key)?)
    }

    /// Reads the key, or makes one for a store that doesn't exist yet. Durable when it returns.
    ///
    /// # Errors
    /// As [`Keyring::read`], save that it can't be missing.
    pub fn read_or_create(file: &Path) -> Result<Keyring, KeyError> {
        let unreadable = |error: io::Error| KeyError::Unreadable { file: file.to_owned(), kind: error.kind() };
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        let mut created = match created {
            Ok(created) => created,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Keyring::read(file),
            Err(error) => return Err(unreadable(error)),
        };
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        rand::fill(key.as_mut()).map_err(|_| KeyError::Library)?;
        let written = created.write_all(key.as_ref()).and_then(|()| created.sync_all()).and_then(|()| sync_parent(file));
        if let Err(error) = written {
            // Half a key would be taken for a damaged one at the next start.
            drop(std::fs::remove_file(file));
            return Err(unreadable(error));
        }
        Ok(Keyring::derive(&key)?)
    }
}

/// Whether others than this process's user (and root) may use what is in this file. A file of root's may be read by its group as
/// well: that is how Kubernetes mounts a Secret for a user who isn't root, with the pod's own group.
pub fn is_exposed(metadata: &Metadata) -> bool {
    !metadata.is_file() || is_open_to_others(metadata.uid(), metadata.mode(), rustix::process::geteuid().as_raw())
}

/// Root itself needs no group to read what is its own: for root, as for a file of the user's own, the group may do nothing.
fn is_open_to_others(owner: u32, mode: u32, user: u32) -> bool {
    let forbidden = if owner == 0 && user != 0 { 0o037 } else { 0o077 };
    mode & forbidden != 0 || (owner != user && owner != 0)
}

fn sync_parent(file: &Path) -> io::Result<()> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::is_open_to_others;

    const ROOT: u32 = 0;
    const USER: u32 = 65532;

    #[test]
    fn a_mounted_secret_is_read_by_the_pods_group_and_nobody_else() {
        for (owner, mode, user, is_open) in [
            (USER, 0o600, USER, false),
            (USER, 0o400, USER, false),
            (USER, 0o440, USER, true),
            (USER, 0o640, USER, true),
            (ROOT, 0o600, USER, false),
            (ROOT, 0o440, USER, false),
            (ROOT, 0o640, USER, false),
            (ROOT, 0o460, USER, true),
            (ROOT, 0o450, USER, true),
            (ROOT, 0o444, USER, true),
            (ROOT, 0o442, USER, true),
            (ROOT, 0o441, USER, true),
            (ROOT, 0o400, ROOT, false),
            (ROOT, 0o440, ROOT, true),
            (1000, 0o400, USER, true),
            (1000, 0o400, ROOT, true),
        ] {
            assert_eq!(is_open_to_others(owner, 0o100_000 | mode, user), is_open, "{mode:o} of {owner}, for {user}");
        }
    }
}
