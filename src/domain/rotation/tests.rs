//! Plays rotations: the machine as it is, with a tiny pure model of a provider and a store around it. What must always hold
//! is checked after every single event, in the stories and in the properties alike.

mod abandoned;
mod canaries;
mod checks;
mod fuzz;
mod incidents;
mod manual;
mod perform;
mod properties;
mod rehearsals;
mod rollback;
mod secondary;
mod slots;
mod stories;
mod successors;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::{AbandonReason, Event, Facts, Moment, Phase, Plan, Rehearsal, RevocationAsked, Rotation, Step, WaitReason, apply};
use crate::domain::credential::{Credential, Environment};
use crate::domain::due::{Decision, DueReason, decide};
use crate::domain::fixtures::{DAY, at, credential, installation, policy, provider};
use crate::domain::holders::Blocker;
use crate::domain::ids::{KeyId, Name, OperationId, VersionId};
use crate::domain::ledger::{Fingerprint, Ledger, Origin};
use crate::domain::policy::{RotationPolicy, Unconfirmed};
use crate::domain::provider::{Calls, Lifecycle, Provider};
use crate::domain::rollout::Member;
use crate::domain::succession::Succession;

/// What happens to the next create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The key is made, the reply is lost.
    ReplyLost,
    /// The reply is lost, and there is no key.
    NeverArrived,
    Refused,
}

/// How one look ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Moved,
    Waits(WaitReason, Option<Timestamp>),
    Rests(Decision),
}

/// A credential, its journal, its provider and its store.
#[derive(Debug, Clone)]
struct World {
    credential: Credential,
    policy: RotationPolicy,
    provider: Provider,
    ledger: Ledger,
    events: Vec<Event>,
    now: Moment,
    term: u64,
    blockers: Vec<Blocker>,
    requested: bool,
    all_paused: bool,
    /// Who can be served a new version that is rolled out.
    crew: Vec<Member>,
    /// What is known of the twin, where the policy rehearses.
    twin: Name,
    twin_rotations: Option<u64>,
    twin_failing: bool,
    rehearses: bool,
    create_unsent: bool,
    seen: Option<BTreeSet<KeyId>>,
    /// The truth: the keys that the provider accepts, and which of them bear our marker with which operation.
    alive: BTreeSet<KeyId>,
    made: BTreeMap<KeyId, OperationId>,
    /// The value of each version that the store, or the sealed copy, has.
    bytes: BTreeMap<VersionId, KeyId>,
    store_current: Option<VersionId>,
    /// Versions that the label `current` has left.
    left: BTreeSet<VersionId>,
    fault: Option<Fault>,
    candidate_works: bool,
    revocations: usize,
    /// Keys that somebody else has revoked.
    killed_outside: BTreeSet<KeyId>,
    /// Keys that somebody else has made, and keys of ours that were forgotten.
    of_thieves: BTreeSet<KeyId>,
    let_go: BTreeSet<KeyId>,
    /// Versions that were forgotten alive: a value of our own has no key.
    forgotten: BTreeSet<VersionId>,
    /// Values that the provider ends by itself, and when.
    ending: BTreeMap<KeyId, Timestamp>,
}

impl World {
    /// Nothing submitted yet; 90 days, overlap of a day.
    fn empty(lists: bool) -> World {
        World {
            credential: credential("dinie-production", Environment::Production),
            policy: policy(90 * DAY, DAY, 7 * DAY),
            provider: provider(lists),
            ledger: Ledger::default(),
            events: Vec::new(),
            now: Moment { wall: at("2026-01-01T00:00:00Z"), running: Duration::from_secs(1_000), trusted: true },
            term: 1,
            blockers: Vec::new(),
            requested: false,
            all_paused: false,
            crew: Vec::new(),
            twin: "twin".parse().unwrap(),
            twin_rotations: None,
            twin_failing: false,
            rehearses: false,
            create_unsent: false,
            seen: None,
            alive: BTreeSet::new(),
            made: BTreeMap::new(),
            bytes: BTreeMap::new(),
            store_current: None,
            left: BTreeSet::new(),
            fault: None,
            candidate_works: true,
            revocations: 0,
            killed_outside: BTreeSet::new(),
            of_thieves: BTreeSet::new(),
            let_go: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            ending: BTreeMap::new(),
        }
    }

    /// A credential whose values we make ourselves; nothing made yet.
    fn generating() -> World {
        let mut world = World::empty(false);
        world.provider.lifecycle = Lifecycle::Generated;
        world.provider.calls = Calls::default();
        world
    }

    /// A submitted key is current, and nothing is open.
    fn enrolled(lists: bool) -> World {
        let mut world = World::empty(lists);
        world.submit(&key("submitted-1"));
        world.settle();
        world
    }

    /// As [`World::enrolled`], with an asked-for rotation that has come to this phase.
    fn in_phase(phase: Phase, lists: bool) -> World {
        let mut world = World::enrolled(lists);
        world.requested = true;
        world.step_until(|world| world.ledger.rotation.as_ref().is_some_and(|rotation| rotation.phase == phase));
        world
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            now: self.now,
            term: self.term,
            credential: &self.credential,
            policy: &self.policy,
            provider: &self.provider,
            ledger: &self.ledger,
            blockers: &self.blockers,
            create_unsent: self.create_unsent,
            seen: self.seen.as_ref(),
            living: self.seen.as_ref().map(BTreeSet::len),
            installation: installation(),
            requested: self.requested,
            all_paused: self.all_paused,
            crew: &self.crew,
            rehearsal: self.twin_rotations.map(|rotations| Rehearsal { twin: &self.twin, rotations, failing: self.twin_failing }),
            rehearses: self.rehearses,
        }
    }

    fn rotation(&self) -> &Rotation {
        self.ledger.rotation.as_ref().expect("a rotation is open")
    }

    fn phase(&self) -> Option<Phase> {
        self.ledger.rotation.as_ref().map(|rotation| rotation.phase)
    }

    fn current_key(&self) -> Option<KeyId> {
        self.bytes.get(self.ledger.current.as_ref()?).cloned()
    }

    fn plan(&self, origin: Origin, reason: &str) -> Plan {
        let (generation, attempt) = (self.ledger.generation + 1, self.ledger.attempts + 1);
        let operation = OperationId::new(installation(), &self.credential.name, generation, attempt);
        let (version, terms) = (operation.version(generation), self.policy.terms);
        Plan {
            generation,
            attempt,
            operation,
            version,
            origin,
            reason: reason.to_owned(),
            terms,
            planned_at: self.now.wall,
            serves_previous: false,
            succession: if origin == Origin::Minted { self.provider.succession() } else { Succession::Beside },
            rollout: if origin == Origin::RolledBack { Vec::new() } else { self.policy.rollout.clone() },
            twin_rotations: self.twin_rotations.unwrap_or_default(),
            replacing: None,
        }
    }

    /// Whether it was taken: not while a rotation is open.
    fn submit(&mut self, value: &KeyId) -> bool {
        if self.ledger.rotation.is_some() || self.ledger.clearing {
            return false;
        }
        // As the engine would by fingerprint: the same value again is a copy; one that was revoked is refused.
        let met = self.ledger.versions.iter().find(|(_, facts)| facts.key_id.as_ref() == Some(value));
        if met.is_some_and(|(_, facts)| facts.is_going()) {
            return false;
        }
        let copy_of = met.map(|(version, _)| version.clone());
        self.alive.insert(value.clone());
        let plan = self.plan(Origin::Submitted, "submitted");
        self.bytes.insert(plan.version.clone(), value.clone());
        self.journal(Event::Planned { plan });
        self.journal(self.issued(value, copy_of));
        true
    }

    fn issued(&self, key_id: &KeyId, copy_of: Option<VersionId>) -> Event {
        let fingerprints = vec![Fingerprint { field: "client_secret".parse().unwrap(), digest: format!("of-{key_id}") }];
        Event::Issued { key_id: Some(key_id.clone()), issued_at: self.now.wall, expires_at: None, fingerprints, copy_of, old_ends_at: None }
    }

    fn roll_back(&mut self) -> bool {
        let event = Event::RollbackPlanned { plan: self.plan(Origin::RolledBack, "rollback") };
        if apply(&self.ledger, &event).is_err() {
            return false;
        }
        self.turn_round(event);
        true
    }

    /// The copy has the bytes of what it copies.
    fn turn_round(&mut self, event: Event) {
        let original = self.rotation().old.clone().unwrap();
        let value = self.bytes[&original].clone();
        self.journal(event);
        let version = self.rotation().version.clone();
        self.bytes.insert(version, value);
    }

    fn advance(&mut self, by: Duration) {
        self.now.wall = self.now.wall.checked_add(by).unwrap();
        self.now.running += by;
        self.end_what_ends();
    }

    fn days(&mut self, days: u64) {
        self.advance(Duration::from_secs(days * DAY));
    }

    /// The process dies and another takes over: only the journal is left of it.
    fn crash(&mut self) {
        self.create_unsent = false;
        self.seen = None;
        self.term += 1;
        self.ledger = replay(&self.events);
    }

    /// One look, and one step if there is one.
    fn step(&mut self) -> Progress {
        let decision = decide(&self.facts());
        assert_eq!(decision, decide(&self.facts()), "asked twice, it answers the same");
        match decision {
            Decision::Step(Step::Wait(wait)) => return Progress::Waits(wait.reason, wait.until),
            Decision::Step(step) => {
                self.requested &= !matches!(step, Step::Journal(Event::ManualRequested { .. }));
                self.perform(step);
            }
            Decision::Due { reason } => {
                self.requested &= reason != DueReason::Requested;
                let origin = if self.provider.is_generated() { Origin::Chosen } else { Origin::Minted };
                let plan = Plan { serves_previous: self.provider.is_generated(), ..self.plan(origin, reason.as_str()) };
                self.seen = None;
                self.journal(Event::Planned { plan });
            }
            other => return Progress::Rests(other),
        }
        Progress::Moved
    }

    /// Steps, and lets time pass where the machine waits for it, until this holds.
    fn step_until(&mut self, done: impl Fn(&World) -> bool) {
        for _ in 0..100 {
            if done(self) {
                return;
            }
            match self.step() {
                Progress::Moved => {}
                Progress::Waits(_, Some(until)) => self.advance(Duration::try_from(until.duration_since(self.now.wall)).unwrap()),
                other => panic!("stuck at {other:?}: {:#?}", self.ledger.rotation),
            }
        }
        panic!("no end after 100 steps: {:#?}", self.ledger.rotation);
    }

    /// Starts what is due, and sees it through.
    fn settle_after_start(&mut self) {
        self.step_until(|world| world.ledger.rotation.is_some());
        self.settle();
    }

    fn settle(&mut self) {
        self.step_until(|world| world.ledger.rotation.is_none() && world.ledger.orphans.is_empty());
        self.check_at_rest();
    }

    fn journal(&mut self, event: Event) {
        if event == Event::RevokeIntended {
            self.check_last_moment();
        }
        if event == Event::Forgotten {
            // What was made lives on, whether its reply came back or not.
            let living = self.ledger.versions.iter().filter(|(_, facts)| facts.ended.is_none());
            self.forgotten.extend(living.map(|(version, _)| version.clone()));
            let of_versions = self.ledger.versions.values().filter(|facts| facts.ended.is_none()).filter_map(|facts| facts.key_id.clone());
            self.let_go.extend(of_versions.chain(self.made.keys().cloned()).collect::<Vec<_>>());
        }
        let before = std::mem::take(&mut self.ledger);
        self.ledger = apply(&before, &event).unwrap_or_else(|error| panic!("{error}: {before:#?}"));
        self.events.push(event);
        self.check(&before);
    }
}

fn key(text: &str) -> KeyId {
    text.parse().unwrap()
}

fn replay(events: &[Event]) -> Ledger {
    events.iter().fold(Ledger::default(), |ledger, event| apply(&ledger, event).unwrap())
}

fn blocker(instance: Option<&str>) -> Blocker {
    Blocker { application: "payments-api".parse().unwrap(), instance: instance.map(|name| name.parse().unwrap()) }
}
