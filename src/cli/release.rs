//! `release`: an instance no longer holds anything. This can end a key's life, so it says what was released.

use std::process::ExitCode;

use http::Method;
use serde_json::json;

use crate::domain::ids::{InstanceName, Name};
use crate::domain::reason::Reason;

use super::client::{Call, Client};
use super::failure::Failure;
use super::terminal::Terminal;

pub(super) async fn release(
    application: &Name,
    instance: Option<&InstanceName>,
    reason: Option<Reason>,
    client: &Client,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let (path, what) = match instance {
        Some(instance) => (format!("/v1/applications/{application}/instances/{instance}"), format!("{application}/{instance}")),
        None => (format!("/v1/applications/{application}/instances"), format!("all instances of {application}")),
    };
    client.send(Call { reason, ..Call::new(Method::DELETE, path) }).await?;
    if terminal.json {
        terminal.print_json(&json!({"application": application, "instance": instance}))?;
    } else {
        terminal.print(&format!("released {what}: nothing is kept alive for it any more"))?;
    }
    Ok(ExitCode::SUCCESS)
}
