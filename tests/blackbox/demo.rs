//! The demo is the first thing that a new user runs: it must hold what it prints, and say so with its exit status.

use std::process::Stdio;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_proves_what_it_claims() {
    let folder = tempfile::tempdir().expect("a folder");
    let demo = tokio::process::Command::new(crate::support::daemon::binary())
        .args(["demo", "--json"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("it runs");
    let printed = String::from_utf8_lossy(&demo.stdout);
    assert!(demo.status.success(), "{printed}\n{}", String::from_utf8_lossy(&demo.stderr));
    let summary: serde_json::Value = serde_json::from_str(&printed).expect("one JSON document");
    assert_eq!(summary["passed"], true, "{summary}");
    assert!(summary["claims"].as_array().is_some_and(|claims| claims.len() >= 8), "{summary}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "nothing is left behind");
}
