//! What lies on disk: its modes, one owner, the audit chain, a store that was cut.

use std::os::unix::fs::PermissionsExt as _;

use crate::world::{PRODUCTION, Plan, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_audit_record_is_named_and_a_torn_last_line_is_none() {
    let mut world = World::start(Plan::still()).await;
    assert!(world.daemon.terminate().await.success());
    let file = world.daemon.site.path("data/audit.jsonl");
    let good = std::fs::read_to_string(&file).expect("an audit file");
    let lines: Vec<&str> = good.lines().collect();
    assert!(lines.len() >= 3, "submissions are audited: {} records", lines.len());
    let verified = world.daemon.cli(&["audit", "verify"]).await;
    verified.assert_code(0);
    let records = format!("{} records verified", lines.len());
    assert!(verified.out().contains(&records), "{} instead of `{records}`", verified.out());

    // Another letter in the second record: its own hash, or its successor's link, no longer fits.
    let at = lines[1].rfind(|letter: char| letter.is_ascii_lowercase()).expect("a letter");
    let other = if &lines[1][at..=at] == "a" { "b" } else { "a" };
    let tampered = format!("{}{other}{}", &lines[1][..at], &lines[1][at + 1..]);
    let mut changed: Vec<&str> = lines.clone();
    changed[1] = &tampered;
    let dropped: Vec<&str> = lines.iter().enumerate().filter(|(index, _)| *index != 1).map(|(_, line)| *line).collect();
    for broken in [changed, dropped] {
        std::fs::write(&file, broken.join("\n") + "\n").expect("it is written");
        let printed = world.daemon.cli(&["audit", "verify"]).await;
        printed.assert_code(1);
        let said = printed.out() + &printed.err();
        assert!(said.contains("record "), "the record is not named: {said}");
    }
    std::fs::write(&file, format!("{good}{{\"torn")).expect("it is written");
    world.daemon.again().await;
    world.daemon.cli(&["audit", "verify"]).await.assert_code(0);
    let now = std::fs::read_to_string(&file).expect("an audit file");
    assert!(now.starts_with(&good) && now.lines().count() > lines.len(), "the removal is recorded");
}

/// A chain that was cut at a record is whole in itself: only who remembers its end can tell.
#[tokio::test(flavor = "multi_thread")]
async fn records_cut_from_the_end_of_the_trail_are_missed() {
    let mut world = World::start(Plan::still()).await;
    assert!(world.daemon.terminate().await.success());
    let file = world.daemon.site.path("data/audit.jsonl");
    let whole = std::fs::read_to_string(&file).expect("an audit file");
    world.daemon.again().await;
    let codes = async |world: &World| {
        let status = world.daemon.cli(&["status", "--json"]).await.json();
        let problems = status["problems"].as_array().expect("a list of problems").clone();
        problems.iter().filter_map(|problem| problem["code"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert!(!codes(&world).await.contains(&"audit-trail-broken".to_owned()), "an honest restart");
    assert!(world.daemon.terminate().await.success());

    let kept: Vec<&str> = whole.lines().take(whole.lines().count() - 2).collect();
    std::fs::write(&file, kept.join("\n") + "\n").expect("it is cut");
    world.daemon.cli(&["audit", "verify"]).await.assert_code(0);
    world.daemon.again().await;
    let mut seen = codes(&world).await;
    for _ in 0..100 {
        if seen.contains(&"audit-trail-broken".to_owned()) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        seen = codes(&world).await;
    }
    assert!(seen.contains(&"audit-trail-broken".to_owned()), "{seen:?}");
    let now = std::fs::read_to_string(&file).expect("an audit file");
    assert!(now.contains("trail-found-broken"), "the trail itself says what became of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_data_folder_has_one_daemon() {
    let mut world = World::unsubmitted(Plan::still()).await;
    let second = world.daemon.cli(&["run"]).await;
    second.assert_code(1);
    assert!(world.daemon.has_ended().is_none());
    world.daemon.cli(&["status"]).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_on_disk_is_the_owners_alone() {
    let world = World::start(Plan::still()).await;
    let data = world.daemon.site.path("data");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let files = world.daemon.site.data_files();
    assert!(files.len() >= 3, "a store, a key, an audit file");
    for (path, _) in files {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

/// Cut anywhere, the store is refused or repaired: what it then serves is what was acknowledged, or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_store_is_never_served() {
    let mut world = World::start(Plan::still()).await;
    world.daemon.kill().await;
    let files = world.daemon.site.data_files();
    let (path, bytes) = files
        .iter()
        .filter(|(path, _)| path.extension().is_none_or(|extension| extension != "jsonl"))
        .max_by_key(|(_, bytes)| bytes.len())
        .expect("a store")
        .clone();
    for keep in [bytes.len() / 2, bytes.len() / 4, 100, 0] {
        std::fs::write(&path, &bytes[..keep]).expect("it is cut");
        let run = tokio::time::timeout(std::time::Duration::from_secs(5), world.daemon.cli(&["run"])).await;
        let printed = run.unwrap_or_else(|_| panic!("a store cut to {keep} bytes was taken"));
        printed.assert_code(1);
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(printed.err().contains(name), "the file is not named: {}", printed.err());
    }
    std::fs::write(&path, &bytes).expect("it is put back");
    world.daemon.again().await;
    let printed = world.daemon.cli(&["get", PRODUCTION, "--field", "client_secret", "--reason", "a test"]).await;
    assert_eq!(printed.out().trim_end(), world.enrolled_production.secret);
}
