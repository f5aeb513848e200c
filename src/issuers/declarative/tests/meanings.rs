//! What answers mean for each call: probes, creates, revocations, and what metrics see.

use std::sync::atomic::{AtomicU32, Ordering};

use jiff::Timestamp;
use rstest::rstest;

use super::raw::{Answer, Raw, json};
use super::{NEW_SECRET, TOKEN, acting, pair, quick, request};
use crate::domain::ledger::Closure;
use crate::domain::provider::{Authentication, Create, Meaning, Method, Provider};
use crate::issuers::fixtures::{self, call, field, rules};
use crate::issuers::{Issuer, IssuerError, ProbeOutcome, ProbeReport, Revocation};

fn bytes(status: u16, body: &str) -> Answer {
    Answer::Bytes(json(status, &[("Date", "Fri, 15 Jan 2027 08:00:00 GMT")], body))
}

#[rstest]
#[case(200, ProbeOutcome::Works, true)]
#[case(403, ProbeOutcome::Narrow, true)]
#[case(401, ProbeOutcome::Dead, false)]
#[tokio::test]
async fn a_probe_is_the_token_call_and_then_the_probe_call(#[case] status: u16, #[case] outcome: ProbeOutcome, #[case] proves: bool) {
    let raw = Raw::always(bytes(status, "{}")).await;
    let report = quick().probe(&raw.target(), &acting()).await.unwrap();
    let provider_time = Some("2027-01-15T08:00:00Z".parse().unwrap());
    assert_eq!(report, ProbeReport { outcome, proves_environment: proves, provider_time });
    let requests = raw.requests();
    assert!(requests[0].starts_with("POST /v3/auth/token ") && requests[0].contains("grant_type=client_credentials"));
    assert!(requests[1].starts_with("GET /v3/auth/credentials?limit=1 ") && requests[1].contains(&format!("Bearer {TOKEN}")));
}

#[tokio::test]
async fn a_dead_token_call_ends_the_probe() {
    let raw = Raw::start(|_| Some(bytes(401, ""))).await;
    let report = quick().probe(&raw.target(), &acting()).await.unwrap();
    assert_eq!((report.outcome, report.proves_environment, raw.requests().len()), (ProbeOutcome::Dead, false, 1));
    assert!(quick().is_dead(&raw.target(), &acting()).await.unwrap());
}

#[tokio::test]
async fn a_probe_that_decides_nothing_is_an_error() {
    for (answer, expected) in [
        (bytes(500, "{}"), IssuerError::Unclear("it is a failure of the provider's own")),
        (bytes(200, "<html>"), IssuerError::Unclear("it isn't JSON")),
        (bytes(429, "{}"), IssuerError::Throttled { retry_after: None }),
    ] {
        let raw = Raw::always(answer).await;
        assert_eq!(quick().probe(&raw.target(), &acting()).await, Err(expected));
    }
    let mute = Provider { calls: Default::default(), ..fixtures::dinie() };
    let raw = Raw::start(|_| None).await;
    assert!(matches!(quick().probe(&raw.target_of(mute), &acting()).await, Err(IssuerError::Impossible(_))));
}

#[tokio::test]
async fn rules_look_at_the_body_where_they_say_so() {
    for (status, body, outcome) in [
        (400, "{\"error\":\"invalid_client\"}", Some(ProbeOutcome::Dead)),
        (401, "{\"error\":\"other\"}", Some(ProbeOutcome::Dead)),
        (401, "", Some(ProbeOutcome::Dead)),
        (400, "{\"error\":\"unauthorized_client\"}", Some(ProbeOutcome::Narrow)),
        (400, "{\"error\":\"invalid_request\"}", None),
        (400, "invalid_client", None),
        (200, "{\"access_token\":\"a-token-that-works\"}", Some(ProbeOutcome::Works)),
    ] {
        let raw = Raw::start(move |_| Some(bytes(status, body))).await;
        let report = quick().probe(&raw.target_of(fixtures::oauth_registration()), &acting()).await;
        assert_eq!(report.ok().map(|report| report.outcome), outcome, "{status} {body}");
    }
}

#[tokio::test]
async fn a_body_that_broke_leaves_a_rule_over_the_body_undecided() {
    let broken = Answer::Bytes(b"HTTP/1.1 401 X\r\ncontent-length: 100\r\n\r\n{".to_vec());
    let raw = Raw::start(move |_| Some(broken.clone())).await;
    let answer = quick().is_dead(&raw.target_of(fixtures::oauth_registration()), &acting()).await;
    assert!(matches!(answer, Err(IssuerError::Unclear(_))), "{answer:?}");
}

#[tokio::test]
async fn the_wrong_environment_is_neither_alive_nor_dead() {
    let mut provider = fixtures::dinie();
    provider.calls.token = None;
    let bearer = Authentication::Bearer { field: field("client_secret") };
    provider.calls.probe = Some(call(Method::Get, "/me", bearer, rules(&[(&[400], Meaning::WrongEnvironment)])));
    let raw = Raw::start(|_| Some(bytes(400, "{}"))).await;
    let target = raw.target_of(provider);
    assert_eq!(quick().probe(&target, &acting()).await.unwrap().outcome, ProbeOutcome::WrongEnvironment);
    assert!(quick().is_dead(&target, &acting()).await.is_err());
}

#[tokio::test]
async fn a_new_key_has_its_own_fields_and_those_it_keeps() {
    let ids = "\"client_id\":\"dinie_ci_test_new\"";
    let body = format!("{{{ids},\"client_secret\":\"{NEW_SECRET}\",\"created_at\":\"2026-01-01T00:00:00Z\",\"expires_at\":1800000000000}}");
    let raw = Raw::always(bytes(201, &body)).await;
    let mut provider = fixtures::dinie();
    let kept = provider.fields[&field("client_id")].clone();
    provider.fields.insert(field("client_token"), kept);
    let management = fixtures::oauth_registration().fields[&field("registration_access_token")].clone();
    provider.fields.insert(field("registration_access_token"), management);
    let mut current = acting();
    for name in ["client_token", "registration_access_token", "unknown"] {
        current.insert(field(name), crate::domain::material::Secret::from("carried-over-or-not".to_owned()));
    }
    let minted = quick().create(&raw.target_of(provider), &current, &request()).await.unwrap();
    let mut expected = pair("dinie_ci_test_new", NEW_SECRET);
    expected.insert(field("client_token"), crate::domain::material::Secret::from("carried-over-or-not".to_owned()));
    assert!(minted.material.same_as(&expected));
    assert_eq!(minted.key_id.as_str(), "dinie_ci_test_new");
    assert_eq!(minted.issued_at, Some("2026-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(minted.expires_at, Some(Timestamp::from_second(1_800_000_000).unwrap()));
    let sent = raw.requests().pop().unwrap();
    let operation = request().operation.to_string();
    assert!(
        sent.contains(&format!("\r\nidempotency-key: {operation}\r\n"))
            && sent.contains(&format!("\r\nx-idempotency-key: {operation}\r\n"))
    );
    assert!(sent.ends_with("{\"name\":\"kw-7-dinie-sandbox-2-1\"}"), "{sent}");
}

#[tokio::test]
async fn no_free_slot_and_narrow_creates_have_their_own_errors() {
    for (meaning, expected) in [(Meaning::Full, IssuerError::Full), (Meaning::Narrow, IssuerError::Refused { status: 409 })] {
        let mut provider = fixtures::dinie();
        let create = provider.calls.create.take().unwrap();
        let described = crate::domain::provider::Call { rules: rules(&[(&[409], meaning)]), ..create.call.clone() };
        provider.calls.create = Some(Create { call: described, ..create });
        let raw = Raw::always(bytes(409, "{}")).await;
        assert_eq!(quick().create(&raw.target_of(provider), &acting(), &request()).await.unwrap_err(), expected);
    }
}

/// How the doomed key looks after the revocation: at the token endpoint, and in the list.
#[rstest]
#[case::dead(204, Some(401), "[]", Ok(Closure::Proved))]
#[case::gone_and_dead(404, Some(401), "[]", Ok(Closure::Proved))]
#[case::listed_dead(204, None, "[{\"client_id\":\"old\",\"status\":\"revoked\"}]", Ok(Closure::Reported))]
#[case::absent(204, None, "[]", Ok(Closure::Reported))]
#[case::gone_and_absent(404, None, "[]", Ok(Closure::Reported))]
#[case::lives(
    204,
    Some(200),
    "[{\"client_id\":\"old\",\"status\":\"active\"}]",
    Err(IssuerError::Unclear("the key is still listed as living"))
)]
#[case::gone_yet_listed(
    404,
    None,
    "[{\"client_id\":\"old\",\"status\":\"active\"}]",
    Err(IssuerError::Unclear("the key is still listed as living"))
)]
#[case::lags(204, Some(200), "[]", Ok(Closure::Reported))]
#[case::list_tells_nothing(204, None, "7", Ok(Closure::Unproved))]
#[case::nothing_tells(404, None, "7", Err(IssuerError::Unclear("the key isn't there, and nothing tells what became of it")))]
#[case::lives_unlisted(204, Some(200), "7", Err(IssuerError::Unclear("the key is still accepted")))]
#[case::later(204, Some(429), "7", Err(IssuerError::Unclear("whether the key is dead can't be asked now")))]
#[case::failed(500, Some(401), "[]", Err(IssuerError::Unclear("it is a failure of the provider's own")))]
#[case::unauthenticated(401, Some(401), "[]", Err(IssuerError::Unauthenticated))]
#[tokio::test]
async fn a_revocation_closes_as_what_is_known(
    #[case] status: u16,
    #[case] token: Option<u16>,
    #[case] listed: &'static str,
    #[case] expected: Result<Closure, IssuerError>,
) {
    let doomed = pair("old", "an_older_secret_0123456789");
    let mark = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "old:an_older_secret_0123456789");
    let raw = Raw::start(move |request| {
        Some(match request {
            _ if request.starts_with("DELETE") => bytes(status, ""),
            _ if request.starts_with("GET") => bytes(200, &format!("{{\"data\":{listed},\"has_more\":false}}")),
            _ if request.contains(&mark) => bytes(token.unwrap_or(401), &format!("{{\"access_token\":\"{TOKEN}\"}}")),
            _ => return None,
        })
    })
    .await;
    let issuer = super::issuer(std::time::Duration::from_millis(800));
    let answer = issuer.revoke(&raw.target(), &acting(), &"old".parse().unwrap(), token.map(|_| &doomed)).await;
    assert_eq!(answer, expected.map(|closure| Revocation { closure }));
}

#[tokio::test]
async fn a_replica_that_lags_is_asked_again() {
    let looks = AtomicU32::new(0);
    let raw = Raw::start(move |request| {
        if request.starts_with("DELETE") {
            return Some(bytes(204, ""));
        }
        let late = request.contains("grant_type") && looks.fetch_add(1, Ordering::Relaxed) > 2;
        late.then(|| bytes(401, ""))
    })
    .await;
    let doomed = pair("old", "an_older_secret_0123456789");
    let answer = quick().revoke(&raw.target(), &acting(), &"old".parse().unwrap(), Some(&doomed)).await;
    assert_eq!(answer, Ok(Revocation { closure: Closure::Proved }));
}

#[tokio::test]
async fn a_key_is_never_signed_away_by_itself() {
    let raw = Raw::start(|_| None).await;
    let issuer = quick();
    let by_id = issuer.revoke(&raw.target(), &acting(), &"dinie_ci_test_current".parse().unwrap(), None).await;
    let by_secret = issuer.revoke(&raw.target(), &acting(), &"other".parse().unwrap(), Some(&pair("other", super::SECRET))).await;
    for answer in [by_id, by_secret] {
        assert_eq!(answer, Err(IssuerError::Impossible("the key that signs is the one that would be revoked")));
    }
    assert!(raw.requests().is_empty());
}

#[tokio::test]
async fn metrics_see_quotas_and_outcomes() {
    let raw = Raw::always(Answer::Bytes(json(200, &[("X-RateLimit-Remaining", "41"), ("X-RateLimit-Reset", "30")], "{}"))).await;
    let issuer = quick();
    issuer.probe(&raw.target(), &acting()).await.unwrap();
    let limits = issuer.limits();
    assert_eq!((limits.len(), limits[0].remaining, limits[0].reset.unwrap().as_secs()), (1, 41, 30));
    assert!(raw.url.contains(&limits[0].host));
    let counts: Vec<_> = issuer.requests().iter().map(|count| (count.call, count.outcome, count.count)).collect();
    assert_eq!(counts, [("probe", "2xx", 1), ("token", "2xx", 1)]);
}
