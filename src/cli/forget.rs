//! `forget`: what is kept here of a credential is removed. Nothing is revoked by it, and it says so.

use std::process::ExitCode;

use http::Method;
use serde_json::json;

use crate::domain::ids::Name;
use crate::domain::reason::Reason;

use super::client::{Call, Client};
use super::failure::Failure;
use super::terminal::Terminal;

pub(super) async fn forget(
    name: &Name,
    force: bool,
    reason: Option<Reason>,
    client: &Client,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let path = format!("/v1/credentials/{name}{}", query(force));
    client.send(Call { reason, ..Call::new(Method::DELETE, path) }).await.map_err(|failure| match failure.problem.slug() {
        "not-revocable" | "rotation-open" if !force => {
            failure.then("nothing was forgotten; with --force it is, and whoever fetches it next gets nothing. No key is revoked by this")
        }
        _ => failure,
    })?;
    let sentence = format!("{name} is forgotten here. Its keys live on: revoke them at the provider");
    terminal.report(&json!({"name": name, "forgotten": true, "revoked": false}), &sentence)
}

pub(super) fn query(force: bool) -> &'static str {
    if force { "?force=true" } else { "" }
}
