//! Whatever request is the last one before a crash: the same calls to the store, said again by a new process, come to the same end,
//! and native readers never had anything but what was promoted. The same where the process lives on, and its token or the server ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use keywright::stores::vault::{Auth, VaultStore};
use keywright::stores::{SecretStore as _, Stages, StoreError};
use serde_json::json;

use super::fake::Fault;
use super::{NATIVE, World, bytes, settings, slot, version};

#[derive(Clone, Copy)]
enum Deed {
    Put(&'static str),
    Promote(&'static str, Option<&'static str>),
    Forget(&'static str),
    Clear(&'static [&'static str]),
}

/// What is asked of the store, and what it must say then: pending, current, previous.
type Line = (Deed, [Option<&'static str>; 3]);

const LIFE: [Line; 13] = [
    (Deed::Put("v0"), [Some("v0"), None, None]),
    (Deed::Put("v1"), [Some("v1"), None, None]),
    (Deed::Promote("v1", None), [None, Some("v1"), None]),
    (Deed::Put("v2"), [Some("v2"), Some("v1"), None]),
    (Deed::Promote("v2", Some("v1")), [None, Some("v2"), Some("v1")]),
    (Deed::Put("v3"), [Some("v3"), Some("v2"), Some("v1")]),
    (Deed::Promote("v3", Some("v2")), [None, Some("v3"), Some("v2")]),
    (Deed::Forget("v2"), [None, Some("v3"), None]),
    (Deed::Put("v4"), [Some("v4"), Some("v3"), None]),
    (Deed::Forget("v4"), [None, Some("v3"), None]),
    (Deed::Clear(&["v0", "v1", "v2", "v3", "v4"]), [None, None, None]),
    (Deed::Put("v5"), [Some("v5"), None, None]),
    (Deed::Promote("v5", None), [None, Some("v5"), None]),
];

const PROMOTED: [&str; 4] = ["v1", "v2", "v3", "v5"];

impl World {
    async fn attempt(&self, store: &VaultStore, deed: Deed) -> Result<(), StoreError> {
        let slot = slot();
        match deed {
            Deed::Put(name) => store.put_pending(&slot, &version(name), &bytes(name)).await,
            Deed::Promote(name, replacing) => store.promote(&slot, &version(name), replacing.map(version).as_ref()).await,
            Deed::Forget(name) => store.forget(&slot, &version(name)).await,
            Deed::Clear(names) => store.clear(&slot, &names.iter().map(|name| version(name)).collect()).await,
        }
    }

    /// Lives a life. Returns how often a call was said again.
    async fn live(&self) -> usize {
        let mut repeated = 0;
        for (deed, says) in LIFE {
            // A new process each time: nothing is remembered but in Vault.
            while let Err(error) = self.attempt(&self.store(), deed).await {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
                self.vault.nothing_goes_wrong();
                repeated += 1;
            }
            self.assert_seen(says).await;
        }
        repeated
    }

    async fn assert_seen(&self, [pending, current, previous]: [Option<&'static str>; 3]) {
        let store = self.store();
        let stages = Stages { pending: pending.map(version), current: current.map(version), previous: previous.map(version) };
        assert_eq!(store.stages(&slot()).await.unwrap(), stages);
        for kept in [pending, current, previous].into_iter().flatten() {
            assert!(store.read(&slot(), &version(kept)).await.unwrap().same_as(&bytes(kept)), "{kept}");
        }
        assert_eq!(self.vault.native(NATIVE), current.map(|name| json!({"client_secret": name})));
        for value in self.vault.ever_at(NATIVE) {
            assert!(PROMOTED.iter().any(|name| value == json!({"client_secret": name})), "native readers had {value}");
        }
    }

    /// The same in one process, which tries again as the engine does. Returns whether a call had to be said again.
    async fn live_on(&self, store: &VaultStore) -> bool {
        let mut repeated = false;
        for (deed, says) in LIFE {
            let limit = Instant::now() + Duration::from_secs(20);
            while let Err(error) = self.attempt(store, deed).await {
                assert!(matches!(error, StoreError::Unavailable(_)) && Instant::now() < limit, "{error:?}");
                repeated = true;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            self.assert_seen(says).await;
        }
        repeated
    }
}

#[tokio::test]
async fn whatever_request_is_the_last_one_the_next_process_goes_on() {
    let calm = World::start().await;
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    calm.vault.plan(move |call| {
        counted.fetch_add(usize::from(call.writes()), Ordering::Relaxed);
        None
    });
    assert_eq!(calm.live().await, 0);
    let writes = writes.load(Ordering::Relaxed);
    assert!(writes > 30, "{writes} writes");
    let stride = std::env::var("KEYWRIGHT_CRASH_STRIDE").ok().and_then(|stride| stride.parse().ok()).unwrap_or(3).max(1);
    let first = uuid::Uuid::new_v4().as_bytes()[0] as usize % stride;
    let (mut lives, mut crashed) = (0, 0);
    for point in (first..writes).step_by(stride) {
        for fault in [Fault::Fails, Fault::LosesReply] {
            let world = World::start().await;
            let mut number = 0;
            world.vault.plan(move |call| {
                let is_the_one = call.writes() && number == point;
                let is_gone = number > point;
                number += usize::from(call.writes());
                // The process is gone with it.
                if is_the_one { Some(fault) } else { is_gone.then_some(Fault::Fails) }
            });
            crashed += world.live().await;
            lives += 1;
        }
    }
    assert_eq!(crashed, lives, "each point stops the life once");
}

/// A process that logs in by itself; what happens to its token, or to the server, at the request of that number.
async fn interrupted(point: usize, fault: Fault) -> bool {
    let world = World::start().await;
    world.vault.lock().logins.roles.insert("role".to_owned(), "made-for-a-test".to_owned());
    let auth = Auth::AppRole { mount: "approle".to_owned(), role_id: "role".to_owned(), secret_id: world.file("s", "made-for-a-test") };
    let store = VaultStore::open(settings(&world.vault, auth), None).unwrap();
    let mut number = 0;
    world.vault.plan(move |call| {
        let is_the_one = call.writes() && number == point;
        number += usize::from(call.writes());
        is_the_one.then_some(fault)
    });
    world.live_on(&store).await
}

#[tokio::test]
async fn whenever_the_token_or_the_server_ends_the_process_goes_on() {
    let faults = [Fault::Revokes, Fault::Expires, Fault::Restarts];
    let lives = (0..33).step_by(3).flat_map(|point| faults.map(|fault| (point, fault)));
    let lives = futures_util::stream::iter(lives).map(|(point, fault)| async move {
        let outcome = tokio::time::timeout(Duration::from_secs(60), interrupted(point, fault)).await;
        outcome.unwrap_or_else(|_| panic!("stuck after {fault:?} at write {point}"))
    });
    let repeated = lives.buffer_unordered(8).filter(|repeated| std::future::ready(*repeated)).count().await;
    assert!(repeated > 0, "some calls had to be said again");
}
