//! One HTTP call on loopback, as an application makes it.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::cli::client::exchange;
use crate::domain::material::Secret;

/// On loopback an answer takes milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the provider for an access token with this key: 200 if the key lives, 401 if not, `None` without an answer.
pub(super) async fn ask_token(provider: SocketAddr, client_id: &Secret, secret: &Secret) -> Option<StatusCode> {
    let pair = Zeroizing::new([client_id.expose(), b":", secret.expose()].concat());
    let header = Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair)));
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v3/auth/token")
        .header(AUTHORIZATION, sensitive(&header)?)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    Some(call(provider, request, "grant_type=client_credentials").await?.status())
}

/// One call, answered in time or not at all.
pub(super) async fn call(to: SocketAddr, request: http::request::Builder, body: impl Into<Bytes>) -> Option<Response<Incoming>> {
    let request = request.header(HOST, to.to_string()).body(Full::new(body.into())).ok()?;
    let answer = async { exchange(TcpStream::connect(to).await.ok()?, request).await.ok() };
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.ok()?
}

/// A header that has no `Debug` form.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
