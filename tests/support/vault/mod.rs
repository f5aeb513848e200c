//! A Vault of our own, from its public documentation: KV version 2, tokens with leases, logins by AppRole and Kubernetes, namespaces.
//! It can be sealed, stand by, be asked too often, lose replies, and be stopped and started again.

mod engine;
mod http;
mod logins;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use engine::Engine;
use logins::Logins;

pub(crate) use logins::ROOT;

/// How the whole server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Serves,
    /// 503, as every path of a sealed Vault answers.
    Sealed,
    /// What a standby answers that can't forward: 472, 473, or 307 to another address.
    StandsBy(u16),
    /// 429, with or without the header that says for how long.
    TooMany(Option<u64>),
    /// 412: behind the one that took the last write.
    IsBehind,
}

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 500 without an effect.
    Fails,
    /// The effect, and then the connection ends.
    LosesReply,
    /// The effect, an answer that is no JSON.
    Garbles,
    /// The answer comes late.
    Waits(Duration),
    /// 503 without an effect, as one that isn't ready says.
    IsUnready,
    /// An administrator revokes all tokens just before.
    Revokes,
    /// The tokens' leases end just before.
    Expires,
    /// The server ends behind the effect, with all its connections, and is back a moment later.
    Restarts,
}

/// One request, as faults and tests see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// Without `/v1/`.
    pub(crate) path: String,
}

impl Call {
    pub(crate) fn writes(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "LIST" | "HEAD") && !self.path.starts_with("auth/")
    }
}

type Plan = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

pub(crate) struct State {
    pub(crate) mode: Mode,
    /// By namespace and mount.
    engines: BTreeMap<(String, String), Engine>,
    pub(crate) logins: Logins,
    plan: Option<Plan>,
    pub(crate) calls: VecDeque<(Call, u16)>,
    /// No custom metadata: as before version 1.9.
    pub(crate) is_old: bool,
    /// More writes than that within a second are answered 429, with `Retry-After`.
    pub(crate) writes_per_second: Option<usize>,
    /// Below this path nobody may do anything.
    pub(crate) denied: Option<String>,
    /// When the last of them were.
    taken: VecDeque<Instant>,
}

pub(crate) struct Vault {
    pub(crate) address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: Mutex<State>,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Vault {
    /// With an empty engine at `secret`, on loopback.
    pub(crate) async fn start() -> Arc<Self> {
        Self::launch(None)
    }

    /// The same for one who can't wait. Within a runtime.
    pub(crate) fn start_at_once() -> Arc<Self> {
        Self::launch(None)
    }

    /// The same behind TLS.
    pub(crate) async fn start_with_tls(config: Arc<rustls::ServerConfig>) -> Arc<Self> {
        Self::launch(Some(config))
    }

    fn launch(tls: Option<Arc<rustls::ServerConfig>>) -> Arc<Self> {
        let mut engines = BTreeMap::new();
        engines.insert((String::new(), "secret".to_owned()), Engine::default());
        let state = State {
            mode: Mode::Serves,
            engines,
            logins: Logins::default(),
            plan: None,
            calls: VecDeque::new(),
            is_old: false,
            writes_per_second: None,
            denied: None,
            taken: VecDeque::new(),
        };
        let (address, listener) = free_listener();
        let vault = Arc::new(Self { address, tls, state: Mutex::new(state), serving: Mutex::default() });
        vault.serve(listener);
        vault
    }

    fn serve(self: &Arc<Self>, listener: TcpListener) {
        let task = tokio::spawn(http::serve(listener, self.tls.clone(), Arc::downgrade(self)));
        *self.serving.lock().expect("no test died in here") = Some(task);
    }

    /// Every connection ends; what was written stays.
    pub(crate) fn stop(&self) {
        if let Some(task) = self.serving.lock().expect("no test died in here").take() {
            task.abort();
        }
    }

    pub(crate) async fn start_again(self: &Arc<Self>) {
        for _ in 0..100 {
            match TcpListener::bind(self.address).await {
                Ok(listener) => return self.serve(listener),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        panic!("the port is taken");
    }

    /// Ends, and is back in a moment.
    fn restart(self: Arc<Self>) {
        self.stop();
        // Not on the task of a connection, which ends with the server.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.start_again().await;
        });
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let host = if self.tls.is_some() { "localhost" } else { "127.0.0.1" };
        format!("{scheme}://{host}:{}", self.address.port())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test died in here")
    }

    /// What goes wrong from now on.
    pub(crate) fn plan(&self, plan: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        self.lock().plan = Some(Box::new(plan));
    }

    pub(crate) fn nothing_goes_wrong(&self) {
        self.lock().plan = None;
    }

    /// An empty engine of version 2.
    pub(crate) fn mount(&self, namespace: &str, mount: &str) {
        self.lock().engines.insert((namespace.to_owned(), mount.to_owned()), Engine::default());
    }

    /// What a plain read of the path gives, in the engine at `secret`.
    pub(crate) fn native(&self, path: &str) -> Option<Value> {
        self.with_engine(|engine| engine.latest(path).cloned())
    }

    /// All that a plain read of the path could ever give.
    pub(crate) fn ever_at(&self, path: &str) -> Vec<Value> {
        self.with_engine(|engine| engine.ever_at(path))
    }

    /// The paths that hold bytes, whatever version of them.
    pub(crate) fn paths_with_bytes(&self) -> Vec<String> {
        self.with_engine(|engine| engine.paths_with_bytes())
    }

    /// How many versions at this path still have their bytes.
    pub(crate) fn kept_versions(&self, path: &str) -> usize {
        self.with_engine(|engine| engine.kept_versions(path))
    }

    /// Somebody else writes, without a compare.
    pub(crate) fn put_by_hand(&self, path: &str, data: Value) {
        self.with_engine(|engine| engine.put(path, data));
    }

    /// A write with a compare, as one arrives that was long under way. Whether it was taken.
    pub(crate) fn put_if(&self, path: &str, data: Value, cas: u64) -> bool {
        let body = serde_json::json!({"data": data, "options": {"cas": cas}});
        self.with_engine(|engine| engine.answer("POST", &format!("data/{path}"), "", &body).status == 200)
    }

    /// Somebody else removes the newest version, as `vault kv delete` does.
    pub(crate) fn delete_by_hand(&self, path: &str) {
        self.with_engine(|engine| engine.delete(path, &[]));
    }

    /// Somebody else removes a path with all its numbers, as `vault kv metadata delete` does.
    pub(crate) fn wipe_by_hand(&self, path: &str) {
        self.with_engine(|engine| drop(engine.answer("DELETE", &format!("metadata/{path}"), "", &Value::Null)));
    }

    /// How many versions of a path are kept from now on.
    pub(crate) fn keep_versions(&self, count: usize) {
        self.with_engine(|engine| engine.max_versions = count);
    }

    fn with_engine<R>(&self, work: impl FnOnce(&mut Engine) -> R) -> R {
        let mut state = self.lock();
        work(state.engines.get_mut(&(String::new(), "secret".to_owned())).expect("the engine at `secret`"))
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Below the ports that the kernel hands to outgoing calls: one of those could take it while the server is down.
fn free_listener() -> (SocketAddr, TcpListener) {
    for _ in 0..1000 {
        let port = 12_000 + (uuid::Uuid::new_v4().as_u128() % 18_000) as u16;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
        listener.set_nonblocking(true).expect("a socket of ours");
        return (address, TcpListener::from_std(listener).expect("there is a runtime"));
    }
    panic!("no free port on loopback");
}
