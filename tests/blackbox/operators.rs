//! Operators with limited rights, and the reasons that reads of production leave behind.

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::sha256_hex;
use crate::support::site::Site;
use crate::support::wire::{Answer, Ask};
use crate::world::{PRODUCTION, Plan, SANDBOX, World};

const RIGHTS: [&str; 4] = ["status", "rotate", "revoke", "read"];

/// Each operator call of the contract with the right that it needs, and what answers those who have it here.
const CALLS: [(&str, &str, &str, &[u16]); 8] = [
    ("GET", "/v1/status", "status", &[200]),
    ("GET", "/v1/status/dinie-sandbox", "status", &[200]),
    ("GET", "/v1/plan", "status", &[200]),
    ("GET", "/v1/credentials/dinie-sandbox/versions", "status", &[200]),
    ("PUT", "/v1/credentials/dinie-sandbox/submission", "rotate", &[400]),
    ("POST", "/v1/credentials/dinie-sandbox/rotations", "rotate", &[409, 503]),
    ("DELETE", "/v1/applications/payments-api/instances/pod-1", "rotate", &[404]),
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
