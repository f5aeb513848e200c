//! `check`: validates the policies offline; all problems at once, each with its place and the way out.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::domain::policy::Policies;
use crate::policies::Problems;

use super::failure::Failure;
use super::settings::{Held, Settings, read_policies};
use super::terminal::{GOOD, Terminal, counted};

pub(super) fn check(path: Option<PathBuf>, settings: &Settings, terminal: Terminal) -> Result<ExitCode, Failure> {
    match read(path, settings)? {
        Ok(policies) if terminal.json => terminal.print_json(&json!({"problems": []})).map(|()| policies),
        Ok(policies) => terminal.print(&summary(&policies)).map(|()| policies),
        Err(problems) => return report(&problems, terminal),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The folder that was named, or the configuration's.
pub(super) fn read(path: Option<PathBuf>, settings: &Settings) -> Result<Result<Policies, Problems>, Failure> {
    match path {
        Some(path) => Ok(read_policies(&path, Held::default())),
        None => settings.config().map(|config| read_policies(&config.policies, Held::by(&config))),
    }
}

pub(super) fn report(problems: &Problems, terminal: Terminal) -> Result<ExitCode, Failure> {
    if terminal.json {
        terminal.print_json(problems)?;
    } else {
        // Coloured here and stripped on the way out where nobody sees it.
        terminal.print(problems.render(true).trim_end())?;
    }
    Ok(ExitCode::from(2))
}

fn summary(policies: &Policies) -> String {
    let parts = [
        counted(policies.rotations.len(), "rotation policy", "rotation policies"),
        counted(policies.credentials.len(), "credential", "credentials"),
        counted(policies.applications.len(), "application", "applications"),
        counted(policies.providers.len(), "provider known", "providers known"),
    ];
    format!("{GOOD}valid{GOOD:#}: {}", parts.join(", "))
}
