//! `rotate`: asks for a rotation now, and waits for its promotion where the caller wants to.

use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::domain::ids::Name;

use super::client::{Call, Client};
use super::failure::Failure;
use super::terminal::Terminal;
use super::views::{CredentialView, StatusView};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A daemon that restarts is back within this; the rotation goes on where it stood.
const ABSENCE_MAX: Duration = Duration::from_secs(60);

pub(super) async fn rotate(name: &Name, wait: bool, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    // Looked at before, so that a quick rotation isn't missed between two looks.
    let before = if wait { Some(look(name, client).await?.credential) } else { None };
    let accepted: Value = client.send(Call::new(Method::POST, format!("/v1/credentials/{name}/rotations"))).await?.parse()?;
    let Some(before) = before else {
        return report(terminal, &accepted, &format!("the rotation of {name} begins; `keywright status {name}` shows where it stands"));
    };
    terminal.remark(&format!("the rotation of {name} begins"));
    let version = follow(name, &before, client, terminal).await?;
    let document = json!({"operation_id": accepted.get("operation_id"), "name": name, "version": version, "outcome": "promoted"});
    report(terminal, &document, &format!("{name} is promoted: {} is current", version.as_deref().unwrap_or("the new version")))
}

fn report(terminal: Terminal, document: &Value, sentence: &str) -> Result<ExitCode, Failure> {
    if terminal.json {
        terminal.print_json(document)?
    } else {
        terminal.print(sentence)?
    }
    Ok(ExitCode::SUCCESS)
}

/// One look at one credential.
#[derive(Debug)]
struct Look {
    credential: CredentialView,
    messages: Vec<String>,
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
    let reason = seen.credential.reason.as_deref().unwrap_or("no reason is known");
    let detail = if seen.messages.is_empty() { reason.to_owned() } else { seen.messages.join("; ") };
    Failure::failed("rotation-failed", "the rotation was abandoned; the old key stays in use", detail)
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
