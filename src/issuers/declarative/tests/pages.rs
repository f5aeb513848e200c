//! Lists in pages: whole, or an error.

use super::raw::{Answer, Raw, json};
use super::{acting, quick};
use crate::issuers::{Issuer, IssuerError};

fn item(number: u32) -> String {
    format!(
        "{{\"id\":\"c{number}\",\"client_id\":\"ci_{number}\",\"name\":null,\"status\":\"active\",\"created_at\":\"2026-01-01T00:00:00Z\"}}"
    )
}

fn page(items: &[String], more: &str) -> Answer {
    Answer::Bytes(json(200, &[], &format!("{{\"data\":[{}],\"has_more\":{more}}}", items.join(","))))
}

#[tokio::test]
async fn pages_are_followed_to_their_end() {
    let raw = Raw::start(|request| {
        let line = request.lines().next()?;
        if !line.starts_with("GET") {
            return None;
        }
        Some(match line {
            _ if line.contains("starting_after=c4") => page(&[item(5)], "false"),
            _ if line.contains("starting_after=c2") => page(&[item(3), item(4)], "true"),
            _ => page(&[item(1), item(2)], "true"),
        })
    })
    .await;
    let keys = quick().list(&raw.target(), &acting()).await.unwrap();
    let ids: Vec<&str> = keys.iter().map(|key| key.key_id.as_str()).collect();
    assert_eq!(ids, ["ci_1", "ci_2", "ci_3", "ci_4", "ci_5"]);
    assert_eq!(raw.requests().len(), 4, "one token, three pages");
    assert!(raw.requests().iter().skip(1).all(|text| text.contains("limit=100")));
}

/// The documentation names the parameter and not the member: a provider that goes by the other id is listed whole, too,
/// whatever it does with a cursor that it doesn't know.
#[tokio::test]
async fn a_cursor_that_the_provider_does_not_go_by_is_replaced_by_the_next() {
    let unknown: [fn() -> Answer; 3] =
        [|| Answer::Bytes(json(400, &[], "{}")), || page(&[], "false"), || page(&[item(1), item(2)], "true")];
    for unknown in unknown {
        let raw = Raw::start(move |request| {
            let line = request.lines().next().filter(|line| line.starts_with("GET"))?;
            Some(match line {
                _ if line.contains("starting_after=ci_2") => page(&[item(3)], "false"),
                _ if line.contains("starting_after=") => unknown(),
                _ => page(&[item(1), item(2)], "true"),
            })
        })
        .await;
        let keys = quick().list(&raw.target(), &acting()).await.unwrap();
        assert_eq!(keys.len(), 3);
        assert_eq!(raw.requests().len(), 4, "one token, the first page, the cursor that isn't known, the one that is");
    }
}

#[tokio::test]
async fn a_list_that_is_not_certainly_whole_is_an_error() {
    let no_progress = IssuerError::Unclear("the pages of the list repeat themselves");
    for (answer, expected) in [
        (page(&[item(1), item(2)], "true"), no_progress.clone()),
        (page(&[], "true"), no_progress.clone()),
        (page(&[item(1)], "null"), IssuerError::Unclear("it doesn't say whether the list goes on")),
        // Without an `id` there is still the other one to go on from.
        (page(&["{\"client_id\":\"a\",\"status\":\"active\"}".to_owned()], "true"), no_progress.clone()),
        (page(&["{\"status\":\"active\"}".to_owned()], "false"), IssuerError::Unclear("a key of the list has no id")),
        (page(&["{\"client_id\":\"a\"}".to_owned()], "false"), IssuerError::Unclear("a key of the list doesn't say whether it lives")),
        (
            page(&["{\"client_id\":\"a\",\"status\":\"active\",\"name\":7}".to_owned()], "false"),
            IssuerError::Unclear("the name of a key is no text"),
        ),
        (page(&[item(1), item(1)], "false"), no_progress),
        (Answer::Bytes(json(200, &[], "{}")), IssuerError::Unclear("it holds no list")),
        (Answer::Bytes(json(200, &[], "oops")), IssuerError::Unclear("it isn't JSON")),
        (Answer::Bytes(json(401, &[], "{}")), IssuerError::Unauthenticated),
    ] {
        let raw = Raw::always(answer).await;
        assert_eq!(quick().list(&raw.target(), &acting()).await, Err(expected));
    }
}

/// One page in ten that fails must not fail nine lists in ten.
#[tokio::test]
async fn a_page_that_tells_nothing_is_asked_for_again() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let raw = Raw::start(move |request| {
        let line = request.lines().next().filter(|line| line.starts_with("GET"))?;
        Some(match (asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed), line) {
            (0, _) => Answer::Bytes(json(500, &[], "{}")),
            (1, _) => Answer::Bytes(json(200, &[], "<html>")),
            (3, _) => Answer::Bytes(json(502, &[], "")),
            (_, line) if line.contains("starting_after=c2") => page(&[item(3)], "false"),
            _ => page(&[item(1), item(2)], "true"),
        })
    })
    .await;
    assert_eq!(quick().list(&raw.target(), &acting()).await.unwrap().len(), 3);
    let failing = Raw::always(Answer::Bytes(json(500, &[], "{}"))).await;
    assert!(quick().list(&failing.target(), &acting()).await.is_err());
    assert_eq!(failing.requests().len(), 5, "one token, four pages, and not for ever");
}

/// A provider that asks to wait a moment is obeyed without giving up the pages that are there already.
#[tokio::test]
async fn a_page_that_is_asked_to_wait_for_is_waited_for() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let raw = Raw::start(move |request| {
        let line = request.lines().next().filter(|line| line.starts_with("GET"))?;
        Some(match (asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed), line) {
            (1, _) => Answer::Bytes(json(429, &[("Retry-After", "1")], "{}")),
            (_, line) if line.contains("starting_after=c2") => page(&[item(3)], "false"),
            _ => page(&[item(1), item(2)], "true"),
        })
    })
    .await;
    let began = std::time::Instant::now();
    assert_eq!(super::issuer(std::time::Duration::from_secs(4)).list(&raw.target(), &acting()).await.unwrap().len(), 3);
    assert!(began.elapsed() >= std::time::Duration::from_secs(1), "no sooner than it asked for");
    assert_eq!(raw.requests().len(), 4, "one token, the first page, the second one twice");
}

/// An answer that is late is asked for a second time, and whichever comes first counts.
#[tokio::test]
async fn a_late_answer_costs_little() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let raw = Raw::start(move |request| {
        request.lines().next().filter(|line| line.starts_with("GET"))?;
        Some(match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Answer::Hang(Vec::new()),
            _ => page(&[item(1)], "false"),
        })
    })
    .await;
    // Had it waited for the first until its time was up, no time would be left to ask again.
    assert_eq!(quick().list(&raw.target(), &acting()).await.unwrap().len(), 1);
    assert_eq!(raw.requests().len(), 3, "one token, one page asked for twice");
}

#[tokio::test]
async fn a_list_without_end_ends() {
    let count = std::sync::atomic::AtomicU32::new(0);
    let raw = Raw::start(move |request| {
        let next = || count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        request.starts_with("GET").then(|| page(&[item(next())], "true"))
    })
    .await;
    let issuer = super::issuer(std::time::Duration::from_millis(400));
    let started = std::time::Instant::now();
    assert_eq!(issuer.list(&raw.target(), &acting()).await, Err(IssuerError::Unclear("the pages of the list don't come to an end")));
    assert!(started.elapsed().as_secs() < 10 && raw.requests().len() <= 1001);
}
