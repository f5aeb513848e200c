//! Pods that are gone: what only they held is free.

use super::Engine;
use super::audit::{Action, Actor};
use super::book::Expired;
use crate::domain::holders::PodKey;
use crate::domain::ids::{InstanceName, Name};
use crate::journal::HoldingChange;

/// A pod by which an instance holds something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoundPod {
    pub application: Name,
    pub instance: InstanceName,
    pub pod: PodKey,
}

impl Engine {
    /// The pods that instances hold anything by. To be asked for *before* the cluster is asked which pods there are: a pod that came
    /// in between isn't missing then.
    pub fn bound_pods(&self) -> Vec<BoundPod> {
        self.book.bound().into_iter().collect()
    }

    /// Frees what these pods alone held. Each of them is gone for good: its uid never comes back. False if some of it couldn't be
    /// recorded, and nothing was freed by that one: it is to be told again.
    pub async fn forget_pods(&self, gone: &[BoundPod]) -> bool {
        let mut all = true;
        for pod in gone {
            all &= self.forget_pod(pod).await;
        }
        all
    }

    async fn forget_pod(&self, gone: &BoundPod) -> bool {
        let BoundPod { application, instance, pod } = gone;
        let detail = format!("{application}/{instance}: pod uid {} of namespace {}", pod.uid, pod.namespace);
        let action = Action { actor: Actor::Daemon, action: "pod-gone".to_owned(), credential: None, version: None, detail: Some(detail) };
        if self.seams.audit.record(self.seams.clock.now().wall, action).await.is_err() {
            return false;
        }
        // The book first, as with leases: who is served in between is recorded anew, after this.
        let changes = self.book.forget_pod(gone);
        tracing::info!(application = %application, instance = %instance, "its pod is gone");
        let credentials: Vec<Name> = changes.iter().map(HoldingChange::credential).cloned().collect();
        if !changes.is_empty() && self.write_holdings(changes).await.is_err() {
            // It comes back at the next start, with the pod's uid: late, never wrong.
            tracing::warn!(application = %application, "the end of a pod couldn't be written");
        }
        self.restore_returned(&Expired { application: application.clone(), instance: instance.clone(), credentials: credentials.clone() })
            .await;
        credentials.iter().for_each(|credential| self.look_at(credential));
        true
    }
}
