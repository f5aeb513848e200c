//! What operators do on a bad day, as the contract tells it: a stolen key, a way back, a pause, a key that goes by hand, all of it
//! forgotten.

use std::collections::BTreeSet;
use std::time::Duration;

use keywright::domain::ids::{KeyId, Name, VersionId};
use keywright::domain::ledger::Origin;
use keywright::domain::rotation::{Event, Plan, RevocationAsked};
use keywright::issuers::memory::MemoryIssuer;

use super::{Before, Known, Model, Version};
use crate::scene::{Inner, truly};

/// Waits between retries, and between two looks of ours.
const LIMIT_SLACK: Duration = Duration::from_secs(1_200);

/// How often each was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deeds {
    pub incidents: u64,
    pub rollbacks: u64,
    pub pauses: u64,
    pub revoked: u64,
    pub forgotten: u64,
    pub restored: u64,
    /// How old keys that a person was to remove were closed.
    pub proved: u64,
    pub reported: u64,
    pub unproved: u64,
}

/// A key that somebody else has, and all older ones with it.
#[derive(Debug, Clone)]
pub struct Theft {
    pub from: Duration,
    pub within: Duration,
    pub keys: BTreeSet<KeyId>,
    pub closed: bool,
}

impl Known {
    /// Overlap and windows don't count.
    pub fn is_hurried(&self) -> bool {
        self.asked.is_some() || self.open_theft().is_some()
    }

    fn open_theft(&self) -> Option<&Theft> {
        self.theft.as_ref().filter(|theft| !theft.closed)
    }

    /// Whether the old key goes in spite of those who hold it: a person said so, or the limit of the incident is over. What replaces
    /// an old key and was stolen itself has holders that need the rest of the limit: the first ones have half of it.
    pub fn overrules(&self, at: Duration) -> bool {
        let again = |theft: &Theft| self.current_key().is_some_and(|key| theft.keys.contains(key));
        let over = |theft: &Theft| at >= theft.from + if again(theft) { theft.within / 2 } else { theft.within };
        self.asked == Some(true) || self.open_theft().is_some_and(over)
    }

    /// The events that only a person's word brings about.
    pub fn by_hand(&mut self, event: &Event, at: Duration) -> Option<(&'static str, String)> {
        match event {
            Event::RollbackPlanned { plan } => return self.turn_back(plan),
            Event::Paused { .. } => self.paused = true,
            Event::Resumed => self.paused = false,
            Event::Compromised { within, .. } => {
                let before = self.theft.take().filter(|theft| !theft.closed);
                let mut keys = before.map(|theft| theft.keys).unwrap_or_default();
                let old = self.old.as_ref().and_then(|old| self.versions.get(old)).filter(|old| !old.ended);
                // After a rollback, what it took back is the younger of the two, and nobody said that it is stolen.
                let current = self.current.as_ref().and_then(|current| self.versions.get(current));
                let old = old.filter(|old| current.is_none_or(|current| old.made <= current.made));
                keys.extend(self.current_key().into_iter().chain(old.map(|old| &old.key)).cloned());
                self.theft = Some(Theft { from: at, within: *within, keys, closed: false });
            }
            Event::IncidentClosed { .. } => {
                if let Some(theft) = &mut self.theft {
                    theft.closed = true;
                }
            }
            Event::RevocationAsked { asked, stragglers } => {
                self.asked = Some(*asked == RevocationAsked::Anyway || self.asked == Some(true));
                let names = stragglers.iter().map(|who| (who.application.clone(), who.instance.as_ref().map(ToString::to_string)));
                self.stragglers.extend(names);
            }
            Event::Forgotten => self.forget(),
            Event::Cleared => self.clearing = false,
            Event::Restored => self.unverified = self.current.is_some(),
            _ => {}
        }
        None
    }

    fn turn_back(&mut self, plan: &Plan) -> Option<(&'static str, String)> {
        let Some(original) = self.old.as_ref().and_then(|old| self.versions.get(old)).cloned() else {
            return Some(("I10", "a rollback where there is no old key".to_owned()));
        };
        let shut = original.doomed || original.ended || self.asked.is_some() || self.open_theft().is_some();
        let before = Before {
            plan: self.plan.replace(plan.clone()),
            planned_under: self.planned_under.replace(self.policy.clone()),
            stragglers: std::mem::take(&mut self.stragglers),
        };
        self.back = Some(before);
        self.candidate = Some(plan.version.clone());
        let key = original.key.clone();
        let copy = Version {
            generation: plan.generation,
            stored: false,
            verified_terms: BTreeSet::new(),
            counted_refusals: 0,
            promoted: None,
            copy: true,
            ..original
        };
        let given_up = self.failed_copies.contains_key(&plan.version);
        if plan.origin != Origin::RolledBack || given_up || self.versions.insert(plan.version.clone(), copy).is_some() {
            return Some(("I10", format!("a label returns to {}", plan.version)));
        }
        shut.then(|| ("I10", format!("a rollback to {key}, whose end has begun")))
    }

    /// The way back was shut: what was turned round goes on, and the original is what it was.
    pub fn stayed(&mut self) -> Option<(&'static str, String)> {
        let Before { plan, planned_under, stragglers } = self.back.take()?;
        let copy = self.candidate.take();
        (self.plan, self.planned_under, self.stragglers) = (plan, planned_under, stragglers);
        (self.abandoning, self.intent) = (false, None);
        match copy.and_then(|copy| self.versions.remove_entry(&copy)) {
            Some((version, copy)) => self.failed_copies.insert(version, copy.key).map(|_| ("I10", "a copy was given up twice".to_owned())),
            None => Some(("I10", "there was no copy".to_owned())),
        }
    }

    /// What is known of the keys stays; they live on, and nobody here touches them (README).
    fn forget(&mut self) {
        self.versions.values_mut().filter(|version| !version.ended).for_each(|version| version.left = true);
        (self.plan, self.planned_under, self.turned, self.back) = (None, None, None, None);
        (self.intent, self.candidate, self.abandoning, self.asked) = (None, None, false, None);
        (self.told, self.acknowledged, self.theft, self.old) = (None, None, None, None);
        self.orphans.clear();
        (self.refused_told, self.unverified) = (false, false);
        (self.clearing, self.forgotten) = (true, true);
    }
}

impl Model {
    /// All that destroys waits for a person.
    pub fn is_paused(&self, name: &Name) -> bool {
        self.all_paused || self.known[name].paused
    }
}

impl Inner {
    /// What nobody can end while it is paused, or without a key that signs, isn't late yet.
    pub fn hold_still(&mut self, name: &Name) {
        let known = &self.model.known[name];
        if self.model.is_paused(name) || self.model.maybe_paused || (known.forgotten && known.current.is_none()) {
            self.quiet_since = self.quiet_since.max(self.at);
        }
    }

    /// The store holds these no more. What a deposed process clears late was forgotten when it began.
    pub fn cleared(&mut self, name: &Name, versions: &BTreeSet<VersionId>) {
        let Some(known) = self.model.known.get_mut(name) else { return };
        let stages = [&mut known.current, &mut known.old, &mut known.candidate];
        let taken = stages.map(|stage| stage.take_if(|version| versions.contains(version))).iter().flatten().count();
        let forgotten = known.clearing || taken == 0;
        self.require(forgotten, "I11", || format!("{name}: the store is cleared of what nobody forgot"));
    }

    /// What must be true when a person's word becomes durable.
    pub fn may_by_hand(&mut self, issuer: &MemoryIssuer, name: &Name, event: &Event) {
        match event {
            Event::Forgotten => {
                let paused = self.model.is_paused(name);
                self.require(!paused, "I5", || format!("{name}: it is forgotten while it is paused"));
                self.model.deeds.forgotten += 1;
            }
            Event::Compromised { .. } => self.model.deeds.incidents += 1,
            Event::RollbackPlanned { .. } => self.model.deeds.rollbacks += 1,
            Event::Paused { .. } => self.model.deeds.pauses += 1,
            Event::RevocationAsked { .. } => self.model.deeds.revoked += 1,
            Event::IncidentClosed { unknown_keys, .. } => self.may_close(issuer, name, unknown_keys.as_ref()),
            _ => {}
        }
    }

    /// An incident ends when the stolen keys have, and whatever a thief may have made is named.
    fn may_close(&mut self, issuer: &MemoryIssuer, name: &Name, unknown: Option<&BTreeSet<KeyId>>) {
        let known = &self.model.known[name];
        let stolen: Vec<KeyId> = known.theft.iter().flat_map(|theft| theft.keys.iter().cloned()).collect();
        let ended = |key: &KeyId| {
            let given_up = known.versions.values().any(|version| version.key == *key && version.ended);
            given_up || self.model.revoked.contains(key) || self.model.outside.contains(key)
        };
        let alive = stolen.iter().find(|key| !ended(key)).cloned();
        let (environment, now, blind) = (known.environment, truly(self.at), self.model.blind);
        let made = issuer.history(|keys| keys.iter().filter(|key| stolen.contains(&key.key_id)).map(|key| key.created_at).max());
        let since = |key: &keywright::issuers::memory::SimKey| made.is_some_and(|made| key.created_at > made);
        let by_others = issuer.history(|keys| {
            let alive = keys.iter().filter(|key| key.environment == environment && super::checks::lives(key, now) && since(key));
            let nobodys = alive.filter(|key| self.model.by_hand.contains_key(&key.key_id) && self.model.adopted(&key.key_id).is_none());
            nobodys.map(|key| key.key_id.clone()).collect::<Vec<_>>()
        });
        let unnamed = by_others.into_iter().find(|key| unknown.is_some_and(|unknown| !unknown.contains(key)));
        // A submission that failed leaves its key a person's, which nobody here knows.
        let is_ours = |key: &&KeyId| self.model.adopted(key).is_some_and(|(_, _, version)| !version.is_a_persons());
        let ours = unknown.into_iter().flatten().find(is_ours).cloned();
        self.require(alive.is_none(), "I5", || format!("{name}: the incident is closed and {alive:?} lives"));
        self.require(blind == unknown.is_none(), "I2", || format!("{name}: a list is claimed where there is none, or forgone"));
        self.require(unnamed.is_none(), "I2", || format!("{name}: {unnamed:?} may be a thief's and isn't named"));
        self.require(ours.is_none(), "I2", || format!("{name}: {ours:?} is ours and is taken for a thief's"));
    }

    /// A stolen key dies at the limit, held or not, where nothing is in the way. The limit is running time: it may begin anew with
    /// each disturbance, and no later.
    pub fn limit_kept(&mut self, name: &Name) {
        let known = &self.model.known[name];
        let of = |version: &Option<_>| version.as_ref().and_then(|version| known.versions.get(version));
        let (Some(theft), Some(old), Some(current)) = (known.open_theft(), of(&known.old), of(&known.current)) else { return };
        let replaced = theft.keys.contains(&old.key) && !theft.keys.contains(&current.key) && !old.doomed;
        let stands = known.refused_told || known.back.is_some() || known.turned.is_some() || self.model.jumps;
        let from = self.quiet_since.max(theft.from).max(current.promoted.unwrap_or(self.at));
        let late = self.at > from + theft.within + LIMIT_SLACK;
        let key = old.key.clone();
        self.require(!replaced || stands || !late, "I5", || format!("{name}: {key} is stolen, the limit is over, and it lives"));
    }

    /// An incident that goes on when nothing is in the way any more.
    pub fn theft_unended(&self) -> Option<String> {
        let open = |known: &Known| known.open_theft().is_some_and(|theft| self.at > theft.from + theft.within);
        let (name, _) = self.model.known.iter().find(|(_, known)| open(known))?;
        Some(format!("{name}: the incident doesn't end"))
    }
}

impl std::ops::AddAssign for Deeds {
    fn add_assign(&mut self, other: Deeds) {
        self.incidents += other.incidents;
        self.rollbacks += other.rollbacks;
        self.pauses += other.pauses;
        self.revoked += other.revoked;
        self.forgotten += other.forgotten;
        self.restored += other.restored;
        self.proved += other.proved;
        self.reported += other.reported;
        self.unproved += other.unproved;
    }
}
