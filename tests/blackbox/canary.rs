//! Known secrets go through everything at trace level while every kind of call fails: nothing of them comes out.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::support::app::Mode;
use crate::support::canaries::{Canary, SHAPES};
use crate::support::dinie::faults::{CALLS, Fault, RECOVERABLE};
use crate::support::dinie::{Dinie, Options};
use crate::support::scanner::Scanner;
use crate::support::wire::Ask;
use crate::world::{PRODUCTION, Plan, SANDBOX, World};

/// Outputs by their channel, collected while the daemon is worked.
#[derive(Default)]
struct Outputs(Vec<(String, Vec<u8>)>);

impl Outputs {
    fn add(&mut self, channel: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push((channel.to_owned(), bytes.into()));
    }

    async fn commands(&mut self, world: &World) {
        for arguments in [
            &["status"][..],
            &["status", "--json"],
            &["plan"],
            &["plan", "--json"],
            &["check"],
            &["audit", "verify"],
            &["rotate", "nobody"],
            &["get", "nobody"],
        ] {
            let printed = world.daemon.cli(arguments).await;
            self.add(&format!("{arguments:?} stdout"), printed.stdout);
            self.add(&format!("{arguments:?} stderr"), printed.stderr);
        }
    }

    /// Answers that carry no credential, errors most of all; the requests hold secrets where errors like to echo.
    async fn answers(&mut self, world: &World, canary: &Canary) {
        let token = format!("Bearer {}", world.production_token);
        let secret = world.enrolled_production.secret.clone();
        let bodies = [
            json!({"fields": {"client_id": "x", "client_secret": canary.value}}).to_string(),
            json!({"fields": {"client_secret": [canary.value]}}).to_string(),
            json!({"fields": canary.value}).to_string(),
            json!({"credential": PRODUCTION, "version": canary.value, "proof": secret}).to_string(),
            format!("{{\"client_secret\": \"{}", canary.value),
        ];
        let mut targets = vec![("tcp", world.daemon.site.tcp())];
        targets.push(("socket", world.daemon.site.socket()));
        for (name, target) in targets {
            for body in &bodies {
                for (method, path) in [("PUT", format!("/v1/credentials/{SANDBOX}/submission")), ("POST", "/v1/confirmations".to_owned())] {
                    let headers = [("authorization", token.as_str())];
                    // The socket knows the operator by uid; two identities would be an error of its own.
                    let headers = if name == "tcp" { &headers[..] } else { &[] };
                    let ask = Ask { method, path: &path, headers, body: Some(body.as_bytes()) };
                    if let Ok(Some(answer)) = target.raw(&ask.bytes()).await {
                        self.add(&format!("{name} {method} {path}"), answer.body);
                        self.add(&format!("{name} {method} {path} headers"), format!("{:?}", answer.headers));
                    }
                }
            }
            for path in ["/metrics", "/v1/status", "/v1/plan", "/healthz", "/readyz", "/v1/openapi.json"] {
                self.add(&format!("{name} {path}"), target.get(path, &[]).await.body);
            }
            let wrong = format!("Bearer {}", secret);
            let path = format!("/v1/credentials/{PRODUCTION}");
            let answer = target.get(&path, &[("authorization", wrong.as_str())]).await;
            if answer.status != 200 {
                self.add(&format!("{name} with a wrong token"), answer.body);
            }
        }
    }

    fn assert_silent(&self, scanner: &Scanner) {
        for (channel, bytes) in &self.0 {
            let leaks = scanner.scan(channel, bytes);
            assert!(leaks.is_empty(), "{leaks:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_out_while_every_call_fails_in_every_way() {
    let plan = Plan {
        environment: &[("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")],
        options: |options| Options { odd_secrets: true, idempotency: false, page_limit: 2, ..options },
        ..Plan::quick()
    };
    let mut world = World::start(plan).await;
    world.production_app("pod-1", Mode::Confirms);
    world.sandbox_app("pod-1", Mode::Reconnects(Duration::from_secs(2)));
    let mut outputs = Outputs::default();
    let mut canaries = Vec::new();
    // Each call meets each fault once, and rotations are asked for so that each call is made.
    for fault in RECOVERABLE {
        for fake in [&world.sandbox, &world.production] {
            for call in CALLS {
                fake.lock().faults.next_time(call, fault);
            }
        }
    }
    for (round, shape) in SHAPES.into_iter().enumerate() {
        let canary = Canary::shaped(shape, 0xca_0a ^ round as u64);
        for credential in [SANDBOX, PRODUCTION] {
            let printed = world.daemon.cli(&["rotate", credential]).await;
            outputs.add("rotate stdout", printed.stdout);
            outputs.add("rotate stderr", printed.stderr);
        }
        outputs.answers(&world, &canary).await;
        outputs.commands(&world).await;
        canaries.push(canary);
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    // Which call comes when is the daemon's: on a slow machine some are asked for again, until each has failed in each way.
    for _ in 0..15 {
        if [&world.sandbox, &world.production].iter().all(|fake| kinds_met(fake).len() == CALLS.len() * RECOVERABLE.len()) {
            break;
        }
        for credential in [SANDBOX, PRODUCTION] {
            world.daemon.cli(&["rotate", credential]).await;
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    // A SIGKILL in the middle: what recovery prints counts too.
    world.daemon.kill().await;
    world.daemon.again().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    outputs.commands(&world).await;

    for fake in [&world.sandbox, &world.production] {
        let (kinds, all) = (kinds_met(fake), CALLS.len() * RECOVERABLE.len());
        println!("{} of {all} kinds of failure were met", kinds.len());
        assert_eq!(kinds.len(), all, "each call fails in each way: {kinds:?}");
    }
    outputs.assert_silent(&world.scanner(&canaries));
    world.assert_silent(&canaries);
}

/// The pairs of call and fault that a fake has made happen.
fn kinds_met(fake: &Dinie) -> BTreeSet<String> {
    fake.lock().faults.injected().keys().map(|(call, fault)| format!("{call:?} {fault}")).collect()
}

/// The same scanner, the same canaries, the one command that must print: were it blind, this would fail.
#[tokio::test(flavor = "multi_thread")]
async fn the_scanner_finds_what_get_prints() {
    let world = World::start(Plan::still()).await;
    let scanner = world.scanner(&[]);
    let printed = world.daemon.cli(&["get", PRODUCTION, "--reason", "a test"]).await;
    assert!(!scanner.scan("get", &printed.stdout).is_empty());
    let token = format!("Bearer {}", world.production_token);
    let path = format!("/v1/credentials/{PRODUCTION}");
    let answer = world.daemon.site.tcp().get(&path, &[("authorization", token.as_str())]).await;
    assert!(!scanner.scan("read", &answer.body).is_empty());
    // Once per channel that the great test looks at: planted there, it is found there.
    let secret = world.enrolled_production.secret.as_bytes();
    for (path, mut bytes) in world.daemon.logs().into_iter().chain(world.daemon.site.data_files()) {
        bytes.extend_from_slice(secret);
        assert!(!scanner.scan(&path.display().to_string(), &bytes).is_empty(), "{}", path.display());
    }
}

/// What other processes of the machine can see of it: its arguments, its environment, a core's size.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_to_be_seen_from_outside_of_the_process() {
    let world = World::start(Plan::still()).await;
    let id = world.daemon.id();
    let scanner = world.scanner(&[]);
    for name in ["cmdline", "environ", "status", "limits"] {
        // Not dumpable means that even its owner may not read some of these; root may.
        let bytes = std::fs::read(format!("/proc/{id}/{name}")).unwrap_or_default();
        assert!(scanner.scan(name, &bytes).is_empty(), "{name}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).unwrap_or_default();
    if let Some(line) = limits.lines().find(|line| line.starts_with("Max core file size")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{line}");
    }
}

/// A fault that a canary is likeliest to leak through: the reply that echoes what we sent.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_echoes_the_request_is_not_repeated() {
    let world = World::unsubmitted(Plan { environment: &[("RUST_LOG", "trace")], ..Plan::still() }).await;
    world.sandbox.lock().faults.at_random(100, &[Fault::EchoError]);
    let submitted = crate::world::fields(&world.enrolled_sandbox).to_string();
    let printed = world.daemon.cli_with(&["submit", SANDBOX], submitted.as_bytes()).await;
    let scanner = world.scanner(&[]);
    assert!(scanner.scan("stdout", &printed.stdout).is_empty() && scanner.scan("stderr", &printed.stderr).is_empty());
    world.assert_silent(&[]);
}
