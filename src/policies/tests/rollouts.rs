//! What documents say of each other where a new version is rehearsed, and goes to its instances step by step.

use std::time::Duration;

use super::*;
use crate::domain::rollout::Share;

fn with_policy(spec: &str, more: &str) -> String {
    format!("{}spec: {spec}\n---\n{more}", head("RotationPolicy", "careful"))
}

fn credential(spec: &str) -> String {
    head("Credential", "c") + &format!("spec: {{{spec}, rotation: careful}}\n")
}

#[test]
fn steps_are_read_as_they_are_written_and_all_at_once_is_none() {
    for (written, expected) in [
        ("[1, 10%, 100%]", vec![Share::Instances(1), Share::Percent(10), Share::Percent(100)]),
        ("[3, 7, 100%]", vec![Share::Instances(3), Share::Instances(7), Share::Percent(100)]),
        ("[100%]", Vec::new()),
    ] {
        let text = with_policy(&format!("{{maxAge: 90d, rehearse: sandbox, rollout: {written}}}"), "");
        let policies = parse(&[base(), source("t.yaml", text.trim_end_matches("---\n"))], now()).unwrap();
        let careful = &policies.rotations[&"careful".parse().unwrap()];
        assert_eq!((careful.rollout.clone(), careful.rehearse), (expected, true), "{written}");
    }
}

#[test]
fn a_rehearsal_needs_a_twin_and_its_time() {
    let rehearses = "{maxAge: 90d, rehearse: sandbox}";
    let production = "provider: dinie, environment: production";
    assert_eq!(problems_of(&with_policy(rehearses, &credential(production))), ["9:7 missing-twin"]);
    let twinned = credential(&format!("{production}, twin: test"));
    assert_eq!(problems_of(&with_policy(rehearses, &twinned)), Vec::<String>::new());
    let sandbox = credential("provider: dinie, environment: sandbox");
    assert_eq!(problems_of(&with_policy(rehearses, &sandbox)), Vec::<String>::new(), "the sandbox rehearses for others");
    // The twin's overlap of a day, and its reserve of as much, come first.
    let policies = parse(&[base(), source("t.yaml", &with_policy(rehearses, &twinned))], now()).unwrap();
    let time = policies.credentials[&"c".parse().unwrap()].rehearsal_time;
    assert!(time >= Duration::from_secs(2 * 86_400) && time < Duration::from_secs(2 * 86_400 + 600), "{time:?}");
    assert_eq!(policies.credentials[&"live".parse().unwrap()].rehearsal_time, Duration::ZERO);
    let short = with_policy("{maxAge: 3d, overlap: 1h, spread: 1h, rehearse: sandbox}", &twinned);
    assert_eq!(problems_of(&short), Vec::<String>::new());
    let too_short = with_policy("{maxAge: 2d, overlap: 1h, spread: 1h, rehearse: sandbox}", &twinned);
    assert_eq!(problems_of(&too_short), ["9:56 impossible-schedule"]);
}

#[test]
fn steps_take_their_time_out_of_the_schedule() {
    assert_eq!(problems_of(&(head("RotationPolicy", "p") + "spec: {maxAge: 10d, overlap: 6d, spread: 0s}\n")), Vec::<String>::new());
    let stepwise = head("RotationPolicy", "p") + "spec: {maxAge: 10d, overlap: 6d, spread: 0s, rollout: [1, 50%, 100%]}\n";
    assert_eq!(problems_of(&stepwise), Vec::<String>::new());
    let longer = head("RotationPolicy", "p") + "spec: {maxAge: 10d, overlap: 7d, spread: 0s, rollout: [1, 50%, 100%]}\n";
    assert_eq!(problems_of(&longer), ["4:16 impossible-schedule"]);
}

#[test]
fn what_is_verified_with_goes_to_all_at_once_and_native_readers_are_not_there_yet() {
    let rolls = "{maxAge: 90d, rollout: [1, 100%]}";
    let webhook = credential("provider: webhook-secret, environment: sandbox");
    assert_eq!(problems_of(&with_policy(rolls, &webhook)), ["9:66 rollout-of-verifier"]);
    let dinie = credential("provider: dinie, environment: sandbox");
    assert_eq!(problems_of(&with_policy(rolls, &dinie)), Vec::<String>::new());
    // Nobody can tell a native reader which version is its own: such an application is refused, with a rollout or without.
    let native = head("Application", "n") + "spec: {environment: sandbox, credentials: [c], identity: {unix: {uid: 2}}, uptake: native}\n";
    assert_eq!(problems_of(&with_policy(rolls, &format!("{dinie}---\n{native}"))), ["14:84 unsupported"]);
}
