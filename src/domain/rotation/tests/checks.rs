//! What must always hold, asked of the model after every event.

use std::time::Duration;

use super::World;
use crate::domain::ids::KeyId;
use crate::domain::ledger::Ledger;
use crate::domain::policy::Unconfirmed;
use crate::domain::rollout::{Reach, view};
use crate::domain::rotation::{Instant, RevocationAsked};

impl World {
    /// I5, worked out here once more.
    pub(super) fn check_last_moment(&self) {
        let rotation = self.rotation();
        // Where it was rolled out step by step, the overlap begins with the last step.
        let promoted: Instant = rotation.rollout.as_ref().map_or(rotation.promoted.unwrap(), |rollout| rollout.full.unwrap());
        let running = i64::try_from(self.now.running.saturating_sub(promoted.running).as_secs()).unwrap();
        // Negative only where the wall clock was wrong at the promotion: it is trusted now.
        let wall = Some(self.now.wall.duration_since(promoted.wall).as_secs()).filter(|wall| *wall >= 0);
        let overlap = i64::try_from(rotation.plan.terms.overlap.as_secs()).unwrap();
        let overlap_over = running.min(wall.unwrap_or(running)) >= overlap;
        let incident = self.ledger.incident.as_ref().filter(|incident| incident.closed.is_none());
        // Where the new key's coming was the old one's end, nothing overlaps.
        let hurried = incident.is_some() || rotation.revocation.is_some() || self.provider.manual.replaces;
        assert!(overlap_over || hurried, "I5, I13: by the smaller clock");
        assert!(self.now.trusted && !self.ledger.paused && self.ledger.refused_since.is_none());
        assert_eq!(rotation.retired_term, Some(self.term), "the current version was verified afresh");
        let named = self.blockers.iter().all(|blocker| rotation.stragglers.contains(blocker));
        let by_policy = overlap_over && rotation.plan.terms.unconfirmed == Unconfirmed::Revoke;
        let by_provider = !rotation.plan.succession.spares_the_old();
        let by_hand = rotation.revocation == Some(RevocationAsked::Anyway);
        let by_incident = incident.is_some_and(|incident| {
            let running = self.now.running.saturating_sub(incident.at.running);
            let wall = Duration::try_from(self.now.wall.duration_since(incident.at.wall)).unwrap_or(running);
            let part = if self.ledger.is_stolen(&rotation.version) { 2 } else { 1 };
            assert!(self.blockers.iter().all(|blocker| incident.stragglers.contains(blocker)), "the incident names them, too");
            running.min(wall) >= incident.within / part
        });
        assert!(self.blockers.is_empty() || (named && (by_policy || by_hand || by_incident || by_provider)), "held, or unnamed");
    }

    /// What holds after every event.
    pub(super) fn check(&self, before: &Ledger) {
        for (version, facts) in &before.versions {
            let Some(after) = self.ledger.versions.get(version) else { continue };
            assert!(after.doomed >= facts.doomed && after.ended.is_some() >= facts.ended.is_some(), "I10: the end is final");
        }
        if let Some(current) = &self.ledger.current {
            assert!(!self.ledger.versions[current].is_going(), "I10: current is never on its way out");
            let key = &self.bytes[current];
            let alive = self.alive.contains(key) || self.killed_outside.contains(key);
            assert!(alive || self.is_being_replaced(), "I3: current is accepted");
        }
        self.check_rollout(before);
        assert!(self.ledger.revision >= before.revision && self.ledger.generation >= before.generation);
        if self.provider.can_find_orphans() {
            let ours = self.alive.iter().filter(|key| self.made.contains_key(*key) && !self.let_go.contains(*key)).count();
            assert!(ours <= 2, "I9: two slots are enough");
        }
    }

    /// Steps follow each other, who has the new version keeps it, and nobody's revision goes back.
    fn check_rollout(&self, before: &Ledger) {
        let rollout = |ledger: &Ledger| {
            let rotation = ledger.rotation.as_ref()?;
            Some((rotation.version.clone(), rotation.rollout.clone()?))
        };
        if let (Some((version, earlier)), Some((same, later))) = (rollout(before), rollout(&self.ledger))
            && version == same
        {
            assert!(later.reach >= earlier.reach, "who has it keeps it");
            let next = later.step <= earlier.step + 1 || later.reach == Reach::Everybody;
            assert!(next && later.step >= earlier.step, "no step is skipped: {earlier:?} {later:?}");
        }
        for number in 0..12 {
            let instance = format!("pod-{number}").parse().unwrap();
            let reader = (&"payments-api".parse().unwrap(), &instance);
            let (Some(was), Some(is)) = (view(before, Some(reader)), view(&self.ledger, Some(reader))) else { continue };
            assert!(is.revision >= was.revision, "{instance}: {was:?} {is:?}");
            assert!((is.revision > was.revision) == (is.version != was.version) || is.version == was.version, "{was:?} {is:?}");
            let facts = &self.ledger.versions[is.version];
            assert!(!facts.is_going() && facts.proof.is_some(), "I10, I18: {} is served", is.version);
            let key = &self.bytes[is.version];
            let alive = self.alive.contains(key) || self.killed_outside.contains(key);
            assert!(alive || self.is_being_replaced(), "I3, I6: what is served is accepted");
        }
    }

    /// What holds when nothing is open: no key of ours but the current one lives, and none that lives is forgotten.
    pub(super) fn check_at_rest(&self) {
        let current = self.ledger.current.as_ref();
        let same = current.map(|current| self.ledger.same_key(current)).unwrap_or_default();
        for (version, facts) in &self.ledger.versions {
            let is_let_go = self.forgotten.contains(version) || facts.key_id.as_ref().is_some_and(|key| self.let_go.contains(key));
            assert!(facts.ended.is_some() || same.contains(version) || is_let_go, "{version} is neither ended nor current");
        }
        let stray = |key: &&KeyId| {
            self.made.contains_key(*key)
                && Some(*key) != self.current_key().as_ref()
                && !self.let_go.contains(*key)
                && !self.ending.contains_key(*key)
        };
        let strays = self.alive.iter().filter(stray).count();
        assert!(strays <= self.ledger.possible_orphans.len(), "I2: {strays} keys of ours live unknown");
        assert_eq!(self.store_current.as_ref(), current);
    }
}
