//! One request from its head to its answer: parse, refuse or authenticate, then the one handler that the route names.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, EXPECT};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::answers::Up;
use super::body::{self, Body};
use super::headers;
use super::identity::{Caller, Peer, authenticate};
use super::limits::{Counters, Limits};
use super::path::{self, Query, Route};
use super::problem::{Problem, REQUEST_ID, Slug};
use super::routes::{self, Endpoint, Taker, Who};
use super::service::{Rewraps, Service, Snapshots};
use super::wire::Unread;
use super::{credentials, incident, launch, openapi, operate};
use crate::delivery::stream::StreamHub;
use crate::domain::access::{Operator, Right};
use crate::engine::audit::Order;
use crate::identities::Reviews;

/// Renders all metrics; names of credentials only where the argument says so.
pub type Metrics = Arc<dyn Fn(bool) -> String + Send + Sync>;

/// What the API is wired to.
#[derive(Clone)]
pub struct App {
    pub service: Arc<dyn Service>,
    /// The same that the engine announces changes to.
    pub hub: Arc<StreamHub>,
    pub operators: Vec<Operator>,
    /// Who pods are, where there is a cluster that tells.
    pub reviews: Option<Arc<Reviews>>,
    pub metrics: Metrics,
    /// Copies of the store, where it is ours to copy.
    pub snapshots: Option<Arc<dyn Snapshots>>,
    /// A new key for the store, where it is ours to seal.
    pub rewraps: Option<Arc<dyn Rewraps>>,
    /// What `/readyz` says. Whoever starts the daemon sets it.
    pub ready: Arc<AtomicBool>,
    pub limits: Limits,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The same while it serves.
pub(super) struct Api {
    pub(super) service: Arc<dyn Service>,
    pub(super) hub: Arc<StreamHub>,
    pub(super) limits: Limits,
    pub(super) counters: Counters,
    pub(super) stop: CancellationToken,
    pub(super) operators: Vec<Operator>,
    pub(super) reviews: Option<Arc<Reviews>>,
    metrics: Metrics,
    pub(super) snapshots: Option<Arc<dyn Snapshots>>,
    pub(super) rewraps: Option<Arc<dyn Rewraps>>,
    ready: Arc<AtomicBool>,
}

pub(super) type Answered = Result<Response<Body>, Problem>;

impl Api {
    pub(super) fn new(app: App, stop: CancellationToken) -> Arc<Api> {
        let App { service, hub, operators, reviews, metrics, snapshots, rewraps, ready, limits } = app;
        let counters = Counters::new(&limits);
        Arc::new(Api { service, hub, counters, limits, stop, operators, reviews, metrics, snapshots, rewraps, ready })
    }
}

/// A request whose head was taken.
pub(super) struct Call<'a> {
    pub(super) api: &'a Arc<Api>,
    pub(super) endpoint: &'static Endpoint,
    pub(super) head: &'a Parts,
    pub(super) body: &'a mut Incoming,
}

impl Call<'_> {
    pub(super) fn query(&self) -> Result<Query<'_>, Problem> {
        Query::parse(&self.head.uri, self.endpoint.query)
    }

    /// What a person orders, and why, where the head says so.
    pub(super) fn order(&self, caller: &Caller) -> Result<Order, Problem> {
        Ok(Order { by: caller.actor()?, reason: headers::reason(&self.head.headers)? })
    }

    /// The body, as JSON says its header.
    pub(super) async fn json(&mut self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        if !self.body.is_end_stream() {
            headers::check_json(&self.head.headers)?;
        }
        body::read(self.body, self.api.limits.body_timeout).await
    }
}

/// Answers one request, always. Notes it where not all of it was read.
pub(super) async fn handle(api: Arc<Api>, peer: Peer, unread: &Unread, request: Request<Incoming>) -> Response<Body> {
    let request_id = Uuid::now_v7();
    let (head, mut body) = request.into_parts();
    let routed = headers::check(&head.headers).and_then(|()| path::route(&head.method, &head.uri));
    let name = routed.as_ref().map_or("refused", |(endpoint, _)| endpoint.name);
    let answered = match routed {
        Ok((endpoint, route)) => {
            let call = Call { api: &api, endpoint, head: &head, body: &mut body };
            let answering = AssertUnwindSafe(Box::pin(respond(call, peer, route)));
            // A bug in one request is that request's trouble alone.
            answering.catch_unwind().await.unwrap_or_else(|_| Err(Problem::bug()))
        }
        Err(problem) => Err(problem),
    };
    let mut answer = match answered {
        Ok(answer) => answer,
        Err(problem) => {
            if problem.is_bug() {
                tracing::error!(route = name, request_id = %request_id, "a request met a bug");
            }
            // Who waits to be asked for its body hasn't sent any.
            let is_awaited = problem.slug != Slug::Timeout && !head.headers.contains_key(EXPECT);
            if !(is_awaited && body::discard(&mut body).await) {
                unread.note();
            }
            problem.answer(request_id)
        }
    };
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(&request_id.to_string()) {
        answer.headers_mut().insert(REQUEST_ID, value);
    }
    tracing::debug!(route = name, status = answer.status().as_u16(), request_id = %request_id, "answered");
    answer
}

async fn respond(call: Call<'_>, peer: Peer, route: Route) -> Answered {
    call.query()?;
    match route {
        Route::Health => return json(StatusCode::OK, &Up { status: "ok" }),
        Route::Ready => return ready(call.api),
        Route::Metrics => return Ok(metrics(call.api, peer)),
        Route::OpenApi => return Ok(openapi::answer()),
        _ => {}
    }
    let bearer = headers::bearer(&call.head.headers)?;
    let caller = authenticate(call.api, peer, bearer).await?;
    let caller = if call.endpoint.headers.contains(&routes::APPLICATION) { as_named(&call, caller)? } else { caller };
    let _permit = call.api.counters.request(caller.key())?;
    match call.endpoint.who {
        Who::Operator(right) => caller.check_right(right)?,
        // Which of them it takes is told by the body; who has neither is refused before any of it is read.
        Who::Rotator => caller.check_right(Right::Rotate).or_else(|lacking| caller.check_right(Right::Revoke).map_err(|_| lacking))?,
        Who::Anybody | Who::Application | Who::Reader => {}
    }
    if call.endpoint.body.is_none() && !call.body.is_end_stream() {
        return Err(Problem::bad_request("this call takes no body"));
    }
    if call.endpoint.taken_by == Taker::Leader {
        call.api.service.takes_orders()?;
    }
    dispatch(call, caller, route).await
}

/// As the application that the head names, if it names one.
fn as_named(call: &Call<'_>, caller: Caller) -> Result<Caller, Problem> {
    match headers::application(&call.head.headers)? {
        Some(application) => caller.only_as(&application),
        None => Ok(caller),
    }
}

async fn dispatch(call: Call<'_>, caller: Caller, route: Route) -> Answered {
    match route {
        Route::Credential(name) => credentials::one(call, &caller, &name).await,
        Route::Credentials => credentials::list(&call, &caller).await,
        Route::Events => credentials::events(&call, caller),
        Route::Confirmations => credentials::confirm(call, &caller).await,
        Route::Reports => credentials::report(call, &caller).await,
        Route::Status => operate::status(&call),
        Route::StatusOf(name) => operate::status_of(&call, &name),
        Route::Plan => operate::plan(&call).await,
        Route::Backup => operate::backup(&call, &caller).await,
        Route::Rewrap => operate::rewrap(call, &caller).await,
        Route::RewrapStanding => operate::rewrap_standing(&call).await,
        Route::Submission(name) => operate::submit(call, &caller, name).await,
        Route::Rotations(name) => incident::rotate(call, &caller, name).await,
        Route::Rollback(name) => incident::roll_back(&call, &caller, name).await,
        Route::Version(name, version) => incident::revoke(&call, &caller, name, version).await,
        Route::Forget(name) => incident::forget(&call, &caller, name).await,
        Route::Pause(name) => incident::pause(&call, &caller, name).await,
        Route::Resume(name) => incident::resume(&call, &caller, name).await,
        Route::Versions(name) => operate::versions(&call, &name),
        Route::Instances(application) => operate::release(&call, &caller, application, None).await,
        Route::Instance(application, instance) => operate::release(&call, &caller, application, Some(instance)).await,
        Route::GoLive(application) => launch::show(&call, &application).await,
        Route::SignOff(application, item) => launch::confirm(call, &caller, application, item).await,
        Route::Withdrawal(application, item) => launch::withdraw(&call, &caller, application, item).await,
        Route::Health | Route::Ready | Route::Metrics | Route::OpenApi => Err(Problem::not_found()),
    }
}

fn ready(api: &Api) -> Answered {
    if api.ready.load(Ordering::Acquire) && !api.stop.is_cancelled() {
        return json(StatusCode::OK, &Up { status: "ready" });
    }
    Err(Problem::new(Slug::NotReady, "the daemon is starting or stopping"))
}

fn metrics(api: &Api, peer: Peer) -> Response<Body> {
    // Over TCP anybody may ask, and which providers somebody uses is nobody else's business.
    let with_names = matches!(peer, Peer::Socket { .. });
    let mut answer = Response::new(Body::full(Bytes::from((api.metrics)(with_names))));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answered {
    let bytes = serde_json::to_vec(value).map_err(|_| Problem::bug())?;
    let mut answer = Response::new(Body::full(Bytes::from(bytes)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

pub(super) fn empty(status: StatusCode) -> Answered {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    Ok(answer)
}
