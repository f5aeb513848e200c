//! YAML as a tree in which every key and value knows its place. One broken document doesn't hide the next one.
//!
//! Read with the parser beneath serde-saphyr instead of its serde interface: serde stops at the first error, and
//! here all are wanted. Aliases and tags are refused: a policy says what it says where it stands.

use std::collections::BTreeMap;

use serde_saphyr::granit_parser::{self, Event, Marker, Parser, ScalarStyle, Span};

use super::problem::{Place, Sink};

/// Deeper than any document needs, shallow enough that no recursion over a tree hurts.
const DEPTH_MAX: usize = 24;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    /// As written: readers of texts take it as it stands.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) text: String,
}

/// The documents of one file, without those that are empty or broken.
pub(crate) fn documents(file: usize, text: &str, sink: &Sink<'_>) -> Vec<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (line, part) in split(text) {
        let mut builder = Builder { file, line, sink, open: Vec::new(), done: Vec::new() };
        if builder.read(part).is_some() {
            found.extend(builder.done.into_iter().filter(|node| !matches!(node.kind, Kind::Null)));
        }
    }
    found
}

/// Splits at `---` lines, which begin a document wherever they stand (YAML 1.2, 9.1.1): parts with the number of lines
/// before them. Each part is then parsed alone, so that an error ends its own document only.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut part_start, mut part_line, mut at) = (0, 0, 0);
    for (number, line) in lines(text).enumerate() {
        let begins = line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        // Directives belong to the document that they stand before.
        let only_directives = || lines(&text[part_start..at]).all(|line| line.starts_with(['%', '#', '\r', '\n']));
        if begins && at > part_start && !only_directives() {
            parts.push((part_line, &text[part_start..at]));
            (part_start, part_line) = (at, number);
        }
        at += line.len();
    }
    parts.push((part_line, &text[part_start..]));
    parts
}

/// Lines as YAML has them (1.2, 5.4), each with its end: a carriage return alone ends one, too. Whatever counts lines counts them
/// here, or a problem would be shown where it isn't.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.find(['\r', '\n']).map_or(rest.len(), |at| at + if rest[at..].starts_with("\r\n") { 2 } else { 1 });
        let (line, after) = rest.split_at(end);
        rest = after;
        (!line.is_empty()).then_some(line)
    })
}

/// A collection whose end hasn't come yet.
struct Open {
    place: Place,
    is_map: bool,
    key: Option<Key>,
    items: Vec<Node>,
    entries: Vec<(Key, Node)>,
    /// Keys so far, with their lines.
    seen: BTreeMap<String, usize>,
}

struct Builder<'a> {
    file: usize,
    /// Lines of the file before this part.
    line: usize,
    sink: &'a Sink<'a>,
    open: Vec<Open>,
    done: Vec<Node>,
}

impl Builder<'_> {
    /// `None` once the part is given up, after its problem was reported.
    fn read(&mut self, part: &str) -> Option<()> {
        let options = granit_parser::options! { emit_unresolved_aliases: true, emit_comments: false, block_nesting_limit: 64 };
        for event in Parser::new_from_str_with_options(part, options) {
            match event {
                Ok((event, span)) => self.event(&event, span)?,
                Err(error) => {
                    let at = within(part, self.place(*error.marker(), 1), self.line);
                    // The parser's texts name the rule that was broken, never what stood there; one names a character.
                    let message = error.info();
                    let rule = message.split('`').next().unwrap_or_default().trim_end_matches([':', ' ']);
                    let help = "look at the indentation, the quotes and the brackets here and in the line before";
                    self.sink.report(at, "syntax", format!("this is no YAML: {rule}"), help);
                    return None;
                }
            }
        }
        Some(())
    }

    fn event(&mut self, event: &Event<'_>, span: Span) -> Option<()> {
        let place = self.place(span.start, span.len());
        if event.tag().is_some() {
            self.sink.report(place, "tag", "tags aren't used here", "leave the `!…` out");
            return None;
        }
        if event.anchor_id().is_some() || matches!(event, Event::Alias(_) | Event::UnresolvedAlias(_)) {
            self.sink.report(place, "alias", "anchors and aliases aren't used here", "write the value out where it is used");
            return None;
        }
        match event {
            Event::Scalar(text, style, ..) => {
                self.add(Node { place, kind: scalar(text, *style) });
                Some(())
            }
            Event::SequenceStart(..) => self.begin(place, false),
            Event::MappingStart(..) => self.begin(place, true),
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop()?;
                let kind = if open.is_map { Kind::Map(open.entries) } else { Kind::List(open.items) };
                self.add(Node { place: open.place, kind });
                Some(())
            }
            _ => Some(()),
        }
    }

    fn begin(&mut self, place: Place, is_map: bool) -> Option<()> {
        if self.open.len() >= DEPTH_MAX {
            let message = format!("nested more than {DEPTH_MAX} deep");
            self.sink.report(place, "too-deep", message, "no document needs that: look at the indentation");
            return None;
        }
        self.open.push(Open {
            place: Place { width: 1, ..place },
            is_map,
            key: None,
            items: Vec::new(),
            entries: Vec::new(),
            seen: BTreeMap::new(),
        });
        Some(())
    }

    fn add(&mut self, mut node: Node) {
        let Some(parent) = self.open.last_mut() else { return self.done.push(node) };
        if !parent.is_map {
            return parent.items.push(node);
        }
        let Some(key) = parent.key.take() else {
            let text = match node.kind {
                Kind::Text(text) | Kind::Number(text) => text,
                Kind::Bool(value) => value.to_string(),
                _ => {
                    self.sink.report(node.place, "bad-key", "a key is a text", "write the key as a plain word");
                    String::new()
                }
            };
            parent.key = Some(Key { place: node.place, text });
            return;
        };
        if matches!(node.kind, Kind::Null) && node.place.width == 0 {
            // Nothing stands there, and the parser says so at the next token: the key is where a reader looks.
            node.place = key.place;
        }
        // A key that isn't a text was reported; it bears an empty text, and so isn't repeated.
        if let Some(first) = parent.seen.get(&key.text).filter(|_| !key.text.is_empty()) {
            let message = format!("the field {} stands twice", super::problem::shown(&key.text));
            self.sink.report(key.place, "duplicate-key", message, format!("keep one of them; the first is in line {first}"));
            return;
        }
        parent.seen.insert(key.text.clone(), key.place.line);
        parent.entries.push((key, node));
    }

    fn place(&self, mark: Marker, width: usize) -> Place {
        Place { file: self.file, line: mark.line().max(1) + self.line, column: mark.col() + 1, width }
    }
}

/// A text that never closes is noticed behind the end of its part: there the last line that holds something is shown.
fn within(part: &str, at: Place, lines_before: usize) -> Place {
    let last = lines(part).enumerate().filter(|(_, line)| !line.trim().is_empty()).last();
    match last {
        Some((index, line)) if at.line > lines_before + index + 1 => {
            Place { line: lines_before + index + 1, column: line.trim_end().chars().count(), ..at }
        }
        _ => at,
    }
}

/// A plain scalar by the core schema (YAML 1.2, 10.3.2); whatever is quoted is a text.
fn scalar(text: &str, style: ScalarStyle) -> Kind {
    if style != ScalarStyle::Plain {
        return Kind::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        _ if is_number(text) => Kind::Number(text.to_owned()),
        _ => Kind::Text(text.to_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'))
        && text.parse::<f64>().is_ok()
}
