//! `environments` of a `Provider` document: where each is, under which other addresses, and where its tokens are fetched.

use std::collections::BTreeMap;

use crate::domain::credential::Environment;
use crate::domain::provider::{Piece, Site, Template};

use super::super::problem::Sink;
use super::super::reader::{Fields, entries, list, text};
use super::super::tree::{Key, Node};
use super::super::values::{ENVIRONMENTS, Scheme, check_url};
use super::{Scope, request};

/// The entries of a mapping whose keys are environments.
pub(super) fn by_environment<'a>(node: &'a Node, sink: &Sink<'_>) -> Vec<(Environment, &'a Key, &'a Node)> {
    let mut found = Vec::new();
    for (key, node) in entries(node, sink).unwrap_or_default() {
        match ENVIRONMENTS.iter().find(|(word, _)| *word == key.text) {
            Some((_, environment)) => found.push((*environment, key, node)),
            None => sink.report(key.place, "unknown-field", "unknown environment", "there are two: sandbox, production"),
        }
    }
    found
}

pub(super) fn read_environments(node: &Node, scope: &Scope<'_>) -> BTreeMap<Environment, Site> {
    let sink = scope.sink;
    let mut sites = BTreeMap::new();
    for (environment, _, node) in by_environment(node, sink) {
        let Some(fields) = Fields::of(node, sink) else { continue };
        let written = fields.get("base");
        let base = written.and_then(|node| read_base(node, scope));
        let aliases = fields.get("aliases").and_then(|node| list(node, sink)).unwrap_or_default();
        let aliases: Vec<Template> = aliases.iter().filter_map(|node| read_base(node, scope)).collect();
        let token = fields.get("token").and_then(|node| read_base(node, scope));
        if let (None, Some(key)) = (written, fields.key("aliases").or_else(|| fields.key("token"))) {
            sink.report(key.place, "missing-field", "`base` is missing", "the address that is called stands in `base`");
        }
        fields.done();
        // What is wrong with a base was told: the environment is described all the same.
        sites.insert(environment, Site { base, aliases, token });
    }
    if entries(node, sink).is_some_and(<[_]>::is_empty) {
        sink.report(node.place, "missing-field", "no environment is described", "describe `sandbox`, `production` or both");
    }
    sites
}

fn read_base(node: &Node, scope: &Scope<'_>) -> Option<Template> {
    let sink = scope.sink;
    let written = text(node, sink)?.trim_end_matches('/');
    let template = request::template(node, written, scope, request::Place::Base)?;
    // A label stands in for each hole: the values are labels too.
    let part = |piece: &Piece| if let Piece::Literal(text) = piece { text.clone() } else { "a".to_owned() };
    let sample: String = template.0.iter().map(part).collect();
    match check_url(&sample, Scheme::HttpsOrLoopback) {
        Ok(()) => Some(template),
        Err(reason) => {
            sink.report(node.place, "bad-url", reason, "for example `https://api.example.com/v3`");
            None
        }
    }
}
