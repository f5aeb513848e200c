//! The command line: one file per command.

mod audit;
mod backup;
mod certificate;
mod check;
mod client;
mod completions;
mod daemon;
mod demo;
mod exec;
mod failure;
mod forget;
mod get;
#[cfg(test)]
mod golden;
mod golive;
mod herds;
mod judge;
mod man;
mod measures;
mod pause;
mod plan;
mod pods;
mod release;
mod replicas;
mod revoke;
mod rewrap;
mod rollback;
mod rotate;
mod run;
mod schema;
mod secrets;
mod settings;
mod sse;
mod status;
mod submit;
mod terminal;
mod views;
mod ways;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

use crate::domain::ids::{FieldName, InstanceName, Name, VersionId};
use crate::domain::reason::Reason;
use crate::runtime::hardening;
use failure::Failure;
use settings::Settings;
use terminal::{Color, Terminal};

/// Keeps API credentials, proves that each belongs to its environment, rotates them by policy, and pushes the new ones
/// to the applications.
#[derive(Debug, Parser)]
#[command(name = "keywright", version, max_term_width = 100, after_help = EXIT_STATUSES)]
struct Arguments {
    /// The configuration; without it: ./policies, ./data, and the socket in there
    #[arg(long, global = true, env = "KEYWRIGHT_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON; a failure is then a problem document on standard error
    #[arg(long, global = true)]
    json: bool,
    /// When to colour what is printed
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

const EXIT_STATUSES: &str = "Exit status: 0 done, 1 refused or failed, 2 wrong usage or invalid policies or configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run,
    /// See the whole job in about a minute: daemon, simulated provider and an application on this machine
    Demo(demo::DemoArguments),
    /// Validate policies, offline; with --credential, judge fields from standard input by them
    Check {
        /// A folder of policies [default: the configuration's, else ./policies]
        path: Option<PathBuf>,
        /// Judge fields of this credential, one JSON object on standard input; nothing of them is kept or sent anywhere
        #[arg(long, value_name = "NAME")]
        credential: Option<Name>,
    },
    /// Show what will rotate when, why, what stands in the way, and the days on which many start
    Plan {
        /// How far to look ahead
        #[arg(long, default_value_t = 90, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Show each credential: where it stands, how old it is, who holds it
    Status {
        /// Only this credential
        name: Option<Name>,
    },
    /// Enrol a key, or resume a manual rotation: its fields as one JSON object on standard input
    Submit {
        /// The credential
        name: Name,
        /// Take over what somebody else wrote in its place in the store; without fields on standard input, that value itself
        #[arg(long)]
        adopt: bool,
    },
    /// Rotate now: one credential, or all of a provider, an account or an application
    Rotate(rotate::RotateArguments),
    /// Make the old key current again, while it still lives; the new one is retired
    Rollback {
        /// The credential
        name: Name,
        #[command(flatten)]
        why: Why,
    },
    /// Revoke an old version, or a candidate, now
    Revoke {
        /// The credential
        name: Name,
        /// The version, as `status` and the list of versions name it
        #[arg(long, value_name = "V")]
        version: VersionId,
        /// Also if somebody holds it: this breaks them
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Remove what is kept here of a credential; its keys live on at the provider
    Forget {
        /// The credential
        name: Name,
        /// Also if a document names it, an application holds it, or a rotation is open
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Stop all that destroys, over restarts too
    Pause {
        /// Only this credential; without one, everything, credentials that come later included
        name: Option<Name>,
        #[command(flatten)]
        why: Why,
    },
    /// Let go on what `pause` stopped
    Resume {
        /// Only this credential; without one, everything but what was paused by its name
        name: Option<Name>,
        #[command(flatten)]
        why: Why,
    },
    /// Say that an instance holds nothing any more; without one: that no instance of the application does
    Release {
        /// The application
        application: Name,
        /// One running copy of it
        instance: Option<InstanceName>,
        #[command(flatten)]
        why: Why,
    },
    /// Show the going-live list of an application, and sign off what only a person can tell; exit status 1 until it is passed
    Golive(golive::GoliveArguments),
    /// Print a credential, as an application or as an operator who may read
    Get {
        /// The credential
        name: Name,
        /// Print the value of this field only
        #[arg(long, value_name = "F")]
        field: Option<FieldName>,
        /// Read the application's bearer token from this file
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Why, for an operator's read of a production credential: 500 characters at most, kept by the audit trail
        #[arg(long, value_name = "TEXT")]
        reason: Option<Reason>,
    },
    /// Start a program with its application's credentials, and restart or signal it when they change
    #[command(long_about = exec::ABOUT)]
    Exec(exec::ExecArguments),
    /// Copy the store while the daemon runs, sealed as it is: into a new file
    Backup {
        /// Where to; it must not exist
        file: PathBuf,
    },
    /// Bring a backup back, without a daemon: nothing of it is served before it was verified again
    Restore {
        /// The backup [default: the store in the data folder, which was put back by hand]
        file: Option<PathBuf>,
        /// Put a store that is in the data folder aside
        #[arg(long)]
        force: bool,
    },
    /// Seal the store with another key while the daemon runs
    Rewrap {
        /// The file of the new key, which the daemon reads [default: the daemon makes one, in the place of its key file]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Look at the audit trail
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print the JSON Schema of the policies, for editors
    Schema,
    /// Print what a shell needs to complete command lines
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Write a page for each command into this folder instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Why a person does what ends a key, or holds its end up.
#[derive(Debug, clap::Args)]
struct Why {
    /// Why: 500 characters at most, kept by the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<Reason>,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check the hash chain, offline
    Verify {
        /// The trail [default: the configuration's]
        file: Option<PathBuf>,
    },
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    hardening::quiet_panics();
    hardening::install_crypto();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misused(&without_what_was_typed(error)),
    };
    arguments.color.apply();
    let terminal = Terminal { json: arguments.json };
    dispatch(arguments, terminal).unwrap_or_else(|failure| {
        terminal.print_failure(&failure);
        failure.exit_code()
    })
}

/// What was typed isn't repeated: it may be a secret in the wrong place. What is ours in such an error stays: the argument that was
/// meant, and what is like it.
fn without_what_was_typed(mut error: clap::Error) -> clap::Error {
    let mut typed = vec![ContextKind::InvalidValue, ContextKind::InvalidSubcommand];
    if error.kind() == ErrorKind::UnknownArgument {
        typed.push(ContextKind::InvalidArg);
    }
    for kind in typed {
        if error.get(kind).is_some() {
            error.insert(kind, ContextValue::String("…".to_owned()));
        }
    }
    // Tips on how to write it, with it in them.
    error.remove(ContextKind::Suggested);
    error
}

/// Help and version are errors of this kind, too, with exit status 0.
fn misused(error: &clap::Error) -> ExitCode {
    let asked_for_json = std::env::args_os().take_while(|argument| argument != "--").any(|argument| argument == "--json");
    if error.use_stderr() && asked_for_json {
        // The first line says what is wrong; the rest is for people.
        let text = error.render().to_string();
        let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let failure = Failure::invalid("usage", "the command line isn't understood", line);
        Terminal { json: true }.print_failure(&failure);
        return failure.exit_code();
    }
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn dispatch(arguments: Arguments, terminal: Terminal) -> Result<ExitCode, Failure> {
    // Every command may hold values in memory, not the daemon alone.
    hardening::protect_process().map_err(|error| Failure::failed("hardening", "the process can't be protected", error.to_string()))?;
    let settings = Settings::new(arguments.config);
    match arguments.command {
        Command::Run => on_all_cores(run::run(settings.path())),
        Command::Demo(options) => on_all_cores(demo::demo(options, terminal)),
        Command::Check { path, credential: None } => check::check(path, &settings, terminal),
        Command::Check { path, credential: Some(name) } => asking(judge::judge(path, &name, &settings, terminal)),
        Command::Audit(AuditCommand::Verify { file }) => audit::verify_trail(file, &settings, terminal),
        Command::Exec(asked) => asking(exec::exec(asked, &settings, terminal)),
        Command::Backup { file } => asking(async { backup::backup(&file, &settings.client()?, terminal).await }),
        Command::Restore { file, force } => asking(backup::bring_back(file, force, &settings, terminal)),
        Command::Rewrap { to } => asking(async { rewrap::rewrap(to, &settings.client()?, terminal).await }),
        Command::Schema => schema::schema(terminal),
        Command::Completions { shell } => completions::completions(shell, Arguments::command(), terminal),
        Command::Man { dir } => man::man(dir.as_deref(), Arguments::command(), terminal),
        Command::Plan { days } => asking(async { plan::plan(days, &settings.client()?, terminal).await }),
        Command::Status { name } => asking(async { status::status(name.as_ref(), &settings.client()?, terminal).await }),
        Command::Submit { name, adopt } => asking(async { submit::submit(&name, adopt, &settings.client()?, terminal).await }),
        Command::Rotate(asked) => asking(async { rotate::rotate(&asked, &settings.client()?, terminal).await }),
        Command::Rollback { name, why } => asking(async { rollback::rollback(&name, why.reason, &settings.client()?, terminal).await }),
        Command::Revoke { name, version, force, why } => {
            asking(async { revoke::revoke(&name, &version, force, why.reason, &settings.client()?, terminal).await })
        }
        Command::Forget { name, force, why } => {
            asking(async { forget::forget(&name, force, why.reason, &settings.client()?, terminal).await })
        }
        Command::Pause { name, why } => asking(async { pause::pause(name.as_ref(), why.reason, &settings.client()?, terminal).await }),
        Command::Resume { name, why } => asking(async { pause::resume(name.as_ref(), why.reason, &settings.client()?, terminal).await }),
        Command::Release { application, instance, why } => {
            asking(async { release::release(&application, instance.as_ref(), why.reason, &settings.client()?, terminal).await })
        }
        Command::Golive(asked) => asking(async { golive::golive(asked, &settings.client()?, terminal).await }),
        Command::Get { name, field, token_file, reason } => {
            let wanted = get::Wanted { name, field, token_file, reason };
            asking(async { get::get(wanted, settings.client()?, terminal).await })
        }
    }
}

/// For commands that ask the daemon: one thread is plenty.
fn asking(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    block_on(tokio::runtime::Builder::new_current_thread(), command)
}

fn on_all_cores(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    block_on(tokio::runtime::Builder::new_multi_thread(), command)
}

fn block_on(mut builder: tokio::runtime::Builder, command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = builder.enable_all().build().map_err(|error| Failure::io("starting", &error))?;
    let result = runtime.block_on(command);
    // A thread may still wait for a key to be pressed: nobody waits for it.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn cli_global_options_stand_before_or_after_the_command() {
        for line in ["keywright --config a --json status x", "keywright status x --json --config a", "keywright status --config a x --json"]
        {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.config.as_deref(), Some(std::path::Path::new("a")));
            assert!(arguments.json);
        }
    }

    #[test]
    fn cli_wrong_usage_does_not_repeat_what_was_typed() {
        for line in [
            "keywright S3CRETS3CRET",
            "keywright S3CRETS3CRET=1 --json",
            "keywright status S3CRETS3CRET",
            "keywright status a S3CRETS3CRET",
            "keywright status --S3CRETS3CRET",
            "keywright check --credential S3CRETS3CRET",
            "keywright status --S3CRETS3CRET=1",
            "keywright plan --days S3CRETS3CRET",
            "keywright plan --days=S3CRETS3CRET",
            "keywright plan --json=S3CRETS3CRET",
            "keywright completions S3CRETS3CRET",
            "keywright rotate a --compromised --within S3CRETS3CRET",
            "keywright --color S3CRETS3CRET status",
        ] {
            let error = Arguments::try_parse_from(line.split(' ')).unwrap_err();
            assert!(error.to_string().contains("S3CRET"), "{line}: nothing to take out");
            let error = without_what_was_typed(error);
            assert!(!error.to_string().contains("S3CRET"), "{line}: {error}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        let error = without_what_was_typed(Arguments::try_parse_from(["keywright", "statsu"]).unwrap_err());
        assert!(error.to_string().contains("'status'"), "what is like it is told: {error}");
    }

    #[test]
    fn cli_names_are_parsed_once() {
        for line in [
            "keywright get ..",
            "keywright rotate A",
            "keywright get a --field X",
            "keywright plan --days 0",
            "keywright",
            "keywright revoke a",
            "keywright rotate --compromised",
            "keywright pause A",
        ] {
            assert_eq!(Arguments::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(Arguments::try_parse_from(["keywright", "--help"]).unwrap_err().exit_code(), 0);
    }
}
