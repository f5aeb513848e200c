//! `check --credential`: a verdict without a daemon, and nothing kept.

use serde_json::json;

use crate::support::daemon::{Printed, keywright};
use crate::support::site::Site;

const LIVE: (&str, &str) = ("sk_live_", "pk_live_");
const TEST: (&str, &str) = ("sk_test_", "pk_test_");
const CHANCE: &str = "Zq7RkW2mXv9TtB4nYc6LpH8s";

fn site() -> Site {
    let mut site = Site::new();
    site.rotation("still", "maxAge: 90d");
    site.credential("tap-sandbox", "tap", "sandbox", "still");
    site.credential("tap-production", "tap", "production", "still");
    site.credential("tensfer-sandbox", "tensfer", "sandbox", "still");
    site.credential("tensfer-production", "tensfer", "production", "still");
    let accepted = "provider: tensfer, environment: production, rotation: still, path: accepted, acceptUndetermined: asked them";
    site.document("Credential", "tensfer-accepted", accepted);
    site.write();
    site
}

async fn judge(site: &Site, arguments: &[&str], input: &[u8]) -> Printed {
    let config = site.config();
    let all = [&["check", "--credential"], arguments, &["--config", config.to_str().expect("a plain path")]].concat();
    let printed = keywright(site.folder(), &all, &[], input).await;
    for text in [printed.out(), printed.err()] {
        assert!(CHANCE.as_bytes().windows(8).all(|part| !text.as_bytes().windows(8).any(|window| window == part)), "{text}");
    }
    printed
}

fn tap(prefixes: (&str, &str)) -> Vec<u8> {
    json!({"secret_key": format!("{}{CHANCE}", prefixes.0), "public_key": format!("{}{CHANCE}", prefixes.1)}).to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_judged_without_a_daemon_and_nothing_is_kept() {
    let site = site();
    for (name, input, code, word) in [
        ("tap-production", tap(LIVE), 0, "match"),
        ("tap-sandbox", tap(TEST), 0, "match"),
        ("tap-production", tap(TEST), 1, "`secret_key` has the form of a sandbox value"),
        ("tap-sandbox", tap(LIVE), 1, "`public_key` has the form of a production value"),
        ("tap-production", tap((LIVE.0, TEST.1)), 1, "`public_key` is a sandbox value and `secret_key` a production value"),
    ] {
        let printed = judge(&site, &[name], &input).await;
        printed.assert_code(code);
        assert!(printed.out().contains(word), "{name}: {word} isn't in {}", printed.out());
    }
    let tensfer = json!({"client_token": CHANCE, "public_key": CHANCE, "secret_key": CHANCE}).to_string();
    for (name, code, word) in [
        ("tensfer-sandbox", 0, "which the sandbox takes"),
        ("tensfer-production", 1, "acceptUndetermined"),
        ("tensfer-accepted", 0, "asked them"),
    ] {
        let printed = judge(&site, &[name], tensfer.as_bytes()).await;
        printed.assert_code(code);
        assert!(printed.out().contains("undetermined") && printed.out().contains(word), "{name}: {}", printed.out());
    }
    assert!(!site.folder().join("data").exists(), "nothing was opened, and nothing is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_the_proof_and_a_refusal_its_problem_document() {
    let site = site();
    let printed = judge(&site, &["tap-production", "--json"], &tap(TEST)).await;
    printed.assert_code(1);
    let document = printed.json();
    assert_eq!((document["accepted"].as_bool(), document["proof"]["verdict"].as_str()), (Some(false), Some("mismatch")), "{document}");
    assert!(document["proof"]["evidence"].as_array().is_some_and(|evidence| evidence.iter().any(|piece| piece["says"] == "against")));

    let incomplete = json!({"secret_key": format!("{}{CHANCE}", LIVE.0), "colour": "blue"}).to_string();
    let printed = judge(&site, &["tap-production", "--json"], incomplete.as_bytes()).await;
    printed.assert_code(1);
    let problem: serde_json::Value = serde_json::from_str(printed.err().trim()).expect("a problem document");
    assert!(problem["type"].as_str().is_some_and(|kind| kind.ends_with("/invalid-fields")), "{problem}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("`colour` isn't a field") && detail.contains("`public_key` is missing"), "{problem}");

    judge(&site, &["nobody"], &tap(LIVE)).await.assert_code(1);
    judge(&site, &["tap-production"], b"not json").await.assert_code(1);
    judge(&site, &["../x"], &tap(LIVE)).await.assert_code(2);
}
