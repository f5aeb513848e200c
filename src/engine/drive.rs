//! Drives one credential: decide, perform, journal, again, until there is something to wait for.

use std::sync::Arc;
use std::time::Duration;

use super::audit::Actor;
use super::cell::{Cell, Trouble, Work};
use super::gather::Context;
use super::status::blocker_text;
use super::{Engine, perform::Performed};
use crate::delivery::Change;
use crate::domain::due::{Decision, decide};
use crate::domain::ids::OperationId;
use crate::domain::ledger::{Ledger, Origin};
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::rollout::{Reach, under_way};
use crate::domain::rotation::{Event, Phase, Plan, Step, apply};
use crate::domain::succession::Succession;
use crate::journal::{JournalError, Position, SealedCopy};
use crate::stores::{Append, Promotion, PromotionError, StoreError};

/// Steps in one go; then others get their turn.
const STEPS_MAX: usize = 64;
/// A journal of more events than this is replaced by a snapshot when its rotation is closed.
const EVENTS_MAX: usize = 200;

/// What hinders a step. The kind decides; the message is for `status`, and of our own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hindrance {
    pub(super) trouble: Trouble,
    pub(super) retry_after: Option<Duration>,
}

impl Hindrance {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Hindrance {
        Hindrance { trouble: Trouble { code, message: message.into() }, retry_after: None }
    }
}

impl From<JournalError> for Hindrance {
    fn from(error: JournalError) -> Hindrance {
        Hindrance::new("journal-unavailable", error.to_string())
    }
}

impl From<super::audit::AuditError> for Hindrance {
    fn from(error: super::audit::AuditError) -> Hindrance {
        Hindrance::new("audit-unavailable", error.to_string())
    }
}

/// What hinders a promotion.
pub(super) enum PromotionHindrance {
    /// The store has another current version than the journal: this rotation can't go on.
    CurrentChanged,
    Other(Hindrance),
}

impl From<Hindrance> for PromotionHindrance {
    fn from(hindrance: Hindrance) -> PromotionHindrance {
        PromotionHindrance::Other(hindrance)
    }
}

impl From<PromotionError> for Hindrance {
    fn from(error: PromotionError) -> Hindrance {
        match error {
            PromotionError::Store(error) => error.into(),
            PromotionError::Journal(error) => error.into(),
        }
    }
}

/// What a step that wasn't hindered means for the next wait.
enum Progress {
    Advanced,
    /// It only prepared the step that counts, or cleared away what a failed one left: the next failure waits as long as if this
    /// had never succeeded.
    Looked,
    /// The provider refused the candidate: the next try waits.
    Refused,
}

impl Engine {
    /// Looks at one credential and does what is next. Returns at once if it is being driven already.
    pub(super) async fn drive(&self, cell: &Arc<Cell>) {
        let Ok(mut work) = cell.work.try_lock() else { return };
        if !self.may_act(&work) {
            return;
        }
        let Some(context) = self.context(&cell.name) else { return };
        if !self.verify_restored(cell, &mut work, &context).await {
            return;
        }
        self.advance(cell, &mut work, &context).await;
        self.upkeep(cell, &mut work, &context).await;
        self.take_up_change(cell, &mut work, &context).await;
    }

    /// Performs what is next until there is something to wait for.
    pub(super) async fn advance(&self, cell: &Cell, work: &mut Work, context: &Context) {
        // Between drives, time has passed: what the provider holds is looked at again before anything is created, where that can be.
        work.create_unsent &= !context.provider.can_find_orphans();
        work.seen = None;
        // Kept from the first look at the provider's keys until the new key is in the journal.
        let mut account_guard = None;
        for _ in 0..STEPS_MAX {
            if work.backoff.is_waiting(self.seams.clock.now().running) || !self.may_act(work) {
                return;
            }
            let ledger = cell.ledger();
            // Who holds the old key is read after the journal ceased to let anybody be served it, and before its end is intended.
            if ledger.previous().is_some()
                && let Err(error) = self.look_at_rows().await
            {
                return self.note(cell, work, context, Err(JournalError::from(error).into()));
            }
            let gathered = self.gather(context, &ledger);
            let decision = decide(&self.facts(context, &ledger, work, &gathered));
            let outcome = match decision {
                // What would take its place can't be promoted, or be signed for: a person looks first.
                Decision::Due { .. } if cell.drift().is_some() => return,
                Decision::Due { reason } => self.plan_rotation(cell, work, context, reason.as_str()).await.map(|_| Progress::Advanced),
                Decision::Step(Step::Wait(_)) => return cell.set_trouble(None),
                Decision::Step(step) => {
                    if account_guard.is_none() && touches_account(&step) {
                        let account = self.account(&context.credential.account);
                        account_guard = Some(account.lock_owned().await);
                    }
                    let outcome = self.step(cell, work, context, step).await;
                    if cell.ledger().rotation.as_ref().is_none_or(|rotation| rotation.phase != Phase::Planned) {
                        account_guard = None;
                    }
                    outcome
                }
                // What hindered a step hinders none any more.
                Decision::Missing | Decision::Steady { .. } | Decision::Blocked { .. } | Decision::Stuck { .. } => {
                    return cell.set_trouble(None);
                }
            };
            self.note(cell, work, context, outcome);
        }
    }

    /// Not in another term than it was loaded in, nor once our mandate is over.
    fn may_act(&self, work: &Work) -> bool {
        self.leads() && self.term() == work.term
    }

    fn note(&self, cell: &Cell, work: &mut Work, context: &Context, outcome: Result<Progress, Hindrance>) {
        match outcome {
            Ok(Progress::Looked) => {}
            Ok(Progress::Advanced) => {
                work.backoff.succeeded();
                cell.set_trouble(None);
            }
            Ok(Progress::Refused) => {
                let running = self.seams.clock.now().running;
                work.backoff.failed(&cell.name, running, context.policy.retry_wait_max(), None);
            }
            Err(hindrance) => {
                tracing::warn!(credential = %cell.name, code = hindrance.trouble.code, "a step didn't succeed and will be tried again");
                let running = self.seams.clock.now().running;
                work.backoff.failed(&cell.name, running, context.policy.retry_wait_max(), hindrance.retry_after);
                cell.set_trouble(Some(hindrance.trouble));
            }
        }
    }

    async fn step(&self, cell: &Cell, work: &mut Work, context: &Context, step: Step) -> Result<Progress, Hindrance> {
        let looks_only = matches!(step, Step::Survey | Step::RevokeOrphan { .. } | Step::Journal(Event::CreateIntended { .. }));
        let word = step_word(&step);
        let began = self.seams.clock.now().running;
        let performed = self.perform(cell, work, context, step).await;
        self.seams.meter.step_took(word, self.seams.clock.now().running.saturating_sub(began));
        let mut refused = false;
        for Performed { event, sealed } in performed? {
            refused |= matches!(event, Event::Refused { .. });
            self.append(cell, work, &event, sealed).await?;
        }
        Ok(match (refused, looks_only) {
            (true, _) => Progress::Refused,
            (false, true) => Progress::Looked,
            (false, false) => Progress::Advanced,
        })
    }

    /// Fixes ids, generation and token of a rotation, durably, before anything is done (I1).
    pub(super) async fn plan_rotation(
        &self,
        cell: &Cell,
        work: &mut Work,
        context: &Context,
        reason: &str,
    ) -> Result<OperationId, Hindrance> {
        let origin = if context.provider.is_generated() { Origin::Chosen } else { Origin::Minted };
        let plan = self.new_plan(cell, context, origin, reason);
        let operation = plan.operation;
        self.begin_journal(cell, work).await?;
        self.append(cell, work, &Event::Planned { plan }, SealedCopy::Keep).await?;
        Ok(operation)
    }

    pub(super) fn new_plan(&self, cell: &Cell, context: &Context, origin: Origin, reason: &str) -> Plan {
        let ledger = cell.ledger();
        let (generation, attempt) = (ledger.generation + 1, ledger.attempts + 1);
        let operation = OperationId::new(self.installation, &cell.name, generation, attempt);
        Plan {
            generation,
            attempt,
            operation,
            version: operation.version(generation),
            origin,
            reason: reason.to_owned(),
            terms: context.policy.terms,
            planned_at: self.seams.clock.now().wall,
            // What came back from a backup may have been ended since: it isn't handed out to verify with either (I10).
            succession: if origin == Origin::Minted { context.provider.succession() } else { Succession::Beside },
            serves_previous: context.provider.serves_previous() && !ledger.unverified,
            // Who verifies with a value must know it as soon as others may sign with it.
            rollout: if origin == Origin::RolledBack
                || context.provider.serves_previous()
                || !context.provider.succession().spares_the_old()
            {
                Vec::new()
            } else {
                context.policy.rollout.clone()
            },
            twin_rotations: self.twin_rotations(context),
            replacing: None,
        }
    }

    /// Journals one event and takes it over. Audited before, where it announces an effect (I17).
    pub(super) async fn append(&self, cell: &Cell, work: &mut Work, event: &Event, sealed: SealedCopy) -> Result<(), Hindrance> {
        let next = self.foresee(cell, event).await?;
        if is_on(Mutant::IntentNotJournaled) && matches!(event, Event::CreateIntended { .. }) {
            cell.set_ledger(next);
            return Ok(());
        }
        match self.seams.journal.append(&cell.name, work.position, work.term, event, sealed.clone()).await {
            Ok(position) => {
                work.position = position;
                work.events += 1;
                match sealed {
                    SealedCopy::Keep => {}
                    SealedCopy::Put(copy) => work.sealed = Some(copy),
                    SealedCopy::Erase => work.sealed = None,
                }
            }
            Err(error) if !is_on(Mutant::DeposedGoesOn) && !self.took_effect(cell, work, &next).await => return Err(error.into()),
            Err(_) => {}
        }
        self.take_over(cell, work, event, next).await;
        Ok(())
    }

    /// Moves the stage in the store and journals it, in one write where they share a file. What the store refuses has changed
    /// nothing.
    pub(super) async fn append_promoted(
        &self,
        cell: &Cell,
        work: &mut Work,
        promotion: Promotion<'_>,
        event: &Event,
    ) -> Result<(), PromotionHindrance> {
        let next = self.foresee(cell, event).await?;
        let append = Append { expected: work.position, term: work.term, event };
        match self.seams.promoter.promote_with(promotion, append).await {
            Ok(position) => {
                work.position = position;
                work.events += 1;
            }
            Err(PromotionError::Store(StoreError::CurrentChanged { .. })) => return Err(PromotionHindrance::CurrentChanged),
            Err(error) if !is_on(Mutant::DeposedGoesOn) && !self.took_effect(cell, work, &next).await => {
                return Err(PromotionHindrance::Other(error.into()));
            }
            Err(_) => {}
        }
        self.take_over(cell, work, event, next).await;
        Ok(())
    }

    /// What an event will make of the ledger. It is audited here, where it announces an effect (I17).
    async fn foresee(&self, cell: &Cell, event: &Event) -> Result<Ledger, Hindrance> {
        let ledger = cell.ledger();
        let next = apply(&ledger, event).map_err(|error| Hindrance::new("internal", error.to_string()))?;
        let version = next.rotation.as_ref().or(ledger.rotation.as_ref()).map(|rotation| rotation.version.to_string());
        if let Some((action, detail)) = audited(event) {
            self.audit(Actor::Daemon, action, &cell.name, version, detail).await?;
        }
        Ok(next)
    }

    /// The event is durable: what it made of the ledger holds, and those who wait for it are told.
    async fn take_over(&self, cell: &Cell, work: &mut Work, event: &Event, next: Ledger) {
        let ledger = cell.ledger();
        // A step of a rollout changes nothing for who has its version, and is news to who gets it.
        let changed = next.revision != ledger.revision || reach(&next) != reach(&ledger);
        let revision = next.revision;
        let closed = next.rotation.is_none() && ledger.rotation.is_some();
        cell.set_ledger(next);
        if changed {
            self.seams.delivery.announce(Change::Credential { name: cell.name.clone(), revision });
        }
        tracing::info!(credential = %cell.name, event = event_word(event), "journaled");
        self.tell_of_request(cell, event);
        if matches!(event, Event::Revoked { .. } | Event::Closed | Event::Abandoned { .. })
            && let Some(context) = self.context(&cell.name)
        {
            context.rehearsing().iter().for_each(|name| self.look_at(name));
        }
        if closed {
            self.seams.meter.rotation_ended(if matches!(event, Event::Abandoned { .. } | Event::Forgotten) {
                "abandoned"
            } else {
                "revoked"
            });
            self.compact(cell, work).await;
        }
    }

    /// Whether an append that failed took effect isn't known: what is durable decides, and is taken over. True if that is `next`.
    async fn took_effect(&self, cell: &Cell, work: &mut Work, next: &Ledger) -> bool {
        let Ok(history) = self.seams.journal.load(&cell.name).await else { return false };
        let Ok(ledger) = history.events.iter().try_fold(Ledger::default(), |ledger, event| apply(&ledger, event)) else { return false };
        if history.position.term > work.term {
            return false;
        }
        let ours = history.position == Position { term: work.term, revision: work.position.revision + 1 };
        work.position = history.position;
        work.events = history.events.len();
        work.sealed = history.sealed;
        if ours && ledger == *next {
            return true;
        }
        work.create_unsent = false;
        work.seen = None;
        let revision = ledger.revision;
        let changed = revision != cell.ledger().revision || reach(&ledger) != reach(&cell.ledger());
        cell.set_ledger(ledger);
        if changed {
            self.seams.delivery.announce(Change::Credential { name: cell.name.clone(), revision });
        }
        false
    }

    /// Replaces a long journal by what it adds up to. A failure is no harm: the journal stays as it is.
    async fn compact(&self, cell: &Cell, work: &mut Work) {
        let ledger = cell.ledger();
        if work.events < EVENTS_MAX || ledger.rotation.is_some() {
            return;
        }
        let snapshot = Event::Snapshot { ledger: Box::new((*ledger).clone()) };
        match self.seams.journal.compact(&cell.name, work.position, work.term, &snapshot).await {
            Ok(position) => {
                work.position = position;
                work.events = 1;
            }
            Err(_) => drop(self.took_effect(cell, work, &ledger).await),
        }
    }
}

pub(super) fn reach(ledger: &Ledger) -> Option<Reach> {
    under_way(ledger).map(|(rollout, _)| rollout.reach)
}

fn touches_account(step: &Step) -> bool {
    matches!(
        step,
        Step::Survey
            | Step::Create
            | Step::CancelSecondary
            | Step::RevokeOrphan { .. }
            | Step::CloseIncident
            | Step::Journal(Event::CreateIntended { .. })
    )
}

fn step_word(step: &Step) -> &'static str {
    match step {
        Step::Survey => "survey",
        Step::RevokeOrphan { .. } => "revoke-orphan",
        Step::Create => "create",
        Step::Choose => "choose",
        Step::Store => "store",
        Step::Verify => "verify",
        Step::Promote => "promote",
        Step::Retire => "retire",
        Step::CancelSecondary => "cancel-secondary",
        Step::Disable => "disable",
        Step::Revoke => "revoke",
        Step::Forget => "forget",
        Step::UndoKey { .. } => "undo-key",
        Step::Discard => "discard",
        Step::CloseIncident => "close-incident",
        Step::Clear => "clear",
        Step::Journal(_) => "journal",
        Step::Wait(_) => "wait",
    }
}

pub(super) fn event_word(event: &Event) -> &'static str {
    match event {
        Event::Planned { .. } => "planned",
        Event::CreateIntended { .. } => "create-intended",
        Event::Issued { .. } => "issued",
        Event::Stored => "stored",
        Event::Verified { .. } => "verified",
        Event::Refused { .. } => "refused",
        Event::Rehearsed { .. } => "rehearsed",
        Event::Promoted { .. } => "promoted",
        Event::RolledOut { .. } => "rolled-out",
        Event::RolloutStopped { .. } => "rollout-stopped",
        Event::Confirmed { .. } => "confirmed",
        Event::Retired { .. } => "retired",
        Event::Disabled { .. } => "disabled",
        Event::RevokeIntended => "revoke-intended",
        Event::Revoked { .. } => "revoked",
        Event::Closed => "closed",
        Event::Abandoning { .. } => "abandoning",
        Event::Undone => "undone",
        Event::Abandoned { .. } => "abandoned",
        Event::OrphanFound { .. } => "orphan-found",
        Event::OrphanRevoked { .. } => "orphan-revoked",
        Event::PossibleOrphan { .. } => "possible-orphan",
        Event::SecondaryCancelled => "secondary-cancelled",
        Event::ReplyLost { .. } => "reply-lost",
        Event::CurrentRefused { .. } => "current-refused",
        Event::CurrentAccepted => "current-accepted",
        Event::RollbackPlanned { .. } => "rollback-planned",
        Event::TermsTightened { .. } => "terms-tightened",
        Event::Paused { .. } => "paused",
        Event::Resumed => "resumed",
        Event::Restored => "restored",
        Event::Compromised { .. } => "compromised",
        Event::IncidentClosed { .. } => "incident-closed",
        Event::RevocationAsked { .. } => "revocation-asked",
        Event::ManualRequested { .. } => "manual-requested",
        Event::ManualReminded { .. } => "manual-reminded",
        Event::ManualWithdrawn => "manual-withdrawn",
        Event::RemovalAsked { .. } => "removal-asked",
        Event::RemovalSeen { .. } => "removal-seen",
        Event::Forgotten => "forgotten",
        Event::Cleared => "cleared",
        Event::Snapshot { .. } => "snapshot",
    }
}

/// Events that are audited before they are journaled: intents, and what a person asks about afterwards.
fn audited(event: &Event) -> Option<(&'static str, Option<String>)> {
    let detail = match event {
        Event::Planned { plan } | Event::RollbackPlanned { plan } => Some(format!("generation {}: {}", plan.generation, plan.reason)),
        Event::CreateIntended { operation, .. } => Some(format!("operation {operation}")),
        Event::Issued { key_id, .. } => key_id.as_ref().map(|key_id| format!("key {key_id}")),
        Event::Abandoning { reason } => Some(reason.as_str().to_owned()),
        Event::OrphanFound { key_id, .. } | Event::OrphanRevoked { key_id } => Some(format!("key {key_id}")),
        Event::Revoked { closure, .. } => Some(format!("{closure:?}").to_lowercase()),
        Event::Compromised { within, .. } => Some(format!("within {} s", within.as_secs())),
        Event::IncidentClosed { unknown_keys, .. } => Some(match unknown_keys {
            Some(keys) => format!("{} unknown keys at the provider", keys.len()),
            None => "the provider can't list its keys".to_owned(),
        }),
        Event::RevocationAsked { stragglers, .. } | Event::Confirmed { stragglers } if !stragglers.is_empty() => {
            let names: Vec<String> = stragglers.iter().map(blocker_text).collect();
            Some(format!("in spite of {}", names.join(", ")))
        }
        Event::RolledOut { step, .. } => Some(format!("step {step}")),
        Event::RolloutStopped { reason, who, .. } => {
            let names: Vec<String> = who.iter().map(blocker_text).collect();
            Some(format!("{}: {}", reason.as_str(), names.join(", ")).trim_end_matches(": ").to_owned())
        }
        Event::Rehearsed { .. } => None,
        Event::Confirmed { .. } | Event::RevokeIntended | Event::Disabled { .. } | Event::Abandoned { .. } => None,
        // It is audited before the stage moves: the record says what is about to happen.
        Event::Promoted { .. } => return Some(("promoting", None)),
        Event::ReplyLost { old_ends_at, .. } => Some(format!("the old key ends by {old_ends_at}")),
        Event::PossibleOrphan { .. } | Event::SecondaryCancelled | Event::CurrentRefused { .. } | Event::CurrentAccepted => None,
        Event::ManualRequested { deadline, reason, .. } => Some(format!("a person, by {deadline}: {reason}")),
        Event::ManualReminded { asks, urgency, .. } => Some(format!("{}: {}", asks.as_str(), urgency.as_str())),
        Event::RemovalAsked { deadline, .. } => Some(format!("a person, by {deadline}")),
        Event::RemovalSeen { alive, .. } => Some(if *alive { "the provider accepts it" } else { "the provider refuses it" }.to_owned()),
        Event::ManualWithdrawn => None,
        Event::Paused { .. } | Event::Resumed | Event::RevocationAsked { .. } | Event::Forgotten => None,
        Event::Restored | Event::TermsTightened { .. } => None,
        Event::Stored | Event::Verified { .. } | Event::Refused { .. } | Event::Retired { .. } => return None,
        Event::Closed | Event::Undone | Event::Cleared | Event::Snapshot { .. } => return None,
    };
    Some((event_word(event), detail))
}
