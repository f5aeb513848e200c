//! `plan`: what will rotate when, why, what stands in the way, and where many start at once.

use std::process::ExitCode;

use super::client::Client;
use super::failure::Failure;
use super::herds;
use super::status::moment;
use super::terminal::{DIM, Terminal, printable, table, table_text};
use super::views::{Pages, PlanView};

pub(super) async fn plan(days: u32, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    let mut pages = Pages::fetch(client, &format!("/v1/plan?days={days}")).await?;
    pages.add_up_herds();
    if terminal.json {
        terminal.print_json(&pages)?;
        return Ok(ExitCode::SUCCESS);
    }
    terminal.print(&text(&pages.view()?, days))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn text(view: &PlanView, days: u32) -> String {
    if view.plan.is_empty() {
        return format!("nothing will rotate within {days} days");
    }
    let mut rows = table(&["CREDENTIAL", "STARTS", "OLD KEY DEAD BY", "WHY", "BLOCKED BY"]);
    for entry in &view.plan {
        let blocked = if entry.blocked_by.is_empty() { "nothing".to_owned() } else { entry.blocked_by.join(", ") };
        rows.add_row([
            printable(&entry.name),
            moment(entry.starts_at),
            moment(entry.deadline_at),
            printable(&entry.reason),
            printable(&blocked),
        ]);
    }
    let times = format!("{DIM}times are UTC; the next {days} days{DIM:#}");
    let herds = herds::text(view, days).map(|herds| format!("\n\n{herds}")).unwrap_or_default();
    format!("{}\n{times}{herds}", table_text(&rows))
}
