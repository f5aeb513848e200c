//! What pods hold: a pod that is gone frees what it alone held, and nothing else.

use super::*;

fn version(text: &str) -> VersionId {
    text.parse().unwrap()
}

fn pod(uid: &str) -> PodKey {
    PodKey { namespace: "payments".parse().unwrap(), uid: uid.parse().unwrap() }
}

/// One instance that was served these in turn: `v1@a` to pod `a`, `v1` to nobody known.
fn instance(served: &str) -> Holding {
    let mut all = served.split(' ').map(|text| match text.split_once('@') {
        Some((version_text, uid)) => (version(version_text), Some(pod(uid))),
        None => (version(text), None),
    });
    let (first, to) = all.next().unwrap();
    let mut holding = Holding::none_yet("app".parse().unwrap(), "api-0".parse().unwrap(), "key".parse().unwrap(), first.clone());
    holding.serve_to(&first, to.as_ref());
    all.for_each(|(version, to)| holding.serve_to(&version, to.as_ref()));
    holding
}

fn held(holding: &Holding) -> Vec<&str> {
    holding.held.iter().map(VersionId::as_str).collect()
}

#[test]
fn a_pod_that_is_gone_frees_what_it_alone_held() {
    let cases: [(&str, &str, &[&str]); 7] = [
        ("v1@a", "a", &[]),
        ("v1@a v2@a", "a", &[]),
        ("v1@a v2@b", "a", &["v2"]),
        ("v1@a v2@b", "b", &["v1"]),
        ("v1@a v1@b", "a", &["v1"]),
        // Unknown use is use, whenever it was noticed.
        ("v1 v1@a", "a", &["v1"]),
        ("v1@a v1", "a", &["v1"]),
    ];
    for (served, gone, left) in cases {
        let mut holding = instance(served);
        holding.forget_pod(&pod(gone).uid);
        assert_eq!(held(&holding), left, "{served} without {gone}");
    }
    let mut holding = instance("v1@a");
    assert!(!holding.forget_pod(&pod("b").uid), "it held nothing");
    assert_eq!(held(&holding), ["v1"]);
}

#[test]
fn what_the_gone_had_seen_is_not_what_the_others_have() {
    let mut holding = instance("v1@a v2@b");
    holding.confirmed = Some(version("v2"));
    assert!(holding.forget_pod(&pod("b").uid));
    assert_eq!((holding.newest.as_str(), &holding.confirmed), ("v1", &None));
    let blockers = barrier(&[version("v1")], &version("v2"), Confirmation::Observed, [&holding], &[]);
    assert_eq!(blockers.len(), 1, "the pod that is left never had v2");
}

#[test]
fn a_confirmation_strikes_older_versions_from_all_pods() {
    let mut holding = instance("v1@a v2@a v2@b");
    holding.confirm(&version("v2")).unwrap();
    assert_eq!(held(&holding), ["v2"]);
    holding.forget_pod(&pod("a").uid);
    assert_eq!(held(&holding), ["v2"], "b has it still");
    holding.forget_pod(&pod("b").uid);
    assert!(holding.held.is_empty() && holding.pods.is_empty());
}

#[test]
fn what_must_become_durable_is_what_a_pod_has_not_had_yet() {
    let holding = instance("v1@a v2");
    let knows = |text: &str, to: Option<&str>| holding.knows(&version(text), to.map(pod).as_ref());
    assert!(knows("v1", Some("a")) && knows("v2", Some("a")) && knows("v2", None), "nothing new");
    assert!(!knows("v1", Some("b")) && !knows("v1", None) && !knows("v3", Some("a")));
    let (before, mut after) = (instance("v1@a"), instance("v1@a"));
    after.serve_to(&version("v1"), Some(&pod("b")));
    assert!(after.was_served_since(&before) && !before.was_served_since(&after));
    assert!(instance("v1@a v1").was_served_since(&before), "somebody who is no pod");
    let mut confirmed = instance("v1@a v2@a");
    confirmed.confirm(&version("v2")).unwrap();
    assert!(!instance("v1@a v2@a").was_served_since(&confirmed), "what a confirmation frees is no addition");
}

#[test]
fn rows_from_before_pods_were_known_are_read_and_written_as_they_were() {
    let old = r#"{"application":"app","instance":"api-0","credential":"key","held":["v1"],"newest":"v1","confirmed":null}"#;
    let holding: Holding = serde_json::from_str(old).unwrap();
    assert!(holding.pods.is_empty());
    assert_eq!(serde_json::to_string(&holding).unwrap(), old);
    let bound = instance("v1@a v2@b");
    assert_eq!(serde_json::from_str::<Holding>(&serde_json::to_string(&bound).unwrap()).unwrap(), bound);
}
