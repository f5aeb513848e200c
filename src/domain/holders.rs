//! Who holds what, and the barrier before a revocation. Unknown use counts as use (I5).

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{InstanceName, Name, ObjectUid, VersionId};
use super::mutants::{Mutant, is_on};
use super::policy::Confirmation;

/// What one instance was served of one credential, and what it confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub application: Name,
    pub instance: InstanceName,
    pub credential: Name,
    /// Versions that it was served and hasn't replaced by a confirmed newer one.
    pub held: BTreeSet<VersionId>,
    pub newest: VersionId,
    pub confirmed: Option<VersionId>,
    /// The pods that versions went to, by uid: what a pod alone holds is free once that pod is gone. What is held and stands under
    /// no pod was served to somebody who isn't known to be one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pods: BTreeMap<ObjectUid, PodHold>,
}

/// What went to one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodHold {
    /// Where the pod is to be looked for, whatever the documents say by then.
    pub namespace: Name,
    pub held: BTreeSet<VersionId>,
}

/// A pod that is served: its namespace and its uid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    pub namespace: Name,
    pub uid: ObjectUid,
}

/// How an instance stands to the current version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HoldingState {
    /// It has an older version only.
    Holds,
    /// It was served the current version and hasn't confirmed it.
    Served,
    Confirmed,
}

/// Why a confirmation is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the version isn't the newest that this instance was served")]
pub struct NotNewest;

/// What keeps an old key alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Blocker {
    pub application: Name,
    /// `None`: the application was never seen at all.
    pub instance: Option<InstanceName>,
}

impl Holding {
    pub fn first(application: Name, instance: InstanceName, credential: Name, version: VersionId) -> Holding {
        let held = BTreeSet::from([version.clone()]);
        Holding { application, instance, credential, held, newest: version, confirmed: None, pods: BTreeMap::new() }
    }

    /// As [`Holding::first`], before anything was served: [`Holding::serve_to`] says what.
    pub fn none_yet(application: Name, instance: InstanceName, credential: Name, version: VersionId) -> Holding {
        Holding { held: BTreeSet::new(), ..Holding::first(application, instance, credential, version) }
    }

    /// The instance was served a version: it holds this one too from now on.
    pub fn serve(&mut self, version: &VersionId) {
        if self.newest != *version {
            self.newest = version.clone();
        }
        self.held.insert(version.clone());
    }

    /// As [`Holding::serve`], to this pod, or to somebody who isn't known to be one: that counts as unknown use, which no pod's end frees.
    pub fn serve_to(&mut self, version: &VersionId, pod: Option<&PodKey>) {
        let unbound = self.held.contains(version) && !self.is_bound(version);
        self.serve(version);
        match pod {
            Some(pod) if !unbound => {
                let hold = PodHold { namespace: pod.namespace.clone(), held: BTreeSet::new() };
                self.pods.entry(pod.uid.clone()).or_insert(hold).held.insert(version.clone());
            }
            Some(_) => {}
            None => self.unbind(|bound| bound != version),
        }
    }

    /// Whether serving this version to this pod changes nothing of what is held.
    pub fn knows(&self, version: &VersionId, pod: Option<&PodKey>) -> bool {
        let has_it = |pod: &PodKey| self.pods.get(&pod.uid).is_some_and(|hold| hold.held.contains(version));
        self.held.contains(version) && (!self.is_bound(version) || pod.is_some_and(has_it))
    }

    /// Whether only pods hold this version.
    fn is_bound(&self, version: &VersionId) -> bool {
        self.pods.values().any(|hold| hold.held.contains(version))
    }

    fn unbind(&mut self, keep: impl Fn(&VersionId) -> bool) {
        for hold in self.pods.values_mut() {
            hold.held.retain(|version| keep(version));
        }
        self.pods.retain(|_, hold| !hold.held.is_empty());
    }

    /// A pod is gone, and what it alone held is free. False if it held nothing here.
    pub fn forget_pod(&mut self, uid: &ObjectUid) -> bool {
        let Some(gone) = self.pods.remove(uid) else { return false };
        for version in &gone.held {
            if !self.is_bound(version) {
                self.held.remove(version);
            }
        }
        // Who was served the newest is gone: those who are left have seen an older one.
        if let Some(left) = self.held.last().filter(|_| !self.held.contains(&self.newest)) {
            self.newest = left.clone();
            self.confirmed = self.confirmed.take().filter(|version| *version == self.newest);
        }
        true
    }

    /// Whether something was served since this was `written`. What a confirmation frees is no addition.
    pub fn was_served_since(&self, written: &Holding) -> bool {
        let by_pods = |holding: &Holding| -> BTreeSet<ObjectUid> {
            let has_newest = holding.pods.iter().filter(|(_, hold)| hold.held.contains(&self.newest));
            has_newest.map(|(uid, _)| uid.clone()).collect()
        };
        let newer = !self.held.is_subset(&written.held) && self.newest != written.newest;
        newer || !by_pods(self).is_subset(&by_pods(written)) || (self.knows(&self.newest, None) && !written.knows(&self.newest, None))
    }

    /// The instance proved that it uses this version and no older one any more.
    ///
    /// # Errors
    /// [`NotNewest`] for any version but the newest that it was served.
    pub fn confirm(&mut self, version: &VersionId) -> Result<(), NotNewest> {
        if self.newest != *version && !is_on(Mutant::StaleConfirmationCounts) {
            return Err(NotNewest);
        }
        self.held = BTreeSet::from([version.clone()]);
        self.unbind(|bound| bound == version);
        self.confirmed = Some(version.clone());
        Ok(())
    }

    pub fn state(&self, current: Option<&VersionId>) -> HoldingState {
        if current != Some(&self.newest) {
            HoldingState::Holds
        } else if self.confirmed.as_ref() == current {
            HoldingState::Confirmed
        } else {
            HoldingState::Served
        }
    }
}

/// Who keeps the old key alive. Empty means that it may go, as far as the applications are concerned.
///
/// `old` are all versions that carry the old key; `unseen` are applications that list the credential, were never served
/// it, and may have the submitted key from elsewhere.
pub fn barrier<'a>(
    old: &[VersionId],
    current: &VersionId,
    confirmation: Confirmation,
    holdings: impl IntoIterator<Item = &'a Holding>,
    unseen: &[Name],
) -> Vec<Blocker> {
    let blocks = |holding: &Holding| {
        let holds_old = holding.held.iter().any(|version| old.contains(version));
        match confirmation {
            Confirmation::Required => holds_old,
            Confirmation::Observed => holds_old && holding.newest != *current,
            Confirmation::None => false,
        }
    };
    let holders = holdings.into_iter().filter(|holding| blocks(holding));
    let mut blockers: Vec<Blocker> =
        holders.map(|holding| Blocker { application: holding.application.clone(), instance: Some(holding.instance.clone()) }).collect();
    if confirmation != Confirmation::None {
        blockers.extend(unseen.iter().map(|application| Blocker { application: application.clone(), instance: None }));
    }
    blockers
}

#[cfg(test)]
mod pods;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> VersionId {
        text.parse().unwrap()
    }

    fn holding(served: &[&str]) -> Holding {
        let first = version(served[0]);
        let mut holding = Holding::first("app".parse().unwrap(), "one".parse().unwrap(), "key".parse().unwrap(), first);
        served[1..].iter().for_each(|text| holding.serve(&version(text)));
        holding
    }

    fn blocked(confirmation: Confirmation, holding: &Holding) -> bool {
        !barrier(&[version("v1")], &version("v2"), confirmation, [holding], &[]).is_empty()
    }

    #[test]
    fn only_a_confirmation_frees_where_it_is_required() {
        let mut instance = holding(&["v1", "v2"]);
        assert!(blocked(Confirmation::Required, &instance));
        assert!(!blocked(Confirmation::Observed, &instance));
        assert_eq!(instance.confirm(&version("v1")), Err(NotNewest));
        instance.confirm(&version("v2")).unwrap();
        instance.confirm(&version("v2")).unwrap();
        assert!(!blocked(Confirmation::Required, &instance));
    }

    #[test]
    fn who_has_only_the_old_version_blocks_unless_nothing_counts() {
        let instance = holding(&["v1"]);
        assert!(blocked(Confirmation::Required, &instance));
        assert!(blocked(Confirmation::Observed, &instance));
        assert!(!blocked(Confirmation::None, &instance));
    }

    #[test]
    fn who_never_had_the_old_version_does_not_block() {
        assert!(!blocked(Confirmation::Required, &holding(&["v2"])));
    }

    #[test]
    fn an_application_never_seen_blocks_by_name() {
        let unseen = ["late".parse().unwrap()];
        let blockers = barrier(&[version("v1")], &version("v2"), Confirmation::Observed, [], &unseen);
        assert_eq!(blockers, [Blocker { application: unseen[0].clone(), instance: None }]);
    }
}
