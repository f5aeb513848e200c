//! `rollback`: the old key is current again, as a new version.

use std::process::ExitCode;

use http::Method;
use serde_json::Value;

use crate::domain::ids::Name;
use crate::domain::reason::Reason;

use super::client::{Call, Client};
use super::failure::Failure;
use super::terminal::{Terminal, printable};

pub(super) async fn rollback(name: &Name, reason: Option<Reason>, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    let done: Value = match client.send(Call { reason, ..Call::new(Method::POST, format!("/v1/credentials/{name}/rollback")) }).await {
        Ok(reply) => reply.parse()?,
        Err(failure) if failure.problem.slug() == "version-conflict" => {
            return Err(failure.then(format!("`keywright rotate {name}` makes a new key; `keywright status {name}` shows where it stands")));
        }
        Err(failure) => return Err(failure),
    };
    let version = done.get("version").and_then(Value::as_str).unwrap_or("a new version");
    let sentence = format!("{name}: the old key is current again, as {}; the new one is retired", printable(version));
    terminal.report(&done, &sentence)
}
