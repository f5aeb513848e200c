//! The calls, at the Kubernetes API itself.
//!
//! Bodies and answers are ours: built in memory that is wiped, and read by forms that know no field with a value. Secrets are asked
//! for as metadata only.

use std::collections::BTreeMap;

use async_trait::async_trait;
use http::{Method, Request, header};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::objects::{Intent, MANAGER, Mark, Objects, SecretAt, SecretSeen, WorkloadSeen};
use super::owner::{self, APPLICATION, FINGERPRINT, INSTALLATION, MANAGED_BY, REVISIONS};
use super::pods::{Listing, label_selector, pods_of};
use super::workloads::{Described, progress_of};
use crate::cluster::{Cluster, ClusterError};
use crate::domain::restarts::{Pod, Seen, Workload, WorkloadKind};

const APPLY: &str = "application/apply-patch+yaml";
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// Pods in one answer: each has some kilobytes.
const PAGE: usize = 200;
/// More pods than this aren't looked through: a selector that matches so many is a mistake.
const PODS_MAX: usize = 20_000;

/// Objects of one cluster.
#[derive(Debug, Clone)]
pub struct ApiObjects {
    cluster: Cluster,
}

impl ApiObjects {
    pub fn new(cluster: Cluster) -> ApiObjects {
        ApiObjects { cluster }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, accept: &str) -> Result<Option<T>, ClusterError> {
        let request = Request::builder().method(Method::GET).uri(path).header(header::ACCEPT, accept);
        match self.send(request.body(Vec::new())).await {
            Ok(text) => read(&text).map(Some),
            Err(ClusterError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Server-side apply. `force`: fields that others took are taken back.
    async fn apply(&self, path: &str, manager: &str, force: bool, body: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>, ClusterError> {
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(format!("{path}?fieldManager={manager}&force={force}"))
            .header(header::CONTENT_TYPE, APPLY)
            .header(header::ACCEPT, METADATA_ONLY);
        self.send(request.body(body.to_vec())).await
    }

    async fn send(&self, request: http::Result<Request<Vec<u8>>>) -> Result<Zeroizing<String>, ClusterError> {
        let request = request.map_err(|_| ClusterError::Invalid)?;
        self.cluster.call(self.cluster.client().request_text(request)).await.map(Zeroizing::new)
    }

    async fn pods(&self, at: &SecretAt, selector: &str, kind: WorkloadKind) -> Result<Vec<Pod>, ClusterError> {
        let (mut pods, mut next) = (Vec::new(), String::new());
        loop {
            let more = if next.is_empty() { String::new() } else { format!("&continue={}", encoded(&next)) };
            let path = format!("/api/v1/namespaces/{}/pods?labelSelector={}&limit={PAGE}{more}", at.namespace, encoded(selector));
            // An API lists a kind in any namespace, if only nothing: this isn't one's answer, and no word on pods.
            let page = self.get::<Listing>(&path, "application/json").await?.ok_or(ClusterError::NotFound)?;
            next = page.next().to_owned();
            pods.extend(pods_of(page, kind, &at.checksum_key()));
            if next.is_empty() {
                return Ok(pods);
            }
            if pods.len() > PODS_MAX {
                return Err(ClusterError::TooLarge);
            }
        }
    }
}

#[async_trait]
impl Objects for ApiObjects {
    async fn secret(&self, at: &SecretAt) -> Result<Option<SecretSeen>, ClusterError> {
        let metadata: Option<Partial> = self.get(&secret_path(at), METADATA_ONLY).await?;
        metadata.map(Partial::seen).transpose()
    }

    async fn apply_secret(&self, at: &SecretAt, intent: Intent<'_>) -> Result<SecretSeen, ClusterError> {
        let body = intent.contents.close(&front(at, &intent));
        let answer = self.apply(&secret_path(at), MANAGER, intent.over.is_some(), body).await?;
        read::<Partial>(&answer)?.seen()
    }

    async fn release_secret(&self, at: &SecretAt, over: &SecretSeen) -> Result<(), ClusterError> {
        let metadata = json!({"name": at.name, "namespace": at.namespace, "uid": over.uid, "resourceVersion": over.resource_version});
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}).to_string();
        self.apply(&secret_path(at), MANAGER, false, Zeroizing::new(body.into_bytes())).await.map(drop)
    }

    async fn workload(&self, secret: &SecretAt, workload: &Workload) -> Result<Option<WorkloadSeen>, ClusterError> {
        let described: Option<Described> = self.get(&workload_path(secret, workload), "application/json").await?;
        let Some(described) = described else { return Ok(None) };
        let selector = label_selector(&described.spec.selector).ok_or(ClusterError::Unreadable)?;
        let pods = self.pods(secret, &selector, workload.kind).await?;
        let annotation = |annotations: &BTreeMap<String, String>, key: &str| annotations.get(key).cloned();
        let restarted = annotation(&described.metadata.annotations, &secret.restarts_key()).unwrap_or_default();
        let seen = Seen {
            checksum: annotation(&described.spec.template.metadata.annotations, &secret.checksum_key()),
            restarted: restarted.split(' ').filter_map(|time| time.parse().ok()).collect(),
            progress: progress_of(workload.kind, &described),
            pods,
        };
        Ok(Some(WorkloadSeen { uid: described.metadata.uid, seen }))
    }

    async fn restart(&self, secret: &SecretAt, workload: &Workload, uid: &str, mark: &Mark) -> Result<(), ClusterError> {
        let times: Vec<String> = mark.restarted.iter().map(ToString::to_string).collect();
        // With its uid, so that one that is gone isn't created anew.
        let body = json!({
            "apiVersion": "apps/v1",
            "kind": kind_name(workload.kind),
            "metadata": {"name": workload.name, "namespace": secret.namespace, "uid": uid, "annotations": {secret.restarts_key(): times.join(" ")}},
            "spec": {"template": {"metadata": {"annotations": {secret.checksum_key(): mark.checksum}}}},
        });
        let body = Zeroizing::new(body.to_string().into_bytes());
        self.apply(&workload_path(secret, workload), &secret.workload_manager(), true, body).await.map(drop)
    }
}

/// Everything of the Secret that stands before its data.
fn front(at: &SecretAt, intent: &Intent<'_>) -> String {
    let mut metadata = json!({
        "name": at.name,
        "namespace": at.namespace,
        "labels": {MANAGED_BY.0: MANAGED_BY.1},
        "annotations": {
            APPLICATION: intent.owner.application,
            INSTALLATION: intent.owner.installation.0,
            FINGERPRINT: intent.contents.fingerprint(),
            REVISIONS: owner::written(intent.contents.revisions()),
        },
    });
    if let Some(over) = intent.over {
        metadata["uid"] = over.uid.as_str().into();
        metadata["resourceVersion"] = over.resource_version.as_str().into();
    }
    format!("{{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"type\":\"Opaque\",\"metadata\":{metadata},\"data\":")
}

fn secret_path(at: &SecretAt) -> String {
    format!("/api/v1/namespaces/{}/secrets/{}", at.namespace, at.name)
}

fn workload_path(secret: &SecretAt, workload: &Workload) -> String {
    let resource = match workload.kind {
        WorkloadKind::Deployment => "deployments",
        WorkloadKind::StatefulSet => "statefulsets",
        WorkloadKind::DaemonSet => "daemonsets",
    };
    format!("/apis/apps/v1/namespaces/{}/{resource}/{}", secret.namespace, workload.name)
}

fn kind_name(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment => "Deployment",
        WorkloadKind::StatefulSet => "StatefulSet",
        WorkloadKind::DaemonSet => "DaemonSet",
    }
}

/// For the query of an address.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, ClusterError> {
    serde_json::from_str(text).map_err(|_| ClusterError::Unreadable)
}

/// An object without anything but its metadata. An API that doesn't know how to leave the rest away is read in the same way.
#[derive(serde::Deserialize)]
struct Partial {
    metadata: Metadata,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    resource_version: String,
    deletion_timestamp: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    managed_fields: Vec<Managed>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Managed {
    #[serde(default)]
    manager: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    fields_v1: Value,
}

impl Managed {
    fn is_ours(&self) -> bool {
        self.manager == MANAGER && self.operation == "Apply"
    }
}

impl Partial {
    fn seen(self) -> Result<SecretSeen, ClusterError> {
        let Metadata { uid, resource_version, deletion_timestamp, labels, annotations, managed_fields } = self.metadata;
        if uid.is_empty() || resource_version.is_empty() {
            return Err(ClusterError::Unreadable);
        }
        let ours =
            managed_fields.iter().filter(|managed| managed.is_ours()).filter_map(|managed| managed.fields_v1.get("f:data")?.as_object());
        let ours = ours.flat_map(|fields| fields.keys()).filter_map(|key| key.strip_prefix("f:")).map(str::to_owned).collect();
        let has_others = managed_fields.iter().any(|managed| !managed.is_ours());
        Ok(SecretSeen { uid, resource_version, labels, annotations, ours, has_others, is_ending: deletion_timestamp.is_some() })
    }
}

#[cfg(test)]
mod tests;
