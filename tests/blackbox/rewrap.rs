//! A new key-encryption key while applications read and keys rotate: nothing is refused, nothing is lost, whenever the daemon dies.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::app::Mode;
use crate::support::canaries::Canary;
use crate::support::daemon::Daemon;
use crate::support::rng::Rng;
use crate::support::site::Site;
use crate::support::wire::Ask;
use crate::world::{PRODUCTION, Plan, SANDBOX, World, fields};

/// Secrets of our own, so that a rewrap takes many transactions.
const MANY: usize = 120;

/// A key as an operator makes one: where it lies, and a canary for it.
fn make_key(site: &Site, name: &str) -> PathBuf {
    let mut rng = Rng::new(Rng::fresh_seed());
    let file = site.path(name);
    std::fs::write(&file, rng.alnum(32)).expect("a key file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    file
}

fn canary_of(what: &'static str, file: &std::path::Path) -> Canary {
    Canary::after(what, "", &String::from_utf8(std::fs::read(file).expect("a key")).expect("an operator's key of letters"))
}

async fn standing(daemon: &Daemon) -> Value {
    daemon.site.socket().get("/v1/rewrap", &[]).await.json()
}

async fn problem_codes(daemon: &Daemon) -> Vec<String> {
    let status = daemon.cli(&["status", "--json"]).await.json();
    status["problems"].as_array().expect("problems").iter().map(|problem| problem["code"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_comes_under_rotations_and_readers_and_nothing_is_refused() {
    let mut world = World::start(Plan::quick()).await;
    world.production_app("pod-a", Mode::Confirms);
    world.sandbox_app("pod-a", Mode::Confirms);
    let stop = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let reader = {
        let (target, stop, reads) = (world.daemon.site.tcp(), stop.clone(), reads.clone());
        let bearer = format!("Bearer {}", world.production_token);
        // As the instance that confirms: a reader of its own would hold each old key.
        tokio::spawn(async move {
            let mut refused = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let path = format!("/v1/credentials/{PRODUCTION}");
                let answer = target.get(&path, &[("authorization", &bearer), ("keywright-instance", "pod-a")]).await;
                reads.fetch_add(1, Ordering::Relaxed);
                if answer.status != 200 {
                    refused.push(answer.status);
                }
            }
            refused
        })
    };
    let old = std::fs::read(world.daemon.site.path("data/keywright.key")).expect("the key");
    for _ in 0..3 {
        let printed = world.daemon.cli(&["rewrap", "--json"]).await;
        printed.assert_code(0);
        let view = printed.json();
        assert_eq!((view["state"].as_str(), view["rows_left"].as_u64()), (Some("done"), Some(0)), "{view}");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    world.wait_for_revocations(1, Duration::from_secs(60)).await;
    stop.store(true, Ordering::Relaxed);
    assert_eq!(reader.await.expect("it reads"), Vec::<u16>::new());
    assert!(reads.load(Ordering::Relaxed) > 50, "{reads:?}");
    let new = std::fs::read(world.daemon.site.path("data/keywright.key")).expect("the key");
    assert!(new.len() == 32 && new != old);

    // What was submitted once is still known, also after a start with the new key.
    world.daemon.terminate().await;
    world.daemon.again().await;
    let again = world.daemon.cli_with(&["submit", SANDBOX], fields(&world.enrolled_production).to_string().as_bytes()).await;
    again.assert_code(1);
    assert!(world.daemon.site.socket().get("/v1/rewrap", &[]).await.json()["old_pages"] == Value::Bool(false));
    let trail = std::fs::read_to_string(world.daemon.site.path("data/audit.jsonl")).expect("the trail");
    for action in ["rewrap-requested", "rewrapped"] {
        assert_eq!(trail.lines().filter(|line| line.contains(&format!("\"{action}\""))).count(), 3, "{action}");
    }
    world.assert_all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_key_is_taken_over_and_the_configuration_follows() {
    let mut world = World::start(Plan::still()).await;
    // An operator's key in the place of the one that was made: the first is a mounted file, too.
    let first = make_key(&world.daemon.site, "first.key");
    let to = first.to_str().expect("a plain path").to_owned();
    for (bad, said) in [("no.key", "no new key"), ("short.key", "exactly 32 bytes"), ("wide.key", "used by others")] {
        let file = make_key(&world.daemon.site, bad);
        match bad {
            "no.key" => std::fs::remove_file(&file).expect("it goes"),
            "short.key" => std::fs::write(&file, "short").expect("it is cut"),
            _ => std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("its mode"),
        }
        let refused = world.daemon.cli(&["rewrap", "--to", file.to_str().expect("a plain path")]).await;
        refused.assert_code(1);
        assert!(refused.err().contains(said), "{}", refused.err());
    }
    let done = world.daemon.cli(&["rewrap", "--to", &to]).await;
    done.assert_code(0);
    assert!(done.out().contains("now point `key.file` at") && done.out().contains(&to), "{}", done.out());
    assert_eq!(standing(&world.daemon).await["state"], "key-file-old");
    assert!(problem_codes(&world.daemon).await.contains(&"key-file-old".to_owned()));
    // With both files a start works; the former one alone opens nothing any more.
    world.daemon.terminate().await;
    world.daemon.again().await;
    world.daemon.cli(&["get", SANDBOX]).await.assert_code(0);
    world.daemon.terminate().await;
    let aside = world.daemon.site.path("aside.key");
    std::fs::rename(&first, &aside).expect("it goes");
    let refused = world.daemon.cli(&["run"]).await;
    refused.assert_code(1);
    assert!(refused.err().contains("since the rewrap") && refused.err().contains(&to), "{}", refused.err());
    // Where the configuration points, the new key opens it by itself.
    std::fs::rename(&aside, world.daemon.site.path("data/keywright.key")).expect("it is put there");
    world.daemon.again().await;
    world.daemon.cli(&["get", SANDBOX]).await.assert_code(0);
    let settled = async || standing(&world.daemon).await["state"] == "done";
    for _ in 0..50 {
        if settled().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(settled().await && !problem_codes(&world.daemon).await.contains(&"key-file-old".to_owned()));

    let key = canary_of("the first key", &world.daemon.site.path("data/keywright.key"));
    let second = make_key(&world.daemon.site, "second.key");
    world.daemon.cli(&["rewrap", "--to", second.to_str().expect("a plain path")]).await.assert_code(0);
    let keys = [key, canary_of("the second key", &second)];
    // The key files themselves hold them.
    std::fs::remove_file(world.daemon.site.path("data/keywright.key")).expect("it goes");
    world.assert_silent(&keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_goes_on_with_the_next_start() {
    let mut site = Site::new();
    site.rotation("still", "maxAge: 90d");
    let names: Vec<String> = (0..MANY).map(|number| format!("hook-{number:03}")).collect();
    for name in &names {
        site.credential(name, "webhook-secret", "sandbox", "still");
    }
    let mut daemon = Daemon::start(site).await;
    let values = async |daemon: &Daemon| {
        let mut values = Vec::new();
        for name in &names {
            let answer = daemon.site.socket().get(&format!("/v1/credentials/{name}"), &[]).await;
            values.push((answer.status, answer.json()["fields"].clone()));
        }
        values
    };
    let all_there = async || values(&daemon).await.iter().all(|(status, _)| *status == 200);
    let start = std::time::Instant::now();
    while !all_there().await {
        assert!(start.elapsed() < Duration::from_secs(120), "the secrets are made: {}", daemon.log_tail());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let before = values(&daemon).await;
    let mut in_the_middle = 0;
    for round in 0..6 {
        let begun = daemon.site.socket().ask(Ask { method: "POST", path: "/v1/rewrap", headers: &[], body: None }).await;
        assert_eq!(begun.status, 202, "round {round}");
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        daemon.kill().await;
        // The end is recorded just before it comes.
        let trail = std::fs::read_to_string(daemon.site.path("data/audit.jsonl")).expect("the trail");
        let count = |action: &str| trail.lines().filter(|line| line.contains(&format!("\"{action}\""))).count();
        in_the_middle += usize::from(count("rewrap-requested") > count("rewrapped"));
        daemon.again().await;
        let done = daemon.cli(&["rewrap", "--json"]).await;
        done.assert_code(0);
        assert_eq!(done.json()["state"], "done");
        assert!(values(&daemon).await == before, "round {round}: every value is the same");
    }
    println!("6 kills, {in_the_middle} of them in the middle of a rewrap");
    assert!(in_the_middle > 0, "no kill met a rewrap under way");
    daemon.cli(&["audit", "verify"]).await.assert_code(0);
    daemon.terminate().await;
    daemon.again().await;
    assert!(values(&daemon).await == before, "after the file was written anew");
    // Fingerprints are what they were: a value that another credential has is known again.
    let duplicate = daemon.cli_with(&["submit", &names[1]], before[0].1.to_string().as_bytes()).await;
    duplicate.assert_code(1);
    assert!(duplicate.err().contains(&names[0]), "{}", duplicate.err());
}
