//! The lease in Kubernetes: one object of `coordination.k8s.io/v1`, read by `GET` and written by `PUT` with its version.

use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use super::{Claim, Identity, LeaseError, LeaseStore, Record, Seen, Stamp};
use crate::cluster::{Cluster, ClusterError};
use crate::runtime::clock::wall_now;

/// Who owns the fields that we write.
const FIELD_MANAGER: &str = "keywright";

/// The lease of this name and namespace.
#[derive(Clone)]
pub struct KubernetesLease {
    cluster: Cluster,
    leases: Api<Lease>,
    name: String,
}

impl std::fmt::Debug for KubernetesLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesLease").field("name", &self.name).finish_non_exhaustive()
    }
}

impl KubernetesLease {
    /// Makes no call: the first claim creates the lease.
    pub fn new(cluster: &Cluster, namespace: &str, name: &str) -> KubernetesLease {
        let leases = Api::namespaced(cluster.client(), namespace);
        KubernetesLease { cluster: cluster.clone(), leases, name: name.to_owned() }
    }
}

impl From<ClusterError> for LeaseError {
    fn from(error: ClusterError) -> LeaseError {
        match error {
            // 404 of a write: somebody deleted it, or its namespace.
            ClusterError::NotFound | ClusterError::Conflict | ClusterError::AlreadyExists | ClusterError::Owned | ClusterError::Gone => {
                LeaseError::Changed
            }
            ClusterError::Unauthorized | ClusterError::Forbidden => LeaseError::Forbidden,
            ClusterError::Invalid | ClusterError::TooLarge | ClusterError::Unreadable => LeaseError::Invalid,
            ClusterError::TooMany { retry_after } | ClusterError::Unavailable { retry_after } => LeaseError::Unavailable { retry_after },
        }
    }
}

/// What is ours of it, and what a write has to send back: the labels and annotations of others stay.
fn seen(lease: Lease) -> Result<Seen, LeaseError> {
    let spec = lease.spec.unwrap_or_default();
    let record = Record {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()).map(|holder| Identity::new(&holder)),
        transitions: spec.lease_transitions.map_or(0, |count| count.unsigned_abs().into()),
        duration: spec.lease_duration_seconds.map(|seconds| Duration::from_secs(seconds.unsigned_abs().into())),
        mark: spec.renew_time.as_ref().map(|time| time.0.to_string()).unwrap_or_default(),
    };
    let metadata = ObjectMeta { managed_fields: None, ..lease.metadata };
    let kept =
        Lease { metadata, spec: Some(LeaseSpec { acquire_time: spec.acquire_time, renew_time: spec.renew_time, ..LeaseSpec::default() }) };
    let stamp = serde_json::to_value(kept).map_err(|_| LeaseError::Invalid)?;
    Ok(Seen { record, stamp: Stamp(stamp) })
}

/// Always later than what stands there, though the clock may have been set back: others must see a change.
fn renewal(before: Option<&MicroTime>, wall: Timestamp) -> Timestamp {
    let next = before.and_then(|before| before.0.checked_add(SignedDuration::from_micros(1)).ok());
    next.map_or(wall, |next| wall.max(next))
}

fn spec(before: Option<LeaseSpec>, claim: &Claim, wall: Timestamp) -> LeaseSpec {
    let before = before.unwrap_or_default();
    let renewed = MicroTime(renewal(before.renew_time.as_ref(), wall));
    let seconds = claim.duration.as_secs().max(1);
    LeaseSpec {
        acquire_time: if claim.is_new { Some(MicroTime(wall)) } else { before.acquire_time },
        holder_identity: claim.holder.as_ref().map(|holder| holder.as_str().to_owned()),
        lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
        lease_transitions: Some(i32::try_from(claim.transitions).unwrap_or(i32::MAX)),
        renew_time: Some(renewed),
        ..LeaseSpec::default()
    }
}

#[async_trait]
impl LeaseStore for KubernetesLease {
    async fn read(&self) -> Result<Option<Seen>, LeaseError> {
        match self.cluster.call(self.leases.get(&self.name)).await {
            Ok(lease) => seen(lease).map(Some),
            Err(ClusterError::NotFound) => Ok(None),
            Err(error) => match LeaseError::from(error) {
                LeaseError::Changed => Err(LeaseError::Invalid),
                error => Err(error),
            },
        }
    }

    async fn write(&self, seen_before: Option<&Stamp>, claim: &Claim) -> Result<Seen, LeaseError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match seen_before {
            Some(Stamp(stamp)) => {
                let kept: Lease = serde_json::from_value(stamp.clone()).map_err(|_| LeaseError::Invalid)?;
                let lease = Lease { spec: Some(spec(kept.spec, claim, wall_now())), metadata: kept.metadata };
                self.cluster.call(self.leases.replace(&self.name, &params, &lease)).await?
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(spec(None, claim, wall_now())) };
                let created = self.cluster.call(self.leases.create(&params, &lease)).await;
                created.map_err(|error| if error == ClusterError::NotFound { LeaseError::NoNamespace } else { error.into() })?
            }
        };
        seen(written)
    }
}
