//! `Credential` and `Application` documents, as written: references are resolved in [`super::links`].

use jiff::Timestamp;

use crate::domain::access::Identity;
use crate::domain::credential::Environment;
use crate::domain::ids::Name;
use crate::domain::policy::Uptake;
use crate::domain::span::Span;

use super::delivery::WrittenDelivery;
use super::problem::{Place, Sink};
use super::reader::{At, Fields, boolean, choice, entries, list, text};
use super::tree::Node;
use super::values::{Scheme, check_url, environment, identity, name, only, span};

/// A path in a store: labels with slashes between them.
pub(super) const PATH_LABELS_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct WrittenCredential {
    pub(super) spec: Place,
    pub(super) provider: Option<At<Name>>,
    pub(super) environment: Option<At<Environment>>,
    pub(super) rotation: Option<At<Name>>,
    pub(super) path: Option<At<String>>,
    /// Names with their places; no value where it is wrong.
    pub(super) variables: Vec<(At<String>, Option<Name>)>,
    pub(super) account: Option<At<Name>>,
    pub(super) administered_by: Option<At<Name>>,
    pub(super) twin: Option<At<Name>>,
    pub(super) accept_undetermined: Option<String>,
    pub(super) require_go_live: bool,
}

#[derive(Debug)]
pub(super) struct WrittenApplication {
    pub(super) environment: Option<At<Environment>>,
    pub(super) credentials: Vec<At<Name>>,
    pub(super) identity: Option<At<Identity>>,
    pub(super) uptake: Uptake,
    pub(super) lease: Option<Span>,
    pub(super) callback: Option<String>,
    pub(super) webhook: Option<String>,
    pub(super) delivery: WrittenDelivery,
}

pub(super) fn read_credential(node: &Node, sink: &Sink<'_>) -> Option<WrittenCredential> {
    let fields = Fields::of(node, sink)?;
    let named = |field: &'static str| fields.get(field).and_then(|node| name(node, sink));
    let needed = |field, help: &str| fields.need(field, help).and_then(|node| name(node, sink));
    let gate = fields.get("requireGoLive");
    let written = WrittenCredential {
        spec: fields.place,
        provider: needed("provider", "the name of a Provider, for example `provider: dinie`"),
        environment: fields.need("environment", "`sandbox` or `production`").and_then(|node| environment(node, sink)),
        rotation: needed("rotation", "the name of a RotationPolicy, for example `rotation: client-secret-90d`"),
        path: fields.get("path").and_then(|node| path(node, sink)),
        variables: fields.get("variables").map(|node| variables(node, sink)).unwrap_or_default(),
        account: named("account"),
        administered_by: named("administeredBy"),
        twin: named("twin"),
        accept_undetermined: fields.get("acceptUndetermined").and_then(|node| reason(node, sink)),
        require_go_live: gate.and_then(|node| boolean(node, sink)).unwrap_or(false),
    };
    if let Some(node) = gate.filter(|_| written.require_go_live)
        && written.environment.as_ref().is_some_and(|at| at.value == Environment::Sandbox)
    {
        let help = "leave it out: only what is of production goes live";
        sink.report(node.place, "go-live-in-sandbox", "a credential of the sandbox doesn't go live", help);
    }
    fields.done();
    Some(written)
}

fn path(node: &Node, sink: &Sink<'_>) -> Option<At<String>> {
    let written = text(node, sink)?;
    let labels: Vec<&str> = written.split('/').collect();
    if labels.len() <= PATH_LABELS_MAX && labels.iter().all(|label| label.parse::<Name>().is_ok()) {
        return Some(At { value: written.to_owned(), place: node.place });
    }
    let message = format!("a path is made of names (lower-case letters, digits, hyphens) with `/` between them, {PATH_LABELS_MAX} at most");
    sink.report(node.place, "bad-path", message, "for example `payments/dinie`; the environment is put before it");
    None
}

fn variables(node: &Node, sink: &Sink<'_>) -> Vec<(At<String>, Option<Name>)> {
    let read = entries(node, sink)
        .unwrap_or_default()
        .iter()
        .map(|(key, node)| (At { value: key.text.clone(), place: key.place }, name(node, sink).map(|value| value.value)));
    read.collect()
}

fn reason(node: &Node, sink: &Sink<'_>) -> Option<String> {
    let written = text(node, sink)?.trim();
    if written.is_empty() || written.len() > 500 {
        let help = "it is shown and audited: say who decided, and why";
        sink.report(node.place, "bad-reason", "a reason has 1 to 500 characters", help);
        return None;
    }
    Some(written.to_owned())
}

/// `now` bounds the search for the windows of restarts.
pub(super) fn read_application(node: &Node, sink: &Sink<'_>, now: Timestamp) -> Option<WrittenApplication> {
    let fields = Fields::of(node, sink)?;
    let environment = fields.need("environment", "`sandbox` or `production`").and_then(|node| environment(node, sink));
    let credentials =
        fields.need("credentials", "the names of what it may read; `[]` reads nothing").map(|node| listed(node, sink)).unwrap_or_default();
    let identity = fields
        .need("identity", "how it shows who it is: `token: {sha256: HEX}`, `unix: {uid: NUMBER}` or `kubernetes: {namespace: NAME, serviceAccount: NAME}`")
        .and_then(|node| identity(node, sink));
    let (callback, webhook) = fields.get("endpoints").map(|node| endpoints(node, sink)).unwrap_or_default();
    let uptake = fields.get("uptake").and_then(|node| uptake(node, sink)).unwrap_or(Uptake::Stream);
    let lease = fields.get("lease").and_then(|node| span(node, sink)).map(|lease| lease.value);
    fields.unsupported("reads");
    let namespace = identity.as_ref().and_then(|at| at.value.namespace());
    let delivery = fields.get("delivery").map(|node| WrittenDelivery::read(node, sink, namespace, now)).unwrap_or_default();
    fields.done();
    Some(WrittenApplication { environment, credentials, identity, uptake, lease, callback, webhook, delivery })
}

fn listed(node: &Node, sink: &Sink<'_>) -> Vec<At<Name>> {
    let mut names: Vec<At<Name>> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for item in list(node, sink).unwrap_or_default() {
        let Some(name) = name(item, sink) else { continue };
        if seen.insert(name.value.clone()) {
            names.push(name);
        } else {
            sink.report(name.place, "duplicate-entry", "this credential is listed twice", "list it once");
        }
    }
    names
}

fn uptake(node: &Node, sink: &Sink<'_>) -> Option<Uptake> {
    let words = [("stream", Some(Uptake::Stream)), ("start", Some(Uptake::Start)), ("native", None)];
    let uptake = choice(node, sink, &words)?;
    if uptake.value.is_none() {
        only(node, sink, &["stream", "start"], "uptake: native");
    }
    uptake.value
}

fn endpoints(node: &Node, sink: &Sink<'_>) -> (Option<String>, Option<String>) {
    let Some(fields) = Fields::of(node, sink) else { return (None, None) };
    let endpoint = |name| {
        let node = fields.get(name)?;
        let written = text(node, sink)?;
        match check_url(written, Scheme::Https) {
            Ok(()) => Some(written.to_owned()),
            Err(reason) => {
                sink.report(node.place, "bad-url", reason, "for example `https://payments.example.com/webhook`");
                None
            }
        }
    };
    let found = (endpoint("callback"), endpoint("webhook"));
    fields.done();
    found
}
