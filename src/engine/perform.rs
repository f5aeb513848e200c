//! Performs one step through the seams. What happened comes back as events; a hindrance changes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::Engine;
use super::audit::Actor;
use super::backoff::wait_after;
use super::cell::{Cell, Work};
use super::drive::{Hindrance, PromotionHindrance};
use super::gather::Context;
use super::material::split;
use super::secondary::{Doomed, is_newer_than_current, own_name};
use super::slots::is_superseded;
use super::successor::{has_an_old_secret, is_known};
use crate::domain::ids::{KeyId, is_marked, marker};
use crate::domain::ledger::{Closure, Ledger, Origin};
use crate::domain::material::Material;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::provider::{ListedKey, SignedCall};
use crate::domain::rotation::{AbandonReason, Event, Phase, Rotation, Step};
use crate::issuers::{CreateRequest, IssuerError, ProbeOutcome, Target};
use crate::journal::SealedCopy;
use crate::stores::{Promotion, StoreError};

/// What one step led to: an event, and what becomes of the sealed copy with it. A promotion journals its own.
pub(super) struct Performed {
    pub(super) event: Event,
    pub(super) sealed: SealedCopy,
}

impl Performed {
    pub(super) fn plain(event: Event) -> Performed {
        Performed { event, sealed: SealedCopy::Keep }
    }
}

pub(super) type Outcome = Result<Vec<Performed>, Hindrance>;

/// How far the provider's clock and ours may be apart where something is destroyed (I13).
const CLOCKS_APART_MAX: Duration = Duration::from_secs(300);

/// What hinders a step then.
pub(super) const CLOCKS_DISAGREE: &str = "clock-disagrees";

/// A revocation looks at the list, too, where the key itself can't be asked.
pub(super) const REVOKING: [SignedCall; 3] = [SignedCall::Disable, SignedCall::Revoke, SignedCall::List];

fn one(event: Event) -> Outcome {
    Ok(vec![Performed::plain(event)])
}

impl Engine {
    pub(super) async fn perform(&self, cell: &Cell, work: &mut Work, context: &Context, step: Step) -> Outcome {
        let ledger = cell.ledger();
        match step {
            Step::RevokeOrphan { key_id } => self.revoke_orphan(cell, work, context, &ledger, key_id).await,
            Step::CancelSecondary => self.cancel_secondary(cell, work, context, &ledger).await,
            Step::Survey => self.survey(work, context, &ledger).await,
            Step::Journal(event) => {
                work.create_unsent = matches!(event, Event::CreateIntended { .. });
                one(event)
            }
            Step::CloseIncident => self.close_incident(work, context, &ledger).await,
            Step::Clear => one(self.clear_store(context, &ledger).await?),
            Step::Wait(_) => Ok(Vec::new()),
            step => {
                let Some(rotation) = &ledger.rotation else { return Err(Hindrance::new("internal", "no rotation is open")) };
                self.perform_in(cell, work, context, &ledger, rotation, step).await
            }
        }
    }

    async fn perform_in(
        &self,
        cell: &Cell,
        work: &mut Work,
        context: &Context,
        ledger: &Ledger,
        rotation: &Rotation,
        step: Step,
    ) -> Outcome {
        match step {
            Step::Create => self.create(work, context, ledger, rotation).await,
            Step::Choose => self.choose(context, rotation).await,
            Step::Store => self.store(work, context, ledger, rotation).await,
            Step::Verify => self.verify_candidate(context, ledger, rotation).await,
            Step::Promote => self.promote(cell, work, context, ledger, rotation).await,
            Step::Retire => self.retire(cell, work, context, ledger).await,
            Step::Disable => self.disable(cell, work, context, ledger, rotation).await,
            Step::Revoke => self.revoke(cell, work, context, ledger, rotation).await,
            Step::Forget => self.forget_old(context, ledger, rotation).await,
            Step::UndoKey { key_id } => self.undo_key(cell, work, (context, ledger, rotation), key_id).await,
            Step::Discard => self.discard(cell, context, ledger, rotation).await,
            Step::Survey | Step::RevokeOrphan { .. } | Step::Journal(_) | Step::Wait(_) => Ok(Vec::new()),
            Step::CloseIncident | Step::Clear | Step::CancelSecondary => Ok(Vec::new()),
        }
    }

    /// Lists the provider's keys. Living ones with our marker that the journal doesn't know are ours, and are given up.
    pub(super) async fn survey(&self, work: &mut Work, context: &Context, ledger: &Ledger) -> Outcome {
        if !context.provider.can_find_orphans() && context.provider.slots.is_none() {
            // Where nobody can look for a key, none is intended that nobody could sign for, or while the store is away.
            self.signed_target(context, &[SignedCall::Create]).await?;
            let _lends_fields = self.acting(work, context, ledger).await?;
            work.seen = Some(BTreeSet::new());
            return Ok(Vec::new());
        }
        let acting = self.acting(work, context, ledger).await?;
        let target = Target { routine: work.routine, ..self.signed_target(context, &[SignedCall::List]).await? };
        let keys = match self.seams.issuer.list(&target, &acting).await {
            Ok(keys) => keys,
            Err(error) => return self.signing_failed(work, context, ledger, error),
        };
        work.living = Some(keys.iter().filter(|key| key.alive).count());
        let accepted = if context.lists_by_administrator() { None } else { self.accepted_again(work, ledger) };
        let found: Vec<Performed> = accepted.into_iter().chain(self.strays(context, ledger, &keys)).collect();
        self.note_former_keys(ledger, &context.credential.name, &keys);
        work.seen = Some(keys.into_iter().map(|key| key.key_id).collect());
        work.swept_at = Some(self.seams.clock.now().running);
        Ok(found)
    }

    /// Living keys with our marker that the journal doesn't know.
    pub(super) fn strays(&self, context: &Context, ledger: &Ledger, keys: &[ListedKey]) -> Vec<Performed> {
        let name = &context.credential.name;
        let this_attempt =
            ledger.rotation.as_ref().map(|rotation| marker(self.installation, name, rotation.plan.generation, rotation.attempt));
        let orphans = keys.iter().filter(|key| {
            key.alive && !is_on(Mutant::OrphansOverlooked) && !ledger.knows_key(&key.key_id) && !ledger.orphans.contains(&key.key_id)
        });
        let takes_a_slot = |key: &ListedKey| context.provider.slots.is_some() && is_superseded(ledger, &key.key_id);
        let is_ours = |key: &ListedKey| {
            let marked = |text: &str| is_on(Mutant::UnknownKeysTakenForOurs) || is_marked(self.installation, name, text);
            key.name.as_deref().is_some_and(marked) || takes_a_slot(key)
        };
        let found = orphans.filter(|key| is_ours(key)).map(|key| {
            let burns_attempt = this_attempt.is_some() && this_attempt.as_deref() == key.name.as_deref();
            Performed::plain(Event::OrphanFound { key_id: key.key_id.clone(), burns_attempt })
        });
        found.collect()
    }

    /// The current version was accepted just now: if it was taken for dead, that is over.
    pub(super) fn accepted_again(&self, work: &mut Work, ledger: &Ledger) -> Option<Performed> {
        if work.stand_in.is_some() {
            return None;
        }
        work.current_accepted();
        ledger.refused_since.map(|_| Performed::plain(Event::CurrentAccepted))
    }

    async fn revoke_orphan(&self, cell: &Cell, work: &mut Work, context: &Context, ledger: &Ledger, key_id: KeyId) -> Outcome {
        let acting = self.acting(work, context, ledger).await?;
        let target = self.signed_target(context, &REVOKING).await?;
        self.audit(Actor::Daemon, "revoking-orphan", &cell.name, None, Some(format!("key {key_id}"))).await?;
        if let Err(error) = self.seams.issuer.revoke(&target, &acting, &key_id, None).await {
            return self.signing_failed(work, context, ledger, error);
        }
        one(Event::OrphanRevoked { key_id })
    }

    async fn create(&self, work: &mut Work, context: &Context, ledger: &Ledger, rotation: &Rotation) -> Outcome {
        let tells_time = context.provider.calls.create.as_ref().is_some_and(|create| create.issued_at.is_some());
        if !tells_time && !self.seams.clock.now().trusted {
            return Err(Hindrance::new(
                "clock-untrusted",
                "the age of a new key would be counted by a clock that jumped: waiting until it is believed",
            ));
        }
        let acting = self.acting(work, context, ledger).await?;
        let name = &context.credential.name;
        let overlap = self.overlap_given(context, ledger, rotation);
        let request = CreateRequest {
            operation: rotation.operation,
            marker: marker(self.installation, name, rotation.plan.generation, rotation.attempt),
            overlap,
        };
        let target = self.signed_target(context, &[SignedCall::Create]).await?;
        // Until the answer tells: whoever drives this may be cut off.
        work.create_unsent = false;
        let mut minted = match self.seams.issuer.create(&target, &acting, &request).await {
            Ok(minted) => minted,
            Err(error) => return self.create_failed(work, context, ledger, error),
        };
        work.seen = None;
        let succession = rotation.plan.succession;
        let fingerprints = self.fingerprints(&context.provider, &minted.material);
        // Where the key stays and only its secret changes, there is no other to revoke by an id.
        let key_id = succession.spares_the_old().then_some(minted.key_id);
        let is_old = match &key_id {
            Some(key_id) if !context.provider.has_secondary() => is_known(ledger, key_id),
            _ => has_an_old_secret(&context.provider, ledger, &acting, &minted.material, &fingerprints),
        };
        if is_old {
            // An old key in place of a new one: undoing it must not touch the key that it is.
            return one(Event::Abandoning { reason: AbandonReason::BadValue });
        }
        context.provider.link(&mut minted.material);
        let sealed = self.seal(context, &rotation.version, &minted.material)?;
        let event = Event::Issued {
            key_id,
            issued_at: self.issued_at(minted.issued_at),
            expires_at: minted.expires_at,
            fingerprints,
            copy_of: None,
            old_ends_at: self.old_ends_at(succession, minted.previous_expires_at, overlap),
        };
        let sealed = if is_on(Mutant::SealedCopyDropped) { SealedCopy::Keep } else { SealedCopy::Put(sealed) };
        Ok(vec![Performed { event, sealed }])
    }

    /// From when a key's age counts. A provider's clock that is ahead must not postpone the next rotation, nor must a clock of ours
    /// that isn't believed bring it about (I13).
    pub(super) fn issued_at(&self, theirs: Option<Timestamp>) -> Timestamp {
        let now = self.seams.clock.now();
        match theirs {
            Some(theirs) if now.trusted => theirs.min(now.wall),
            Some(theirs) => theirs,
            None => now.wall,
        }
    }

    /// Makes a value of our own. It is sealed into the journal before anybody gets it, so that a crash loses nothing: what
    /// isn't in the journal was never used.
    async fn choose(&self, context: &Context, rotation: &Rotation) -> Outcome {
        let now = self.seams.clock.now();
        if !now.trusted {
            return Err(Hindrance::new(
                "clock-untrusted",
                "the age of a new value would be counted by a clock that jumped: waiting until it is believed",
            ));
        }
        let name = &context.credential.name;
        let request = CreateRequest {
            operation: rotation.operation,
            marker: marker(self.installation, name, rotation.plan.generation, rotation.attempt),
            overlap: rotation.plan.terms.overlap.as_duration(),
        };
        let made = self.seams.issuer.create(&self.target(context), &Material::default(), &request).await?;
        let sealed = self.seal(context, &rotation.version, &made.material)?;
        let event = Event::Issued {
            key_id: None,
            issued_at: now.wall,
            expires_at: None,
            fingerprints: self.fingerprints(&context.provider, &made.material),
            copy_of: None,
            old_ends_at: None,
        };
        Ok(vec![Performed { event, sealed: SealedCopy::Put(sealed) }])
    }

    fn create_failed(&self, work: &mut Work, context: &Context, ledger: &Ledger, error: IssuerError) -> Outcome {
        work.create_unsent = error.had_no_effect();
        if !work.create_unsent {
            work.seen = None;
        }
        match error {
            IssuerError::Refused { .. } | IssuerError::Impossible(_) => one(Event::Abandoning { reason: AbandonReason::CreateRefused }),
            IssuerError::Full => one(Event::Abandoning { reason: AbandonReason::NoFreeSlot }),
            IssuerError::BadValue => one(Event::Abandoning { reason: AbandonReason::BadValue }),
            error => self.signing_failed(work, context, ledger, error),
        }
    }

    /// A call that the current version signs has failed. Refused again and again, apart in time: then it is dead, and a
    /// person must submit a working one. That an administering credential is refused tells nothing of the current version.
    pub(super) fn signing_failed(&self, work: &mut Work, context: &Context, ledger: &Ledger, error: IssuerError) -> Outcome {
        let is_news = error == IssuerError::Unauthenticated && work.stand_in.is_none() && ledger.refused_since.is_none();
        let propagation = context.policy.propagation(&context.provider);
        if !is_news || !work.current_refused(self.seams.clock.now().running, propagation) {
            return Err(error.into());
        }
        let mut events = vec![Performed::plain(Event::CurrentRefused { at: self.seams.clock.now().wall })];
        // A candidate that exists may yet take its place: only what isn't made is given up.
        if ledger.rotation.as_ref().is_some_and(|rotation| rotation.phase == Phase::Planned && rotation.abandoning.is_none()) {
            events.push(Performed::plain(Event::Abandoning { reason: AbandonReason::CurrentRefused }));
        }
        Ok(events)
    }

    /// Writes the candidate as pending and reads it back byte by byte (I4, I11).
    async fn store(&self, work: &mut Work, context: &Context, ledger: &Ledger, rotation: &Rotation) -> Outcome {
        let material = match rotation.plan.origin {
            Origin::RolledBack => {
                let original = ledger.versions.get(&rotation.version).and_then(|facts| facts.copy_of.clone());
                let Some(original) = original else { return one(Event::Abandoning { reason: AbandonReason::SealedCopyDamaged }) };
                self.full_material(context, &original).await?
            }
            Origin::Minted | Origin::Chosen | Origin::Submitted => {
                let opened = work.sealed.as_ref().and_then(|sealed| self.unseal(context, &rotation.version, sealed));
                let Some(material) = opened else { return one(Event::Abandoning { reason: AbandonReason::SealedCopyDamaged }) };
                material
            }
        };
        let slot = context.slot();
        let bytes = split(context, material);
        if ledger.current.is_none() && rotation.plan.replacing.is_some() {
            self.seams.store.adopt(&slot).await?;
        }
        self.seams.store.put_pending(&slot, &rotation.version, &bytes).await?;
        let back = self.seams.store.read(&slot, &rotation.version).await?;
        if !back.served.same_as(&bytes.served) || !back.management.same_as(&bytes.management) {
            return Err(Hindrance::new("store-differs", "what was read back from the store isn't what was written"));
        }
        Ok(vec![Performed { event: Event::Stored, sealed: SealedCopy::Erase }])
    }

    async fn promote(&self, cell: &Cell, work: &mut Work, context: &Context, ledger: &Ledger, rotation: &Rotation) -> Outcome {
        if let Some(old) = ledger.current.as_ref().filter(|_| is_on(Mutant::BytesForgottenEarly)) {
            self.seams.store.promote(&context.slot(), &rotation.version, Some(old)).await?;
            self.seams.store.forget(&context.slot(), old).await?;
        }
        let slot = context.slot();
        let replacing = rotation.plan.replacing.as_ref().or(ledger.current.as_ref());
        let promotion = Promotion { slot: &slot, version: &rotation.version, replacing };
        let event = Event::Promoted { at: self.seams.clock.now().instant() };
        let mut outcome = self.append_promoted(cell, work, promotion, &event).await;
        if let (Err(PromotionHindrance::CurrentChanged), Some(current)) = (&outcome, &ledger.current)
            && let Some(same) = self.same_value(context, current).await?
        {
            // Somebody wrote our value once more: nothing is lost with that.
            outcome = self.append_promoted(cell, work, Promotion { replacing: Some(&same), ..promotion }, &event).await;
        }
        let is_lost = async || Ok::<_, StoreError>(self.seams.store.stages(&slot).await?.current.is_none());
        if matches!(outcome, Err(PromotionHindrance::CurrentChanged))
            && rotation.plan.origin == Origin::Submitted
            && replacing.is_some()
            && is_lost().await?
        {
            // The store lost what was there, and a person brings a key: there is nothing to replace.
            outcome = self.append_promoted(cell, work, Promotion { replacing: None, ..promotion }, &event).await;
        }
        // What differed in the store may not differ any more.
        cell.suspect(cell.drift().is_some() || outcome.is_err());
        match outcome {
            Ok(()) => Ok(Vec::new()),
            Err(PromotionHindrance::CurrentChanged) => one(Event::Abandoning { reason: AbandonReason::CurrentChanged }),
            Err(PromotionHindrance::Other(hindrance)) => Err(hindrance),
        }
    }

    /// Looks at the current version afresh: the old one goes only if the new one is alive (I5).
    async fn retire(&self, cell: &Cell, work: &mut Work, context: &Context, ledger: &Ledger) -> Outcome {
        if is_on(Mutant::NoFreshLook) {
            return one(Event::Retired { term: self.term() });
        }
        if let Some(rotation) = &ledger.rotation
            && self.is_put_back(context, ledger, rotation).await?
        {
            let found = self.drift_of(context, ledger).await?;
            self.note_drift(cell, work, ledger, found).await?;
            return Err(Hindrance::new(
                "store-changed",
                "somebody else made the old key current again in the store: it isn't revoked; `keywright rollback` goes back to it, or put \
                 the new one back there",
            ));
        }
        // The current version itself: what stands in for it at the provider says nothing of it.
        let Some(current) = &ledger.current else { return Err(Hindrance::new("internal", "there is no current version")) };
        let current = self.full_material(context, current).await?;
        if !context.provider.has_check() {
            // Nobody can be asked, ever: that it is whole in the store, and was refused nowhere, is all that can be looked at.
            return if ledger.refused_since.is_some() {
                Err(IssuerError::Unauthenticated.into())
            } else {
                one(Event::Retired { term: self.term() })
            };
        }
        let report = self.seams.issuer.probe(&self.target(context), &current).await?;
        let now = self.seams.clock.now();
        if let Some(theirs) = report.provider_time {
            self.seams.clock.heard(theirs);
            if now.wall.duration_since(theirs).unsigned_abs() > CLOCKS_APART_MAX && !is_on(Mutant::JumpedClockBelieved) {
                return Err(Hindrance::new(
                    CLOCKS_DISAGREE,
                    "the provider's clock and ours are more than five minutes apart: nothing is revoked",
                ));
            }
        }
        match report.outcome {
            ProbeOutcome::Works | ProbeOutcome::Narrow => {
                let accepted = self.accepted_again(work, ledger);
                Ok(accepted.into_iter().chain([Performed::plain(Event::Retired { term: self.term() })]).collect())
            }
            ProbeOutcome::Dead | ProbeOutcome::WrongEnvironment => self.signing_failed(work, context, ledger, IssuerError::Unauthenticated),
        }
    }

    async fn revoke(&self, cell: &Cell, work: &mut Work, context: &Context, ledger: &Ledger, rotation: &Rotation) -> Outcome {
        let at = self.seams.clock.now().wall;
        let Some(old) = &rotation.old else { return Err(Hindrance::new("internal", "there is no old version")) };
        if context.provider.is_manual() {
            return self.end_manual(context, ledger, rotation, old).await;
        }
        let names_it = context.provider.succession().spares_the_old();
        let key_id = ledger.versions.get(old).and_then(|facts| facts.key_id.clone()).or_else(|| own_name(context, ledger, old));
        let Some(key_id) = key_id.filter(|_| names_it) else {
            // Nothing names the key at the provider, or it is that of the current version, too: it can't be revoked.
            return one(Event::Revoked { at, closure: self.closure_by_look(context, rotation, old).await? });
        };
        let acting = self.acting(work, context, ledger).await?;
        let doomed = match self.full_material(context, old).await {
            Ok(material) => Some(material),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let target = self.signed_target(context, &REVOKING).await?;
        if is_on(Mutant::RevocationNotSent) {
            return one(Event::Revoked { at, closure: Closure::Reported });
        }
        self.audit(Actor::Daemon, "revoking", &cell.name, Some(old.to_string()), Some(format!("key {key_id}"))).await?;
        let doomed = Doomed { key_id: &key_id, material: doomed.as_ref(), is_newer: is_newer_than_current(ledger, old) };
        let revocation = match self.end_key(&target, &acting, doomed).await {
            Ok(revocation) => revocation,
            Err(error) => return self.signing_failed(work, context, ledger, error),
        };
        one(Event::Revoked { at: self.seams.clock.now().wall.max(at), closure: revocation.closure })
    }

    async fn forget_old(&self, context: &Context, ledger: &Ledger, rotation: &Rotation) -> Outcome {
        if let Some(old) = &rotation.old {
            // With it, what was current in between and died before its time.
            let since = ledger.versions.get(old).map_or(u64::MAX, |facts| facts.generation);
            let ended = ledger.versions.iter().filter(|(_, facts)| facts.ended.is_some() && facts.generation > since);
            let ended = ended.map(|(version, _)| version.clone()).filter(|version| ledger.current.as_ref() != Some(version));
            for version in ledger.same_key(old).into_iter().chain(ended) {
                if ledger.current.as_ref() != Some(&version) {
                    self.seams.store.forget(&context.slot(), &version).await?;
                }
            }
        }
        one(Event::Closed)
    }

    async fn undo_key(
        &self,
        cell: &Cell,
        work: &mut Work,
        (context, ledger, rotation): (&Context, &Ledger, &Rotation),
        key_id: KeyId,
    ) -> Outcome {
        if context.provider.has_secondary() && work.stand_in.is_some() {
            return self.leave_candidate(cell, &rotation.version).await;
        }
        let acting = self.acting(work, context, ledger).await?;
        let candidate = match self.full_material(context, &rotation.version).await {
            Ok(material) => Some(material),
            Err(StoreError::NotFound { .. }) => self.sealed_candidate(cell, context, rotation).await,
            Err(error) => return Err(error.into()),
        };
        let target = self.signed_target(context, &REVOKING).await?;
        self.audit(Actor::Daemon, "revoking-candidate", &cell.name, Some(rotation.version.to_string()), Some(format!("key {key_id}")))
            .await?;
        if is_on(Mutant::UndoneKeyLeftAlive) {
            return one(Event::Undone);
        }
        let doomed = Doomed { key_id: &key_id, material: candidate.as_ref(), is_newer: true };
        if let Err(error) = self.end_key(&target, &acting, doomed).await {
            return self.signing_failed(work, context, ledger, error);
        }
        one(Event::Undone)
    }

    async fn sealed_candidate(&self, cell: &Cell, context: &Context, rotation: &Rotation) -> Option<Material> {
        let history = self.seams.journal.load(&cell.name).await.ok()?;
        self.unseal(context, &rotation.version, history.sealed.as_ref()?)
    }

    async fn discard(&self, cell: &Cell, context: &Context, ledger: &Ledger, rotation: &Rotation) -> Outcome {
        match self.seams.store.forget(&context.slot(), &rotation.version).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let failures = ledger.failure.as_ref().map_or(0, |failure| failure.count).saturating_add(1);
        let wait = wait_after(&cell.name, failures, context.policy.retry_wait_max());
        let at = self.seams.clock.now().wall;
        let next_try_at = at.checked_add(wait).unwrap_or(at);
        Ok(vec![Performed { event: Event::Abandoned { at, next_try_at }, sealed: SealedCopy::Erase }])
    }
}
