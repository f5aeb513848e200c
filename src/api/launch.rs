//! Going live: the list of an application, and what persons sign off of it.

use std::sync::Arc;

use http::StatusCode;

use super::handle::{Answered, Call, empty, json};
use super::identity::Caller;
use super::input;
use super::problem::Problem;
use crate::domain::ids::{ItemId, Name};

pub(super) async fn show(call: &Call<'_>, application: &Name) -> Answered {
    json(StatusCode::OK, &call.api.service.launch(application).await.ok_or_else(Problem::not_found)?)
}

pub(super) async fn confirm(mut call: Call<'_>, caller: &Caller, application: Name, item: ItemId) -> Answered {
    let by = caller.actor()?;
    let (signer, reason) = input::sign_off(&call.json().await?)?;
    let order = crate::engine::audit::Order { by, reason };
    let service = Arc::clone(&call.api.service);
    // In a task of its own: it must not stop halfway because its sender hung up.
    let confirming = tokio::spawn(async move { service.confirm_item(order, &application, &item, &signer).await });
    confirming.await.map_err(|_| Problem::bug())??;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn withdraw(call: &Call<'_>, caller: &Caller, application: Name, item: ItemId) -> Answered {
    let (order, service) = (call.order(caller)?, Arc::clone(&call.api.service));
    let withdrawing = tokio::spawn(async move { service.withdraw_item(order, &application, &item).await });
    withdrawing.await.map_err(|_| Problem::bug())??;
    empty(StatusCode::NO_CONTENT)
}
