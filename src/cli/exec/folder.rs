//! The private folder that a program reads its credentials from: in memory, swapped in whole, gone with the program.
//!
//! It looks as a Kubernetes volume does: `..data` points to the folder of one moment, and what is at the top points through it.
//! So one rename changes all files at once, and whoever reads `..data` once reads what belongs together.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::document::Documents;
use super::leftovers;
use crate::cli::failure::Failure;

/// Where such a folder may be made: the user's own memory, else everybody's, which has a sticky bit.
const SHARED_MEMORY: &str = "/dev/shm";
/// File systems that are never on a disk, by their numbers in `statfs(2)`: tmpfs and ramfs.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];
const DATA: &str = "..data";

/// Removed when it is dropped.
pub(super) struct Folder {
    path: PathBuf,
    /// The number of the folder of the moment.
    moment: u64,
    /// As long as it is held, this folder is somebody's.
    _lock: OwnedFd,
}

impl Folder {
    /// In `asked`, else in `$XDG_RUNTIME_DIR`, else in `/dev/shm`.
    ///
    /// # Errors
    /// If there is none that is in memory and that we may write to, with the ways out.
    pub(super) fn make(asked: Option<&Path>) -> Result<Folder, Failure> {
        let of_user = || std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()).map(PathBuf::from);
        let places = match asked {
            Some(path) => vec![path.to_owned()],
            None => of_user().into_iter().chain([PathBuf::from(SHARED_MEMORY)]).collect(),
        };
        let mut reasons = Vec::new();
        for place in places {
            match make_in(&place) {
                Ok((path, lock)) => return Ok(Folder { path, moment: 0, _lock: lock }),
                Err(reason) => reasons.push(format!("{} {reason}", place.display())),
            }
        }
        Err(Failure::failed("no-memory-folder", "there is no folder in memory for the credentials", reasons.join("; ")).then(
            "mount a tmpfs (docker run --tmpfs /run/secrets:mode=1777; in Kubernetes an emptyDir with `medium: Memory`) and name it \
             with --folder DIR; or give the program variables with --env",
        ))
    }

    /// What the program is told.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All documents in place of what was there, at once. What is there stays if this fails.
    ///
    /// # Errors
    /// Most of all where the file system is full.
    pub(super) fn put(&mut self, documents: &Documents) -> Result<(), Failure> {
        let former = self.path.join(moment_name(self.moment));
        let next = self.path.join(moment_name(self.moment + 1));
        let put = fill(&next, documents).and_then(|()| self.swap(documents));
        if let Err(error) = put {
            // What is left of it would hold values for nobody.
            let _absent = std::fs::remove_dir_all(&next);
            return Err(Failure::io(&format!("writing the credentials to {}", self.path.display()), &error));
        }
        self.moment += 1;
        // The first time there is none.
        let _absent = std::fs::remove_dir_all(former);
        Ok(())
    }

    fn swap(&self, documents: &Documents) -> io::Result<()> {
        let fresh = self.path.join("..data_next");
        let _absent = std::fs::remove_file(&fresh);
        symlink(moment_name(self.moment + 1), &fresh)?;
        std::fs::rename(&fresh, self.path.join(DATA))?;
        for name in documents.keys() {
            for entry in [name.to_string(), format!("{name}.json")] {
                match symlink(Path::new(DATA).join(&entry), self.path.join(&entry)) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The program may have removed it; otherwise there is nobody left to tell.
        let _absent = std::fs::remove_dir_all(&self.path);
    }
}

fn moment_name(moment: u64) -> String {
    format!("..{moment}")
}

/// A new folder of ours alone. Its name can't be known before, and the kernel makes no second one of a name.
fn make_in(place: &Path) -> Result<(PathBuf, OwnedFd), String> {
    let usable = rustix::fs::statfs(place).map_err(|error| format!("can't be used: {}", io::Error::from(error).kind()))?;
    if !IN_MEMORY.iter().any(|kind| i128::from(*kind) == i128::from(usable.f_type)) {
        return Err("is not in memory (tmpfs)".to_owned());
    }
    leftovers::remove(place);
    let path = place.join(format!("{}{}", leftovers::PREFIX, Uuid::new_v4().simple()));
    let made = private_folder(&path).and_then(|()| leftovers::claim(&path));
    let lock = made.map_err(|error| format!("can't be written to: {}", error.kind()))?;
    Ok((path, lock))
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn fill(folder: &Path, documents: &Documents) -> io::Result<()> {
    private_folder(folder)?;
    for (name, document) in documents {
        write(&folder.join(format!("{name}.json")), document.json.expose())?;
        let fields = folder.join(name.as_str());
        private_folder(&fields)?;
        for (field, value) in document.fields.iter() {
            write(&fields.join(field.as_str()), value.expose())?;
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::document::{document, set};
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn cli_exec_files_are_private_in_memory_and_gone_at_the_end() {
        let mut folder = Folder::make(Some(Path::new(SHARED_MEMORY))).unwrap();
        let path = folder.path().to_owned();
        folder.put(&set(&[document("a", "v1", 1, &[("client_secret", "hush\u{0}\n")])])).unwrap();
        assert_eq!(std::fs::read(path.join("a/client_secret")).unwrap(), b"hush\0\n", "the bytes, and no more");
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path.join("a.json")).unwrap()).unwrap();
        assert_eq!((json["version"].as_str(), json["fields"]["client_secret"].as_str()), (Some("v1"), Some("hush\u{0}\n")));
        assert_eq!((mode(&path), mode(&path.join("a")), mode(&path.join("a.json"))), (0o700, 0o700, 0o400));
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn cli_exec_files_change_all_at_once_and_leave_nothing_behind() {
        let mut folder = Folder::make(None).unwrap();
        let path = folder.path().to_owned();
        folder.put(&set(&[document("a", "v1", 1, &[("s", "old")])])).unwrap();
        let then = std::fs::read_link(path.join(DATA)).unwrap();
        folder.put(&set(&[document("a", "v2", 2, &[("s", "new")]), document("b", "v1", 1, &[("s", "one")])])).unwrap();
        assert_ne!(std::fs::read_link(path.join(DATA)).unwrap(), then);
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
        assert_eq!((read("a/s"), read("b/s")), ("new".to_owned(), "one".to_owned()));
        let mut names: Vec<String> =
            std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["..2", "..data", "a", "a.json", "b", "b.json"]);
    }

    #[test]
    fn cli_exec_writes_to_no_disk() {
        // Whatever the folders of this machine are made of: these are no memory to write to.
        for place in ["/sys", "/nowhere", "/proc/self"].map(Path::new) {
            let failure = Folder::make(Some(place)).err().unwrap();
            let lines = failure.lines().join("\n");
            assert!(lines.contains("--folder") && lines.contains(&place.display().to_string()), "{lines}");
        }
    }
}
