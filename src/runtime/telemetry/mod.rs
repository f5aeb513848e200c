//! Logs: an allow-list of our own targets and fields, which no setting can widen.
//!
//! Libraries log what they handle, bodies and headers included, so nothing of theirs is ever formatted, at any level. The `log`
//! crate's bridge is not installed.

mod levels;
mod line;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{IsTerminal as _, Write as _};

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, SetGlobalDefaultError};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

use super::clock::wall_now;
use line::{Fields, write_line};

pub use levels::Levels;
pub use line::{FIELDS, Format};

/// Where lines go: each call is one whole line with its newline.
pub type Sink = Box<dyn Fn(&str) + Send + Sync>;

/// Begins to log to standard error: for people on a terminal, as JSON otherwise. `levels` is what `RUST_LOG` says.
///
/// # Errors
/// If something else already logs in this process.
pub fn install(levels: Option<&str>) -> Result<(), SetGlobalDefaultError> {
    let format = if std::io::stderr().is_terminal() { Format::Compact } else { Format::Json };
    // Not `try_init`, which would install the bridge from the `log` crate.
    tracing::subscriber::set_global_default(subscriber(Levels::parse(levels), format, Box::new(to_stderr)))
}

/// What [`install`] installs, with a sink of the caller's.
pub fn subscriber(levels: Levels, format: Format, sink: Sink) -> impl Subscriber + Send + Sync {
    Registry::default().with(AllowList { levels, format, sink })
}

fn to_stderr(line: &str) {
    // A log that can't be written can't be complained about either.
    let _lost = std::io::stderr().lock().write_all(line.as_bytes());
}

struct AllowList {
    levels: Levels,
    format: Format,
    sink: Sink,
}

impl fmt::Debug for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllowList").field("levels", &self.levels).field("format", &self.format).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for AllowList
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    /// Asked once per place in the code. What isn't ours is off for good, before anything of it is formatted.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.levels.allow(metadata.target(), *metadata.level()) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        self.levels.allow(metadata.target(), *metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.levels.most())
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::new(self.format);
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        // Again, because another layer's interest can be more than ours.
        if !self.levels.allow(metadata.target(), *metadata.level()) {
            return;
        }
        let mut around = String::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                around.push_str(&fields.text);
            }
        }
        let mut fields = Fields::new(self.format);
        event.record(&mut fields);
        (self.sink)(&write_line(wall_now(), metadata, &around, &fields));
    }
}
