//! A provider at which every key is good: just enough of HTTP for the daemon's routine looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone)]
pub(super) struct Provider {
    pub(super) url: String,
    requests: Arc<AtomicU64>,
}

impl Provider {
    pub(super) async fn start() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Provider { url: format!("http://{}/v3", listener.local_addr().unwrap()), requests: Arc::default() };
        let requests = Arc::clone(&provider.requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream, Arc::clone(&requests)));
            }
        });
        provider
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Bodies are short and come with their heads: what a head announces is waited for.
async fn answer_all(mut stream: TcpStream, requests: Arc<AtomicU64>) {
    let mut buffer = Vec::new();
    loop {
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else {
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap_or(0);
        while buffer.len() < end + length {
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        buffer.drain(..end + length);
        requests.fetch_add(1, Ordering::Relaxed);
        let body =
            if head.starts_with("post") { r#"{"access_token":"token","expires_in":3600}"# } else { r#"{"data":[],"has_more":false}"# };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
