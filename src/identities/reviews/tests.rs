//! What is asked of the cluster, how often, and what is believed while it doesn't answer.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;

use super::super::kept::FRESH;
use super::*;
use crate::identities::contract::{Playground, PodMade, Wanted};
use crate::identities::memory::MemoryCluster;

const AUDIENCE: &str = "keywright";
/// Second that the wall clock shows at first; tokens end an hour later.
const BEGAN: i64 = 1_000_000;
const END: i64 = BEGAN + 3_600;

/// A token of some pod that ends at this second.
pub(in crate::identities) fn shown(expires: i64) -> Shown {
    let workload = Workload {
        account: account(),
        account_uid: "a1".parse().unwrap(),
        pod: "api-0".parse().unwrap(),
        pod_uid: "5c0e".parse().unwrap(),
    };
    Shown { workload, expires: Timestamp::from_second(expires).unwrap() }
}

fn account() -> ServiceAccount {
    ServiceAccount::of_username("system:serviceaccount:payments:payments-api").unwrap()
}

struct Scene {
    cluster: Arc<MemoryCluster>,
    reviews: Arc<Reviews>,
    pod: PodMade,
    /// Seconds that have passed.
    passed: Arc<AtomicU64>,
}

impl Scene {
    /// Time stands until a test moves it. Streams look again at once.
    async fn new() -> Scene {
        let (cluster, passed) = (Arc::new(MemoryCluster::new(AUDIENCE)), Arc::new(AtomicU64::new(0)));
        let clock = Arc::clone(&passed);
        let now = move || {
            let seconds = clock.load(Ordering::SeqCst);
            Now { running: Duration::from_secs(seconds), wall: Timestamp::from_second(BEGAN + i64::try_from(seconds).unwrap()).unwrap() }
        };
        let reviews = Reviews::new(cluster.clone(), AUDIENCE.to_owned(), now);
        let reviews = Arc::new(Reviews { stream_again: Duration::from_millis(5), ..reviews });
        let pod = cluster.pod(&account(), "api-0").await;
        Scene { cluster, reviews, pod, passed }
    }

    fn pass(&self, seconds: u64) {
        self.passed.fetch_add(seconds, Ordering::SeqCst);
    }

    /// What an open stream waits for.
    async fn stream(&self, token: Secret) -> BoxFuture<'static, ()> {
        let shown = self.check(&token).await.unwrap();
        Box::pin(self.reviews.over(token, shown.expires))
    }

    fn token(&self) -> Secret {
        self.issue(AUDIENCE, Some(&self.pod), END)
    }

    fn issue(&self, audience: &str, pod: Option<&PodMade>, expires: i64) -> Secret {
        self.cluster.issue(&Wanted { account: &account(), audience, pod }, expires)
    }

    async fn check(&self, token: &Secret) -> Result<Shown, Unshown> {
        self.reviews.check(token.expose(), |known| *known == account()).await
    }
}

/// Whether it goes on, after many looks.
async fn goes_on(over: &mut BoxFuture<'static, ()>) -> bool {
    timeout(Duration::from_millis(200), over).await.is_err()
}

async fn ends(over: BoxFuture<'static, ()>) {
    timeout(Duration::from_secs(30), over).await.expect("it ends");
}

#[tokio::test]
async fn many_calls_with_one_token_are_one_question() {
    let it = Scene::new().await;
    let token = it.token();
    let all = futures_util::future::join_all((0..100).map(|_| it.check(&token))).await;
    assert!(all.iter().all(|answer| answer.as_ref().is_ok_and(|shown| shown.workload.pod_uid.as_str() == it.pod.uid)));
    assert_eq!(it.cluster.reviews(), 1);
}

#[tokio::test]
async fn what_cannot_be_ours_is_never_shown_to_the_cluster() {
    let it = Scene::new().await;
    let other = ServiceAccount::of_username("system:serviceaccount:payments:other").unwrap();
    let others = it.cluster.issue(&Wanted { account: &other, audience: AUDIENCE, pod: Some(&it.pod) }, END);
    let refused = [
        Secret::from("static-token".to_owned()),
        Secret::from("a.b.c".to_owned()),
        it.issue("https://kubernetes.default.svc", Some(&it.pod), END),
        it.issue(AUDIENCE, None, END),
        it.issue(AUDIENCE, Some(&it.pod), BEGAN),
        others,
    ];
    for token in &refused {
        assert_eq!(it.check(token).await, Err(Unshown::Refused));
    }
    assert_eq!(it.cluster.reviews(), 0);
}

#[tokio::test]
async fn what_was_said_is_kept_for_seconds_and_no_longer() {
    let it = Scene::new().await;
    let token = it.token();
    for (wait, reviews) in [(0, 1), (9, 1), (2, 2)] {
        it.pass(wait);
        assert!(it.check(&token).await.is_ok());
        assert_eq!(it.cluster.reviews(), reviews);
    }
    it.cluster.delete_pod(&account(), &it.pod).await;
    it.pass(10);
    for (wait, reviews) in [(0, 3), (1, 3), (2, 4)] {
        it.pass(wait);
        assert_eq!(it.check(&token).await, Err(Unshown::Refused));
        assert_eq!(it.cluster.reviews(), reviews);
    }
}

#[tokio::test]
async fn who_was_accepted_goes_on_while_the_cluster_is_away_and_nobody_else_comes_in() {
    let it = Scene::new().await;
    let token = it.token();
    assert!(it.check(&token).await.is_ok());
    for fault in [ReviewError::Unavailable, ReviewError::TooMany, ReviewError::Forbidden] {
        it.cluster.fail_reviews(Some(fault));
        it.pass(100);
        assert!(it.check(&token).await.is_ok(), "{fault}");
        assert_eq!(it.reviews.trouble(), Some(fault));
        let new = it.token();
        let expected = if fault == ReviewError::TooMany { Unshown::TooMany } else { Unshown::Away };
        assert_eq!(it.check(&new).await, Err(expected), "{fault}");
    }
    it.pass(300);
    assert_eq!(it.check(&token).await, Err(Unshown::Away), "ten minutes are over");
    it.cluster.fail_reviews(None);
    it.pass(1);
    assert!(it.check(&token).await.is_ok());
    assert_eq!(it.reviews.trouble(), None);
    let short = it.issue(AUDIENCE, Some(&it.pod), BEGAN + 900);
    assert!(it.check(&short).await.is_ok());
    it.cluster.fail_reviews(Some(ReviewError::Unavailable));
    it.pass(400);
    assert_eq!(it.check(&short).await, Err(Unshown::Refused), "it is over, whoever is away");
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_not_asked_by_each_of_many() {
    let it = Scene::new().await;
    it.cluster.fail_reviews(Some(ReviewError::Unavailable));
    let token = it.token();
    let all = futures_util::future::join_all((0..100).map(|_| it.check(&token))).await;
    assert!(all.iter().all(|answer| *answer == Err(Unshown::Away)));
    assert_eq!(it.cluster.reviews(), 1);
}

#[tokio::test]
async fn a_flood_of_wrong_tokens_costs_little_and_hinders_nobody_who_is_known() {
    let it = Scene::new().await;
    let token = it.token();
    assert!(it.check(&token).await.is_ok());
    let text = it.issue(AUDIENCE, Some(&it.pod), END);
    let (body, _) = text.expose_str().unwrap().rsplit_once('.').unwrap();
    let mut told = BTreeMap::new();
    for number in 0..5_000 {
        let wrong = Secret::from(format!("{body}.{number}"));
        *told.entry(format!("{:?}", it.check(&wrong).await.unwrap_err())).or_insert(0) += 1;
    }
    assert!(it.cluster.reviews() <= 51, "{} questions", it.cluster.reviews());
    assert!(told["TooMany"] > 4_900 && told["Refused"] > 0, "{told:?}");
    // Its turn to be looked at again comes in the middle of the flood.
    it.pass(11);
    for number in 0..300 {
        let _told = it.check(&Secret::from(format!("{body}.x{number}"))).await;
    }
    assert!(it.check(&token).await.is_ok());
    it.cluster.delete_pod(&account(), &it.pod).await;
    it.pass(11);
    assert_eq!(it.check(&token).await, Err(Unshown::Refused));
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let it = Scene::new().await;
    let mut over = it.stream(it.issue(AUDIENCE, Some(&it.pod), BEGAN + 100)).await;
    it.pass(99);
    assert!(goes_on(&mut over).await);
    it.pass(1);
    ends(over).await;
}

#[tokio::test]
async fn a_stream_ends_within_a_minute_of_the_end_of_its_pod() {
    let it = Scene::new().await;
    let mut over = it.stream(it.token()).await;
    it.pass(200);
    assert!(goes_on(&mut over).await, "nothing has happened");
    it.cluster.delete_pod(&account(), &it.pod).await;
    it.pass(FRESH.as_secs());
    ends(over).await;
    let longest = STREAM_AGAIN * 3 / 2 + FRESH + REVIEW_TIME;
    assert!(longest <= Duration::from_secs(60), "it is looked at in time, also where somebody else asked just before");
}

#[tokio::test]
async fn a_stream_outlives_a_cluster_that_is_away_for_minutes() {
    let it = Scene::new().await;
    let mut over = it.stream(it.token()).await;
    it.cluster.fail_reviews(Some(ReviewError::Unavailable));
    for _ in 0..5 {
        it.pass(119);
        assert!(goes_on(&mut over).await);
    }
    it.pass(5);
    ends(over).await;
}
