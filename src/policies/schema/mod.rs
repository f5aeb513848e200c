//! The JSON Schema of the documents, for editors. The readers beside it decide; this says as much of them as a schema can.
//!
//! What it leaves to the readers is what needs a second look: references, schedules, names of time zones, whether a
//! pattern is a regular expression. Tests hold it to every case that the readers are tested with.

mod delivery;
mod provider;

use serde_json::{Map, Value, json};

use super::credential::PATH_LABELS_MAX;
use super::rollout::REHEARSE;
use super::rotation::{CONFIRMATIONS, UNCONFIRMED, WINDOWS_MAX};
use super::values::ENVIRONMENTS;
use super::{API_VERSION, KINDS};
use crate::domain::ids::{Name, ObjectName};
use crate::domain::rollout::{STEP_INSTANCES_MAX, STEPS_MAX};

/// Draft 2020-12, of one document of any kind.
pub fn schema() -> Value {
    let kinds = KINDS.map(|(kind, _)| (kind, document(kind)));
    let references: Vec<Value> = kinds.iter().map(|(kind, _)| json!({"$ref": format!("#/$defs/{kind}")})).collect();
    let mut definitions: Map<String, Value> = kinds.into_iter().map(|(kind, document)| (kind.to_owned(), document)).collect();
    definitions.extend(shared().into_iter().chain(provider::shared()).map(|(name, schema)| (name.to_owned(), schema)));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Keywright policies",
        "description": "One document of kind Provider, RotationPolicy, Credential or Application.",
        "oneOf": references,
        "$defs": definitions,
    })
}

fn document(kind: &str) -> Value {
    let (about, spec) = match kind {
        "Provider" => ("Describes a provider; policies/providers/README.md is the reference.", provider::spec()),
        "RotationPolicy" => ("When and how secrets are rotated.", rotation()),
        "Credential" => ("A credential of one provider and one environment.", credential()),
        _ => ("Who reads which credentials. Default deny.", application()),
    };
    let head = object(
        &["apiVersion", "kind", "metadata", "spec"],
        json!({
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind},
            "metadata": object(&["name"], json!({"name": {"$ref": "#/$defs/name"}})),
            "spec": spec,
        }),
    );
    described(about, head)
}

/// What stands in several places.
fn shared() -> [(&'static str, Value); 5] {
    [
        // A plain number is the text that it is written as.
        (
            "name",
            json!({"description": "Lower-case letters, digits and hyphens, 63 at most.", "type": ["string", "integer"], "pattern": Name::PATTERN, "minimum": 0}),
        ),
        ("text", json!({"type": ["string", "number"]})),
        ("duration", json!({"description": "30s, 15m, 24h, 90d; never months.", "type": "string", "pattern": DURATION})),
        ("environment", words(&ENVIRONMENTS)),
        (
            "https",
            json!({"type": "string", "pattern": r"^[Hh][Tt][Tt][Pp][Ss]://[!-\x22$->@-\x5b\x5d-~]+$", "not": {"pattern": "^[^:]*://([/:]|[^/]*@)"}}),
        ),
    ]
}

/// From one second to ten years, as far as the number of digits tells.
const DURATION: &str = "^0*([1-9][0-9]{0,8}s|[1-9][0-9]{0,6}m|[1-9][0-9]{0,4}h|[1-9][0-9]{0,3}d)$";
/// 31 days at most.
const OPEN: &str = "^0*([1-9][0-9]{0,6}s|[1-9][0-9]{0,4}m|[1-9][0-9]{0,2}h|([1-9]|[12][0-9]|3[01])d)$";

fn windows(about: &str) -> Value {
    let window = object(
        &["cron", "timezone", "open"],
        json!({
            "cron": {"description": "Minute, hour, day of month, month, weekday by name: `0 9 * * Mon-Thu`.", "type": "string", "pattern": r"^\s*\S+(\s+\S+){4}\s*$"},
            "timezone": {"description": "A name of the IANA database: America/Sao_Paulo.", "type": "string"},
            "open": {"description": "For how long, 31d at most.", "type": "string", "pattern": OPEN},
        }),
    );
    json!({"description": about, "type": "array", "maxItems": WINDOWS_MAX, "items": window})
}

fn rotation() -> Value {
    let duration = json!({"$ref": "#/$defs/duration"});
    object(
        &["maxAge"],
        json!({
            "maxAge": described("The old version is dead by then; the start is planned backward from it.", duration.clone()),
            "overlap": {"description": "Old and new both work; `0s` only where the provider replaces the old secret at once. [min(24h, maxAge/10)]",
                "anyOf": [duration.clone(), {"type": "string", "pattern": "^0+[smhd]$"}]},
            "spread": {"description": "Moves a start earlier, by a hash, so that anniversaries don't meet. [min(7d, maxAge/10)]",
                "anyOf": [duration.clone(), {"type": "string", "pattern": "^0+[smhd]$"}]},
            "windows": windows("When keys may be made, promoted and revoked. [always]"),
            "confirmation": described("What counts as not using the old version any more. [required]", words(&CONFIRMATIONS)),
            "unconfirmed": described("What happens to a key that is still held at the end of the overlap. [hold]", words(&UNCONFIRMED)),
            "rehearse": described("Whether the sandbox twin must have rotated first. [none]", words(&REHEARSE)),
            "rollout": {"description": "In which steps instances get a new version: numbers, then percentages, growing to `100%`. [[100%]]",
                "type": "array", "minItems": 1, "maxItems": STEPS_MAX, "items": {"anyOf": [
                    {"type": "integer", "minimum": 1, "maximum": STEP_INSTANCES_MAX},
                    {"type": "string", "pattern": "^([1-9][0-9]?|100)%$"}]}},
            "verifyEvery": described("Looks again whether the current key is alive and in its environment. [24h]", duration),
        }),
    )
}

fn credential() -> Value {
    let name = json!({"$ref": "#/$defs/name"});
    let label = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
    let path = format!("^{label}(/{label}){{0,{}}}$", PATH_LABELS_MAX - 1);
    object(
        &["provider", "environment", "rotation"],
        json!({
            "provider": described("The name of a Provider.", name.clone()),
            "environment": {"$ref": "#/$defs/environment"},
            "rotation": described("The name of a RotationPolicy.", name.clone()),
            "path": {"description": "Where the store keeps it, below the environment. [the name]", "type": ["string", "integer"], "pattern": path, "minimum": 0},
            "variables": {"description": "Of the provider's description: one DNS label each.", "type": "object", "additionalProperties": name.clone()},
            "account": described("Slots and quota are shared within it. [<provider>-<environment>]", name.clone()),
            "administeredBy": described("The Credential that signs what this one's provider leaves to an administrator.", name.clone()),
            "twin": described("Its counterpart in the sandbox.", name),
            "acceptUndetermined": {"description": "Takes a production key whose environment nothing proves: say who decided, and why.",
                "type": ["string", "number"], "pattern": r"\S", "maxLength": 500},
            "requireGoLive": {"description": "No application is served it before its going-live list is passed; production only. [false]", "type": "boolean"},
        }),
    )
}

fn application() -> Value {
    let https = json!({"$ref": "#/$defs/https"});
    let token = object(
        &["sha256"],
        json!({"sha256": {"description": "The hash of the token, never the token itself; in quotes.", "type": "string", "pattern": "^[0-9a-f]{64}$"}}),
    );
    let unix = object(&["uid"], json!({"uid": {"type": "integer", "minimum": 0, "maximum": u32::MAX - 1}}));
    let kubernetes = object(
        &["namespace", "serviceAccount"],
        json!({
            "namespace": {"$ref": "#/$defs/name"},
            "serviceAccount": {"description": "Pods show a token of this account, for the audience of the configuration's `identities`.",
                "type": ["string", "number"], "pattern": ObjectName::PATTERN, "maxLength": 253, "minimum": 0},
        }),
    );
    object(
        &["environment", "credentials", "identity"],
        json!({
            "environment": {"$ref": "#/$defs/environment"},
            "credentials": {"description": "It reads these and no others.", "type": "array", "uniqueItems": true, "items": {"$ref": "#/$defs/name"}},
            "identity": one_of("How it shows who it is.", json!({"token": token, "unix": unix, "kubernetes": kubernetes})),
            "endpoints": object(&[], json!({"callback": https, "webhook": https})),
            "uptake": {"description": "When an instance takes a new version up. [stream]", "enum": ["stream", "start"]},
            "lease": described("How long an instance counts after its stream ended. [min(15m, overlap)]", json!({"$ref": "#/$defs/duration"})),
            "delivery": delivery::delivery(),
        }),
    )
}

/// A mapping with these fields and no others.
fn object(required: &[&str], properties: Value) -> Value {
    let mut object = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        object["required"] = required.into();
    }
    object
}

/// A mapping with one of these fields.
fn one_of(about: &str, properties: Value) -> Value {
    let mut object = object(&[], properties);
    object["minProperties"] = 1.into();
    object["maxProperties"] = 1.into();
    described(about, object)
}

fn words<T>(words: &[(&str, T)]) -> Value {
    json!({"enum": words.iter().map(|(word, _)| *word).collect::<Vec<_>>()})
}

/// The same with a description, which editors show.
fn described(about: &str, mut schema: Value) -> Value {
    schema["description"] = about.into();
    schema
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_is_the_one_that_was_reviewed() {
        crate::golden::assert("schema.json", &crate::golden::pretty(&super::schema()));
    }
}
