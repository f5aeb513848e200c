//! The loop while the program runs: its end, signals, changes of credentials, and what may be confirmed.

use std::ffi::OsString;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::children::{Child, Children};
use super::confirm::{Proof, confirm};
use super::daemon::Daemon;
use super::document::{Documents, named, to_take_up};
use super::follow::told;
use super::program::{Environment, Place, clear, pass_on};
use super::say;
use super::signals::Signals;
use crate::cli::failure::Failure;
use crate::cli::terminal::Terminal;

/// Changes that come within this of the first are taken up as one.
const MERGE_TIME: Duration = Duration::from_millis(500);
/// What couldn't be laid out (memory was full) is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What was asked for, ready to be done.
pub(super) struct Supervisor {
    pub(super) daemon: Arc<Daemon>,
    pub(super) children: Children,
    pub(super) signals: Signals,
    /// The program and its arguments; not empty.
    pub(super) command: Vec<OsString>,
    pub(super) place: Place,
    /// What tells the program of a change; without one it is restarted.
    pub(super) signal: Option<Signal>,
    pub(super) grace: Duration,
    pub(super) settle: Duration,
    pub(super) check: Option<Vec<String>>,
    pub(super) terminal: Terminal,
}

/// A confirmation on its way. Dropped, it says nothing more.
type Confirming = Pin<Box<dyn Future<Output = ()>>>;

/// What runs.
struct Running {
    program: Child,
    documents: Documents,
    confirming: Option<Confirming>,
}

impl Supervisor {
    /// Runs the program to its end. Its status is ours.
    ///
    /// # Errors
    /// If it can't be started, the first time or again.
    pub(super) async fn run(mut self, mut changes: watch::Receiver<Documents>) -> Result<ExitCode, Failure> {
        let documents = changes.borrow_and_update().clone();
        let environment = self.place.prepare(&documents)?;
        let program = self.start(&environment)?;
        say(self.terminal, &format!("started the program ({}) with {}", program.id(), named(documents.values())));
        let confirming = Some(self.confirming(&environment, &documents));
        let mut running = Running { program, documents, confirming };
        let (mut due, mut is_followed) = (None, true);
        loop {
            tokio::select! {
                biased;
                ended = running.program.ended() => return Ok(ExitCode::from(ended.status())),
                signal = self.signals.next() => pass_on(signal, &running.program),
                changed = changes.changed(), if is_followed => {
                    is_followed = changed.is_ok();
                    due.get_or_insert_with(|| Instant::now() + MERGE_TIME);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    match self.take_up(&mut running, &mut changes).await {
                        Ok(None) => due = None,
                        Ok(Some(code)) => return Ok(code),
                        Err(Untaken::Later(failure)) => {
                            say(self.terminal, &format!("{}: the program goes on with what it has", told(&failure)));
                            due = Some(Instant::now() + AGAIN_AFTER);
                        }
                        Err(Untaken::Gone(failure)) => return Err(failure),
                    }
                }
                () = finished(&mut running.confirming) => running.confirming = None,
            }
        }
    }

    fn start(&self, environment: &Environment) -> Result<Child, Failure> {
        let unusable = || Failure::invalid("usage", "there is no program to start", "name it behind `--`");
        let mut command = environment.command(&self.command).ok_or_else(unusable)?;
        self.children.start(&mut command).map_err(|error| Failure::io("starting the program", &error))
    }

    fn confirming(&self, environment: &Environment, documents: &Documents) -> Confirming {
        let check = self.check.as_ref().and_then(|words| environment.command(words));
        let proof = Proof { settle: self.settle, check };
        Box::pin(confirm(Arc::clone(&self.daemon), self.children.clone(), documents.clone(), proof, self.terminal))
    }

    /// The exit status if the program ended for good meanwhile.
    async fn take_up(&mut self, running: &mut Running, changes: &mut watch::Receiver<Documents>) -> Result<Option<ExitCode>, Untaken> {
        let mut newest = changes.borrow_and_update().clone();
        // Held back until we know that they can be laid out: the program that runs must stay as it is if they can't.
        let mut environment = self.place.prepare(&newest).map_err(Untaken::Later)?;
        let new = to_take_up(&running.documents, &newest);
        if new.is_empty() {
            running.documents = newest;
            return Ok(None);
        }
        let what = named(new);
        // What was to be confirmed isn't the newest any more.
        running.confirming = None;
        let mut may_confirm = true;
        if let Some(signal) = self.signal {
            say(self.terminal, &format!("{what}: the files are new, the program gets signal {}", signal.as_raw()));
            running.program.signal(signal);
        } else {
            say(self.terminal, &format!("{what}: the program is restarted"));
            let cleared = clear(&mut running.program, &self.children, self.grace, &mut self.signals, self.terminal).await;
            if cleared.is_last {
                return Ok(Some(ExitCode::from(cleared.ended.status())));
            }
            // What came while the old program took its time is taken up with it. If that can't be laid out, the loop tries again.
            let latest = changes.borrow().clone();
            if changes.has_changed().is_ok_and(|changed| changed)
                && let Ok(later) = self.place.prepare(&latest)
            {
                changes.mark_unchanged();
                (environment, newest) = (later, latest);
            }
            running.program = self.start(&environment).map_err(Untaken::Gone)?;
            may_confirm = cleared.whole;
        }
        if may_confirm {
            running.confirming = Some(self.confirming(&environment, &newest));
        } else {
            say(self.terminal, "processes of the old program can't be ended: nothing is confirmed, because they may use the old key");
        }
        running.documents = newest;
        Ok(None)
    }
}

/// Why a change wasn't taken up.
enum Untaken {
    /// The program runs on as it was.
    Later(Failure),
    /// There is no program any more.
    Gone(Failure),
}

/// When it has finished; never, if there is none.
async fn finished(confirming: &mut Option<Confirming>) {
    match confirming {
        Some(confirming) => confirming.await,
        None => std::future::pending().await,
    }
}
