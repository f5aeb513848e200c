//! `rollout` and `rehearse`: in which steps instances get a new version, and whether it is tried in the sandbox before.

use std::time::Duration;

use crate::domain::credential::{Credential, Environment};
use crate::domain::due;
use crate::domain::ids::Name;
use crate::domain::policy::RotationPolicy;
use crate::domain::provider::Provider;
use crate::domain::rollout::{STEP_INSTANCES_MAX, STEPS_MAX, Share};

use super::credential::WrittenCredential;
use super::problem::Sink;
use super::reader::{At, list};
use super::tree::{Kind, Node};

pub(super) const REHEARSE: [(&str, bool); 2] = [("none", false), ("sandbox", true)];

const EXAMPLE: &str = "for example `[1, 10%, 100%]`: first numbers of instances, then percentages, each more than the one before";

/// The steps; none if all instances get a new version at once.
pub(super) fn read(node: &Node, sink: &Sink<'_>) -> Option<Vec<Share>> {
    let items = list(node, sink)?;
    if items.len() > STEPS_MAX {
        sink.report(node.place, "too-many", format!("there are more than {STEPS_MAX} steps"), "say it with fewer");
        return None;
    }
    // Each is looked at, so that all problems come out together.
    let shares: Vec<Option<Share>> = items.iter().map(|item| share(item, sink)).collect();
    let shares: Vec<Share> = shares.into_iter().collect::<Option<_>>()?;
    for (index, pair) in shares.windows(2).enumerate() {
        let grows = match (pair[0], pair[1]) {
            (Share::Instances(before), Share::Instances(next)) => before < next,
            (Share::Percent(before), Share::Percent(next)) => before < next,
            (before, next) => matches!((before, next), (Share::Instances(_), Share::Percent(_))),
        };
        if !grows {
            let place = items.get(index + 1).map_or(node.place, |item| item.place);
            sink.report(place, "bad-rollout", "this step isn't larger than the one before", EXAMPLE);
            return None;
        }
    }
    if shares.last() != Some(&Share::Percent(100)) {
        let place = items.last().map_or(node.place, |item| item.place);
        sink.report(place, "bad-rollout", "the last step isn't `100%`", EXAMPLE);
        return None;
    }
    Some(if shares.len() == 1 { Vec::new() } else { shares })
}

fn share(node: &Node, sink: &Sink<'_>) -> Option<Share> {
    let share = match &node.kind {
        Kind::Number(text) => text.parse().ok().filter(|count| (1..=STEP_INSTANCES_MAX).contains(count)).map(Share::Instances),
        Kind::Text(text) => percent(text).map(Share::Percent),
        _ => None,
    };
    if share.is_none() {
        let message = format!("a step is a number of instances from 1 to {STEP_INSTANCES_MAX}, or a percentage from `1%` to `100%`");
        sink.report(node.place, "bad-rollout", message, EXAMPLE);
    }
    share
}

fn percent(text: &str) -> Option<u8> {
    let digits = text.strip_suffix('%')?;
    let plain = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|percent| plain && (1..=100).contains(percent))
}

/// What a rollout asks of the provider, where a credential joins the two.
pub(super) fn check_at_provider(policy: &RotationPolicy, provider: &Provider, rotation: &At<Name>, sink: &Sink<'_>) {
    if !policy.rollout.is_empty() && provider.serves_previous() {
        let message = format!(
            "the policy `{}` has a `rollout`, and applications verify with values of the provider `{}`: all must know a new one before anybody signs with it",
            policy.name, provider.name
        );
        sink.report(rotation.place, "rollout-of-verifier", message, "name a policy whose `rollout` is `[100%]`");
    }
    let replaced = provider.is_manual() && provider.manual.replaces;
    if !policy.rollout.is_empty() && (replaced || !provider.succession().spares_the_old()) {
        let message = format!(
            "the policy `{}` has a `rollout`, and at provider `{}` the old secret ends when a new one is made: there is no way back to it",
            policy.name, provider.name
        );
        sink.report(rotation.place, "no-way-back", message, "name a policy whose `rollout` is `[100%]`");
    }
}

/// Whether a production credential has a twin to rehearse with.
pub(super) fn check_twin_is_there(policy: &RotationPolicy, written: &WrittenCredential, sink: &Sink<'_>) {
    let production = written.environment.as_ref().is_some_and(|at| at.value == Environment::Production);
    if policy.rehearse && production && written.twin.is_none() {
        let message = format!("the policy `{}` rehearses in the sandbox, and this credential has no twin there", policy.name);
        sink.report(
            written.spec,
            "missing-twin",
            message,
            "add `twin: NAME`, its sandbox Credential, or name a policy with `rehearse: none`",
        );
    }
}

/// The longest that the twin's rotation takes, from its request until its old key is dead.
pub(super) fn time_of(policy: &RotationPolicy, provider: &Provider) -> Duration {
    policy.terms.overlap.as_duration() + due::reserve(policy, provider)
}

/// Whether the rotation that is rehearsed first can still be kept by the deadline.
pub(super) fn check_time(credential: &Credential, policy: &RotationPolicy, provider: &Provider, at: &At<Name>, sink: &Sink<'_>) {
    let needed = policy.terms.overlap.as_duration() + policy.spread + due::reserve(policy, provider) + credential.rehearsal_time;
    if credential.rehearsal_time.is_zero() || needed < policy.max_age.as_duration() {
        return;
    }
    let message =
        format!("its rotation and the twin's before it take up to {} s, which leaves nothing of {}", needed.as_secs(), policy.max_age);
    sink.report(at.place, "impossible-schedule", message, "make `maxAge` longer, or the overlaps of both shorter");
}
