//! What AWS says of one secret: which versions it has, which labels they bear, and which of ours they are.
//!
//! AWS names a version by the token that it was written with, which is derived from our name for it; the way back is a label of
//! ours. That label says as well that the version is kept: AWS can't delete one version, so what lost it is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::domain::ids::VersionId;
use crate::sealing::sha256;

pub(super) const CURRENT: &str = "AWSCURRENT";
pub(super) const PENDING: &str = "AWSPENDING";
pub(super) const PREVIOUS: &str = "AWSPREVIOUS";
/// The version that bears [`CURRENT`] was cleared: AWS lets nobody take that label away, only move it.
pub(super) const CLEARED: &str = "keywright-cleared";
/// Bears the served part, and has no other.
const WHOLE: &str = "keywright-version-";
/// Bears the served part; the management part lies in the secret beside.
const SPLIT: &str = "keywright-split-";
/// Bears the management part.
const MANAGEMENT: &str = "keywright-management-";
/// Was current, and isn't previous any more.
const WAS_CURRENT: &str = "keywright-was-current-";

/// Stands in the names of secrets apart, where an environment stands in the names of native ones.
pub(super) const APART: &str = "keywright-apart";

/// What tokens are derived below. Never changes: it would make every version unknown.
const TOKENS: Uuid = Uuid::from_u128(0x5d0b_6f7c_9a55_4c1e_8d6b_2f21_7f0c_a3e4);

/// The parts of a version, which AWS keeps as versions of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Served,
    Management,
}

/// The token that a part is written with, which AWS names it by: the same each time, so that a repeated write is none.
pub(super) fn token(part: Part, version: &VersionId) -> String {
    let text = match part {
        Part::Served => format!("served/{version}"),
        Part::Management => format!("management/{version}"),
    };
    Uuid::new_v5(&TOKENS, text.as_bytes()).hyphenated().to_string()
}

pub(super) fn served_label(version: &VersionId, has_management: bool) -> String {
    format!("{}{version}", if has_management { SPLIT } else { WHOLE })
}

pub(super) fn management_label(version: &VersionId) -> String {
    format!("{MANAGEMENT}{version}")
}

pub(super) fn was_current_label(version: &VersionId) -> String {
    format!("{WAS_CURRENT}{version}")
}

/// Whether the labels of a version say that it is the served part of this one; and if so, whether there is a management part.
pub(super) fn serves(labels: &BTreeSet<String>, version: &VersionId) -> Option<bool> {
    [false, true].into_iter().find(|has_management| labels.contains(&served_label(version, *has_management)))
}

/// What somebody else's version is called here: it can be told from ours and from others, and is never written.
fn foreign(id: &str) -> Option<VersionId> {
    format!("foreign-{}", &hex::encode(sha256(id.as_bytes()))[..16]).parse().ok()
}

/// How many forgotten versions a secret remembers: as many as one tag has room for.
const FORGOTTEN_MAX: usize = 28;

/// A forgotten version as its secret remembers it.
fn digest(version: &VersionId) -> String {
    hex::encode(&sha256(version.as_str().as_bytes())[..4])
}

/// Whether there is a secret of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Standing {
    #[default]
    Absent,
    /// Marked for deletion: nobody reads it, and it can be restored.
    Deleted,
    Live,
}

/// One secret as it was described.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Secret {
    pub(super) standing: Standing,
    /// The labels of each version that has one, by AWS's name for it.
    pub(super) labels: BTreeMap<String, BTreeSet<String>>,
    /// What it remembers of forgotten versions, the oldest first: AWS itself does so for a while only.
    pub(super) forgotten: Vec<String>,
}

impl Secret {
    pub(super) fn remembers(&self, version: &VersionId) -> bool {
        self.forgotten.contains(&digest(version))
    }

    /// What it is to remember, with these; `None` if it does already.
    pub(super) fn remembering<'a>(&self, versions: impl Iterator<Item = &'a VersionId>) -> Option<Vec<String>> {
        let new: Vec<String> = versions.filter(|version| !self.remembers(version)).map(digest).collect();
        let all: Vec<String> = self.forgotten.iter().chain(&new).cloned().collect();
        (!new.is_empty()).then(|| all[all.len().saturating_sub(FORGOTTEN_MAX)..].to_vec())
    }

    /// The version that bears a label.
    pub(super) fn holder(&self, label: &str) -> Option<&str> {
        self.labels.iter().find(|(_, labels)| labels.contains(label)).map(|(id, _)| id.as_str())
    }

    pub(super) fn is_live(&self) -> bool {
        self.standing == Standing::Live
    }

    /// Whether something is current here, of whomever. AWS makes the first version of a secret current whatever it is told.
    pub(super) fn is_filled(&self) -> bool {
        self.is_live() && self.holder(CURRENT).is_some()
    }

    pub(super) fn labels_of(&self, id: &str) -> Option<&BTreeSet<String>> {
        self.labels.get(id)
    }

    fn bears(&self, id: &str, label: &str) -> bool {
        self.labels_of(id).is_some_and(|labels| labels.contains(label))
    }

    /// Our name for the served part that AWS names so.
    pub(super) fn name_of(&self, id: &str) -> Option<VersionId> {
        let named = |label: &String| label.strip_prefix(WHOLE).or_else(|| label.strip_prefix(SPLIT))?.parse::<VersionId>().ok();
        self.labels_of(id)?.iter().filter_map(named).find(|version| token(Part::Served, version) == id)
    }

    /// All versions whose served part is kept here.
    pub(super) fn names(&self) -> Vec<VersionId> {
        self.labels.keys().filter_map(|id| self.name_of(id)).collect()
    }

    /// Whether the served part is kept here; and if so, whether there is a management part.
    pub(super) fn serves(&self, version: &VersionId) -> Option<bool> {
        serves(self.labels_of(&token(Part::Served, version))?, version)
    }

    /// Whether any part of any version is kept here.
    pub(super) fn keeps_something(&self) -> bool {
        keeps_something(self.labels.values())
    }

    /// Our name for what bears a label, if that is one of ours.
    pub(super) fn named_holder(&self, label: &str) -> Option<VersionId> {
        self.name_of(self.holder(label)?)
    }

    /// Whether the version that is current here was cleared.
    pub(super) fn is_cleared(&self) -> bool {
        self.holder(CURRENT).is_some_and(|id| self.bears(id, CLEARED))
    }

    /// A stage never returns to a version that it left.
    pub(super) fn was_current(&self, version: &VersionId) -> bool {
        let id = token(Part::Served, version);
        [CURRENT, PREVIOUS, &was_current_label(version)].into_iter().any(|label| self.bears(&id, label))
    }
}

/// Whether labels name a part of any version of ours.
pub(super) fn keeps_something<'a>(mut labels: impl Iterator<Item = &'a BTreeSet<String>>) -> bool {
    labels.any(|labels| labels.iter().any(|label| [WHOLE, SPLIT, MANAGEMENT].iter().any(|prefix| label.starts_with(prefix))))
}

/// The two secrets of a slot: the native one, which has only what was promoted and, beside it, what is pending; and the one apart,
/// which keeps what no native reader may meet: management parts, and pending versions while the native one has nothing current.
#[derive(Debug, Clone, Default)]
pub(super) struct Pair {
    pub(super) native: Secret,
    pub(super) apart: Secret,
}

impl Pair {
    /// What is current for us; what somebody else made current has a name that isn't ours.
    pub(super) fn current(&self) -> Option<VersionId> {
        if !self.native.is_live() || self.native.is_cleared() {
            return None;
        }
        let id = self.native.holder(CURRENT)?;
        // A first version bears our label a moment after it became current.
        let just_made = || self.apart.names().into_iter().find(|version| token(Part::Served, version) == id);
        self.native.name_of(id).or_else(just_made).or_else(|| foreign(id))
    }

    pub(super) fn pending(&self) -> Option<VersionId> {
        let current = self.current();
        let here = self.native.is_live().then(|| self.native.named_holder(PENDING)).flatten();
        let apart = || self.apart.is_live().then(|| self.apart.named_holder(PENDING)).flatten();
        let pending = here.or_else(|| if current.is_none() { apart() } else { None })?;
        (current.as_ref() != Some(&pending) && !self.native.was_current(&pending)).then_some(pending)
    }

    pub(super) fn previous(&self) -> Option<VersionId> {
        self.native.is_live().then(|| self.native.named_holder(PREVIOUS)).flatten()
    }

    /// Whether the native secret alone tells all stages.
    pub(super) fn native_says_all(&self) -> bool {
        self.native.is_live() && !self.native.is_cleared() && self.native.named_holder(CURRENT).is_some()
    }

    /// A late write of such a version must not bring it back.
    pub(super) fn is_forgotten(&self, version: &VersionId) -> bool {
        self.native.remembers(version) || self.apart.remembers(version)
    }

    /// Whether the version is kept; and if so, whether it has a management part.
    pub(super) fn serves(&self, version: &VersionId) -> Option<bool> {
        let here = self.native.is_live().then(|| self.native.serves(version)).flatten();
        here.or_else(|| self.apart.is_live().then(|| self.apart.serves(version)).flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> VersionId {
        text.parse().unwrap()
    }

    fn secret(versions: &[(&str, &[&str])]) -> Secret {
        let labels = versions.iter().map(|(name, labels)| {
            let id = name.parse().map_or_else(|_| (*name).to_owned(), |version| token(Part::Served, &version));
            (id, labels.iter().map(|label| (*label).to_owned()).collect())
        });
        Secret { standing: Standing::Live, labels: labels.collect(), forgotten: Vec::new() }
    }

    #[test]
    fn a_token_is_named_by_version_and_part_alone() {
        let served = token(Part::Served, &version("v1"));
        assert_eq!(served, token(Part::Served, &version("v1")));
        assert_ne!(served, token(Part::Served, &version("v2")));
        assert_ne!(served, token(Part::Management, &version("v1")));
        assert_eq!(served.len(), 36, "AWS takes 32 to 64 characters");
        // Written down: another derivation would lose every version that is kept.
        assert_eq!(served, "b582fdab-25f9-5967-9b79-ded1c8aa3029");
    }

    /// Every way to put the three stages of AWS on three versions, or on none: what a crash, a person or a rotation function left.
    #[test]
    fn every_permutation_of_labels_has_its_stages() {
        let names = ["v1", "v2", "v3"];
        let places = || [None, Some(0), Some(1), Some(2)];
        let mut seen = 0;
        for current in places() {
            for pending in places() {
                for previous in places() {
                    let mut native = secret(&names.map(|name| (name, &[] as &[&str])));
                    for (index, name) in names.iter().enumerate() {
                        let labels = native.labels.get_mut(&token(Part::Served, &version(name))).unwrap();
                        labels.insert(served_label(&version(name), index == 1));
                        for (label, place) in [(CURRENT, current), (PENDING, pending), (PREVIOUS, previous)] {
                            if place == Some(index) {
                                labels.insert(label.to_owned());
                            }
                        }
                    }
                    let pair = Pair { native, apart: Secret::default() };
                    let named = |place: Option<usize>| place.map(|index| version(names[index]));
                    assert_eq!(pair.current(), named(current));
                    assert_eq!(pair.previous(), named(previous));
                    let is_left = pending.is_none() || pending == current || pending == previous;
                    assert_eq!(pair.pending(), if is_left { None } else { named(pending) });
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 64);
    }

    #[test]
    fn what_somebody_else_made_is_no_version_of_ours() {
        let stuck = secret(&[("v1", &[CURRENT, "keywright-version-v1"]), ("EMPTY-of-a-rotation-function", &[PENDING])]);
        let pair = Pair { native: stuck, apart: Secret::default() };
        assert_eq!((pair.current(), pair.pending()), (Some(version("v1")), None));
        // Our label on another version is a lie.
        let moved = Pair { native: secret(&[("v2", &[CURRENT, "keywright-version-v1"])]), apart: Secret::default() };
        let current = moved.current().unwrap();
        assert!(current.as_str().starts_with("foreign-"), "{current}");
        assert_eq!(moved.serves(&version("v1")), None);
    }

    #[test]
    fn what_was_cleared_or_is_deleted_is_not_current() {
        let cleared = secret(&[("v1", &[CURRENT, CLEARED])]);
        let apart = secret(&[("v2", &[PENDING, "keywright-split-v2"])]);
        let pair = Pair { native: cleared, apart: apart.clone() };
        assert_eq!((pair.current(), pair.pending()), (None, Some(version("v2"))));
        assert_eq!(pair.serves(&version("v2")), Some(true));
        let deleted = Secret { standing: Standing::Deleted, ..secret(&[("v1", &[CURRENT, "keywright-version-v1"])]) };
        let pair = Pair { native: deleted, apart };
        assert_eq!((pair.current(), pair.serves(&version("v1"))), (None, None));
    }

    #[test]
    fn the_last_forgotten_versions_are_remembered_in_what_a_tag_has_room_for() {
        let mut secret = Secret::default();
        let all: Vec<VersionId> = (0..40).map(|number| version(&format!("v{number}"))).collect();
        for version in &all {
            secret.forgotten = secret.remembering(std::iter::once(version)).unwrap();
            assert_eq!(secret.remembering(std::iter::once(version)), None);
        }
        assert_eq!(all.iter().filter(|version| secret.remembers(version)).count(), 28);
        assert!(secret.remembers(&all[39]) && !secret.remembers(&all[0]));
        assert!(secret.forgotten.join(".").len() <= 256, "the longest value of a tag");
    }

    #[test]
    fn a_first_version_is_known_before_it_bears_our_label() {
        let pair = Pair { native: secret(&[("v1", &[CURRENT])]), apart: secret(&[("v1", &[PENDING, "keywright-version-v1"])]) };
        assert_eq!((pair.current(), pair.pending()), (Some(version("v1")), None));
        assert!(!pair.native_says_all());
    }
}
