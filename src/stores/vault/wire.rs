//! Sends one request of `vaultrs` and reads a bounded answer. The library's own way of sending isn't used: it follows redirects (with
//! our token), knows ambient proxies, reads without a bound, hides headers, and its errors hold the reply.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use http::HeaderMap;
use reqwest::{Certificate, Client, Response, redirect, retry};
use rustify::endpoint::{Endpoint, MiddleWare};
use serde::de::DeserializeOwned;
use vaultrs::api::EndpointMiddleware;
use zeroize::Zeroizing;

use super::settings::VaultSettings;
use crate::domain::material::Secret;
use crate::stores::StoreError;

/// The longest answer that is read, in bytes: a version of many fields of 64 KiB, each byte escaped.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is used again within that time: a TLS handshake per call would cost more than the call.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// What we wait for when Vault says "too many", and not how long.
const THROTTLED_DEFAULT: Duration = Duration::from_secs(1);
const THROTTLED_MAX: Duration = Duration::from_secs(300);

/// Why a store can't be opened: each says which file or setting it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultOpenError {
    #[error("{path} can't be read: {kind}", path = .0.display(), kind = .1)]
    Unreadable(std::path::PathBuf, std::io::ErrorKind),
    #[error("{path} holds no certificate in PEM", path = .0.display())]
    NoCertificate(std::path::PathBuf),
    #[error("TLS can't be set up: are root certificates installed?")]
    NoTls,
}

/// What came instead of success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing is there. Vault answers alike for what we may not list.
    Missing,
    /// 400: of a write with a compare, that it doesn't match. Vault tells it from other faults by text only.
    Rejected,
    /// 403: the token is over, or may not do this.
    Denied,
    Throttled(Duration),
    /// Nothing can be said about whether it took effect.
    Away(&'static str),
}

impl Refusal {
    pub(super) fn into_store_error(self) -> StoreError {
        match self {
            Refusal::Throttled(retry_after) => StoreError::Throttled { retry_after },
            other => other.into_unavailable(),
        }
    }

    /// For what comes after a first effect: "it wasn't sent" would be untrue.
    pub(super) fn into_unavailable(self) -> StoreError {
        StoreError::Unavailable(match self {
            Refusal::Away(what) => what,
            Refusal::Missing => "it has no KV engine of version 2 at this mount",
            Refusal::Rejected => "it doesn't understand the request",
            Refusal::Denied => "it denies access: look at our login, and at the policies of its role",
            Refusal::Throttled(_) => "it is asked too often",
        })
    }
}

/// An answer below 300, or a 404, whose body may tell more.
pub(super) struct Answer {
    pub(super) is_missing: bool,
    body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// The parser's errors hold parts of what it parsed, so they end here.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

pub(super) struct Wire {
    client: Client,
    address: String,
    namespace: Option<String>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(settings: &VaultSettings) -> Result<Wire, VaultOpenError> {
        let builder = Client::builder()
            .user_agent(concat!("keywright/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .http1_only()
            .pool_idle_timeout(IDLE_MAX)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT);
        let builder = if settings.address.starts_with("http://") {
            builder.tls_certs_only([])
        } else {
            let builder = builder.https_only(true);
            match &settings.ca {
                Some(path) => builder.tls_certs_only(certificates(path)?),
                None => builder,
            }
        };
        let client = builder.build().map_err(|_| VaultOpenError::NoTls)?;
        Ok(Wire { client, address: settings.address.clone(), namespace: settings.namespace.clone() })
    }

    /// The token is ASCII without spaces, as [`super::session`] checked it: the library panics on others.
    pub(super) async fn send(&self, endpoint: &impl Endpoint, token: Option<&Secret>) -> Result<Answer, Refusal> {
        let token = token.and_then(Secret::expose_str).unwrap_or_default().to_owned();
        let middle = EndpointMiddleware { token, version: "v1".to_owned(), wrap: None, namespace: self.namespace.clone() };
        const UNBUILT: Refusal = Refusal::Away("the request can't be built");
        let mut request = endpoint.request(&self.address).map_err(|_| UNBUILT)?;
        middle.request(endpoint, &mut request).map_err(|_| UNBUILT)?;
        if let Some(token) = request.headers_mut().get_mut("x-vault-token") {
            token.set_sensitive(true);
        }
        let request = reqwest::Request::try_from(request).map_err(|_| UNBUILT)?;
        let mut response = self.client.execute(request).await.map_err(|error| Refusal::Away(kind_of(&error)))?;
        let status = response.status().as_u16();
        match status {
            200..=299 | 404 => Ok(Answer { is_missing: status == 404, body: read(&mut response).await.map_err(Refusal::Away)? }),
            _ => Err(refusal(status, response.headers())),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, VaultOpenError> {
    let pem = std::fs::read(path).map_err(|error| VaultOpenError::Unreadable(path.to_owned(), error.kind()))?;
    let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if found.is_empty() { Err(VaultOpenError::NoCertificate(path.to_owned())) } else { Ok(found) }
}

fn kind_of(error: &reqwest::Error) -> &'static str {
    match (error.is_connect(), error.is_timeout()) {
        (true, true) => "connecting takes too long",
        (true, false) => "no connection",
        (false, true) => "it takes too long",
        (false, false) => "the connection ended before its answer came",
    }
}

/// By status and headers alone: the text of an error can hold what was sent.
fn refusal(status: u16, headers: &HeaderMap) -> Refusal {
    match status {
        400 => Refusal::Rejected,
        403 => Refusal::Denied,
        429 => Refusal::Throttled(retry_after(headers)),
        // It would send our token wherever a header says.
        300..=399 => Refusal::Away("it is a standby that names another address: configure the active one, or a balancer before them"),
        412 => Refusal::Away("it is a standby that is behind"),
        472..=474 => Refusal::Away("it is a standby"),
        501 => Refusal::Away("it isn't initialized"),
        503 => Refusal::Away("it is sealed, or not ready"),
        500..=599 => Refusal::Away("it has a fault of its own"),
        _ => Refusal::Away("it doesn't understand the request"),
    }
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get("retry-after").and_then(|value| value.to_str().ok()).and_then(|text| text.trim().parse().ok());
    seconds.map_or(THROTTLED_DEFAULT, Duration::from_secs).clamp(THROTTLED_DEFAULT, THROTTLED_MAX)
}

async fn read(response: &mut Response) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    const TOO_LARGE: &str = "its answer is too large";
    // Reserved at once where the length is known: growing leaves copies behind.
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    if announced > BODY_BYTES_MAX {
        return Err(TOO_LARGE);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(announced.max(4096)));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > BODY_BYTES_MAX => return Err(TOO_LARGE),
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(error) => return Err(kind_of(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart_without_their_text() {
        let mut headers = HeaderMap::new();
        let away = |status| matches!(refusal(status, &HeaderMap::new()), Refusal::Away(_));
        assert!([302, 307, 412, 472, 473, 474, 500, 501, 502, 503, 530].into_iter().all(away));
        assert_eq!(refusal(400, &headers), Refusal::Rejected);
        assert_eq!(refusal(403, &headers), Refusal::Denied);
        assert_eq!(refusal(429, &headers), Refusal::Throttled(THROTTLED_DEFAULT));
        for (text, seconds) in [("7", 7), ("0", 1), ("99999", 300), ("soon", 1)] {
            headers.insert("retry-after", text.parse().unwrap());
            assert_eq!(refusal(429, &headers), Refusal::Throttled(Duration::from_secs(seconds)), "{text}");
        }
    }
}
