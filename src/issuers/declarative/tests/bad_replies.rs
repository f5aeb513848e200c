//! Replies that are huge, slow, garbled, cut off, redirected, or that echo our secret: an own kind each, and nothing of the body.

use std::time::Duration;

use rstest::rstest;

use super::raw::{Answer, Raw, json, reply};
use super::{NEW_SECRET, SECRET, TOKEN, acting, issuer, quick, request};
use crate::issuers::{Issuer, IssuerError};

/// No window of eight bytes of a secret, raw, in base64 or in hex.
fn assert_clean(error: &IssuerError) {
    let printed = format!("{error} {error:?} {error:#?}");
    for secret in [SECRET, NEW_SECRET, TOKEN, "management-token"] {
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, secret);
        for form in [secret.to_owned(), base64, hex::encode(secret)] {
            for window in form.as_bytes().windows(8) {
                assert!(!printed.contains(std::str::from_utf8(window).unwrap()), "{printed}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "the provider's answer tells nothing")]
fn the_scan_for_secrets_finds_one() {
    assert_clean(&IssuerError::Unclear("9Tt, and then mXv9TtB4 with more"));
}

async fn create_error(answer: Answer) -> IssuerError {
    let raw = Raw::always(answer).await;
    let error = issuer(Duration::from_secs(2)).create(&raw.target(), &acting(), &request()).await.unwrap_err();
    assert_clean(&error);
    let creates = raw.requests().iter().filter(|text| text.starts_with("POST /v3/auth/credentials")).count();
    assert_eq!(creates, 1, "sent once, and never again by us");
    error
}

fn minted_json(id: &str, secret: &str) -> String {
    format!("{{\"client_id\":{id},\"client_secret\":{secret},\"created_at\":1800000000,\"expires_at\":null}}")
}

#[rstest]
#[case::huge(Answer::Bytes(reply(201, &[], &vec![b' '; 300_000])), "it is too large")]
#[case::huge_unannounced(Answer::Bytes(endless()), "it is too large")]
#[case::slow_head(Answer::Hang(Vec::new()), "it takes too long")]
#[case::slow_body(Answer::Hang(b"HTTP/1.1 201 X\r\ncontent-length: 100\r\n\r\n{".to_vec()), "it takes too long")]
#[case::closed(Answer::Close, "the connection ended before it came")]
#[case::cut_off(Answer::Bytes(b"HTTP/1.1 201 X\r\ncontent-length: 100\r\n\r\n{\"client_id\"".to_vec()), "the connection ended before it came")]
#[case::no_http(Answer::Bytes(format!("{SECRET} is no HTTP\r\n\r\n").into_bytes()), "the connection ended before it came")]
#[case::not_utf8(Answer::Bytes(reply(201, &[], b"{\"client_id\":\"\xff\xfe\"}")), "it isn't UTF-8")]
#[case::not_json(Answer::Bytes(reply(201, &[], SECRET.as_bytes())), "it isn't JSON")]
#[case::too_deep(Answer::Bytes(reply(201, &[], "[".repeat(5000).as_bytes())), "it isn't JSON")]
#[case::empty(Answer::Bytes(reply(201, &[], b"")), "it is empty")]
#[case::redirect(Answer::Bytes(json(302, &[("location", "/v3/auth/elsewhere")], "{}")), "it is a redirect, and none is followed")]
#[case::redirect_away(Answer::Bytes(json(307, &[("location", "http://169.254.169.254/")], "{}")), "it is a redirect, and none is followed")]
#[case::echo(Answer::Bytes(json(500, &[], &format!("{{\"detail\":\"Basic {SECRET} {TOKEN}\"}}"))), "it is a failure of the provider's own")]
#[case::unknown(Answer::Bytes(json(418, &[], "{}")), "no rule of the description fits it")]
#[tokio::test]
async fn a_reply_that_tells_nothing_is_unclear(#[case] answer: Answer, #[case] why: &'static str) {
    let error = create_error(answer).await;
    assert_eq!(error, IssuerError::Unclear(why));
    assert!(!error.had_no_effect());
}

fn endless() -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 201 X\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..80 {
        bytes.extend_from_slice(format!("1000\r\n{}\r\n", " ".repeat(4096)).as_bytes());
    }
    bytes
}

#[rstest]
#[case::empty(minted_json("\"new\"", "\"\""))]
#[case::placeholder(minted_json("\"new\"", "\"********\""))]
#[case::redacted(minted_json("\"new\"", "\"[REDACTED]\""))]
#[case::shortened(minted_json("\"new\"", "\"dinie_cs_live_Jd5F...\""))]
#[case::null(minted_json("\"new\"", "null"))]
#[case::no_text(minted_json("\"new\"", "17"))]
#[case::too_long(minted_json("\"new\"", &format!("\"{}\"", "a".repeat(70_000))))]
#[case::no_id(minted_json("null", &format!("\"{NEW_SECRET}\"")))]
#[case::bad_id(minted_json("\"a b\"", &format!("\"{NEW_SECRET}\"")))]
#[case::bad_end(minted_json("\"new\"", &format!("\"{NEW_SECRET}\"")).replace("null", "\"soon\""))]
#[case::nothing("{}".to_owned())]
#[case::no_object("[1]".to_owned())]
#[tokio::test]
async fn a_value_that_cannot_be_one_is_refused(#[case] body: String) {
    let error = create_error(Answer::Bytes(json(201, &[], &body))).await;
    assert_eq!(error, IssuerError::BadValue);
    assert!(!error.had_no_effect());
}

const DATE: (&str, &str) = ("Date", "Sun, 06 Nov 1994 08:49:00 GMT");

#[rstest]
#[case::seconds(&[("Retry-After", "7")], Some(7))]
#[case::date(&[DATE, ("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT")], Some(37))]
#[case::date_past(&[DATE, ("Retry-After", "Sun, 06 Nov 1994 08:00:00 GMT")], Some(0))]
#[case::reset_delta(&[("X-RateLimit-Reset", "12")], Some(12))]
#[case::reset_epoch(&[("Date", "Fri, 15 Jan 2027 08:00:00 GMT"), ("X-RateLimit-Reset", "1800000021")], Some(21))]
#[case::both(&[("Retry-After", "3"), ("X-RateLimit-Reset", "12")], Some(3))]
#[case::for_ever(&[("Retry-After", "999999999")], Some(86_400))]
#[case::nonsense(&[("Retry-After", "later")], None)]
#[case::silent(&[], None)]
#[tokio::test]
async fn a_throttled_call_says_how_long(#[case] headers: &[(&str, &str)], #[case] seconds: Option<u64>) {
    let error = create_error(Answer::Bytes(json(429, headers, "not even JSON"))).await;
    assert_eq!(error, IssuerError::Throttled { retry_after: seconds.map(Duration::from_secs) });
    assert!(error.had_no_effect());
}

#[rstest]
#[case(401, IssuerError::Unauthenticated)]
#[case(403, IssuerError::Refused { status: 403 })]
#[case(422, IssuerError::Refused { status: 422 })]
#[tokio::test]
async fn a_refusal_is_a_refusal_whatever_its_body(#[case] status: u16, #[case] expected: IssuerError) {
    for body in [format!("{{\"detail\":\"{SECRET}\"}}"), SECRET.to_owned(), String::new()] {
        assert_eq!(create_error(Answer::Bytes(json(status, &[], &body))).await, expected);
    }
}

#[rstest]
#[case::closed(Answer::Close)]
#[case::failing(Answer::Bytes(json(500, &[], SECRET)))]
#[case::garbage(Answer::Bytes(reply(200, &[], b"\xff")))]
#[case::no_token(Answer::Bytes(json(200, &[], "{}")))]
#[case::placeholder(Answer::Bytes(json(200, &[], "{\"access_token\":\"<redacted>\"}")))]
#[case::unprintable(Answer::Bytes(json(200, &[], "{\"access_token\":\"a\\r\\nb\"}")))]
#[tokio::test]
async fn a_token_call_that_tells_nothing_left_the_create_unsent(#[case] answer: Answer) {
    let raw = Raw::start(move |_| Some(answer.clone())).await;
    let error = quick().create(&raw.target(), &acting(), &request()).await.unwrap_err();
    assert_eq!(error, IssuerError::Unreachable("the token endpoint's answer tells nothing"));
    assert!(error.had_no_effect());
    assert_clean(&error);
    assert!(raw.requests().iter().all(|text| text.contains("/auth/token")));
    assert!(matches!(quick().is_dead(&raw.target(), &acting()).await, Err(IssuerError::Unclear(_))), "of the key itself it tells nothing");
}

#[tokio::test]
async fn a_token_call_that_is_refused_names_the_key() {
    for (status, expected) in [(401, IssuerError::Unauthenticated), (429, IssuerError::Throttled { retry_after: None })] {
        let raw = Raw::start(move |_| Some(Answer::Bytes(json(status, &[], "{}")))).await;
        assert_eq!(quick().create(&raw.target(), &acting(), &request()).await.unwrap_err(), expected);
    }
}
