//! TLS in front of the API: what it serves, what it refuses to start with, and how a certificate is renewed.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;

use crate::support::daemon::{Daemon, keywright};
use crate::support::dinie::{Dinie, Options};
use crate::support::eventually;
use crate::support::site::Site;
use crate::support::tls::Authority;
use crate::support::wire::{Events, Target};
use crate::world::{SANDBOX, STILL};

/// A change is looked for every second, and read when it looks the same twice.
const SOON: Duration = Duration::from_secs(15);

struct Secured {
    daemon: Daemon,
    token: String,
    first: Vec<u8>,
    _sandbox: std::sync::Arc<Dinie>,
}

fn quiet_site() -> Site {
    let mut site = Site::new();
    site.provider("dinie", "sandbox", "http://127.0.0.1:1/v3");
    site.rotation("still", STILL);
    site.credential(SANDBOX, "dinie", "sandbox", "still");
    site.authority = Some(Authority::new());
    site
}

impl Secured {
    async fn start() -> Self {
        let sandbox = Dinie::start(Options::new("sandbox")).await;
        let mut site = Site::new();
        site.provider("dinie", "sandbox", &sandbox.base_url());
        site.rotation("still", STILL);
        site.credential(SANDBOX, "dinie", "sandbox", "still");
        let token = site.application("payments-sandbox", "sandbox", &[SANDBOX], "");
        site.authority = Some(Authority::new());
        let first = site.renew_certificate();
        let key = sandbox.seed_key("first, by hand", crate::support::dinie::truth::Owner::Enrolled);
        let daemon = Daemon::start_with(site, &[("RUST_LOG", "trace")]).await;
        daemon.submit(SANDBOX, &crate::world::fields(&key)).await;
        Self { daemon, token, first, _sandbox: sandbox }
    }

    async fn shown(&self) -> Vec<u8> {
        let site = &self.daemon.site;
        site.authority.as_ref().expect("an authority").shown_at(site.address).await
    }

    async fn shows(&self, certificate: &[u8]) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            if self.shown().await == certificate {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        false
    }

    async fn problems(&self) -> String {
        self.daemon.cli(&["status", "--json"]).await.json()["problems"].to_string()
    }

    /// Waits for the problem to be shown, or to be gone.
    async fn has_problem(&self, shown: bool) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            if self.problems().await.contains("tls-invalid") == shown {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        false
    }

    fn log(&self) -> String {
        self.daemon.logs().iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_read_over_tls_and_never_over_plain_http() {
    let it = Secured::start().await;
    let site = &it.daemon.site;
    let bearer = format!("Bearer {}", it.token);
    let headers = [("authorization", bearer.as_str())];
    let path = format!("/v1/credentials/{SANDBOX}");
    let answer = site.tcp().get(&path, &headers).await;
    assert_eq!(answer.status, 200);
    answer.assert_common();
    assert_eq!(it.shown().await, it.first);
    let plain = Target::Tcp(site.address);
    let request = format!("GET {path} HTTP/1.1\r\nhost: k\r\nauthorization: {bearer}\r\nconnection: close\r\n\r\n");
    assert!(plain.raw(request.as_bytes()).await.expect("it ends").is_none(), "plain HTTP was answered");
    // Names of credentials are for the socket, here too.
    let metrics = site.tcp().get("/metrics", &[]).await;
    assert!(!String::from_utf8_lossy(&metrics.body).contains(SANDBOX));
    // The certificate's key stands in nothing that was written.
    let key = std::fs::read_to_string(site.path("tls/key.pem")).expect("the key");
    let inside: Vec<&str> = key
        .lines()
        .filter(|line| !line.starts_with('-'))
        .flat_map(|line| line.as_bytes().chunks(16))
        .filter_map(|piece| std::str::from_utf8(piece).ok())
        .filter(|piece| piece.len() == 16)
        .collect();
    assert!(inside.len() > 5);
    for (path, bytes) in it.daemon.logs().into_iter().chain(site.data_files()) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!inside.iter().any(|piece| text.contains(piece)), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_only_loopback_is_listened_on() {
    let mut site = quiet_site();
    site.authority = None;
    site.address = "0.0.0.0:18750".parse().expect("an address");
    site.write();
    let config = site.config();
    let printed = keywright(site.folder(), &["run", "--config", config.to_str().expect("a plain path")], &[], b"").await;
    printed.assert_code(2);
    assert!(printed.err().contains("tls-required") && printed.err().contains("certificate"), "{}", printed.err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_cannot_be_used_is_refused_at_the_start() {
    let site = quiet_site();
    site.write();
    let config = site.config();
    let arguments = ["run", "--config", config.to_str().expect("a plain path"), "--json"];
    let start = || keywright(site.folder(), &arguments, &[], b"");
    let authority = site.authority.as_ref().expect("an authority");
    let (own, other) = (authority.issue(), authority.issue());
    // Named by its file, and with what to do.
    let refused = async |chain: &str, key: &str, mode: u32, file: &str, why: &str| {
        site.put_certificate(chain, key);
        std::fs::set_permissions(site.path("tls/key.pem"), std::fs::Permissions::from_mode(mode)).expect("its mode");
        let printed = start().await;
        printed.assert_code(2);
        let text = printed.err();
        assert!(text.contains("problems/tls-invalid") && text.contains(file) && text.contains(why), "{text}");
        assert!(!site.path("data").exists(), "nothing was made before");
    };
    refused(&own.chain, &other.key, 0o600, "key.pem", "isn't the one of the certificate").await;
    refused("garbage", &own.key, 0o600, "chain.pem", "no certificate").await;
    refused(&own.chain, "garbage", 0o600, "key.pem", "no usable private key").await;
    refused(&own.chain, &own.key, 0o644, "key.pem", "chmod 600").await;
    std::fs::remove_file(site.path("tls/chain.pem")).expect("it is removed");
    let printed = start().await;
    printed.assert_code(2);
    assert!(printed.err().contains("chain.pem"), "{}", printed.err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_up_and_streams_go_on() {
    let it = Secured::start().await;
    let bearer = format!("Bearer {}", it.token);
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "pod-1")];
    let opened = Events::open(&it.daemon.site.tcp(), "/v1/events", &headers).await.expect("it answers");
    let mut events = opened.unwrap_or_else(|answer| panic!("{}", answer.status));
    let before = events.wait_for("credential", SOON).await.expect("a snapshot");

    let second = it.daemon.site.renew_certificate();
    assert!(it.shows(&second).await, "the renewed certificate isn't shown:\n{}", it.daemon.log_tail());
    it.daemon.cli(&["rotate", SANDBOX, "--wait"]).await.assert_code(0);
    let after = events.wait_for("credential", SOON).await.expect("the stream from before goes on");
    assert_ne!(before.data, after.data);

    // Garbage, then a key of another certificate: the last good pair stays, and it is said.
    let kept = it.daemon.site.authority.as_ref().expect("an authority").issue();
    it.daemon.site.put_certificate("garbage", &kept.key);
    assert!(it.has_problem(true).await, "nothing is said in status");
    assert_eq!(it.shown().await, second);
    assert!(it.log().contains("chain.pem"), "nothing is said in the log");
    assert_eq!(it.daemon.site.tcp().get("/readyz", &[]).await.status, 200);
    let other = it.daemon.site.authority.as_ref().expect("an authority").issue();
    it.daemon.site.put_certificate(&kept.chain, &other.key);
    it.daemon.reload();
    assert!(eventually(SOON, || it.log().contains("isn't the one of the certificate")).await);
    assert_eq!(it.shown().await, second);

    let third = it.daemon.site.renew_certificate();
    it.daemon.reload();
    assert!(it.shows(&third).await);
    assert!(it.has_problem(false).await, "the problem stays: {}", it.problems().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_finishes_the_handshake_is_dropped_and_blocks_nobody() {
    let it = Secured::start().await;
    let begun = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(it.daemon.site.address).await.expect("it connects"));
    }
    let asked = Instant::now();
    assert_eq!(it.daemon.site.tcp().get("/healthz", &[]).await.status, 200);
    assert!(asked.elapsed() < Duration::from_secs(5), "it waited for others");
    for stream in &mut silent {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        let _ = ended.expect("it is dropped");
    }
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
}
