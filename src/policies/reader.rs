//! Typed reading of a tree: each reader reports what is wrong and goes on, so that all problems come out together.
//!
//! Messages name fields and what is expected, never the value that stands there: it may be a secret in the wrong place.

use std::cell::RefCell;
use std::fmt::Display;
use std::str::FromStr;

use super::problem::{Place, Sink, looks_secret};
use super::tree::{Key, Kind, Node};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// A mapping whose fields are asked for by name; [`Fields::done`] reports those that nobody asked for.
pub(crate) struct Fields<'a> {
    pub(crate) place: Place,
    entries: &'a [(Key, Node)],
    known: RefCell<Vec<&'static str>>,
    pub(crate) sink: &'a Sink<'a>,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(node: &'a Node, sink: &'a Sink<'a>) -> Option<Fields<'a>> {
        let entries = entries(node, sink)?;
        Some(Fields { place: node.place, entries, known: RefCell::default(), sink })
    }

    /// The value of a field, if it is there and isn't empty.
    pub(crate) fn get(&self, name: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().push(name);
        let (key, node) = self.entries.iter().find(|(key, _)| key.text == name)?;
        if matches!(node.kind, Kind::Null) {
            let help = "give a value, or leave the field out if it has a default";
            self.sink.report(key.place, "missing-value", format!("`{name}` has no value"), help);
            return None;
        }
        Some(node)
    }

    /// The value of a field that must be there.
    pub(crate) fn need(&self, name: &'static str, help: &str) -> Option<&'a Node> {
        let found = self.get(name);
        if found.is_none() && !self.has(name) {
            self.sink.report(self.place, "missing-field", format!("`{name}` is missing"), help);
        }
        found
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.key(name).is_some()
    }

    pub(crate) fn key(&self, name: &str) -> Option<&'a Key> {
        self.entries.iter().map(|(key, _)| key).find(|key| key.text == name)
    }

    /// A field of the contract that this binary can't do yet: refused, never ignored.
    pub(crate) fn unsupported(&self, name: &'static str) {
        self.known.borrow_mut().push(name);
        if let Some(key) = self.key(name) {
            unsupported(self.sink, key.place, name);
        }
    }

    /// Reports the fields that nobody asked for.
    pub(crate) fn done(self) {
        let known = self.known.into_inner();
        for (key, _) in self.entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str()) && !key.text.is_empty()) {
            let named = key.text.len() <= 40 && key.text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.<".contains(&b));
            let message =
                if named && !looks_secret(&key.text) { format!("unknown field `{}`", key.text) } else { "unknown field".to_owned() };
            let near = known.iter().find(|name| name.eq_ignore_ascii_case(&key.text.replace(['_', '-'], "")));
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the fields here are: {}", known.join(", ")),
            };
            self.sink.report(key.place, "unknown-field", message, help);
        }
    }
}

pub(crate) fn unsupported(sink: &Sink<'_>, at: Place, what: &str) {
    let message = format!("`{what}` can't be done yet by this version of keywright");
    sink.report(at, "unsupported", message, "leave it out, or use a version that can");
}

/// The entries of a mapping.
pub(crate) fn entries<'a>(node: &'a Node, sink: &Sink<'_>) -> Option<&'a [(Key, Node)]> {
    match &node.kind {
        Kind::Map(entries) => Some(entries),
        _ => wrong_type(node, sink, "fields with values (`name: value`)"),
    }
}

pub(crate) fn list<'a>(node: &'a Node, sink: &Sink<'_>) -> Option<&'a [Node]> {
    match &node.kind {
        Kind::List(items) => Some(items),
        _ => wrong_type(node, sink, "a list (`[a, b]`)"),
    }
}

/// A text; a plain number counts as the text that it is written as.
pub(crate) fn text<'a>(node: &'a Node, sink: &Sink<'_>) -> Option<&'a str> {
    match &node.kind {
        Kind::Text(text) | Kind::Number(text) => Some(text),
        _ => wrong_type(node, sink, "a text; `true`, `false` and `null` need quotes to be one"),
    }
}

pub(crate) fn boolean(node: &Node, sink: &Sink<'_>) -> Option<bool> {
    match node.kind {
        Kind::Bool(value) => Some(value),
        _ => wrong_type(node, sink, "`true` or `false`"),
    }
}

pub(crate) fn whole_number(node: &Node, sink: &Sink<'_>, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let number = match &node.kind {
        Kind::Number(text) => text.parse().ok().filter(|number| range.contains(number)),
        _ => None,
    };
    number.or_else(|| wrong_type(node, sink, &format!("a whole number from {} to {}", range.start(), range.end())))
}

/// A text that its type parses; the error of the type is the message.
pub(crate) fn parsed<T: FromStr>(node: &Node, sink: &Sink<'_>, code: &'static str, help: &str) -> Option<At<T>>
where
    T::Err: Display,
{
    match text(node, sink)?.parse() {
        Ok(value) => Some(At { value, place: node.place }),
        Err(error) => {
            sink.report(node.place, code, T::Err::to_string(&error), help);
            None
        }
    }
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(node: &Node, sink: &Sink<'_>, words: &[(&str, T)]) -> Option<At<T>> {
    let found = words.iter().find(|(word, _)| matches!(&node.kind, Kind::Text(text) if text == word));
    if let Some((_, value)) = found {
        return Some(At { value: *value, place: node.place });
    }
    let allowed: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
    let allowed = allowed.join(", ");
    sink.report(node.place, "bad-value", format!("this isn't one of {allowed}"), "write one of these words");
    None
}

fn wrong_type<T>(node: &Node, sink: &Sink<'_>, wanted: &str) -> Option<T> {
    let is = match node.kind {
        Kind::Null => "nothing",
        Kind::Bool(_) => "a truth value",
        Kind::Number(_) => "a number",
        Kind::Text(_) => "a text",
        Kind::List(_) => "a list",
        Kind::Map(_) => "a mapping",
    };
    sink.report(node.place, "bad-type", format!("here stands {is}"), format!("write {wanted}"));
    None
}
