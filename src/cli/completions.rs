//! `completions`: what a shell needs to complete a command line of ours.

use std::process::ExitCode;

use clap_complete::Shell;

use super::failure::Failure;
use super::terminal::Terminal;

pub(super) fn completions(shell: Shell, mut command: clap::Command, terminal: Terminal) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "keywright", &mut script);
    terminal.print_raw(&script)?;
    Ok(ExitCode::SUCCESS)
}
