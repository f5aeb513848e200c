//! What a `Provider` document says of the form of a field: `patterns`, `shape`, `lookAlikes`, `jwt`, `address`.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use crate::domain::credential::Environment;
use crate::domain::form::{Claims, Form, LookAlike, Mark, Shape};

use super::super::problem::Sink;
use super::super::reader::{Fields, boolean, choice, entries, list, text};
use super::super::tree::{Key, Kind, Node};
use super::super::values::environment;
use super::request::{literal, pointer};
use super::sites::by_environment;

/// What a pattern may need in memory once it is compiled, in bytes.
const PATTERN_SIZE_MAX: usize = 1 << 18;
pub(in super::super) const PATTERN_LENGTH_MAX: usize = 1_000;

/// Whether a shape is documented. One that isn't known isn't written.
pub(in super::super) const SHAPE_CONFIDENCES: [(&str, bool); 2] = [("documented", true), ("inferred", false)];

/// The caller reads the rest of the field and then ends the mapping.
pub(super) fn read_form(fields: &Fields<'_>) -> Form {
    let sink = fields.sink;
    Form {
        marks: fields.get("patterns").map(|node| read_marks(node, sink)).unwrap_or_default(),
        shape: fields.get("shape").and_then(|node| read_shape(node, sink)),
        look_alikes: fields.get("lookAlikes").map(|node| read_look_alikes(node, sink)).unwrap_or_default(),
        claims: fields.get("jwt").and_then(|node| read_claims(node, sink)),
        is_address: fields.get("address").and_then(|node| boolean(node, sink)).unwrap_or(false),
    }
}

fn read_marks(node: &Node, sink: &Sink<'_>) -> BTreeMap<Environment, Mark> {
    let mut marks: BTreeMap<Environment, Mark> = BTreeMap::new();
    for (environment, key, node) in by_environment(node, sink) {
        let Some(mark) = read_mark(environment, node, sink) else { continue };
        let alike = |other: &Mark| other.pattern.as_str() == mark.pattern.as_str();
        if marks.values().any(|other| alike(other) && !other.unless_other && !mark.unless_other) {
            let help = "a pattern is evidence of its environment only where the other one doesn't fit: leave both out";
            sink.report(node.place, "bad-pattern", "both environments have the same pattern", help);
        }
        if marks.values().any(|other| other.unless_other && mark.unless_other) {
            yields_to_nobody(key, sink);
        }
        marks.insert(environment, mark);
    }
    if let (1, Some(environment)) = (marks.len(), marks.iter().find(|(_, mark)| mark.unless_other).map(|(environment, _)| environment))
        && let Some((_, key, _)) = by_environment(node, sink).iter().find(|(of, ..)| of == environment)
    {
        yields_to_nobody(key, sink);
    }
    marks
}

fn yields_to_nobody(key: &Key, sink: &Sink<'_>) {
    let message = "`unless` names an environment that has no mark of its own";
    sink.report(key.place, "bad-pattern", message, "give the environment that is marked a plain pattern, and `unless` to the other one");
}

/// A pattern, or `{pattern, unless}`: values of this environment bear no mark, and those of the other one do.
fn read_mark(own: Environment, node: &Node, sink: &Sink<'_>) -> Option<Mark> {
    if !matches!(node.kind, Kind::Map(_)) {
        return Some(Mark { pattern: read_pattern(node, sink)?, unless_other: false });
    }
    let fields = Fields::of(node, sink)?;
    let pattern = fields.need("pattern", "what values of this environment look like").and_then(|node| read_pattern(node, sink));
    let unless = fields.need("unless", "the environment whose mark they don't bear").and_then(|node| environment(node, sink));
    fields.done();
    let unless = unless?;
    if unless.value == own {
        sink.report(unless.place, "bad-pattern", "`unless` names the environment itself", "name the other one");
        return None;
    }
    Some(Mark { pattern: pattern?, unless_other: true })
}

fn read_shape(node: &Node, sink: &Sink<'_>) -> Option<Shape> {
    let fields = Fields::of(node, sink)?;
    let pattern = fields.need("pattern", "what all values look like").and_then(|node| read_pattern(node, sink));
    let documented = fields
        .need("confidence", "`documented`: other values are refused; `inferred`: they tell nothing")
        .and_then(|node| choice(node, sink, &SHAPE_CONFIDENCES));
    fields.done();
    Some(Shape { pattern: pattern?, documented: documented?.value })
}

fn read_look_alikes(node: &Node, sink: &Sink<'_>) -> Vec<LookAlike> {
    let read = entries(node, sink).unwrap_or_default().iter().filter_map(|(key, node)| {
        let named = (1..=63).contains(&key.text.len()) && key.text.chars().all(|c| c.is_ascii_alphanumeric() || " .,&-".contains(c));
        if !named {
            sink.report(key.place, "bad-name", "this is no name of a provider", "what people call it, for example `Paystack`");
        }
        Some(LookAlike { of: key.text.clone(), pattern: read_pattern(node, sink)? })
    });
    read.collect()
}

/// `{claim: POINTER, sandbox: [..], production: [..]}`.
fn read_claims(node: &Node, sink: &Sink<'_>) -> Option<Claims> {
    let fields = Fields::of(node, sink)?;
    let claim = fields.need("claim", "where it stands among the claims, for example `/env`").and_then(|node| pointer(node, sink));
    let mut values = BTreeMap::new();
    for (name, environment) in [("sandbox", Environment::Sandbox), ("production", Environment::Production)] {
        let Some(node) = fields.get(name) else { continue };
        let listed: Vec<_> = list(node, sink).unwrap_or_default().iter().filter_map(|item| literal(item, sink)).collect();
        if values.values().flatten().any(|other| listed.contains(other)) {
            let help = "a claim is evidence of its environment only where the other one doesn't have it";
            sink.report(node.place, "bad-claim", "both environments have the same value", help);
        }
        values.insert(environment, listed);
    }
    if values.is_empty() {
        sink.report(fields.place, "missing-field", "no value is named", "add `sandbox: [..]`, `production: [..]` or both");
    }
    fields.done();
    Some(Claims { pointer: claim?, values })
}

fn read_pattern(node: &Node, sink: &Sink<'_>) -> Option<Regex> {
    text(node, sink).and_then(|written| compile(written, node, sink))
}

fn compile(written: &str, node: &Node, sink: &Sink<'_>) -> Option<Regex> {
    let refuse = |message: &str| {
        sink.report(node.place, "bad-pattern", message, "for example `^sk_test_[A-Za-z0-9]{24}$`");
        None
    };
    if written.len() > PATTERN_LENGTH_MAX {
        return refuse("a pattern has 1000 characters at most");
    }
    let Some(inner) = written.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')) else {
        return refuse("a pattern is anchored: it begins with `^` and ends with `$`");
    };
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(PATTERN_SIZE_MAX).nest_limit(32).build();
    // The inner part must stand alone, and is then held together: `^a|b$` would be anchored on one side each.
    match build(inner).and_then(|_| build(&format!("^(?:{inner})$"))) {
        Ok(pattern) => Some(pattern),
        Err(regex::Error::CompiledTooBig(_)) => refuse("the pattern is too large: repeat less"),
        Err(_) => refuse("this is no regular expression"),
    }
}
