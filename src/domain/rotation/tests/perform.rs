//! The engine's part, against the model of a provider and a store.

use super::{Fault, World, key};
use crate::domain::environment::Says;
use crate::domain::fixtures::proof;
use crate::domain::ids::KeyId;
use crate::domain::ledger::Closure;
use crate::domain::rotation::{AbandonReason, Event, Step};

use std::time::Duration;

impl World {
    pub(super) fn perform(&mut self, step: Step) {
        match step {
            Step::Survey => self.survey(),
            Step::RevokeOrphan { key_id } => {
                self.kill(&key_id);
                self.journal(Event::OrphanRevoked { key_id });
            }
            Step::CancelSecondary => self.cancel_secondary(),
            Step::Create if !self.rotation().plan.succession.spares_the_old() => self.succeed(),
            Step::Create => self.create(),
            Step::Choose => self.choose(),
            Step::Store => self.journal(Event::Stored),
            Step::Verify => self.verify(),
            Step::Promote => self.promote(),
            Step::Retire if self.current_key().is_some_and(|key| self.alive.contains(&key)) => {
                self.journal(Event::Retired { term: self.term });
            }
            Step::Retire => self.journal(Event::CurrentRefused { at: self.now.wall }),
            Step::Disable => {
                let old = self.rotation().old.clone().unwrap();
                assert!(self.ledger.versions[&old].doomed, "I1: intent first");
                self.kill(&self.bytes[&old].clone());
                self.journal(Event::Disabled { at: self.now.instant() });
            }
            Step::Revoke => self.revoke(),
            Step::Forget => {
                let old = self.rotation().old.clone().unwrap();
                self.ledger.same_key(&old).iter().for_each(|version| drop(self.bytes.remove(version)));
                self.journal(Event::Closed);
            }
            Step::UndoKey { key_id } => {
                self.kill(&key_id);
                self.journal(Event::Undone);
            }
            Step::Discard => {
                let version = self.rotation().version.clone();
                self.bytes.remove(&version);
                self.journal(Event::Abandoned { at: self.now.wall, next_try_at: self.now.wall + Duration::from_secs(60) });
            }
            Step::Journal(event @ Event::RollbackPlanned { .. }) => self.turn_round(event),
            Step::Journal(event) => {
                self.create_unsent = matches!(event, Event::CreateIntended { .. });
                self.journal(event);
            }
            Step::CloseIncident => {
                let stray =
                    |key: &&KeyId| self.made.contains_key(*key) && !self.ledger.knows_key(key) && !self.ledger.orphans.contains(*key);
                let strays: Vec<KeyId> = self.alive.iter().filter(|_| self.provider.can_find_orphans()).filter(stray).cloned().collect();
                if strays.is_empty() {
                    let unknown = self.alive.iter().filter(|key| self.of_thieves.contains(*key)).cloned().collect();
                    self.journal(Event::IncidentClosed { at: self.now.wall, unknown_keys: Some(unknown) });
                }
                strays.into_iter().for_each(|key_id| self.journal(Event::OrphanFound { key_id, burns_attempt: false }));
            }
            Step::Clear => {
                self.bytes.clear();
                self.left.extend(self.store_current.take());
                self.journal(Event::Cleared);
            }
            Step::Wait(_) => unreachable!("handled by its caller"),
        }
    }

    /// Lists the account, and takes note of what bears our marker and isn't known.
    pub(super) fn survey(&mut self) {
        let Some(operation) = self.ledger.rotation.as_ref().map(|rotation| rotation.operation) else { return };
        self.seen = Some(self.alive.clone());
        if !self.provider.can_find_orphans() {
            return;
        }
        let stray = |key: &&KeyId| !self.ledger.knows_key(key) && !self.ledger.orphans.contains(*key);
        let strays: Vec<KeyId> = self.alive.iter().filter(|key| self.made.contains_key(*key)).filter(stray).cloned().collect();
        for key_id in strays {
            let burns_attempt = self.made[&key_id] == operation;
            self.journal(Event::OrphanFound { key_id, burns_attempt });
        }
    }

    fn create(&mut self) {
        if self.provider.can_find_orphans() {
            let unknown = |key: &&KeyId| self.made.contains_key(*key) && !self.ledger.knows_key(key);
            assert_eq!(self.alive.iter().find(unknown), None, "I9: no create while a key of ours is unaccounted for");
        }
        let fault = self.fault.take();
        self.seen = None;
        self.create_unsent = fault == Some(Fault::Refused);
        if matches!(fault, None | Some(Fault::ReplyLost)) {
            let (key_id, operation) = (key(&format!("minted-{}", self.made.len() + 1)), self.rotation().operation);
            assert!(self.made.values().all(|other| *other != operation) || !self.provider.can_find_orphans(), "one key per operation");
            self.made.insert(key_id.clone(), operation);
            self.alive.insert(key_id.clone());
            if fault.is_none() {
                self.bytes.insert(self.rotation().version.clone(), key_id.clone());
                self.journal(self.issued(&key_id, None));
            }
        } else if fault == Some(Fault::Refused) {
            self.journal(Event::Abandoning { reason: AbandonReason::CreateRefused });
        }
    }

    /// A value of our own: accepted wherever we serve it, and unknown to any provider.
    fn choose(&mut self) {
        let value = key(&format!("chosen-{}", self.events.len()));
        self.alive.insert(value.clone());
        self.bytes.insert(self.rotation().version.clone(), value.clone());
        let Event::Issued { issued_at, expires_at, fingerprints, copy_of, old_ends_at, .. } = self.issued(&value, None) else {
            unreachable!()
        };
        self.journal(Event::Issued { key_id: None, issued_at, expires_at, fingerprints, copy_of, old_ends_at });
    }

    fn verify(&mut self) {
        let value = self.bytes[&self.rotation().version].clone();
        if self.candidate_works && self.alive.contains(&value) {
            self.journal(Event::Verified { proof: proof(Says::For), term: self.term });
        } else {
            self.journal(Event::Refused { at: self.now.instant(), counted: true });
        }
    }

    fn promote(&mut self) {
        let rotation = self.rotation();
        assert_eq!(rotation.verified_term, Some(self.term), "I4: verified in the same term");
        assert!(!self.ledger.versions[&rotation.version].is_going(), "I10: what is going never comes back");
        let version = rotation.version.clone();
        assert!(!self.left.contains(&version), "I10: a label never returns");
        let left = self.store_current.replace(version.clone());
        self.left.extend(left.filter(|left| *left != version));
        self.journal(Event::Promoted { at: self.now.instant() });
    }

    fn revoke(&mut self) {
        let old = self.rotation().old.clone().unwrap();
        assert!(self.ledger.same_key(&old).iter().all(|version| self.ledger.versions[version].doomed), "I1: intent first");
        assert!(self.now.trusted && !self.ledger.paused, "I13: what destroys waits");
        let value = self.bytes[&old].clone();
        assert_ne!(Some(&value), self.current_key().as_ref(), "I3: never the current key");
        let ends_by_itself = !self.rotation().plan.succession.spares_the_old();
        assert!(!ends_by_itself || !self.alive.contains(&value), "what ends by itself has ended");
        self.kill(&value);
        self.revocations += 1;
        self.journal(Event::Revoked { at: self.now.wall, closure: Closure::Proved });
    }

    pub(super) fn kill(&mut self, key: &KeyId) {
        self.alive.remove(key);
    }
}
