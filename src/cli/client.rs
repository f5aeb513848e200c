//! A small HTTP client over the daemon's Unix socket: bounded in time and in size, every refusal as a [`Failure`].

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use crate::api::REASON;
use crate::domain::reason::Reason;

use super::failure::{Failure, Problem};

/// A thousand credentials with many instances each stay well below.
pub(crate) const REPLY_LENGTH_MAX: usize = 16 << 20;
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The daemon answers everything but a submission within this.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// A submission returns when the version is current: that includes the provider's propagation delay and retries.
pub(crate) const SUBMIT_TIMEOUT: Duration = Duration::from_secs(600);

/// Speaks to one daemon. One connection per call: a command makes few of them.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    authorization: Option<HeaderValue>,
}

/// An answer that isn't a refusal. The body may hold values: it has no `Debug` form.
pub(crate) struct Reply {
    pub(crate) body: Bytes,
}

/// What to ask for.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Option<Bytes>,
    /// Why a person does this: kept by the audit trail.
    pub(crate) reason: Option<Reason>,
    pub(crate) timeout: Duration,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Call {
        Call { method: Method::GET, path: path.into(), body: None, reason: None, timeout: REPLY_TIMEOUT }
    }

    pub(crate) fn new(method: Method, path: impl Into<String>) -> Call {
        Call { method, ..Call::get(path) }
    }
}

impl Client {
    pub(crate) fn new(socket: impl Into<PathBuf>) -> Client {
        Client { socket: socket.into(), authorization: None }
    }

    /// Calls as the application whose token this is.
    pub(crate) fn with_authorization(self, header: HeaderValue) -> Client {
        Client { authorization: Some(header), ..self }
    }

    /// # Errors
    /// [`Failure`]: no daemon, no answer in time, or the daemon's refusal.
    pub(crate) async fn send(&self, call: Call) -> Result<Reply, Failure> {
        let timeout = call.timeout;
        match tokio::time::timeout(timeout, self.exchange(call)).await {
            Ok(result) => result,
            Err(_) => Err(no_answer(&format!("no answer came within {} seconds", timeout.as_secs()))),
        }
    }

    /// The document that a `GET` answers.
    pub(crate) async fn document<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.send(Call::get(path)).await?.parse()
    }

    /// Writes an answer of any length into a file. How many bytes it has.
    ///
    /// # Errors
    /// As [`Client::send`]; what was written is then a part.
    pub(crate) async fn download(&self, call: Call, file: &mut File) -> Result<u64, Failure> {
        let timeout = call.timeout;
        let late = |_| no_answer(&format!("nothing came for {} seconds", timeout.as_secs()));
        let response = tokio::time::timeout(timeout, self.ask(call)).await.map_err(late)??;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let body = collect(body, REPLY_LENGTH_MAX).await.unwrap_or_default();
            return Err(refusal(status, &body));
        }
        let mut written = 0;
        while let Some(frame) = tokio::time::timeout(timeout, body.frame()).await.map_err(late)? {
            let frame = frame.map_err(|_| no_answer("the answer broke off"))?;
            let Ok(data) = frame.into_data() else { continue };
            file.write_all(&data).map_err(|error| Failure::io("writing the answer", &error))?;
            written += data.len() as u64;
        }
        Ok(written)
    }

    async fn ask(&self, call: Call) -> Result<Response<Incoming>, Failure> {
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(&self.socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Failure::no_daemon(&self.socket, &error.kind().to_string())),
            Err(_) => return Err(Failure::no_daemon(&self.socket, "it doesn't accept connections")),
        };
        let request = self.request(call)?;
        exchange(stream, request).await.map_err(|_| no_answer("the connection broke before the answer"))
    }

    async fn exchange(&self, call: Call) -> Result<Reply, Failure> {
        let response = self.ask(call).await?;
        let status = response.status();
        let body =
            collect(response.into_body(), REPLY_LENGTH_MAX).await.ok_or_else(|| no_answer("the answer broke off, or is too long"))?;
        if status.is_success() { Ok(Reply { body }) } else { Err(refusal(status, &body)) }
    }

    fn request(&self, call: Call) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request =
            Request::builder().method(call.method).uri(&call.path).header(HOST, "keywright").header(ACCEPT, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(reason) = &call.reason {
            request = request.header(REASON, reason.encoded());
        }
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::new(call.body.unwrap_or_default()))
            .map_err(|_| Failure::invalid("usage", "this can't be asked for", "the name isn't part of a valid address"))
    }
}

impl Reply {
    pub(crate) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, Failure> {
        // The text of the error isn't kept: it can repeat a part of the body.
        serde_json::from_slice(&self.body).map_err(|_| no_answer("the answer isn't the document that was expected"))
    }
}

/// One request on a connection of its own. The connection ends with the body of the answer.
pub(crate) async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors show up in the answer, too.
    tokio::spawn(async move { connection.await.ok() });
    sender.send_request(request).await
}

/// The whole body, if it comes whole and isn't longer than allowed.
pub(crate) async fn collect(body: Incoming, length_max: usize) -> Option<Bytes> {
    let mut limited = Limited::new(body, length_max);
    let mut whole = BytesMut::new();
    while let Some(frame) = limited.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    Some(whole.freeze())
}

pub(crate) fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        return Failure::answered(problem);
    }
    let mut failure = Failure::failed("no-answer", "the daemon refused without saying why", format!("it answered {}", status.as_u16()));
    failure.problem.status = Some(status.as_u16());
    failure
}

pub(crate) fn no_answer(detail: &str) -> Failure {
    Failure::failed("no-answer", "the daemon didn't answer clearly", detail)
        .then("look at the daemon's log; `keywright status` shows what was done")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    /// A socket that answers every connection with these bytes, then closes.
    fn canned(answer: &'static [u8]) -> (tempfile::TempDir, Client) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let mut request = [0u8; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
            }
        });
        (folder, Client::new(path))
    }

    #[tokio::test]
    async fn cli_client_reads_a_document_and_a_refusal() {
        let (_folder, client) = canned(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}");
        assert_eq!(client.document::<serde_json::Value>("/x").await.unwrap()["a"], 1);

        let (_folder, client) = canned(
            b"HTTP/1.1 409 Conflict\r\ncontent-length: 80\r\n\r\n{\"type\":\"https://keywright.dev/problems/rotation-open\",\"title\":\"a\",\"status\":409}",
        );
        let failure = client.document::<serde_json::Value>("/x").await.unwrap_err();
        assert_eq!(failure.problem.slug(), "rotation-open", "{failure:?}");
    }

    #[tokio::test]
    async fn cli_client_bounds_what_it_reads_and_never_repeats_it() {
        for answer in [
            b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhunter".as_slice(),
            b"HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\nhunter".as_slice(),
            b"HTTP/1.1 500 Oh\r\ncontent-length: 6\r\n\r\nhunter".as_slice(),
            b"hunter".as_slice(),
        ] {
            let (_folder, client) = canned(answer);
            let failure = client.document::<serde_json::Value>("/x").await.unwrap_err();
            assert_eq!(failure.problem.slug(), "no-answer");
            assert!(!format!("{failure:?}").contains("hunter"));
        }
    }

    #[tokio::test]
    async fn cli_client_names_the_socket_where_nobody_listens() {
        let failure = Client::new("/nowhere/keywright.sock").document::<serde_json::Value>("/x").await.unwrap_err();
        assert!(failure.lines().join(" ").contains("/nowhere/keywright.sock"));
    }

    #[tokio::test]
    async fn cli_client_does_not_wait_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let _silent = UnixListener::bind(&path).unwrap();
        let call = Call { timeout: Duration::from_millis(50), ..Call::get("/x") };
        let failure = Client::new(path).send(call).await.err().unwrap();
        assert_eq!(failure.problem.slug(), "no-answer");
    }
}
