//! What operators call in an incident, and `rotate`, which may be one. Each runs in a task of its own, so that it doesn't stop
//! halfway because the caller hung up.

use std::future::Future;
use std::sync::Arc;

use http::StatusCode;

use super::answers::Started;
use super::handle::{Answered, Call, empty, json};
use super::identity::Caller;
use super::input;
use super::problem::Problem;
use crate::domain::access::Right;
use crate::domain::ids::{Name, VersionId};

async fn in_its_own_task<T: Send + 'static, E: Send + 'static>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, Problem>
where
    Problem: From<E>,
{
    Ok(tokio::spawn(work).await.map_err(|_| Problem::bug())??)
}

pub(super) async fn rotate(mut call: Call<'_>, caller: &Caller, name: Name) -> Answered {
    let asked = input::rotation(&call.json().await?)?;
    caller.check_right(if asked.compromised_within.is_some() { Right::Revoke } else { Right::Rotate })?;
    let order = call.order(caller)?;
    let service = Arc::clone(&call.api.service);
    let operation = match asked.compromised_within {
        Some(within) => in_its_own_task(async move { service.compromised(order, &name, within).await }).await?,
        None => in_its_own_task(async move { service.rotate(order, &name).await }).await?,
    };
    json(StatusCode::ACCEPTED, &Started { operation_id: operation })
}

pub(super) async fn roll_back(call: &Call<'_>, caller: &Caller, name: Name) -> Answered {
    let (order, service) = (call.order(caller)?, Arc::clone(&call.api.service));
    json(StatusCode::OK, &in_its_own_task(async move { service.roll_back(order, &name).await }).await?)
}

pub(super) async fn revoke(call: &Call<'_>, caller: &Caller, name: Name, version: VersionId) -> Answered {
    let (force, order, service) = (call.query()?.force()?, call.order(caller)?, Arc::clone(&call.api.service));
    in_its_own_task(async move { service.revoke_version(order, &name, &version, force).await }).await?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn forget(call: &Call<'_>, caller: &Caller, name: Name) -> Answered {
    let (force, order, service) = (call.query()?.force()?, call.order(caller)?, Arc::clone(&call.api.service));
    in_its_own_task(async move { service.forget(order, &name, force).await }).await?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn pause(call: &Call<'_>, caller: &Caller, name: Option<Name>) -> Answered {
    let (order, service) = (call.order(caller)?, Arc::clone(&call.api.service));
    in_its_own_task(async move { service.pause(order, name.as_ref()).await }).await?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn resume(call: &Call<'_>, caller: &Caller, name: Option<Name>) -> Answered {
    let (order, service) = (call.order(caller)?, Arc::clone(&call.api.service));
    in_its_own_task(async move { service.resume(order, name.as_ref()).await }).await?;
    empty(StatusCode::NO_CONTENT)
}
