//! The fake's HTTP side. On hyper itself, because a lost reply must be lost on the wire.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::ask::{Ask, Target};
use super::rbac::User;
use super::status::{Reply, not_acceptable, of_fault, unauthorized};
use super::watch::Watch;
use super::{ApiServer, Call, Fault};

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// How many requests are remembered.
const CALLS_MAX: usize = 200_000;

/// Connections end with this task.
pub(super) async fn serve(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, server: Weak<ApiServer>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (server, tls) = (server.clone(), tls.clone());
        connections.spawn(async move {
            match tls {
                None => exchange(stream, server).await,
                Some(config) => {
                    if let Ok(stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await {
                        exchange(stream, server).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, server: Weak<ApiServer>) {
    let service = hyper::service::service_fn(move |request| answer(server.clone(), request));
    // An error is a connection that we cut, or that the other side did: both are part of the game.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// In what form an answer is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    Metadata,
    /// The same of a list: the API doesn't take one for the other.
    MetadataList,
}

impl Form {
    /// The first of the wanted forms that there is. `v` is a version's name (`v1`), as the documentation of the API has it for tables and
    /// metadata.
    fn wanted(accept: &str) -> Option<Form> {
        if accept.trim().is_empty() {
            return Some(Form::Whole);
        }
        accept.split(',').find_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
                return None;
            }
            let parameters: HashMap<&str, &str> = parts.filter_map(|part| part.split_once('=')).collect();
            match (parameters.get("as").copied(), parameters.get("g").copied(), parameters.get("v").copied()) {
                (None, None, None) => Some(Form::Whole),
                (Some("PartialObjectMetadata"), Some("meta.k8s.io"), Some("v1")) => Some(Form::Metadata),
                (Some("PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => Some(Form::MetadataList),
                _ => None,
            }
        })
    }
}

async fn answer(server: Weak<ApiServer>, request: Request<Incoming>) -> io::Result<Answer> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes().to_vec();
    let token = head.headers.get("authorization").and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    let token = token.unwrap_or_default().trim().to_owned();
    let accept = head.headers.get("accept").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = Form::wanted(accept);
    let strong = upgrade(&server)?;
    let mut hangs = strong.hangs.subscribe();
    let user = strong.lock().caller(&token);
    drop(strong);
    // The server lives as long as its connections.
    let _ = hangs.wait_for(|hangs| !hangs).await;
    let Some(user) = user else { return Ok(told(unauthorized())) };
    let Some(form) = form else { return Ok(told(not_acceptable())) };
    let ask = match Ask::parse(&head, body) {
        Ok(ask) => ask,
        Err(reply) => return Ok(told(reply)),
    };
    let call = ask.call(&user.name);
    let fault = upgrade(&server)?.lock().plan.as_mut().and_then(|plan| plan(&call));
    match &fault {
        Some(Fault::Answers(code, retry_after)) => {
            let reply = of_fault(*code, *retry_after);
            note(&server, call, reply.code);
            return Ok(told(reply));
        }
        Some(Fault::RefusesBefore) => {
            note(&server, call, 0);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        _ => {}
    }
    let is_lost = matches!(fault, Some(Fault::LosesReplyAfterEffect));
    // On a task of its own: what is under way takes place, also if nobody waits for it any more.
    let done = tokio::spawn(async move {
        match fault {
            Some(Fault::Stalls(gate)) => gate.passed().await,
            Some(Fault::Delays(long)) => tokio::time::sleep(long).await,
            _ => {}
        }
        perform(&server, call, ask, &user, form)
    });
    let answer = done.await.map_err(io::Error::other)?;
    if is_lost { Err(io::ErrorKind::ConnectionAborted.into()) } else { answer }
}

fn upgrade(server: &Weak<ApiServer>) -> io::Result<Arc<ApiServer>> {
    server.upgrade().ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
}

fn note(server: &Weak<ApiServer>, call: Call, code: u16) {
    let Some(server) = server.upgrade() else { return };
    let mut state = server.lock();
    state.calls.push_back((call, code));
    if state.calls.len() > CALLS_MAX {
        state.calls.pop_front();
    }
}

fn perform(server: &Weak<ApiServer>, call: Call, ask: Ask, user: &User, form: Form) -> io::Result<Answer> {
    let strong = upgrade(server)?;
    let allowed = strong.lock().authorize(user, &call, &ask);
    let (code, answer) = match (allowed, &ask.target) {
        (Err(reply), _) => (reply.code, told(reply)),
        (Ok(()), Target::Kind(kind)) if ask.verb == "watch" => {
            let begun = Watch::begin(&strong.lock(), kind, &ask);
            match begun {
                Ok(watch) => (200, watching(watch, server.clone())),
                Err(reply) => (reply.code, told(reply)),
            }
        }
        (Ok(()), _) => {
            let mut reply = strong.change(|state| state.perform(&ask, user)).unwrap_or_else(|reply| reply);
            // One object, or a list; errors are told in full.
            let (is_object, is_list) = (reply.body["metadata"]["uid"].is_string(), reply.body["items"].is_array());
            match form {
                Form::Metadata if is_object => reply.body = metadata_of(reply.body),
                Form::MetadataList if is_list => {
                    let items: Vec<Value> =
                        reply.body["items"].as_array_mut().into_iter().flatten().map(|item| metadata_of(item.take())).collect();
                    let metadata = reply.body["metadata"].take();
                    reply.body =
                        json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items});
                }
                Form::Metadata if is_list => reply = not_acceptable(),
                Form::MetadataList if is_object => reply = not_acceptable(),
                _ => {}
            }
            (reply.code, told(reply))
        }
    };
    note(server, call, code);
    Ok(answer)
}

fn metadata_of(mut object: Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"].take()})
}

fn watching(watch: Watch, server: Weak<ApiServer>) -> Answer {
    let (lines, received) = mpsc::channel(64);
    tokio::spawn(watch.run(server, lines));
    let frames = ReceiverStream::new(received).map(|line| Ok(Frame::data(line)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

fn told(reply: Reply) -> Answer {
    // What isn't an object is plain text: of flow control, or of a proxy.
    let (kind, text) = match reply.body.as_str() {
        Some(text) => ("text/plain; charset=utf-8", format!("{text}\n")),
        None => ("application/json", reply.body.to_string()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(reply.code).expect("a status");
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
    if let Some(seconds) = reply.retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}
