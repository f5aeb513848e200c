//! A Kubernetes API server of our own, written from the API's public documentation: versions and conflicts, watches, pages, server-side
//! apply, tokens and their reviews, RBAC. No controller runs in it, no pod starts: tests play those (`edit`, `put`).
//!
//! What it doesn't do: defaults of fields, admission, garbage collection by owner, graceful deletion of pods, protobuf, subresources
//! other than `status` and `serviceaccounts/token`, JSON patches, dry runs, old versions in lists.

mod apply;
mod ask;
mod check;
mod fields;
mod http;
mod kinds;
mod managers;
mod patch;
mod rbac;
mod rollout;
mod select;
mod state;
mod status;
mod tokens;
mod verbs;
mod watch;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use state::State;

#[allow(unused_imports, reason = "not each suite that mounts this needs all of it")]
pub(crate) use rbac::{ADMIN, service_account};
#[allow(unused_imports, reason = "as above")]
pub(crate) use tokens::API_AUDIENCE;

/// What goes wrong with one request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This status in place of an effect, and `Retry-After` in seconds.
    Answers(u16, Option<u64>),
    /// The effect, and then the connection ends.
    LosesReplyAfterEffect,
    /// The connection ends, without an effect.
    RefusesBefore,
    /// Nothing happens until the gate opens; then the effect, also if nobody waits for the answer any more.
    Stalls(Gate),
    /// The effect and the answer come late.
    Delays(Duration),
}

/// Closed until it is opened, once and for all.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<tokio::sync::watch::Sender<bool>>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(tokio::sync::watch::Sender::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn passed(&self) {
        // The sender lives as long as we do.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// One request, as faults and tests see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// As in rules of RBAC: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub(crate) verb: String,
    pub(crate) group: String,
    /// `configmaps`, `deployments/status`, `serviceaccounts/token`.
    pub(crate) resource: String,
    pub(crate) namespace: String,
    /// Empty for all of a kind, and for a `create`.
    pub(crate) name: String,
    pub(crate) user: String,
}

impl Call {
    pub(crate) fn is(&self, verb: &str, resource: &str) -> bool {
        self.verb == verb && self.resource == resource
    }

    pub(crate) fn writes(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// The server. It ends when it is dropped.
pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    tls: Option<(Arc<rustls::ServerConfig>, String)>,
    state: Mutex<State>,
    serving: Mutex<Option<JoinHandle<()>>>,
    /// Grows with each change and each bookmark: watches wait for it.
    changed: tokio::sync::watch::Sender<u64>,
    /// While it hangs, requests are taken and not answered.
    hangs: tokio::sync::watch::Sender<bool>,
}

impl ApiServer {
    /// With the namespaces `default` and `kube-system`, on loopback, without TLS.
    pub(crate) async fn start() -> Arc<Self> {
        Self::launch(None)
    }

    /// Behind TLS, as `localhost`; `root` is the PEM that who trusts it has.
    pub(crate) async fn start_with_tls(config: Arc<rustls::ServerConfig>, root: String) -> Arc<Self> {
        Self::launch(Some((config, root)))
    }

    fn launch(tls: Option<(Arc<rustls::ServerConfig>, String)>) -> Arc<Self> {
        let (address, listener) = free_listener();
        let server = Arc::new(Self {
            address,
            tls,
            state: Mutex::new(State::default()),
            serving: Mutex::default(),
            changed: tokio::sync::watch::Sender::new(0),
            hangs: tokio::sync::watch::Sender::new(false),
        });
        server.namespace("default");
        server.namespace("kube-system");
        server.serve(listener);
        server
    }

    fn serve(self: &Arc<Self>, listener: TcpListener) {
        let tls = self.tls.as_ref().map(|(config, _)| config.clone());
        let task = tokio::spawn(http::serve(listener, tls, Arc::downgrade(self)));
        *self.serving.lock().expect("no test died in here") = Some(task);
    }

    /// Connections end, and new ones are refused. What is kept stays.
    pub(crate) fn stop(&self) {
        if let Some(task) = self.serving.lock().expect("no test died in here").take() {
            task.abort();
        }
    }

    /// On the port of before.
    pub(crate) async fn resume(self: &Arc<Self>) {
        for _ in 0..100 {
            match TcpListener::bind(self.address).await {
                Ok(listener) => return self.serve(listener),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        panic!("the port is taken");
    }

    /// From now on requests are taken and not answered, or are answered again.
    pub(crate) fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    pub(crate) fn url(&self) -> String {
        let (scheme, host) = if self.tls.is_some() { ("https", "localhost") } else { ("http", "127.0.0.1") };
        format!("{scheme}://{host}:{}", self.address.port())
    }

    /// Writes a kubeconfig for the bearer of this token ([`ADMIN`], or one of [`ApiServer::token`]), whose own namespace is this one.
    pub(crate) fn kubeconfig(&self, folder: &Path, namespace: &str, token: &str) -> PathBuf {
        let mut cluster = json!({"server": self.url()});
        if let Some((_, root)) = &self.tls {
            let root = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, root);
            cluster["certificate-authority-data"] = json!(root);
        }
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}], "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        });
        let file = folder.join(format!("kubeconfig-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, text.to_string()).expect("a folder of the test's own");
        file
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test died in here")
    }

    fn change<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let (result, version) = {
            let mut state = self.lock();
            let result = work(&mut state);
            (result, state.version)
        };
        self.changed.send_if_modified(|seen| std::mem::replace(seen, version) != version);
        result
    }

    /// What goes wrong from now on.
    pub(crate) fn plan(&self, plan: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        self.lock().plan = Some(Box::new(plan));
    }

    pub(crate) fn nothing_goes_wrong(&self) {
        self.lock().plan = None;
    }

    /// All requests so far with the status of their answers, the newest last.
    pub(crate) fn calls(&self) -> Vec<(Call, u16)> {
        self.lock().calls.iter().cloned().collect()
    }

    pub(crate) fn forget_calls(&self) {
        self.lock().calls.clear();
    }

    /// A namespace with what a cluster puts into each: a service account `default`, and the cluster's certificates.
    pub(crate) fn namespace(&self, name: &str) {
        self.change(|state| state.add_namespace(name));
    }

    pub(crate) fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.lock().find(resource, namespace, name).cloned()
    }

    /// All objects of a kind in a namespace, by name.
    pub(crate) fn objects(&self, resource: &str, namespace: &str) -> Vec<Value> {
        self.lock().all_of(resource, namespace)
    }

    /// Somebody else creates an object or replaces it, whatever stood there. Its status is taken too. `namespace` is empty for kinds without.
    pub(crate) fn put(&self, resource: &str, namespace: &str, object: Value) -> Value {
        self.change(|state| state.put_by_hand(resource, namespace, object))
    }

    /// Somebody else changes an object; false if there is none.
    pub(crate) fn edit(&self, resource: &str, namespace: &str, name: &str, edit: impl FnOnce(&mut Value)) -> bool {
        self.change(|state| {
            let Some(mut object) = state.find(resource, namespace, name).cloned() else { return false };
            edit(&mut object);
            state.put_by_hand(resource, namespace, object);
            true
        })
    }

    /// An object stands under a version that an older state of it had, as in a cluster that came back from a backup; false if there is none.
    pub(crate) fn give_version(&self, resource: &str, namespace: &str, name: &str, version: Value) -> bool {
        self.lock().give_version(resource, namespace, name, version)
    }

    /// Somebody else deletes an object; false if there is none.
    pub(crate) fn delete(&self, resource: &str, namespace: &str, name: &str) -> bool {
        self.change(|state| state.remove_by_hand(resource, namespace, name))
    }

    /// The history up to here is forgotten: older watches and pages are told 410.
    pub(crate) fn compact(&self) {
        self.lock().compact();
    }

    /// Watches that take bookmarks get one now.
    pub(crate) fn bookmark(&self) {
        self.lock().bookmarks += 1;
        self.changed.send_modify(|_| {});
    }

    /// All watches end, as they do whenever a real server likes.
    pub(crate) fn end_watches(&self) {
        self.lock().watch_epoch += 1;
        self.changed.send_modify(|_| {});
    }

    /// The resource version of the newest change.
    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }
}

impl Drop for ApiServer {
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

/// What a daemon that shares its journal may do in its namespace: as `deploy/` grants it, and nothing else.
pub(crate) fn rights_of_a_replica() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/overlays/replicas/journal.yaml");
    let text = std::fs::read_to_string(file).expect("the manifest is there");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("it is YAML");
    objects.into_iter().find(|object| object["kind"] == "Role").expect("it has a role")["rules"].clone()
}
