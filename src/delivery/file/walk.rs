//! Opens folders and files step by step: through no symbolic link, and through no folder that somebody else could turn into another.
//!
//! Each step is taken from the folder that is already open, never from a path, so that whatever others rename meanwhile, what was
//! looked at is what is used.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, Stat, fchmod, fstat, mkdirat, openat};
use rustix::io::Errno;

use crate::delivery::CourierError;

/// Of the folder that is made where there is none, and of those in it, as of Kubernetes volumes: names are no secret, and each
/// value is guarded by its file.
pub(super) const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Whose folders are trusted beside root's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trusted {
    pub(super) own: u32,
    /// The owner that the document names: it may do as it likes with what is its own.
    pub(super) named: u32,
}

impl Trusted {
    fn includes(self, uid: u32) -> bool {
        uid == 0 || uid == self.own || uid == self.named
    }

    /// # Errors
    /// [`CourierError::Refused`] for a folder of somebody else, or one in which anybody may rename what isn't theirs.
    fn check(self, stat: &Stat) -> Result<(), CourierError> {
        if !self.includes(stat.st_uid) {
            return Err(CourierError::Refused("a folder on the way is neither ours, nor root's, nor the named owner's"));
        }
        if stat.st_mode & WRITABLE_BY_OTHERS != 0 && stat.st_mode & STICKY == 0 {
            return Err(CourierError::Refused("a folder on the way can be written by others: take that right away, or make it sticky"));
        }
        Ok(())
    }
}

/// Opens a folder for its entries; makes the last one of the path where it is missing.
pub(super) fn folder(path: &Path, trusted: Trusted) -> Result<OwnedFd, CourierError> {
    let (around, name) = around(path, trusted)?;
    let opened = match open_folder(&around, name) {
        Err(Errno::NOENT) => {
            match mkdirat(&around, name, FOLDER_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(refused(error)),
            }
            let made = open_folder(&around, name).map_err(refused)?;
            // Whatever our umask is.
            fchmod(&made, FOLDER_MODE).map_err(refused)?;
            made
        }
        opened => opened.map_err(refused)?,
    };
    trusted.check(&fstat(&opened).map_err(refused)?)?;
    Ok(opened)
}

/// Opens a file for reading, and tells what it is.
pub(super) fn file(path: &Path, trusted: Trusted) -> Result<(OwnedFd, Stat), CourierError> {
    let (around, name) = around(path, trusted)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let opened = openat(&around, name, flags, Mode::empty()).map_err(refused)?;
    let stat = fstat(&opened).map_err(refused)?;
    if !trusted.includes(stat.st_uid) {
        return Err(CourierError::Refused("the file is neither ours, nor root's, nor the named owner's"));
    }
    Ok((opened, stat))
}

/// The folder that the last part of the path is in, and that part.
fn around(path: &Path, trusted: Trusted) -> Result<(OwnedFd, &OsStr), CourierError> {
    const NO_PATH: CourierError = CourierError::Refused("the path isn't absolute, or isn't in its shortest form");
    let mut open = openat(CWD, "/", WAY | OFlags::CLOEXEC, Mode::empty()).map_err(refused)?;
    trusted.check(&fstat(&open).map_err(refused)?)?;
    let mut parts = path.components();
    if parts.next() != Some(Component::RootDir) {
        return Err(NO_PATH);
    }
    let Some(Component::Normal(mut name)) = parts.next() else { return Err(NO_PATH) };
    for part in parts {
        let Component::Normal(next) = part else { return Err(NO_PATH) };
        open = openat(&open, name, WAY | OFlags::CLOEXEC, Mode::empty()).map_err(refused)?;
        trusted.check(&fstat(&open).map_err(refused)?)?;
        name = next;
    }
    Ok((open, name))
}

/// Only to go on from there: the right to list it isn't needed.
const WAY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

pub(super) fn open_folder(around: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    openat(around, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Our words for what the system says.
pub(super) fn refused(error: Errno) -> CourierError {
    match error {
        Errno::LOOP | Errno::NOTDIR => CourierError::Refused("a symbolic link, or something that is no folder, is on the way"),
        Errno::NOENT => CourierError::Refused("a folder or file on the way is missing"),
        Errno::ACCESS => CourierError::Refused("the daemon lacks the right to a folder or file there"),
        Errno::PERM => CourierError::Refused("the daemon lacks the right to give files to that owner or group"),
        Errno::ROFS => CourierError::Refused("the file system can only be read"),
        Errno::NOSPC | Errno::DQUOT => CourierError::Unavailable("there is no room left"),
        _ => CourierError::Unavailable("the file system answers with an error"),
    }
}
