//! The courier of Kubernetes Secrets, wired: to the cluster that the configuration names, or that we run in.

use std::sync::Arc;

use crate::cluster::{Cluster, ClusterSettings};
use crate::delivery::kubernetes::api::ApiObjects;
use crate::delivery::kubernetes::{KubernetesSecrets, SecretCourier};
use crate::domain::ids::InstallationId;
use crate::sealing::Keyring;

/// Without a cluster it says so to the applications that ask for a Secret: all others need none.
pub(super) fn courier(settings: &ClusterSettings, installation: InstallationId, keyring: Arc<Keyring>) -> SecretCourier {
    match Cluster::connect(settings) {
        Ok(cluster) => SecretCourier::new(KubernetesSecrets::new(Arc::new(ApiObjects::new(cluster)), keyring, installation)),
        Err(error) => SecretCourier::without_cluster(error.to_string()),
    }
}
