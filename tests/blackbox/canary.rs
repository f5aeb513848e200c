//! Known secrets go through everything at trace level while every kind of call fails: nothing of them comes out.

mod commands;
mod documents;
mod house;
mod release;
mod routes;
mod wrong;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use crate::support::app::Mode;
use crate::support::canaries::{Canary, SHAPES};
use crate::support::controls::{Tally, count_answers, count_file_names, count_files, count_processes, plantings};
use crate::support::daemon::{Printed, printed};
use crate::support::dinie::faults::{CALLS, Fault, RECOVERABLE};
use crate::support::dinie::{Dinie, Options};
use crate::support::outputs::{LOGS, Outputs};
use crate::support::site::Site;
use crate::support::wire::Ask;
use crate::world::{PRODUCTION, Plan, SANDBOX, World, left_behind};

/// What the command line and the API answer, beside credentials.
#[derive(Default)]
struct Collected(Outputs);

impl Collected {
    fn printed(&mut self, command: &str, printed: Printed) {
        self.0.add(&format!("{command} stdout"), printed.stdout);
        self.0.add(&format!("{command} stderr"), printed.stderr);
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
            self.printed(&format!("{arguments:?}"), printed);
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
                        self.0.answer(&format!("{name} {method} {path}"), &answer);
                    }
                }
            }
            for path in ["/metrics", "/v1/status", "/v1/plan", "/healthz", "/readyz", "/v1/openapi.json"] {
                self.0.answer(&format!("{name} {path}"), &target.get(path, &[]).await);
            }
            let wrong = format!("Bearer {}", secret);
            let path = format!("/v1/credentials/{PRODUCTION}");
            let answer = target.get(&path, &[("authorization", wrong.as_str())]).await;
            if answer.status != 200 {
                self.0.answer(&format!("{name} with a wrong token"), &answer);
            }
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
    let mut outputs = Collected::default();
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
            outputs.printed("rotate", printed);
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
    outputs.0.assert_silent(&world.scanner(&canaries));
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
}

/// Once per channel that these tests look at, and per encoding: planted there, it is found by what collects there.
#[tokio::test]
async fn every_leak_on_purpose_is_found() {
    let mut tally = Tally::default();
    count_answers(&mut tally).await;
    let site = Site::new();
    std::fs::create_dir(site.path("data")).unwrap();
    let files = LOGS.into_iter().chain(["data/audit.jsonl", "data/keywright.redb"]).map(|name| site.path(name)).collect::<Vec<_>>();
    for file in &files {
        std::fs::write(file, "").unwrap();
    }
    count_files(&mut tally, &files, || left_behind(&site));
    count_file_names(&mut tally, &site.path("data"));
    count_processes(&mut tally);
    for (channel, script) in [("stdout", "cat"), ("stderr", "cat >&2")] {
        let plantings = plantings(channel);
        let mut collected = Collected::default();
        for planting in &plantings {
            collected.printed("sh", printed(Command::new("sh").args(["-c", script]), &planting.bytes).await);
        }
        tally.count(channel, &plantings, &collected.0);
    }
    tally.finish("canaries of the process");
}

/// What other processes of the machine can see of it: its arguments, its environment, a core's size.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_to_be_seen_from_outside_of_the_process() {
    let world = World::start(Plan::still()).await;
    let id = world.daemon.id();
    let scanner = world.scanner(&[]);
    let mut outputs = Outputs::default();
    outputs.process(id);
    outputs.assert_silent(&scanner);
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
