//! Sends a request once and reads a bounded answer. Errors of the client end here: their text holds addresses and queries.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::Value;
use zeroize::Zeroizing;

use super::reply::{Reply, ReplyBody};
use super::request::Prepared;
use crate::issuers::IssuerError;
use crate::outbound::{self, NOT_ALLOWED, Reach};

/// The longest answer that is read, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;

/// One client per reach: which addresses a name may resolve to is the client's to enforce. Each is made when it is first
/// needed: reading the machine's root certificates takes a while.
pub(super) struct Transport {
    timeout: Duration,
    public: OnceLock<Option<Client>>,
    named: OnceLock<Option<Client>>,
    loopback: OnceLock<Option<Client>>,
}

impl Transport {
    pub(super) fn new(timeout: Duration) -> Transport {
        Transport { timeout, public: OnceLock::new(), named: OnceLock::new(), loopback: OnceLock::new() }
    }

    /// # Errors
    /// [`IssuerError::Unreachable`] or [`IssuerError::Impossible`] if it certainly wasn't sent, [`IssuerError::Unclear`] if no
    /// answer came. An answer whose body is broken is an answer: its status may tell enough.
    pub(super) async fn send(&self, prepared: Prepared) -> Result<Reply, IssuerError> {
        let slot = match prepared.reach {
            Reach::Public => &self.public,
            Reach::Named => &self.named,
            Reach::Loopback => &self.loopback,
        };
        let client = slot.get_or_init(|| outbound::client(prepared.reach, self.timeout));
        let client = client.as_ref().ok_or(IssuerError::Impossible("TLS can't be used: are root certificates installed?"))?;
        let mut response = client.execute(prepared.request).await.map_err(|error| kind_of(&error))?;
        let body = read(&mut response).await;
        Ok(Reply { status: response.status().as_u16(), headers: std::mem::take(response.headers_mut()), body })
    }
}

fn kind_of(error: &reqwest::Error) -> IssuerError {
    if outbound::was_refused(error) {
        return IssuerError::Impossible(NOT_ALLOWED);
    }
    if error.is_builder() {
        return IssuerError::Impossible("the request can't be built");
    }
    match (error.is_connect(), error.is_timeout()) {
        (true, true) => IssuerError::Unreachable("connecting takes too long"),
        (true, false) => IssuerError::Unreachable("no connection"),
        (false, true) => IssuerError::Unclear("it takes too long"),
        (false, false) => IssuerError::Unclear("the connection ended before it came"),
    }
}

async fn read(response: &mut Response) -> ReplyBody {
    // Reserved at once where the length is known: growing leaves copies behind.
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    if announced > BODY_BYTES_MAX {
        return ReplyBody::Broken("it is too large");
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(announced.max(4096)));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > BODY_BYTES_MAX => return ReplyBody::Broken("it is too large"),
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return parse(&bytes),
            Err(error) if error.is_timeout() => return ReplyBody::Broken("it takes too long"),
            Err(_) => return ReplyBody::Broken("the connection ended before it came"),
        }
    }
}

/// The parser's own limit of recursion bounds the depth; its errors echo values, so they end here.
pub(super) fn parse(bytes: &[u8]) -> ReplyBody {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return ReplyBody::Empty;
    }
    if std::str::from_utf8(bytes).is_err() {
        return ReplyBody::NotJson("it isn't UTF-8");
    }
    match serde_json::from_slice::<Value>(bytes) {
        Ok(json) => ReplyBody::Json(json),
        Err(_) => ReplyBody::NotJson("it isn't JSON"),
    }
}
