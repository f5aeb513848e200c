//! Reads through the API at 16 connections, as a ratio to `/healthz` on the same server in the same run: what authentication,
//! access, the record of the holder and the document cost, on the embedded store.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement of nothing is no measurement")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use keywright::api::{App, EngineService, Limits, bind_address, serve};
use keywright::delivery::stream::StreamHub;
use keywright::domain::credential::Environment;
use keywright::embedded::Embedded;
use keywright::engine::audit::Actor;
use keywright::engine::meter::NoMeter;
use keywright::engine::{Engine, Options, Seams};
use keywright::issuers::memory::{MemoryIssuer, SimClock};
use keywright::policies::{Source, parse};
use keywright::runtime::audit::AuditFile;
use keywright::runtime::clock::{SystemClock, wall_now};
use keywright::sealing::sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 16;
const REQUESTS_EACH: usize = 2_000;
const ROUNDS: usize = 3;
const TOKEN: &str = "a-token-of-the-bench-and-of-nobody-else";

fn documents() -> String {
    let token = hex::encode(sha256(TOKEN.as_bytes()));
    format!(
        "apiVersion: keywright.dev/v1alpha1\nkind: RotationPolicy\nmetadata: {{name: quarter}}\nspec: {{maxAge: 90d}}\n---\n\
         apiVersion: keywright.dev/v1alpha1\nkind: Credential\nmetadata: {{name: key}}\n\
         spec: {{provider: dinie, environment: sandbox, rotation: quarter}}\n---\n\
         apiVersion: keywright.dev/v1alpha1\nkind: Application\nmetadata: {{name: app}}\n\
         spec: {{environment: sandbox, credentials: [key], identity: {{token: {{sha256: \"{token}\"}}}}}}\n"
    )
}

async fn start(folder: &Path, stop: CancellationToken) -> SocketAddr {
    let policies = parse(&[Source { file: "bench.yaml".to_owned(), text: documents() }], wall_now()).unwrap();
    let embedded = Embedded::open(&folder.join("data"), &folder.join("key")).unwrap();
    let issuer = MemoryIssuer::new(SimClock::new(wall_now()));
    let (_, material) = issuer.enrol(Environment::Sandbox, "made by hand");
    let hub = Arc::new(StreamHub::new());
    let seams = Seams {
        store: Arc::new(embedded.store()),
        journal: Arc::new(embedded.journal()),
        promoter: Arc::new(embedded.store()),
        issuer: Arc::new(issuer),
        audit: Arc::new(AuditFile::open(&folder.join("audit.jsonl"), wall_now()).unwrap()),
        clock: Arc::new(SystemClock::new(keywright::journal::Heartbeat::default())),
        delivery: hub.clone(),
        meter: Arc::new(NoMeter),
        keyring: embedded.keyring(),
    };
    let engine = Engine::start(seams, policies, Options::default()).await.unwrap();
    engine.submit(Actor::Daemon, &"key".parse().unwrap(), material).await.unwrap();
    let app = App {
        service: Arc::new(EngineService(engine)),
        hub,
        operators: Vec::new(),
        reviews: None,
        metrics: Arc::new(|_| String::new()),
        snapshots: None,
        rewraps: None,
        ready: Arc::new(AtomicBool::new(true)),
        limits: Limits::default(),
    };
    let listener = bind_address("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let address = listener.address().unwrap();
    tokio::spawn(serve(vec![listener], app, stop));
    address
}

/// Sends the same request again and again on one connection, and reads each answer whole.
async fn connection(address: SocketAddr, request: String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..REQUESTS_EACH {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..]).await.unwrap();
            assert!(read > 0, "the server hung up");
            filled += read;
            if is_whole(&buffer[..filled]) {
                break;
            }
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse::<usize>().unwrap()));
    body.len() >= length.unwrap_or(0)
}

async fn round(address: SocketAddr, request: &str) -> Duration {
    let began = Instant::now();
    let connections: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(connection(address, request.to_owned()))).collect();
    for connection in connections {
        connection.await.unwrap();
    }
    began.elapsed()
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    runtime.block_on(async {
        let address = start(folder.path(), stop.clone()).await;
        let health = "GET /healthz HTTP/1.1\r\nhost: bench\r\n\r\n".to_owned();
        let read =
            format!("GET /v1/credentials/key HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {TOKEN}\r\nkeywright-instance: one\r\n\r\n");
        for number in 1..=ROUNDS {
            let (plain, full) = (round(address, &health).await, round(address, &read).await);
            let each = |took: Duration| f64::from(u32::try_from(CONNECTIONS * REQUESTS_EACH).unwrap()) / took.as_secs_f64();
            println!(
                "round {number}: /healthz {:.0} per second, a credential {:.0} per second, ratio {:.2}",
                each(plain),
                each(full),
                each(full) / each(plain)
            );
        }
        stop.cancel();
    });
}
