//! What the server answers: an object, or a `Status` with the reason, the message and the causes that the documentation names.

use serde_json::{Value, json};

use super::kinds::Kind;

#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) body: Value,
    /// Seconds.
    pub(super) retry_after: Option<u64>,
}

/// An error is an answer as well.
pub(super) type Outcome = Result<Reply, Reply>;

impl Reply {
    pub(super) fn ok(body: Value) -> Self {
        Self { code: 200, body, retry_after: None }
    }

    pub(super) fn created(body: Value) -> Self {
        Self { code: 201, ..Self::ok(body) }
    }
}

pub(super) fn failure(code: u16, reason: &str, message: String, details: Value) -> Reply {
    let mut body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code,
    });
    if !details.is_null() {
        body["details"] = details;
    }
    Reply { code, body, retry_after: None }
}

/// `leases.coordination.k8s.io`.
pub(super) fn qualified(kind: &Kind) -> String {
    if kind.group.is_empty() { kind.plural.to_owned() } else { format!("{}.{}", kind.plural, kind.group) }
}

/// In details, `kind` is the resource but for errors of validation.
fn details(kind: &Kind, name: &str) -> Value {
    let mut details = json!({"name": name, "kind": kind.plural});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    details
}

pub(super) fn not_found(kind: &Kind, name: &str) -> Reply {
    failure(404, "NotFound", format!("{} \"{name}\" not found", qualified(kind)), details(kind, name))
}

pub(super) fn no_such_path() -> Reply {
    failure(404, "NotFound", "the server could not find the requested resource".to_owned(), json!({}))
}

pub(super) fn already_exists(kind: &Kind, name: &str) -> Reply {
    failure(409, "AlreadyExists", format!("{} \"{name}\" already exists", qualified(kind)), details(kind, name))
}

pub(super) fn conflict(kind: &Kind, name: &str, why: &str) -> Reply {
    let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(kind));
    failure(409, "Conflict", message, details(kind, name))
}

pub(super) fn modified(kind: &Kind, name: &str) -> Reply {
    conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again")
}

pub(super) fn bad_request(message: impl Into<String>) -> Reply {
    failure(400, "BadRequest", message.into(), Value::Null)
}

/// One cause of a refused object: reason, field, message.
pub(super) struct Cause(pub(super) &'static str, pub(super) String, pub(super) String);

pub(super) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Reply {
    let listed: Vec<String> = causes.iter().map(|Cause(_, field, message)| format!("{field}: {message}")).collect();
    let message = match &listed[..] {
        [one] => format!("{} \"{name}\" is invalid: {one}", kind.kind),
        all => format!("{} \"{name}\" is invalid: [{}]", kind.kind, all.join(", ")),
    };
    let causes: Vec<Value> =
        causes.iter().map(|Cause(reason, field, message)| json!({"reason": reason, "field": field, "message": message})).collect();
    let mut details = json!({"name": name, "kind": kind.kind, "causes": causes});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    failure(422, "Invalid", message, details)
}

/// What server-side apply says of fields that others have.
pub(super) fn owned(causes: &[(String, String)]) -> Reply {
    let listed: Vec<Value> = causes
        .iter()
        .map(|(manager, field)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field}))
        .collect();
    let count = causes.len();
    let fields: Vec<&str> = causes.iter().map(|(_, field)| field.as_str()).collect();
    let noun = if count == 1 { "conflict" } else { "conflicts" };
    let with = causes.first().map_or("", |(manager, _)| manager.as_str());
    let message = format!("Apply failed with {count} {noun}: {noun} with {with}: {}", fields.join(", "));
    failure(409, "Conflict", message, json!({"causes": listed}))
}

pub(super) fn unauthorized() -> Reply {
    failure(401, "Unauthorized", "Unauthorized".to_owned(), Value::Null)
}

pub(super) fn not_acceptable() -> Reply {
    let message = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    failure(406, "NotAcceptable", message.to_owned(), Value::Null)
}

/// The status of a fault, as the server's own flow control or a proxy before it would answer: without a word of JSON for 429.
pub(super) fn of_fault(code: u16, retry_after: Option<u64>) -> Reply {
    let body = match code {
        429 => json!("Too many requests, please try again later."),
        401 => unauthorized().body,
        500 => failure(500, "InternalError", "Internal error occurred: etcdserver: request timed out".to_owned(), Value::Null).body,
        503 => failure(503, "ServiceUnavailable", "the server is currently unable to handle the request".to_owned(), Value::Null).body,
        504 => failure(504, "Timeout", "Timeout: request did not complete within requested timeout".to_owned(), Value::Null).body,
        409 => failure(409, "Conflict", "Operation cannot be fulfilled: the object has been modified".to_owned(), Value::Null).body,
        _ => json!("the fault of a test"),
    };
    Reply { code, body, retry_after }
}
