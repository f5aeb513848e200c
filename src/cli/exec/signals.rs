//! The signals that `exec` passes on to its program.

use std::io;

use rustix::process::{Signal, getpgrp};
use rustix::termios::tcgetpgrp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

const PASSED_ON: [Signal; 7] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::WINCH];

/// Signals to this process, in their order.
pub(super) struct Signals(mpsc::UnboundedReceiver<Signal>);

impl Signals {
    /// What was ignored when we were started, as `nohup` does, stays so: the program inherits that.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub(super) fn catch() -> io::Result<Signals> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let (told, incoming) = mpsc::unbounded_channel();
        for one in PASSED_ON.into_iter().filter(|one| !is_ignored(&status, *one)) {
            let mut stream = signal(SignalKind::from_raw(one.as_raw()))?;
            let told = told.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    if told.send(one).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Signals(incoming))
    }

    /// Waits for the next one. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }

    /// Waits for one that is to end us.
    pub(super) async fn ending(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            if ends(signal) || signal == Signal::HUP {
                return signal;
            }
        }
    }
}

/// Whether it asks a program to end. SIGHUP doesn't: to many it says that files have changed.
pub(super) fn ends(signal: Signal) -> bool {
    [Signal::TERM, Signal::INT, Signal::QUIT].contains(&signal)
}

/// Whether the program has it already: a terminal sends these to all of its foreground group, which is the program's, too.
pub(super) fn comes_from_terminal(signal: Signal) -> bool {
    [Signal::INT, Signal::QUIT, Signal::WINCH].contains(&signal) && is_in_foreground()
}

fn is_in_foreground() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp())
}

/// By the line `SigIgn` of `/proc/self/status`: a bit for each signal, the first for number 1.
fn is_ignored(status: &str, signal: Signal) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal.as_raw() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_exec_leaves_ignored_signals_ignored() {
        let status = "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\tffff\n";
        assert!(is_ignored(status, Signal::HUP));
        assert!(!is_ignored(status, Signal::INT) && !is_ignored(status, Signal::TERM));
        assert!(!is_ignored("", Signal::HUP));
    }
}
