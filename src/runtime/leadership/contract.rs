//! What every lease must do. An implementation's test is one call of [`contract`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failed unwrap here is a failed test of the lease"
)]

use std::time::Duration;

use super::{Claim, Identity, LeaseError, LeaseStore, Seen};

/// What somebody else does to the lease behind our back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByHand {
    Delete,
    /// Something that isn't about leadership: a label, an annotation.
    Touch,
}

/// Runs the whole suite; each part on a lease of its own, which isn't there yet.
///
/// # Panics
/// Where the lease doesn't keep the contract.
pub async fn contract<S: LeaseStore>(mut make: impl FnMut() -> S, by_hand: impl AsyncFn(&S, ByHand)) {
    it_is_made_once_and_read_as_written(&make()).await;
    a_write_is_compare_and_set(&make()).await;
    each_write_is_seen_as_a_change(&make()).await;
    it_is_given_back(&make()).await;
    one_of_many_writers_wins(&make()).await;
    what_is_deleted_is_made_anew_and_not_written(&make(), &by_hand).await;
    what_others_write_beside_it_is_a_conflict_and_no_change_of_the_record(&make(), &by_hand).await;
}

fn claim(who: &str, transitions: u64) -> Claim {
    Claim { holder: Some(Identity::new(who)), transitions, duration: Duration::from_secs(10), is_new: true }
}

async fn read(store: &impl LeaseStore) -> Seen {
    store.read().await.unwrap().expect("a lease")
}

async fn it_is_made_once_and_read_as_written(store: &impl LeaseStore) {
    assert_eq!(store.read().await, Ok(None));
    let made = store.write(None, &claim("a_1", 1)).await.unwrap();
    let record = read(store).await.record;
    assert_eq!(record, made.record);
    assert_eq!((record.holder, record.transitions, record.duration), (Some(Identity::new("a_1")), 1, Some(Duration::from_secs(10))));
    assert_eq!(store.write(None, &claim("b_1", 2)).await, Err(LeaseError::Changed));
    assert_eq!(read(store).await.record, made.record);
}

async fn a_write_is_compare_and_set(store: &impl LeaseStore) {
    let first = store.write(None, &claim("a_1", 1)).await.unwrap();
    let second = store.write(Some(&first.stamp), &claim("b_1", 2)).await.unwrap();
    assert_eq!(store.write(Some(&first.stamp), &claim("a_1", 3)).await, Err(LeaseError::Changed));
    assert_eq!(read(store).await.record, second.record);
    let seen = read(store).await;
    store.write(Some(&seen.stamp), &claim("a_1", 3)).await.expect("what was read is as good as what was written");
}

async fn each_write_is_seen_as_a_change(store: &impl LeaseStore) {
    let mut last = store.write(None, &claim("a_1", 1)).await.unwrap();
    for _ in 0..3 {
        let next = store.write(Some(&last.stamp), &Claim { is_new: false, ..claim("a_1", 1) }).await.unwrap();
        assert_ne!(next.record, last.record, "or others would think that the holder is dead");
        assert_eq!(read(store).await.record, next.record);
        last = next;
    }
}

async fn it_is_given_back(store: &impl LeaseStore) {
    let first = store.write(None, &claim("a_1", 4)).await.unwrap();
    store.write(Some(&first.stamp), &Claim { holder: None, is_new: false, ..claim("a_1", 4) }).await.unwrap();
    let seen = read(store).await;
    assert_eq!((seen.record.holder, seen.record.transitions), (None, 4));
    store.write(Some(&seen.stamp), &claim("b_1", 5)).await.unwrap();
}

async fn one_of_many_writers_wins(store: &impl LeaseStore) {
    let first = store.write(None, &claim("a_1", 1)).await.unwrap();
    let write = async |who: &str| store.write(Some(&first.stamp), &claim(who, 2)).await;
    let outcomes = tokio::join!(write("b_1"), write("c_1"), write("d_1"), write("e_1"));
    let outcomes = [outcomes.0, outcomes.1, outcomes.2, outcomes.3];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    let winner = outcomes.into_iter().find_map(Result::ok).unwrap();
    assert_eq!(read(store).await.record, winner.record);
}

async fn what_is_deleted_is_made_anew_and_not_written<S: LeaseStore>(store: &S, by_hand: &impl AsyncFn(&S, ByHand)) {
    let first = store.write(None, &claim("a_1", 1)).await.unwrap();
    by_hand(store, ByHand::Delete).await;
    assert_eq!(store.read().await, Ok(None));
    assert_eq!(store.write(Some(&first.stamp), &claim("a_1", 1)).await, Err(LeaseError::Changed));
    assert_eq!(store.read().await, Ok(None), "a write of the one before doesn't bring it back");
    store.write(None, &claim("a_1", 1)).await.unwrap();
    assert_eq!(store.write(Some(&first.stamp), &claim("b_1", 2)).await, Err(LeaseError::Changed), "another life of the same name");
}

async fn what_others_write_beside_it_is_a_conflict_and_no_change_of_the_record<S: LeaseStore>(
    store: &S,
    by_hand: &impl AsyncFn(&S, ByHand),
) {
    let first = store.write(None, &claim("a_1", 1)).await.unwrap();
    by_hand(store, ByHand::Touch).await;
    assert_eq!(store.write(Some(&first.stamp), &claim("a_1", 1)).await, Err(LeaseError::Changed));
    let seen = read(store).await;
    assert_eq!(seen.record, first.record, "nobody renewed it");
    store.write(Some(&seen.stamp), &claim("a_1", 1)).await.unwrap();
}
