//! `check`: validates the policies offline; all problems at once, each with its place and the way out.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::domain::policy::Policies;
use crate::policies::{Problems, read_folder};
use crate::runtime::clock::wall_now;

use super::failure::Failure;
use super::settings::Settings;
use super::terminal::{GOOD, Terminal};

pub(super) fn check(path: Option<PathBuf>, settings: &Settings, terminal: Terminal) -> Result<ExitCode, Failure> {
    let path = match path {
        Some(path) => path,
        None => settings.policies()?,
    };
    match read_folder(&path, wall_now()) {
        Ok(policies) if terminal.json => terminal.print_json(&json!({"problems": []})).map(|()| policies),
        Ok(policies) => terminal.print(&summary(&policies)).map(|()| policies),
        Err(problems) => return report(&problems, terminal),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn report(problems: &Problems, terminal: Terminal) -> Result<ExitCode, Failure> {
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

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
