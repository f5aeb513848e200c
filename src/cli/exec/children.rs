//! The processes that `exec` starts, and those that they leave behind: each is waited for, as an init does.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How often it is looked whether what was left behind has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Nobody survives SIGKILL for longer, but for a process that hangs in the kernel.
const KILLED_WITHIN: Duration = Duration::from_secs(2);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// As a shell tells it: the exit status, or 128 and the signal.
    pub(super) fn status(self) -> u8 {
        let status = match self {
            Ended::Exited(status) => status,
            Ended::Killed(signal) => 128 + signal,
        };
        u8::try_from(status & 0xff).unwrap_or(u8::MAX)
    }

    fn of(status: WaitStatus) -> Option<Ended> {
        status.exit_status().map(Ended::Exited).or_else(|| status.terminating_signal().map(Ended::Killed))
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Exited(status) => write!(f, "exit status {status}"),
            Ended::Killed(signal) => write!(f, "ended by signal {signal}"),
        }
    }
}

/// Those that haven't been waited for: as long as one is in here, its id is its own.
#[derive(Default)]
struct Running {
    /// By us, each with who waits for its end.
    started: BTreeMap<i32, watch::Sender<Option<Ended>>>,
    /// By who we were before: a script may start something and then become `exec`. That isn't ours to end.
    found: BTreeSet<i32>,
}

/// All processes below this one. Only this waits for any of them.
#[derive(Clone)]
pub(super) struct Children(Arc<Mutex<Running>>);

/// One process that we started.
#[derive(Clone)]
pub(super) struct Child {
    id: Pid,
    ended: watch::Receiver<Option<Ended>>,
    all: Children,
}

impl Children {
    /// From here on orphans of our children become ours: so an old program's workers are seen, although it has ended itself.
    ///
    /// # Errors
    /// If the system refuses a handler for SIGCHLD, or what is called a subreaper.
    pub(super) fn new() -> std::io::Result<Children> {
        let mut told = signal(SignalKind::child())?;
        set_child_subreaper(Some(getpid()))?;
        let found = own_children().unwrap_or_default().into_iter().collect();
        let children = Children(Arc::new(Mutex::new(Running { started: BTreeMap::new(), found })));
        let all = children.clone();
        tokio::spawn(async move {
            while told.recv().await.is_some() {
                reap(&mut all.lock());
            }
        });
        Ok(children)
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// If the program can't be started.
    pub(super) fn start(&self, command: &mut Command) -> std::io::Result<Child> {
        // Locked, so that nobody waits for it before it is known.
        let mut running = self.lock();
        let started = command.spawn()?;
        let id = i32::try_from(started.id()).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::InvalidData)?;
        let (told, ended) = watch::channel(None);
        running.started.insert(id.as_raw_nonzero().get(), told);
        Ok(Child { id, ended, all: self.clone() })
    }

    /// Ends what is left of a program that ended: SIGTERM, and SIGKILL at `deadline`. Whether nothing is left.
    pub(super) async fn end_rest(&self, deadline: Instant) -> bool {
        let last = deadline.max(Instant::now()) + KILLED_WITHIN;
        let mut asked = Vec::new();
        loop {
            let Some(left) = self.left_behind() else { return false };
            let now = Instant::now();
            if left.is_empty() || now >= last {
                return left.is_empty();
            }
            // More may come: who loses its parent becomes ours later.
            for id in left {
                if now >= deadline {
                    self.signal_left(id, Signal::KILL);
                } else if !asked.contains(&id) {
                    self.signal_left(id, Signal::TERM);
                    asked.push(id);
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Children that we didn't start ourselves. `None` if there are some and nobody says which.
    fn left_behind(&self) -> Option<Vec<Pid>> {
        let mut running = self.lock();
        if !reap(&mut running) {
            return Some(Vec::new());
        }
        let is_left = |id: &i32| !running.started.contains_key(id) && !running.found.contains(id);
        Some(own_children()?.into_iter().filter(is_left).filter_map(Pid::from_raw).collect())
    }

    /// Only while it is still ours: looked at again under the lock, so that its id can't be another's.
    fn signal_left(&self, id: Pid, signal: Signal) {
        let _running = self.lock();
        if own_children().unwrap_or_default().contains(&id.as_raw_nonzero().get()) {
            // Who has ended meanwhile needs none.
            let _ended = kill_process(id, signal);
        }
    }
}

impl Child {
    pub(super) fn id(&self) -> i32 {
        self.id.as_raw_nonzero().get()
    }

    /// Waits for its end. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> Ended {
        match self.ended.wait_for(Option::is_some).await.map(|ended| *ended) {
            Ok(Some(ended)) => ended,
            // Its sender is dropped only after it told.
            _ => std::future::pending().await,
        }
    }

    /// Nothing where it has ended: its id may be another's by now.
    pub(super) fn signal(&self, signal: Signal) {
        let running = self.all.lock();
        if running.started.contains_key(&self.id()) {
            let _ended = kill_process(self.id, signal);
        }
    }
}

/// Waits for all that have ended. Whether others live.
fn reap(running: &mut Running) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((id, status))) => {
                let Some(ended) = Ended::of(status) else { continue };
                running.found.remove(&id.as_raw_nonzero().get());
                if let Some(told) = running.started.remove(&id.as_raw_nonzero().get()) {
                    told.send_replace(Some(ended));
                }
            }
            Ok(None) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// `None` where `/proc` isn't there, or is of another namespace of processes: its ids are other processes' there.
fn own_children() -> Option<Vec<i32>> {
    let own = std::process::id();
    let is_ours = std::fs::read_link("/proc/self").is_ok_and(|link| link.to_str() == Some(&own.to_string()));
    let entries = std::fs::read_dir("/proc").ok().filter(|_| is_ours)?;
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |id: &i32| std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|text| parent_of(&text) == Some(own));
    Some(ids.filter(is_child).collect())
}

/// The parent in `/proc/<id>/stat`. The name before it may hold anything, closing brackets too.
fn parent_of(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_exec_tells_an_end_as_a_shell_does() {
        for (ended, status, text) in [
            (Ended::Exited(0), 0, "exit status 0"),
            (Ended::Exited(255), 255, "exit status 255"),
            (Ended::Killed(9), 137, "ended by signal 9"),
            (Ended::Killed(15), 143, "ended by signal 15"),
        ] {
            assert_eq!((ended.status(), ended.to_string().as_str()), (status, text));
        }
    }

    #[test]
    fn cli_exec_finds_the_parent_behind_any_name() {
        assert_eq!(parent_of("12 (a) S 7 12 12 0"), Some(7));
        assert_eq!(parent_of("12 (a) R 1) S 9 12 12 0"), Some(9));
        for bad in ["", "12 (a)", "12 (a) S", "12 (a) S x"] {
            assert_eq!(parent_of(bad), None, "{bad}");
        }
    }
}
