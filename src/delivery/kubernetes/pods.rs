//! The pods of a workload: which ones they are, what template they were made from, and whether they are Ready.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::domain::restarts::{Pod, WorkloadKind};

/// How a workload says which pods are its own.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Expression {
    key: String,
    operator: String,
    values: Vec<String>,
}

/// As a list is asked for by it. `None`: it would match every pod, or says what we don't know.
pub(super) fn label_selector(selector: &Selector) -> Option<String> {
    let mut parts: Vec<String> = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    for Expression { key, operator, values } in &selector.match_expressions {
        let values = values.join(",");
        parts.push(match operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

/// One page of pods. Nothing of their containers: people write values into their variables.
#[derive(Deserialize)]
pub(super) struct Listing {
    #[serde(default)]
    metadata: Paging,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize, Default)]
struct Paging {
    #[serde(default)]
    r#continue: String,
}

#[derive(Deserialize)]
struct Item {
    metadata: Head,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    name: String,
    deletion_timestamp: Option<String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    owner_references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    kind: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    phase: String,
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

impl Listing {
    /// Where the next page begins; empty after the last.
    pub(super) fn next(&self) -> &str {
        &self.metadata.r#continue
    }
}

/// The pods that may run. Who has ended uses nothing any more; who is ending may, until it is gone.
pub(super) fn pods_of(page: Listing, kind: WorkloadKind, checksum_key: &str) -> impl Iterator<Item = Pod> {
    let controller = match kind {
        WorkloadKind::Deployment => "ReplicaSet",
        WorkloadKind::StatefulSet => "StatefulSet",
        WorkloadKind::DaemonSet => "DaemonSet",
    };
    page.items.into_iter().filter_map(move |item| {
        let is_other = item.metadata.owner_references.iter().any(|owner| owner.controller && owner.kind != controller);
        let has_ended = matches!(item.status.phase.as_str(), "Succeeded" | "Failed");
        if is_other || has_ended {
            return None;
        }
        let is_ready = item.status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True");
        let is_ending = item.metadata.deletion_timestamp.is_some();
        // The API takes no other names.
        let name = item.metadata.name.parse().ok()?;
        Some(Pod { name, checksum: item.metadata.annotations.get(checksum_key).cloned(), is_ready: is_ready || is_ending })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn selector(written: Value) -> Option<String> {
        label_selector(&serde_json::from_value(written).unwrap())
    }

    #[test]
    fn a_selector_is_asked_for_as_it_stands_and_never_empty() {
        let labels = json!({"matchLabels": {"app": "api", "tier": "web"}});
        assert_eq!(selector(labels).unwrap(), "app=api,tier=web");
        let expressions = json!({"matchExpressions": [
            {"key": "a", "operator": "In", "values": ["x", "y"]}, {"key": "b", "operator": "NotIn", "values": ["z"]},
            {"key": "c", "operator": "Exists"}, {"key": "d", "operator": "DoesNotExist"}]});
        assert_eq!(selector(expressions).unwrap(), "a in (x,y),b notin (z),c,!d");
        assert_eq!(selector(json!({})), None);
        assert_eq!(selector(json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]})), None);
    }

    #[test]
    fn the_pods_that_count_are_those_that_may_run() {
        let pod = |name: &str, checksum: &str, more: Value| {
            let mut pod = json!({"metadata": {"name": name, "annotations": {"sum": checksum}, "ownerReferences": [{"kind": "ReplicaSet", "controller": true}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
            for (pointer, value) in more.as_object().unwrap() {
                *pod.pointer_mut(pointer).unwrap() = value.clone();
            }
            pod
        };
        let items = json!([
            pod("ready", "new", json!({})),
            pod("starting", "new", json!({"/status/conditions": [{"type": "Ready", "status": "False"}]})),
            pod("old", "old", json!({})),
            pod("ended", "old", json!({"/status/phase": "Succeeded"})),
            pod("evicted", "old", json!({"/status/phase": "Failed"})),
            pod("job", "old", json!({"/metadata/ownerReferences": [{"kind": "Job", "controller": true}]})),
            {"metadata": {"name": "bare"}},
            {"metadata": {"name": "ending", "deletionTimestamp": "2026-11-23T12:00:00Z", "annotations": {"sum": "new"}}},
        ]);
        let page: Listing = serde_json::from_value(json!({"metadata": {"continue": "more"}, "items": items})).unwrap();
        assert_eq!(page.next(), "more");
        let pods: Vec<(String, Option<String>, bool)> =
            pods_of(page, WorkloadKind::Deployment, "sum").map(|pod| (pod.name.to_string(), pod.checksum, pod.is_ready)).collect();
        let expected = [
            ("ready", Some("new"), true),
            ("starting", Some("new"), false),
            ("old", Some("old"), true),
            ("bare", None, false),
            ("ending", Some("new"), true),
        ];
        assert_eq!(pods, expected.map(|(name, checksum, is_ready)| (name.to_owned(), checksum.map(str::to_owned), is_ready)));
    }
}
