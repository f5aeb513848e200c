//! Our share of the quota, and the breaker, counted at the provider.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::raw::{Answer, Raw, json};
use super::{acting, issuer, request};
use crate::domain::provider::{Limits, Provider, Quota};
use crate::issuers::{BreakerState, Issuer, IssuerError, Target, fixtures};

fn with_quota(calls: u32, per: Duration) -> Provider {
    let dinie = fixtures::dinie();
    Provider { limits: Limits { quota: Some(Quota { calls, per }), ..dinie.limits.clone() }, ..dinie }
}

fn ok_with(headers: &[(&str, &str)]) -> Answer {
    Answer::Bytes(json(200, headers, "{\"data\":[],\"has_more\":false}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_and_second_looks_count_and_stay_within_the_share() {
    let per = Duration::from_secs(2);
    let (times, count) = (Arc::new(Mutex::new(Vec::new())), AtomicU32::new(0));
    let log = times.clone();
    let raw = Raw::start(move |_| {
        log.lock().unwrap().push(Instant::now());
        // Each third answer fails, so that it is asked for again.
        (count.fetch_add(1, Ordering::Relaxed) % 3 == 2).then(|| Answer::Bytes(json(500, &[], "{}")))
    })
    .await;
    let (issuer, target) = (Arc::new(issuer(Duration::from_secs(4))), raw.target_of(with_quota(40, per)));
    let tasks = (0..12).map(|_| {
        let (issuer, target) = (issuer.clone(), target.clone());
        tokio::spawn(async move { issuer.is_dead(&target, &acting()).await })
    });
    let mut known = 0;
    for task in tasks.collect::<Vec<_>>() {
        known += u32::from(task.await.unwrap().is_ok());
    }
    let times = times.lock().unwrap().clone();
    // What is sent in time may arrive a little closer together.
    let window = per - Duration::from_millis(200);
    let within = |start: &Instant| times.iter().filter(|time| **time >= *start && **time < *start + window).count();
    let most = times.iter().map(within).max().unwrap();
    assert!(known >= 8 && times.len() > 12, "{known} answers of {} requests", times.len());
    assert!(most <= 20, "{most} of 40 within {per:?}: our share is half");
}

#[tokio::test]
async fn a_call_that_would_wait_for_long_is_not_sent_and_says_when() {
    let raw = Raw::start(|_| None).await;
    let (issuer, target) = (issuer(Duration::from_secs(1)), raw.target_of(with_quota(8, Duration::from_secs(600))));
    for _ in 0..2 {
        assert_eq!(issuer.probe(&target, &acting()).await.unwrap_err(), IssuerError::Unclear("no rule of the description fits it"));
    }
    let sent = raw.requests().len();
    assert_eq!(sent, 4, "two tokens, two probes");
    let began = Instant::now();
    let error = issuer.create(&target, &acting(), &request()).await.unwrap_err();
    let IssuerError::Throttled { retry_after: Some(wait) } = error else { panic!("{error}") };
    assert!(wait > Duration::from_secs(500) && began.elapsed() < Duration::from_millis(500), "{wait:?}");
    assert_eq!(raw.requests().len(), sent, "not even the token, which would have been fetched in vain");
    let elsewhere = Target { account: "another".parse().unwrap(), ..target };
    let _not_found = issuer.create(&elsewhere, &acting(), &request()).await;
    assert_eq!(raw.requests().len(), sent + 2, "another account has its own quota");
}

#[tokio::test]
async fn what_creates_never_waits_for_its_turn() {
    let open = fixtures::oauth_registration();
    let limits = Limits { quota: Some(Quota { calls: 8, per: Duration::from_secs(2) }), ..Limits::default() };
    let raw = Raw::start(|_| Some(Answer::Bytes(json(404, &[], "{}")))).await;
    let (issuer, target) = (issuer(Duration::from_secs(10)), raw.target_of(Provider { limits, ..open }));
    for _ in 0..4 {
        assert_eq!(issuer.create(&target, &acting(), &request()).await.unwrap_err(), IssuerError::Refused { status: 404 });
    }
    // A question would wait for two seconds.
    let error = issuer.create(&target, &acting(), &request()).await.unwrap_err();
    assert!(matches!(error, IssuerError::Throttled { retry_after: Some(wait) } if wait <= Duration::from_secs(2)), "{error}");
    assert_eq!(raw.requests().len(), 4);
}

#[tokio::test]
async fn what_is_left_for_others_is_not_touched_and_what_was_begun_goes_on() {
    let scarce = [("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "49"), ("x-ratelimit-reset", "30")];
    let raw = Raw::start(move |request| {
        let token = format!("{{\"access_token\":\"{}\"}}", super::TOKEN);
        Some(if request.contains("/auth/token") { Answer::Bytes(json(200, &scarce, &token)) } else { ok_with(&scarce) })
    })
    .await;
    let (issuer, target) = (issuer(Duration::from_secs(2)), raw.target());
    issuer.probe(&target, &acting()).await.unwrap();
    assert_eq!(raw.requests().len(), 2, "the token's answer told that little is left, and the probe was made all the same");
    for _ in 0..2 {
        let error = issuer.probe(&target, &acting()).await.unwrap_err();
        assert!(matches!(error, IssuerError::Throttled { retry_after: Some(wait) } if wait > Duration::from_secs(25)), "{error}");
    }
    assert_eq!(raw.requests().len(), 2);
    let elsewhere = Target { account: "another".parse().unwrap(), ..target };
    issuer.probe(&elsewhere, &acting()).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_fails_is_left_alone_and_tried_with_one_call() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let raw = Raw::start(move |_| (!is_well.load(Ordering::Relaxed)).then(|| Answer::Bytes(json(503, &[], "{}")))).await;
    let (issuer, target) = (issuer(Duration::from_secs(1)), raw.target());
    let state = |issuer: &super::DeclarativeIssuer| issuer.health()[0].breaker;
    while issuer.health().is_empty() || state(&issuer) == BreakerState::Closed {
        issuer.is_dead(&target, &acting()).await.unwrap_err();
    }
    assert_eq!(raw.requests().len(), 10, "ten in a row, and not one more");
    assert!(matches!(issuer.is_dead(&target, &acting()).await, Err(IssuerError::Unreachable(_))), "it certainly wasn't sent");
    assert_eq!(raw.requests().len(), 10);
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    issuer.is_dead(&target, &acting()).await.unwrap_err();
    assert_eq!((raw.requests().len(), state(&issuer)), (11, BreakerState::Open), "one call tried");
    well.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert_eq!(issuer.is_dead(&target, &acting()).await, Ok(false));
    assert_eq!(state(&issuer), BreakerState::Closed);
}

#[tokio::test]
async fn refusals_are_answers() {
    for status in [400, 401, 404, 422, 429] {
        let raw = Raw::always(Answer::Bytes(json(status, &[], "{}"))).await;
        let issuer = issuer(Duration::from_secs(4));
        for _ in 0..15 {
            issuer.create(&raw.target(), &acting(), &request()).await.unwrap_err();
        }
        assert_eq!(issuer.health()[0].breaker, BreakerState::Closed, "{status}");
        assert_eq!(raw.requests().len(), 30, "{status}");
    }
}
