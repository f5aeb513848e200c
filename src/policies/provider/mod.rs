//! `Provider` documents: the description language. Its reference for authors is `policies/providers/README.md`.

mod calls;
mod generate;
mod lifecycle;
mod limits;
mod request;

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use crate::domain::credential::Environment;
use crate::domain::ids::{FieldName, Name};
use crate::domain::provider::{Confidence, Fact, Field, FieldClass, Lifecycle, Provider, Template, Usage};

use super::problem::Sink;
use super::reader::{Fields, boolean, choice, entries, list, text};
use super::tree::{Key, Node};
use super::values::{ENVIRONMENTS, Scheme, check_url, name};
pub(super) use calls::{MEANINGS, METHODS, RULES_MAX};
use calls::{read_calls, read_signs};
pub(super) use generate::{ALPHABET_MAX, ENCODINGS, PREFIX_LENGTH_MAX, USAGES};
pub(super) use lifecycle::{LIFECYCLES, SLOTS_MAX};
use limits::read_limits;
pub(super) use request::{OWN_HEADERS, RESERVED, TEMPLATE_LENGTH_MAX};

/// What a pattern may need in memory once it is compiled, in bytes.
const PATTERN_SIZE_MAX: usize = 1 << 18;
pub(super) const PATTERN_LENGTH_MAX: usize = 1_000;

pub(super) const CLASSES: [(&str, FieldClass); 3] =
    [("public", FieldClass::Public), ("secret", FieldClass::Secret), ("management", FieldClass::Management)];
pub(super) const CONFIDENCES: [(&str, Confidence); 3] =
    [("documented", Confidence::Documented), ("inferred", Confidence::Inferred), ("unknown", Confidence::Unknown)];

/// What every call may refer to.
struct Scope<'a> {
    variables: BTreeMap<String, Option<Name>>,
    fields: BTreeMap<FieldName, FieldClass>,
    sink: &'a Sink<'a>,
}

pub(super) fn read(name: &Name, node: &Node, sink: &Sink<'_>) -> Option<Provider> {
    let fields = Fields::of(node, sink)?;
    let title = fields.need("title", "what people call the provider").and_then(|node| text(node, sink));
    let retired = fields.get("retired").and_then(|node| boolean(node, sink)).unwrap_or(false);
    let help = "how keys come and go: `pairs`, `rotate`, `replace`, `manual` or `generated`";
    let lifecycle = fields.need("lifecycle", help).and_then(|node| lifecycle::read(node, sink));
    let variables = fields.get("variables").map(|node| read_variables(node, sink)).unwrap_or_default();
    let described = fields.need("fields", "what a credential consists of").map(|node| read_fields(node, sink)).unwrap_or_default();
    let classes = described.iter().map(|(name, field)| (name.clone(), field.class)).collect();
    let scope = Scope { variables, fields: classes, sink };
    let generated = lifecycle == Some(Lifecycle::Generated);
    if let (Some(_), Some(node)) = (lifecycle, fields.get("fields")) {
        generate::check_fields(node, generated, sink);
    }
    let environments = if generated { generate::environments() } else { places(&fields, &scope) };
    if generated {
        generate::check_calls(&fields, sink);
    }
    let calls = fields.get("calls").map(|node| read_calls(node, &scope, lifecycle)).unwrap_or_default();
    let signs = fields.get("signs").and_then(|node| read_signs(node, &scope, calls.token.is_some()));
    let timing = fields.get("timing").map(|node| lifecycle::read_timing(node, sink)).unwrap_or_default();
    let slots = lifecycle::read_slots(&fields, &calls, lifecycle);
    lifecycle::check_overlap(&fields, &calls, &timing, lifecycle);
    let limits = fields.get("limits").map(|node| read_limits(node, sink)).unwrap_or_default();
    let facts = fields.get("facts").map(|node| read_facts(node, sink)).unwrap_or_default();
    fields.done();
    Some(Provider {
        name: name.clone(),
        title: title?.to_owned(),
        retired,
        environments,
        variables: scope.variables,
        fields: described,
        calls,
        signs,
        lifecycle: lifecycle?,
        slots,
        timing: if generated { generate::timing(timing) } else { timing },
        limits,
        facts,
    })
}

fn places(fields: &Fields<'_>, scope: &Scope<'_>) -> BTreeMap<Environment, Template> {
    let help = "where they are: `sandbox: {base: …}` and `production: {base: …}`";
    fields.need("environments", help).map(|node| read_environments(node, scope)).unwrap_or_default()
}

fn read_variables(node: &Node, sink: &Sink<'_>) -> BTreeMap<String, Option<Name>> {
    let mut variables = BTreeMap::new();
    for (key, node) in entries(node, sink).unwrap_or_default() {
        let shape = !key.text.is_empty() && key.text.len() <= 63 && key.text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if !shape || request::RESERVED.contains(&key.text.as_str()) {
            let message = "a variable has 1 to 63 lower-case letters and underscores, and none of the daemon's own names";
            let help = format!("the daemon's own are: {}", request::RESERVED.join(", "));
            sink.report(key.place, "bad-name", message, help);
            continue;
        }
        // No value means that there is no default: each credential gives its own.
        let default = match node.kind {
            super::tree::Kind::Null => None,
            _ => name(node, sink).map(|name| name.value),
        };
        variables.insert(key.text.clone(), default);
    }
    variables
}

/// The entries of a mapping whose keys are environments.
fn by_environment<'a>(node: &'a Node, sink: &Sink<'_>) -> Vec<(Environment, &'a Key, &'a Node)> {
    let mut found = Vec::new();
    for (key, node) in entries(node, sink).unwrap_or_default() {
        match ENVIRONMENTS.iter().find(|(word, _)| *word == key.text) {
            Some((_, environment)) => found.push((*environment, key, node)),
            None => sink.report(key.place, "unknown-field", "unknown environment", "there are two: sandbox, production"),
        }
    }
    found
}

fn read_environments(node: &Node, scope: &Scope<'_>) -> BTreeMap<Environment, Template> {
    let sink = scope.sink;
    let mut bases = BTreeMap::new();
    for (environment, _, node) in by_environment(node, sink) {
        let Some(fields) = Fields::of(node, sink) else { continue };
        let base = fields.need("base", "for example `base: \"https://api.example.com/v3\"`");
        fields.done();
        if let Some(base) = base.and_then(|node| read_base(node, scope)) {
            bases.insert(environment, base);
        }
    }
    if entries(node, sink).is_some_and(<[_]>::is_empty) {
        sink.report(node.place, "missing-field", "no environment is described", "describe `sandbox`, `production` or both");
    }
    bases
}

fn read_base(node: &Node, scope: &Scope<'_>) -> Option<Template> {
    let sink = scope.sink;
    let written = text(node, sink)?.trim_end_matches('/');
    let template = request::template(node, written, scope, request::Place::Base)?;
    // A label stands in for each hole: the values are labels too.
    let sample: String = template
        .0
        .iter()
        .map(|piece| match piece {
            crate::domain::provider::Piece::Literal(text) => text.as_str(),
            _ => "a",
        })
        .collect();
    match check_url(&sample, Scheme::HttpsOrLoopback) {
        Ok(()) => Some(template),
        Err(reason) => {
            sink.report(node.place, "bad-url", reason, "for example `https://api.example.com/v3`");
            None
        }
    }
}

fn read_fields(node: &Node, sink: &Sink<'_>) -> BTreeMap<FieldName, Field> {
    let mut found = BTreeMap::new();
    let Some(entries) = entries(node, sink) else { return found };
    let mut whole = true;
    for (key, node) in entries {
        let field = read_field(node, sink);
        match key.text.parse::<FieldName>() {
            Ok(name) => {
                whole &= field.is_some();
                // Where the class is wrong, the name still counts, so that calls may refer to it.
                let unknown = Field {
                    class: FieldClass::Secret,
                    bound: true,
                    served: true,
                    patterns: BTreeMap::new(),
                    usage: Usage::Sign,
                    recipe: None,
                };
                found.insert(name, field.unwrap_or(unknown));
            }
            Err(error) => sink.report(key.place, "bad-name", error.to_string(), "for example `client_secret`"),
        }
    }
    if whole && !found.values().any(|field| field.class == FieldClass::Secret && field.served) {
        let help = "applications confirm with a secret field: give one of them `class: secret`";
        sink.report(node.place, "no-secret-field", "no field is a secret that applications get", help);
    }
    found
}

fn read_field(node: &Node, sink: &Sink<'_>) -> Option<Field> {
    let fields = Fields::of(node, sink)?;
    let class = fields.need("class", "`public`, `secret` or `management`").and_then(|node| choice(node, sink, &CLASSES));
    let bound = fields.get("bound").and_then(|node| boolean(node, sink));
    let served = fields.get("served").map(|node| (node.place, boolean(node, sink)));
    let patterns = fields.get("patterns").map(|node| read_patterns(node, sink)).unwrap_or_default();
    let usage = fields.get("use").and_then(|node| generate::read_usage(node, sink)).unwrap_or(Usage::Sign);
    // Where the recipe itself is wrong, that was told: the field counts as wrong too.
    let recipe = fields.get("generate").map(|node| generate::read_recipe(node, sink));
    fields.done();
    let class = class?.value;
    if let Some((place, Some(true))) = served
        && class == FieldClass::Management
    {
        let help = "leave `served` out: what manages a credential stays with the daemon";
        sink.report(place, "management-served", "a management field is never served", help);
    }
    let served = served.and_then(|(_, served)| served).unwrap_or(class != FieldClass::Management);
    let recipe = match recipe {
        Some(read) => Some(read?),
        None => None,
    };
    Some(Field { class, bound: bound.unwrap_or(class != FieldClass::Public), served, patterns, usage, recipe })
}

fn read_patterns(node: &Node, sink: &Sink<'_>) -> BTreeMap<Environment, Regex> {
    let mut patterns: BTreeMap<Environment, Regex> = BTreeMap::new();
    for (environment, _, node) in by_environment(node, sink) {
        let Some(pattern) = text(node, sink).and_then(|written| compile(written, node, sink)) else { continue };
        if patterns.values().any(|other| other.as_str() == pattern.as_str()) {
            let help = "a pattern is evidence of its environment only where the other one doesn't fit: leave both out";
            sink.report(node.place, "bad-pattern", "both environments have the same pattern", help);
        }
        patterns.insert(environment, pattern);
    }
    patterns
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

fn read_facts(node: &Node, sink: &Sink<'_>) -> Vec<Fact> {
    let facts = list(node, sink).unwrap_or_default().iter().filter_map(|node| {
        let fields = Fields::of(node, sink)?;
        let about = fields.need("about", "the field that the fact is about").and_then(|node| text(node, sink));
        let source = fields.need("source", "where the fact is from").and_then(|node| text(node, sink));
        let confidence =
            fields.need("confidence", "`documented`, `inferred` or `unknown`").and_then(|node| choice(node, sink, &CONFIDENCES));
        fields.done();
        Some(Fact { about: about?.to_owned(), source: source?.to_owned(), confidence: confidence?.value })
    });
    facts.collect()
}
