//! What an operator does about a key that is stolen, or shouldn't be there: replace it in a hurry, go back, revoke by hand.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Engine;
use super::audit::Order;
use super::cell::{Cell, Work};
use super::errors::{RevokeError, RollbackError, RotateError};
use super::gather::Context;
use super::perform::{Outcome, Performed};
use super::status::blocker_text;
use super::views::RolledBack;
use crate::domain::due::DueReason;
use crate::domain::holders::Blocker;
use crate::domain::ids::{KeyId, Name, OperationId, VersionId};
use crate::domain::incident::Incident;
use crate::domain::ledger::{Ledger, Origin};
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::provider::{ListedKey, SignedCall};
use crate::domain::rotation::{AbandonReason, Event, Phase, Plan, RevocationAsked};
use crate::journal::SealedCopy;

/// How long a call waits for what it began; what isn't done by then goes on in the background.
const ROLLBACK_DRIVE_MAX: Duration = Duration::from_secs(25);
const REVOKE_DRIVE_MAX: Duration = Duration::from_secs(10);

/// What a version is to the open rotation, for who wants it revoked.
enum Place {
    Current,
    /// Made and not promoted yet.
    Candidate,
    /// The old key of the open rotation.
    Old,
    Elsewhere(&'static str),
}

impl Engine {
    /// Somebody else may have the current key: it is replaced now, spread, windows and overlap aside, and dies as soon as everybody
    /// has confirmed, or when the limit is over. An open rotation is hastened; its operation is the answer.
    ///
    /// # Errors
    /// [`RotateError`] if the key can't be replaced.
    pub async fn compromised(&self, order: Order, name: &Name, within: Duration) -> Result<OperationId, RotateError> {
        let (Some(cell), Some(context)) = (self.cell(name), self.context(name)) else { return Err(RotateError::UnknownCredential) };
        let mut work = cell.work.lock().await;
        let ledger = cell.ledger();
        let but_for_the_open_one = Ledger { rotation: None, ..(*ledger).clone() };
        self.may_rotate(&but_for_the_open_one, &context)?;
        let detail = format!("compromised; whoever holds the key loses it within {} s", within.as_secs());
        self.record(order, "rotation-requested", Some(name), None, Some(&detail)).await.map_err(|_| RotateError::AuditUnavailable)?;
        let event = Event::Compromised { at: self.seams.clock.now().instant(), within };
        self.append(&cell, &mut work, &event, SealedCopy::Keep).await.map_err(refused_rotation)?;
        let operation = match &cell.ledger().rotation {
            Some(open) if !open.awaits_removal() => open.operation,
            _ if context.provider.is_manual() => {
                let asked = self.ask_for_new_key(&cell, &mut work, &context, DueReason::Compromised).await;
                asked.map_err(refused_rotation)?
            }
            Some(open) => open.operation,
            None => self.plan_rotation(&cell, &mut work, &context, "compromised").await.map_err(refused_rotation)?,
        };
        work.backoff.succeeded();
        drop(work);
        self.look_at(name);
        Ok(operation)
    }

    /// Makes the old key current again, as a new version; the new key is then retired like any other.
    ///
    /// # Errors
    /// [`RollbackError`] if there is nothing to go back to, or the way back is shut.
    pub async fn roll_back(&self, order: Order, name: &Name) -> Result<RolledBack, RollbackError> {
        let (Some(cell), Some(context)) = (self.cell(name), self.context(name)) else { return Err(RollbackError::UnknownCredential) };
        let mut work = cell.work.lock().await;
        may_roll_back(&cell.ledger())?;
        self.record(order, "rollback-requested", Some(name), None, None).await.map_err(|_| RollbackError::AuditUnavailable)?;
        // A person decides: what somebody else made current goes with it.
        let plan = Plan { replacing: cell.foreign(), ..self.new_plan(&cell, &context, Origin::RolledBack, "rollback") };
        let version = plan.version.clone();
        let planned = self.append(&cell, &mut work, &Event::RollbackPlanned { plan }, SealedCopy::Keep).await;
        planned.map_err(|hindrance| match hindrance.trouble.code {
            "audit-unavailable" => RollbackError::AuditUnavailable,
            _ => RollbackError::StoreUnavailable,
        })?;
        let decided = |ledger: &Ledger| ledger.rotation.as_ref().is_none_or(|open| open.version != version || open.promoted.is_some());
        let in_time = self.drive_until(&cell, &mut work, &context, ROLLBACK_DRIVE_MAX, decided).await;
        drop(work);
        self.look_at(name);
        let ledger = cell.ledger();
        match (in_time, ledger.current.as_ref() == Some(&version)) {
            (_, true) => Ok(RolledBack { version, revision: ledger.revision }),
            (true, false) => Err(RollbackError::Refused),
            (false, false) => Err(RollbackError::StoreUnavailable),
        }
    }

    /// Revokes a version that isn't current, now. When this returns, the intent is durable at least.
    ///
    /// # Errors
    /// [`RevokeError`]; nothing is revoked then but what a rotation revokes by itself.
    pub async fn revoke_version(&self, order: Order, name: &Name, version: &VersionId, force: bool) -> Result<(), RevokeError> {
        let Some(cell) = self.cell(name) else { return Err(RevokeError::Unknown) };
        let mut work = cell.work.lock().await;
        let ledger = cell.ledger();
        let Some(facts) = ledger.versions.get(version) else { return Err(RevokeError::Unknown) };
        if facts.ended.is_some() {
            return Ok(());
        }
        let Some(context) = self.context(name) else {
            return Err(RevokeError::NotNow("its document is gone, and with it what is known of its provider"));
        };
        self.look_at_rows().await.map_err(|_| RevokeError::StoreUnavailable)?;
        let place = place_of(&ledger, version);
        match place {
            Place::Current => return Err(RevokeError::Current),
            Place::Elsewhere(why) => return Err(RevokeError::NotNow(why)),
            Place::Candidate | Place::Old => {}
        }
        if ledger.paused || self.all_paused().is_some() {
            return Err(RevokeError::NotNow("it is paused: `keywright resume` first"));
        }
        if ledger.refused_since.is_some() {
            return Err(RevokeError::NotNow("the provider refuses the current key: `keywright submit` a working one first"));
        }
        if matches!(place, Place::Old) && context.provider.is_manual() {
            self.is_said_to_be_removed(&context, version, force).await?;
        }
        let event = match place {
            Place::Candidate => Event::Abandoning { reason: AbandonReason::RevokedByHand },
            _ => self.asks_for_revocation(&context, &ledger, force)?,
        };
        let detail = if force { "held or not" } else { "unless somebody holds it" };
        let recorded = self.record(order, "revocation-requested", Some(name), Some(version), Some(detail)).await;
        recorded.map_err(|_| RevokeError::AuditUnavailable)?;
        let asked = self.append(&cell, &mut work, &event, SealedCopy::Keep).await;
        asked.map_err(|hindrance| match hindrance.trouble.code {
            "audit-unavailable" => RevokeError::AuditUnavailable,
            _ => RevokeError::StoreUnavailable,
        })?;
        let gone = |ledger: &Ledger| ledger.versions.get(version).is_none_or(|facts| facts.ended.is_some());
        self.drive_until(&cell, &mut work, &context, REVOKE_DRIVE_MAX, gone).await;
        drop(work);
        self.look_at(name);
        let ledger = cell.ledger();
        let going = ledger.versions.get(version).is_none_or(|facts| facts.is_going());
        if going || matches!(event, Event::Abandoning { .. }) {
            return Ok(());
        }
        Err(RevokeError::Later { because: cell.trouble().map_or_else(|| "the current key isn't verified yet".to_owned(), |it| it.message) })
    }

    /// The event that asks for the old key's revocation, unless somebody holds it and isn't to be overruled.
    fn asks_for_revocation(&self, context: &Context, ledger: &Ledger, force: bool) -> Result<Event, RevokeError> {
        let holders = self.holders_of_old(context, ledger);
        if !force && !holders.is_empty() {
            return Err(RevokeError::Held { who: names(&holders) });
        }
        let asked = if force { RevocationAsked::Anyway } else { RevocationAsked::IfUnheld };
        Ok(Event::RevocationAsked { asked, stragglers: holders })
    }

    /// Drives a credential until this holds, or so much time has passed. True if it holds.
    pub(super) async fn drive_until(
        &self,
        cell: &Cell,
        work: &mut Work,
        context: &Context,
        most: Duration,
        done: impl Fn(&Ledger) -> bool,
    ) -> bool {
        let began = self.seams.clock.now().running;
        work.backoff.succeeded();
        loop {
            self.advance(cell, work, context).await;
            if done(&cell.ledger()) {
                return true;
            }
            if self.seams.clock.now().running.saturating_sub(began) > most {
                return false;
            }
            self.wait_for_backoff(work).await;
        }
    }

    /// The last look of an incident: what lives at the provider, isn't ours, and may have been made with the stolen key.
    pub(super) async fn close_incident(&self, work: &mut Work, context: &Context, ledger: &Ledger) -> Outcome {
        let at = self.seams.clock.now().wall;
        let closed = |unknown_keys| Ok(vec![Performed::plain(Event::IncidentClosed { at, unknown_keys })]);
        let Some(incident) = ledger.open_incident() else { return Ok(Vec::new()) };
        if context.provider.is_generated() {
            // There is no provider where a thief could have made one.
            return closed(Some(BTreeSet::new()));
        }
        if context.provider.calls.list.is_none() {
            return closed(None);
        }
        let acting = self.acting(work, context, ledger).await?;
        let target = self.signed_target(context, &[SignedCall::List]).await?;
        let keys = match self.seams.issuer.list(&target, &acting).await {
            Ok(keys) => keys,
            Err(error) => return self.signing_failed(work, context, ledger, error),
        };
        // What bears our marker is revoked first; then it is looked once more.
        let strays = self.strays(context, ledger, &keys);
        if !strays.is_empty() {
            return Ok(strays);
        }
        let unknown = keys.iter().filter(|key| {
            key.alive && !is_on(Mutant::ThiefsKeysUnnamed) && may_be_a_thiefs(incident, key) && !self.is_any_of_ours(&key.key_id)
        });
        closed(Some(unknown.map(|key| key.key_id.clone()).collect::<BTreeSet<KeyId>>()))
    }

    /// Whether the journal of any credential knows this key.
    fn is_any_of_ours(&self, key_id: &KeyId) -> bool {
        self.all_cells().iter().any(|cell| {
            let ledger = cell.ledger();
            ledger.knows_key(key_id) || ledger.versions.values().any(|facts| facts.key_id.as_ref() == Some(key_id))
        })
    }
}

/// What was there before the stolen key wasn't made with it. Where neither a list nor the provider's own date says so, it is named.
fn may_be_a_thiefs(incident: &Incident, key: &ListedKey) -> bool {
    !incident.seen.contains(&key.key_id) && key.issued_at.is_none_or(|issued_at| issued_at > incident.issued_at)
}

fn place_of(ledger: &Ledger, version: &VersionId) -> Place {
    if ledger.current.as_ref().is_some_and(|current| ledger.same_key(current).contains(version)) {
        return Place::Current;
    }
    let Some(open) = &ledger.rotation else {
        return Place::Elsewhere("no rotation of it is open: revoke it at the provider");
    };
    if open.turned.is_some() {
        return Place::Elsewhere("a rollback or a submission is under way: wait for its end");
    }
    let is_old = || open.old.as_ref().is_some_and(|old| ledger.same_key(old).contains(version));
    match open.phase {
        Phase::Promoted | Phase::Confirmed | Phase::Retired | Phase::Revoked if is_old() => Place::Old,
        _ if open.version == *version && open.promoted.is_none() && open.plan.origin.is_by_policy() => Place::Candidate,
        _ => Place::Elsewhere("it is neither the old key of the open rotation nor a candidate that was made here"),
    }
}

fn may_roll_back(ledger: &Ledger) -> Result<(), RollbackError> {
    let Some(open) = &ledger.rotation else { return Err(RollbackError::NothingToGoBackTo) };
    let old = open.old.as_ref().and_then(|old| ledger.versions.get(old));
    match (open.phase, old) {
        _ if ledger.open_incident().is_some() => Err(RollbackError::Stolen),
        // What the provider ends by itself would be current for a while only, and nothing can keep it alive.
        (Phase::Promoted | Phase::Confirmed, _) if !open.plan.succession.spares_the_old() => Err(RollbackError::BeingRevoked),
        (Phase::Retired, Some(old)) if is_on(Mutant::RolledBackToDoomed) && old.ended.is_none() => Ok(()),
        (Phase::Promoted | Phase::Confirmed, Some(old)) if !old.is_going() && open.revocation.is_none() => Ok(()),
        (Phase::Promoted, None) => Err(RollbackError::NothingToGoBackTo),
        (Phase::Promoted | Phase::Confirmed | Phase::Retired | Phase::Revoked, _) => Err(RollbackError::BeingRevoked),
        _ => Err(RollbackError::NothingToGoBackTo),
    }
}

fn names(blockers: &[Blocker]) -> String {
    blockers.iter().map(blocker_text).collect::<Vec<_>>().join(", ")
}

fn refused_rotation(hindrance: super::drive::Hindrance) -> RotateError {
    match hindrance.trouble.code {
        "audit-unavailable" => RotateError::AuditUnavailable,
        _ => RotateError::StoreUnavailable,
    }
}
