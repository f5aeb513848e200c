//! `lifecycle` of a `Provider` document: how keys come and go, and which calls and parts that needs.

use std::time::Duration;

use crate::domain::provider::{Calls, Lifecycle, Timing};
use crate::domain::succession::{OVERLAP_SECONDS, OverlapBounds};

use super::super::problem::Sink;
use super::super::reader::{Fields, choice, whole_number};
use super::super::tree::Node;
use super::super::values::span;
use super::request::pointer;

/// More than that is no number to run out of.
pub(in super::super) const SLOTS_MAX: u32 = 10_000;

pub(in super::super) const LIFECYCLES: [(&str, Lifecycle); 6] = [
    ("pairs", Lifecycle::Pairs),
    ("rotate", Lifecycle::Rotate),
    ("replace", Lifecycle::Replace),
    ("promote", Lifecycle::Promote),
    ("manual", Lifecycle::Manual),
    ("generated", Lifecycle::Generated),
];

pub(super) fn read(node: &Node, sink: &Sink<'_>) -> Option<Lifecycle> {
    choice(node, sink, &LIFECYCLES).map(|word| word.value)
}

/// Whether only the secret changes, and what it belongs to stays.
fn keeps_the_key(lifecycle: Option<Lifecycle>) -> bool {
    matches!(lifecycle, Some(Lifecycle::Rotate | Lifecycle::Replace | Lifecycle::Promote))
}

/// Reports calls that this lifecycle never makes.
pub(super) fn check_calls(fields: &Fields<'_>, calls: &Calls, lifecycle: Option<Lifecycle>) {
    let sink = fields.sink;
    let (unused, word, help): (&[&str], _, _) = match lifecycle {
        Some(Lifecycle::Manual) => (
            &["create", "list", "disable", "revoke"],
            "manual",
            "a person makes and removes these keys: leave the call out, or write `lifecycle: pairs`",
        ),
        Some(Lifecycle::Rotate) => {
            (&["list", "disable", "revoke"], "rotate", "the provider ends the old secret by itself: leave the call out")
        }
        Some(Lifecycle::Replace) => (&["list", "disable", "revoke"], "replace", "the old secret dies with the create: leave the call out"),
        Some(Lifecycle::Promote) => {
            (&["list", "disable", "revoke"], "promote", "the old secret dies when the new one is promoted: leave the call out")
        }
        Some(Lifecycle::Pairs | Lifecycle::Generated) | None => (&[], "", ""),
    };
    for key in unused.iter().filter_map(|name| fields.key(name)) {
        sink.report(key.place, "unused-call", format!("with `lifecycle: {word}` nothing makes this call"), help);
    }
    check_order(fields, lifecycle);
    if let (true, false, Some(key)) = (lifecycle == Some(Lifecycle::Pairs), fields.has("revoke"), fields.key("disable")) {
        let help = "describe `revoke`, which removes the key after a while; what only disables for ever is the revocation itself";
        sink.report(key.place, "disable-alone", "a key that is disabled is removed afterwards, and nothing says how", help);
    }
    let asks = calls.create.as_ref().is_some_and(|create| create.call.body.mentions(OVERLAP_SECONDS));
    if let (true, Some(key)) = (asks && lifecycle != Some(Lifecycle::Rotate), fields.key("create")) {
        let message = format!("`{{{OVERLAP_SECONDS}}}` asks for what this lifecycle doesn't have");
        sink.report(key.place, "overlap-unused", message, "leave it out, or write `lifecycle: rotate`");
    }
}

/// Without calls, there is nothing to make a secondary secret with.
pub(super) fn check_needs_calls(fields: &Fields<'_>, lifecycle: Option<Lifecycle>) {
    if lifecycle == Some(Lifecycle::Promote) {
        fields.need("calls", "how a secondary secret is made, promoted and taken back: `create`, `promote` and `cancel`");
    }
}

/// The calls for a primary and a secondary secret: all of them, or none.
fn check_order(fields: &Fields<'_>, lifecycle: Option<Lifecycle>) {
    let sink = fields.sink;
    for (name, help) in [
        ("create", "the call that makes the secondary secret"),
        ("promote", "the call that puts the secondary secret in the primary one's place, which ends that one"),
        ("cancel", "the call that takes the secondary secret back"),
    ] {
        if lifecycle == Some(Lifecycle::Promote) {
            fields.need(name, help);
        } else if let (true, Some(key)) = (lifecycle.is_some() && name != "create", fields.key(name)) {
            let message = "only with `lifecycle: promote` something makes this call";
            sink.report(key.place, "unused-call", message, "leave it out, or write `lifecycle: promote`");
        }
    }
}

/// `keyId`: outer `None` where it is missing or wrong.
#[allow(clippy::option_option, reason = "that it is wrong and that there is none are two things")]
pub(super) fn read_key_id(fields: &Fields<'_>, lifecycle: Option<Lifecycle>) -> Option<Option<String>> {
    let sink = fields.sink;
    if !keeps_the_key(lifecycle) {
        let node = fields.need("keyId", "where the provider's id of the new key stands, for example `/client_id`")?;
        return pointer(node, sink).map(Some);
    }
    if let (Some(_), Some(key)) = (fields.get("keyId"), fields.key("keyId")) {
        let message = "the key stays, and only its secret changes: it has no id of its own";
        sink.report(key.place, "unused-part", message, "leave `keyId` out, or write `lifecycle: pairs`");
    }
    Some(None)
}

pub(super) fn read_previous_end(fields: &Fields<'_>, lifecycle: Option<Lifecycle>) -> Option<String> {
    let node = fields.get("previousExpiresAt")?;
    if let (true, Some(key)) = (lifecycle.is_some() && lifecycle != Some(Lifecycle::Rotate), fields.key("previousExpiresAt")) {
        let help = "leave it out, or write `lifecycle: rotate`";
        fields.sink.report(key.place, "unused-part", "only with `lifecycle: rotate` the provider ends the old secret later", help);
    }
    pointer(node, fields.sink)
}

pub(super) fn read_timing(node: &Node, sink: &Sink<'_>) -> Timing {
    let Some(fields) = Fields::of(node, sink) else { return Timing::default() };
    let part = |name| read_span(&fields, name);
    let (propagation, tokens_outlive, manual_lead) = (part("propagation"), part("tokensOutlive"), part("manualLead"));
    let soak = part("soak");
    let overlap = fields.get("overlap").map(|node| read_overlap(node, sink)).unwrap_or_default();
    fields.done();
    Timing { propagation, tokens_outlive, manual_lead, overlap, soak }
}

fn read_span(fields: &Fields<'_>, name: &'static str) -> Option<Duration> {
    fields.get(name).and_then(|node| span(node, fields.sink)).map(|span| span.value.as_duration())
}

/// `{min, default, max}`.
fn read_overlap(node: &Node, sink: &Sink<'_>) -> OverlapBounds {
    let Some(fields) = Fields::of(node, sink) else { return OverlapBounds::default() };
    let part = |name| read_span(&fields, name);
    let bounds = OverlapBounds { least: part("min"), default: part("default"), most: part("max") };
    fields.done();
    let in_order: Vec<Duration> = [bounds.least, bounds.default, bounds.most].into_iter().flatten().collect();
    if !in_order.is_sorted() {
        sink.report(
            node.place,
            "bad-bounds",
            "`min`, `default` and `max` don't grow in this order",
            "for example `{min: 1m, default: 1h, max: 7d}`",
        );
    }
    bounds
}

/// `slots`: with independent pairs, and where the keys can be counted.
pub(super) fn read_slots(fields: &Fields<'_>, calls: &Calls, lifecycle: Option<Lifecycle>) -> Option<u32> {
    let sink = fields.sink;
    let slots = whole_number(fields.get("slots")?, sink, 2..=SLOTS_MAX)?;
    let place = fields.key("slots").map(|key| key.place)?;
    if lifecycle.is_some_and(|lifecycle| lifecycle != Lifecycle::Pairs) {
        sink.report(place, "unused-part", "only with `lifecycle: pairs` several keys live at once", "leave `slots` out");
    } else if calls.list.is_none() {
        sink.report(place, "slots-uncounted", "nothing says how the keys of an account are counted", "describe `calls.list`");
    }
    Some(slots)
}

/// Where old and new may work together, something says for how long; elsewhere nothing does.
pub(super) fn check_overlap(fields: &Fields<'_>, calls: &Calls, timing: &Timing, lifecycle: Option<Lifecycle>) {
    let sink = fields.sink;
    let given = timing.overlap != OverlapBounds::default();
    match lifecycle {
        Some(Lifecycle::Rotate) => {
            let asks = calls.create.as_ref().is_none_or(|create| create.call.body.mentions(OVERLAP_SECONDS));
            if let (false, None, Some(key)) = (asks, timing.overlap.default, fields.key("lifecycle")) {
                let message = "nothing says how long the old secret lives on";
                let help = format!("write `{{{OVERLAP_SECONDS}}}` into the body of `create`, or `timing: {{overlap: {{default: 24h}}}}`");
                sink.report(key.place, "overlap-unknown", message, help);
            }
        }
        Some(Lifecycle::Replace) if given => {
            if let Some(key) = fields.key("timing") {
                sink.report(key.place, "overlap-unused", "with `lifecycle: replace` there is no overlap", "leave `overlap` out");
            }
        }
        _ => {}
    }
}
