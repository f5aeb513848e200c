//! The courier keeps the contract of all couriers, and says what a person needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::super::contract::Hand as _;
use super::super::memory::{Fault, MemoryObjects};
use super::super::objects::{Objects as _, SecretAt};
use super::super::owner::revisions;
use super::*;
use crate::cluster::ClusterError;
use crate::delivery::courier_contract::{self, Stage, cargo, secret};
use crate::delivery::memory::Delivered;
use crate::domain::ids::InstallationId;
use crate::domain::restarts::{Pod, Progress as Rolls, Restarts, Seen, Workload, WorkloadKind};
use crate::sealing::Keyring;

#[derive(Debug)]
struct InCluster {
    objects: Arc<MemoryObjects>,
    keyring: Arc<Keyring>,
    courier: SecretCourier,
    restart: bool,
}

fn courier(objects: &Arc<MemoryObjects>, keyring: &Arc<Keyring>) -> SecretCourier {
    SecretCourier::new(KubernetesSecrets::new(objects.clone(), keyring.clone(), InstallationId(Uuid::from_u128(7))))
}

fn at() -> SecretAt {
    SecretAt { namespace: "shop".parse().unwrap(), name: "payments".parse().unwrap() }
}

fn workload() -> Workload {
    Workload { kind: WorkloadKind::Deployment, name: "api".parse().unwrap() }
}

impl InCluster {
    fn new(restart: bool) -> InCluster {
        let (objects, keyring) = (Arc::new(MemoryObjects::new()), Arc::new(Keyring::ephemeral().unwrap()));
        let old = Pod { name: "api-0".parse().unwrap(), checksum: None, is_ready: true };
        let seen = Seen { checksum: None, restarted: Vec::new(), progress: Rolls::Settled, pods: vec![old] };
        objects.set_workload(&at(), &workload(), Some(seen));
        let courier = courier(&objects, &keyring);
        InCluster { objects, keyring, courier, restart }
    }
}

#[async_trait]
impl Stage for InCluster {
    fn courier(&self) -> &dyn Courier {
        &self.courier
    }

    fn application(&self) -> Application {
        let mut application = courier_contract::application();
        let restarts = Restarts { workloads: vec![workload()], windows: Vec::new(), batch: 1, per_hour: 6 };
        let restarts = self.restart.then_some(restarts);
        application.delivery.kubernetes = Some(KubernetesDelivery { secret: at().name, namespace: at().namespace, restarts });
        application
    }

    fn again(&mut self) {
        self.courier = courier(&self.objects, &self.keyring);
    }

    fn break_target(&self) {
        self.objects.set_fault(Some(Fault::Refused(ClusterError::Unavailable { retry_after: None })));
    }

    fn mend_target(&self) {
        self.objects.set_fault(None);
    }

    /// The revisions are ours to write: what stands in the entries is held against them.
    async fn has(&self) -> Option<Delivered> {
        let data = self.objects.data(&at()).await.unwrap_or_default();
        let mut has = BTreeMap::new();
        for name in data.keys().filter_map(|name| name.strip_suffix(".client_secret")) {
            let name: Name = name.parse().unwrap();
            let value = &data[&format!("{name}.client_secret")];
            let revision = (0..100).find(|revision| secret(&name, *revision).as_bytes() == value).unwrap();
            has.insert(name, (format!("v{revision}").parse().unwrap(), revision));
        }
        Some(has)
    }
}

#[tokio::test]
async fn delivery_kubernetes_keeps_the_contract_of_all_couriers() {
    courier_contract::check(InCluster::new(false)).await;
}

#[tokio::test]
async fn a_rollout_is_under_way_until_all_pods_are_new_and_names_the_old_ones() {
    let stage = InCluster::new(true);
    let application = stage.application();
    let cargo = cargo(&application, Way::KubernetesSecret, &[("key", 1)]);
    let outcome = async || stage.courier.deliver(&cargo).await.unwrap().outcome;
    assert_eq!(outcome().await, Outcome::UnderWay { until: None });
    let remark = stage.courier.remark(&application.name).await.unwrap();
    assert_eq!(remark.text, "deployment/api rolls; 1 pod may still use the old value");
    assert_eq!(remark.stragglers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["api-0"]);
    stage.objects.roll(&at(), &workload(), true);
    assert_eq!(outcome().await, Outcome::TakenUp);
    assert_eq!(stage.courier.remark(&application.name).await, None);
    let written = stage.objects.secret(&at()).await.unwrap().unwrap();
    assert_eq!(revisions(&written), BTreeMap::from([("key", 1)]));
    let place = Place::of(&application.delivery, Way::KubernetesSecret, None).unwrap();
    stage.courier.withdraw(&application.name, &place).await.unwrap();
    assert_eq!(stage.has().await, Some(Delivered::new()));
}

#[tokio::test]
async fn a_rollout_that_needs_a_person_fails_by_name_and_goes_on_once_it_is_mended() {
    let stage = InCluster::new(true);
    let application = stage.application();
    let cargo = cargo(&application, Way::KubernetesSecret, &[("key", 1)]);
    stage.courier.deliver(&cargo).await.unwrap();
    let mut failed = stage.objects.seen_of(&at(), &workload()).unwrap();
    failed.progress = Rolls::Failed;
    stage.objects.set_workload(&at(), &workload(), Some(failed));
    assert_eq!(stage.courier.deliver(&cargo).await, Err(CourierError::Refused("restarts wait for a person")));
    let remark = stage.courier.remark(&application.name).await.unwrap();
    assert!(remark.text.starts_with("the rollout of deployment/api failed"), "{}", remark.text);
    assert_eq!(remark.stragglers.len(), 1);
    stage.objects.roll(&at(), &workload(), true);
    assert_eq!(stage.courier.deliver(&cargo).await.unwrap().outcome, Outcome::TakenUp);
}

#[tokio::test]
async fn where_there_is_no_cluster_that_is_said() {
    let stage = InCluster::new(false);
    let application = stage.application();
    let courier = SecretCourier::without_cluster("name a kubeconfig".to_owned());
    let refused = courier.deliver(&cargo(&application, Way::KubernetesSecret, &[("key", 1)])).await;
    assert_eq!(refused, Err(CourierError::Refused("there is no cluster to write to")));
    assert_eq!(courier.remark(&application.name).await.unwrap().text, "name a kubeconfig");
}

#[tokio::test]
async fn what_a_person_has_to_do_is_told_in_full() {
    let stage = InCluster::new(false);
    let application = stage.application();
    let cargo = cargo(&application, Way::KubernetesSecret, &[("key", 1)]);
    stage.objects.create_secret(&at(), &[("password", "theirs")]).await;
    assert_eq!(stage.courier.deliver(&cargo).await, Err(CourierError::Refused("the Secret isn't ours")));
    let remark = stage.courier.remark(&application.name).await.unwrap();
    let way_out = "kubectl annotate -n shop secret payments keywright.dev/adopt=payments-api";
    assert!(remark.text.contains(way_out), "{}", remark.text);
    stage.objects.fail_at(0, Fault::Refused(ClusterError::TooMany { retry_after: Some(Duration::from_secs(9)) }));
    let later = stage.courier.deliver(&cargo).await.unwrap_err();
    assert_eq!(later.retry_after(), Some(Duration::from_secs(9)));
    stage.objects.annotate_secret(&at(), "keywright.dev/adopt", "payments-api").await;
    assert_eq!(stage.courier.deliver(&cargo).await.unwrap().outcome, Outcome::Delivered);
    assert_eq!(stage.courier.remark(&application.name).await, None);
}
