//! A backup while the daemon runs, and the way back: nothing revoked comes back, and nothing is served unseen.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;

use crate::support::dinie::truth::Owner;
use crate::world::{PRODUCTION, Plan, SANDBOX, World, fields};

impl World {
    /// What an application gets: the answer's status, and the version.
    async fn read(&self, credential: &str) -> (u16, Value) {
        let token = if credential == SANDBOX { &self.sandbox_token } else { &self.production_token };
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("keywright-instance", "reader")];
        let answer = self.daemon.site.tcp().get(&format!("/v1/credentials/{credential}"), &headers).await;
        let document = answer.json();
        if answer.status == 503 {
            let slug = document["type"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
            return (503, slug.into());
        }
        (answer.status, document["version"].clone())
    }

    async fn problems(&self) -> Vec<(String, String)> {
        let status = self.daemon.cli(&["status", "--json"]).await.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        status["problems"].as_array().unwrap().iter().map(|problem| (text(&problem["credential"]), text(&problem["code"]))).collect()
    }

    /// Until this is so, looking twice a second.
    async fn until(&self, what: &str, mut holds: impl AsyncFnMut(&World) -> bool) {
        for _ in 0..120 {
            if holds(self).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("{what}: {}\n{}", self.daemon.cli(&["status", "--json"]).await.out(), self.daemon.log_tail());
    }
}

#[tokio::test]
async fn what_was_revoked_since_the_backup_stays_dead_and_the_rest_is_served_once_it_was_verified() {
    let mut world = World::start(Plan::still()).await;
    let backup = world.daemon.site.path("backup");
    let to = backup.to_str().unwrap().to_owned();
    world.daemon.cli(&["backup", &to]).await.assert_code(0);
    assert_eq!(std::fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(world.daemon.cli(&["backup", &to]).await.code(), Some(1), "no backup is written over another one");
    let scanner = world.scanner(&[]);
    assert!(scanner.scan("backup", &std::fs::read(&backup).unwrap()).is_empty(), "it is sealed");
    let sandbox_before = world.read(SANDBOX).await;

    // The production key is rotated, and the one that the backup knows is revoked.
    world.daemon.cli(&["release", "payments-api"]).await;
    world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    world.daemon.cli(&["release", "payments-api"]).await;
    let production = world.production.clone();
    world.until("the old key is revoked", async |_| production.revoked_of_ours() >= 1).await;
    world.daemon.terminate().await;

    let occupied = world.daemon.cli(&["restore", &to]).await;
    assert!(occupied.code() == Some(1) && occupied.err().contains("--force"), "{}", occupied.err());
    let restored = world.daemon.cli(&["restore", &to, "--force"]).await;
    restored.assert_code(0);
    assert!(restored.out().contains("2 credentials") && restored.out().contains("replaced-1"), "{}", restored.out());
    world.daemon.again().await;

    let (status, slug) = world.read(PRODUCTION).await;
    assert!(status == 503 && (slug == "not-ready" || slug == "no-version"), "{status} {slug}");
    world.until("the sandbox key is served again", async |world| world.read(SANDBOX).await.0 == 200).await;
    assert_eq!(world.read(SANDBOX).await, sandbox_before, "it is the same version, and it lives");
    let refused = (PRODUCTION.to_owned(), "current-refused".to_owned());
    world.until("the dead key is told", async |world| world.problems().await.contains(&refused)).await;
    assert_eq!(world.read(PRODUCTION).await, (503, "no-version".into()));

    // A person brings a working one.
    let by_hand = world.production.seed_key("after the restore, by hand", Owner::Enrolled);
    world.daemon.submit(PRODUCTION, &fields(&by_hand)).await;
    assert_eq!(world.read(PRODUCTION).await.0, 200);
    world.daemon.cli(&["audit", "verify"]).await.assert_code(0);
    world.assert_silent(&[]);
}

#[tokio::test]
async fn an_older_copy_that_was_put_back_by_hand_is_noticed_and_taken_over_as_a_backup() {
    let mut world = World::start(Plan::still()).await;
    world.daemon.terminate().await;
    let store = world.daemon.site.path("data/keywright.redb");
    let older = std::fs::read(&store).unwrap();
    world.daemon.again().await;
    let version = world.read(SANDBOX).await;
    world.daemon.terminate().await;
    std::fs::write(&store, older).unwrap();

    let refused = world.daemon.cli(&["run"]).await;
    assert_eq!(refused.code(), Some(1), "{}", refused.err());
    assert!(
        refused.err().contains("older than the audit trail remembers") && refused.err().contains("keywright restore"),
        "{}",
        refused.err()
    );
    world.daemon.cli(&["restore"]).await.assert_code(0);
    world.daemon.again().await;
    world.until("it is served once it was verified", async |world| world.read(SANDBOX).await == version).await;
    world.daemon.terminate().await;
    world.daemon.again().await;
}
