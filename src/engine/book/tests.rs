//! The book of one process: leases, couriers, pods, and who holds what.

use super::*;
use crate::engine::pods::BoundPod;

const LEASE: Option<Duration> = Some(Duration::from_secs(5));

fn names() -> (Name, InstanceName, Name, VersionId) {
    ("app".parse().unwrap(), "one".parse().unwrap(), "key".parse().unwrap(), "v1".parse().unwrap())
}

#[test]
fn a_lease_runs_from_the_end_of_the_stream() {
    let (app, one, key, v1) = names();
    let book = Book::default();
    let at = Duration::from_secs;
    book.stream_began(&app, &one);
    book.touch(&app, &one, LEASE, at(0));
    assert!(book.serve(&app, &one, &key, &v1, None).is_some());
    assert!(book.expired(at(100)).is_empty());
    book.stream_ended(&app, &one, at(100));
    assert!(book.expired(at(104)).is_empty());
    assert_eq!(book.expired(at(105)).len(), 1);
    book.touch(&app, &one, LEASE, at(105));
    assert!(!book.remove(&app, &one, Some(at(105))), "it came back");
    assert!(book.remove(&app, &one, None));
    assert!(book.holdings_of(&key, &|_| 0).is_empty());
}

#[test]
fn only_what_is_durable_is_not_asked_for_again() {
    let (app, one, key, v1) = names();
    let book = Book::default();
    assert!(book.serve(&app, &one, &key, &v1, None).is_some());
    assert!(book.serve(&app, &one, &key, &v1, None).is_some(), "the first write failed");
    book.recorded(&app, &one, &key, &v1);
    assert!(book.serve(&app, &one, &key, &v1, None).is_none());
    assert!(book.was_seen(&app, &key));
}

#[test]
fn who_holds_a_credential_is_known_by_its_name_until_it_is_gone() {
    let (app, one, key, v1) = names();
    let (two, other): (InstanceName, Name) = ("two".parse().unwrap(), "other".parse().unwrap());
    let book = Book::default();
    for (instance, credential) in [(&two, &key), (&one, &key), (&one, &other), (&one, &key)] {
        assert!(book.serve(&app, instance, credential, &v1, None).is_some());
    }
    let holders = |credential| book.holdings_of(credential, &|_| 0).into_iter().map(|holding| holding.instance).collect::<Vec<_>>();
    assert_eq!((holders(&key), holders(&other)), (vec![one.clone(), two.clone()], vec![one.clone()]), "each once, in order");
    book.stream_began(&app, &one);
    assert!(book.remove(&app, &one, None), "it is released, and streams on");
    assert_eq!((holders(&key), holders(&other)), (vec![two.clone()], vec![]));
    assert!(book.serve(&app, &one, &key, &v1, None).is_some());
    assert_eq!(holders(&key), [one.clone(), two.clone()]);
    book.stream_ended(&app, &one, Duration::ZERO);
    assert!(book.remove(&app, &one, None) && book.remove(&app, &two, None));
    assert_eq!(holders(&key), []);
    assert!(book.pages().holders.is_empty(), "nothing is left of who is gone");
}

#[test]
fn what_is_not_on_record_was_not_observed() {
    let (app, one, key, v1) = names();
    let v2: VersionId = "v2".parse().unwrap();
    let book = Book::default();
    assert!(book.serve(&app, &one, &key, &v1, None).is_some());
    book.recorded(&app, &one, &key, &v1);
    assert!(book.serve(&app, &one, &key, &v2, None).is_some(), "and the audit trail can't be written");
    assert_eq!(book.holdings_of(&key, &|_| 0)[0].newest, v1, "the read was refused: it has the old version only");
    book.recorded(&app, &one, &key, &v2);
    assert_eq!(book.holdings_of(&key, &|_| 0)[0].newest, v2);
}

#[test]
fn what_a_courier_read_was_observed_once_its_target_has_it() {
    let (app, one, key, v1) = names();
    let v2: VersionId = "v2".parse().unwrap();
    let mut holding = Holding::first(app.clone(), one.clone(), key.clone(), v1.clone());
    holding.serve(&v2);
    let load = || Book::load(Holdings { holdings: vec![holding.clone()], seen: Vec::new() }, Duration::ZERO);
    let newest = |book: &Book| book.holdings_of(&key, &|_| 0)[0].newest.clone();
    let book = load();
    assert_eq!(newest(&book), v2, "an application's own read");
    let couriers = BTreeSet::from([(app.clone(), one.clone())]);
    book.set_couriers(couriers.clone(), Duration::ZERO);
    assert_eq!(newest(&book), v1, "read, and perhaps nowhere yet");
    assert!(book.arrived(&app, &one, &key, &v2) && !book.arrived(&app, &one, &key, &v2), "it is news once");
    assert_eq!((newest(&book), book.holdings_of(&key, &|_| 0)[0].held.len()), (v2.clone(), 2), "observed, and not confirmed");
    let again = load();
    again.set_couriers(couriers, Duration::ZERO);
    assert_eq!(newest(&again), v1, "what a former process brought there isn't taken on trust");
    let mut confirmed = again.holding(&app, &one, &key).unwrap();
    confirmed.confirm(&v2).unwrap();
    assert_eq!(again.confirm(&confirmed, &v2), Ok(()));
    assert_eq!((newest(&again), again.holdings_of(&key, &|_| 0)[0].held.len()), (v2, 1), "a proof is a proof");
}

#[test]
fn a_courier_holds_for_as_long_as_its_way_is_asked_for() {
    let (app, one, key, v1) = names();
    let book = Book::default();
    let at = Duration::from_secs;
    book.set_couriers(BTreeSet::from([(app.clone(), one.clone())]), at(0));
    assert!(book.serve(&app, &one, &key, &v1, None).is_some());
    book.touch(&app, &one, LEASE, at(0));
    assert!(book.expired(at(1_000)).is_empty() && book.next_expiry().is_none() && !book.remove(&app, &one, Some(at(1_000))));
    assert_eq!(book.streaming(&app), [one]);
    book.set_couriers(BTreeSet::new(), at(1_000));
    assert!(book.expired(at(1_004)).is_empty(), "its lease begins when the way is no longer asked for");
    assert_eq!((book.expired(at(1_005)).len(), book.next_expiry()), (1, Some(at(1_005))));
}

#[test]
fn a_restart_starts_leases_anew_and_frees_nobody() {
    let (app, one, key, v1) = names();
    let holding = Holding::first(app.clone(), one, key.clone(), v1);
    let book = Book::load(Holdings { holdings: vec![holding], seen: Vec::new() }, Duration::from_secs(1_000));
    assert!(book.expired(Duration::from_secs(9_000_000)).is_empty(), "no document has told its lease yet");
    book.set_lease(&app, LEASE);
    assert!(book.expired(Duration::from_secs(1_004)).is_empty());
    assert_eq!(book.expired(Duration::from_secs(1_005)).len(), 1);
}

fn pod(uid: &str) -> PodKey {
    PodKey { namespace: "payments".parse().unwrap(), uid: uid.parse().unwrap() }
}

#[test]
fn a_pod_that_takes_a_name_over_is_recorded_as_itself() {
    let (app, one, key, v1) = names();
    let (a, b) = (pod("a"), pod("b"));
    let book = Book::default();
    assert!(book.serve(&app, &one, &key, &v1, Some(&a)).is_some());
    book.recorded(&app, &one, &key, &v1);
    assert!(book.serve(&app, &one, &key, &v1, Some(&a)).is_none());
    assert!(book.serve(&app, &one, &key, &v1, Some(&b)).is_some());
    assert!(book.serve(&app, &one, &key, &v1, Some(&b)).is_some(), "the first write failed");
    book.recorded(&app, &one, &key, &v1);
    assert!(book.serve(&app, &one, &key, &v1, Some(&b)).is_none());
    let bound: Vec<PodKey> = book.bound().into_iter().map(|bound| bound.pod).collect();
    assert_eq!(bound, [a, b]);
}

#[test]
fn a_pod_that_is_gone_leaves_what_others_hold() {
    let (app, one, key, v1) = names();
    let other: Name = "other".parse().unwrap();
    let book = Book::default();
    for (credential, to) in [(&key, "a"), (&key, "b"), (&other, "a")] {
        assert!(book.serve(&app, &one, credential, &v1, Some(&pod(to))).is_some());
        book.recorded(&app, &one, credential, &v1);
    }
    let gone = |uid| BoundPod { application: app.clone(), instance: one.clone(), pod: pod(uid) };
    let changes = book.forget_pod(&gone("a"));
    assert!(
        matches!(&changes[..], [HoldingChange::Put(left), HoldingChange::Remove { credential, .. }] if left.credential == key && *credential == other)
    );
    assert_eq!((book.holdings_of(&key, &|_| 0).len(), book.holdings_of(&other, &|_| 0).len()), (1, 0));
    assert_eq!(book.forget_pod(&gone("a")), [], "once");
    assert_eq!(book.forget_pod(&gone("b")).len(), 1);
    assert!(book.holdings_of(&key, &|_| 0).is_empty() && book.pages().instances.is_empty() && book.pages().holders.is_empty());
}

#[test]
fn two_unnamed_streams_are_ambiguous() {
    let (app, one, ..) = names();
    let book = Book::default();
    let unnamed = InstanceName::unnamed();
    for instance in [&one, &unnamed] {
        book.stream_began(&app, instance);
        assert!(!book.is_ambiguous(&app, instance));
        book.stream_began(&app, instance);
    }
    assert!(!book.is_ambiguous(&app, &one));
    assert!(book.is_ambiguous(&app, &unnamed));
}
