//! What all rows must do. An implementation's test is one call of [`contract`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Kept, Leaf, Mark, Part, Place, Rows, RowsError, rows_of};
use crate::domain::holders::PodHold;
use crate::domain::ids::Name;
use crate::domain::replicas::{Head, Held, Presence, Removal, Report};

/// Runs the whole suite on two handles of the same rows, as two processes have them; each part on rows of its own.
///
/// # Panics
/// Where the rows don't keep the contract.
pub async fn contract<R: Rows>(mut make: impl FnMut() -> (R, R)) {
    let (ours, theirs) = make();
    what_was_written_is_read_by_all(&ours, &theirs).await;
    let (ours, theirs) = make();
    a_write_is_compare_and_set(&ours, &theirs).await;
    let (ours, theirs) = make();
    a_removal_is_compare_and_set(&ours, &theirs).await;
    let (ours, theirs) = make();
    one_of_many_writers_wins(&ours, &theirs).await;
}

/// The head of a replica's row.
pub fn place(replica: &str) -> Place {
    Place { replica: replica.parse().unwrap(), part: Part::Head }
}

fn page(replica: &str, number: u8) -> Place {
    Place { part: Part::Page(number), ..place(replica) }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A head with everything in it.
pub fn a_head(beat: u64) -> Leaf {
    let removal = Removal {
        application: name("app"),
        instance: "pod-1.ns_A".parse().unwrap(),
        up_to: u64::MAX,
        expired: true,
        pod: Some("0b1c".parse().unwrap()),
    };
    let report = Report {
        application: name("app"),
        instance: removal.instance.clone(),
        credential: name("key"),
        version: "v2-def".parse().unwrap(),
    };
    let asks = BTreeSet::from([(name("app"), name("key"))]);
    Leaf::Head(Head { beat, removals: BTreeSet::from([removal]), asks, reports: BTreeSet::from([report]) })
}

fn a_page(instances: u64) -> Leaf {
    let entry = |number: u64| {
        let versions = BTreeMap::from([("v1-abc".parse().unwrap(), number), ("v2-def".parse().unwrap(), number + 1)]);
        let hold = PodHold { namespace: name("payments"), held: versions.keys().cloned().collect() };
        let pods = [("0b1c".parse().unwrap(), hold)].into();
        let held = Held {
            versions,
            newest: "v2-def".parse().unwrap(),
            confirmed: number.is_multiple_of(2).then(|| "v1-abc".parse().unwrap()),
            pods,
        };
        let presence = Presence { streams: 1, calls: number, holdings: BTreeMap::from([(name("key"), held)]) };
        (name("app"), format!("pod-{number}").parse().unwrap(), Arc::new(presence))
    };
    Leaf::Page((0..instances).map(entry).collect())
}

fn find<'k>(kept: &'k [Kept], place: &Place) -> Option<&'k Kept> {
    kept.iter().find(|kept| kept.place == *place)
}

async fn what_was_written_is_read_by_all(ours: &impl Rows, theirs: &impl Rows) {
    assert!(ours.all().await.unwrap().is_empty());
    let leaves = [
        (place("a"), a_head(1)),
        (page("a", 0), a_page(3)),
        (page("a", 15), a_page(0)),
        (place("b"), a_head(9)),
        (page("b", 0), a_page(700)),
    ];
    let mut marks = Vec::new();
    for (place, leaf) in &leaves {
        marks.push(ours.write(place, leaf, None).await.unwrap());
    }
    for rows in [theirs.all().await.unwrap(), ours.all().await.unwrap()] {
        assert_eq!(rows.len(), leaves.len());
        for ((place, leaf), mark) in leaves.iter().zip(&marks) {
            let kept = find(&rows, place).unwrap();
            assert_eq!((&kept.leaf, &kept.mark), (leaf, mark));
        }
        let together = rows_of(&rows);
        assert_eq!(
            together.iter().map(|row| (row.replica.as_str(), row.head.beat, row.presences.len())).collect::<Vec<_>>(),
            [("a", 1, 3), ("b", 9, 700)]
        );
    }
    let of_b = theirs.of(&name("b")).await.unwrap();
    assert_eq!(of_b.len(), 2);
    assert!(of_b.iter().all(|kept| kept.place.replica == name("b")));
    assert!(theirs.of(&name("nobody")).await.unwrap().is_empty());
}

async fn a_write_is_compare_and_set(ours: &impl Rows, theirs: &impl Rows) {
    let head = place("a");
    let conflict = Err(RowsError::Conflict);
    assert_eq!(ours.write(&head, &a_head(1), Some(&Mark("7".to_owned()))).await, conflict, "nothing is there");
    let first = ours.write(&head, &a_head(1), None).await.unwrap();
    assert_eq!(theirs.write(&head, &a_head(2), None).await, conflict, "something is there");
    let second = theirs.write(&head, &a_head(2), Some(&first)).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(ours.write(&head, &a_head(3), Some(&first)).await, conflict);
    let kept = ours.all().await.unwrap();
    assert_eq!((&kept[0].leaf, &kept[0].mark), (&a_head(2), &second));
}

async fn a_removal_is_compare_and_set(ours: &impl Rows, theirs: &impl Rows) {
    let place = page("a", 3);
    let first = ours.write(&place, &a_page(1), None).await.unwrap();
    let second = ours.write(&place, &a_page(2), Some(&first)).await.unwrap();
    assert_eq!(theirs.remove(&place, &first).await, Err(RowsError::Conflict));
    assert_eq!(ours.all().await.unwrap().len(), 1);
    theirs.remove(&place, &second).await.unwrap();
    assert_eq!(theirs.remove(&place, &second).await, Err(RowsError::Conflict));
    assert!(ours.all().await.unwrap().is_empty());
    assert_eq!(ours.write(&place, &a_page(1), Some(&second)).await, Err(RowsError::Conflict), "it is gone");
    ours.write(&place, &a_page(1), None).await.unwrap();
}

async fn one_of_many_writers_wins(ours: &impl Rows, theirs: &impl Rows) {
    let head = place("a");
    let mut mark = ours.write(&head, &a_head(0), None).await.unwrap();
    for round in 1..=5 {
        let (one, two) = (a_head(2 * round), a_head(2 * round + 1));
        let (one, two) = futures_util::future::join(ours.write(&head, &one, Some(&mark)), theirs.write(&head, &two, Some(&mark))).await;
        assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1, "{one:?} {two:?}");
        mark = one.or(two).unwrap();
    }
}
