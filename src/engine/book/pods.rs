//! Pods in the book: by which of them anything is held, here and at other replicas, and what is free once one is gone.

use std::collections::BTreeSet;

use super::{Book, Pages};
use crate::domain::holders::PodKey;
use crate::domain::ids::ObjectUid;
use crate::domain::replicas;
use crate::engine::pods::BoundPod;
use crate::journal::HoldingChange;

impl Book {
    /// The pods that anybody holds anything by.
    pub(in crate::engine) fn bound(&self) -> BTreeSet<BoundPod> {
        let pages = self.pages();
        let mut bound: BTreeSet<BoundPod> = pages.elsewhere.bound().collect();
        for ((application, instance), entry) in &pages.instances {
            for (uid, hold) in entry.holdings.values().flat_map(|known| &known.holding.pods) {
                let pod = PodKey { namespace: hold.namespace.clone(), uid: uid.clone() };
                bound.insert(BoundPod { application: application.clone(), instance: instance.clone(), pod });
            }
        }
        bound
    }

    /// A pod is gone: what it alone held here is free. What has to become durable, and of which credentials; an instance that holds
    /// nothing any more is no holder of them.
    pub(in crate::engine) fn forget_pod(&self, gone: &BoundPod) -> Vec<HoldingChange> {
        self.pages().forget_pod(&(gone.application.clone(), gone.instance.clone()), &gone.pod.uid)
    }
}

impl Pages {
    pub(super) fn forget_pod(&mut self, key: &replicas::Instance, uid: &ObjectUid) -> Vec<HoldingChange> {
        let Some(entry) = self.instances.get_mut(key) else { return Vec::new() };
        let mut changes = Vec::new();
        for (credential, known) in &mut entry.holdings {
            if known.holding.forget_pod(uid) {
                let held = &known.holding.held;
                known.recorded.retain(|version| held.contains(version));
                known.serials.retain(|version, _| held.contains(version));
                changes.push(match held.is_empty() {
                    false => HoldingChange::Put(known.holding.clone()),
                    true => HoldingChange::Remove { application: key.0.clone(), instance: key.1.clone(), credential: credential.clone() },
                });
            }
        }
        entry.holdings.retain(|_, known| !known.holding.held.is_empty());
        let is_over = entry.holdings.is_empty() && entry.streams == 0;
        for change in changes.iter().filter(|change| matches!(change, HoldingChange::Remove { .. })) {
            self.strike_holder(change.credential(), key);
        }
        if is_over {
            self.instances.remove(key);
        }
        if !changes.is_empty() {
            self.soil(&key.0, &key.1);
        }
        changes
    }
}
