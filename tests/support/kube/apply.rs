//! Server-side apply: what an applier says is merged, what he no longer says is taken away, and what others have isn't touched.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fields::{Path, Step, difference, leaves, merge, remove, shown};
use super::kinds::Kind;
use super::managers::{self, Manager, Operation};
use super::status::{Reply, owned};

/// The object after it. `config` is what was applied, with a name, without the list of managers.
pub(super) fn applied(
    kind: &Kind,
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    subresource: &str,
    force: bool,
) -> Result<Value, Reply> {
    let empty = json!({});
    let before = live.unwrap_or(&empty);
    let mut object = before.clone();
    merge(&mut object, &without_server_fields(config));
    let mut own = Manager::new(kind, manager, Operation::Apply, subresource);
    own.fields = leaves(config).into_keys().collect();
    let mut all = managers::of(live);

    let (changed, _) = difference(before, &object);
    let mut conflicts = Vec::new();
    for other in all.iter_mut().filter(|other| !other.is(&own)) {
        let taken: BTreeSet<Path> = other.fields.intersection(&changed).cloned().collect();
        conflicts.extend(taken.iter().map(|path| (other.shown(), shown(path))));
        other.fields.retain(|path| !taken.contains(path));
    }
    if !conflicts.is_empty() && !force {
        return Err(owned(&conflicts));
    }

    if let Some(mine) = all.iter().find(|other| other.is(&own)).cloned() {
        let others: BTreeSet<&Path> = all.iter().filter(|other| !other.is(&own)).flat_map(|other| &other.fields).collect();
        // Fields before the items that they stand in.
        for path in mine.fields.difference(&own.fields).collect::<Vec<_>>().into_iter().rev() {
            let is_shared = others.iter().any(|other| other.starts_with(path));
            if !is_shared {
                remove(&mut object, path);
            }
        }
        if mine.fields == own.fields {
            own.time = mine.time;
        }
    }
    all.retain(|other| !other.is(&own));
    all.push(own);
    // Who owned a field of an item that is gone owns it no more.
    let present: BTreeSet<Path> = leaves(&object).into_keys().collect();
    all.iter_mut().for_each(|manager| manager.fields.retain(|path| is_present(path, &present)));
    managers::write(&mut object, &all);
    Ok(object)
}

fn is_present(path: &[Step], present: &BTreeSet<Path>) -> bool {
    present.iter().any(|leaf| leaf.starts_with(path))
}

fn without_server_fields(config: &Value) -> Value {
    let mut config = config.clone();
    if let Some(metadata) = config["metadata"].as_object_mut() {
        for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "namespace"] {
            metadata.remove(field);
        }
    }
    config
}
