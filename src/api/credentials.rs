//! What applications call: read, list, stream, confirm, report. Operators with the right to read may read, too.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderValue, Response, StatusCode};

use super::answers::Credentials;
use super::body::Body;
use super::document;
use super::handle::{Answered, Call, empty, json};
use super::headers;
use super::identity::{Asked, Caller};
use super::input;
use super::problem::Problem;
use super::stream::{EventStream, Subject};
use crate::domain::access::needs_reason;
use crate::domain::credential::Credential;
use crate::domain::ids::{InstanceName, Name, VersionId};
use crate::domain::policy::Policies;
use crate::domain::reason::Reason;
use crate::engine::Reader;

/// The instance that is calling. Its lease is renewed by any call that only an application makes.
fn instance(call: &Call<'_>, caller: &Caller) -> Result<InstanceName, Problem> {
    let headers = &call.head.headers;
    let named = headers::instance(headers)?;
    let instance = caller.instance(named, headers::names_instance(headers))?;
    if let Some(application) = &caller.application {
        call.api.service.touch(&application.name, &instance);
    }
    Ok(instance)
}

pub(super) async fn one(call: Call<'_>, caller: &Caller, name: &Name) -> Answered {
    let service = &call.api.service;
    let instance = instance(&call, caller)?;
    let reason = reason(&call, caller)?;
    let asked = Asked { instance: &instance, reason: reason.as_ref() };
    let allowed = caller.reader_of(&service.policies(), &asked, std::slice::from_ref(name));
    // An application that isn't allowed is refused by the engine, which records that.
    let reader = allowed.or_else(|| caller.application_reader(&instance)).ok_or_else(|| caller.may_not_read())?;
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

/// Why a person reads. An application that gives a reason is refused: nobody would keep it.
fn reason(call: &Call<'_>, caller: &Caller) -> Result<Option<Reason>, Problem> {
    let reason = headers::reason(&call.head.headers)?;
    if reason.is_some() && caller.operator_reader(None).is_none() {
        let refused = if caller.application.is_some() {
            Problem::bad_request("a reason is for operators who may read: an application's reads need none")
        } else {
            caller.may_not_read()
        };
        return Err(refused);
    }
    Ok(reason)
}

/// As the application if there is one, else as the operator: who may read as both sees what the application would, unless
/// there is a reason, which a person gives.
fn reader(caller: &Caller, asked: &Asked<'_>) -> Result<Reader, Problem> {
    let application = caller.application_reader(asked.instance).filter(|_| asked.reason.is_none());
    application.or_else(|| caller.operator_reader(asked.reason)).ok_or_else(|| caller.may_not_read())
}

/// A person's stream is refused at its start if it would come upon production without a reason.
fn check_stream(policies: &Policies, reader: &Reader, names: Option<&[Name]>) -> Result<(), Problem> {
    let Reader::Operator { reason: None, .. } = reader else { return Ok(()) };
    let asked_for = |name: &Name| names.is_none_or(|names| names.contains(name));
    let production = |credential: &Credential| needs_reason(credential.environment);
    if policies.credentials.iter().any(|(name, credential)| asked_for(name) && production(credential)) {
        let named = "send the header Keywright-Reason, or name sandbox credentials only (`?credentials=a,b`)";
        return Err(Problem::bad_request(format!(
            "a person reads production credentials for a reason, which the audit trail keeps: {named}"
        )));
    }
    Ok(())
}

pub(super) async fn list(call: &Call<'_>, caller: &Caller) -> Answered {
    let instance = instance(call, caller)?;
    // Nothing is disclosed: nobody asks why.
    let listed = call.api.service.list(&reader(caller, &Asked { instance: &instance, reason: None })?).await;
    json(StatusCode::OK, &Credentials { credentials: listed })
}

pub(super) fn events(call: &Call<'_>, caller: Caller) -> Answered {
    let service = &call.api.service;
    let instance = instance(call, &caller)?;
    let names = call.query()?.credentials()?;
    let reason = reason(call, &caller)?;
    let asked = Asked { instance: &instance, reason: reason.as_ref() };
    let policies = service.policies();
    let reader = match &names {
        Some(names) => caller.reader_of(&policies, &asked, names).ok_or_else(|| caller.may_not_read())?,
        None => reader(&caller, &asked)?,
    };
    check_stream(&policies, &reader, names.as_deref())?;
    let permit = call.api.counters.stream(caller.key())?;
    let over = caller.over(call.api, headers::bearer(&call.head.headers)?);
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
    let mut answer = Response::new(Body::events(stream.start(over), call.api.limits.comment_every));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(answer)
}

pub(super) async fn report(mut call: Call<'_>, caller: &Caller) -> Answered {
    let application = caller.application.as_ref().ok_or_else(Problem::forbidden)?;
    let instance = instance(&call, caller)?;
    let body = call.json().await?;
    let report = input::report(&body, &application.name, instance)?;
    let service = Arc::clone(&call.api.service);
    // In a task of its own, as a confirmation.
    let reporting = tokio::spawn(async move { service.report_failed(&report).await });
    reporting.await.map_err(|_| Problem::bug())??;
    empty(StatusCode::NO_CONTENT)
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
