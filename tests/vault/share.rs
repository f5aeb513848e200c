//! Our share of the quota counts each request, logins and repetitions too, and looks for changes leave half of it to rotations.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keywright::stores::vault::{Auth, VaultStore};
use keywright::stores::{SecretStore, Slot, StoreError, StoreShare};

use super::fake::Mode;
use super::{World, bytes, settings, slot, version, with_current};

fn share(calls: u32, per: Duration) -> Option<Arc<StoreShare>> {
    Some(Arc::new(StoreShare::new(calls, per)))
}

#[tokio::test]
async fn each_request_of_a_call_counts() {
    let world = World::start().await;
    let calls = 40;
    let per = Duration::from_secs(4);
    let store = VaultStore::open(world.settings(), share(calls, per)).unwrap();
    let began = Instant::now();
    with_current(&store).await;
    for number in 2..7 {
        let (old, new) = (version(&format!("v{}", number - 1)), version(&format!("v{number}")));
        store.put_pending(&slot(), &new, &bytes("other")).await.unwrap();
        store.promote(&slot(), &new, Some(&old)).await.unwrap();
        store.forget(&slot(), &old).await.unwrap();
    }
    let (took, asked) = (began.elapsed(), world.vault.lock().calls.len());
    // Reads never wait, but what they take is missing when the next write comes.
    let writes = world.vault.lock().calls.iter().filter(|(call, _)| call.writes()).count();
    assert!(writes > calls as usize, "{writes} of {asked} requests write");
    let most = calls as usize * (1 + took.as_millis() as usize / per.as_millis() as usize);
    assert!(writes <= most, "{writes} writes in {took:?}, at most {most}");
    let at_least = per * u32::try_from(asked / 2).unwrap() / calls;
    assert!(took >= at_least, "{asked} requests in {took:?}");
}

#[tokio::test]
async fn a_call_whose_turn_is_far_off_does_nothing() {
    let world = World::start().await;
    let store = VaultStore::open(world.settings(), share(8, Duration::from_secs(3_600))).unwrap();
    for _ in 0..20 {
        store.stages(&slot()).await.expect("reads never wait");
    }
    let before = world.vault.lock().calls.len();
    let outcome = store.put_pending(&slot(), &version("v1"), &bytes("one")).await;
    assert!(matches!(outcome, Err(StoreError::Throttled { retry_after }) if retry_after > Duration::from_secs(2)), "{outcome:?}");
    assert!(world.vault.lock().calls.iter().skip(before).all(|(call, _)| !call.writes()));
    assert!(world.vault.paths_with_bytes().is_empty());
}

#[tokio::test]
async fn where_turns_are_rare_reads_dont_take_them_for_ever() {
    let world = World::start().await;
    // A turn each three seconds, which the reads of each call take first.
    let store = VaultStore::open(world.settings(), share(8, Duration::from_secs(15))).unwrap();
    for _ in 0..10 {
        store.stages(&slot()).await.unwrap();
    }
    store.put_pending(&slot(), &version("v1"), &bytes("one")).await.unwrap();
    assert!(store.read(&slot(), &version("v1")).await.unwrap().same_as(&bytes("one")));
}

#[tokio::test]
async fn a_token_that_is_got_anew_counts_too() {
    let world = World::start().await;
    world.vault.lock().logins.roles.insert("role".to_owned(), "made-for-a-test".to_owned());
    let auth = Auth::AppRole { mount: "approle".to_owned(), role_id: "role".to_owned(), secret_id: world.file("s", "made-for-a-test") };
    // A burst of four: a login, a read that is refused, a login, the read again.
    let store = VaultStore::open(settings(&world.vault, auth), share(8, Duration::from_secs(3_600))).unwrap();
    store.read(&slot(), &version("v1")).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.vault.lock().logins.revoke_all();
    store.read(&slot(), &version("v1")).await.unwrap_err();
    assert_eq!(world.vault.lock().calls.len(), 5);
    let outcome = store.put_pending(&slot(), &version("v1"), &bytes("one")).await;
    assert!(matches!(outcome, Err(StoreError::Throttled { .. })), "{outcome:?}");
}

#[tokio::test]
async fn looks_for_changes_take_half_of_the_share() {
    let world = World::start().await;
    let store = VaultStore::open(world.settings(), share(100, Duration::from_secs(2))).unwrap();
    with_current(&store).await;
    let slots: Vec<Slot> = (0..50).map(|number| Slot { path: format!("many/{number}"), ..slot() }).collect();
    let began = Instant::now();
    let looking = tokio::spawn({
        let (store, slots) = (store.clone(), slots.clone());
        async move { store.marks(&slots).await.unwrap().unwrap() }
    });
    store.put_pending(&slot(), &version("v2"), &bytes("two")).await.unwrap();
    store.promote(&slot(), &version("v2"), Some(&version("v1"))).await.unwrap();
    assert!(!looking.is_finished(), "a rotation goes on beside it");
    assert!(looking.await.unwrap().is_empty());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1900), "50 at half of 100 in two seconds: {took:?}");
}

#[tokio::test]
async fn what_has_begun_waits_where_vault_says_so() {
    let world = World::start().await;
    let store = world.store();
    with_current(&store).await;
    // Of each second one write: those that follow the first of a call have to wait.
    world.vault.lock().writes_per_second = Some(1);
    let (mut refused, began) = (0, Instant::now());
    while store.put_pending(&slot(), &version("v2"), &bytes("two")).await.is_err() {
        refused += 1;
        assert!(refused < 5);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(1900), "three writes, one a second");
    assert!(refused <= 1, "no more than the first of them was refused");
    assert_eq!(store.stages(&slot()).await.unwrap().pending, Some(version("v2")));
}

#[tokio::test]
async fn a_look_that_is_asked_to_wait_waits() {
    let world = World::start().await;
    let store = world.store();
    with_current(&store).await;
    world.vault.lock().mode = Mode::TooMany(Some(1));
    let looking = tokio::spawn({
        let store = store.clone();
        async move { store.marks(&[slot()]).await.unwrap().unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!looking.is_finished());
    world.vault.lock().mode = Mode::Serves;
    assert_eq!(looking.await.unwrap().len(), 1);
}
