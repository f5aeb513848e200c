//! The book of instances: who streams, whose lease runs, who holds what. In memory; what must last is in the journal, or where there are
//! several replicas in the row of this one. What the others' rows say stands beside it (`book/elsewhere.rs`).

mod elsewhere;
mod pods;
mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::holders::{Holding, NotNewest, PodKey};
use crate::domain::ids::{InstanceName, Name, VersionId};
use crate::domain::replicas::page_of;
use crate::journal::{HoldingChange, Holdings};

pub(super) use elsewhere::Elsewhere;

/// The most instances that one application may have: an application that names itself anew with each call must not fill
/// the memory of all.
pub(super) const INSTANCES_MAX: usize = 10_000;

/// All instances of all applications.
#[derive(Debug, Default)]
pub(super) struct Book {
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    instances: BTreeMap<(Name, InstanceName), Instance>,
    /// Who holds anything of a credential, in order: asked for each credential, so it isn't searched for in all instances.
    holders: BTreeMap<Name, Vec<(Name, InstanceName)>>,
    /// (credential, application) that was served it once, or was released.
    seen: BTreeSet<(Name, Name)>,
    /// Instances in whose name we read ourselves, to bring what we read to a target outside: they hold it for as long as their way
    /// of delivery is asked for.
    couriers: BTreeSet<(Name, InstanceName)>,
    /// What the other replicas' rows say, as last read. Empty where there is one process.
    elsewhere: Elsewhere,
    /// By application, as its document said last.
    leases: BTreeMap<Name, Option<Duration>>,
    /// Grows with each disclosure.
    serial: u64,
    /// Pages of our own row that differ from what was written last.
    dirty: BTreeSet<u8>,
    /// Who stands on which page, and some who are gone: a page is written without looking through all instances.
    on_page: BTreeMap<u8, BTreeSet<(Name, InstanceName)>>,
}

impl Pages {
    fn soil(&mut self, application: &Name, instance: &InstanceName) {
        self.dirty.insert(page_of(application, instance));
    }

    /// The one way in which an instance comes on the books: it is found by its page, too.
    fn instance(&mut self, key: (Name, InstanceName)) -> &mut Instance {
        self.instances.entry(key).or_insert_with_key(|key| {
            self.on_page.entry(page_of(&key.0, &key.1)).or_default().insert(key.clone());
            Instance::default()
        })
    }

    fn note_holder(&mut self, credential: &Name, holder: (Name, InstanceName)) {
        let holders = self.holders.entry(credential.clone()).or_default();
        if let Err(place) = holders.binary_search(&holder) {
            holders.insert(place, holder);
        }
    }

    fn strike_holder(&mut self, credential: &Name, holder: &(Name, InstanceName)) {
        if let Some(holders) = self.holders.get_mut(credential) {
            holders.retain(|known| known != holder);
            if holders.is_empty() {
                self.holders.remove(credential);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Instance {
    streams: usize,
    /// Running time since which the lease runs.
    lease_from: Duration,
    /// As its document said when it was last here: a removed document frees nobody.
    lease: Option<Duration>,
    holdings: BTreeMap<Name, Entry>,
    /// Signs of life without a stream, as its row tells them; the running time of the last that was told.
    calls: u64,
    told: Duration,
}

#[derive(Debug)]
struct Entry {
    holding: Holding,
    /// Versions whose disclosure is audited and durable.
    recorded: BTreeSet<VersionId>,
    /// Of the last disclosure of each version.
    serials: BTreeMap<VersionId, u64>,
    /// Of what a courier reads: the version that its target has.
    arrived: Option<VersionId>,
}

impl Entry {
    fn new(holding: Holding) -> Entry {
        Entry { holding, recorded: BTreeSet::new(), serials: BTreeMap::new(), arrived: None }
    }

    /// What is being served and isn't on record yet holds the version alive, and doesn't count as having been served: the read
    /// may yet be refused. Nor does what a courier has read and not brought to its target.
    fn on_record(&self, of_courier: bool) -> Holding {
        let mut holding = self.holding.clone();
        let has_arrived = self.arrived.as_ref() == Some(&holding.newest) || holding.confirmed.as_ref() == Some(&holding.newest);
        if let Some(before) = self.recorded.last().filter(|_| !self.recorded.contains(&holding.newest)) {
            holding.newest = before.clone();
        } else if let Some(before) = holding.held.iter().rev().find(|held| **held != holding.newest).filter(|_| of_courier && !has_arrived)
        {
            holding.newest = before.clone();
        }
        holding
    }
}

/// An instance whose lease has run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expired {
    pub(super) application: Name,
    pub(super) instance: InstanceName,
    pub(super) credentials: Vec<Name>,
}

impl Book {
    /// Takes up what the journal remembers. All leases start anew: nobody is forgotten while we were away.
    pub(super) fn load(holdings: Holdings, running: Duration) -> Book {
        let mut pages = Pages::default();
        for holding in holdings.holdings {
            let key = (holding.application.clone(), holding.instance.clone());
            pages.note_holder(&holding.credential, key.clone());
            let instance = pages.instance(key);
            instance.lease_from = running;
            let recorded = holding.held.iter().cloned().collect();
            instance.holdings.insert(holding.credential.clone(), Entry { recorded, ..Entry::new(holding) });
        }
        pages.seen = holdings.seen.into_iter().map(|(application, credential)| (credential, application)).collect();
        Book { pages: Mutex::new(pages) }
    }

    // A panic while it was held leaves whole entries: each change is one insertion.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Any sign of life: the lease runs from now. Who holds nothing and streams nothing isn't on the books.
    pub(super) fn touch(&self, application: &Name, instance: &InstanceName, lease: Option<Duration>, running: Duration) {
        if let Some(entry) = self.pages().instances.get_mut(&(application.clone(), instance.clone())) {
            entry.lease_from = running;
            entry.lease = lease;
        }
    }

    /// Whether the application has so many instances that another one is more likely a defect than a copy.
    pub(super) fn is_full(&self, application: &Name, instance: &InstanceName) -> bool {
        let pages = self.pages();
        let known = pages.instances.contains_key(&(application.clone(), instance.clone()));
        !known && pages.instances.keys().filter(|(name, _)| name == application).count() >= INSTANCES_MAX
    }

    pub(super) fn stream_began(&self, application: &Name, instance: &InstanceName) {
        let mut pages = self.pages();
        pages.instance((application.clone(), instance.clone())).streams += 1;
        pages.soil(application, instance);
    }

    pub(super) fn stream_ended(&self, application: &Name, instance: &InstanceName, running: Duration) {
        let mut pages = self.pages();
        if let Some(entry) = pages.instances.get_mut(&(application.clone(), instance.clone())) {
            entry.streams = entry.streams.saturating_sub(1);
            entry.lease_from = running;
        }
        pages.soil(application, instance);
    }

    /// Two living instances that both don't name themselves.
    pub(super) fn is_ambiguous(&self, application: &Name, instance: &InstanceName) -> bool {
        let key = (application.clone(), instance.clone());
        let pages = self.pages();
        let here = pages.instances.get(&key).map_or(0, |entry| entry.streams);
        instance.is_unnamed() && here + pages.elsewhere.streams(&key) > 1
    }

    /// Notes that this version goes to this instance, which is this pod where it is known to be one. The answer is what must be durable
    /// before it goes, if that isn't yet.
    pub(super) fn serve(
        &self,
        application: &Name,
        instance: &InstanceName,
        credential: &Name,
        version: &VersionId,
        pod: Option<&PodKey>,
    ) -> Option<Vec<HoldingChange>> {
        let mut pages = self.pages();
        pages.note_holder(credential, (application.clone(), instance.clone()));
        pages.serial += 1;
        let serial = pages.serial;
        let entry = pages.instance((application.clone(), instance.clone()));
        let first = || Entry::new(Holding::none_yet(application.clone(), instance.clone(), credential.clone(), version.clone()));
        let known = entry.holdings.entry(credential.clone()).or_insert_with(first);
        if !known.holding.knows(version, pod) {
            // It is on record for others: not for this pod.
            known.recorded.remove(version);
        }
        known.holding.serve_to(version, pod);
        known.serials.insert(version.clone(), serial);
        if known.recorded.contains(version) {
            return None;
        }
        let put = HoldingChange::Put(known.holding.clone());
        let seen = HoldingChange::Seen { application: application.clone(), credential: credential.clone() };
        Some(vec![put, seen])
    }

    /// The disclosure is audited and durable.
    pub(super) fn recorded(&self, application: &Name, instance: &InstanceName, credential: &Name, version: &VersionId) {
        let mut pages = self.pages();
        pages.seen.insert((credential.clone(), application.clone()));
        let known = pages.instances.get_mut(&(application.clone(), instance.clone())).and_then(|entry| entry.holdings.get_mut(credential));
        if let Some(known) = known {
            known.recorded.insert(version.clone());
        }
        // That it was served follows in the row, after it was held there.
        pages.soil(application, instance);
    }

    /// Whether the disclosure of this version to this instance is on record.
    pub(super) fn is_recorded(&self, application: &Name, instance: &InstanceName, credential: &Name, version: &VersionId) -> bool {
        let pages = self.pages();
        let known = pages.instances.get(&(application.clone(), instance.clone())).and_then(|entry| entry.holdings.get(credential));
        known.is_some_and(|known| known.recorded.contains(version))
    }

    /// In whose names we read ourselves. The lease of those that are no longer among them begins now.
    pub(super) fn set_couriers(&self, couriers: BTreeSet<(Name, InstanceName)>, running: Duration) {
        let mut pages = self.pages();
        let gone: Vec<(Name, InstanceName)> = pages.couriers.difference(&couriers).cloned().collect();
        for key in gone {
            if let Some(entry) = pages.instances.get_mut(&key) {
                entry.lease_from = running;
            }
        }
        pages.couriers = couriers;
    }

    /// A courier's target has this version: from now on it counts as served. Whether that is news.
    pub(super) fn arrived(&self, application: &Name, instance: &InstanceName, credential: &Name, version: &VersionId) -> bool {
        let mut pages = self.pages();
        let known = pages.instances.get_mut(&(application.clone(), instance.clone())).and_then(|entry| entry.holdings.get_mut(credential));
        let Some(known) = known.filter(|known| known.arrived.as_ref() != Some(version)) else { return false };
        known.arrived = Some(version.clone());
        true
    }

    /// What this instance holds of a credential.
    pub(super) fn holding(&self, application: &Name, instance: &InstanceName, credential: &Name) -> Option<Holding> {
        let pages = self.pages();
        Some(pages.instances.get(&(application.clone(), instance.clone()))?.holdings.get(credential)?.holding.clone())
    }

    /// The confirmation is durable: takes it over, unless the instance was served a newer version meanwhile.
    pub(super) fn confirm(&self, confirmed: &Holding, version: &VersionId) -> Result<(), NotNewest> {
        let mut pages = self.pages();
        let key = (confirmed.application.clone(), confirmed.instance.clone());
        let Some(known) = pages.instances.get_mut(&key).and_then(|entry| entry.holdings.get_mut(&confirmed.credential)) else {
            return Err(NotNewest);
        };
        known.holding.confirm(version)?;
        known.recorded.retain(|recorded| recorded == version);
        known.serials.retain(|served, _| served == version);
        Ok(())
    }

    pub(super) fn was_seen(&self, application: &Name, credential: &Name) -> bool {
        self.pages().seen.contains(&(credential.clone(), application.clone()))
    }

    /// Sets the leases of all instances of an application, after its document was read again.
    pub(super) fn set_lease(&self, application: &Name, lease: Option<Duration>) {
        let mut pages = self.pages();
        pages.leases.insert(application.clone(), lease);
        for ((name, _), entry) in &mut pages.instances {
            if name == application {
                entry.lease = lease;
            }
        }
    }

    /// Removes an instance, unless it has come back to life since `expired` was asked (`running`: the time of that look).
    pub(super) fn remove(&self, application: &Name, instance: &InstanceName, still_expired_at: Option<Duration>) -> bool {
        let mut pages = self.pages();
        let key = (application.clone(), instance.clone());
        if still_expired_at.is_some_and(|running| !pages.is_out(&key, running)) {
            return false;
        }
        if !pages.instances.contains_key(&key) {
            return pages.elsewhere.knows(&key);
        }
        // Open streams go on; they only hold nothing any more until they are served again.
        let held = match pages.instances.get_mut(&key) {
            Some(entry) if entry.streams > 0 => std::mem::take(&mut entry.holdings),
            _ => pages.instances.remove(&key).map(|entry| entry.holdings).unwrap_or_default(),
        };
        held.keys().for_each(|credential| pages.strike_holder(credential, &key));
        pages.soil(application, instance);
        true
    }

    /// A person says that this application holds nothing of a credential that it was never served.
    pub(super) fn mark_seen(&self, application: &Name, credential: &Name) {
        self.pages().seen.insert((credential.clone(), application.clone()));
    }
}

#[cfg(test)]
mod tests;
