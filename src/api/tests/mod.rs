//! The API over real sockets, with a scripted engine behind it.

mod connections;
mod documented;
mod fake;
mod fuzz;
mod input;
mod pods;
mod problems;
mod rights;
mod routes;
mod streams;
mod tls;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{App, Limits, Listener, bind_address, bind_socket, serve};
use crate::delivery::stream::StreamHub;
use crate::domain::access::{Identity, Operator, Right};
use fake::Fake;

/// Tokens of the tests: an application's, another one's, an operator's with all rights, one's that may see status only.
const APP: &str = "app-token";
const OTHER: &str = "other-token";
const BOSS: &str = "boss-token";
const CLERK: &str = "clerk-token";

struct Running {
    address: std::net::SocketAddr,
    folder: tempfile::TempDir,
    fake: Arc<Fake>,
    hub: Arc<StreamHub>,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

fn quick() -> Limits {
    Limits {
        handshake_timeout: Duration::from_millis(400),
        header_timeout: Duration::from_millis(400),
        body_timeout: Duration::from_millis(300),
        write_timeout: Duration::from_millis(400),
        comment_every: Duration::from_millis(150),
        retry_first: Duration::from_millis(20),
        drain: Duration::from_millis(800),
        ..Limits::default()
    }
}

fn operators() -> Vec<Operator> {
    let token = |token: &str, may: &[Right]| Operator { identity: fake::token(token), may: may.iter().copied().collect() };
    vec![token(BOSS, &Right::ALL), token(CLERK, &[Right::Status])]
}

async fn start(limits: Limits) -> Running {
    start_for(limits, operators()).await
}

async fn start_for(limits: Limits, operators: Vec<Operator>) -> Running {
    start_with(limits, operators, None).await
}

async fn start_with(limits: Limits, operators: Vec<Operator>, tls: Option<Arc<rustls::ServerConfig>>) -> Running {
    start_changed(limits, operators, tls, |app| app).await
}

async fn start_without_snapshots() -> Running {
    start_changed(Limits::default(), operators(), None, |app| App { snapshots: None, ..app }).await
}

async fn start_changed(
    limits: Limits,
    operators: Vec<Operator>,
    tls: Option<Arc<rustls::ServerConfig>>,
    change: impl FnOnce(App) -> App,
) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let socket = bind_socket(&folder.path().join("socket")).unwrap();
    let tcp = bind_address("127.0.0.1:0".parse().unwrap(), tls).await.unwrap();
    let address = tcp.address().unwrap();
    let (fake, hub, ready) = (Arc::new(Fake::new()), Arc::new(StreamHub::new()), Arc::new(AtomicBool::new(true)));
    let app = change(App {
        service: fake.clone(),
        hub: hub.clone(),
        operators,
        reviews: None,
        snapshots: Some(fake.clone()),
        rewraps: Some(fake.clone()),
        metrics: Arc::new(|with_names| format!("# with names: {with_names}\n")),
        ready: ready.clone(),
        limits,
    });
    let stop = CancellationToken::new();
    let listeners = vec![Listener::Socket(socket), tcp];
    let serving = tokio::spawn(serve(listeners, app, stop.clone()));
    Running { address, folder, fake, hub, ready, stop, serving }
}

/// An operator by its uid on the socket.
fn myself(may: &[Right]) -> Operator {
    let uid = rustix::process::getuid().as_raw();
    Operator { identity: Identity::Unix { uid }, may: may.iter().copied().collect() }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The slug, after checking that this is a whole problem document.
    fn slug(&self) -> String {
        let json = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(json["status"], self.status, "{self:?}");
        assert_eq!(json["request_id"].as_str(), self.header("x-request-id"), "{self:?}");
        assert!(json["title"].is_string() && json["detail"].is_string(), "{self:?}");
        json["type"].as_str().unwrap().strip_prefix("https://keywright.dev/problems/").unwrap().to_owned()
    }

    fn refused(&self, status: u16, slug: &str) {
        assert_eq!((self.status, self.slug().as_str()), (status, slug), "{self:?}");
    }
}

async fn reply_of(stream: &mut (impl AsyncRead + Unpin)) -> Reply {
    let mut bytes = Vec::new();
    let read = async {
        while stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {
            let Some(end) = find(&bytes, b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |text| text.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return;
            }
        }
    };
    timeout(Duration::from_secs(5), read).await.expect("an answer");
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let reply = Reply { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head: head.to_owned(), body: body.to_owned() };
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply:?}");
    assert!(reply.header("x-request-id").is_some_and(|id| uuid::Uuid::parse_str(id).unwrap().get_version_num() == 7), "{reply:?}");
    reply
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> Reply {
    // The server may answer and close before it has taken everything.
    let _ = stream.write_all(request).await;
    let reply = reply_of(stream).await;
    documented::check(&String::from_utf8_lossy(request), &reply);
    reply
}

impl Running {
    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn unix(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("socket")).await.unwrap()
    }

    async fn raw(&self, request: impl AsRef<[u8]>) -> Reply {
        exchange(&mut self.tcp().await, request.as_ref()).await
    }

    /// A request with a token and further header lines, each ending with a line break.
    async fn call(&self, token: &str, line: &str, headers: &str, body: &str) -> Reply {
        self.raw(request(token, line, headers, body)).await
    }

    async fn get(&self, token: &str, path: &str) -> Reply {
        self.call(token, &format!("GET {path}"), "", "").await
    }

    async fn send(&self, token: &str, line: &str, body: &str) -> Reply {
        self.call(token, line, "content-type: application/json\r\n", body).await
    }

    /// Over the socket, without a token.
    async fn local(&self, line: &str) -> Reply {
        exchange(&mut self.unix().await, format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await
    }
}

fn request(token: &str, line: &str, headers: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{headers}{length}\r\n{body}")
}
