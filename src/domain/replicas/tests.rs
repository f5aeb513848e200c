//! Rows, merged: what strikes what, who is gone, and the order of steps that the safety of a revocation rests on.

use proptest::prelude::*;

use super::*;

fn order(version: &VersionId) -> u64 {
    version.as_str()[1..].parse().unwrap()
}

fn held(versions: &[&str], confirmed: Option<&str>) -> Held {
    let ids: Vec<VersionId> = versions.iter().map(|text| text.parse().unwrap()).collect();
    Held {
        newest: ids.iter().max_by_key(|version| order(version)).unwrap().clone(),
        versions: ids.into_iter().map(|version| (version, 1)).collect(),
        confirmed: confirmed.map(|text| text.parse().unwrap()),
        pods: BTreeMap::new(),
    }
}

fn versions(parts: &[Held]) -> Vec<String> {
    together(parts, order).map(|held| held.versions.keys().map(ToString::to_string).collect()).unwrap_or_default()
}

fn instance() -> Instance {
    ("app".parse().unwrap(), "one".parse().unwrap())
}

fn key() -> Name {
    "key".parse().unwrap()
}

fn row(replica: &str, beat: u64, presence: Presence) -> Row {
    Row {
        replica: replica.parse().unwrap(),
        head: Head { beat, ..Head::default() },
        presences: BTreeMap::from([(instance(), Arc::new(presence))]),
    }
}

fn presence(streams: u32, held: Held) -> Presence {
    Presence { streams, calls: 0, holdings: BTreeMap::from([("key".parse().unwrap(), held)]) }
}

#[test]
fn a_confirmation_anywhere_strikes_what_is_older_everywhere_else() {
    assert_eq!(versions(&[held(&["v1"], None), held(&["v2"], None)]), ["v1", "v2"]);
    assert_eq!(versions(&[held(&["v1"], None), held(&["v2"], Some("v2"))]), ["v2"]);
    assert_eq!(versions(&[held(&["v1", "v2"], None), held(&["v2"], Some("v2")), held(&["v1"], None)]), ["v2"]);
    // What is newer than the confirmation isn't struck.
    assert_eq!(versions(&[held(&["v3"], None), held(&["v2"], Some("v2"))]), ["v2", "v3"]);
    // Its own row knows what it served since.
    assert_eq!(versions(&[held(&["v1", "v2"], Some("v2"))]), ["v1", "v2"]);
}

#[test]
fn together_they_know_the_newest_and_the_last_confirmation() {
    let parts = [held(&["v1", "v3"], Some("v1")), held(&["v2"], Some("v2"))];
    let merged = together(&parts, order).unwrap();
    assert_eq!((merged.newest.as_str(), merged.confirmed.unwrap().as_str()), ("v3", "v2"));
    assert_eq!(together(&[], order), None);
}

#[test]
fn a_removal_strikes_what_it_was_about_and_nothing_since() {
    let mut row = row("a", 1, presence(0, held(&["v1"], None)));
    let removal = |up_to| Removal { application: instance().0, instance: instance().1, up_to, expired: false, pod: None };
    row.head.removals = BTreeSet::from([removal(1)]);
    assert!(row.remaining().presences.is_empty());
    Arc::make_mut(row.presences.get_mut(&instance()).unwrap()).holdings.get_mut(&key()).unwrap().versions.insert("v2".parse().unwrap(), 2);
    let left = row.remaining().presences.remove(&instance()).unwrap();
    assert_eq!(left.holdings[&key()].versions.keys().map(VersionId::as_str).collect::<Vec<_>>(), ["v2"]);
}

#[test]
fn a_silent_replica_is_gone_and_its_streams_are_over_then_and_not_before() {
    let at = Duration::from_secs;
    let mut attendance = Attendance::default();
    let (a, b): (Name, Name) = ("a".parse().unwrap(), "b".parse().unwrap());
    for second in 0..=100 {
        let rows = [row("a", 7, presence(1, held(&["v1"], None))), row("b", second, Presence::default())];
        attendance.note(&rows, at(second));
        assert_eq!(attendance.is_gone(&a, at(second)), second >= 30, "{second}");
        assert!(!attendance.is_gone(&b, at(second)));
        assert_eq!(attendance.lease_from(&instance()), Some(at(second.min(29))), "{second}");
    }
}

#[test]
fn leases_begin_anew_after_a_gap_and_with_each_sign_of_life() {
    let at = Duration::from_secs;
    let mut attendance = Attendance::default();
    let quiet = |calls| [row("a", calls, Presence { calls, ..presence(0, held(&["v1"], None)) })];
    attendance.note(&quiet(0), at(0));
    attendance.note(&quiet(0), at(5));
    assert_eq!(attendance.lease_from(&instance()), Some(at(0)));
    attendance.note(&quiet(1), at(6));
    assert_eq!(attendance.lease_from(&instance()), Some(at(6)));
    attendance.note(&quiet(1), at(60));
    assert_eq!(attendance.lease_from(&instance()), Some(at(60)), "we were away");
    assert!(!attendance.is_gone(&"a".parse().unwrap(), at(89)));
}

#[test]
fn a_gone_row_is_emptied_by_those_who_answer_for_it() {
    let key_order = |_: &Name, version: &VersionId| order(version);
    let gone = row("gone", 1, presence(1, held(&["v1"], None)));
    let strikes = |living: &Row| !superfluous(&gone, &[living], key_order).is_empty();
    assert!(superfluous(&gone, &[], key_order).is_empty());
    assert!(strikes(&row("b", 1, presence(1, held(&["v1", "v2"], None)))), "the living row says the same");
    assert!(!strikes(&row("b", 1, presence(1, held(&["v2"], None)))), "served something newer, which frees nothing");
    assert!(strikes(&row("b", 1, presence(1, held(&["v2"], Some("v2"))))));
    assert!(!strikes(&row("b", 1, presence(1, held(&["v0"], Some("v0"))))), "what it confirmed is older");
}

/// What one replica has yet to do to hand the old version out for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hand {
    Writes,
    Looks,
    Gives,
    Done,
}

/// All orders in which a replica's three steps and the leader's three (promote, read the rows, intend) can come.
fn a_disclosure_against_a_revocation(order: &[bool], looks_before_it_writes: bool) -> bool {
    let (mut replica, mut leader) = (Hand::Writes, 0);
    let (mut row_says, mut promoted, mut saw_holder, mut intended, mut given, mut still_served) =
        (false, false, false, false, false, false);
    for of_replica in order {
        if *of_replica {
            replica = match (replica, looks_before_it_writes) {
                (Hand::Writes, false) | (Hand::Looks, true) => {
                    row_says = true;
                    if looks_before_it_writes { Hand::Gives } else { Hand::Looks }
                }
                (Hand::Looks, false) | (Hand::Writes, true) => {
                    still_served = !promoted;
                    if looks_before_it_writes { Hand::Looks } else { Hand::Gives }
                }
                (Hand::Gives, _) => {
                    given = still_served;
                    Hand::Done
                }
                (Hand::Done, _) => Hand::Done,
            };
        } else {
            match leader {
                0 => promoted = true,
                1 => saw_holder = row_says,
                2 => intended = !saw_holder,
                _ => {}
            }
            leader += 1;
        }
    }
    // The row is emptied by nobody in here: whoever was given the old version is dead if its end was intended.
    given && intended
}

fn orders(replica: usize, leader: usize) -> Vec<Vec<bool>> {
    if replica + leader == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (first, rest) in
        [(true, replica.checked_sub(1).map(|left| (left, leader))), (false, leader.checked_sub(1).map(|left| (replica, left)))]
    {
        if let Some((replica, leader)) = rest {
            all.extend(orders(replica, leader).into_iter().map(|rest| std::iter::once(first).chain(rest).collect::<Vec<bool>>()));
        }
    }
    all
}

#[test]
fn no_order_of_steps_revokes_what_was_just_handed_out() {
    let all = orders(3, 3);
    assert_eq!(all.len(), 20);
    assert!(all.iter().all(|order| !a_disclosure_against_a_revocation(order, false)));
    // And the order of (a) and (b) is what does it.
    assert!(all.iter().any(|order| a_disclosure_against_a_revocation(order, true)));
}

proptest! {
    #[test]
    fn merging_knows_no_order_of_rows_and_invents_nothing(
        parts in proptest::collection::vec((proptest::collection::btree_set(1_u8..6, 1..4), proptest::option::of(1_u8..6)), 1..4),
        turn in 0_usize..4,
    ) {
        let text = |number: &u8| format!("v{number}");
        let parts: Vec<Held> = parts.iter().map(|(numbers, confirmed)| {
            let texts: Vec<String> = numbers.iter().map(text).collect();
            held(&texts.iter().map(String::as_str).collect::<Vec<_>>(), confirmed.as_ref().map(text).as_deref())
        }).collect();
        let mut turned = parts.clone();
        let places = turned.len();
        turned.rotate_left(turn % places);
        prop_assert_eq!(together(&parts, order), together(&turned, order));
        if let Some(merged) = together(&parts, order) {
            prop_assert!(merged.versions.keys().all(|version| parts.iter().any(|part| part.versions.contains_key(version))));
            prop_assert!(merged.versions.contains_key(&merged.newest));
            // Nothing that is newer than every confirmation is ever struck.
            let last = merged.confirmed.as_ref().map_or(0, order);
            let all = parts.iter().flat_map(|part| part.versions.keys());
            prop_assert!(all.filter(|version| order(version) >= last).all(|version| merged.versions.contains_key(version)));
        }
    }
}

/// What an instance holds by pods: each version, and the pod it went to, or nobody known.
fn by_pods(versions: &[(&str, Option<&str>)]) -> Held {
    let mut all = held(&versions.iter().map(|(version, _)| *version).collect::<Vec<_>>(), None);
    for (version, pod) in versions {
        let Some(pod) = pod else { continue };
        let empty = || PodHold { namespace: "payments".parse().unwrap(), held: BTreeSet::new() };
        all.pods.entry(pod.parse().unwrap()).or_insert_with(empty).held.insert(version.parse().unwrap());
    }
    all
}

#[test]
fn the_end_of_a_pod_frees_what_it_alone_held_and_not_what_its_successor_of_the_same_name_holds() {
    let key: Name = "key".parse().unwrap();
    let presence = Presence { holdings: [(key.clone(), by_pods(&[("v1", Some("a")), ("v2", Some("b"))]))].into(), ..Presence::default() };
    let end = |pod: &str| Removal {
        application: instance().0,
        instance: instance().1,
        up_to: 1,
        expired: false,
        pod: Some(pod.parse().unwrap()),
    };
    let row = |removals: &[&str]| Row {
        replica: "one".parse().unwrap(),
        head: Head { removals: removals.iter().map(|pod| end(pod)).collect(), ..Head::default() },
        presences: [(instance(), Arc::new(presence.clone()))].into(),
    };
    let left = row(&["a"]).remaining();
    assert_eq!(versions(&[left.presences[&instance()].holdings[&key].clone()]), ["v2"]);
    assert!(row(&["a", "b"]).remaining().presences.is_empty(), "nobody holds anything");
    assert_eq!(versions(&[row(&["c"]).remaining().presences[&instance()].holdings[&key].clone()]), ["v1", "v2"]);
}

#[test]
fn what_one_row_knows_no_pod_of_is_freed_by_none() {
    let bound = |parts: &[Held]| {
        let all = together(parts, order).unwrap();
        all.pods.iter().map(|(uid, hold)| (uid.to_string(), hold.held.len())).collect::<Vec<_>>()
    };
    let (a, b) = (by_pods(&[("v1", Some("a"))]), by_pods(&[("v1", Some("b"))]));
    assert_eq!(bound(&[a.clone(), b]), [("a".to_owned(), 1), ("b".to_owned(), 1)], "two pods of one name");
    assert_eq!(bound(&[a, by_pods(&[("v1", None)])]), [], "the other row's caller may be anybody");
}
