//! The matrix with the journal as ConfigMaps: each start is another process, with nothing in memory of the one before.

use std::sync::Arc;

use keywright::cluster::{Cluster, ClusterSettings};
use keywright::domain::ids::Name;
use keywright::journal::kubernetes::{KubernetesJournal, KubernetesSettings};
use keywright::sealing::Keyring;
use keywright::stores::memory::MemoryStore;
use rstest::rstest;

use super::fake_kube::{ADMIN, ApiServer};
use super::life::Scenario;
use super::world::Backend;

/// An append is four calls there.
const STRIDE: usize = 151;
const NAMESPACE: &str = "default";

#[rstest]
#[tokio::test]
async fn points_recover_in_kubernetes(#[values(0, 1, 2, 3)] quarter: usize) {
    let (server, folder) = (ApiServer::start().await, tempfile::tempdir().unwrap());
    let kubeconfig = server.kubeconfig(folder.path(), NAMESPACE, ADMIN);
    let cluster = Cluster::connect(&ClusterSettings { kubeconfig: Some(kubeconfig) }).unwrap();
    let replica: Name = "a".parse().unwrap();
    let backend = || {
        // A life of its own: the lease tells whose the objects are.
        let lease = format!("kw-{}", uuid::Uuid::new_v4().simple());
        let settings = KubernetesSettings { namespace: None, lease: lease.parse().unwrap() };
        let keyring = Arc::new(Keyring::ephemeral().unwrap());
        let (cluster, replica, keys) = (cluster.clone(), replica.clone(), keyring.clone());
        let journal = move || KubernetesJournal::new(cluster.clone(), &settings, keys.clone(), replica.clone());
        Backend::Cluster { store: MemoryStore::default(), journal: Box::new(journal), keyring }
    };
    for scenario in Scenario::ALL.into_iter().skip(quarter).step_by(4) {
        super::matrix("Kubernetes", &backend, scenario, super::stride(STRIDE)).await;
    }
}
