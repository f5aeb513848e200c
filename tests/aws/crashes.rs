//! Whatever call is the last one before a crash: the same calls to the store, said again, come to the same end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keywright::domain::credential::Environment;
use keywright::domain::ids::VersionId;
use keywright::domain::material::{Material, Secret};
use keywright::stores::aws::AwsStore;
use keywright::stores::{SecretStore as _, Slot, Stages, StoreError, VersionBytes};

use super::Place;
use super::proxy::{Fate, Proxy};
use super::servers::Moto;

/// What is asked of the store, what it must then say, and what a native reader sees.
#[derive(Clone, Copy)]
enum Deed {
    Put(&'static str),
    Promote(&'static str, Option<&'static str>),
    Forget(&'static str),
    Clear(&'static [&'static str]),
}

type Line = (Deed, [Option<&'static str>; 3]);

const LIFE: [Line; 12] = [
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
    (Deed::Clear(&["v0", "v1", "v3"]), [None, None, None]),
    (Deed::Put("v5"), [Some("v5"), None, None]),
];

const LAST: Line = (Deed::Promote("v5", None), [None, Some("v5"), None]);

fn version(text: &str) -> VersionId {
    text.parse().unwrap()
}

pub(crate) fn slot() -> Slot {
    Slot { credential: "dinie".parse().unwrap(), environment: Environment::Production, path: "team/dinie".to_owned() }
}

/// Every version has a management part as well.
pub(crate) fn bytes(value: &str) -> VersionBytes {
    let one = |field: &str| -> Material { [(field.parse().unwrap(), Secret::from(format!("canary-{value}")))].into_iter().collect() };
    VersionBytes { served: one("client_secret"), management: one("registration_token") }
}

async fn attempt(store: &AwsStore, deed: Deed) -> Result<(), StoreError> {
    match deed {
        Deed::Put(name) => store.put_pending(&slot(), &version(name), &bytes(name)).await,
        Deed::Promote(name, replacing) => store.promote(&slot(), &version(name), replacing.map(version).as_ref()).await,
        Deed::Forget(name) => store.forget(&slot(), &version(name)).await,
        Deed::Clear(names) => store.clear(&slot(), &names.iter().map(|name| version(name)).collect()).await,
    }
}

/// Lives a life; `healed` is called before a call is said again. Returns how often it was.
async fn live(place: &Place, healed: impl Fn()) -> usize {
    let mut repeated = 0;
    place.fresh();
    for (deed, [pending, current, previous]) in LIFE.into_iter().chain([LAST]) {
        // A new process each time: nothing is remembered but at AWS.
        while let Err(error) = attempt(&place.again(), deed).await {
            assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
            healed();
            repeated += 1;
        }
        let store = place.again();
        let stages = Stages { pending: pending.map(version), current: current.map(version), previous: previous.map(version) };
        assert_eq!(store.stages(&slot()).await.unwrap(), stages);
        for kept in [pending, current, previous].into_iter().flatten() {
            assert!(store.read(&slot(), &version(kept)).await.unwrap().same_as(&bytes(kept)), "{kept}");
        }
        let seen = place.see(&slot(), Some("AWSCURRENT")).await;
        assert!(seen.is_none() == current.is_none() && seen.zip(current).is_none_or(|(seen, name)| seen.same_as(&bytes(name).served)));
    }
    repeated
}

#[tokio::test]
async fn whatever_call_is_the_last_one_the_next_process_goes_on() {
    let moto = Moto::start().await;
    let proxy = Proxy::start(&moto.endpoint).await;
    let place = Place::on(&proxy.endpoint);
    assert_eq!(live(&place, || panic!("nothing fails yet")).await, 0);
    let writes = |name: &str| !matches!(name, "DescribeSecret" | "GetSecretValue");
    let points: Vec<usize> = proxy.calls().iter().enumerate().filter(|(_, (_, name))| writes(name)).map(|(number, _)| number).collect();
    assert!(points.len() > 30, "{} writes", points.len());
    // All take some minutes: here every seventh, beginning with another one each time.
    let stride = std::env::var("KEYWRIGHT_CRASH_STRIDE").ok().and_then(|stride| stride.parse().ok()).unwrap_or(7).max(1);
    let first = uuid::Uuid::new_v4().as_bytes()[0] as usize % stride;
    let chosen: Vec<&usize> = points.iter().skip(first).step_by(stride).collect();
    let mut crashed = 0;
    for point in &chosen {
        for fate in [Fate::Lost, Fate::AnswerLost] {
            let healthy = Arc::new(AtomicBool::new(false));
            let is_healthy = Arc::clone(&healthy);
            let point = **point;
            proxy.judge(move |number, _| match number {
                _ if is_healthy.load(Ordering::Relaxed) || number < point => Fate::Passes,
                _ if number == point => fate,
                // The process is gone: the SDK's own repetitions never leave it.
                _ => Fate::Lost,
            });
            crashed += live(&place, || healthy.store(true, Ordering::Relaxed)).await;
        }
    }
    println!("{crashed} crashes at {} of {} writes, from number {first} on", chosen.len(), points.len());
    assert_eq!(crashed, 2 * chosen.len(), "each point stops the life once");
}

/// What the engine does with what somebody else wrote, each call said again until it succeeds. Returns how often that was.
async fn replace(place: &Place, theirs: &VersionId, healed: impl Fn()) -> usize {
    let (ours, value) = (version("v2"), bytes("v2"));
    let mut repeated = 0;
    for step in 0..3 {
        loop {
            let store = place.again();
            let done = match step {
                0 => store.adopt(&slot()).await,
                1 => store.put_pending(&slot(), &ours, &value).await,
                _ => store.promote(&slot(), &ours, Some(theirs)).await,
            };
            let Err(error) = done else { break };
            assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
            healed();
            repeated += 1;
            let seen = place.see(&slot(), Some("AWSCURRENT")).await.expect("never nothing");
            assert!(seen.same_as(&bytes("theirs").served) || seen.same_as(&value.served), "one or the other");
        }
    }
    repeated
}

/// In a secret of ours, and in one that somebody else made.
#[tokio::test]
async fn what_others_wrote_is_replaced_whatever_call_is_the_last_one() {
    let moto = Moto::start().await;
    let proxy = Proxy::start(&moto.endpoint).await;
    let place = Place::on(&proxy.endpoint);
    for (is_ours, least) in [(true, 4), (false, 5)] {
        let mut stopped = 0;
        for point in 0.. {
            let before = stopped;
            for fate in [Fate::Lost, Fate::AnswerLost] {
                proxy.judge(|_, _| Fate::Passes);
                let store = place.fresh();
                if is_ours {
                    store.put_pending(&slot(), &version("v1"), &bytes("v1")).await.unwrap();
                    store.promote(&slot(), &version("v1"), None).await.unwrap();
                }
                place.write(&slot(), &bytes("theirs").served).await;
                let theirs = store.native(&slot()).await.unwrap().unwrap().version;
                let healthy = Arc::new(AtomicBool::new(false));
                let (is_healthy, mut writes) = (Arc::clone(&healthy), 0);
                proxy.judge(move |_, name| {
                    let is_write = !matches!(name, "DescribeSecret" | "GetSecretValue");
                    writes += usize::from(is_write);
                    match writes {
                        _ if is_healthy.load(Ordering::Relaxed) || writes <= point => Fate::Passes,
                        _ if is_write && writes == point + 1 => fate,
                        _ => Fate::Lost,
                    }
                });
                stopped += replace(&place, &theirs, || healthy.store(true, Ordering::Relaxed)).await;
                let native = store.native(&slot()).await.unwrap().unwrap();
                assert!(native.is_managed && native.version == version("v2"), "{}", native.version);
                assert!(store.read(&slot(), &version("v2")).await.unwrap().same_as(&bytes("v2")));
                let stages = store.stages(&slot()).await.unwrap();
                assert_eq!((stages.pending, stages.current), (None, Some(version("v2"))));
            }
            if stopped == before {
                break;
            }
        }
        println!("{stopped} stops on the way, in a secret of {}", if is_ours { "ours" } else { "somebody else's" });
        assert!(stopped >= 2 * least, "{stopped}");
    }
}
