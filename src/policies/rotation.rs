//! `RotationPolicy` documents.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::due;
use crate::domain::ids::Name;
use crate::domain::policy::{Confirmation, RotationPolicy, Terms, Unconfirmed};
use crate::domain::provider::{Calls, Lifecycle, Limits, Provider, Timing};
use crate::domain::span::Span;
use crate::domain::windows::{self, Window, WindowError};

use super::lifecycles;
use super::problem::{Place, Sink};
use super::reader::{At, Fields, choice, list, text};
use super::rollout;
use super::tree::Node;
use super::values::{span, span_or_zero};

const DAY: Span = Span::from_secs(86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
pub(super) const WINDOWS_MAX: usize = 32;

pub(super) const CONFIRMATIONS: [(&str, Confirmation); 3] =
    [("required", Confirmation::Required), ("observed", Confirmation::Observed), ("none", Confirmation::None)];
pub(super) const UNCONFIRMED: [(&str, Unconfirmed); 2] = [("hold", Unconfirmed::Hold), ("revoke", Unconfirmed::Revoke)];

/// How far ahead of `now` the longest wait for a window is looked for, beyond one `maxAge`: a year and its holidays.
const WAIT_LOOK_AHEAD: Duration = Duration::from_secs(400 * 86_400);

pub(super) fn read(name: &Name, node: &Node, sink: &Sink<'_>, now: Timestamp) -> Option<RotationPolicy> {
    let fields = Fields::of(node, sink)?;
    let max_age = fields.need("maxAge", "by when an old version is dead, for example `maxAge: 90d`").and_then(|n| span(n, sink));
    // Whether there can be none is the provider's to say: see where a credential joins the two.
    let overlap = fields.get("overlap").map(|node| overlap_or_none(node, sink));
    let spread = fields.get("spread").map(|node| span_or_zero(node, sink));
    let windows = fields.get("windows").map(|node| read_windows(node, sink, now));
    let confirmation = fields.get("confirmation").and_then(|node| choice(node, sink, &CONFIRMATIONS));
    let unconfirmed = fields.get("unconfirmed").and_then(|node| choice(node, sink, &UNCONFIRMED));
    let rehearse = fields.get("rehearse").and_then(|node| choice(node, sink, &rollout::REHEARSE));
    let rollout = fields.get("rollout").map(|node| rollout::read(node, sink));
    let verify_every = fields.get("verifyEvery").map(|node| span(node, sink));
    fields.done();

    // What was given and is wrong was reported; its default must not lead to a second problem.
    let (max_age, overlap, spread) = (max_age?, settled(overlap)?, settled(spread)?);
    let tenth = Span::from_secs((max_age.value.as_secs() / 10).max(1));
    let terms = Terms {
        overlap: overlap.as_ref().map_or(tenth.min(DAY), |overlap| overlap.value),
        confirmation: confirmation.map_or(Confirmation::Required, |word| word.value),
        unconfirmed: unconfirmed.map_or(Unconfirmed::Hold, |word| word.value),
    };
    let windows = settled(windows)?.unwrap_or_default();
    let policy = RotationPolicy {
        name: name.clone(),
        max_age: max_age.value,
        terms,
        spread: spread.map_or((max_age.value.as_duration() / 10).min(WEEK), |spread| spread.value),
        window_wait: windows::longest_wait(&windows, now, WAIT_LOOK_AHEAD + max_age.value.as_duration()),
        windows,
        verify_every: settled(verify_every)?.map_or(DAY, |span| span.value),
        rehearse: rehearse.is_some_and(|word| word.value),
        rollout: settled(rollout)?.unwrap_or_default(),
    };
    check_schedule(&policy, max_age.place, overlap.map(|overlap| overlap.place), sink).then_some(policy)
}

fn overlap_or_none(node: &Node, sink: &Sink<'_>) -> Option<At<Span>> {
    let read = span_or_zero(node, sink)?;
    let value = if read.value.is_zero() { Span::ZERO } else { Span::from_secs(read.value.as_secs()) };
    Some(At { value, place: read.place })
}

/// `None` if it was given and is wrong.
fn settled<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        Some(None) => None,
        Some(Some(value)) => Some(Some(value)),
        None => Some(None),
    }
}

pub(super) fn read_windows(node: &Node, sink: &Sink<'_>, now: Timestamp) -> Option<Vec<Window>> {
    let items = list(node, sink)?;
    if items.len() > WINDOWS_MAX {
        sink.report(node.place, "too-many", format!("there are more than {WINDOWS_MAX} windows"), "say it with fewer");
        return None;
    }
    let read: Vec<Option<Window>> = items.iter().map(|item| read_window(item, sink, now)).collect();
    read.into_iter().collect()
}

fn read_window(node: &Node, sink: &Sink<'_>, now: Timestamp) -> Option<Window> {
    let fields = Fields::of(node, sink)?;
    let cron = fields.need("cron", "when it opens, for example `cron: \"0 9 * * Mon-Thu\"`");
    let timezone = fields.need("timezone", "for example `timezone: America/Sao_Paulo`, or UTC");
    let open = fields.need("open", "for how long, for example `open: 8h`");
    fields.done();
    let open_span = open.and_then(|node| span(node, sink));
    let (cron, timezone, open) = (cron?, timezone?, open?);
    let (expression, zone) = (text(cron, sink), text(timezone, sink));
    match Window::new(expression?, zone?, open_span?.value, now) {
        Ok(window) => Some(window),
        Err(error) => {
            let (code, at, help) = describe(&error, cron.place, timezone.place, open.place);
            sink.report(at, code, error.to_string(), help);
            None
        }
    }
}

fn describe(error: &WindowError, cron: Place, timezone: Place, open: Place) -> (&'static str, Place, &'static str) {
    match error {
        WindowError::FieldCount => ("cron-fields", cron, "without seconds and years, for example `0 9 * * Mon-Thu`"),
        WindowError::NumericWeekday => ("cron-weekday", cron, "for example `0 9 * * Mon-Fri`"),
        WindowError::BothDays => ("cron-both-days", cron, "for two conditions write two windows"),
        WindowError::Syntax => ("cron-syntax", cron, "minute, hour, day of month, month, day of week: `0 9 * * Mon-Thu`"),
        WindowError::Never => ("cron-never", cron, "look at the day of the month and the month: that day doesn't exist"),
        WindowError::Timezone => ("bad-timezone", timezone, "the names of the IANA database, for example America/Sao_Paulo"),
        WindowError::OpenTooLong => ("bad-duration", open, "for a window that is always open leave `windows` out"),
    }
}

/// Whether the schedule is possible at a provider that says nothing of its own timing.
fn check_schedule(policy: &RotationPolicy, max_age: Place, overlap: Option<Place>, sink: &Sink<'_>) -> bool {
    if policy.terms.overlap >= policy.max_age {
        let help = "old and new work side by side for a part of `maxAge`: make `overlap` shorter or `maxAge` longer";
        sink.report(overlap.unwrap_or(max_age), "overlap-too-long", "`overlap` isn't shorter than `maxAge`", help);
        return false;
    }
    match impossible(policy, &untimed(policy)) {
        None => true,
        Some(message) => {
            sink.report(max_age, "impossible-schedule", message, WAY_OUT);
            false
        }
    }
}

/// Whether a policy can't be kept at a provider, reported where a credential joins the two.
pub(super) fn check_at_provider(policy: &RotationPolicy, provider: &Provider, rotation: &At<Name>, sink: &Sink<'_>) {
    if !lifecycles::check(policy, provider, rotation, sink) {
        return;
    }
    if let Some(message) = impossible(policy, provider) {
        sink.report(rotation.place, "impossible-schedule", format!("at provider `{}` {message}", provider.name), WAY_OUT);
    }
}

const WAY_OUT: &str = "make `maxAge` longer, `overlap` or `spread` shorter, or open more windows";

/// The start is counted backward from the deadline: it has to lie after the issue, even with the whole spread.
fn impossible(policy: &RotationPolicy, provider: &Provider) -> Option<String> {
    let reserve = due::reserve(policy, provider);
    let needed = policy.terms.overlap.as_duration() + policy.spread + reserve;
    (needed >= policy.max_age.as_duration()).then(|| {
        format!(
            "a rotation would have to start before its version exists: overlap {}, spread {} and reserve {} (of which {} waiting for a window) leave nothing of {}",
            policy.terms.overlap,
            written(policy.spread),
            written(reserve),
            written(policy.window_wait),
            policy.max_age
        )
    })
}

fn written(duration: Duration) -> String {
    Span::from_secs(duration.as_secs()).to_string()
}

fn untimed(policy: &RotationPolicy) -> Provider {
    Provider {
        name: policy.name.clone(),
        title: String::new(),
        retired: false,
        environments: Default::default(),
        variables: Default::default(),
        fields: Default::default(),
        calls: Calls::default(),
        signs: None,
        lifecycle: Lifecycle::Pairs,
        manual: Default::default(),
        slots: None,
        timing: Timing::default(),
        limits: Limits::default(),
        facts: Vec::new(),
        go_live: Vec::new(),
    }
}
