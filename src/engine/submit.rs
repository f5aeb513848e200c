//! Submission: a person brings a key. Proved before anything of it is kept; current when the call returns.

use std::time::Duration;

use jiff::Timestamp;

use super::Engine;
use super::administrator::{ADMINISTRATOR_MISSING, ADMINISTRATOR_REFUSED};
use super::audit::Actor;
use super::cell::{Cell, Work};
use super::errors::SubmitError;
use super::gather::Context;
use super::verify::Verification;
use super::views::Submitted;
use crate::domain::environment::{Acceptance, Proof, Verdict};
use crate::domain::fields::misfits;
use crate::domain::ids::{KeyId, Name, VersionId};
use crate::domain::ledger::{Closure, Fingerprint, Ledger, Origin};
use crate::domain::material::Material;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::provider::SignedCall;
use crate::domain::rotation::{AbandonReason, Event, Phase, Plan, Rotation};
use crate::issuers::{IssuerError, ProbeOutcome};
use crate::journal::SealedCopy;

/// How often the provider is asked about a submitted key before its answer is believed, or its silence.
const LOOKS_MAX: u32 = 6;
/// How often a refusal is asked about again: replicas of a provider may differ for a moment.
const REFUSALS_MAX: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(400);
/// How long a submission that is durable already is driven before the answer is that it goes on in the background.
const DRIVE_MAX: Duration = Duration::from_secs(60);

/// How a key came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// A person gave it to us.
    Submitted,
    /// A person had us take it over from the store.
    Adopted,
    /// Somebody wrote it into the store.
    Changed,
}

impl Word {
    /// Why its rotation began, and what the audit trail calls it.
    const fn accepted(self) -> &'static str {
        match self {
            Word::Submitted => "submitted",
            Word::Adopted => "adopted",
            Word::Changed => "store-change-accepted",
        }
    }

    const fn refused(self) -> &'static str {
        match self {
            Word::Submitted => "submission-refused",
            Word::Adopted => "adoption-refused",
            Word::Changed => "store-change-refused",
        }
    }
}

/// Who brings a key, and what it takes the place of.
pub(super) struct Bringing {
    pub(super) actor: Actor,
    pub(super) word: Word,
    /// What somebody else made current in the store.
    pub(super) replacing: Option<VersionId>,
}

/// What is known of a submitted key once it is proved.
struct Enrolled {
    proof: Proof,
    key_id: Option<KeyId>,
    issued_at: Timestamp,
    expires_at: Option<Timestamp>,
    fingerprints: Vec<Fingerprint>,
}

impl Engine {
    /// Enrols a key, or replaces the current one by it; the replaced one is retired like any other.
    ///
    /// # Errors
    /// [`SubmitError`]. Nothing of a refused value is kept, fingerprints included.
    pub async fn submit(&self, actor: Actor, name: &Name, mut material: Material) -> Result<Submitted, SubmitError> {
        let (Some(cell), Some(context)) = (self.cell(name), self.context(name)) else { return Err(SubmitError::UnknownCredential) };
        check_fields(&context, &material)?;
        context.provider.link(&mut material);
        let mut work = cell.work.lock().await;
        let bringing = Bringing { actor, word: Word::Submitted, replacing: None };
        let submitted = self.take(bringing, &cell, &mut work, &context, material).await;
        drop(work);
        self.look_at(name);
        submitted
    }

    /// Proves what was brought, makes it a version, and drives that until it is current.
    pub(super) async fn take(
        &self,
        bringing: Bringing,
        cell: &Cell,
        work: &mut Work,
        context: &Context,
        material: Material,
    ) -> Result<Submitted, SubmitError> {
        let name = &cell.name;
        if bringing.replacing.is_none()
            && let Some(same) = self.already_current(cell, context, &material).await?
        {
            return Ok(same);
        }
        let (version, proof) = self.enlist(bringing, cell, work, context, material).await?;
        self.finish(cell, work, context, &version).await?;
        let proof = cell.ledger().versions.get(&version).and_then(|facts| facts.proof.clone()).unwrap_or(proof);
        Ok(Submitted { name: name.clone(), version, proof })
    }

    /// Proves what was brought, and makes it a version: from there on it is driven like any other.
    pub(super) async fn enlist(
        &self,
        mut bringing: Bringing,
        cell: &Cell,
        work: &mut Work,
        context: &Context,
        material: Material,
    ) -> Result<(VersionId, Proof), SubmitError> {
        let name = &cell.name;
        // What is disproved without asking anyone is told first: it is the better reason, whatever else stands in the way.
        let refused = self.disproved(context, &material);
        if refused.is_none() && keeps_out(&cell.ledger()) && !waits_for_administrator(cell) {
            return Err(SubmitError::RotationOpen);
        }
        if refused.is_none() && bringing.replacing.is_none() {
            bringing.replacing = self.replaced_by_submission(cell, work, context).await?;
        }
        let enrolled = match refused {
            Some(refusal) => Err(refusal),
            None => self.enrol(context, &material).await,
        };
        let enrolled = match enrolled {
            Ok(enrolled) => enrolled,
            Err(refusal) => return Err(self.refuse(&bringing, name, refusal).await),
        };
        self.clear_the_way(cell, work, context, &material).await?;
        // One at a time from the last look at the fingerprints until they are journaled; the provider was asked before.
        let one_at_a_time = self.submissions.lock().await;
        if let Some(refusal) = self.disproved(context, &material) {
            return Err(self.refuse(&bringing, name, refusal).await);
        }
        let version = self.begin(bringing, cell, work, context, &material, &enrolled).await?;
        drop(one_at_a_time);
        Ok((version, enrolled.proof))
    }

    /// Puts a refusal on record; what can't be put on record is refused for that.
    pub(super) async fn refuse(&self, bringing: &Bringing, name: &Name, refusal: SubmitError) -> SubmitError {
        match self.audit(bringing.actor.clone(), bringing.word.refused(), name, None, Some(refusal.to_string())).await {
            Ok(()) => refusal,
            Err(_) => SubmitError::AuditUnavailable,
        }
    }

    /// The value is current already: submitting it again changes nothing, its age least of all (I12).
    async fn already_current(&self, cell: &Cell, context: &Context, material: &Material) -> Result<Option<Submitted>, SubmitError> {
        let ledger = cell.ledger();
        let (Some(current), Some(facts), false) = (&ledger.current, ledger.current_facts(), ledger.unverified) else { return Ok(None) };
        let asked = self.fingerprints(&context.provider, material);
        let alike = !asked.is_empty() && asked.iter().all(|print| facts.fingerprints.contains(print));
        let (true, None, Some(proof)) = (alike, ledger.refused_since, &facts.proof) else { return Ok(None) };
        // The secret is the same; the other fields must be, too.
        let known = self.full_material(context, current).await.map_err(|_| SubmitError::StoreUnavailable)?;
        let same = known.same_as(material);
        Ok(same.then(|| Submitted { name: cell.name.clone(), version: current.clone(), proof: proof.clone() }))
    }

    /// What the pure evidence says against it, without a call to anyone.
    fn disproved(&self, context: &Context, material: &Material) -> Option<SubmitError> {
        let proof = Proof::weigh(self.evidence_at_hand(context, material));
        (proof.verdict == Verdict::Mismatch && !is_on(Mutant::EnvironmentUnchecked))
            .then(|| SubmitError::EnvironmentMismatch { reasons: proof.reasons() })
    }

    async fn enrol(&self, context: &Context, material: &Material) -> Result<Enrolled, SubmitError> {
        let verification = self.look_closely(context, material).await?;
        let key_id = key_id_of(context, material);
        let (issued_at, expires_at) = self.times_of(context, material, key_id.as_ref()).await?;
        Ok(Enrolled {
            proof: verification.proof,
            key_id,
            issued_at: self.issued_at(issued_at),
            expires_at,
            fingerprints: self.fingerprints(&context.provider, material),
        })
    }

    /// Weighs the evidence, asking the provider again while it doesn't answer clearly.
    async fn look_closely(&self, context: &Context, material: &Material) -> Result<Verification, SubmitError> {
        let mut refusals = 0;
        for look in 1.. {
            match self.examine(context, material).await {
                Ok(verification) => match judge(&verification) {
                    Err(SubmitError::ProviderRefused { .. }) if refusals + 1 < REFUSALS_MAX => refusals += 1,
                    Err(refusal) => return Err(refusal),
                    Ok(()) => return Ok(verification),
                },
                Err(error @ (IssuerError::Refused { .. } | IssuerError::Impossible(_) | IssuerError::Full)) => {
                    return Err(SubmitError::ProviderRefused { reason: error.to_string() });
                }
                Err(error) if look >= LOOKS_MAX => return Err(SubmitError::ProviderUnavailable { reason: error.to_string() }),
                Err(error) => self.wait_as_asked(&error).await,
            }
            self.seams.clock.sleep(BETWEEN_LOOKS).await;
        }
        Err(SubmitError::ProviderUnavailable { reason: "no clear answer".to_owned() })
    }

    /// When the provider made the key, and when it ends it, where it tells: a pasted old key keeps its age (I12).
    async fn times_of(
        &self,
        context: &Context,
        material: &Material,
        key_id: Option<&KeyId>,
    ) -> Result<(Option<Timestamp>, Option<Timestamp>), SubmitError> {
        let (Some(_), Some(key_id)) = (&context.provider.calls.list, key_id) else { return Ok((None, None)) };
        let target = self.signed_target(context, &[SignedCall::List]).await;
        let target = target.map_err(|hindrance| SubmitError::ProviderUnavailable { reason: hindrance.trouble.message })?;
        for look in 1.. {
            match self.seams.issuer.list(&target, material).await {
                Ok(keys) => {
                    let found = keys.into_iter().find(|key| key.key_id == *key_id);
                    return Ok(found.map_or((None, None), |key| (key.issued_at, key.expires_at)));
                }
                Err(error) if look >= LOOKS_MAX => return Err(SubmitError::ProviderUnavailable { reason: error.to_string() }),
                Err(error) => self.wait_as_asked(&error).await,
            }
            self.seams.clock.sleep(BETWEEN_LOOKS).await;
        }
        Ok((None, None))
    }

    /// Gives up a rotation, and keys left over, that the refused current version can't end any more: the submitted key, just
    /// proved, signs for it. And a rotation that waits for an administering credential, because a person has brought the key.
    async fn clear_the_way(&self, cell: &Cell, work: &mut Work, context: &Context, material: &Material) -> Result<(), SubmitError> {
        let waits = waits_for_administrator(cell);
        let in_the_way = || {
            let ledger = cell.ledger();
            let open = ledger.rotation.as_ref().is_some_and(|rotation| rotation.promoted.is_none());
            let paused = ledger.paused || self.all_paused().is_some();
            let given_up = ledger.refused_since.is_some() && (open || !(ledger.orphans.is_empty() || paused));
            // A removal that was asked for has ended.
            let closing = ledger.rotation.as_ref().is_some_and(|rotation| rotation.phase == Phase::Revoked);
            ledger.clearing || closing || (waits && open) || given_up
        };
        if cell.ledger().rotation.as_ref().is_some_and(|rotation| rotation.abandoning.is_none() && rotation.promoted.is_none()) {
            let reason = if waits { AbandonReason::NoAdministrator } else { AbandonReason::CurrentRefused };
            let given_up = self.append(cell, work, &Event::Abandoning { reason }, SealedCopy::Keep).await;
            given_up.map_err(|_| SubmitError::StoreUnavailable)?;
        }
        self.stop_asking_for_removal(cell, work).await?;
        let began = self.seams.clock.now().running;
        work.stand_in = Some(material.duplicate());
        work.backoff.succeeded();
        while in_the_way() && self.seams.clock.now().running.saturating_sub(began) < DRIVE_MAX {
            self.advance(cell, work, context).await;
            if in_the_way() {
                self.wait_for_backoff(work).await;
            }
        }
        work.stand_in = None;
        if in_the_way() { Err(SubmitError::RotationOpen) } else { Ok(()) }
    }

    /// The next key is here before the last but one was removed: nobody waits for that any longer, and nothing tells of its death.
    /// Where the key in between is dead, the removal goes on for the new one.
    async fn stop_asking_for_removal(&self, cell: &Cell, work: &mut Work) -> Result<(), SubmitError> {
        let ledger = cell.ledger();
        let open = ledger.rotation.as_ref().filter(|open| open.awaits_removal() && !open.gives_way(ledger.refused_since));
        if open.is_none() {
            return Ok(());
        }
        let event = Event::Revoked { at: self.seams.clock.now().wall, closure: Closure::Unproved };
        self.append(cell, work, &event, SealedCopy::Keep).await.map_err(|_| SubmitError::StoreUnavailable)
    }

    pub(super) async fn wait_for_backoff(&self, work: &Work) {
        let left = work.backoff.until().saturating_sub(self.seams.clock.now().running);
        self.seams.clock.sleep(left.clamp(Duration::from_millis(20), Duration::from_secs(1))).await;
    }

    /// Journals the plan and the sealed copy: from here on the submission survives a crash.
    async fn begin(
        &self,
        bringing: Bringing,
        cell: &Cell,
        work: &mut Work,
        context: &Context,
        material: &Material,
        enrolled: &Enrolled,
    ) -> Result<VersionId, SubmitError> {
        let unavailable = |_| SubmitError::StoreUnavailable;
        let Bringing { actor, word, replacing } = bringing;
        let plan = Plan { replacing, ..self.new_plan(cell, context, Origin::Submitted, word.accepted()) };
        let version = plan.version.clone();
        let sealed = self.seal(context, &version, material).map_err(unavailable)?;
        let recorded = self.audit(actor, word.accepted(), &cell.name, Some(version.to_string()), None).await;
        recorded.map_err(|_| SubmitError::AuditUnavailable)?;
        self.begin_journal(cell, work).await.map_err(unavailable)?;
        self.append(cell, work, &Event::Planned { plan }, SealedCopy::Keep).await.map_err(unavailable)?;
        let issued = Event::Issued {
            key_id: enrolled.key_id.clone(),
            issued_at: enrolled.issued_at,
            expires_at: enrolled.expires_at,
            fingerprints: enrolled.fingerprints.clone(),
            copy_of: None,
            old_ends_at: None,
        };
        self.append(cell, work, &issued, SealedCopy::Put(sealed)).await.map_err(unavailable)?;
        Ok(version)
    }

    /// Drives the rotation until the version is current, or was given up.
    async fn finish(&self, cell: &Cell, work: &mut Work, context: &Context, version: &VersionId) -> Result<(), SubmitError> {
        let began = self.seams.clock.now().running;
        work.backoff.succeeded();
        loop {
            let reason = cell.ledger().rotation.as_ref().and_then(|rotation| rotation.abandoning);
            self.advance(cell, work, context).await;
            let ledger = cell.ledger();
            if ledger.current.as_ref() == Some(version) {
                return Ok(());
            }
            let has_ended = ledger.rotation.as_ref().is_none_or(|rotation| rotation.version != *version);
            if has_ended {
                // What is given up isn't kept. What is may have been replaced in the same go: it was due as soon as it was current.
                return if ledger.versions.contains_key(version) { Ok(()) } else { Err(refusal_of(reason)) };
            }
            let running = self.seams.clock.now().running;
            if running.saturating_sub(began) > DRIVE_MAX {
                return Err(SubmitError::StoreUnavailable);
            }
            self.wait_for_backoff(work).await;
        }
    }

    async fn wait_as_asked(&self, error: &IssuerError) {
        if let IssuerError::Throttled { retry_after: Some(wait) } = error {
            self.seams.clock.sleep((*wait).min(Duration::from_secs(5))).await;
        }
    }
}

/// Whether an open rotation may be given up for a submission: the provider refuses the current version, and nothing has taken
/// its place.
fn can_be_given_up(ledger: &Ledger, rotation: &Rotation) -> bool {
    ledger.refused_since.is_some() && rotation.promoted.is_none() && rotation.plan.origin == Origin::Minted
}

/// Whether the open rotation has made nothing yet, and can't until the administering credential works: a person who brings a key
/// needn't wait for that.
fn waits_for_administrator(cell: &Cell) -> bool {
    let ledger = cell.ledger();
    let unmade = ledger.rotation.as_ref().is_some_and(|open| open.phase == Phase::Planned && open.plan.origin == Origin::Minted);
    unmade && cell.trouble().is_some_and(|trouble| matches!(trouble.code, ADMINISTRATOR_MISSING | ADMINISTRATOR_REFUSED))
}

/// Whether the open rotation, if there is one, keeps a submission out.
pub(super) fn keeps_out(ledger: &Ledger) -> bool {
    let open = ledger.rotation.as_ref();
    open.is_some_and(|rotation| {
        !can_be_given_up(ledger, rotation) && !rotation.gives_way(ledger.refused_since) && !rotation.awaits_removal()
    })
}

fn refusal_of(reason: Option<AbandonReason>) -> SubmitError {
    match reason {
        Some(AbandonReason::EnvironmentMismatch) => {
            SubmitError::EnvironmentMismatch { reasons: "disproved when it was verified again".to_owned() }
        }
        Some(AbandonReason::Undetermined) => {
            SubmitError::Undetermined { reasons: "nothing proved it when it was verified again".to_owned() }
        }
        Some(AbandonReason::CurrentChanged) => SubmitError::StoreChanged,
        _ => SubmitError::ProviderRefused { reason: "it was refused when it was verified again".to_owned() },
    }
}

fn judge(verification: &Verification) -> Result<(), SubmitError> {
    let reasons = || verification.proof.reasons();
    match (&verification.acceptance, verification.outcome) {
        (Acceptance::Mismatch, _) => Err(SubmitError::EnvironmentMismatch { reasons: reasons() }),
        (_, Some(ProbeOutcome::Dead | ProbeOutcome::WrongEnvironment)) => Err(SubmitError::ProviderRefused {
            reason: "asked at this environment's address, it answered that the key isn't valid".to_owned(),
        }),
        (Acceptance::Undetermined, _) => Err(SubmitError::Undetermined { reasons: reasons() }),
        (Acceptance::Proved | Acceptance::Accepted, _) => Ok(()),
    }
}

pub(super) fn check_fields(context: &Context, material: &Material) -> Result<(), SubmitError> {
    let problems = misfits(&context.provider, material);
    if problems.is_empty() { Ok(()) } else { Err(SubmitError::InvalidFields(problems)) }
}

/// The provider's id of a submitted key: the public field that a created key's id would stand in.
fn key_id_of(context: &Context, material: &Material) -> Option<KeyId> {
    let create = context.provider.calls.create.as_ref()?;
    let key_id = create.key_id.as_ref()?;
    let field = create.fields.iter().find(|(_, pointer)| *pointer == key_id).map(|(field, _)| field)?;
    let public = context.provider.fields.get(field).is_some_and(|field| field.class == crate::domain::provider::FieldClass::Public);
    material.get(field).filter(|_| public)?.expose_str()?.parse().ok()
}
