//! The parts of a request: templates, headers, bodies, JSON pointers; each hole is checked against what its place knows.

use crate::domain::ids::FieldName;
use crate::domain::manual::STEP_FACTS;
use crate::domain::provider::{Body, FieldClass, JsonTemplate, Method, Template};
use crate::domain::succession::OVERLAP_SECONDS;

use super::super::problem::Sink;
use super::super::reader::{Fields, entries, text};
use super::super::tree::{Kind, Node};
use super::Scope;

/// Variables that the daemon fills in itself.
pub(in super::super) const RESERVED: [&str; 4] = ["key_id", "marker", "operation_id", OVERLAP_SECONDS];

/// Headers that authentication, body and connection set themselves.
pub(in super::super) const OWN_HEADERS: [&str; 8] =
    ["authorization", "connection", "content-length", "content-type", "cookie", "host", "te", "transfer-encoding"];

pub(in super::super) const TEMPLATE_LENGTH_MAX: usize = 4_096;

/// Where a template stands: decides which holes it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Base,
    /// Path or query of a call: it ends up in logs of others, so no field does.
    Address(CallKind),
    /// Headers and body of a call.
    Content(CallKind),
    /// What a person is told: no field stands there.
    Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    Token,
    Probe,
    Create,
    List,
    Disable,
    Revoke,
    Promote,
    Cancel,
}

impl CallKind {
    /// Whether the call names no key: which one it ends follows from which came first.
    pub(super) fn acts_on_order(self) -> bool {
        matches!(self, CallKind::Promote | CallKind::Cancel)
    }
}

impl Place {
    /// The daemon's own variables that have a value here.
    fn own(self) -> &'static [&'static str] {
        match self {
            Place::Address(CallKind::Disable | CallKind::Revoke) | Place::Content(CallKind::Disable | CallKind::Revoke) => &["key_id"],
            Place::Address(CallKind::Create) => &["marker", "operation_id"],
            Place::Content(CallKind::Create) => &["marker", "operation_id", OVERLAP_SECONDS],
            Place::Step => &STEP_FACTS,
            _ => &[],
        }
    }
}

pub(super) fn template(node: &Node, written: &str, scope: &Scope<'_>, place: Place) -> Option<Template> {
    let sink = scope.sink;
    if written.len() > TEMPLATE_LENGTH_MAX {
        sink.report(node.place, "bad-template", "this is longer than 4096 bytes", "no request needs that");
        return None;
    }
    let template = match Template::parse(written) {
        Ok(template) => template,
        Err(reason) => {
            sink.report(node.place, "bad-template", reason, "holes are written `{name}` or `{field:name}`");
            return None;
        }
    };
    for variable in template.variables() {
        if !scope.variables.contains_key(variable) && !place.own().contains(&variable) {
            let mut known: Vec<&str> = scope.variables.keys().map(String::as_str).chain(place.own().iter().copied()).collect();
            known.sort_unstable();
            let help = if known.is_empty() { "there are none here".to_owned() } else { format!("here are: {}", known.join(", ")) };
            sink.report(node.place, "unknown-variable", format!("there is no variable `{{{variable}}}` here"), help);
        }
    }
    for field in template.fields() {
        match (scope.fields.get(field), place) {
            (Some(FieldClass::Public | FieldClass::Secret), Place::Content(_)) | (Some(FieldClass::Public), Place::Address(_)) => {}
            (None, _) => undeclared(node.place, scope),
            _ => {
                let help = "secrets go into the authentication, the body or a header, management fields into `authentication`";
                sink.report(node.place, "field-in-address", "this field has no place here", help);
            }
        }
    }
    Some(template)
}

pub(super) fn undeclared(at: super::super::problem::Place, scope: &Scope<'_>) {
    let known: Vec<&str> = scope.fields.keys().map(FieldName::as_str).collect();
    scope.sink.report(at, "undeclared-field", "no field of this name is described", format!("described are: {}", known.join(", ")));
}

/// The name of a described field.
pub(super) fn field(node: &Node, scope: &Scope<'_>, allowed: &[FieldClass]) -> Option<FieldName> {
    let name = text(node, scope.sink)?.parse::<FieldName>().ok();
    match name.as_ref().and_then(|name| scope.fields.get(name)) {
        Some(class) if allowed.contains(class) => name,
        Some(_) => {
            let help = "management fields stand in `{management: FIELD}` and `urlField`, the others in `basic` and `bearer`";
            scope.sink.report(node.place, "field-class", "a field of this class has no place here", help);
            None
        }
        None => {
            undeclared(node.place, scope);
            None
        }
    }
}

/// A list of names with templates: query, headers, form.
pub(super) fn pairs(node: &Node, scope: &Scope<'_>, place: Place) -> Vec<(String, Template)> {
    let sink = scope.sink;
    let read = entries(node, sink)
        .unwrap_or_default()
        .iter()
        .filter_map(|(key, node)| Some((key.text.clone(), template(node, text(node, sink)?, scope, place)?)));
    read.collect()
}

pub(super) fn headers(node: &Node, scope: &Scope<'_>, kind: CallKind) -> Vec<(String, Template)> {
    for (key, value) in entries(node, scope.sink).unwrap_or_default() {
        if !is_header(&key.text) {
            scope.sink.report(key.place, "bad-header", HEADER_MESSAGE, HEADER_HELP);
        }
        if matches!(&value.kind, Kind::Text(text) if text.chars().any(|c| c.is_control() || !c.is_ascii())) {
            scope.sink.report(value.place, "bad-header", "a header holds printable ASCII", "write it on one line");
        }
    }
    match entries(node, scope.sink) {
        Some(_) => pairs(node, scope, Place::Content(kind)),
        None => Vec::new(),
    }
}

const HEADER_MESSAGE: &str = "this is no header that a description may set";
const HEADER_HELP: &str = "letters, digits and hyphens; authentication, host and content headers are set by the daemon";

pub(super) fn header_name(node: &Node, sink: &Sink<'_>) -> Option<String> {
    let name = text(node, sink)?;
    if is_header(name) {
        return Some(name.to_owned());
    }
    sink.report(node.place, "bad-header", HEADER_MESSAGE, HEADER_HELP);
    None
}

fn is_header(name: &str) -> bool {
    let shape = (1..=63).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    shape && !OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str())
}

/// `{form: {…}}` or `{json: …}`.
pub(super) fn body(node: &Node, scope: &Scope<'_>, kind: CallKind, method: Option<Method>) -> Option<Body> {
    let sink = scope.sink;
    if method == Some(Method::Get) {
        sink.report(node.place, "bad-body", "a GET has no body", "use `query`, or another method");
    }
    let fields = Fields::of(node, sink)?;
    let (form, json) = (fields.get("form"), fields.get("json"));
    fields.done();
    match (form, json) {
        (Some(form), None) => Some(Body::Form(pairs(form, scope, Place::Content(kind)))),
        (None, Some(json)) => Some(Body::Json(json_template(json, scope, kind)?)),
        _ => {
            sink.report(node.place, "bad-body", "a body is either a form or JSON", "write `{form: {…}}` or `{json: {…}}`");
            None
        }
    }
}

fn json_template(node: &Node, scope: &Scope<'_>, kind: CallKind) -> Option<JsonTemplate> {
    Some(match &node.kind {
        // By itself it is the number that it stands for.
        Kind::Text(written) if kind == CallKind::Create && is_overlap(written) => JsonTemplate::Number(OVERLAP_SECONDS.to_owned()),
        Kind::Text(written) => JsonTemplate::Text(template(node, written, scope, Place::Content(kind))?),
        Kind::List(items) => JsonTemplate::List(items.iter().filter_map(|item| json_template(item, scope, kind)).collect()),
        Kind::Map(entries) => {
            let read = entries.iter().filter_map(|(key, node)| Some((key.text.clone(), json_template(node, scope, kind)?)));
            JsonTemplate::Object(read.collect())
        }
        Kind::Null | Kind::Bool(_) | Kind::Number(_) => JsonTemplate::Literal(literal(node, scope.sink)?),
    })
}

fn is_overlap(written: &str) -> bool {
    written.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) == Some(OVERLAP_SECONDS)
}

/// A plain JSON value: a text, a number, a truth value or null.
pub(super) fn literal(node: &Node, sink: &Sink<'_>) -> Option<serde_json::Value> {
    match &node.kind {
        Kind::Null => Some(serde_json::Value::Null),
        Kind::Bool(value) => Some((*value).into()),
        Kind::Text(text) => Some(text.as_str().into()),
        Kind::Number(written) => {
            let number = serde_json::from_str::<serde_json::Number>(written).ok();
            if number.is_none() {
                let message = "this is no number in JSON";
                sink.report(node.place, "bad-value", message, "no plus sign, no leading zeros; or put it in quotes");
            }
            number.map(serde_json::Value::Number)
        }
        Kind::List(_) | Kind::Map(_) => {
            sink.report(node.place, "bad-type", "here stands more than one value", "write a text, a number, `true`, `false` or `null`");
            None
        }
    }
}

/// A JSON pointer (RFC 6901).
pub(super) fn pointer(node: &Node, sink: &Sink<'_>) -> Option<String> {
    let written = text(node, sink)?;
    let escapes = written.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if written.len() <= 256 && (written.is_empty() || written.starts_with('/')) && escapes {
        return Some(written.to_owned());
    }
    sink.report(node.place, "bad-pointer", "this is no JSON pointer", "for example `/data/client_id` (RFC 6901)");
    None
}
