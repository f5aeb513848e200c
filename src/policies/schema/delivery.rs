//! The schema of `delivery` of an Application document.

use serde_json::{Map, Value, json};

use super::super::delivery::SIGNALS;
use super::{described, object, one_of, windows, words};
use crate::domain::delivery::{KubernetesDelivery, PATH_BYTES_MAX, WebhookDelivery};
use crate::domain::ids::ObjectName;
use crate::domain::restarts::{PER_HOUR_MAX, WORKLOADS_MAX, WorkloadKind};

pub(super) fn delivery() -> Value {
    let delivery = object(&[], json!({"file": file(), "kubernetes": kubernetes(), "webhook": webhook()}));
    described("How it is told of changes beside the stream, which every application has.", delivery)
}

fn path(about: &str) -> Value {
    json!({"description": about, "type": "string", "pattern": r"^(/[^/\x00-\x1f\x7f]{1,255})+$", "not": {"pattern": r"/\.\.?(/|$)"}, "maxLength": PATH_BYTES_MAX})
}

fn file() -> Value {
    let id = json!({"type": "integer", "minimum": 0, "maximum": u32::MAX - 1});
    let signal = object(
        &["pidFile", "name"],
        json!({"pidFile": path("Holds the number of the process."), "name": described("What it is sent.", words(&SIGNALS))}),
    );
    let file = object(
        &["directory"],
        json!({
            "directory": path("Where the files go: absolute, and this application's alone."),
            "mode": {"description": "Of each file. [0400]", "enum": ["0400", "0440", "0600", "0640"]},
            "owner": described("Numeric; the daemon needs the right to give files away. [the daemon's own]", id.clone()),
            "group": described("Numeric. [the daemon's own]", id),
            "signal": described("Who is told when the files were replaced. [nobody]", signal),
        }),
    );
    described("A folder of files, replaced as a whole.", file)
}

fn kubernetes() -> Value {
    let name = |longest: usize| json!({"type": ["string", "integer"], "pattern": ObjectName::PATTERN, "maxLength": longest, "minimum": 0});
    let kinds: Map<String, Value> = WorkloadKind::ALL.into_iter().map(|kind| (kind.as_str().to_owned(), name(253))).collect();
    let workload = one_of("A workload that uses the Secret.", Value::Object(kinds));
    let mut kubernetes = object(
        &["secret"],
        json!({
            "secret": described("The Secret that the values are written to: this application's alone.", name(KubernetesDelivery::SECRET_LENGTH_MAX)),
            "namespace": described("Where it lies, and the workloads. [that of the application's identity, if it has one]", json!({"$ref": "#/$defs/name"})),
            "restart": {"description": "What is restarted when the Secret has changed. [nothing]", "type": "array", "minItems": 1,
                "maxItems": WORKLOADS_MAX, "uniqueItems": true, "items": workload},
            "windows": windows("When restarts may begin. [always]"),
            "batch": {"description": "So many workloads roll at a time. [1]", "type": "integer", "minimum": 1, "maximum": WORKLOADS_MAX},
            "perHour": {"description": "So many restarts begin within an hour. [6]", "type": "integer", "minimum": 1, "maximum": PER_HOUR_MAX},
        }),
    );
    kubernetes["dependentRequired"] = json!({"windows": ["restart"], "batch": ["restart"], "perHour": ["restart"]});
    described("A Secret in Kubernetes, and rollout restarts.", kubernetes)
}

fn webhook() -> Value {
    let secret = object(&["file"], json!({"file": path("Holds `whsec_` and base64, or 24 bytes at least.")}));
    let webhook = object(
        &["url", "secrets"],
        json!({
            "url": {"description": "Without a query. HTTPS; plain HTTP for loopback, with `allowPrivate`.", "type": "string",
                "pattern": r"^[Hh][Tt][Tt][Pp][Ss]?://[!-\x22$->@-\x5b\x5d-~]+$", "not": {"pattern": "^[^:]*://([/:]|[^/]*@)"}},
            "secrets": {"description": "What signs; two while it is being replaced.", "type": "array", "minItems": 1,
                "maxItems": WebhookDelivery::SECRETS_MAX, "uniqueItems": true, "items": secret},
            "allowPrivate": {"description": "Loopback, private and link-local addresses may be called, too. [false]", "type": "boolean"},
        }),
    );
    described("Standard Webhooks: a signed message that names what changed, and holds no value.", webhook)
}
