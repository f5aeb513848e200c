//! Pods as instances: what they hold is known by their uid, and free once they are gone.

use keywright::domain::workload::{ServiceAccount, Workload};
use keywright::engine::BoundPod;

use super::*;

fn workload(pod: &str, uid: &str) -> Workload {
    Workload {
        account: ServiceAccount::of_username("system:serviceaccount:payments:payments-api").unwrap(),
        account_uid: "a1".parse().unwrap(),
        pod: pod.parse().unwrap(),
        pod_uid: uid.parse().unwrap(),
    }
}

fn pod(called: &str, uid: &str) -> App {
    App { pod: Some(workload(called, uid)), ..App::new(APPLICATION, called) }
}

fn uids(bound: &[BoundPod]) -> Vec<&str> {
    bound.iter().map(|bound| bound.pod.uid.as_str()).collect()
}

fn records(scene: &Scene, action: &str) -> Vec<String> {
    let records = scene.world.audit.records();
    records.into_iter().filter(|(_, record)| record.action == action).filter_map(|(_, record)| record.detail).collect()
}

#[tokio::test]
async fn a_pod_that_is_gone_frees_the_key_that_it_held_and_no_other_does() {
    let scene = Scene::usual().await;
    let (mut first, mut second) = (pod("api-0", "u0"), pod("api-1", "u1"));
    // Their streams keep them: no lease ends.
    let _streams = [&first, &second].map(|app| scene.engine.open_stream(&app.application, &app.instance));
    assert!(first.fetch(&scene.engine).await && second.fetch(&scene.engine).await);
    scene.rotate().await;
    assert!(second.fetch(&scene.engine).await && second.confirm(&scene.engine).await);
    scene.live(100).await;
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("held"));
    let bound = scene.engine.bound_pods();
    assert_eq!(uids(&bound), ["u0", "u1"]);
    assert!(scene.engine.forget_pods(&bound[1..]).await);
    scene.live(5).await;
    assert!(scene.alive(&scene.first.0), "the one that confirmed is gone: the other one holds it still");
    assert!(scene.engine.forget_pods(&bound[..1]).await);
    scene.live(5).await;
    assert!(!scene.alive(&scene.first.0));
    assert_eq!(records(&scene, "pod-gone").len(), 2);
    assert!(records(&scene, "disclosed")[0].contains("pod uid u0 of service account payments/payments-api (uid a1)"));
}

#[tokio::test]
async fn who_holds_what_by_which_pod_outlives_a_restart() {
    let scene = Scene::usual().await;
    assert!(pod("api-0", "u0").fetch(&scene.engine).await);
    assert!(pod("api-0", "u1").fetch(&scene.engine).await, "another pod of its name");
    assert!(App::new(APPLICATION, "bare").fetch(&scene.engine).await);
    let scene = scene.restart().await;
    let bound = scene.engine.bound_pods();
    assert_eq!(uids(&bound), ["u0", "u1"]);
    assert!(scene.engine.forget_pods(&bound[..1]).await);
    let scene = scene.restart().await;
    assert_eq!(uids(&scene.engine.bound_pods()), ["u1"], "what was freed is free for good");
    let bare = App::new(APPLICATION, "bare");
    let _stream = scene.engine.open_stream(&bare.application, &bare.instance);
    scene.rotate().await;
    assert!(scene.engine.forget_pods(&scene.engine.bound_pods()).await);
    scene.live(100).await;
    assert!(scene.alive(&scene.first.0), "the one that isn't known to be a pod holds it");
}

#[tokio::test]
async fn what_cannot_be_recorded_frees_nobody() {
    let scene = Scene::usual().await;
    assert!(pod("api-0", "u0").fetch(&scene.engine).await);
    let bound = scene.engine.bound_pods();
    scene.world.audit.fail_always(Some(keywright::engine::audit::AuditFault::Refused));
    assert!(!scene.engine.forget_pods(&bound).await);
    assert_eq!(scene.engine.bound_pods(), bound);
    scene.world.audit.fail_always(None);
    assert!(scene.engine.forget_pods(&bound).await);
    assert_eq!(scene.engine.bound_pods(), []);
}

#[tokio::test]
async fn a_pod_whose_stream_is_still_open_holds_again_what_it_is_served_again() {
    let scene = Scene::usual().await;
    let mut app = pod("api-0", "u0");
    let _stream = scene.engine.open_stream(&app.application, &app.instance);
    assert!(app.fetch(&scene.engine).await);
    assert!(scene.engine.forget_pods(&scene.engine.bound_pods()).await);
    assert_eq!(scene.engine.bound_pods(), []);
    assert!(app.fetch(&scene.engine).await);
    assert_eq!(uids(&scene.engine.bound_pods()), ["u0"], "unknown use is use");
}
