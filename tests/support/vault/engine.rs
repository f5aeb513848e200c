//! The KV engine, version 2: versions of paths, and what is asked of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

/// What Vault keeps of each path where nobody says otherwise.
const MAX_VERSIONS: usize = 10;

#[derive(Default)]
pub(super) struct Engine {
    keys: BTreeMap<String, Key>,
    /// 0: the default.
    pub(super) max_versions: usize,
    cas_required: bool,
    /// All that was ever written, and where.
    written: Vec<(String, Value)>,
}

#[derive(Default)]
struct Key {
    versions: BTreeMap<u64, Version>,
    current: u64,
    custom: Value,
}

struct Version {
    data: Option<Value>,
    created: Timestamp,
    deleted: Option<Timestamp>,
    destroyed: bool,
}

pub(super) struct Reply {
    pub(super) status: u16,
    /// `None` for an answer without a body.
    pub(super) data: Option<Value>,
    pub(super) errors: Vec<&'static str>,
}

impl Reply {
    pub(super) fn data(data: Value) -> Self {
        Self { status: 200, data: Some(data), errors: Vec::new() }
    }

    pub(super) fn done() -> Self {
        Self { status: 204, data: None, errors: Vec::new() }
    }

    pub(super) fn error(status: u16, errors: &[&'static str]) -> Self {
        Self { status, data: None, errors: errors.to_vec() }
    }

    fn missing() -> Self {
        Self::error(404, &[])
    }
}

impl Version {
    fn describe(&self, number: u64, custom: &Value) -> Value {
        json!({
            "created_time": self.created.to_string(), "custom_metadata": custom,
            "deletion_time": self.deleted.map(|at| at.to_string()).unwrap_or_default(),
            "destroyed": self.destroyed, "version": number,
        })
    }

    fn is_readable(&self) -> bool {
        !self.destroyed && self.deleted.is_none()
    }
}

impl Engine {
    /// `path` is behind the mount, with its first part: `data/…`, `metadata/…` and so on.
    pub(super) fn answer(&mut self, method: &str, path: &str, query: &str, body: &Value) -> Reply {
        if path == "config" {
            return self.config(method, body);
        }
        let Some((kind, key)) = path.split_once('/').filter(|(_, key)| !key.is_empty() || method == "LIST") else {
            return Reply::missing();
        };
        match (kind, method) {
            ("data", "GET") => self.read(key, number_in(query)),
            ("data", "POST" | "PUT") => self.write(key, body),
            ("data", "DELETE") => {
                self.delete(key, &[]);
                Reply::done()
            }
            ("delete" | "undelete" | "destroy", "POST" | "PUT") => self.change_versions(kind, key, body),
            ("metadata", "LIST") => self.list(key),
            ("metadata", "GET") => self.metadata(key),
            ("metadata", "POST" | "PUT") => {
                let custom = body.get("custom_metadata").cloned().unwrap_or(Value::Null);
                self.keys.entry(key.to_owned()).or_default().custom = custom;
                Reply::done()
            }
            ("metadata", "DELETE") => {
                self.keys.remove(key);
                Reply::done()
            }
            ("data" | "metadata" | "delete" | "undelete" | "destroy", _) => Reply::error(405, &["unsupported operation"]),
            _ => Reply::missing(),
        }
    }

    fn config(&mut self, method: &str, body: &Value) -> Reply {
        if method == "GET" {
            let config = json!({"cas_required": self.cas_required, "delete_version_after": "0s", "max_versions": self.max_versions});
            return Reply::data(config);
        }
        if let Some(count) = body.get("max_versions").and_then(Value::as_u64) {
            self.max_versions = count as usize;
        }
        if let Some(required) = body.get("cas_required").and_then(Value::as_bool) {
            self.cas_required = required;
        }
        Reply::done()
    }

    fn read(&self, path: &str, number: u64) -> Reply {
        let Some(key) = self.keys.get(path) else { return Reply::missing() };
        let number = if number == 0 { key.current } else { number };
        let Some(version) = key.versions.get(&number) else { return Reply::missing() };
        let data = version.data.as_ref().filter(|_| version.is_readable());
        let status = if data.is_some() { 200 } else { 404 };
        Reply { status, ..Reply::data(json!({"data": data, "metadata": version.describe(number, &key.custom)})) }
    }

    fn write(&mut self, path: &str, body: &Value) -> Reply {
        let Some(data @ Value::Object(_)) = body.get("data") else { return Reply::error(400, &["no data provided"]) };
        let current = self.keys.get(path).map_or(0, |key| key.current);
        match body.get("options").and_then(|options| options.get("cas")) {
            Some(cas) if cas.as_u64() != Some(current) => {
                return Reply::error(400, &["check-and-set parameter did not match the current version"]);
            }
            None if self.cas_required => return Reply::error(400, &["check-and-set parameter required for this call"]),
            _ => {}
        }
        self.put(path, data.clone());
        let key = &self.keys[path];
        Reply::data(key.versions[&key.current].describe(key.current, &key.custom))
    }

    pub(super) fn put(&mut self, path: &str, data: Value) {
        let kept = if self.max_versions == 0 { MAX_VERSIONS } else { self.max_versions };
        self.written.push((path.to_owned(), data.clone()));
        let key = self.keys.entry(path.to_owned()).or_default();
        key.current += 1;
        key.versions.insert(key.current, Version { data: Some(data), created: Timestamp::now(), deleted: None, destroyed: false });
        while key.versions.len() > kept {
            key.versions.pop_first();
        }
    }

    fn change_versions(&mut self, kind: &str, path: &str, body: &Value) -> Reply {
        let numbers: Vec<u64> = body.get("versions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_u64).collect();
        if numbers.is_empty() {
            return Reply::error(400, &["no version number provided"]);
        }
        if kind == "delete" {
            self.delete(path, &numbers);
            return Reply::done();
        }
        let Some(key) = self.keys.get_mut(path) else { return Reply::done() };
        for (_, version) in key.versions.iter_mut().filter(|(number, _)| numbers.contains(number)) {
            if kind == "undelete" {
                version.deleted = None;
            } else {
                version.destroyed = true;
                version.data = None;
            }
        }
        Reply::done()
    }

    /// These versions, or the newest.
    pub(super) fn delete(&mut self, path: &str, numbers: &[u64]) {
        let Some(key) = self.keys.get_mut(path) else { return };
        let newest = [key.current];
        let numbers = if numbers.is_empty() { &newest[..] } else { numbers };
        for (_, version) in key.versions.iter_mut().filter(|(number, _)| numbers.contains(number)) {
            version.deleted.get_or_insert_with(Timestamp::now);
        }
    }

    fn list(&self, folder: &str) -> Reply {
        let folder = if folder.is_empty() || folder.ends_with('/') { folder.to_owned() } else { format!("{folder}/") };
        let below = self.keys.keys().filter_map(|path| path.strip_prefix(&folder));
        let mut names: Vec<String> = below.map(|rest| rest.split_inclusive('/').next().unwrap_or(rest).to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() { Reply::missing() } else { Reply::data(json!({"keys": names})) }
    }

    fn metadata(&self, path: &str) -> Reply {
        let Some(key) = self.keys.get(path) else { return Reply::missing() };
        let versions: BTreeMap<String, Value> =
            key.versions.iter().map(|(number, version)| (number.to_string(), version.describe(*number, &key.custom))).collect();
        Reply::data(json!({
            "cas_required": false, "current_version": key.current, "custom_metadata": key.custom, "delete_version_after": "0s",
            "max_versions": 0, "oldest_version": key.versions.keys().next().copied().unwrap_or(0), "versions": versions,
        }))
    }

    pub(super) fn latest(&self, path: &str) -> Option<&Value> {
        let key = self.keys.get(path)?;
        key.versions.get(&key.current).filter(|version| version.is_readable())?.data.as_ref()
    }

    pub(super) fn ever_at(&self, path: &str) -> Vec<Value> {
        self.written.iter().filter(|(at, _)| at == path).map(|(_, data)| data.clone()).collect()
    }

    pub(super) fn paths_with_bytes(&self) -> Vec<String> {
        self.keys
            .iter()
            .filter(|(_, key)| key.versions.values().any(|version| version.data.is_some()))
            .map(|(path, _)| path.clone())
            .collect()
    }

    pub(super) fn kept_versions(&self, path: &str) -> usize {
        self.keys.get(path).map_or(0, |key| key.versions.values().filter(|version| version.data.is_some()).count())
    }
}

fn number_in(query: &str) -> u64 {
    query.split('&').find_map(|pair| pair.strip_prefix("version=")?.parse().ok()).unwrap_or(0)
}
