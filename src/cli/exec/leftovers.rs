//! Folders of those that were killed: nobody removed what is in them, so the next `exec` of the same user does.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};

/// How all such folders are called.
pub(super) const PREFIX: &str = "keywright-";

/// Says that a folder is in use, until the handle is closed: the system does that however we end.
///
/// # Errors
/// If somebody else just claimed it, to remove it: it looked like nobody's for a moment.
pub(super) fn claim(folder: &Path) -> io::Result<OwnedFd> {
    let handle = open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    flock(&handle, FlockOperation::LockExclusive)?;
    // Without a name it was removed before we had the lock.
    if fstat(&handle)?.st_nlink == 0 { Err(io::ErrorKind::NotFound.into()) } else { Ok(handle) }
}

/// Removes our user's folders in `place` that nobody holds, and that no process reads from: a program may outlive its `exec`.
pub(super) fn remove(place: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_one = entry.file_name().as_bytes().strip_prefix(PREFIX.as_bytes()).is_some_and(|rest| rest.len() == 32);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(handle) = is_one.then(|| open(&path, flags, Mode::empty()).ok()).flatten() else { continue };
        let is_ours = fstat(&handle).is_ok_and(|about| about.st_uid == own);
        if is_ours && flock(&handle, FlockOperation::NonBlockingLockExclusive).is_ok() && !is_in_use(&path) {
            // What can't be removed is tried again by the next one.
            let _again = std::fs::remove_dir_all(&path);
        }
    }
}

/// Whether the environment of a process names it.
fn is_in_use(folder: &Path) -> bool {
    let wanted = folder.as_os_str().as_bytes();
    let names = |environment: Vec<u8>| environment.windows(wanted.len()).any(|window| window == wanted);
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.into_iter().any(|process| std::fs::read(process.path().join("environ")).is_ok_and(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_exec_removes_what_the_killed_left_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = place.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("value"), "x").unwrap();
            path
        };
        let named = |letter: &str| format!("{PREFIX}{}", letter.repeat(32));
        let (dead, held, read) = (folder(&named("a")), folder(&named("b")), folder(&named("c")));
        let (others, short) = (folder("somebody-elses"), folder(&format!("{PREFIX}short")));
        let target = folder("target");
        std::os::unix::fs::symlink(&target, place.path().join(named("d"))).unwrap();
        let lock = claim(&held).unwrap();
        let mut reader = std::process::Command::new("sleep").arg("60").env("FILES", &read).spawn().unwrap();
        // A process that was just made has its environment a moment later.
        let began = std::time::Instant::now();
        while !is_in_use(&read) {
            assert!(began.elapsed() < std::time::Duration::from_secs(30), "its environment never came");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        remove(place.path());
        reader.kill().unwrap();
        reader.wait().unwrap();
        assert!(!dead.exists());
        for kept in [&held, &read, &others, &short, &target] {
            assert!(kept.join("value").exists(), "{}", kept.display());
        }
        drop(lock);
        remove(place.path());
        assert!(!held.exists() && !read.exists());
    }

    #[test]
    fn cli_exec_claims_no_folder_that_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("one");
        assert!(claim(&path).is_err());
        std::fs::create_dir(&path).unwrap();
        let first = claim(&path).unwrap();
        let waiting = {
            let path = path.clone();
            std::thread::spawn(move || claim(&path).map(|_| ()))
        };
        std::thread::sleep(std::time::Duration::from_millis(200));
        std::fs::remove_dir(&path).unwrap();
        drop(first);
        assert!(waiting.join().unwrap().is_err(), "it has no name any more");
    }
}
