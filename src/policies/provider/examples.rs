//! `examples` of a `Provider` document: what its values and replies mean, said by its author and held against the description.

use std::collections::BTreeMap;

use crate::domain::credential::{Credential, Environment};
use crate::domain::environment::{BaseUrl, Proof, Verdict, pure_evidence};
use crate::domain::fields::{FieldProblem, misfits};
use crate::domain::ids::{FieldName, Name};
use crate::domain::material::{Material, Secret};
use crate::domain::provider::{Call, Calls, Meaning, Provider, Rule};

use super::super::problem::{Place, Sink};
use super::super::reader::{At, Fields, choice, entries, list, whole_number};
use super::super::tree::{Kind, Node};
use super::super::values::{environment, name};
use super::calls::MEANINGS;
use super::fill::read_value;
use super::request::literal;
use super::{Scope, request};

/// Of values, and of replies.
pub(in super::super) const EXAMPLES_MAX: usize = 256;

/// What becomes of an example's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Outcome {
    Proof(Verdict),
    /// Refused before anyone asks where they belong.
    Invalid,
}

pub(in super::super) const OUTCOMES: [(&str, Outcome); 4] = [
    ("match", Outcome::Proof(Verdict::Match)),
    ("mismatch", Outcome::Proof(Verdict::Mismatch)),
    ("undetermined", Outcome::Proof(Verdict::Undetermined)),
    ("invalid", Outcome::Invalid),
];

type Pick = fn(&Calls) -> Option<&Call>;

/// The calls that a reply may be an example of.
pub(in super::super) const CALLS: [(&str, Pick); 7] = [
    ("token", |calls| calls.token.as_ref()),
    ("probe", |calls| calls.probe.as_ref()),
    ("create", |calls| calls.create.as_ref().map(|create| &create.call)),
    ("list", |calls| calls.list.as_ref().map(|list| &list.call)),
    ("revoke", |calls| calls.revoke.as_ref()),
    ("promote", |calls| calls.promote.as_ref()),
    ("cancel", |calls| calls.cancel.as_ref()),
];

/// The examples, as written.
#[derive(Debug, Default)]
pub(super) struct Written {
    values: Vec<ValueExample>,
    replies: Vec<ReplyExample>,
}

#[derive(Debug)]
struct ValueExample {
    material: Material,
    variables: BTreeMap<String, Name>,
    environment: Environment,
    expected: At<Outcome>,
}

#[derive(Debug)]
struct ReplyExample {
    call: At<Pick>,
    status: u16,
    body: Option<serde_json::Value>,
    expected: At<Meaning>,
}

pub(super) fn read_examples(node: &Node, scope: &Scope<'_>) -> Written {
    let sink = scope.sink;
    let Some(fields) = Fields::of(node, sink) else { return Written::default() };
    let values = fields.get("values").map(|node| bounded(node, sink)).unwrap_or_default();
    let replies = fields.get("replies").map(|node| bounded(node, sink)).unwrap_or_default();
    fields.done();
    Written {
        values: values.iter().filter_map(|node| read_values(node, scope)).collect(),
        replies: replies.iter().filter_map(|node| read_reply(node, sink)).collect(),
    }
}

fn bounded<'a>(node: &'a Node, sink: &Sink<'_>) -> &'a [Node] {
    let items = list(node, sink).unwrap_or_default();
    if items.len() > EXAMPLES_MAX {
        sink.report(node.place, "too-many", format!("there are more than {EXAMPLES_MAX} examples"), "show it with fewer");
    }
    &items[..items.len().min(EXAMPLES_MAX)]
}

fn read_values(node: &Node, scope: &Scope<'_>) -> Option<ValueExample> {
    let sink = scope.sink;
    let fields = Fields::of(node, sink)?;
    let material = fields.need("fields", "the values, by field").map(|node| read_material(node, scope));
    let variables = fields.get("variables").map(|node| read_variables(node, scope)).unwrap_or_default();
    let of = fields.need("environment", "which environment they are offered to").and_then(|node| environment(node, sink));
    let expected = fields.need("verdict", "what becomes of them").and_then(|node| choice(node, sink, &OUTCOMES));
    fields.done();
    Some(ValueExample { material: material??, variables, environment: of?.value, expected: expected? })
}

fn read_material(node: &Node, scope: &Scope<'_>) -> Option<Material> {
    let mut material = Material::default();
    let mut whole = true;
    for (key, node) in entries(node, scope.sink)? {
        let known = key.text.parse::<FieldName>().ok().filter(|name| scope.fields.contains_key(name));
        match (known, read_value(node, scope.sink)) {
            (Some(field), Some(value)) => material.insert(field, Secret::from(value)),
            (None, _) => {
                request::undeclared(key.place, scope);
                whole = false;
            }
            (Some(_), None) => whole = false,
        }
    }
    whole.then_some(material)
}

fn read_variables(node: &Node, scope: &Scope<'_>) -> BTreeMap<String, Name> {
    let mut variables = BTreeMap::new();
    for (key, node) in entries(node, scope.sink).unwrap_or_default() {
        if !scope.variables.contains_key(&key.text) {
            scope.sink.report(key.place, "unknown-variable", "the description has no such variable", "name one of `variables`");
        }
        if let Some(value) = name(node, scope.sink) {
            variables.insert(key.text.clone(), value.value);
        }
    }
    variables
}

fn read_reply(node: &Node, sink: &Sink<'_>) -> Option<ReplyExample> {
    let fields = Fields::of(node, sink)?;
    let call = fields.need("call", "the call that it answers").and_then(|node| choice(node, sink, &CALLS));
    let status = fields.need("status", "its status, for example `401`").and_then(|node| whole_number(node, sink, 100..=599));
    let body = fields.get("body").map(|node| json(node, sink));
    let expected = fields.need("means", "what it means").and_then(|node| choice(node, sink, &MEANINGS));
    fields.done();
    let body = match body {
        Some(read) => Some(read?),
        None => None,
    };
    Some(ReplyExample { call: call?, status: u16::try_from(status?).ok()?, body, expected: expected? })
}

/// Any JSON.
pub(super) fn json(node: &Node, sink: &Sink<'_>) -> Option<serde_json::Value> {
    match &node.kind {
        Kind::List(items) => items.iter().map(|item| json(item, sink)).collect(),
        Kind::Map(entries) => {
            let read = entries.iter().map(|(key, node)| Some((key.text.clone(), json(node, sink)?)));
            read.collect::<Option<serde_json::Map<_, _>>>().map(Into::into)
        }
        _ => literal(node, sink),
    }
}

impl Written {
    /// Holds each against the description, and reports those that come out otherwise.
    pub(super) fn judge(&self, provider: &Provider, sink: &Sink<'_>) {
        for example in &self.values {
            example.judge(provider, sink);
        }
        for example in &self.replies {
            example.judge(provider, sink);
        }
    }
}

const HELP: &str = "mend the example if it is wrong, and the description if the example is right";

impl ValueExample {
    fn judge(&self, provider: &Provider, sink: &Sink<'_>) {
        let (place, environment) = (self.expected.place, self.environment);
        let Some(site) = provider.environments.get(&environment) else {
            return bad(place, format!("the {environment} environment isn't described"), sink);
        };
        let Some(credential) = self.credential(provider) else { return };
        let base = site.base.as_ref().map(|base| provider.render(base, &credential.variables)).unwrap_or_default();
        let evidence = pure_evidence(provider, &credential, &self.material, &BaseUrl { url: base, overridden: false }, &[]);
        let proof = Proof::weigh(evidence);
        // An example may show one field of several.
        let misfits: Vec<String> = misfits(provider, &self.material)
            .into_iter()
            .filter(|(_, problem)| *problem != FieldProblem::Missing)
            .map(|(field, problem)| format!("`{field}` {problem}"))
            .collect();
        let (outcome, why) = match misfits.as_slice() {
            [] => (Outcome::Proof(proof.verdict), proof.reasons()),
            _ => (Outcome::Invalid, misfits.join("; ")),
        };
        if outcome != self.expected.value {
            bad(place, format!("these values come out as `{}`: {why}", word(&OUTCOMES, outcome)), sink);
        }
    }

    /// Somebody's, with a value for each variable.
    fn credential(&self, provider: &Provider) -> Option<Credential> {
        let example: Name = "example".parse().ok()?;
        let given = |name: &String| self.variables.get(name).cloned().unwrap_or_else(|| example.clone());
        let variables = provider.variables.iter().map(|(name, default)| match (self.variables.get(name), default) {
            (None, Some(default)) => (name.clone(), default.clone()),
            _ => (name.clone(), given(name)),
        });
        Some(Credential {
            variables: variables.collect(),
            name: example.clone(),
            provider: provider.name.clone(),
            environment: self.environment,
            rotation: example.clone(),
            path: example.to_string(),
            account: example,
            administered_by: None,
            twin: None,
            accept_undetermined: None,
            rehearsal_time: std::time::Duration::ZERO,
            require_go_live: false,
        })
    }
}

impl ReplyExample {
    fn judge(&self, provider: &Provider, sink: &Sink<'_>) {
        let Some(call) = (self.call.value)(&provider.calls) else {
            return bad(self.call.place, "this call isn't described".to_owned(), sink);
        };
        let meaning = Rule::decide(&call.rules, self.status, self.body.as_ref());
        if meaning != self.expected.value {
            bad(self.expected.place, format!("by its rules this reply means `{}`", word(&MEANINGS, meaning)), sink);
        }
    }
}

fn bad(place: Place, message: String, sink: &Sink<'_>) {
    sink.report(place, "bad-example", message, HELP);
}

fn word<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, other)| *other == value).map_or("something else", |(word, _)| word)
}
