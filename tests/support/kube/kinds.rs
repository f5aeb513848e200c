//! The kinds that the fake knows: one row each.

use k8s_openapi::api::{apps, coordination, core, rbac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads an object as its type and writes it anew: fields that the type doesn't have are gone.
type Typed = fn(Value) -> Result<Value, serde_json::Error>;

#[derive(Debug)]
pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) is_namespaced: bool,
    /// Writes of the object leave its status alone, and the other way round.
    pub(super) has_status: bool,
    /// Each change of `spec` is a generation.
    pub(super) has_generation: bool,
    /// A `PUT` creates what isn't there.
    pub(super) creates_on_update: bool,
    /// A `PUT` without a resource version is refused.
    pub(super) needs_version: bool,
    /// What a field selector may name, beside name and namespace.
    pub(super) selectable: &'static [&'static str],
    pub(super) typed: Typed,
}

impl Kind {
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

fn typed<T: DeserializeOwned + Serialize>(object: Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(object)?)
}

const fn kind(group: &'static str, plural: &'static str, kind: &'static str, typed: Typed) -> Kind {
    Kind {
        group,
        version: "v1",
        plural,
        kind,
        is_namespaced: true,
        has_status: false,
        has_generation: false,
        creates_on_update: false,
        needs_version: false,
        selectable: &[],
        typed,
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const POD_FIELDS: &[&str] = &["spec.nodeName", "spec.serviceAccountName", "spec.restartPolicy", "status.phase", "status.podIP"];

pub(super) const KINDS: &[Kind] = &[
    Kind { is_namespaced: false, has_status: true, ..kind("", "namespaces", "Namespace", typed::<core::v1::Namespace>) },
    kind("", "configmaps", "ConfigMap", typed::<core::v1::ConfigMap>),
    Kind { selectable: &["type"], ..kind("", "secrets", "Secret", typed::<core::v1::Secret>) },
    kind("", "serviceaccounts", "ServiceAccount", typed::<core::v1::ServiceAccount>),
    Kind { has_status: true, ..kind("", "services", "Service", typed::<core::v1::Service>) },
    Kind { has_status: true, selectable: POD_FIELDS, ..kind("", "pods", "Pod", typed::<core::v1::Pod>) },
    Kind { has_status: true, ..kind("", "persistentvolumeclaims", "PersistentVolumeClaim", typed::<core::v1::PersistentVolumeClaim>) },
    Kind {
        creates_on_update: true,
        needs_version: true,
        ..kind("coordination.k8s.io", "leases", "Lease", typed::<coordination::v1::Lease>)
    },
    Kind { has_status: true, has_generation: true, ..kind("apps", "deployments", "Deployment", typed::<apps::v1::Deployment>) },
    Kind { has_status: true, has_generation: true, ..kind("apps", "statefulsets", "StatefulSet", typed::<apps::v1::StatefulSet>) },
    Kind { has_status: true, has_generation: true, ..kind("apps", "daemonsets", "DaemonSet", typed::<apps::v1::DaemonSet>) },
    Kind { has_status: true, has_generation: true, ..kind("apps", "replicasets", "ReplicaSet", typed::<apps::v1::ReplicaSet>) },
    Kind { creates_on_update: true, ..kind(RBAC, "roles", "Role", typed::<rbac::v1::Role>) },
    Kind { creates_on_update: true, ..kind(RBAC, "rolebindings", "RoleBinding", typed::<rbac::v1::RoleBinding>) },
    Kind { creates_on_update: true, is_namespaced: false, ..kind(RBAC, "clusterroles", "ClusterRole", typed::<rbac::v1::ClusterRole>) },
    Kind {
        creates_on_update: true,
        is_namespaced: false,
        ..kind(RBAC, "clusterrolebindings", "ClusterRoleBinding", typed::<rbac::v1::ClusterRoleBinding>)
    },
    Kind {
        has_status: true,
        has_generation: true,
        ..kind("networking.k8s.io", "networkpolicies", "NetworkPolicy", typed::<k8s_openapi::api::networking::v1::NetworkPolicy>)
    },
    Kind {
        has_status: true,
        has_generation: true,
        ..kind("policy", "poddisruptionbudgets", "PodDisruptionBudget", typed::<k8s_openapi::api::policy::v1::PodDisruptionBudget>)
    },
];

pub(super) fn by_plural(plural: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.plural == plural).unwrap_or_else(|| panic!("the fake has no `{plural}`"))
}

pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}
