//! What happens to a program when a credential changes, and when that is confirmed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::{House, SERVICE, lives};
use crate::support::eventually;
use crate::world::SANDBOX;

/// Longer than the overlap of the policy: a key that may die is dead by then.
const PAST_OVERLAP: Duration = Duration::from_secs(6);

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_restarted_with_the_new_key_and_then_the_old_one_dies() {
    let house = House::start().await;
    let mut program = house.service(&["--settle", "2s"]);
    let first = program.tells("start", 1).await;
    assert_eq!(first.client_id, house.first.client_id);
    let files = Path::new(&first.files);
    assert_eq!(std::fs::read_to_string(files.join("dinie-sandbox/client_secret")).unwrap(), house.first.secret);
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(files.join("dinie-sandbox.json")).unwrap()).unwrap();
    assert_eq!(document["fields"]["client_id"], house.first.client_id.as_str());
    assert_eq!((document["name"].as_str(), document["environment"].as_str()), (Some(SANDBOX), Some("sandbox")));
    assert_eq!((mode(files), mode(&files.join("dinie-sandbox/client_secret"))), (0o700, 0o400));
    program.says("confirmed: dinie-sandbox").await;
    house.assert_silent(&program, &[]);

    let new = house.rotate().await;
    let second = program.tells("start", 2).await;
    assert_eq!((second.client_id.as_str(), second.files.as_str()), (new.client_id.as_str(), first.files.as_str()));
    assert!(!lives(&first.id) && program.told("TERM").len() == 1, "the old one was ended, and not killed: {}", program.said());
    assert_eq!(std::fs::read_to_string(files.join("dinie-sandbox/client_secret")).unwrap(), new.secret);
    house.old_key_dies(|| program.told("start").len() == 2).await;
    assert_eq!(house.states().await, ["confirmed"]);
    assert!(lives(&second.id) && program.told("start").len() == 2, "no restart without a change");
    house.assert_silent(&program, &[]);

    assert_eq!(program.terminate().await.code(), Some(5), "{}", program.said());
    assert!(!files.exists(), "the folder is gone");
    house.assert_silent(&program, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_reads_again_gets_a_signal() {
    let house = House::start().await;
    let mut program = house.service(&["--signal", "HUP", "--settle", "1s"]);
    let first = program.tells("start", 1).await;
    let new = house.rotate().await;
    let hup = program.tells("HUP", 1).await;
    assert_eq!((&hup.id, &hup.client_id), (&first.id, &new.client_id), "the same program finds new files");
    house.old_key_dies(|| !program.told("HUP").is_empty()).await;
    assert_eq!(program.told("start").len(), 1);
    assert_eq!(program.terminate().await.code(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_confirmed_before_the_check_passes() {
    let house = House::start().await;
    let good = house.daemon.site.path("good");
    // With the new files: it finds them as the program does.
    let check = house.daemon.site.path("check");
    std::fs::write(&check, format!("#!/bin/sh\ntest -s $KEYWRIGHT_CREDENTIALS/dinie-sandbox.json && test -e {}\n", good.display()))
        .unwrap();
    std::fs::set_permissions(&check, PermissionsExt::from_mode(0o700)).unwrap();
    let program = house.service(&["--check", check.to_str().unwrap()]);
    program.tells("start", 1).await;
    house.rotate().await;
    program.tells("start", 2).await;
    program.says("the check didn't pass (exit status 1)").await;
    tokio::time::sleep(PAST_OVERLAP).await;
    assert!(house.old_key_lives(), "revoked although no check passed");
    assert!(!house.states().await.contains(&"confirmed".to_owned()));
    std::fs::write(&good, "").unwrap();
    house.old_key_dies(|| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_with_the_new_key_is_not_confirmed_and_ends_exec() {
    let house = House::start().await;
    let crash = r#"[ -e crash ] && exit 3; touch crash; "#.to_owned() + SERVICE;
    let mut program = house.program(&["--settle", "3s"], &crash);
    let first = program.tells("start", 1).await;
    program.says("confirmed").await;
    house.rotate().await;
    assert_eq!(program.ends().await.code(), Some(3), "{}", program.said());
    assert!(!Path::new(&first.files).exists());
    tokio::time::sleep(PAST_OVERLAP).await;
    assert!(house.old_key_lives(), "revoked although the new program fell over");
}

/// Ignores SIGTERM, as does a worker that it leaves behind: both must be gone before anything is confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ignores_signals_is_killed_with_all_that_it_started() {
    let house = House::start().await;
    let stubborn = r#"
trap '' TERM
(sh -c 'trap "" TERM; echo $$ >> workers; while :; do sleep 0.1; done' &)
until [ -s workers ]; do sleep 0.1; done
echo "start $$ $(cat $KEYWRIGHT_CREDENTIALS/dinie-sandbox/client_id) $KEYWRIGHT_CREDENTIALS" >> story
while :; do sleep 0.1; done
"#;
    let mut program = house.program(&["--settle", "1s", "--grace", "1s"], stubborn);
    let first = program.tells("start", 1).await;
    let worker = program.text("workers").lines().next().expect("a worker").to_owned();
    assert!(lives(&first.id) && lives(&worker));
    house.rotate().await;
    program.tells("start", 2).await;
    assert!(!lives(&first.id) && !lives(&worker), "what has the old key was killed: {}", program.said());
    assert!(program.said().contains("it is killed"), "{}", program.said());
    house.old_key_dies(|| !lives(&worker)).await;
    // It ignores ours as well: what ends it is for who started us to decide.
    program.signal(rustix::process::Signal::TERM);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let last = program.told("start")[1].clone();
    assert!(lives(&last.id));
    super::kill_process(super::Pid::from_raw(last.id.parse().unwrap()).unwrap(), super::Signal::KILL).unwrap();
    assert_eq!(program.ends().await.code(), Some(137));
    for worker in program.text("workers").lines().filter(|id| lives(id)) {
        super::kill_process(super::Pid::from_raw(worker.parse().unwrap()).unwrap(), super::Signal::KILL).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_come_together_are_one_restart() {
    let house = House::start().await;
    let slow = SERVICE.replace("tell TERM; exit 5", "tell TERM; until [ -e go ]; do sleep 0.1; done; exit 5");
    let program = house.program(&["--settle", "1s", "--grace", "60s"], &slow);
    program.tells("start", 1).await;
    let new = house.rotate().await;
    program.tells("TERM", 1).await;
    // While the old program takes its time, the key changes back.
    house.daemon.cli(&["rollback", SANDBOX]).await.assert_code(0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    std::fs::write(house.daemon.site.path("go"), "").unwrap();
    let back = program.tells("start", 2).await;
    assert_eq!(back.client_id, house.first.client_id, "the newest one, and nothing in between");
    // What is confirmed is the old key under its new version: the one that was taken back dies.
    assert!(eventually(super::LIMIT, || !house.sandbox.alive(&new.secret)).await, "{}", program.said());
    assert!(house.old_key_lives() && lives(&back.id));
    assert_eq!(program.told("start").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_runs_on_while_the_daemon_is_away() {
    let mut house = House::start().await;
    let program = house.service(&["--settle", "1s"]);
    let first = program.tells("start", 1).await;
    program.says("confirmed").await;
    house.daemon.kill().await;
    program.says("the program goes on with what it has").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(lives(&first.id));
    house.daemon.again().await;
    program.says("the daemon is there again").await;
    assert_eq!(program.told("start").len(), 1, "nothing changed, so nothing is restarted");
    house.rotate().await;
    program.tells("start", 2).await;
    // Away while there is something to confirm: it is said later.
    house.daemon.kill().await;
    program.says("isn't confirmed yet").await;
    house.daemon.again().await;
    house.old_key_dies(|| true).await;
    assert_eq!(program.told("start").len(), 2);
    assert!(lives(&program.told("start")[1].id));
}
