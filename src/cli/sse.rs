//! Server-sent events, as far as an application needs them.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;

/// No credential is longer; a stream that sends more is broken.
const BUFFER_LENGTH_MAX: usize = 1 << 20;

/// A comment comes at least every 15 s: who hears nothing for so long hears nothing any more.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// One event. `data` may hold values: no `Debug`.
#[derive(Default)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
    pub(crate) id: String,
}

/// Reads events from the body of an answer.
pub(crate) struct EventReader {
    body: Incoming,
    parser: Parser,
}

impl EventReader {
    pub(crate) fn new(body: Incoming) -> EventReader {
        EventReader { body, parser: Parser::default() }
    }

    /// `None` when the stream ended, broke, or fell silent.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parser.take() {
                return Some(event);
            }
            let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await.ok()??.ok()?;
            if let Ok(data) = frame.into_data() {
                self.parser.push(&data)?;
            }
        }
    }
}

/// Reads events from bytes, however they are cut.
#[derive(Default)]
pub(crate) struct Parser {
    buffer: Vec<u8>,
    /// So much of it has no end of a line: it isn't looked through again with every piece that comes.
    searched: usize,
    event: Event,
}

impl Parser {
    /// `None`: more than is kept of one event. The stream is of no use any more.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<()> {
        self.buffer.extend_from_slice(bytes);
        (self.buffer.len() + self.event.data.len() <= BUFFER_LENGTH_MAX).then_some(())
    }

    /// The next whole event, if it is there. Comments and `retry` are passed over.
    pub(crate) fn take(&mut self) -> Option<Event> {
        while let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
            self.searched = 0;
            let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if !event.data.is_empty() || !event.name.is_empty() {
                    return Some(event);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.event.name),
                "data" => self.event.data.push_str(value),
                "id" => value.clone_into(&mut self.event.id),
                _ => {}
            }
        }
        self.searched = self.buffer.len();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_events_are_read_however_they_are_cut() {
        let text = b"retry: 1000\n\n: hello\n\nevent: credential\nid: 7\ndata: {\"a\":1}\n\nevent: bye\ndata: {}\n\n";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut names = Vec::new();
            for piece in text.chunks(size) {
                parser.push(piece).unwrap();
                while let Some(event) = parser.take() {
                    names.push(format!("{} {} {}", event.name, event.id, event.data));
                }
            }
            assert_eq!(names, ["credential 7 {\"a\":1}", "bye  {}"]);
        }
    }
}
