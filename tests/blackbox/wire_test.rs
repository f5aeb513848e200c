//! The hand-made HTTP client: were it wrong, every other test here would blame the daemon.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::confirmation_proof;
use crate::support::wire::{Answer, Events, Target};

/// Answers one connection with these pieces, a moment apart, and closes it.
async fn serving(pieces: &'static [&'static [u8]]) -> Target {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        for piece in pieces {
            let _ = stream.write_all(piece).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    Target::Tcp(address)
}

async fn answer(pieces: &'static [&'static [u8]]) -> Option<Answer> {
    serving(pieces).await.raw(b"GET / HTTP/1.1\r\n\r\n").await.expect("it ends")
}

#[tokio::test]
async fn answers_are_read_however_they_arrive() {
    let sized = answer(&[b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 4\r\n\r\nab", b"cd"]).await.expect("an answer");
    assert_eq!((sized.status, sized.body.as_slice()), (200, b"abcd".as_slice()));
    let chunked = answer(&[b"HTTP/1.1 400 No\r\ntransfer-encoding: chunked\r\n\r\n3\r", b"\nabc\r\n2\r\nd", b"e\r\n0\r\n\r\n"]);
    assert_eq!(chunked.await.expect("an answer").body, b"abcde");
    let empty = answer(&[b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n"]).await.expect("an answer");
    assert_eq!((empty.status, empty.header("X")), (204, Some("y")));
    assert!(answer(&[]).await.is_none(), "closed without an answer");
    assert!(answer(&[b"HTTP/1.1 200"]).await.is_none(), "closed within the head");
}

#[tokio::test]
async fn events_are_read_however_they_arrive() {
    let target = serving(&[
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"d\r\nretry: 1000\n\n\r\n",
        b"7\r\n: hi\n\ne\r\n1",
        b"7\r\nvent: bye\nid: 7\ndata: a\r\n2\r\n\n\n\r\n0\r\n\r\n",
    ]);
    let mut events = Events::open(&target.await, "/", &[]).await.expect("it answers").expect("a stream");
    assert_eq!(events.next().await.expect("a field alone").retry.as_deref(), Some("1000"));
    assert!(events.next().await.expect("a comment").comment);
    let event = events.next().await.expect("an event");
    assert_eq!((event.name.as_str(), event.data.as_str(), event.id.as_deref()), ("bye", "a", Some("7")));
    assert!(events.next().await.is_none());
    let refused = serving(&[b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\n{}"]).await;
    let refused = Events::open(&refused, "/", &[]).await.expect("it answers").err().expect("no stream");
    assert_eq!((refused.status, refused.body.as_slice()), (403, b"{}".as_slice()));
}

/// Against a value that was computed with another implementation.
#[test]
fn proofs_are_lower_case_hex_of_hmac_sha256() {
    let proof = confirmation_proof("s3cret", "dinie-production", "v1", "pod-1");
    assert_eq!(proof, "3dd6f51f9b793658f19c3dfaf0babf0df516bc960a2db1aa981ca72953a67f2f");
}
