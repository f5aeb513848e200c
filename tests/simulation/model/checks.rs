//! What must be true at any time, and what must have happened once nothing is in the way any more.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use keywright::domain::ids::{KeyId, Name, VersionId};
use keywright::domain::ledger::{Ledger, Origin};
use keywright::domain::policy::RotationPolicy;
use keywright::domain::rotation::{AbandonReason, Event, apply};
use keywright::issuers::memory::{MemoryIssuer, SimKey};

use super::{Known, Version};
use crate::scene::{Inner, truly};

impl Known {
    /// Adds one durable event up. What is wrong with it, if anything is.
    pub fn take(&mut self, event: &Event, at: Duration, made: Timestamp) -> Option<(&'static str, String)> {
        self.roll(event, at);
        match event {
            Event::Planned { plan } => {
                // What takes the place of a current key that is dead leaves the old one that lives to be revoked.
                self.turned = self.plan.take().filter(|_| self.old.is_some());
                self.plan = Some(plan.clone());
                self.planned_under = Some(self.policy.clone());
                self.attempts.clear();
                self.stragglers.clear();
                (self.abandoning, self.intent, self.asked) = (false, None, None);
                self.candidate = (plan.origin != Origin::Minted).then(|| plan.version.clone());
            }
            Event::CreateIntended { attempt, operation, version, .. } => {
                let text = operation.to_string();
                self.intent = Some((text.parse().unwrap_or_default(), *attempt, version.clone()));
                self.intents.insert(text);
                self.attempts.insert(*attempt);
                self.candidate = Some(version.clone());
                if self.attempts.len() > 5 {
                    return Some(("I16", format!("{} attempts in one rotation", self.attempts.len())));
                }
            }
            Event::Issued { key_id, .. } => return self.issued(key_id.as_ref(), at, made),
            Event::Stored => self.of_candidate(|version| version.stored = true),
            Event::Verified { term, .. } => {
                self.of_candidate(|version| version.verified_terms.extend([*term]));
                self.verified_long_ago = false;
            }
            Event::Refused { counted: true, .. } => {
                let mut refusals = 0;
                self.of_candidate(|version| {
                    version.counted_refusals += 1;
                    refusals = version.counted_refusals;
                });
                return (refusals > 3).then(|| ("I16", format!("the candidate was refused {refusals} times and is tried on")));
            }
            Event::Confirmed { stragglers } => {
                let names = stragglers.iter().map(|who| (who.application.clone(), who.instance.as_ref().map(ToString::to_string)));
                self.stragglers.extend(names);
            }
            Event::RevokeIntended => {
                let key = self.old.as_ref().and_then(|old| self.versions.get(old)).map(|old| old.key.clone());
                self.versions.values_mut().filter(|version| Some(&version.key) == key.as_ref()).for_each(|version| version.doomed = true);
            }
            Event::Revoked { .. } => self.versions.values_mut().filter(|version| version.doomed).for_each(|version| version.ended = true),
            Event::Abandoning { reason } => {
                self.abandoning = true;
                let minted = self.plan.as_ref().is_some_and(|plan| plan.origin == Origin::Minted);
                let gone = minted && *reason == AbandonReason::SealedCopyDamaged;
                return gone.then(|| ("I11", "no sealed copy is left of what was issued".to_owned()));
            }
            Event::Abandoned { .. } => {
                if self.back.is_some() {
                    self.way_back_failed();
                    return self.stayed();
                }
                self.of_candidate(|version| version.abandoned = true);
                (self.candidate, self.intent, self.plan) = (None, None, self.turned.take());
                self.abandoning = false;
            }
            Event::Undone | Event::PossibleOrphan { .. } => self.intent = None,
            Event::Closed => (self.candidate, self.plan, self.old, self.asked) = (None, None, None, None),
            Event::OrphanFound { key_id, .. } => {
                let known = self.versions.values().any(|version| version.key == *key_id && !version.ended && !version.abandoned);
                self.orphans.insert(key_id.clone());
                return known.then(|| ("I2", format!("{key_id} is in the journal and is taken for an orphan")));
            }
            Event::CurrentRefused { .. } => self.refused_told = true,
            Event::CurrentAccepted => (self.refused_told, self.unverified) = (false, false),
            Event::Promoted { .. } => {
                self.begin_rollout(at);
                (self.told, self.told_at) = (self.candidate.clone(), Some(at));
                (self.refused_told, self.turned, self.back) = (false, None, None);
                (self.forgotten, self.unverified) = (false, std::mem::take(&mut self.verified_long_ago));
                self.attempts.clear();
            }
            event => return self.by_hand(event, at),
        }
        None
    }

    fn of_candidate(&mut self, change: impl FnOnce(&mut Version)) {
        if let Some(version) = self.candidate.as_ref().and_then(|candidate| self.versions.get_mut(candidate)) {
            change(version);
        }
    }

    fn issued(&mut self, key: Option<&KeyId>, at: Duration, made: Timestamp) -> Option<(&'static str, String)> {
        let (Some(plan), Some(key), Some(version)) = (&self.plan, key, self.candidate.clone()) else {
            return Some(("I1", "a key is issued without plan, intent or id".to_owned()));
        };
        let submitted = plan.origin == Origin::Submitted;
        let (key, generation) = (key.clone(), plan.generation);
        self.intent = None;
        let known = Version {
            key,
            generation,
            submitted,
            issued: at,
            made,
            stored: false,
            verified_terms: BTreeSet::new(),
            counted_refusals: 0,
            misdated: false,
            promoted: None,
            abandoned: false,
            ended: false,
            doomed: false,
            copy: false,
            left: false,
        };
        self.versions.insert(version, known).map(|_| ("I8", "one version is issued twice".to_owned()))
    }
}

/// What the store and the journal hold of one credential.
pub struct Kept {
    pub current: Option<VersionId>,
    /// Versions whose bytes can be read.
    pub readable: Vec<VersionId>,
}

impl Inner {
    pub fn check(&mut self, issuer: &MemoryIssuer, name: &Name, kept: &Kept) {
        if self.model.known[name].clearing {
            return;
        }
        self.hold_still(name);
        let (at, known) = (self.at, &self.model.known[name]);
        let (current, told) = (kept.current.clone(), known.current.clone());
        let acknowledged = known.acknowledged.is_some();
        self.require(current == told, "I7", || format!("{name}: {current:?} became current unseen, not {told:?}"));
        self.require(current.is_some() || !acknowledged, "I11", || format!("{name}: what was acknowledged is gone"));
        let Some(current) = current else { return };
        let known = &self.model.known[name];
        let Some(key) = known.versions.get(&current).map(|version| version.key.clone()) else { return };
        let accepted = issuer.accepts(&key, truly(at));
        let outside = self.model.outside.contains(&key);
        // What came back from a backup may have died since: it is looked at before anybody gets it.
        let unverified = self.model.known[name].unverified;
        self.require(accepted || outside || unverified, "I3", || format!("{name}: the current key {key} isn't accepted"));
        if !accepted {
            self.quiet_since = at;
        }
        let known = &self.model.known[name];
        let open = |id: &VersionId, version: &Version| {
            *id == current
                || (!version.ended && !version.abandoned && (known.candidate.as_ref() == Some(id) || known.old.as_ref() == Some(id)))
        };
        let lost = known.versions.iter().find(|(id, version)| {
            // A rollback's copy lies in what it copies until it is stored itself.
            let original = |other: &VersionId| version.copy && known.versions.get(other).is_some_and(|known| known.key == version.key);
            let safe = kept.readable.contains(id) || (known.sealed && !version.stored) || kept.readable.iter().any(original);
            open(id, version) && !safe && !known.abandoning
        });
        if let Some(lost) = lost.map(|(id, _)| id.clone()) {
            self.broken("I11", format!("{name}: no copy is left of {lost}"));
        }
        self.limit_kept(name);
        self.copies_live(issuer, name);
    }

    /// What applications use is accepted (I6).
    fn copies_live(&mut self, issuer: &MemoryIssuer, name: &Name) {
        let at = self.at;
        let dead = self.model.copies.iter().find(|(_, copy)| {
            let Some((_, key)) = copy.uses.as_ref().filter(|_| copy.credential == *name && !copy.gone) else { return false };
            let excused = copy.excused.contains(key) || self.model.outside.contains(key) || copy.forgotten(at);
            !excused && !issuer.accepts(key, truly(at))
        });
        let Some(id) = dead.map(|(id, _)| id.clone()) else { return };
        self.broken("I6", format!("{name}: {}/{} uses a dead key", id.0, id.1));
    }

    /// Keys of ours that nobody knows, once nothing was in the way for long enough (I2), and candidates that hang (I16).
    pub fn check_orphans(&mut self, issuer: &MemoryIssuer, step: Duration) {
        let (at, quiet, now) = (self.at, self.quiet_since, truly(self.at));
        let mut found = None;
        issuer.history(|keys| {
            for key in keys
                .iter()
                .filter(|key| lives(key, now) && !self.model.by_hand.contains_key(&key.key_id) && !self.model.revoked.contains(&key.key_id))
            {
                let Some(name) = self.model.marked(&key.name) else { continue };
                let known = &self.model.known[name];
                let adopted = known.versions.values().any(|version| version.key == key.key_id && !version.ended && !version.abandoned);
                if adopted || self.model.blind {
                    continue;
                }
                let wait = known.policy.max_age.as_duration() / 4;
                let bound = wait.min(Duration::from_secs(900))
                    + 3 * Duration::from_secs(300).min(known.policy.max_age.as_duration() / 20)
                    + 2 * step;
                let made = Duration::try_from(key.created_at.duration_since(truly(Duration::ZERO))).unwrap_or_default();
                if at > made.max(quiet) + bound {
                    found = Some(format!("{name}: {} lives and nobody knows it", key.key_id));
                }
            }
        });
        if let Some(found) = found {
            self.broken("I2", found);
        }
    }

    /// Once nothing is in the way: every old key is dead by its deadline, and nothing stays open for ever.
    pub fn check_deadlines(&mut self, issuer: &MemoryIssuer, settled: Duration) {
        let now = truly(self.at);
        let mut late = None;
        issuer.history(|keys| {
            for key in keys
                .iter()
                .filter(|key| lives(key, now) && !self.model.outside.contains(&key.key_id) && !self.model.revoked.contains(&key.key_id))
            {
                let Some((name, version, known)) = self.model.adopted(&key.key_id) else { continue };
                let policy = &self.model.known[name].policy;
                // Where the provider doesn't tell a submitted key's age, it counts from its first submission.
                let first =
                    self.model.known[name].versions.values().filter(|other| other.key == key.key_id).map(|other| other.issued).min();
                let born = if self.model.blind && known.submitted { truly(first.unwrap_or(known.issued)) } else { key.created_at };
                let deadline = born.checked_add(policy.max_age.as_duration()).unwrap_or(now);
                // What was forgotten is the person's: nothing is revoked with it (README).
                let never_ours = (known.submitted && known.promoted.is_none()) || known.left;
                // Who was here a moment ago holds it for its lease.
                let lease = self.model.copies.values().filter(|copy| copy.credential == *name).filter_map(|copy| copy.lease).max();
                let deadline = deadline.checked_add(lease.unwrap_or_default()).unwrap_or(deadline);
                // What was taken back is tried again, later each time.
                let again =
                    policy.canary_wait_max() + policy.rollout_time() + policy.terms.overlap.as_duration() * 4 + settle_slack(policy);
                let stopped = self.model.known.values().filter_map(|known| known.stopped_at).max();
                let deadline = stopped.map_or(deadline, |stopped| deadline.max(truly(stopped + again)));
                // Without its twin it can't be rehearsed: a person forgot that, and has to bring it back.
                let twin = self.model.twins.get(name).filter(|_| policy.rehearse).map(|twin| &self.model.known[twin]);
                let twin_lost = twin.is_some_and(|twin| twin.forgotten && twin.current.is_none());
                if now > deadline.max(truly(settled)) && !never_ours && !twin_lost {
                    late = Some(format!("{name}: {version} ({}) outlives its deadline {deadline}", key.key_id));
                }
            }
        });
        if let Some(late) = late.or_else(|| self.theft_unended()) {
            self.broken("liveness", late);
        }
    }

    /// The journal adds up, from every prefix, again and again, to the same (I8).
    pub fn check_replays(&mut self) {
        let mut broken = None;
        for (name, known) in &self.model.known {
            let mut ledger = Ledger::default();
            for (index, event) in known.events.iter().enumerate() {
                let (Ok(once), Ok(again)) = (apply(&ledger, event), apply(&ledger, event)) else {
                    broken = Some(format!("{name}: event {index} of the journal doesn't fit"));
                    break;
                };
                if once != again {
                    broken = Some(format!("{name}: event {index} leads to two states"));
                }
                ledger = once;
            }
            let fresh = known.events.iter().try_fold(Ledger::default(), |ledger, event| apply(&ledger, event));
            if fresh.as_ref() != Ok(&ledger) {
                broken = broken.or(Some(format!("{name}: a second replay ends elsewhere")));
            }
        }
        if let Some(broken) = broken {
            self.broken("I8", broken);
        }
    }
}

/// Waits between retries, and for windows.
fn settle_slack(policy: &RotationPolicy) -> Duration {
    policy.window_wait * 3 + policy.retry_wait_max() * 6 + Duration::from_secs(3_600)
}

pub(super) fn lives(key: &SimKey, at: jiff::Timestamp) -> bool {
    key.dead_from.is_none_or(|end| at < end) && key.expires_at.is_none_or(|end| at < end)
}
