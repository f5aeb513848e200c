//! `pause` and `resume`: all that destroys stops, over restarts too, until a person lets it go on.

use std::process::ExitCode;

use http::Method;
use serde_json::json;

use crate::domain::ids::Name;
use crate::domain::reason::Reason;

use super::client::{Call, Client};
use super::failure::Failure;
use super::terminal::Terminal;

pub(super) async fn pause(name: Option<&Name>, reason: Option<Reason>, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    client.send(Call { reason, ..Call::new(Method::PUT, pause_path(name)) }).await?;
    let (what, command) = paused_words(name);
    let sentence = format!("{what} is paused, over restarts too: nothing is revoked and no rotation begins; `{command}` lets it go on");
    terminal.report(&json!({"name": name, "paused": true}), &sentence)
}

pub(super) async fn resume(name: Option<&Name>, reason: Option<Reason>, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    client.send(Call { reason, ..Call::new(Method::DELETE, pause_path(name)) }).await?;
    let (what, _) = paused_words(name);
    let but = if name.is_none() { "; what was paused by its name stays so" } else { "" };
    terminal.report(&json!({"name": name, "paused": false}), &format!("{what} goes on{but}"))
}

fn pause_path(name: Option<&Name>) -> String {
    name.map_or_else(|| "/v1/pause".to_owned(), |name| format!("/v1/credentials/{name}/pause"))
}

fn paused_words(name: Option<&Name>) -> (String, String) {
    match name {
        Some(name) => (name.to_string(), format!("keywright resume {name}")),
        None => ("everything".to_owned(), "keywright resume".to_owned()),
    }
}
