//! What operators call; the right that each call needs stands in `Route::right` and was checked. Whatever changes something runs in a task of its own, so that it doesn't stop halfway because the
//! caller hung up.

use std::sync::Arc;

use http::StatusCode;

use super::answers::Versions;
use super::handle::{Answered, Call, empty, json};
use super::identity::Caller;
use super::input;
use super::problem::Problem;
use crate::domain::ids::{InstanceName, Name, VersionId};

pub(super) fn status(call: &Call<'_>) -> Answered {
    let query = call.query()?;
    let status = call.api.service.status(None, query.after()?.as_ref(), query.limit()?);
    json(StatusCode::OK, &status.ok_or_else(Problem::not_found)?)
}

pub(super) fn status_of(call: &Call<'_>, name: &Name) -> Answered {
    json(StatusCode::OK, &call.api.service.status(Some(name), None, 1).ok_or_else(Problem::not_found)?)
}

pub(super) async fn plan(call: &Call<'_>) -> Answered {
    let query = call.query()?;
    let (days, after, limit) = (query.days()?, query.after::<Name>()?, query.limit()?);
    let service = Arc::clone(&call.api.service);
    // Years of starts are worked out: that must not hold up those who read.
    let planning = tokio::task::spawn_blocking(move || service.plan(days, after.as_ref(), limit));
    json(StatusCode::OK, &planning.await.map_err(|_| Problem::bug())?)
}

pub(super) fn versions(call: &Call<'_>, name: &Name) -> Answered {
    let query = call.query()?;
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
    json(StatusCode::OK, &Versions { versions, next })
}

pub(super) async fn submit(mut call: Call<'_>, caller: &Caller, name: Name) -> Answered {
    let actor = caller.actor()?;
    let material = input::submission(&call.json().await?)?;
    let service = Arc::clone(&call.api.service);
    let submitting = tokio::spawn(async move { service.submit(actor, &name, material).await });
    json(StatusCode::CREATED, &submitting.await.map_err(|_| Problem::bug())??)
}

pub(super) async fn release(call: &Call<'_>, caller: &Caller, application: Name, instance: Option<InstanceName>) -> Answered {
    let actor = caller.actor()?;
    let service = Arc::clone(&call.api.service);
    let releasing = tokio::spawn(async move { service.release(actor, &application, instance.as_ref()).await });
    releasing.await.map_err(|_| Problem::bug())??;
    empty(StatusCode::NO_CONTENT)
}
