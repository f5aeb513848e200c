//! Reviews of tokens and lists of pods, in a cluster.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount as Account};
use keywright::cluster::Cluster;
use keywright::domain::ids::{Name, ObjectUid};
use keywright::domain::material::Secret;
use keywright::domain::workload::ServiceAccount;
use keywright::identities::contract::{Playground, PodMade, Tried, Wanted, contract};
use keywright::identities::kubernetes::{ClusterPods, ClusterReviewer};
use keywright::identities::{Pods, PodsError, ReviewError, TokenReviewer, Verdict};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fake::{API_AUDIENCE, Call, Fault};
use crate::world::World;

const AUDIENCE: &str = "keywright.test";

/// A cluster, through its API alone: the same on the fake and on a real one.
struct Played(Cluster);

fn of_json<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

impl Played {
    fn accounts(&self, account: &ServiceAccount) -> Api<Account> {
        Api::namespaced(self.0.client(), account.namespace.as_str())
    }

    fn pods(&self, account: &ServiceAccount) -> Api<Pod> {
        Api::namespaced(self.0.client(), account.namespace.as_str())
    }
}

#[async_trait]
impl Playground for Played {
    async fn account(&self, account: &ServiceAccount) {
        let object: Account = of_json(json!({"metadata": {"name": account.name}}));
        self.accounts(account).create(&PostParams::default(), &object).await.unwrap();
    }

    async fn delete_account(&self, account: &ServiceAccount) {
        self.accounts(account).delete(account.name.as_str(), &DeleteParams::default()).await.unwrap();
    }

    async fn pod(&self, account: &ServiceAccount, name: &str) -> PodMade {
        // A gate keeps it from ever being placed on a node: nothing is pulled, nothing runs.
        let object: Pod = of_json(json!({"metadata": {"name": name}, "spec": {
            "serviceAccountName": account.name, "automountServiceAccountToken": false, "schedulingGates": [{"name": "keywright.dev/test"}],
            "containers": [{"name": "none", "image": "registry.invalid/none"}],
        }}));
        let made = self.pods(account).create(&PostParams::default(), &object).await.unwrap();
        PodMade { name: name.to_owned(), uid: made.metadata.uid.unwrap() }
    }

    async fn end_pod(&self, account: &ServiceAccount, pod: &PodMade) -> bool {
        let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
        self.pods(account).patch_status(&pod.name, &PatchParams::default(), &ended).await.unwrap();
        true
    }

    async fn delete_pod(&self, account: &ServiceAccount, pod: &PodMade) {
        self.pods(account).delete(&pod.name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    async fn token(&self, wanted: &Wanted<'_>) -> Secret {
        let bound = |pod: &PodMade| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
        };
        let spec = TokenRequestSpec {
            audiences: vec![wanted.audience.to_owned()],
            bound_object_ref: wanted.pod.map(bound),
            expiration_seconds: Some(3_600),
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let accounts = self.accounts(wanted.account);
        let issued = accounts.create_token_request(wanted.account.name.as_str(), &PostParams::default(), &request).await.unwrap();
        Secret::from(issued.status.unwrap().token)
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn hold_to_the_contract(cluster: &Cluster, namespaces: [&str; 2]) {
    let [here, there] = namespaces.map(name);
    let (reviewer, pods) = (ClusterReviewer::new(cluster.clone(), AUDIENCE.to_owned()), ClusterPods::new(cluster.clone()));
    let playground = Played(cluster.clone());
    contract(Tried { playground: &playground, reviewer: &reviewer, pods: &pods, audience: AUDIENCE, namespaces: [&here, &there] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_keep_the_contract_on_the_fake() {
    let world = World::on_fake().await;
    world.fake().namespace("elsewhere");
    hold_to_the_contract(&world.cluster, [&world.namespace, "elsewhere"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_keep_the_contract_in_a_real_cluster() {
    let (Some(first), Some(second)) = (World::on_real().await, World::on_real().await) else { return };
    hold_to_the_contract(&first.cluster, [&first.namespace, &second.namespace]).await;
}

#[tokio::test]
async fn tokens_of_the_old_kind_and_revoked_ones_are_refused() {
    let world = World::on_fake().await;
    let (fake, hour) = (world.fake(), std::time::Duration::from_secs(3_600));
    let reviewer = ClusterReviewer::new(world.cluster.clone(), AUDIENCE.to_owned());
    let review = async |token: &str| reviewer.review(&Secret::from(token.to_owned())).await.unwrap();
    let good = fake.token("payments", "api", Some("api-0"), &[AUDIENCE], hour);
    assert!(matches!(review(&good).await, Verdict::Accepted(_)));
    fake.revoke(&good);
    assert_eq!(review(&good).await, Verdict::Refused);
    assert_eq!(review(&fake.legacy_token("payments", "api")).await, Verdict::Refused);
    assert_eq!(review(&fake.token("payments", "api", Some("api-0"), &[API_AUDIENCE], hour)).await, Verdict::Refused);
    assert_eq!(review(&fake.token("payments", "api", Some("api-0"), &[AUDIENCE], std::time::Duration::ZERO)).await, Verdict::Refused);
    let both = fake.token("payments", "api", Some("api-0"), &[API_AUDIENCE, AUDIENCE], hour);
    assert!(matches!(review(&both).await, Verdict::Accepted(_)), "ours is among them");
}

#[tokio::test]
async fn what_the_server_does_not_answer_is_told_apart() {
    let world = World::on_fake().await;
    let fake = world.fake();
    let reviewer = ClusterReviewer::new(world.cluster.clone(), AUDIENCE.to_owned());
    let pods = ClusterPods::new(world.cluster.clone());
    let token = Secret::from(fake.token("payments", "api", Some("api-0"), &[AUDIENCE], std::time::Duration::from_secs(3_600)));
    for (fault, of_review, of_pods) in [
        (Fault::Answers(429, Some(3)), ReviewError::TooMany, PodsError::Unavailable),
        (Fault::Answers(403, None), ReviewError::Forbidden, PodsError::Forbidden),
        (Fault::Answers(401, None), ReviewError::Forbidden, PodsError::Unavailable),
        (Fault::Answers(500, None), ReviewError::Unavailable, PodsError::Unavailable),
        (Fault::RefusesBefore, ReviewError::Unavailable, PodsError::Unavailable),
    ] {
        let planned = fault.clone();
        fake.plan(move |_| Some(planned.clone()));
        assert_eq!(reviewer.review(&token).await, Err(of_review), "{fault:?}");
        assert_eq!(pods.living(&name("payments")).await, Err(of_pods), "{fault:?}");
    }
    fake.nothing_goes_wrong();
    assert!(matches!(reviewer.review(&token).await, Ok(Verdict::Accepted(_))));
}

/// The rights that `deploy/` gives, and no others.
#[tokio::test]
async fn rights_to_review_and_to_list_in_named_namespaces_are_enough() {
    let world = World::on_fake().await;
    let (fake, hour) = (world.fake(), std::time::Duration::from_secs(3_600));
    let own = fake.token("keywright", "keywright", Some("keywright-0"), &[API_AUDIENCE], hour);
    let token = Secret::from(fake.token("payments", "api", Some("api-0"), &[AUDIENCE], hour));
    fake.namespace("other");
    let cluster = world.cluster_as(&own);
    let (reviewer, pods) = (ClusterReviewer::new(cluster.clone(), AUDIENCE.to_owned()), ClusterPods::new(cluster));
    assert_eq!(reviewer.review(&token).await, Err(ReviewError::Forbidden));
    assert_eq!(pods.living(&name("payments")).await, Err(PodsError::Forbidden));
    let reviews = json!([{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]);
    fake.grant(("keywright", "keywright"), None, reviews);
    let lists = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]);
    fake.grant(("keywright", "keywright"), Some("payments"), lists);
    assert!(matches!(reviewer.review(&token).await, Ok(Verdict::Accepted(_))));
    assert_eq!(pods.living(&name("payments")).await.unwrap().len(), 1);
    assert_eq!(pods.living(&name("other")).await, Err(PodsError::Forbidden), "and nowhere else");
}

#[tokio::test]
async fn a_list_of_many_pages_is_whole_or_begins_anew() {
    let world = World::on_fake().await;
    let fake = world.fake();
    fake.namespace("payments");
    let made: BTreeSet<ObjectUid> = (0..1_100)
        .map(|number| {
            let pod = json!({"metadata": {"name": format!("api-{number}")}, "spec": {"containers": []}, "status": {"phase": "Running"}});
            fake.put("pods", "payments", pod)["metadata"]["uid"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    let pods = ClusterPods::new(world.cluster.clone());
    let lists = |calls: Vec<(Call, u16)>| calls.into_iter().filter(|(call, _)| call.is("list", "pods")).count();
    assert_eq!(pods.living(&name("payments")).await.unwrap(), made);
    assert_eq!(lists(fake.calls()), 3, "500 at a time");
    // The second page is forgotten, once; then always.
    let count = AtomicUsize::new(0);
    fake.plan(move |call| (call.is("list", "pods") && count.fetch_add(1, Ordering::SeqCst) == 1).then_some(Fault::Answers(410, None)));
    assert_eq!(pods.living(&name("payments")).await.unwrap(), made);
    let count = AtomicUsize::new(0);
    fake.plan(move |call| (call.is("list", "pods") && count.fetch_add(1, Ordering::SeqCst) % 2 == 1).then_some(Fault::Answers(410, None)));
    assert_eq!(pods.living(&name("payments")).await, Err(PodsError::Unavailable), "a part is no answer");
}
