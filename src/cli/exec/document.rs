//! A credential as the daemon tells it, and the set of them that a program gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::domain::ids::{FieldName, Name, VersionId};
use crate::domain::material::{Material, Secret};

/// All credentials of the application, by their names.
pub(super) type Documents = BTreeMap<Name, Arc<Document>>;

/// One version of a credential. No `Debug`: it is a value.
pub(super) struct Document {
    pub(super) name: Name,
    pub(super) version: VersionId,
    /// Grows with each change that the application can see.
    pub(super) revision: u64,
    pub(super) fields: Material,
    /// As it came.
    pub(super) json: Secret,
}

#[derive(Deserialize)]
struct Told {
    name: Name,
    version: VersionId,
    revision: u64,
    fields: BTreeMap<FieldName, String>,
}

impl Document {
    /// `None` if it isn't one: what is wrong isn't said, because that could repeat a part of it.
    pub(super) fn parse(json: &[u8]) -> Option<Document> {
        let Told { name, version, revision, fields } = serde_json::from_slice(json).ok()?;
        let fields = fields.into_iter().map(|(name, value)| (name, Secret::from(value))).collect();
        Some(Document { name, version, revision, fields, json: Secret::new(json) })
    }

    /// Whether a program that has the other one has to take this one up: not for what is only told about it.
    fn replaces(&self, other: &Document) -> bool {
        self.version != other.version || !self.fields.same_as(&other.fields)
    }
}

/// Those of `newer` that a program with `older` has to take up.
pub(super) fn to_take_up<'a>(older: &Documents, newer: &'a Documents) -> Vec<&'a Arc<Document>> {
    newer.values().filter(|document| older.get(&document.name).is_none_or(|held| document.replaces(held))).collect()
}

/// For messages: `dinie-production v2-c4 and tap-production v7-a1`.
pub(super) fn named<'a>(documents: impl IntoIterator<Item = &'a Arc<Document>>) -> String {
    let names: Vec<String> = documents.into_iter().map(|document| format!("{} {}", document.name, document.version)).collect();
    if names.is_empty() { "no credential".to_owned() } else { names.join(" and ") }
}

#[cfg(test)]
pub(super) fn document(name: &str, version: &str, revision: u64, fields: &[(&str, &str)]) -> Arc<Document> {
    let fields: serde_json::Map<String, serde_json::Value> = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let json = serde_json::json!({"name": name, "version": version, "revision": revision, "stale": false, "fields": fields});
    Arc::new(Document::parse(json.to_string().as_bytes()).unwrap())
}

#[cfg(test)]
pub(super) fn set(documents: &[Arc<Document>]) -> Documents {
    documents.iter().map(|document| (document.name.clone(), document.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_exec_reads_a_document_whole_or_not_at_all() {
        let one = document("a", "v1", 7, &[("client_id", "x"), ("secret", "hush\"\\\n\u{0}")]);
        assert_eq!((one.name.as_str(), one.version.as_str(), one.revision, one.fields.len()), ("a", "v1", 7, 2));
        for bad in [
            "",
            "{}",
            r#"{"name":"a","version":"v1","revision":-1,"fields":{}}"#,
            r#"{"name":"A","version":"v1","revision":1,"fields":{}}"#,
        ] {
            assert!(Document::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn cli_exec_takes_up_what_changes_a_program() {
        let held = set(&[document("a", "v1", 1, &[("s", "1")]), document("b", "v1", 1, &[("s", "1")])]);
        let names = |newer: &[Arc<Document>]| -> Vec<String> {
            to_take_up(&held, &set(newer)).into_iter().map(|document| document.name.to_string()).collect()
        };
        assert!(names(&[document("a", "v1", 9, &[("s", "1")])]).is_empty(), "a revision alone changes nothing");
        assert_eq!(names(&[document("a", "v2", 2, &[("s", "1")])]), ["a"], "a rollback has the old material");
        assert_eq!(names(&[document("a", "v1", 2, &[("s", "2")])]), ["a"]);
        assert_eq!(names(&[document("b", "v2", 2, &[("s", "2")]), document("c", "v1", 1, &[])]), ["b", "c"]);
        assert_eq!(named(&[document("a", "v1", 1, &[]), document("b", "v2", 1, &[])]), "a v1 and b v2");
    }
}
