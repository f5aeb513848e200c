//! A request, taken apart: which kind, where, what is to be done with it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Call;
use super::kinds::{self, Kind};
use super::status::{Reply, bad_request, failure, no_such_path};

#[derive(Debug)]
pub(super) enum Target {
    Kind(&'static Kind),
    TokenReview,
    AccessReview,
}

#[derive(Debug)]
pub(super) struct Ask {
    pub(super) verb: &'static str,
    pub(super) target: Target,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) subresource: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) content_type: String,
    /// Who writes, where the request doesn't name a field manager.
    pub(super) agent: String,
    pub(super) body: Vec<u8>,
}

/// The documented limit of a request's body, in bytes.
const BODY_BYTES_MAX: usize = 3 << 20;

impl Ask {
    pub(super) fn parse(head: &::http::request::Parts, body: Vec<u8>) -> Result<Ask, Reply> {
        let query = pairs(head.uri.query().unwrap_or_default());
        let header = |name| head.headers.get(name).and_then(|value: &::http::HeaderValue| value.to_str().ok()).unwrap_or_default();
        let agent = header("user-agent").split('/').next().unwrap_or_default().to_owned();
        let content_type = header("content-type").split(';').next().unwrap_or_default().trim().to_owned();
        let parts: Vec<String> = head.uri.path().trim_matches('/').split('/').map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match &parts[..] {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(no_such_path()),
        };
        if body.len() > BODY_BYTES_MAX {
            let message = format!("Request entity too large: limit is {BODY_BYTES_MAX}");
            return Err(failure(413, "RequestEntityTooLarge", message, Value::Null));
        }
        let (namespace, plural, rest) = match rest {
            // The namespace itself, or something in it.
            ["namespaces", namespace, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => (*namespace, *plural, rest),
            [plural, rest @ ..] => ("", *plural, rest),
            [] => return Err(no_such_path()),
        };
        let (name, subresource) = match rest {
            [] => ("", ""),
            [name] => (*name, ""),
            [name, subresource] => (*name, *subresource),
            _ => return Err(no_such_path()),
        };
        let target = match (group, version, plural) {
            ("authentication.k8s.io", "v1", "tokenreviews") => Target::TokenReview,
            ("authorization.k8s.io", "v1", "selfsubjectaccessreviews") => Target::AccessReview,
            _ => Target::Kind(kinds::find(group, version, plural).ok_or_else(no_such_path)?),
        };
        let is_watch = query.get("watch").is_some_and(|value| value != "false" && value != "0");
        let verb = match (head.method.as_str(), name.is_empty()) {
            ("GET", true) if is_watch => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("POST", true) => "create",
            ("POST", false) if !subresource.is_empty() => "create",
            ("PUT", false) => "update",
            ("PATCH", false) => "patch",
            ("DELETE", false) => "delete",
            ("DELETE", true) => "deletecollection",
            _ => {
                return Err(failure(
                    405,
                    "MethodNotAllowed",
                    "the server does not allow this method on the requested resource".to_owned(),
                    Value::Null,
                ));
            }
        };
        let (namespace, name, subresource) = (namespace.to_owned(), name.to_owned(), subresource.to_owned());
        Ok(Ask { verb, target, namespace, name, subresource, query, content_type, agent, body })
    }

    pub(super) fn call(&self, user: &str) -> Call {
        let (group, plural) = match &self.target {
            Target::Kind(kind) => (kind.group, kind.plural),
            Target::TokenReview => ("authentication.k8s.io", "tokenreviews"),
            Target::AccessReview => ("authorization.k8s.io", "selfsubjectaccessreviews"),
        };
        let resource = if self.subresource.is_empty() { plural.to_owned() } else { format!("{plural}/{}", self.subresource) };
        Call {
            verb: self.verb.to_owned(),
            group: group.to_owned(),
            resource,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            user: user.to_owned(),
        }
    }

    pub(super) fn query(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub(super) fn says(&self, name: &str) -> bool {
        matches!(self.query(name), "true" | "1")
    }

    /// JSON, or YAML where it may be that.
    pub(super) fn object(&self) -> Result<Value, Reply> {
        let is_yaml = self.content_type.contains("yaml");
        let text = std::str::from_utf8(&self.body).map_err(|_| bad_request("the object isn't UTF-8"))?;
        let read: Option<Value> =
            serde_json::from_str(text).ok().or_else(|| if is_yaml { serde_saphyr::from_str(text).ok() } else { None });
        read.filter(Value::is_object).ok_or_else(|| bad_request("the object provided is unrecognized (must be of type Object)"))
    }

    /// Who gets the fields of this write.
    pub(super) fn manager(&self) -> String {
        let named = self.query("fieldManager");
        if !named.is_empty() {
            return named.to_owned();
        }
        if self.agent.is_empty() { "unknown".to_owned() } else { self.agent.clone() }
    }
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(&value.replace('+', " ")))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match pair.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
