//! `revoke`: an old version goes now.

use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use crate::domain::ids::{Name, VersionId};
use crate::domain::reason::Reason;

use super::client::{Call, Client};
use super::failure::Failure;
use super::terminal::{Terminal, printable};

pub(super) async fn revoke(
    name: &Name,
    version: &VersionId,
    force: bool,
    reason: Option<Reason>,
    client: &Client,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let path = format!("/v1/credentials/{name}/versions/{version}{}", super::forget::query(force));
    client.send(Call { reason, ..Call::new(Method::DELETE, path) }).await.map_err(|failure| match failure.problem.slug() {
        "not-revocable" if !force => failure.then(format!(
            "`keywright status {name}` shows who holds what; with --force it goes although somebody holds it, which breaks them"
        )),
        _ => failure,
    })?;
    // What the daemon answers is that it can't be stopped any more; what it knows of the death is asked for.
    let path = format!("/v1/credentials/{name}/versions?limit=1000");
    let versions: Value = client.document(&path).await?;
    let row = versions.get("versions").and_then(Value::as_array).into_iter().flatten();
    let row = row.into_iter().find(|row| row.get("version").and_then(Value::as_str) == Some(version.as_str()));
    let revoked_at = row.and_then(|row| row.get("revoked_at")).cloned().unwrap_or(Value::Null);
    let sentence = match revoked_at.as_str() {
        Some(at) => format!("{name}: {version} is dead since {}", printable(at)),
        None => format!("{name}: {version} is going: the intent is durable, and the daemon finishes it"),
    };
    terminal.report(&json!({"name": name, "version": version, "revoked_at": revoked_at}), &sentence)
}
