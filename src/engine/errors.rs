//! Why the engine refuses what it is asked. Closed: the API and the command line branch on the kind.

pub use crate::domain::fields::FieldProblem;
use crate::domain::ids::FieldName;

/// Why a value isn't disclosed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not listed, or doesn't exist: both are answered alike.
    #[error("this credential isn't in the caller's document")]
    Forbidden,
    /// A person asks for a production credential and doesn't say why.
    #[error(
        "a person reads a production credential for a reason, which the audit trail keeps: `keywright get NAME --reason TEXT`, or the header Keywright-Reason"
    )]
    ReasonMissing,
    #[error("nothing was submitted for this credential yet, or nothing that may be served")]
    NoVersion,
    /// Restored from a backup: the provider hasn't been asked yet.
    #[error("this credential came back from a backup and isn't served before it was verified again: try again soon")]
    NotVerified,
    /// `requireGoLive`, and the application's list isn't passed.
    #[error(
        "this credential is served once the application's going-live list is passed: `keywright golive APPLICATION` shows what is missing"
    )]
    NotLive,
    #[error("this application has too many instances: give each copy one lasting name")]
    TooManyInstances,
    #[error("the store can't be reached and nothing is cached")]
    StoreUnavailable,
    #[error("the audit trail can't be written, and this would be a first disclosure")]
    AuditUnavailable,
}

/// Why a confirmation doesn't count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmError {
    #[error("this credential isn't in the caller's document")]
    Forbidden,
    /// Two living instances are both called `default`.
    #[error("two living instances of this application don't name themselves: send the header Keywright-Instance")]
    AmbiguousInstance,
    #[error("the version isn't the newest that this instance was served")]
    NotNewest,
    #[error("the proof doesn't fit the value of this field")]
    WrongProof,
    #[error("the confirmation can't be made durable")]
    Unavailable,
    #[error("the audit trail can't be written")]
    AuditUnavailable,
}

/// Why a report of an instance doesn't count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    #[error("this credential isn't in the caller's document")]
    Forbidden,
    #[error("two living instances of this application don't name themselves: send the header Keywright-Instance")]
    AmbiguousInstance,
    #[error("the version isn't the newest that this instance was served")]
    NotNewest,
    #[error("the report can't be made durable")]
    Unavailable,
    #[error("the audit trail can't be written")]
    AuditUnavailable,
}

/// Why a submission is refused. Nothing of a refused value is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error("there is no such credential in the policies")]
    UnknownCredential,
    #[error("a rotation is open: wait for it, or look at `keywright status`")]
    RotationOpen,
    #[error("{}", field_problems(.0))]
    InvalidFields(Vec<(FieldName, FieldProblem)>),
    /// The value belongs elsewhere. `reasons` are for people and hold nothing of the value.
    #[error("the key doesn't belong to this environment: {reasons}")]
    EnvironmentMismatch { reasons: String },
    #[error("nothing proves that the key belongs to this environment: {reasons}")]
    Undetermined { reasons: String },
    #[error("the provider doesn't accept the key: {reason}")]
    ProviderRefused { reason: String },
    /// Nothing is known about the key because the provider didn't answer clearly: try again.
    #[error("the provider can't be asked now: {reason}")]
    ProviderUnavailable { reason: String },
    /// Something is there that we didn't write.
    #[error(
        "a value that Keywright didn't write lies where this credential belongs in the store: `keywright submit NAME --adopt` proves it and takes it over"
    )]
    Occupied,
    /// It was to be taken over.
    #[error("nothing lies where this credential belongs in the store: submit the fields themselves")]
    NothingThere,
    /// What somebody else wrote there is no value that we could keep.
    #[error("what lies in the store isn't one flat JSON object with a text for each field")]
    Unreadable,
    /// While the key was proved.
    #[error("somebody else changed what is current in the store meanwhile: look at `keywright status`, and submit it again")]
    StoreChanged,
    #[error("the store or the journal can't be reached")]
    StoreUnavailable,
    #[error("the audit trail can't be written")]
    AuditUnavailable,
}

fn field_problems(problems: &[(FieldName, FieldProblem)]) -> String {
    let texts: Vec<String> = problems.iter().map(|(field, problem)| format!("`{field}` {problem}")).collect();
    texts.join("; ")
}

/// Why a rotation isn't begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RotateError {
    #[error("there is no such credential in the policies")]
    UnknownCredential,
    #[error("a rotation of this credential is open already")]
    RotationOpen,
    #[error("nothing was submitted yet: `keywright submit` first")]
    NoVersion,
    #[error("the provider refuses the current key: `keywright submit` a working one")]
    CurrentRefused,
    #[error("it is paused: `keywright resume` first")]
    Paused,
    #[error("the provider's description has no way to make a key")]
    CannotMint,
    #[error("the store or the journal can't be reached")]
    StoreUnavailable,
    #[error("the audit trail can't be written")]
    AuditUnavailable,
}

/// Why a rotation isn't turned round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RollbackError {
    #[error("there is no such credential in the policies")]
    UnknownCredential,
    #[error("there is nothing to go back to: a rollback is possible while the old key still lives, after a promotion")]
    NothingToGoBackTo,
    #[error("the old key is being revoked, or is dead: there is no way back")]
    BeingRevoked,
    #[error("the old key is stolen: it must not become current again")]
    Stolen,
    #[error("the provider doesn't accept the old key any more: the new one stays current")]
    Refused,
    /// Not known whether it took effect: `status` tells.
    #[error("it isn't done yet, because the provider, the store or the journal can't be reached; once begun, it goes on by itself")]
    StoreUnavailable,
    #[error("the audit trail can't be written")]
    AuditUnavailable,
}

/// Why a version isn't revoked by hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    #[error("there is no such version")]
    Unknown,
    #[error("this version's key is current: `keywright rotate` replaces it first")]
    Current,
    #[error("it is still held ({who}): let them confirm, `keywright release` them, or force it")]
    Held { who: String },
    #[error("{0}")]
    NotNow(&'static str),
    /// Asked for, durably, and not intended yet.
    #[error("it is asked for and goes on by itself, but isn't certain yet: {because}")]
    Later { because: String },
    #[error("the store or the journal can't be reached")]
    StoreUnavailable,
    #[error("the audit trail can't be written")]
    AuditUnavailable,
}

/// Why a credential isn't forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    #[error("there is no such credential")]
    Unknown,
    #[error("a rotation is open, or a key that is left over is being revoked")]
    RotationOpen,
    #[error("a document still names it, and it has a current version: remove the document first, or force it")]
    Documented,
    #[error("applications hold it ({who}): `keywright release` them first, or force it")]
    Held { who: String },
    #[error("it is paused: `keywright resume` first")]
    Paused,
    #[error("the store or the journal can't be reached; once begun, it goes on by itself")]
    StoreUnavailable,
    #[error("the audit trail can't be written")]
    AuditUnavailable,
}

/// Why nothing is paused, or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PauseError {
    #[error("there is no such credential")]
    Unknown,
    #[error("it can't be made durable: until the daemon ends it may hold all the same")]
    Unavailable,
    #[error("the audit trail can't be written")]
    AuditUnavailable,
}

/// Why an item of a going-live list isn't signed off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    #[error("there is no such application")]
    UnknownApplication,
    #[error("there is no such item in the list of this application: `keywright golive APPLICATION` names them")]
    UnknownItem,
    #[error("several credentials have an item of this name: say which, as CREDENTIAL.ITEM")]
    AmbiguousItem,
    #[error("the daemon judges this item by itself, and {0}")]
    Judged(&'static str),
    #[error("it can't be made durable")]
    Unavailable,
    #[error("the audit trail can't be written")]
    AuditUnavailable,
}

/// Why an instance isn't released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    #[error("there is no such application, and no such instance")]
    Unknown,
    #[error("the release can't be made durable")]
    Unavailable,
    #[error("the audit trail can't be written")]
    AuditUnavailable,
}

/// Why the engine can't start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Journal(#[from] crate::journal::JournalError),
    #[error(transparent)]
    Store(#[from] crate::stores::StoreError),
    #[error(transparent)]
    Rows(#[from] crate::replicas::RowsError),
    #[error("the journal of `{credential}` doesn't add up ({reason}): restore it from a backup")]
    JournalBroken { credential: crate::domain::ids::Name, reason: String },
}
