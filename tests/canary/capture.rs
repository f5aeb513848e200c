//! What this process prints and logs, into files: the log at trace level through the daemon's own layer, and both outputs.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use keywright::runtime::hardening;
use keywright::runtime::telemetry::{Format, Levels, subscriber};
use rustix::stdio::{dup2_stderr, dup2_stdout, stderr, stdout};

use crate::support::outputs::Outputs;

/// The log, the standard output, the standard error: as the daemon's files.
const NAMES: [&str; 3] = ["log", "stdout", "stderr"];

/// While it lasts, nothing that is printed leaves the process. One at a time.
pub struct Capture {
    folder: tempfile::TempDir,
    before: Mutex<Option<[OwnedFd; 2]>>,
    _only: MutexGuard<'static, ()>,
}

/// Where lines of the log go now.
static LOG: Mutex<Option<File>> = Mutex::new(None);

impl Capture {
    pub fn begin() -> Capture {
        static ONLY: Mutex<()> = Mutex::new(());
        static INSTALLED: OnceLock<()> = OnceLock::new();
        let only = ONLY.lock().unwrap_or_else(PoisonError::into_inner);
        INSTALLED.get_or_init(|| {
            let log = subscriber(Levels::parse(Some("trace")), Format::Json, Box::new(to_log));
            tracing::subscriber::set_global_default(log).unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| OpenOptions::new().create(true).append(true).open(folder.path().join(name)).unwrap();
        let before = [rustix::io::dup(stdout()).unwrap(), rustix::io::dup(stderr()).unwrap()];
        *LOG.lock().unwrap() = Some(open("log"));
        dup2_stdout(open("stdout")).unwrap();
        dup2_stderr(open("stderr")).unwrap();
        // As `main` does.
        hardening::quiet_panics();
        Capture { folder, before: Mutex::new(Some(before)), _only: only }
    }

    fn paths(&self) -> [PathBuf; 3] {
        NAMES.map(|name| self.folder.path().join(name))
    }

    /// All that was written since the last look. The files are emptied: they are written at their end only.
    pub fn take(&self) -> Outputs {
        let mut outputs = Outputs::default();
        for (name, path) in NAMES.into_iter().zip(self.paths()) {
            outputs.add(name, std::fs::read(&path).unwrap());
            File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        }
        outputs
    }

    /// Gives the process its outputs back.
    pub fn end(&self) {
        let Some([out, err]) = self.before.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        dup2_stdout(out).unwrap();
        dup2_stderr(err).unwrap();
        *LOG.lock().unwrap_or_else(PoisonError::into_inner) = None;
        drop(std::panic::take_hook());
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.end();
        }
        // The panic's own message was not printed; the hook can't be changed from here.
        if let Some([out, err]) = self.before.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _as_well_as_can_be = (dup2_stdout(out), dup2_stderr(err));
        }
        for path in self.paths() {
            say(&std::fs::read_to_string(path).unwrap_or_default());
        }
    }
}

fn to_log(line: &str) {
    if let Some(file) = LOG.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Not by the macro, which a test runner keeps to itself.
pub fn say(text: &str) {
    let _unread = writeln!(std::io::stderr(), "{text}");
}
