//! Each way to log in; tokens that end, are revoked, are replaced; what is refused for good.

use std::time::Duration;

use keywright::stores::vault::{Auth, VaultSettings, VaultStore};
use keywright::stores::{SecretStore, StoreError};

use super::fake::ROOT;
use super::{World, settings, slot, version, with_current};

fn approle(world: &World) -> VaultSettings {
    world.vault.lock().logins.roles.insert("role".to_owned(), "made-for-a-test".to_owned());
    let secret_id = world.file("secret-id", "made-for-a-test\n");
    settings(&world.vault, Auth::AppRole { mount: "approle".to_owned(), role_id: "role".to_owned(), secret_id })
}

fn kubernetes(world: &World) -> VaultSettings {
    world.vault.lock().logins.accounts.insert("keywright".to_owned(), "header.made-for-a-test.sign".to_owned());
    let token = world.file("jwt", "header.made-for-a-test.sign");
    settings(&world.vault, Auth::Kubernetes { mount: "kubernetes".to_owned(), role: "keywright".to_owned(), token })
}

fn refused(outcome: Result<impl std::fmt::Debug, StoreError>) -> &'static str {
    match outcome {
        Err(StoreError::Unavailable(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_way_to_log_in_works_and_is_used_once() {
    let world = World::start().await;
    for settings in [approle(&world), kubernetes(&world)] {
        let before = world.vault.lock().logins.logins;
        let store = VaultStore::open(settings, None).unwrap();
        let slot = slot();
        let looks = (0..20).map(|_| store.stages(&slot));
        assert!(futures_util::future::join_all(looks).await.into_iter().all(|look| look.is_ok()));
        assert_eq!(world.vault.lock().logins.logins, before + 1, "twenty callers, one login");
    }
}

#[tokio::test]
async fn a_token_that_was_revoked_is_got_anew() {
    let world = World::start().await;
    for settings in [approle(&world), kubernetes(&world)] {
        let store = VaultStore::open(settings, None).unwrap();
        store.stages(&slot()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1100)).await;
        world.vault.lock().logins.revoke_all();
        store.stages(&slot()).await.unwrap();
    }
}

#[tokio::test]
async fn a_token_is_renewed_in_time_while_nobody_asks() {
    let world = World::start().await;
    world.vault.lock().logins.lease = Duration::from_secs(3);
    let token = world.vault.lock().logins.issue();
    let auth = Auth::Token { file: world.file("leased", &format!("{token}\n")) };
    let store = VaultStore::open(settings(&world.vault, auth), None).unwrap();
    with_current(&store).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(world.vault.lock().logins.renewals >= 2);
    assert_eq!(store.stages(&slot()).await.unwrap().current, Some(version("v1")), "its first lease is long over");
    assert_eq!(world.vault.lock().logins.logins, 0);
}

#[tokio::test]
async fn a_token_that_nears_its_longest_time_is_replaced_by_a_login() {
    let world = World::start().await;
    let settings = approle(&world);
    {
        let logins = &mut world.vault.lock().logins;
        (logins.lease, logins.longest) = (Duration::from_secs(3), Duration::from_secs(3));
    }
    let store = VaultStore::open(settings, None).unwrap();
    for _ in 0..16 {
        store.stages(&slot()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(world.vault.lock().logins.logins >= 3);
}

#[tokio::test]
async fn after_an_outage_longer_than_the_lease_one_logs_in_again() {
    let world = World::start().await;
    let settings = approle(&world);
    world.vault.lock().logins.lease = Duration::from_secs(2);
    let store = VaultStore::open(settings, None).unwrap();
    with_current(&store).await;
    world.vault.stop();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(refused(store.stages(&slot()).await), "no connection");
    world.vault.start_again().await;
    assert_eq!(store.stages(&slot()).await.unwrap().current, Some(version("v1")));
}

#[tokio::test]
async fn a_token_in_a_file_is_taken_up_when_it_is_replaced() {
    let world = World::start().await;
    let first = world.vault.lock().logins.issue();
    let auth = Auth::Token { file: world.file("agent", &first) };
    let store = VaultStore::open(settings(&world.vault, auth), None).unwrap();
    store.stages(&slot()).await.unwrap();
    world.vault.lock().logins.revoke_all();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(refused(store.stages(&slot()).await).starts_with("it denies access"));
    let second = world.vault.lock().logins.issue();
    world.file("agent", &second);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    store.stages(&slot()).await.unwrap();
}

#[tokio::test]
async fn what_is_refused_for_good_says_so_and_asks_no_more_than_once_a_second() {
    let world = World::start().await;
    let mut wrong = approle(&world);
    let Auth::AppRole { secret_id, .. } = &mut wrong.auth else { unreachable!("it is AppRole") };
    *secret_id = world.file("wrong", "made-for-another-test");
    let store = VaultStore::open(wrong, None).unwrap();
    assert_eq!(refused(store.stages(&slot()).await), "it refuses our login");

    let auth = Auth::Token { file: world.folder.path().join("gone") };
    let store = VaultStore::open(settings(&world.vault, auth), None).unwrap();
    assert_eq!(refused(store.stages(&slot()).await), "the file that we log in with can't be read");
    for text in ["", "two words", "made-for-a-test\nand more"] {
        let store = VaultStore::open(settings(&world.vault, Auth::Token { file: world.file("odd", text) }), None).unwrap();
        assert_eq!(refused(store.stages(&slot()).await), "the file that we log in with can't be read", "{text:?}");
    }
    let store =
        VaultStore::open(settings(&world.vault, Auth::Token { file: world.file("dead", "hvs.made-for-a-test-dead") }), None).unwrap();
    assert_eq!(refused(store.stages(&slot()).await), "it refuses our login");

    let other = VaultSettings { mount: "nothing-here".to_owned(), ..world.settings() };
    let store = VaultStore::open(other, None).unwrap();
    assert_eq!(refused(store.stages(&slot()).await), "it has no KV engine of version 2 at this mount");
}

#[tokio::test]
async fn a_token_is_in_no_text() {
    let world = World::start().await;
    let store = world.store();
    store.stages(&slot()).await.unwrap();
    let shown = format!("{store:?}");
    assert!(!shown.contains(ROOT) && !shown.contains("made-for-a-test"), "{shown}");
    for call in &world.vault.lock().calls {
        assert!(!call.0.path.contains("made-for-a-test"), "a token is in a path");
    }
}
