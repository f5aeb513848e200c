//! Where a suite runs: the fake, and a real cluster too where one is named.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use keywright::cluster::{Cluster, ClusterSettings};
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use crate::fake::{ADMIN, ApiServer};

/// Names a kubeconfig of a cluster that tests may make namespaces in.
const REAL: &str = "KEYWRIGHT_TEST_KUBECONFIG";

/// A namespace of its own, removed when the world ends, however it ends.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) namespace: String,
    /// `None` in a real cluster.
    pub(crate) fake: Option<Arc<ApiServer>>,
    pub(crate) kubeconfig: PathBuf,
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn on_fake() -> World {
        let (fake, folder) = (ApiServer::start().await, tempfile::tempdir().unwrap());
        let namespace = own_name();
        fake.namespace(&namespace);
        let kubeconfig = fake.kubeconfig(folder.path(), &namespace, ADMIN);
        let cluster = Cluster::connect(&ClusterSettings { kubeconfig: Some(kubeconfig.clone()) }).unwrap();
        World { cluster, namespace, fake: Some(fake), kubeconfig, folder }
    }

    /// `None` where no real cluster is named.
    pub(crate) async fn on_real() -> Option<World> {
        let kubeconfig = PathBuf::from(std::env::var_os(REAL)?);
        let cluster = Cluster::connect(&ClusterSettings { kubeconfig: Some(kubeconfig.clone()) }).expect("a usable kubeconfig");
        let world = World { cluster, namespace: own_name(), fake: None, kubeconfig, folder: tempfile::tempdir().unwrap() };
        let namespace = Namespace {
            metadata: kube::core::ObjectMeta { name: Some(world.namespace.clone()), ..Default::default() },
            ..Default::default()
        };
        Api::all(world.cluster.client())
            .create(&PostParams::default(), &namespace)
            .await
            .expect("a cluster where tests may make namespaces");
        Some(world)
    }

    /// All there are: suites run on each.
    pub(crate) async fn all() -> Vec<World> {
        let mut worlds = vec![World::on_fake().await];
        worlds.extend(World::on_real().await);
        worlds
    }

    pub(crate) fn fake(&self) -> &Arc<ApiServer> {
        self.fake.as_ref().expect("a test of the fake")
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// As somebody else: the bearer of this token. On the fake alone.
    pub(crate) fn cluster_as(&self, token: &str) -> Cluster {
        let kubeconfig = self.fake().kubeconfig(self.folder.path(), &self.namespace, token);
        Cluster::connect(&ClusterSettings { kubeconfig: Some(kubeconfig) }).unwrap()
    }
}

fn own_name() -> String {
    format!("keywright-test-{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

impl Drop for World {
    /// On a thread with a runtime of its own: a test that failed has none left.
    fn drop(&mut self) {
        if self.fake.is_some() {
            return;
        }
        let (kubeconfig, namespace) = (self.kubeconfig.clone(), self.namespace.clone());
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let cluster = Cluster::connect(&ClusterSettings { kubeconfig: Some(kubeconfig) }).expect("a usable kubeconfig");
                let namespaces: Api<Namespace> = Api::all(cluster.client());
                namespaces.delete(&namespace, &DeleteParams::background()).await.map(drop)
            })
        });
        let outcome = removal.join();
        if !std::thread::panicking() {
            outcome.expect("the removal ends").expect("the namespace of the test is removed");
        }
    }
}
