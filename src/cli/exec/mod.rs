//! `exec`: starts a program with its application's credentials, and restarts or signals it when they change.
//!
//! It supervises one program for the sake of its credentials, and is no service manager: when the program ends by itself, also just
//! after a restart, `exec` ends with its status, so that whoever started it sees that and decides. What it changed isn't
//! confirmed then, so the old key lives.

mod children;
mod confirm;
mod daemon;
mod document;
mod folder;
mod follow;
mod instance;
mod leftovers;
mod program;
mod signals;
mod supervise;
mod variables;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::failure::Failure;
use super::get::token_of;
use super::settings::Settings;
use super::terminal::Terminal;
use crate::domain::ids::{InstanceName, Name};
use crate::domain::span::Span;
use children::Children;
use daemon::{Daemon, Door, Server};
use document::Documents;
use folder::Folder;
use follow::{follow, told};
use program::Place;
use signals::Signals;
use supervise::Supervisor;

pub(super) const ABOUT: &str = "Start a program with its application's credentials, and restart or signal it when they change.

The program finds them in the folder that KEYWRIGHT_CREDENTIALS names: CREDENTIAL.json is the whole document, CREDENTIAL/FIELD \
the value of a field, and nothing else. The folder is in memory, private, and gone when the program is. With --env it gets \
variables instead, named CREDENTIAL_FIELD in capitals with `_` for `-`.

A new version is confirmed, so that the old key may be revoked, once the new program has run for --settle, or --check passed; never if \
it ended before that. When the program ends by itself, exec ends with its status (128 and the signal if one ended it); it passes on \
SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 and SIGWINCH. Before the program runs: 1 refused or failed, 2 wrong usage.";

/// How long a program has to run before what it was started with is confirmed.
const SETTLE: Duration = Duration::from_secs(10);
const AGAIN_FIRST: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// What is started, as whom, and how it is told of changes.
#[derive(Debug, clap::Args)]
pub(super) struct ExecArguments {
    /// The application; the caller must be it, by its uid on the socket or by its token
    #[arg(long, value_name = "NAME")]
    application: Name,
    /// Give the fields as variables instead of files; a change then restarts the program
    #[arg(long, conflicts_with_all = ["signal", "folder"])]
    env: bool,
    /// On a change send the program this signal, for one that reads its files again
    #[arg(long, value_enum, ignore_case = true, value_name = "SIGNAL", conflicts_with = "restart")]
    signal: Option<Told>,
    /// On a change restart the program: the default, because a signal ends a program that doesn't expect it
    #[arg(long)]
    restart: bool,
    /// What has to exit with 0 before a version is confirmed: a program and arguments, with blanks between them, no shell
    #[arg(long, value_name = "COMMAND", value_parser = words)]
    check: Option<Words>,
    /// How long the program has to run before a version is confirmed [default: 10s; with --check and a restart: not at all]
    #[arg(long, value_name = "10s")]
    settle: Option<Span>,
    /// How long a program may take to end before it is killed, when it is restarted
    #[arg(long, default_value = "10s", value_name = "10s")]
    grace: Span,
    /// How long to wait for the daemon, and for a first version of each credential
    #[arg(long, default_value = "60s", value_name = "60s")]
    wait: Span,
    /// How this running copy is called; unlike any other [default: the pod of the token, else host, process and chance]
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<InstanceName>,
    /// Call the daemon at this address instead of its socket: `https://HOST:PORT`
    #[arg(long, value_name = "URL", requires = "token_file")]
    server: Option<Server>,
    /// Who signed the certificate of that address: certificates in PEM
    #[arg(long, value_name = "FILE", requires = "server")]
    ca: Option<PathBuf>,
    /// Read the application's bearer token from this file, again for each call
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Make the folder for the files in this one, which is in memory [default: $XDG_RUNTIME_DIR, else /dev/shm]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A signal that means "read your files again" to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Told {
    #[value(name = "HUP", alias = "SIGHUP")]
    Hup,
    #[value(name = "USR1", alias = "SIGUSR1")]
    Usr1,
    #[value(name = "USR2", alias = "SIGUSR2")]
    Usr2,
    #[value(name = "WINCH", alias = "SIGWINCH")]
    Winch,
}

impl Told {
    fn signal(self) -> Signal {
        match self {
            Told::Hup => Signal::HUP,
            Told::Usr1 => Signal::USR1,
            Told::Usr2 => Signal::USR2,
            Told::Winch => Signal::WINCH,
        }
    }
}

/// A command without quotes: a script says what these can't.
#[derive(Debug, Clone)]
struct Words(Vec<String>);

fn words(text: &str) -> Result<Words, &'static str> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() { Err("a check is a program and its arguments") } else { Ok(Words(words)) }
}

pub(super) async fn exec(asked: ExecArguments, settings: &Settings, terminal: Terminal) -> Result<ExitCode, Failure> {
    let refused = |doing: &'static str| move |error: std::io::Error| Failure::io(doing, &error);
    let mut signals = Signals::catch().map_err(refused("catching signals"))?;
    let children = Children::new().map_err(refused("looking after child processes"))?;
    let daemon = Arc::new(daemon(&asked, settings)?);
    let place = if asked.env { Place::Variables } else { Place::Files(Folder::make(asked.folder.as_deref())?) };
    let documents = tokio::select! {
        documents = fetch_all(&daemon, asked.wait.as_duration(), terminal) => documents?,
        signal = signals.ending() => return Ok(ExitCode::from(children::Ended::Killed(signal.as_raw()).status())),
    };
    let (newest, changes) = watch::channel(documents);
    tokio::spawn(follow(Arc::clone(&daemon), newest, terminal));
    let supervisor = Supervisor {
        daemon,
        children,
        signals,
        settle: settle(&asked),
        command: asked.command,
        place,
        signal: asked.signal.map(Told::signal),
        grace: asked.grace.as_duration(),
        check: asked.check.map(|words| words.0),
        terminal,
    };
    Box::pin(supervisor.run(changes)).await
}

/// A check says more than time does; but a program that was only signalled needs some before a check can tell the new from the old.
fn settle(asked: &ExecArguments) -> Duration {
    match asked.settle {
        Some(settle) => settle.as_duration(),
        None if asked.check.is_some() && asked.signal.is_none() => Duration::ZERO,
        None => SETTLE,
    }
}

fn daemon(asked: &ExecArguments, settings: &Settings) -> Result<Daemon, Failure> {
    let usage = |detail: &str| Err(Failure::invalid("usage", "the command line isn't understood", detail));
    let door = match (&asked.server, &asked.ca) {
        (None, _) => Door::Socket(settings.config()?.listen.socket),
        (Some(server), None) if server.has_tls() => {
            return usage("--server needs --ca: the file of who signed the daemon's certificate, or all that the system trusts");
        }
        (Some(server), Some(_)) if !server.has_tls() => return usage("--ca is for an address that begins with `https://`"),
        (Some(server), ca) => Door::Server { server: server.clone(), ca: ca.clone() },
    };
    let token = asked.token_file.as_deref().map(token_of).transpose()?;
    let instance = asked.instance.clone().unwrap_or_else(|| instance::instance(token.as_ref().map(|(token, _)| token.as_slice())));
    Ok(Daemon { door, application: asked.application.clone(), instance, token_file: asked.token_file.clone() })
}

/// All that the application lists: a program is never started with a part of it.
async fn fetch_all(daemon: &Daemon, wait: Duration, terminal: Terminal) -> Result<Documents, Failure> {
    let deadline = Instant::now() + wait;
    let (mut again, mut said) = (AGAIN_FIRST, String::new());
    loop {
        let failure = match fetch(daemon).await {
            Ok(documents) => return Ok(documents),
            Err(failure) => failure,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !is_passing(&failure) {
            return Err(failure);
        }
        let reason = told(&failure);
        if reason != said {
            say(terminal, &format!("waiting for the credentials: {reason}"));
            said = reason;
        }
        sleep(again.min(left)).await;
        again = (again * 2).min(AGAIN_MAX);
    }
}

async fn fetch(daemon: &Daemon) -> Result<Documents, Failure> {
    let mut all = daemon.list().await?;
    // Those without a version first: what is read is held by us, so nothing is as long as the program can't start.
    all.sort_by_key(|listed| listed.version.is_some());
    let mut documents = Documents::new();
    for listed in all {
        let document = daemon.read(&listed.name).await?;
        documents.insert(listed.name, Arc::new(document));
    }
    Ok(documents)
}

/// Whether waiting may help: nobody answered, or the daemon asks for patience.
fn is_passing(failure: &Failure) -> bool {
    let problem = &failure.problem;
    matches!(problem.slug(), "no-daemon" | "no-answer") || problem.status.is_some_and(|status| matches!(status, 408 | 429 | 500..))
}

/// One line of our own beside what the program writes; nothing with `--json`.
fn say(terminal: Terminal, text: &str) {
    terminal.remark(&format!("keywright: {}", super::terminal::printable(text)));
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
