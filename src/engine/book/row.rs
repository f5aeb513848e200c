//! The book as this replica's row says it, and what others strike from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Book, Entry, Pages};
use crate::domain::holders::Holding;
use crate::domain::ids::{InstanceName, Name, VersionId};
use crate::domain::replicas::{self, Held, Presence, Removal};

impl Pages {
    /// What an instance holds was said anew: an older word of the leader isn't about it.
    fn renew_serials(&mut self, key: &replicas::Instance) {
        self.serial += 1;
        let serial = self.serial;
        let entries = self.instances.get_mut(key).into_iter().flat_map(|entry| entry.holdings.values_mut());
        entries.for_each(|known| known.serials.values_mut().for_each(|known| *known = serial));
    }

    /// Drops versions that an instance is said not to hold any more; what is left empty isn't on the books.
    fn strike(&mut self, key: &replicas::Instance, struck: impl Fn(&Name, &VersionId, u64) -> bool) {
        let Some(entry) = self.instances.get_mut(key) else { return };
        let mut emptied = Vec::new();
        let mut changed = false;
        for (credential, known) in &mut entry.holdings {
            let serials = known.serials.clone();
            let is_struck = |version: &VersionId| struck(credential, version, serials.get(version).copied().unwrap_or(0));
            let before = known.holding.held.len();
            known.holding.keep_only(|version| !is_struck(version));
            changed |= known.holding.held.len() != before;
            let held = &known.holding.held;
            known.recorded.retain(|version| held.contains(version));
            known.serials.retain(|version, _| held.contains(version));
            match known.serials.iter().max_by_key(|(_, serial)| **serial) {
                Some((latest, _)) if !held.contains(&known.holding.newest) => known.holding.newest = latest.clone(),
                None if held.is_empty() => emptied.push(credential.clone()),
                _ => {}
            }
        }
        emptied.iter().for_each(|credential| drop(entry.holdings.remove(credential)));
        let is_empty = entry.holdings.is_empty() && entry.streams == 0;
        emptied.iter().for_each(|credential| self.strike_holder(credential, key));
        if is_empty {
            self.instances.remove(key);
        }
        if changed {
            self.soil(&key.0, &key.1);
        }
    }
}

impl Book {
    /// What stands on one page of our row.
    pub(in crate::engine) fn page(&self, number: u8) -> Vec<crate::replicas::Entry> {
        let mut pages = self.pages();
        let Pages { instances, on_page, couriers, .. } = &mut *pages;
        let Some(on_page) = on_page.get_mut(&number) else { return Vec::new() };
        on_page.retain(|key| instances.contains_key(key));
        let entries = on_page.iter().filter_map(|key| Some((key, instances.get(key)?))).map(|(key, entry)| {
            let (application, instance) = key;
            let of_courier = couriers.contains(key);
            let held = |known: &Entry| {
                // All that may have been given out counts as held, also what isn't on record yet.
                let recorded = known.on_record(of_courier);
                Held::of(&Holding { newest: recorded.newest, ..known.holding.clone() }, &known.serials)
            };
            let presence = Presence {
                streams: u32::try_from(entry.streams).unwrap_or(u32::MAX),
                calls: entry.calls,
                holdings: entry.holdings.iter().map(|(credential, known)| (credential.clone(), held(known))).collect(),
            };
            (application.clone(), instance.clone(), Arc::new(presence))
        });
        entries.filter(|(_, _, presence)| presence.streams > 0 || !presence.holdings.is_empty()).collect()
    }

    /// Pages that differ from what was written last; they count as written from here on.
    pub(in crate::engine) fn take_dirty(&self) -> BTreeSet<u8> {
        std::mem::take(&mut self.pages().dirty)
    }

    /// A page couldn't be written, or is to be written in any case.
    pub(in crate::engine) fn make_dirty(&self, page: u8) {
        self.pages().dirty.insert(page);
    }

    /// The serial of the last disclosure of this version to this instance, if it still stands on the books.
    pub(in crate::engine) fn serial_of(
        &self,
        application: &Name,
        instance: &InstanceName,
        credential: &Name,
        version: &VersionId,
    ) -> Option<u64> {
        let pages = self.pages();
        let known = pages.instances.get(&(application.clone(), instance.clone()))?.holdings.get(credential)?;
        known.serials.get(version).copied().filter(|_| known.holding.held.contains(version))
    }

    /// The serial of the last disclosure.
    pub(in crate::engine) fn serial(&self) -> u64 {
        self.pages().serial
    }

    /// Tells signs of life of instances without a stream in their row: four times in a lease, not with each call.
    pub(in crate::engine) fn tell_calls(&self, running: Duration) {
        let mut pages = self.pages();
        let mut told = Vec::new();
        for (key, entry) in &mut pages.instances {
            let due = entry.lease.is_some_and(|lease| running.saturating_sub(entry.told) >= lease / 4);
            if entry.streams == 0 && due && entry.lease_from > entry.told {
                entry.calls += 1;
                entry.told = running;
                told.push(key.clone());
            }
        }
        told.iter().for_each(|(application, instance)| pages.soil(application, instance));
    }

    /// The leader struck these.
    pub(in crate::engine) fn take_up_removals<'r>(&self, removals: impl IntoIterator<Item = &'r Removal>) {
        let mut pages = self.pages();
        for removal in removals {
            let key = (removal.application.clone(), removal.instance.clone());
            let streams = pages.instances.get(&key).is_some_and(|entry| entry.streams > 0);
            // The row is written anew also where nothing is struck: the leader's word hid it until now.
            pages.soil(&removal.application, &removal.instance);
            if let Some(uid) = &removal.pod {
                pages.forget_pod(&key, uid);
            } else if !(removal.expired && streams) {
                pages.strike(&key, |_, _, serial| serial <= removal.up_to);
            } else {
                pages.renew_serials(&key);
            }
        }
    }

    /// Our whole row was taken for gone and removed. Who has a stream here, or was served since, is put on it again.
    pub(in crate::engine) fn take_up_end_of_row(&self, up_to: u64) {
        let mut pages = self.pages();
        let keys: Vec<replicas::Instance> = pages.instances.keys().cloned().collect();
        for key in keys {
            if pages.instances.get(&key).is_some_and(|entry| entry.streams == 0) {
                pages.strike(&key, |_, _, serial| serial <= up_to);
            }
        }
        pages.dirty = (0..replicas::PAGES).collect();
    }

    /// Strikes from our row what was confirmed away at other replicas.
    pub(in crate::engine) fn strike_confirmed(&self, order: impl Fn(&Name, &VersionId) -> u64) {
        let mut pages = self.pages();
        let mut below: BTreeMap<replicas::Instance, BTreeMap<Name, u64>> = BTreeMap::new();
        for (key, entry) in &pages.instances {
            for credential in entry.holdings.keys() {
                let confirmed = pages.elsewhere.confirmed(key, credential).map(|version| order(credential, version)).max();
                if let Some(confirmed) = confirmed {
                    below.entry(key.clone()).or_default().insert(credential.clone(), confirmed);
                }
            }
        }
        for (key, below) in below {
            pages.strike(&key, |credential, version, _| {
                below.get(credential).is_some_and(|confirmed| order(credential, version) < *confirmed)
            });
        }
    }

    /// The instance confirmed this version here, wherever it was served; it holds nothing else from here on, as far as our row says.
    pub(in crate::engine) fn confirm_here(&self, confirmed: &Holding, version: &VersionId) {
        let Holding { application, instance, credential, .. } = confirmed;
        let mut pages = self.pages();
        let key = (application.clone(), instance.clone());
        pages.note_holder(credential, key.clone());
        pages.serial += 1;
        let serial = pages.serial;
        let entry = pages.instance(key);
        let known = entry.holdings.entry(credential.clone()).or_insert_with(|| Entry::new(confirmed.clone()));
        known.holding = confirmed.clone();
        known.recorded.retain(|recorded| recorded == version);
        known.serials = BTreeMap::from([(version.clone(), serial)]);
        pages.soil(application, instance);
    }

    /// All leases begin anew: we begin to lead.
    pub(in crate::engine) fn begin_leases_anew(&self, running: Duration) {
        self.pages().instances.values_mut().for_each(|entry| entry.lease_from = running);
    }
}
