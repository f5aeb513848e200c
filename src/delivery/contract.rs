//! What every delivery must do, as a suite that its tests call.

use std::time::{Duration, Instant};

use super::{Change, Delivery};

/// How many changes [`check`] announces.
pub(super) const ANNOUNCED: usize = 20_001;

/// Announcing never waits and never fails, however many come and whoever listens, or doesn't.
///
/// # Panics
/// If the delivery waits: a slow application would hold up a rotation.
pub(super) fn check(delivery: &dyn Delivery) {
    let name: crate::domain::ids::Name = "contract".parse().unwrap();
    let started = Instant::now();
    for revision in 0..20_000 {
        delivery.announce(Change::Credential { name: name.clone(), revision });
    }
    delivery.announce(Change::Policies);
    assert!(started.elapsed() < Duration::from_secs(5), "announcing must not wait");
}
