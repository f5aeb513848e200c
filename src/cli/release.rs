//! `release`: an instance no longer holds anything. This can end a key's life, so it says what was released.

use std::process::ExitCode;

use http::Method;
use serde_json::json;

use crate::domain::ids::{InstanceName, Name};

use super::client::{Call, Client};
use super::failure::Failure;
use super::terminal::Terminal;
use super::views::{Pages, StatusView};

pub(super) async fn release(
    application: &Name,
    instance: Option<&InstanceName>,
    client: &Client,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let instances = match instance {
        Some(instance) => vec![instance.clone()],
        None => instances_of(application, client).await?,
    };
    if instances.is_empty() {
        return Err(Failure::failed("not-found", "nothing to release", format!("no instance of {application} holds anything"))
            .then("`keywright status` shows who holds what; an application that was never seen is released with the instance `default`"));
    }
    for instance in &instances {
        let path = format!("/v1/applications/{application}/instances/{instance}");
        client.send(Call::new(Method::DELETE, path)).await?;
        if !terminal.json {
            terminal.print(&format!("released {application}/{instance}: it blocks nothing any more"))?;
        }
    }
    if terminal.json {
        terminal.print_json(&json!({"application": application, "instances": instances}))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The API releases one instance at a time; without a name, all that `status` knows.
async fn instances_of(application: &Name, client: &Client) -> Result<Vec<InstanceName>, Failure> {
    let status: StatusView = Pages::fetch(client, "/v1/status").await?.view()?;
    let mut listed = false;
    let mut names: Vec<InstanceName> = Vec::new();
    for entry in status.credentials.iter().flat_map(|credential| &credential.applications) {
        if entry.name == application.as_str() {
            listed = true;
            names.extend(entry.instance.as_deref().and_then(|name| name.parse().ok()));
        }
    }
    names.sort();
    names.dedup();
    // Listed and never seen: it blocks as a whole, and is released under the name of one that names itself not.
    if names.is_empty() && listed {
        names.push(InstanceName::unnamed());
    }
    Ok(names)
}
