//! Somebody else writes into the store while the daemon works, as boto3 and hvac do: what is proved reaches the applications, and what
//! isn't reaches nobody.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::support::app::Mode;
use crate::support::aws::{CREDENTIALS, Moto};
use crate::support::dinie::truth::Owner;
use crate::support::vault::{ROOT, Vault};
use crate::world::{PRODUCTION, Plan, World, fields};

const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers");
/// The store is asked every three seconds, and nothing comes due in a test.
const ROTATION: &str = "maxAge: 10m, overlap: 2s, spread: 1s";
const LIMIT: Duration = Duration::from_secs(60);

/// A store with a client of its own that nobody here wrote.
enum Place {
    Aws(Box<Moto>),
    Vault { server: Arc<Vault>, folder: tempfile::TempDir },
}

impl Place {
    async fn aws() -> Place {
        Place::Aws(Box::new(Moto::start().await))
    }

    async fn vault() -> Place {
        let (server, folder) = (Vault::start().await, tempfile::tempdir().expect("a temporary folder"));
        std::fs::write(folder.path().join("token"), ROOT).expect("it is written");
        Place::Vault { server, folder }
    }

    /// What stands behind `store:`.
    fn config(&self) -> String {
        match self {
            Place::Aws(moto) => format!("{{aws: {{endpoint: \"{}\", prefix: team}}}}", moto.endpoint),
            Place::Vault { server, folder } => {
                let token = folder.path().join("token");
                format!("{{vault: {{address: \"{}\", prefix: team, auth: {{token: {{file: \"{}\"}}}}}}}}", server.url(), token.display())
            }
        }
    }

    /// Writes a value at the native address of the production credential.
    async fn write(&self, value: &Value) {
        let address = format!("team/production/{PRODUCTION}");
        let (folder, program, arguments) = match self {
            Place::Aws(moto) => ("aws/moto", "aws/writer.py", vec![moto.endpoint.clone(), address]),
            Place::Vault { server, .. } => ("vault/hvac", "vault/writer.py", vec![server.url(), ROOT.to_owned(), address]),
        };
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's temporary folder is in `target`");
        let python = target.join("tests").join(folder).join("bin/python3");
        assert!(python.exists(), "{} is missing: run the test command `tests/run`, which installs it", python.display());
        let mut child = tokio::process::Command::new(python)
            .arg(format!("{SERVERS}/{program}"))
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python starts");
        child.stdin.take().expect("it is piped").write_all(value.to_string().as_bytes()).await.expect("it reads");
        assert!(child.wait().await.expect("it ends").success(), "somebody else could write");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_into_aws_is_proved_before_anybody_gets_it() {
    changed_by_others(Place::aws().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_into_vault_is_proved_before_anybody_gets_it() {
    changed_by_others(Place::vault().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_made_in_aws_is_adopted_when_that_is_asked() {
    made_by_others(Place::aws().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_made_in_vault_is_adopted_when_that_is_asked() {
    made_by_others(Place::vault().await).await;
}

async fn plan(place: &Place) -> World {
    let store = place.config();
    World::unsubmitted(Plan { rotation: ROTATION, store: &store, environment: &CREDENTIALS, ..Plan::still() }).await
}

async fn changed_by_others(place: Place) {
    let mut world = plan(&place).await;
    world.daemon.submit(PRODUCTION, &fields(&world.enrolled_production)).await;
    world.production_app("pod-a", Mode::Confirms);
    let has = |world: &World, client: &str| world.apps[0].seen().of(client).is_some();
    until(&world, "the first key is there", |world| has(world, &world.enrolled_production.client_id)).await;
    // A key of production that a person made, and wrote where native readers look.
    let theirs = world.production.seed_key("by hand, into the store", Owner::Enrolled);
    place.write(&fields(&theirs)).await;
    until(&world, "the application got it", |world| has(world, &theirs.client_id)).await;
    let first = world.enrolled_production.client_id.clone();
    until(&world, "the replaced key died", |world| {
        let state = world.production.lock();
        state.truth.living().iter().all(|key| key.client_id != first)
    })
    .await;
    until_steady(&world).await;
    // One of the sandbox: nobody gets it, and it is sent nowhere.
    let wrong = fields(&world.enrolled_sandbox);
    place.write(&wrong).await;
    until_told(&world, "doesn't belong to this environment").await;
    assert!(!has(&world, &world.enrolled_sandbox.client_id), "it reached the application");
    // Applications that start get the last good one, also from a daemon that starts.
    world.daemon.terminate().await;
    world.daemon.again().await;
    let answer = read(&world).await;
    assert_eq!(answer["fields"]["client_id"], theirs.client_id.as_str());
    until_told(&world, "doesn't belong to this environment").await;
    // A person puts it right.
    let good = world.production.seed_key("by hand, the right one", Owner::Enrolled);
    world.daemon.submit(PRODUCTION, &fields(&good)).await;
    assert_eq!(read(&world).await["fields"]["client_id"], good.client_id.as_str());
    assert!(world.daemon.status(PRODUCTION).await["reason"] != "store-changed");
    world.assert_silent(&[]);
}

async fn made_by_others(place: Place) {
    let world = plan(&place).await;
    let refused = world.daemon.cli_with(&["submit", PRODUCTION, "--adopt"], b"").await;
    refused.assert_code(1);
    assert!(refused.err().contains("nothing lies where this credential belongs"), "{}", refused.err());
    place.write(&fields(&world.enrolled_production)).await;
    let refused = world.daemon.cli_with(&["submit", PRODUCTION], fields(&world.enrolled_production).to_string().as_bytes()).await;
    refused.assert_code(1);
    assert!(refused.err().contains("--adopt"), "it names the way out: {}", refused.err());
    assert_eq!(world.daemon.status(PRODUCTION).await["phase"], "missing");
    world.daemon.cli_with(&["submit", PRODUCTION, "--adopt"], b"").await.assert_code(0);
    assert_eq!(read(&world).await["fields"], fields(&world.enrolled_production));
    // From then on it is rotated like any other.
    world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    assert_ne!(read(&world).await["fields"]["client_id"], json!(world.enrolled_production.client_id));
    world.assert_silent(&[]);
}

async fn read(world: &World) -> Value {
    let bearer = format!("Bearer {}", world.production_token);
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-b")];
    let answer = world.daemon.site.tcp().get(&format!("/v1/credentials/{PRODUCTION}"), &headers).await;
    assert_eq!(answer.status, 200, "{}", world.daemon.log_tail());
    answer.json()
}

async fn until(world: &World, what: &str, so: impl Fn(&World) -> bool) {
    let end = Instant::now() + LIMIT;
    while !so(world) {
        assert!(Instant::now() < end, "{what}: {}\n{}", world.daemon.status(PRODUCTION).await, world.daemon.log_tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_steady(world: &World) {
    let end = Instant::now() + LIMIT;
    while world.daemon.status(PRODUCTION).await["phase"] != "steady" {
        assert!(Instant::now() < end, "{}", world.daemon.status(PRODUCTION).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn until_told(world: &World, why: &str) {
    let end = Instant::now() + LIMIT;
    loop {
        let status = world.daemon.cli(&["status", PRODUCTION, "--json"]).await.json();
        let told =
            |problem: &Value| problem["code"] == "store-changed" && problem["message"].as_str().is_some_and(|text| text.contains(why));
        if status["problems"].as_array().is_some_and(|problems| problems.iter().any(told)) {
            return;
        }
        assert!(Instant::now() < end, "{status}\n{}", world.daemon.log_tail());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
