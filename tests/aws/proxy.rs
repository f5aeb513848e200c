//! Stands between the store and its server, and does to calls what networks and AWS do: loses them or their answers, throttles,
//! fails and delays.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Passes,
    /// The connection breaks before anybody hears of it.
    Lost,
    /// It takes effect, and the connection breaks.
    AnswerLost,
    Fails,
    Throttled,
    Delayed(Duration),
}

/// Decides by the number of the call, counted from nought, and by its name (`PutSecretValue`).
type Judge = Box<dyn FnMut(usize, &str) -> Fate + Send>;

pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    judge: Judge,
    calls: Vec<(Instant, String)>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// In front of a server on loopback; everything passes at first.
    pub(crate) async fn start(server: &str) -> Self {
        let server: SocketAddr = server.trim_start_matches("http://").parse().expect("an address on loopback");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("it has an address"));
        let state = Arc::new(Mutex::new(State { judge: Box::new(|_, _| Fate::Passes), calls: Vec::new() }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A connection that breaks is what this is for.
                tokio::spawn({
                    let state = Arc::clone(&shared);
                    async move { drop(serve(client, server, &state).await) }
                });
            }
        });
        Self { endpoint, state, task }
    }

    pub(crate) fn judge(&self, judge: impl FnMut(usize, &str) -> Fate + Send + 'static) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.judge = Box::new(judge);
        state.calls.clear();
    }

    /// The calls since the last judge came, and when.
    pub(crate) fn calls(&self) -> Vec<(Instant, String)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).calls.clone()
    }
}

/// One call per connection.
async fn serve(mut client: TcpStream, server: SocketAddr, state: &Mutex<State>) -> std::io::Result<()> {
    let Some((head, body)) = request(&mut client).await? else { return Ok(()) };
    let name = header(&head, "x-amz-target").and_then(|target| target.rsplit('.').next()).unwrap_or_default().to_owned();
    let fate = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.calls.len();
        state.calls.push((Instant::now(), name.clone()));
        (state.judge)(number, &name)
    };
    match fate {
        Fate::Lost => return Ok(()),
        Fate::Fails => return refuse(&mut client, "500 Internal Server Error", "InternalServiceError").await,
        Fate::Throttled => return refuse(&mut client, "400 Bad Request", "ThrottlingException").await,
        Fate::Delayed(long) => tokio::time::sleep(long).await,
        Fate::Passes | Fate::AnswerLost => {}
    }
    let mut upstream = TcpStream::connect(server).await?;
    let kept = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let head: String = kept.map(|line| format!("{line}\r\n")).collect();
    upstream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await?;
    upstream.write_all(&body).await?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await?;
    if fate != Fate::AnswerLost {
        client.write_all(&answer).await?;
        client.shutdown().await?;
    }
    Ok(())
}

async fn refuse(client: &mut TcpStream, status: &str, code: &str) -> std::io::Result<()> {
    let body = format!("{{\"__type\":\"{code}\",\"message\":\"canary-of-the-server\"}}");
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n", body.len());
    client.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).await?;
    client.shutdown().await
}

/// The head without its empty line, and the body.
async fn request(client: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut end = None;
    while end.is_none() {
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    }
    let end = end.unwrap_or_default();
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length: usize = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if client.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some((head, body)))
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
}
