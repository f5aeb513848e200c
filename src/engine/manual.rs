//! Where a person does what no call can: makes a new key, removes the old one. What is asked, told and believed.

use super::Engine;
use super::cell::{Cell, Work};
use super::drive::Hindrance;
use super::errors::RevokeError;
use super::gather::{Context, Gathered};
use super::perform::{Outcome, Performed};
use super::views::RequestStatus;
use crate::domain::due::{Decision, DueReason, start};
use crate::domain::ids::{OperationId, VersionId};
use crate::domain::ledger::{Closure, Ledger};
use crate::domain::manual::{Asks, Request, Urgency, look_every, remove_by};
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::provider::{Piece, Template};
use crate::domain::rotation::{Event, Rotation, Step};
use crate::issuers::{IssuerError, Target};
use crate::journal::SealedCopy;
use crate::stores::StoreError;

impl Engine {
    /// Opens a request for a new key, or makes an open one more urgent. Asked again, it changes nothing.
    pub(super) async fn ask_for_new_key(
        &self,
        cell: &Cell,
        work: &mut Work,
        context: &Context,
        reason: DueReason,
    ) -> Result<OperationId, Hindrance> {
        let ledger = cell.ledger();
        let decision = start(&self.facts(context, &ledger, work, &Gathered::default()), reason);
        if let Decision::Step(Step::Journal(event @ Event::ManualRequested { deadline, .. })) = decision
            && ledger.request.as_ref().is_none_or(|open| deadline < open.deadline_at)
        {
            self.begin_journal(cell, work).await?;
            self.append(cell, work, &event, SealedCopy::Keep).await?;
        }
        // The submission that answers it has this id.
        Ok(OperationId::new(self.installation, &cell.name, ledger.generation + 1, ledger.attempts + 1))
    }

    /// Whether a key that a person is to remove still lives. Journaled where the answer changes.
    pub(super) async fn look_at_removed(&self, work: &Work, context: &Context, ledger: &Ledger) -> Outcome {
        let Some(open) = ledger.rotation.as_ref().filter(|open| open.awaits_removal()) else { return Ok(Vec::new()) };
        let (Some(removal), Some(old)) = (&open.removal, &open.old) else { return Ok(Vec::new()) };
        let Some(facts) = ledger.facts_of(old) else { return Ok(Vec::new()) };
        let material = match self.full_material(context, old).await {
            Ok(material) => material,
            Err(StoreError::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let target = Target { routine: work.routine, ..self.target(context) };
        let dead = self.seams.issuer.is_dead(&target, &material).await?;
        let at = self.seams.clock.now().instant();
        let event = match dead {
            _ if is_on(Mutant::RemovalBelieved) => Event::Revoked { at: at.wall, closure: Closure::Proved },
            true if removal.is_proved(facts, at.running, context.policy.propagation(&context.provider)) => {
                Event::Revoked { at: at.wall, closure: Closure::Proved }
            }
            true if removal.refused_first.is_none() => Event::RemovalSeen { at, alive: false },
            false if !removal.lives => Event::RemovalSeen { at, alive: true },
            _ => return Ok(Vec::new()),
        };
        Ok(vec![Performed::plain(event)])
    }

    /// The old key isn't ours to end. It is gone because a person said so, or because the new one took its place; the provider
    /// is asked, where that can be. Where it lives all the same, its removal is asked for.
    pub(super) async fn end_manual(&self, context: &Context, ledger: &Ledger, rotation: &Rotation, old: &VersionId) -> Outcome {
        let said = rotation.revocation.is_some();
        let dead = match self.full_material(context, old).await {
            Ok(material) => self.seams.issuer.is_dead(&self.target(context), &material).await.map_err(Hindrance::from),
            Err(StoreError::NotFound { .. }) => Err(IssuerError::Impossible("its bytes are gone").into()),
            Err(error) => return Err(error.into()),
        };
        let at = self.seams.clock.now().wall;
        let closed = |closure| Ok(vec![Performed::plain(Event::Revoked { at, closure })]);
        match dead {
            Ok(true) => closed(Closure::Proved),
            _ if said => closed(Closure::Reported),
            _ if context.provider.has_check() => {
                let work = Work::default();
                let gathered = Gathered::default();
                let facts = self.facts(context, ledger, &work, &gathered);
                let deadline = ledger.facts_of(old).map_or(at, |old| remove_by(old, &facts));
                Ok(vec![Performed::plain(Event::RemovalAsked { at, deadline })])
            }
            _ => closed(Closure::Unproved),
        }
    }

    /// A person says that the old key is removed: believed, unless the provider still accepts it.
    pub(super) async fn is_said_to_be_removed(&self, context: &Context, old: &VersionId, force: bool) -> Result<(), RevokeError> {
        if force || !context.provider.has_check() {
            return Ok(());
        }
        let Ok(material) = self.full_material(context, old).await else { return Ok(()) };
        match self.seams.issuer.is_dead(&self.target(context), &material).await {
            Ok(false) => Err(RevokeError::NotNow(
                "the provider still accepts it, and only a person can remove it there: do that, and say it again; or force it",
            )),
            Ok(true) | Err(_) => Ok(()),
        }
    }

    /// What a person is asked for now, as `status` shows it.
    pub(super) fn request_status(&self, context: &Context, ledger: &Ledger) -> Option<RequestStatus> {
        let (asks, request, old) = asked_for(ledger)?;
        let now = self.seams.clock.now();
        let urgency = if now.trusted { request.urgency_at(now.wall).max(request.urgency) } else { request.urgency };
        Some(RequestStatus {
            asks,
            opened_at: request.opened_at,
            deadline_at: request.deadline_at,
            urgency,
            reminded_at: request.reminded_at,
            reminders: request.reminders,
            reason: request.reason.clone(),
            instructions: instructions(context, ledger, asks, old),
        })
    }

    /// Says in the log what a person is asked for: once per level.
    pub(super) fn tell_of_request(&self, cell: &Cell, event: &Event) {
        let (asks, urgency, deadline) = match event {
            Event::ManualRequested { deadline, .. } => (Asks::NewKey, Urgency::Notice, Some(*deadline)),
            Event::RemovalAsked { deadline, .. } => (Asks::OldKeyRemoval, Urgency::Notice, Some(*deadline)),
            Event::ManualReminded { asks, urgency, .. } => (*asks, *urgency, None),
            _ => return,
        };
        let ledger = cell.ledger();
        let deadline = deadline.or_else(|| asked_for(&ledger).map(|(_, request, _)| request.deadline_at));
        let deadline = deadline.map(|deadline| deadline.to_string()).unwrap_or_default();
        tracing::warn!(credential = %cell.name, kind = asks.as_str(), state = urgency.as_str(), deadline, "a person is asked for something: `keywright status` shows the steps");
    }
}

/// Whether it is time to look at a key that a person is to remove.
pub(super) fn removal_due(work: &Work, context: &Context, ledger: &Ledger, running: std::time::Duration) -> bool {
    let waits = ledger.rotation.as_ref().is_some_and(|open| open.awaits_removal());
    let every = look_every(&context.policy);
    waits && context.provider.has_check() && work.removal_looked_at.is_none_or(|last| running.saturating_sub(last) >= every)
}

/// What is asked for: a new key first, because applications depend on it. And the version that it is about.
pub(super) fn asked_for(ledger: &Ledger) -> Option<(Asks, &Request, Option<&VersionId>)> {
    if let Some(request) = ledger.request.as_deref() {
        return Some((Asks::NewKey, request, ledger.current.as_ref()));
    }
    let open = ledger.rotation.as_ref().filter(|open| open.awaits_removal())?;
    Some((Asks::OldKeyRemoval, &open.removal.as_ref()?.request, open.old.as_ref()))
}

/// The description's steps, filled in, and what to tell us afterwards.
fn instructions(context: &Context, ledger: &Ledger, asks: Asks, old: Option<&VersionId>) -> Vec<String> {
    let (name, title, manual) = (&context.credential.name, &context.provider.title, &context.provider.manual);
    let written = if asks == Asks::NewKey { &manual.create } else { &manual.remove };
    let mut steps: Vec<String> = written.iter().map(|step| filled_in(step, context, ledger, old)).collect();
    let environment = context.credential.environment;
    match (asks, steps.is_empty()) {
        (Asks::NewKey, true) => steps.push(format!("Make a new {environment} key at {title}.")),
        (Asks::OldKeyRemoval, true) => steps.push(format!("Remove the old {environment} key at {title}.")),
        _ => {}
    }
    match (asks, old) {
        (Asks::NewKey, _) if manual.replaces => {
            steps.push(
                "The old key dies when the new one is made: applications have no working key until the next step is done.".to_owned(),
            );
            steps.push(format!("Then run `keywright submit {name}` at once."));
        }
        (Asks::NewKey, _) => {
            steps.push(format!("Then run `keywright submit {name}`. Leave the old key alive: its removal is asked for later."))
        }
        (Asks::OldKeyRemoval, Some(old)) => {
            let seen = if context.provider.has_check() { "keywright looks by itself whether it is gone; if it can't tell" } else { "Then" };
            steps.push(format!("{seen}, `keywright revoke {name} --version {old}` says that you removed it."));
        }
        (Asks::OldKeyRemoval, None) => {}
    }
    steps
}

fn filled_in(step: &Template, context: &Context, ledger: &Ledger, old: Option<&VersionId>) -> String {
    let facts = old.and_then(|old| ledger.facts_of(old));
    let piece = |piece: &Piece| match piece {
        Piece::Literal(text) => text.clone(),
        Piece::Variable(name) => match name.as_str() {
            "credential" => context.credential.name.to_string(),
            "environment" => context.credential.environment.to_string(),
            "old_version" => old.map(VersionId::to_string).unwrap_or_default(),
            "old_issued_at" => facts.map(|facts| facts.issued_at.to_string()).unwrap_or_default(),
            variable => {
                let given = context.credential.variables.get(variable);
                let value = given.or_else(|| context.provider.variables.get(variable).and_then(Option::as_ref));
                value.map(ToString::to_string).unwrap_or_default()
            }
        },
        // No field stands in a step: the reader of descriptions sees to that.
        Piece::Field(_) => String::new(),
    };
    step.0.iter().map(piece).collect()
}

/// What `status` says of it among the things that need a person.
pub(super) fn problem(context: &Context, ledger: &Ledger, request: &RequestStatus) -> (&'static str, String) {
    let name = &context.credential.name;
    let (urgency, by) = (request.urgency.as_str(), request.deadline_at);
    match request.asks {
        Asks::NewKey => {
            let gap = if context.provider.manual.replaces {
                "; the old key dies when the new one is made, and applications have no working key until it is submitted"
            } else {
                ""
            };
            let text = "a new key is needed";
            (
                "manual-request",
                format!("{text} by {by} ({urgency}): `keywright status {name}` shows how, `keywright submit {name}` takes it{gap}"),
            )
        }
        Asks::OldKeyRemoval => {
            let removal = ledger.rotation.as_ref().and_then(|open| open.removal.as_ref());
            let lives = if removal.is_some_and(|removal| removal.lives) { "is still accepted and " } else { "" };
            ("manual-removal", format!("the old key {lives}is to be removed by {by} ({urgency}): `keywright status {name}` shows how"))
        }
    }
}
