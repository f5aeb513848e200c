//! The one transition function. An event that doesn't fit is an error, never ignored.

use super::{Event, Phase, Plan, Rotation};
use crate::domain::ids::VersionId;
use crate::domain::ledger::{Closure, Ended, Failure, Ledger, Origin, PossibleOrphan, VersionFacts};

/// An event that doesn't fit where the rotation stands: a defect, or a damaged journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event `{event}` doesn't fit: {why}")]
pub struct IllegalEvent {
    pub event: &'static str,
    pub why: &'static str,
}

type Applied = Result<Ledger, IllegalEvent>;

/// Adds one event to a ledger. Pure: the same ledger and event give the same ledger.
///
/// # Errors
/// [`IllegalEvent`] if the event doesn't fit; the ledger given is then unchanged for the caller, who kept it.
pub fn apply(ledger: &Ledger, event: &Event) -> Applied {
    let ledger = ledger.clone();
    match event {
        Event::Planned { plan } => planned(ledger, plan),
        Event::CreateIntended { .. } => create_intended(ledger, event),
        Event::Issued { .. } => issued(ledger, event),
        Event::Stored => in_phase(ledger, "stored", &[Phase::Issued], |rotation| rotation.phase = Phase::Stored),
        Event::Verified { .. } => verified(ledger, event),
        Event::Refused { at, counted } => in_phase(ledger, "refused", &[Phase::Stored, Phase::Verified], |rotation| {
            rotation.refused_first.get_or_insert(at.running);
            rotation.refusals += u32::from(*counted);
        }),
        Event::Promoted { .. } => promoted(ledger, event),
        Event::Confirmed { stragglers } => in_phase(ledger, "confirmed", &[Phase::Promoted], |rotation| {
            rotation.phase = Phase::Confirmed;
            rotation.stragglers.clone_from(stragglers);
        }),
        Event::Retired { term } => in_phase(ledger, "retired", &[Phase::Confirmed, Phase::Retired], |rotation| {
            rotation.phase = Phase::Retired;
            rotation.retired_term = Some(*term);
        }),
        Event::RevokeIntended => revoke_intended(ledger),
        Event::Revoked { at, closure } => revoked(ledger, Ended { at: *at, closure: *closure }),
        Event::Closed => closed(ledger),
        Event::Abandoning { .. } | Event::Undone | Event::Abandoned { .. } => abandon(ledger, event),
        Event::OrphanFound { .. } | Event::OrphanRevoked { .. } | Event::PossibleOrphan { .. } => orphan(ledger, event),
        Event::CurrentRefused { at } => Ok(Ledger { refused_since: ledger.refused_since.or(Some(*at)), ..ledger }),
        Event::CurrentAccepted => Ok(Ledger { refused_since: None, ..ledger }),
        Event::RollbackPlanned { plan } => rollback_planned(ledger, plan),
        Event::TermsTightened { terms } => {
            let tighter = |rotation: &mut Rotation| rotation.plan.terms = rotation.plan.terms.safer(*terms);
            in_phase(ledger, "terms-tightened", &ALL_PHASES, tighter)
        }
        Event::Paused => Ok(Ledger { paused: true, ..ledger }),
        Event::Resumed => Ok(Ledger { paused: false, ..ledger }),
        Event::Snapshot { ledger } => Ok((**ledger).clone()),
    }
}

const ALL_PHASES: [Phase; 8] = [
    Phase::Planned, Phase::Issued, Phase::Stored, Phase::Verified, Phase::Promoted, Phase::Confirmed, Phase::Retired, Phase::Revoked,
];

fn illegal<T>(event: &'static str, why: &'static str) -> Result<T, IllegalEvent> {
    Err(IllegalEvent { event, why })
}

/// Changes the open rotation, if it stands in one of these phases and isn't being given up.
fn in_phase(mut ledger: Ledger, event: &'static str, phases: &[Phase], change: impl FnOnce(&mut Rotation)) -> Applied {
    let Some(rotation) = ledger.rotation.as_mut() else { return illegal(event, "no rotation is open") };
    if rotation.abandoning.is_some() {
        return illegal(event, "the rotation is being abandoned");
    }
    if !phases.contains(&rotation.phase) {
        return illegal(event, "the rotation stands in another phase");
    }
    change(rotation);
    Ok(ledger)
}

fn open(plan: &Plan, old: Option<VersionId>, phase: Phase) -> Rotation {
    Rotation {
        attempt: plan.attempt,
        operation: plan.operation,
        version: plan.version.clone(),
        plan: plan.clone(),
        phase,
        old,
        key_id: None,
        create_open: false,
        attempt_burned: false,
        issued_at: None,
        refused_first: None,
        refusals: 0,
        verified_term: None,
        promoted: None,
        retired_term: None,
        stragglers: Vec::new(),
        abandoning: None,
        turned: None,
    }
}

fn planned(mut ledger: Ledger, plan: &Plan) -> Applied {
    if ledger.rotation.is_some() {
        return illegal("planned", "a rotation is open already");
    }
    if plan.generation != ledger.generation + 1 || plan.attempt != ledger.attempts + 1 {
        return illegal("planned", "generation and attempt aren't the next ones");
    }
    ledger.attempts = plan.attempt;
    ledger.rotation = Some(open(plan, ledger.current.clone(), Phase::Planned));
    Ok(ledger)
}

fn create_intended(mut ledger: Ledger, event: &Event) -> Applied {
    let Event::CreateIntended { attempt, operation, version, .. } = event else { return illegal("create-intended", "another event") };
    let attempts = ledger.attempts;
    let mut grown = attempts;
    ledger = in_phase(ledger, "create-intended", &[Phase::Planned], |rotation| {
        rotation.attempt = *attempt;
        rotation.operation = *operation;
        rotation.version = version.clone();
        rotation.create_open = true;
        rotation.attempt_burned = false;
        grown = *attempt;
    })?;
    if grown < attempts || grown > attempts + 1 {
        return illegal("create-intended", "attempts only grow, one by one");
    }
    ledger.attempts = grown;
    Ok(ledger)
}

fn issued(ledger: Ledger, event: &Event) -> Applied {
    let Event::Issued { key_id, issued_at, expires_at, fingerprints, copy_of } = event else { return illegal("issued", "another event") };
    let mut facts = None;
    let mut ledger = in_phase(ledger, "issued", &[Phase::Planned], |rotation| {
        rotation.phase = Phase::Issued;
        rotation.key_id.clone_from(key_id);
        rotation.create_open = false;
        rotation.issued_at = Some(*issued_at);
        facts = Some((rotation.version.clone(), VersionFacts {
            operation: rotation.operation,
            generation: rotation.plan.generation,
            origin: rotation.plan.origin,
            key_id: key_id.clone(),
            issued_at: *issued_at,
            expires_at: *expires_at,
            fingerprints: fingerprints.clone(),
            proof: None,
            copy_of: copy_of.clone(),
            doomed: false,
            ended: None,
        }));
    })?;
    if let Some((version, facts)) = facts {
        if ledger.versions.contains_key(&version) {
            return illegal("issued", "the version exists already");
        }
        ledger.versions.insert(version, facts);
    }
    Ok(ledger)
}

fn verified(ledger: Ledger, event: &Event) -> Applied {
    let Event::Verified { proof, term } = event else { return illegal("verified", "another event") };
    let mut version = None;
    let mut ledger = in_phase(ledger, "verified", &[Phase::Stored, Phase::Verified], |rotation| {
        rotation.phase = Phase::Verified;
        rotation.verified_term = Some(*term);
        version = Some(rotation.version.clone());
    })?;
    if let Some(facts) = version.and_then(|version| ledger.versions.get_mut(&version)) {
        facts.proof = Some(proof.clone());
    }
    Ok(ledger)
}

fn promoted(ledger: Ledger, event: &Event) -> Applied {
    let Event::Promoted { at } = event else { return illegal("promoted", "another event") };
    let doomed = |version: &VersionId| ledger.versions.get(version).is_none_or(|facts| facts.doomed || facts.ended.is_some());
    match &ledger.rotation {
        Some(rotation) if rotation.verified_term.is_none() => return illegal("promoted", "the version was never verified"),
        Some(rotation) if doomed(&rotation.version) => return illegal("promoted", "the version is to be revoked, or was"),
        _ => {}
    }
    let mut next = None;
    let mut ledger = in_phase(ledger, "promoted", &[Phase::Verified], |rotation| {
        rotation.phase = Phase::Promoted;
        rotation.promoted = Some(*at);
        // The way back is shut once this direction has succeeded.
        rotation.turned = None;
        next = Some((rotation.version.clone(), rotation.plan.generation));
    })?;
    if let Some((version, generation)) = next {
        ledger.current = Some(version);
        ledger.generation = generation;
    }
    ledger.attempts = 0;
    ledger.revision += 1;
    ledger.failure = None;
    ledger.refused_since = None;
    Ok(ledger)
}

fn revoke_intended(ledger: Ledger) -> Applied {
    let mut old = None;
    let mut ledger = in_phase(ledger, "revoke-intended", &[Phase::Retired], |rotation| old = rotation.old.clone())?;
    let Some(old) = old else { return illegal("revoke-intended", "there is no old version") };
    for version in ledger.same_key(&old) {
        if ledger.current.as_ref() == Some(&version) {
            return illegal("revoke-intended", "the old key is current");
        }
        if let Some(facts) = ledger.versions.get_mut(&version) {
            facts.doomed = true;
        }
    }
    Ok(ledger)
}

fn revoked(ledger: Ledger, ended: Ended) -> Applied {
    let mut old = None;
    let mut ledger = in_phase(ledger, "revoked", &[Phase::Retired], |rotation| {
        rotation.phase = Phase::Revoked;
        old = rotation.old.clone();
    })?;
    let Some(old) = old else { return illegal("revoked", "there is no old version") };
    for version in ledger.same_key(&old) {
        let Some(facts) = ledger.versions.get_mut(&version) else { continue };
        if !facts.doomed {
            return illegal("revoked", "the intent to revoke is missing");
        }
        facts.ended = Some(ended.clone());
    }
    Ok(ledger)
}

fn closed(mut ledger: Ledger) -> Applied {
    let Some(rotation) = &ledger.rotation else { return illegal("closed", "no rotation is open") };
    let first = rotation.phase == Phase::Promoted && rotation.old.is_none();
    if rotation.phase != Phase::Revoked && !first {
        return illegal("closed", "the old version isn't revoked");
    }
    ledger.rotation = None;
    ledger.trim();
    Ok(ledger)
}

fn abandon(mut ledger: Ledger, event: &Event) -> Applied {
    let Some(rotation) = ledger.rotation.as_mut() else { return illegal("abandoning", "no rotation is open") };
    match event {
        Event::Abandoning { .. } if rotation.phase >= Phase::Promoted => illegal("abandoning", "after promotion it rolls forward"),
        Event::Abandoning { reason } => {
            rotation.abandoning.get_or_insert(*reason);
            Ok(ledger)
        }
        _ if rotation.abandoning.is_none() => illegal("undone", "the rotation isn't being abandoned"),
        Event::Undone => {
            rotation.key_id = None;
            rotation.create_open = false;
            Ok(ledger)
        }
        Event::Abandoned { .. } => abandoned(ledger, event),
        _ => illegal("abandoning", "another event"),
    }
}

fn abandoned(mut ledger: Ledger, event: &Event) -> Applied {
    let Event::Abandoned { at, next_try_at } = event else { return illegal("abandoned", "another event") };
    let Some(rotation) = ledger.rotation.take() else { return illegal("abandoned", "no rotation is open") };
    let minted = rotation.plan.origin == Origin::Minted;
    if rotation.create_open || (minted && rotation.key_id.is_some()) {
        return illegal("abandoned", "the new key isn't undone");
    }
    if minted {
        if let Some(facts) = ledger.versions.get_mut(&rotation.version) {
            facts.doomed = true;
            facts.ended = Some(Ended { at: *at, closure: Closure::Reported });
        }
    } else {
        // Nothing of a refused submission is kept; a failed copy leaves the original as it is.
        ledger.versions.remove(&rotation.version);
    }
    let count = ledger.failure.as_ref().map_or(0, |failure| failure.count).saturating_add(1);
    if let (Some(reason), true) = (rotation.abandoning, minted) {
        ledger.failure = Some(Failure { reason, count, next_try_at: *next_try_at });
    }
    ledger.rotation = rotation.turned.map(|turned| *turned);
    ledger.trim();
    Ok(ledger)
}

fn orphan(mut ledger: Ledger, event: &Event) -> Applied {
    match event {
        Event::OrphanFound { key_id, burns_attempt } => {
            if ledger.knows_key(key_id) {
                return illegal("orphan-found", "the key is in the journal");
            }
            ledger.orphans.insert(key_id.clone());
            if let (Some(rotation), true) = (ledger.rotation.as_mut(), *burns_attempt) {
                rotation.attempt_burned = true;
            }
        }
        Event::OrphanRevoked { key_id } => {
            if !ledger.orphans.remove(key_id) {
                return illegal("orphan-revoked", "no such orphan was found");
            }
        }
        Event::PossibleOrphan { operation, at } => {
            ledger.possible_orphans.push(PossibleOrphan { operation: *operation, at: *at });
            if let Some(rotation) = ledger.rotation.as_mut() {
                rotation.create_open = false;
                rotation.attempt_burned = true;
            }
        }
        _ => return illegal("orphan-found", "another event"),
    }
    Ok(ledger)
}

fn rollback_planned(mut ledger: Ledger, plan: &Plan) -> Applied {
    let Some(rotation) = ledger.rotation.take() else { return illegal("rollback-planned", "no rotation is open") };
    if !matches!(rotation.phase, Phase::Promoted | Phase::Confirmed) {
        return illegal("rollback-planned", "there is a way back between promotion and retirement only");
    }
    let Some(original) = rotation.old.clone() else { return illegal("rollback-planned", "there is no old version") };
    let Some(facts) = ledger.versions.get(&original).cloned() else { return illegal("rollback-planned", "the old version is unknown") };
    if facts.doomed || facts.ended.is_some() {
        return illegal("rollback-planned", "the old key is being revoked");
    }
    if plan.generation != ledger.generation + 1 || plan.attempt != ledger.attempts + 1 {
        return illegal("rollback-planned", "generation and attempt aren't the next ones");
    }
    ledger.attempts = plan.attempt;
    let copy = VersionFacts {
        operation: plan.operation,
        generation: plan.generation,
        origin: Origin::RolledBack,
        copy_of: Some(original),
        proof: None,
        ..facts
    };
    let mut back = open(plan, ledger.current.clone(), Phase::Issued);
    back.key_id.clone_from(&copy.key_id);
    back.issued_at = Some(copy.issued_at);
    back.turned = Some(Box::new(rotation));
    ledger.versions.insert(plan.version.clone(), copy);
    ledger.rotation = Some(back);
    Ok(ledger)
}
