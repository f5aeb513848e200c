//! Leadership on a Lease of the API: the contract, take-over, the API away, rights.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use keywright::runtime::leadership::contract::{ByHand, contract};
use keywright::runtime::leadership::lease::KubernetesLease;
use keywright::runtime::leadership::{BootClock, Identity, Leadership, LeaseError, LeaseStore as _, Standing, Timing};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::fake::{API_AUDIENCE, Fault};
use crate::world::World;

/// Leases have whole seconds.
const FAST: Timing = Timing {
    lease: Duration::from_secs(1),
    renew_every: Duration::from_millis(100),
    renew_deadline: Duration::from_millis(600),
    call_max: Duration::from_millis(300),
};

fn lease(world: &World) -> KubernetesLease {
    KubernetesLease::new(&world.cluster, &world.namespace, "keywright")
}

fn enter(world: &World, name: &str) -> Leadership {
    Leadership::start(Arc::new(lease(world)), Identity::new(name), FAST, Arc::new(BootClock))
}

fn api(world: &World) -> Api<Lease> {
    Api::namespaced(world.cluster.client(), &world.namespace)
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within a minute: {what}");
}

#[tokio::test]
async fn a_lease_of_the_api_keeps_the_contract() {
    for world in World::all().await {
        let mut count = 0;
        let made = std::sync::Mutex::new(String::new());
        let make = || {
            count += 1;
            let name = format!("keywright-{count}");
            made.lock().unwrap().clone_from(&name);
            KubernetesLease::new(&world.cluster, &world.namespace, &name)
        };
        contract(make, async |_, by_hand| {
            let name = made.lock().unwrap().clone();
            match by_hand {
                ByHand::Delete => drop(api(&world).delete(&name, &DeleteParams::default()).await.unwrap()),
                ByHand::Touch => {
                    let patch = json!({"metadata": {"labels": {"touched": uuid::Uuid::new_v4().to_string()}}});
                    api(&world).patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn one_of_three_leads_and_the_lease_tells_people_who() {
    for world in World::all().await {
        let contenders = ["a_1", "b_1", "c_1"].map(|name| enter(&world, name));
        until("one leads", || contenders.iter().any(Leadership::leads)).await;
        let leader = contenders.iter().find(|contender| contender.leads()).unwrap();
        let known = Standing::Following { leader: Some(leader.identity().clone()) };
        until("all know", || contenders.iter().filter(|contender| contender.standing() == known).count() == 2).await;
        let spec = api(&world).get("keywright").await.unwrap().spec.unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some(leader.identity().as_str()));
        assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (Some(1), Some(1)));
        assert!(spec.acquire_time.is_some() && spec.renew_time.is_some());
        leader.resign().await;
        until("another one leads", || contenders.iter().any(Leadership::leads)).await;
        let spec = api(&world).get("keywright").await.unwrap().spec.unwrap();
        assert_eq!(spec.lease_transitions, Some(2));
        for contender in &contenders {
            contender.resign().await;
        }
        assert_eq!(api(&world).get("keywright").await.unwrap().spec.unwrap().holder_identity, None);
    }
}

/// Over and over: whoever leads is cut off, and never two do.
#[tokio::test]
async fn while_leaders_are_cut_off_at_most_one_leads() {
    let world = World::on_fake().await;
    let enter_as = |account: &str| {
        let token = world.fake().token(&world.namespace, account, None, &[API_AUDIENCE], Duration::from_secs(3600));
        let rule = json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]});
        world.fake().grant((&world.namespace, account), Some(&world.namespace), json!([rule]));
        let lease = KubernetesLease::new(&world.cluster_as(&token), &world.namespace, "keywright");
        Leadership::start(Arc::new(lease), Identity::new(&format!("{account}_1")), FAST, Arc::new(BootClock))
    };
    let contenders: Vec<Leadership> = ["a", "b", "c"].into_iter().map(enter_as).collect();
    let number = |contender: &Leadership| match contender.standing() {
        Standing::Leading { transitions, .. } => Some(transitions),
        Standing::Following { .. } => None,
    };
    let mut last = 0;
    for _ in 0..4 {
        until("one leads", || contenders.iter().any(Leadership::leads)).await;
        let Some(leader) = contenders.iter().find(|contender| contender.leads()) else { continue };
        let cut_off = leader.identity().host().to_owned();
        world.fake().plan(move |call| call.user.ends_with(&format!(":{cut_off}")).then_some(Fault::RefusesBefore));
        until("another one leads", || {
            // Looked at twice around the other: the same tenure before and after it was there in between, too.
            let before = number(leader);
            let others = contenders.iter().filter(|other| other.identity() != leader.identity() && other.leads()).count();
            let overlaps = before.is_some() && others > 0 && number(leader) == before;
            assert!(!overlaps && others <= 1, "two lead");
            others == 1
        })
        .await;
        let now = contenders.iter().filter_map(number).max().unwrap_or_default();
        assert!(now > last, "numbers grow");
        last = now;
        world.fake().nothing_goes_wrong();
    }
}

#[tokio::test]
async fn while_the_api_is_away_nobody_leads_and_then_somebody_does() {
    let world = World::on_fake().await;
    let contenders = ["a_1", "b_1"].map(|name| enter(&world, name));
    for hangs in [false, true] {
        until("one leads", || contenders.iter().any(Leadership::leads)).await;
        if hangs {
            world.fake().hang(true);
        } else {
            world.fake().stop();
        }
        until("nobody leads", || !contenders.iter().any(Leadership::leads)).await;
        if hangs {
            world.fake().hang(false);
        } else {
            world.fake().resume().await;
        }
    }
    until("one leads", || contenders.iter().any(Leadership::leads)).await;
}

#[tokio::test]
async fn clocks_of_others_count_for_nothing() {
    let world = World::on_fake().await;
    for renewed in ["1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"] {
        let spec = json!({"holderIdentity": "dead_1", "leaseDurationSeconds": 2, "leaseTransitions": 3, "renewTime": renewed});
        world.fake().put("leases", &world.namespace, json!({"metadata": {"name": "keywright"}, "spec": spec}));
        let seen = lease(&world).read().await.unwrap().unwrap();
        assert_eq!(seen.record.holder, Some(Identity::new("dead_1")));
        let contender = enter(&world, "b_1");
        until("the holder is known", || contender.standing() == Standing::Following { leader: Some(Identity::new("dead_1")) }).await;
        until("the lease runs out", || contender.leads()).await;
        let stands = api(&world).get("keywright").await.unwrap().spec.unwrap();
        assert_eq!(stands.lease_transitions, Some(4));
        until("renewals are seen, whatever stood there", || {
            let now = world.fake().object("leases", &world.namespace, "keywright").unwrap();
            now["spec"]["renewTime"] != json!(stands.renew_time)
        })
        .await;
        contender.resign().await;
    }
}

#[tokio::test]
async fn what_others_wrote_on_the_lease_stays() {
    let world = World::on_fake().await;
    let metadata = json!({"name": "keywright", "labels": {"app": "keywright"}, "annotations": {"a": "b"}, "finalizers": ["a.example/b"]});
    world.fake().put("leases", &world.namespace, json!({"metadata": metadata}));
    let contender = enter(&world, "a_1");
    until("it leads", || contender.leads()).await;
    let object = world.fake().object("leases", &world.namespace, "keywright").unwrap();
    for field in ["labels", "annotations", "finalizers"] {
        assert_eq!(object["metadata"][field], metadata[field]);
    }
    contender.resign().await;
}

#[tokio::test]
async fn errors_keep_their_kind() {
    let world = World::on_fake().await;
    let token = world.fake().token(&world.namespace, "nobody", None, &[API_AUDIENCE], Duration::from_secs(600));
    let forbidden = KubernetesLease::new(&world.cluster_as(&token), &world.namespace, "keywright");
    assert_eq!(forbidden.read().await, Err(LeaseError::Forbidden));
    let unknown = KubernetesLease::new(&world.cluster_as("made-up"), &world.namespace, "keywright");
    assert_eq!(unknown.read().await, Err(LeaseError::Forbidden));
    world.fake().plan(|_| Some(Fault::Answers(429, Some(7))));
    assert_eq!(lease(&world).read().await, Err(LeaseError::Unavailable { retry_after: Some(Duration::from_secs(7)) }));
    world.fake().nothing_goes_wrong();
    let claim = keywright::runtime::leadership::Claim {
        holder: Some(Identity::new("a_1")),
        transitions: 1,
        duration: Duration::from_secs(10),
        is_new: true,
    };
    let nowhere = KubernetesLease::new(&world.cluster, "keywright-test-nowhere", "keywright");
    assert_eq!(nowhere.write(None, &claim).await, Err(LeaseError::NoNamespace));
}
