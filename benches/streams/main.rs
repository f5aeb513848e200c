//! How fast a new version reaches ten thousand open streams over three replicas, and what memory that takes. Three daemons on a Vault and
//! an API server of ours; one credential that all streams hold is rotated. Prints each figure beside its aim, also where it misses it.
//!
//! `KEYWRIGHT_BENCH_STREAMS` asks for another number of streams. One of them reads nothing: the others don't wait for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement of nothing is no measurement"
)]
#![allow(
    missing_debug_implementations,
    dead_code,
    unused_imports,
    reason = "fakes are shared with the black-box tests, which ask for more"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use support::daemon::Daemon;
use support::dinie::truth::Owner;
use support::dinie::{Dinie, Options};
use support::eventually;
use support::kube::{API_AUDIENCE, ApiServer, rights_of_a_replica};
use support::sha256_hex;
use support::site::Site;
use support::vault::Vault;

const STREAMS: usize = 10_000;
const REPLICAS: usize = 3;
/// An application has ten thousand instances at most.
const APPLICATIONS: usize = 4;
const NAMESPACE: &str = "credentials";
const CREDENTIAL: &str = "dinie-production";
/// Fewer than an identity may have under way.
const OPENED_AT_ONCE: usize = 40;
/// How long nothing is asked of the replicas, to see what they do by themselves.
const QUIET: Duration = Duration::from_secs(10);
/// Of processor time in /proc: `sysconf(_SC_CLK_TCK)`, which is 100 for programs on Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const LIMIT: Duration = Duration::from_secs(120);

fn print(what: &str, figure: &str, aim: &str) {
    let aim = if aim.is_empty() { String::new() } else { format!("(aim: {aim})") };
    println!("{what:<72} {figure:>12}  {aim}");
}

fn token(application: usize) -> String {
    format!("token-of-application-{application}-in-a-bench-of-streams")
}

/// A Vault with a role for the daemons.
struct Store {
    vault: Arc<Vault>,
    folder: tempfile::TempDir,
}

impl Store {
    async fn start() -> Store {
        const SECRET_ID: &str = "secret-id-of-a-bench";
        let vault = Vault::start().await;
        vault.lock().logins.roles.insert("keywright".to_owned(), SECRET_ID.to_owned());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret-id"), SECRET_ID).unwrap();
        Store { vault, folder }
    }

    fn config(&self) -> String {
        let file = self.folder.path().join("secret-id");
        let auth = format!("{{appRole: {{roleId: keywright, secretIdFile: \"{}\"}}}}", file.display());
        format!("{{vault: {{address: \"{}\", mount: secret, prefix: bench, auth: {auth}}}}}", self.vault.url())
    }
}

async fn replica(kube: &ApiServer, store: &Store, provider: &Dinie, first: Option<&Daemon>, streams: usize) -> Daemon {
    let mut site = Site::new();
    site.provider("dinie", "production", &provider.base_url());
    site.rotation("quick", "maxAge: 90d, overlap: 1h, spread: 1s");
    site.credential(CREDENTIAL, "dinie", "production", "quick");
    for application in 0..APPLICATIONS {
        let identity = format!("identity: {{token: {{sha256: \"{}\"}}}}", sha256_hex(token(application).as_bytes()));
        let spec = format!("environment: production, credentials: [{CREDENTIAL}], {identity}");
        site.document("Application", &format!("app-{application}"), &spec);
    }
    site.store = store.config();
    site.journal = "{kubernetes: {}}".to_owned();
    let account = kube.token(NAMESPACE, "keywright", None, &[API_AUDIENCE], Duration::from_secs(86_400));
    kube.grant((NAMESPACE, "keywright"), Some(NAMESPACE), rights_of_a_replica());
    let kubeconfig = kube.kubeconfig(site.folder(), NAMESPACE, &account);
    site.extra_config = format!("cluster: {{kubeconfig: \"{}\"}}\n", kubeconfig.display());
    site.more_listen = format!(", streams: {streams}, streamsPerIdentity: {streams}");
    if let Some(first) = first {
        std::fs::create_dir_all(site.path("data")).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(site.path("data"), private).unwrap();
        std::fs::copy(first.site.path("data/keywright.key"), site.path("data/keywright.key")).unwrap();
    }
    Daemon::start(site).await
}

async fn leader(daemons: &[Daemon]) -> usize {
    let begun = Instant::now();
    loop {
        for (index, daemon) in daemons.iter().enumerate() {
            let status = daemon.cli(&["status", "--json"]).await;
            if status.code() == Some(0) && status.json()["leadership"]["leads"] == true {
                return index;
            }
        }
        assert!(begun.elapsed() < LIMIT, "nobody leads: {}", daemons[0].log_tail());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What all streams have seen so far.
#[derive(Default)]
struct Seen {
    first: AtomicUsize,
    /// When each was told of the second version, in milliseconds since the epoch.
    told: std::sync::Mutex<Vec<i64>>,
}

/// Reads until it was told of two versions.
async fn follow(mut wire: TcpStream, seen: Arc<Seen>) {
    let (mut buffer, mut text, mut versions) = (vec![0; 4096], String::new(), 0);
    while versions < 2 {
        let Ok(count @ 1..) = wire.read(&mut buffer).await else { panic!("a stream ended: {text}") };
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        // A version's event ends with an empty line, and its data is one line.
        while let Some(end) = text.find("\n\n") {
            if text[..end].contains("event: credential") {
                versions += 1;
                match versions {
                    1 => drop(seen.first.fetch_add(1, Ordering::Relaxed)),
                    _ => seen.told.lock().unwrap().push(Timestamp::now().as_millisecond()),
                }
            }
            text.drain(..end + 2);
        }
    }
    // Open until the end of the measurement.
    while matches!(wire.read(&mut buffer).await, Ok(1..)) {}
}

async fn open(address: std::net::SocketAddr, number: usize) -> TcpStream {
    let application = number % APPLICATIONS;
    let mut wire = TcpStream::connect(address).await.expect("it listens");
    let head = format!(
        "GET /v1/events HTTP/1.1\r\nHost: keywright\r\nAuthorization: Bearer {}\r\nKeywright-Instance: pod-{number}\r\n\r\n",
        token(application)
    );
    wire.write_all(head.as_bytes()).await.expect("it reads");
    wire
}

/// Resident memory of a process, and the most it ever was, in MiB.
fn memory(daemon: &Daemon) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
    };
    (line("VmRSS:"), line("VmHWM:"))
}

/// Processor time that the daemons used so far.
fn processor(daemons: &[Daemon]) -> Duration {
    let ticks = |daemon: &Daemon| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.id())).unwrap();
        // Behind the name, which may hold anything: proc(5) counts utime and stime as fields 14 and 15.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let ticks: u64 = daemons.iter().map(ticks).sum();
    Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND)
}

fn print_memory(what: &str, daemons: &[Daemon]) {
    let figures: Vec<(u64, u64)> = daemons.iter().map(memory).collect();
    let (least, most) = (figures.iter().map(|it| it.0).min().unwrap(), figures.iter().map(|it| it.0).max().unwrap());
    let peak = figures.iter().map(|it| it.1).max().unwrap();
    print(&format!("resident memory of a replica, {what}"), &format!("{least}-{most} MiB"), "");
    print("  at most so far", &format!("{peak} MiB"), "");
}

/// When the leader recorded the last promotion, which is just before it happens.
fn promoted_at(daemon: &Daemon) -> Option<i64> {
    let trail = std::fs::read_to_string(daemon.site.path("data/audit.jsonl")).ok()?;
    let records = trail.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let promoted = records.filter(|record| record["action"] == "promoting");
    promoted.filter_map(|record| record["at"].as_str()?.parse::<Timestamp>().ok()).map(Timestamp::as_millisecond).next_back()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let wanted = std::env::var("KEYWRIGHT_BENCH_STREAMS").ok().map_or(STREAMS, |count| count.parse().expect("a number of streams"));
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }).expect("more open files");
    let (kube, store, provider) = (ApiServer::start().await, Store::start().await, Dinie::start(Options::new("production")).await);
    kube.namespace(NAMESPACE);
    let mut daemons: Vec<Daemon> = Vec::new();
    for _ in 0..REPLICAS {
        let next = replica(&kube, &store, &provider, daemons.first(), wanted).await;
        daemons.push(next);
    }
    let key = provider.seed_key("first, by hand", Owner::Enrolled);
    let leads = leader(&daemons).await;
    daemons[leads].submit(CREDENTIAL, &json!({"client_id": key.client_id, "client_secret": key.secret})).await;
    print_memory("idle", &daemons);

    let (seen, room, begun) = (Arc::new(Seen::default()), Arc::new(Semaphore::new(OPENED_AT_ONCE)), Instant::now());
    let mut streams = tokio::task::JoinSet::new();
    for number in 0..wanted {
        let (address, seen, room) = (daemons[number % REPLICAS].site.address, seen.clone(), room.clone());
        streams.spawn(async move {
            let place = room.acquire().await.expect("nobody closes it");
            let wire = open(address, number).await;
            let asked = seen.first.load(Ordering::Relaxed);
            let following = tokio::spawn(follow(wire, seen.clone()));
            // The next one comes when somebody was served.
            eventually(LIMIT, || seen.first.load(Ordering::Relaxed) > asked).await;
            drop(place);
            following.await.expect("it is read to its end");
        });
    }
    let silent = open(daemons[0].site.address, wanted).await;
    assert!(eventually(LIMIT, || seen.first.load(Ordering::Relaxed) >= wanted).await, "{} streams", seen.first.load(Ordering::Relaxed));
    print(
        &format!("{wanted} streams are open, each with the first version, after"),
        &format!("{:.2} s", begun.elapsed().as_secs_f64()),
        "",
    );
    print_memory("with its streams", &daemons);

    let used = processor(&daemons);
    tokio::time::sleep(QUIET).await;
    let used = (processor(&daemons) - used).as_secs_f64() / QUIET.as_secs_f64();
    print("processors that the replicas use while nothing happens", &format!("{used:.2}"), "");

    let (calls, used) = (kube.calls().len(), processor(&daemons));
    daemons[leads].cli(&["rotate", CREDENTIAL, "--wait"]).await.assert_code(0);
    assert!(eventually(LIMIT, || seen.told.lock().unwrap().len() >= wanted).await, "{} were told", seen.told.lock().unwrap().len());
    let used = processor(&daemons) - used;
    let promoted = promoted_at(&daemons[leads]).expect("the promotion is on record");
    let mut took: Vec<i64> = seen.told.lock().unwrap().iter().map(|told| told - promoted).collect();
    took.sort_unstable();
    let at = |share: usize| format!("{:.2} s", took[(took.len() * share / 100).min(took.len() - 1)] as f64 / 1000.0);
    print("from the record of the promotion until half of them were told", &at(50), "");
    print("  99 of a hundred", &at(99), "1 s");
    print("  all", &at(100), "");
    let calls = kube.calls().split_off(calls);
    let writes = calls.iter().filter(|(call, _)| call.verb == "update" && call.name.starts_with("keywright-replica-")).count();
    print("processor time of the replicas for it", &format!("{:.2} s", used.as_secs_f64()), "");
    print("requests at the API server for it", &calls.len().to_string(), "");
    print("  writings of rows among them", &writes.to_string(), "");
    print_memory("after that", &daemons);
    drop(silent);
    streams.abort_all();
}
