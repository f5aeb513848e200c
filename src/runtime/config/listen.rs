//! Where callers are heard, and how many streams they may have: `listen`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Config, path};
use crate::policies::problem::Sink;
use crate::policies::reader::{Fields, text, whole_number};
use crate::policies::tree::Node;
use crate::runtime::tls::TlsFiles;

/// The longest path of a Unix socket that Linux takes, in bytes, its closing zero not counted.
const SOCKET_PATH_MAX: usize = 107;

/// Each is an open file, of which the daemon asks the system for 65,536.
const STREAMS_MAX: u32 = 60_000;

/// Where callers are heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub socket: PathBuf,
    /// A loopback address, unless there is TLS.
    pub address: SocketAddr,
    /// What the address is served with; `None` for plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How many event streams may be open; `None` where the file doesn't say.
    pub streams: Option<usize>,
    /// How many of one identity: of all running copies of an application together.
    pub streams_per_identity: Option<usize>,
}

pub(super) fn read_listen(node: &Node, folder: &Path, sink: &Sink<'_>, config: &mut Config) {
    let Some(fields) = Fields::of(node, sink) else { return };
    if let Some(node) = fields.get("socket")
        && let Some(socket) = path(node, folder, sink)
    {
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            let message = format!("the path of a socket has {SOCKET_PATH_MAX} bytes at most, with the folder of this file before it");
            sink.report(node.place, "bad-path", message, "choose a shorter one, for example below /run");
        }
        config.listen.socket = socket;
    }
    let has_tls = fields.has("tls");
    if let Some(node) = fields.get("tls") {
        config.listen.tls = read_tls(node, folder, sink);
    }
    if let Some(node) = fields.get("address") {
        match text(node, sink).map(str::parse::<SocketAddr>) {
            Some(Ok(address)) if address.ip().is_loopback() || has_tls => config.listen.address = address,
            Some(Ok(_)) => {
                let help = "add `tls: {certificate: FILE, key: FILE}` here, or use 127.0.0.1: plain HTTP is for loopback addresses only";
                sink.report(node.place, "tls-required", "other addresses than loopback need TLS", help);
            }
            Some(Err(_)) => sink.report(node.place, "bad-address", "this is no address with a port", "for example `127.0.0.1:8750`"),
            None => {}
        }
    }
    let bound =
        |name| fields.get(name).and_then(|node| whole_number(node, sink, 1..=STREAMS_MAX)).and_then(|bound| usize::try_from(bound).ok());
    config.listen.streams = bound("streams");
    config.listen.streams_per_identity = bound("streamsPerIdentity");
    fields.done();
}

fn read_tls(node: &Node, folder: &Path, sink: &Sink<'_>) -> Option<TlsFiles> {
    let fields = Fields::of(node, sink)?;
    let file = |name, example| fields.need(name, example).and_then(|node| path(node, folder, sink));
    let certificate = file("certificate", "a PEM file with the whole chain, for example `./tls/certificate.pem`");
    let key = file("key", "a PEM file of the daemon's user alone, for example `./tls/key.pem`");
    fields.done();
    Some(TlsFiles { certificate: certificate?, key: key? })
}
