//! Bad input: each row of the table that concerns names, headers and bodies.

use super::*;
use crate::api::body::BODY_MAX;

#[tokio::test]
async fn names_are_never_normalised() {
    let it = start(quick()).await;
    for path in [
        "/v1/credentials/..",
        "/v1/credentials/./one",
        "/v1/credentials/../credentials/one",
        "//v1/credentials/one",
        "/v1//credentials/one",
        "/v1/credentials/one/",
        "/v1/credentials/a%2fb",
        "/v1/credentials/%00",
        "/v1/credentials/%6fne",
        "/v1/credentials/ONE",
        "/v1/credentials/o_ne",
        "/v1/credentials/-one",
        "/v1/credentials/é",
        "/v1/credentials/one|two",
        "/v1/status/ONE",
        "/v1/status/a.b",
    ] {
        it.get(BOSS, path).await.refused(400, "bad-name");
    }
    let long = "a".repeat(64);
    it.get(BOSS, &format!("/v1/credentials/{long}")).await.refused(400, "bad-name");
    it.get(BOSS, "/v1/events?credentials=../one").await.refused(400, "bad-name");
    it.call(BOSS, "DELETE /v1/applications/app/instances/..", "", "").await.refused(400, "bad-name");
    it.call(BOSS, "DELETE /v1/applications/APP/instances/a", "", "").await.refused(400, "bad-name");
    // These never reach a handler, and are answered in our form all the same.
    for path in [&b"/v1/credentials/\x01"[..], b"/v1/credentials/a b", b"/v1/credentials/\x7f", b"/v1/credentials/\xff\xfe"] {
        let reply = it.raw([b"GET ", path, b" HTTP/1.1\r\nhost: x\r\nauthorization: Bearer boss-token\r\n\r\n"].concat()).await;
        assert_eq!(reply.status, 400);
        assert!(["bad-name", "bad-request"].contains(&reply.slug().as_str()));
    }
    assert!(it.fake.log().is_empty());
}

#[tokio::test]
async fn ambiguous_and_forwarded_headers_are_refused() {
    let it = start(quick()).await;
    for (headers, slug) in [
        ("authorization: Bearer app-token\r\n", "bad-request"),
        ("keywright-instance: a\r\nkeywright-instance: a\r\n", "bad-request"),
        ("keywright-instance: a b\r\n", "bad-request"),
        ("keywright-instance: \r\n", "bad-request"),
        ("keywright-instance: \u{e9}\r\n", "bad-request"),
        ("forwarded: for=1.2.3.4\r\n", "forwarded"),
        ("x-forwarded-for: 1.2.3.4\r\n", "forwarded"),
        ("X-Forwarded-Proto: https\r\n", "forwarded"),
        ("x-forwarded-host: x\r\n", "forwarded"),
    ] {
        it.call(APP, "GET /v1/credentials/one", headers, "").await.refused(400, slug);
    }
    it.raw("GET http://x/v1/credentials/one HTTP/1.1\r\nhost: x\r\n\r\n").await.refused(400, "bad-request");
    it.raw("GET /healthz HTTP/1.1\r\nx-forwarded-for: a\r\n\r\n").await.refused(400, "forwarded");
}

#[tokio::test]
async fn query_parameters_are_known_and_given_once() {
    let it = start(quick()).await;
    for path in [
        "/v1/credentials/one?x=1",
        "/v1/credentials?limit=1",
        "/v1/status?limit=1&limit=1",
        "/v1/status?limit=0",
        "/v1/status?limit=1001",
        "/v1/status?limit",
        "/v1/status/one?limit=1",
        "/v1/plan?days=x",
        "/v1/plan?day=1",
        "/healthz?x=1",
        "/v1/events?credentials=one,one",
        "/v1/credentials/one/versions?after=v9",
    ] {
        it.get(BOSS, path).await.refused(400, "bad-request");
    }
}

#[tokio::test]
async fn both_lengths_at_once_end_the_connection() {
    let it = start(quick()).await;
    for order in ["content-length: 2\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 2\r\n"] {
        let mut stream = it.tcp().await;
        let head = format!(
            "POST /v1/credentials/one/rotations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {BOSS}\r\ncontent-type: application/json\r\n{order}\r\n"
        );
        let smuggled = request(BOSS, "GET /v1/status", "", "");
        stream.write_all(format!("{head}2\r\n{{}}\r\n0\r\n\r\n{smuggled}").as_bytes()).await.unwrap();
        let mut text = String::new();
        let _ = timeout(Duration::from_secs(3), stream.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    }
    assert!(!it.fake.log().iter().any(|line| line.starts_with("status")));
}

#[tokio::test]
async fn bodies_are_bounded_in_size() {
    let it = start(quick()).await;
    let line = "PUT /v1/credentials/one/submission";
    let fits = format!(r#"{{"fields":{{"a":"{}"}}}}"#, "a".repeat(BODY_MAX - 20));
    assert_eq!(it.send(BOSS, line, &fits).await.status, 201);
    it.send(BOSS, line, &"a".repeat(BODY_MAX + 1)).await.refused(413, "too-large");
    it.send(BOSS, line, &"a".repeat(4 * BODY_MAX)).await.refused(413, "too-large");
    // Said to be large, and not sent at all.
    let headers = "content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n";
    it.call(BOSS, line, headers, "").await.refused(413, "too-large");
    // Not said, and sent.
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    let chunked = format!(
        "{}{chunk}{chunk}{chunk}0\r\n\r\n",
        request(BOSS, line, "content-type: application/json\r\ntransfer-encoding: chunked\r\n", "")
    );
    it.raw(chunked).await.refused(413, "too-large");
    assert_eq!(it.fake.log().len(), 1);
}

#[tokio::test]
async fn bodies_are_json_and_nothing_else() {
    let it = start(quick()).await;
    let line = "PUT /v1/credentials/one/submission";
    let good = r#"{"fields":{"a":"b"}}"#;
    for kind in [
        "",
        "content-type: text/plain\r\n",
        "content-type: application/x-www-form-urlencoded\r\n",
        "content-type: application/json; charset=latin1\r\n",
    ] {
        it.call(BOSS, line, kind, good).await.refused(415, "media-type");
    }
    it.call(BOSS, line, "content-type: application/json\r\ncontent-type: text/plain\r\n", good).await.refused(400, "bad-request");
    assert_eq!(it.call(BOSS, line, "content-type: application/json; charset=utf-8\r\n", good).await.status, 201);
    let nested = format!(r#"{{"fields":{}{}}}"#, "[".repeat(20), "]".repeat(20));
    let deep = "[".repeat(100_000);
    for bad in [
        "{",
        "[]",
        "{}",
        "null",
        r#"{"fields":{"a":1}}"#,
        r#"{"fields":{"a":"1","a":"2"}}"#,
        r#"{"fields":{},"fields":{}}"#,
        r#"{"fields":{},"x":1}"#,
        r#"{"fields":{"A":"1"}}"#,
        r#"{"fields":{}} {}"#,
        r#"[{"a":"b"}]"#,
        &nested,
        &deep,
    ] {
        it.send(BOSS, line, bad).await.refused(400, "bad-request");
    }
    it.send(BOSS, "POST /v1/credentials/one/rotations", r#"{"compromised":"yes"}"#).await.refused(400, "bad-request");
    it.call(BOSS, "GET /v1/status", "", "{}").await.refused(400, "bad-request");
}

#[tokio::test]
async fn confirmations_are_strict() {
    let it = start(quick()).await;
    let body = |credential: &str, version: &str, field: &str| {
        format!(r#"{{"credential":"{credential}","version":"{version}","instance":"default","field":"{field}","proof":"00"}}"#)
    };
    for (bad, slug) in [
        (body("ONE", "v1", "a"), "bad-name"),
        (body("one", "../v1", "a"), "bad-name"),
        (body("one", "v1", "A"), "bad-request"),
        (r#"{"credential":"one"}"#.to_owned(), "bad-request"),
        (r#"["one","v1","default","a","00"]"#.to_owned(), "bad-request"),
    ] {
        it.send(APP, "POST /v1/confirmations", &bad).await.refused(400, slug);
    }
}

#[tokio::test]
async fn reports_are_strict() {
    let it = start(quick()).await;
    let body = |credential: &str, version: &str, outcome: &str| {
        format!(r#"{{"credential":"{credential}","version":"{version}","instance":"default","outcome":"{outcome}"}}"#)
    };
    for (bad, slug) in [
        (body("ONE", "v1", "failed"), "bad-name"),
        (body("one", "../v1", "failed"), "bad-name"),
        (body("one", "v1", "works"), "bad-request"),
        (body("one", "v1", ""), "bad-request"),
        (body("one", "v1", "failed").replace("outcome", "result"), "bad-request"),
        (body("one", "v1", "failed").replace('}', r#","why":"x"}"#), "bad-request"),
        (r#"["one","v1","default","failed"]"#.to_owned(), "bad-request"),
    ] {
        it.send(APP, "POST /v1/reports", &bad).await.refused(400, slug);
    }
}

#[tokio::test]
async fn slow_bodies_are_not_waited_for() {
    let it = start(quick()).await;
    let mut stream = it.tcp().await;
    let head = format!(
        "PUT /v1/credentials/one/submission HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {BOSS}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    exchange(&mut stream, head.as_bytes()).await.refused(408, "timeout");
}

#[tokio::test]
async fn slow_and_large_heads_are_not_waited_for() {
    let it = start(quick()).await;
    let mut stream = it.tcp().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: ").await.unwrap();
    let mut text = String::new();
    timeout(Duration::from_secs(3), stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert_eq!(text, "");
    it.call(APP, "GET /v1/credentials", &format!("x-padding: {}\r\n", "a".repeat(20_000)), "").await.refused(413, "too-large");
    let fits = it.call(APP, "GET /v1/credentials", &format!("x-padding: {}\r\n", "a".repeat(15_000)), "").await;
    assert_eq!(fits.status, 200);
    it.raw("nonsense\r\n\r\n").await.refused(400, "bad-request");
}
