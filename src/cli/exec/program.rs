//! The program while it runs: started with its credentials, told of their changes, and ended with grace.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use super::children::{Child, Children, Ended};
use super::document::Documents;
use super::folder::Folder;
use super::say;
use super::signals::{Signals, comes_from_terminal, ends};
use super::variables::variables;
use crate::cli::failure::Failure;
use crate::cli::terminal::Terminal;

/// What the program finds the path of its files by.
const FILES_VARIABLE: &str = "KEYWRIGHT_CREDENTIALS";

/// Where the program gets its credentials from.
pub(super) enum Place {
    Files(Folder),
    /// Of its own environment. They can't change while it runs.
    Variables,
}

impl Place {
    /// Lays these credentials out. What a program is then started with.
    ///
    /// # Errors
    /// If they can't be given in this way; the program that runs is then left as it is.
    pub(super) fn prepare(&mut self, documents: &Documents) -> Result<Environment, Failure> {
        match self {
            Place::Files(folder) => {
                folder.put(documents)?;
                Ok(Environment(vec![(FILES_VARIABLE.into(), folder.path().into())]))
            }
            Place::Variables => {
                let all = variables(documents, |name| std::env::var_os(name).is_some())?;
                Ok(Environment(all.into_iter().map(|(name, value)| (name.into(), value)).collect()))
            }
        }
    }
}

/// What is added to a child's environment, and never to ours. No `Debug`: it can hold values.
pub(super) struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// `words` isn't empty: the program and its arguments.
    pub(super) fn command<T: AsRef<std::ffi::OsStr>>(&self, words: &[T]) -> Option<Command> {
        let (program, arguments) = words.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments).envs(self.0.iter().map(|(name, value)| (name, value)));
        Some(command)
    }
}

/// How an old program ended, to make room for a new one.
pub(super) struct Cleared {
    pub(super) ended: Ended,
    /// Somebody wants us to end meanwhile: no new one is started.
    pub(super) is_last: bool,
    /// Nothing that it started lives on.
    pub(super) whole: bool,
}

/// SIGTERM, and SIGKILL when the grace is over, also to what it leaves behind. Signals are passed on meanwhile.
pub(super) async fn clear(program: &mut Child, children: &Children, grace: Duration, signals: &mut Signals, terminal: Terminal) -> Cleared {
    let deadline = Instant::now() + grace;
    let (mut is_killed, mut is_last) = (false, false);
    program.signal(Signal::TERM);
    let ended = loop {
        tokio::select! {
            biased;
            ended = program.ended() => break ended,
            signal = signals.next() => {
                is_last |= ends(signal);
                pass_on(signal, program);
            }
            () = sleep_until(deadline), if !is_killed => {
                is_killed = true;
                say(terminal, &format!("the program didn't end within {} seconds: it is killed", grace.as_secs()));
                program.signal(Signal::KILL);
            }
        }
    };
    let mut resting = std::pin::pin!(children.end_rest(deadline));
    let whole = loop {
        tokio::select! {
            whole = &mut resting => break whole,
            signal = signals.next() => is_last |= ends(signal),
        }
    };
    Cleared { ended, is_last, whole }
}

pub(super) fn pass_on(signal: Signal, program: &Child) {
    if !comes_from_terminal(signal) {
        program.signal(signal);
    }
}
