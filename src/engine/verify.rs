//! Verification: of a candidate before its promotion, of a submission before it is stored, of the current version now and then.

use std::time::Duration;

use super::Engine;
use super::cell::{Cell, Work};
use super::drift::store_look_due;
use super::drive::Hindrance;
use super::gather::Context;
use super::manual::removal_due;
use super::perform::{CLOCKS_DISAGREE, Outcome, Performed};
use crate::domain::due::{Decision, decide};
use crate::domain::environment::{Acceptance, Evidence, EvidenceKind, Proof, Says, pure_evidence};
use crate::domain::ids::VersionId;
use crate::domain::ledger::{Ledger, Origin};
use crate::domain::material::Material;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::rotation::{AbandonReason, Event, Moment, Phase, Rotation, Step};
use crate::issuers::{IssuerError, ProbeOutcome, ProbeReport, Target};
use crate::journal::copy_of;
use crate::sealing::Sealed;

/// How often in a row a candidate is accepted before it is promoted.
const ACCEPTANCES_MIN: u32 = 3;

/// A routine look takes no longer than this, whatever the issuer's own limits are.
const LOOK_MAX: Duration = Duration::from_secs(120);

/// What a look at some material found.
pub(super) struct Verification {
    pub(super) proof: Proof,
    pub(super) acceptance: Acceptance,
    /// The provider said that it doesn't accept it. Without a probe: `None`.
    pub(super) outcome: Option<ProbeOutcome>,
}

impl Engine {
    /// Weighs all evidence, the provider's answer last. What the pure evidence disproves is never sent anywhere (I18).
    pub(super) async fn examine(&self, context: &Context, material: &Material) -> Result<Verification, IssuerError> {
        self.examine_with(context, material, None).await
    }

    /// `known` is what we know of the value beside the value itself.
    async fn examine_with(&self, context: &Context, material: &Material, known: Option<Evidence>) -> Result<Verification, IssuerError> {
        let mut evidence = self.evidence_at_hand(context, material);
        evidence.extend(known);
        let disproved = !is_on(Mutant::EnvironmentUnchecked) && evidence.iter().any(|piece| piece.says == Says::Against);
        let mut outcome = None;
        if !disproved && context.provider.has_check() {
            let report = self.seams.issuer.probe(&self.target(context), material).await?;
            if let Some(theirs) = report.provider_time {
                self.seams.clock.heard(theirs);
            }
            evidence.push(probe_evidence(context, &report));
            outcome = Some(report.outcome);
        }
        let proof = Proof::weigh(evidence);
        let acceptance = proof.acceptance(&context.credential);
        Ok(Verification { proof, acceptance, outcome })
    }

    /// The evidence that needs no call: forms, addresses, fingerprints.
    pub(super) fn evidence_at_hand(&self, context: &Context, material: &Material) -> Vec<Evidence> {
        let fingerprints = self.fingerprints(&context.provider, material);
        let hits = self.fingerprint_hits(&context.credential.name, &fingerprints);
        pure_evidence(&context.provider, &context.credential, material, &self.base_url(context), &hits)
    }

    /// Verifies the candidate by the strongest check described. A provider's replicas learn of a new key one by one, so one
    /// acceptance isn't enough: several in a row are (I3).
    pub(super) async fn verify_candidate(&self, context: &Context, ledger: &Ledger, rotation: &Rotation) -> Outcome {
        // The store is the truth about stages: what an earlier process promoted, without living to journal it, is promoted.
        let already = rotation.phase == Phase::Verified
            && self.seams.store.stages(&context.slot()).await?.current.as_ref() == Some(&rotation.version);
        if already {
            return Ok(vec![Performed::plain(Event::Promoted { at: self.seams.clock.now().instant() })]);
        }
        let material = self.full_material(context, &rotation.version).await?;
        // Counted within one look: what was accepted before an error, some time ago, isn't "in a row".
        let mut accepted = 0;
        let verification = loop {
            let made_here = self.made_here(context, ledger, &rotation.version, &material);
            let verification = self.examine_with(context, &material, made_here).await?;
            let works = verification.outcome == Some(ProbeOutcome::Works) && verification.acceptance.is_enough();
            if is_on(Mutant::PromotedOnce) && works {
                break verification;
            }
            accepted += u32::from(works);
            if !works || accepted >= ACCEPTANCES_MIN {
                break verification;
            }
        };
        let event = match (&verification.acceptance, verification.outcome) {
            (Acceptance::Mismatch, _) => Event::Abandoning { reason: AbandonReason::EnvironmentMismatch },
            (_, Some(ProbeOutcome::Dead)) if !is_on(Mutant::PromotedUnverified) => self.refused(context, ledger, rotation),
            (Acceptance::Undetermined, _) => Event::Abandoning { reason: AbandonReason::Undetermined },
            _ => Event::Verified { proof: verification.proof, term: self.term() },
        };
        let refused_early = matches!(event, Event::Refused { .. });
        if refused_early && rotation.refused_first.is_some() && !matches!(event, Event::Refused { counted: true, .. }) {
            // Within the propagation delay: one event marks its beginning, the rest is waiting.
            return Err(Hindrance::new("candidate-not-yet-accepted", "the provider doesn't accept the new key yet"));
        }
        Ok(vec![Performed::plain(event)])
    }

    /// Where we made the value ourselves, its environment is the one that we made it for: nobody else knows it. The fingerprint
    /// shows that what the store gives back is what was made, for values of our own the strongest check there is (I4).
    fn made_here(&self, context: &Context, ledger: &Ledger, version: &VersionId, material: &Material) -> Option<Evidence> {
        if !context.provider.is_generated() || ledger.origin_of(version) != Some(Origin::Chosen) {
            return None;
        }
        let recorded = &ledger.versions.get(version)?.fingerprints;
        let same = !recorded.is_empty() && *recorded == self.fingerprints(&context.provider, material);
        let (says, why) = if same {
            let environment = context.credential.environment;
            (Says::For, format!("keywright made it for this {environment} credential, and the store gives back what was made"))
        } else {
            (Says::Against, "the store gives back another value than the one that was made".to_owned())
        };
        Some(Evidence::new(EvidenceKind::Fingerprint, says, why))
    }

    /// A fresh key that is refused counts as failed only after the propagation delay.
    fn refused(&self, context: &Context, ledger: &Ledger, rotation: &Rotation) -> Event {
        let now = self.seams.clock.now();
        let propagation = context.policy.propagation(&context.provider);
        let waited = rotation.refused_first.is_some_and(|first| now.running.saturating_sub(first) >= propagation);
        // A copy of a key that worked before needs no time to spread.
        let known = ledger.versions.get(&rotation.version).is_some_and(|facts| facts.origin != Origin::Minted);
        Event::Refused { at: now.instant(), counted: waited || known }
    }

    /// Between rotations: looks for orphans, and whether the current key still lives.
    pub(super) async fn upkeep(&self, cell: &Cell, work: &mut Work, context: &Context) {
        let running = self.seams.clock.now().running;
        let ledger = cell.ledger();
        if ledger.current.is_none() || work.upkeep_backoff.is_waiting(running) {
            return;
        }
        let free = match work.backoff.is_waiting(running) {
            // A clock that is off may keep a revocation back for days, and nothing else: what is left over is looked for all the same.
            true if cell.trouble().is_some_and(|trouble| trouble.code == CLOCKS_DISAGREE) => Some(work.backoff.until() - running),
            true => None,
            false => self.free_time(cell, work, context, &ledger),
        };
        let Some(free) = free else { return };
        work.routine = true;
        let outcome = self.upkeep_step(cell, work, context, &ledger, free).await;
        work.routine = false;
        // The keys of a whole account, as many times as it has credentials: only a step that follows at once needs them.
        work.seen = None;
        match outcome {
            Ok(()) => work.upkeep_backoff.succeeded(),
            Err(hindrance) => {
                tracing::warn!(credential = %cell.name, code = hindrance.trouble.code, "a routine look at the provider didn't succeed and will be repeated");
                work.upkeep_backoff.failed(&cell.name, running, context.policy.retry_wait_max(), hindrance.retry_after);
            }
        }
    }

    /// How long nothing of the rotation itself is due: a slow provider must not make a routine look cost a deadline. `None`:
    /// something is due now.
    fn free_time(&self, cell: &Cell, work: &Work, context: &Context, ledger: &Ledger) -> Option<Duration> {
        let gathered = self.gather(context, ledger);
        let until = match decide(&self.facts(context, ledger, work, &gathered)) {
            // Nothing begins before the store is as it was.
            Decision::Due { .. } if cell.drift().is_some() => None,
            Decision::Due { .. } => return None,
            Decision::Step(Step::Wait(wait)) => wait.until,
            Decision::Step(_) => return None,
            Decision::Steady { wake_at } => Some(wake_at),
            Decision::Blocked { until, .. } => until,
            Decision::Missing | Decision::Stuck { .. } => None,
        };
        let left = until.map(|until| Duration::try_from(until.duration_since(self.seams.clock.now().wall)).unwrap_or_default());
        Some(left.unwrap_or(LOOK_MAX).min(LOOK_MAX))
    }

    async fn upkeep_step(&self, cell: &Cell, work: &mut Work, context: &Context, ledger: &Ledger, free: Duration) -> Result<(), Hindrance> {
        let running = self.seams.clock.now().running;
        let end = self.seams.clock.now().running + free;
        if store_look_due(cell, work, context, ledger, running) {
            let found = self.cut_short_at(end, self.drift_of(context, ledger)).await?;
            self.note_drift(cell, work, ledger, found).await?;
        }
        // Bytes of somebody else are sent nowhere.
        let are_ours = cell.drift().is_none_or(|drift| drift.leaves_bytes());
        let mut swept = Ok(());
        if are_ours && sweep_due(work, context, running) {
            swept = self.sweep(cell, work, context, ledger, end).await;
            // A list that the current key signed is a look at that key; one that an administrator signed is none, whatever came of it.
            if !context.lists_by_administrator() {
                swept?;
                // It brings no time along, though, which a clock that isn't believed waits for.
                if self.seams.clock.now().trusted {
                    work.checked_at = work.swept_at;
                }
                return Ok(());
            }
        }
        let mut removal = Ok(());
        if removal_due(work, context, ledger, running) {
            // Whatever comes of it: the next look waits its time, and the current key is looked at all the same.
            work.removal_looked_at = Some(running);
            let found = self.cut_short_at(end, self.look_at_removed(work, context, ledger)).await;
            removal = match found {
                Ok(events) => self.append_all(cell, work, events).await,
                Err(hindrance) => Err(hindrance),
            };
        }
        if are_ours && check_due(work, context, ledger, self.seams.clock.now()) {
            let events = self.cut_short_at(end, self.check_current(work, context, ledger)).await?;
            work.checked_at = Some(running);
            self.append_all(cell, work, events).await?;
        }
        swept.and(removal)
    }

    async fn sweep(&self, cell: &Cell, work: &mut Work, context: &Context, ledger: &Ledger, end: Duration) -> Result<(), Hindrance> {
        let account = self.account(&context.credential.account);
        let look = async {
            let guard = account.lock().await;
            self.survey(work, context, ledger).await.map(|found| (guard, found))
        };
        let (_guard, found) = self.cut_short_at(end, look).await?;
        self.append_all(cell, work, found).await
    }

    /// Only questions are cut short; what they found is written in peace. `end` is running time.
    async fn cut_short_at<T>(&self, end: Duration, question: impl Future<Output = Result<T, Hindrance>>) -> Result<T, Hindrance> {
        let late = "a routine look at the provider took so long that a step of the rotation came first";
        tokio::select! {
            biased;
            found = question => found,
            () = self.seams.clock.time_out(end.saturating_sub(self.seams.clock.now().running)) => Err(Hindrance::new("look-cut-short", late)),
        }
    }

    async fn append_all(&self, cell: &Cell, work: &mut Work, events: Vec<Performed>) -> Result<(), Hindrance> {
        for Performed { event, sealed } in events {
            self.append(cell, work, &event, sealed).await?;
        }
        Ok(())
    }

    async fn check_current(&self, work: &mut Work, context: &Context, ledger: &Ledger) -> Outcome {
        let Some(current) = &ledger.current else { return Ok(Vec::new()) };
        let material = self.routine_material(context, current).await?;
        let target = Target { routine: work.routine, ..self.target(context) };
        let report = self.seams.issuer.probe(&target, &material).await?;
        if let Some(theirs) = report.provider_time {
            self.seams.clock.heard(theirs);
        }
        if matches!(report.outcome, ProbeOutcome::Works | ProbeOutcome::Narrow) {
            return Ok(self.accepted_again(work, ledger).into_iter().collect());
        }
        if ledger.refused_since.is_some() {
            return Ok(Vec::new());
        }
        let propagation = context.policy.propagation(&context.provider);
        if !work.current_refused(self.seams.clock.now().running, propagation) {
            return Err(IssuerError::Unauthenticated.into());
        }
        Ok(vec![Performed::plain(Event::CurrentRefused { at: self.seams.clock.now().wall })])
    }

    /// Seals the copy that the journal keeps from `issued` to `stored` (I11).
    pub(super) fn seal(&self, context: &Context, version: &VersionId, material: &Material) -> Result<Sealed, Hindrance> {
        let place = copy_of(&context.credential.name, version);
        self.seams.keyring.seal(&place, &material.to_json()).map_err(|error| Hindrance::new("sealing-failed", error.to_string()))
    }

    pub(super) fn unseal(&self, context: &Context, version: &VersionId, sealed: &Sealed) -> Option<Material> {
        let place = copy_of(&context.credential.name, version);
        let json = self.seams.keyring.unseal(&place, sealed).ok()?;
        Material::from_json(json.expose()).ok()
    }
}

/// Whether orphans are to be looked for again.
pub(super) fn sweep_due(work: &Work, context: &Context, running: Duration) -> bool {
    context.provider.can_find_orphans() && elapsed(work.swept_at, context.policy.sweep_every(), running)
}

/// Whether the current key is to be looked at again: by policy, and sooner while it is refused, or while our clock isn't
/// believed, because the provider's answer brings its time along. Where nobody can be asked, it never is.
pub(super) fn check_due(work: &Work, context: &Context, ledger: &Ledger, now: Moment) -> bool {
    let by_policy = context.policy.verify_every.as_duration();
    let soon = ledger.refused_since.is_some() || !now.trusted;
    let every = if soon { by_policy.min(context.policy.sweep_every()) } else { by_policy };
    context.provider.has_check() && elapsed(work.checked_at, every, now.running)
}

fn elapsed(last: Option<Duration>, every: Duration, running: Duration) -> bool {
    last.is_none_or(|last| running.saturating_sub(last) >= every)
}

fn probe_evidence(context: &Context, report: &ProbeReport) -> Evidence {
    let environment = context.credential.environment;
    let (says, why) = match report.outcome {
        ProbeOutcome::Works if report.proves_environment => {
            (Says::For, format!("the provider accepts it at its {environment} address, and keys of the other environment don't work there"))
        }
        ProbeOutcome::Works => (Says::Nothing, "the provider accepts it, which doesn't tell its environment".to_owned()),
        ProbeOutcome::Narrow => (Says::Nothing, "the provider knows it but doesn't let it ask".to_owned()),
        ProbeOutcome::Dead => (Says::Nothing, format!("the provider doesn't accept it at its {environment} address")),
        ProbeOutcome::WrongEnvironment => (Says::Against, format!("the provider says that it isn't a {environment} value")),
    };
    Evidence::new(EvidenceKind::Probe, says, why)
}
