//! Rotates several credentials, a bounded number at once, and watches them to their end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::domain::ids::Name;
use crate::domain::reason::Reason;

use super::super::client::{Call, Client};
use super::super::failure::Failure;
use super::super::terminal::Terminal;
use super::super::views::CredentialView;
use super::board::{Board, PATIENCE, Row, Stage, report, report_text};
use super::{ABSENCE_MAX, Look, Outcome, look, outcome};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Reasons that stand until a person does something else.
const NEEDS_A_PERSON: [&str; 4] = ["current-refused", "possible-orphans", "no-create-call", "paused"];

/// What is asked for, of each.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Request {
    /// The keys are stolen, and whoever holds one loses it within this time.
    pub(in crate::cli) compromised_within: Option<Duration>,
    /// Why, for the audit trail.
    pub(in crate::cli) reason: Option<Reason>,
    pub(in crate::cli) at_once: usize,
}

pub(super) async fn rotate_all(names: Vec<Name>, request: Request, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    let mut rows: Vec<Row> = names.into_iter().map(Row::new).collect();
    tokio::select! {
        () = watch_all(&mut rows, &request, client, Board::new(terminal)) => {}
        _ = tokio::signal::ctrl_c() => return Err(interrupted(&rows)),
    }
    let compromised = request.compromised_within.is_some();
    if terminal.json {
        terminal.print_json(&report(&rows, compromised))?;
    } else {
        terminal.print(&report_text(&rows, compromised))?;
    }
    Ok(if rows.iter().all(|row| row.stage == Stage::Done) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn interrupted(rows: &[Row]) -> Failure {
    let queued = rows.iter().filter(|row| row.stage == Stage::Queued).count();
    let begun = rows.len() - queued;
    let detail = format!("the daemon goes on with the {begun} that were begun; {queued} were not begun");
    Failure::failed("interrupted", "only the watching ended", detail).then("`keywright status` shows where they stand")
}

/// Begins them and watches until each has ended.
pub(in crate::cli) async fn watch_all(rows: &mut [Row], request: &Request, client: &Client, mut board: Board) {
    let mut absent = Duration::ZERO;
    loop {
        let free = request.at_once.saturating_sub(rows.iter().filter(|row| row.is_open()).count());
        for row in rows.iter_mut().filter(|row| row.stage == Stage::Queued).take(free) {
            begin(row, request, client).await;
        }
        board.show(rows);
        if rows.iter().all(Row::has_ended) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        for row in rows.iter_mut().filter(|row| row.is_open()) {
            match look(&row.name, client).await {
                Ok(seen) => {
                    absent = Duration::ZERO;
                    note(row, seen, request);
                }
                Err(failure) if is_absence(&failure) && absent < ABSENCE_MAX => {
                    absent += LOOK_EVERY;
                    break;
                }
                // What was begun is journaled: whoever starts the daemon again finds it under way.
                Err(failure) if is_absence(&failure) => row.stage = Stage::Unfinished,
                Err(failure) => row.stage = Stage::Failed { reason: words(&failure) },
            }
        }
    }
}

/// A daemon that restarts takes up what was begun.
fn is_absence(failure: &Failure) -> bool {
    matches!(failure.problem.slug(), "no-daemon" | "no-answer" | "not-ready")
}

fn words(failure: &Failure) -> String {
    failure.problem.detail.clone().unwrap_or_else(|| failure.problem.title.clone())
}

async fn begin(row: &mut Row, request: &Request, client: &Client) {
    // Looked at before, so that a quick rotation isn't missed between two looks.
    match look(&row.name, client).await {
        Ok(seen) => (row.before, row.seen) = (seen.credential.clone(), seen.credential),
        Err(failure) => {
            row.stage = Stage::Failed { reason: words(&failure) };
            return;
        }
    }
    row.stage = match client.send(call(&row.name, request.compromised_within, request.reason.clone())).await {
        Ok(_) => Stage::Open { since: Instant::now() },
        Err(failure) => Stage::Failed { reason: words(&failure) },
    };
}

/// What asks the daemon for a rotation.
pub(super) fn call(name: &Name, compromised_within: Option<Duration>, reason: Option<Reason>) -> Call {
    let body = |within: Duration| Bytes::from(json!({"compromised": true, "within": format!("{}s", within.as_secs())}).to_string());
    Call { body: compromised_within.map(body), reason, ..Call::new(Method::POST, format!("/v1/credentials/{name}/rotations")) }
}

fn note(row: &mut Row, seen: Look, request: &Request) {
    let Stage::Open { since } = row.stage else { return };
    let ended = match request.compromised_within {
        None => plain_end(row, &seen),
        Some(within) => incident_end(&row.before, &seen, since.elapsed() > within + PATIENCE),
    };
    row.seen = seen.credential;
    if let Some(ended) = ended {
        row.stage = ended;
    }
}

fn plain_end(row: &mut Row, seen: &Look) -> Option<Stage> {
    match outcome(&row.before, &seen.credential, row.opened) {
        Outcome::Promoted => Some(Stage::Done),
        Outcome::Failed => Some(Stage::Failed { reason: seen.reasons() }),
        Outcome::Open => {
            row.opened = true;
            None
        }
        Outcome::NotYet => None,
    }
}

/// How an incident ended, if it has.
fn incident_end(before: &CredentialView, seen: &Look, out_of_patience: bool) -> Option<Stage> {
    let since = |view: &CredentialView| view.incident.as_ref().and_then(|incident| incident.since);
    // An earlier one isn't this one.
    let incident = seen.credential.incident.as_ref().filter(|_| since(&seen.credential) != since(before));
    if incident.is_some_and(|incident| incident.closed_at.is_some()) {
        return Some(Stage::Done);
    }
    if seen.credential.reason.as_deref().is_some_and(|reason| NEEDS_A_PERSON.contains(&reason)) {
        return Some(Stage::Failed { reason: seen.reasons() });
    }
    out_of_patience.then_some(Stage::Unfinished)
}

#[cfg(test)]
mod tests {
    use super::super::super::views::{HolderView, IncidentView};
    use super::*;

    fn seen(phase: &str, version: &str, reason: Option<&str>, incident: Option<(i64, bool)>) -> Look {
        let at = |second: i64| jiff::Timestamp::from_second(second).ok();
        let incident = incident.map(|(since, closed)| IncidentView {
            since: at(since),
            version: Some("v1".to_owned()),
            revoked_at: at(since + 1).filter(|_| closed),
            closure: Some("proved".to_owned()).filter(|_| closed),
            stragglers: vec![HolderView { application: "payments".to_owned(), instance: Some("pod-2".to_owned()) }],
            unknown_keys: closed.then(|| vec!["of-a-thief".to_owned()]),
            closed_at: at(since + 2).filter(|_| closed),
            ..IncidentView::default()
        });
        let credential = CredentialView {
            phase: phase.to_owned(),
            version: Some(version.to_owned()),
            reason: reason.map(str::to_owned),
            incident,
            ..CredentialView::default()
        };
        Look { credential, messages: Vec::new() }
    }

    #[test]
    fn cli_rotate_knows_how_an_incident_ended() {
        let before = seen("steady", "v1", None, Some((5, true))).credential;
        for (seen, late, ended) in [
            (seen("steady", "v1", None, Some((5, true))), false, None),
            (seen("promoted", "v2", Some("held"), Some((9, false))), false, None),
            (seen("promoted", "v2", Some("held"), Some((9, false))), true, Some(Stage::Unfinished)),
            (seen("steady", "v2", None, Some((9, false))), false, None),
            (seen("steady", "v2", None, Some((9, true))), true, Some(Stage::Done)),
            (seen("steady", "v1", Some("retry-later"), Some((9, false))), false, None),
            (seen("retired", "v2", Some("paused"), Some((9, false))), false, Some(Stage::Failed { reason: "paused".to_owned() })),
        ] {
            assert_eq!(incident_end(&before, &seen, late), ended, "{seen:?}");
        }
    }

    #[test]
    fn cli_rotate_reports_each_credential_and_names_stragglers_and_unknown_keys() {
        let mut done = Row::new("one".parse().unwrap());
        done.before = seen("steady", "v1", None, None).credential;
        done.seen = seen("steady", "v2", None, Some((9, true))).credential;
        done.stage = Stage::Done;
        let mut failed = Row::new("two".parse().unwrap());
        failed.stage = Stage::Failed { reason: "it is paused\u{1b}".to_owned() };
        let rows = [done, failed];
        let document = report(&rows, true);
        assert_eq!(document["done"], false);
        let one = &document["credentials"][0];
        assert_eq!((one["outcome"].as_str(), one["old_version"].as_str(), one["version"].as_str()), (Some("done"), Some("v1"), Some("v2")));
        assert_eq!((one["old_closure"].as_str(), one["unknown_keys"][0].as_str()), (Some("proved"), Some("of-a-thief")));
        assert_eq!(one["stragglers"][0]["instance"], "pod-2");
        assert_eq!(document["credentials"][1]["reason"], "it is paused\u{1b}");
        let text = report_text(&rows, true);
        for part in
            ["payments/pod-2 held the old key", "the provider has of-a-thief as well", "failed", "it is paused", "1 of 2 credentials"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("paused\u{1b}"));
    }
}
