//! What must be true when something takes effect: at the provider, in the store, in the journal.

use std::time::Duration;

use jiff::Timestamp;
use keywright::domain::ids::{KeyId, Name, VersionId};
use keywright::domain::material::Material;
use keywright::domain::policy::{Confirmation, RotationPolicy, Unconfirmed};
use keywright::domain::rotation::Event;
use keywright::domain::windows::next_open;
use keywright::issuers::memory::MemoryIssuer;
use keywright::issuers::{CreateRequest, Target};
use keywright::stores::Slot;
use uuid::Uuid;

use super::{Version, key_of, lead};
use crate::scene::{Inner, Process, truly};

/// Two small jumps that are believed, one after the other, and what a step takes.
const CLOCK_SLACK: Duration = Duration::from_secs(660);

/// The key that a person brought has no id in the journal; the model knows it all the same.
fn naming(event: &Event, brought: Option<KeyId>) -> Event {
    match event.clone() {
        Event::Issued { key_id: None, issued_at, expires_at, fingerprints, copy_of, old_ends_at } => {
            Event::Issued { key_id: brought, issued_at, expires_at, fingerprints, copy_of, old_ends_at }
        }
        event => event,
    }
}

/// Ages are told apart by our clock, which storms by a second.
const STORM: Duration = Duration::from_secs(2);

impl Inner {
    /// A value goes to the provider (I18).
    pub fn sent(&mut self, issuer: &MemoryIssuer, target: &Target, material: &Material) {
        let Some(key) = key_of(material) else { return };
        let home = issuer.history(|keys| keys.iter().find(|known| known.key_id == key).map(|known| known.environment));
        self.require(home == Some(target.environment), "I18", || format!("{key} was sent to {}", target.environment));
    }

    pub fn probed(&mut self, process: u64, material: &Material, works: bool) {
        let at = self.at;
        if let Some(key) = key_of(material).filter(|_| works) {
            self.model.probes.insert((process, key), at);
        }
    }

    pub fn creating(&mut self, issuer: &MemoryIssuer, process: &Process, target: &Target, request: &CreateRequest) {
        let name = &target.credential;
        let newest = process.number == self.newest;
        self.model.deposed_calls |= !newest;
        let known = &self.model.known[name];
        let operation = request.operation.to_string();
        let open = known.intent.as_ref().is_some_and(|(open, ..)| open.to_string() == operation);
        let before = known.intents.contains(&operation);
        self.require(open || (!newest && before), "I1", || format!("{name}: a key is made without its intent in the journal"));
        let text = format!("create-intended {name} operation {operation}");
        self.require(self.model.records.contains(&text), "I17", || format!("{name}: a key is made off the record"));
        let known = &self.model.known[name];
        if let (Some(plan), Some((_, attempt, _)), true) = (&known.plan, &known.intent, open) {
            let short = &self.model.installation.0.simple().to_string()[..8];
            let marker = format!("kw-{short}-{name}-{}-{attempt}", plan.generation);
            let own = Uuid::new_v5(&self.model.installation.0, format!("{name}/{}/{attempt}", plan.generation).as_bytes());
            let fits = marker == request.marker && own.to_string() == operation;
            let again = issuer.history(|keys| keys.iter().any(|key| key.name == marker && self.model.revoked.contains(&key.key_id)));
            self.require(!again, "I8", || format!("{name}: the operation of a revoked key is used again"));
            self.require(fits, "I8", || format!("{name}: operation or marker isn't that of generation and attempt"));
        }
    }

    /// After a create: what the provider has now.
    pub fn created(&mut self, issuer: &MemoryIssuer, target: &Target) {
        let name = target.credential.clone();
        // What the provider ended to make room, nobody could know before.
        issuer.history(|keys| {
            let evicted = keys.iter().filter(|key| key.dead_from.is_some() && !self.model.revoked.contains(&key.key_id));
            self.model.outside.extend(evicted.map(|key| key.key_id.clone()));
        });
        if self.model.blind {
            return;
        }
        let now = truly(self.at);
        let living: Vec<(KeyId, String)> = issuer.living(target.environment);
        let ours = living.iter().filter(|(key, text)| {
            let adopted = self.model.adopted(key);
            let left = adopted.is_some_and(|(_, _, version)| version.left || version.is_a_persons());
            let adopted = adopted.is_some_and(|(of, _, version)| *of == name && !version.ended);
            !left && !self.model.revoked.contains(key) && (adopted || self.model.marked(text) == Some(&name))
        });
        let (count, plain) = (ours.count(), !self.model.repeated_calls && !self.model.deposed_calls);
        self.require(count <= 2 || !plain, "I2", || format!("{name}: {count} keys of ours live at {now}"));
    }

    pub fn revoking(&mut self, issuer: &MemoryIssuer, process: &Process, target: &Target, key: &KeyId) {
        let name = target.credential.clone();
        let newest = process.number == self.newest;
        self.model.deposed_calls |= !newest;
        let theirs = self.model.by_hand.get(key).is_some_and(|whose| whose.as_ref() != Some(&name));
        self.require(!theirs, "I2", || format!("{name}: {key} is somebody else's and is revoked"));
        let current = self.model.known.values().any(|known| known.current_key() == Some(key));
        self.require(!current, "I3", || format!("{name}: {key} is current and is revoked"));
        let title = issuer.history(|keys| keys.iter().find(|known| known.key_id == *key).map(|known| known.name.clone()));
        let known = &self.model.known[&name];
        let marked = title.as_deref().is_some_and(|text| self.model.marked(text) == Some(&name) || self.model.was_ours(text, key, &name));
        let of_key: Vec<&Version> = known.versions.values().filter(|version| version.key == *key).collect();
        let (promoted, doomed) = (of_key.iter().any(|version| version.promoted.is_some()), of_key.iter().any(|version| version.doomed));
        let submitted = of_key.iter().any(|version| version.submitted);
        let given_up = of_key.iter().any(|version| version.abandoned || (known.abandoning && version.promoted.is_none()));
        let of_key_left = !of_key.is_empty() && of_key.iter().all(|version| version.left);
        let orphan = known.orphans.contains(key);
        // What a deposed process sent off before the pause may arrive late.
        let paused = self.model.is_paused(&name) && newest;
        let off = self.off.abs() > jiff::SignedDuration::try_from(CLOCK_SLACK).unwrap();
        self.require(!paused, "I5", || format!("{name}: {key} is revoked while it is paused"));
        let known = &self.model.known[&name];
        let of_key: Vec<&Version> = known.versions.values().filter(|version| version.key == *key).collect();
        let word = match (promoted, orphan, of_key.is_empty()) {
            (true, false, _) => "revoking",
            (_, true, _) | (_, _, true) => "revoking-orphan",
            _ => "revoking-candidate",
        };
        if word == "revoking" {
            self.require(doomed, "I1", || format!("{name}: {key} is revoked without its intent"));
            let left = of_key_left;
            self.require(!left, "I2", || format!("{name}: {key} was forgotten and is revoked"));
            // What a deposed process sent off under a clock that was right may arrive late.
            self.require(!off || !newest, "I13", || format!("{name}: {key} is revoked under a wall clock that is off"));
        } else {
            self.require(marked && !submitted, "I2", || format!("{name}: {key} isn't ours to revoke"));
            self.require(orphan || given_up || !newest, "I1", || format!("{name}: {key} is given up without a word in the journal"));
        }
        let on_record = self.model.records.contains(&format!("{word} {name} key {key}"));
        self.require(on_record, "I17", || format!("{name}: {key} is revoked off the record"));
    }

    /// The provider may have answered anything: what counts is whether the key has ended.
    pub fn revoked(&mut self, issuer: &MemoryIssuer, key: &KeyId) {
        let ended = issuer.history(|keys| keys.iter().any(|known| known.key_id == *key && known.dead_from.is_some()));
        if ended {
            self.model.revocations += 1;
            self.model.revoked.insert(key.clone());
        }
    }

    pub fn putting(&mut self, process: &Process, issuer: &MemoryIssuer, slot: &Slot, version: &VersionId, material: &Material) {
        let name = &slot.credential;
        let key = key_of(material);
        let home = issuer.history(|keys| keys.iter().find(|known| Some(&known.key_id) == key.as_ref()).map(|known| known.environment));
        self.require(home == Some(slot.environment), "I18", || format!("{name}: a value of another environment is stored"));
        let theirs = &self.model.known[name];
        let late = theirs.failed_copies.get(version).filter(|_| process.number != self.newest);
        let known = theirs.versions.get(version).map(|version| &version.key).or(late).cloned();
        self.require(known.is_some() && known == key, "I11", || format!("{name}: {version} is stored and isn't what was issued"));
    }

    pub fn promoting(&mut self, process: &Process, slot: &Slot, version: &VersionId) {
        let name = slot.credential.clone();
        self.model.deposed_calls |= process.number != self.newest;
        let Some(known) = self.model.known[&name].versions.get(version).cloned() else {
            return self.broken("I1", format!("{name}: {version} is promoted and was never issued"));
        };
        let term = process.term.load(std::sync::atomic::Ordering::Relaxed);
        self.require(known.verified_terms.contains(&term), "I4", || format!("{name}: {version} isn't verified in term {term}"));
        let probed = self.model.probes.contains_key(&(process.number, known.key.clone()));
        let read = self.model.reads.contains(&(process.number, version.clone()));
        self.require(probed && read, "I4", || format!("{name}: {version} was not read back and accepted by this process"));
        self.require(!known.doomed && !known.ended && !self.model.revoked.contains(&known.key), "I10", || {
            format!("{name}: {version} was given up and is promoted")
        });
        let on_record = self.model.records.contains(&format!("promoting {name} {version}"));
        self.require(on_record, "I17", || format!("{name}: {version} is promoted off the record"));
        self.open_window(&name, "promoted");
    }

    pub fn promoted(&mut self, slot: &Slot, version: &VersionId) {
        let (at, name) = (self.at, slot.credential.clone());
        self.model.promotions += 1;
        let Some(known) = self.model.known.get_mut(&name) else { return };
        let before = known.current.replace(version.clone());
        let Some(now) = known.versions.get_mut(version) else { return };
        now.promoted.get_or_insert(at);
        let generation = now.generation;
        let same = known.generations.insert(generation, version.clone()).filter(|other| other != version);
        if known.turned.is_none() {
            known.old = before.or(known.old.take());
        } else if let Some(dead) = before.and_then(|before| known.versions.get_mut(&before)) {
            dead.ended = true;
        }
        self.require(same.is_none(), "I7", || format!("{name}: generation {generation} was adopted twice"));
    }

    pub fn forgetting(&mut self, issuer: &MemoryIssuer, slot: &Slot, version: &VersionId) {
        let (name, at) = (&slot.credential, truly(self.at));
        let Some(known) = self.model.known[name].versions.get(version) else { return };
        // A submission that failed keeps its key alive: it is the person's.
        if known.promoted.is_none() && (known.submitted || known.copy) {
            return;
        }
        let key = known.key.clone();
        // What a person was asked to remove, and says is gone, or never did.
        let living = issuer.accepts(&key, at) && !self.model.revoked.contains(&key) && !known.left;
        let current = self.model.known[name].current_key() == Some(&key);
        self.require(!living || current, "I11", || format!("{name}: {version} is forgotten while its key lives"));
    }

    /// An event is durable.
    pub fn journaled(&mut self, issuer: &MemoryIssuer, process: &Process, name: &Name, term: u64, event: &Event) {
        self.require(term >= self.model.term, "I7", || format!("{name}: term {term} appended after a newer one began"));
        if let Event::RevokeIntended = event {
            self.may_doom(issuer, process, name);
        }
        if let Event::Planned { plan } = event {
            self.may_plan(issuer, process, name, (&plan.reason, plan.origin.is_by_policy()));
        }
        if let Event::ManualRequested { reason, by_time, .. } = event {
            self.may_plan(issuer, process, name, (reason, *by_time));
        }
        self.may_be_by_hand(issuer, name, event);
        self.may_by_hand(issuer, name, event);
        self.may_roll(name, event);
        if let Event::CreateIntended { seen, .. } = event {
            self.open_window(name, "made");
            let surveyed = self.model.blind || self.model.known[name].current_key().is_none_or(|key| seen.contains(key));
            self.require(surveyed, "I1", || format!("{name}: a key is intended without a look at those that are there"));
        }
        let at = self.at;
        let Some(known) = self.model.known.get_mut(name) else { return };
        if !matches!(event, Event::Snapshot { .. }) {
            known.events.push(event.clone());
        }
        let brought = self.model.brought.clone().filter(|_| self.model.manual);
        let named = naming(event, brought);
        let event = &named;
        let Some(known) = self.model.known.get_mut(name) else { return };
        let issued = if let Event::Issued { key_id, .. } = event { key_id.as_ref() } else { None };
        let made =
            issued.and_then(|key| issuer.history(|keys| keys.iter().find(|known| known.key_id == *key).map(|known| known.created_at)));
        let misled = issued.is_some() && self.model.misled.contains(&process.number);
        let broken = known.take(event, at, made.unwrap_or(Timestamp::MAX));
        if let Some(version) = known.candidate.as_ref().and_then(|candidate| known.versions.get_mut(candidate)) {
            version.misdated |= misled;
        }
        if let Some((invariant, what)) = broken {
            self.broken(invariant, format!("{name}: {what}"));
        }
    }

    /// By time, a rotation begins neither before it is prepared for, nor out of turn (I13, I14).
    fn may_plan(&mut self, issuer: &MemoryIssuer, process: &Process, name: &Name, (reason, by_policy): (&str, bool)) {
        let held_still = self.model.is_paused(name) && by_policy;
        self.require(!held_still, "I5", || format!("{name}: a rotation begins while it is paused"));
        if !matches!(reason, "max-age" | "no-window-before-deadline" | "expires") {
            return;
        }
        let known = &self.model.known[name];
        let Some(key) = known.current_key() else { return };
        let misdated = known.versions.values().any(|version| version.key == *key && version.misdated);
        let made = issuer.history(|keys| keys.iter().find(|other| other.key_id == *key).map(|other| other.created_at));
        let Some(deadline) = made.and_then(|made| made.checked_add(known.policy.max_age.as_duration()).ok()) else { return };
        let rehearsal = self.model.twins.get(name).filter(|_| known.policy.rehearse);
        let before = rehearsal.map(|twin| lead(&self.model.known[twin].policy)).unwrap_or_default();
        let from = deadline.checked_sub(lead(&known.policy) + before + CLOCK_SLACK).unwrap_or(Timestamp::MIN);
        let (now, misled) = (truly(self.at), self.model.misled.contains(&process.number) || misdated);
        // What waits for its rehearsal begins when that has come to its end.
        let rehearsed = self.model.known.values().any(|known| known.policy.rehearse);
        let ordered =
            !rehearsed && known.policy.windows.is_empty() && self.model.known.values().all(|known| known.policy.windows.is_empty());
        self.require(now >= from || misled, "I13", || format!("{name}: a rotation by time at {now}, and it isn't due before {from}"));
        // What became current in this very turn wasn't in its order; nor was what a turn before promoted and couldn't journal.
        let known = &self.model.known[name];
        let promoted = known.current.as_ref().and_then(|current| known.versions[current].promoted);
        let old_enough = promoted.max(known.told_at).is_some_and(|at| at < self.at);
        let calm = old_enough && self.faults == self.model.turn_faults && !self.model.jumps && !self.model.blind;
        let last = self.model.turn_plans.last().copied();
        self.require(
            !(ordered && calm) || misled || last.is_none_or(|last| last <= deadline.checked_add(STORM).unwrap_or(deadline)),
            "I14",
            || format!("{name}: its deadline {deadline} comes before that of what was begun first"),
        );
        self.model.turn_plans.extend(old_enough.then_some(deadline));
    }

    /// The last moment at which an old key can be kept (I5).
    fn may_doom(&mut self, issuer: &MemoryIssuer, process: &Process, name: &Name) {
        let (at, known) = (self.at, &self.model.known[name]);
        let (Some(current), Some(old)) = (known.current.clone(), known.old.clone()) else {
            return self.broken("I5", format!("{name}: an old key is given up where there is none"));
        };
        let policy = known.planned_under.clone().unwrap_or_else(|| known.policy.clone());
        let (now, before) = (known.versions[&current].clone(), known.versions[&old].clone());
        self.require(now.key != before.key, "I3", || format!("{name}: the current key is to be revoked"));
        // Who gets a version last has the whole overlap for it.
        let rolling = self.model.known[name].rolling.as_ref().filter(|rolling| rolling.new == current);
        let promoted = rolling.map_or(now.promoted.unwrap_or(at), |rolling| rolling.full.unwrap_or(at));
        let hurried = self.model.known[name].is_hurried();
        let confirmation = if hurried { policy.terms.confirmation.max(Confirmation::Observed) } else { policy.terms.confirmation };
        let overlap = policy.terms.overlap.as_duration();
        let over = at >= promoted + overlap;
        self.require(!self.model.is_paused(name), "I5", || format!("{name}: {old} is given up while it is paused"));
        self.require(over || hurried, "I5", || format!("{name}: the overlap of {overlap:?} isn't over after {:?}", at - promoted));
        let probed = self.model.probes.get(&(process.number, now.key.clone())).copied();
        let fresh = probed.is_some_and(|probed| probed >= promoted + if hurried { Duration::ZERO } else { overlap });
        self.require(fresh, "I5", || format!("{name}: the current key wasn't looked at afresh"));
        let alive = issuer.accepts(&now.key, truly(at)) || self.model.outside.contains(&now.key);
        self.require(alive, "I3", || format!("{name}: the current key is dead when the old one is to go"));
        self.open_window(name, "revoked");
        self.excuse(name, &before.key, confirmation);
        if confirmation == Confirmation::None {
            return;
        }
        let overruled = self.model.known[name].overrules(at) || (policy.terms.unconfirmed == Unconfirmed::Revoke && over);
        let holders = self.holders(name, &old, confirmation == Confirmation::Observed);
        let named = &self.model.known[name].stragglers;
        let unnamed: Vec<String> = holders
            .into_iter()
            .filter(|(application, copy)| !overruled || !named.contains(&(application.clone(), copy.clone())))
            .map(|(application, copy)| format!("{application}/{}", copy.unwrap_or_default()))
            .collect();
        self.require(unnamed.is_empty(), "I5", || format!("{name}: {old} is given up and held by {}", unnamed.join(", ")));
    }

    /// Windows bind what isn't late.
    fn open_window(&mut self, name: &Name, word: &str) {
        let rehearsal = self.model.twins.get(name).map(|twin| lead(&self.model.known[twin].policy)).unwrap_or_default();
        let known = &self.model.known[name];
        let Some(plan) = &known.plan else { return };
        let policy: &RotationPolicy = &known.policy;
        // A stolen key, or a person who wants the old one gone, waits for no window.
        let by_time = plan.origin == keywright::domain::ledger::Origin::Minted && !known.is_hurried();
        let wall = self.wall();
        let opens = next_open(&policy.windows, wall).filter(|opens| *opens > wall);
        let (Some(opens), true, Some(planned)) = (opens, by_time, &known.planned_under) else { return };
        let changed = planned.windows != policy.windows;
        // What is old while it is being replaced: by its age the plan may be late, and the window no matter.
        let old = if word == "revoked" { known.old.as_ref() } else { known.current.as_ref() };
        let Some(issued) = old.and_then(|old| known.versions.get(old)).map(|old| old.made) else { return };
        let late = opens
            .checked_add(lead(policy) * 2 + rehearsal)
            .is_ok_and(|end| end >= issued.checked_add(policy.max_age.as_duration()).unwrap_or(Timestamp::MAX));
        self.require(changed || late || self.model.jumps, "windows", || format!("{name}: a key is {word} at {wall}, before {opens}"));
    }
}
