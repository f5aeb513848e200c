//! The fake's replies: as they should be, and bent by a fault.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use super::Dinie;
use super::faults::{Call, Fault};
use super::http::Received;

pub(super) type Reply = Response<Full<Bytes>>;

pub(super) fn instead_of_effect(fault: Fault, received: &Received) -> Result<Reply, std::io::Error> {
    match fault {
        Fault::Throttle { retry_after_seconds } => {
            let mut reply = problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", json!({}));
            reply.headers_mut().insert(header::RETRY_AFTER, retry_after_seconds.into());
            Ok(reply)
        }
        Fault::EchoError => {
            let echo = format!(
                "{{\"detail\":\"failed\",\"request\":{:?},\"headers\":{:?}}}",
                String::from_utf8_lossy(&received.body),
                format!("{:?}", received.head.headers)
            );
            Ok(with_status(StatusCode::INTERNAL_SERVER_ERROR, echo.into_bytes()))
        }
        Fault::Redirect => {
            let mut reply = with_status(StatusCode::TEMPORARY_REDIRECT, Vec::new());
            // Nobody listens on port 1: who follows is seen to fail, and sends nothing anywhere.
            reply.headers_mut().insert(header::LOCATION, "http://127.0.0.1:1/".parse().expect("a valid header"));
            Ok(reply)
        }
        _ => Err(std::io::Error::other("the request is dropped")),
    }
}

pub(super) async fn after_effect(fake: &Dinie, call: Call, fault: Fault, reply: Reply) -> Result<Reply, std::io::Error> {
    match fault {
        Fault::Slow(delay) => {
            tokio::time::sleep(delay).await;
            Ok(reply)
        }
        Fault::NotJson => Ok(with_status(reply.status(), b"<html>all is well</html>".to_vec())),
        Fault::NotUtf8 => {
            let mut bytes = reply.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes().to_vec();
            bytes.extend_from_slice(&[0xff, 0xfe, 0xc3, 0x28]);
            Ok(with_status(StatusCode::OK, bytes))
        }
        Fault::HugeBody => Ok(with_status(reply.status(), vec![b'x'; 8 * 1024 * 1024])),
        Fault::HangAfterEffect => {
            let _ = fake.hangs.send(call);
            tokio::time::sleep(Duration::from_secs(600)).await;
            Err(std::io::Error::other("hung up"))
        }
        _ => Err(std::io::Error::other("the reply is lost")),
    }
}

pub(super) fn unauthorised(code: &str) -> Reply {
    problem(StatusCode::UNAUTHORIZED, code, json!({}))
}

pub(super) fn problem(status: StatusCode, code: &str, more: Value) -> Reply {
    let mut document = json!({
        "type": format!("https://docs.dinie.com.br/errors/{code}"),
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code,
    });
    if let (Value::Object(document), Value::Object(more)) = (&mut document, more) {
        document.extend(more);
    }
    let mut reply = with_json(status, &document);
    reply.headers_mut().insert(header::CONTENT_TYPE, "application/problem+json".parse().expect("a valid header"));
    reply
}

pub(super) fn with_json(status: StatusCode, document: &Value) -> Reply {
    with_status(status, document.to_string().into_bytes())
}

pub(super) fn with_status(status: StatusCode, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().expect("a valid header"));
    reply
}
