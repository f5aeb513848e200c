//! Why a rotation waits, and why it is given up: the words that `status`, `plan` and the journal have for it.

use serde::{Deserialize, Serialize};

/// Why a rotation is given up before its promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AbandonReason {
    /// The provider refuses to make a key.
    CreateRefused,
    /// The provider has no free slot.
    NoFreeSlot,
    /// The provider refuses the current version, which should sign the create.
    CurrentRefused,
    /// The administering credential can't sign the create, and a person submitted a key instead.
    NoAdministrator,
    /// The candidate is refused again and again.
    CandidateRefused,
    /// The candidate belongs to the other environment, or its value is known elsewhere.
    EnvironmentMismatch,
    /// Nothing proves the candidate's environment, and the policy doesn't accept that.
    Undetermined,
    /// What the provider sent can't be a value.
    BadValue,
    /// The outcome of a create is unknown, and the provider can't list keys.
    ReplyLost,
    /// The store has another current version than the journal.
    CurrentChanged,
    /// The daemon stopped before the submitted value was durable.
    SubmissionInterrupted,
    /// The sealed copy of the new key can't be opened.
    SealedCopyDamaged,
    /// A value of our own that came back from a backup: nobody can be asked whether it was ended since.
    Restored,
    /// A person asked for the candidate's revocation.
    RevokedByHand,
    /// An instance that had the new version first says that it doesn't work.
    CanaryFailed,
    /// Instances that had the new version first didn't confirm it in their time.
    CanarySilent,
}

impl AbandonReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            AbandonReason::CreateRefused => "create-refused",
            AbandonReason::NoFreeSlot => "no-free-slot",
            AbandonReason::CurrentRefused => "current-refused",
            AbandonReason::NoAdministrator => "no-administrator",
            AbandonReason::CandidateRefused => "candidate-refused",
            AbandonReason::EnvironmentMismatch => "environment-mismatch",
            AbandonReason::Undetermined => "undetermined",
            AbandonReason::BadValue => "bad-value",
            AbandonReason::ReplyLost => "reply-lost",
            AbandonReason::CurrentChanged => "current-changed",
            AbandonReason::SubmissionInterrupted => "submission-interrupted",
            AbandonReason::SealedCopyDamaged => "sealed-copy-damaged",
            AbandonReason::Restored => "restored",
            AbandonReason::RevokedByHand => "revoked-by-hand",
            AbandonReason::CanaryFailed => "canary-failed",
            AbandonReason::CanarySilent => "canary-silent",
        }
    }
}

/// The reasons that `status` and `plan` show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitReason {
    /// No window is open.
    WindowClosed,
    Paused,
    /// Old and new both work for a while yet.
    Overlap,
    /// The old key is disabled, and kept for a while before it is removed.
    Soak,
    /// An instance still holds the old version.
    Held,
    /// As [`WaitReason::Held`], and the old version is past its deadline.
    Overdue,
    /// An application was never seen, and may hold the submitted key from elsewhere.
    NoInstanceSeen,
    /// The wall clock jumped: what destroys waits until it is believed again.
    ClockUntrusted,
    /// Too many creates with unknown outcome: a person must look.
    PossibleOrphans,
    /// A person is asked for a new key.
    ManualRequest,
    /// A person is asked to remove the old key.
    ManualRemoval,
    /// The instances that have the new version first haven't all confirmed it.
    Rollout,
    /// The new version was to be taken back, and that failed: a person decides.
    RolloutStopped,
    /// The sandbox twin hasn't rotated yet.
    Rehearsal,
    /// As [`WaitReason::Rehearsal`], and the twin's last try failed.
    RehearsalFailed,
}

impl WaitReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            WaitReason::WindowClosed => "window-closed",
            WaitReason::Paused => "paused",
            WaitReason::Overlap => "overlap",
            WaitReason::Soak => "soak",
            WaitReason::Held => "held",
            WaitReason::Overdue => "overdue",
            WaitReason::NoInstanceSeen => "no-instance-seen",
            WaitReason::ClockUntrusted => "clock-untrusted",
            WaitReason::PossibleOrphans => "possible-orphans",
            WaitReason::ManualRequest => "manual-request",
            WaitReason::ManualRemoval => "manual-removal",
            WaitReason::Rollout => "rollout",
            WaitReason::RolloutStopped => "rollout-stopped",
            WaitReason::Rehearsal => "rehearsal",
            WaitReason::RehearsalFailed => "rehearsal-failed",
        }
    }
}
