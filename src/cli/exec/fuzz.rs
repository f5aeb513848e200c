//! Streams of the daemon, changed: they are read alike however they are cut, and what is taken from them makes no path of its own.

use super::document::{Document, document};
use crate::cli::sse::{Event, Parser};
use crate::fuzz::{JSON, Judged, Target, Verdict, broken};

fn streams() -> Target {
    let event = |name: &str, version: &str, fields: &[(&str, &str)]| {
        let document = document(name, version, 7, fields);
        format!("event: credential\nid: {name}:7\ndata: {}\n\n", document.json.expose_str().unwrap())
    };
    let one = event("a", "v1", &[("client_id", "x"), ("client_secret", "hush\"\\\u{1}é")]);
    let two = event("dinie-production", "v2-c4", &[("secret", "{\"a\":\"b\"}")]);
    let corpus = [
        format!("retry: 1000\n\n{one}: hello\n\n{two}"),
        format!("{two}event: withdrawn\ndata: {{\"name\":\"a\"}}\n\nevent: bye\ndata: {{}}\n\n"),
        one.clone(),
        one,
    ];
    let words =
        ["event: credential\n", "data: ", "id: ", "\n\n", "\r\n", ":", "..", "../..", "a/b", "\"fields\":{", "\"name\":\"", "\u{0}"];
    Target::new("streams", corpus.map(String::into_bytes).to_vec(), &[JSON, &words]).costing(10)
}

/// In pieces of this length; each with a parser of its own where `forgets`, which is the fault on purpose.
fn read(input: &[u8], length: usize, forgets: bool) -> Vec<(String, String, String)> {
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    for piece in input.chunks(length) {
        if forgets {
            parser = Parser::default();
        }
        if parser.push(piece).is_none() {
            break;
        }
        while let Some(Event { name, data, id }) = parser.take() {
            events.push((name, data, id));
        }
    }
    events
}

fn judge(input: &[u8], forgets: bool) -> Judged {
    let events = read(input, input.len().max(1), false);
    for length in [1, 7] {
        if read(input, length, forgets) != events {
            return broken(format!("in pieces of {length} it tells something else"));
        }
    }
    let documents: Vec<Document> = events.iter().filter_map(|(_, data, _)| Document::parse(data.as_bytes())).collect();
    for document in &documents {
        let names = document.fields.iter().map(|(field, _)| field.as_str()).chain([document.name.as_str(), document.version.as_str()]);
        for name in names {
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
                return broken("a name leads out of its folder");
            }
        }
    }
    Ok(if documents.is_empty() { Verdict::Refused } else { Verdict::Accepted })
}

#[test]
fn fuzz_streams() {
    streams().run(|input| judge(input, false));
}

#[test]
fn fuzz_streams_notices_faults() {
    streams().notices("a parser that forgets what it had", |input| judge(input, true));
}
