//! After a restore from a backup: nothing is served, and nothing goes on, before it was looked at afresh (I10).

use super::Engine;
use super::cell::{Cell, Work};
use super::drive::Hindrance;
use super::gather::Context;
use super::perform::{Outcome, Performed};
use crate::domain::due::retry_at;
use crate::domain::environment::Acceptance;
use crate::domain::ids::{KeyId, Name, is_marked};
use crate::domain::ledger::Ledger;
use crate::domain::provider::ListedKey;
use crate::domain::rotation::Event;
use crate::issuers::{IssuerError, ProbeOutcome};
use crate::journal::SealedCopy;

/// How often in a row a version that came back is accepted before it is served: the provider's replicas may differ.
const ACCEPTANCES_MIN: u32 = 3;

impl Engine {
    /// Whether the current version came back from a backup and can be looked at, or replaced, now.
    pub(super) fn must_be_verified(&self, context: &Context, ledger: &Ledger) -> bool {
        if !ledger.unverified || ledger.refused_since.is_some() {
            return false;
        }
        let failing = retry_at(ledger, &context.policy, self.seams.clock.now().wall).is_some();
        !context.provider.is_generated() || (ledger.rotation.is_none() && !ledger.paused && self.all_paused().is_none() && !failing)
    }

    /// Looks at what came back from a backup. False: it is still unknown what became of it, so nothing else is done.
    pub(super) async fn verify_restored(&self, cell: &Cell, work: &mut Work, context: &Context) -> bool {
        let ledger = cell.ledger();
        if !self.must_be_verified(context, &ledger) {
            // What can't be looked at is carried on, or waits, by the rules that hold for it anyway.
            return true;
        }
        let running = self.seams.clock.now().running;
        if work.backoff.is_waiting(running) {
            return false;
        }
        let outcome = if context.provider.is_generated() {
            // Nobody can be asked whether it was ended since: a new one takes its place before anybody gets it.
            self.plan_rotation(cell, work, context, "restored").await.map(|_| ())
        } else {
            self.look_at_restored(cell, work, context, &ledger).await
        };
        match outcome {
            Ok(()) => {
                work.backoff.succeeded();
                cell.set_trouble(None);
                true
            }
            Err(hindrance) => {
                tracing::warn!(credential = %cell.name, code = hindrance.trouble.code, "what came back from a backup couldn't be verified yet");
                work.backoff.failed(&cell.name, running, context.policy.retry_wait_max(), hindrance.retry_after);
                cell.set_trouble(Some(hindrance.trouble));
                false
            }
        }
    }

    async fn look_at_restored(&self, cell: &Cell, work: &mut Work, context: &Context, ledger: &Ledger) -> Result<(), Hindrance> {
        for Performed { event, .. } in self.judge_restored(work, context, ledger).await? {
            self.append(cell, work, &event, SealedCopy::Keep).await?;
        }
        Ok(())
    }

    async fn judge_restored(&self, work: &mut Work, context: &Context, ledger: &Ledger) -> Outcome {
        let Some(current) = &ledger.current else { return Ok(Vec::new()) };
        let material = self.full_material(context, current).await?;
        for _ in 0..ACCEPTANCES_MIN {
            let verification = self.examine(context, &material).await?;
            match (&verification.acceptance, verification.outcome) {
                (_, Some(ProbeOutcome::Dead | ProbeOutcome::WrongEnvironment)) => {
                    let propagation = context.policy.propagation(&context.provider);
                    if !work.current_refused(self.seams.clock.now().running, propagation) {
                        return Err(IssuerError::Unauthenticated.into());
                    }
                    return Ok(vec![Performed::plain(Event::CurrentRefused { at: self.seams.clock.now().wall })]);
                }
                (Acceptance::Mismatch | Acceptance::Undetermined, _) => {
                    return Err(Hindrance::new("unproved", format!("nothing proves it any more: {}", verification.proof.reasons())));
                }
                (Acceptance::Proved | Acceptance::Accepted, None) => break,
                (Acceptance::Proved | Acceptance::Accepted, Some(_)) => {}
            }
        }
        work.current_accepted();
        Ok(vec![Performed::plain(Event::CurrentAccepted)])
    }

    /// What isn't in the backup may have been served before it was lost: its journal begins with as many restores as there were, so
    /// that its revisions go on above those.
    pub(super) async fn begin_journal(&self, cell: &Cell, work: &mut Work) -> Result<(), Hindrance> {
        // A journal that is older than a restore has more events than there were restores: one of them is its beginning.
        while work.position.revision < self.former.len() as u64 {
            self.append(cell, work, &Event::Restored, SealedCopy::Keep).await?;
        }
        Ok(())
    }

    /// Keys that bear the marker of what we were before a restore, and that the journal doesn't know. They are ours, or a copy's
    /// that lives on with the old name, or in use by applications that were served before the restore: nothing here can tell, so
    /// none is revoked, and a person is told.
    pub(super) fn note_former_keys(&self, ledger: &Ledger, name: &Name, keys: &[ListedKey]) {
        let Some(cell) = self.cell(name) else { return };
        let is_former = |key: &ListedKey| {
            let marked = |text: &str| self.former.iter().any(|former| is_marked(*former, name, text));
            key.alive && !ledger.knows_key(&key.key_id) && key.name.as_deref().is_some_and(marked)
        };
        let former: Vec<KeyId> = keys.iter().filter(|key| is_former(key)).map(|key| key.key_id.clone()).collect();
        cell.set_former_keys(former);
    }
}
