//! What operators call; the right that each call needs stands in `Route::right` and was checked. Whatever changes something runs in a task of its own, so that it doesn't stop halfway because the
//! caller hung up.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use tokio::sync::mpsc;

use super::answers::Versions;
use super::body::Body;
use super::handle::{Answered, Call, empty, json};
use super::identity::Caller;
use super::input;
use super::problem::Problem;
use super::service::SnapshotError;
use crate::domain::ids::{InstanceName, Name, VersionId};

/// A backup is read and sent in chunks of so many bytes, so many ahead.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_WAITING_MAX: usize = 4;

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

/// The whole store as it is now, sealed as it is.
pub(super) async fn backup(call: &Call<'_>, caller: &Caller) -> Answered {
    let actor = caller.actor()?;
    let snapshots = call.api.snapshots.as_ref().ok_or_else(Problem::not_found)?;
    let file = snapshots.take(actor).await?;
    let left = file.metadata().map_err(|_| SnapshotError::Unavailable)?.len();
    let (out, frames) = mpsc::channel(CHUNKS_WAITING_MAX);
    // A reader that stalls is cut off by its connection's timeout; that ends this thread's work.
    tokio::task::spawn_blocking(move || pump(file, &out));
    let mut answer = Response::new(Body::Sized { frames, left });
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(answer)
}

fn pump(mut file: File, out: &mpsc::Sender<Bytes>) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        match file.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(length) => chunk.truncate(length),
        }
        if out.blocking_send(Bytes::from(chunk)).is_err() {
            return;
        }
    }
}

pub(super) async fn rewrap(mut call: Call<'_>, caller: &Caller) -> Answered {
    let actor = caller.actor()?;
    let rewraps = Arc::clone(call.api.rewraps.as_ref().ok_or_else(Problem::not_found)?);
    let file = input::rewrap(&call.json().await?)?;
    let beginning = tokio::spawn(async move { rewraps.begin(actor, file).await });
    json(StatusCode::ACCEPTED, &beginning.await.map_err(|_| Problem::bug())??)
}

pub(super) async fn rewrap_standing(call: &Call<'_>) -> Answered {
    let rewraps = call.api.rewraps.as_ref().ok_or_else(Problem::not_found)?;
    json(StatusCode::OK, &rewraps.view().await?)
}

pub(super) async fn submit(mut call: Call<'_>, caller: &Caller, name: Name) -> Answered {
    let actor = caller.actor()?;
    let (material, adopt) = input::submission(&call.json().await?)?;
    let service = Arc::clone(&call.api.service);
    let submitting = tokio::spawn(async move {
        if adopt { service.adopt(actor, &name, material).await } else { service.submit(actor, &name, material).await }
    });
    json(StatusCode::CREATED, &submitting.await.map_err(|_| Problem::bug())??)
}

pub(super) async fn release(call: &Call<'_>, caller: &Caller, application: Name, instance: Option<InstanceName>) -> Answered {
    let order = call.order(caller)?;
    let service = Arc::clone(&call.api.service);
    let releasing = tokio::spawn(async move { service.release(order, &application, instance.as_ref()).await });
    releasing.await.map_err(|_| Problem::bug())??;
    empty(StatusCode::NO_CONTENT)
}
