//! A server of bytes: it answers whatever a test says, broken as it may be. The token endpoint works unless the test says otherwise.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::TOKEN;
use crate::domain::provider::Provider;
use crate::issuers::{Target, fixtures};

/// What the server does with one request.
#[derive(Clone)]
pub(super) enum Answer {
    Bytes(Vec<u8>),
    /// The bytes, and then nothing more, with the connection open.
    Hang(Vec<u8>),
    Close,
}

pub(super) struct Raw {
    pub url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    /// `answer` gets the whole request as text. Where it gives `None`, a token request gets a token, any other 404.
    pub(super) async fn start(answer: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) -> Raw {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v3", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (seen.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, log.clone(), answer.clone()));
            }
        });
        Raw { url, seen }
    }

    /// The same answer to every request but those for a token.
    pub(super) async fn always(answer: Answer) -> Raw {
        Raw::start(move |request| (!request.contains("/auth/token")).then(|| answer.clone())).await
    }

    pub(super) fn target(&self) -> Target {
        self.target_of(fixtures::dinie())
    }

    pub(super) fn target_of(&self, provider: Provider) -> Target {
        fixtures::target(provider, &self.url)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, log: Arc<Mutex<Vec<String>>>, answer: Arc<impl Fn(&str) -> Option<Answer>>) {
    let Some(request) = read_request(&mut stream).await else { return };
    log.lock().unwrap().push(request.clone());
    let token = || Answer::Bytes(json(200, &[], &format!("{{\"access_token\":\"{TOKEN}\"}}")));
    let fallback = || if request.contains("/auth/token") { token() } else { Answer::Bytes(json(404, &[], "{}")) };
    match answer(&request).unwrap_or_else(fallback) {
        Answer::Bytes(bytes) => drop(stream.write_all(&bytes).await),
        Answer::Hang(bytes) => {
            let _client_may_leave = stream.write_all(&bytes).await;
            std::future::pending::<()>().await;
        }
        Answer::Close => {}
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(text);
        }
    }
}

pub(super) fn json(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    reply(status, headers, body.as_bytes())
}

pub(super) fn reply(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n", body.len()).into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}
