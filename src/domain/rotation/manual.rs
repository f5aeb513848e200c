//! The work of a person in a rotation: what is asked for, reminded of and closed, as it comes next and as it changes the ledger.

use jiff::Timestamp;

use super::apply::{Applied, illegal, in_phase};
use super::{Event, Facts, Instant, Phase, Rotation, Step, Wait, WaitReason};
use crate::domain::due::deadline_of;
use crate::domain::ledger::{Closure, Ledger};
use crate::domain::manual::{Asks, Removal, Request, Urgency, remove_by};
use crate::domain::mutants::{Mutant, is_on};

pub(super) fn requested(mut ledger: Ledger, request: Request) -> Applied {
    if ledger.current.is_none() {
        return illegal("manual-requested", "there is no current version");
    }
    let before = ledger.request.take();
    if before.as_ref().is_some_and(|before| before.deadline_at <= request.deadline_at) {
        return illegal("manual-requested", "it is asked for already");
    }
    // Asked for more urgently: what was told before still was.
    let opened_at = before.map_or(request.opened_at, |before| before.opened_at.min(request.opened_at));
    ledger.request = Some(Box::new(Request { opened_at, ..request }));
    Ok(ledger)
}

pub(super) fn reminded(mut ledger: Ledger, at: Timestamp, asks: Asks, urgency: Urgency) -> Applied {
    let request = match asks {
        Asks::NewKey => ledger.request.as_deref_mut(),
        Asks::OldKeyRemoval => ledger.rotation.as_mut().and_then(|open| open.removal.as_mut()).map(|removal| &mut removal.request),
    };
    match request {
        Some(request) if urgency > request.urgency => request.remind(at, urgency),
        Some(_) => return illegal("manual-reminded", "that level was told already"),
        None => return illegal("manual-reminded", "nothing is asked for"),
    }
    Ok(ledger)
}

pub(super) fn withdrawn(ledger: Ledger) -> Applied {
    if ledger.request.is_none() {
        return illegal("manual-withdrawn", "nothing is asked for");
    }
    Ok(Ledger { request: None, ..ledger })
}

pub(super) fn removal_asked(ledger: Ledger, at: Timestamp, deadline: Timestamp) -> Applied {
    if ledger.rotation.as_ref().is_some_and(|open| open.removal.is_some()) {
        return illegal("removal-asked", "it is asked for already");
    }
    let old = ledger.rotation.as_ref().and_then(|open| open.old.as_ref()).and_then(|old| ledger.versions.get(old));
    if !old.is_some_and(|old| old.doomed) {
        return illegal("removal-asked", "the intent to revoke is missing");
    }
    in_phase(ledger, "removal-asked", &[Phase::Retired], |rotation| {
        rotation.removal = Some(Removal::new(Request::new(at, deadline, "manual-removal", false)));
    })
}

pub(super) fn removal_seen(ledger: Ledger, at: Instant, alive: bool) -> Applied {
    if ledger.rotation.as_ref().is_some_and(|open| open.removal.is_none()) {
        return illegal("removal-seen", "no removal is asked for");
    }
    in_phase(ledger, "removal-seen", &[Phase::Retired], |rotation| {
        let Some(removal) = rotation.removal.as_mut() else { return };
        removal.lives = alive;
        removal.answered |= alive;
        removal.refused_first = if alive { None } else { removal.refused_first.or(Some(at)) };
    })
}

/// What comes next for an old key that only a person can remove. Whatever becomes of it, this ends: a key that isn't seen alive is
/// given up at the deadline (I5).
pub(super) fn removal(rotation: &Rotation, facts: &Facts<'_>) -> Step {
    let old = rotation.old.as_ref().and_then(|old| facts.ledger.versions.get(old));
    let now = facts.now.wall;
    let Some(old) = old else { return Step::Revoke };
    // What ends here is kept no longer.
    if !facts.now.trusted {
        return Step::Wait(Wait { reason: WaitReason::ClockUntrusted, until: None });
    }
    // A person says that it is gone.
    if rotation.revocation.is_some() {
        return Step::Revoke;
    }
    let Some(removal) = &rotation.removal else {
        if facts.provider.manual.replaces {
            return Step::Revoke;
        }
        return Step::Journal(Event::RemovalAsked { at: now, deadline: remove_by(old, facts) });
    };
    let urgency = removal.request.urgency_at(now);
    if urgency > removal.request.urgency {
        return Step::Journal(Event::ManualReminded { at: now, asks: Asks::OldKeyRemoval, urgency });
    }
    if (urgency == Urgency::Overdue && !removal.lives) || is_on(Mutant::RemovalGivenUp) {
        return Step::Journal(Event::Revoked { at: now, closure: Closure::Unproved });
    }
    let overdue = deadline_of(old, facts.policy) <= now || urgency == Urgency::Overdue;
    let reason = if overdue { WaitReason::Overdue } else { WaitReason::ManualRemoval };
    Step::Wait(Wait { reason, until: removal.request.rises_at(now) })
}
