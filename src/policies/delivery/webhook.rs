//! `delivery.webhook`: where signed messages go, and what signs them.

use std::path::PathBuf;

use super::super::problem::Sink;
use super::super::reader::{Fields, boolean, list, text};
use super::super::tree::Node;
use super::super::values::{Scheme, check_url};
use super::path;
use crate::domain::delivery::WebhookDelivery;

pub(super) fn read(node: &Node, sink: &Sink<'_>) -> Option<WebhookDelivery> {
    let fields = Fields::of(node, sink)?;
    let private = fields.get("allowPrivate").map(|node| boolean(node, sink));
    let scheme = if private == Some(Some(true)) { Scheme::HttpsOrLoopback } else { Scheme::Https };
    let url = fields.need("url", "where messages go, for example `https://payments.example.com/keywright`");
    let url = url.and_then(|node| url_of(node, sink, scheme));
    let secrets = fields.need("secrets", "files with what signs the messages: `[{file: /etc/keywright/webhook-secret}]`");
    let secrets = secrets.and_then(|node| secrets_of(node, sink));
    fields.done();
    Some(WebhookDelivery { url: url?, secrets: secrets?, allow_private: super::asked(private)?.unwrap_or(false) })
}

fn url_of(node: &Node, sink: &Sink<'_>, scheme: Scheme) -> Option<String> {
    let written = text(node, sink)?;
    match check_url(written, scheme) {
        Ok(()) => Some(written.to_owned()),
        Err(reason) => {
            let help = "for example `https://payments.example.com/keywright`; plain http is for loopback, with `allowPrivate: true`";
            sink.report(node.place, "bad-url", reason, help);
            None
        }
    }
}

fn secrets_of(node: &Node, sink: &Sink<'_>) -> Option<Vec<PathBuf>> {
    let items = list(node, sink)?;
    if items.is_empty() || items.len() > WebhookDelivery::SECRETS_MAX {
        let help = "one; two while the secret is being replaced, the new one first";
        sink.report(node.place, "bad-secrets", "a webhook is signed with one secret or with two", help);
        return None;
    }
    let mut files: Vec<PathBuf> = Vec::new();
    let read: Vec<Option<PathBuf>> = items.iter().map(|item| secret(item, sink)).collect();
    for (file, item) in read.into_iter().zip(items) {
        let file = file?;
        if files.contains(&file) {
            sink.report(item.place, "duplicate-entry", "this file is listed twice", "list it once");
            return None;
        }
        files.push(file);
    }
    Some(files)
}

fn secret(node: &Node, sink: &Sink<'_>) -> Option<PathBuf> {
    let fields = Fields::of(node, sink)?;
    let file = fields.need("file", "a secret is named by its file, never written here").and_then(|node| path(node, sink));
    fields.done();
    file.map(|at| at.value)
}
