//! The book and the other replicas' rows, together: an instance is one, wherever it was served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Book, Expired, Pages};
use crate::domain::holders::{Holding, PodKey};
use crate::domain::ids::{InstanceName, Name, VersionId};
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::replicas::{self, Attendance, Held, Presence, Row, together};
use crate::engine::pods::BoundPod;

/// Which version of a credential came later; 0 for one that nobody remembers.
pub(in crate::engine) type Order<'a> = &'a dyn Fn(&VersionId) -> u64;

/// What the rows of the other replicas said when they were last read.
#[derive(Debug, Default)]
pub(in crate::engine) struct Elsewhere {
    presences: BTreeMap<replicas::Instance, Vec<Arc<Presence>>>,
    holders: BTreeMap<Name, BTreeSet<replicas::Instance>>,
    /// Open streams at replicas that live.
    streams: BTreeMap<replicas::Instance, u32>,
    lease_from: BTreeMap<replicas::Instance, Duration>,
}

impl Elsewhere {
    /// Of rows as they are left after removals, at this running time.
    pub(in crate::engine) fn of(rows: &[Row], attendance: &Attendance, running: Duration) -> Elsewhere {
        let mut elsewhere = Elsewhere::default();
        for row in rows {
            let lives = !attendance.is_gone(&row.replica, running);
            for (instance, presence) in &row.presences {
                elsewhere.presences.entry(instance.clone()).or_default().push(presence.clone());
                for credential in presence.holdings.keys() {
                    elsewhere.holders.entry(credential.clone()).or_default().insert(instance.clone());
                }
                if lives && presence.streams > 0 {
                    *elsewhere.streams.entry(instance.clone()).or_default() += presence.streams;
                }
                if let Some(since) = attendance.lease_from(instance) {
                    elsewhere.lease_from.insert(instance.clone(), since);
                }
            }
        }
        elsewhere
    }

    pub(super) fn streams(&self, instance: &replicas::Instance) -> usize {
        self.streams.get(instance).map_or(0, |streams| usize::try_from(*streams).unwrap_or(usize::MAX))
    }

    pub(super) fn knows(&self, instance: &replicas::Instance) -> bool {
        self.presences.contains_key(instance)
    }

    fn parts(&self, instance: &replicas::Instance, credential: &Name) -> impl Iterator<Item = &Held> {
        self.presences.get(instance).into_iter().flatten().filter_map(|presence| presence.holdings.get(credential))
    }

    /// What it confirmed at other replicas.
    pub(super) fn confirmed(&self, instance: &replicas::Instance, credential: &Name) -> impl Iterator<Item = &VersionId> {
        self.parts(instance, credential).filter_map(|held| held.confirmed.as_ref())
    }

    fn credentials(&self, instance: &replicas::Instance) -> impl Iterator<Item = &Name> {
        self.presences.get(instance).into_iter().flatten().flat_map(|presence| presence.holdings.keys())
    }

    /// The pods that anything is held by.
    pub(super) fn bound(&self) -> impl Iterator<Item = BoundPod> {
        let held = self.presences.iter().flat_map(|(instance, presences)| {
            presences.iter().flat_map(|presence| presence.holdings.values()).map(move |held| (instance, held))
        });
        held.flat_map(|((application, instance), held)| {
            held.pods.iter().map(|(uid, hold)| BoundPod {
                application: application.clone(),
                instance: instance.clone(),
                pod: PodKey { namespace: hold.namespace.clone(), uid: uid.clone() },
            })
        })
    }

    fn of_application<'a>(&'a self, application: &'a Name) -> impl Iterator<Item = &'a replicas::Instance> {
        self.presences.keys().filter(move |(name, _)| name == application)
    }
}

impl Pages {
    /// What an instance holds of a credential, wherever it was served.
    fn held_anywhere(&self, key: &replicas::Instance, credential: &Name, order: Order<'_>) -> Option<Holding> {
        let own = self.instances.get(key).and_then(|entry| entry.holdings.get(credential));
        let mut others = self.elsewhere.parts(key, credential).peekable();
        if others.peek().is_none() {
            return own.map(|entry| entry.on_record(self.couriers.contains(key)));
        }
        let own = own.map(|entry| Held::of(&entry.on_record(self.couriers.contains(key)), &entry.serials));
        let parts: Vec<Held> = own.into_iter().chain(others.cloned()).collect();
        together(&parts, order).map(|held| held.holding(key, credential))
    }

    fn keys(&self) -> impl Iterator<Item = &replicas::Instance> {
        let only_elsewhere = self.elsewhere.presences.keys().filter(|key| !self.instances.contains_key(*key));
        self.instances.keys().chain(only_elsewhere)
    }

    /// When its lease runs out; `None` while it streams anywhere, is one of our couriers, or has none.
    fn lease_end(&self, key: &replicas::Instance) -> Option<Duration> {
        let own = self.instances.get(key);
        let streams = own.map_or(0, |entry| entry.streams) + self.elsewhere.streams(key);
        if self.couriers.contains(key) || (streams > 0 && !is_on(Mutant::LeaseOfStreamRuns)) {
            return None;
        }
        let lease = own.map_or_else(|| self.leases.get(&key.0).copied().flatten(), |entry| entry.lease)?;
        let here = own.map(|entry| entry.lease_from + lease);
        // Its calls are told now and then only: it may have lived longer than its row says.
        let there = self.elsewhere.lease_from.get(key).map(|since| *since + lease + lease / 4);
        here.max(there)
    }

    pub(super) fn is_out(&self, key: &replicas::Instance, running: Duration) -> bool {
        self.lease_end(key).is_some_and(|end| running >= end)
    }

    fn credentials_of(&self, key: &replicas::Instance) -> Vec<Name> {
        let own = self.instances.get(key).into_iter().flat_map(|entry| entry.holdings.keys());
        own.chain(self.elsewhere.credentials(key)).collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }
}

impl Book {
    /// Takes over what the other rows say.
    pub(in crate::engine) fn set_elsewhere(&self, elsewhere: Elsewhere) {
        let mut pages = self.pages();
        for (credential, holders) in &elsewhere.holders {
            pages.seen.extend(holders.iter().map(|(application, _)| (credential.clone(), application.clone())));
        }
        pages.elsewhere = elsewhere;
    }

    /// (application, credential) of all that were served here or elsewhere.
    pub(in crate::engine) fn all_seen(&self) -> BTreeSet<(Name, Name)> {
        self.pages().seen.iter().map(|(credential, application)| (application.clone(), credential.clone())).collect()
    }

    /// What everyone holds of a credential.
    pub(in crate::engine) fn holdings_of(&self, credential: &Name, order: Order<'_>) -> Vec<Holding> {
        let pages = self.pages();
        let own = pages.holders.get(credential).into_iter().flatten();
        let others = pages.elsewhere.holders.get(credential).into_iter().flatten();
        let keys: BTreeSet<&replicas::Instance> = own.chain(others).collect();
        keys.into_iter().filter_map(|key| pages.held_anywhere(key, credential, order)).collect()
    }

    /// What one instance holds of a credential, wherever it was served.
    pub(in crate::engine) fn holding_anywhere(
        &self,
        application: &Name,
        instance: &InstanceName,
        credential: &Name,
        order: Order<'_>,
    ) -> Option<Holding> {
        self.pages().held_anywhere(&(application.clone(), instance.clone()), credential, order)
    }

    /// Whether any instance of the application holds anything of the credential.
    pub(in crate::engine) fn is_held_by(&self, application: &Name, credential: &Name) -> bool {
        let pages = self.pages();
        let own = pages.holders.get(credential).into_iter().flatten();
        let others = pages.elsewhere.holders.get(credential).into_iter().flatten();
        own.chain(others).any(|(name, _)| name == application)
    }

    /// Whether the application has an instance that counts, and what each may hold.
    pub(in crate::engine) fn instances_of(&self, application: &Name) -> Vec<(InstanceName, Vec<Name>)> {
        let pages = self.pages();
        let own = pages.instances.keys().filter(|(name, _)| name == application);
        let keys: BTreeSet<&replicas::Instance> = own.chain(pages.elsewhere.of_application(application)).collect();
        keys.into_iter().map(|key| (key.1.clone(), pages.credentials_of(key))).collect()
    }

    /// Instances of an application that have a stream, or whose state we bring to them ourselves.
    pub(in crate::engine) fn streaming(&self, application: &Name) -> Vec<InstanceName> {
        let pages = self.pages();
        let lives = |key: &replicas::Instance, entry: &super::Instance| entry.streams > 0 || pages.couriers.contains(key);
        let own = pages.instances.iter().filter(|(key, entry)| key.0 == *application && lives(key, entry)).map(|(key, _)| key);
        let others = pages.elsewhere.streams.keys().filter(|(name, _)| name == application);
        own.chain(others).map(|(_, instance)| instance.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Instances whose lease has run out: without a stream, and without a sign of life for so long.
    pub(in crate::engine) fn expired(&self, running: Duration) -> Vec<Expired> {
        let pages = self.pages();
        let expired = pages.keys().filter(|key| pages.is_out(key, running));
        let expired =
            expired.map(|key| Expired { application: key.0.clone(), instance: key.1.clone(), credentials: pages.credentials_of(key) });
        expired.collect()
    }

    /// The running time at which the next lease runs out.
    pub(in crate::engine) fn next_expiry(&self) -> Option<Duration> {
        let pages = self.pages();
        pages.keys().filter_map(|key| pages.lease_end(key)).min()
    }
}
