//! The HTTP API's answers: reads, identities, bad input. The stream and confirmations have files of their own.

use tokio::io::AsyncWriteExt as _;

use crate::support::wire::{Answer, Ask, Target, read_answer};
use crate::world::{PRODUCTION, Plan, SANDBOX, World};

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn read(world: &World, path: &str) -> Answer {
    world.daemon.site.tcp().get(path, &[("authorization", &bearer(&world.production_token))]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_reads_what_its_document_lists() {
    let world = World::start(Plan::still()).await;
    let path = format!("/v1/credentials/{PRODUCTION}");
    let answer = read(&world, &path).await;
    assert_eq!(answer.status, 200);
    answer.assert_common();
    let document = answer.json();
    assert_eq!(document["name"], PRODUCTION);
    assert_eq!(document["provider"], "dinie");
    assert_eq!(document["environment"], "production");
    assert_eq!(document["stale"], false);
    assert!(document["revision"].is_u64() && document["issued_at"].is_string());
    assert_eq!(document["fields"]["client_id"], world.enrolled_production.client_id.as_str());
    assert_eq!(document["fields"]["client_secret"], world.enrolled_production.secret.as_str());
    let version = document["version"].as_str().expect("a version");
    assert_eq!(answer.header("etag"), Some(format!("\"{version}\"").as_str()));

    let tag = format!("\"{version}\"");
    let headers = [("authorization", bearer(&world.production_token)), ("if-none-match", tag)];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let unchanged = world.daemon.site.tcp().get(&path, &headers).await;
    assert_eq!(unchanged.status, 304);
    unchanged.assert_common();
    assert!(unchanged.body.is_empty());

    let list = read(&world, "/v1/credentials").await.json();
    let rows = list["credentials"].as_array().expect("a list");
    assert_eq!(rows.len(), 1, "{list}");
    assert_eq!(rows[0]["name"], PRODUCTION);
    assert_eq!(rows[0]["version"], version);
    assert!(rows[0]["revision"].is_u64() && rows[0].get("fields").is_none(), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_are_asked_for_and_told_nothing() {
    let world = World::start(Plan::still()).await;
    let tcp = world.daemon.site.tcp();
    let path = format!("/v1/credentials/{PRODUCTION}");
    for headers in [
        &[][..],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Basic dXNlcjpwYXNz")],
        &[("authorization", "Bearer \u{fc}")],
    ] {
        let answer = tcp.get(&path, headers).await;
        answer.assert_problem(401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let not_listed = read(&world, &format!("/v1/credentials/{SANDBOX}")).await;
    let unknown = read(&world, "/v1/credentials/does-not-exist").await;
    not_listed.assert_problem(403, "forbidden");
    unknown.assert_problem(403, "forbidden");
    let alike = |answer: &Answer| (answer.json()["title"].clone(), answer.json()["type"].clone());
    assert_eq!(alike(&not_listed), alike(&unknown));
    let detail = |answer: &Answer, name: &str| answer.json()["detail"].as_str().unwrap_or("").replace(name, "…");
    assert_eq!(detail(&not_listed, SANDBOX), detail(&unknown, "does-not-exist"));
    for path in ["/v1/status", "/v1/plan", &format!("/v1/credentials/{PRODUCTION}/versions")] {
        read(&world, path).await.assert_problem(403, "forbidden");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_credential_that_was_never_submitted_has_no_version() {
    let world = World::unsubmitted(Plan::still()).await;
    read(&world, &format!("/v1/credentials/{PRODUCTION}")).await.assert_problem(503, "no-version");
    // Ready is about us, not about what was submitted.
    assert_eq!(world.daemon.site.tcp().get("/readyz", &[]).await.status, 200);
    assert_eq!(world.daemon.site.tcp().get("/healthz", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_parameters_are_parsed_once_and_strictly() {
    let world = World::start(Plan::still()).await;
    let long = "a".repeat(64);
    for name in ["..", ".", "%2e%2e", "a%2fb", "a%00b", "Dinie-Production", "-a", "a-", "a_b", "a.b", "%C3%A9", "a%20b", &long] {
        read(&world, &format!("/v1/credentials/{name}")).await.assert_problem(400, "bad-name");
    }
    for path in ["/v1//credentials/a", "/v1/credentials//a", "/v1/credentials/"] {
        let answer = read(&world, path).await;
        assert!([400, 404].contains(&answer.status), "{path}: {}", answer.status);
        answer.assert_common();
    }
    let path = format!("/v1/credentials/{PRODUCTION}");
    for query in ["?x=1", "?version=1", "?", "?x"] {
        let answer = read(&world, &format!("{path}{query}")).await;
        if query != "?" {
            answer.assert_problem(400, "bad-request");
        }
    }
    for path in ["/v1/events?credentials=a&credentials=b", "/v1/events?since=1"] {
        read(&world, path).await.assert_problem(400, "bad-request");
    }
    let socket = world.daemon.site.socket();
    for path in ["/v1/status?limit=1001", "/v1/status?limit=x", "/v1/status?limit=1&limit=1", "/v1/plan?days=-1"] {
        socket.get(path, &[]).await.assert_problem(400, "bad-request");
    }
    let instance = [("authorization", bearer(&world.production_token)), ("keywright-instance", "a b".to_owned())];
    let headers: Vec<_> = instance.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = world.daemon.site.tcp().get(&path, &headers).await;
    assert_eq!(answer.status, 400, "an instance's name is parsed too");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_and_what_is_asked_wrongly() {
    let world = World::start(Plan::still()).await;
    let tcp = world.daemon.site.tcp();
    let token = bearer(&world.production_token);
    let path = format!("/v1/credentials/{PRODUCTION}");
    read(&world, "/v2/credentials").await.assert_problem(404, "not-found");
    let headers = [("authorization", token.as_str())];
    for method in ["POST", "PATCH", "TRACE"] {
        tcp.ask(Ask { method, path: &path, headers: &headers, body: None }).await.assert_problem(405, "method");
    }
    let headers = [("authorization", token.as_str()), ("content-type", "text/plain")];
    let ask = Ask { method: "POST", path: "/v1/confirmations", headers: &headers, body: Some(b"{}") };
    tcp.ask(ask).await.assert_problem(415, "media-type");
    for body in [&b"{"[..], b"[]", b"\xff\xfe", b"{\"credential\":1}", b"{\"a\":1,\"a\":2}"] {
        let ask = Ask { method: "POST", path: "/v1/confirmations", headers: &headers[..1], body: Some(body) };
        tcp.ask(ask).await.assert_problem(400, "bad-request");
    }
    let deep = format!("{}{}", "[".repeat(17), "]".repeat(17));
    let ask = Ask { method: "POST", path: "/v1/confirmations", headers: &headers[..1], body: Some(deep.as_bytes()) };
    tcp.ask(ask).await.assert_problem(400, "bad-request");
    let large = vec![b' '; 128 * 1024 + 1];
    let ask = Ask { method: "POST", path: "/v1/confirmations", headers: &headers[..1], body: Some(&large) };
    tcp.ask(ask).await.assert_problem(413, "too-large");
    for name in ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"] {
        let headers = [("authorization", token.as_str()), (name, "127.0.0.1")];
        tcp.get(&path, &headers).await.assert_problem(400, "forwarded");
    }
}

/// `None` stands for a connection that was closed without an answer, which the contract allows for some.
async fn raw(target: &Target, text: &str) -> Option<Answer> {
    target.raw(text.as_bytes()).await.expect("the connection ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_two_parsers_would_read_differently_are_refused() {
    let world = World::start(Plan::still()).await;
    let tcp = world.daemon.site.tcp();
    let token = &world.production_token;
    let path = format!("/v1/credentials/{PRODUCTION}");
    let twice = format!("GET {path} HTTP/1.1\r\nhost: k\r\nauthorization: Bearer {token}\r\nauthorization: Bearer {token}\r\n\r\n");
    let answer = raw(&tcp, &twice).await.expect("an answer");
    assert!([400, 401].contains(&answer.status), "two identities got {}", answer.status);
    let smuggled = format!(
        "POST /v1/confirmations HTTP/1.1\r\nhost: k\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n\
         GET {path} HTTP/1.1\r\nhost: k\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    let mut wire = tcp.connect().await.expect("it connects");
    wire.write_all(smuggled.as_bytes()).await.expect("it is sent");
    let mut all = Vec::new();
    let reading = async { while crate::support::wire::more(&mut wire, &mut all).await.unwrap_or(false) {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), reading).await.expect("the connection is closed");
    let all = String::from_utf8_lossy(&all);
    assert!(!all.contains(" 200 "), "the smuggled request was answered");
    assert!(all.matches("HTTP/1.1 ").count() <= 1, "more than one answer");
    for odd in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: k\r\nx: a\0b\r\n\r\n",
        "GET /v1/credentials/\u{e9} HTTP/1.1\r\nhost: k\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        if let Some(answer) = raw(&tcp, odd).await {
            assert!((400..500).contains(&answer.status), "{odd:?} got {}", answer.status);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_given_up() {
    let world = World::start(Plan::still()).await;
    let token = &world.production_token;
    let begun = format!(
        "POST /v1/confirmations HTTP/1.1\r\nhost: k\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    let answer = raw(&world.daemon.site.tcp(), &begun).await.expect("an answer");
    answer.assert_problem(408, "timeout");
}

/// A reset would take back what the network hasn't delivered yet of the answer.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_and_still_sends_is_not_reset() {
    let world = World::start(Plan::still()).await;
    let begun = "POST /v1/confirmations HTTP/1.1\r\nhost: k\r\nauthorization: Bearer wrong\r\n\
                 content-type: application/json\r\ncontent-length: 100000\r\n\r\n{";
    let mut wire = world.daemon.site.tcp().connect().await.expect("it connects");
    wire.write_all(begun.as_bytes()).await.expect("it is sent");
    let answer = read_answer(&mut wire).await.expect("no error").expect("an answer");
    answer.assert_problem(401, "unauthenticated");
    for _ in 0..20 {
        wire.write_all(&[b' '; 1024]).await.expect("the rest is taken");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_name_credentials_on_the_socket_only() {
    let world = World::start(Plan::still()).await;
    let text = |answer: Answer| String::from_utf8_lossy(&answer.body).into_owned();
    let open = text(world.daemon.site.tcp().get("/metrics", &[]).await);
    let local = text(world.daemon.site.socket().get("/metrics", &[]).await);
    assert!(open.contains("keywright_"), "{open}");
    assert!(!open.contains(PRODUCTION) && local.contains(PRODUCTION));
    for name in ["credential_age_seconds", "credential_deadline_seconds", "environment_proof"] {
        assert!(local.contains(&format!("keywright_{name}")), "keywright_{name} is missing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_describes_itself_to_whoever_reaches_it() {
    let world = World::unsubmitted(Plan::still()).await;
    let answer = world.daemon.site.tcp().get("/v1/openapi.json", &[]).await;
    assert_eq!(answer.status, 200);
    answer.assert_common();
    let document = answer.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{document}");
    for (method, path) in [
        ("get", "/v1/credentials/{name}"),
        ("get", "/v1/events"),
        ("post", "/v1/confirmations"),
        ("post", "/v1/reports"),
        ("get", "/v1/plan"),
        ("put", "/v1/credentials/{name}/submission"),
        ("post", "/v1/credentials/{name}/rotations"),
        ("get", "/healthz"),
    ] {
        assert!(document["paths"][path][method]["responses"].is_object(), "{method} {path}");
    }
    let confirm = document["paths"]["/v1/confirmations"]["post"]["description"].as_str().unwrap_or_default();
    assert!(confirm.contains("kills your own key"), "{confirm}");
}
