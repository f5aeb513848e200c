//! The rows of replicas as ConfigMaps: the contract, damage by foreign edits, and answers that are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keywright::domain::ids::Name;
use keywright::domain::replicas::{PAGES, Presence};
use keywright::replicas::contract::{a_head, contract, place};
use keywright::replicas::kubernetes::KubernetesRows;
use keywright::replicas::{Leaf, Part, Place, Rows, RowsError};
use keywright::sealing::Keyring;
use serde_json::json;

use crate::fake::{Call, Fault, Gate};
use crate::world::World;

fn rows(world: &World, lease: &Name, keyring: &Arc<Keyring>) -> KubernetesRows {
    let namespace: Name = world.namespace.parse().unwrap();
    KubernetesRows::new(world.cluster.clone(), Some(&namespace), lease.clone(), keyring.clone())
}

fn lease() -> Name {
    format!("kw-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]).parse().unwrap()
}

fn two(world: &World) -> (KubernetesRows, KubernetesRows) {
    let (lease, keyring) = (lease(), Arc::new(Keyring::ephemeral().unwrap()));
    (rows(world, &lease, &keyring), rows(world, &lease, &keyring))
}

#[tokio::test]
async fn rows_in_kubernetes_keep_the_contract() {
    for world in World::all().await {
        contract(|| two(&world)).await;
    }
}

#[tokio::test]
async fn installations_of_one_namespace_dont_see_each_others_rows() {
    let world = World::on_fake().await;
    let ((ours, _), (theirs, _)) = (two(&world), two(&world));
    ours.write(&place("a"), &a_head(1), None).await.unwrap();
    assert!(theirs.all().await.unwrap().is_empty());
    theirs.write(&place("a"), &a_head(2), None).await.unwrap();
    assert_eq!(ours.all().await.unwrap()[0].leaf, a_head(1));
}

#[tokio::test]
async fn a_row_that_somebody_else_wrote_is_damaged_and_not_left_out() {
    let world = World::on_fake().await;
    let (lease, keyring) = (lease(), Arc::new(Keyring::ephemeral().unwrap()));
    let ours = rows(&world, &lease, &keyring);
    let name = format!("{lease}-replica-a-head");
    for edit in [
        json!({"data": {"row": "{\"head\":{\"beat\":9}}"}}),
        json!({"metadata": {"annotations": {"keywright.dev/row-code": "00"}}}),
        json!({"metadata": {"labels": {"keywright.dev/part": "03"}}}),
    ] {
        let mark = ours.write(&place("a"), &a_head(1), None).await.unwrap();
        assert!(world.fake().edit("configmaps", &world.namespace, &name, |object| merge(object, &edit)));
        assert!(matches!(ours.all().await, Err(RowsError::Damaged(_))), "{edit}");
        assert_eq!(ours.write(&place("a"), &a_head(2), Some(&mark)).await, Err(RowsError::Conflict));
        assert!(world.fake().delete("configmaps", &world.namespace, &name));
    }
    let mark = ours.write(&place("a"), &a_head(1), None).await.unwrap();
    let stranger = rows(&world, &lease, &Arc::new(Keyring::ephemeral().unwrap()));
    assert!(matches!(stranger.all().await, Err(RowsError::Damaged(_))), "another key's");
    ours.remove(&place("a"), &mark).await.unwrap();
}

#[tokio::test]
async fn only_what_was_written_since_is_read_whole() {
    let world = World::on_fake().await;
    let (ours, theirs) = two(&world);
    let page = |number| Place { part: Part::Page(number), ..place("a") };
    let mut marks = Vec::new();
    for number in 0..PAGES {
        marks.push(ours.write(&page(number), &Leaf::Page(Vec::new()), None).await.unwrap());
    }
    let reading = async |rows: &KubernetesRows| {
        let before = world.fake().calls().len();
        let kept = rows.all().await.unwrap();
        let calls: Vec<String> = world.fake().calls().split_off(before).into_iter().map(|(call, _)| call.verb).collect();
        (kept.len(), calls)
    };
    let all = usize::from(PAGES);
    assert_eq!(reading(&theirs).await, (all, vec!["list".to_owned(), "list".to_owned()]), "the metadata, and then all");
    assert_eq!(reading(&theirs).await, (all, vec!["list".to_owned()]), "nothing was written since");
    assert_eq!(reading(&ours).await, (all, vec!["list".to_owned()]), "who wrote it all knows it");
    let entry = ("app".parse().unwrap(), "pod-1".parse().unwrap(), Arc::new(Presence { streams: 1, ..Presence::default() }));
    marks[3] = ours.write(&page(3), &Leaf::Page(vec![entry]), Some(&marks[3])).await.unwrap();
    ours.write(&place("b"), &a_head(1), None).await.unwrap();
    assert_eq!(reading(&theirs).await, (all + 1, ["list", "get", "get"].map(str::to_owned).to_vec()));
    ours.remove(&page(3), &marks[3]).await.unwrap();
    assert_eq!(reading(&theirs).await, (all, vec!["list".to_owned()]));
}

#[tokio::test]
async fn all_rows_are_as_they_were_at_one_moment() {
    let world = World::on_fake().await;
    let (ours, theirs) = two(&world);
    let (a, b) = (place("a"), place("b"));
    let mark_a = ours.write(&a, &a_head(1), None).await.unwrap();
    let mark_b = ours.write(&b, &a_head(1), None).await.unwrap();
    theirs.all().await.unwrap();
    ours.write(&a, &a_head(2), Some(&mark_a)).await.unwrap();
    // While what is news of `a` is under way, `b` is written, and then `a`.
    let (gate, asked) = (Gate::new(), Arc::new(tokio::sync::Notify::new()));
    let (closed, met) = (gate.clone(), asked.clone());
    world.fake().plan(move |call: &Call| {
        (call.verb == "get").then(|| {
            met.notify_one();
            Fault::Stalls(closed.clone())
        })
    });
    let changes = async {
        asked.notified().await;
        ours.write(&b, &a_head(2), Some(&mark_b)).await.unwrap();
        let mark = ours.of(&a.replica).await.unwrap().remove(0).mark;
        ours.write(&a, &a_head(3), Some(&mark)).await.unwrap();
        gate.open();
    };
    let (read, ()) = futures_util::future::join(theirs.all(), changes).await;
    let mut read: Vec<_> = read.unwrap().into_iter().map(|kept| (kept.place.replica, kept.leaf)).collect();
    read.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(read, [(a.replica, a_head(3)), (b.replica, a_head(2))], "not the one before its change and the other after it");
}

/// A cluster that came back from a backup gives versions out a second time.
#[tokio::test]
async fn another_row_under_a_version_that_was_known_is_read() {
    let world = World::on_fake().await;
    let (ours, theirs) = two(&world);
    let mark = ours.write(&place("a"), &a_head(1), None).await.unwrap();
    assert_eq!(theirs.all().await.unwrap()[0].leaf, a_head(1));
    let name = world.fake().calls().into_iter().rev().find(|(call, _)| call.verb == "get").unwrap().0.name;
    let then = world.fake().object("configmaps", &world.namespace, &name).unwrap();
    ours.write(&place("a"), &a_head(2), Some(&mark)).await.unwrap();
    let now = world.fake().object("configmaps", &world.namespace, &name).unwrap();
    assert_ne!(then["metadata"]["annotations"], now["metadata"]["annotations"], "the code tells them apart");
    let version = then["metadata"]["resourceVersion"].clone();
    assert!(world.fake().give_version("configmaps", &world.namespace, &name, version));
    assert_eq!(theirs.all().await.unwrap()[0].leaf, a_head(2));
}

fn merge(object: &mut serde_json::Value, edit: &serde_json::Value) {
    match edit.as_object() {
        Some(members) => members.iter().for_each(|(name, value)| merge(&mut object[name], value)),
        None => *object = edit.clone(),
    }
}

#[tokio::test]
async fn a_lost_answer_is_told_as_unknown_and_the_next_write_finds_out() {
    let world = World::on_fake().await;
    let (ours, theirs) = two(&world);
    let lost = AtomicUsize::new(0);
    world
        .fake()
        .plan(move |call: &Call| (call.writes() && lost.fetch_add(1, Ordering::Relaxed) == 0).then_some(Fault::LosesReplyAfterEffect));
    assert!(matches!(ours.write(&place("a"), &a_head(1), None).await, Err(RowsError::Unavailable(_))));
    assert_eq!(ours.write(&place("a"), &a_head(1), None).await, Err(RowsError::Conflict));
    let kept = theirs.all().await.unwrap().remove(0);
    assert_eq!(kept.leaf, a_head(1));
    ours.write(&place("a"), &a_head(2), Some(&kept.mark)).await.unwrap();
    // Asked to come again, it does.
    let busy = AtomicUsize::new(0);
    world
        .fake()
        .plan(move |call: &Call| (call.writes() && busy.fetch_add(1, Ordering::Relaxed) < 2).then_some(Fault::Answers(429, Some(0))));
    let kept = theirs.all().await.unwrap().remove(0);
    ours.write(&place("a"), &a_head(3), Some(&kept.mark)).await.unwrap();
}
