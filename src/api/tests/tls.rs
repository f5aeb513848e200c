//! The address behind TLS: the same bounds as without.

use std::sync::atomic::Ordering;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fake::CANARY;
use super::*;
use crate::api::wire::Wire;
use crate::delivery::{Change, Delivery};
use crate::runtime::tls::{Pair, TlsFiles};

struct Secured {
    it: Running,
    pair: Pair,
    root: CertificateDer<'static>,
}

fn new_pair() -> (Pair, CertificateDer<'static>) {
    let folder = tempfile::tempdir().unwrap();
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles { certificate: folder.path().join("c.pem"), key: folder.path().join("k.pem") };
    std::fs::write(&files.certificate, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&files.key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    (Pair::read(&files).unwrap(), cert.der().clone())
}

async fn secured(limits: Limits) -> Secured {
    let (pair, root) = new_pair();
    let it = start_with(limits, operators(), Some(pair.server_config().unwrap())).await;
    Secured { it, pair, root }
}

fn client(root: &CertificateDer<'static>, alpn: &[u8]) -> TlsConnector {
    client_of(root, alpn, rustls::ALL_VERSIONS)
}

fn client_of(root: &CertificateDer<'static>, alpn: &[u8], versions: &[&'static SupportedProtocolVersion]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config).into()
}

impl Secured {
    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        client(&self.root, b"http/1.1").connect(name, self.it.tcp().await).await
    }

    async fn get(&self, path: &str) -> Reply {
        exchange(&mut self.connect().await.unwrap(), request(APP, &format!("GET {path}"), "", "").as_bytes()).await
    }
}

#[tokio::test]
async fn tls_serves_the_same_api_and_http_1_only() {
    let it = secured(quick()).await;
    let mut stream = it.connect().await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let reply = exchange(&mut stream, request(APP, "GET /v1/credentials/one", "", "").as_bytes()).await;
    assert_eq!(reply.json()["fields"]["client_secret"], CANARY);
    let older = client_of(&it.root, b"http/1.1", &[&rustls::version::TLS12]);
    let mut stream = older.connect(ServerName::try_from("localhost").unwrap(), it.it.tcp().await).await.unwrap();
    assert_eq!(exchange(&mut stream, request(APP, "GET /v1/credentials/one", "", "").as_bytes()).await.status, 200);
    // The library's bare answers have our form here, too.
    exchange(&mut it.connect().await.unwrap(), b"GET / HTTP/9\r\n\r\n").await.refused(400, "bad-request");
    let other = client(&it.root, b"h2").connect(ServerName::try_from("localhost").unwrap(), it.it.tcp().await).await;
    assert!(other.is_err(), "nobody speaks h2 here");
}

#[tokio::test]
async fn tls_doors_take_no_plain_http() {
    let it = secured(quick()).await;
    let mut stream = it.it.tcp().await;
    stream.write_all(request(APP, "GET /v1/credentials/one", "", "").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(3), stream.read_to_end(&mut answer)).await.expect("an end");
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    assert!(it.it.fake.log().is_empty());
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_dropped_and_blocks_nobody() {
    let it = secured(Limits { handshake_timeout: Duration::from_secs(1), ..quick() }).await;
    let mut silent = it.it.tcp().await;
    let mut halfway = it.it.tcp().await;
    // The head of a handshake record, and no more.
    halfway.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(it.get("/v1/credentials/one").await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(1), "others wait for nobody");
    for stream in [&mut silent, &mut halfway] {
        let mut rest = Vec::new();
        let _ = timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await.expect("dropped");
    }
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn handshakes_count_as_connections() {
    let it = secured(Limits { connections: 2, handshake_timeout: Duration::from_secs(1), ..quick() }).await;
    let _idle = [it.it.tcp().await, it.it.tcp().await];
    tokio::time::sleep(Duration::from_millis(50)).await;
    it.get("/v1/credentials/one").await.refused(429, "too-many");
    // The bound on handshakes gives the room back.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(it.get("/v1/credentials/one").await.status, 200);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_handshake() {
    let it = secured(Limits { handshake_timeout: Duration::from_secs(60), ..quick() }).await;
    let _silent = it.it.tcp().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    it.it.stop.cancel();
    timeout(quick().drain / 2, it.it.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_new_pair_is_for_new_connections() {
    let mut it = secured(quick()).await;
    let mut old = it.connect().await.unwrap();
    let (renewed, root) = new_pair();
    it.pair.replace(&renewed);
    assert!(it.pair.is_same(&renewed));
    assert!(it.connect().await.is_err(), "the old certificate isn't shown any more");
    it.root = root;
    assert_eq!(it.get("/v1/credentials/one").await.status, 200);
    let reply = exchange(&mut old, request(APP, "GET /v1/credentials/one", "", "").as_bytes()).await;
    assert_eq!(reply.status, 200, "who was connected stays so");
}

/// Little enough for the buffers of TLS: only beneath them is it seen that nobody takes it.
#[tokio::test]
async fn a_flush_that_stands_still_fails_beneath_tls() {
    let (pair, root) = new_pair();
    let (ours, theirs) = tokio::io::duplex(512);
    let acceptor = tokio_rustls::TlsAcceptor::from(pair.server_config().unwrap());
    let connector = client(&root, b"http/1.1");
    let wire = Wire::new(ours, Duration::from_millis(100));
    let (server, client) = tokio::join!(acceptor.accept(wire), connector.connect(ServerName::try_from("localhost").unwrap(), theirs));
    let (mut server, _client) = (server.unwrap(), client.unwrap());
    server.write_all(&[b'x'; 2000]).await.unwrap();
    let flushed = timeout(Duration::from_secs(2), server.flush()).await.expect("it gives up");
    assert_eq!(flushed.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off_behind_tls_too() {
    let it = secured(quick()).await;
    let large = "x".repeat(60_000);
    it.it.fake.set("one", 1, &large);
    let mut stream = it.connect().await.unwrap();
    stream.write_all(request(APP, "GET /v1/events?credentials=one", "", "").as_bytes()).await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut revision = 1;
    let cut_off = async {
        while it.it.fake.streams.load(Ordering::SeqCst) > 0 {
            revision += 1;
            it.it.fake.set("one", revision, &large);
            it.it.hub.announce(Change::Policies);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), cut_off).await.expect("it is cut off");
    // Its connection ended as well, though TLS held more for it: what comes is no proper end.
    tokio::time::sleep(quick().write_timeout * 2).await;
    let mut rest = Vec::new();
    let ended = timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await.expect("an end");
    assert!(ended.is_err() || !rest.ends_with(b"0\r\n\r\n"));
}
