//! What the engine shows: the documents of `status`, `plan` and the reads, as the contract words them.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::credential::Environment;
use crate::domain::delivery::Way;
use crate::domain::environment::{Proof, Verdict};
use crate::domain::holders::{Blocker, HoldingState};
use crate::domain::ids::{InstanceName, KeyId, Name, ObjectName, VersionId};
use crate::domain::ledger::Closure;
use crate::domain::manual::{Asks, Urgency};
use crate::domain::outbox::DeadLetter;
use crate::issuers::BreakerState;

pub use crate::domain::document::{Document, Previous};

use super::office::LeadershipStatus;

/// One row of `GET /v1/credentials`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Listed {
    pub name: Name,
    pub environment: Environment,
    /// `None`: nothing was submitted yet.
    pub version: Option<VersionId>,
    pub revision: u64,
}

/// `status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Status {
    pub credentials: Vec<CredentialStatus>,
    pub problems: Vec<StatusProblem>,
    /// Where these credentials are called at.
    pub providers: Vec<ProviderStatus>,
    pub store: StoreStatus,
    /// Ways of delivery beside the stream, of the applications that read these credentials; as the replica that leads knows them.
    pub deliveries: Vec<DeliveryStatus>,
    /// Where there are several replicas: who leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leadership: Option<LeadershipStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Name>,
}

/// How one way of delivery of one application stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DeliveryStatus {
    pub application: Name,
    pub way: Way,
    pub state: DeliveryState,
    /// Since when it is in this state; `null` while nothing was tried yet.
    pub since: Option<Timestamp>,
    /// Why it isn't `delivered`.
    pub reason: Option<String>,
    /// Copies of the application that may still use what was there before, by name.
    pub stragglers: Vec<ObjectName>,
    /// Messages that were given up, the last one of each credential.
    pub dead_letters: Vec<DeadLetter>,
}

/// What is known of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// The target has the latest.
    Delivered,
    /// It wasn't tried yet, or something is still under way.
    Waiting,
    /// The last try failed; it is tried again.
    Failing,
    /// A message was given up, and no later one was accepted in its place.
    Dead,
    /// What was brought to a place that isn't asked for any more couldn't be taken away; it is tried again.
    Left,
}

/// How the store stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StoreStatus {
    /// `closed`: it answers; `open`: it doesn't. What is kept of it is served meanwhile, and it is asked now and then.
    pub breaker: BreakerState,
    /// Since its last answer, while it is `open`; `null` if it never gave one.
    pub stale_for_seconds: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CredentialStatus {
    pub name: Name,
    pub provider: Name,
    pub environment: Environment,
    /// The base URL in use; `null` for values of our own.
    pub endpoint: Option<String>,
    pub proof: Option<Proof>,
    pub version: Option<VersionId>,
    pub previous_version: Option<VersionId>,
    /// `missing`, `steady`, or a phase.
    pub phase: String,
    pub generation: u64,
    pub issued_at: Option<Timestamp>,
    pub age_seconds: Option<i64>,
    /// When the next rotation starts.
    pub due_at: Option<Timestamp>,
    pub deadline_at: Option<Timestamp>,
    pub overlap_ends_at: Option<Timestamp>,
    /// Why it stands where it stands: a documented reason of the domain.
    pub reason: Option<String>,
    pub paused: bool,
    /// Since when, by itself or with all others.
    pub paused_since: Option<Timestamp>,
    /// Slots, quota and minting are shared by all credentials of one account.
    pub account: Name,
    /// The incident that is open, or the last one.
    pub incident: Option<IncidentStatus>,
    /// What a person is asked for now: a new key, or the removal of the old one.
    pub request: Option<RequestStatus>,
    /// While a new version goes to its instances step by step.
    pub rollout: Option<RolloutStatus>,
    pub applications: Vec<ApplicationStatus>,
}

/// What a person is asked for, where no call can do it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RequestStatus {
    /// `new-key`: it is answered by a submission. `old-key-removal`: at the provider.
    pub asks: Asks,
    pub opened_at: Timestamp,
    pub deadline_at: Timestamp,
    /// `notice`, `soon`, `urgent`, `overdue`: rises with time.
    pub urgency: Urgency,
    pub reminded_at: Option<Timestamp>,
    pub reminders: u32,
    /// Why it is asked for.
    pub reason: String,
    /// What to do, step by step.
    pub instructions: Vec<String>,
}

/// How an environment of a provider stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProviderStatus {
    pub name: Name,
    pub environment: Environment,
    /// The base URL in use.
    pub endpoint: String,
    /// `closed`: calls are made; `open`: none is, because they failed again and again; `half-open`: one is tried.
    pub breaker: BreakerState,
    /// When the next call is let through, while none is.
    pub retry_at: Option<Timestamp>,
}

/// What is measured of one credential.
#[derive(Debug, Clone, PartialEq)]
pub struct CredentialMeasure {
    pub name: Name,
    pub provider: Name,
    pub environment: Environment,
    /// Of the current version; negative if a clock was set back.
    pub age: Option<SignedDuration>,
    /// Of the oldest version that lives; negative past it.
    pub until_deadline: Option<SignedDuration>,
    pub verdict: Option<Verdict>,
    /// How many keep the old version alive, applications never seen included.
    pub holders_of_previous: usize,
    /// Those of them who do it although the overlap is over.
    pub holders_after_overlap: usize,
    /// What a person is asked for, how urgent that is, and how long is left; negative past it.
    pub request: Option<(Asks, Urgency, SignedDuration)>,
    /// The store isn't as the journal says.
    pub store_changed: bool,
    /// The step of its rollout, while one is under way.
    pub rollout_step: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ApplicationStatus {
    pub name: Name,
    /// `None`: listed, and without a living instance.
    pub instance: Option<InstanceName>,
    pub version: Option<VersionId>,
    pub state: Option<HoldingState>,
}

/// How far a new version has come among the instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RolloutStatus {
    /// The step under way, counted from 1; 0 before the first.
    pub step: usize,
    /// How many steps there are.
    pub of: usize,
    /// How many living instances this step has reached.
    pub instances: usize,
    /// Which of them have still to confirm.
    pub waiting_for: Vec<Blocker>,
}

/// A stolen key: what is known of it while it is replaced, and afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct IncidentStatus {
    pub since: Timestamp,
    /// Who holds the old key then loses it.
    pub limit_at: Timestamp,
    /// The stolen version.
    pub version: VersionId,
    /// When it died, and how sure that is: `proved`, `reported` or `unproved`.
    pub revoked_at: Option<Timestamp>,
    pub closure: Option<Closure>,
    /// The version that took its place.
    pub replaced_by: Option<VersionId>,
    /// Who still holds an old key.
    pub holders: Vec<Blocker>,
    /// Who still held it when it went.
    pub stragglers: Vec<Blocker>,
    /// Living keys at the provider that nobody here knows. `null`: not looked yet, or the provider can't list.
    pub unknown_keys: Option<BTreeSet<KeyId>>,
    pub closed_at: Option<Timestamp>,
}

/// Something that a person should know. `credential` is absent for problems of the daemon itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StatusProblem {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Name>,
    /// A short, stable word: `overdue`, `unmanaged`, `current-refused`, `possible-orphan`, `policies-invalid`, …
    pub code: String,
    /// What is wrong and what to do next.
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Plan {
    pub plan: Vec<PlanEntry>,
    pub next: Option<Name>,
    /// Starts of the credentials of this page, those of later generations included, by account and day.
    pub herds: Vec<Herd>,
    /// The credentials of this page that start too often to be counted by days: `herds` has none of their starts.
    pub uncounted: Vec<Name>,
}

/// How many rotations start at one account on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Herd {
    pub account: Name,
    /// In UTC.
    pub day: jiff::civil::Date,
    pub starts: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlanEntry {
    pub name: Name,
    /// When its next rotation starts.
    pub starts_at: Timestamp,
    pub deadline_at: Timestamp,
    pub reason: String,
    pub blocked_by: Vec<String>,
}

/// 201 of a submission.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Submitted {
    pub name: Name,
    pub version: VersionId,
    pub proof: Proof,
}

/// 200 of a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RolledBack {
    pub version: VersionId,
    pub revision: u64,
}
