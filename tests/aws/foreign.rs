//! What others write where native readers look: told, taken over when that is asked, and noticed by few calls.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_secretsmanager::primitives::Blob;
use aws_sdk_secretsmanager::types::Tag;
use keywright::domain::credential::Environment;
use keywright::domain::ids::{Name, VersionId};
use keywright::stores::{Mark, SecretStore, Slot, StoreError, StoreShare};

use super::Place;
use super::crashes::{bytes, slot};
use super::proxy::{Fate, Proxy};
use super::servers::Moto;

fn version(text: &str) -> VersionId {
    text.parse().unwrap()
}

async fn marks(store: &impl SecretStore, slots: &[Slot]) -> BTreeMap<Name, Mark> {
    store.marks(slots).await.unwrap().expect("others can write at AWS")
}

async fn promoted(store: &impl SecretStore, slot: &Slot, name: &str, replacing: Option<&VersionId>) {
    store.put_pending(slot, &version(name), &bytes(name)).await.unwrap();
    store.promote(slot, &version(name), replacing).await.unwrap();
}

/// The refusal says the way out, and only that way is one.
#[tokio::test]
async fn a_secret_of_somebody_else_becomes_ours_by_its_tags_alone() {
    let moto = Moto::start().await;
    let place = Place::on(&moto.endpoint);
    let (store, client, name) = (place.fresh(), place.client(), place.address(&slot()));
    let theirs = Tag::builder().key("team").value("payments").build();
    let made = client.create_secret().name(&name).secret_string("{\"client_secret\":\"theirs\"}").tags(theirs.clone());
    let id = made.description("made by hand").send().await.unwrap().version_id.unwrap();
    let refused = store.put_pending(&slot(), &version("v1"), &bytes("v1")).await.unwrap_err();
    assert!(refused.to_string().contains("`keywright submit NAME --adopt`"), "{refused}");
    store.adopt(&slot()).await.unwrap();
    let described = client.describe_secret().secret_id(&name).send().await.unwrap();
    assert_eq!(described.description(), Some("made by hand"));
    assert!(described.tags().contains(&theirs) && described.tags().len() == 3, "{:?}", described.tags());
    assert_eq!(described.version_ids_to_stages().unwrap().get(&id).unwrap(), &["AWSCURRENT"]);
    let taken = store.native(&slot()).await.unwrap().unwrap();
    promoted(&store, &slot(), "v1", Some(&taken.version)).await;
    assert!(place.see(&slot(), Some("AWSCURRENT")).await.unwrap().same_as(&bytes("v1").served));
}

#[tokio::test]
async fn what_another_credential_has_or_nobody_can_use_isnt_taken_over() {
    let moto = Moto::start().await;
    let place = Place::on(&moto.endpoint);
    let (store, client) = (place.fresh(), place.client());
    // The same address under another name: a credential that was renamed, or another installation.
    promoted(&store, &slot(), "v1", None).await;
    let renamed = Slot { credential: "tap".parse().unwrap(), ..slot() };
    for outcome in [store.adopt(&renamed).await, store.put_pending(&renamed, &version("w1"), &bytes("w1")).await] {
        let Err(StoreError::Refused { reason, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("another credential"), "{reason}");
    }
    let native = store.native(&renamed).await.unwrap().unwrap();
    assert!(!native.is_managed);
    assert_eq!(store.stages(&slot()).await.unwrap().current, Some(version("v1")), "it stays whose it was");
    // Marked for deletion by who made it: nothing is there, and the refusal says what to do.
    let gone = Slot { path: "team/gone".to_owned(), ..slot() };
    let address = place.address(&gone);
    client.create_secret().name(&address).secret_string("{\"client_secret\":\"theirs\"}").send().await.unwrap();
    client.delete_secret().secret_id(&address).send().await.unwrap();
    assert!(store.native(&gone).await.unwrap().is_none() && marks(&store, std::slice::from_ref(&gone)).await.is_empty());
    let Err(StoreError::Refused { reason, .. }) = store.adopt(&gone).await else { panic!("it was taken over") };
    assert!(reason.contains("marked for deletion"), "{reason}");
    // An empty one is taken over like a full one.
    let empty = Slot { path: "team/empty".to_owned(), ..slot() };
    client.create_secret().name(place.address(&empty)).send().await.unwrap();
    assert!(store.native(&empty).await.unwrap().is_none());
    store.adopt(&empty).await.unwrap();
    promoted(&store, &empty, "v2", None).await;
}

/// Nothing of it gets into an error, and it can be replaced like anything else.
#[tokio::test]
async fn what_is_no_flat_object_of_texts_is_told_without_its_value() {
    let moto = Moto::start().await;
    let place = Place::on(&moto.endpoint);
    let (store, client, name) = (place.fresh(), place.client(), place.address(&slot()));
    promoted(&store, &slot(), "v1", None).await;
    let mut before = version("v1");
    for text in ["canary, a text of no form", "{\"client_secret\":{\"nested\":\"canary\"}}", "[\"canary\"]", ""] {
        let put = client.put_secret_value().secret_id(&name);
        let put = if text.is_empty() { put.secret_binary(Blob::new(*b"canary\xff")) } else { put.secret_string(text) };
        put.send().await.unwrap();
        let native = store.native(&slot()).await.unwrap().unwrap();
        assert!(native.served.is_none() && native.is_managed && native.version != before, "{}", native.version);
        assert!(!format!("{native:?}").contains("canary"));
        let read = store.read(&slot(), &native.version).await.map(drop);
        assert!(matches!(read, Err(StoreError::NotFound { .. })), "it is no version of ours: {read:?}");
        before = native.version;
    }
    promoted(&store, &slot(), "v2", Some(&before)).await;
    assert!(store.native(&slot()).await.unwrap().unwrap().served.unwrap().same_as(&bytes("v2").served));
}

/// Secrets apart, of other prefixes and of other hands cost no page of their own and get no mark; one environment isn't the other.
#[tokio::test]
async fn marks_are_those_of_native_addresses() {
    let moto = Moto::start().await;
    let proxy = Proxy::start(&moto.endpoint).await;
    let place = Place::on(&proxy.endpoint);
    let elsewhere = place.fresh();
    promoted(&elsewhere, &slot(), "v1", None).await;
    let (store, client) = (place.fresh(), place.client());
    let sandbox = Slot { credential: "dinie-sandbox".parse().unwrap(), environment: Environment::Sandbox, ..slot() };
    let longer = Slot { credential: "tap".parse().unwrap(), path: format!("{}-two", slot().path), ..slot() };
    let slots = [slot(), sandbox.clone(), longer.clone()];
    assert!(marks(&store, &slots).await.is_empty());
    promoted(&store, &sandbox, "v1", None).await;
    client.create_secret().name(place.address(&longer)).secret_string("theirs").send().await.unwrap();
    store.put_pending(&slot(), &version("v2"), &bytes("v2")).await.unwrap();
    proxy.judge(|_, _| Fate::Passes);
    let found = marks(&store, &slots).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), [&sandbox.credential, &longer.credential], "also what isn't ours, and no pending one");
    assert_eq!(proxy.calls().into_iter().map(|(_, name)| name).collect::<Vec<_>>(), ["ListSecrets"]);
    assert_eq!(marks(&store, &slots[..1]).await.len(), 0, "asked for one, told of one");
    // Deleted by somebody, cleared by us.
    client.delete_secret().secret_id(place.address(&longer)).send().await.unwrap();
    store.clear(&sandbox, &[version("v1")].into()).await.unwrap();
    assert!(marks(&store, &slots).await.is_empty());
}

#[tokio::test]
async fn marks_keep_within_the_quota_and_a_pass_that_broke_is_begun_anew() {
    let moto = Moto::start().await;
    let proxy = Proxy::start(&moto.endpoint).await;
    let place = Place::on(&proxy.endpoint);
    let store = place.paced(StoreShare::new(20, Duration::from_secs(3_600)));
    place.client().create_secret().name(place.address(&slot())).secret_string("theirs").send().await.unwrap();
    proxy.judge(|number, _| if number == 0 { Fate::Fails } else { Fate::Passes });
    let slots = [slot()];
    assert!(matches!(store.marks(&slots).await, Err(StoreError::Unavailable(_))));
    assert_eq!(proxy.calls().len(), 1, "what fails is said again by whoever counts it");
    assert_eq!(marks(&store, &slots).await.len(), 1);
    let mut answered = 1;
    let refused = loop {
        match store.marks(&slots).await {
            Ok(_) => answered += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, StoreError::Throttled { .. }), "{refused:?}");
    assert_eq!(proxy.calls().len(), answered + 1, "it was held back here");
    assert!(answered <= 20, "{answered}");
}

/// Where the server sorts, a quiet minute costs one call, however many there are; what was changed last is never missed.
#[tokio::test]
async fn a_long_list_is_read_as_far_as_it_may_be_new() {
    const SECRETS: usize = 1_050;
    let mut moto = Moto::start().await;
    let proxy = Proxy::start(&moto.endpoint).await;
    let place = Place::on(&proxy.endpoint);
    let (store, client) = (place.fresh(), place.client());
    let slots: Vec<Slot> = (0..SECRETS)
        .map(|number| {
            let credential: Name = format!("many-{number:04}").parse().unwrap();
            Slot { path: credential.to_string(), credential, ..slot() }
        })
        .collect();
    for some in slots.chunks(16) {
        let made = some.iter().map(|slot| client.create_secret().name(place.address(slot)).secret_string("theirs").send());
        futures_util::future::try_join_all(made).await.unwrap();
    }
    let pages = async || {
        proxy.judge(|_, _| Fate::Passes);
        (marks(&store, &slots).await, proxy.calls().len())
    };
    for _ in 0..2 {
        assert_eq!(pages().await.1, 11, "moto doesn't sort, so all is read");
    }
    moto.sorts().await;
    moto.ages(3_600).await;
    let (before, whole) = pages().await;
    assert_eq!((before.len(), whole), (SECRETS, 11), "what comes first there was never seen to be sorted");
    client.put_secret_value().secret_id(place.address(&slots[3])).secret_string("changed").send().await.unwrap();
    let (after, few) = pages().await;
    assert_eq!(few, 1);
    let differ: Vec<&Name> = slots.iter().map(|slot| &slot.credential).filter(|name| before.get(*name) != after.get(*name)).collect();
    assert_eq!((after.len(), differ), (SECRETS, vec![&slots[3].credential]));
    assert_eq!(pages().await, (after, 1));
}
