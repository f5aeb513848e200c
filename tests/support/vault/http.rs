//! The fake's HTTP side. On hyper itself, because a lost reply must be lost on the wire.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::engine::Reply;
use super::{Call, Fault, Mode, State, Vault};

type Answer = Result<Response<Full<Bytes>>, std::io::Error>;

/// Connections end with this task.
pub(super) async fn serve(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, vault: Weak<Vault>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (vault, tls) = (vault.clone(), tls.clone());
        connections.spawn(async move {
            match tls {
                None => exchange(stream, vault).await,
                Some(config) => {
                    if let Ok(stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await {
                        exchange(stream, vault).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, vault: Weak<Vault>) {
    let service = hyper::service::service_fn(move |request| answer(vault.clone(), request));
    // An error is a connection that we cut, or that the other side did: both are part of the game.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(vault: Weak<Vault>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let Some(vault) = vault.upgrade() else { return Err(std::io::ErrorKind::ConnectionAborted.into()) };
    let path = head.uri.path().strip_prefix("/v1/").unwrap_or_default().to_owned();
    let query = head.uri.query().unwrap_or_default();
    let is_list = head.method == "LIST" || (head.method == "GET" && query.split('&').any(|pair| pair == "list=true"));
    let method = if is_list { "LIST".to_owned() } else { head.method.to_string() };
    let call = Call { method, path: path.trim_end_matches('/').to_owned() };
    let (fault, reply) = {
        let mut state = vault.lock();
        let fault = state.plan.as_mut().and_then(|plan| plan(&call));
        match fault {
            Some(Fault::Revokes) => state.logins.revoke_all(),
            Some(Fault::Expires) => state.logins.expire_all(),
            _ => {}
        }
        let reply = if fault == Some(Fault::Fails) {
            told(500, json!({"errors": ["internal error"]}))
        } else if fault == Some(Fault::IsUnready) {
            told(503, json!({"errors": ["node not active but active cluster node not found"]}))
        } else {
            let header = |name| head.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default();
            let asked =
                Asked { token: header("x-vault-token"), namespace: header("x-vault-namespace").trim_matches('/'), query, body: &body };
            state.answer(&call, &asked)
        };
        state.calls.push_back((call, reply.status().as_u16()));
        if state.calls.len() > 50_000 {
            state.calls.pop_front();
        }
        (fault, reply)
    };
    match fault {
        Some(Fault::LosesReply) => Err(std::io::ErrorKind::ConnectionAborted.into()),
        Some(Fault::Garbles) => Ok(Response::new(Full::new(Bytes::from_static(b"<html>a proxy's page</html>")))),
        Some(Fault::Waits(long)) => {
            tokio::time::sleep(long).await;
            Ok(reply)
        }
        Some(Fault::Restarts) => {
            vault.restart();
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        Some(Fault::Fails | Fault::IsUnready | Fault::Revokes | Fault::Expires) | None => Ok(reply),
    }
}

struct Asked<'a> {
    token: &'a str,
    namespace: &'a str,
    query: &'a str,
    body: &'a [u8],
}

impl State {
    fn answer(&mut self, call: &Call, asked: &Asked<'_>) -> Response<Full<Bytes>> {
        if let Some(instead) = self.instead(call) {
            return instead;
        }
        if self.is_one_too_many(call) {
            return too_many(Some(1));
        }
        let body: Value = serde_json::from_slice(asked.body).unwrap_or(Value::Null);
        if matches!(call.method.as_str(), "POST" | "PUT")
            && let Some(outcome) = self.logins.log_in(&call.path, &body)
        {
            return self.told_auth(outcome);
        }
        if !self.logins.takes(asked.token) {
            return told(403, json!({"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}));
        }
        if self.denied.as_ref().is_some_and(|denied| call.path.starts_with(denied)) {
            return told(403, json!({"errors": ["1 error occurred:\n\t* permission denied\n\n"]}));
        }
        match (call.method.as_str(), call.path.as_str()) {
            ("GET", "auth/token/lookup-self") => return self.told(self.logins.look_up(asked.token)),
            ("POST" | "PUT", "auth/token/renew-self") => {
                let outcome = self.logins.renew(asked.token);
                return self.told_auth(outcome);
            }
            ("POST" | "PUT", "auth/token/revoke-self") => {
                self.logins.revoke(asked.token);
                return self.told(Reply::done());
            }
            _ => {}
        }
        let found = self.engines.iter_mut().find_map(|((namespace, mount), engine)| {
            let rest = call.path.strip_prefix(mount.as_str())?.strip_prefix('/')?;
            (namespace == asked.namespace).then_some((engine, rest))
        });
        let reply = match found {
            Some((engine, rest)) => engine.answer(&call.method, rest, asked.query, &body),
            None => Reply::error(404, &["no handler for route"]),
        };
        self.told(reply)
    }

    fn instead(&self, call: &Call) -> Option<Response<Full<Bytes>>> {
        if call.path.starts_with("sys/") {
            return None;
        }
        match self.mode {
            Mode::Serves => None,
            Mode::Sealed => Some(told(503, json!({"errors": ["Vault is sealed"]}))),
            Mode::StandsBy(307) => {
                let mut reply = told(307, json!({"errors": []}));
                reply.headers_mut().insert("location", "http://127.0.0.1:1/v1/elsewhere".parse().expect("an address"));
                Some(reply)
            }
            Mode::StandsBy(status) => Some(told(status, json!({"errors": []}))),
            Mode::IsBehind => Some(told(412, json!({"errors": ["required index state not present"]}))),
            Mode::TooMany(seconds) => Some(too_many(seconds)),
        }
    }

    fn is_one_too_many(&mut self, call: &Call) -> bool {
        let Some(most) = self.writes_per_second.filter(|_| call.writes()) else { return false };
        while self.taken.front().is_some_and(|at| at.elapsed() >= Duration::from_secs(1)) {
            self.taken.pop_front();
        }
        let is_too_many = self.taken.len() >= most;
        if !is_too_many {
            self.taken.push_back(Instant::now());
        }
        is_too_many
    }

    fn told(&self, reply: Reply) -> Response<Full<Bytes>> {
        match (reply.status, reply.data) {
            (204, _) => told(204, Value::Null),
            (status, Some(mut data)) => {
                if self.is_old {
                    forget_custom(&mut data);
                }
                told(status, wrapped(data, Value::Null))
            }
            (status, None) => told(status, json!({"errors": reply.errors})),
        }
    }

    fn told_auth(&self, outcome: Result<Value, Reply>) -> Response<Full<Bytes>> {
        match outcome {
            Ok(auth) => told(200, wrapped(Value::Null, auth)),
            Err(reply) => self.told(reply),
        }
    }
}

fn too_many(seconds: Option<u64>) -> Response<Full<Bytes>> {
    let mut reply = told(429, json!({"errors": ["request path \"secret\": rate limit quota exceeded"]}));
    if let Some(seconds) = seconds {
        reply.headers_mut().insert("retry-after", seconds.into());
    }
    reply
}

fn wrapped(data: Value, auth: Value) -> Value {
    json!({
        "request_id": uuid::Uuid::new_v4().to_string(), "lease_id": "", "renewable": false, "lease_duration": 0,
        "data": data, "wrap_info": null, "warnings": null, "auth": auth, "mount_type": "kv",
    })
}

fn forget_custom(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.remove("custom_metadata");
        fields.iter_mut().filter(|(name, _)| *name != "data").for_each(|(_, inner)| forget_custom(inner));
    }
}

fn told(status: u16, body: Value) -> Response<Full<Bytes>> {
    let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let mut response = Response::new(Full::new(bytes));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    let headers = response.headers_mut();
    headers.insert("content-type", "application/json".parse().expect("a header"));
    headers.insert("cache-control", "no-store".parse().expect("a header"));
    response
}
