//! What operators call. Whatever changes something runs in a task of its own, so that it doesn't stop halfway because the
//! caller hung up.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use super::handle::{Answered, Call, empty, json};
use super::identity::Caller;
use super::input;
use super::path::Route;
use super::problem::Problem;
use crate::domain::access::Right;
use crate::domain::ids::{InstanceName, Name, VersionId};

pub(super) fn status(call: &Call<'_>, caller: &Caller, route: &Route) -> Answered {
    caller.operator(Right::Status)?;
    let query = call.query(route)?;
    let status = call.api.service.status(None, query.after()?.as_ref(), query.limit()?);
    json(StatusCode::OK, &status.ok_or_else(Problem::not_found)?)
}

pub(super) fn status_of(call: &Call<'_>, caller: &Caller, name: &Name) -> Answered {
    caller.operator(Right::Status)?;
    json(StatusCode::OK, &call.api.service.status(Some(name), None, 1).ok_or_else(Problem::not_found)?)
}

pub(super) fn plan(call: &Call<'_>, caller: &Caller, route: &Route) -> Answered {
    caller.operator(Right::Status)?;
    let query = call.query(route)?;
    json(StatusCode::OK, &call.api.service.plan(query.days()?, query.after()?.as_ref(), query.limit()?))
}

pub(super) fn versions(call: &Call<'_>, caller: &Caller, route: &Route, name: &Name) -> Answered {
    caller.operator(Right::Status)?;
    let query = call.query(route)?;
    let (after, limit) = (query.after::<VersionId>()?, query.limit()?);
    let mut versions = call.api.service.versions(name).ok_or_else(Problem::not_found)?;
    if let Some(after) = after {
        let place = versions.iter().position(|view| view.version == after);
        let place = place.ok_or_else(|| Problem::bad_request("`after` is no version of this credential"))?;
        versions.drain(..=place);
    }
    let more = versions.len() > limit;
    versions.truncate(limit);
    let next = versions.last().filter(|_| more).map(|view| view.version.clone());
    json(StatusCode::OK, &json!({ "versions": versions, "next": next }))
}

pub(super) async fn submit(mut call: Call<'_>, caller: &Caller, name: Name) -> Answered {
    let actor = caller.operator(Right::Rotate)?;
    let material = input::submission(&call.json().await?)?;
    let service = Arc::clone(&call.api.service);
    let submitting = tokio::spawn(async move { service.submit(actor, &name, material).await });
    json(StatusCode::CREATED, &submitting.await.map_err(|_| Problem::bug())??)
}

pub(super) async fn release(call: &Call<'_>, caller: &Caller, application: Name, instance: Option<InstanceName>) -> Answered {
    let actor = caller.operator(Right::Rotate)?;
    let service = Arc::clone(&call.api.service);
    let releasing = tokio::spawn(async move { service.release(actor, &application, instance.as_ref()).await });
    releasing.await.map_err(|_| Problem::bug())??;
    empty(StatusCode::NO_CONTENT)
}
