//! The board of a rotation that somebody watches: where each credential stands, and who still holds the old key.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::domain::ids::Name;
use crate::runtime::clock::wall_now;

use super::super::status::moment;
use super::super::terminal::{BOLD, CAUTION, DIM, GOOD, ScreenSize, Terminal, counted, printable, span_text, table, table_text};
use super::super::views::{CredentialView, HolderView};

/// One credential on the board.
#[derive(Debug)]
pub(in crate::cli) struct Row {
    pub(super) name: Name,
    /// As it stood before.
    pub(super) before: CredentialView,
    /// As it was last seen.
    pub(super) seen: CredentialView,
    pub(super) stage: Stage,
    /// A rotation was seen to be open.
    pub(super) opened: bool,
    told: String,
}

/// How far the command has come with it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stage {
    Queued,
    Open {
        since: Instant,
    },
    Done,
    Failed {
        reason: String,
    },
    /// Begun, and not at its end when the command ended: the daemon goes on.
    Unfinished,
}

impl Row {
    pub(in crate::cli) fn new(name: Name) -> Row {
        let (before, seen) = (CredentialView::default(), CredentialView::default());
        Row { name, before, seen, stage: Stage::Queued, opened: false, told: String::new() }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open { .. })
    }

    pub(super) fn has_ended(&self) -> bool {
        !matches!(self.stage, Stage::Queued | Stage::Open { .. })
    }

    fn holders(&self) -> &[HolderView] {
        self.seen.incident.as_ref().map_or(&[], |incident| &incident.holders)
    }

    /// What changes only when something happens.
    fn text(&self) -> String {
        let text = match &self.stage {
            Stage::Queued => "queued".to_owned(),
            Stage::Done => "done".to_owned(),
            Stage::Unfinished => "goes on in the daemon".to_owned(),
            Stage::Failed { reason } => format!("failed: {reason}"),
            Stage::Open { .. } => {
                let holders: Vec<String> = self.holders().iter().map(HolderView::text).collect();
                let reason = self.seen.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                let held = if holders.is_empty() { String::new() } else { format!("; still hold the old key: {}", holders.join(", ")) };
                format!("{}{reason}{held}", self.phase())
            }
        };
        printable(&text)
    }

    fn phase(&self) -> &str {
        match self.seen.phase.as_str() {
            "steady" if self.seen.version == self.before.version => "begun",
            "steady" => "looking for unknown keys",
            phase => phase,
        }
    }

    fn left(&self, now: Timestamp) -> String {
        let limit = self.seen.incident.as_ref().filter(|_| self.is_open()).and_then(|incident| incident.limit_at);
        let left = |limit: Timestamp| format!("{} left", span_text(limit.duration_since(now).as_secs().max(0)));
        limit.map(left).unwrap_or_default()
    }
}

/// Shows rows as they change.
pub(in crate::cli) enum Board {
    /// On a terminal.
    InPlace {
        terminal: Terminal,
        /// Lines that stand on the screen.
        lines: usize,
    },
    /// A line for each change.
    Lines(Box<dyn FnMut(String) + Send>),
}

impl Board {
    /// In place on a terminal, else lines on standard error. Nothing with `--json`.
    pub(super) fn new(terminal: Terminal) -> Board {
        if terminal.redraws() {
            return Board::InPlace { terminal, lines: 0 };
        }
        Board::Lines(Box::new(move |line| terminal.remark(&line)))
    }

    pub(super) fn show(&mut self, rows: &mut [Row]) {
        match self {
            Board::InPlace { terminal, lines } => {
                let size = terminal.size();
                let drawn = drawn(rows, wall_now(), &size);
                terminal.redraw(*lines, &drawn);
                *lines = drawn.len();
            }
            Board::Lines(tell) => {
                for row in rows {
                    let text = row.text();
                    if text != row.told && row.stage != Stage::Queued {
                        tell(format!("{}: {text}", row.name));
                        row.told = text;
                    }
                }
            }
        }
    }
}

/// The lines of the board, none wider and together not higher than the screen: a line that wraps is two, and what has left the
/// screen can't be drawn anew.
fn drawn(rows: &[Row], now: Timestamp, size: &ScreenSize) -> Vec<String> {
    let width = rows.iter().map(|row| row.name.as_str().len()).max().unwrap_or(0);
    let line = |row: &Row| format!("{:<width$}  {:<12} {}", row.name, row.left(now), row.text());
    // The cursor stands below the last line.
    let room = size.lines.saturating_sub(1).max(1);
    let mut shown: Vec<&Row> = rows.iter().collect();
    if shown.len() > room {
        // What is under way is what somebody watches for, then what went wrong.
        shown.sort_by_key(|row| match row.stage {
            Stage::Open { .. } => 0,
            Stage::Failed { .. } | Stage::Unfinished => 1,
            Stage::Queued => 2,
            Stage::Done => 3,
        });
        shown.truncate(room - 1);
    }
    let mut lines: Vec<String> = shown.iter().map(|row| line(row)).collect();
    if shown.len() < rows.len() {
        let count = |stage: fn(&Stage) -> bool| rows.iter().filter(|row| stage(&row.stage)).count();
        let (done, queued) = (count(|stage| *stage == Stage::Done), count(|stage| *stage == Stage::Queued));
        lines.push(format!("and {} more; {done} of {} done, {queued} queued", rows.len() - shown.len(), rows.len()));
    }
    lines.into_iter().map(|line| line.chars().take(size.columns.saturating_sub(1)).collect()).collect()
}

/// What is said at the end, of each credential.
pub(in crate::cli) fn report(rows: &[Row], compromised: bool) -> Value {
    let credentials: Vec<Value> = rows.iter().map(|row| entry(row, compromised)).collect();
    json!({ "done": rows.iter().all(|row| row.stage == Stage::Done), "credentials": credentials })
}

fn entry(row: &Row, compromised: bool) -> Value {
    let (outcome, reason) = match &row.stage {
        Stage::Done => ("done", None),
        Stage::Failed { reason } => ("failed", Some(reason.clone())),
        Stage::Queued => ("not-begun", None),
        Stage::Open { .. } | Stage::Unfinished => ("unfinished", row.seen.reason.clone()),
    };
    let incident = row.seen.incident.as_ref().filter(|_| compromised && row.stage != Stage::Queued);
    let is_new = row.seen.version != row.before.version;
    json!({
        "name": row.name,
        "outcome": outcome,
        "reason": reason,
        "old_version": incident.map_or(row.before.version.as_ref(), |incident| incident.version.as_ref()),
        "old_died_at": incident.and_then(|incident| incident.revoked_at),
        "old_closure": incident.and_then(|incident| incident.closure.as_ref()),
        "version": row.seen.version.as_ref().filter(|_| is_new),
        "stragglers": incident.map(|incident| &incident.stragglers),
        "unknown_keys": incident.and_then(|incident| incident.unknown_keys.as_ref()),
    })
}

/// The same for people.
pub(in crate::cli) fn report_text(rows: &[Row], compromised: bool) -> String {
    let mut lines = Vec::new();
    let mut shown = table(&["CREDENTIAL", "OUTCOME", "OLD VERSION", "DIED (UTC)", "HOW SURE", "NEW VERSION"]);
    for row in rows {
        let entry = entry(row, compromised);
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map_or_else(|| "-".to_owned(), printable);
        let died = row.seen.incident.as_ref().filter(|_| compromised).and_then(|incident| incident.revoked_at);
        shown.add_row([row.name.to_string(), text("outcome"), text("old_version"), moment(died), text("old_closure"), text("version")]);
    }
    lines.push(table_text(&shown));
    for row in rows {
        lines.extend(remarks(row, compromised));
    }
    let done = rows.iter().filter(|row| row.stage == Stage::Done).count();
    let all = counted(rows.len(), "credential", "credentials");
    let what = if compromised { "replaced, the old key dead" } else { "replaced" };
    if done == rows.len() {
        lines.push(format!("\n{GOOD}{all}: {what}{GOOD:#}"));
    } else {
        lines.push(format!("\n{BOLD}{done} of {all}: {what}{BOLD:#}; `keywright status` shows where the others stand"));
    }
    lines.join("\n")
}

/// What a person must know of one credential beside the table.
fn remarks(row: &Row, compromised: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |word: &str, text: String| lines.push(format!("{CAUTION}{word}{CAUTION:#} {}: {}", row.name, printable(&text)));
    match &row.stage {
        Stage::Failed { reason } => line("failed", reason.clone()),
        Stage::Unfinished => line("unfinished", "what was begun is journaled, and goes on by itself while the daemon runs".to_owned()),
        Stage::Queued | Stage::Open { .. } | Stage::Done => {}
    }
    let Some(incident) = row.seen.incident.as_ref().filter(|_| compromised && row.stage != Stage::Queued) else { return lines };
    if !incident.stragglers.is_empty() {
        let names: Vec<String> = incident.stragglers.iter().map(HolderView::text).collect();
        line("stragglers", format!("{} held the old key when it died: make them fetch the new one", names.join(", ")));
    }
    match &incident.unknown_keys {
        Some(keys) if keys.is_empty() => {}
        Some(keys) => {
            line(
                "unknown keys",
                format!(
                    "the provider has {} as well, which nobody here knows and a thief may have made: look there, and revoke them",
                    keys.join(", ")
                ),
            );
        }
        None if row.stage == Stage::Done => {
            line("unknown keys", "this provider can't list its keys: look there for keys that nobody made".to_owned())
        }
        None => {}
    }
    if lines.is_empty() {
        lines.push(format!("{DIM}{}: nobody held the old key when it died, and no unknown key lives at the provider{DIM:#}", row.name));
    }
    lines
}

/// How long a command waits beyond the limit that it set.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, stage: Stage) -> Row {
        Row { stage, ..Row::new(name.parse().unwrap()) }
    }

    #[test]
    fn cli_rotate_board_fits_the_screen_and_shows_what_is_under_way() {
        let open = || Stage::Open { since: Instant::now() };
        let mut rows: Vec<Row> = (0..5).map(|number| row(&format!("done-{number}"), Stage::Done)).collect();
        rows.push(row("failed", Stage::Failed { reason: "a reason that is longer than the screen is wide".to_owned() }));
        rows.push(row("open", open()));
        rows.push(row("queued", Stage::Queued));
        let lines = |lines, columns| drawn(&rows, Timestamp::UNIX_EPOCH, &ScreenSize { lines, columns });
        let all = lines(9, 200);
        assert_eq!((all.len(), all[0].as_str(), all[7].starts_with("queued")), (8, "done-0               done", true), "{all:#?}");
        let some = lines(5, 30);
        assert_eq!(some.len(), 4);
        assert!(some[0].starts_with("open") && some[1].starts_with("failed") && some[2].starts_with("queued"), "{some:#?}");
        assert_eq!(some[3], "and 5 more; 5 of 8 done, 1 qu", "cut at the width but one");
        for (height, width) in [(0, 0), (1, 1), (2, 3), (3, 80)] {
            let drawn = lines(height, width);
            assert!(
                drawn.len() <= height.saturating_sub(1).max(1) && drawn.iter().all(|line| line.len() <= width.saturating_sub(1)),
                "{drawn:?}"
            );
        }
    }
}
