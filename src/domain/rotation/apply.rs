//! The one transition function. An event that doesn't fit is an error, never ignored.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::canary::{begins, failure_after, rolled_out, stopped};
use super::incident::{close_incident, compromised, forgotten, revocation_asked};
use super::manual::{reminded, removal_asked, removal_seen, requested, withdrawn};
use super::undo::{abandon, none_left_over, orphan, restored, rollback_planned};
use super::{Event, Instant, POSSIBLE_ORPHANS_MAX, Phase, Plan, Rotation};
use crate::domain::environment::Verdict;
use crate::domain::holders::Blocker;
use crate::domain::ids::VersionId;
use crate::domain::ledger::{Closure, Ended, Ledger, Origin, VersionFacts};
use crate::domain::manual::Request;
use crate::domain::mutants::{Mutant, is_on};

/// An event that doesn't fit where the rotation stands: a defect, or a damaged journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event `{event}` doesn't fit: {why}")]
pub struct IllegalEvent {
    pub event: &'static str,
    pub why: &'static str,
}

pub(super) type Applied = Result<Ledger, IllegalEvent>;

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
        Event::Rehearsed { rotations } => in_phase(ledger, "rehearsed", &[Phase::Planned], |rotation| rotation.rehearsed = *rotations),
        Event::Promoted { .. } => promoted(ledger, event),
        Event::RolledOut { step, reach, at } => rolled_out(ledger, *step, *reach, *at),
        Event::RolloutStopped { reason, next_try_at, .. } => stopped(ledger, *reason, *next_try_at),
        Event::Disabled { at } => disabled(ledger, *at),
        Event::Confirmed { stragglers } => confirmed(ledger, stragglers),
        Event::Retired { term } => retired(ledger, *term),
        Event::RevokeIntended => revoke_intended(ledger),
        Event::Revoked { at, closure } => revoked(ledger, Ended { at: *at, closure: *closure }),
        Event::Closed => closed(ledger),
        Event::Abandoning { .. } | Event::Undone | Event::Abandoned { .. } => abandon(ledger, event),
        Event::OrphanFound { .. } | Event::OrphanRevoked { .. } | Event::PossibleOrphan { .. } | Event::ReplyLost { .. } => {
            orphan(ledger, event)
        }
        Event::SecondaryCancelled => none_left_over(ledger),
        Event::CurrentRefused { .. } | Event::CurrentAccepted if ledger.current.is_none() => {
            illegal("current-refused", "there is no current version")
        }
        Event::CurrentRefused { at } => Ok(Ledger { refused_since: ledger.refused_since.or(Some(*at)), ..ledger }),
        Event::CurrentAccepted => {
            // What wasn't served before its first look is served from now on: a change that applications see.
            let revision = ledger.revision + u64::from(ledger.unverified);
            Ok(Ledger { refused_since: None, unverified: false, revision, ..ledger })
        }
        Event::RollbackPlanned { plan } => rollback_planned(ledger, plan),
        Event::TermsTightened { terms } => {
            let tighter = |rotation: &mut Rotation| rotation.plan.terms = rotation.plan.terms.safer(*terms);
            in_phase(ledger, "terms-tightened", &ALL_PHASES, tighter)
        }
        Event::Paused { at } => Ok(Ledger { paused_since: ledger.paused_since.or(*at), paused: true, ..ledger }),
        Event::Resumed => Ok(Ledger { paused: false, paused_since: None, ..ledger }),
        Event::Compromised { at, within } => compromised(ledger, *at, *within),
        Event::IncidentClosed { at, unknown_keys } => close_incident(ledger, *at, unknown_keys.as_ref()),
        Event::RevocationAsked { asked, stragglers } => revocation_asked(ledger, *asked, stragglers),
        Event::ManualRequested { at, deadline, reason, by_time } => requested(ledger, Request::new(*at, *deadline, reason, *by_time)),
        Event::ManualReminded { at, asks, urgency } => reminded(ledger, *at, *asks, *urgency),
        Event::ManualWithdrawn => withdrawn(ledger),
        Event::RemovalAsked { at, deadline } => removal_asked(ledger, *at, *deadline),
        Event::RemovalSeen { at, alive } => removal_seen(ledger, *at, *alive),
        Event::Forgotten => forgotten(ledger),
        Event::Cleared if ledger.clearing => Ok(Ledger { clearing: false, ..ledger }),
        Event::Cleared => illegal("cleared", "nothing is forgotten"),
        Event::Restored => Ok(restored(ledger)),
        Event::Snapshot { ledger } => Ok((**ledger).clone()),
    }
}

const ALL_PHASES: [Phase; 8] =
    [Phase::Planned, Phase::Issued, Phase::Stored, Phase::Verified, Phase::Promoted, Phase::Confirmed, Phase::Retired, Phase::Revoked];

pub(super) fn illegal<T>(event: &'static str, why: &'static str) -> Result<T, IllegalEvent> {
    Err(IllegalEvent { event, why })
}

/// Changes the open rotation, if it stands in one of these phases and isn't being given up.
pub(super) fn in_phase(mut ledger: Ledger, event: &'static str, phases: &[Phase], change: impl FnOnce(&mut Rotation)) -> Applied {
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

pub(super) fn open(plan: &Plan, old: Option<VersionId>, phase: Phase) -> Rotation {
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
        verified_before_restore: false,
        promoted: None,
        rollout: None,
        rehearsed: plan.twin_rotations,
        retired_term: None,
        disabled: None,
        stragglers: Vec::new(),
        abandoning: None,
        seen: BTreeSet::new(),
        revocation: None,
        turned: None,
        removal: None,
    }
}

fn planned(mut ledger: Ledger, plan: &Plan) -> Applied {
    let superseded = ledger.rotation.take();
    if superseded.as_ref().is_some_and(|open| !(plan.origin == Origin::Submitted && open.gives_way(ledger.refused_since))) {
        return illegal("planned", "a rotation is open already");
    }
    if ledger.clearing {
        return illegal("planned", "what was forgotten is still in the store");
    }
    if plan.generation != ledger.generation + 1 || plan.attempt != ledger.attempts + 1 {
        return illegal("planned", "generation and attempt aren't the next ones");
    }
    if plan.origin == Origin::RolledBack {
        return illegal("planned", "a rollback turns an open rotation round");
    }
    if ledger.unseen_possible_orphans() >= POSSIBLE_ORPHANS_MAX {
        // Time alone starts nothing now: a person did, and was told to look first. The count starts anew, so that the
        // credential isn't stuck for ever; what may be left over stays listed.
        ledger.possible_orphans_seen = ledger.possible_orphans.len();
    }
    ledger.attempts = plan.attempt;
    // What takes the place of a dead current version retires the one that still lives beside it.
    let old = superseded.as_ref().map_or_else(|| ledger.current.clone(), |open| open.old.clone());
    ledger.rotation = Some(Box::new(Rotation { turned: superseded, ..open(plan, old, Phase::Planned) }));
    Ok(ledger)
}

fn create_intended(mut ledger: Ledger, event: &Event) -> Applied {
    let Event::CreateIntended { attempt, operation, version, seen } = event else { return illegal("create-intended", "another event") };
    let attempts = ledger.attempts;
    let mut grown = attempts;
    match &ledger.rotation {
        Some(rotation) if rotation.plan.origin != Origin::Minted => return illegal("create-intended", "nothing is to be made"),
        // An idempotency key must never bring a revoked key back (I10).
        Some(rotation) if rotation.attempt_burned && *attempt <= rotation.attempt && !is_on(Mutant::AttemptReused) => {
            return illegal("create-intended", "the attempt is burned: the next one is due");
        }
        _ => {}
    }
    ledger = in_phase(ledger, "create-intended", &[Phase::Planned], |rotation| {
        rotation.attempt = *attempt;
        rotation.operation = *operation;
        rotation.version = version.clone();
        rotation.seen.clone_from(seen);
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
    let Event::Issued { key_id, issued_at, expires_at, fingerprints, copy_of, old_ends_at } = event else {
        return illegal("issued", "another event");
    };
    if let Some(rotation) = &ledger.rotation
        && rotation.phase == Phase::Planned
        && let Some(why) = unfit_issue(&ledger, rotation, event)
    {
        return illegal("issued", why);
    }
    let copy_of = copy_of.clone().or_else(|| known_original(&ledger, event));
    // A key that is met again keeps its age, also where the provider doesn't tell it (I12).
    let original = copy_of.as_ref().and_then(|original| ledger.versions.get(original));
    let issued_at = original.map_or(*issued_at, |original| original.issued_at.min(*issued_at));
    let mut facts = None;
    let mut ledger = in_phase(ledger, "issued", &[Phase::Planned], |rotation| {
        rotation.phase = Phase::Issued;
        rotation.key_id.clone_from(key_id);
        rotation.create_open = false;
        rotation.issued_at = Some(issued_at);
        facts = Some((
            rotation.version.clone(),
            VersionFacts {
                operation: rotation.operation,
                generation: rotation.plan.generation,
                origin: rotation.plan.origin,
                key_id: key_id.clone(),
                issued_at,
                expires_at: *expires_at,
                fingerprints: fingerprints.clone(),
                proof: None,
                copy_of: copy_of.clone(),
                doomed: false,
                ended: None,
            },
        ));
    })?;
    if let Some((version, facts)) = facts {
        if ledger.versions.contains_key(&version) {
            return illegal("issued", "the version exists already");
        }
        ledger.versions.insert(version, Box::new(facts));
    }
    if let Some(end) = old_ends_at {
        ends_no_later(&mut ledger, *end);
    }
    Ok(ledger)
}

/// The provider ends the old key of the open rotation by then.
pub(super) fn ends_no_later(ledger: &mut Ledger, end: Timestamp) {
    let old = ledger.rotation.as_ref().and_then(|rotation| rotation.old.clone());
    for version in old.map(|old| ledger.same_key(&old)).unwrap_or_default() {
        if let Some(facts) = ledger.versions.get_mut(&version) {
            facts.expires_at = Some(facts.expires_at.map_or(end, |known| known.min(end)));
        }
    }
}

/// Why what was issued can't become a version, if it can't: each key is ours under one intent, once (I1, I10).
fn unfit_issue(ledger: &Ledger, rotation: &Rotation, event: &Event) -> Option<&'static str> {
    let Event::Issued { key_id, copy_of, .. } = event else { return Some("another event") };
    if rotation.plan.origin == Origin::Minted && !rotation.plan.succession.spares_the_old() {
        return unfit_successor(ledger, rotation, event);
    }
    if rotation.plan.origin == Origin::Minted {
        let Some(key_id) = key_id else { return Some("a minted key has an id: it couldn't be revoked without") };
        if !rotation.create_open {
            return Some("no create was intended");
        }
        if ledger.versions.values().any(|facts| facts.key_id.as_ref() == Some(key_id)) || ledger.orphans.contains(key_id) {
            return Some("the key is another version's: undoing this one would revoke that");
        }
        return copy_of.is_some().then_some("a minted key is no copy");
    }
    if rotation.plan.origin == Origin::Chosen && (key_id.is_some() || copy_of.is_some() || known_original(ledger, event).is_some()) {
        return Some("a value of our own has no key at a provider, and is no copy");
    }
    let original = copy_of.clone().or_else(|| known_original(ledger, event));
    match original.map(|original| ledger.versions.get(&original)) {
        Some(None) => Some("the original of the copy is unknown"),
        Some(Some(original)) if original.is_going() => Some("the value was revoked, or is about to be"),
        _ => None,
    }
}

/// Why the next secret of a key that stays can't become a version.
fn unfit_successor(ledger: &Ledger, rotation: &Rotation, event: &Event) -> Option<&'static str> {
    match event {
        _ if !rotation.create_open => Some("no create was intended"),
        Event::Issued { key_id: None, copy_of: None, old_ends_at: Some(_), .. } if known_original(ledger, event).is_none() => None,
        Event::Issued { key_id: None, copy_of: None, old_ends_at: Some(_), .. } => Some("the secret is an older version's"),
        _ => Some("the key keeps its id, is no copy, and the old secret ends"),
    }
}

/// The version that has this very key already, if one has: a key that is submitted again must never be revoked as its own
/// predecessor, whether or not anybody noticed.
fn known_original(ledger: &Ledger, event: &Event) -> Option<VersionId> {
    let Event::Issued { key_id, fingerprints, .. } = event else { return None };
    let same = |facts: &VersionFacts| {
        (key_id.is_some() && facts.key_id == *key_id) || (!fingerprints.is_empty() && facts.fingerprints == *fingerprints)
    };
    ledger.versions.iter().find(|(_, facts)| same(facts)).map(|(version, _)| version.clone())
}

fn verified(ledger: Ledger, event: &Event) -> Applied {
    let Event::Verified { proof, term } = event else { return illegal("verified", "another event") };
    if proof.verdict == Verdict::Mismatch {
        return illegal("verified", "the environment is disproved");
    }
    let mut version = None;
    let mut ledger = in_phase(ledger, "verified", &[Phase::Stored, Phase::Verified], |rotation| {
        rotation.phase = Phase::Verified;
        rotation.verified_term = Some(*term);
        rotation.verified_before_restore = false;
        version = Some(rotation.version.clone());
    })?;
    if let Some(facts) = version.and_then(|version| ledger.versions.get_mut(&version)) {
        facts.proof = Some(proof.clone());
    }
    Ok(ledger)
}

fn promoted(ledger: Ledger, event: &Event) -> Applied {
    let Event::Promoted { at } = event else { return illegal("promoted", "another event") };
    let doomed = |version: &VersionId| ledger.versions.get(version).is_none_or(|facts| facts.is_going());
    match &ledger.rotation {
        Some(rotation) if rotation.verified_term.is_none() => return illegal("promoted", "the version was never verified"),
        Some(rotation) if doomed(&rotation.version) => return illegal("promoted", "the version is to be revoked, or was"),
        _ => {}
    }
    let mut next = None;
    let mut superseded = None;
    let mut unverified = false;
    let mut taken_back = None;
    let mut rehearsed = None;
    let rollout = ledger.rotation.as_ref().and_then(|rotation| begins(&ledger, rotation, *at));
    let staged = rollout.is_some();
    let mut ledger = in_phase(ledger, "promoted", &[Phase::Verified], |rotation| {
        rotation.phase = Phase::Promoted;
        rotation.promoted = Some(*at);
        // The way back is shut once this direction has succeeded.
        let turned = rotation.turned.take();
        taken_back = turned.as_ref().and_then(|turned| turned.rollout.as_ref()?.stopped.clone());
        rotation.rollout = rollout;
        // A rollback brings no new value: what its original was rehearsed with still counts.
        rehearsed = (rotation.plan.origin != Origin::RolledBack).then_some(rotation.rehearsed);
        superseded = turned.filter(|_| rotation.plan.origin == Origin::Submitted).map(|turned| turned.version);
        next = Some((rotation.version.clone(), rotation.plan.generation, rotation.seen.clone()));
        unverified = std::mem::take(&mut rotation.verified_before_restore);
    })?;
    if let Some(dead) = superseded.and_then(|version| ledger.versions.get_mut(&version)) {
        dead.doomed = true;
        dead.ended = Some(Ended { at: at.wall, closure: Closure::Proved });
    }
    if let Some((version, generation, seen)) = next {
        ledger.current = Some(version);
        ledger.generation = if is_on(Mutant::GenerationStands) { ledger.generation.max(1) } else { generation };
        ledger.seen = seen;
    }
    ledger.attempts = 0;
    ledger.revision += 1;
    ledger.rehearsed = rehearsed.unwrap_or(ledger.rehearsed);
    ledger.failure = failure_after(&ledger, taken_back.as_ref(), staged);
    ledger.refused_since = None;
    ledger.request = None;
    ledger.unverified = unverified;
    Ok(ledger)
}

/// Says again who is left, too: who came late is named as well, before the key goes.
fn confirmed(ledger: Ledger, stragglers: &[Blocker]) -> Applied {
    if ledger.rotation.as_ref().is_some_and(|rotation| rotation.old.is_none()) {
        return illegal("confirmed", "there is no old version");
    }
    if ledger.rotation.as_ref().and_then(|rotation| rotation.rollout.as_ref()).is_some_and(|rollout| rollout.full.is_none()) {
        return illegal("confirmed", "not everybody is served the new version yet");
    }
    let mut ledger = in_phase(ledger, "confirmed", &[Phase::Promoted, Phase::Confirmed, Phase::Retired], |rotation| {
        rotation.phase = rotation.phase.max(Phase::Confirmed);
        rotation.stragglers = stragglers.to_vec();
    })?;
    if ledger.rotation.as_ref().is_some_and(|rotation| rotation.rollout.is_some()) {
        // All have it, and it works.
        ledger.failure = None;
    }
    if let Some(incident) = ledger.incident.as_mut().filter(|incident| incident.closed.is_none()) {
        incident.name(stragglers);
    }
    Ok(ledger)
}

fn retired(ledger: Ledger, term: u64) -> Applied {
    let mut ledger = in_phase(ledger, "retired", &[Phase::Confirmed, Phase::Retired], |rotation| {
        rotation.phase = Phase::Retired;
        rotation.retired_term = Some(term);
    })?;
    // The current version was accepted just now.
    ledger.refused_since = None;
    Ok(ledger)
}

fn revoke_intended(ledger: Ledger) -> Applied {
    if ledger.refused_since.is_some() {
        return illegal("revoke-intended", "the provider refuses the current version");
    }
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
    // Who was given the old version to verify with sees that this ends.
    ledger.revision += u64::from(ledger.rotation.as_ref().is_some_and(|rotation| rotation.plan.serves_previous));
    Ok(ledger)
}

fn disabled(ledger: Ledger, at: Instant) -> Applied {
    let old = ledger.rotation.as_ref().and_then(|rotation| rotation.old.as_ref()).and_then(|old| ledger.versions.get(old));
    if !old.is_some_and(|old| old.doomed) {
        return illegal("disabled", "the intent to revoke is missing");
    }
    in_phase(ledger, "disabled", &[Phase::Retired], |rotation| {
        rotation.disabled.get_or_insert(at);
    })
}

fn revoked(ledger: Ledger, ended: Ended) -> Applied {
    let (mut old, mut ended_well) = (None, false);
    let mut ledger = in_phase(ledger, "revoked", &[Phase::Retired], |rotation| {
        rotation.phase = Phase::Revoked;
        old = rotation.old.clone();
        ended_well = rotation.plan.origin != Origin::RolledBack;
    })?;
    ledger.rotations += u64::from(ended_well);
    let Some(old) = old else { return illegal("revoked", "there is no old version") };
    for version in ledger.same_key(&old) {
        let Some(facts) = ledger.versions.get_mut(&version) else { continue };
        if !facts.doomed && !is_on(Mutant::RevokeIntentNotJournaled) {
            return illegal("revoked", "the intent to revoke is missing");
        }
        facts.ended = Some(ended.clone());
    }
    Ok(ledger)
}

fn closed(mut ledger: Ledger) -> Applied {
    let Some(rotation) = &ledger.rotation else { return illegal("closed", "no rotation is open") };
    let nothing_to_revoke = rotation.phase == Phase::Promoted && !ledger.replaces_a_key(rotation);
    if rotation.phase != Phase::Revoked && !nothing_to_revoke {
        return illegal("closed", "the old version isn't revoked");
    }
    ledger.rotation = None;
    ledger.trim();
    Ok(ledger)
}
