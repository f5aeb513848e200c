//! The fake's subresources and reviews, each shown once, and on a real cluster where one is named.

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use keywright::cluster::Cluster;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::world::World;

async fn post(cluster: &Cluster, path: &str, body: &Value) -> kube::Result<Value> {
    let request = http::Request::post(path).header("content-type", "application/json");
    cluster.client().request(request.body(body.to_string().into_bytes()).unwrap()).await
}

#[tokio::test]
async fn a_token_is_requested_for_an_audience_and_reviewed_for_it() {
    for world in World::all().await {
        let accounts: Api<ServiceAccount> = Api::namespaced(world.cluster.client(), &world.namespace);
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "api"}})).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let path = |name: &str| format!("/api/v1/namespaces/{}/serviceaccounts/{name}/token", world.namespace);
        let ask = |seconds: u32| {
            let spec = json!({"audiences": ["keywright"], "expirationSeconds": seconds});
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
        };
        let made = post(&world.cluster, &path("api"), &ask(600)).await.unwrap();
        assert!(post(&world.cluster, &path("api"), &ask(599)).await.is_err(), "too short a life");
        assert!(post(&world.cluster, &path("nobody"), &ask(600)).await.is_err());
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": made["status"]["token"], "audiences": ["keywright", "other"]},
        });
        let told = post(&world.cluster, "/apis/authentication.k8s.io/v1/tokenreviews", &review).await.unwrap();
        let expected = format!("system:serviceaccount:{}:api", world.namespace);
        assert_eq!((&told["status"]["authenticated"], &told["status"]["user"]["username"]), (&json!(true), &json!(expected)));
        assert_eq!(told["status"]["audiences"], json!(["keywright"]));
    }
}

#[tokio::test]
async fn one_may_ask_what_one_may_do() {
    for world in World::all().await {
        let attributes = json!({"namespace": world.namespace, "verb": "get", "group": "coordination.k8s.io", "resource": "leases"});
        let spec = json!({"resourceAttributes": attributes});
        let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        assert_eq!(post(&world.cluster, path, &body).await.unwrap()["status"]["allowed"], true);
        let Some(fake) = &world.fake else { continue };
        let audience = [crate::fake::API_AUDIENCE];
        let token = fake.token(&world.namespace, "nobody", None, &audience, std::time::Duration::from_secs(600));
        assert_eq!(post(&world.cluster_as(&token), path, &body).await.unwrap()["status"]["allowed"], false);
    }
}

#[tokio::test]
async fn a_status_and_its_object_are_written_apart() {
    for world in World::all().await {
        let deployments: Api<Deployment> = Api::namespaced(world.cluster.client(), &world.namespace);
        let labels = json!({"app": "x"});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "registry.example/a:1"}]}});
        let spec = json!({"replicas": 0, "paused": true, "selector": {"matchLabels": labels}, "template": template});
        let written = json!({"metadata": {"name": "d"}, "spec": spec, "status": {"collisionCount": 5}});
        let made: Deployment = serde_json::from_value(written).unwrap();
        let made = deployments.create(&PostParams::default(), &made).await.unwrap();
        assert!(made.status.is_none_or(|status| status.collision_count.is_none()), "who makes it doesn't say its status");
        let patch = Patch::Merge(json!({"spec": {"minReadySeconds": 9}, "status": {"collisionCount": 7}}));
        let after = deployments.patch_status("d", &PatchParams::default(), &patch).await.unwrap();
        assert_eq!(
            (after.spec.as_ref().unwrap().min_ready_seconds, after.status.unwrap().collision_count),
            (made.spec.unwrap().min_ready_seconds, Some(7))
        );
        let after = deployments.patch("d", &PatchParams::default(), &patch).await.unwrap();
        assert_eq!((after.spec.unwrap().min_ready_seconds, after.status.unwrap().collision_count), (Some(9), Some(7)));
    }
}

#[tokio::test]
async fn a_watch_can_begin_with_all_there_is() {
    for world in World::all().await {
        let maps: Api<ConfigMap> = Api::namespaced(world.cluster.watch_client(), &world.namespace);
        for name in ["a", "b"] {
            let labels = json!({"team": "x"});
            let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
            maps.create(&PostParams::default(), &map).await.unwrap();
        }
        let params = WatchParams::streaming_lists().labels("team=x").timeout(10);
        let events = match maps.watch(&params, "0").await {
            // A server without this feature, or with the feature off, says so; Keywright lists first, and needs no server to have it.
            Err(kube::Error::Api(status))
                if world.fake.is_none() && status.code == 422 && status.message.contains("forbidden for watch") =>
            {
                continue;
            }
            events => events.unwrap(),
        };
        let kinds = events.map_ok(|event| match event {
            WatchEvent::Added(map) => map.metadata.name.unwrap_or_default(),
            WatchEvent::Bookmark(bookmark) => bookmark.metadata.annotations.into_keys().collect(),
            other => format!("{other:?}"),
        });
        let mut told: Vec<String> = kinds.take(3).try_collect().await.unwrap();
        told[..2].sort();
        assert_eq!(told, ["a", "b", "k8s.io/initial-events-end"]);
    }
}

/// What a Secret holds isn't asked for: its metadata are, in the form that is named as servers name it.
#[tokio::test]
async fn metadata_are_told_alone_and_forms_that_there_are_not_are_refused() {
    for world in World::all().await {
        let maps: Api<ConfigMap> = Api::namespaced(world.cluster.client(), &world.namespace);
        let map = json!({"metadata": {"name": "a"}, "data": {"a": "1"}});
        maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
        let ask = async |accept: &str| {
            let path = format!("/api/v1/namespaces/{}/configmaps/a", world.namespace);
            let request = http::Request::get(path).header("accept", accept).body(Vec::new()).unwrap();
            world.cluster.client().request::<Value>(request).await
        };
        let whole = ask("application/json").await.unwrap();
        assert_eq!((&whole["kind"], &whole["data"]["a"]), (&json!("ConfigMap"), &json!("1")));
        let metadata = ask("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await.unwrap();
        assert_eq!((&metadata["kind"], &metadata["data"]), (&json!("PartialObjectMetadata"), &Value::Null));
        assert_eq!(metadata["metadata"]["uid"], whole["metadata"]["uid"]);
        let either = ask("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=1, application/json").await.unwrap();
        assert_eq!(either["kind"], "ConfigMap", "the first of them that there is");
        let refused = ask("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=1").await.unwrap_err();
        assert!(matches!(&refused, kube::Error::Api(status) if status.code == 406), "{refused:?}");
    }
}
