//! Keeps secrets out of where an operating system or a library would put them: environment, core dumps, panics, freed memory.
//!
//! Freed memory is wiped by the allocator, which `main.rs` must declare: a library can't do that for its users.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::panic::Location;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask};

/// Variables that make a library write secrets to a file or a log.
const DANGEROUS: [&str; 3] = ["LOG_SENSITIVE_BODIES", "LOG_SIGNABLE_BODY", "SSLKEYLOGFILE"];

/// More open files than that nobody needs here.
const OPEN_FILES_MAX: u64 = 65_536;

/// Variables are set that would leak secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refusing to start: {} would make a library write secrets down; unset it", .0.join(", "))]
pub struct DangerousEnvironment(Vec<&'static str>);

/// Refuses an environment in which a dangerous variable is set, to whatever value. Give it `std::env::vars_os()`.
///
/// # Errors
/// Names all such variables, never their values.
pub fn check_environment(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<(), DangerousEnvironment> {
    let names: Vec<OsString> = variables.into_iter().map(|(name, _)| name).collect();
    let found: Vec<&str> = DANGEROUS.into_iter().filter(|dangerous| names.iter().any(|name| name == dangerous)).collect();
    if found.is_empty() { Ok(()) } else { Err(DangerousEnvironment(found)) }
}

/// The process could not be protected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refusing to start: the process can't be protected ({step}: {kind})")]
pub struct HardeningError {
    step: &'static str,
    kind: io::ErrorKind,
}

/// No core dump, and no reading of this process by others of the same user. Children inherit the first.
///
/// # Errors
/// If the system refuses, which a kernel doesn't do by itself: a sandbox around us must be changed.
pub fn protect_process() -> Result<(), HardeningError> {
    let failed = |step| move |error: rustix::io::Errno| HardeningError { step, kind: error.kind() };
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed("core dumps"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("not dumpable"))
}

/// Room for connections: many systems begin with 1,024 files, fewer than the streams and connections that the API allows. The
/// hard limit is the administrator's and stays.
///
/// # Errors
/// If the system refuses. What there is already is enough for a small installation.
pub fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES_MAX, |hard| hard.min(OPEN_FILES_MAX));
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })?)
}

/// Files and folders that this process makes are its user's alone. For the daemon; the socket's mode must then be set
/// explicitly, or nobody else can connect.
pub fn private_files() {
    let _before = umask(Mode::RWXG | Mode::RWXO);
}

/// Replaces the panic hook by one that prints the place and the thread: a panic's message can hold anything.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let line = panic_line(info.location(), std::thread::current().name());
        let _lost = io::stderr().lock().write_all(line.as_bytes());
    }));
}

fn panic_line(place: Option<&Location<'_>>, thread: Option<&str>) -> String {
    let (file, line) = place.map_or(("unknown", 0), |place| (place.file(), place.line()));
    format!("panicked at {file}:{line} in thread `{}`\n", thread.unwrap_or("unnamed").escape_default())
}

/// Makes aws-lc-rs the provider of all TLS in this process. First thing in `main`: libraries ask for it when they are built.
pub fn install_crypto() {
    // The only way to fail is that one is installed already, and none but this one is compiled in.
    let _installed_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(names: &[&str]) -> Vec<(OsString, OsString)> {
        names.iter().map(|name| (OsString::from(name), OsString::from("/tmp/s3cr3t"))).collect()
    }

    #[test]
    fn each_dangerous_variable_is_refused_by_name_alone() {
        assert_eq!(check_environment(environment(&["PATH", "sslkeylogfile", "XSSLKEYLOGFILE"])), Ok(()));
        for name in DANGEROUS {
            let error = check_environment(environment(&["PATH", name])).unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("s3cr3t"), "{error}");
        }
        let all = check_environment(environment(&DANGEROUS)).unwrap_err().to_string();
        assert!(DANGEROUS.iter().all(|name| all.contains(name)));
        let empty = check_environment([(OsString::from("SSLKEYLOGFILE"), OsString::new())]);
        assert!(empty.is_err(), "set to nothing is set");
    }

    #[test]
    fn a_panic_is_told_by_its_place() {
        let place = Location::caller();
        let line = panic_line(Some(place), Some("audit\n"));
        assert_eq!(line, format!("panicked at {}:{} in thread `audit\\n`\n", place.file(), place.line()));
        assert_eq!(panic_line(None, None), "panicked at unknown:0 in thread `unnamed`\n");
    }

    #[test]
    fn crypto_may_be_installed_twice() {
        install_crypto();
        install_crypto();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }

    #[test]
    fn open_files_are_raised_to_the_hard_limit_at_most() {
        let before = getrlimit(Resource::Nofile);
        raise_open_files().unwrap();
        let after = getrlimit(Resource::Nofile);
        assert_eq!(after.maximum, before.maximum);
        let wanted = before.maximum.map_or(OPEN_FILES_MAX, |hard| hard.min(OPEN_FILES_MAX));
        assert!(after.current.is_none_or(|current| current >= wanted));
    }

    // Changes the whole test process: harmless for the others, which neither dump core nor share files with other users.
    #[test]
    fn a_protected_process_has_no_core_and_private_files() {
        protect_process().unwrap();
        private_files();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
