//! Pods as callers: what asks the cluster who they are, and what frees the instances of those that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::domain::access::Identity;
use crate::domain::ids::Name;
use crate::engine::{BoundPod, Engine};
use crate::identities::kubernetes::{ClusterPods, ClusterReviewer};
use crate::identities::{Now, Pods, PodsError, Reviews};
use crate::runtime::clock::wall_now;
use crate::runtime::config::Config;
use crate::runtime::shutdown::Shutdown;

use super::daemon::cannot_start;
use super::failure::Failure;

/// How often pods are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The cluster that knows our callers.
pub(super) struct KnownPods {
    pods: Arc<dyn Pods>,
    reviews: Arc<Reviews>,
}

impl KnownPods {
    /// `None` where the configuration names no audience. Makes no call: a cluster that is away keeps no daemon from starting.
    ///
    /// # Errors
    /// Where it isn't known how to reach the cluster.
    pub(super) fn open(config: &Config) -> Result<Option<KnownPods>, Failure> {
        let Some(identities) = &config.identities else { return Ok(None) };
        let cluster =
            Cluster::connect(&config.cluster).map_err(|error| cannot_start("the cluster of the pods can't be reached", &error))?;
        let audience = identities.audience.clone();
        let reviewer = Arc::new(ClusterReviewer::new(cluster.clone(), audience.clone()));
        let began = Instant::now();
        let now = move || Now { running: began.elapsed(), wall: wall_now() };
        let reviews = Arc::new(Reviews::new(reviewer, audience, now));
        Ok(Some(KnownPods { pods: Arc::new(ClusterPods::new(cluster)), reviews }))
    }

    pub(super) fn reviews(&self) -> Arc<Reviews> {
        Arc::clone(&self.reviews)
    }

    /// Frees, again and again, what only pods held that are gone. Of several replicas, one does it.
    pub(super) async fn follow(self, engine: Arc<Engine>, shutdown: Shutdown) {
        loop {
            let look = async {
                let problem = look(&engine, self.pods.as_ref()).await;
                engine.set_problem("pods-unknown", problem);
                engine.set_problem("tokens-unreviewed", self.reviews.trouble().map(|trouble| trouble.to_string()));
                tokio::time::sleep(LOOK_EVERY).await;
            };
            tokio::select! {
                () = shutdown.begun() => return,
                () = look => {}
            }
        }
    }
}

/// Looks for the pods of all that is held, and of all documents, so that a right that is missing is told before it is missed. What
/// can't be looked at frees nobody, and is told.
async fn look(engine: &Engine, pods: &dyn Pods) -> Option<String> {
    // Before the cluster is asked: a pod that comes meanwhile isn't missing.
    let bound = engine.bound_pods();
    let mut namespaces: BTreeMap<Name, Vec<BoundPod>> = BTreeMap::new();
    for application in engine.policies().applications.values() {
        if let Identity::Kubernetes(account) = &application.identity {
            namespaces.entry(account.namespace.clone()).or_default();
        }
    }
    for pod in bound {
        namespaces.entry(pod.pod.namespace.clone()).or_default().push(pod);
    }
    let (mut forbidden, mut unseen) = (BTreeSet::new(), BTreeSet::new());
    for (namespace, bound) in namespaces {
        match pods.living(&namespace).await {
            Ok(living) => {
                let gone: Vec<BoundPod> = bound.into_iter().filter(|bound| !living.contains(&bound.pod.uid)).collect();
                // What can't be recorded now is looked at again.
                let _all = engine.forget_pods(&gone).await;
            }
            Err(PodsError::Forbidden) => drop(forbidden.insert(namespace)),
            Err(PodsError::Unavailable) => drop(unseen.insert(namespace)),
        }
    }
    told(&forbidden, &unseen)
}

fn told(forbidden: &BTreeSet<Name>, unseen: &BTreeSet<Name>) -> Option<String> {
    let listed = |names: &BTreeSet<Name>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    if !forbidden.is_empty() {
        parts.push(format!("our account may not list pods in {}: give it the right there", listed(forbidden)));
    }
    if !unseen.is_empty() {
        parts.push(format!("the cluster can't be asked which pods there are in {}", listed(unseen)));
    }
    let what = "; until then, pods that are gone there free nothing by themselves";
    (!parts.is_empty()).then(|| parts.join("; ") + what)
}
