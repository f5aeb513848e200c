//! A production credential's rotation is rehearsed in the sandbox: its twin has to have rotated since.
//!
//! Told by counts and not by clocks, so that no jump of one makes a rehearsal count twice or never: the twin's rotations that came to
//! their end, against how many there were when the current version was made.

use super::{Event, Facts, Rotation, Step, WaitReason, next::wait};
use crate::domain::due::BlockReason;
use crate::domain::ids::Name;
use crate::domain::mutants::{Mutant, is_on};

/// What is known of the twin of a credential whose policy asks for a rehearsal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rehearsal<'a> {
    pub twin: &'a Name,
    /// How many of its rotations have come to their end.
    pub rotations: u64,
    /// Its last try failed or is hindered, or its provider refuses its key.
    pub failing: bool,
}

/// What a rotation that isn't planned yet waits for, if the twin hasn't rotated since the current version was made.
pub(crate) fn missing(facts: &Facts<'_>) -> Option<BlockReason> {
    let rehearsal = needed(facts)?;
    (rehearsal.rotations <= facts.ledger.rehearsed).then_some(if rehearsal.failing {
        BlockReason::RehearsalFailed
    } else {
        BlockReason::Rehearsal
    })
}

/// The same for one that was planned before: a person asked.
pub(super) fn before_issue(rotation: &Rotation, facts: &Facts<'_>) -> Option<Step> {
    let rehearsal = needed(facts)?;
    if !rotation.plan.origin.is_by_policy() || rotation.rehearsed > facts.ledger.rehearsed {
        return None;
    }
    Some(match missing(facts) {
        None => Step::Journal(Event::Rehearsed { rotations: rehearsal.rotations }),
        Some(BlockReason::RehearsalFailed) => wait(WaitReason::RehearsalFailed, None),
        Some(_) => wait(WaitReason::Rehearsal, None),
    })
}

/// A stolen key waits for no rehearsal, and what isn't in use needs none.
fn needed<'a>(facts: &Facts<'a>) -> Option<Rehearsal<'a>> {
    let in_use = facts.ledger.current.is_some() && !facts.ledger.unverified && facts.ledger.open_incident().is_none();
    facts.rehearsal.filter(|_| in_use && !is_on(Mutant::RehearsalSkipped))
}
