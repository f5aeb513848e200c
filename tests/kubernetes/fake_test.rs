//! The fake keeps to the documented ways of the API, each shown once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use keywright::cluster::{Cluster, ClusterError, ClusterSettings};
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::fake::{API_AUDIENCE, Fault, Gate, service_account};
use crate::tls::Authority;
use crate::world::World;

fn config_map(name: &str, value: &str) -> ConfigMap {
    let data = BTreeMap::from([("a".to_owned(), value.to_owned())]);
    ConfigMap { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, data: Some(data), ..ConfigMap::default() }
}

fn maps(world: &World) -> Api<ConfigMap> {
    Api::namespaced(world.cluster.client(), &world.namespace)
}

async fn put(world: &World, name: &str, value: &str) -> ConfigMap {
    let (maps, params) = (maps(world), PostParams::default());
    world.cluster.call(maps.create(&params, &config_map(name, value))).await.unwrap()
}

fn code<T: std::fmt::Debug>(outcome: kube::Result<T>) -> (u16, String, String) {
    match outcome.unwrap_err() {
        kube::Error::Api(status) => (status.code, status.reason, status.message),
        other => panic!("no status: {other}"),
    }
}

fn version(map: &ConfigMap) -> u64 {
    map.metadata.resource_version.as_ref().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_name_is_taken_once_and_versions_are_of_one_counter() {
    for world in World::all().await {
        let (maps, params) = (maps(&world), PostParams::default());
        let first = put(&world, "one", "1").await;
        let (status, reason, _) = code(maps.create(&params, &config_map("one", "2")).await);
        assert_eq!((status, reason.as_str()), (409, "AlreadyExists"));
        let second = put(&world, "two", "1").await;
        assert!(version(&second) > version(&first));
        assert!(first.metadata.uid.is_some() && first.metadata.uid != second.metadata.uid);
        let mut unnamed = config_map("", "1");
        unnamed.metadata = ObjectMeta { generate_name: Some("made-".to_owned()), ..ObjectMeta::default() };
        let made = maps.create(&params, &unnamed).await.unwrap();
        assert!(made.metadata.name.unwrap().len() > "made-".len());
        let elsewhere: Api<ConfigMap> = Api::namespaced(world.cluster.client(), "keywright-test-nowhere");
        assert_eq!(code(elsewhere.create(&params, &config_map("one", "1")).await).0, 404);
    }
}

#[tokio::test]
async fn a_replacement_of_an_older_version_conflicts_and_one_without_a_version_does_not() {
    for world in World::all().await {
        let (maps, params) = (maps(&world), PostParams::default());
        let first = put(&world, "one", "1").await;
        let mut second = first.clone();
        second.data = config_map("one", "2").data;
        let second = maps.replace("one", &params, &second).await.unwrap();
        assert!(version(&second) > version(&first));
        let (status, reason, _) = code(maps.replace("one", &params, &first).await);
        assert_eq!((status, reason.as_str()), (409, "Conflict"));
        let same = maps.replace("one", &params, &second).await.unwrap();
        assert_eq!(version(&same), version(&second), "nothing changed, so there is no new version");
        maps.replace("one", &params, &config_map("one", "3")).await.unwrap();
        assert_eq!(code(maps.replace("none", &params, &config_map("none", "3")).await).0, 404);
        let mut other = maps.get("one").await.unwrap();
        other.metadata.uid = Some("another".to_owned());
        other.metadata.resource_version = None;
        assert_eq!(code(maps.replace("one", &params, &other).await).0, 409, "of another life");
    }
}

#[tokio::test]
async fn a_lease_is_never_replaced_unseen_and_a_put_creates_it() {
    for world in World::all().await {
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(world.cluster.client(), &world.namespace);
        let lease = |version: Option<&str>, seconds: i32| {
            let metadata = json!({"name": "l", "resourceVersion": version});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"leaseDurationSeconds": seconds}})).unwrap()
        };
        let params = PostParams::default();
        let made = leases.replace("l", &params, &lease(None, 10)).await.unwrap();
        assert_eq!(code(leases.replace("l", &params, &lease(None, 11)).await).0, 422);
        let version = made.metadata.resource_version.as_deref();
        assert_eq!(code(leases.replace("l", &params, &lease(version, 0)).await).0, 422);
        leases.replace("l", &params, &lease(version, 11)).await.unwrap();
        assert_eq!(code(leases.replace("l", &params, &lease(version, 12)).await).0, 409);
    }
}

#[tokio::test]
async fn lists_select_and_come_in_pages_that_expire() {
    for world in World::all().await {
        let maps = maps(&world);
        for (name, team) in [("a", "x"), ("b", "y"), ("c", "x")] {
            let mut map = config_map(name, "1");
            map.metadata.labels = Some(BTreeMap::from([("team".to_owned(), team.to_owned())]));
            maps.create(&PostParams::default(), &map).await.unwrap();
        }
        maps.create(&PostParams::default(), &config_map("d", "1")).await.unwrap();
        // Where controllers run, each namespace has the authorities of the cluster, too.
        let names = async |params: ListParams| -> Vec<String> {
            let names = maps.list(&params).await.unwrap().items.into_iter().filter_map(|map| map.metadata.name);
            names.filter(|name| name != "kube-root-ca.crt").collect()
        };
        assert_eq!(names(ListParams::default().labels("team=x")).await, ["a", "c"]);
        assert_eq!(names(ListParams::default().labels("team in (x, y),team!=x")).await, ["b"]);
        assert_eq!(names(ListParams::default().labels("!team")).await, ["d"]);
        assert_eq!(names(ListParams::default().fields("metadata.name=b")).await, ["b"]);
        assert_eq!(code(maps.list(&ListParams::default().fields("data.a=1")).await).0, 400);
        let page = maps.list(&ListParams::default().labels("team").limit(2)).await.unwrap();
        assert_eq!((page.items.len(), page.metadata.remaining_item_count), (2, None), "nobody counts what a selector would take");
        let all = maps.list(&ListParams::default().limit(2)).await.unwrap();
        assert_eq!(all.items.len(), 2);
        assert!(all.metadata.remaining_item_count.is_some_and(|count| (2..=3).contains(&count)), "{:?}", all.metadata);
        let token = page.metadata.continue_.unwrap();
        let rest = maps.list(&ListParams::default().labels("team").limit(2).continue_token(&token)).await.unwrap();
        assert_eq!((rest.items.len(), rest.metadata.continue_.filter(|token| !token.is_empty())), (1, None));
        assert_eq!(rest.metadata.resource_version, page.metadata.resource_version, "one list of one moment");
        if let Some(fake) = &world.fake {
            fake.compact();
            let (status, reason, _) = code(maps.list(&ListParams::default().limit(2).continue_token(&token)).await);
            assert_eq!((status, reason.as_str()), (410, "Expired"));
        }
    }
}

#[tokio::test]
async fn a_watch_tells_each_change_since_a_version() {
    for world in World::all().await {
        let maps = maps(&world);
        let watching: Api<ConfigMap> = Api::namespaced(world.cluster.watch_client(), &world.namespace);
        let first = put(&world, "one", "1").await;
        let mut labelled = config_map("one", "2");
        labelled.metadata.labels = Some(BTreeMap::from([("team".to_owned(), "x".to_owned())]));
        maps.replace("one", &PostParams::default(), &labelled).await.unwrap();
        maps.replace("one", &PostParams::default(), &config_map("one", "3")).await.unwrap();
        maps.delete("one", &DeleteParams::default()).await.unwrap();
        let told = async |params: WatchParams, count: usize| -> Vec<&'static str> {
            let events = watching.watch(&params.timeout(10), &version(&first).to_string()).await.unwrap();
            let kinds = events.map_ok(|event| match event {
                WatchEvent::Added(_) => "added",
                WatchEvent::Modified(_) => "modified",
                WatchEvent::Deleted(_) => "deleted",
                WatchEvent::Bookmark(_) | WatchEvent::Error(_) => "other",
            });
            kinds.take(count).try_collect().await.unwrap()
        };
        assert_eq!(told(WatchParams::default(), 3).await, ["modified", "modified", "deleted"]);
        assert_eq!(told(WatchParams::default().labels("team=x"), 2).await, ["added", "deleted"], "what leaves the selection is gone");
    }
}

#[tokio::test]
async fn a_watch_gets_bookmarks_an_end_and_is_told_that_it_is_too_late() {
    let world = World::on_fake().await;
    let fake = world.fake();
    let watching: Api<ConfigMap> = Api::namespaced(world.cluster.watch_client(), &world.namespace);
    let first = put(&world, "one", "1").await;
    let from = version(&first).to_string();
    let mut events = Box::pin(watching.watch(&WatchParams::default(), &from).await.unwrap());
    fake.namespace("elsewhere");
    fake.bookmark();
    let Some(Ok(WatchEvent::Bookmark(bookmark))) = events.next().await else { panic!("no bookmark") };
    assert_eq!(bookmark.metadata.resource_version, fake.version().to_string());
    fake.end_watches();
    assert!(events.next().await.is_none());
    fake.compact();
    let mut events = Box::pin(watching.watch(&WatchParams::default(), &from).await.unwrap());
    let Some(Ok(WatchEvent::Error(status))) = events.next().await else { panic!("no error") };
    assert_eq!(ClusterError::of_status(&status), ClusterError::Gone);
    let mut events = Box::pin(watching.watch(&WatchParams::default().timeout(1), "0").await.unwrap());
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(matches!(event.unwrap(), WatchEvent::Added(_)));
    }
    assert_eq!(seen, [true, true, false], "what is there, and a bookmark when the time is up");
}

fn applied(name: &str, data: Value) -> Patch<Value> {
    Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}))
}

#[tokio::test]
async fn server_side_apply_keeps_to_what_each_manager_owns() {
    for world in World::all().await {
        let maps = maps(&world);
        let (ours, theirs) = (PatchParams::apply("ours"), PatchParams::apply("theirs"));
        let first = maps.patch("one", &ours, &applied("one", json!({"a": "1", "b": "1"}))).await.unwrap();
        let again = maps.patch("one", &ours, &applied("one", json!({"a": "1", "b": "1"}))).await.unwrap();
        assert_eq!(version(&again), version(&first), "the same again is no change");
        maps.patch("one", &theirs, &applied("one", json!({"b": "1", "c": "1"}))).await.unwrap();
        // One field has both as owners, because they agree.
        let error = maps.patch("one", &ours, &applied("one", json!({"a": "2", "b": "2"}))).await.unwrap_err();
        let kube::Error::Api(status) = &error else { panic!("{error}") };
        let causes = &status.details.as_ref().unwrap().causes;
        assert_eq!((causes.len(), causes[0].reason.as_str(), causes[0].field.as_str()), (1, "FieldManagerConflict", ".data.b"));
        assert_eq!(ClusterError::from(error), ClusterError::Owned);
        let after = maps.patch("one", &ours, &applied("one", json!({"a": "2"}))).await.unwrap().data.unwrap();
        assert_eq!(after, BTreeMap::from([("a", "2"), ("b", "1"), ("c", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()))), "b is theirs");
        let after = maps.patch("one", &theirs.clone().force(), &applied("one", json!({"a": "3"}))).await.unwrap();
        assert_eq!(after.data.unwrap(), BTreeMap::from([("a".to_owned(), "3".to_owned())]), "taken by force, and the rest given up");
        let managers = after.metadata.managed_fields.unwrap();
        let named: Vec<_> = managers.iter().map(|entry| (entry.manager.as_deref().unwrap(), entry.operation.as_deref().unwrap())).collect();
        assert_eq!(named, [("theirs", "Apply")]);
        assert_eq!(managers[0].fields_v1.as_ref().unwrap().0, json!({"f:data": {"f:a": {}}}));
    }
}

#[tokio::test]
async fn an_update_takes_fields_from_whoever_applied_them() {
    for world in World::all().await {
        let maps = maps(&world);
        let ours = PatchParams::apply("ours");
        maps.patch("one", &ours, &applied("one", json!({"a": "1"}))).await.unwrap();
        let by_hand = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() };
        maps.patch("one", &by_hand, &Patch::Merge(json!({"data": {"a": "2", "z": "1"}}))).await.unwrap();
        let error = maps.patch("one", &ours, &applied("one", json!({"a": "1"}))).await.unwrap_err();
        let kube::Error::Api(status) = &error else { panic!("{error}") };
        assert!(status.message.contains("kubectl-edit"), "{status}");
        maps.patch("one", &ours, &applied("one", json!({"a": "2"}))).await.expect("who says the same owns it as well");
        maps.patch("one", &by_hand, &Patch::Merge(json!({"data": {"z": null}}))).await.unwrap();
        assert_eq!(maps.get("one").await.unwrap().data.unwrap().len(), 1);
        assert_eq!(code(maps.patch("one", &PatchParams::default(), &applied("one", json!({}))).await).0, 422, "without a manager");
    }
}

#[tokio::test]
async fn a_pod_template_is_patched_by_the_keys_of_its_lists_and_that_is_a_generation() {
    for world in World::all().await {
        let deployments: Api<Deployment> = Api::namespaced(world.cluster.client(), &world.namespace);
        let containers = json!([{"name": "a", "image": "registry.example/a:1"}, {"name": "b", "image": "registry.example/b:1"}]);
        let labels = json!({"app": "x"});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": containers}});
        let spec = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": template});
        let made: Deployment = serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).unwrap();
        let first = deployments.create(&PostParams::default(), &made).await.unwrap();
        let template = json!({"metadata": {"annotations": {"checksum": "1"}}, "spec": {"containers": [{"name": "b", "image": "registry.example/b:2"}]}});
        let patch = json!({"spec": {"template": template}});
        let second = deployments.patch("d", &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
        assert_eq!(second.metadata.generation.unwrap(), first.metadata.generation.unwrap() + 1);
        let images = |deployment: &Deployment| -> Vec<String> {
            let spec = deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
            spec.containers.iter().filter_map(|container| container.image.clone()).collect()
        };
        assert_eq!(images(&second), ["registry.example/a:1", "registry.example/b:2"]);
        let mut apply = json!({"apiVersion": "apps/v1", "kind": "Deployment"});
        apply["spec"]["template"]["metadata"]["annotations"] = json!({"ours": "1"});
        let third = deployments.patch("d", &PatchParams::apply("ours"), &Patch::Apply(&apply)).await.unwrap();
        let annotations = third.spec.as_ref().unwrap().template.metadata.as_ref().unwrap().annotations.clone().unwrap();
        assert_eq!((annotations.len(), images(&third)), (2, images(&second)), "an applier says his fields alone");
    }
}

#[tokio::test]
async fn what_is_too_large_or_badly_named_is_invalid() {
    for world in World::all().await {
        let (maps, params) = (maps(&world), PostParams::default());
        let error = maps.create(&params, &config_map("large", &"x".repeat((1 << 20) + 1))).await.unwrap_err();
        assert_eq!(ClusterError::from(error), ClusterError::TooLarge);
        maps.create(&params, &config_map("large", &"x".repeat(1 << 20))).await.unwrap();
        let error = maps.create(&params, &config_map("huge", &"x".repeat(4 << 20))).await.unwrap_err();
        assert_eq!(ClusterError::from(error), ClusterError::TooLarge);
        for name in ["Upper", "a_b", "-a", "a..b", &"x".repeat(254)] {
            assert_eq!(code(maps.create(&params, &config_map(name, "1")).await).0, 422, "{name}");
        }
        let mut bad = config_map("keyed", "1");
        bad.data = Some(BTreeMap::from([("a/b".to_owned(), String::new())]));
        assert_eq!(code(maps.create(&params, &bad).await).0, 422);
        let secrets: Api<Secret> = Api::namespaced(world.cluster.client(), &world.namespace);
        let plain: Secret = serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"a": "made-for-a-test"}})).unwrap();
        let made = secrets.create(&params, &plain).await.unwrap();
        assert_eq!(made.data.unwrap()["a"].0, b"made-for-a-test");
        assert_eq!((made.string_data, made.type_.as_deref()), (None, Some("Opaque")));
    }
}

#[tokio::test]
async fn a_deletion_can_name_which_life_and_which_version_it_means() {
    for world in World::all().await {
        let maps = maps(&world);
        let first = put(&world, "one", "1").await;
        let only = |uid: Option<String>, resource_version: Option<String>| {
            DeleteParams::default().preconditions(Preconditions { uid, resource_version })
        };
        assert_eq!(code(maps.delete("one", &only(Some("another".to_owned()), None)).await).0, 409);
        assert_eq!(code(maps.delete("one", &only(None, Some("1".to_owned()))).await).0, 409);
        maps.delete("one", &only(first.metadata.uid, first.metadata.resource_version)).await.unwrap();
        assert_eq!(code(maps.delete("one", &DeleteParams::default()).await).0, 404);
        let mut held = config_map("held", "1");
        held.metadata.finalizers = Some(vec!["keywright.dev/held".to_owned()]);
        maps.create(&PostParams::default(), &held).await.unwrap();
        maps.delete("held", &DeleteParams::default()).await.unwrap();
        assert!(maps.get("held").await.unwrap().metadata.deletion_timestamp.is_some(), "until nobody holds it");
        maps.patch("held", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
        assert_eq!(code(maps.get("held").await).0, 404);
    }
}

#[tokio::test]
async fn with_a_namespace_goes_all_that_is_in_it() {
    let world = World::on_fake().await;
    put(&world, "one", "1").await;
    let namespaces: Api<Namespace> = Api::all(world.cluster.client());
    namespaces.delete(&world.namespace, &DeleteParams::default()).await.unwrap();
    assert!(world.fake().objects("configmaps", &world.namespace).is_empty());
}

#[tokio::test]
async fn rights_are_those_of_stored_roles() {
    let world = World::on_fake().await;
    let (fake, namespace) = (world.fake(), world.namespace.as_str());
    let token = fake.token(namespace, "daemon", None, &[API_AUDIENCE], Duration::from_secs(600));
    let maps: Api<ConfigMap> = Api::namespaced(world.cluster_as(&token).client(), namespace);
    let (status, reason, message) = code(maps.get("one").await);
    assert_eq!((status, reason.as_str()), (403, "Forbidden"));
    let user = service_account(namespace, "daemon");
    let expected = format!(
        "configmaps \"one\" is forbidden: User \"{user}\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"{namespace}\""
    );
    assert_eq!(message, expected);
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["one"], "verbs": ["get", "update", "list"]});
    fake.grant((namespace, "daemon"), Some(namespace), json!([rule]));
    assert_eq!(code(maps.get("one").await).0, 404, "allowed, and not there");
    assert_eq!(code(maps.get("two").await).0, 403, "another name");
    assert_eq!(code(maps.create(&PostParams::default(), &config_map("one", "1")).await).0, 403, "another verb");
    assert_eq!(code(maps.list(&ListParams::default()).await).0, 403, "all names");
    maps.list(&ListParams::default().fields("metadata.name=one")).await.unwrap();
    let elsewhere: Api<ConfigMap> = Api::namespaced(world.cluster_as(&token).client(), "default");
    assert_eq!(code(elsewhere.get("one").await).0, 403, "another namespace");
    assert_eq!(fake.calls().last().unwrap(), &(fake.calls().last().unwrap().0.clone(), 403));
}

async fn review(cluster: &Cluster, token: &str, audiences: &[&str]) -> Value {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": audiences}});
    let request = http::Request::post("/apis/authentication.k8s.io/v1/tokenreviews").header("content-type", "application/json");
    let request = request.body(body.to_string().into_bytes()).unwrap();
    cluster.client().request::<Value>(request).await.unwrap()["status"].take()
}

#[tokio::test]
async fn a_review_tells_whose_a_token_is_and_for_whom() {
    let world = World::on_fake().await;
    let fake = world.fake();
    let token = fake.token("payments", "api", Some("api-1"), &["keywright", "vault"], Duration::from_secs(600));
    let told = review(&world.cluster, &token, &["keywright", "other"]).await;
    assert_eq!((&told["authenticated"], &told["audiences"]), (&json!(true), &json!(["keywright"])));
    assert_eq!(told["user"]["username"], "system:serviceaccount:payments:api");
    assert_eq!(told["user"]["uid"], fake.object("serviceaccounts", "payments", "api").unwrap()["metadata"]["uid"]);
    let pod = fake.object("pods", "payments", "api-1").unwrap();
    assert_eq!(told["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["api-1"]));
    assert_eq!(told["user"]["extra"]["authentication.kubernetes.io/pod-uid"], json!([pod["metadata"]["uid"]]));
    assert!(told["user"]["groups"].as_array().unwrap().contains(&json!("system:serviceaccounts:payments")));
    let refused = async |token: &str, audiences: &[&str]| {
        let told = review(&world.cluster, token, audiences).await;
        assert!(told["authenticated"].is_null() && told["error"].is_string(), "{told}");
        assert_eq!(told["user"], json!({}));
    };
    refused(&token, &["other"]).await;
    refused(&token, &[]).await;
    refused("made-up", &["keywright"]).await;
    refused(&fake.token("payments", "api", None, &["keywright"], Duration::ZERO), &["keywright"]).await;
    let old = fake.legacy_token("payments", "api");
    refused(&old, &["keywright"]).await;
    assert_eq!(review(&world.cluster, &old, &[]).await["audiences"], json!([API_AUDIENCE]));
    fake.delete("pods", "payments", "api-1");
    refused(&token, &["keywright"]).await;
    let unbound = fake.token("payments", "api", None, &["keywright"], Duration::from_secs(600));
    fake.delete("serviceaccounts", "payments", "api");
    fake.put("serviceaccounts", "payments", json!({"metadata": {"name": "api"}}));
    refused(&unbound, &["keywright"]).await;
    let fresh = fake.token("payments", "api", None, &["keywright"], Duration::from_secs(600));
    assert_eq!(review(&world.cluster, &fresh, &["keywright"]).await["authenticated"], true);
    fake.revoke(&fresh);
    refused(&fresh, &["keywright"]).await;
}

#[tokio::test]
async fn who_is_unknown_is_told_so() {
    let world = World::on_fake().await;
    let maps: Api<ConfigMap> = Api::namespaced(world.cluster_as("made-up").client(), &world.namespace);
    assert_eq!(ClusterError::from(maps.get("one").await.unwrap_err()), ClusterError::Unauthorized);
    let token = world.fake().token(&world.namespace, "api", None, &["keywright"], Duration::from_secs(600));
    let maps: Api<ConfigMap> = Api::namespaced(world.cluster_as(&token).client(), &world.namespace);
    assert_eq!(ClusterError::from(maps.get("one").await.unwrap_err()), ClusterError::Unauthorized, "a token for somebody else");
}

#[tokio::test]
async fn one_asks_too_often_and_is_told_for_how_long_to_wait() {
    let world = World::on_fake().await;
    world.fake().plan(|call| (call.resource == "configmaps").then_some(Fault::Answers(429, Some(3))));
    let maps = maps(&world);
    let error = world.cluster.call(maps.get("one")).await.unwrap_err();
    assert_eq!(error, ClusterError::TooMany { retry_after: Some(Duration::from_secs(3)) });
    assert_eq!(world.fake().calls().len(), 1, "and isn't asked again by anybody but who calls");
    world.fake().plan(|_| Some(Fault::Answers(503, None)));
    assert_eq!(world.cluster.call(maps.get("one")).await.unwrap_err(), ClusterError::Unavailable { retry_after: None });
}

#[tokio::test]
async fn replies_are_lost_and_requests_refused_or_stalled() {
    let world = World::on_fake().await;
    let (fake, maps, params) = (world.fake(), maps(&world), PostParams::default());
    let lost = ClusterError::Unavailable { retry_after: None };
    fake.plan(|call| call.writes().then_some(Fault::LosesReplyAfterEffect));
    assert_eq!(world.cluster.call(maps.create(&params, &config_map("lost", "1"))).await.unwrap_err(), lost);
    fake.plan(|call| call.writes().then_some(Fault::RefusesBefore));
    assert_eq!(world.cluster.call(maps.create(&params, &config_map("refused", "1"))).await.unwrap_err(), lost);
    let gate = Gate::new();
    let closed = gate.clone();
    fake.plan(move |call| call.writes().then(|| Fault::Stalls(closed.clone())));
    let stalled = config_map("stalled", "1");
    let late = world.cluster.call_within(Duration::from_millis(50), maps.create(&params, &stalled));
    assert_eq!(late.await.unwrap_err(), lost);
    fake.nothing_goes_wrong();
    assert!(maps.get_opt("lost").await.unwrap().is_some(), "what was lost is the reply");
    assert!(maps.get_opt("refused").await.unwrap().is_none());
    assert!(maps.get_opt("stalled").await.unwrap().is_none());
    gate.open();
    while maps.get_opt("stalled").await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn it_goes_away_and_comes_back_with_all_it_had() {
    let world = World::on_fake().await;
    let (fake, maps) = (world.fake(), maps(&world));
    put(&world, "one", "1").await;
    fake.stop();
    assert!(world.cluster.call(maps.get("one")).await.unwrap_err().is_passing());
    fake.resume().await;
    assert_eq!(maps.get("one").await.unwrap().data.unwrap()["a"], "1");
    fake.hang(true);
    let silent = world.cluster.call_within(Duration::from_millis(50), maps.get("one")).await;
    assert!(silent.unwrap_err().is_passing());
    fake.hang(false);
    maps.get("one").await.unwrap();
}

#[tokio::test]
async fn behind_tls_it_is_trusted_by_its_authority_alone() {
    let (authority, other) = (Authority::new(), Authority::new());
    let issued = authority.issue();
    use rustls::pki_types::pem::PemObject as _;
    let chain = rustls::pki_types::CertificateDer::pem_slice_iter(issued.chain.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let folder = tempfile::tempdir().unwrap();
    for (root, is_trusted) in [(authority.root(), true), (other.root(), false)] {
        let fake = crate::fake::ApiServer::start_with_tls(config.clone(), root).await;
        let kubeconfig = fake.kubeconfig(folder.path(), "default", crate::fake::ADMIN);
        let cluster = Cluster::connect(&ClusterSettings { kubeconfig: Some(kubeconfig) }).unwrap();
        let pods: Api<Pod> = Api::namespaced(cluster.client(), cluster.namespace());
        assert_eq!(cluster.call(pods.list(&ListParams::default())).await.is_ok(), is_trusted);
    }
}
