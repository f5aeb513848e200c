//! Signals the process that a pid file names: held by a descriptor, so that no other process can take its number meanwhile.

use std::io::Read as _;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::folder::Ids;
use super::walk;
use crate::delivery::CourierError;
use crate::domain::delivery::{SignalDelivery, SignalName};

/// A number and its newline.
const PID_BYTES_MAX: u64 = 32;
/// Ticks a second in `/proc`: the kernel's interface has one value on every architecture that we run on.
const TICKS: f64 = 100.0;
/// How much younger than its pid file a process may seem: both are measured in coarse steps.
const SLACK: Duration = Duration::from_secs(2);

/// # Errors
/// [`CourierError`] if nobody was signalled: the files are there, and it is tried again.
pub(super) fn send(asked: &SignalDelivery, ids: Ids) -> Result<(), CourierError> {
    let (file, stat) = walk::file(&asked.pid_file, ids.trusted())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(CourierError::Refused("the pid file is no file"));
    }
    let mut text = String::new();
    let read = std::fs::File::from(file).take(PID_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|_| CourierError::Refused("the pid file can't be read as text"))?;
    let pid = pid(&text)?;
    let gone = |error| match error {
        Errno::SRCH => CourierError::Unavailable("the process of the pid file is gone"),
        Errno::PERM => CourierError::Refused("the daemon lacks the right to signal the process"),
        _ => CourierError::Unavailable("the process can't be looked at"),
    };
    // From here on the number may be anybody's: what is signalled is who had it when the descriptor was made.
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(gone)?;
    let about = Process::of(pid)?;
    if about.uids != (ids.owner, ids.owner) {
        return Err(CourierError::Refused("the process of the pid file isn't the named owner's"));
    }
    if about.age + SLACK < age_of(&stat) {
        return Err(CourierError::Refused("the process is younger than its pid file: its number was given to another one"));
    }
    pidfd_send_signal(&process, signal(asked.name)).map_err(gone)
}

fn pid(text: &str) -> Result<Pid, CourierError> {
    const NO_PID: CourierError = CourierError::Refused("the pid file doesn't hold the number of a process, and nothing else");
    let digits = text.strip_suffix('\n').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NO_PID);
    }
    let pid = digits.parse().ok().and_then(Pid::from_raw).ok_or(NO_PID)?;
    if pid == getpid() { Err(CourierError::Refused("the pid file names the daemon itself")) } else { Ok(pid) }
}

/// What the system says of a process.
struct Process {
    /// Real and effective.
    uids: (u32, u32),
    age: Duration,
}

impl Process {
    fn of(pid: Pid) -> Result<Process, CourierError> {
        const UNREADABLE: CourierError = CourierError::Unavailable("the process can't be looked at: is it gone?");
        let read = |path: String| std::fs::read_to_string(path).map_err(|_| UNREADABLE);
        let number = pid.as_raw_nonzero();
        let status = read(format!("/proc/{number}/status"))?;
        let stat = read(format!("/proc/{number}/stat"))?;
        let uptime = read("/proc/uptime".to_owned())?;
        Process::parse(&status, &stat, &uptime).ok_or(UNREADABLE)
    }

    fn parse(status: &str, stat: &str, uptime: &str) -> Option<Process> {
        let mut uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().map(|id| id.parse().ok());
        let uids = (uids.next()??, uids.next()??);
        // The name of the program is in parentheses, and may hold anything. Behind it the 20th word is the start, in ticks since boot.
        let (_, rest) = stat.rsplit_once(')')?;
        let started: f64 = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
        let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
        let age = Duration::try_from_secs_f64((uptime - started / TICKS).max(0.0)).ok()?;
        Some(Process { uids, age })
    }
}

fn age_of(stat: &Stat) -> Duration {
    let written =
        u64::try_from(stat.st_mtime).map_or(SystemTime::UNIX_EPOCH, |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    // From the future: as if it were written now.
    SystemTime::now().duration_since(written).unwrap_or_default()
}

const fn signal(name: SignalName) -> Signal {
    match name {
        SignalName::Hup => Signal::HUP,
        SignalName::Usr1 => Signal::USR1,
        SignalName::Usr2 => Signal::USR2,
        SignalName::Int => Signal::INT,
        SignalName::Term => Signal::TERM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_holds_a_number_and_nothing_else() {
        assert_eq!(pid("42\n").unwrap(), Pid::from_raw(42).unwrap());
        for text in ["", "\n", "0", "-1", "+1", " 1", "1 ", "1\n\n", "1\n2", "99999999999", "x"] {
            assert!(pid(text).is_err(), "{text:?}");
        }
        assert!(pid(&std::process::id().to_string()).is_err(), "the daemon doesn't signal itself");
    }

    #[test]
    fn what_the_system_says_is_understood_whatever_the_program_is_called() {
        let status = "Name:\tx\nUid:\t1000\t1001\t0\t0\n";
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 5000 1 1 1";
        let process = Process::parse(status, stat, "60.25 100.00\n").unwrap();
        assert_eq!((process.uids, process.age), ((1000, 1001), Duration::from_millis(10_250)));
        for (status, stat, uptime) in [("", stat, "1 1"), (status, "42 (x", "1 1"), (status, "42 (x) S 1", "1 1"), (status, stat, "")] {
            assert!(Process::parse(status, stat, uptime).is_none());
        }
    }
}
