//! Delivery as a Secret, in memory: the contract, and each call failing in each way.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::contract::{Hand, World, contract, document};
use super::memory::{Fault, MemoryObjects};
use super::objects::SecretAt;
use super::trouble::Trouble;
use super::{KubernetesSecrets, Progress};
use crate::cluster::ClusterError;
use crate::domain::delivery::KubernetesDelivery;
use crate::domain::document::Document;
use crate::domain::ids::{InstallationId, Name};
use crate::domain::restarts::{Pod, Progress as Rollout, Restarts, Seen, Waiting, Workload, WorkloadKind};
use crate::sealing::Keyring;

#[tokio::test]
async fn memory_keeps_the_contract() {
    let objects = Arc::new(MemoryObjects::new());
    contract(&World { objects: objects.clone(), hand: objects, namespace: "shop".parse().unwrap() }).await;
}

struct Stage {
    objects: Arc<MemoryObjects>,
    courier: KubernetesSecrets,
    at: SecretAt,
    workloads: Vec<Workload>,
}

impl Stage {
    /// Workloads with one old pod each, and a courier.
    fn new(names: &[&str]) -> Stage {
        let objects = Arc::new(MemoryObjects::new());
        let keyring = Arc::new(Keyring::ephemeral().unwrap());
        let courier = KubernetesSecrets::new(objects.clone(), keyring, InstallationId(Uuid::from_u128(7)));
        let at = SecretAt { namespace: "shop".parse().unwrap(), name: "payments".parse().unwrap() };
        let workload = |name: &&str| Workload { kind: WorkloadKind::Deployment, name: name.parse().unwrap() };
        let workloads: Vec<Workload> = names.iter().map(workload).collect();
        for workload in &workloads {
            let old = Pod { name: format!("{}-0", workload.name).parse().unwrap(), checksum: None, is_ready: true };
            let seen = Seen { checksum: None, restarted: Vec::new(), progress: Rollout::Settled, pods: vec![old] };
            objects.set_workload(&at, workload, Some(seen));
        }
        Stage { objects, courier, at, workloads }
    }

    async fn deliver(&self, document: Document) -> Result<Progress, Trouble> {
        let restarts = Restarts { workloads: self.workloads.clone(), windows: Vec::new(), batch: 1, per_hour: 6 };
        let to = KubernetesDelivery { secret: self.at.name.clone(), namespace: self.at.namespace.clone(), restarts: Some(restarts) };
        let payments: Name = "payments".parse().unwrap();
        self.courier.deliver(&payments, &to, &[&document], now()).await.map(|(_, progress)| progress)
    }
}

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn key(revision: u64, value: &str) -> Document {
    document("dinie", revision, &[("client_secret", value)])
}

fn names(pods: &[crate::domain::ids::ObjectName]) -> Vec<String> {
    pods.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn workloads_restart_one_after_the_other_and_old_pods_are_named() {
    let stage = Stage::new(&["a", "b"]);
    let rolling = |progress: Progress| match progress {
        Progress::Rolling { waiting: Waiting::Rolling(workload), stragglers, .. } => (workload.name.to_string(), names(&stragglers)),
        other => panic!("{other:?}"),
    };
    let both = vec!["a-0".to_owned(), "b-0".to_owned()];
    assert_eq!(rolling(stage.deliver(key(1, "one")).await.unwrap()), ("a".to_owned(), both.clone()));
    stage.objects.roll(&stage.at, &stage.workloads[0], false);
    assert_eq!(rolling(stage.deliver(key(1, "one")).await.unwrap()), ("a".to_owned(), both), "the new pod isn't Ready");
    assert_eq!(stage.objects.seen_of(&stage.at, &stage.workloads[1]).unwrap().checksum, None, "`b` waits for `a`");
    stage.objects.roll(&stage.at, &stage.workloads[0], true);
    assert_eq!(rolling(stage.deliver(key(1, "one")).await.unwrap()), ("b".to_owned(), vec!["b-0".to_owned()]));
    stage.objects.roll(&stage.at, &stage.workloads[1], true);
    assert_eq!(stage.deliver(key(1, "one")).await, Ok(Progress::Delivered { in_use: true }));
}

#[tokio::test]
async fn a_rollout_that_failed_is_named_and_the_next_is_not_begun() {
    let stage = Stage::new(&["a", "b"]);
    stage.deliver(key(1, "one")).await.unwrap();
    let mut failed = stage.objects.seen_of(&stage.at, &stage.workloads[0]).unwrap();
    failed.progress = Rollout::Failed;
    stage.objects.set_workload(&stage.at, &stage.workloads[0], Some(failed));
    let progress = stage.deliver(key(1, "one")).await.unwrap();
    let Progress::Rolling { waiting, stragglers, .. } = progress else { panic!("{progress:?}") };
    assert!(matches!(&waiting, Waiting::Failed(workload) if workload.name.as_str() == "a"), "{waiting}");
    assert_eq!(names(&stragglers), ["a-0", "b-0"]);
    assert_eq!(stage.objects.seen_of(&stage.at, &stage.workloads[1]).unwrap().checksum, None);
}

/// Each call of a delivery, failing in each way: it is taken up by repeating it, the end is the same, and nothing is done twice.
#[tokio::test]
async fn whatever_call_fails_repeating_it_leads_to_the_same_end() {
    let refused = [
        ClusterError::Conflict,
        ClusterError::Owned,
        ClusterError::TooMany { retry_after: Some(Duration::from_secs(1)) },
        ClusterError::Unavailable { retry_after: None },
        ClusterError::Forbidden,
        ClusterError::Unauthorized,
        ClusterError::Unreadable,
    ];
    let faults = refused.into_iter().map(Fault::Refused).chain([Fault::ReplyLost]);
    for fault in faults {
        for number in 0..4 {
            let stage = Stage::new(&["a"]);
            stage.objects.fail_at(number, fault);
            let first = stage.deliver(key(1, "canary-of-a-value")).await;
            if let Err(trouble) = &first {
                assert!(!format!("{trouble} {trouble:?}").contains("canary"), "{trouble}");
            }
            stage.deliver(key(1, "canary-of-a-value")).await.unwrap();
            stage.objects.roll(&stage.at, &stage.workloads[0], true);
            assert_eq!(stage.deliver(key(1, "canary-of-a-value")).await, Ok(Progress::Delivered { in_use: true }), "{fault:?} at {number}");
            let data = stage.objects.data(&stage.at).await.unwrap();
            assert_eq!(data["dinie.client_secret"], b"canary-of-a-value");
            let restarted = stage.objects.seen_of(&stage.at, &stage.workloads[0]).unwrap().restarted;
            assert_eq!(restarted.len(), 1, "{fault:?} at {number}: restarted twice");
            let _until_now = stage.objects.take_calls();
            stage.deliver(key(1, "canary-of-a-value")).await.unwrap();
            assert_eq!(stage.objects.take_calls(), ["get secret", "get workload"], "nothing is written any more");
        }
    }
}

#[tokio::test]
async fn what_the_api_says_is_told_with_the_object_and_the_way_out() {
    for (error, passing, told) in [
        (ClusterError::Forbidden, false, "forbids us to get secrets/payments in shop"),
        (ClusterError::TooMany { retry_after: Some(Duration::from_secs(3)) }, true, "could not get secrets/payments in shop"),
        (ClusterError::Unavailable { retry_after: None }, true, "doesn't answer"),
    ] {
        let stage = Stage::new(&[]);
        stage.objects.fail_at(0, Fault::Refused(error));
        let trouble = stage.deliver(key(1, "one")).await.unwrap_err();
        assert!(trouble.to_string().contains(told), "{trouble}");
        assert_eq!((trouble.is_passing(), trouble.retry_after()), (passing, error.retry_after()));
    }
}

/// Two replicas that both believe to lead: the one that read before the promotion doesn't bring the old value back.
#[tokio::test]
async fn a_leader_of_before_takes_nothing_back() {
    let stage = Stage::new(&[]);
    stage.deliver(key(1, "old")).await.unwrap();
    stage.deliver(key(2, "new")).await.unwrap();
    assert!(matches!(stage.deliver(key(1, "old")).await, Err(Trouble::Overtaken { .. })));
    assert_eq!(stage.objects.data(&stage.at).await.unwrap()["dinie.client_secret"], b"new");
}
