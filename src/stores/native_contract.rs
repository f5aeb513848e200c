//! What native readers may see of a store while a credential rotates: the promoted version, or nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failed unwrap here is a failed test of the store"
)]

use super::{SecretStore, Slot, VersionBytes};
use crate::domain::credential::Environment;
use crate::domain::ids::VersionId;
use crate::domain::material::{Material, Secret};

/// Walks through the life of a credential, and lets `see` look at its address after each step. `see` reads as an unmodified client
/// of the store would, and answers with what it found: `None` for nothing.
///
/// # Panics
/// Where a native reader sees anything but what was promoted.
pub async fn native_contract<S: SecretStore>(store: &S, mut see: impl AsyncFnMut(&Slot) -> Option<Material>) {
    let slot = Slot { credential: "native".parse().unwrap(), environment: Environment::Production, path: "team/native".to_owned() };
    let neighbour = Slot { environment: Environment::Sandbox, ..slot.clone() };
    let mut expect = async |what: Option<&str>, when: &str| {
        let seen = see(&slot).await;
        let is_right = match (what, &seen) {
            (None, None) => true,
            (Some(value), Some(seen)) => seen.same_as(&bytes(value).served),
            _ => false,
        };
        assert!(is_right, "{when}: a native reader sees {} fields, {what:?} was promoted", seen.map_or(0, |seen| seen.len()));
        assert!(see(&neighbour).await.is_none(), "{when}: the other environment has nothing");
    };
    let (v1, v2, v3, v4) = (version("v1"), version("v2"), version("v3"), version("v4"));
    expect(None, "before anything").await;
    store.put_pending(&slot, &v1, &bytes("one")).await.unwrap();
    expect(None, "a first version is pending").await;
    store.promote(&slot, &v1, Some(&v2)).await.unwrap_err();
    expect(None, "a first promotion was refused").await;
    store.promote(&slot, &v1, None).await.unwrap();
    expect(Some("one"), "promoted").await;
    store.put_pending(&slot, &v2, &bytes("two")).await.unwrap();
    expect(Some("one"), "another one is pending").await;
    store.promote(&slot, &v2, None).await.unwrap_err();
    expect(Some("one"), "a promotion was refused").await;
    store.forget(&slot, &v2).await.unwrap();
    expect(Some("one"), "a candidate was given up").await;
    store.put_pending(&slot, &v3, &bytes("three")).await.unwrap();
    store.promote(&slot, &v3, Some(&v1)).await.unwrap();
    expect(Some("three"), "rotated").await;
    store.put_pending(&slot, &v1, &bytes("one")).await.unwrap();
    store.promote(&slot, &v1, Some(&v3)).await.unwrap_err();
    expect(Some("three"), "late calls came").await;
    store.forget(&slot, &v1).await.unwrap();
    expect(Some("three"), "the old one was forgotten").await;
    store.clear(&slot, &[v1, v2, v3].into()).await.unwrap();
    expect(None, "the credential was forgotten").await;
    store.put_pending(&slot, &v4, &bytes("four")).await.unwrap();
    expect(None, "a new first version is pending").await;
    store.promote(&slot, &v4, None).await.unwrap();
    expect(Some("four"), "promoted anew").await;
}

fn version(text: &str) -> VersionId {
    text.parse().unwrap()
}

/// The management part is never in what a native reader sees.
fn bytes(value: &str) -> VersionBytes {
    let one = |field: &str, value: &str| -> Material { [(field.parse().unwrap(), Secret::from(value.to_owned()))].into_iter().collect() };
    VersionBytes { served: one("client_secret", value), management: one("registration_token", "canary-management") }
}
