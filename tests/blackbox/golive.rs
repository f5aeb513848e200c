//! Going live from outside: nothing of a credential with `requireGoLive` before the list is passed, everything after, and who said so.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::site::Site;
use crate::support::wire::{Answer, Ask, Events};
use crate::world::{PRODUCTION, Plan, SANDBOX, STILL, World, fields};

const APPLICATION: &str = "payments-api";

/// The world, with its production credential kept back.
async fn gated(endpoints: &str) -> World {
    let mut world = World::unsubmitted(Plan::still()).await;
    kept_back(&mut world.daemon.site, &mut world.production_token, endpoints);
    world.daemon.site.write();
    world.daemon.reload();
    world.daemon.submit(SANDBOX, &fields(&world.enrolled_sandbox)).await;
    world.daemon.submit(PRODUCTION, &fields(&world.enrolled_production)).await;
    world
}

fn kept_back(site: &mut Site, token: &mut String, endpoints: &str) {
    site.forget_document(PRODUCTION);
    site.forget_document(APPLICATION);
    let spec = format!("provider: dinie, environment: production, rotation: quick, requireGoLive: true, twin: {SANDBOX}");
    site.document("Credential", PRODUCTION, &spec);
    site.credential("hook", "webhook-secret", "production", "quick");
    *token = site.application(APPLICATION, "production", &[PRODUCTION, "hook"], &format!("lease: 2s, endpoints: {{{endpoints}}}"));
}

const ENDPOINTS: &str = "callback: \"https://payments.example.com/done\", webhook: \"https://payments.example.com/hook\"";

async fn list(daemon: &Daemon) -> Value {
    let printed = daemon.cli(&["golive", APPLICATION, "--json"]).await;
    let document: Value = serde_json::from_slice(&printed.stdout).unwrap_or_else(|_| panic!("{}", printed.err()));
    printed.assert_code(if document["ready"] == true { 0 } else { 1 });
    document
}

/// The ids of the items in this state.
fn in_state(list: &Value, state: &str) -> Vec<String> {
    let items = list["items"].as_array().expect("items").iter().filter(|item| item["state"] == state);
    items.map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

async fn read(world: &World, name: &str) -> Answer {
    let bearer = format!("Bearer {}", world.production_token);
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    world.daemon.site.tcp().get(&format!("/v1/credentials/{name}"), &headers).await
}

/// The reload may take a moment.
async fn until_kept_back(world: &World) {
    for _ in 0..100 {
        if read(world, PRODUCTION).await.status == 503 && world.daemon.cli(&["golive", APPLICATION]).await.code() == Some(1) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it isn't kept back:\n{}", world.daemon.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_served_once_the_list_is_passed() {
    let mut world = gated(ENDPOINTS).await;
    until_kept_back(&world).await;
    let refused = read(&world, PRODUCTION).await;
    refused.assert_problem(503, "not-ready");
    assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.contains("keywright golive")));
    assert_eq!(read(&world, "hook").await.status, 200, "what isn't kept back is served");
    let bearer = format!("Bearer {}", world.production_token);
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-2")];
    let listed = world.daemon.site.tcp().get("/v1/credentials", &headers).await.json();
    let row = listed["credentials"].as_array().unwrap().iter().find(|row| row["name"] == PRODUCTION).cloned().unwrap();
    assert_eq!(row["version"], Value::Null, "{listed}");
    let path = format!("/v1/events?credentials={PRODUCTION}");
    let mut events = Events::open(&world.daemon.site.tcp(), &path, &headers).await.expect("it connects").expect("it streams");

    // What the daemon finds wanting is put right, not signed.
    assert_eq!(in_state(&list(&world.daemon).await, "failed"), ["dinie-production.rehearsed"]);
    let printed = world.daemon.cli(&["golive", APPLICATION, "--confirm", "rehearsed", "--by", "Ana Souza"]).await;
    printed.assert_code(1);
    assert!(printed.err().contains("nobody can sign that away"), "{}", printed.err());
    world.daemon.cli(&["rotate", SANDBOX, "--wait"]).await.assert_code(0);
    let open = list(&world.daemon).await;
    assert_eq!(in_state(&open, "failed"), Vec::<String>::new());

    let mut signed = Vec::new();
    for (number, id) in in_state(&open, "needs-person").into_iter().enumerate() {
        assert_eq!(read(&world, PRODUCTION).await.status, 503, "before {id}");
        let reason = format!("OPS-{number}: seen");
        let more: &[&str] = if number % 2 == 0 { &["--reason", &reason] } else { &[] };
        let arguments = [&["golive", APPLICATION, "--confirm", &id, "--by", "Ana Souza"], more].concat();
        world.daemon.cli(&arguments).await.assert_code(0);
        world.daemon.cli(&arguments).await.assert_code(0);
        signed.push(id);
    }
    assert!(signed.len() > 10, "{signed:?}");
    // Nothing but the stream's own words came before, and now it comes without another connection.
    loop {
        let event = events.next_within(Duration::from_secs(10)).await.expect("the stream has it now");
        if event.name == "credential" {
            assert!(event.data.contains(&world.enrolled_production.client_id), "the document of the credential");
            break;
        }
        assert!(event.name.is_empty(), "{}", event.name);
    }
    let answer = read(&world, PRODUCTION).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["fields"]["client_id"], world.enrolled_production.client_id.as_str());
    let ready = list(&world.daemon).await;
    assert_eq!(in_state(&ready, "confirmed"), signed);
    assert!(ready["credentials"][0]["live_since"].is_string(), "{ready}");

    // Sign-offs and what is live survive the process; later failures take nothing away.
    world.daemon.kill().await;
    world.daemon.again().await;
    assert_eq!(in_state(&list(&world.daemon).await, "confirmed"), signed);
    kept_back_again(&mut world).await;
    let late = list(&world.daemon).await;
    assert_eq!(late["ready"], false);
    assert_eq!(read(&world, PRODUCTION).await.status, 200, "what is live stays live");

    let trail = std::fs::read_to_string(world.daemon.site.path("data/audit.jsonl")).expect("the trail");
    let records: Vec<Value> = trail.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    let of = |action: &str| records.iter().filter(|record| record["action"] == action).collect::<Vec<_>>();
    assert_eq!(of("golive-confirmed").len(), signed.len(), "each once");
    let detail = format!("{APPLICATION}: {} confirmed by Ana Souza; reason: OPS-0: seen", signed[0]);
    assert_eq!(of("golive-confirmed")[0]["detail"], detail.as_str());
    assert!(
        of("golive-confirmed").iter().all(|record| record["at"].is_string() || record["time"].is_string()),
        "{:?}",
        of("golive-confirmed")[0]
    );
    assert_eq!(of("went-live").len(), 1);
    world.daemon.cli(&["audit", "verify"]).await.assert_code(0);
    world.assert_silent(&[]);
}

/// A webhook that nobody outside reaches.
async fn kept_back_again(world: &mut World) {
    world.daemon.site.forget_document(APPLICATION);
    let more = "lease: 2s, endpoints: {webhook: \"https://localhost/hook\"}";
    world.production_token = world.daemon.site.application(APPLICATION, "production", &[PRODUCTION, "hook"], more);
    world.daemon.site.write();
    world.daemon.reload();
    for _ in 0..100 {
        if in_state(&list(&world.daemon).await, "failed").contains(&"dinie-production.webhook-url".to_owned()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the new documents aren't taken up:\n{}", world.daemon.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_for_people_for_programs_and_for_a_ticket() {
    let mut site = Site::new();
    site.rotation("quick", STILL);
    site.provider("dinie", "production", "http://127.0.0.1:1/v3");
    site.credential(PRODUCTION, "dinie", "production", "quick");
    site.application(APPLICATION, "production", &[PRODUCTION], "");
    let daemon = Daemon::start(site).await;
    let printed = daemon.cli(&["golive", APPLICATION]).await;
    printed.assert_code(1);
    let out = printed.out();
    for part in [
        "not ready",
        "STATE",
        "needs a person",
        "nothing is submitted: `keywright submit dinie-production`",
        "--confirm dinie-production.retries --by NAME",
    ] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
    assert!(!out.contains('\u{1b}'), "no colours in a file");
    let report = daemon.site.path("report.md");
    let file = report.to_str().unwrap();
    for _ in 0..2 {
        let printed = daemon.cli(&["golive", APPLICATION, "--markdown", file]).await;
        printed.assert_code(1);
        assert!(printed.out().contains("the report is in"), "{}", printed.out());
    }
    let written = std::fs::read_to_string(&report).unwrap();
    assert!(written.starts_with("# Going live: payments-api\n") && written.contains("\n|---|---|---|---|---|---|\n"), "{written}");
    let printed = daemon.cli(&["golive", APPLICATION, "--markdown"]).await;
    assert_eq!(printed.out().trim_end(), written.trim_end());
    std::fs::write(&report, "something else").unwrap();
    daemon.cli(&["golive", APPLICATION, "--markdown", file]).await.assert_code(1);
    assert_eq!(std::fs::read_to_string(&report).unwrap(), "something else");

    daemon.cli(&["golive", "nobody"]).await.assert_code(1);
    daemon.cli(&["golive", APPLICATION, "--confirm", "retries", "--by", "Ana Souza"]).await.assert_code(0);
    daemon.cli(&["golive", APPLICATION, "--withdraw", "retries", "--reason", "OPS-1"]).await.assert_code(0);
    assert!(in_state(&list(&daemon).await, "needs-person").contains(&"dinie-production.retries".to_owned()));
    let long = "x".repeat(64);
    for wrong in [
        &["--confirm", "retries"][..],
        &["--by", "Ana"],
        &["--confirm", "retries", "--by", ""],
        &["--confirm", "retries", "--by", "a; b"],
        &["--confirm", "retries", "--by", &long],
        &["--confirm", "Retries", "--by", "Ana"],
        &["--confirm", "a.b.c", "--by", "Ana"],
        &["--confirm", "retries", "--by", "Ana", "--withdraw", "retries"],
        &["--reason", "OPS-1"],
    ] {
        let printed = daemon.cli(&[&["golive", APPLICATION], wrong].concat()).await;
        assert_eq!(printed.code(), Some(2), "{wrong:?}: {}", printed.err());
    }
    for (item, body, status, slug) in [
        ("retries", json!({"by": "a;b"}), 400, "bad-request"),
        ("retries", json!({"by": "Ana", "reason": "two\nlines"}), 400, "bad-request"),
        ("retries", json!({"by": "Ana", "more": 1}), 400, "bad-request"),
        ("retries", json!({}), 400, "bad-request"),
        ("secrets-managed", json!({"by": "Ana"}), 400, "bad-request"),
        ("Retries", json!({"by": "Ana"}), 400, "bad-name"),
        ("nothing-like-it", json!({"by": "Ana"}), 404, "not-found"),
    ] {
        let path = format!("/v1/golive/{APPLICATION}/confirmations/{item}");
        let text = body.to_string();
        let ask = Ask { method: "PUT", path: &path, headers: &[], body: Some(text.as_bytes()) };
        daemon.site.socket().ask(ask).await.assert_problem(status, slug);
    }
}
