//! Pods as callers: whose tokens are taken, which instance they are, and when their streams end.

use super::fake::{application, applications};
use super::*;
use crate::domain::workload::ServiceAccount;
use crate::identities::contract::{Playground, PodMade, Wanted};
use crate::identities::memory::MemoryCluster;
use crate::identities::{Now, ReviewError, Reviews};
use crate::runtime::clock::wall_now;

const AUDIENCE: &str = "keywright.example";

struct Pods {
    it: Running,
    cluster: Arc<MemoryCluster>,
    pod: PodMade,
}

fn account(text: &str) -> ServiceAccount {
    ServiceAccount::of_username(&format!("system:serviceaccount:{text}")).unwrap()
}

impl Pods {
    /// `payments:api` is the application `pods`, `ops:rota` an operator.
    async fn start() -> Pods {
        let began = std::time::Instant::now();
        Pods::start_at(move || Now { running: began.elapsed(), wall: wall_now() }).await
    }

    async fn start_at(now: impl Fn() -> Now + Send + Sync + 'static) -> Pods {
        let cluster = Arc::new(MemoryCluster::new(AUDIENCE));
        let reviews = Arc::new(Reviews::new(cluster.clone(), AUDIENCE.to_owned(), now));
        let mut operators = operators();
        operators.push(Operator { identity: Identity::Kubernetes(account("ops:rota")), may: [Right::Status].into() });
        let it = start_changed(quick(), operators, None, |app| App { reviews: Some(reviews), ..app }).await;
        let mut all = applications();
        all.push(application("pods", Identity::Kubernetes(account("payments:api")), &["one"]));
        it.fake.set_policies(all);
        let pod = cluster.pod(&account("payments:api"), "api-0").await;
        Pods { it, cluster, pod }
    }

    fn issue(&self, of: &str, audience: &str, pod: Option<&PodMade>, seconds: i64) -> String {
        let account = account(of);
        let token = self.cluster.issue(&Wanted { account: &account, audience, pod }, wall_now().as_second() + seconds);
        token.expose_str().unwrap().to_owned()
    }

    fn token(&self) -> String {
        self.issue("payments:api", AUDIENCE, Some(&self.pod), 3_600)
    }
}

#[tokio::test]
async fn a_pod_reads_as_its_application_and_is_its_own_instance() {
    let pods = Pods::start().await;
    let token = pods.token();
    assert_eq!(pods.it.get(&token, "/v1/credentials/one").await.status, 200);
    let read = pods.it.fake.log().join("\n");
    assert!(read.contains("InstanceName(\"api-0\")") && read.contains(&pods.pod.uid), "{read}");
    assert_eq!(pods.it.call(&token, "GET /v1/credentials/one", "keywright-instance: api-0\r\n", "").await.status, 200);
    for other in ["api-1", "default"] {
        let header = format!("keywright-instance: {other}\r\n");
        pods.it.call(&token, "GET /v1/credentials/one", &header, "").await.refused(400, "bad-request");
        pods.it.call(&token, "GET /v1/events", &header, "").await.refused(400, "bad-request");
    }
    pods.it.get(&token, "/v1/credentials/two").await.refused(403, "forbidden");
    pods.it.get(&token, "/v1/status").await.refused(403, "forbidden");
    assert_eq!(pods.cluster.reviews(), 1, "the cluster was asked once");
}

#[tokio::test]
async fn a_confirmation_is_of_the_pod_by_its_name() {
    let pods = Pods::start().await;
    let token = pods.token();
    let body = |instance: &str| {
        let proof = "0".repeat(64);
        format!(r#"{{"credential":"one","version":"v1","instance":"{instance}","field":"client_secret","proof":"{proof}"}}"#)
    };
    assert_eq!(pods.it.send(&token, "POST /v1/confirmations", &body("api-0")).await.status, 204);
    pods.it.send(&token, "POST /v1/confirmations", &body("api-1")).await.refused(400, "bad-request");
}

#[tokio::test]
async fn an_operator_may_be_a_service_account() {
    let pods = Pods::start().await;
    let pod = pods.cluster.pod(&account("ops:rota"), "rota-0").await;
    let token = pods.issue("ops:rota", AUDIENCE, Some(&pod), 3_600);
    assert_eq!(pods.it.get(&token, "/v1/status").await.status, 200);
    pods.it.get(&token, "/v1/credentials/one").await.refused(403, "forbidden");
}

#[tokio::test]
async fn all_tokens_that_are_not_taken_are_answered_alike() {
    let pods = Pods::start().await;
    let elsewhere = pods.cluster.pod(&account("other:api"), "api-0").await;
    let gone = pods.cluster.pod(&account("payments:api"), "api-9").await;
    let of_gone = pods.issue("payments:api", AUDIENCE, Some(&gone), 3_600);
    pods.cluster.delete_pod(&account("payments:api"), &gone).await;
    let good = pods.token();
    let wrong = [
        "unknown".to_owned(),
        "a.b.c".to_owned(),
        pods.issue("payments:api", "https://kubernetes.default.svc", Some(&pods.pod), 3_600),
        pods.issue("payments:api", AUDIENCE, None, 3_600),
        pods.issue("payments:api", AUDIENCE, Some(&pods.pod), -1),
        pods.issue("other:api", AUDIENCE, Some(&elsewhere), 3_600),
        format!("{}x", &good),
        of_gone,
    ];
    let mut answers = std::collections::BTreeSet::new();
    for token in &wrong {
        let reply = pods.it.get(token, "/v1/credentials/one").await;
        reply.refused(401, "unauthenticated");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        answers.insert(reply.json()["detail"].to_string());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(pods.cluster.reviews(), 2, "the two that could have been ours");
}

#[tokio::test]
async fn static_tokens_work_beside_it_and_are_never_shown_to_the_cluster() {
    let pods = Pods::start().await;
    // Even one that looks like a token of a pod.
    let looks_alike = pods.token();
    let mut all = applications();
    all.push(application("looks", super::fake::token(&looks_alike), &["one"]));
    pods.it.fake.set_policies(all);
    for token in [APP, &looks_alike] {
        assert_eq!(pods.it.get(token, "/v1/credentials/one").await.status, 200);
    }
    assert_eq!(pods.cluster.reviews(), 0);
}

#[tokio::test]
async fn while_the_cluster_is_away_those_it_knew_go_on_and_others_are_told_to_wait() {
    let pods = Pods::start().await;
    let (known, new) = (pods.token(), pods.token());
    assert_eq!(pods.it.get(&known, "/v1/credentials/one").await.status, 200);
    for (fault, status, slug) in
        [(ReviewError::Unavailable, 503, "not-ready"), (ReviewError::Forbidden, 503, "not-ready"), (ReviewError::TooMany, 429, "too-many")]
    {
        pods.cluster.fail_reviews(Some(fault));
        assert_eq!(pods.it.get(&known, "/v1/credentials/one").await.status, 200);
        let reply = pods.it.get(&pods.token(), "/v1/credentials/one").await;
        reply.refused(status, slug);
    }
    pods.it.get(APP, "/v1/credentials/one").await;
    pods.cluster.fail_reviews(None);
    assert_eq!(pods.it.get(&new, "/v1/credentials/one").await.status, 200);
}

#[tokio::test]
async fn a_flood_of_wrong_tokens_is_held_back() {
    // All in one moment, however slow the machine is.
    let pods = Pods::start_at(|| Now { running: Duration::ZERO, wall: wall_now() }).await;
    let good = pods.token();
    assert_eq!(pods.it.get(&good, "/v1/credentials/one").await.status, 200);
    let (body, _) = good.rsplit_once('.').unwrap();
    let mut held_back = 0;
    for number in 0..120 {
        let reply = pods.it.get(&format!("{body}.wrong{number}"), "/v1/credentials/one").await;
        match reply.status {
            401 => {}
            429 => {
                assert_eq!(reply.header("retry-after"), Some("1"));
                held_back += 1;
            }
            _ => panic!("{reply:?}"),
        }
    }
    assert!(held_back > 0 && pods.cluster.reviews() < 120, "{held_back}, {}", pods.cluster.reviews());
    assert_eq!(pods.it.get(&good, "/v1/credentials/one").await.status, 200);
}

#[tokio::test]
async fn a_stream_ends_when_the_token_does() {
    let pods = Pods::start().await;
    let token = pods.issue("payments:api", AUDIENCE, Some(&pods.pod), 3);
    let mut stream = pods.it.tcp().await;
    stream.write_all(request(&token, "GET /v1/events", "", "").as_bytes()).await.unwrap();
    let mut text = String::new();
    let ended = timeout(Duration::from_secs(20), async {
        let mut bytes = [0; 4096];
        while !text.ends_with("\r\n0\r\n\r\n") {
            let count = stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "cut off: {text}");
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    });
    ended.await.expect("it ends");
    assert!(text.contains("event: credential") && !text.contains("event: bye"), "{text}");
    pods.it.get(&token, "/v1/credentials/one").await.refused(401, "unauthenticated");
}
