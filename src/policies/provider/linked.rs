//! Fields that depend on others: `is`, the same value as another field; `with`, new whenever another one is.

use std::collections::BTreeMap;

use crate::domain::ids::FieldName;
use crate::domain::provider::{Calls, Field, FieldClass};

use super::super::problem::{Sink, shown};
use super::super::reader::text;
use super::super::tree::{Kind, Node};

/// The field that is named, if it is a name at all; whether it is described is asked when all are read.
pub(super) fn read_link(node: &Node, sink: &Sink<'_>) -> Option<FieldName> {
    let name = text(node, sink)?.parse::<FieldName>();
    if let Err(error) = &name {
        sink.report(node.place, "bad-name", error.to_string(), "the name of another field of this description");
    }
    name.ok()
}

/// `described` is the node of `fields`.
pub(super) fn check_links(described: &Node, fields: &BTreeMap<FieldName, Field>, calls: &Calls, sink: &Sink<'_>) {
    let Kind::Map(entries) = &described.kind else { return };
    let made = calls.create.as_ref().map(|create| &create.fields);
    for (key, node) in entries {
        let (Ok(name), Kind::Map(parts)) = (key.text.parse::<FieldName>(), &node.kind) else { continue };
        for (part, target) in parts {
            let Kind::Text(written) = &target.kind else { continue };
            let Ok(other) = written.parse::<FieldName>() else { continue };
            let problem = match part.text.as_str() {
                "is" => wrong_copy(&name, &other, fields, made),
                "with" => wrong_pair(&name, &other, fields, made),
                _ => None,
            };
            if let Some((code, message)) = problem {
                let help = "`is` names a field whose value this one has, `with` one that it changes with";
                sink.report(target.place, code, message, help);
            }
        }
    }
}

type Made<'a> = Option<&'a BTreeMap<FieldName, String>>;

fn wrong_copy(name: &FieldName, source: &FieldName, fields: &BTreeMap<FieldName, Field>, made: Made<'_>) -> Option<(&'static str, String)> {
    let this = fields.get(name)?;
    let Some(original) = fields.get(source) else {
        return Some(("undeclared-field", "no field of this name is described".to_owned()));
    };
    if name == source || original.is.is_some() {
        return Some(("bad-link", "a field has the value of one that is brought or made itself".to_owned()));
    }
    if this.class != original.class || this.class == FieldClass::Management {
        return Some(("bad-link", "both are `public`, or both are `secret`".to_owned()));
    }
    if !this.form.marks.is_empty() || this.form.shape.is_some() {
        return Some(("bad-link", "the patterns of the other field are this one's, too: leave `patterns` out".to_owned()));
    }
    made.is_some_and(|made| made.contains_key(name)).then(|| {
        let name = shown(name.as_str());
        ("bad-link", format!("{name} isn't read from the answer of `create`: it has the other field's value"))
    })
}

fn wrong_pair(name: &FieldName, other: &FieldName, fields: &BTreeMap<FieldName, Field>, made: Made<'_>) -> Option<(&'static str, String)> {
    if name == other {
        return Some(("bad-link", "a field changes with another one".to_owned()));
    }
    if !fields.contains_key(other) {
        return Some(("undeclared-field", "no field of this name is described".to_owned()));
    }
    let made = made?;
    let split = made.contains_key(name) != made.contains_key(other);
    split.then(|| {
        let (name, other) = (shown(name.as_str()), shown(other.as_str()));
        ("split-pair", format!("{name} and {other} change together, and `create` brings one of them only"))
    })
}
