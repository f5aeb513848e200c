//! Delivery as a Kubernetes Secret: the daemon rotates, the Secret follows, pods roll, and no pod ever has a key that is dead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::dinie::truth::{Key, Owner};
use crate::support::dinie::{Dinie, Options};
use crate::support::eventually;
use crate::support::kube::{ADMIN, ApiServer, Fault};
use crate::support::outputs::Outputs;
use crate::support::scanner::Scanner;
use crate::support::site::Site;
use crate::support::wire::Ask;
use crate::world::{ACCEPTANCE, PRODUCTION, STILL, fields, left_behind};

const LIMIT: Duration = Duration::from_secs(30);

/// A daemon, a cluster, and a Deployment `api` of three pods in `shop`.
struct Scene {
    daemon: Daemon,
    provider: Arc<Dinie>,
    kube: Arc<ApiServer>,
    first: Key,
    /// What each living pod read of the Secret when it started.
    used: Arc<Mutex<BTreeMap<String, String>>>,
}

/// The delivery of `payments-api`, as its document asks for it.
const RESTARTING: &str = "delivery: {kubernetes: {secret: payments, namespace: shop, restart: [{deployment: api}]}}";

impl Scene {
    async fn start(rotation: &str, delivery: &str) -> Scene {
        let provider = Dinie::start(Options::new("production")).await;
        Scene::with(ApiServer::start().await, provider, rotation, delivery, &[]).await
    }

    async fn with(kube: Arc<ApiServer>, provider: Arc<Dinie>, rotation: &str, delivery: &str, environment: &[(&str, &str)]) -> Scene {
        kube.namespace("shop");
        kube.deployment("shop", "api", 3);
        let sandbox = Dinie::start(Options::new("sandbox")).await;
        let first = provider.seed_key("first, by hand", Owner::Enrolled);
        let mut site = Site::with_dinies(&sandbox, &provider, rotation);
        let _token = site.application("payments-api", "production", &[PRODUCTION], delivery);
        let kubeconfig = kube.kubeconfig(site.folder(), "keywright", ADMIN);
        site.extra_config = format!("cluster: {{kubeconfig: \"{}\"}}\n", kubeconfig.display());
        let daemon = Daemon::start_with(site, environment).await;
        daemon.submit(PRODUCTION, &fields(&first)).await;
        Scene { daemon, provider, kube, first, used: Arc::default() }
    }

    fn entry(&self, name: &str) -> Option<String> {
        let secret = self.kube.object("secrets", "shop", "payments")?;
        let value = BASE64_STANDARD.decode(secret["data"][format!("{PRODUCTION}.{name}")].as_str()?).unwrap();
        Some(String::from_utf8(value).unwrap())
    }

    async fn holds(&self, secret: &str) {
        let limit = eventually(LIMIT, || self.entry("client_secret").as_deref() == Some(secret)).await;
        assert!(limit, "the Secret doesn't follow\n{}", self.daemon.log_tail());
    }

    fn checksum(&self) -> Value {
        let object = self.kube.object("deployments", "shop", "api").unwrap();
        object["spec"]["template"]["metadata"]["annotations"]["keywright.dev/checksum-payments"].clone()
    }

    async fn asked_to_restart(&self, before: &Value) {
        let asked = eventually(LIMIT, || self.checksum() != *before).await;
        assert!(asked, "no restart\n{}", self.daemon.log_tail());
    }

    /// The controller replaces so many pods; each reads the Secret when it starts.
    fn roll(&self, count: usize) {
        self.kube.roll("shop", "api", count);
        let value = self.entry("client_secret").expect("a Secret is there before any restart");
        let living: Vec<String> = self.kube.pods_of("shop", "api").into_iter().map(|(name, _)| name).collect();
        let mut used = self.used.lock().unwrap();
        used.retain(|pod, _| living.contains(pod));
        for pod in living {
            used.entry(pod).or_insert_with(|| value.clone());
        }
    }

    /// No pod has a key that its provider refuses.
    fn assert_no_pod_is_dead(&self) {
        for (pod, secret) in self.used.lock().unwrap().iter() {
            assert!(self.provider.alive(secret), "{pod} has a dead key");
        }
    }

    async fn rotate(&self) -> String {
        let before = self.entry("client_secret").unwrap();
        self.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
        let follows = eventually(LIMIT, || self.entry("client_secret").is_some_and(|now| now != before)).await;
        assert!(follows, "the Secret doesn't follow\n{}", self.daemon.log_tail());
        self.entry("client_secret").unwrap()
    }

    /// The rotation is closed.
    async fn ended(&self) {
        for _ in 0..120 {
            if self.daemon.status(PRODUCTION).await["phase"] == "steady" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("it doesn't end: {}", self.daemon.status(PRODUCTION).await);
    }

    async fn delivery(&self) -> Value {
        let status = self.daemon.cli(&["status", "--json"]).await.json();
        let all = status["deliveries"].as_array().expect("deliveries").clone();
        all.into_iter().find(|row| row["application"] == "payments-api").expect("its row")
    }

    async fn delivery_is(&self, state: &str) -> Value {
        for _ in 0..120 {
            let row = self.delivery().await;
            if row["state"] == state {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("not {state}: {}\n{}", self.delivery().await, self.daemon.log_tail());
    }

    fn writes(&self) -> usize {
        self.kube.calls().iter().filter(|(call, _)| call.writes()).count()
    }

    fn assert_silent(&self) {
        left_behind(&self.daemon.site).assert_silent(&Scanner::new(&self.provider.canaries()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_key_dies_when_the_last_pod_of_before_is_gone_and_no_sooner() {
    let scene = Scene::start(STILL, RESTARTING).await;
    scene.holds(&scene.first.secret).await;
    assert_eq!(scene.entry("client_id").as_deref(), Some(scene.first.client_id.as_str()));
    scene.asked_to_restart(&Value::Null).await;
    scene.roll(3);
    scene.delivery_is("delivered").await;

    let before = scene.checksum();
    let second = scene.rotate().await;
    scene.asked_to_restart(&before).await;
    scene.roll(2);
    // Past the overlap of two seconds.
    for _ in 0..20 {
        scene.assert_no_pod_is_dead();
        assert!(scene.provider.alive(&scene.first.secret), "revoked while a pod has it");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let row = scene.delivery_is("waiting").await;
    let old =
        scene.kube.pods_of("shop", "api").into_iter().find(|(_, annotations)| annotations["keywright.dev/checksum-payments"] == before);
    assert_eq!(row["stragglers"], serde_json::json!([old.unwrap().0]), "{row}");
    scene.roll(1);
    let dead = || !scene.provider.alive(&scene.first.secret);
    assert!(eventually(LIMIT, dead).await, "it lives on\n{}", scene.daemon.log_tail());
    assert!(scene.provider.alive(&second));
    scene.assert_no_pod_is_dead();
    scene.delivery_is("delivered").await;
    scene.daemon.cli(&["audit", "verify"]).await.assert_code(0);
    scene.assert_silent();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_daemon_writes_nothing_and_restarts_nobody() {
    let mut scene = Scene::start(STILL, RESTARTING).await;
    scene.asked_to_restart(&Value::Null).await;
    scene.roll(3);
    scene.delivery_is("delivered").await;
    let writes = scene.writes();
    scene.daemon.kill().await;
    scene.kube.forget_calls();
    scene.daemon.again().await;
    let looked = || scene.kube.calls().iter().any(|(call, _)| call.is("list", "pods"));
    assert!(eventually(LIMIT, looked).await, "{}", scene.daemon.log_tail());
    scene.delivery_is("delivered").await;
    assert!(writes > 0 && scene.writes() == 0, "{:?}", scene.kube.calls());

    // Who asks for it no more has nothing left there, once documents have settled: within seconds where keys are so short-lived.
    scene.daemon.site.forget_document("payments-api");
    scene.daemon.site.forget_document("quick");
    scene.daemon.site.rotation("quick", ACCEPTANCE);
    scene.daemon.site.write();
    scene.daemon.reload();
    let empty = || scene.entry("client_secret").is_none() && scene.entry("client_id").is_none();
    assert!(eventually(LIMIT, empty).await, "{}", scene.daemon.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_somebody_else_is_left_alone_and_named_until_it_is_handed_over() {
    let kube = ApiServer::start().await;
    kube.namespace("shop");
    let theirs = serde_json::json!({"metadata": {"name": "payments"}, "type": "Opaque", "data": {"password": "dGhlaXJz"}});
    let theirs = kube.put("secrets", "shop", theirs);
    let scene = Scene::with(kube, Dinie::start(Options::new("production")).await, STILL, RESTARTING, &[]).await;
    let row = scene.delivery_is("failing").await;
    let reason = row["reason"].as_str().unwrap();
    assert!(reason.contains("kubectl annotate -n shop secret payments keywright.dev/adopt=payments-api"), "{reason}");
    assert_eq!(scene.kube.object("secrets", "shop", "payments").unwrap(), theirs);
    scene.kube.edit("secrets", "shop", "payments", |secret| {
        secret["metadata"]["annotations"] = serde_json::json!({"keywright.dev/adopt": "payments-api"});
    });
    scene.holds(&scene.first.secret).await;
    assert_eq!(scene.kube.object("secrets", "shop", "payments").unwrap()["data"]["password"], "dGhlaXJz");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_restart_the_secret_is_held_until_the_policy_counts_its_writing() {
    let delivery = "delivery: {kubernetes: {secret: payments, namespace: shop}}";
    let held = Scene::start(STILL, delivery).await;
    held.holds(&held.first.secret).await;
    held.rotate().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(held.provider.alive(&held.first.secret), "nobody has confirmed");
    assert_eq!(held.checksum(), Value::Null, "nobody is restarted");
    let path = "/v1/applications/payments-api/instances/kubernetes-secret";
    let answer = held.daemon.site.socket().ask(Ask { method: "DELETE", path, headers: &[], body: None }).await;
    assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
    assert!(eventually(LIMIT, || !held.provider.alive(&held.first.secret)).await, "released, yet it lives");

    let observed = Scene::start(&format!("{STILL}, confirmation: observed"), delivery).await;
    observed.holds(&observed.first.secret).await;
    observed.rotate().await;
    assert!(eventually(LIMIT, || !observed.provider.alive(&observed.first.secret)).await, "{}", observed.daemon.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_is_away_rotations_wait_for_the_secret_and_nothing_dies() {
    let scene = Scene::start(STILL, RESTARTING).await;
    scene.asked_to_restart(&Value::Null).await;
    scene.roll(3);
    scene.delivery_is("delivered").await;
    scene.kube.stop();
    scene.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    scene.delivery_is("failing").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(scene.provider.alive(&scene.first.secret), "the pods have nothing else");
    let before = scene.checksum();
    scene.kube.resume().await;
    scene.asked_to_restart(&before).await;
    scene.roll(3);
    assert!(eventually(LIMIT, || !scene.provider.alive(&scene.first.secret)).await, "{}", scene.daemon.log_tail());
    scene.assert_no_pod_is_dead();
    scene.assert_silent();
}

/// The most talkative log, and a fault at each seventh call: in turn at each of a delivery.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_value_comes_out_whatever_call_fails() {
    let kube = ApiServer::start().await;
    let mut number = 0;
    kube.plan(move |_| {
        let faults = [
            Fault::Answers(409, None),
            Fault::Answers(500, None),
            Fault::LosesReplyAfterEffect,
            Fault::Answers(422, None),
            Fault::RefusesBefore,
        ];
        number += 1;
        (number % 7 == 0).then(|| faults[number / 7 % faults.len()].clone())
    });
    let scene = Scene::with(kube, Dinie::start(Options::new("production")).await, STILL, RESTARTING, &[("RUST_LOG", "trace")]).await;
    scene.holds(&scene.first.secret).await;
    scene.asked_to_restart(&Value::Null).await;
    for _ in 0..2 {
        let before = scene.checksum();
        let second = scene.rotate().await;
        scene.asked_to_restart(&before).await;
        scene.roll(3);
        let alone = || scene.provider.alive(&second) && scene.provider.lock().truth.living().len() == 1;
        assert!(eventually(LIMIT, alone).await, "{}", scene.daemon.log_tail());
        scene.ended().await;
    }
    scene.assert_no_pod_is_dead();
    scene.assert_silent();
    for command in [&["status"][..], &["status", "--json"], &["plan"]] {
        let printed = scene.daemon.cli(command).await;
        let mut outputs = Outputs::default();
        outputs.add("a command", [printed.stdout, printed.stderr].concat());
        outputs.assert_silent(&Scanner::new(&scene.provider.canaries()));
    }
}
