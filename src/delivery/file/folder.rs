//! The folder of a delivery: whether it has what it should, and how it is replaced as a whole.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, flock, fstat, fsync, mkdirat, openat, readlinkat,
    renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use zeroize::Zeroizing;

use super::tree::{Bytes, Entry, Tree};
use super::walk::{self, FOLDER_MODE, Trusted, open_folder, refused};
use crate::delivery::CourierError;

const DATA: &str = "..data";
const SIGNALLED: &str = "..signalled";
/// Links are made under this name and renamed: a link can't be replaced in one step otherwise.
const FRESH_LINK: &str = "..fresh";
/// What the names of our folders begin with.
const STAMP: &str = "..2";
const FOREIGN: CourierError = CourierError::Refused("something of somebody else has the name of a file of ours");

/// Whose the files are to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    pub(super) own: u32,
    pub(super) owner: u32,
    group: u32,
}

impl Ids {
    /// `None`: the daemon's own.
    pub(super) fn of(owner: Option<u32>, group: Option<u32>) -> Ids {
        let (own, own_group) = (geteuid().as_raw(), getegid().as_raw());
        Ids { own, owner: owner.unwrap_or(own), group: group.unwrap_or(own_group) }
    }

    pub(super) fn trusted(self) -> Trusted {
        Trusted { own: self.own, named: self.owner }
    }
}

/// The folder, open and locked: one delivery at a time.
pub(super) struct Target {
    open: OwnedFd,
    ids: Ids,
    mode: Mode,
}

impl Target {
    pub(super) fn open(path: &Path, ids: Ids, mode: u32) -> Result<Target, CourierError> {
        let open = walk::folder(path, ids.trusted())?;
        match flock(&open, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Target { open, ids, mode: Mode::from_raw_mode(mode) }),
            Err(Errno::WOULDBLOCK) => Err(CourierError::Unavailable("another delivery to this folder is under way")),
            Err(error) => Err(refused(error)),
        }
    }

    /// The folder that is in use now.
    pub(super) fn current(&self) -> Result<Option<String>, CourierError> {
        let Some(target) = self.link(DATA)? else { return Ok(None) };
        if is_of_ours(&target) { Ok(Some(target)) } else { Err(FOREIGN) }
    }

    /// Where a link of ours leads to; `None` where there is nothing.
    fn link(&self, name: &str) -> Result<Option<String>, CourierError> {
        match readlinkat(&self.open, name, Vec::new()) {
            Ok(target) => target.into_string().map(Some).map_err(|_| FOREIGN),
            Err(Errno::NOENT) => Ok(None),
            // It is there, and is no link.
            Err(Errno::INVAL) => Err(FOREIGN),
            Err(error) => Err(refused(error)),
        }
    }

    /// Whether all is there as it should be, and nothing else: bytes, modes, owners, names.
    pub(super) fn has(&self, folder: &str, tree: &Tree) -> Result<bool, CourierError> {
        for name in tree.entries.keys() {
            if !self.is_shown(name)? {
                return Ok(false);
            }
        }
        let Ok(data) = open_folder(&self.open, OsStr::new(folder)) else { return Ok(false) };
        if names(&data)? != tree.entries.keys().cloned().collect() {
            return Ok(false);
        }
        for (name, entry) in &tree.entries {
            let same = match entry {
                Entry::File(bytes) => self.is_same(&data, name, bytes)?,
                Entry::Folder(files) => self.has_files(&data, name, files)?,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn has_files(&self, data: &OwnedFd, name: &str, files: &std::collections::BTreeMap<String, Bytes>) -> Result<bool, CourierError> {
        let Ok(folder) = open_folder(data, OsStr::new(name)) else { return Ok(false) };
        if names(&folder)? != files.keys().cloned().collect() {
            return Ok(false);
        }
        for (name, bytes) in files {
            if !self.is_same(&folder, name, bytes)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_same(&self, folder: &OwnedFd, name: &str, bytes: &Bytes) -> Result<bool, CourierError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(folder, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ACCESS) => return Err(CourierError::Refused("what was delivered can't be read back: the daemon lacks that right")),
            Err(_) => return Ok(false),
        };
        let stat = fstat(&file).map_err(refused)?;
        if !self.is_as_asked(&stat) || usize::try_from(stat.st_size) != Ok(bytes.len()) {
            return Ok(false);
        }
        // Reserved once, and one byte more than needed: a file that grew meanwhile isn't the same.
        let mut found = Zeroizing::new(Vec::with_capacity(bytes.len() + 1));
        let read = std::fs::File::from(file).take(bytes.len() as u64 + 1).read_to_end(&mut found);
        let differing = found.iter().zip(bytes.iter()).fold(0u8, |seen, (a, b)| seen | (a ^ b));
        Ok(read.is_ok() && found.len() == bytes.len() && differing == 0)
    }

    fn is_as_asked(&self, stat: &Stat) -> bool {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && Mode::from_raw_mode(stat.st_mode) == self.mode
            && (stat.st_uid, stat.st_gid) == (self.ids.owner, self.ids.group)
    }

    /// Whether the application sees this name, by a link of ours.
    fn is_shown(&self, name: &str) -> Result<bool, CourierError> {
        match self.link(name)? {
            Some(target) if target == shown(name) => Ok(true),
            Some(_) => Err(FOREIGN),
            None => Ok(false),
        }
    }

    /// Writes all of it into a fresh folder, and swaps that in by one rename. Durable when it returns. What fails before the rename
    /// has changed nothing that an application can see.
    pub(super) fn replace(&self, tree: &Tree, stamp: &str) -> Result<String, CourierError> {
        // Names of somebody else are found before anything is written.
        let mut fresh_names = Vec::new();
        for name in tree.entries.keys() {
            if !self.is_shown(name)? {
                fresh_names.push(name);
            }
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        let folder = format!("{stamp}.{}", &id[..8]);
        if let Err(error) = self.fill(&folder, tree) {
            // What can't be removed now is found by the next call.
            let _left_over = remove(&self.open, &folder);
            return Err(error);
        }
        self.point(DATA, &folder)?;
        for name in fresh_names {
            symlinkat(shown(name), &self.open, name.as_str()).map_err(refused)?;
        }
        fsync(&self.open).map_err(refused)?;
        Ok(folder)
    }

    fn fill(&self, folder: &str, tree: &Tree) -> Result<(), CourierError> {
        let data = self.make(&self.open, folder)?;
        for (name, entry) in &tree.entries {
            match entry {
                Entry::File(bytes) => self.write(&data, name, bytes)?,
                Entry::Folder(files) => {
                    let inner = self.make(&data, name)?;
                    files.iter().try_for_each(|(name, bytes)| self.write(&inner, name, bytes))?;
                    fsync(&inner).map_err(refused)?;
                }
            }
        }
        fsync(&data).map_err(refused)
    }

    /// A fresh folder, open. It is checked to be ours after it was opened: its name may lead elsewhere by then.
    fn make(&self, around: &OwnedFd, name: &str) -> Result<OwnedFd, CourierError> {
        mkdirat(around, name, Mode::RWXU).map_err(refused)?;
        let made = open_folder(around, OsStr::new(name)).map_err(refused)?;
        if fstat(&made).map_err(refused)?.st_uid != self.ids.own || !names(&made)?.is_empty() {
            return Err(FOREIGN);
        }
        fchmod(&made, FOLDER_MODE).map_err(refused)?;
        Ok(made)
    }

    fn write(&self, folder: &OwnedFd, name: &str, bytes: &Bytes) -> Result<(), CourierError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Nobody else may open it before it has its owner.
        let opened = openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map_err(refused)?;
        let mut file = std::fs::File::from(opened);
        file.write_all(bytes).map_err(|_| CourierError::Unavailable("a file couldn't be written: is there room left?"))?;
        fchmod(&file, self.mode).map_err(refused)?;
        let stat = fstat(&file).map_err(refused)?;
        if (stat.st_uid, stat.st_gid) != (self.ids.owner, self.ids.group) {
            fchown(&file, Some(Uid::from_raw(self.ids.owner)), Some(Gid::from_raw(self.ids.group))).map_err(refused)?;
        }
        fsync(&file).map_err(refused)
    }

    /// Lets a link lead to this folder, in one step.
    fn point(&self, link: &str, folder: &str) -> Result<(), CourierError> {
        match unlinkat(&self.open, FRESH_LINK, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(refused(error)),
        }
        symlinkat(folder, &self.open, FRESH_LINK).map_err(refused)?;
        renameat(&self.open, FRESH_LINK, &self.open, link).map_err(refused)?;
        fsync(&self.open).map_err(refused)
    }

    /// Takes away what is ours and in use no more: former folders, those of a crash, and links to what the application has no longer.
    pub(super) fn clean(&self, current: Option<&str>) -> Result<(), CourierError> {
        let kept = match current {
            Some(current) => names(&open_folder(&self.open, OsStr::new(current)).map_err(refused)?)?,
            None => BTreeSet::new(),
        };
        let mut removed = false;
        for name in names(&self.open)? {
            if is_of_ours(&name) && Some(name.as_str()) != current {
                removed |= remove(&self.open, &name)?;
            } else if !name.starts_with("..") && !kept.contains(&name) && self.link(&name).is_ok_and(|link| link == Some(shown(&name))) {
                unlinkat(&self.open, name.as_str(), AtFlags::empty()).map_err(refused)?;
                removed = true;
            }
        }
        if removed { fsync(&self.open).map_err(refused) } else { Ok(()) }
    }

    /// Whether the process was told of this folder.
    pub(super) fn is_signalled(&self, folder: &str) -> Result<bool, CourierError> {
        Ok(self.link(SIGNALLED)?.as_deref() == Some(folder))
    }

    pub(super) fn note_signalled(&self, folder: &str) -> Result<(), CourierError> {
        self.point(SIGNALLED, folder)
    }
}

fn shown(name: &str) -> String {
    format!("{DATA}/{name}")
}

/// The form of our folders' names: one part, our stamp, and our sign behind it.
fn is_of_ours(name: &str) -> bool {
    let Some((stamp, id)) = name.rsplit_once('.') else { return false };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    name.starts_with(STAMP) && stamp.strip_prefix("..").is_some_and(digits) && id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What is in a folder, `.` and `..` aside.
fn names(folder: &OwnedFd) -> Result<BTreeSet<String>, CourierError> {
    let mut found = BTreeSet::new();
    for entry in Dir::read_from(folder).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            found.insert(name);
        }
    }
    Ok(found)
}

/// Removes a folder of ours with its files, and folders of files in it. Somebody else's is left alone; whether it was removed.
fn remove(around: &OwnedFd, name: &str) -> Result<bool, CourierError> {
    let Ok(folder) = open_folder(around, OsStr::new(name)) else { return Ok(false) };
    if fstat(&folder).map_err(refused)?.st_uid != geteuid().as_raw() {
        return Ok(false);
    }
    for inner in names(&folder)? {
        if let Ok(files) = open_folder(&folder, OsStr::new(&inner)) {
            for file in names(&files)? {
                unlinkat(&files, file.as_str(), AtFlags::empty()).map_err(refused)?;
            }
            unlinkat(&folder, inner.as_str(), AtFlags::REMOVEDIR).map_err(refused)?;
        } else {
            unlinkat(&folder, inner.as_str(), AtFlags::empty()).map_err(refused)?;
        }
    }
    unlinkat(around, name, AtFlags::REMOVEDIR).map_err(refused)?;
    Ok(true)
}
