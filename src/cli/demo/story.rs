//! Tells what happens, in the order in which it happens, with the time since the beginning.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::cli::failure::Failure;
use crate::cli::terminal::{BAD, BOLD, DIM, GOOD, Terminal, printable};

/// More than happens in a minute.
const NEWS_MAX: usize = 1024;

/// What the provider and the application have to tell.
#[derive(Debug)]
pub(super) enum News {
    /// The provider made a key.
    KeyMade {
        name: String,
        at: Instant,
    },
    KeyDeleted {
        name: String,
        age: Duration,
        at: Instant,
    },
    /// The application received a version.
    Pushed {
        instance: &'static str,
        version: String,
        at: Instant,
    },
    /// It confirmed, and was answered with this status.
    Confirmed {
        instance: &'static str,
        version: String,
        status: u16,
    },
}

#[derive(Debug, Clone)]
pub(super) struct NewsSender(mpsc::Sender<News>);

impl NewsSender {
    /// Without waiting: telling the story must not hold up what it tells.
    pub(super) fn tell(&self, news: News) {
        // Full only if the teller hangs: then there is no story anyway.
        let _ = self.0.try_send(news);
    }
}

pub(super) fn news_channel() -> (NewsSender, mpsc::Receiver<News>) {
    let (sender, receiver) = mpsc::channel(NEWS_MAX);
    (NewsSender(sender), receiver)
}

/// One line of the story.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Step {
    pub(super) at_ms: u64,
    pub(super) step: &'static str,
    pub(super) text: String,
}

/// One claim, and whether it turned out to be so.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Claim {
    pub(super) claim: String,
    pub(super) passed: bool,
    pub(super) detail: String,
}

/// Prints each step, and remembers it.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) begin: Instant,
    pub(super) steps: Vec<Step>,
    terminal: Terminal,
}

impl Story {
    pub(super) fn begin(terminal: Terminal) -> Story {
        Story { begin: Instant::now(), steps: Vec::new(), terminal }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    pub(super) fn step(&mut self, step: &'static str, text: impl AsRef<str>) -> Result<(), Failure> {
        let at = self.elapsed();
        let text = printable(text.as_ref());
        if !self.terminal.json {
            let style = if step == "refused" { BAD } else { BOLD };
            self.terminal.print(&format!("{DIM}{}{DIM:#}  {style}{step:<12}{style:#}{text}", clock_text(at)))?;
        }
        self.steps.push(Step { at_ms: millis(at), step, text });
        Ok(())
    }

    /// A remark below the last step.
    pub(super) fn more(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        let text = printable(text.as_ref());
        if !self.terminal.json {
            self.terminal.print(&format!("{:18}{DIM}{text}{DIM:#}", ""))?;
        }
        if let Some(last) = self.steps.last_mut() {
            last.text.push_str("; ");
            last.text.push_str(&text);
        }
        Ok(())
    }

    pub(super) fn claim(&self, claim: &Claim) -> Result<(), Failure> {
        if self.terminal.json {
            return Ok(());
        }
        let (style, mark) = if claim.passed { (GOOD, "yes") } else { (BAD, "NO ") };
        self.terminal.print(&format!("  {style}{mark}{style:#}  {}{DIM}: {}{DIM:#}", printable(&claim.claim), printable(&claim.detail)))
    }

    /// Everything that was told, to be looked through like all the rest.
    pub(super) fn text(&self) -> String {
        self.steps.iter().map(|step| step.text.as_str()).collect::<Vec<_>>().join("\n")
    }
}

/// Minutes and seconds.
fn clock_text(at: Duration) -> String {
    format!("{}:{:02}", at.as_secs() / 60, at.as_secs() % 60)
}

pub(super) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds with one decimal.
pub(super) fn seconds(length: Duration) -> String {
    format!("{:.1} s", length.as_secs_f64())
}
