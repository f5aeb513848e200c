//! What applications call: read, list, stream, confirm. Operators with the right to read may read, too.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderValue, Response, StatusCode};

use super::answers::Credentials;
use super::body::Body;
use super::document;
use super::handle::{Answered, Call, empty, json};
use super::headers;
use super::identity::Caller;
use super::input;
use super::problem::Problem;
use super::stream::{EventStream, Subject};
use crate::domain::ids::{InstanceName, Name, VersionId};
use crate::engine::Reader;

/// The instance that is calling. Its lease is renewed by any call that only an application makes.
fn instance(call: &Call<'_>, caller: &Caller) -> Result<InstanceName, Problem> {
    let instance = headers::instance(&call.head.headers)?;
    if let Some(application) = &caller.application {
        call.api.service.touch(&application.name, &instance);
    }
    Ok(instance)
}

pub(super) async fn one(call: Call<'_>, caller: &Caller, name: &Name) -> Answered {
    let service = &call.api.service;
    let instance = instance(&call, caller)?;
    let allowed = caller.reader_of(&service.policies(), &instance, std::slice::from_ref(name));
    // An application that isn't allowed is refused by the engine, which records that.
    let reader = allowed.or_else(|| caller.application_reader(&instance)).ok_or_else(Problem::forbidden)?;
    // Who says that it has this version is on record as holding it, like who gets it now: a name that an instance has never
    // used before must not hide it from the barrier (I5).
    let document = service.read(&reader, name).await?;
    if headers::none_match(&call.head.headers, &document.version) {
        return tagged(StatusCode::NOT_MODIFIED, Body::empty(), &document.version);
    }
    let mut answer = tagged(StatusCode::OK, Body::secret(document::render(&document)), &document.version)?;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

fn tagged(status: StatusCode, body: Body, version: &VersionId) -> Answered {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(ETAG, HeaderValue::from_str(&format!("\"{version}\"")).map_err(|_| Problem::bug())?);
    Ok(answer)
}

/// As the application if there is one, else as the operator: who may read as both sees what the application would.
fn reader(caller: &Caller, instance: &InstanceName) -> Result<Reader, Problem> {
    caller.application_reader(instance).or_else(|| caller.operator_reader()).ok_or_else(Problem::forbidden)
}

pub(super) fn list(call: &Call<'_>, caller: &Caller) -> Answered {
    let instance = instance(call, caller)?;
    let listed = call.api.service.list(&reader(caller, &instance)?);
    json(StatusCode::OK, &Credentials { credentials: listed })
}

pub(super) fn events(call: &Call<'_>, caller: Caller) -> Answered {
    let service = &call.api.service;
    let instance = instance(call, &caller)?;
    let names = call.query()?.credentials()?;
    let reader = match &names {
        Some(names) => caller.reader_of(&service.policies(), &instance, names).ok_or_else(Problem::forbidden)?,
        None => reader(&caller, &instance)?,
    };
    let permit = call.api.counters.stream(caller.key())?;
    // Subscribed before the first look, so that nothing can change unseen in between.
    let changes = call.api.hub.subscribe();
    let (subject, guard) = match (&reader, caller.application) {
        (Reader::Application { .. }, Some(application)) => {
            let guard = service.open_stream(&application.name, &instance);
            (Subject::Application(application), Some(guard))
        }
        _ => (Subject::Operator, None),
    };
    let only = names.map(|names| names.into_iter().collect::<BTreeSet<Name>>());
    let stream = EventStream { api: call.api.clone(), subject, reader, only, changes, _guard: guard, _permit: permit };
    let mut answer = Response::new(Body::events(stream.start(), call.api.limits.comment_every));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(answer)
}

pub(super) async fn confirm(mut call: Call<'_>, caller: &Caller) -> Answered {
    let application = caller.application.as_ref().ok_or_else(Problem::forbidden)?;
    let instance = instance(&call, caller)?;
    let body = call.json().await?;
    let confirmation = input::confirmation(&body, &application.name, instance)?;
    let service = Arc::clone(&call.api.service);
    // In a task of its own: it must not stop halfway because its sender hung up.
    let confirming = tokio::spawn(async move { service.confirm(&confirmation).await });
    confirming.await.map_err(|_| Problem::bug())??;
    empty(StatusCode::NO_CONTENT)
}
