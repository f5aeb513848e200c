//! `metadata.managedFields`: who has which fields of an object.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fields::{Path, difference, read, written};
use super::kinds::Kind;
use super::state::now;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Apply,
    Update,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    pub(super) subresource: String,
    pub(super) api_version: String,
    pub(super) time: String,
    pub(super) fields: BTreeSet<Path>,
}

impl Manager {
    pub(super) fn new(kind: &Kind, name: &str, operation: Operation, subresource: &str) -> Self {
        Self {
            name: name.to_owned(),
            operation,
            subresource: subresource.to_owned(),
            api_version: kind.api_version(),
            time: now(),
            fields: BTreeSet::new(),
        }
    }

    /// The same manager writes by another way as another one.
    pub(super) fn is(&self, other: &Manager) -> bool {
        self.name == other.name && self.operation == other.operation && self.subresource == other.subresource
    }

    /// As messages name it.
    pub(super) fn shown(&self) -> String {
        match (self.operation, self.subresource.as_str()) {
            (Operation::Apply, "") => format!("\"{}\"", self.name),
            (Operation::Apply, subresource) => format!("\"{}\" with subresource \"{subresource}\"", self.name),
            (Operation::Update, "") => format!("\"{}\" using {}", self.name, self.api_version),
            (Operation::Update, subresource) => format!("\"{}\" with subresource \"{subresource}\" using {}", self.name, self.api_version),
        }
    }
}

pub(super) fn of(object: Option<&Value>) -> Vec<Manager> {
    let entries = object.and_then(|object| object["metadata"]["managedFields"].as_array());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries
        .into_iter()
        .flatten()
        .map(|entry| Manager {
            name: text(&entry["manager"]),
            operation: if entry["operation"] == json!("Apply") { Operation::Apply } else { Operation::Update },
            subresource: text(&entry["subresource"]),
            api_version: text(&entry["apiVersion"]),
            time: text(&entry["time"]),
            fields: read(&entry["fieldsV1"]),
        })
        .collect()
}

pub(super) fn write(object: &mut Value, managers: &[Manager]) {
    let entries: Vec<Value> = managers
        .iter()
        .filter(|manager| !manager.fields.is_empty())
        .map(|manager| {
            let operation = if manager.operation == Operation::Apply { "Apply" } else { "Update" };
            let mut entry = json!({
                "manager": manager.name, "operation": operation, "apiVersion": manager.api_version, "time": manager.time,
                "fieldsType": "FieldsV1", "fieldsV1": written(&manager.fields),
            });
            if !manager.subresource.is_empty() {
                entry["subresource"] = json!(manager.subresource);
            }
            entry
        })
        .collect();
    object["metadata"]["managedFields"] = json!(entries);
}

/// Whoever writes by create, update or patch owns what he changed, and nobody else does from then on.
pub(super) fn record_update(kind: &Kind, existing: Option<&Value>, object: &mut Value, name: &str, subresource: &str) {
    let (changed, removed) = difference(existing.unwrap_or(&json!({})), object);
    let mut managers = of(existing);
    let mut own = Manager::new(kind, name, Operation::Update, subresource);
    if !managers.iter().any(|manager| manager.is(&own)) {
        managers.push(own.clone());
    }
    for manager in &mut managers {
        manager.fields.retain(|path| !removed.contains(path));
        if manager.is(&own) {
            if !changed.is_empty() {
                manager.time = std::mem::take(&mut own.time);
            }
            own.time.clone_from(&manager.time);
            manager.fields.extend(changed.iter().cloned());
        } else {
            manager.fields.retain(|path| !changed.contains(path));
        }
    }
    write(object, &managers);
}
