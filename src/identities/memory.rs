//! A cluster in memory, with faults: it issues tokens, reviews them, and knows its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::contract::{Playground, PodMade, Wanted};
use super::{Answer, Pods, PodsError, ReviewError, TokenReviewer, Verdict, judge};
use crate::domain::ids::{Name, ObjectUid};
use crate::domain::material::Secret;
use crate::domain::workload::ServiceAccount;

/// One audience is asked for, as each reviewer does.
#[derive(Debug)]
pub struct MemoryCluster {
    audience: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    made: u64,
    accounts: BTreeMap<ServiceAccount, String>,
    /// Uid to (account, name, whether it has ended).
    pods: BTreeMap<String, (ServiceAccount, String, bool)>,
    /// Token to what it was issued for.
    tokens: BTreeMap<Vec<u8>, Issued>,
    reviews: usize,
    review_fault: Option<ReviewError>,
    pods_fault: Option<PodsError>,
}

#[derive(Debug, Clone)]
struct Issued {
    account: ServiceAccount,
    account_uid: String,
    audience: String,
    pod: Option<PodMade>,
}

impl State {
    fn uid(&mut self) -> String {
        self.made += 1;
        format!("00000000-0000-4000-8000-{:012}", self.made)
    }
}

impl MemoryCluster {
    pub fn new(audience: &str) -> MemoryCluster {
        MemoryCluster { audience: audience.to_owned(), state: Mutex::default() }
    }

    /// From now on nothing is said of tokens, or it is again.
    pub fn fail_reviews(&self, fault: Option<ReviewError>) {
        self.state().review_fault = fault;
    }

    /// From now on nothing is said of pods, or it is again.
    pub fn fail_pods(&self, fault: Option<PodsError>) {
        self.state().pods_fault = fault;
    }

    /// How often it was asked about tokens, faults included.
    pub fn reviews(&self) -> usize {
        self.state().reviews
    }

    /// A token whose claims end at this second; whether it is taken is told by its account and pod alone.
    pub fn issue(&self, wanted: &Wanted<'_>, expires: i64) -> Secret {
        let mut state = self.state();
        let number = state.uid();
        let account_uid = match state.accounts.get(wanted.account) {
            Some(uid) => uid.clone(),
            None => {
                let uid = state.uid();
                state.accounts.insert(wanted.account.clone(), uid.clone());
                uid
            }
        };
        let account = wanted.account;
        let pod = wanted.pod.map(|pod| json!({"name": pod.name, "uid": pod.uid}));
        let claims = json!({
            "aud": [wanted.audience], "exp": expires, "jti": number, "sub": format!("system:serviceaccount:{}:{}", account.namespace, account.name),
            "kubernetes.io": {"namespace": account.namespace, "pod": pod, "serviceaccount": {"name": account.name, "uid": account_uid}},
        });
        let token = format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let issued = Issued { account: account.clone(), account_uid, audience: wanted.audience.to_owned(), pod: wanted.pod.cloned() };
        state.tokens.insert(token.as_bytes().to_vec(), issued);
        Secret::from(token)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TokenReviewer for MemoryCluster {
    async fn review(&self, token: &Secret) -> Result<Verdict, ReviewError> {
        let mut state = self.state();
        state.reviews += 1;
        if let Some(fault) = state.review_fault {
            return Err(fault);
        }
        let Some(issued) = state.tokens.get(token.expose()) else { return Ok(Verdict::Refused) };
        let is_there = |pod: &PodMade| state.pods.contains_key(&pod.uid);
        let authenticated = state.accounts.get(&issued.account) == Some(&issued.account_uid) && issued.pod.as_ref().is_none_or(is_there);
        let pod = |pod: &PodMade| {
            let of_pod = [("pod-name", &pod.name), ("pod-uid", &pod.uid)];
            of_pod.map(|(key, value)| (format!("authentication.kubernetes.io/{key}"), vec![value.clone()])).into_iter().collect()
        };
        let answer = Answer {
            authenticated,
            audiences: [&issued.audience].into_iter().filter(|audience| **audience == self.audience).cloned().collect(),
            username: format!("system:serviceaccount:{}:{}", issued.account.namespace, issued.account.name),
            uid: issued.account_uid.clone(),
            extra: issued.pod.as_ref().map(pod).unwrap_or_default(),
        };
        Ok(judge(&answer, &self.audience))
    }
}

#[async_trait]
impl Pods for MemoryCluster {
    async fn living(&self, namespace: &Name) -> Result<BTreeSet<ObjectUid>, PodsError> {
        let state = self.state();
        if let Some(fault) = state.pods_fault {
            return Err(fault);
        }
        let living = state.pods.iter().filter(|(_, (account, _, ended))| account.namespace == *namespace && !ended);
        Ok(living.filter_map(|(uid, _)| uid.parse().ok()).collect())
    }
}

#[async_trait]
impl Playground for MemoryCluster {
    async fn account(&self, account: &ServiceAccount) {
        let mut state = self.state();
        let uid = state.uid();
        state.accounts.insert(account.clone(), uid);
    }

    async fn delete_account(&self, account: &ServiceAccount) {
        self.state().accounts.remove(account);
    }

    async fn pod(&self, account: &ServiceAccount, name: &str) -> PodMade {
        let mut state = self.state();
        let uid = state.uid();
        state.pods.insert(uid.clone(), (account.clone(), name.to_owned(), false));
        PodMade { name: name.to_owned(), uid }
    }

    async fn end_pod(&self, _account: &ServiceAccount, pod: &PodMade) -> bool {
        if let Some((_, _, ended)) = self.state().pods.get_mut(&pod.uid) {
            *ended = true;
        }
        true
    }

    async fn delete_pod(&self, _account: &ServiceAccount, pod: &PodMade) {
        self.state().pods.remove(&pod.uid);
    }

    async fn token(&self, wanted: &Wanted<'_>) -> Secret {
        self.issue(wanted, 4_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identities::contract::{Tried, contract};

    #[tokio::test]
    async fn the_memory_cluster_keeps_the_contract() {
        let cluster = MemoryCluster::new("keywright");
        let [here, there]: [Name; 2] = ["here", "there"].map(|name| name.parse().unwrap());
        let tried = Tried { playground: &cluster, reviewer: &cluster, pods: &cluster, audience: "keywright", namespaces: [&here, &there] };
        contract(tried).await;
    }

    #[tokio::test]
    async fn the_memory_cluster_fails_where_it_is_told_to() {
        let cluster = MemoryCluster::new("keywright");
        cluster.fail_reviews(Some(ReviewError::TooMany));
        cluster.fail_pods(Some(PodsError::Forbidden));
        let token = Secret::from("x".to_owned());
        assert_eq!(cluster.review(&token).await, Err(ReviewError::TooMany));
        assert_eq!(cluster.living(&"here".parse().unwrap()).await, Err(PodsError::Forbidden));
        cluster.fail_reviews(None);
        assert_eq!((cluster.review(&token).await, cluster.reviews()), (Ok(Verdict::Refused), 2));
    }
}
