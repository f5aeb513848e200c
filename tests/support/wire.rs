//! HTTP/1.1 by hand, over loopback or the daemon's socket: a client library would refuse to send half of what
//! these tests must send, and would hide how a connection ends.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Socket(PathBuf),
    /// As `localhost`, by what this configuration trusts.
    Tls(SocketAddr, Arc<rustls::ClientConfig>),
}

pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

impl Target {
    pub(crate) async fn connect(&self) -> io::Result<Box<dyn Wire>> {
        Ok(match self {
            Self::Tcp(address) => Box::new(tokio::net::TcpStream::connect(address).await?),
            Self::Socket(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
            Self::Tls(address, config) => Box::new(super::tls::connect(*address, config).await?),
        })
    }

    /// Sends these very bytes; `None` where the connection ends without an answer.
    pub(crate) async fn raw(&self, request: &[u8]) -> io::Result<Option<Answer>> {
        let exchange = async {
            let mut wire = self.connect().await?;
            // A server that has already refused may close while we still write: its answer counts, not our error.
            let _ = wire.write_all(request).await;
            read_answer(&mut wire).await
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Answer {
        match self.raw(&ask.bytes()).await {
            Ok(Some(answer)) => answer,
            other => panic!("no answer to {} {}: {other:?}", ask.method, ask.path),
        }
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(Ask { method: "GET", path, headers, body: None }).await
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: Option<&'a [u8]>,
}

impl Ask<'_> {
    /// A body is JSON unless `headers` says otherwise.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| *name == "host") {
            head.push_str("host: keywright\r\n");
        }
        for (name, value) in self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = self.body {
            if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                head.push_str("content-type: application/json\r\n");
            }
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), self.body.unwrap_or_default()].concat()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    /// Status line and headers as they came.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{} with a body that is not JSON ({} bytes)", self.status, self.body.len()))
    }

    /// What every answer must carry, and every error be.
    pub(crate) fn assert_problem(&self, status: u16, slug: &str) {
        let shown = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "wanted {slug}, got {shown}");
        self.assert_common();
        let kind = self.header("content-type").unwrap_or("");
        assert!(kind.starts_with("application/problem+json"), "{slug}: content-type is {kind:?}");
        let problem = self.json();
        assert_eq!(problem["type"], format!("https://keywright.dev/problems/{slug}"), "{shown}");
        assert_eq!(problem["status"], status, "{shown}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{shown}");
        let id = problem["request_id"].as_str().unwrap_or("");
        assert!(!id.is_empty(), "{shown}");
        assert_eq!(self.header("x-request-id"), Some(id), "{shown}");
    }

    pub(crate) fn assert_common(&self) {
        assert_eq!(self.header("cache-control"), Some("no-store"), "cache-control of a {}", self.status);
        assert!(self.header("x-request-id").is_some_and(|id| !id.is_empty()), "x-request-id of a {}", self.status);
    }
}

pub(crate) async fn read_answer(wire: &mut Box<dyn Wire>) -> io::Result<Option<Answer>> {
    let mut buffer = Vec::new();
    let Some(mut answer) = read_head(wire, &mut buffer).await? else {
        return Ok(None);
    };
    let chunked = answer.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let length = answer.header("content-length").and_then(|value| value.parse::<usize>().ok());
    if matches!(answer.status, 204 | 304) {
        return Ok(Some(answer));
    }
    if chunked {
        let mut chunks = Chunks::default();
        loop {
            chunks.feed(&buffer);
            buffer.clear();
            if chunks.ended || !more(wire, &mut buffer).await? {
                break;
            }
        }
        answer.body = chunks.decoded;
    } else {
        while length.is_none_or(|length| buffer.len() < length) && more(wire, &mut buffer).await? {}
        answer.body = buffer;
    }
    Ok(Some(answer))
}

/// Leaves in `buffer` what came after the head.
pub(crate) async fn read_head(wire: &mut Box<dyn Wire>, buffer: &mut Vec<u8>) -> io::Result<Option<Answer>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        match more(wire, buffer).await {
            Ok(true) => {}
            // A reset is a way to end a connection without an answer.
            Ok(false) | Err(_) => return Ok(None),
        }
    };
    let raw = buffer[..end].to_vec();
    let head = String::from_utf8_lossy(&raw).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|text| text.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    let headers =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Ok(Some(Answer { status, headers, head: raw, body: Vec::new() }))
}

pub(crate) async fn more(wire: &mut Box<dyn Wire>, buffer: &mut Vec<u8>) -> io::Result<bool> {
    buffer.reserve(16 * 1024);
    Ok(wire.read_buf(buffer).await? > 0)
}

/// Undoes chunked transfer as the pieces arrive.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    waiting: Vec<u8>,
    pub(crate) decoded: Vec<u8>,
    pub(crate) ended: bool,
}

impl Chunks {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        while let Some(line) = self.waiting.windows(2).position(|window| window == b"\r\n") {
            let text = String::from_utf8_lossy(&self.waiting[..line]).into_owned();
            let size = text.split(';').next().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
            let size = size.unwrap_or_else(|| panic!("`{text}` is no chunk size"));
            if size == 0 {
                self.ended = true;
                return;
            }
            if self.waiting.len() < line + 2 + size + 2 {
                return;
            }
            self.decoded.extend_from_slice(&self.waiting[line + 2..line + 2 + size]);
            self.waiting.drain(..line + 2 + size + 2);
        }
    }
}

/// One event of a stream, or one comment line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
    pub(crate) data_lines: usize,
    pub(crate) id: Option<String>,
    pub(crate) retry: Option<String>,
    pub(crate) comment: bool,
    /// Every line but the data, as it came: names, ids, comments.
    pub(crate) rest: String,
}

pub(crate) struct Events {
    wire: Box<dyn Wire>,
    chunks: Chunks,
    pub(crate) head: Answer,
}

impl Events {
    /// The stream, or the answer that came in its place.
    pub(crate) async fn open(target: &Target, path: &str, headers: &[(&str, &str)]) -> io::Result<Result<Self, Answer>> {
        let opening = async {
            let mut wire = target.connect().await?;
            wire.write_all(&Ask { method: "GET", path, headers, body: None }.bytes()).await?;
            let mut rest = Vec::new();
            let head = read_head(&mut wire, &mut rest).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if head.status != 200 {
                while more(&mut wire, &mut rest).await.unwrap_or(false) {}
                return Ok(Err(Answer { body: rest, ..head }));
            }
            let mut chunks = Chunks::default();
            chunks.feed(&rest);
            Ok(Ok(Self { wire, chunks, head }))
        };
        tokio::time::timeout(PATIENCE, opening).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The next event or comment; `None` once the stream has ended. Safe to drop and call again.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            let text = &self.chunks.decoded;
            if let Some(end) = text.windows(2).position(|window| window == b"\n\n") {
                let block = String::from_utf8_lossy(&text[..end]).into_owned();
                self.chunks.decoded.drain(..end + 2);
                if let Some(event) = parse_event(&block) {
                    return Some(event);
                }
                continue;
            }
            if self.chunks.ended {
                return None;
            }
            let mut piece = Vec::new();
            match more(&mut self.wire, &mut piece).await {
                Ok(true) => self.chunks.feed(&piece),
                Ok(false) | Err(_) => return None,
            }
        }
    }

    pub(crate) async fn next_within(&mut self, limit: Duration) -> Option<Event> {
        tokio::time::timeout(limit, self.next()).await.ok().flatten()
    }

    /// The next event of this name, whatever comes before it.
    pub(crate) async fn wait_for(&mut self, name: &str, limit: Duration) -> Option<Event> {
        let waiting = async {
            loop {
                let event = self.next().await?;
                if event.name == name {
                    return Some(event);
                }
            }
        };
        tokio::time::timeout(limit, waiting).await.ok().flatten()
    }
}

fn parse_event(block: &str) -> Option<Event> {
    let mut event = Event { comment: true, ..Event::default() };
    let mut lines = 0;
    for line in block.lines().filter(|line| !line.is_empty()) {
        lines += 1;
        if !line.starts_with("data") {
            event.rest.push_str(line);
            event.rest.push('\n');
        }
        if line.starts_with(':') {
            continue;
        }
        event.comment = false;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "event" => event.name = value,
            "data" => {
                event.data_lines += 1;
                event.data.push_str(&value);
            }
            "id" => event.id = Some(value),
            "retry" => event.retry = Some(value),
            other => panic!("`{other}` is no field of an event stream"),
        }
    }
    (lines > 0).then_some(event)
}
