//! Who holds what, and the barrier before a revocation. Unknown use counts as use (I5).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{InstanceName, Name, VersionId};
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
        Holding { application, instance, credential, held: BTreeSet::from([version.clone()]), newest: version, confirmed: None }
    }

    /// The instance was served a version: it holds this one too from now on.
    pub fn serve(&mut self, version: &VersionId) {
        if self.newest != *version {
            self.newest = version.clone();
        }
        self.held.insert(version.clone());
    }

    /// The instance proved that it uses this version and no older one any more.
    ///
    /// # Errors
    /// [`NotNewest`] for any version but the newest that it was served.
    pub fn confirm(&mut self, version: &VersionId) -> Result<(), NotNewest> {
        if self.newest != *version {
            return Err(NotNewest);
        }
        self.held = BTreeSet::from([version.clone()]);
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
