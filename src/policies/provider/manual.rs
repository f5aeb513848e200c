//! What a person does: `manual: {create, remove, replaces}`. Its reference is `policies/providers/README.md`.

use crate::domain::manual::Manual;
use crate::domain::provider::{Lifecycle, Template};

use super::super::problem::{Sink, looks_secret};
use super::super::reader::{Fields, boolean, list, text};
use super::super::tree::{Key, Node};
use super::Scope;
use super::request::{Place, template};

/// More than a dashboard asks for.
pub(in super::super) const STEPS_MAX: usize = 20;
pub(in super::super) const STEP_LENGTH_MAX: usize = 500;

pub(super) fn read_manual(key: Option<&Key>, node: &Node, scope: &Scope<'_>, lifecycle: Option<Lifecycle>) -> Manual {
    let sink = scope.sink;
    if let (Some(key), Some(lifecycle)) = (key, lifecycle)
        && lifecycle != Lifecycle::Manual
    {
        let help = "leave it out, or write `lifecycle: manual`";
        sink.report(key.place, "not-manual", "no person makes or removes keys with this `lifecycle`", help);
    }
    let Some(fields) = Fields::of(node, sink) else { return Manual::default() };
    let create = fields.get("create").map(|node| read_steps(node, scope)).unwrap_or_default();
    let remove = fields.get("remove").map(|node| read_steps(node, scope)).unwrap_or_default();
    let replaces = fields.get("replaces").and_then(|node| boolean(node, sink)).unwrap_or(false);
    if let (true, Some(key)) = (replaces && !remove.is_empty(), fields.key("remove")) {
        let message = "nothing is to be removed where the old key dies when the new one is made";
        sink.report(key.place, "nothing-to-remove", message, "leave `remove` out, or `replaces`");
    }
    fields.done();
    Manual { create, remove, replaces }
}

fn read_steps(node: &Node, scope: &Scope<'_>) -> Vec<Template> {
    let steps = list(node, scope.sink).unwrap_or_default();
    if steps.len() > STEPS_MAX {
        let message = format!("a person is told {STEPS_MAX} steps at most");
        scope.sink.report(node.place, "too-many", message, "put several things into one step");
    }
    steps.iter().filter_map(|node| read_step(node, scope)).collect()
}

fn read_step(node: &Node, scope: &Scope<'_>) -> Option<Template> {
    let written = text(node, scope.sink)?;
    if !is_step(written, scope.sink, node) {
        return None;
    }
    template(node, written, scope, Place::Step)
}

fn is_step(written: &str, sink: &Sink<'_>, node: &Node) -> bool {
    let fits = !written.trim().is_empty() && written.len() <= STEP_LENGTH_MAX && !written.chars().any(char::is_control);
    if !fits {
        let message = format!("a step is one line of 1 to {STEP_LENGTH_MAX} bytes");
        sink.report(node.place, "bad-step", message, "say where to click, in one sentence");
    }
    let mut words = written.split(|c: char| c.is_whitespace() || "{}()\"',;".contains(c));
    let pasted = words.any(looks_secret);
    if fits && pasted {
        let help = "a step says where to click; everybody who may see `status` reads it";
        sink.report(node.place, "secret-in-step", "a word of this step looks like a value", help);
    }
    fits && !pasted
}
