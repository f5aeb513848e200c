//! What is sent, and how answers are read.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::contents::Contents;
use super::super::contract::document;
use super::super::owner::Owner;
use super::*;
use crate::domain::ids::InstallationId;
use crate::sealing::Keyring;

fn at() -> SecretAt {
    SecretAt { namespace: "shop".parse().unwrap(), name: "payments".parse().unwrap() }
}

#[test]
fn what_is_applied_names_what_it_is_written_over() {
    let keyring = Keyring::ephemeral().unwrap();
    let contents = Contents::of(&[&document("dinie", 4, &[("key", "v")])], &at(), &keyring).unwrap();
    let owner = Owner { installation: InstallationId(Uuid::from_u128(7)), application: "payments".parse().unwrap() };
    let body = |over: Option<&SecretSeen>| -> Value {
        let intent = Intent { owner: &owner, contents: &contents, over };
        serde_json::from_slice(&contents.close(&front(&at(), &intent))).unwrap()
    };
    let created = body(None);
    assert_eq!((&created["type"], &created["data"]), (&json!("Opaque"), &json!({"dinie.key": "dg=="})));
    let expected = json!({
        "name": "payments", "namespace": "shop", "labels": {"app.kubernetes.io/managed-by": "keywright"},
        "annotations": {"keywright.dev/application": "payments", "keywright.dev/installation": Uuid::from_u128(7),
            "keywright.dev/fingerprint": contents.fingerprint(), "keywright.dev/revisions": "dinie=4"},
    });
    assert_eq!(created["metadata"], expected);
    let seen = SecretSeen { uid: "u".to_owned(), resource_version: "12".to_owned(), ..SecretSeen::default() };
    let over = body(Some(&seen));
    assert_eq!((&over["metadata"]["uid"], &over["metadata"]["resourceVersion"]), (&json!("u"), &json!("12")));
}

#[test]
fn metadata_tells_whose_entries_are_whose_and_values_are_not_read() {
    let answer = json!({
        "kind": "Secret", "data": {"dinie.key": "Y2FuYXJ5"},
        "metadata": {"uid": "u", "resourceVersion": "7", "labels": {"a": "b"}, "deletionTimestamp": "2026-11-23T12:00:00Z", "managedFields": [
            {"manager": "keywright", "operation": "Apply", "fieldsV1": {"f:data": {"f:dinie.key": {}, "f:dinie.id": {}}, "f:metadata": {}}},
            {"manager": "keywright", "operation": "Update", "fieldsV1": {"f:data": {"f:other": {}}}},
        ]},
    });
    let seen = read::<Partial>(&answer.to_string()).unwrap().seen().unwrap();
    assert_eq!(seen.ours.iter().map(String::as_str).collect::<Vec<_>>(), ["dinie.id", "dinie.key"]);
    assert!(seen.has_others && seen.is_ending && seen.labels == BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    assert!(!format!("{seen:?}").contains("Y2FuYXJ5"));
    for bad in ["", "{}", "[]", "{\"metadata\":{}}", "{\"metadata\":{\"uid\":\"\",\"resourceVersion\":\"1\"}}"] {
        let read = read::<Partial>(bad).and_then(Partial::seen);
        assert_eq!(read, Err(ClusterError::Unreadable), "{bad}");
    }
}

#[test]
fn what_goes_into_an_address_is_encoded() {
    assert_eq!(encoded("app in (a,b),!c=é"), "app%20in%20%28a%2Cb%29%2C%21c%3D%C3%A9");
}
