//! What several replicas say together about who holds what, and why nothing dies that one of them just handed out.
//!
//! Each replica has a *row*: whom it serves, and what those hold of it. It writes its own row only; the leader reads all rows, and
//! leaves notes (*removals*) in the head of a row.
//!
//! **Why an old key isn't revoked under somebody's feet.** A replica hands version `v` out to an instance for the first time only
//! after (a) its row says durably that the instance holds `v`, and then (b) a reading of that credential's journal, begun after (a),
//! showed that `v` is still what it serves. The leader reads all rows, in a reading begun after the journal ceased to let anybody
//! serve `v`, before it journals the intent to revoke `v`. If (b) saw `v` served, then (a) was before the journal ceased, and that before
//! the leader's reading: the reading has the row. If (b) didn't, nothing was handed out. No clock is in this.
//!
//! **Why a removal strikes nobody who came back.** Each thing that a replica says bears a *serial*, which grows with each disclosure; a
//! removal names the highest one that it was about. What was disclosed since has a higher one, and stays.
//!
//! **Why a row that nobody writes any more isn't copied.** It stays where it is, and counts until each part of it is confirmed,
//! covered by a living row, released or over its lease. A copy would be struck by nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::due::even_hash;
use super::holders::{Holding, PodHold};
use super::ids::{InstanceName, Name, ObjectUid, VersionId};

/// How many pages a row has beside its head: an object holds 1 MiB, and what changes is written page by page.
pub const PAGES: u8 = 16;
/// A replica that gave no sign of life for so long is gone, by the leader's running time.
pub const GONE_AFTER: Duration = Duration::from_secs(30);
/// With a longer gap between two readings of the rows, all leases begin anew: we were away, not they.
pub const GAP_MAX: Duration = Duration::from_secs(10);

/// One instance of one application.
pub type Instance = (Name, InstanceName);

/// What an instance holds of one credential, as one replica says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// With the serial of the last disclosure.
    pub versions: BTreeMap<VersionId, u64>,
    pub newest: VersionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<VersionId>,
    /// As in [`Holding::pods`]: what stands under no pod was served to somebody who isn't known to be one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pods: BTreeMap<ObjectUid, PodHold>,
}

/// One instance, as one replica sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// Open streams there.
    #[serde(default)]
    pub streams: u32,
    /// Grows while it calls without a stream, now and then and not with each call.
    #[serde(default)]
    pub calls: u64,
    /// By credential.
    #[serde(default)]
    pub holdings: BTreeMap<Name, Held>,
}

/// The leader says that an instance holds nothing any more of what a row said up to a serial.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    pub application: Name,
    pub instance: InstanceName,
    pub up_to: u64,
    /// By its lease, not by a word: who has a stream after all stays.
    pub expired: bool,
    /// Only what this pod alone held, which is gone and never comes back, whatever was served since to another of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectUid>,
}

/// The part of a row that is written all the time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Grows while the replica lives.
    pub beat: u64,
    /// The leader's; the replica takes them up and strikes them out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removals: BTreeSet<Removal>,
    /// (application, credential): asked for here, and kept back until its list is passed, which the leader journals.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub asks: BTreeSet<(Name, Name)>,
    /// Made here, and not yet answered by who leads, as far as the journal shows.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reports: BTreeSet<Report>,
}

/// An instance says that the version that it was served last doesn't work.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    pub application: Name,
    pub instance: InstanceName,
    pub credential: Name,
    pub version: VersionId,
}

/// All that one replica says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub replica: Name,
    pub head: Head,
    pub presences: BTreeMap<Instance, Arc<Presence>>,
}

/// The page of a row that an instance stands on.
pub fn page_of(application: &Name, instance: &InstanceName) -> u8 {
    let text = b"keywright:row:".iter().copied().chain(application.as_str().bytes()).chain([b'/']).chain(instance.as_str().bytes());
    u8::try_from(even_hash(text) % u64::from(PAGES)).unwrap_or(0)
}

impl Presence {
    /// The highest serial of what it holds.
    pub fn serial(&self) -> u64 {
        self.holdings.values().flat_map(|held| held.versions.values()).copied().max().unwrap_or(0)
    }

    fn without(&self, removals: &[&Removal]) -> Presence {
        let mut left = self.clone();
        let struck = removals.iter().filter(|removal| removal.pod.is_none()).map(|removal| removal.up_to).max();
        let gone: Vec<&ObjectUid> = removals.iter().filter_map(|removal| removal.pod.as_ref()).collect();
        left.holdings.retain(|_, held| {
            held.keep_only(|_, serial| struck.is_none_or(|struck| serial > struck));
            gone.iter().for_each(|uid| held.forget_pod(uid));
            !held.versions.is_empty()
        });
        left
    }
}

impl Row {
    /// What is left of it after what the leader struck.
    #[must_use]
    pub fn remaining(&self) -> Row {
        let mut by_instance: BTreeMap<(&Name, &InstanceName), Vec<&Removal>> = BTreeMap::new();
        for removal in &self.head.removals {
            by_instance.entry((&removal.application, &removal.instance)).or_default().push(removal);
        }
        let presences = self.presences.iter().filter_map(|(instance, presence)| {
            let struck = by_instance.get(&(&instance.0, &instance.1));
            let left = struck.map_or_else(|| presence.clone(), |removals| Arc::new(presence.without(removals)));
            (left.streams > 0 || !left.holdings.is_empty()).then(|| (instance.clone(), left))
        });
        Row { replica: self.replica.clone(), head: self.head.clone(), presences: presences.collect() }
    }
}

/// What the rows together say of one instance and one credential. `order` says which version came later: 0 for one that nobody
/// remembers. A confirmation strikes what is older in all rows but its own, which knows what it served since.
pub fn together(parts: &[Held], order: impl Fn(&VersionId) -> u64) -> Option<Held> {
    let confirmed_at = |part: &Held| part.confirmed.as_ref().map(&order);
    let mut versions: BTreeMap<VersionId, u64> = BTreeMap::new();
    for (at, part) in parts.iter().enumerate() {
        let others = parts.iter().enumerate().filter(|(other, _)| *other != at);
        let struck_below = others.filter_map(|(_, other)| confirmed_at(other)).max().unwrap_or(0);
        for (version, serial) in part.versions.iter().filter(|(version, _)| order(version) >= struck_below) {
            versions.entry(version.clone()).and_modify(|known| *known = (*known).max(*serial)).or_insert(*serial);
        }
    }
    let newest = parts.iter().map(|part| &part.newest).filter(|newest| versions.contains_key(*newest)).max_by_key(|newest| order(newest));
    let newest = newest.or_else(|| versions.keys().max_by_key(|version| order(version)))?.clone();
    let confirmed = parts.iter().filter_map(|part| part.confirmed.clone()).max_by_key(|confirmed| order(confirmed));
    let pods = bound_by(parts, &versions);
    Some(Held { versions, newest, confirmed, pods })
}

/// By which pods these versions are held. What one of the rows says is held by somebody unknown, no pod's end frees.
fn bound_by(parts: &[Held], versions: &BTreeMap<VersionId, u64>) -> BTreeMap<ObjectUid, PodHold> {
    let is_known = |version: &VersionId| !parts.iter().any(|part| part.versions.contains_key(version) && !part.is_bound(version));
    let mut pods: BTreeMap<ObjectUid, PodHold> = BTreeMap::new();
    for (uid, hold) in parts.iter().flat_map(|part| &part.pods) {
        let held = hold.held.iter().filter(|version| versions.contains_key(*version) && is_known(version));
        for version in held {
            let empty = || PodHold { namespace: hold.namespace.clone(), held: BTreeSet::new() };
            pods.entry(uid.clone()).or_insert_with(empty).held.insert(version.clone());
        }
    }
    pods
}

impl Held {
    pub fn of(holding: &Holding, serials: &BTreeMap<VersionId, u64>) -> Held {
        let serial = |version: &VersionId| serials.get(version).copied().unwrap_or(0);
        Held {
            versions: holding.held.iter().map(|version| (version.clone(), serial(version))).collect(),
            newest: holding.newest.clone(),
            confirmed: holding.confirmed.clone(),
            pods: holding.pods.clone(),
        }
    }

    /// Whether only pods hold this version.
    fn is_bound(&self, version: &VersionId) -> bool {
        self.pods.values().any(|hold| hold.held.contains(version))
    }

    fn keep_only(&mut self, keep: impl Fn(&VersionId, u64) -> bool) {
        self.versions.retain(|version, serial| keep(version, *serial));
        self.pods.values_mut().for_each(|hold| hold.held.retain(|version| self.versions.contains_key(version)));
        self.pods.retain(|_, hold| !hold.held.is_empty());
    }

    /// A pod is gone: what it alone held is free.
    fn forget_pod(&mut self, uid: &ObjectUid) {
        let Some(gone) = self.pods.remove(uid) else { return };
        for version in &gone.held {
            if !self.is_bound(version) {
                self.versions.remove(version);
            }
        }
    }

    pub fn holding(&self, instance: &Instance, credential: &Name) -> Holding {
        Holding {
            application: instance.0.clone(),
            instance: instance.1.clone(),
            credential: credential.clone(),
            held: self.versions.keys().cloned().collect(),
            newest: self.newest.clone(),
            confirmed: self.confirmed.clone(),
            pods: self.pods.clone(),
        }
    }
}

/// Which replicas live, and since when each instance gave no sign of life anywhere: by the running time of who reads the rows.
#[derive(Debug, Clone, Default)]
pub struct Attendance {
    last: Option<Duration>,
    beats: BTreeMap<Name, (u64, Duration)>,
    instances: BTreeMap<Instance, (u64, Duration)>,
}

impl Attendance {
    /// Takes note of the rows as they are at this running time.
    pub fn note(&mut self, rows: &[Row], running: Duration) {
        if self.last.is_none_or(|last| running.saturating_sub(last) > GAP_MAX) {
            self.begin_anew(running);
        }
        self.last = Some(running);
        let before = std::mem::take(&mut self.beats);
        for row in rows {
            let known = before.get(&row.replica).filter(|(beat, _)| *beat == row.head.beat);
            self.beats.insert(row.replica.clone(), (row.head.beat, known.map_or(running, |(_, since)| *since)));
        }
        let mut calls: BTreeMap<&Instance, (u64, bool)> = BTreeMap::new();
        for row in rows {
            let lives = !self.is_gone(&row.replica, running);
            for (instance, presence) in &row.presences {
                let sum = calls.entry(instance).or_default();
                sum.0 = sum.0.wrapping_add(presence.calls);
                sum.1 |= lives && presence.streams > 0;
            }
        }
        let before = std::mem::take(&mut self.instances);
        for (instance, (calls, streams)) in calls {
            let silent = before.get(instance).filter(|(known, _)| *known == calls && !streams);
            self.instances.insert(instance.clone(), (calls, silent.map_or(running, |(_, since)| *since)));
        }
    }

    /// All leases, and the patience with silent replicas, begin anew.
    pub fn begin_anew(&mut self, running: Duration) {
        self.last = Some(running);
        self.beats.values_mut().for_each(|(_, since)| *since = running);
        self.instances.values_mut().for_each(|(_, since)| *since = running);
    }

    /// Nobody writes this row any more, as far as can be told.
    pub fn is_gone(&self, replica: &Name, running: Duration) -> bool {
        self.beats.get(replica).is_some_and(|(_, since)| running.saturating_sub(*since) >= GONE_AFTER)
    }

    /// From when its lease runs, as far as the rows tell.
    pub fn lease_from(&self, instance: &Instance) -> Option<Duration> {
        self.instances.get(instance).map(|(_, since)| *since)
    }
}

/// What may be struck from a row that nobody writes any more, because others answer for it: each version is confirmed away elsewhere, or
/// a living row says that the same instance holds it.
pub fn superfluous(gone: &Row, living: &[&Row], order: impl Fn(&Name, &VersionId) -> u64) -> Vec<Removal> {
    let mut removals = Vec::new();
    for (instance, presence) in &gone.remaining().presences {
        let elsewhere: Vec<&Arc<Presence>> = living.iter().filter_map(|row| row.presences.get(instance)).collect();
        let answered = presence.holdings.iter().all(|(credential, held)| {
            let others: Vec<&Held> = elsewhere.iter().filter_map(|presence| presence.holdings.get(credential)).collect();
            let confirmed = others.iter().filter_map(|other| other.confirmed.as_ref()).map(|version| order(credential, version)).max();
            held.versions.keys().all(|version| {
                confirmed.is_some_and(|confirmed| order(credential, version) < confirmed)
                    || others.iter().any(|other| other.versions.contains_key(version))
            })
        });
        if answered {
            let (application, instance) = instance.clone();
            removals.push(Removal { application, instance, up_to: presence.serial(), expired: false, pod: None });
        }
    }
    removals
}

#[cfg(test)]
mod tests;
