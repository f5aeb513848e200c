//! Rough weather: throttling, errors, delays, lost connections, a server that is away for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keywright::domain::ids::VersionId;
use keywright::stores::aws::AwsStore;
use keywright::stores::{SecretStore as _, Slot, StoreError, StoreShare};

use super::Place;
use super::crashes::{bytes, slot};
use super::proxy::{Fate, Proxy};
use super::servers::Moto;

fn version(number: usize) -> VersionId {
    format!("v{number}").parse().unwrap()
}

fn is_write(name: &str) -> bool {
    matches!(name, "CreateSecret" | "PutSecretValue" | "UpdateSecretVersionStage" | "DeleteSecret" | "RestoreSecret" | "TagResource")
}

/// Says a call again until it succeeds, as the engine does.
async fn insist(mut call: impl AsyncFnMut() -> Result<(), StoreError>) -> usize {
    for failed in 0..200 {
        match call().await {
            Ok(()) => return failed,
            Err(StoreError::Throttled { .. } | StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("it never succeeded");
}

/// Rotates so often, and looks each time whether native readers see the new value.
async fn rotate(place: &Place, store: &AwsStore, slot: &Slot, times: usize) -> usize {
    let mut failed = 0;
    for number in 1..=times {
        let (new, old) = (version(number), (number > 1).then(|| version(number - 1)));
        let value = bytes(new.as_str());
        failed += insist(async || store.put_pending(slot, &new, &value).await).await;
        failed += insist(async || store.promote(slot, &new, old.as_ref()).await).await;
        if let Some(old) = &old {
            failed += insist(async || store.forget(slot, old).await).await;
        }
        assert!(insist_see(place, slot).await.same_as(&value.served), "{new}");
    }
    failed
}

async fn insist_see(place: &Place, slot: &Slot) -> keywright::domain::material::Material {
    for _ in 0..200 {
        if let Some(seen) = place.see(slot, Some("AWSCURRENT")).await {
            return seen;
        }
    }
    panic!("nothing is seen");
}

/// Fifty writes in a second are answered, as AWS does; ten credentials want more than that at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_throttled_ends_well() {
    let moto = Moto::start().await;
    let proxy = Proxy::start(&moto.endpoint).await;
    let place = Place::on(&proxy.endpoint);
    let store = place.fresh();
    let throttled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&throttled);
    let (mut written, mut writes) = (Vec::<Instant>::new(), 0);
    proxy.judge(move |_, name| {
        written.retain(|at| at.elapsed() < Duration::from_secs(1));
        if !is_write(name) {
            return Fate::Passes;
        }
        writes += 1;
        // And one in ten in any case: a slow machine doesn't come to fifty.
        if written.len() >= 50 || writes % 10 == 0 {
            count.fetch_add(1, Ordering::Relaxed);
            return Fate::Throttled;
        }
        written.push(Instant::now());
        Fate::Passes
    });
    let slots: Vec<Slot> = (0..10).map(|number| Slot { path: format!("team/{number}"), ..slot() }).collect();
    futures_util::future::join_all(slots.iter().map(|slot| rotate(&place, &store, slot, 3))).await;
    println!("{} writes were throttled", throttled.load(Ordering::Relaxed));
    assert!(throttled.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn throttling_is_told_apart_and_the_servers_words_are_not_repeated() {
    let moto = Moto::start().await;
    let proxy = Proxy::start(&moto.endpoint).await;
    let store = Place::on(&proxy.endpoint).fresh();
    for (fate, expected) in [(Fate::Throttled, "quota"), (Fate::Fails, "it failed"), (Fate::Lost, "no connection")] {
        proxy.judge(move |_, _| fate);
        let errors = [
            store.stages(&slot()).await.unwrap_err(),
            store.read(&slot(), &version(1)).await.unwrap_err(),
            store.put_pending(&slot(), &version(1), &bytes("v1")).await.unwrap_err(),
            store.promote(&slot(), &version(1), None).await.unwrap_err(),
            store.list(None, 1).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(matches!(error, StoreError::Throttled { .. }), fate == Fate::Throttled, "{error:?}");
            let text = format!("{error} {error:?}");
            assert!(text.contains(expected) || fate == Fate::Throttled, "{text}");
            assert!(!text.contains("canary"), "{text}");
        }
    }
}

/// Every third call fails, every fifth is lost after its effect, every seventh is slow.
#[tokio::test]
async fn errors_delays_and_lost_answers_end_well() {
    let moto = Moto::start().await;
    let proxy = Proxy::start(&moto.endpoint).await;
    let place = Place::on(&proxy.endpoint);
    let store = place.fresh();
    proxy.judge(|number, _| match number {
        n if n % 5 == 4 => Fate::AnswerLost,
        n if n % 3 == 2 => Fate::Fails,
        n if n % 7 == 6 => Fate::Delayed(Duration::from_millis(700)),
        _ => Fate::Passes,
    });
    rotate(&place, &store, &slot(), 3).await;
    assert!(proxy.calls().len() > 60);
}

/// Reads count and never wait, so writes make room for them; what fails counts as well, however often it is said again.
#[tokio::test]
async fn a_quota_is_kept_with_all_repetitions() {
    const CALLS: usize = 30;
    let moto = Moto::start().await;
    let proxy = Proxy::start(&moto.endpoint).await;
    let place = Place::on(&proxy.endpoint);
    let store = place.paced(StoreShare::new(CALLS as u32, Duration::from_secs(1)));
    proxy.judge(|number, _| if number % 13 == 5 { Fate::Fails } else { Fate::Passes });
    for value in 1..=4 {
        let (new, old) = (version(value), (value > 1).then(|| version(value - 1)));
        insist(async || store.put_pending(&slot(), &new, &bytes(new.as_str())).await).await;
        insist(async || store.promote(&slot(), &new, old.as_ref()).await).await;
    }
    let written: Vec<Instant> = proxy.calls().into_iter().filter(|(_, name)| is_write(name)).map(|(at, _)| at).collect();
    let most =
        written.iter().map(|from| written.iter().filter(|at| *at >= from && at.duration_since(*from) < Duration::from_secs(1)).count());
    let most = most.max().unwrap_or_default();
    assert!(most <= CALLS, "{most} writes within a second");
    assert!(written.len() > 20, "{} writes", written.len());
}

/// A connection that hangs is given up in time, and what was asked is asked again.
#[tokio::test]
async fn a_call_that_hangs_is_given_up() {
    let moto = Moto::start().await;
    let proxy = Proxy::start(&moto.endpoint).await;
    let store = Place::on(&proxy.endpoint).fresh();
    proxy.judge(|_, _| Fate::Delayed(Duration::from_secs(120)));
    let start = Instant::now();
    assert!(matches!(store.stages(&slot()).await, Err(StoreError::Unavailable("it didn't answer in time"))));
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    proxy.judge(|number, _| if number == 0 { Fate::Delayed(Duration::from_secs(120)) } else { Fate::Passes });
    let start = Instant::now();
    store.stages(&slot()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(12), "the second attempt is answered: {:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_that_was_away_is_used_again() {
    let mut moto = Moto::start().await;
    let place = Place::on(&moto.endpoint);
    let store = place.fresh();
    store.put_pending(&slot(), &version(1), &bytes("v1")).await.unwrap();
    store.promote(&slot(), &version(1), None).await.unwrap();
    moto.stop().await;
    for outcome in [store.stages(&slot()).await.map(drop), store.put_pending(&slot(), &version(2), &bytes("v2")).await] {
        assert!(matches!(outcome, Err(StoreError::Unavailable("no connection"))), "{outcome:?}");
    }
    moto.again().await;
    store.put_pending(&slot(), &version(2), &bytes("v2")).await.unwrap();
    store.promote(&slot(), &version(2), Some(&version(1))).await.unwrap();
    assert!(place.see(&slot(), Some("AWSCURRENT")).await.unwrap().same_as(&bytes("v2").served));
}
