//! Selectors of labels and of fields.

use serde_json::Value;

use super::kinds::Kind;
use super::status::{Reply, bad_request};

#[derive(Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    /// Path, value, whether it must be equal.
    fields: Vec<(String, String, bool)>,
}

#[derive(Debug)]
enum Requirement {
    In(String, Vec<String>),
    /// Also where there is no such label.
    NotIn(String, Vec<String>),
    Exists(String),
    Lacks(String),
}

impl Selector {
    pub(super) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Reply> {
        let bad = |what: &str| bad_request(format!("unable to parse requirement: {what}"));
        let labels = requirements(labels).into_iter().map(|text| requirement(&text).ok_or_else(|| bad(&text)));
        let labels = labels.collect::<Result<_, _>>()?;
        let mut selected = Vec::new();
        for text in fields.split(',').filter(|text| !text.is_empty()) {
            let (path, value, is_equal) = if let Some((path, value)) = text.split_once("!=") {
                (path, value, false)
            } else {
                let (path, value) = text.split_once("==").or_else(|| text.split_once('=')).ok_or_else(|| bad(text))?;
                (path, value, true)
            };
            if !matches!(path, "metadata.name" | "metadata.namespace") && !kind.selectable.contains(&path) {
                return Err(bad_request(format!("field label not supported: {path}")));
            }
            selected.push((path.to_owned(), value.to_owned(), is_equal));
        }
        Ok(Self { labels, fields: selected })
    }

    pub(super) fn takes(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let takes = |requirement: &Requirement| match requirement {
            Requirement::In(name, values) => labels[name].as_str().is_some_and(|value| values.iter().any(|one| one == value)),
            Requirement::NotIn(name, values) => labels[name].as_str().is_none_or(|value| values.iter().all(|one| one != value)),
            Requirement::Exists(name) => labels[name].is_string(),
            Requirement::Lacks(name) => !labels[name].is_string(),
        };
        let has = |(path, value, is_equal): &(String, String, bool)| {
            let found = path.split('.').fold(object, |at, name| &at[name]).as_str().unwrap_or_default();
            (found == value) == *is_equal
        };
        self.labels.iter().all(takes) && self.fields.iter().all(has)
    }
}

/// Split at commas, but not at those between parentheses.
fn requirements(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn requirement(text: &str) -> Option<Requirement> {
    let values = |text: &str| -> Option<Vec<String>> {
        let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some((name, list)) = text.split_once(" notin ") {
        return Some(Requirement::NotIn(name.trim().to_owned(), values(list)?));
    }
    if let Some((name, list)) = text.split_once(" in ") {
        return Some(Requirement::In(name.trim().to_owned(), values(list)?));
    }
    if let Some((name, value)) = text.split_once("!=") {
        return Some(Requirement::NotIn(name.trim().to_owned(), vec![value.trim().to_owned()]));
    }
    if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Requirement::In(name.trim().to_owned(), vec![value.trim().to_owned()]));
    }
    if let Some(name) = text.strip_prefix('!') {
        return Some(Requirement::Lacks(name.trim().to_owned()));
    }
    (!text.contains([' ', '('])).then(|| Requirement::Exists(text.to_owned()))
}
