//! Many connections, many requests, stale sockets, and the end.

use std::os::unix::fs::PermissionsExt;

use futures_util::future::join_all;

use super::*;
use crate::api::BindError;

#[tokio::test]
async fn ten_times_the_connections_are_all_answered() {
    let it = start(Limits { connections: 8, header_timeout: Duration::from_secs(2), ..quick() }).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        let mut stream = it.tcp().await;
        assert_eq!(exchange(&mut stream, request(APP, "GET /v1/credentials/one", "", "").as_bytes()).await.status, 200);
        idle.push(stream);
    }
    let replies = join_all((0..80).map(|_| it.get(APP, "/v1/credentials/one"))).await;
    for reply in replies {
        reply.refused(429, "too-many");
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    // The socket has room of its own, and the address again once the others leave.
    it.local("GET /v1/status").await.refused(401, "unauthenticated");
    drop(idle);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(it.get(APP, "/v1/credentials/one").await.status, 200);
}

#[tokio::test]
async fn requests_under_way_are_bounded_per_identity() {
    let it = start(Limits { requests_per_identity: 2, body_timeout: Duration::from_secs(5), ..quick() }).await;
    let slow = format!(
        "PUT /v1/credentials/one/submission HTTP/1.1\r\nauthorization: Bearer {BOSS}\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"
    );
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = it.tcp().await;
        stream.write_all(slow.as_bytes()).await.unwrap();
        open.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let reply = it.get(BOSS, "/v1/status").await;
    reply.refused(429, "too-many");
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(it.get(APP, "/v1/credentials/one").await.status, 200);
    drop(open);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(it.get(BOSS, "/v1/status").await.status, 200);
}

#[tokio::test]
async fn streams_are_bounded_per_identity_and_in_all() {
    let it = start(Limits { streams_per_identity: 1, streams: 2, ..quick() }).await;
    let open = |token| {
        let it = &it;
        async move {
            let mut stream = it.tcp().await;
            stream.write_all(request(token, "GET /v1/events", "", "").as_bytes()).await.unwrap();
            let mut first = [0; 12];
            stream.read_exact(&mut first).await.unwrap();
            (stream, String::from_utf8(first.to_vec()).unwrap())
        }
    };
    let (kept, first) = open(APP).await;
    assert_eq!(first, "HTTP/1.1 200");
    assert_eq!(open(APP).await.1, "HTTP/1.1 429");
    let (_other, first) = open(OTHER).await;
    assert_eq!(first, "HTTP/1.1 200");
    assert_eq!(open(BOSS).await.1, "HTTP/1.1 429");
    drop(kept);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(open(APP).await.1, "HTTP/1.1 200");
}

#[tokio::test]
async fn a_stop_ends_everything_within_its_time() {
    let it = start(quick()).await;
    let mut idle = it.tcp().await;
    assert_eq!(exchange(&mut idle, b"GET /healthz HTTP/1.1\r\n\r\n").await.status, 200);
    let mut stuck = it.tcp().await;
    stuck.write_all(b"GET /heal").await.unwrap();
    let mut slow = it.tcp().await;
    slow.write_all(
        request(BOSS, "PUT /v1/credentials/one/submission", "content-type: application/json\r\ncontent-length: 13\r\n", "").as_bytes(),
    )
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    it.stop.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    // What is under way is answered.
    assert_eq!(exchange(&mut slow, br#"{"fields":{}}"#).await.status, 201);
    timeout(Duration::from_secs(2), it.serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(it.address).await.is_err());
    assert!(UnixStream::connect(it.folder.path().join("socket")).await.is_err());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_who_never_finishes() {
    let it = start(Limits { header_timeout: Duration::from_secs(60), body_timeout: Duration::from_secs(60), ..quick() }).await;
    let mut stuck = it.tcp().await;
    stuck.write_all(b"GET /heal").await.unwrap();
    let mut slow = it.tcp().await;
    slow.write_all(
        request(BOSS, "PUT /v1/credentials/one/submission", "content-type: application/json\r\ncontent-length: 13\r\n", "").as_bytes(),
    )
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    it.stop.cancel();
    timeout(quick().drain * 2, it.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn only_a_stale_socket_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(bind_socket(&path).unwrap());
    assert!(path.exists());
    let alive = bind_socket(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    assert_eq!(bind_socket(&path).unwrap_err(), BindError::InUse);
    drop(alive);
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert_eq!(bind_socket(&file).unwrap_err(), BindError::NotASocket);
    std::os::unix::fs::symlink(&path, folder.path().join("link")).unwrap();
    assert_eq!(bind_socket(&folder.path().join("link")).unwrap_err(), BindError::NotASocket);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn plain_http_is_for_loopback_only() {
    assert_eq!(bind_address("0.0.0.0:0".parse().unwrap(), None).await.unwrap_err(), BindError::NotLoopback);
    let first = bind_address("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    assert_eq!(bind_address(first.address().unwrap(), None).await.unwrap_err(), BindError::InUse);
}
