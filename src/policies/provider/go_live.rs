//! `goLive` of a `Provider` document: what its going-live list asks for, and who judges each item.

use std::collections::BTreeSet;

use super::super::problem::Sink;
use super::super::reader::{Fields, choice, list, text};
use super::super::tree::Node;
use super::super::values::name;
use super::CONFIDENCES;
use crate::domain::ids::Name;
use crate::domain::launch::{Check, ITEMS_MAX, Judge, LaunchItem};

pub(in super::super) const TITLE_CHARS_MAX: usize = 120;
pub(in super::super) const ABOUT_CHARS_MAX: usize = 500;
pub(in super::super) const SOURCE_CHARS_MAX: usize = 300;

pub(super) fn read_list(node: &Node, sink: &Sink<'_>) -> Vec<LaunchItem> {
    let nodes = list(node, sink).unwrap_or_default();
    if nodes.len() > ITEMS_MAX {
        let help = "leave out what another item says already";
        sink.report(node.place, "too-many-items", format!("a going-live list has {ITEMS_MAX} items at most"), help);
        return Vec::new();
    }
    let mut ids = BTreeSet::new();
    nodes.iter().filter_map(|node| read_item(node, &mut ids, sink)).collect()
}

fn read_item(node: &Node, ids: &mut BTreeSet<Name>, sink: &Sink<'_>) -> Option<LaunchItem> {
    let fields = Fields::of(node, sink)?;
    let id = fields.need("id", "what a sign-off names, for example `id: order-form`").and_then(|node| name(node, sink));
    let title = fields.need("title", "what is asked for, in a few words").and_then(|node| line(node, 1, TITLE_CHARS_MAX, sink));
    let about = match fields.get("about") {
        Some(node) => line(node, 0, ABOUT_CHARS_MAX, sink),
        None => Some(String::new()),
    };
    let judge = read_judge(&fields, node, sink);
    let source = fields.need("source", "where the item is from").and_then(|node| line(node, 1, SOURCE_CHARS_MAX, sink));
    let confidence = fields.need("confidence", "`documented`, `inferred` or `unknown`").and_then(|node| choice(node, sink, &CONFIDENCES));
    fields.done();
    let id = id?;
    if !ids.insert(id.value.clone()) {
        sink.report(id.place, "duplicate-item", "another item of this list has this id", "a sign-off names one item: rename one of them");
        return None;
    }
    Some(LaunchItem { id: id.value, title: title?, about: about?, judge: judge?, source: source?, confidence: confidence?.value })
}

/// `check: KIND` or `confirm: person`.
fn read_judge(fields: &Fields<'_>, node: &Node, sink: &Sink<'_>) -> Option<Judge> {
    let (check, confirm) = (fields.get("check"), fields.get("confirm"));
    match (check, confirm, fields.has("check") == fields.has("confirm")) {
        (_, _, true) => {
            let message = "an item is judged by the daemon or confirmed by a person";
            sink.report(node.place, "bad-item", message, "give one of them: `check: KIND` or `confirm: person`");
            None
        }
        (Some(node), ..) => choice(node, sink, &Check::ALL.map(|check| (check.as_str(), check))).map(|at| Judge::Daemon(at.value)),
        (_, Some(node), _) => choice(node, sink, &[("person", Judge::Person)]).map(|at| at.value),
        // The field is there without a value, and that was told.
        (None, None, false) => None,
    }
}

/// One line of text: it is shown on terminals and in reports.
fn line(node: &Node, least: usize, most: usize, sink: &Sink<'_>) -> Option<String> {
    let written = text(node, sink)?;
    if (least..=most).contains(&written.chars().count()) && !written.chars().any(char::is_control) {
        return Some(written.to_owned());
    }
    let message = format!("this is one line of {least} to {most} characters");
    sink.report(node.place, "bad-text", message, "say it in fewer words, without line breaks");
    None
}
