//! A Vault that is sealed, stands by, is asked too often, is down, is somebody else: each is told for what it is, and nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use keywright::stores::vault::{VaultOpenError, VaultSettings, VaultStore};
use keywright::stores::{SecretStore, StoreError};

use super::fake::{Fault, Mode, Vault};
use super::tls::Authority;
use super::{World, slot, version, with_current};

#[tokio::test]
async fn each_state_of_the_server_is_told_apart_and_passes() {
    let world = World::start().await;
    let store = world.store();
    with_current(&store).await;
    let behind = "it is a standby that is behind";
    let elsewhere = "it is a standby that names another address: configure the active one, or a balancer before them";
    let unavailable = |what| StoreError::Unavailable(what);
    let throttled = |seconds| StoreError::Throttled { retry_after: Duration::from_secs(seconds) };
    for (mode, expected) in [
        (Mode::Sealed, unavailable("it is sealed, or not ready")),
        (Mode::StandsBy(472), unavailable("it is a standby")),
        (Mode::StandsBy(473), unavailable("it is a standby")),
        (Mode::StandsBy(307), unavailable(elsewhere)),
        (Mode::IsBehind, unavailable(behind)),
        (Mode::TooMany(None), throttled(1)),
        (Mode::TooMany(Some(9)), throttled(9)),
    ] {
        world.vault.lock().mode = mode;
        assert_eq!(store.stages(&slot()).await.unwrap_err(), expected, "{mode:?}");
        assert_eq!(store.read(&slot(), &version("v1")).await.unwrap_err(), expected, "{mode:?}");
        assert_eq!(store.promote(&slot(), &version("v1"), None).await.unwrap_err(), expected, "{mode:?}");
        assert_eq!(store.list(None, 1).await.unwrap_err(), expected, "{mode:?}");
        world.vault.lock().mode = Mode::Serves;
        assert_eq!(store.stages(&slot()).await.unwrap().current, Some(version("v1")), "{mode:?} passed");
    }
}

#[tokio::test]
async fn a_restart_in_the_middle_loses_nothing() {
    let world = World::start().await;
    let store = world.store();
    with_current(&store).await;
    world.vault.stop();
    // A connection that was kept open is found closed, or there is none.
    assert!(matches!(store.stages(&slot()).await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.stages(&slot()).await.unwrap_err(), StoreError::Unavailable("no connection"));
    world.vault.start_again().await;
    assert_eq!(store.stages(&slot()).await.unwrap().current, Some(version("v1")));
}

#[tokio::test]
async fn it_opens_while_the_server_is_down() {
    let world = World::start().await;
    world.vault.stop();
    let store = world.store();
    assert_eq!(store.stages(&slot()).await.unwrap_err(), StoreError::Unavailable("no connection"));
    world.vault.start_again().await;
    store.stages(&slot()).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_never_comes_is_given_up() {
    let world = World::start().await;
    let store = world.store();
    store.stages(&slot()).await.unwrap();
    world.vault.plan(|_| Some(Fault::Waits(Duration::from_secs(60))));
    let outcome = tokio::time::timeout(Duration::from_secs(15), store.stages(&slot())).await.expect("within the timeout of a call");
    assert_eq!(outcome.unwrap_err(), StoreError::Unavailable("it takes too long"));
}

#[tokio::test]
async fn a_proxys_page_is_no_answer() {
    let world = World::start().await;
    let store = world.store();
    with_current(&store).await;
    world.vault.plan(|_| Some(Fault::Garbles));
    let what = "its answer isn't that of a KV engine of version 2";
    assert_eq!(store.read(&slot(), &version("v1")).await.unwrap_err(), StoreError::Unavailable(what));
}

fn server_config(authority: &Authority) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let issued = authority.issue();
    let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

#[tokio::test]
async fn tls_is_verified_by_the_authority_that_is_named() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut world = World::start().await;
    world.vault = Vault::start_with_tls(server_config(&ours)).await;
    let open = |ca| VaultStore::open(VaultSettings { ca, ..world.settings() }, None);
    let store = open(Some(world.file("ours.pem", &ours.root()))).unwrap();
    with_current(&store).await;
    let refused = StoreError::Unavailable("no connection");
    let store = open(Some(world.file("theirs.pem", &theirs.root()))).unwrap();
    assert_eq!(store.stages(&slot()).await.unwrap_err(), refused);
    assert!(matches!(open(Some(world.file("none.pem", "no certificate"))), Err(VaultOpenError::NoCertificate(_))));
    assert!(matches!(open(Some("/nothing/here.pem".into())), Err(VaultOpenError::Unreadable(..))));
    // Those of the machine don't know this authority.
    if let Ok(store) = open(None) {
        assert_eq!(store.stages(&slot()).await.unwrap_err(), refused);
    }
}
