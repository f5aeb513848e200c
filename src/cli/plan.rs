//! `plan`: what will rotate when, why, and what stands in the way.

use std::process::ExitCode;

use super::client::Client;
use super::failure::Failure;
use super::status::moment;
use super::terminal::{DIM, Terminal, printable, table, table_text};
use super::views::{Pages, PlanView};

pub(super) async fn plan(days: u32, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    let pages = Pages::fetch(client, &format!("/v1/plan?days={days}")).await?;
    if terminal.json {
        terminal.print_json(&pages)?;
        return Ok(ExitCode::SUCCESS);
    }
    let view: PlanView = pages.view()?;
    if view.plan.is_empty() {
        terminal.print(&format!("nothing will rotate within {days} days"))?;
        return Ok(ExitCode::SUCCESS);
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
    terminal.print(&table_text(&rows))?;
    terminal.print(&format!("{DIM}times are UTC; the next {days} days{DIM:#}"))?;
    Ok(ExitCode::SUCCESS)
}
