//! `rotate`: asks for a rotation now, and waits for its promotion where the caller wants to. Several at once, or a stolen key, are
//! watched to their end, with a report.

mod board;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::ids::Name;

use super::client::Client;
use super::failure::Failure;
use super::terminal::Terminal;
use super::views::{CredentialView, Pages, RequestView, StatusView};
use crate::domain::incident::{WITHIN_DEFAULT, parse_within};
use crate::domain::reason::Reason;
pub(super) use board::{Board, Row, report, report_text};
use watch::rotate_all;
pub(super) use watch::{Request, watch_all};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A daemon that restarts is back within this; the rotation goes on where it stood.
const ABSENCE_MAX: Duration = Duration::from_secs(60);

/// What is rotated, and how.
#[derive(Debug, clap::Args)]
pub(super) struct RotateArguments {
    /// The credential; or choose several by the options
    #[arg(required_unless_present_any = ["provider", "account", "application"], conflicts_with_all = ["provider", "account", "application"])]
    name: Option<Name>,
    /// All credentials of this provider
    #[arg(long, value_name = "P")]
    provider: Option<Name>,
    /// All credentials of this account at a provider
    #[arg(long, value_name = "A")]
    account: Option<Name>,
    /// All credentials that this application lists or holds
    #[arg(long, value_name = "APP")]
    application: Option<Name>,
    /// Somebody else may have the key: no schedule, window or overlap counts, and the old key dies
    #[arg(long)]
    compromised: bool,
    /// How long those who hold a stolen key are waited for, `0s` to `24h` [default: 10m]
    #[arg(long, requires = "compromised", value_name = "10m", value_parser = within)]
    within: Option<Duration>,
    /// Return when it is promoted, or failed; several, and stolen ones, are always waited for
    #[arg(long)]
    wait: bool,
    /// Why: 500 characters at most, kept by the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<Reason>,
    /// How many are rotated at once
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    at_once: u8,
}

fn within(text: &str) -> Result<Duration, &'static str> {
    parse_within(text).ok_or("a duration from `0s` to `24h`, such as `10m`")
}

pub(super) async fn rotate(asked: &RotateArguments, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    let compromised_within = asked.compromised.then(|| asked.within.unwrap_or(WITHIN_DEFAULT));
    let request = Request { compromised_within, reason: asked.reason.clone(), at_once: usize::from(asked.at_once) };
    match &asked.name {
        Some(name) if !asked.compromised => rotate_one(name, asked, client, terminal).await,
        Some(name) => rotate_all(vec![name.clone()], request, client, terminal).await,
        None => rotate_all(chosen(asked, client).await?, request, client, terminal).await,
    }
}

/// The credentials that fit all that was given.
async fn chosen(asked: &RotateArguments, client: &Client) -> Result<Vec<Name>, Failure> {
    let view: StatusView = Pages::fetch(client, "/v1/status").await?.view()?;
    let is = |wanted: &Option<Name>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted.as_str() == found);
    let fits = |row: &&CredentialView| {
        let by_application = || row.applications.iter().any(|entry| is(&asked.application, &entry.name));
        is(&asked.provider, &row.provider) && is(&asked.account, &row.account) && (asked.application.is_none() || by_application())
    };
    // What was never submitted has no key to replace.
    let with_a_key = view.credentials.iter().filter(fits).filter(|row| row.version.is_some());
    let names: Vec<Name> = with_a_key.filter_map(|row| row.name.parse().ok()).collect();
    if names.is_empty() {
        return Err(Failure::failed("not-found", "no credential fits", "no credential with a key fits what was given")
            .then("`keywright status --json` shows the provider, the account and the applications of each"));
    }
    Ok(names)
}

async fn rotate_one(name: &Name, asked: &RotateArguments, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    // Looked at before, so that a quick rotation isn't missed between two looks.
    let before = if asked.wait { Some(look(name, client).await?.credential) } else { None };
    let accepted: Value = client.send(watch::call(name, None, asked.reason.clone())).await?.parse()?;
    let Some(before) = before else {
        let asked = look(name, client).await.ok().and_then(|seen| seen.credential.request).filter(RequestView::wants_a_key);
        if let Some(request) = asked {
            let steps = request.lines().join("\n  ");
            return terminal.report(&accepted, &format!("{name}: only a person can make a new key, and is asked for it:\n  {steps}"));
        }
        return terminal.report(&accepted, &format!("the rotation of {name} begins; `keywright status {name}` shows where it stands"));
    };
    terminal.remark(&format!("the rotation of {name} begins"));
    let version = follow(name, &before, client, terminal).await?;
    let document = json!({"operation_id": accepted.get("operation_id"), "name": name, "version": version, "outcome": "promoted"});
    terminal.report(&document, &format!("{name} is promoted: {} is current", version.as_deref().unwrap_or("the new version")))
}

/// One look at one credential.
#[derive(Debug)]
struct Look {
    credential: CredentialView,
    messages: Vec<String>,
}

impl Look {
    /// What stands in the way, in the daemon's words.
    fn reasons(&self) -> String {
        let reason = self.credential.reason.as_deref().unwrap_or("no reason is known");
        if self.messages.is_empty() { reason.to_owned() } else { self.messages.join("; ") }
    }
}

async fn look(name: &Name, client: &Client) -> Result<Look, Failure> {
    let mut view: StatusView = client.document(&format!("/v1/status/{name}")).await?;
    let messages = view.problems.iter().filter(|problem| problem.credential.as_deref() == Some(name.as_str()));
    let messages = messages.map(|problem| format!("{}: {}", problem.code, problem.message)).collect();
    let credential = view
        .credentials
        .pop()
        .ok_or_else(|| Failure::failed("not-found", "the credential is gone", format!("{name} left the policies")))?;
    Ok(Look { credential, messages })
}

async fn follow(name: &Name, before: &CredentialView, client: &Client, terminal: Terminal) -> Result<Option<String>, Failure> {
    let mut phase = before.phase.clone();
    let mut opened = false;
    let mut absent = Duration::ZERO;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let seen = match look(name, client).await {
            Ok(seen) => seen,
            Err(failure) if matches!(failure.problem.slug(), "no-daemon" | "no-answer" | "not-ready") && absent < ABSENCE_MAX => {
                absent += LOOK_EVERY;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        absent = Duration::ZERO;
        if seen.credential.phase != phase {
            phase = seen.credential.phase.clone();
            terminal.remark(&format!("  {phase}"));
        }
        if let Some(request) = seen.credential.request.as_ref().filter(|request| request.wants_a_key() && !opened) {
            request.lines().iter().for_each(|line| terminal.remark(&format!("  {line}")));
        }
        match outcome(before, &seen.credential, opened) {
            Outcome::Promoted => return Ok(seen.credential.version),
            Outcome::Failed => return Err(failed(name, &seen)),
            Outcome::Open => opened = true,
            Outcome::NotYet => {}
        }
    }
}

#[derive(Debug, PartialEq)]
enum Outcome {
    /// Accepted, not begun.
    NotYet,
    Open,
    Promoted,
    Failed,
}

fn outcome(before: &CredentialView, seen: &CredentialView, opened: bool) -> Outcome {
    let is_new = seen.version.is_some() && seen.version != before.version;
    let waits_since = seen.reason.as_deref() == Some("retry-later") && before.reason != seen.reason;
    match seen.phase.as_str() {
        _ if is_new => Outcome::Promoted,
        "abandoned" => Outcome::Failed,
        // Closed again with the old version in place: the candidate was given up.
        "steady" | "missing" if opened || waits_since => Outcome::Failed,
        "steady" | "missing" => Outcome::NotYet,
        _ => Outcome::Open,
    }
}

fn failed(name: &Name, seen: &Look) -> Failure {
    Failure::failed("rotation-failed", "the rotation was abandoned; the old key stays in use", seen.reasons())
        .then(format!("`keywright status {name}` shows the reason and when it is tried again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: &str, version: &str, reason: Option<&str>) -> CredentialView {
        CredentialView {
            phase: phase.to_owned(),
            version: Some(version.to_owned()),
            reason: reason.map(str::to_owned),
            ..CredentialView::default()
        }
    }

    #[test]
    fn cli_rotate_knows_how_a_rotation_ended() {
        let before = at("steady", "v1", None);
        for (seen, opened, expected) in [
            (at("steady", "v1", Some("requested")), false, Outcome::NotYet),
            (at("planned", "v1", None), false, Outcome::Open),
            (at("verified", "v1", None), true, Outcome::Open),
            (at("promoted", "v2", None), true, Outcome::Promoted),
            (at("confirmed", "v2", None), false, Outcome::Promoted),
            (at("steady", "v2", None), false, Outcome::Promoted),
            (at("steady", "v1", None), true, Outcome::Failed),
            (at("steady", "v1", Some("retry-later")), false, Outcome::Failed),
            (at("abandoned", "v1", None), false, Outcome::Failed),
        ] {
            assert_eq!(outcome(&before, &seen, opened), expected, "{seen:?}");
        }
    }
}
