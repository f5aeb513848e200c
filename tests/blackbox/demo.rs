//! The demo is the first thing that a new user runs: it must hold what it prints, and say so with its exit status.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::support::daemon::{Printed, keywright};

/// Starts it beside the test, and waits for its end.
fn demo(folder: &Path, options: &[&str]) -> impl Future<Output = Printed> + use<> {
    let mut command = Command::new(crate::support::daemon::binary());
    command.args(["demo", "--json"]).args(options).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.kill_on_drop(true).spawn().expect("it starts");
    async move {
        let output = child.wait_with_output().await.expect("it runs");
        Printed { status: output.status, stdout: output.stdout, stderr: output.stderr }
    }
}

/// Exit status 0, and each claim holds.
fn assert_proved(printed: &Printed, claims_min: usize) -> Value {
    printed.assert_code(0);
    let summary = printed.json();
    assert_eq!(summary["passed"], true, "{summary}");
    let claims = summary["claims"].as_array().expect("claims");
    assert!(claims.len() >= claims_min && claims.iter().all(|claim| claim["passed"] == true), "{summary}");
    summary
}

fn told<'a>(summary: &'a Value, step: &str) -> Vec<&'a str> {
    let steps = summary["steps"].as_array().expect("steps");
    steps.iter().filter(|line| line["step"] == step).filter_map(|line| line["text"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_proves_what_it_claims() {
    let folder = tempfile::tempdir().expect("a folder");
    let summary = assert_proved(&demo(folder.path(), &[]).await, 8);
    assert!(told(&summary, "stolen").is_empty() && summary["report"].is_null(), "{summary}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_second_chapter_replaces_a_stolen_key_and_proves_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let summary = assert_proved(&demo(folder.path(), &["--stolen"]).await, 14);
    assert!(told(&summary, "board").iter().any(|line| line.contains("still hold the old key: payments-api/demo-2")), "{summary}");
    let entry = &summary["report"]["credentials"][0];
    assert_eq!((&entry["outcome"], &entry["old_closure"]), (&"done".into(), &"proved".into()), "{summary}");
    assert_eq!(entry["stragglers"], serde_json::json!([{"application": "payments-api", "instance": "demo-2"}]), "{summary}");
    let thiefs = entry["unknown_keys"][0].as_str().expect("the thief's key is named");
    assert!(told(&summary, "thief")[0].contains(thiefs), "{summary}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "nothing is left behind");
}

/// Declares the demo's key stolen from a second terminal as soon as its status is like this; what the demo says of it.
async fn declared_stolen(within: &str, when: impl Fn(&Value) -> bool) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let running = tokio::spawn(demo(folder.path(), &["--keep", "kept"]));
    let config = folder.path().join("kept/keywright.yaml");
    let config = config.to_str().expect("a plain path");
    let terminal =
        async |arguments: &[&str]| keywright(folder.path(), &[arguments, &["--json", "--config", config]].concat(), &[], b"").await;
    let look = async || {
        let printed = terminal(&["status", "dinie-sandbox"]).await;
        printed.code() == Some(0) && when(&printed.json()["credentials"][0])
    };
    let mut looks = 0;
    while !look().await {
        looks += 1;
        assert!(looks < 600 && !running.is_finished(), "it never stood like this");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let printed = terminal(&["rotate", "dinie-sandbox", "--compromised", "--within", within, "--reason", "a test"]).await;
    printed.assert_code(0);
    let summary = assert_proved(&running.await.expect("it runs"), 8);
    assert_eq!(told(&summary, "stolen").len(), 1, "{summary}");
    let claims = summary["claims"].to_string();
    assert!(claims.contains("declared stolen is dead") && !claims.contains("s of overlap"), "it is told as what it was: {claims}");
    summary
}

fn is_confirmed(row: &Value) -> bool {
    row["applications"].as_array().is_some_and(|all| all.iter().any(|entry| entry["state"] == "confirmed"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_that_somebody_declares_meanwhile_is_told_as_one() {
    let summary = declared_stolen("60s", |row| row["phase"] == "steady" && is_confirmed(row)).await;
    assert!(told(&summary, "due").is_empty(), "nothing was due: {summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_in_the_overlap_is_told_as_one_too() {
    let summary = declared_stolen("60s", |row| !row["previous_version"].is_null() && is_confirmed(row)).await;
    assert_eq!((told(&summary, "due").len(), told(&summary, "promoted").len()), (1, 2), "{summary}");
}
