//! What a person does in an incident, as it changes the ledger: a key is stolen, an old one is to go now, all of it is forgotten.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::apply::{Applied, illegal, in_phase};
use super::{Instant, Phase, RevocationAsked};
use crate::domain::holders::Blocker;
use crate::domain::ids::KeyId;
use crate::domain::incident::{ClosedIncident, Incident, WITHIN_MAX};
use crate::domain::ledger::Ledger;
use crate::domain::rollout::Rollout;

pub(super) fn compromised(mut ledger: Ledger, at: Instant, within: Duration) -> Applied {
    if within > WITHIN_MAX {
        return illegal("compromised", "the limit is too long");
    }
    let (Some(version), Some(facts)) = (ledger.current.clone(), ledger.current_facts()) else {
        return illegal("compromised", "there is no current version");
    };
    let generation = ledger.key_generation(&version).unwrap_or(facts.generation);
    let issued_at = facts.issued_at;
    // Said once more: the newer word on the limit counts; what was learned stays.
    let before = ledger.incident.take().filter(|incident| incident.closed.is_none());
    let (seen, issued_at) = match &before {
        Some(incident) => (incident.seen.clone(), incident.issued_at),
        None => (ledger.seen.clone(), issued_at),
    };
    let mut stragglers = before.map(|incident| incident.stragglers).unwrap_or_default();
    // Those whose old key goes in spite of them were named before the incident: its report names them as well.
    let named = ledger.rotation.iter().flat_map(|rotation| &rotation.stragglers);
    let unnamed: Vec<Blocker> = named.filter(|straggler| !stragglers.contains(straggler)).cloned().collect();
    stragglers.extend(unnamed);
    ledger.incident = Some(Incident { version, generation, at, within, seen, issued_at, stragglers, closed: None });
    if let Some(rotation) = &mut ledger.rotation {
        rotation.rollout.iter_mut().for_each(Rollout::hasten);
        rotation.turned.iter_mut().filter_map(|turned| turned.rollout.as_mut()).for_each(Rollout::hasten);
    }
    // A person asks: earlier failures keep nothing back, and what may be left over at the provider is looked at afterwards.
    ledger.failure = None;
    ledger.possible_orphans_seen = ledger.possible_orphans.len();
    Ok(ledger)
}

pub(super) fn close_incident(mut ledger: Ledger, at: Timestamp, unknown_keys: Option<&BTreeSet<KeyId>>) -> Applied {
    if ledger.rotation.is_some() || !ledger.orphans.is_empty() {
        return illegal("incident-closed", "keys are still being replaced or revoked");
    }
    let Some(current) = &ledger.current else { return illegal("incident-closed", "there is no current version") };
    if ledger.is_stolen(current) {
        return illegal("incident-closed", "the current key is the stolen one");
    }
    let generation = ledger.generation;
    let Some(incident) = ledger.incident.as_mut().filter(|incident| incident.closed.is_none()) else {
        return illegal("incident-closed", "no incident is open");
    };
    incident.closed = Some(ClosedIncident { at, generation, unknown_keys: unknown_keys.cloned() });
    Ok(ledger)
}

pub(super) fn revocation_asked(ledger: Ledger, asked: RevocationAsked, stragglers: &[Blocker]) -> Applied {
    if ledger.rotation.as_ref().is_some_and(|rotation| !ledger.replaces_a_key(rotation)) {
        return illegal("revocation-asked", "there is no old key");
    }
    let mut ledger = in_phase(ledger, "revocation-asked", &[Phase::Promoted, Phase::Confirmed, Phase::Retired], |rotation| {
        // Once a person has said that holders don't count, they don't.
        if rotation.revocation != Some(RevocationAsked::Anyway) {
            rotation.revocation = Some(asked);
        }
        rotation.rollout.iter_mut().for_each(Rollout::hasten);
        let new = stragglers.iter().filter(|straggler| !rotation.stragglers.contains(straggler));
        let new: Vec<Blocker> = new.cloned().collect();
        rotation.stragglers.extend(new);
    })?;
    if let Some(incident) = ledger.incident.as_mut().filter(|incident| incident.closed.is_none()) {
        incident.name(stragglers);
    }
    Ok(ledger)
}

/// The facts of all versions stay, and their fingerprints with them: what was revoked stays known (I10, I18).
pub(super) fn forgotten(ledger: Ledger) -> Applied {
    if ledger.current.is_none() && ledger.rotation.is_none() {
        return illegal("forgotten", "there is nothing to forget");
    }
    Ok(Ledger {
        revision: ledger.revision + 1,
        current: None,
        rotation: None,
        failure: None,
        orphans: BTreeSet::new(),
        refused_since: None,
        unverified: false,
        seen: BTreeSet::new(),
        incident: None,
        request: None,
        clearing: true,
        ..ledger
    })
}
