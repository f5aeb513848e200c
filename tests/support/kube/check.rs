//! Which objects are refused: names, labels, sizes, and what must not change.

use base64::Engine as _;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::status::{Cause, Reply, bad_request, failure, invalid};

/// All values of a ConfigMap or Secret together, in bytes.
const DATA_BYTES_MAX: usize = 1 << 20;
/// What etcd takes of one object.
const OBJECT_BYTES_MAX: usize = 1536 << 10;
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";

/// As its type, with what only a write can say made into what is read.
pub(super) fn normal(kind: &Kind, mut object: Value) -> Result<Value, Reply> {
    for (field, expected) in [("apiVersion", kind.api_version()), ("kind", kind.kind.to_owned())] {
        let written = object[field].as_str().unwrap_or_default();
        if !written.is_empty() && written != expected {
            return Err(bad_request(format!("the object provided has {field} {written}, which does not match the expected {expected}")));
        }
        object[field] = json!(expected);
    }
    if kind.plural == "secrets" {
        let plain = object.as_object_mut().and_then(|fields| fields.remove("stringData"));
        for (name, value) in plain.as_ref().and_then(Value::as_object).into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            object["data"][name] = json!(base64::prelude::BASE64_STANDARD.encode(text));
        }
        if object["type"].as_str().unwrap_or_default().is_empty() {
            object["type"] = json!("Opaque");
        }
    }
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    (kind.typed)(object).map_err(|error| {
        bad_request(format!("{} in version \"{}\" cannot be handled as a {}: json: {error}", kind.kind, kind.version, kind.kind))
    })
}

pub(super) fn check(kind: &Kind, name: &str, object: &Value, existing: Option<&Value>) -> Result<(), Reply> {
    let mut causes = Vec::new();
    let is_name = if kind.plural == "namespaces" { is_label(name) } else { is_subdomain(name) || kind.group.starts_with("rbac.") };
    if !is_name {
        causes.push(Cause("FieldValueInvalid", "metadata.name".to_owned(), format!("Invalid value: \"{name}\": {SUBDOMAIN}")));
    }
    check_metadata(&object["metadata"], &mut causes);
    match kind.plural {
        "configmaps" | "secrets" => check_data(kind, object, existing, &mut causes),
        "leases" => check_lease(&object["spec"], &mut causes),
        "deployments" | "statefulsets" | "daemonsets" | "replicasets" => check_workload(&object["spec"], existing, &mut causes),
        _ => {}
    }
    if !causes.is_empty() {
        return Err(invalid(kind, name, &causes));
    }
    if object.to_string().len() > OBJECT_BYTES_MAX {
        return Err(failure(500, "InternalError", "etcdserver: request is too large".to_owned(), Value::Null));
    }
    Ok(())
}

fn check_metadata(metadata: &Value, causes: &mut Vec<Cause>) {
    for (name, value) in metadata["labels"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        if !is_qualified(name) || !(value.is_empty() || is_word(value)) {
            causes.push(Cause("FieldValueInvalid", "metadata.labels".to_owned(), format!("Invalid value: \"{name}: {value}\"")));
        }
    }
    let mut bytes = 0;
    for (name, value) in metadata["annotations"].as_object().into_iter().flatten() {
        bytes += name.len() + value.as_str().unwrap_or_default().len();
        if !is_qualified(&name.to_lowercase()) {
            causes.push(Cause("FieldValueInvalid", "metadata.annotations".to_owned(), format!("Invalid value: \"{name}\"")));
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        causes.push(too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX));
    }
}

fn too_long(field: &str, bytes_max: usize) -> Cause {
    Cause("FieldValueTooLong", field.to_owned(), format!("Too long: may not be more than {bytes_max} bytes"))
}

fn check_data(kind: &Kind, object: &Value, existing: Option<&Value>, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for (field, is_base64) in [("data", kind.plural == "secrets"), ("binaryData", true)] {
        for (name, value) in object[field].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let decoded = || base64::prelude::BASE64_STANDARD.decode(value).map_or(0, |bytes| bytes.len());
            bytes += if is_base64 { decoded() } else { value.len() };
            let is_key = name.len() <= 253 && !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if !is_key || name == "." || name.starts_with("..") {
                let message =
                    format!("Invalid value: \"{name}\": a valid config key must consist of alphanumeric characters, '-', '_' or '.'");
                causes.push(Cause("FieldValueInvalid", format!("{field}[{name}]"), message));
            }
        }
    }
    if bytes > DATA_BYTES_MAX {
        causes.push(too_long(if kind.plural == "secrets" { "data" } else { "[]" }, DATA_BYTES_MAX));
    }
    let Some(existing) = existing else { return };
    if existing["immutable"] == json!(true) && ["data", "binaryData", "immutable"].iter().any(|field| existing[*field] != object[*field]) {
        let message = "Forbidden: field is immutable when `immutable` is set".to_owned();
        causes.push(Cause("FieldValueForbidden", "data".to_owned(), message));
    }
    if kind.plural == "secrets" && existing["type"] != object["type"] {
        causes.push(Cause("FieldValueInvalid", "type".to_owned(), "Invalid value: field is immutable".to_owned()));
    }
}

fn check_lease(spec: &Value, causes: &mut Vec<Cause>) {
    let at_least = |field: &str, least: i64| spec[field].as_i64().is_some_and(|value| value < least);
    if at_least("leaseDurationSeconds", 1) {
        causes.push(Cause("FieldValueInvalid", "spec.leaseDurationSeconds".to_owned(), "Invalid value: must be greater than 0".to_owned()));
    }
    if at_least("leaseTransitions", 0) {
        let message = "Invalid value: must be greater than or equal to 0".to_owned();
        causes.push(Cause("FieldValueInvalid", "spec.leaseTransitions".to_owned(), message));
    }
}

fn check_workload(spec: &Value, existing: Option<&Value>, causes: &mut Vec<Cause>) {
    let labels = &spec["template"]["metadata"]["labels"];
    let wanted = spec["selector"]["matchLabels"].as_object();
    if wanted.is_some_and(|wanted| wanted.iter().any(|(name, value)| labels[name] != *value)) {
        let message = "Invalid value: `selector` does not match template `labels`".to_owned();
        causes.push(Cause("FieldValueInvalid", "spec.template.metadata.labels".to_owned(), message));
    }
    if existing.is_some_and(|existing| existing["spec"]["selector"] != spec["selector"]) {
        causes.push(Cause("FieldValueInvalid", "spec.selector".to_owned(), "Invalid value: field is immutable".to_owned()));
    }
}

fn is_label(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    let part = |part: &str| {
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !part.is_empty() && part.chars().all(inside) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

fn is_word(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ends = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63 && text.chars().all(inside) && text.starts_with(ends) && text.ends_with(ends)
}

/// A word, with a subdomain and a slash before it or not.
fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, word)) => is_subdomain(domain) && is_word(word),
        None => is_word(text),
    }
}
