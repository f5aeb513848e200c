//! Other hands at AWS: secrets that aren't ours, labels that were moved, rotation functions that stopped half-way.

use std::collections::BTreeMap;

use aws_sdk_secretsmanager::types::Tag;
use keywright::domain::ids::VersionId;
use keywright::stores::{SecretStore as _, Stages, StoreError};

use super::Place;
use super::crashes::{bytes, slot};
use super::servers::Moto;

fn version(text: &str) -> VersionId {
    text.parse().unwrap()
}

/// Every version of a secret, with its labels and its value.
async fn all_of(place: &Place, name: &str) -> BTreeMap<String, (Vec<String>, Option<String>)> {
    let client = place.client();
    let described = client.describe_secret().secret_id(name).send().await.unwrap();
    let mut all = BTreeMap::new();
    for (id, labels) in described.version_ids_to_stages().unwrap() {
        let value = client.get_secret_value().secret_id(name).version_id(id).send().await.ok();
        all.insert(id.clone(), (labels.clone(), value.and_then(|value| value.secret_string)));
    }
    all
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_never_touched() {
    let moto = Moto::start().await;
    let place = Place::on(&moto.endpoint);
    let (store, name) = (place.fresh(), place.address(&slot()));
    place.client().create_secret().name(&name).secret_string("made by hand").send().await.unwrap();
    let before = all_of(&place, &name).await;
    let outcomes = [
        store.stages(&slot()).await.map(drop),
        store.put_pending(&slot(), &version("v1"), &bytes("v1")).await,
        store.promote(&slot(), &version("v1"), None).await,
        store.forget(&slot(), &version("v1")).await,
        store.clear(&slot(), &[version("v1")].into()).await,
    ];
    for outcome in outcomes {
        assert!(matches!(outcome, Err(StoreError::Refused { .. })), "{outcome:?}");
    }
    assert!(store.read(&slot(), &version("v1")).await.is_err());
    assert_eq!(store.list(None, 10).await.unwrap(), []);
    assert_eq!(all_of(&place, &name).await, before);
}

/// Made empty beforehand, with policies of its own and with our tags: the first promotion fills it.
#[tokio::test]
async fn an_empty_secret_with_our_tags_is_filled() {
    let moto = Moto::start().await;
    let place = Place::on(&moto.endpoint);
    let (store, name) = (place.fresh(), place.address(&slot()));
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let tags = [tag("keywright:credential", "dinie"), tag("keywright:environment", "production"), tag("team", "payments")];
    place.client().create_secret().name(&name).set_tags(Some(tags.into())).send().await.unwrap();
    assert_eq!(store.stages(&slot()).await.unwrap(), Stages::default());
    store.put_pending(&slot(), &version("v1"), &bytes("v1")).await.unwrap();
    assert!(place.see(&slot(), Some("AWSCURRENT")).await.is_none(), "a pending version isn't current in an empty secret");
    for _ in 0..2 {
        store.promote(&slot(), &version("v1"), None).await.unwrap();
    }
    assert!(place.see(&slot(), Some("AWSCURRENT")).await.unwrap().same_as(&bytes("v1").served));
    assert_eq!(store.stages(&slot()).await.unwrap().current, Some(version("v1")));
}

#[tokio::test]
async fn a_label_that_a_rotation_function_left_behind_is_no_obstacle() {
    let moto = Moto::start().await;
    let place = Place::on(&moto.endpoint);
    let (store, name) = (place.fresh(), place.address(&slot()));
    store.put_pending(&slot(), &version("v1"), &bytes("v1")).await.unwrap();
    store.promote(&slot(), &version("v1"), None).await.unwrap();
    // As a function leaves it that stopped half-way.
    let stuck = "stuck-by-a-rotation-function-0001";
    let put = place.client().put_secret_value().secret_id(&name).client_request_token(stuck).secret_string("not-yet");
    put.version_stages("AWSPENDING").send().await.unwrap();
    assert_eq!(store.stages(&slot()).await.unwrap(), Stages { current: Some(version("v1")), ..Stages::default() });
    store.put_pending(&slot(), &version("v2"), &bytes("v2")).await.unwrap();
    store.promote(&slot(), &version("v2"), Some(&version("v1"))).await.unwrap();
    let expected = Stages { pending: None, current: Some(version("v2")), previous: Some(version("v1")) };
    assert_eq!(store.stages(&slot()).await.unwrap(), expected);
}

#[tokio::test]
async fn a_value_that_somebody_else_made_current_is_reported_and_not_replaced() {
    let moto = Moto::start().await;
    let place = Place::on(&moto.endpoint);
    let (store, name) = (place.fresh(), place.address(&slot()));
    store.put_pending(&slot(), &version("v1"), &bytes("v1")).await.unwrap();
    store.promote(&slot(), &version("v1"), None).await.unwrap();
    store.put_pending(&slot(), &version("v2"), &bytes("v2")).await.unwrap();
    place.client().put_secret_value().secret_id(&name).secret_string("{\"client_secret\":\"by-hand\"}").send().await.unwrap();
    let current = store.stages(&slot()).await.unwrap().current.unwrap();
    assert!(current.as_str().starts_with("foreign-"), "{current}");
    let outcome = store.promote(&slot(), &version("v2"), Some(&version("v1"))).await;
    assert!(matches!(outcome, Err(StoreError::CurrentChanged { .. })), "{outcome:?}");
    let seen = place.client().get_secret_value().secret_id(&name).version_stage("AWSCURRENT").send().await.unwrap();
    assert_eq!(seen.secret_string(), Some("{\"client_secret\":\"by-hand\"}"));
}

/// What lies at AWS afterwards is what the documentation says: names, tags and labels, and no value outside of values.
#[tokio::test]
async fn tags_and_names_tell_whose_it_is_and_nothing_of_the_value() {
    let moto = Moto::start().await;
    let place = Place::on(&moto.endpoint);
    let store = place.fresh();
    store.put_pending(&slot(), &version("v1"), &bytes("v1")).await.unwrap();
    store.promote(&slot(), &version("v1"), None).await.unwrap();
    let listed = place.client().list_secrets().send().await.unwrap();
    let names: Vec<&str> = listed.secret_list().iter().filter_map(|entry| entry.name()).collect();
    assert_eq!(names.len(), 2, "one for native readers, one for the management part: {names:?}");
    assert!(names.contains(&place.address(&slot()).as_str()), "{names:?}");
    assert!(!format!("{listed:?}").contains("canary"), "{listed:?}");
    for entry in listed.secret_list() {
        let tags: Vec<_> = entry.tags().iter().map(|tag| (tag.key().unwrap(), tag.value().unwrap())).collect();
        assert_eq!(tags, [("keywright:credential", "dinie"), ("keywright:environment", "production")]);
    }
}
