//! What the server keeps: objects, one counter of versions for all, and the history that watches read.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::{Value, json};

use super::kinds::{Kind, by_plural};
use super::tokens::Tokens;
use super::{Call, Fault};

type Plan = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

/// Plural, namespace, name.
pub(super) type Key = (&'static str, String, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Added,
    Modified,
    Deleted,
}

#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) version: u64,
    pub(super) plural: &'static str,
    pub(super) namespace: String,
    pub(super) change: Change,
    /// As it is, or was last.
    pub(super) object: Value,
    /// As it was, so that who selects can tell what left the selection.
    pub(super) before: Option<Value>,
}

pub(super) struct State {
    pub(super) version: u64,
    pub(super) objects: BTreeMap<Key, Value>,
    pub(super) history: Vec<Event>,
    /// What happened up to this version is forgotten.
    pub(super) compacted: u64,
    /// What a list still has to say, by its token.
    pub(super) pages: HashMap<String, (u64, Vec<Value>)>,
    pub(super) bookmarks: u64,
    pub(super) watch_epoch: u64,
    pub(super) tokens: Tokens,
    pub(super) plan: Option<Plan>,
    pub(super) calls: VecDeque<(Call, u16)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            // Real clusters don't begin at one either.
            version: 1000,
            objects: BTreeMap::new(),
            history: Vec::new(),
            compacted: 0,
            pages: HashMap::new(),
            bookmarks: 0,
            watch_epoch: 0,
            tokens: Tokens::default(),
            plan: None,
            calls: VecDeque::new(),
        }
    }
}

impl State {
    pub(super) fn find(&self, plural: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(by_plural(plural).plural, namespace.to_owned(), name.to_owned()))
    }

    /// Gives an object a version that was another's before, and tells nobody.
    pub(super) fn give_version(&mut self, plural: &str, namespace: &str, name: &str, version: Value) -> bool {
        let object = self.objects.get_mut(&(by_plural(plural).plural, namespace.to_owned(), name.to_owned()));
        object.map(|object| object["metadata"]["resourceVersion"] = version).is_some()
    }

    /// In all namespaces where none is named.
    pub(super) fn all_of(&self, plural: &str, namespace: &str) -> Vec<Value> {
        let of = self.objects.iter().filter(|((of, place, _), _)| *of == plural && (namespace.is_empty() || place == namespace));
        of.map(|(_, object)| object.clone()).collect()
    }

    pub(super) fn add_namespace(&mut self, name: &str) {
        if self.find("namespaces", "", name).is_some() {
            return;
        }
        let labels = json!({"kubernetes.io/metadata.name": name});
        self.put_by_hand("namespaces", "", json!({"metadata": {"name": name, "labels": labels}, "status": {"phase": "Active"}}));
        self.furnish(name);
    }

    /// What the cluster's own controllers put into each namespace.
    pub(super) fn furnish(&mut self, namespace: &str) {
        self.put_by_hand("serviceaccounts", namespace, json!({"metadata": {"name": "default"}}));
        let certificates = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "a certificate"}});
        self.put_by_hand("configmaps", namespace, certificates);
    }

    /// Without any question, and without a manager.
    pub(super) fn put_by_hand(&mut self, plural: &str, namespace: &str, object: Value) -> Value {
        let kind = by_plural(plural);
        let name = object["metadata"]["name"].as_str().unwrap_or_else(|| panic!("an object of {plural} has a name")).to_owned();
        let mut object = (kind.typed)(object).unwrap_or_else(|error| panic!("{plural} {name}: {error}"));
        let existing = self.find(plural, namespace, &name).cloned();
        let version = existing.as_ref().map_or(Value::Null, |object| object["metadata"]["resourceVersion"].clone());
        if !version.is_null() {
            object["metadata"]["resourceVersion"] = version;
        }
        self.store(kind, namespace, &name, existing.as_ref(), object)
    }

    /// Fills in what the server itself says of an object, and writes it if it differs from the one before.
    pub(super) fn store(&mut self, kind: &'static Kind, namespace: &str, name: &str, existing: Option<&Value>, mut object: Value) -> Value {
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.kind);
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(name);
        if kind.is_namespaced {
            metadata["namespace"] = json!(namespace);
        }
        match existing {
            Some(existing) => {
                for field in ["uid", "creationTimestamp"] {
                    metadata[field] = existing["metadata"][field].clone();
                }
            }
            None => {
                metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
                metadata["creationTimestamp"] = json!(now());
            }
        }
        if kind.has_generation {
            let before = existing.map_or(0, |existing| existing["metadata"]["generation"].as_u64().unwrap_or(1));
            let is_new = existing.is_none_or(|existing| existing["spec"] != object["spec"]);
            object["metadata"]["generation"] = json!(if is_new { before + 1 } else { before });
        }
        if let Some(existing) = existing.filter(|existing| is_same(existing, &object)) {
            return existing.clone();
        }
        let is_gone = object["metadata"]["deletionTimestamp"].is_string() && is_empty(&object["metadata"]["finalizers"]);
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let key = (kind.plural, namespace.to_owned(), name.to_owned());
        let change = match (existing, is_gone) {
            (_, true) => Change::Deleted,
            (Some(_), false) => Change::Modified,
            (None, false) => Change::Added,
        };
        if is_gone {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, object.clone());
        }
        self.tell(kind, namespace, change, object.clone(), existing.cloned());
        object
    }

    pub(super) fn remove(&mut self, kind: &'static Kind, namespace: &str, name: &str) -> Option<Value> {
        let mut object = self.objects.remove(&(kind.plural, namespace.to_owned(), name.to_owned()))?;
        let before = object.clone();
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell(kind, namespace, Change::Deleted, object.clone(), Some(before));
        if kind.plural == "namespaces" {
            self.empty(name);
        }
        Some(object)
    }

    pub(super) fn remove_by_hand(&mut self, plural: &str, namespace: &str, name: &str) -> bool {
        self.remove(by_plural(plural), namespace, name).is_some()
    }

    /// All that is in a namespace goes with it.
    fn empty(&mut self, namespace: &str) {
        let inside: Vec<Key> = self.objects.keys().filter(|(_, place, _)| place == namespace).cloned().collect();
        for (plural, namespace, name) in inside {
            self.remove(by_plural(plural), &namespace, &name);
        }
    }

    fn tell(&mut self, kind: &'static Kind, namespace: &str, change: Change, object: Value, before: Option<Value>) {
        let event = Event { version: self.version, plural: kind.plural, namespace: namespace.to_owned(), change, object, before };
        self.history.push(event);
    }

    pub(super) fn compact(&mut self) {
        self.compacted = self.version;
        self.history.clear();
        self.pages.clear();
    }
}

/// But for what a write says of itself: its number, and the times in the list of managers.
fn is_same(before: &Value, after: &Value) -> bool {
    let stripped = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
            let entries = metadata.get_mut("managedFields").and_then(Value::as_array_mut);
            entries.into_iter().flatten().filter_map(Value::as_object_mut).for_each(|entry| {
                entry.remove("time");
            });
        }
        object
    };
    stripped(before) == stripped(after)
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_none_or(Vec::is_empty)
}

pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
