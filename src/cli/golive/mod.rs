//! `golive`: the going-live checklist of an application, for people, for programs and for a ticket; and what a person signs off.

mod markdown;
mod view;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::domain::ids::{ItemId, Name};
use crate::domain::launch::Signer;
use crate::domain::reason::Reason;

use super::client::{Call, Client};
use super::failure::Failure;
use super::terminal::{BAD, BOLD, CAUTION, DIM, GOOD, Terminal, counted, printable, table, table_text};
#[cfg(test)]
pub(super) use markdown::text as report;
use view::{CredentialView, ItemView, ListView};

#[derive(Debug, clap::Args)]
pub(super) struct GoliveArguments {
    /// The application
    application: Name,
    /// Sign off what only a person can tell: the item's name in the list
    #[arg(long, value_name = "ITEM", requires = "by", conflicts_with_all = ["withdraw", "markdown"])]
    confirm: Option<ItemId>,
    /// Who signs off: kept by the audit trail
    #[arg(long, value_name = "NAME", requires = "confirm")]
    by: Option<Signer>,
    /// Take a sign-off back; what went live stays live
    #[arg(long, value_name = "ITEM", conflicts_with = "markdown")]
    withdraw: Option<ItemId>,
    /// Why it is signed off or taken back: 500 characters at most, kept by the audit trail
    #[arg(long, value_name = "TEXT", conflicts_with = "markdown")]
    reason: Option<Reason>,
    /// Write a report for a ticket, into this file or to standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    markdown: Option<Option<PathBuf>>,
}

pub(super) async fn golive(asked: GoliveArguments, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    let GoliveArguments { application, confirm, by, withdraw, reason, markdown } = asked;
    match (confirm.zip(by), withdraw) {
        (Some((item, by)), _) => sign_off(&application, &item, &by, reason.as_ref(), client, terminal).await,
        (None, Some(item)) => take_back(&application, &item, reason, client, terminal).await,
        (None, None) if reason.is_some() => {
            let detail = "`--reason` goes with `--confirm` or `--withdraw`";
            Err(Failure::invalid("usage", "the command line isn't understood", detail))
        }
        (None, None) => show(&application, markdown, client, terminal).await,
    }
}

/// 0 when everything passed or is confirmed, 1 when not.
async fn show(application: &Name, report: Option<Option<PathBuf>>, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    let document: Value = client.document(&format!("/v1/golive/{application}")).await?;
    let view: ListView = serde_json::from_value(document.clone())
        .map_err(|_| Failure::failed("no-answer", "the daemon didn't answer clearly", "the answer isn't the document that was expected"))?;
    match report {
        Some(Some(file)) => {
            write_report(&file, &markdown::text(&view))?;
            terminal
                .report(&json!({"file": file, "ready": view.ready}), &format!("{}; the report is in {}", verdict(&view), file.display()))?;
        }
        Some(None) => terminal.print(markdown::text(&view).trim_end())?,
        None if terminal.json => terminal.print_json(&document)?,
        None => terminal.print(&text(&view))?,
    }
    Ok(if view.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn sign_off(
    application: &Name,
    item: &ItemId,
    by: &Signer,
    reason: Option<&Reason>,
    client: &Client,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let mut body = json!({"by": by.as_str()});
    if let Some(reason) = reason {
        body["reason"] = reason.as_str().into();
    }
    let call = Call { body: Some(Bytes::from(body.to_string())), ..Call::new(Method::PUT, path_of(application, item)) };
    client.send(call).await?;
    let sentence = format!("{application}: {item} is confirmed by {by}; `keywright golive {application}` shows what is left");
    terminal.report(&json!({"application": application, "item": item, "by": by.as_str(), "confirmed": true}), &sentence)
}

async fn take_back(
    application: &Name,
    item: &ItemId,
    reason: Option<Reason>,
    client: &Client,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    client.send(Call { reason, ..Call::new(Method::DELETE, path_of(application, item)) }).await?;
    let sentence = format!("{application}: {item} isn't confirmed any more; what went live stays live");
    terminal.report(&json!({"application": application, "item": item, "confirmed": false}), &sentence)
}

fn path_of(application: &Name, item: &ItemId) -> String {
    format!("/v1/golive/{application}/confirmations/{item}")
}

pub(super) fn text(view: &ListView) -> String {
    let mut parts = Vec::new();
    let of = |name: Option<&str>| -> Vec<&ItemView> { view.items.iter().filter(|item| item.credential.as_deref() == name).collect() };
    let general = of(None);
    if !general.is_empty() {
        parts.push(group(
            &format!("{BOLD}{}{BOLD:#} {DIM}({}){DIM:#}", printable(&view.application), printable(&view.environment)),
            &general,
        ));
    }
    for credential in &view.credentials {
        parts.push(group(&heading(credential), &of(Some(&credential.name))));
    }
    parts.push(verdict(view));
    parts.extend(next_steps(view));
    parts.join("\n\n")
}

fn heading(credential: &CredentialView) -> String {
    let gate = match (credential.require_go_live, &credential.live_since) {
        (_, Some(at)) => format!(", live since {}", super::status::moment(Some(*at))),
        (true, None) => ", not served before this list is passed".to_owned(),
        (false, None) => String::new(),
    };
    let about = format!("({}, {}{gate})", printable(&credential.provider), printable(&credential.environment));
    format!("{BOLD}{}{BOLD:#} {DIM}{about}{DIM:#}", printable(&credential.name))
}

fn group(heading: &str, items: &[&ItemView]) -> String {
    let mut rows = table(&["STATE", "ITEM", "WHAT", "EVIDENCE"]);
    for item in items {
        let evidence: Vec<String> = item.evidence.iter().map(|text| printable(text)).collect();
        rows.add_row([state_words(&item.state), printable(item.short()), printable(&item.title), evidence.join("\n")]);
    }
    format!("{heading}\n{}", table_text(&rows))
}

/// As people say it.
fn state_words(state: &str) -> String {
    if state == "needs-person" { "needs a person".to_owned() } else { printable(state) }
}

/// One line that says it all.
fn verdict(view: &ListView) -> String {
    let count = |state: &str| view.items.iter().filter(|item| item.state == state).count();
    let (passed, confirmed, failed, open) = (count("passed"), count("confirmed"), count("failed"), count("needs-person"));
    let counts = format!(
        "{passed} passed, {confirmed} confirmed, {failed} failed, {} a person",
        if open == 1 { "1 needs".to_owned() } else { format!("{open} need") }
    );
    if view.ready { format!("{GOOD}ready{GOOD:#}: {counts}") } else { format!("{BAD}not ready{BAD:#}: {counts}") }
}

fn next_steps(view: &ListView) -> Option<String> {
    let open = view.items.iter().filter(|item| item.state == "needs-person").map(|item| &item.id);
    let lines: Vec<String> =
        open.map(|id| format!("  keywright golive {} --confirm {} --by NAME", printable(&view.application), printable(id))).collect();
    let heading = format!("{CAUTION}{}{CAUTION:#}, once a person has made sure:", counted(lines.len(), "sign-off", "sign-offs"));
    (!lines.is_empty()).then(|| format!("{heading}\n{}", lines.join("\n")))
}

/// Into a new file, or over an older report: nothing else is written over.
fn write_report(path: &Path, report: &str) -> Result<(), Failure> {
    let doing = format!("writing the report {}", path.display());
    let failed = |error: std::io::Error| Failure::io(&doing, &error);
    if path.exists() {
        let mut first = Vec::new();
        let length = u64::try_from(markdown::TITLE.len()).unwrap_or(u64::MAX);
        std::fs::File::open(path).and_then(|file| file.take(length).read_to_end(&mut first)).map_err(failed)?;
        if first != markdown::TITLE.as_bytes() {
            let detail = format!("{} is there already, and is no report of this command", path.display());
            return Err(Failure::failed("exists", "the report wasn't written", detail).then("name another file"));
        }
    }
    let mut file = std::fs::File::create(path).map_err(failed)?;
    file.write_all(report.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_golive_writes_over_its_own_reports_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.md");
        let report = format!("{}payments-api\n", markdown::TITLE);
        for text in [format!("{report}long\n"), report.clone()] {
            write_report(&file, &text).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
        for other in ["policies: ./policies\n", ""] {
            std::fs::write(&file, other).unwrap();
            assert_eq!(write_report(&file, &report).unwrap_err().problem.slug(), "exists");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), other);
        }
    }
}
