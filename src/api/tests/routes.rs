//! Every route, as it should go.

use std::sync::atomic::Ordering;

use super::fake::{CANARY, application, applications};
use super::*;
use crate::api::routes::{ENDPOINTS, Taker};

/// What a replica that doesn't lead takes beside reads: a name comes into this list, or leaves it, on purpose alone.
#[test]
fn all_that_changes_something_is_the_leaders_but_for_these() {
    let changing_anywhere = ENDPOINTS.iter().filter(|row| row.method != "GET" && row.taken_by == Taker::Any);
    assert_eq!(changing_anywhere.map(|row| row.name).collect::<Vec<_>>(), ["confirm", "report", "rewrap"]);
    let reads = ENDPOINTS.iter().filter(|row| row.method == "GET");
    assert!(reads.clone().count() > 10 && reads.clone().all(|row| row.taken_by == Taker::Any), "all replicas answer reads");
}

#[tokio::test]
async fn a_credential_is_read_with_its_tag() {
    let it = start(quick()).await;
    let reply = it.call(APP, "GET /v1/credentials/one", "keywright-instance: pod-1\r\n", "").await;
    assert_eq!((reply.status, reply.header("etag"), reply.header("content-type")), (200, Some("\"v1\""), Some("application/json")));
    let json = reply.json();
    assert_eq!(json["fields"]["client_secret"], CANARY);
    let rest = serde_json::json!({"name": "one", "provider": "provider", "environment": "sandbox", "version": "v1", "revision": 1,
        "issued_at": "1970-01-01T00:00:00Z", "stale": false, "fields": {"client_secret": CANARY}});
    assert_eq!(json, rest);
    assert!(it.fake.log().iter().any(|line| line == "touch app pod-1"));
}

#[tokio::test]
async fn what_the_caller_has_is_not_sent_again_and_is_on_record() {
    let it = start(quick()).await;
    for tag in ["\"v1\"", "W/\"v1\"", "\"x\", \"v1\"", "*"] {
        let reply = it.call(APP, "GET /v1/credentials/one", &format!("if-none-match: {tag}\r\n"), "").await;
        assert_eq!((reply.status, reply.header("etag"), reply.body.as_str()), (304, Some("\"v1\""), ""));
    }
    // Who says that it has the version holds it, whatever name it calls itself by: the barrier must know.
    assert!(it.fake.log().iter().any(|line| line.starts_with("read")));
    assert_eq!(it.call(APP, "GET /v1/credentials/one", "if-none-match: \"v0\"\r\n", "").await.status, 200);
    // Not even the version is told to who may not read.
    it.call(OTHER, "GET /v1/credentials/one", "if-none-match: *\r\n", "").await.refused(403, "forbidden");
    it.call(APP, "GET /v1/credentials/empty", "if-none-match: *\r\n", "").await.refused(503, "no-version");
}

#[tokio::test]
async fn the_unknown_and_the_unlisted_are_answered_alike() {
    let it = start(quick()).await;
    let mut bodies = Vec::new();
    for path in ["/v1/credentials/foreign", "/v1/credentials/no-such"] {
        let mut json = it.get(APP, path).await.json();
        json["request_id"].take();
        bodies.push(json);
    }
    assert_eq!(bodies[0], bodies[1]);
    it.get(CLERK, "/v1/credentials/one").await.refused(403, "forbidden");
    it.get(BOSS, "/v1/credentials/no-such").await.refused(403, "forbidden");
    assert_eq!(it.get(BOSS, "/v1/credentials/foreign").await.status, 200);
}

#[tokio::test]
async fn lists_status_plan_and_versions_are_shown() {
    let it = start(quick()).await;
    assert_eq!(it.get(APP, "/v1/credentials").await.json()["credentials"][0]["name"], "one");
    assert_eq!(it.get(BOSS, "/v1/credentials").await.status, 200);
    it.get(CLERK, "/v1/credentials").await.refused(403, "forbidden");
    assert!(it.get(CLERK, "/v1/status?limit=5&after=one").await.json()["credentials"].is_array());
    assert!(it.get(CLERK, "/v1/status/one").await.json()["problems"].is_array());
    it.get(CLERK, "/v1/status/no-such").await.refused(404, "not-found");
    assert!(it.get(CLERK, "/v1/plan?days=30").await.json()["plan"].is_array());
    assert!(it.fake.log().iter().any(|line| line == "plan 30 None 1000"));
    let page = it.get(CLERK, "/v1/credentials/one/versions?limit=2").await.json();
    assert_eq!((page["versions"].as_array().unwrap().len(), page["next"].as_str()), (2, Some("v2")));
    let rest = it.get(CLERK, "/v1/credentials/one/versions?after=v2").await.json();
    assert_eq!((rest["versions"][0]["version"].as_str(), rest["next"].is_null()), (Some("v3"), true));
    it.get(CLERK, "/v1/credentials/no-such/versions").await.refused(404, "not-found");
}

#[tokio::test]
async fn operators_submit_rotate_and_release() {
    let it = start(quick()).await;
    let fields = r#"{"fields":{"client_id":"a","client_secret":"b"}}"#;
    let submitted = it.send(BOSS, "PUT /v1/credentials/one/submission", fields).await;
    assert_eq!((submitted.status, submitted.json()["proof"]["verdict"].as_str()), (201, Some("match")));
    for rotated in
        [it.call(BOSS, "POST /v1/credentials/one/rotations", "", "").await, it.send(BOSS, "POST /v1/credentials/one/rotations", "{}").await]
    {
        assert_eq!(rotated.status, 202);
        assert!(uuid::Uuid::parse_str(rotated.json()["operation_id"].as_str().unwrap()).is_ok());
    }
    assert_eq!(it.call(BOSS, "DELETE /v1/applications/app/instances/Pod_1.x", "", "").await.status, 204);
    assert_eq!(it.call(BOSS, "DELETE /v1/applications/app/instances", "", "").await.status, 204);
    let log = it.fake.log();
    assert!(log.iter().any(|line| line.starts_with("submit one 2 Operator { who: \"token:")), "{log:?}");
    assert!(log.iter().any(|line| line.starts_with("release app Some(InstanceName(\"Pod_1.x\"))")), "{log:?}");
    assert!(log.iter().any(|line| line.starts_with("release app None")), "{log:?}");
}

#[tokio::test]
async fn operators_act_in_an_incident() {
    let it = start(quick()).await;
    let stolen = it.send(BOSS, "POST /v1/credentials/one/rotations", r#"{"compromised":true,"within":"30s"}"#).await;
    assert_eq!(stolen.status, 202);
    assert!(uuid::Uuid::parse_str(stolen.json()["operation_id"].as_str().unwrap()).is_ok());
    assert_eq!(it.send(BOSS, "POST /v1/credentials/one/rotations", r#"{"compromised":true}"#).await.status, 202);
    it.send(BOSS, "POST /v1/credentials/one/rotations", r#"{"compromised":true,"within":"2d"}"#).await.refused(400, "bad-request");
    let back = it.call(BOSS, "POST /v1/credentials/one/rollback", "", "").await;
    assert_eq!((back.status, back.json()), (200, serde_json::json!({"version": "v3", "revision": 3})));
    for line in [
        "DELETE /v1/credentials/one/versions/v2",
        "DELETE /v1/credentials/one/versions/v2?force=true",
        "DELETE /v1/credentials/one",
        "DELETE /v1/credentials/one?force=true",
        "PUT /v1/pause",
        "DELETE /v1/pause",
        "PUT /v1/credentials/one/pause",
        "DELETE /v1/credentials/one/pause",
    ] {
        let done = it.call(BOSS, line, "", "").await;
        assert_eq!((done.status, done.body.as_str()), (204, ""), "{line}");
    }
    for bad in ["?force=yes", "?force", "?force=true&force=true", "?within=1s"] {
        it.call(BOSS, &format!("DELETE /v1/credentials/one/versions/v2{bad}"), "", "").await.refused(400, "bad-request");
    }
    it.send(BOSS, "PUT /v1/pause", "{}").await.refused(400, "bad-request");
    let log: Vec<String> = it.fake.log().into_iter().map(|line| line.split(" Order").next().unwrap().to_owned()).collect();
    let asked = ["compromised one 30", "compromised one 600", "rollback one", "revoke one v2 false", "revoke one v2 true"];
    let asked = asked.into_iter().chain(["forget one false", "forget one true", "pause None", "resume None"]);
    let asked: Vec<&str> = asked.chain(["pause Some(Name(\"one\"))", "resume Some(Name(\"one\"))"]).collect();
    assert_eq!(log, asked);
}

#[tokio::test]
async fn what_ends_a_key_needs_its_own_right() {
    let may = |right| Operator { identity: fake::token(BOSS), may: [right].into() };
    let calls = [
        "POST /v1/credentials/one/rollback",
        "DELETE /v1/credentials/one/versions/v2",
        "DELETE /v1/credentials/one",
        "PUT /v1/pause",
        "DELETE /v1/credentials/one/pause",
    ];
    let (plain, stolen) = ("{}", r#"{"compromised":true}"#);
    for (right, rotates, revokes) in
        [(Right::Rotate, 202, 403), (Right::Revoke, 403, 202), (Right::Read, 403, 403), (Right::Status, 403, 403)]
    {
        let it = start_for(quick(), vec![may(right)]).await;
        assert_eq!(it.send(BOSS, "POST /v1/credentials/one/rotations", plain).await.status, rotates, "{right:?}");
        assert_eq!(it.send(BOSS, "POST /v1/credentials/one/rotations", stolen).await.status, revokes, "{right:?}");
        for line in calls {
            let is_refused = it.call(BOSS, line, "", "").await.status == 403;
            assert_eq!(is_refused, revokes == 403, "{right:?}: {line}");
        }
    }
    let it = start(quick()).await;
    for token in [APP, CLERK] {
        for line in calls {
            it.call(token, line, "", "").await.refused(403, "forbidden");
        }
    }
    assert!(it.fake.log().is_empty());
}

#[tokio::test]
async fn rights_are_needed_before_anything_is_read_of_the_body() {
    let it = start(quick()).await;
    for token in [APP, CLERK] {
        for line in ["PUT /v1/credentials/one/submission", "POST /v1/credentials/one/rotations", "DELETE /v1/applications/app/instances/a"]
        {
            let body = if line.starts_with("DELETE") { "" } else { "not JSON" };
            it.send(token, line, body).await.refused(403, "forbidden");
        }
    }
    for path in ["/v1/status", "/v1/status/one", "/v1/plan", "/v1/credentials/one/versions"] {
        it.get(APP, path).await.refused(403, "forbidden");
    }
    it.send(BOSS, "POST /v1/confirmations", "{}").await.refused(403, "forbidden");
    it.send(BOSS, "POST /v1/reports", "{}").await.refused(403, "forbidden");
}

#[tokio::test]
async fn reports_count_once_and_again_and_bear_the_callers_name() {
    let it = start(quick()).await;
    let body = |instance| format!(r#"{{"credential":"one","version":"v1","instance":"{instance}","outcome":"failed"}}"#);
    for _ in 0..2 {
        assert_eq!(it.send(APP, "POST /v1/reports", &body("default")).await.status, 204);
    }
    let headers = "content-type: application/json\r\nkeywright-instance: pod-1\r\n";
    assert_eq!(it.call(APP, "POST /v1/reports", headers, &body("pod-1")).await.status, 204);
    it.call(APP, "POST /v1/reports", headers, &body("pod-2")).await.refused(400, "bad-request");
    let log = it.fake.log();
    assert!(log.iter().any(|line| line == "report app pod-1 v1"), "{log:?}");
    assert!(log.iter().any(|line| line == "touch app pod-1"), "it lives");
}

#[tokio::test]
async fn confirmations_count_once_and_again() {
    let it = start(quick()).await;
    let body = |instance| format!(r#"{{"credential":"one","version":"v1","instance":"{instance}","field":"client_secret","proof":"00"}}"#);
    for _ in 0..2 {
        assert_eq!(it.send(APP, "POST /v1/confirmations", &body("default")).await.status, 204);
    }
    let headers = "content-type: application/json\r\nkeywright-instance: pod-1\r\n";
    assert_eq!(it.call(APP, "POST /v1/confirmations", headers, &body("pod-1")).await.status, 204);
    it.call(APP, "POST /v1/confirmations", headers, &body("pod-2")).await.refused(400, "bad-request");
    it.send(APP, "POST /v1/confirmations", &body("pod-1")).await.refused(400, "bad-request");
    assert!(it.fake.log().iter().any(|line| line == "confirm app pod-1 v1"));
}

#[tokio::test]
async fn the_socket_knows_its_callers_by_uid() {
    let it = start_for(quick(), vec![myself(&[Right::Status, Right::Read])]).await;
    assert_eq!(it.local("GET /v1/status").await.status, 200);
    assert_eq!(it.local("GET /v1/credentials/foreign").await.status, 200);
    it.local("POST /v1/credentials/one/rotations").await.refused(403, "forbidden");
    // One uid that is an application's, too: what the application may read is read as the application.
    let mut all = applications();
    all.push(application("mine", Identity::Unix { uid: rustix::process::getuid().as_raw() }, &["one"]));
    it.fake.set_policies(all);
    it.fake.log();
    assert_eq!(it.local("GET /v1/credentials/one").await.status, 200);
    assert_eq!(it.local("GET /v1/credentials/foreign").await.status, 200);
    let reads: Vec<String> = it.fake.log().into_iter().filter(|line| line.starts_with("read")).collect();
    assert!(reads[0].contains("Application") && reads[1].contains("Operator { who: \"uid:"), "{reads:?}");
    // A token is what counts if there is one, also when it is wrong.
    let mut stream = it.unix().await;
    exchange(&mut stream, request("wrong", "GET /v1/status", "", "").as_bytes()).await.refused(401, "unauthenticated");
    let mut stream = it.unix().await;
    exchange(&mut stream, request(OTHER, "GET /v1/status", "", "").as_bytes()).await.refused(403, "forbidden");
}

#[tokio::test]
async fn a_uid_that_nobody_knows_is_nobody() {
    let it = start_for(quick(), Vec::new()).await;
    it.local("GET /v1/status").await.refused(401, "unauthenticated");
    assert_eq!(it.local("GET /healthz").await.status, 200);
}

#[tokio::test]
async fn health_readiness_and_metrics_need_no_identity() {
    let it = start(quick()).await;
    let plain = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(it.raw(plain("/healthz")).await.status, 200);
    assert_eq!(it.raw(plain("/readyz")).await.status, 200);
    it.ready.store(false, Ordering::Release);
    it.raw(plain("/readyz")).await.refused(503, "not-ready");
    assert_eq!(it.raw(plain("/metrics")).await.body, "# with names: false\n");
    assert_eq!(it.local("GET /metrics").await.body, "# with names: true\n");
}

#[tokio::test]
async fn one_connection_takes_many_requests() {
    let it = start(quick()).await;
    let mut stream = it.tcp().await;
    for _ in 0..5 {
        assert_eq!(exchange(&mut stream, request(APP, "GET /v1/credentials/one", "", "").as_bytes()).await.status, 200);
        exchange(&mut stream, request(APP, "GET /v1/credentials/foreign", "", "").as_bytes()).await.refused(403, "forbidden");
    }
}

#[tokio::test]
async fn the_previous_version_is_in_the_document_while_it_is_good() {
    let it = start(Limits::default()).await;
    let plain = it.get(APP, "/v1/credentials/one").await;
    assert!(plain.json().get("previous").is_none(), "{plain:?}");
    let old = "old-\"quoted\"-value".to_owned();
    it.fake.verify_with(&old);
    let during = it.get(APP, "/v1/credentials/one").await.json();
    let expected = serde_json::json!({"version": "v0", "fields": {"signing_secret": old}, "valid_until": "2026-11-22T04:19:07Z"});
    assert_eq!(during["previous"], expected);
    assert_eq!(during["version"], "v1", "the rest is as it was");

    // The stream's data is the same document, on one line.
    let mut stream = it.tcp().await;
    stream.write_all(request(APP, "GET /v1/events?credentials=one", "", "").as_bytes()).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("signing_secret") {
        let mut bytes = [0; 4096];
        let count = timeout(Duration::from_secs(5), stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(count > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    let data = seen.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(data).unwrap()["previous"], expected);
}

#[tokio::test]
async fn a_backup_is_the_whole_store_and_for_those_who_may_read() {
    let it = start(Limits::default()).await;
    let reply = it.get(BOSS, "/v1/backup").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/octet-stream")), "{}", reply.head);
    assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
    assert_eq!(reply.body.as_bytes(), super::fake::backup_bytes());
    assert!(it.fake.log().iter().any(|line| line.starts_with("backup Operator")));
    for token in [CLERK, APP, OTHER] {
        it.get(token, "/v1/backup").await.refused(403, "forbidden");
    }
    it.call(BOSS, "POST /v1/backup", "", "").await.refused(405, "method");
}

/// The shipped binary always has a store that it can copy: a store elsewhere will not.
#[tokio::test]
async fn a_store_that_cannot_be_copied_has_no_backup() {
    let it = super::start_without_snapshots().await;
    it.get(BOSS, "/v1/backup").await.refused(404, "not-found");
    // Who may not read doesn't learn it.
    it.get(CLERK, "/v1/backup").await.refused(403, "forbidden");
    assert!(!it.fake.log().iter().any(|line| line.starts_with("backup")));
}

#[tokio::test]
async fn a_rewrap_is_for_those_who_may_end_keys() {
    let it = start(Limits::default()).await;
    let begun = it.send(BOSS, "POST /v1/rewrap", "").await;
    assert_eq!((begun.status, &begun.json()["state"]), (202, &serde_json::json!("under-way")), "{begun:?}");
    assert_eq!(it.send(BOSS, "POST /v1/rewrap", r#"{"file":"/run/new.key"}"#).await.status, 202);
    let asked = it.fake.log();
    assert!(asked.iter().any(|line| line.starts_with("rewrap Operator") && line.ends_with("None")), "{asked:?}");
    assert!(asked.iter().any(|line| line.ends_with("Some(\"/run/new.key\")")), "{asked:?}");
    for (file, status, slug) in [
        ("/bad", 400, "bad-request"),
        ("relative", 400, "bad-request"),
        ("/later", 503, "not-ready"),
        ("/away", 503, "store-unavailable"),
        ("/unheard", 503, "audit-unavailable"),
    ] {
        it.send(BOSS, "POST /v1/rewrap", &format!(r#"{{"file":"{file}"}}"#)).await.refused(status, slug);
    }
    assert_eq!(it.get(BOSS, "/v1/rewrap").await.json()["state"], "none");
    for token in [CLERK, APP] {
        it.send(token, "POST /v1/rewrap", "").await.refused(403, "forbidden");
    }
}
