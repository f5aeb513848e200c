//! Objects as sets of fields: the leaves of a tree, where a list is one leaf, a set of values, or a map by the keys of its items.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Field(String),
    /// An item of a list by its keys, as JSON.
    Item(String),
    /// A value in a list that is a set, as JSON.
    Value(String),
}

pub(super) type Path = Vec<Step>;

/// How a list is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListKind {
    Atomic,
    Set,
    Map(&'static [&'static str]),
}

/// As the documented types mark their lists (`x-kubernetes-list-type`).
pub(super) fn list_kind(path: &[Step]) -> ListKind {
    let names: Vec<&str> = path.iter().filter_map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None }).collect();
    match &names[..] {
        [.., "containers" | "initContainers", "ports"] => ListKind::Map(&["containerPort", "protocol"]),
        [.., "containers" | "initContainers", "env"] => ListKind::Map(&["name"]),
        [.., "spec", "ports"] => ListKind::Map(&["port", "protocol"]),
        [.., "containers" | "initContainers" | "volumes" | "imagePullSecrets" | "secrets"] => ListKind::Map(&["name"]),
        [.., "volumeMounts"] => ListKind::Map(&["mountPath"]),
        [.., "topologySpreadConstraints"] => ListKind::Map(&["topologyKey", "whenUnsatisfiable"]),
        [.., "conditions"] => ListKind::Map(&["type"]),
        ["metadata", "ownerReferences"] => ListKind::Map(&["uid"]),
        ["metadata", "finalizers"] => ListKind::Set,
        _ => ListKind::Atomic,
    }
}

/// Maps that change as a whole.
pub(super) fn is_atomic_map(path: &[Step]) -> bool {
    let last = path.last().and_then(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None });
    matches!(
        last,
        Some("selector" | "labelSelector" | "nodeSelector" | "fieldRef" | "secretKeyRef" | "configMapKeyRef" | "resourceFieldRef")
    )
}

/// What an item of such a list is known by.
pub(super) fn item_key(item: &Value, keys: &[&str]) -> String {
    let mut key = Map::new();
    for name in keys {
        let value = match (&item[*name], *name) {
            (Value::Null, "protocol") => json!("TCP"),
            (value, _) => value.clone(),
        };
        key.insert((*name).to_owned(), value);
    }
    Value::Object(key).to_string()
}

/// What nobody owns: it says which object this is, or is the server's own.
fn is_unowned(path: &[Step]) -> bool {
    let names: Vec<&str> = path.iter().filter_map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None }).collect();
    match &names[..] {
        ["apiVersion" | "kind"] => true,
        ["metadata", name, ..] => matches!(
            *name,
            "name"
                | "namespace"
                | "uid"
                | "resourceVersion"
                | "generation"
                | "creationTimestamp"
                | "managedFields"
                | "selfLink"
                | "generateName"
                | "deletionTimestamp"
        ),
        _ => false,
    }
}

/// All leaves with their values; items of lists as well, without one.
pub(super) fn leaves(object: &Value) -> BTreeMap<Path, Value> {
    let mut found = BTreeMap::new();
    collect(object, &mut Vec::new(), &mut found);
    found.retain(|path, _| !is_unowned(path));
    found.remove(&Vec::new());
    found.remove(&vec![Step::Field("metadata".to_owned())]);
    found
}

fn collect(value: &Value, path: &mut Path, found: &mut BTreeMap<Path, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() && !is_atomic_map(path) => {
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                path.push(Step::Field(name.clone()));
                collect(value, path, found);
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() && list_kind(path) != ListKind::Atomic => {
            for item in items {
                path.push(step_of(item, list_kind(path)));
                found.insert(path.clone(), Value::Null);
                if matches!(path.last(), Some(Step::Item(_))) {
                    collect(item, path, found);
                }
                path.pop();
            }
        }
        leaf => {
            found.insert(path.clone(), leaf.clone());
        }
    }
}

fn step_of(item: &Value, kind: ListKind) -> Step {
    match kind {
        ListKind::Map(keys) => Step::Item(item_key(item, keys)),
        ListKind::Set | ListKind::Atomic => Step::Value(item.to_string()),
    }
}

/// Added or changed, and removed.
pub(super) fn difference(before: &Value, after: &Value) -> (BTreeSet<Path>, BTreeSet<Path>) {
    let (before, after) = (leaves(before), leaves(after));
    let changed = after.iter().filter(|(path, value)| before.get(*path) != Some(value)).map(|(path, _)| path.clone()).collect();
    let removed = before.keys().filter(|path| !after.contains_key(*path)).cloned().collect();
    (changed, removed)
}

/// What `with` says, in `object`; nothing is taken away.
pub(super) fn merge(object: &mut Value, with: &Value) {
    merge_at(object, with, &mut Vec::new());
}

fn merge_at(object: &mut Value, with: &Value, path: &mut Path) {
    match (&mut *object, with) {
        (Value::Object(fields), Value::Object(new)) if !is_atomic_map(path) => {
            for (name, value) in new {
                path.push(Step::Field(name.clone()));
                merge_at(fields.entry(name.clone()).or_insert(Value::Null), value, path);
                path.pop();
            }
        }
        (Value::Array(items), Value::Array(new)) if list_kind(path) != ListKind::Atomic => {
            let kind = list_kind(path);
            for value in new {
                let step = step_of(value, kind);
                match items.iter_mut().find(|item| step_of(item, kind) == step) {
                    Some(item) => {
                        path.push(step);
                        merge_at(item, value, path);
                        path.pop();
                    }
                    None => items.push(value.clone()),
                }
            }
        }
        (place, value) => *place = value.clone(),
    }
}

/// Takes one leaf or item away, and what is empty then.
pub(super) fn remove(object: &mut Value, path: &[Step]) {
    remove_at(object, path, &mut Vec::new());
}

fn remove_at(object: &mut Value, rest: &[Step], seen: &mut Path) {
    let Some((step, after)) = rest.split_first() else { return };
    match (object, step) {
        (Value::Object(fields), Step::Field(name)) => {
            let Some(inner) = fields.get_mut(name) else { return };
            if !after.is_empty() {
                seen.push(step.clone());
                remove_at(inner, after, seen);
                seen.pop();
            }
            let is_empty = inner.as_object().is_some_and(Map::is_empty) || inner.as_array().is_some_and(Vec::is_empty);
            if after.is_empty() || is_empty {
                fields.remove(name);
            }
        }
        (Value::Array(items), Step::Item(_) | Step::Value(_)) => {
            let kind = list_kind(seen);
            let Some(index) = items.iter().position(|item| step_of(item, kind) == *step) else { return };
            if after.is_empty() {
                items.remove(index);
            } else {
                seen.push(step.clone());
                remove_at(&mut items[index], after, seen);
                seen.pop();
            }
        }
        _ => {}
    }
}

/// As `FieldsV1` writes them.
pub(super) fn written(paths: &BTreeSet<Path>) -> Value {
    let mut root = json!({});
    for path in paths {
        let mut at = &mut root;
        for step in path {
            let name = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Item(key) => format!("k:{key}"),
                Step::Value(value) => format!("v:{value}"),
            };
            at = at.as_object_mut().expect("an object").entry(name).or_insert_with(|| json!({}));
        }
        // An item is owned itself, beside its fields.
        if matches!(path.last(), Some(Step::Item(_))) {
            at["."] = json!({});
        }
    }
    root
}

pub(super) fn read(written: &Value) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    read_at(written, &mut Vec::new(), &mut found);
    found.remove(&Vec::new());
    found
}

fn read_at(written: &Value, path: &mut Path, found: &mut BTreeSet<Path>) {
    let fields = written.as_object();
    if fields.is_none_or(Map::is_empty) {
        found.insert(path.clone());
    }
    for (name, inner) in fields.into_iter().flatten() {
        let step = match name.split_once(':') {
            Some(("f", name)) => Step::Field(name.to_owned()),
            Some(("k", key)) => Step::Item(key.to_owned()),
            Some(("v", value)) => Step::Value(value.to_owned()),
            _ => {
                found.insert(path.clone());
                continue;
            }
        };
        path.push(step);
        read_at(inner, path, found);
        path.pop();
    }
}

/// `.spec.template.spec.containers[name="c"].image`, as messages name it.
pub(super) fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) => text.push_str(&format!(".{name}")),
            Step::Item(key) => {
                let key: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let parts: Vec<String> = key.iter().map(|(name, value)| format!("{name}={value}")).collect();
                text.push_str(&format!("[{}]", parts.join(",")));
            }
            Step::Value(value) => text.push_str(&format!("[={value}]")),
        }
    }
    text
}
