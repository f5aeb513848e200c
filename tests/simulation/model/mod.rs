//! What should be true, told from outside: the model sees effects, journaled events, audit records and what applications hold,
//! and knows the provider's truth. It uses none of the engine's decisions.
//!
//! Judged here: I1 to I8, I10 to I14 and I16 to I19, windows, and liveness. Not judged: I9 beyond "a full provider loses no key",
//! because no description tells of slots, so nobody can know that a provider evicts; the shares of I15, because the engine is told
//! of none; I20, because nothing is printed here (the canary tests judge it); of I10 an older snapshot that nobody restored, but put
//! in place; of I19 native readers; values of our own, and the previous one beside them; the order in I14 where windows, jumps of the
//! clock or a provider without a list blur when a key is due; incidents, pauses, rollbacks and backups where a person makes the keys. Reads, streams and confirmations come between turns, not within a call of one.

mod bad_days;
mod by_hand;
mod calls;
pub mod checks;
mod holders;
pub mod restored;
mod rollouts;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use keywright::domain::credential::Environment;
use keywright::domain::ids::{InstallationId, KeyId, Name, VersionId};
use keywright::domain::material::Material;
use keywright::domain::policy::{Policies, RotationPolicy, Uptake};
use keywright::domain::rotation::{AbandonReason, Event, Plan};
use keywright::engine::audit::Action;

use crate::scene::Inner;
use crate::setting::{ClockWay, Setting};

pub use bad_days::{Deeds, Theft};
pub use holders::{Copy, CopyId};
pub use rollouts::{Rolling, Rollouts};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

/// What the model knows of one version.
#[derive(Debug, Clone)]
pub struct Version {
    pub key: KeyId,
    pub generation: u64,
    pub submitted: bool,
    /// When it was issued to us, and when the provider made it.
    pub issued: Duration,
    pub made: Timestamp,
    pub stored: bool,
    pub verified_terms: BTreeSet<u64>,
    pub counted_refusals: u32,
    /// Issued to a process that began under a wrong clock, so that it may count as older than it is.
    pub misdated: bool,
    pub promoted: Option<Duration>,
    pub abandoned: bool,
    pub ended: bool,
    pub doomed: bool,
    /// A rollback's: its key is an older version's.
    pub copy: bool,
    /// Forgotten while its key lived: nobody here touches it any more.
    pub left: bool,
}

impl Version {
    /// A submission that failed keeps its key alive: it is the person's.
    pub fn is_a_persons(&self) -> bool {
        self.submitted && self.abandoned && self.promoted.is_none()
    }
}

/// A rotation that a rollback turned round, as it comes back if that fails.
#[derive(Debug, Clone)]
pub struct Before {
    pub plan: Option<Plan>,
    pub planned_under: Option<std::sync::Arc<RotationPolicy>>,
    pub stragglers: BTreeSet<(Name, Option<String>)>,
}

/// What the model knows of one credential.
#[derive(Debug, Clone)]
pub struct Known {
    pub environment: Environment,
    pub policy: std::sync::Arc<RotationPolicy>,
    pub events: Vec<Event>,
    pub plan: Option<Plan>,
    /// The open one that a submission superseded.
    pub turned: Option<Plan>,
    /// The policy at the time of the plan.
    pub planned_under: Option<std::sync::Arc<RotationPolicy>>,
    pub intent: Option<(uuid::Uuid, u32, VersionId)>,
    pub intents: BTreeSet<String>,
    pub attempts: BTreeSet<u32>,
    pub versions: BTreeMap<VersionId, Version>,
    pub candidate: Option<VersionId>,
    pub abandoning: bool,
    pub orphans: BTreeSet<KeyId>,
    /// The journal holds a sealed copy.
    pub sealed: bool,
    /// Current by the journal: a promotion that isn't journaled yet is finished before anything else is done.
    pub told: Option<VersionId>,
    /// The candidate was verified before a backup came back, and not since.
    pub verified_long_ago: bool,
    /// When the journal was told that.
    pub told_at: Option<Duration>,
    pub current: Option<VersionId>,
    pub old: Option<VersionId>,
    pub generations: BTreeMap<u64, VersionId>,
    pub stragglers: BTreeSet<(Name, Option<String>)>,
    /// Since when the current key has been dead by other hands.
    pub refused_told: bool,
    pub acknowledged: Option<VersionId>,
    /// Applications that were served it or released.
    pub seen: BTreeSet<Name>,
    pub asked_for: u32,
    /// The version that goes to its instances step by step.
    pub rolling: Option<Rolling>,
    /// When the last one was stopped, and the versions that somebody said fail.
    pub stopped_at: Option<Duration>,
    pub reported: BTreeSet<VersionId>,
    /// All have confirmed the version that was rolled out.
    pub confirmed: bool,
    /// Why the way back is being given up.
    pub gives_up: Option<AbandonReason>,
    /// Rotations that have come to their end; how many the twin had for the version on its way, and for the current one.
    pub rotations: u64,
    pub rehearsal: u64,
    pub rehearsed: u64,
    /// The rotation that is being turned round.
    pub back: Option<Before>,
    /// Copies that a rollback made and gave up. A process that was deposed meanwhile may still send one off: the store knows it as forgotten.
    pub failed_copies: BTreeMap<VersionId, KeyId>,
    pub paused: bool,
    /// The incident that is open, or the last one.
    pub theft: Option<Theft>,
    /// A person asked for the old key's revocation, held or not (`true`), or if nobody holds it.
    pub asked: Option<bool>,
    /// Forgotten, and the store isn't cleared yet.
    pub clearing: bool,
    /// Forgotten, and not submitted anew yet.
    pub forgotten: bool,
    /// Back from a backup, and not looked at since.
    pub unverified: bool,
    /// What was true before the last event, while the process can't know that it is durable.
    pub lost: Option<Lost>,
}

/// The view of a process whose append was done, and not acknowledged.
#[derive(Debug, Clone)]
pub struct Lost {
    pub told: Option<VersionId>,
    pub rolling: Option<Rolling>,
}

/// Everything that the model knows.
#[derive(Debug)]
pub struct Model {
    pub installation: InstallationId,
    /// What it was before it came back from a backup.
    pub former: Vec<InstallationId>,
    pub known: BTreeMap<Name, Known>,
    pub violation: Option<Violation>,
    pub term: u64,
    /// Keys that people made: to be submitted (for whom), or somebody else's.
    pub by_hand: BTreeMap<KeyId, Option<Name>>,
    /// Ended by others, by eviction or by a person.
    pub outside: BTreeSet<KeyId>,
    pub revoked: BTreeSet<KeyId>,
    pub calls_made: u64,
    /// (process, key) → last time that a probe found it working.
    pub probes: BTreeMap<(u64, KeyId), Duration>,
    pub reads: BTreeSet<(u64, VersionId)>,
    pub records: BTreeSet<String>,
    pub copies: BTreeMap<CopyId, Copy>,
    /// Which applications list a credential.
    pub listed: BTreeMap<Name, Vec<Name>>,
    pub repeated_calls: bool,
    pub deposed_calls: bool,
    pub blind: bool,
    /// A person makes and removes its keys.
    pub manual: bool,
    /// The key that a person brings now: nothing in it is an id that a journal would name.
    pub brought: Option<KeyId>,
    /// Whose request a person is answering now.
    pub answering: Option<Name>,
    /// The wall clock jumps: trust comes back in the middle of a turn.
    pub jumps: bool,
    /// Processes that began under a wall clock that was off: nobody can tell them before a provider did.
    pub misled: BTreeSet<u64>,
    /// Deadlines of what was planned by time in this turn, in order.
    pub turn_plans: Vec<Timestamp>,
    pub turn_faults: u64,
    /// Everything is paused, by the journal.
    pub all_paused: bool,
    /// A pause of everything that could not be journaled holds until the process ends.
    pub maybe_paused: bool,
    pub promotions: u64,
    /// How often others wrote into the store.
    pub written: u64,
    pub revocations: u64,
    pub deeds: Deeds,
    pub rollouts: Rollouts,
    /// The sandbox twin of a production credential.
    pub twins: BTreeMap<Name, Name>,
    pub uptakes: BTreeMap<Name, Uptake>,
}

impl Model {
    /// An event becomes durable, and whether its process will be told isn't known yet.
    pub fn appending(&mut self, name: &Name) {
        if let Some(known) = self.known.get_mut(name) {
            known.lost = Some(Lost { told: known.told.clone(), rolling: known.rolling.clone() });
        }
    }

    /// The process has what the journal has.
    pub fn knows(&mut self, name: &Name) {
        if let Some(known) = self.known.get_mut(name) {
            known.lost = None;
        }
    }

    pub fn new(setting: &Setting, installation: InstallationId) -> Model {
        let known = setting.policies.credentials.values().map(|document| {
            let known = Known::new(document.environment, Setting::policy_of(&setting.policies, &document.name));
            (document.name.clone(), known)
        });
        let mut listed: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
        for crowd in &setting.crowds {
            listed.entry(crowd.credential.clone()).or_default().push(crowd.application.clone());
        }
        Model {
            installation,
            former: Vec::new(),
            known: known.collect(),
            violation: None,
            term: 0,
            by_hand: BTreeMap::new(),
            outside: BTreeSet::new(),
            revoked: BTreeSet::new(),
            calls_made: 0,
            probes: BTreeMap::new(),
            reads: BTreeSet::new(),
            records: BTreeSet::new(),
            copies: BTreeMap::new(),
            listed,
            repeated_calls: false,
            deposed_calls: false,
            blind: setting.blind,
            manual: setting.manual,
            brought: None,
            answering: None,
            jumps: setting.clock == ClockWay::Jumps,
            misled: BTreeSet::new(),
            turn_plans: Vec::new(),
            turn_faults: 0,
            all_paused: false,
            maybe_paused: false,
            promotions: 0,
            written: 0,
            revocations: 0,
            deeds: Deeds::default(),
            rollouts: Rollouts::default(),
            twins: setting.policies.credentials.values().filter_map(|it| Some((it.name.clone(), it.twin.clone()?))).collect(),
            uptakes: setting.policies.applications.values().map(|it| (it.name.clone(), it.uptake)).collect(),
        }
    }

    /// How much of what others wrote into the store was promoted.
    pub fn taken_up(&self) -> u64 {
        let planned = |event: &Event| matches!(event, Event::Planned { plan } if plan.reason == "store-change-accepted");
        self.known.values().map(|known| known.events.iter().filter(|event| planned(event)).count() as u64).sum()
    }

    pub fn broken(&mut self, invariant: &'static str, what: impl Into<String>) {
        self.violation.get_or_insert(Violation { invariant, what: what.into() });
    }

    pub fn read_back(&mut self, process: u64, version: &VersionId) {
        self.reads.insert((process, version.clone()));
    }

    pub fn sealed(&mut self, name: &Name, holds: Option<bool>) {
        if let (Some(known), Some(holds)) = (self.known.get_mut(name), holds) {
            known.sealed = holds;
        }
    }

    /// What is on record is known by its words.
    pub fn audited(&mut self, action: Action) {
        let Action { actor, action, credential, version, detail } = action;
        let credential = credential.unwrap_or_default();
        let version = version.unwrap_or_default();
        if let keywright::engine::audit::Actor::Application { name, instance } = actor {
            self.records.insert(format!("{action} {credential} {version} {name}/{instance}"));
            return;
        }
        self.records.insert(format!("{action} {credential} {version}"));
        self.records.insert(format!("{action} {credential} {}", detail.unwrap_or_default()));
    }

    /// The credential that has this key as a version, and which.
    pub fn adopted(&self, key: &KeyId) -> Option<(&Name, &VersionId, &Version)> {
        let versions = self.known.iter().flat_map(|(name, known)| known.versions.iter().map(move |(id, version)| (name, id, version)));
        // A key that is submitted twice has two versions: the younger one counts.
        versions.filter(|(_, _, version)| version.key == *key).max_by_key(|(_, _, version)| version.issued)
    }

    pub fn set_policies(&mut self, policies: &Policies) {
        for (name, known) in &mut self.known {
            known.policy = Setting::policy_of(policies, name);
        }
    }

    /// The name of a key at the provider that is ours, of which credential and generation.
    pub fn marked(&self, text: &str) -> Option<&Name> {
        self.marked_by(self.installation, text)
    }

    pub fn marked_by(&self, installation: InstallationId, text: &str) -> Option<&Name> {
        let prefix = format!("kw-{}-", &installation.0.simple().to_string()[..8]);
        let rest = text.strip_prefix(&prefix)?;
        self.known
            .keys()
            .find(|name| rest.strip_prefix(name.as_str()).is_some_and(|tail| tail.starts_with('-') && tail.matches('-').count() == 2))
    }
}

impl Known {
    fn new(environment: Environment, policy: std::sync::Arc<RotationPolicy>) -> Known {
        Known {
            environment,
            policy,
            events: Vec::new(),
            plan: None,
            turned: None,
            planned_under: None,
            intent: None,
            intents: BTreeSet::new(),
            attempts: BTreeSet::new(),
            versions: BTreeMap::new(),
            candidate: None,
            abandoning: false,
            orphans: BTreeSet::new(),
            sealed: false,
            told: None,
            told_at: None,
            verified_long_ago: false,
            current: None,
            old: None,
            generations: BTreeMap::new(),
            stragglers: BTreeSet::new(),
            refused_told: false,
            acknowledged: None,
            seen: BTreeSet::new(),
            asked_for: 0,
            rolling: None,
            stopped_at: None,
            reported: BTreeSet::new(),
            confirmed: false,
            gives_up: None,
            rotations: 0,
            rehearsal: 0,
            rehearsed: 0,
            back: None,
            failed_copies: BTreeMap::new(),
            paused: false,
            theft: None,
            asked: None,
            clearing: false,
            forgotten: false,
            unverified: false,
            lost: None,
        }
    }

    pub fn current_key(&self) -> Option<&KeyId> {
        self.versions.get(self.current.as_ref()?).map(|version| &version.key)
    }
}

pub fn key_of(material: &Material) -> Option<KeyId> {
    material.get(&"client_id".parse().unwrap())?.expose_str()?.parse().ok()
}

impl Inner {
    pub fn broken(&mut self, invariant: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("BROKEN {invariant} {what}"));
        self.model.broken(invariant, what);
    }

    pub fn require(&mut self, holds: bool, invariant: &'static str, what: impl FnOnce() -> String) {
        if !holds {
            self.broken(invariant, what());
        }
    }
}

/// How long a rotation may be prepared before its deadline, at the most.
pub fn lead(policy: &RotationPolicy) -> Duration {
    let max_age = policy.max_age.as_duration();
    let reserve = (max_age / 20).clamp(Duration::from_secs(1), Duration::from_secs(86_400));
    let overlap = policy.terms.overlap.as_duration();
    overlap + policy.spread + reserve + overlap.min(Duration::from_secs(120)) + policy.window_wait + policy.rollout_time()
}
