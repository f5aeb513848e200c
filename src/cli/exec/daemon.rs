//! The daemon as `exec` calls it: over its socket, or at an address with TLS, always as one instance of one application.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName};
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::json;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::document::Document;
use crate::api::{APPLICATION, INSTANCE};
use crate::cli::client::{CONNECT_TIMEOUT, REPLY_LENGTH_MAX, REPLY_TIMEOUT, collect, exchange, no_answer, refusal};
use crate::cli::failure::Failure;
use crate::cli::get::{bearer, token_of};
use crate::domain::ids::{FieldName, InstanceName, Name, VersionId};
use crate::sealing::hmac_sha256_hex;

const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// An address of a daemon: `https://HOST[:PORT]`, or `http://` with an address of loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    host: String,
    port: u16,
    tls: bool,
}

impl FromStr for Server {
    /// The address isn't repeated: it may have a password in it.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Server, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "an address is `https://HOST[:PORT]`")?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("an address begins with `https://`"),
        };
        let authority = uri.authority().ok_or("an address names a host")?;
        if authority.as_str().contains('@') || uri.path() != "/" || uri.query().is_some() {
            return Err("an address is a host and a port: no user, no path, no query");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err("an address names a host");
        }
        if !tls && !host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
            return Err("without TLS only an address of loopback is called (`http://127.0.0.1:8750`)");
        }
        Ok(Server { host, port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls })
    }
}

impl Server {
    pub(super) fn has_tls(&self) -> bool {
        self.tls
    }

    fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    fn unreachable(&self, why: &str) -> Failure {
        let detail = format!("no daemon answers at {}: {why}", self.authority());
        Failure::failed("no-daemon", "the daemon isn't there", detail).then("look at the address, its certificate, and --ca")
    }
}

/// The way to it.
#[derive(Debug)]
pub(super) enum Door {
    Socket(PathBuf),
    /// `ca` is set where there is TLS.
    Server {
        server: Server,
        ca: Option<PathBuf>,
    },
}

/// Who we are to it.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) door: Door,
    pub(super) application: Name,
    pub(super) instance: InstanceName,
    /// Read again for each call: such tokens are renewed in place.
    pub(super) token_file: Option<PathBuf>,
}

/// What the caller may read, and whether there is something to read already.
#[derive(Deserialize)]
pub(super) struct Listed {
    pub(super) name: Name,
    /// `None` while there is nothing to read.
    pub(super) version: Option<VersionId>,
}

#[derive(Deserialize)]
struct List {
    credentials: Vec<Listed>,
}

impl Daemon {
    /// All credentials of the application, those without a version too.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, Failure> {
        let body = self.ask(self.request(Method::GET, "/v1/credentials")?, Bytes::new()).await?;
        serde_json::from_slice::<List>(&body).map(|list| list.credentials).map_err(|_| unexpected())
    }

    pub(super) async fn read(&self, name: &Name) -> Result<Document, Failure> {
        let body = self.ask(self.request(Method::GET, &format!("/v1/credentials/{name}"))?, Bytes::new()).await?;
        Document::parse(&body).filter(|document| document.name == *name).ok_or_else(unexpected)
    }

    /// Opens the stream of changes.
    pub(super) async fn events(&self, last: &str) -> Result<Incoming, Failure> {
        let mut request = self.request(Method::GET, "/v1/events")?.header(ACCEPT, "text/event-stream");
        if !last.is_empty() {
            request = request.header(LAST_EVENT, last);
        }
        let response = self.send(request, Bytes::new()).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let status = response.status();
        let body = within(REPLY_TIMEOUT, collect(response.into_body(), REPLY_LENGTH_MAX)).await?;
        Err(refusal(status, &body.unwrap_or_default()))
    }

    /// Says that nothing older is in use, with the value of this field as the key of the proof.
    pub(super) async fn confirm(&self, document: &Document, field: &FieldName) -> Result<(), Failure> {
        let Document { name, version, fields, .. } = document;
        let value = fields.get(field).ok_or_else(unexpected)?;
        let proof = hmac_sha256_hex(value, message(name, version, &self.instance).as_bytes());
        let body = json!({"credential": name, "version": version, "instance": self.instance, "field": field, "proof": proof}).to_string();
        let request = self.request(Method::POST, "/v1/confirmations")?.header(CONTENT_TYPE, "application/json");
        self.ask(request, Bytes::from(body)).await.map(|_| ())
    }

    fn request(&self, method: Method, path: &str) -> Result<http::request::Builder, Failure> {
        let host = match &self.door {
            Door::Socket(_) => "keywright".to_owned(),
            Door::Server { server, .. } => server.authority(),
        };
        let request = Request::builder().method(method).uri(path).header(HOST, host);
        let request = request.header(INSTANCE, self.instance.as_str()).header(APPLICATION, self.application.as_str());
        match &self.token_file {
            Some(path) => Ok(request.header(AUTHORIZATION, bearer(&token_of(path)?.0)?)),
            None => Ok(request),
        }
    }

    /// A whole answer that is no refusal.
    async fn ask(&self, request: http::request::Builder, body: Bytes) -> Result<Bytes, Failure> {
        let response = self.send(request, body).await?;
        let status = response.status();
        let body = within(REPLY_TIMEOUT, collect(response.into_body(), REPLY_LENGTH_MAX)).await?;
        let body = body.ok_or_else(|| no_answer("the answer broke off, or is too long"))?;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }

    async fn send(&self, request: http::request::Builder, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let request = request.body(Full::new(body)).map_err(|_| no_answer("the request can't be written"))?;
        let sent = match &self.door {
            Door::Socket(path) => {
                let opening = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await;
                let stream = opening.map_err(|_| Failure::no_daemon(path, "it doesn't accept connections"))?;
                let stream = stream.map_err(|error| Failure::no_daemon(path, &error.kind().to_string()))?;
                within(REPLY_TIMEOUT, exchange(stream, request)).await?
            }
            Door::Server { server, ca } => {
                let opening = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((server.host.as_str(), server.port))).await;
                let stream = opening.map_err(|_| server.unreachable("it doesn't accept connections"))?;
                let stream = stream.map_err(|error| server.unreachable(&error.kind().to_string()))?;
                match ca {
                    Some(ca) => {
                        let stream = encrypted(stream, server, ca).await?;
                        within(REPLY_TIMEOUT, exchange(stream, request)).await?
                    }
                    None => within(REPLY_TIMEOUT, exchange(stream, request)).await?,
                }
            }
        };
        sent.map_err(|_| no_answer("the connection broke before the answer"))
    }
}

/// What a proof is of.
fn message(credential: &Name, version: &VersionId, instance: &InstanceName) -> String {
    format!("keywright-confirm\n{credential}\n{version}\n{instance}")
}

async fn encrypted(stream: TcpStream, server: &Server, ca: &Path) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    let connector = TlsConnector::from(trusting(ca)?);
    let name = ServerName::try_from(server.host.clone()).map_err(|_| server.unreachable("its name can't stand in a certificate"))?;
    let shaken = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name, stream)).await;
    let shaken = shaken.map_err(|_| server.unreachable("it doesn't speak TLS"))?;
    shaken.map_err(|error| server.unreachable(untrusted(&error)))
}

/// In words of our own: the error can quote what the other side sent.
fn untrusted(error: &std::io::Error) -> &'static str {
    use rustls::CertificateError as Bad;
    let Some(rustls::Error::InvalidCertificate(bad)) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return "it doesn't speak TLS, or broke off";
    };
    match bad {
        Bad::UnknownIssuer | Bad::BadSignature => "its certificate isn't signed by whom --ca names",
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => "its certificate is of another name than the address has",
        Bad::Expired | Bad::ExpiredContext { .. } => "its certificate has expired",
        _ => "its certificate can't be trusted",
    }
}

/// Nobody but who shows a certificate of this authority. Read for each connection: authorities are renewed, too.
fn trusting(ca: &Path) -> Result<Arc<ClientConfig>, Failure> {
    let doing = format!("reading the authority in {}", ca.display());
    let pem = std::fs::read(ca).map_err(|error| Failure::io(&doing, &error))?;
    let bad =
        || Failure::failed("no-authority", "the file holds no authority", format!("{}: certificates in PEM are expected", ca.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|_| bad())?).map_err(|_| bad())?;
    }
    if roots.is_empty() {
        return Err(bad());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|_| bad())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn within<T>(limit: Duration, answering: impl Future<Output = T>) -> Result<T, Failure> {
    let late = |_| no_answer(&format!("no answer came within {} seconds", limit.as_secs()));
    tokio::time::timeout(limit, answering).await.map_err(late)
}

fn unexpected() -> Failure {
    no_answer("the answer isn't the document that was expected")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_exec_calls_addresses_with_tls_or_on_loopback() {
        let server = |text: &str| text.parse::<Server>();
        let known = server("https://keywright.example:8443").unwrap();
        assert_eq!((known.authority().as_str(), known.has_tls()), ("keywright.example:8443", true));
        assert_eq!(server("https://keywright.example/").unwrap().authority(), "keywright.example:443");
        assert_eq!(server("https://[::1]:1").unwrap().authority(), "[::1]:1");
        assert!(!server("http://127.0.0.1:8750").unwrap().has_tls());
        for bad in [
            "",
            "keywright",
            "keywright.example:8443",
            "http://keywright.example",
            "http://10.0.0.1",
            "http://localhost:1",
            "ftp://127.0.0.1",
            "https://user:hush@keywright.example",
            "https://keywright.example/v1",
            "https://keywright.example/?a=hush",
            "https://",
        ] {
            let error = server(bad).unwrap_err();
            assert!(!error.contains("hush"), "{bad}");
        }
    }

    #[test]
    fn cli_exec_trusts_what_the_file_says_and_refuses_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        assert_eq!(trusting(&path).unwrap_err().problem.slug(), "io");
        for bad in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(trusting(&path).unwrap_err().problem.slug(), "no-authority", "{bad}");
        }
    }
}
