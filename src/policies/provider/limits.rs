//! `limits` of a `Provider` document: the quota, our share of it, and where answers tell what is left.

use super::super::problem::Sink;
use super::super::reader::{Fields, text, whole_number};
use super::super::tree::Node;
use super::super::values::span;
use super::request::header_name;
use crate::domain::provider::{Limits, Quota};

pub(super) fn read_limits(node: &Node, sink: &Sink<'_>) -> Limits {
    let Some(fields) = Fields::of(node, sink) else { return Limits::default() };
    let header = |name| fields.get(name).and_then(|node| header_name(node, sink));
    let (limit_header, remaining_header, reset_header) = (header("limitHeader"), header("remainingHeader"), header("resetHeader"));
    let (quota, share) = read_quota_and_share(&fields, sink);
    fields.done();
    Limits { quota, share, limit_header, remaining_header, reset_header }
}

/// `quota` and `share`, of a provider's accounts or of a store.
pub(crate) fn read_quota_and_share(fields: &Fields<'_>, sink: &Sink<'_>) -> (Option<Quota>, u8) {
    let share = fields.get("share").and_then(|node| read_share(node, sink)).unwrap_or(Limits::SHARE_DEFAULT);
    let quota_at = fields.get("quota");
    let quota = quota_at.and_then(|node| read_quota(node, sink));
    let limits = Limits { quota, share, ..Limits::default() };
    if let (Some(node), Some(own)) = (quota_at, limits.own_calls())
        && own < Limits::OWN_CALLS_MIN
    {
        let help = "make `share` greater, or count the quota over a longer time: `{calls: 600, per: 1h}`";
        sink.report(node.place, "share-too-small", format!("our share of it is {own} calls, which lets no rotation through"), help);
    }
    (quota, share)
}

fn read_quota(node: &Node, sink: &Sink<'_>) -> Option<Quota> {
    let fields = Fields::of(node, sink)?;
    let calls = fields.need("calls", "how many calls are allowed within `per`").and_then(|node| whole_number(node, sink, 1..=1_000_000));
    let per = fields.need("per", "the time that the calls are counted over, for example `1m`").and_then(|node| span(node, sink));
    fields.done();
    Some(Quota { calls: calls?, per: per?.value.as_duration() })
}

/// `50%`: from 1 to 100.
fn read_share(node: &Node, sink: &Sink<'_>) -> Option<u8> {
    let digits = text(node, sink)?.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let share = digits.and_then(|digits| digits.parse().ok()).filter(|share| (1..=100).contains(share));
    if share.is_none() {
        sink.report(node.place, "bad-share", "a share is a whole percentage from `1%` to `100%`", "for example `50%`");
    }
    share
}
