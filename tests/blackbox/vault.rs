//! The daemon with its values in Vault: whole rotations while somebody reads the plain values all the time, by hand and with hvac.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::support::app::Mode;
use crate::support::canaries::Canary;
use crate::support::dinie::Dinie;
use crate::support::dinie::truth::Owner;
use crate::support::vault::{Call, Fault, Mode as VaultMode, ROOT, Vault};
use crate::support::wire::{Ask, Target};
use crate::world::{PRODUCTION, Plan, SANDBOX, STILL, World, fields};

const SECRET_ID: &str = "secret-id-made-for-a-test-Q7f2Zk19";
const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/vault/reader.py");

/// A Vault with a role for the daemon, and a folder with its secret id.
pub(crate) struct Server {
    vault: Arc<Vault>,
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let vault = Vault::start().await;
        vault.lock().logins.roles.insert("keywright".to_owned(), SECRET_ID.to_owned());
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("secret-id"), format!("{SECRET_ID}\n")).expect("it is written");
        Self { vault, folder }
    }

    /// What stands behind `store:`.
    pub(crate) fn config(&self) -> String {
        let secret_id = self.folder.path().join("secret-id");
        let auth = format!("{{appRole: {{roleId: keywright, secretIdFile: \"{}\"}}}}", secret_id.display());
        format!("{{vault: {{address: \"{}\", mount: secret, prefix: team/keywright, auth: {auth}}}}}", self.vault.url())
    }

    fn path(environment: &str, credential: &str) -> String {
        format!("team/keywright/{environment}/{credential}")
    }
}

/// What native readers of one path must never see, and how often they saw anything.
struct Watch {
    provider: Arc<Dinie>,
    seen: AtomicUsize,
    versions: Mutex<Vec<String>>,
    violations: Mutex<Vec<String>>,
}

impl Watch {
    fn new(provider: &Arc<Dinie>) -> Arc<Self> {
        Arc::new(Self { provider: provider.clone(), seen: AtomicUsize::new(0), versions: Mutex::default(), violations: Mutex::default() })
    }

    fn violation(&self, what: String) {
        self.violations.lock().expect("no task died in here").push(what);
    }

    /// `began`: when the read began. A key that died since was a right answer.
    fn look(&self, data: &Value, began: Instant) {
        self.seen.fetch_add(1, Ordering::Relaxed);
        let text = |name: &str| data.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let (Some(id), Some(secret)) = (text("client_id"), text("client_secret")) else {
            return self.violation("an empty value".to_owned());
        };
        if data.as_object().is_none_or(|fields| fields.len() != 2) {
            self.violation("more than the fields".to_owned());
        }
        let state = self.provider.lock();
        let Some(key) = state.truth.by_secret(secret).filter(|key| key.client_id == id) else {
            return self.violation("no pair of this provider's".to_owned());
        };
        if key.revoked.is_some_and(|revoked| revoked <= began) {
            self.violation(format!("a dead key: {}", key.name));
        }
        // What the daemon made is current only after the provider took it, asked with it.
        if key.owner == Owner::Daemon && key.looks == 0 {
            self.violation(format!("a key that nobody verified: {}", key.name));
        }
        let mut versions = self.versions.lock().expect("no task died in here");
        if versions.last().is_none_or(|last| last != id) {
            versions.push(id.to_owned());
        }
    }

    fn nothing(&self) {
        if self.seen.load(Ordering::Relaxed) > 0 {
            self.violation("nothing, where there was a value".to_owned());
        }
    }

    fn assert_always_good(&self, versions_min: usize) {
        let violations = self.violations.lock().expect("no task died in here");
        assert!(violations.is_empty(), "{:#?}", &violations[..violations.len().min(5)]);
        let versions = self.versions.lock().expect("no task died in here");
        assert!(versions.len() >= versions_min, "{} versions in {} reads", versions.len(), self.seen.load(Ordering::Relaxed));
        let distinct: std::collections::BTreeSet<_> = versions.iter().collect();
        assert_eq!(distinct.len(), versions.len(), "a value came back after it had gone");
    }
}

/// Plain reads over HTTP, many a second.
fn read_plainly(server: &Server, path: String, watch: Arc<Watch>) -> JoinHandle<()> {
    let target = Target::Tcp(server.vault.address);
    tokio::spawn(async move {
        let path = format!("/v1/secret/data/{path}");
        let request = Ask { method: "GET", path: &path, headers: &[("x-vault-token", ROOT)], body: None }.bytes();
        loop {
            let began = Instant::now();
            match target.raw(&request).await {
                Ok(Some(answer)) if answer.status == 200 => watch.look(&answer.json()["data"]["data"], began),
                Ok(Some(answer)) if answer.status == 404 => watch.nothing(),
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

/// The same with an unmodified client that nobody here wrote.
struct Hvac {
    _child: Child,
    lines: JoinHandle<()>,
}

impl Hvac {
    fn start(server: &Server, path: &str, watch: Arc<Watch>) -> Self {
        let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's temporary folder is in `target`");
        let python = target.join("tests/vault/hvac/bin/python");
        assert!(python.exists(), "{} is missing: run the test command `tests/run`, which installs it", python.display());
        let mut child = Command::new(python)
            .args([READER, &server.vault.url(), ROOT, path, "0.05"])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .expect("Python starts");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let lines = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let line: Value = serde_json::from_str(&line).expect("a line of JSON");
                // Its line comes a little after its read; keys live for the overlap after they are no longer read.
                let took = Duration::from_secs_f64(line["took"].as_f64().expect("a time")) + Duration::from_millis(500);
                if line.get("data").is_some() {
                    watch.look(&line["data"], Instant::now().checked_sub(took).expect("a while after the start"));
                } else if line.get("nothing").is_some() {
                    watch.nothing();
                }
            }
        });
        Self { _child: child, lines }
    }
}

impl Drop for Hvac {
    fn drop(&mut self) {
        self.lines.abort();
    }
}

/// All readers of a world, on both environments.
struct Readers {
    watches: Vec<Arc<Watch>>,
    plain: Vec<JoinHandle<()>>,
    hvac: Vec<Hvac>,
}

impl Readers {
    fn start(server: &Server, world: &World) -> Self {
        let mut readers = Self { watches: Vec::new(), plain: Vec::new(), hvac: Vec::new() };
        for (environment, credential, provider) in [("sandbox", SANDBOX, &world.sandbox), ("production", PRODUCTION, &world.production)] {
            let path = Server::path(environment, credential);
            let (plain, hvac) = (Watch::new(provider), Watch::new(provider));
            readers.plain.push(read_plainly(server, path.clone(), plain.clone()));
            readers.hvac.push(Hvac::start(server, &path, hvac.clone()));
            readers.watches.extend([plain, hvac]);
        }
        readers
    }

    fn assert_always_good(&self, versions_min: usize) {
        self.watches.iter().for_each(|watch| watch.assert_always_good(versions_min));
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.plain.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_with_vault_as_the_store_are_seen_whole_by_native_readers() {
    let server = Server::start().await;
    let config = server.config();
    let mut world = World::start(Plan { store: &config, ..Plan::quick() }).await;
    let readers = Readers::start(&server, &world);
    world.production_app("pod-a", Mode::Confirms);
    world.sandbox_app("pod-a", Mode::Confirms);
    world.wait_for_revocations(2, Duration::from_secs(100)).await;
    readers.assert_always_good(2);
    world.assert_all_is_well().await;
    world.assert_silent(&[Canary::after("secret id", "secret-id-", SECRET_ID)]);
    // What was forgotten is gone: at most two versions of each credential, each with a record of its own and the native one.
    let left = server.vault.paths_with_bytes();
    assert!(left.len() <= 2 * (1 + 3 + 1), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_end_well_while_vault_fails_in_every_way() {
    let server = Server::start().await;
    let config = server.config();
    let rotation = "maxAge: 30s, overlap: 4s, spread: 1s";
    let mut world = World::start(Plan { rotation, store: &config, ..Plan::quick() }).await;
    let readers = Readers::start(&server, &world);
    world.production_app("pod-a", Mode::Confirms);
    world.sandbox_app("pod-a", Mode::Confirms);
    let vault = server.vault.clone();
    vault.lock().logins.lease = Duration::from_secs(5);
    let trouble = tokio::spawn(async move {
        let mut count = 0usize;
        for round in 0.. {
            match round % 6 {
                0 => vault.lock().logins.revoke_all(),
                1 => vault.lock().mode = VaultMode::Sealed,
                2 => vault.stop(),
                3 => vault.lock().mode = VaultMode::TooMany(None),
                4 => vault.lock().mode = VaultMode::StandsBy(473),
                // The readers' own replies aren't meant: those come with the root token and don't write.
                _ => vault.plan(move |call| {
                    count += usize::from(call.writes());
                    let fault = if count.is_multiple_of(2) { Fault::LosesReply } else { Fault::Fails };
                    (call.writes() && count.is_multiple_of(3)).then_some(fault)
                }),
            }
            tokio::time::sleep(Duration::from_millis(1500)).await;
            vault.lock().mode = VaultMode::Serves;
            vault.nothing_goes_wrong();
            if round % 6 == 2 {
                vault.start_again().await;
            }
            tokio::time::sleep(Duration::from_millis(2500)).await;
        }
    });
    world.wait_for_revocations(2, Duration::from_secs(150)).await;
    trouble.abort();
    let _ = trouble.await;
    server.vault.lock().mode = VaultMode::Serves;
    server.vault.nothing_goes_wrong();
    readers.assert_always_good(2);
    world.assert_all_is_well().await;
}

/// Somebody else who shares the server's limit, and takes as much of it as he gets.
fn neighbour(server: &Server) -> JoinHandle<()> {
    let target = Target::Tcp(server.vault.address);
    tokio::spawn(async move {
        let headers = [("x-vault-token", ROOT)];
        let path = "/v1/secret/data/somebody/elses";
        let request = Ask { method: "POST", path, headers: &headers, body: Some(b"{\"data\": {\"a\": \"b\"}}") }.bytes();
        loop {
            let _ = target.raw(&request).await;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_end_well_at_a_vault_that_throttles_delays_and_loses_replies() {
    let server = Server::start().await;
    let config = server.config();
    let rotation = "maxAge: 40s, overlap: 4s, spread: 1s";
    let mut world = World::start(Plan { rotation, store: &config, ..Plan::quick() }).await;
    let readers = Readers::start(&server, &world);
    world.production_app("pod-a", Mode::Confirms);
    world.sandbox_app("pod-a", Mode::Confirms);
    server.vault.lock().writes_per_second = Some(50);
    let neighbour = neighbour(&server);
    let (mut count, met) = (0usize, Arc::new(Mutex::new(std::collections::BTreeSet::new())));
    let meets = met.clone();
    server.vault.plan(move |call| {
        // What only the daemon asks for: all that lies apart, and the writes of what native readers have.
        if !call.path.contains("team/keywright/") || !(call.writes() || call.path.contains("keywright-pending")) {
            return None;
        }
        count += 1;
        let fault = match count % 66 {
            3 => Fault::LosesReply,
            14 => Fault::Fails,
            25 => Fault::IsUnready,
            36 => Fault::Waits(Duration::from_millis(1500)),
            47 => Fault::Revokes,
            58 => Fault::Restarts,
            _ => return None,
        };
        meets.lock().expect("no task died in here").insert(format!("{fault:?}"));
        Some(fault)
    });
    world.wait_for_revocations(2, Duration::from_secs(180)).await;
    neighbour.abort();
    server.vault.lock().writes_per_second = None;
    server.vault.nothing_goes_wrong();
    let throttled = |(call, status): &&(Call, u16)| *status == 429 && call.path.contains("team/keywright/");
    let throttled = server.vault.lock().calls.iter().filter(throttled).count();
    assert!(throttled > 0, "the daemon was told that it asks too often");
    assert_eq!(met.lock().expect("no task died in here").len(), 6, "each kind of fault was met");
    readers.assert_always_good(2);
    world.assert_all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_starts_while_vault_is_down_and_says_what_is_wrong() {
    let server = Server::start().await;
    let config = server.config();
    let mut world = World::start(Plan { rotation: STILL, store: &config, ..Plan::still() }).await;
    world.daemon.terminate().await;
    server.vault.stop();
    world.daemon.again().await;
    let rotate = world.daemon.cli(&["rotate", SANDBOX]).await;
    rotate.assert_code(0);
    let reason = async |world: &World| world.daemon.status(SANDBOX).await["reason"].as_str().unwrap_or_default().to_owned();
    let limit = Instant::now() + Duration::from_secs(30);
    while !reason(&world).await.contains("store-unavailable") {
        assert!(Instant::now() < limit, "{}", reason(&world).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.vault.start_again().await;
    let path = Server::path("sandbox", SANDBOX);
    let before = server.vault.native(&path);
    let vault = server.vault.clone();
    let limit = Duration::from_secs(60);
    assert!(crate::support::eventually(limit, || vault.native(&path) != before).await, "{}", world.daemon.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_somebody_removed_is_told_and_put_right_by_a_submission() {
    let server = Server::start().await;
    let config = server.config();
    // The store is asked every three seconds, and nothing comes due.
    let rotation = "maxAge: 10m, overlap: 2s, spread: 1s";
    let world = World::start(Plan { rotation, store: &config, ..Plan::still() }).await;
    let path = Server::path("production", PRODUCTION);
    server.vault.delete_by_hand(&path);
    let limit = Instant::now() + Duration::from_secs(30);
    while world.daemon.status(PRODUCTION).await["reason"] != "store-changed" {
        assert!(Instant::now() < limit, "{}\n{}", world.daemon.status(PRODUCTION).await, world.daemon.log_tail());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.vault.lock().calls.clear();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let asked = server.vault.lock().calls.len();
    assert!(asked < 100, "{asked} requests in six seconds in which nothing happens");
    let bearer = format!("Bearer {}", world.production_token);
    let answer = world.daemon.site.tcp().get(&format!("/v1/credentials/{PRODUCTION}"), &[("authorization", &bearer)]).await;
    assert_eq!(answer.json()["fields"], fields(&world.enrolled_production), "applications go on with the last good one");
    let good = world.production.seed_key("by hand, the next one", Owner::Enrolled);
    world.daemon.submit(PRODUCTION, &fields(&good)).await;
    assert_eq!(server.vault.native(&path), Some(fields(&good)));
    assert!(world.daemon.status(PRODUCTION).await["reason"] != "store-changed");
}
