//! Delivery as a Secret at an API server: the contract, rights, lost answers, other people, and rollouts of many pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Secret;
use keywright::cluster::{Cluster, ClusterError};
use keywright::delivery::kubernetes::api::ApiObjects;
use keywright::delivery::kubernetes::contract::{Hand, World as Stage, contract, document};
use keywright::delivery::kubernetes::objects::SecretAt;
use keywright::delivery::kubernetes::trouble::Trouble;
use keywright::delivery::kubernetes::{KubernetesSecrets, Progress};
use keywright::domain::delivery::KubernetesDelivery;
use keywright::domain::document::Document;
use keywright::domain::ids::InstallationId;
use keywright::domain::restarts::{Restarts, Waiting, Workload, WorkloadKind};
use keywright::sealing::Keyring;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fake::{ADMIN, API_AUDIENCE, ApiServer, Fault, Gate};
use crate::world::World;

/// Somebody else, with a client of his own.
#[derive(Debug)]
struct Somebody {
    cluster: Cluster,
    fake: Option<FakeRef>,
    /// Its API server runs without controllers.
    is_alone: AtomicBool,
}

struct FakeRef(Arc<ApiServer>);

impl std::fmt::Debug for FakeRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the fake")
    }
}

impl Somebody {
    fn of(world: &World) -> Somebody {
        Somebody { cluster: world.cluster.clone(), fake: world.fake.clone().map(FakeRef), is_alone: AtomicBool::new(false) }
    }

    async fn is_settled(&self, at: &SecretAt, workload: &Workload) -> bool {
        let objects = ApiObjects::new(self.cluster.clone());
        let seen = keywright::delivery::kubernetes::objects::Objects::workload(&objects, at, workload).await.unwrap();
        seen.is_some_and(|workload| workload.seen.progress == keywright::domain::restarts::Progress::Settled)
    }

    /// Writes the status that its controller would.
    async fn observe(&self, at: &SecretAt, workload: &Workload) {
        let path = format!("/apis/apps/v1/namespaces/{}/{}/{}", at.namespace, plural(workload.kind), workload.name);
        let call = async |request: http::Result<http::Request<Vec<u8>>>| -> Value {
            self.cluster.client().request(request.unwrap()).await.unwrap()
        };
        let object = call(http::Request::get(&path).body(Vec::new())).await;
        let status = json!({"status": observed(&object)}).to_string().into_bytes();
        let patch = http::Request::patch(format!("{path}/status")).header("content-type", "application/merge-patch+json");
        call(patch.body(status)).await;
    }

    fn secrets(&self, at: &SecretAt) -> Api<Secret> {
        Api::namespaced(self.cluster.client(), at.namespace.as_str())
    }

    async fn merge(&self, at: &SecretAt, patch: Value) {
        let params = PatchParams { field_manager: Some("somebody".to_owned()), ..PatchParams::default() };
        self.secrets(at).patch(at.name.as_str(), &params, &Patch::Merge(&patch)).await.unwrap();
    }

    async fn create<K>(&self, at: &SecretAt, object: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let objects: Api<K> = Api::namespaced(self.cluster.client(), at.namespace.as_str());
        match objects.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The status of a workload without pods that its controller has looked at.
fn observed(object: &Value) -> Value {
    let mut status = json!({"observedGeneration": object["metadata"]["generation"]});
    let counts: &[&str] = match object["kind"].as_str() {
        Some("DaemonSet") => &["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"],
        _ => &["replicas"],
    };
    counts.iter().for_each(|count| status[*count] = 0.into());
    status
}

fn plural(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment => "deployments",
        WorkloadKind::StatefulSet => "statefulsets",
        WorkloadKind::DaemonSet => "daemonsets",
    }
}

#[async_trait]
impl Hand for Somebody {
    async fn create_secret(&self, at: &SecretAt, data: &[(&str, &str)]) {
        let data: BTreeMap<&str, &str> = data.iter().copied().collect();
        self.create::<Secret>(at, json!({"metadata": {"name": at.name}, "stringData": data})).await;
    }

    async fn edit_secret(&self, at: &SecretAt, name: &str, value: &str) {
        self.merge(at, json!({"stringData": {name: value}})).await;
    }

    async fn annotate_secret(&self, at: &SecretAt, name: &str, value: &str) {
        self.merge(at, json!({"metadata": {"annotations": {name: value}}})).await;
    }

    async fn delete_secret(&self, at: &SecretAt) {
        self.secrets(at).delete(at.name.as_str(), &DeleteParams::default()).await.unwrap();
    }

    async fn data(&self, at: &SecretAt) -> Option<BTreeMap<String, Vec<u8>>> {
        let secret = self.secrets(at).get_opt(at.name.as_str()).await.unwrap()?;
        Some(secret.data.unwrap_or_default().into_iter().map(|(name, value)| (name, value.0)).collect())
    }

    async fn create_workload(&self, at: &SecretAt, workload: &Workload) {
        let labels = json!({"app": workload.name});
        // On no node there is, so that the daemon set has no pods either.
        let pod =
            json!({"containers": [{"name": "main", "image": "example.invalid/none"}], "nodeSelector": {"keywright.dev/none": "none"}});
        let template = json!({"metadata": {"labels": labels}, "spec": pod});
        let mut object = json!({"metadata": {"name": workload.name}, "spec": {"selector": {"matchLabels": labels}, "template": template}});
        match workload.kind {
            WorkloadKind::Deployment => {
                object["spec"]["replicas"] = 0.into();
                self.create::<Deployment>(at, object).await;
            }
            WorkloadKind::StatefulSet => {
                object["spec"]["replicas"] = 0.into();
                object["spec"]["serviceName"] = "none".into();
                self.create::<StatefulSet>(at, object).await;
            }
            WorkloadKind::DaemonSet => self.create::<DaemonSet>(at, object).await,
        }
        self.settle(at, workload).await;
    }

    async fn settle(&self, at: &SecretAt, workload: &Workload) {
        if let Some(fake) = &self.fake {
            let seen = |object: &mut Value| object["status"] = observed(object);
            assert!(fake.0.edit(plural(workload.kind), at.namespace.as_str(), workload.name.as_str(), seen));
            return;
        }
        // Its controller sees it in a moment. An API server may run alone, without controllers: then we say what one would.
        for _ in 0..200 {
            if self.is_settled(at, workload).await {
                return;
            }
            if self.is_alone.load(Ordering::Relaxed) {
                self.observe(at, workload).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(!self.is_alone.swap(true, Ordering::Relaxed), "{workload} isn't settled, whatever its status says");
        Box::pin(self.settle(at, workload)).await;
    }
}

#[tokio::test]
async fn an_api_server_keeps_the_contract_of_secrets() {
    for world in World::all().await {
        let (objects, hand) = (Arc::new(ApiObjects::new(world.cluster.clone())), Arc::new(Somebody::of(&world)));
        contract(&Stage { objects, hand, namespace: world.namespace.parse().unwrap() }).await;
    }
}

/// One application's Secret on the fake.
struct Scene {
    world: World,
    keyring: Arc<Keyring>,
    to: KubernetesDelivery,
}

impl Scene {
    async fn new(deployments: &[&str], batch: usize) -> Scene {
        let world = World::on_fake().await;
        let workload = |name: &&str| Workload { kind: WorkloadKind::Deployment, name: name.parse().unwrap() };
        let workloads: Vec<Workload> = deployments.iter().map(workload).collect();
        deployments.iter().for_each(|name| world.fake().deployment(&world.namespace, name, 3));
        let restarts = Restarts { workloads, windows: Vec::new(), batch, per_hour: 6 };
        let namespace = world.namespace.parse().unwrap();
        let to =
            KubernetesDelivery { secret: "payments".parse().unwrap(), namespace, restarts: (!deployments.is_empty()).then_some(restarts) };
        Scene { world, keyring: Arc::new(Keyring::ephemeral().unwrap()), to }
    }

    async fn deliver_as(&self, token: &str, document: &Document) -> Result<Progress, Trouble> {
        let objects = Arc::new(ApiObjects::new(self.world.cluster_as(token)));
        let installation = InstallationId(uuid::Uuid::from_u128(7));
        let courier = KubernetesSecrets::new(objects, self.keyring.clone(), installation);
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        courier.deliver(&"payments".parse().unwrap(), &self.to, &[document], now).await.map(|(_, progress)| progress)
    }

    async fn deliver(&self, document: &Document) -> Result<Progress, Trouble> {
        self.deliver_as(ADMIN, document).await
    }

    fn secret(&self) -> Value {
        self.world.fake().object("secrets", &self.world.namespace, "payments").unwrap()
    }

    fn checksum(&self, deployment: &str) -> Value {
        let object = self.world.fake().object("deployments", &self.world.namespace, deployment).unwrap();
        object["spec"]["template"]["metadata"]["annotations"]["keywright.dev/checksum-payments"].clone()
    }
}

fn key(revision: u64, value: &str) -> Document {
    document("dinie", revision, &[("client_secret", value)])
}

#[tokio::test]
async fn the_rights_that_it_needs_are_for_named_objects_and_no_more() {
    let scene = Scene::new(&["api"], 1).await;
    let (fake, namespace) = (scene.world.fake(), scene.world.namespace.clone());
    fake.namespace("keywright");
    fake.put("serviceaccounts", "keywright", json!({"metadata": {"name": "keywright"}}));
    let token = fake.token("keywright", "keywright", None, &[API_AUDIENCE], Duration::from_secs(3_600));
    let forbidden = scene.deliver_as(&token, &key(1, "one")).await.unwrap_err();
    assert!(forbidden.to_string().contains(&format!("forbids us to get secrets/payments in {namespace}")), "{forbidden}");
    assert!(!forbidden.is_passing());
    let rules = [
        json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "patch", "create"], "resourceNames": ["payments"]}),
        json!({"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"], "resourceNames": ["api"]}),
        json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}),
    ];
    for (count, missing) in [(1, "get deployment/api"), (2, "get deployment/api")] {
        fake.grant(("keywright", "keywright"), Some(&namespace), json!([rules[count - 1]]));
        let forbidden = scene.deliver_as(&token, &key(1, "one")).await.unwrap_err();
        assert!(forbidden.to_string().contains(missing), "{forbidden}");
    }
    fake.grant(("keywright", "keywright"), Some(&namespace), json!([rules[2]]));
    assert!(matches!(scene.deliver_as(&token, &key(1, "one")).await, Ok(Progress::Rolling { .. })));
    fake.roll(&namespace, "api", 3);
    assert_eq!(scene.deliver_as(&token, &key(1, "one")).await, Ok(Progress::Delivered { in_use: true }));
}

#[tokio::test]
async fn whatever_is_lost_is_taken_up_and_nothing_is_written_twice() {
    let faults = [
        Fault::Answers(429, Some(2)),
        Fault::Answers(409, None),
        Fault::Answers(500, None),
        Fault::Answers(503, Some(1)),
        Fault::LosesReplyAfterEffect,
        Fault::RefusesBefore,
    ];
    for fault in faults {
        // Secret read, Secret written, Deployment read, pods listed, Deployment marked.
        for at in 0..5 {
            let scene = Scene::new(&["api"], 1).await;
            let (fake, mut number, befalls) = (scene.world.fake(), 0, fault.clone());
            fake.plan(move |_| {
                number += 1;
                (number == at + 1).then(|| befalls.clone())
            });
            let first = scene.deliver(&key(1, "canary-of-a-value")).await;
            if let Err(trouble) = &first {
                assert!(trouble.is_passing(), "{trouble}");
                assert!(!format!("{trouble} {trouble:?}").contains("canary"), "{trouble}");
            }
            fake.nothing_goes_wrong();
            scene.deliver(&key(1, "canary-of-a-value")).await.unwrap();
            let (secret, checksum) = (scene.secret(), scene.checksum("api"));
            assert_eq!(secret["data"], json!({"dinie.client_secret": "Y2FuYXJ5LW9mLWEtdmFsdWU="}));
            let generation = |of: &World| of.fake().object("deployments", &of.namespace, "api").unwrap()["metadata"]["generation"].clone();
            let before = generation(&scene.world);
            fake.roll(&scene.world.namespace, "api", 3);
            assert_eq!(scene.deliver(&key(1, "canary-of-a-value")).await, Ok(Progress::Delivered { in_use: true }), "{fault:?} at {at}");
            assert_eq!((scene.secret(), scene.checksum("api"), generation(&scene.world)), (secret, checksum, before), "{fault:?} at {at}");
            let restarts = fake.object("deployments", &scene.world.namespace, "api").unwrap();
            let times = restarts["metadata"]["annotations"]["keywright.dev/restarts-payments"].as_str().unwrap().to_owned();
            assert_eq!(times.split(' ').count(), 1, "{fault:?} at {at}: restarted twice");
        }
    }
}

/// Writes of Secrets wait for this gate. The other one opens when one waits.
fn stall_writes(fake: &ApiServer, gate: &Gate) -> Gate {
    let (stalls, waits) = (gate.clone(), Gate::new());
    let stalled = waits.clone();
    fake.plan(move |call| {
        call.is("patch", "secrets").then(|| {
            waits.open();
            Fault::Stalls(stalls.clone())
        })
    });
    stalled
}

#[tokio::test]
async fn how_long_the_api_wants_to_be_left_alone_is_told() {
    let scene = Scene::new(&[], 1).await;
    scene.world.fake().plan(|_| Some(Fault::Answers(429, Some(7))));
    let trouble = scene.deliver(&key(1, "one")).await.unwrap_err();
    assert_eq!(trouble.retry_after(), Some(Duration::from_secs(7)));
    assert!(matches!(trouble, Trouble::Api { error: ClusterError::TooMany { .. }, .. }), "{trouble}");
}

/// Somebody creates a Secret of that name between our look and our write.
#[tokio::test]
async fn who_creates_it_in_the_same_moment_keeps_it() {
    for theirs in [json!({"dinie.client_secret": "dGhlaXJz"}), json!({"password": "dGhlaXJz"})] {
        let scene = Scene::new(&[], 1).await;
        let (fake, gate) = (scene.world.fake().clone(), Gate::new());
        let stalled = stall_writes(&fake, &gate);
        let document = key(1, "ours");
        let (refused, ()) = tokio::join!(scene.deliver(&document), async {
            stalled.passed().await;
            let secrets: Api<Secret> = Api::namespaced(scene.world.cluster.client(), &scene.world.namespace);
            let secret = json!({"metadata": {"name": "payments"}, "data": theirs});
            secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
            fake.nothing_goes_wrong();
            gate.open();
        });
        assert!(matches!(refused, Err(Trouble::NotOurs { .. })), "{refused:?}");
        let secret = scene.secret();
        assert_eq!(secret["data"], theirs, "theirs, and nothing of ours");
        assert!(secret["metadata"]["labels"].is_null() && secret["metadata"]["annotations"].is_null(), "{}", secret["metadata"]);
    }
}

#[tokio::test]
async fn a_leader_that_slept_over_a_rotation_writes_nothing_when_it_wakes() {
    let scene = Scene::new(&[], 1).await;
    scene.deliver(&key(1, "old")).await.unwrap();
    let (fake, gate) = (scene.world.fake().clone(), Gate::new());
    let sleeper = KubernetesSecrets::new(
        Arc::new(ApiObjects::new(scene.world.cluster_as(ADMIN))),
        scene.keyring.clone(),
        InstallationId(uuid::Uuid::from_u128(7)),
    );
    // It had an older value to bring, and sleeps before its write.
    let stalled = stall_writes(&fake, &gate);
    let (payments, now) = ("payments".parse().unwrap(), "2026-11-23T12:00:00Z".parse().unwrap());
    let older = key(2, "older");
    let cargo = [&older];
    let (woken, ()) = tokio::join!(sleeper.deliver(&payments, &scene.to, &cargo, now), async {
        stalled.passed().await;
        fake.nothing_goes_wrong();
        scene.deliver(&key(3, "newer")).await.unwrap();
        gate.open();
    });
    assert!(matches!(woken, Err(Trouble::Overtaken { .. })), "{woken:?}");
    assert_eq!(scene.secret()["data"], json!({"dinie.client_secret": "bmV3ZXI="}));
}

#[tokio::test]
async fn workloads_roll_in_batches_and_pods_of_before_are_named_until_the_last_is_gone() {
    let scene = Scene::new(&["api", "worker", "batch"], 2).await;
    let (fake, namespace) = (scene.world.fake().clone(), scene.world.namespace.clone());
    let document = key(1, "one");
    let old = |deployment: &str| fake.pods_of(&namespace, deployment).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let mut all: Vec<String> = ["api", "worker", "batch"].into_iter().flat_map(old).collect();
    all.sort();
    let stragglers = async || match scene.deliver(&document).await.unwrap() {
        Progress::Rolling { stragglers, .. } => stragglers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(stragglers().await, all);
    assert!(scene.checksum("api").is_string() && scene.checksum("worker").is_string());
    assert!(scene.checksum("batch").is_null(), "two at a time");
    fake.roll(&namespace, "api", 2);
    fake.roll(&namespace, "worker", 3);
    assert_eq!(stragglers().await.len(), 1 + 3);
    assert!(scene.checksum("batch").is_string(), "`worker` is done");
    fake.roll(&namespace, "batch", 3);
    let last: Vec<String> = stragglers().await;
    assert_eq!(last.len(), 1);
    assert!(last[0].starts_with("api-"), "{last:?}");
    fake.roll(&namespace, "api", 3);
    assert_eq!(scene.deliver(&document).await, Ok(Progress::Delivered { in_use: true }));
}

#[tokio::test]
async fn a_failed_rollout_stops_the_next_batch_and_is_named() {
    let scene = Scene::new(&["api", "worker"], 1).await;
    scene.deliver(&key(1, "one")).await.unwrap();
    scene.world.fake().fail_rollout(&scene.world.namespace, "api");
    let progress = scene.deliver(&key(1, "one")).await.unwrap();
    let Progress::Rolling { waiting, stragglers, .. } = progress else { panic!("{progress:?}") };
    assert!(matches!(&waiting, Waiting::Failed(workload) if workload.name.as_str() == "api"), "{waiting}");
    assert_eq!(stragglers.len(), 6, "no old pod is gone");
    assert!(scene.checksum("worker").is_null());
}

#[tokio::test]
async fn pods_are_counted_over_all_pages() {
    let scene = Scene::new(&["api"], 1).await;
    let (fake, namespace) = (scene.world.fake(), scene.world.namespace.clone());
    fake.deployment(&namespace, "api", 447);
    let progress = scene.deliver(&key(1, "one")).await.unwrap();
    let Progress::Rolling { stragglers, .. } = progress else { panic!("{progress:?}") };
    assert_eq!(stragglers.len(), 450);
    let lists = fake.calls().iter().filter(|(call, _)| call.is("list", "pods")).count();
    assert_eq!(lists, 3);
}
