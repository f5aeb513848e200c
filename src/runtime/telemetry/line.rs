//! One log line: the fields that may stand in it, and how it is written.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};

/// The fields that are logged. Anything else is dropped, whatever it holds: a new field is a decision, made here. None of them
/// ever carries a value of a credential, a header, a body or a URL's query. Sorted.
#[rustfmt::skip]
pub const FIELDS: [&str; 53] = [
    "action", "address", "application", "attempt", "bytes", "call", "code", "column", "count", "credential", "deadline", "delay_ms", "digest",
    "due_at", "duration_ms", "environment", "error", "event", "field", "file", "folder", "generation", "holders", "instance", "kind",
    "leader", "limit", "line", "method", "operation", "outcome", "peer_uid", "phase", "place", "problems", "provider", "reason", "records",
    "remaining", "request_id", "revision", "route", "signal", "socket", "state", "status", "step", "store", "task", "term", "thread",
    "transitions", "version",
];
/// Longest value, in characters.
const VALUE_CHARS_MAX: usize = 512;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line, for programs.
    Json,
    /// For people at a terminal.
    Compact,
}

/// Collects the listed fields of a span or an event, each already written in the line's format.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    format: Format,
    pub(super) message: String,
    pub(super) text: String,
}

impl Fields {
    pub(super) fn new(format: Format) -> Fields {
        Fields { format, message: String::new(), text: String::new() }
    }

    fn text(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            push_clipped(&mut self.message, value);
        } else if self.key(field) {
            let mut clipped = String::new();
            push_clipped(&mut clipped, value);
            let plain = !clipped.is_empty() && clipped.chars().all(|char| char.is_ascii_graphic() && !matches!(char, '"' | '\\' | '='));
            match self.format {
                Format::Compact if plain => self.text.push_str(&clipped),
                Format::Compact | Format::Json => push_quoted(&mut self.text, &clipped),
            }
        }
    }

    fn number(&mut self, field: &Field, value: impl fmt::Display) {
        if self.key(field) {
            let _infallible = write!(self.text, "{value}");
        }
    }

    /// Begins a field, if it is a listed one.
    fn key(&mut self, field: &Field) -> bool {
        let listed = FIELDS.binary_search(&field.name()).is_ok();
        if listed {
            let _infallible = match self.format {
                Format::Json => write!(self.text, ",\"{}\":", field.name()),
                Format::Compact => write!(self.text, " {}=", field.name()),
            };
        }
        listed
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for what isn't finite.
        if value.is_finite() { self.number(field, value) } else { self.text(field, "not a number") }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        // Without its sources: those may be of other crates, and can hold anything.
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_bytes(&mut self, _field: &Field, _value: &[u8]) {
        // Bytes are never logged.
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Formatting comes after the look at the list: what is dropped isn't even formatted.
        if field.name() == "message" || FIELDS.binary_search(&field.name()).is_ok() {
            self.text(field, &format!("{value:?}"));
        }
    }
}

/// The whole line, with its newline. `context` are the fields of the spans around the event.
pub(super) fn write_line(time: Timestamp, metadata: &Metadata<'_>, context: &str, event: &Fields) -> String {
    let target = short(metadata.target());
    let mut line = String::with_capacity(160 + context.len() + event.text.len());
    match event.format {
        Format::Json => {
            let _infallible = write!(line, "{{\"time\":\"{time:.3}\",\"level\":\"{}\",\"target\":", metadata.level());
            push_quoted(&mut line, target);
            line.push_str(",\"message\":");
            push_quoted(&mut line, &event.message);
        }
        Format::Compact => {
            let _infallible = write!(line, "{time:.3} {} {target}: ", padded(*metadata.level()));
            push_escaped(&mut line, &event.message);
        }
    }
    line.push_str(context);
    line.push_str(&event.text);
    line.push_str(if event.format == Format::Json { "}\n" } else { "\n" });
    line
}

/// The target as people say it: without the crate's own name.
fn short(target: &str) -> &str {
    target.strip_prefix("keywright::").unwrap_or(target)
}

fn padded(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN ",
        Level::INFO => "INFO ",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

fn push_clipped(out: &mut String, value: &str) {
    match value.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => {
            out.push_str(&value[..end]);
            out.push('…');
        }
        None => out.push_str(value),
    }
}

fn push_quoted(out: &mut String, value: &str) {
    out.push('"');
    push_escaped(out, value);
    out.push('"');
}

/// As JSON wants it, and beyond that all that could drive a terminal or turn the direction of a text.
fn push_escaped(out: &mut String, value: &str) {
    for char in value.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => drop(write!(out, "\\u{:04x}", u32::from(char))),
            _ if char.is_control() => drop(write!(out, "\\u{:04x}", u32::from(char))),
            _ => out.push(char),
        }
    }
}
