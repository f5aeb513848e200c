//! Deliberate faults of ours, for the simulator to catch. A release build has no switch: [`is_on`] is `false` there, and
//! whatever asks it is compiled away.

/// One deliberate fault, by the promise that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    IntentNotJournaled,
    RevokeIntentNotJournaled,
    AttemptReused,
    NoSurveyBeforeCreate,
    OrphansOverlooked,
    UnknownKeysTakenForOurs,
    UndoneKeyLeftAlive,
    RevocationNotSent,
    PromotedUnverified,
    PromotedInAnotherTerm,
    PromotedOnce,
    NoFreshLook,
    OverlapCutShort,
    HoldersForgotten,
    UnseenIgnored,
    StragglersUnnamed,
    LeaseOfStreamRuns,
    HoldingNotDurable,
    StaleConfirmationCounts,
    WrongProofCounts,
    DeposedGoesOn,
    GenerationStands,
    SealedCopyDropped,
    BytesForgottenEarly,
    JumpedClockBelieved,
    StartedUnderJumpedClock,
    StartedEarly,
    StartedLate,
    LatestDeadlineFirst,
    NeverGivenUp,
    AuditSkipped,
    DisclosureUnrecorded,
    EnvironmentUnchecked,
    FingerprintsIgnored,
    OldValueServed,
    WindowsIgnored,
    StolenRevokedFirst,
    PauseIgnored,
    PauseNotDurable,
    RolledBackToDoomed,
    RollbackRejuvenates,
    LimitForgotten,
    LimitCutShort,
    ThiefsKeysUnnamed,
    ForgottenLeftInStore,
    RestoredServedUnverified,
    CanaryServedToAll,
    CanaryStepSkipped,
    CanaryOverlapCutShort,
    RehearsalSkipped,
    RemovalBelieved,
    RemovalGivenUp,
}

impl Mutant {
    pub const ALL: [Mutant; 52] = [
        Mutant::IntentNotJournaled,
        Mutant::RevokeIntentNotJournaled,
        Mutant::AttemptReused,
        Mutant::NoSurveyBeforeCreate,
        Mutant::OrphansOverlooked,
        Mutant::UnknownKeysTakenForOurs,
        Mutant::UndoneKeyLeftAlive,
        Mutant::RevocationNotSent,
        Mutant::PromotedUnverified,
        Mutant::PromotedInAnotherTerm,
        Mutant::PromotedOnce,
        Mutant::NoFreshLook,
        Mutant::OverlapCutShort,
        Mutant::HoldersForgotten,
        Mutant::UnseenIgnored,
        Mutant::StragglersUnnamed,
        Mutant::LeaseOfStreamRuns,
        Mutant::HoldingNotDurable,
        Mutant::StaleConfirmationCounts,
        Mutant::WrongProofCounts,
        Mutant::DeposedGoesOn,
        Mutant::GenerationStands,
        Mutant::SealedCopyDropped,
        Mutant::BytesForgottenEarly,
        Mutant::JumpedClockBelieved,
        Mutant::StartedUnderJumpedClock,
        Mutant::StartedEarly,
        Mutant::StartedLate,
        Mutant::LatestDeadlineFirst,
        Mutant::NeverGivenUp,
        Mutant::AuditSkipped,
        Mutant::DisclosureUnrecorded,
        Mutant::EnvironmentUnchecked,
        Mutant::FingerprintsIgnored,
        Mutant::OldValueServed,
        Mutant::WindowsIgnored,
        Mutant::StolenRevokedFirst,
        Mutant::PauseIgnored,
        Mutant::PauseNotDurable,
        Mutant::RolledBackToDoomed,
        Mutant::RollbackRejuvenates,
        Mutant::LimitForgotten,
        Mutant::LimitCutShort,
        Mutant::ThiefsKeysUnnamed,
        Mutant::ForgottenLeftInStore,
        Mutant::RestoredServedUnverified,
        Mutant::CanaryServedToAll,
        Mutant::CanaryStepSkipped,
        Mutant::CanaryOverlapCutShort,
        Mutant::RehearsalSkipped,
        Mutant::RemovalBelieved,
        Mutant::RemovalGivenUp,
    ];
}

#[cfg(debug_assertions)]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Stands in each build that has the switch: so it is seen which one hasn't.
    const MARK: &str = "deliberate faults can be switched on in this build";

    /// On for this thread, until it is set again. Builds with debug assertions only.
    pub fn set(mutant: Option<Mutant>) {
        ON.set(mutant);
    }

    pub(crate) fn is_on(mutant: Mutant) -> bool {
        ON.get() == Some(mutant) && !std::hint::black_box(MARK).is_empty()
    }
}

#[cfg(debug_assertions)]
pub(crate) use switch::is_on;
#[cfg(debug_assertions)]
pub use switch::set;

#[cfg(not(debug_assertions))]
pub(crate) const fn is_on(_: Mutant) -> bool {
    false
}

// Known when it is compiled: a build without debug assertions in which a fault could be on doesn't come to be.
#[cfg(not(debug_assertions))]
const _: () = {
    let mut index = 0;
    while index < Mutant::ALL.len() {
        assert!(!is_on(Mutant::ALL[index]));
        index += 1;
    }
};
