//! Merge patches: as RFC 7386 says, and the strategic kind, which knows lists by the keys of their items.

use serde_json::{Map, Value, json};

use super::fields::{ListKind, Path, Step, item_key, list_kind};

pub(super) fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let object = target.as_object_mut().expect("an object");
    for (name, value) in fields {
        if value.is_null() {
            object.remove(name);
        } else {
            merge_patch(object.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

pub(super) fn strategic(target: &mut Value, patch: &Value) {
    strategic_at(target, patch, &mut Vec::new());
}

fn strategic_at(target: &mut Value, patch: &Value, path: &mut Path) {
    match patch {
        Value::Object(fields) => {
            if fields.get("$patch") == Some(&json!("replace")) {
                let rest: Map<String, Value> =
                    fields.iter().filter(|(name, _)| *name != "$patch").map(|(n, v)| (n.clone(), v.clone())).collect();
                *target = Value::Object(rest);
                return;
            }
            if !target.is_object() {
                *target = json!({});
            }
            let object = target.as_object_mut().expect("an object");
            for (name, value) in fields {
                if value.is_null() {
                    object.remove(name);
                    continue;
                }
                path.push(Step::Field(name.clone()));
                strategic_at(object.entry(name.clone()).or_insert(Value::Null), value, path);
                path.pop();
            }
        }
        Value::Array(new) => match (list_kind(path), target.as_array_mut()) {
            (ListKind::Map(keys), Some(items)) => new.iter().for_each(|item| merge_item(items, item, keys, path)),
            (ListKind::Set, Some(items)) => {
                let missing: Vec<Value> = new.iter().filter(|item| !items.contains(item)).cloned().collect();
                items.extend(missing);
            }
            _ => *target = patch.clone(),
        },
        leaf => *target = leaf.clone(),
    }
}

fn merge_item(items: &mut Vec<Value>, item: &Value, keys: &[&str], path: &mut Path) {
    let key = item_key(item, keys);
    let index = items.iter().position(|other| item_key(other, keys) == key);
    match index {
        Some(index) if item["$patch"] == json!("delete") => drop(items.remove(index)),
        Some(index) => {
            path.push(Step::Item(key));
            strategic_at(&mut items[index], item, path);
            path.pop();
        }
        None if item["$patch"] == json!("delete") => {}
        None => items.push(item.clone()),
    }
}
