//! What is printed: results on standard output, problems on standard error, colour only where it shows.

use std::io::{ErrorKind, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};

use super::failure::Failure;

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const CAUTION: Style = AnsiColor::Yellow.on_default();

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    /// For everything that this process prints from now on.
    pub(crate) fn apply(self) {
        let choice = match self {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// How the caller wants to be answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    pub(crate) json: bool,
}

impl Terminal {
    /// One line, or several, on standard output.
    ///
    /// # Errors
    /// If it can't be written; a reader that went away (`| head`) is no error.
    pub(crate) fn print(self, text: &str) -> Result<(), Failure> {
        let mut out = anstream::stdout().lock();
        tolerate_closed(writeln!(out, "{text}").and_then(|()| out.flush()))
    }

    /// Exactly these bytes, on standard output: what another program reads.
    pub(crate) fn print_raw(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        tolerate_closed(out.write_all(bytes).and_then(|()| out.flush()))
    }

    /// A document, on one line.
    pub(crate) fn print_json(self, document: &impl serde::Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(document)
            .map_err(|_| Failure::failed("output", "the answer can't be written as JSON", "a value has no JSON form"))?;
        self.print(&text)
    }

    /// What a command did: its document for programs, a sentence for people.
    pub(crate) fn report(self, document: &serde_json::Value, sentence: &str) -> Result<std::process::ExitCode, Failure> {
        if self.json {
            self.print_json(document)?
        } else {
            self.print(sentence)?
        }
        Ok(std::process::ExitCode::SUCCESS)
    }

    /// A remark for a person, on standard error; nothing with `--json`.
    pub(crate) fn remark(self, text: &str) {
        if !self.json {
            say(text);
        }
    }

    /// Whether what is said can be drawn anew in place: on a terminal that can move its cursor.
    pub(crate) fn redraws(self) -> bool {
        let can_move = std::env::var_os("TERM").is_some_and(|kind| !kind.is_empty() && kind != "dumb");
        !self.json && can_move && std::io::stderr().is_terminal()
    }

    /// The terminal behind standard error. One that doesn't know its size has the usual one.
    pub(crate) fn size(self) -> ScreenSize {
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stderr()).ok();
        let known = |length: u16, usual: usize| if length == 0 { usual } else { usize::from(length) };
        size.map_or(ScreenSize::USUAL, |size| ScreenSize {
            lines: known(size.ws_row, ScreenSize::USUAL.lines),
            columns: known(size.ws_col, ScreenSize::USUAL.columns),
        })
    }

    /// Draws these lines in place of the last ones, on standard error. Without colours there are still ways to move the cursor:
    /// these bytes go out as they are.
    pub(crate) fn redraw(self, lines_before: usize, lines: &[String]) {
        let back = if lines_before == 0 { String::new() } else { format!("\x1b[{lines_before}A\x1b[J") };
        let mut out = std::io::stderr().lock();
        // Where standard error is closed there is nobody to tell.
        let _ = writeln!(out, "{back}{}", lines.join("\n"));
    }

    /// The failure that ends the command, on standard error.
    pub(crate) fn print_failure(self, failure: &Failure) {
        if self.json {
            say(&serde_json::to_string(&failure.problem).unwrap_or_default());
            return;
        }
        if let Some(excerpts) = &failure.excerpts {
            say(excerpts);
        }
        for (index, line) in failure.lines().iter().enumerate() {
            match index {
                0 => say(&format!("{BAD}error{BAD:#}: {BOLD}{line}{BOLD:#}")),
                _ => say(&format!("  {line}")),
            }
        }
    }
}

/// How much a terminal shows at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScreenSize {
    pub(crate) lines: usize,
    pub(crate) columns: usize,
}

impl ScreenSize {
    pub(crate) const USUAL: ScreenSize = ScreenSize { lines: 24, columns: 80 };
}

pub(crate) fn out_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A table without lines, wrapped to the terminal's width where there is one.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    if out_is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

/// The table's lines without the blanks that fill them up.
pub(crate) fn table_text(table: &Table) -> String {
    table.trim_fmt()
}

/// Text that may come from another machine: control characters can't reach the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A length of time for people: its two largest units.
pub(crate) fn span_text(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match seconds {
        ..0 => format!("-{}", span_text(seconds.saturating_neg().max(0))),
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

fn say(text: &str) {
    let mut out = anstream::stderr().lock();
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(out, "{text}");
}

fn tolerate_closed(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::io("writing to standard output", &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_spans_show_their_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3_600, "1h 0m"), (90_000, "1d 1h"), (-61, "-1m 1s")] {
            assert_eq!(span_text(seconds), text);
        }
    }
}
