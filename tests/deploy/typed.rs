//! Every object as the type that its API has: a field that the type doesn't know, or reads otherwise, is a mistake in the manifest.

use std::path::Path;
use std::process::Command;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{APPLIED, installed, rendered, title};

/// As the Prometheus operator's documentation has it; the fields that are used, and no others.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ServiceMonitor {
    api_version: String,
    kind: String,
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    spec: ServiceMonitorSpec,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ServiceMonitorSpec {
    selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    namespace_selector: NamespaceSelector,
    job_label: String,
    endpoints: Vec<Endpoint>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NamespaceSelector {
    match_names: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Endpoint {
    port: String,
    scheme: String,
    path: String,
    interval: String,
    scrape_timeout: String,
    tls_config: TlsConfig,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TlsConfig {
    server_name: String,
    ca: Authority,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Authority {
    config_map: k8s_openapi::api::core::v1::ConfigMapKeySelector,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PrometheusRule {
    api_version: String,
    kind: String,
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    spec: Groups,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Groups {
    pub(crate) groups: Vec<Group>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) alert: String,
    pub(crate) expr: String,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub(crate) wait: Option<String>,
    pub(crate) labels: Severity,
    pub(crate) annotations: Annotations,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Severity {
    pub(crate) severity: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Annotations {
    pub(crate) summary: String,
    pub(crate) action: String,
}

/// What the type makes of it, written again.
fn again<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

fn read(object: &Value) -> Result<Value, String> {
    let kind = format!("{} {}", object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
    match kind.as_str() {
        "v1 Namespace" => again::<Namespace>(object),
        "v1 ServiceAccount" => again::<ServiceAccount>(object),
        "v1 ConfigMap" => again::<ConfigMap>(object),
        "v1 Service" => again::<Service>(object),
        "v1 PersistentVolumeClaim" => again::<PersistentVolumeClaim>(object),
        "apps/v1 Deployment" => again::<Deployment>(object),
        "apps/v1 StatefulSet" => again::<StatefulSet>(object),
        "policy/v1 PodDisruptionBudget" => again::<PodDisruptionBudget>(object),
        "networking.k8s.io/v1 NetworkPolicy" => again::<NetworkPolicy>(object),
        "rbac.authorization.k8s.io/v1 Role" => again::<Role>(object),
        "rbac.authorization.k8s.io/v1 RoleBinding" => again::<RoleBinding>(object),
        "rbac.authorization.k8s.io/v1 ClusterRole" => again::<ClusterRole>(object),
        "rbac.authorization.k8s.io/v1 ClusterRoleBinding" => again::<ClusterRoleBinding>(object),
        "monitoring.coreos.com/v1 ServiceMonitor" => again::<ServiceMonitor>(object),
        "monitoring.coreos.com/v1 PrometheusRule" => again::<PrometheusRule>(object),
        other => Err(format!("{other} isn't known here")),
    }
}

/// Where the second lacks something of the first, or has it otherwise.
fn lost(path: &str, written: &Value, typed: &Value, found: &mut Vec<String>) {
    match (written, typed) {
        (Value::Object(written), Value::Object(typed)) => {
            for (name, value) in written {
                let path = format!("{path}/{name}");
                match typed.get(name) {
                    Some(other) => lost(&path, value, other, found),
                    None => found.push(format!("{path} is no field")),
                }
            }
        }
        (Value::Array(written), Value::Array(typed)) if written.len() == typed.len() => {
            for (index, (one, other)) in written.iter().zip(typed).enumerate() {
                lost(&format!("{path}/{index}"), one, other, found);
            }
        }
        _ if written == typed => {}
        _ => found.push(format!("{path} is read otherwise")),
    }
}

fn mistakes(object: &Value) -> Vec<String> {
    match read(object) {
        Ok(typed) => {
            let mut found = Vec::new();
            lost("", object, &typed, &mut found);
            found
        }
        Err(error) => vec![error],
    }
}

#[test]
fn every_object_is_of_its_type() {
    let mut seen = 0;
    for folder in APPLIED {
        for object in rendered(folder) {
            assert_eq!(mistakes(&object), Vec::<String>::new(), "{folder}: {}", title(&object));
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn a_field_that_is_misspelt_is_found() {
    let objects = rendered("overlays/single");
    let deployment = crate::the(&objects, "Deployment", "keywright");
    for (place, wrong, message) in [
        (
            "/spec/template/spec/securityContext",
            json!({"runAsNonroot": true}),
            "/spec/template/spec/securityContext/runAsNonroot is no field",
        ),
        ("/spec/replicas", json!("1"), "invalid type"),
        ("/kind", json!("Deplyment"), "isn't known here"),
    ] {
        let mut object = deployment.clone();
        *object.pointer_mut(place).unwrap() = wrong;
        let found = mistakes(&object);
        assert!(found.iter().any(|mistake| mistake.contains(message)), "{place}: {found:?}");
    }
}

/// Kubernetes' own schemas, by the pinned kubernetes-validate of `tests/servers/kubernetes.txt`.
fn validated(file: &Path) -> (bool, String) {
    let program = installed("kubernetes").join("bin/kubernetes-validate");
    let output = Command::new(program).args(["-k", "1.33", "--strict"]).arg(file).output().expect("it starts");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}

#[test]
fn kubernetes_schemas_take_every_object() {
    let folder = tempfile::tempdir().unwrap();
    // Its own kinds aren't Kubernetes'.
    let all = APPLIED.into_iter().flat_map(rendered).filter(|object| !object["apiVersion"].as_str().unwrap().contains("coreos"));
    let texts: Vec<String> = all.map(|object| object.to_string()).collect();
    let file = folder.path().join("all.yaml");
    std::fs::write(&file, texts.join("\n---\n")).unwrap();
    let (taken, said) = validated(&file);
    assert!(taken && said.matches(" passed for ").count() == texts.len(), "{said}");

    std::fs::write(&file, texts[0].replace("\"metadata\"", "\"metadat\"")).unwrap();
    let (taken, said) = validated(&file);
    assert!(!taken, "a misspelt field is refused: {said}");
}
