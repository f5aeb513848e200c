//! What every reviewer of tokens and every list of pods must do. An implementation's test is one call of [`contract`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failed unwrap here is a failed test of the implementation"
)]

use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Pods, TokenReviewer, Verdict};
use crate::domain::ids::Name;
use crate::domain::material::Secret;
use crate::domain::workload::ServiceAccount;

/// A server may remember for a while what it accepted, and pods take their time to end.
const SOON: Duration = Duration::from_secs(60);

/// A pod as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodMade {
    pub name: String,
    pub uid: String,
}

/// A token to be issued.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub account: &'a ServiceAccount,
    pub audience: &'a str,
    /// What it is bound to.
    pub pod: Option<&'a PodMade>,
}

/// What the suite does in a cluster. Both namespaces are there and are the suite's own.
#[async_trait]
pub trait Playground: Send + Sync {
    async fn account(&self, account: &ServiceAccount);
    async fn delete_account(&self, account: &ServiceAccount);
    /// It needn't run.
    async fn pod(&self, account: &ServiceAccount, name: &str) -> PodMade;
    /// All its containers have ended. False where that can't be played.
    async fn end_pod(&self, account: &ServiceAccount, pod: &PodMade) -> bool;
    async fn delete_pod(&self, account: &ServiceAccount, pod: &PodMade);
    async fn token(&self, wanted: &Wanted<'_>) -> Secret;
}

/// What is tried: both seams, of one cluster.
#[derive(Clone, Copy)]
pub struct Tried<'a> {
    pub playground: &'a dyn Playground,
    pub reviewer: &'a dyn TokenReviewer,
    pub pods: &'a dyn Pods,
    /// What the reviewer asks for.
    pub audience: &'a str,
    pub namespaces: [&'a Name; 2],
}

impl std::fmt::Debug for Tried<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tried").field("namespaces", &self.namespaces).finish_non_exhaustive()
    }
}

/// Runs the whole suite.
///
/// # Panics
/// Where one of the two doesn't keep the contract.
pub async fn contract(tried: Tried<'_>) {
    a_pod_is_known_by_its_token(&tried).await;
    tokens_for_others_are_refused(&tried).await;
    a_pod_that_is_gone_takes_its_token_along(&tried).await;
    an_account_made_anew_is_another_one(&tried).await;
    pods_are_listed_by_namespace(&tried).await;
    many_pods_are_listed_whole(&tried).await;
}

fn account(namespace: &Name, name: &str) -> ServiceAccount {
    ServiceAccount { namespace: namespace.clone(), name: name.parse().unwrap() }
}

impl Tried<'_> {
    async fn verdict(&self, token: &Secret) -> Verdict {
        self.reviewer.review(token).await.unwrap()
    }

    async fn comes_to_refuse(&self, token: &Secret) {
        let began = Instant::now();
        while self.verdict(token).await != Verdict::Refused {
            assert!(began.elapsed() < SOON, "it is still accepted");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

async fn a_pod_is_known_by_its_token(it: &Tried<'_>) {
    for namespace in it.namespaces {
        let account = account(namespace, "api");
        it.playground.account(&account).await;
        let pod = it.playground.pod(&account, "api-0").await;
        let token = it.playground.token(&Wanted { account: &account, audience: it.audience, pod: Some(&pod) }).await;
        let Verdict::Accepted(workload) = it.verdict(&token).await else { panic!("refused in {namespace}") };
        assert_eq!((&workload.account, workload.pod.as_str(), workload.pod_uid.as_str()), (&account, "api-0", pod.uid.as_str()));
        let again = it.verdict(&token).await;
        assert_eq!(again, Verdict::Accepted(workload), "asked twice, it says the same");
    }
}

async fn tokens_for_others_are_refused(it: &Tried<'_>) {
    let account = account(it.namespaces[0], "others");
    it.playground.account(&account).await;
    let pod = it.playground.pod(&account, "others-0").await;
    let foreign = it.playground.token(&Wanted { account: &account, audience: "somebody-else", pod: Some(&pod) }).await;
    assert_eq!(it.verdict(&foreign).await, Verdict::Refused, "another audience");
    let unbound = it.playground.token(&Wanted { account: &account, audience: it.audience, pod: None }).await;
    assert_eq!(it.verdict(&unbound).await, Verdict::Refused, "of no pod");
    let good = it.playground.token(&Wanted { account: &account, audience: it.audience, pod: Some(&pod) }).await;
    let text = good.expose_str().unwrap();
    let (body, _) = text.rsplit_once('.').unwrap();
    for wrong in [format!("{body}.c2lnbmVkIGJ5IG5vYm9keQ"), format!("{text}x"), "e30.e30.e30".to_owned(), "static".to_owned()] {
        assert_eq!(it.verdict(&Secret::from(wrong)).await, Verdict::Refused);
    }
    assert_eq!(it.verdict(&Secret::new(&b"\xff\xfe"[..])).await, Verdict::Refused, "no text");
}

async fn a_pod_that_is_gone_takes_its_token_along(it: &Tried<'_>) {
    let account = account(it.namespaces[0], "gone");
    it.playground.account(&account).await;
    let pod = it.playground.pod(&account, "gone-0").await;
    let token = it.playground.token(&Wanted { account: &account, audience: it.audience, pod: Some(&pod) }).await;
    assert!(matches!(it.verdict(&token).await, Verdict::Accepted(_)));
    it.playground.delete_pod(&account, &pod).await;
    it.comes_to_refuse(&token).await;
    // The name comes back with another uid: the old token doesn't.
    let anew = it.playground.pod(&account, "gone-0").await;
    assert_ne!(anew.uid, pod.uid);
    assert_eq!(it.verdict(&token).await, Verdict::Refused);
    let token = it.playground.token(&Wanted { account: &account, audience: it.audience, pod: Some(&anew) }).await;
    let Verdict::Accepted(workload) = it.verdict(&token).await else { panic!("the new pod is refused") };
    assert_eq!(workload.pod_uid.as_str(), anew.uid);
}

async fn an_account_made_anew_is_another_one(it: &Tried<'_>) {
    let account = account(it.namespaces[0], "anew");
    it.playground.account(&account).await;
    let pod = it.playground.pod(&account, "anew-0").await;
    let token = it.playground.token(&Wanted { account: &account, audience: it.audience, pod: Some(&pod) }).await;
    let Verdict::Accepted(first) = it.verdict(&token).await else { panic!("refused") };
    it.playground.delete_account(&account).await;
    it.comes_to_refuse(&token).await;
    it.playground.account(&account).await;
    assert_eq!(it.verdict(&token).await, Verdict::Refused, "the uid is another one");
    let token = it.playground.token(&Wanted { account: &account, audience: it.audience, pod: Some(&pod) }).await;
    let Verdict::Accepted(second) = it.verdict(&token).await else { panic!("refused") };
    assert_ne!(first.account_uid, second.account_uid);
}

async fn pods_are_listed_by_namespace(it: &Tried<'_>) {
    let [here, there] = it.namespaces;
    let lister = account(here, "lister");
    let elsewhere = account(there, "lister");
    for account in [&lister, &elsewhere] {
        it.playground.account(account).await;
    }
    let (mine, theirs) = (it.playground.pod(&lister, "lister-0").await, it.playground.pod(&elsewhere, "lister-0").await);
    let has = async |namespace: &Name, pod: &PodMade| it.pods.living(namespace).await.unwrap().contains(&pod.uid.parse().unwrap());
    assert!(has(here, &mine).await && has(there, &theirs).await);
    assert!(!has(here, &theirs).await && !has(there, &mine).await);
    if it.playground.end_pod(&elsewhere, &theirs).await {
        assert!(!has(there, &theirs).await, "it has ended");
    }
    it.playground.delete_pod(&lister, &mine).await;
    let began = Instant::now();
    while has(here, &mine).await {
        assert!(began.elapsed() < SOON, "it is still listed");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// More than fit on a small page, so that a part is never taken for the whole.
async fn many_pods_are_listed_whole(it: &Tried<'_>) {
    let account = account(it.namespaces[1], "many");
    it.playground.account(&account).await;
    let mut made = std::collections::BTreeSet::new();
    for number in 0..20 {
        made.insert(it.playground.pod(&account, &format!("many-{number}")).await.uid.parse().unwrap());
    }
    let living = it.pods.living(it.namespaces[1]).await.unwrap();
    assert!(made.is_subset(&living), "{} of {} are missing", made.difference(&living).count(), made.len());
}
