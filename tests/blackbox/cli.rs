//! The command line: exit statuses, the shapes of `--json`, what is refused at the start.

use serde_json::Value;

use crate::support::daemon::keywright;
use crate::support::site::Site;
use crate::world::{PRODUCTION, Plan, SANDBOX, World};

const NOTHING: &[(&str, &str)] = &[];

fn assert_keys(value: &Value, wanted: &[&str]) {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    for key in wanted {
        assert!(object.contains_key(*key), "`{key}` is missing in {value}");
    }
    for key in object.keys() {
        assert!(wanted.contains(&key.as_str()), "`{key}` is not in the contract: {value}");
    }
}

/// The documents of a small installation, with nobody to call.
fn quiet_site() -> Site {
    let mut site = Site::new();
    site.provider("dinie", "sandbox", "http://127.0.0.1:1/v3");
    site.provider("dinie", "production", "http://127.0.0.1:1/v3");
    site.rotation("still", "maxAge: 90d");
    site.credential(SANDBOX, "dinie", "sandbox", "still");
    site
}

async fn offline(site: &Site, arguments: &[&str]) -> crate::support::daemon::Printed {
    let config = site.config();
    let mut all = arguments.to_vec();
    // After the subcommand here, before it elsewhere: both are promised.
    all.extend(["--config", config.to_str().expect("a plain path")]);
    keywright(site.folder(), &all, NOTHING, b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_every_problem_with_its_place() {
    let mut site = quiet_site();
    site.write();
    offline(&site, &["check"]).await.assert_code(0);
    let printed = offline(&site, &["check", "--json"]).await;
    printed.assert_code(0);
    assert_eq!(printed.json(), serde_json::json!({"problems": []}));

    site.document("RotationPolicy", "odd", "maxAge: 1d, overlap: 2d");
    site.document("RotationPolicy", "months", "maxAge: 3months");
    site.document("Credential", "lost", "provider: nobody, environment: sandbox, rotation: still");
    site.document("Credential", SANDBOX, "provider: dinie, environment: sandbox, rotation: still");
    site.document("Application", "typo", "environment: sandbox, credentials: [], identty: {}");
    site.write();
    let printed = offline(&site, &["check", "--json"]).await;
    printed.assert_code(2);
    let document = printed.json();
    let problems = document["problems"].as_array().expect("problems");
    assert!(problems.len() >= 5, "all problems at once: {document}");
    for problem in problems {
        assert_keys(problem, &["file", "line", "column", "code", "message", "help"]);
        assert!(problem["line"].as_u64() > Some(0) && problem["column"].as_u64() > Some(0), "{problem}");
        assert!(problem["file"].as_str().is_some_and(|file| file.ends_with("all.yaml")), "{problem}");
    }
    let text = document.to_string();
    for word in ["`overlap`", "bad-duration", "nobody", SANDBOX, "identty"] {
        assert!(text.contains(word), "nothing is said of `{word}`: {document}");
    }
    let people = offline(&site, &["check"]).await;
    people.assert_code(2);
    assert!((people.out() + &people.err()).contains("all.yaml:"), "{}", people.err());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_told_apart_from_refusal() {
    let site = quiet_site();
    site.write();
    for arguments in [&["frobnicate"][..], &["status", "--frobnicate"], &["submit"], &["rotate"]] {
        offline(&site, arguments).await.assert_code(2);
    }
    let printed = keywright(site.folder(), &["check", "--config", "/nowhere.yaml"], NOTHING, b"").await;
    printed.assert_code(2);
    std::fs::write(site.config(), "policies: ./policies\ncolour: blue\n").expect("it is written");
    offline(&site, &["run"]).await.assert_code(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_socket_is_named() {
    let site = quiet_site();
    site.write();
    for arguments in [
        &["status"][..],
        &["plan"],
        &["get", SANDBOX],
        &["rotate", SANDBOX],
        &["rotate", "--provider", "dinie", "--compromised"],
        &["rollback", SANDBOX],
        &["revoke", SANDBOX, "--version", "v1"],
        &["forget", SANDBOX],
        &["pause"],
        &["resume", SANDBOX],
        &["release", "a"],
    ] {
        let printed = offline(&site, arguments).await;
        printed.assert_code(1);
        assert!(printed.err().contains("keywright.sock"), "{arguments:?}: {}", printed.err());
    }
    // Without one, too: what only looks at files, or at nothing.
    offline(&site, &["check"]).await.assert_code(0);
    let schema = keywright(site.folder(), &["schema"], NOTHING, b"").await;
    schema.assert_code(0);
    assert_eq!(schema.json()["$schema"], "https://json-schema.org/draft/2020-12/schema");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let printed = keywright(site.folder(), &["completions", shell], NOTHING, b"").await;
        printed.assert_code(0);
        assert!(printed.out().contains("submit"), "{shell}");
    }
    keywright(site.folder(), &["completions", "cmd"], NOTHING, b"").await.assert_code(2);
    let page = keywright(site.folder(), &["man"], NOTHING, b"").await;
    page.assert_code(0);
    assert!(page.out().contains(".TH keywright 1"), "{}", page.out());
    keywright(site.folder(), &["man", "--dir", "man1"], NOTHING, b"").await.assert_code(0);
    assert!(site.folder().join("man1/keywright-audit-verify.1").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_make_libraries_print_secrets_are_refused() {
    let site = quiet_site();
    site.write();
    let config = site.config();
    let arguments = ["run", "--config", config.to_str().expect("a plain path")];
    for name in ["LOG_SENSITIVE_BODIES", "LOG_SIGNABLE_BODY", "SSLKEYLOGFILE"] {
        let printed = keywright(site.folder(), &arguments, &[(name, "1")], b"").await;
        assert!(matches!(printed.code(), Some(1 | 2)), "{name} was accepted");
        assert!(printed.err().contains(name), "{}", printed.err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_plan_have_the_contracts_shape() {
    let world = World::unsubmitted(Plan::still()).await;
    assert_eq!(world.daemon.status(SANDBOX).await["phase"], "missing");
    world.daemon.submit(SANDBOX, &crate::world::fields(&world.enrolled_sandbox)).await;
    let printed = world.daemon.cli(&["status", "--json"]).await;
    printed.assert_code(0);
    let document = printed.json();
    assert_eq!(document["credentials"].as_array().map(Vec::len), Some(2), "{document}");
    assert!(document["problems"].is_array(), "{document}");
    let row = world.daemon.status(SANDBOX).await;
    assert_keys(
        &row,
        &[
            "name",
            "provider",
            "environment",
            "endpoint",
            "proof",
            "version",
            "previous_version",
            "phase",
            "generation",
            "issued_at",
            "age_seconds",
            "due_at",
            "deadline_at",
            "overlap_ends_at",
            "reason",
            "paused",
            "applications",
            // Beside the contract's.
            "account",
            "incident",
            "request",
            "rollout",
            "paused_since",
        ],
    );
    assert_eq!(row["phase"], "steady");
    assert_eq!(row["proof"]["verdict"], "match", "{row}");
    for evidence in row["proof"]["evidence"].as_array().expect("evidence") {
        assert_keys(evidence, &["kind", "says", "why"]);
    }
    assert_eq!(row["endpoint"], world.sandbox.base_url(), "where a provider really is, is shown");
    assert!(row["previous_version"].is_null() && row["overlap_ends_at"].is_null(), "{row}");
    for time in ["issued_at", "due_at", "deadline_at"] {
        let text = row[time].as_str().unwrap_or_default();
        assert!(text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok(), "{time}: {text}");
    }
    let planned = world.daemon.cli(&["plan", "--days", "120", "--json"]).await;
    planned.assert_code(0);
    let planned = planned.json();
    let entry = planned["plan"].as_array().and_then(|rows| rows.iter().find(|row| row["name"] == SANDBOX)).cloned();
    assert_keys(&entry.expect("it is planned"), &["name", "starts_at", "deadline_at", "reason", "blocked_by"]);
    assert!(planned.as_object().expect("an object").contains_key("next"), "{planned}");
    // Beside what the contract names: starts by account and day.
    let herd = planned["herds"].as_array().and_then(|rows| rows.first()).cloned();
    assert_keys(&herd.expect("it starts within 120 days"), &["account", "day", "starts"]);
    // People get a table, without colour where no terminal is.
    let table = world.daemon.cli(&["status"]).await;
    assert!(table.out().contains(SANDBOX) && !table.out().contains('\u{1b}'), "{}", table.out());
    let refused = world.daemon.cli(&["status", "nobody", "--json"]).await;
    refused.assert_code(1);
    let problem: Value = serde_json::from_slice(&refused.stderr).expect("an error is its problem document");
    assert!(problem["type"].as_str().is_some_and(|kind| kind.starts_with("https://keywright.dev/problems/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn get_prints_what_an_operator_may_read() {
    let world = World::start(Plan::still()).await;
    let printed = world.daemon.cli(&["get", PRODUCTION, "--field", "client_secret", "--reason", "a test"]).await;
    printed.assert_code(0);
    assert_eq!(printed.out().trim_end(), world.enrolled_production.secret);
    let all = world.daemon.cli(&["get", PRODUCTION, "--reason", "a test"]).await;
    all.assert_code(0);
    assert!(all.out().contains(&world.enrolled_production.client_id));
    world.daemon.cli(&["get", PRODUCTION, "--field", "nothing", "--reason", "a test"]).await.assert_code(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_waits_when_asked() {
    let world = World::start(Plan::still()).await;
    let before = world.daemon.status(SANDBOX).await["version"].clone();
    world.daemon.cli(&["rotate", SANDBOX, "--wait"]).await.assert_code(0);
    assert_ne!(world.daemon.status(SANDBOX).await["version"], before);
    world.daemon.cli(&["rotate", "nobody"]).await.assert_code(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_policies_leave_the_last_good_ones_in_force() {
    let mut world = World::start(Plan::still()).await;
    world.daemon.site.document("RotationPolicy", "bad", "maxAge: never");
    world.daemon.reload();
    let said = || world.daemon.logs().iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains("all.yaml"));
    assert!(crate::support::eventually(std::time::Duration::from_secs(10), said).await, "nothing was said");
    world.daemon.cli(&["get", PRODUCTION, "--field", "client_id", "--reason", "a test"]).await.assert_code(0);
    assert_eq!(world.daemon.site.tcp().get("/readyz", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_a_problem_document_where_json_is_asked_for() {
    let site = quiet_site();
    site.write();
    for arguments in [&["status", "--json", "--nope"][..], &["frobnicate", "--json"], &["plan", "--days", "x", "--json"]] {
        let printed = keywright(site.folder(), arguments, NOTHING, b"").await;
        printed.assert_code(2);
        let problem: Value = serde_json::from_slice(&printed.stderr).expect("a problem document");
        assert_eq!(problem["type"], "https://keywright.dev/problems/usage");
        assert!(problem["detail"].as_str().is_some_and(|text| text.len() > 5), "{problem}");
    }
}
