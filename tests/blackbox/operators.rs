//! Operators with limited rights, and the reasons that reads of production leave behind.

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::sha256_hex;
use crate::support::site::Site;
use crate::support::wire::{Answer, Ask};
use crate::world::{PRODUCTION, Plan, SANDBOX, World};

const RIGHTS: [&str; 4] = ["status", "rotate", "revoke", "read"];

/// Each operator call of the contract with the right that it needs, and what answers those who have it here.
const CALLS: [(&str, &str, &str, &[u16]); 11] = [
    ("GET", "/v1/status", "status", &[200]),
    ("GET", "/v1/status/dinie-sandbox", "status", &[200]),
    ("GET", "/v1/plan", "status", &[200]),
    ("GET", "/v1/credentials/dinie-sandbox/versions", "status", &[200]),
    ("PUT", "/v1/credentials/dinie-sandbox/submission", "rotate", &[400]),
    ("POST", "/v1/credentials/dinie-sandbox/rotations", "rotate", &[409, 503]),
    ("DELETE", "/v1/applications/payments-api/instances/pod-1", "rotate", &[404]),
    ("GET", "/v1/golive/payments-api", "status", &[200]),
    ("PUT", "/v1/golive/payments-api/confirmations/retries", "rotate", &[400]),
    ("DELETE", "/v1/golive/payments-api/confirmations/retries", "rotate", &[204]),
    ("GET", "/v1/credentials/dinie-sandbox", "read", &[503]),
];

fn token_of(right: &str) -> String {
    format!("operator-token-{right}")
}

async fn ask(daemon: &Daemon, token: &str, method: &str, path: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let body = (method == "PUT").then_some(&b"{}"[..]);
    daemon.site.tcp().ask(Ask { method, path, headers: &headers, body }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_does_what_the_configuration_allows() {
    let mut site = Site::new();
    site.provider("dinie", "sandbox", "http://127.0.0.1:1/v3");
    site.rotation("still", "maxAge: 90d");
    site.credential(SANDBOX, "dinie", "sandbox", "still");
    site.application("payments-api", "sandbox", &[SANDBOX], "");
    let operator = |name: &str, may: &str| format!("  - {{token: {{sha256: \"{}\"}}{may}}}\n", sha256_hex(token_of(name).as_bytes()));
    let each: String = RIGHTS.iter().map(|right| operator(right, &format!(", may: [{right}]"))).collect();
    // Without `may`: the daemon's own uid may do everything, others see and rotate.
    let own = rustix::process::geteuid().as_raw();
    site.extra_config = format!("operators:\n{each}{}  - {{unix: {{uid: {own}}}}}\n", operator("usual", ""));
    let daemon = Daemon::start(site).await;
    for (method, path, needed, expected) in CALLS {
        for held in RIGHTS.into_iter().chain(["usual"]) {
            let answer = ask(&daemon, &token_of(held), method, path).await;
            if held == needed || (held == "usual" && ["status", "rotate"].contains(&needed)) {
                assert!(expected.contains(&answer.status), "{method} {path} as {held}: {}", answer.status);
                continue;
            }
            answer.assert_problem(403, "forbidden");
            let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
            assert!(detail.contains(&format!("`{needed}`")), "{method} {path} as {held}: {detail}");
        }
    }
    for (method, path, _, expected) in CALLS {
        let body = (method == "PUT").then_some(&b"{}"[..]);
        let answer = daemon.site.socket().ask(Ask { method, path, headers: &[], body }).await;
        assert!(expected.contains(&answer.status), "{method} {path} as the daemon's own uid: {}", answer.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_read_of_production_leaves_its_reason_in_the_trail() {
    let world = World::start(Plan::still()).await;
    let refused = world.daemon.cli(&["get", PRODUCTION, "--json"]).await;
    refused.assert_code(1);
    assert!(refused.stdout.is_empty());
    let problem: Value = serde_json::from_slice(&refused.stderr).expect("a problem document");
    assert_eq!(problem["type"], "https://keywright.dev/problems/bad-request");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("--reason")), "{problem}");
    world.daemon.cli(&["get", SANDBOX]).await.assert_code(0);

    let reason = "INC-7: pagamentos não passam, 100% dos pedidos";
    let printed = world.daemon.cli(&["get", PRODUCTION, "--field", "client_id", "--reason", reason]).await;
    printed.assert_code(0);
    assert_eq!(printed.out(), world.enrolled_production.client_id);
    for bad in ["", "two\nlines", &"x".repeat(501)] {
        world.daemon.cli(&["get", PRODUCTION, "--reason", bad]).await.assert_code(2);
    }
    // The stream of an operator says why, too; an application's reads need no reason.
    let socket = world.daemon.site.socket();
    socket.get("/v1/events", &[]).await.assert_problem(400, "bad-request");
    let bearer = format!("Bearer {}", world.production_token);
    let path = format!("/v1/credentials/{PRODUCTION}");
    assert_eq!(world.daemon.site.tcp().get(&path, &[("authorization", &bearer)]).await.status, 200);

    let trail = std::fs::read_to_string(world.daemon.site.path("data/audit.jsonl")).expect("the trail");
    let disclosed = |line: &&Value| line["action"] == "disclosed" && line["credential"] == PRODUCTION;
    let lines: Vec<Value> = trail.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    let details: Vec<&Value> = lines.iter().filter(disclosed).map(|line| &line["detail"]).collect();
    assert_eq!(details, [&Value::from(format!("reason: {reason}")), &Value::Null], "{trail}");
    world.daemon.cli(&["audit", "verify"]).await.assert_code(0);
    world.assert_silent(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_may_say_why_and_the_trail_keeps_it() {
    let world = World::start(Plan::still()).await;
    let cli = async |arguments: &[&str], why: &str| {
        world.daemon.cli(&[arguments, &["--reason", why]].concat()).await.assert_code(0);
    };
    let version = async || world.daemon.status(PRODUCTION).await["version"].as_str().expect("a version").to_owned();
    cli(&["pause", PRODUCTION], "INC-1: löst aus").await;
    cli(&["resume", PRODUCTION], "INC-2").await;
    cli(&["pause"], "INC-3").await;
    cli(&["resume"], "INC-4").await;
    let first = version().await;
    cli(&["rotate", PRODUCTION, "--wait"], "INC-5").await;
    cli(&["rollback", PRODUCTION], "INC-6: 50% of calls fail").await;
    cli(&["rotate", PRODUCTION, "--compromised", "--within", "0s"], "INC-7").await;
    let second = version().await;
    cli(&["rotate", PRODUCTION, "--wait"], "INC-8").await;
    cli(&["revoke", PRODUCTION, "--version", &second, "--force"], "INC-9").await;
    cli(&["release", "payments-api"], "INC-10").await;
    cli(&["forget", PRODUCTION, "--force"], "INC-11").await;
    // None needs one.
    world.daemon.cli(&["pause", SANDBOX]).await.assert_code(0);
    for bad in ["", "two\nlines", &"x".repeat(501)] {
        world.daemon.cli(&["resume", SANDBOX, "--reason", bad]).await.assert_code(2);
    }
    let ask = Ask { method: "PUT", path: "/v1/pause", headers: &[("keywright-reason", "50% off")], body: None };
    world.daemon.site.socket().ask(ask).await.assert_problem(400, "bad-request");
    assert_eq!(world.daemon.status(SANDBOX).await["paused"], true, "a resume for a bad reason is none");
    let all = world.daemon.cli(&["status", "--json"]).await.json();
    assert!(!all["problems"].to_string().contains("\"paused\""), "neither is a pause of everything: {all}");

    let trail = std::fs::read_to_string(world.daemon.site.path("data/audit.jsonl")).expect("the trail");
    let lines: Vec<Value> = trail.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    let orders = lines.iter().filter(|line| line["action"].as_str().is_some_and(|word| word.ends_with("-requested") || word == "released"));
    let kept: Vec<(&str, Option<&str>)> =
        orders.map(|line| (line["action"].as_str().unwrap_or_default(), line["detail"].as_str())).collect();
    assert_eq!(
        kept,
        [
            ("pause-requested", Some("reason: INC-1: löst aus")),
            ("resume-requested", Some("reason: INC-2")),
            ("pause-requested", Some("all credentials; reason: INC-3")),
            ("resume-requested", Some("all credentials; reason: INC-4")),
            ("rotation-requested", Some("reason: INC-5")),
            ("rollback-requested", Some("reason: INC-6: 50% of calls fail")),
            ("rotation-requested", Some("compromised; whoever holds the key loses it within 0 s; reason: INC-7")),
            ("rotation-requested", Some("reason: INC-8")),
            ("revocation-requested", Some("held or not; reason: INC-9")),
            ("released", Some("payments-api: all instances; reason: INC-10")),
            ("forget-requested", Some("reason: INC-11")),
            ("pause-requested", None),
        ],
        "{trail}"
    );
    assert_ne!(first, second);
    world.daemon.cli(&["audit", "verify"]).await.assert_code(0);
    world.assert_silent(&[]);
}
