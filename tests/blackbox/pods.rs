//! Pods as callers: whose tokens are taken, what a pod that is gone frees, and what holds while the cluster is away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::canaries::Canary;
use crate::support::eventually;
use crate::support::kube::{API_AUDIENCE, ApiServer, Fault};
use crate::support::wire::{Answer, Events};
use crate::world::{PRODUCTION, Plan, World};

const AUDIENCE: &str = "keywright.test";
const HOUR: Duration = Duration::from_secs(3_600);

/// One daemon, known to a cluster as `keywright/keywright`, and an application whose pods are of `payments/payments-api`.
struct Cluster {
    world: World,
    api: Arc<ApiServer>,
    own: String,
}

impl Cluster {
    async fn start() -> Self {
        Self::start_where(&["payments"]).await
    }

    /// It may list pods in these namespaces.
    async fn start_where(listed: &[&str]) -> Self {
        let api = ApiServer::start().await;
        let own = api.token("keywright", "keywright", Some("keywright-0"), &[API_AUDIENCE], HOUR);
        let reviews = json!([{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]);
        api.grant(("keywright", "keywright"), None, reviews);
        for namespace in listed {
            api.namespace(namespace);
            let lists = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]);
            api.grant(("keywright", "keywright"), Some(namespace), lists);
        }
        let mut world = World::start(Plan::still()).await;
        let kubeconfig = api.kubeconfig(world.daemon.site.folder(), "keywright", &own);
        let site = &mut world.daemon.site;
        site.extra_config =
            format!("cluster: {{kubeconfig: {}}}\nidentities: {{kubernetes: {{audience: {AUDIENCE}}}}}\n", kubeconfig.display());
        // The one with a static token was never seen: it would hold the first key.
        site.forget_document("payments-api");
        let identity = "identity: {kubernetes: {namespace: payments, serviceAccount: payments-api}}, lease: 10m";
        site.document("Application", "pods", &format!("environment: production, credentials: [{PRODUCTION}], {identity}"));
        site.write();
        world.daemon.terminate().await;
        world.daemon.again().await;
        Self { world, api, own }
    }

    fn token(&self, pod: &str) -> String {
        self.api.token("payments", "payments-api", Some(pod), &[AUDIENCE], HOUR)
    }

    async fn read(&self, token: &str) -> Answer {
        self.read_as(token, &[]).await
    }

    async fn read_as(&self, token: &str, more: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend_from_slice(more);
        self.world.daemon.site.tcp().get(&format!("/v1/credentials/{PRODUCTION}"), &headers).await
    }

    async fn stream(&self, token: &str) -> Events {
        let bearer = format!("Bearer {token}");
        let target = self.world.daemon.site.tcp();
        Events::open(&target, "/v1/events", &[("authorization", &bearer)])
            .await
            .expect("it answers")
            .unwrap_or_else(|_| panic!("it isn't a stream"))
    }

    fn reviews(&self) -> usize {
        self.api.calls().iter().filter(|(call, _)| call.is("create", "tokenreviews")).count()
    }

    /// Asks each half second, till this is the status.
    async fn comes_to(&self, token: &str, status: u16, limit: Duration) {
        let began = Instant::now();
        loop {
            let answer = self.read(token).await;
            if answer.status == status {
                return;
            }
            assert!(began.elapsed() < limit, "still {}: {}", answer.status, self.world.daemon.log_tail());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Nothing of these tokens, nor of the daemon's own, in what it printed and left on disk.
    fn assert_silent(&self, tokens: &[&str]) {
        let canaries: Vec<Canary> = tokens.iter().chain([&self.own.as_str()]).map(|token| Canary::whole("token of a pod", token)).collect();
        self.world.assert_silent(&canaries);
    }
}

fn has_problem(status: &Value, code: &str) -> bool {
    status["problems"].as_array().expect("problems").iter().any(|problem| problem["code"] == code)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_read_by_tokens_for_our_audience_and_by_no_others() {
    let it = Cluster::start().await;
    let good = it.token("api-0");
    let answer = it.read(&good).await;
    assert_eq!(answer.status, 200, "{}", it.world.daemon.log_tail());
    assert_eq!(answer.json()["fields"]["client_secret"], it.world.enrolled_production.secret.as_str());
    let asked = it.reviews();
    let foreign = it.api.token("payments", "payments-api", Some("api-0"), &[API_AUDIENCE], HOUR);
    let legacy = it.api.legacy_token("payments", "payments-api");
    let unbound = it.api.token("payments", "payments-api", None, &[AUDIENCE], HOUR);
    let elsewhere = it.api.token("staging", "payments-api", Some("api-0"), &[AUDIENCE], HOUR);
    let other = it.api.token("payments", "other", Some("other-0"), &[AUDIENCE], HOUR);
    for wrong in [&foreign, &legacy, &unbound, &elsewhere, &other, &"static".to_owned()] {
        it.read(wrong).await.assert_problem(401, "unauthenticated");
    }
    assert_eq!(it.reviews(), asked, "none of these was worth a question");
    let revoked = it.token("api-1");
    it.api.revoke(&revoked);
    let forged = format!("{good}x");
    for wrong in [&revoked, &forged] {
        it.read(wrong).await.assert_problem(401, "unauthenticated");
    }
    // The pod is its own instance.
    assert_eq!(it.read_as(&good, &[("keywright-instance", "api-0")]).await.status, 200);
    it.read_as(&good, &[("keywright-instance", "api-1")]).await.assert_problem(400, "bad-request");
    let row = it.world.daemon.status(PRODUCTION).await;
    let instances: Vec<&Value> = row["applications"].as_array().expect("applications").iter().filter(|row| row["name"] == "pods").collect();
    assert!(instances.iter().any(|row| row["instance"] == "api-0"), "{row}");
    it.assert_silent(&[&good, &foreign, &legacy, &unbound, &elsewhere, &other, &revoked]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_gone_frees_what_it_held_and_its_token_is_worth_nothing() {
    let it = Cluster::start().await;
    let (gone, stays) = (it.token("api-0"), it.token("api-1"));
    assert_eq!((it.read(&gone).await.status, it.read(&stays).await.status), (200, 200));
    it.world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    let secret = it.world.enrolled_production.secret.clone();
    it.api.edit("pods", "payments", "api-1", |pod| pod["status"]["phase"] = json!("Succeeded"));
    // Past the overlap, and past some looks at the pods.
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(it.world.production.alive(&secret), "api-0 holds it still");
    let row = it.world.daemon.status(PRODUCTION).await;
    assert!(!row.to_string().contains("api-1") && row.to_string().contains("api-0"), "the one that has ended holds nothing: {row}");
    assert!(it.api.delete("pods", "payments", "api-0"));
    let dead = eventually(Duration::from_secs(60), || !it.world.production.alive(&secret)).await;
    assert!(dead, "its pod is gone, yet the key lives: {}", it.world.daemon.log_tail());
    it.comes_to(&gone, 401, Duration::from_secs(30)).await;
    let trail = std::fs::read_to_string(it.world.daemon.site.path("data/audit.jsonl")).expect("the trail");
    assert_eq!(trail.matches("\"pod-gone\"").count(), 2, "one record each");
    it.world.daemon.cli(&["audit", "verify"]).await.assert_code(0);
    it.assert_silent(&[&gone, &stays]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_token_and_soon_after_its_pod() {
    let it = Cluster::start().await;
    let short = it.api.token("payments", "payments-api", Some("api-0"), &[AUDIENCE], Duration::from_secs(8));
    let long = it.token("api-1");
    let (mut first, mut second) = (it.stream(&short).await, it.stream(&long).await);
    for stream in [&mut first, &mut second] {
        assert!(stream.wait_for("credential", Duration::from_secs(10)).await.is_some());
    }
    let ends =
        async |stream: &mut Events, limit| tokio::time::timeout(limit, async { while stream.next().await.is_some() {} }).await.is_ok();
    assert!(ends(&mut first, Duration::from_secs(30)).await, "its token is over");
    it.read(&short).await.assert_problem(401, "unauthenticated");
    assert!(!ends(&mut second, Duration::from_secs(1)).await, "nothing has happened to this one");
    assert!(it.api.delete("pods", "payments", "api-1"));
    assert!(ends(&mut second, Duration::from_secs(90)).await, "its pod is gone: {}", it.world.daemon.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_cluster_is_away_pods_that_it_knew_go_on_and_others_wait() {
    let it = Cluster::start().await;
    let (known, new) = (it.token("api-0"), it.token("api-1"));
    assert_eq!(it.read(&known).await.status, 200);
    it.api.stop();
    // Longer than an answer is kept while the cluster is there.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(it.read(&known).await.status, 200);
    it.read(&new).await.assert_problem(503, "not-ready");
    let problem = async |code: &str| has_problem(&it.world.daemon.cli(&["status", "--json"]).await.json(), code);
    let began = Instant::now();
    while !(problem("pods-unknown").await && problem("tokens-unreviewed").await) {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody is told");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    it.api.resume().await;
    it.comes_to(&new, 200, Duration::from_secs(30)).await;
    let began = Instant::now();
    while problem("pods-unknown").await {
        assert!(began.elapsed() < Duration::from_secs(60), "it is still told");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_wrong_tokens_reaches_neither_the_cluster_nor_those_who_are_known() {
    let it = Cluster::start().await;
    let good = it.token("api-0");
    assert_eq!(it.read(&good).await.status, 200);
    // As slow as a busy one: the flood finds all questions under way.
    it.api.plan(|call| call.is("create", "tokenreviews").then_some(Fault::Delays(Duration::from_secs(2))));
    let (body, _) = good.rsplit_once('.').expect("a JWT");
    let before = it.reviews();
    let mut held_back = 0;
    let forged: Vec<String> = (0..400).map(|number| format!("{body}.forged{number}")).collect();
    for answer in futures_util::future::join_all(forged.iter().map(|token| it.read(token))).await {
        match answer.status {
            401 => {}
            429 => {
                answer.assert_problem(429, "too-many");
                assert_eq!(answer.header("retry-after"), Some("1"));
                held_back += 1;
            }
            other => panic!("{other}"),
        }
    }
    let asked = it.reviews() - before;
    assert!(held_back > 0 && asked + held_back <= 401, "{asked} questions, {held_back} held back");
    assert_eq!(it.read(&good).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_told_and_frees_nobody() {
    let it = Cluster::start_where(&[]).await;
    let token = it.token("api-0");
    assert_eq!(it.read(&token).await.status, 200, "reviews are another right");
    it.world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    assert!(it.api.delete("pods", "payments", "api-0"));
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(it.world.production.alive(&it.world.enrolled_production.secret), "nobody knows that it is gone");
    let status = it.world.daemon.cli(&["status", "--json"]).await.json();
    assert!(has_problem(&status, "pods-unknown") && status.to_string().contains("may not list pods in `payments`"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_pods_needs_the_audience() {
    let mut it = Cluster::start().await;
    it.world.daemon.site.extra_config.clear();
    it.world.daemon.site.write();
    let printed = it.world.daemon.cli(&["check", "--json"]).await;
    assert_eq!(printed.assert_code(2).json()["problems"][0]["code"], "identities-missing");
    it.world.daemon.terminate().await;
    let printed = it.world.daemon.cli(&["run"]).await;
    assert!(
        printed.assert_code(2).err().contains("identities-missing") || printed.err().contains("names no audience"),
        "{}",
        printed.err()
    );
}
