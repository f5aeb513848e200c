//! Whether a policy can be kept where the provider, and not the daemon, ends the old key: reported where a credential joins the two.

use crate::domain::ids::Name;
use crate::domain::policy::{Confirmation, RotationPolicy, Unconfirmed};
use crate::domain::provider::Provider;
use crate::domain::span::Span;
use crate::domain::succession::Succession;

use super::problem::Sink;
use super::reader::At;

/// Reports what can't be; false if something was.
pub(super) fn check(policy: &RotationPolicy, provider: &Provider, rotation: &At<Name>, sink: &Sink<'_>) -> bool {
    let refuse = |code: &'static str, message: String, help: &str| {
        sink.report(rotation.place, code, message, help);
        false
    };
    let (asked, name, title) = (policy.terms.overlap, &policy.name, &provider.name);
    match (provider.succession(), asked) {
        (Succession::ReplacesOld, Span::ZERO) => true,
        (Succession::ReplacesOld, asked) => {
            let message = format!(
                "at provider `{title}` the old secret dies when the new one is made: no overlap is possible, and policy `{name}` asks for {asked}"
            );
            let help = "write `overlap: 0s` in that policy: applications then hold a dead secret until they have taken up the new one";
            refuse("no-overlap-possible", message, help)
        }
        (_, Span::ZERO) => {
            let message = format!("policy `{name}` has no overlap, and at provider `{title}` old and new can work side by side");
            refuse("overlap-missing", message, "write `overlap: 24h`, or leave it out for the default")
        }
        (Succession::EndsOld, _) if holds(policy) => {
            let message = format!(
                "policy `{name}` holds an old secret that is still in use, and provider `{title}` ends it whoever holds it, {asked} after the new one was made"
            );
            let help = "write `unconfirmed: revoke` in that policy, with an `overlap` that is long enough for all applications";
            refuse("cannot-hold", message, help)
        }
        (Succession::EndsOld, _) => within_bounds(policy, provider, refuse),
        (Succession::Beside, _) => true,
    }
}

/// Whether an old key lives on for as long as somebody holds it.
fn holds(policy: &RotationPolicy) -> bool {
    policy.terms.unconfirmed == Unconfirmed::Hold && policy.terms.confirmation != Confirmation::None
}

fn within_bounds(policy: &RotationPolicy, provider: &Provider, refuse: impl Fn(&'static str, String, &str) -> bool) -> bool {
    let asked = policy.terms.overlap.as_duration();
    let given = provider.overlap_given(asked);
    let fits = if provider.asks_for_overlap() { given == asked } else { given >= asked };
    if fits {
        return true;
    }
    let (name, title, asked) = (&policy.name, &provider.name, policy.terms.overlap);
    let given = Span::from_secs(given.as_secs());
    let how = if provider.asks_for_overlap() { "gives" } else { "always gives" };
    let message = format!("policy `{name}` asks for an overlap of {asked}, and provider `{title}` {how} {given}");
    refuse("overlap-out-of-range", message, &format!("write `overlap: {given}` in that policy"))
}
