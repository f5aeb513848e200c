//! One rotation: its phases, the events that move it, the step that comes next, and the way back.
//!
//! [`apply`] is the whole persistent state machine: it runs a rotation, replays it after a crash, and is what tests drive.
//! [`next`] only computes; performing is the engine's.

mod apply;
mod canary;
mod incident;
mod manual;
mod moment;
mod next;
mod reasons;
mod rehearsal;
#[cfg(test)]
mod tests;
mod undo;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::credential::Credential;
use super::environment::Proof;
use super::holders::Blocker;
use super::ids::{InstallationId, KeyId, OperationId, VersionId};
use super::ledger::{Closure, Fingerprint, Ledger, Origin};
use super::manual::{Asks, Removal, Urgency};
use super::mutants::{Mutant, is_on};
use super::policy::{RotationPolicy, Terms};
use super::provider::Provider;
use super::rollout::{Member, Reach, Rollout, Share, StopReason};
use super::succession::Succession;

pub use apply::{IllegalEvent, apply};
pub use canary::next_try;
pub use moment::{Instant, Moment};
pub use next::next;
pub(crate) use next::too_many_possible_orphans;
pub use reasons::{AbandonReason, WaitReason};
pub use rehearsal::Rehearsal;
pub(crate) use rehearsal::missing as rehearsal_missing;

/// How often a candidate may be refused, after its propagation delay, before it is abandoned (I16).
pub const CANDIDATE_REFUSALS_MAX: u32 = 3;
/// How many attempts one rotation risks whose replies are lost, where the provider lists what they left behind (I16).
pub const CREATE_ATTEMPTS_MAX: u32 = 5;
/// How many creates with unknown outcome are risked where the provider can't list keys (I2).
pub const POSSIBLE_ORPHANS_MAX: usize = 3;

/// Where a rotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Planned,
    Issued,
    Stored,
    Verified,
    Promoted,
    Confirmed,
    Retired,
    Revoked,
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Planned => "planned",
            Phase::Issued => "issued",
            Phase::Stored => "stored",
            Phase::Verified => "verified",
            Phase::Promoted => "promoted",
            Phase::Confirmed => "confirmed",
            Phase::Retired => "retired",
            Phase::Revoked => "revoked",
        }
    }
}

/// An open rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    pub plan: Plan,
    pub phase: Phase,
    /// The attempt under way: its operation and version are what the provider and the store see.
    pub attempt: u32,
    pub operation: OperationId,
    /// The version that this rotation makes current.
    pub version: VersionId,
    /// The version that it replaces.
    pub old: Option<VersionId>,
    pub key_id: Option<KeyId>,
    /// A create is intended, or was sent: its outcome isn't known until `issued`.
    pub create_open: bool,
    /// A key with this attempt's marker was met and given up: the attempt must grow before the next create.
    pub attempt_burned: bool,
    pub issued_at: Option<Timestamp>,
    /// Running time at which the candidate was first refused.
    pub refused_first: Option<Duration>,
    pub refusals: u32,
    /// Leadership term of the last verification: a promotion needs one of its own term (I4).
    pub verified_term: Option<u64>,
    /// That verification is older than a restore from a backup: where the store promoted the version meanwhile, it may have died since.
    #[serde(default)]
    pub verified_before_restore: bool,
    pub promoted: Option<Instant>,
    /// How far the new version has come, if it is rolled out step by step.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// How many rotations the twin had ended when this one was rehearsed.
    #[serde(default)]
    pub rehearsed: u64,
    /// Leadership term of the last fresh look at the current version before the revocation (I5).
    pub retired_term: Option<u64>,
    /// When the old key was disabled, where the provider can do that before it removes it.
    #[serde(default)]
    pub disabled: Option<Instant>,
    pub stragglers: Vec<Blocker>,
    pub abandoning: Option<AbandonReason>,
    /// The provider's keys as they were listed before the new one was made.
    #[serde(default)]
    pub seen: BTreeSet<KeyId>,
    /// A person asked for the old key's revocation: neither overlap nor windows count.
    #[serde(default)]
    pub revocation: Option<RevocationAsked>,
    /// The rotation that a rollback turned round, or that a submission superseded: it comes back if this one fails.
    pub turned: Option<Box<Rotation>>,
    /// Only a person can remove the old key, and is asked to.
    #[serde(default)]
    pub removal: Option<Removal>,
}

impl Rotation {
    /// Whether a submitted key may take the place of what this rotation made current: the provider refuses that, which would
    /// hold the rotation open for ever, because the old key goes only when the new one lives.
    pub fn gives_way(&self, refused_since: Option<Timestamp>) -> bool {
        let stands_still = matches!(self.phase, Phase::Promoted | Phase::Confirmed | Phase::Retired);
        refused_since.is_some() && stands_still && self.old.is_some()
    }

    /// Whether all that is left to do is a person's: the old key is to be removed at the provider.
    pub fn awaits_removal(&self) -> bool {
        self.phase == Phase::Retired && self.removal.is_some()
    }
}

/// How a person asked for the revocation of an old key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevocationAsked {
    /// Nobody held it, and nobody may when it goes.
    IfUnheld,
    /// Whoever holds it is named, and loses it.
    Anyway,
}

/// What is fixed before a rotation does anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub generation: u64,
    pub attempt: u32,
    pub operation: OperationId,
    pub version: VersionId,
    pub origin: Origin,
    pub reason: String,
    pub terms: Terms,
    pub planned_at: Timestamp,
    /// Applications get the old version's fields too while both are good: that they end is a change which they see.
    #[serde(default)]
    pub serves_previous: bool,
    /// What the create does to the old key.
    #[serde(default)]
    pub succession: Succession,
    /// The steps in which instances get the new version; empty: all at once.
    #[serde(default)]
    pub rollout: Vec<Share>,
    /// How many rotations the twin has ended.
    #[serde(default)]
    pub twin_rotations: u64,
    /// What the promotion replaces in the store, where that isn't the version that is current by the journal: somebody else's.
    #[serde(default)]
    pub replacing: Option<VersionId>,
}

/// What happened. The journal keeps these; [`apply`] adds them up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    Planned {
        plan: Plan,
    },
    /// The intent to create, with the provider's keys seen before. Each create has one of its own (I1).
    CreateIntended {
        attempt: u32,
        operation: OperationId,
        version: VersionId,
        seen: BTreeSet<KeyId>,
    },
    /// The key exists, or the value was submitted; a sealed copy is durable together with this event (I11).
    Issued {
        key_id: Option<KeyId>,
        issued_at: Timestamp,
        expires_at: Option<Timestamp>,
        fingerprints: Vec<Fingerprint>,
        copy_of: Option<VersionId>,
        /// When the provider ends the old key, where making the new one leads to that.
        #[serde(default)]
        old_ends_at: Option<Timestamp>,
    },
    /// Pending in the store and read back byte-equal; the sealed copy is erased together with this event.
    Stored,
    Verified {
        proof: Proof,
        term: u64,
    },
    /// The candidate was refused. `counted` is false within the propagation delay.
    Refused {
        at: Instant,
        counted: bool,
    },
    Promoted {
        at: Instant,
    },
    /// The twin has rotated since the current version was made.
    Rehearsed {
        rotations: u64,
    },
    /// A step of the rollout begins: who stands in line up to here is served the new version.
    RolledOut {
        step: usize,
        reach: Reach,
        at: Instant,
    },
    /// The new version is to be taken back.
    RolloutStopped {
        reason: StopReason,
        who: Vec<Blocker>,
        next_try_at: Timestamp,
    },
    Confirmed {
        stragglers: Vec<Blocker>,
    },
    Retired {
        term: u64,
    },
    /// From here on the old key can't become current again, whatever happens.
    RevokeIntended,
    /// The old key is disabled: nobody can use it, and it isn't removed yet.
    Disabled {
        at: Instant,
    },
    Revoked {
        at: Timestamp,
        closure: Closure,
    },
    Closed,
    Abandoning {
        reason: AbandonReason,
    },
    /// The new key is gone at the provider, or was never made.
    Undone,
    Abandoned {
        at: Timestamp,
        next_try_at: Timestamp,
    },
    /// A living key with our marker that the journal doesn't know. Also the intent to revoke it.
    OrphanFound {
        key_id: KeyId,
        burns_attempt: bool,
    },
    OrphanRevoked {
        key_id: KeyId,
    },
    PossibleOrphan {
        operation: OperationId,
        at: Timestamp,
    },
    /// Whatever lost replies left beside the primary secret is taken back.
    SecondaryCancelled,
    /// As [`Event::PossibleOrphan`], where there is one secret: what was made is the provider's until the next create takes its
    /// place, and nothing is left over. The old key may be ending, which nobody was told.
    ReplyLost {
        operation: OperationId,
        /// The provider doesn't know a repeated operation again: the next create is another one.
        burns_attempt: bool,
        old_ends_at: Timestamp,
    },
    /// The provider refuses the current version, seen twice apart in time.
    CurrentRefused {
        at: Timestamp,
    },
    CurrentAccepted,
    /// Take the old material back: the rotation turns round.
    RollbackPlanned {
        plan: Plan,
    },
    TermsTightened {
        terms: Terms,
    },
    Paused {
        #[serde(default)]
        at: Option<Timestamp>,
    },
    Resumed,
    /// All before this came back from a backup: what happened since isn't known.
    Restored,
    /// Somebody else may have the current key. It and all older ones are replaced, and die within this time, held or not.
    Compromised {
        at: Instant,
        within: Duration,
    },
    /// All keys of the incident are dead, and the provider's keys were looked through once more.
    IncidentClosed {
        at: Timestamp,
        unknown_keys: Option<BTreeSet<KeyId>>,
    },
    /// A person asks for the old key's revocation now. Who holds it is named here, before it goes.
    RevocationAsked {
        asked: RevocationAsked,
        stragglers: Vec<Blocker>,
    },
    /// A person is asked for a new key; said again, it is more urgent.
    ManualRequested {
        at: Timestamp,
        deadline: Timestamp,
        reason: String,
        by_time: bool,
    },
    /// It became more urgent, and the person was told.
    ManualReminded {
        at: Timestamp,
        asks: Asks,
        urgency: Urgency,
    },
    /// It isn't due any more: the policy or the description changed.
    ManualWithdrawn,
    /// A person is asked to remove the old key at the provider.
    RemovalAsked {
        at: Timestamp,
        deadline: Timestamp,
    },
    /// What the provider said of a key that is to be removed; journaled where it changes.
    RemovalSeen {
        at: Instant,
        alive: bool,
    },
    /// The credential is removed here. Its keys live on at the provider. Also the intent to clear the store.
    Forgotten,
    /// The store holds nothing of a forgotten credential any more.
    Cleared,
    /// The whole ledger: replaces all events before it.
    Snapshot {
        ledger: Box<Ledger>,
    },
}

/// What is to be done next. `Journal` needs no I/O but the append of its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// List the provider's keys: before each create, and to find what a lost create left behind.
    Survey,
    RevokeOrphan {
        key_id: KeyId,
    },
    /// Take back what a lost create may have left beside the current secret, which is the primary one as long as no other was made.
    CancelSecondary,
    Create,
    /// Make the value ourselves. Nobody knows it before it is stored: done twice, it does no harm.
    Choose,
    Store,
    Verify,
    Promote,
    /// Verify the current version afresh, before the old one goes.
    Retire,
    /// End the old key in a way that can be undone at the provider, before it is removed.
    Disable,
    Revoke,
    /// Remove the bytes of the old version from the store, and of all that carry its key ([`Ledger::same_key`]).
    Forget,
    /// Revoke the key of a candidate that is given up.
    UndoKey {
        key_id: KeyId,
    },
    /// Remove the candidate from the store, and the sealed copy.
    Discard,
    /// List the provider's keys once more at the end of an incident: a thief may have made some.
    CloseIncident,
    /// Remove all that the store holds of a forgotten credential.
    Clear,
    Journal(Event),
    Wait(Wait),
}

/// Why nothing is done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    pub reason: WaitReason,
    /// When to look again at the latest; `None`: when something changes.
    pub until: Option<Timestamp>,
}

/// All that [`next`] and [`super::due::decide`] look at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub now: Moment,
    pub term: u64,
    pub credential: &'a Credential,
    pub policy: &'a RotationPolicy,
    pub provider: &'a Provider,
    pub ledger: &'a Ledger,
    /// Who keeps the old version alive ([`super::holders::barrier`]).
    pub blockers: &'a [Blocker],
    /// The open create intent was written by this process, and the create certainly had no effect yet.
    pub create_unsent: bool,
    /// The provider's keys as this process last listed them, if that was after the last create of unknown outcome.
    /// Empty, and not absent, where the provider can't list.
    pub seen: Option<&'a BTreeSet<KeyId>>,
    /// How many keys lived then, where the provider lists them: each takes a slot.
    pub living: Option<usize>,
    pub installation: InstallationId,
    /// An operator asked for a rotation.
    pub requested: bool,
    /// Everything is paused, not this credential alone.
    pub all_paused: bool,
    /// The living instances that can be served the new version; asked for while it is rolled out.
    pub crew: &'a [Member],
    /// What is known of the twin, where the policy asks for a rehearsal.
    pub rehearsal: Option<Rehearsal<'a>>,
    /// A production credential waits for this one's rotation.
    pub rehearses: bool,
}

impl Facts<'_> {
    /// Whether all that destroys waits for a person.
    pub fn paused(&self) -> bool {
        (self.ledger.paused || self.all_paused) && !is_on(Mutant::PauseIgnored)
    }
}
