//! Values that several documents share: names, durations, environments, addresses, identities, hashes.

use std::net::IpAddr;
use std::time::Duration;

use crate::domain::access::Identity;
use crate::domain::credential::Environment;
use crate::domain::ids::Name;
use crate::domain::span::Span;
use crate::domain::workload::ServiceAccount;

use super::problem::Sink;
use super::reader::{At, Fields, choice, parsed, text, unsupported, whole_number};
use super::tree::Node;

/// How an identity is written.
pub(super) const IDENTITIES: &str =
    "give one: `token: {sha256: HEX}`, `unix: {uid: NUMBER}` or `kubernetes: {namespace: NAME, serviceAccount: NAME}`";

pub(crate) const ENVIRONMENTS: [(&str, Environment); 2] = [("sandbox", Environment::Sandbox), ("production", Environment::Production)];

pub(crate) fn name(node: &Node, sink: &Sink<'_>) -> Option<At<Name>> {
    parsed(node, sink, "bad-name", "for example `dinie-production`")
}

pub(crate) fn span(node: &Node, sink: &Sink<'_>) -> Option<At<Span>> {
    parsed(node, sink, "bad-duration", "for example `24h` or `90d`")
}

/// A duration that may be zero.
pub(crate) fn span_or_zero(node: &Node, sink: &Sink<'_>) -> Option<At<Duration>> {
    let zero = text(node, sink)?.strip_suffix(['s', 'm', 'h', 'd']).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b == b'0'));
    if zero {
        return Some(At { value: Duration::ZERO, place: node.place });
    }
    span(node, sink).map(|span| At { value: span.value.as_duration(), place: span.place })
}

pub(crate) fn environment(node: &Node, sink: &Sink<'_>) -> Option<At<Environment>> {
    choice(node, sink, &ENVIRONMENTS)
}

/// `{token: {sha256: hex}}`, `{unix: {uid}}` or `{kubernetes: {namespace, serviceAccount}}`.
pub(crate) fn identity(node: &Node, sink: &Sink<'_>) -> Option<At<Identity>> {
    let fields = Fields::of(node, sink)?;
    let identity = identity_of(&fields, node);
    fields.done();
    identity
}

/// The identity among other fields: an operator's entry also says what it may.
pub(crate) fn identity_of(fields: &Fields<'_>, node: &Node) -> Option<At<Identity>> {
    let sink = fields.sink;
    let (token, unix, kubernetes) = (fields.get("token"), fields.get("unix"), fields.get("kubernetes"));
    let given = ["token", "unix", "kubernetes"].iter().filter(|name| fields.has(name)).count();
    if given != 1 {
        let message = if given == 0 { "an identity is missing" } else { "two identities are given at once" };
        sink.report(node.place, "bad-identity", message, IDENTITIES);
        return None;
    }
    let value = match (token, unix, kubernetes) {
        (Some(token), ..) => Identity::Token { sha256: within(token, sink, "sha256", hash)? },
        (None, Some(unix), _) => {
            let uid = |node: &Node, sink: &Sink<'_>| whole_number(node, sink, 0..=u32::MAX - 1);
            Identity::Unix { uid: within(unix, sink, "uid", uid)? }
        }
        (None, None, Some(kubernetes)) => Identity::Kubernetes(service_account(kubernetes, sink)?),
        (None, None, None) => return None,
    };
    Some(At { value, place: node.place })
}

/// Both are needed: an account is known by its name within its namespace alone.
fn service_account(node: &Node, sink: &Sink<'_>) -> Option<ServiceAccount> {
    let fields = Fields::of(node, sink)?;
    let namespace = fields.need("namespace", "the namespace of the service account, for example `payments`");
    let namespace = namespace.and_then(|node| name(node, sink));
    let account = fields.need("serviceAccount", "the name of the service account, for example `payments-api`");
    let account = account.and_then(|node| parsed(node, sink, "bad-name", "for example `payments-api`"));
    fields.done();
    Some(ServiceAccount { namespace: namespace?.value, name: account?.value })
}

/// Reads the one field of a mapping.
fn within<T>(node: &Node, sink: &Sink<'_>, name: &'static str, read: impl Fn(&Node, &Sink<'_>) -> Option<T>) -> Option<T> {
    let fields = Fields::of(node, sink)?;
    let value = fields.need(name, "it is the only field here").and_then(|node| read(node, sink));
    fields.done();
    value
}

fn hash(node: &Node, sink: &Sink<'_>) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let written = text(node, sink)?;
    let lower = written.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    if lower && hex::decode_to_slice(written, &mut bytes).is_ok() {
        return Some(bytes);
    }
    let help = "the hash of the token, never the token itself: printf %s \"$TOKEN\" | sha256sum";
    sink.report(node.place, "bad-hash", "a SHA-256 hash has 64 lower-case hex digits", help);
    None
}

/// Which addresses are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Https,
    /// Plain HTTP is taken for loopback addresses only.
    HttpsOrLoopback,
}

/// An absolute URL without user, query and fragment, and without a closing slash.
pub(crate) fn base_url(node: &Node, sink: &Sink<'_>, scheme: Scheme) -> Option<String> {
    let written = text(node, sink)?;
    let trimmed = written.trim_end_matches('/');
    match check_url(trimmed, scheme) {
        Ok(()) => Some(in_small_letters(trimmed)),
        Err(reason) => {
            sink.report(node.place, "bad-url", reason, "for example `https://api.example.com/v3`");
            None
        }
    }
}

/// Scheme and host mean the same in any case (RFC 3986, section 6.2.2.1); whoever looks at them again shouldn't have to know that.
fn in_small_letters(url: &str) -> String {
    let path = url.find("://").and_then(|end| url[end + 3..].find('/').map(|at| end + 3 + at));
    let (origin, path) = url.split_at(path.unwrap_or(url.len()));
    origin.to_ascii_lowercase() + path
}

/// # Errors
/// What is wrong, without the address.
pub(crate) fn check_url(written: &str, scheme: Scheme) -> Result<(), &'static str> {
    if !written.bytes().all(|byte| byte.is_ascii_graphic()) || written.contains(['\\', '#', '?']) {
        return Err("an address has no spaces, no query and no fragment here");
    }
    let uri: http::Uri = written.parse().map_err(|_| "this is no absolute address")?;
    let (Some(found), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err("this is no absolute address") };
    if authority.as_str().contains('@') {
        return Err("an address holds no user and no password");
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') {
        return Err("this is no absolute address");
    }
    if uri.path().split('/').any(|part| matches!(part, "." | "..")) || uri.path().contains("//") {
        return Err("the path of an address has no `.`, `..` or empty part");
    }
    match (found, scheme) {
        ("https", _) => Ok(()),
        ("http", Scheme::HttpsOrLoopback) if is_loopback(authority.host()) => Ok(()),
        ("http", Scheme::HttpsOrLoopback) => Err("plain http is accepted for loopback addresses only"),
        _ => Err("an address begins with https:// here"),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A field that only has one supported value.
pub(crate) fn only(node: &Node, sink: &Sink<'_>, supported: &[&str], what: &str) {
    let Some(written) = text(node, sink) else { return };
    if !supported.contains(&written) {
        unsupported(sink, node.place, what);
    }
}
