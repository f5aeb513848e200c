//! `run`: the daemon, from the hardening of its process to its orderly end.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::runtime::hardening;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::telemetry::{self, Format, Levels};

use super::daemon::start_daemon;
use super::failure::Failure;
use super::settings::Settings;

/// What limits the log, as everywhere; it can't widen it beyond our own targets and fields.
const LEVELS_VARIABLE: &str = "RUST_LOG";

pub(crate) async fn run(config_path: Option<PathBuf>) -> Result<ExitCode, Failure> {
    Box::pin(serve(config_path)).await.map(|()| ExitCode::SUCCESS)
}

async fn serve(config_path: Option<PathBuf>) -> Result<(), Failure> {
    prepare_process(None)?;
    if hardening::raise_open_files().is_err() {
        tracing::warn!("the limit of open files can't be raised");
    }
    let config = Settings::new(config_path).config()?;
    let shutdown = Shutdown::new();
    shutdown.listen().map_err(|error| Failure::io("listening for signals", &error))?;
    start_daemon(config, shutdown).await?.ended().await
}

/// What comes before anything else in a process that holds values: dangerous variables are refused, files are private,
/// and the log is an allow-list. The log goes to standard error, or whole and without limits into a new file.
pub(super) fn prepare_process(log: Option<&Path>) -> Result<(), Failure> {
    hardening::check_environment(std::env::vars_os())
        .map_err(|error| Failure::failed("dangerous-environment", "the environment is dangerous", error.to_string()))?;
    hardening::private_files();
    match log {
        None => telemetry::install(std::env::var(LEVELS_VARIABLE).ok().as_deref()).map_err(|_| logs_already()),
        Some(path) => {
            let sink = file_sink(path).map_err(|error| Failure::io("opening the log", &error))?;
            let subscriber = telemetry::subscriber(Levels::parse(Some("trace")), Format::Json, sink);
            tracing::subscriber::set_global_default(subscriber).map_err(|_| logs_already())
        }
    }
}

fn logs_already() -> Failure {
    Failure::failed("telemetry", "the log can't be set up", "something else logs in this process already")
}

fn file_sink(path: &Path) -> std::io::Result<telemetry::Sink> {
    let file: File = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    // A log that can't be written can't be complained about either.
    Ok(Box::new(move |line: &str| drop((&file).write_all(line.as_bytes()))))
}
