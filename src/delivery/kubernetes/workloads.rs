//! How far a workload's rollout is, as its status tells: what `kubectl rollout status` looks at.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::pods::Selector;
use crate::domain::restarts::{Progress, WorkloadKind};

/// The reason of the condition with which a Deployment's controller gives up.
const GAVE_UP: &str = "ProgressDeadlineExceeded";

/// What is read of a Deployment, StatefulSet or DaemonSet. Nothing of its containers: people write values into their variables.
#[derive(Deserialize)]
pub(super) struct Described {
    pub(super) metadata: Head,
    pub(super) spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Head {
    pub(super) uid: String,
    generation: i64,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Spec {
    paused: bool,
    replicas: Option<i64>,
    pub(super) selector: Selector,
    pub(super) template: Template,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Template {
    pub(super) metadata: Head,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    observed_generation: i64,
    replicas: i64,
    updated_replicas: i64,
    ready_replicas: i64,
    available_replicas: i64,
    desired_number_scheduled: i64,
    updated_number_scheduled: i64,
    number_available: i64,
    conditions: Vec<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
    reason: String,
}

/// Whether the pods are of the template is asked of the pods themselves: a StatefulSet with a partition, or one that waits for
/// somebody to delete its pods, says that it is content while old ones run.
pub(super) fn progress_of(kind: WorkloadKind, described: &Described) -> Progress {
    let Described { metadata, spec, status } = described;
    let wanted = spec.replicas.unwrap_or(1);
    let is_seen = status.observed_generation >= metadata.generation;
    let gave_up = |condition: &Condition| condition.r#type == "Progressing" && condition.status == "False" && condition.reason == GAVE_UP;
    let is_settled = match kind {
        WorkloadKind::Deployment => {
            let all_new = status.updated_replicas >= wanted && status.replicas <= status.updated_replicas;
            all_new && status.available_replicas >= status.updated_replicas
        }
        WorkloadKind::StatefulSet => status.replicas == wanted && status.ready_replicas >= wanted,
        WorkloadKind::DaemonSet => {
            let wanted = status.desired_number_scheduled;
            status.updated_number_scheduled >= wanted && status.number_available >= wanted
        }
    };
    match kind {
        WorkloadKind::Deployment if is_seen && status.conditions.iter().any(gave_up) => Progress::Failed,
        WorkloadKind::Deployment if spec.paused => Progress::Paused,
        _ if is_seen && is_settled => Progress::Settled,
        _ => Progress::Rolling,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn progress(kind: WorkloadKind, spec: Value, status: Value) -> Progress {
        let text = json!({"metadata": {"uid": "u", "generation": 3}, "spec": spec, "status": status}).to_string();
        progress_of(kind, &serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_deployment_has_settled_when_only_new_pods_are_left() {
        let status = |seen, replicas, updated, available| json!({"observedGeneration": seen, "replicas": replicas, "updatedReplicas": updated, "availableReplicas": available});
        for (status, expected) in [
            (status(3, 2, 2, 2), Progress::Settled),
            (status(2, 2, 2, 2), Progress::Rolling),
            (status(3, 3, 2, 3), Progress::Rolling),
            (status(3, 2, 1, 2), Progress::Rolling),
            (status(3, 2, 2, 1), Progress::Rolling),
            (json!({}), Progress::Rolling),
        ] {
            assert_eq!(progress(WorkloadKind::Deployment, json!({"replicas": 2}), status.clone()), expected, "{status}");
        }
        let done = status(3, 0, 0, 0);
        assert_eq!(progress(WorkloadKind::Deployment, json!({"replicas": 0}), done), Progress::Settled, "scaled to nothing");
        let done = status(3, 1, 1, 1);
        assert_eq!(progress(WorkloadKind::Deployment, json!({}), done), Progress::Settled, "one replica where nothing is said");
    }

    #[test]
    fn a_deployment_that_gave_up_or_is_paused_says_so() {
        let gave_up = json!({"observedGeneration": 3, "conditions": [{"type": "Progressing", "status": "False", "reason": GAVE_UP}]});
        assert_eq!(progress(WorkloadKind::Deployment, json!({}), gave_up.clone()), Progress::Failed);
        let mut before = gave_up;
        before["observedGeneration"] = 2.into();
        assert_eq!(progress(WorkloadKind::Deployment, json!({}), before), Progress::Rolling, "that was about the template before");
        assert_eq!(progress(WorkloadKind::Deployment, json!({"paused": true}), json!({"observedGeneration": 3})), Progress::Paused);
    }

    #[test]
    fn the_other_kinds_count_their_own_numbers() {
        let ready = |ready| json!({"observedGeneration": 3, "replicas": 2, "readyReplicas": ready});
        assert_eq!(progress(WorkloadKind::StatefulSet, json!({"replicas": 2}), ready(2)), Progress::Settled);
        assert_eq!(progress(WorkloadKind::StatefulSet, json!({"replicas": 2}), ready(1)), Progress::Rolling);
        let scheduled = |updated, available| json!({"observedGeneration": 3, "desiredNumberScheduled": 3, "updatedNumberScheduled": updated, "numberAvailable": available});
        assert_eq!(progress(WorkloadKind::DaemonSet, json!({}), scheduled(3, 3)), Progress::Settled);
        assert_eq!(progress(WorkloadKind::DaemonSet, json!({}), scheduled(2, 3)), Progress::Rolling);
        assert_eq!(progress(WorkloadKind::DaemonSet, json!({}), scheduled(3, 2)), Progress::Rolling);
    }
}
