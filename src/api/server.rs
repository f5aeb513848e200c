//! The server: one accept loop per listener, a bounded number of connections, and an end within a deadline.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::handle::{Api, App, handle};
use super::identity::Peer;
use super::limits::Limits;
use super::problem::Problem;
use super::wire::{Unread, Wire};

/// The longest head of a request, in bytes.
pub(super) const HEAD_MAX: usize = 16 * 1024;

/// Connections that wait to be accepted. Where a replica ends, its readers come to the others at once; who finds no place here asks
/// again after a second, then two, then four. The kernel takes `net.core.somaxconn` where that is less.
const BACKLOG: u32 = 4_096;

/// Connections beyond the bound that are being told so at once, and how long that may take each. More wait in the
/// kernel's queue.
const REFUSALS: usize = 256;
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// The wait after a failed accept: out of file descriptors, most likely, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where the API listens.
#[derive(Debug)]
pub enum Listener {
    Socket(UnixListener),
    /// Plain HTTP: for loopback addresses.
    Address(TcpListener),
    Tls(TcpListener, Arc<ServerConfig>),
}

/// Why the API can't listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    #[error("another daemon answers there: stop it, or give this one a place of its own under `listen`")]
    InUse,
    #[error("something stands there that is no socket, and is left alone")]
    NotASocket,
    #[error("plain HTTP is for loopback addresses only: add `tls` to `listen`")]
    NotLoopback,
    #[error("can't listen there: {0}")]
    Io(std::io::ErrorKind),
}

impl From<std::io::Error> for BindError {
    fn from(error: std::io::Error) -> BindError {
        match error.kind() {
            std::io::ErrorKind::AddrInUse => BindError::InUse,
            kind => BindError::Io(kind),
        }
    }
}

/// Listens on a Unix socket. A socket that nobody answers on was left by a killed daemon, and is replaced.
///
/// The file is open to all (0666): who calls is told by its uid, and applications run under uids of their own. Who may
/// come near at all is the folder's to say; the data folder lets nobody but the daemon's own uid in.
///
/// # Errors
/// [`BindError`].
pub fn bind_socket(path: &Path) -> Result<UnixListener, BindError> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(BindError::NotASocket);
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Ok(_) => return Err(BindError::InUse),
            Err(error) => return Err(error.into()),
        }
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Listens on an address: with TLS on any, with plain HTTP on loopback only.
///
/// # Errors
/// [`BindError`].
pub async fn bind_address(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Result<Listener, BindError> {
    if tls.is_none() && !address.ip().is_loopback() {
        return Err(BindError::NotLoopback);
    }
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // So that a daemon that starts again gets the address whose connections are still being closed.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    Ok(match tls {
        None => Listener::Address(listener),
        Some(config) => Listener::Tls(listener, config),
    })
}

impl Listener {
    /// The address that it got, if it has one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Socket(_) => None,
            Listener::Address(tcp) | Listener::Tls(tcp, _) => tcp.local_addr().ok(),
        }
    }
}

/// Serves until stopped. Then nothing new is accepted, streams end with `bye`, requests under way are answered, and what
/// is left after `limits.drain` is cut off.
pub async fn serve(listeners: Vec<Listener>, app: App, stop: CancellationToken) {
    let api = Api::new(app, stop);
    let loops = listeners.into_iter().map(|listener| accept_all(listener, api.clone()));
    futures_util::future::join_all(loops).await;
}

async fn accept_all(listener: Listener, api: Arc<Api>) {
    let connections = Arc::new(Semaphore::new(api.limits.connections));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = api.stop.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            accepted = accept(&listener, &api.limits) => accepted,
        };
        let Ok(accepted) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if let Ok(permit) = connections.clone().try_acquire_owned() {
            let api = api.clone();
            tasks.spawn(async move {
                let _permit = permit;
                serve_one(accepted, api).await;
            });
            continue;
        }
        let refusal = tokio::select! {
            () = api.stop.cancelled() => break,
            refusal = refusals.clone().acquire_owned() => refusal,
        };
        tasks.spawn(async move {
            let _refusal = refusal;
            let _ = timeout(REFUSAL_TIME, refuse(accepted)).await;
        });
    }
    // Closed now, so that clients go elsewhere while the rest ends.
    drop(listener);
    let rest = async { while tasks.join_next().await.is_some() {} };
    if timeout(api.limits.drain, rest).await.is_err() {
        tasks.shutdown().await;
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// A connection before its first byte.
struct Accepted {
    io: Box<dyn Io>,
    peer: Peer,
    tls: Option<TlsAcceptor>,
}

async fn accept(listener: &Listener, limits: &Limits) -> std::io::Result<Accepted> {
    match listener {
        Listener::Socket(socket) => {
            let (stream, _) = socket.accept().await?;
            let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
            Ok(Accepted { io: Box::new(stream), peer: Peer::Socket { uid }, tls: None })
        }
        Listener::Address(address) => {
            let io = Box::new(accept_tcp(address, limits).await?);
            Ok(Accepted { io, peer: Peer::Address, tls: None })
        }
        Listener::Tls(address, config) => {
            // The bound on writes that stand still holds beneath TLS, where writes reach the peer; above it they reach a buffer.
            let io = Box::new(Wire::new(accept_tcp(address, limits).await?, limits.write_timeout));
            Ok(Accepted { io, peer: Peer::Address, tls: Some(config.clone().into()) })
        }
    }
}

async fn accept_tcp(listener: &TcpListener, limits: &Limits) -> std::io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    // Events are small and must not wait for each other. A socket that refuses this works all the same.
    let _ = stream.set_nodelay(true);
    // A peer that lost its power must not look like an open stream, and hold its lease, for the kernel's 15 minutes.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, millis(limits.write_timeout));
    Ok(stream)
}

/// The connection as HTTP sees it: after the handshake, where there is one. It isn't bounded in time here.
async fn secured(accepted: Accepted) -> std::io::Result<Box<dyn Io>> {
    let Some(acceptor) = accepted.tls else { return Ok(accepted.io) };
    let bound = |session: &mut ServerConnection| session.set_buffer_limit(Some(2 * HEAD_MAX));
    Ok(Box::new(acceptor.accept_with(accepted.io, bound).await?))
}

/// `None`: the handshake failed, took too long, or was under way at the end.
async fn secured_in_time(accepted: Accepted, api: &Api) -> Option<Box<dyn Io>> {
    let Accepted { tls: Some(_), .. } = accepted else { return Some(accepted.io) };
    let io = tokio::select! {
        () = api.stop.cancelled() => return None,
        io = timeout(api.limits.handshake_timeout, secured(accepted)) => io,
    };
    // Why is the client's to know: the text may quote what came in.
    io.ok().and_then(Result::ok).or_else(|| {
        tracing::debug!("a TLS handshake failed, or took too long");
        None
    })
}

async fn serve_one(accepted: Accepted, api: Arc<Api>) {
    let (limits, peer) = (api.limits, accepted.peer);
    let stop = api.stop.clone();
    let Some(io) = secured_in_time(accepted, &api).await else { return };
    let unread = Unread::default();
    let io = TokioIo::new(Wire::new(io, limits.write_timeout).with_unread(unread.clone()));
    let service = service_fn(move |request| {
        let (api, unread) = (api.clone(), unread.clone());
        async move { Ok::<_, Infallible>(handle(api, peer, &unread, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_header_size(HEAD_MAX).max_buf_size(2 * HEAD_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    tokio::select! {
        // How a connection ends is its peer's business: nothing to do, and its text may quote what came in.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Tells a connection that there are too many, without reading what it asks for.
async fn refuse(accepted: Accepted) -> std::io::Result<()> {
    let mut io = secured(accepted).await?;
    io.write_all(&Problem::too_many().wire(Uuid::now_v7())).await?;
    io.shutdown().await?;
    // Until the peer closes: closing first, with bytes unread, would take the answer away from it.
    let mut space = [0; 4096];
    while io.read(&mut space).await? > 0 {}
    Ok(())
}
