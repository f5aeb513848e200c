//! `Provider` documents: the description language. Its reference for authors is `policies/providers/README.md`.

mod calls;
mod examples;
mod fill;
mod form;
mod generate;
mod go_live;
mod lifecycle;
pub(crate) mod limits;
mod linked;
mod manual;
mod request;
mod sites;

use std::collections::BTreeMap;

use crate::domain::credential::Environment;
use crate::domain::form::Form;
use crate::domain::ids::{FieldName, Name};
use crate::domain::provider::{Confidence, Fact, Field, FieldClass, Lifecycle, Provider, Site, Usage};

use super::problem::Sink;
use super::reader::{Fields, boolean, choice, entries, list, text};
use super::tree::Node;
use super::values::name;
pub(super) use calls::{MEANINGS, METHODS, RULES_MAX};
use calls::{read_calls, read_signs};
pub(super) use examples::{CALLS, EXAMPLES_MAX, OUTCOMES};
pub(super) use fill::KINDS;
pub(super) use form::{PATTERN_LENGTH_MAX, SHAPE_CONFIDENCES};
pub(super) use generate::{ALPHABET_MAX, ENCODINGS, PREFIX_LENGTH_MAX, USAGES};
pub(super) use go_live::{ABOUT_CHARS_MAX, SOURCE_CHARS_MAX, TITLE_CHARS_MAX};
pub(super) use lifecycle::{LIFECYCLES, SLOTS_MAX};
use limits::read_limits;
pub(super) use manual::{STEP_LENGTH_MAX, STEPS_MAX};
pub(super) use request::{OWN_HEADERS, RESERVED, TEMPLATE_LENGTH_MAX};

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

/// Whether the examples of a description are held against it, too. Those that are compiled in were, by our own tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Examples {
    Judged,
    ReadOnly,
}

pub(super) fn read(name: &Name, node: &Node, examples: Examples, sink: &Sink<'_>) -> Option<Provider> {
    let before = sink.reported();
    let fields = Fields::of(node, sink)?;
    let title = fields.need("title", "what people call the provider").and_then(|node| text(node, sink));
    let retired = fields.get("retired").and_then(|node| boolean(node, sink)).unwrap_or(false);
    let help = "how keys come and go: `pairs`, `rotate`, `replace`, `promote`, `manual` or `generated`";
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
    lifecycle::check_needs_calls(&fields, lifecycle);
    let calls = fields.get("calls").map(|node| read_calls(node, &scope, lifecycle)).unwrap_or_default();
    if let Some(node) = fields.get("fields") {
        linked::check_links(node, &described, &calls, sink);
    }
    let by_hand = fields.get("manual").map(|node| manual::read_manual(fields.key("manual"), node, &scope, lifecycle));
    let signs = fields.get("signs").and_then(|node| read_signs(node, &scope, calls.token.is_some()));
    let timing = fields.get("timing").map(|node| lifecycle::read_timing(node, sink)).unwrap_or_default();
    let slots = lifecycle::read_slots(&fields, &calls, lifecycle);
    lifecycle::check_overlap(&fields, &calls, &timing, lifecycle);
    let limits = fields.get("limits").map(|node| read_limits(node, sink)).unwrap_or_default();
    let facts = fields.get("facts").map(|node| read_facts(node, sink)).unwrap_or_default();
    let go_live = fields.get("goLive").map(|node| go_live::read_list(node, sink)).unwrap_or_default();
    let written = fields.get("examples").map(|node| examples::read_examples(node, &scope)).unwrap_or_default();
    fields.done();
    let provider = Provider {
        name: name.clone(),
        title: title?.to_owned(),
        retired,
        environments,
        variables: scope.variables,
        fields: described,
        calls,
        signs,
        lifecycle: lifecycle?,
        manual: by_hand.unwrap_or_default(),
        slots,
        timing: if generated { generate::timing(timing) } else { timing },
        limits,
        facts,
        go_live,
    };
    if examples == Examples::Judged && sink.reported() == before {
        written.judge(&provider, sink);
    }
    Some(provider)
}

fn places(fields: &Fields<'_>, scope: &Scope<'_>) -> BTreeMap<Environment, Site> {
    let help = "where they are: `sandbox: {base: …}` and `production: {base: …}`";
    fields.need("environments", help).map(|node| sites::read_environments(node, scope)).unwrap_or_default()
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
                    form: Form::default(),
                    usage: Usage::Sign,
                    recipe: None,
                    is: None,
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
    let form = form::read_form(&fields);
    let is = fields.get("is").and_then(|node| linked::read_link(node, sink));
    // Only checked: a provider that changes one without the other can't be described.
    let _with = fields.get("with").and_then(|node| linked::read_link(node, sink));
    let usage = fields.get("use").and_then(|node| generate::read_usage(node, sink)).unwrap_or(Usage::Sign);
    // Where the recipe itself is wrong, that was told: the field counts as wrong too.
    let recipe = fields.get("generate").map(|node| generate::read_recipe(node, sink));
    fields.done();
    let class = class?.value;
    if form.is_address && class != FieldClass::Public {
        let help = "an address is no secret: give it `class: public`; addresses that manage a credential are judged anyway";
        sink.report(node.place, "field-class", "a field of this class isn't judged as an address", help);
    }
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
    // Where a value is met, the field that it comes from says so.
    let bound = is.is_none() && bound.unwrap_or(class != FieldClass::Public);
    Some(Field { class, bound, served, form, usage, recipe, is })
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
