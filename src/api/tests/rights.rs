//! Each operator's call with each right, and the reasons that reads of production are given.

use super::fake::{CANARY, application, applications};
use super::*;
use crate::delivery::{Change, Delivery};

/// Every call that an operator makes, and the one right that it needs.
const CALLS: [(&str, Right); 17] = [
    ("GET /v1/status", Right::Status),
    ("GET /v1/status/one", Right::Status),
    ("GET /v1/plan?days=7", Right::Status),
    ("GET /v1/credentials/one/versions", Right::Status),
    ("PUT /v1/credentials/one/submission", Right::Rotate),
    ("POST /v1/credentials/one/rotations", Right::Rotate),
    ("DELETE /v1/applications/app/instances", Right::Rotate),
    ("DELETE /v1/applications/app/instances/pod-1", Right::Rotate),
    ("GET /v1/golive/app", Right::Status),
    ("PUT /v1/golive/app/confirmations/one.order-form", Right::Rotate),
    ("DELETE /v1/golive/app/confirmations/order-form", Right::Rotate),
    ("POST /v1/rewrap", Right::Revoke),
    ("GET /v1/rewrap", Right::Status),
    ("GET /v1/backup", Right::Read),
    ("GET /v1/credentials", Right::Read),
    ("GET /v1/credentials/one", Right::Read),
    ("GET /v1/credentials/no-such", Right::Read),
];

fn with_rights(token: &str, may: &[Right]) -> Operator {
    Operator { identity: fake::token(token), may: may.iter().copied().collect() }
}

fn body_of(line: &str) -> &'static str {
    match line.split_once(' ') {
        Some(("PUT", path)) if path.starts_with("/v1/golive/") => r#"{"by":"Ana Souza"}"#,
        Some(("PUT", _)) => r#"{"fields":{"client_id":"a"}}"#,
        _ => "",
    }
}

#[tokio::test]
async fn each_call_needs_its_right_and_no_other() {
    let mut operators: Vec<Operator> = Right::ALL.iter().map(|right| with_rights(right.as_str(), &[*right])).collect();
    operators.push(with_rights("none", &[]));
    let it = start_for(quick(), operators).await;
    for (line, needed) in CALLS {
        for held in Right::ALL.map(Some).into_iter().chain([None]) {
            let token = held.map_or("none", Right::as_str);
            let reply = it.send(token, line, body_of(line)).await;
            if held != Some(needed) {
                reply.refused(403, "forbidden");
                let detail = reply.json()["detail"].as_str().unwrap().to_owned();
                assert!(detail.contains(&format!("`{}`", needed.as_str())), "{line} as {token}: {detail}");
                continue;
            }
            // What doesn't exist is refused like what may not be read, to those with the right, too.
            let expected = if line.ends_with("no-such") { [403, 403] } else { [200, 204] };
            assert!(expected.contains(&reply.status) || [201, 202].contains(&reply.status), "{line} as {token}: {reply:?}");
        }
    }
    for held in ["status", "rotate", "revoke", "none"] {
        let reply = it.get(held, "/v1/events").await;
        reply.refused(403, "forbidden");
        assert!(reply.body.contains("`read`"), "{reply:?}");
        // A credential's existence is told to nobody who may not read it.
        let [known, unknown] = [it.get(held, "/v1/credentials/one").await, it.get(held, "/v1/credentials/no-such").await]
            .map(|reply| reply.json()["detail"].clone());
        assert_eq!(known, unknown);
    }
    let asked = it.fake.log();
    assert!(!asked.iter().any(|line| line.contains("none")), "{asked:?}");
}

#[tokio::test]
async fn an_application_has_no_operators_right() {
    let it = start(quick()).await;
    for (line, needed) in CALLS.into_iter().filter(|(_, needed)| *needed != Right::Read) {
        let reply = it.send(APP, line, body_of(line)).await;
        reply.refused(403, "forbidden");
        assert!(reply.body.contains(&format!("`{}`", needed.as_str())), "{line}: {reply:?}");
    }
}

#[tokio::test]
async fn a_persons_read_of_production_says_why() {
    let it = start(quick()).await;
    it.fake.make_production("one");
    let path = "GET /v1/credentials/one";
    let reply = it.call(BOSS, path, "", "").await;
    reply.refused(400, "bad-request");
    assert!(reply.body.contains("--reason") && reply.body.contains("Keywright-Reason"), "{reply:?}");
    assert!(!reply.body.contains(CANARY));
    // What somebody has already is on record, too: also then.
    it.call(BOSS, path, "if-none-match: *\r\n", "").await.refused(400, "bad-request");
    it.fake.log();
    let reply = it.call(BOSS, path, "keywright-reason: INC-7%3A caf%C3%A9\r\n", "").await;
    assert_eq!(reply.status, 200);
    assert!(it.fake.log().iter().any(|line| line.contains("Some(Reason(\"INC-7: café\"))")));
    // Sandbox needs none, and takes one; nobody discloses anything in a list.
    assert_eq!(it.get(BOSS, "/v1/credentials/two").await.status, 200);
    assert_eq!(it.call(BOSS, "GET /v1/credentials/two", "keywright-reason: x\r\n", "").await.status, 200);
    assert_eq!(it.get(BOSS, "/v1/credentials").await.status, 200);
    let long = format!("keywright-reason: {}\r\n", "x".repeat(501));
    for bad in
        ["keywright-reason:\r\n", "keywright-reason: a%0Ab\r\n", "keywright-reason: 50% off\r\n", "keywright-reason: \u{fc}\r\n", &long]
    {
        it.call(BOSS, path, bad, "").await.refused(400, "bad-request");
    }
    it.call(BOSS, path, "keywright-reason: a\r\nkeywright-reason: b\r\n", "").await.refused(400, "bad-request");
}

#[tokio::test]
async fn a_reason_is_a_persons() {
    let it = start_for(quick(), vec![myself(&[Right::Read]), with_rights(CLERK, &[Right::Status])]).await;
    let with_reason = "keywright-reason: INC-7\r\n";
    it.call(APP, "GET /v1/credentials/one", with_reason, "").await.refused(400, "bad-request");
    it.call(CLERK, "GET /v1/credentials/one", with_reason, "").await.refused(403, "forbidden");
    // One uid that is an operator's and an application's: who gives a reason is the person.
    let mut all = applications();
    all.push(application("mine", Identity::Unix { uid: rustix::process::getuid().as_raw() }, &["one"]));
    it.fake.set_policies(all);
    it.fake.log();
    assert_eq!(it.local("GET /v1/credentials/one").await.status, 200);
    assert_eq!(it.local("GET /v1/credentials/one HTTP/1.1\r\nkeywright-reason: INC-7\r\nx: y").await.status, 200);
    let reads: Vec<String> = it.fake.log().into_iter().filter(|line| line.starts_with("read")).collect();
    assert!(reads[0].contains("Application") && reads[1].contains("Operator"), "{reads:?}");
}

#[tokio::test]
async fn a_persons_stream_of_production_says_why() {
    let it = start(quick()).await;
    it.fake.make_production("foreign");
    let head = |headers: &'static str, path: &'static str| {
        let it = &it;
        async move {
            let mut stream = it.tcp().await;
            stream.write_all(request(BOSS, &format!("GET {path}"), headers, "").as_bytes()).await.unwrap();
            let mut first = [0; 12];
            stream.read_exact(&mut first).await.unwrap();
            (stream, String::from_utf8(first.to_vec()).unwrap())
        }
    };
    let reply = it.get(BOSS, "/v1/events").await;
    reply.refused(400, "bad-request");
    assert!(reply.body.contains("Keywright-Reason"), "{reply:?}");
    it.get(BOSS, "/v1/events?credentials=one,foreign").await.refused(400, "bad-request");
    let (mut stream, first) = head("", "/v1/events?credentials=one,two").await;
    assert_eq!(first, "HTTP/1.1 200");
    assert_eq!(head("keywright-reason: INC-7\r\n", "/v1/events").await.1, "HTTP/1.1 200");
    // What becomes production's later is withdrawn from a stream that gave no reason.
    it.fake.make_production("two");
    it.hub.announce(Change::Policies);
    let mut seen = String::new();
    let reading = async {
        let mut bytes = [0; 4096];
        while !seen.contains("withdrawn\ndata: {\"name\":\"two\"}") {
            let count = stream.read(&mut bytes).await.unwrap();
            seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    timeout(Duration::from_secs(3), reading).await.expect("it is withdrawn");
}

#[tokio::test]
async fn who_names_an_application_is_served_as_that_one_alone() {
    let it = start_for(quick(), vec![myself(&Right::ALL), with_rights(BOSS, &Right::ALL)]).await;
    let calls = ["GET /v1/credentials/one", "GET /v1/credentials", "GET /v1/events"];
    for call in calls {
        // Another's, one that isn't there, and an operator that is no application: alike.
        for (token, named) in [(APP, "other"), (APP, "nobody"), (OTHER, "app"), (BOSS, "app")] {
            let reply = it.call(token, call, &format!("keywright-application: {named}\r\n"), "").await;
            reply.refused(403, "forbidden");
            assert!(reply.body.contains("isn't the application"), "{reply:?}");
        }
        it.call(APP, call, "keywright-application: Nobody\r\n", "").await.refused(400, "bad-request");
        it.call(APP, call, "keywright-application: app\r\nkeywright-application: app\r\n", "").await.refused(400, "bad-request");
    }
    let json = "keywright-application: other\r\ncontent-type: application/json\r\n";
    for call in ["POST /v1/confirmations", "POST /v1/reports"] {
        it.call(APP, call, json, "{}").await.refused(403, "forbidden");
    }
    assert_eq!(it.call(APP, "GET /v1/credentials/one", "keywright-application: app\r\n", "").await.status, 200);
    // One uid that is an operator's and an application's: by the name it is the application, and reads no more than that.
    let mut all = applications();
    all.push(application("mine", Identity::Unix { uid: rustix::process::getuid().as_raw() }, &["one"]));
    it.fake.set_policies(all);
    assert_eq!(it.local("GET /v1/credentials/two HTTP/1.1\r\nkeywright-reason: INC-7\r\nx: y").await.status, 200);
    let named = |path: &str| format!("GET {path} HTTP/1.1\r\nkeywright-application: mine\r\nx: y");
    assert_eq!(it.local(&named("/v1/credentials/one")).await.status, 200);
    it.local(&named("/v1/credentials/two")).await.refused(403, "forbidden");
    // What operators call doesn't look at it.
    assert_eq!(it.local(&named("/v1/status")).await.status, 200);
}

/// Every order that may carry a reason.
const ORDERS: [&str; 12] = [
    "POST /v1/credentials/one/rotations",
    "POST /v1/credentials/one/rollback",
    "DELETE /v1/credentials/one/versions/v1",
    "DELETE /v1/credentials/one",
    "PUT /v1/pause",
    "DELETE /v1/pause",
    "PUT /v1/credentials/one/pause",
    "DELETE /v1/credentials/one/pause",
    "DELETE /v1/applications/app/instances",
    "DELETE /v1/applications/app/instances/pod-1",
    "DELETE /v1/golive/app/confirmations/order-form",
    r#"POST /v1/credentials/one/rotations {"compromised":true}"#,
];

#[tokio::test]
async fn an_order_hands_its_reason_on() {
    let it = start(quick()).await;
    for order in ORDERS {
        let words: Vec<&str> = order.splitn(3, ' ').collect();
        let (line, body) = (words[..2].join(" "), words.get(2).copied().unwrap_or_default());
        let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
        for (head, expected) in [("", "reason: None"), ("keywright-reason: INC-7%3A caf%C3%A9\r\n", "Reason(\"INC-7: café\")")] {
            it.fake.log();
            let reply = it.call(BOSS, &line, &format!("{head}{kind}"), body).await;
            assert!((200..300).contains(&reply.status), "{order}: {reply:?}");
            let asked = it.fake.log();
            assert!(asked.iter().any(|line| line.contains(expected)), "{order}: {asked:?}");
        }
        it.fake.log();
        for bad in ["keywright-reason:\r\n", "keywright-reason: a%0Ab\r\n", "keywright-reason: a\r\nkeywright-reason: b\r\n"] {
            it.call(BOSS, &line, &format!("{bad}{kind}"), body).await.refused(400, "bad-request");
        }
        assert_eq!(it.fake.log(), Vec::<String>::new(), "{order}: nothing is done for a reason that is none");
    }
}

#[test]
fn each_order_says_that_it_takes_a_reason() {
    for order in ORDERS {
        let words: Vec<&str> = order.splitn(3, ' ').collect();
        let (endpoint, _) = crate::api::path::route(&words[0].parse().unwrap(), &words[1].parse().unwrap()).ok().unwrap();
        assert!(endpoint.headers.contains(&"Keywright-Reason"), "{order}");
    }
}
