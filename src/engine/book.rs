//! The book of instances: who streams, whose lease runs, who holds what. In memory; what must last is in the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::holders::{Holding, NotNewest, PodKey};
use crate::domain::ids::{InstanceName, Name, VersionId};
use crate::domain::mutants::{Mutant, is_on};
use crate::journal::{HoldingChange, Holdings};

use super::pods::BoundPod;

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
}

impl Pages {
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

    /// Whether the lease has run out: without a stream, and without a sign of life for so long.
    fn is_out(&self, key: &(Name, InstanceName), entry: &Instance, running: Duration) -> bool {
        (entry.streams == 0 || is_on(Mutant::LeaseOfStreamRuns))
            && !self.couriers.contains(key)
            && entry.lease.is_some_and(|lease| running.saturating_sub(entry.lease_from) >= lease)
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
}

#[derive(Debug)]
struct Entry {
    holding: Holding,
    /// Versions whose disclosure is audited and durable.
    recorded: BTreeSet<VersionId>,
    /// Of what a courier reads: the version that its target has.
    arrived: Option<VersionId>,
}

impl Entry {
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
            let instance = pages.instances.entry(key).or_default();
            instance.lease_from = running;
            let recorded = holding.held.iter().cloned().collect();
            instance.holdings.insert(holding.credential.clone(), Entry { holding, recorded, arrived: None });
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
        self.pages().instances.entry((application.clone(), instance.clone())).or_default().streams += 1;
    }

    pub(super) fn stream_ended(&self, application: &Name, instance: &InstanceName, running: Duration) {
        if let Some(entry) = self.pages().instances.get_mut(&(application.clone(), instance.clone())) {
            entry.streams = entry.streams.saturating_sub(1);
            entry.lease_from = running;
        }
    }

    /// Two living instances that both don't name themselves.
    pub(super) fn is_ambiguous(&self, application: &Name, instance: &InstanceName) -> bool {
        let key = (application.clone(), instance.clone());
        instance.is_unnamed() && self.pages().instances.get(&key).is_some_and(|entry| entry.streams > 1)
    }

    /// Notes that this version goes to this instance, which is this pod where it is known to be one. The answer is what must be durable before it goes, if that isn't yet.
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
        let entry = pages.instances.entry((application.clone(), instance.clone())).or_default();
        let known = entry.holdings.entry(credential.clone()).or_insert_with(|| Entry {
            holding: Holding::none_yet(application.clone(), instance.clone(), credential.clone(), version.clone()),
            recorded: BTreeSet::new(),
            arrived: None,
        });
        if !known.holding.knows(version, pod) {
            // It is on record for others: not for this pod.
            known.recorded.remove(version);
        }
        known.holding.serve_to(version, pod);
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
        Ok(())
    }

    /// What everyone holds of a credential.
    pub(super) fn holdings_of(&self, credential: &Name) -> Vec<Holding> {
        let pages = self.pages();
        let holders = pages.holders.get(credential).into_iter().flatten();
        holders
            .filter_map(|holder| Some((holder, pages.instances.get(holder)?.holdings.get(credential)?)))
            .map(|(holder, entry)| entry.on_record(pages.couriers.contains(holder)))
            .collect()
    }

    pub(super) fn was_seen(&self, application: &Name, credential: &Name) -> bool {
        self.pages().seen.contains(&(credential.clone(), application.clone()))
    }

    /// Whether the application has an instance that counts.
    pub(super) fn instances_of(&self, application: &Name) -> Vec<(InstanceName, Vec<Name>)> {
        let pages = self.pages();
        let of_application = pages.instances.iter().filter(|((name, _), _)| name == application);
        of_application.map(|((_, instance), entry)| (instance.clone(), entry.holdings.keys().cloned().collect())).collect()
    }

    /// Instances of an application that have a stream, or whose state we bring to them ourselves.
    pub(super) fn streaming(&self, application: &Name) -> Vec<InstanceName> {
        let pages = self.pages();
        let lives = |key: &(Name, InstanceName), entry: &Instance| entry.streams > 0 || pages.couriers.contains(key);
        let streaming = pages.instances.iter().filter(|(key, entry)| key.0 == *application && lives(key, entry));
        streaming.map(|((_, instance), _)| instance.clone()).collect()
    }

    /// Instances whose lease has run out: without a stream, and without a sign of life for so long.
    pub(super) fn expired(&self, running: Duration) -> Vec<Expired> {
        let pages = self.pages();
        let expired = pages.instances.iter().filter(|(key, entry)| pages.is_out(key, entry, running));
        expired
            .map(|((application, instance), entry)| Expired {
                application: application.clone(),
                instance: instance.clone(),
                credentials: entry.holdings.keys().cloned().collect(),
            })
            .collect()
    }

    /// Sets the leases of all instances of an application, after its document was read again.
    pub(super) fn set_lease(&self, application: &Name, lease: Option<Duration>) {
        for ((name, _), entry) in &mut self.pages().instances {
            if name == application {
                entry.lease = lease;
            }
        }
    }

    /// The running time at which the next lease runs out.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        let pages = self.pages();
        let leased = pages.instances.iter().filter(|(key, entry)| entry.streams == 0 && !pages.couriers.contains(key));
        leased.filter_map(|(_, entry)| Some(entry.lease_from + entry.lease?)).min()
    }

    /// Removes an instance, unless it has come back to life since `expired` was asked (`running`: the time of that look).
    pub(super) fn remove(&self, application: &Name, instance: &InstanceName, still_expired_at: Option<Duration>) -> bool {
        let mut pages = self.pages();
        let key = (application.clone(), instance.clone());
        let Some(entry) = pages.instances.get(&key) else { return false };
        if let Some(running) = still_expired_at {
            if !pages.is_out(&key, entry, running) {
                return false;
            }
        }
        // Open streams go on; they only hold nothing any more until they are served again.
        let held = match pages.instances.get_mut(&key) {
            Some(entry) if entry.streams > 0 => std::mem::take(&mut entry.holdings),
            _ => pages.instances.remove(&key).map(|entry| entry.holdings).unwrap_or_default(),
        };
        held.keys().for_each(|credential| pages.strike_holder(credential, &key));
        true
    }

    /// The pods that anybody holds anything by.
    pub(super) fn bound(&self) -> BTreeSet<BoundPod> {
        let pages = self.pages();
        let mut bound = BTreeSet::new();
        for ((application, instance), entry) in &pages.instances {
            for (uid, hold) in entry.holdings.values().flat_map(|known| &known.holding.pods) {
                let pod = PodKey { namespace: hold.namespace.clone(), uid: uid.clone() };
                bound.insert(BoundPod { application: application.clone(), instance: instance.clone(), pod });
            }
        }
        bound
    }

    /// A pod is gone: what it alone held is free. What has to become durable, and of which credentials; an instance that holds nothing
    /// any more is no holder of them.
    pub(super) fn forget_pod(&self, gone: &BoundPod) -> Vec<HoldingChange> {
        let mut pages = self.pages();
        let key = (gone.application.clone(), gone.instance.clone());
        let Some(entry) = pages.instances.get_mut(&key) else { return Vec::new() };
        let mut changes = Vec::new();
        for (credential, known) in &mut entry.holdings {
            if known.holding.forget_pod(&gone.pod.uid) {
                let held = &known.holding.held;
                known.recorded.retain(|version| held.contains(version));
                changes.push(match held.is_empty() {
                    false => HoldingChange::Put(known.holding.clone()),
                    true => HoldingChange::Remove {
                        application: gone.application.clone(),
                        instance: gone.instance.clone(),
                        credential: credential.clone(),
                    },
                });
            }
        }
        entry.holdings.retain(|_, known| !known.holding.held.is_empty());
        let is_over = entry.holdings.is_empty() && entry.streams == 0;
        for change in changes.iter().filter(|change| matches!(change, HoldingChange::Remove { .. })) {
            pages.strike_holder(change.credential(), &key);
        }
        if is_over {
            pages.instances.remove(&key);
        }
        changes
    }

    /// A person says that this application holds nothing of a credential that it was never served.
    pub(super) fn mark_seen(&self, application: &Name, credential: &Name) {
        self.pages().seen.insert((credential.clone(), application.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Option<Duration> = Some(Duration::from_secs(5));

    fn names() -> (Name, InstanceName, Name, VersionId) {
        ("app".parse().unwrap(), "one".parse().unwrap(), "key".parse().unwrap(), "v1".parse().unwrap())
    }

    #[test]
    fn a_lease_runs_from_the_end_of_the_stream() {
        let (app, one, key, v1) = names();
        let book = Book::default();
        let at = Duration::from_secs;
        book.stream_began(&app, &one);
        book.touch(&app, &one, LEASE, at(0));
        assert!(book.serve(&app, &one, &key, &v1, None).is_some());
        assert!(book.expired(at(100)).is_empty());
        book.stream_ended(&app, &one, at(100));
        assert!(book.expired(at(104)).is_empty());
        assert_eq!(book.expired(at(105)).len(), 1);
        book.touch(&app, &one, LEASE, at(105));
        assert!(!book.remove(&app, &one, Some(at(105))), "it came back");
        assert!(book.remove(&app, &one, None));
        assert!(book.holdings_of(&key).is_empty());
    }

    #[test]
    fn only_what_is_durable_is_not_asked_for_again() {
        let (app, one, key, v1) = names();
        let book = Book::default();
        assert!(book.serve(&app, &one, &key, &v1, None).is_some());
        assert!(book.serve(&app, &one, &key, &v1, None).is_some(), "the first write failed");
        book.recorded(&app, &one, &key, &v1);
        assert!(book.serve(&app, &one, &key, &v1, None).is_none());
        assert!(book.was_seen(&app, &key));
    }

    #[test]
    fn who_holds_a_credential_is_known_by_its_name_until_it_is_gone() {
        let (app, one, key, v1) = names();
        let (two, other): (InstanceName, Name) = ("two".parse().unwrap(), "other".parse().unwrap());
        let book = Book::default();
        for (instance, credential) in [(&two, &key), (&one, &key), (&one, &other), (&one, &key)] {
            assert!(book.serve(&app, instance, credential, &v1, None).is_some());
        }
        let holders = |credential| book.holdings_of(credential).into_iter().map(|holding| holding.instance).collect::<Vec<_>>();
        assert_eq!((holders(&key), holders(&other)), (vec![one.clone(), two.clone()], vec![one.clone()]), "each once, in order");
        book.stream_began(&app, &one);
        assert!(book.remove(&app, &one, None), "it is released, and streams on");
        assert_eq!((holders(&key), holders(&other)), (vec![two.clone()], vec![]));
        assert!(book.serve(&app, &one, &key, &v1, None).is_some());
        assert_eq!(holders(&key), [one.clone(), two.clone()]);
        book.stream_ended(&app, &one, Duration::ZERO);
        assert!(book.remove(&app, &one, None) && book.remove(&app, &two, None));
        assert_eq!(holders(&key), []);
        assert!(book.pages().holders.is_empty(), "nothing is left of who is gone");
    }

    #[test]
    fn what_is_not_on_record_was_not_observed() {
        let (app, one, key, v1) = names();
        let v2: VersionId = "v2".parse().unwrap();
        let book = Book::default();
        assert!(book.serve(&app, &one, &key, &v1, None).is_some());
        book.recorded(&app, &one, &key, &v1);
        assert!(book.serve(&app, &one, &key, &v2, None).is_some(), "and the audit trail can't be written");
        assert_eq!(book.holdings_of(&key)[0].newest, v1, "the read was refused: it has the old version only");
        book.recorded(&app, &one, &key, &v2);
        assert_eq!(book.holdings_of(&key)[0].newest, v2);
    }

    #[test]
    fn what_a_courier_read_was_observed_once_its_target_has_it() {
        let (app, one, key, v1) = names();
        let v2: VersionId = "v2".parse().unwrap();
        let mut holding = Holding::first(app.clone(), one.clone(), key.clone(), v1.clone());
        holding.serve(&v2);
        let load = || Book::load(Holdings { holdings: vec![holding.clone()], seen: Vec::new() }, Duration::ZERO);
        let newest = |book: &Book| book.holdings_of(&key)[0].newest.clone();
        let book = load();
        assert_eq!(newest(&book), v2, "an application's own read");
        let couriers = BTreeSet::from([(app.clone(), one.clone())]);
        book.set_couriers(couriers.clone(), Duration::ZERO);
        assert_eq!(newest(&book), v1, "read, and perhaps nowhere yet");
        assert!(book.arrived(&app, &one, &key, &v2) && !book.arrived(&app, &one, &key, &v2), "it is news once");
        assert_eq!((newest(&book), book.holdings_of(&key)[0].held.len()), (v2.clone(), 2), "observed, and not confirmed");
        let again = load();
        again.set_couriers(couriers, Duration::ZERO);
        assert_eq!(newest(&again), v1, "what a former process brought there isn't taken on trust");
        let mut confirmed = again.holding(&app, &one, &key).unwrap();
        confirmed.confirm(&v2).unwrap();
        assert_eq!(again.confirm(&confirmed, &v2), Ok(()));
        assert_eq!((newest(&again), again.holdings_of(&key)[0].held.len()), (v2, 1), "a proof is a proof");
    }

    #[test]
    fn a_courier_holds_for_as_long_as_its_way_is_asked_for() {
        let (app, one, key, v1) = names();
        let book = Book::default();
        let at = Duration::from_secs;
        book.set_couriers(BTreeSet::from([(app.clone(), one.clone())]), at(0));
        assert!(book.serve(&app, &one, &key, &v1, None).is_some());
        book.touch(&app, &one, LEASE, at(0));
        assert!(book.expired(at(1_000)).is_empty() && book.next_expiry().is_none() && !book.remove(&app, &one, Some(at(1_000))));
        assert_eq!(book.streaming(&app), [one]);
        book.set_couriers(BTreeSet::new(), at(1_000));
        assert!(book.expired(at(1_004)).is_empty(), "its lease begins when the way is no longer asked for");
        assert_eq!((book.expired(at(1_005)).len(), book.next_expiry()), (1, Some(at(1_005))));
    }

    #[test]
    fn a_restart_starts_leases_anew_and_frees_nobody() {
        let (app, one, key, v1) = names();
        let holding = Holding::first(app.clone(), one, key.clone(), v1);
        let book = Book::load(Holdings { holdings: vec![holding], seen: Vec::new() }, Duration::from_secs(1_000));
        assert!(book.expired(Duration::from_secs(9_000_000)).is_empty(), "no document has told its lease yet");
        book.set_lease(&app, LEASE);
        assert!(book.expired(Duration::from_secs(1_004)).is_empty());
        assert_eq!(book.expired(Duration::from_secs(1_005)).len(), 1);
    }

    fn pod(uid: &str) -> PodKey {
        PodKey { namespace: "payments".parse().unwrap(), uid: uid.parse().unwrap() }
    }

    #[test]
    fn a_pod_that_takes_a_name_over_is_recorded_as_itself() {
        let (app, one, key, v1) = names();
        let (a, b) = (pod("a"), pod("b"));
        let book = Book::default();
        assert!(book.serve(&app, &one, &key, &v1, Some(&a)).is_some());
        book.recorded(&app, &one, &key, &v1);
        assert!(book.serve(&app, &one, &key, &v1, Some(&a)).is_none());
        assert!(book.serve(&app, &one, &key, &v1, Some(&b)).is_some());
        assert!(book.serve(&app, &one, &key, &v1, Some(&b)).is_some(), "the first write failed");
        book.recorded(&app, &one, &key, &v1);
        assert!(book.serve(&app, &one, &key, &v1, Some(&b)).is_none());
        let bound: Vec<PodKey> = book.bound().into_iter().map(|bound| bound.pod).collect();
        assert_eq!(bound, [a, b]);
    }

    #[test]
    fn a_pod_that_is_gone_leaves_what_others_hold() {
        let (app, one, key, v1) = names();
        let other: Name = "other".parse().unwrap();
        let book = Book::default();
        for (credential, to) in [(&key, "a"), (&key, "b"), (&other, "a")] {
            assert!(book.serve(&app, &one, credential, &v1, Some(&pod(to))).is_some());
            book.recorded(&app, &one, credential, &v1);
        }
        let gone = |uid| BoundPod { application: app.clone(), instance: one.clone(), pod: pod(uid) };
        let changes = book.forget_pod(&gone("a"));
        assert!(
            matches!(&changes[..], [HoldingChange::Put(left), HoldingChange::Remove { credential, .. }] if left.credential == key && *credential == other)
        );
        assert_eq!((book.holdings_of(&key).len(), book.holdings_of(&other).len()), (1, 0));
        assert_eq!(book.forget_pod(&gone("a")), [], "once");
        assert_eq!(book.forget_pod(&gone("b")).len(), 1);
        assert!(book.holdings_of(&key).is_empty() && book.pages().instances.is_empty() && book.pages().holders.is_empty());
    }

    #[test]
    fn two_unnamed_streams_are_ambiguous() {
        let (app, one, ..) = names();
        let book = Book::default();
        let unnamed = InstanceName::unnamed();
        for instance in [&one, &unnamed] {
            book.stream_began(&app, instance);
            assert!(!book.is_ambiguous(&app, instance));
            book.stream_began(&app, instance);
        }
        assert!(!book.is_ambiguous(&app, &one));
        assert!(book.is_ambiguous(&app, &unnamed));
    }
}
