//! What tells two states of a Secret apart, and what doesn't.

use std::sync::Arc;

use super::super::contract::document;
use super::*;
use crate::domain::document::Previous;

fn at(name: &str) -> SecretAt {
    SecretAt { namespace: "shop".parse().unwrap(), name: name.parse().unwrap() }
}

fn of(documents: &[Document], keyring: &Keyring) -> Contents {
    let documents: Vec<&Document> = documents.iter().collect();
    Contents::of(&documents, &at("payments"), keyring).unwrap()
}

#[test]
fn the_same_values_have_the_same_fingerprint_and_others_have_another() {
    let keyring = Keyring::ephemeral().unwrap();
    let key = |revision, value: &str| document("dinie", revision, &[("client_secret", value)]);
    let one = of(&[key(1, "one")], &keyring);
    assert_eq!(one.fingerprint(), of(&[key(2, "one")], &keyring).fingerprint(), "revisions aren't values");
    assert_ne!(one.fingerprint(), of(&[key(1, "two")], &keyring).fingerprint());
    assert_ne!(one.fingerprint(), of(&[document("tap", 1, &[("client_secret", "one")])], &keyring).fingerprint());
    assert_ne!(one.fingerprint(), of(&[key(1, "one")], &Keyring::ephemeral().unwrap()).fingerprint(), "nobody else can make it");
    let elsewhere = Contents::of(&[&key(1, "one")], &at("other"), &keyring).unwrap();
    assert_ne!(one.fingerprint(), elsewhere.fingerprint(), "two Secrets can't be compared");
    assert_ne!(one.fingerprint(), one.checksum(), "nor a Secret and a template");
    assert!(!format!("{one:?}").contains("one\""), "{one:?}");
}

#[test]
fn the_end_of_the_version_before_is_written_and_restarts_nobody() {
    let keyring = Keyring::ephemeral().unwrap();
    let mut both = document("dinie", 2, &[("webhook_secret", "new")]);
    let alone = of(&[document("dinie", 3, &[("webhook_secret", "new")])], &keyring);
    let fields = [("webhook_secret".parse().unwrap(), Secret::from("old".to_owned()))].into_iter().collect();
    both.previous = Some(Arc::new(Previous { version: "v1".parse().unwrap(), fields, valid_until: both.issued_at }));
    let both = of(&[both], &keyring);
    assert_eq!(both.names().iter().map(String::as_str).collect::<Vec<_>>(), ["dinie.previous.webhook_secret", "dinie.webhook_secret"]);
    assert_ne!(both.fingerprint(), alone.fingerprint());
    assert_eq!(both.checksum(), alone.checksum());
}

#[test]
fn the_body_is_one_json_object() {
    let keyring = Keyring::ephemeral().unwrap();
    let contents = of(&[document("dinie", 1, &[("a", "1"), ("b", "a\"\\\n\0")])], &keyring);
    let body: serde_json::Value = serde_json::from_slice(&contents.close("{\"data\":")).unwrap();
    assert_eq!(body, serde_json::json!({"data": {"dinie.a": "MQ==", "dinie.b": "YSJcCgA="}}));
    let empty = of(&[], &keyring);
    assert!(empty.is_empty());
    assert_eq!(empty.close("{\"data\":").as_slice(), b"{\"data\":{}}");
}
