//! The real binary in that installation: from its start to `/readyz`, its memory, what its operators and scrapers wait for, and what
//! it does by itself.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::fleet::{Fleet, proc_line, worked};
use super::provider::Provider;
use super::{print, seconds};

const BINARY: &str = env!("CARGO_BIN_EXE_keywright");
const START_MAX: Duration = Duration::from_secs(300);
const WATCHED: Duration = Duration::from_secs(20);
const MEMORY_AIM: &str = "256 MiB";

struct Daemon<'a> {
    fleet: &'a Fleet,
    child: Child,
    address: SocketAddr,
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // Killed: what it would write at its end is not measured, and the next run recovers.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) async fn measure(fleet: &Fleet) {
    let provider = Provider::start().await;
    let watched = provider.clone();
    // Blocking from here on, beside the runtime that serves as the provider.
    tokio::task::block_in_place(|| {
        let best = (0..3).map(|_| started(fleet, &watched.url).1).min().unwrap();
        print("start, from exec to /readyz: best of 3", &seconds(best), "2.000 s");
        let (daemon, took) = started(fleet, &watched.url);
        print("start, the one that is followed", &seconds(took), "2.000 s");
        print("  and its work by then, on all cores", &seconds(daemon.worked()), "");
        let soon = daemon.memory();
        print("resident after the start", &soon.0, MEMORY_AIM);
        print("  its peak", &soon.1, MEMORY_AIM);
        daemon.look_around();
        daemon.watch(&watched);
        let late = daemon.memory();
        print("resident after status, scrapes and routine looks", &late.0, MEMORY_AIM);
        print("  its peak", &late.1, MEMORY_AIM);
    });
}

fn started<'a>(fleet: &'a Fleet, provider: &str) -> (Daemon<'a>, Duration) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "policies: ./policies\nstore: {{embedded: {{directory: ./data}}}}\nkey: {{file: ./data/keywright.key}}\n\
         audit: {{file: ./data/audit.jsonl}}\nlisten: {{socket: ./data/keywright.sock, address: \"{address}\"}}\n\
         providers: {{dinie: {{sandbox: \"{provider}\"}}}}\n"
    );
    fs::write(fleet.folder.join("keywright.yaml"), config).unwrap();
    let log = File::options().create(true).append(true).open(fleet.folder.join("daemon.log")).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["run", "--config", "keywright.yaml"]).current_dir(&fleet.folder).stdin(Stdio::null());
    command.env("RUST_LOG", "error").stdout(log.try_clone().unwrap()).stderr(log);
    let began = Instant::now();
    let child = command.spawn().unwrap();
    let mut daemon = Daemon { fleet, child, address };
    while !daemon.is_ready() {
        assert!(daemon.child.try_wait().unwrap().is_none(), "it ended: see daemon.log");
        assert!(began.elapsed() < START_MAX, "it isn't ready after {START_MAX:?}");
        sleep(Duration::from_millis(2));
    }
    let took = began.elapsed();
    (daemon, took)
}

impl Daemon<'_> {
    fn is_ready(&self) -> bool {
        let Ok(stream) = TcpStream::connect(self.address) else { return false };
        exchange(stream, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    fn get(&self, path: &str) -> String {
        let stream = UnixStream::connect(self.fleet.data().join("keywright.sock")).unwrap();
        let answer = exchange(stream, path).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {}", answer.lines().next().unwrap_or(""));
        answer
    }

    /// Resident now, and at its greatest.
    fn memory(&self) -> (String, String) {
        let kibibytes = |word: &str| -> u64 {
            let line = proc_line(self.child.id(), "status", word).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (format!("{} MiB", kibibytes("VmRSS") >> 10), format!("{} MiB", kibibytes("VmHWM") >> 10))
    }

    fn worked(&self) -> Duration {
        worked(self.child.id())
    }

    fn look_around(&self) {
        let began = Instant::now();
        let (mut pages, mut after) = (0, String::new());
        loop {
            let answer = self.get(&format!("/v1/status?limit=1000{after}"));
            pages += 1;
            let Some((_, next)) = answer.rsplit_once("\"next\":\"") else { break };
            after = format!("&after={}", next.split('"').next().unwrap());
        }
        print(&format!("status of all, {pages} pages"), &seconds(began.elapsed()), "");
        for (what, path) in [("plan of 90 days, one page", "/v1/plan?days=90&limit=1000"), ("scrape with names", "/metrics")] {
            let began = Instant::now();
            let length = self.get(path).len();
            print(&format!("{what}, {} KiB", length >> 10), &seconds(began.elapsed()), "");
        }
    }

    /// What it does by itself: its first look at every key, at the pace of 64 at once.
    fn watch(&self, provider: &Provider) {
        let (worked, requests) = (self.worked(), provider.requests());
        sleep(WATCHED);
        let (worked, requests) = (self.worked() - worked, provider.requests() - requests);
        let seconds = WATCHED.as_secs();
        print(&format!("calls to the provider in {seconds} s of routine looks"), &requests.to_string(), "");
        print("  and the cores that it kept busy", &format!("{:.2}", worked.as_secs_f64() / WATCHED.as_secs_f64()), "");
    }
}

fn exchange(mut stream: impl Read + Write, path: &str) -> Option<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
