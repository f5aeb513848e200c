//! `status`: a table for people, with what needs them below it; the daemon's document for programs.

use std::process::ExitCode;

use comfy_table::Table;
use jiff::Timestamp;

use crate::domain::ids::Name;

use super::client::Client;
use super::failure::Failure;
use super::terminal::{BAD, BOLD, CAUTION, DIM, GOOD, Terminal, printable, span_text, table, table_text};
use super::views::{ApplicationView, CredentialView, HolderView, LeadershipView, Pages, ProblemView, StatusView};

pub(super) async fn status(name: Option<&Name>, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    let pages = match name {
        None => Pages::fetch(client, "/v1/status").await?,
        Some(name) => Pages::one(client, &format!("/v1/status/{name}")).await?,
    };
    if terminal.json {
        terminal.print_json(&pages)?;
        return Ok(ExitCode::SUCCESS);
    }
    terminal.print(&text(&pages.view()?, name.is_some()))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn text(view: &StatusView, detailed: bool) -> String {
    let table = match view.credentials.as_slice() {
        [] => "the policies list no credential".to_owned(),
        _ => table_text(&overview(view)),
    };
    let details = view.credentials.iter().filter(|_| detailed).map(details);
    let parts: Vec<String> =
        std::iter::once(table).chain(details).chain([problems(&view.problems)]).chain(view.leadership.as_ref().map(leadership)).collect();
    parts.join("\n")
}

fn overview(view: &StatusView) -> Table {
    let mut rows = table(&["CREDENTIAL", "ENVIRONMENT", "PHASE", "VERSION", "AGE", "DUE (UTC)", "DEADLINE (UTC)", "PROOF", "HOLDERS"]);
    for credential in &view.credentials {
        rows.add_row([
            printable(&credential.name),
            printable(&credential.environment),
            phase(credential),
            text_or_dash(credential.version.as_deref()),
            credential.age_seconds.map_or_else(dash, span_text),
            moment(credential.due_at),
            moment(credential.deadline_at),
            text_or_dash(credential.proof.as_ref().map(|proof| proof.verdict.as_str())),
            holders(&credential.applications),
        ]);
    }
    rows
}

fn phase(credential: &CredentialView) -> String {
    let mut text = printable(&credential.phase);
    if credential.paused {
        text.push_str(", paused");
    }
    if let Some(reason) = &credential.reason {
        text.push_str(&format!(" ({})", printable(reason)));
    }
    text
}

fn holders(applications: &[ApplicationView]) -> String {
    let one = |entry: &ApplicationView| match (&entry.instance, &entry.state) {
        (Some(instance), Some(state)) => format!("{}/{instance}: {state}", entry.name),
        (Some(instance), None) => format!("{}/{instance}", entry.name),
        (None, _) => format!("{}: no living instance", entry.name),
    };
    let all: Vec<String> = applications.iter().map(|entry| printable(&one(entry))).collect();
    if all.is_empty() { dash() } else { all.join("\n") }
}

/// What the table has no room for, when one credential is asked for.
fn details(credential: &CredentialView) -> String {
    let mut lines = vec![String::new(), format!("{BOLD}{}{BOLD:#}", printable(&credential.name))];
    let mut row = |label: &str, text: String| lines.push(format!("  {DIM}{label:<18}{DIM:#}{text}"));
    row("address", text_or_dash(credential.endpoint.as_deref()));
    row("generation", credential.generation.to_string());
    row("issued", moment(credential.issued_at));
    row("previous version", text_or_dash(credential.previous_version.as_deref()));
    row("overlap ends", moment(credential.overlap_ends_at));
    if credential.paused {
        row("paused since", moment(credential.paused_since));
    }
    if let Some(incident) = &credential.incident {
        let dash_if_empty = |text: String| if text.is_empty() { dash() } else { printable(&text) };
        let names = |holders: &[HolderView]| dash_if_empty(holders.iter().map(HolderView::text).collect::<Vec<_>>().join(", "));
        let version = text_or_dash(incident.version.as_deref());
        row("key stolen", format!("{version}, reported {}, limit {}", moment(incident.since), moment(incident.limit_at)));
        row("old key died", format!("{} ({})", moment(incident.revoked_at), text_or_dash(incident.closure.as_deref())));
        row("still held by", names(&incident.holders));
        row("stragglers", names(&incident.stragglers));
        row("unknown keys", incident.unknown_keys.as_ref().map_or_else(dash, |keys| dash_if_empty(keys.join(", "))));
        row("incident closed", moment(incident.closed_at));
    }
    if let Some(request) = &credential.request {
        for (index, line) in request.lines().into_iter().enumerate() {
            row(if index == 0 { "a person is asked" } else { "" }, line);
        }
        row("asked since", format!("{}, reminded {} times", moment(request.opened_at), request.reminders));
    }
    for entry in &credential.applications {
        let text = match &entry.instance {
            Some(instance) => format!("{instance} holds {}", entry.version.as_deref().unwrap_or("nothing")),
            None => "no living instance".to_owned(),
        };
        row(&printable(&entry.name), printable(&text));
    }
    for piece in credential.proof.iter().flat_map(|proof| &proof.evidence) {
        row("evidence", printable(&format!("{} says {}: {}", piece.kind, piece.says, piece.why)));
    }
    lines.join("\n")
}

fn problems(problems: &[ProblemView]) -> String {
    if problems.is_empty() {
        return format!("\n{GOOD}no problems{GOOD:#}");
    }
    let line = |problem: &ProblemView| {
        let place = problem.credential.as_deref().unwrap_or("daemon");
        let style = if problem.credential.is_some() { CAUTION } else { BAD };
        format!("{style}{}{style:#} {}: {}", printable(&problem.code), printable(place), printable(&problem.message))
    };
    let lines: Vec<String> = problems.iter().map(line).collect();
    format!("\n{BOLD}needs a person{BOLD:#}\n{}", lines.join("\n"))
}

/// Orders are taken by who leads; reads by all.
fn leadership(view: &LeadershipView) -> String {
    let text = match (view.leads, &view.leader, view.term) {
        (true, _, Some(term)) => format!("this replica leads, in term {term}"),
        (true, _, None) => "this replica leads".to_owned(),
        (false, Some(leader), _) => format!("this replica follows; {} leads: give orders there", printable(leader)),
        (false, None, _) => "this replica follows, and nobody is known to lead: nothing is rotated until somebody does".to_owned(),
    };
    format!("\n{DIM}{text}{DIM:#}")
}

/// A moment for people: UTC, to the second.
pub(super) fn moment(at: Option<Timestamp>) -> String {
    at.map_or_else(dash, |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn text_or_dash(text: Option<&str>) -> String {
    text.map_or_else(dash, printable)
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"credentials":[{"name":"dinie-production","provider":"dinie","environment":"production",
        "endpoint":"https://api.dinie.com.br/v3","proof":{"verdict":"match","evidence":[{"kind":"probe","says":"for","why":"accepted"}]},
        "version":"v2-abc","previous_version":"v1-abc","phase":"promoted","generation":2,"issued_at":"2026-11-01T00:00:00Z",
        "age_seconds":90000,"due_at":null,"deadline_at":"2027-01-30T00:00:00Z","overlap_ends_at":null,"reason":null,"paused":false,
        "request":{"asks":"old-key-removal","deadline_at":"2027-01-30T00:00:00Z","urgency":"soon","reminders":1,
        "instructions":["Remove it\u001b there."]},"applications":[{"name":"payments-api","instance":"one","version":"v1-abc","state":"holds"},{"name":"late","instance":null,
        "version":null,"state":null}]}],"problems":[{"credential":"dinie-production","code":"overdue","message":"payments-api/one holds it"}]}"#;

    #[test]
    fn cli_status_shows_who_holds_what_and_what_needs_a_person() {
        let view: StatusView = serde_json::from_str(DOCUMENT).unwrap();
        let text = table_text(&overview(&view));
        for part in
            ["dinie-production", "promoted", "1d 1h", "2027-01-30 00:00:00", "match", "payments-api/one: holds", "late: no living instance"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(problems(&view.problems).contains("payments-api/one holds it"));
        assert!(view.leadership.is_none(), "there is one process");
        let leads = |document: &str| leadership(&serde_json::from_str(document).unwrap());
        assert!(leads(r#"{"leads":true,"leader":"kw-1","term":7}"#).contains("leads, in term 7"));
        assert!(leads(r#"{"leads":false,"leader":"kw-2","term":null}"#).contains("kw-2 leads"));
        assert!(leads(r#"{"leads":false,"leader":null,"term":null}"#).contains("nobody is known"));
        let details = details(&view.credentials[0]);
        for part in [
            "probe says for: accepted",
            "the removal of the old key, by 2027-01-30 00:00:00 UTC (soon)",
            "1. Remove it  there.",
            "reminded 1 times",
        ] {
            assert!(details.contains(part), "{part} in\n{details}");
        }
    }
}
