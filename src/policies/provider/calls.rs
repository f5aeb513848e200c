//! The calls of a description: what is sent, who signs it, what the answers mean.

use std::collections::BTreeMap;

use crate::domain::ids::FieldName;
use crate::domain::provider::{
    Authentication, Body, Call, Calls, Create, FieldClass, Lifecycle, List, Meaning, Method, Paging, Rule, Signature, Template,
};

use super::super::problem::Sink;
use super::super::reader::{Fields, boolean, choice, entries, list, text, unsupported, whole_number};
use super::super::tree::{Kind, Node};
use super::request::{self, CallKind, Place, pointer};
use super::{Scope, lifecycle};

pub(in super::super) const RULES_MAX: usize = 64;

pub(in super::super) const METHODS: [(&str, Method); 4] =
    [("GET", Method::Get), ("POST", Method::Post), ("PUT", Method::Put), ("DELETE", Method::Delete)];

pub(in super::super) const MEANINGS: [(&str, Meaning); 9] = [
    ("works", Meaning::Works),
    ("narrow", Meaning::Narrow),
    ("dead", Meaning::Dead),
    ("wrong-environment", Meaning::WrongEnvironment),
    ("refused", Meaning::Refused),
    ("gone", Meaning::Gone),
    ("full", Meaning::Full),
    ("throttled", Meaning::Throttled),
    ("inconclusive", Meaning::Inconclusive),
];

pub(super) fn read_calls(node: &Node, scope: &Scope<'_>, lifecycle: Option<Lifecycle>) -> Calls {
    let Some(fields) = Fields::of(node, scope.sink) else { return Calls::default() };
    let has_token = fields.has("token");
    let call = |name, kind| fields.get(name).and_then(|node| read_plain(node, scope, kind, has_token));
    let calls = Calls {
        token: call("token", CallKind::Token),
        probe: call("probe", CallKind::Probe),
        create: fields.get("create").and_then(|node| read_create(node, scope, has_token, lifecycle)),
        list: fields.get("list").and_then(|node| read_list(node, scope, has_token)),
        disable: call("disable", CallKind::Disable),
        revoke: call("revoke", CallKind::Revoke),
        promote: call("promote", CallKind::Promote),
        cancel: call("cancel", CallKind::Cancel),
    };
    lifecycle::check_calls(&fields, &calls, lifecycle);
    fields.done();
    calls
}

/// How a credential of this provider signs for those that it administers: with its own fields, or a token of its own.
pub(super) fn read_signs(node: &Node, scope: &Scope<'_>, has_token: bool) -> Option<Signature> {
    let sink = scope.sink;
    if let Kind::Map(_) = node.kind {
        let fields = Fields::of(node, sink)?;
        let (basic, bearer) = (fields.get("basic"), fields.get("bearer"));
        fields.done();
        return match (basic, bearer) {
            (Some(basic), None) => read_basic(basic, scope).map(|(username, password)| Signature::Basic { username, password }),
            (None, Some(bearer)) => Some(Signature::Bearer { field: request::field(bearer, scope, &ACTING)? }),
            _ => bad_signature(node, sink),
        };
    }
    match &node.kind {
        Kind::Text(word) if word == "token" => {
            if !has_token {
                no_token_call(node, sink);
            }
            Some(Signature::Token)
        }
        _ => bad_signature(node, sink),
    }
}

fn bad_signature<T>(node: &Node, sink: &Sink<'_>) -> Option<T> {
    let help = "`{bearer: FIELD}`, `{basic: {username: FIELD, password: FIELD}}` or `token`";
    sink.report(node.place, "bad-authentication", "this is no way to sign for others", help);
    None
}

/// The classes of fields that sign.
const ACTING: [FieldClass; 2] = [FieldClass::Public, FieldClass::Secret];

fn read_basic(node: &Node, scope: &Scope<'_>) -> Option<(FieldName, FieldName)> {
    let fields = Fields::of(node, scope.sink)?;
    let part = |name, help| fields.need(name, help).and_then(|node| request::field(node, scope, &ACTING));
    let username = part("username", "the field that is the user's name");
    let password = part("password", "the field that is the password");
    fields.done();
    Some((username?, password?))
}

fn read_plain(node: &Node, scope: &Scope<'_>, kind: CallKind, has_token: bool) -> Option<Call> {
    let fields = Fields::of(node, scope.sink)?;
    let call = read_call(&fields, scope, kind, has_token);
    fields.done();
    call
}

/// What all calls share; the caller reads the rest and then ends the mapping.
fn read_call(fields: &Fields<'_>, scope: &Scope<'_>, kind: CallKind, has_token: bool) -> Option<Call> {
    let sink = scope.sink;
    let method = fields.need("method", "GET, POST, PUT or DELETE").and_then(|node| choice(node, sink, &METHODS));
    let method = method.map(|method| method.value);
    let target = read_target(fields, scope, kind);
    let query = fields.get("query").map(|node| request::pairs(node, scope, Place::Address(kind))).unwrap_or_default();
    let headers = fields.get("headers").map(|node| request::headers(node, scope, kind)).unwrap_or_default();
    let authentication = fields
        .need("authentication", "`basic`, `bearer`, `token`, `management`, `administrator` or `open`")
        .and_then(|node| read_authentication(node, scope, kind, has_token));
    let body = fields.get("body").map_or(Some(Body::None), |node| request::body(node, scope, kind, method));
    let rules = fields.get("rules").map(|node| read_rules(node, sink)).unwrap_or_default();
    let access_token = (kind == CallKind::Token)
        .then(|| fields.need("accessToken", "where the access token stands, for example `/access_token`"))
        .flatten()
        .and_then(|node| pointer(node, sink));
    let proves_environment = matches!(kind, CallKind::Token | CallKind::Probe)
        .then(|| fields.get("provesEnvironment"))
        .flatten()
        .and_then(|node| boolean(node, sink))
        .unwrap_or(false);
    if kind == CallKind::Probe {
        read_harmless(fields);
    }
    let (path, url_field) = target?;
    let authentication = authentication?;
    Some(Call { method: method?, path, url_field, query, headers, authentication, body: body?, rules, access_token, proves_environment })
}

/// Whoever describes a probe says that it moves no money and locks no account: nothing else can tell.
fn read_harmless(fields: &Fields<'_>) {
    let sink = fields.sink;
    let help = "`harmless: true`, if the call moves no money and counts as no failed login; else leave the probe out";
    let Some(node) = fields.need("harmless", help) else { return };
    if boolean(node, sink) == Some(false) {
        sink.report(node.place, "harmful-probe", "a probe that does harm is never made", "describe another call, or leave the probe out");
    }
    // The other environment's keys are tried at this one's address by nobody, as long as nothing makes sure that they may be.
    if let Some(node) = fields.get("otherHost")
        && boolean(node, sink) == Some(true)
    {
        unsupported(sink, node.place, "otherHost: true");
    }
}

/// `path`, or `urlField` for a management field that holds the whole address.
fn read_target(fields: &Fields<'_>, scope: &Scope<'_>, kind: CallKind) -> Option<(Template, Option<FieldName>)> {
    let sink = scope.sink;
    match (fields.get("path"), fields.get("urlField")) {
        (Some(path), None) => Some((read_path(path, scope, kind)?, None)),
        (None, Some(field)) if kind.acts_on_order() => unsigned_by_key(field, sink),
        (None, Some(field)) => Some((Template::literal(""), Some(request::field(field, scope, &[FieldClass::Management])?))),
        (None, None) if fields.has("path") || fields.has("urlField") => None,
        (None, None) => {
            sink.report(fields.place, "missing-field", "`path` is missing", "for example `path: /auth/credentials`");
            None
        }
        (Some(_), Some(field)) => {
            sink.report(field.place, "bad-value", "`path` and `urlField` are both given", "leave one of them out");
            None
        }
    }
}

fn read_path(node: &Node, scope: &Scope<'_>, kind: CallKind) -> Option<Template> {
    let written = text(node, scope.sink)?;
    let clean = written.starts_with('/')
        && written.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\' | b'%'))
        && !written.contains("//")
        && !written.split('/').any(|part| matches!(part, "." | ".."));
    if !clean {
        let message = "a path begins with `/` and has no query, no escapes, no `.`, `..` or empty part";
        scope.sink.report(node.place, "bad-path", message, "for example `/auth/credentials/{key_id}`; the query stands in `query`");
        return None;
    }
    request::template(node, written, scope, Place::Address(kind))
}

fn read_authentication(node: &Node, scope: &Scope<'_>, kind: CallKind, has_token: bool) -> Option<Authentication> {
    let sink = scope.sink;
    if let Kind::Map(_) = node.kind {
        let fields = Fields::of(node, sink)?;
        let (basic, bearer, management) = (fields.get("basic"), fields.get("bearer"), fields.get("management"));
        fields.done();
        return match (basic, bearer, management) {
            (Some(basic), None, None) => read_basic(basic, scope).map(|(username, password)| Authentication::Basic { username, password }),
            (None, Some(bearer), None) => Some(Authentication::Bearer { field: request::field(bearer, scope, &ACTING)? }),
            (None, None, Some(_)) if kind.acts_on_order() => unsigned_by_key(node, sink),
            (None, None, Some(field)) => {
                Some(Authentication::Management { field: request::field(field, scope, &[FieldClass::Management])? })
            }
            _ => bad_authentication(node, sink),
        };
    }
    match &node.kind {
        Kind::Text(word) if kind.acts_on_order() && matches!(word.as_str(), "open" | "administrator") => unsigned_by_key(node, sink),
        Kind::Text(word) if word == "open" => Some(Authentication::Open),
        Kind::Text(word) if word == "token" => {
            if kind == CallKind::Token || !has_token {
                no_token_call(node, sink);
            }
            Some(Authentication::Token)
        }
        Kind::Text(word) if word == "administrator" => {
            if matches!(kind, CallKind::Token | CallKind::Probe) {
                let help = "write `basic`, `bearer` or `token`; an administrator signs `create`, `list`, `disable` and `revoke`";
                sink.report(node.place, "bad-authentication", "whether a key lives is asked with the key itself", help);
            }
            Some(Authentication::Administrator)
        }
        _ => bad_authentication(node, sink),
    }
}

/// The primary secret itself, so that a call which arrives late ends nothing else.
fn unsigned_by_key<T>(node: &Node, sink: &Sink<'_>) -> Option<T> {
    let message = "which secret this call ends follows from their order, so the primary one itself signs it";
    sink.report(node.place, "bad-authentication", message, "write `basic`, `bearer` or `token`");
    None
}

fn no_token_call(node: &Node, sink: &Sink<'_>) {
    let help = "describe `calls.token`, which authenticates with `basic` or `bearer`";
    sink.report(node.place, "no-token-call", "there is no token call to fetch a token with", help);
}

fn bad_authentication<T>(node: &Node, sink: &Sink<'_>) -> Option<T> {
    let help =
        "`{basic: {username: FIELD, password: FIELD}}`, `{bearer: FIELD}`, `{management: FIELD}`, `token`, `administrator` or `open`";
    sink.report(node.place, "bad-authentication", "this is no authentication", help);
    None
}

fn read_rules(node: &Node, sink: &Sink<'_>) -> Vec<Rule> {
    let items = list(node, sink).unwrap_or_default();
    if items.len() > RULES_MAX {
        sink.report(node.place, "too-many", format!("there are more than {RULES_MAX} rules"), "say it with fewer");
    }
    items.iter().take(RULES_MAX).filter_map(|item| read_rule(item, sink)).collect()
}

fn read_rule(node: &Node, sink: &Sink<'_>) -> Option<Rule> {
    let fields = Fields::of(node, sink)?;
    let statuses = fields.get("status").map(|node| read_statuses(node, sink)).unwrap_or_default();
    let equals = fields.get("equals").and_then(|node| read_equals(node, sink));
    let means = fields.need("means", "for example `means: works`").and_then(|node| choice(node, sink, &MEANINGS));
    fields.done();
    Some(Rule { statuses, equals, meaning: means?.value })
}

fn read_statuses(node: &Node, sink: &Sink<'_>) -> Vec<u16> {
    let items = list(node, sink).unwrap_or_default();
    if matches!(&node.kind, Kind::List(items) if items.is_empty()) {
        sink.report(node.place, "bad-value", "this fits no answer", "name a status, or leave `status` out for a rule that fits all");
    }
    let read = items.iter().filter_map(|item| whole_number(item, sink, 100..=599).and_then(|status| u16::try_from(status).ok()));
    read.collect()
}

fn read_equals(node: &Node, sink: &Sink<'_>) -> Option<(String, serde_json::Value)> {
    let fields = Fields::of(node, sink)?;
    let at = fields.need("pointer", "for example `/error`").and_then(|node| pointer(node, sink));
    let value = fields.need("value", "what stands there").and_then(|node| request::literal(node, sink));
    fields.done();
    Some((at?, value?))
}

fn read_create(node: &Node, scope: &Scope<'_>, has_token: bool, lifecycle: Option<Lifecycle>) -> Option<Create> {
    let sink = scope.sink;
    let fields = Fields::of(node, sink)?;
    let call = read_call(&fields, scope, CallKind::Create, has_token);
    let headers = fields.get("idempotencyHeaders").map(|node| {
        let items = list(node, sink).unwrap_or_default();
        items.iter().filter_map(|item| request::header_name(item, sink)).collect()
    });
    let key_id = lifecycle::read_key_id(&fields, lifecycle);
    let filled = fields.need("fields", "where each field of the new key stands").map(|node| read_filled(node, scope));
    let at = |name| fields.get(name).and_then(|node| pointer(node, sink));
    let (issued_at, expires_at) = (at("issuedAt"), at("expiresAt"));
    let previous_expires_at = lifecycle::read_previous_end(&fields, lifecycle);
    fields.done();
    let idempotency_headers = headers.unwrap_or_default();
    Some(Create { call: call?, idempotency_headers, key_id: key_id?, fields: filled?, issued_at, expires_at, previous_expires_at })
}

fn read_filled(node: &Node, scope: &Scope<'_>) -> BTreeMap<FieldName, String> {
    let sink = scope.sink;
    let mut filled = BTreeMap::new();
    let mut secret = false;
    for (key, node) in entries(node, sink).unwrap_or_default() {
        let name = key.text.parse::<FieldName>().ok().filter(|name| scope.fields.contains_key(name));
        let Some(name) = name else {
            let known: Vec<&str> = scope.fields.keys().map(FieldName::as_str).collect();
            let help = format!("described are: {}", known.join(", "));
            sink.report(key.place, "undeclared-field", "no field of this name is described", help);
            continue;
        };
        secret |= scope.fields.get(&name) == Some(&FieldClass::Secret);
        if let Some(pointer) = pointer(node, sink) {
            filled.insert(name, pointer);
        }
    }
    if !secret && !scope.fields.is_empty() {
        let help = "say where the new secret stands in the answer: without it a new key would have the old one's";
        sink.report(node.place, "no-new-secret", "no secret field is filled from the answer", help);
    }
    filled
}

fn read_list(node: &Node, scope: &Scope<'_>, has_token: bool) -> Option<List> {
    let sink = scope.sink;
    let fields = Fields::of(node, sink)?;
    let call = read_call(&fields, scope, CallKind::List, has_token);
    let needed = |name, help: &str| fields.need(name, help).and_then(|node| pointer(node, sink));
    let items = needed("items", "where the array of keys stands, for example `/data`; `\"\"` for the whole answer");
    let key_id = needed("keyId", "where the id of a key stands within an item, for example `/client_id`");
    let at = |name| fields.get(name).and_then(|node| pointer(node, sink));
    let (marker, issued_at, expires_at) = (at("marker"), at("issuedAt"), at("expiresAt"));
    let alive = fields.get("alive").map(|node| read_alive(node, sink));
    let paging = fields.get("paging").map(|node| read_paging(node, sink));
    fields.done();
    Some(List {
        call: call?,
        items: items?,
        key_id: key_id?,
        marker,
        alive: alive.flatten(),
        issued_at,
        expires_at,
        paging: paging.flatten(),
    })
}

fn read_alive(node: &Node, sink: &Sink<'_>) -> Option<(String, Vec<String>)> {
    let fields = Fields::of(node, sink)?;
    let at = fields.need("pointer", "for example `/status`").and_then(|node| pointer(node, sink));
    let values = fields.need("values", "the texts that mean that a key lives, for example `[active]`");
    fields.done();
    let items = list(values?, sink)?;
    if items.is_empty() {
        sink.report(values?.place, "bad-value", "no key would ever live", "name the texts that mean that a key lives");
    }
    Some((at?, items.iter().filter_map(|item| text(item, sink).map(str::to_owned)).collect()))
}

fn read_paging(node: &Node, sink: &Sink<'_>) -> Option<Paging> {
    let fields = Fields::of(node, sink)?;
    let more = fields.need("more", "where it says whether there is more, for example `/has_more`").and_then(|node| pointer(node, sink));
    let parameter = fields.need("parameter", "the query parameter of the cursor").and_then(|node| text(node, sink));
    let cursors = fields.need("cursor", "where the cursor stands in an item, for example `/id`, or a list of what it may be");
    let cursors = cursors.map(|node| read_cursors(node, sink));
    fields.done();
    Some(Paging { more: more?, parameter: parameter?.to_owned(), cursors: cursors?? })
}

/// One pointer, or several where the documentation leaves open which it is.
fn read_cursors(node: &Node, sink: &Sink<'_>) -> Option<Vec<String>> {
    match &node.kind {
        Kind::List(items) if items.is_empty() => {
            sink.report(node.place, "bad-value", "there is no cursor in it", "name what stands in an item, for example `/id`");
            None
        }
        Kind::List(items) => items.iter().map(|item| pointer(item, sink)).collect(),
        _ => Some(vec![pointer(node, sink)?]),
    }
}
