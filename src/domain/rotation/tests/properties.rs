//! What holds whatever happens: random lives of one credential, and journals that no engine would write.

use proptest::prelude::*;

use super::canaries::{STEPS, crew};
use super::*;
use crate::domain::environment::Says;
use crate::domain::fixtures::{proof, window};
use crate::domain::ledger::Closure;
use crate::domain::manual::{Asks, Urgency};
use crate::domain::rollout::{Reach, Share};
use crate::domain::span::Span;

/// One thing that can happen to a credential.
#[derive(Debug, Clone, Copy)]
enum Happens {
    Steps(u8),
    Passes {
        seconds: u32,
    },
    /// The wall clock jumps, and is noticed.
    Jumps {
        days: i32,
    },
    /// The provider's clock sets it right.
    ClockSet,
    Crash,
    Fault(Option<Fault>),
    CandidateWorks(bool),
    Blocked(u8),
    Unconfirmed(Unconfirmed),
    Overlap {
        hours: u8,
    },
    Windows(bool),
    Paused(bool),
    Requested,
    Submits {
        number: u8,
    },
    RollsBack,
    GivesUp,
    Sweeps,
    Compromised {
        within: u32,
    },
    RevokesByHand {
        anyway: bool,
    },
    Forgets,
    AllPaused(bool),
    /// What is durable comes back from a backup.
    Restored,
    /// What it says of a key that is to be removed.
    Looked {
        alive: bool,
    },
    /// The policy has steps, or none.
    Rollout(bool),
    /// So many instances, each as the bits of a number say.
    Crew {
        count: u8,
        states: u16,
    },
    /// An instance says that the new version doesn't work.
    Reports,
    /// The policy rehearses, or doesn't.
    Rehearses(bool),
    TwinRotates,
}

fn happens() -> impl Strategy<Value = Happens> {
    let fault = prop_oneof![Just(None), Just(Some(Fault::ReplyLost)), Just(Some(Fault::NeverArrived)), Just(Some(Fault::Refused))];
    let unconfirmed = prop_oneof![Just(Unconfirmed::Hold), Just(Unconfirmed::Revoke)];
    prop_oneof![
        20 => (1..8_u8).prop_map(Happens::Steps),
        10 => (0..200_000_u32).prop_map(|seconds| Happens::Passes { seconds }),
        2 => (1..100_u32).prop_map(|days| Happens::Passes { seconds: days * 86_400 }),
        3 => prop_oneof![Just(3_650), Just(-3_650), -400..400].prop_map(|days| Happens::Jumps { days }),
        3 => Just(Happens::ClockSet),
        4 => Just(Happens::Crash),
        4 => fault.prop_map(Happens::Fault),
        2 => any::<bool>().prop_map(Happens::CandidateWorks),
        3 => (0..3_u8).prop_map(Happens::Blocked),
        2 => unconfirmed.prop_map(Happens::Unconfirmed),
        1 => (1..60_u8).prop_map(|hours| Happens::Overlap { hours }),
        1 => any::<bool>().prop_map(Happens::Windows),
        2 => any::<bool>().prop_map(Happens::Paused),
        4 => Just(Happens::Requested),
        3 => (0..4_u8).prop_map(|number| Happens::Submits { number }),
        3 => Just(Happens::RollsBack),
        1 => Just(Happens::GivesUp),
        2 => Just(Happens::Sweeps),
        4 => (0..86_400_u32).prop_map(|within| Happens::Compromised { within }),
        3 => any::<bool>().prop_map(|anyway| Happens::RevokesByHand { anyway }),
        1 => Just(Happens::Forgets),
        1 => any::<bool>().prop_map(Happens::AllPaused),
        1 => Just(Happens::Restored),
        2 => any::<bool>().prop_map(|alive| Happens::Looked { alive }),
        4 => any::<bool>().prop_map(Happens::Rollout),
        8 => (0..12_u8, any::<u16>()).prop_map(|(count, states)| Happens::Crew { count, states }),
        3 => Just(Happens::Reports),
        1 => any::<bool>().prop_map(Happens::Rehearses),
        2 => Just(Happens::TwinRotates),
    ]
}

impl World {
    fn happen(&mut self, what: Happens, skew: &mut i64) {
        match what {
            Happens::Steps(count) => (0..count).for_each(|_| drop(self.step())),
            Happens::Passes { seconds } => self.advance(Duration::from_secs(u64::from(seconds))),
            Happens::Jumps { days } => {
                *skew += i64::from(days) * 86_400;
                self.now.wall = Timestamp::from_second(self.now.wall.as_second() + i64::from(days) * 86_400).unwrap_or(self.now.wall);
                self.now.trusted = false;
            }
            Happens::ClockSet => {
                self.now.wall = Timestamp::from_second(self.now.wall.as_second() - *skew).unwrap();
                (*skew, self.now.trusted) = (0, true);
            }
            Happens::Crash => self.crash(),
            Happens::Fault(fault) => self.fault = fault,
            Happens::CandidateWorks(works) => self.candidate_works = works,
            Happens::Blocked(count) => self.blockers = (0..count).map(|number| blocker((number > 0).then_some("pod-1"))).collect(),
            Happens::Unconfirmed(unconfirmed) => self.policy.terms.unconfirmed = unconfirmed,
            Happens::Overlap { hours } => self.policy.terms.overlap = Span::from_secs(u64::from(hours) * 3_600),
            Happens::Windows(some) => self.policy.windows = some.then(|| window("0 9 * * Mon-Thu", "UTC", "8h")).into_iter().collect(),
            Happens::Paused(true) => self.journal(Event::Paused { at: None }),
            Happens::Paused(false) => self.journal(Event::Resumed),
            Happens::Requested => self.requested = true,
            Happens::Submits { .. } if self.ledger.rotation.as_ref().is_some_and(|open| open.awaits_removal()) => {
                // As the engine does: the removal of the last but one is no longer waited for.
                self.journal(Event::Revoked { at: self.now.wall, closure: Closure::Unproved });
                self.step();
            }
            Happens::Submits { number } => drop(self.submit(&key(&format!("submitted-{number}")))),
            Happens::RollsBack => drop(self.roll_back()),
            Happens::GivesUp => self.journal_if_it_fits(Event::Abandoning { reason: AbandonReason::BadValue }),
            Happens::Sweeps => self.survey(),
            Happens::Compromised { within } => {
                self.journal_if_it_fits(Event::Compromised { at: self.now.instant(), within: Duration::from_secs(u64::from(within)) })
            }
            // As the engine asks: nobody who holds the key goes unnamed, and without force nobody may hold it.
            Happens::RevokesByHand { anyway: false } if !self.blockers.is_empty() => {}
            Happens::RevokesByHand { anyway } => self.journal_if_it_fits(Event::RevocationAsked {
                asked: if anyway { RevocationAsked::Anyway } else { RevocationAsked::IfUnheld },
                stragglers: self.blockers.clone(),
            }),
            Happens::Forgets => self.journal_if_it_fits(Event::Forgotten),
            Happens::Looked { alive } => self.journal_if_it_fits(Event::RemovalSeen { at: self.now.instant(), alive }),
            Happens::AllPaused(paused) => self.all_paused = paused,
            Happens::Rollout(steps) => self.policy.rollout = if steps { STEPS.to_vec() } else { Vec::new() },
            Happens::Crew { count, states } => self.crew = crew(count, |number| (states >> number) & 1 == 1),
            Happens::Reports => self.journal_if_it_fits(self.failed_report()),
            Happens::Rehearses(rehearses) => self.twin_rotations = rehearses.then_some(self.twin_rotations.unwrap_or_default()),
            Happens::TwinRotates => self.twin_rotations = self.twin_rotations.map(|rotations| rotations + 1),
            Happens::Restored => {
                self.crash();
                self.journal(Event::Restored);
            }
        }
    }

    fn journal_if_it_fits(&mut self, event: Event) {
        if apply(&self.ledger, &event).is_ok() {
            self.journal(event);
        }
    }

    /// Everything is well again.
    fn calm(&mut self, skew: &mut i64) {
        self.happen(Happens::ClockSet, skew);
        self.fault = None;
        self.candidate_works = true;
        self.blockers.clear();
        self.crew.clear();
        self.twin_rotations = None;
        self.policy.windows.clear();
        // Also where so many replies were lost that a person must ask.
        self.requested = self.ledger.open_incident().is_some();
        self.all_paused = false;
        self.journal(Event::Resumed);
        // What could not be taken back by itself is a person's to try again.
        let stuck = self.ledger.rotation.as_ref().and_then(|rotation| rotation.rollout.as_ref()?.stopped.clone());
        if stuck.is_some_and(|stopped| stopped.no_way_back) {
            assert!(self.roll_back());
        }
    }
}

/// A life, with its invariants checked after each event by the driver itself.
fn live(lists: bool, life: &[Happens]) -> (World, i64) {
    live_in(World::empty(lists), life)
}

fn live_in(mut world: World, life: &[Happens]) -> (World, i64) {
    let mut skew = 0;
    life.iter().for_each(|what| world.happen(*what, &mut skew));
    (world, skew)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// I3, I4, I5, I9, I10 hold throughout (the driver checks them), and nothing is ever stuck: once all is well, what is
    /// open ends within bounds, with one living key.
    #[test]
    fn every_life_keeps_the_promises_and_comes_to_rest(lists: bool, life in proptest::collection::vec(happens(), 0..120)) {
        let (mut world, mut skew) = live(lists, &life);
        world.calm(&mut skew);
        // Promoted under a clock that ran ahead: the overlap is counted again from the right time on.
        world.step_until(|world| world.ledger.rotation.is_none() && world.ledger.orphans.is_empty() && !world.ledger.clearing);
        // A stolen key is replaced, and its incident ends.
        if world.ledger.open_incident().is_some() {
            world.step_until(|world| world.ledger.open_incident().is_none());
            prop_assert!(world.ledger.rotation.is_none());
        }
        if lists {
            world.check_at_rest();
        }
        prop_assert!(world.ledger.rotation.is_none());
    }

    /// The same where a person makes and removes keys, late or never: what is asked is asked once, what is closed was asked before,
    /// and no rotation stays open for a key that isn't seen alive.
    #[test]
    fn every_life_by_hand_comes_to_rest(life in proptest::collection::vec(happens(), 0..120)) {
        let (mut world, mut skew) = live_in(World::by_hand(), &life);
        world.calm(&mut skew);
        world.happen(Happens::Looked { alive: false }, &mut skew);
        world.step_until(|world| world.ledger.rotation.is_none() && !world.ledger.clearing);
        if world.ledger.open_incident().is_some_and(|_| world.ledger.current.as_ref().is_some_and(|it| world.ledger.is_stolen(it))) {
            while matches!(world.step(), Progress::Moved) {}
            prop_assert!(world.ledger.request.is_some(), "a stolen key is asked for: {:?}", decide(&world.facts()));
            prop_assert!(world.submit(&key("at-last")));
            world.step_until(|world| world.ledger.open_incident().is_none());
        }
        prop_assert!(world.events.iter().all(|event| !matches!(event, Event::CreateIntended { .. })), "nothing is made here");
        let told = |asks| world.events.iter().filter(|event| matches!(event, Event::ManualReminded { asks: told, .. } if *told == asks)).count();
        let opened = |event: &&Event| matches!(event, Event::ManualRequested { .. });
        let asked = world.events.iter().filter(opened).count();
        let removals = world.events.iter().filter(|event| matches!(event, Event::RemovalAsked { .. })).count();
        prop_assert!(told(Asks::NewKey) <= 3 * asked && told(Asks::OldKeyRemoval) <= 3 * removals);
    }

    /// The same for values of our own, of which nothing can be lost or left over: no orphan, no create of unknown outcome, and
    /// the first one comes by itself.
    #[test]
    fn every_life_of_a_value_of_our_own_comes_to_rest_with_one(life in proptest::collection::vec(happens(), 0..120)) {
        let (mut world, mut skew) = live_in(World::generating(), &life);
        world.calm(&mut skew);
        // What was given up before the first one was there is tried again after its wait.
        world.step_until(|world| world.ledger.rotation.is_none() && !world.ledger.clearing);
        world.advance(Duration::from_secs(301));
        world.step_until(|world| world.ledger.rotation.is_none() && world.ledger.current.is_some());
        // A stolen value is replaced, and its incident ends.
        world.step_until(|world| world.ledger.rotation.is_none() && world.ledger.open_incident().is_none());
        world.check_at_rest();
        prop_assert!(world.ledger.possible_orphans.is_empty() && world.ledger.orphans.is_empty());
        let chosen = world.events.iter().filter(|event| matches!(event, Event::CreateIntended { .. })).count();
        prop_assert_eq!(chosen, 0, "nobody is asked to make one");
        prop_assert_eq!(&replay(&world.events), &world.ledger);
    }

    /// I8: replaying any prefix, any number of times, in one go or with a snapshot in between, gives the same ledger; what
    /// is written reads back as it was.
    #[test]
    fn every_journal_replays_to_the_same_ledger(lists: bool, life in proptest::collection::vec(happens(), 0..60), cut: prop::sample::Index) {
        let (world, _) = live(lists, &life);
        prop_assert_eq!(&replay(&world.events), &world.ledger);
        let (before, after) = world.events.split_at(cut.index(world.events.len() + 1));
        let halfway = replay(before);
        prop_assert_eq!(&replay(before), &halfway);
        let snapshot = Event::Snapshot { ledger: Box::new(halfway.clone()) };
        let compacted: Vec<Event> = std::iter::once(snapshot).chain(after.iter().cloned()).collect();
        prop_assert_eq!(&replay(&compacted), &world.ledger);
        for event in compacted {
            let json = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
        }
        let json = serde_json::to_vec(&world.ledger).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Ledger>(&json).unwrap(), world.ledger);
    }

    /// I13: while the clock isn't believed nothing is revoked, started by time, or called not yet due.
    #[test]
    fn no_jump_of_the_clock_revokes_or_starts_anything(life in proptest::collection::vec(happens(), 0..60), days in -3_650..3_650_i32) {
        let (mut world, mut skew) = live(true, &life);
        world.requested = false;
        // What a person asked for starts without a look at the clock; it is no jump that starts it.
        let asked_for = world.ledger.open_incident().is_some();
        world.happen(Happens::Jumps { days }, &mut skew);
        let (open, old_keys) = (world.ledger.rotation.is_some(), world.revocations);
        for _ in 0..40 {
            let had_rotation = world.ledger.rotation.is_some();
            let progress = world.step();
            prop_assert!(had_rotation || asked_for || world.ledger.rotation.is_none(), "started by a jump");
            prop_assert!(!matches!(progress, Progress::Rests(Decision::Steady { .. })), "an untrusted clock says `not yet`");
            if progress != Progress::Moved {
                break;
            }
        }
        prop_assert_eq!(world.revocations, old_keys);
        prop_assert!(open || asked_for || world.ledger.rotation.is_none());
    }

    /// I13: the overlap is measured by the smaller of the two clocks; by the running one where the wall clock has gone back,
    /// and not at all while that isn't believed.
    #[test]
    fn the_overlap_is_measured_by_the_smaller_clock(days in -3_650..3_650_i64, ran in 0..200_000_u64, trusted: bool) {
        let mut world = World::in_phase(Phase::Promoted, true);
        world.now.running += Duration::from_secs(ran);
        world.now.wall = Timestamp::from_second(world.now.wall.as_second() + days * 86_400).unwrap();
        world.now.trusted = trusted;
        let elapsed = u64::try_from(days * 86_400).unwrap_or(ran).min(ran);
        for _ in 0..20 {
            if world.step() != Progress::Moved {
                break;
            }
        }
        prop_assert_eq!(world.revocations > 0, trusted && elapsed >= DAY);
        prop_assert!(trusted || days >= 0 || world.phase() == Some(Phase::Confirmed), "nor retired by a clock that went back");
    }
}

/// An event that fits by its form, wherever it comes from.
fn any_event() -> impl Strategy<Value = (u8, u8)> {
    (0..40_u8, 0..4_u8)
}

fn wild_event((kind, number): (u8, u8), world: &World) -> Event {
    let wall = world.now.wall;
    let rotation = world.ledger.rotation.as_ref();
    let plan = |origin| world.plan(origin, "wild");
    let origin = [Origin::Minted, Origin::Submitted, Origin::RolledBack, Origin::Chosen][usize::from(number)];
    let attempt = world.ledger.attempts + u32::from(number % 2);
    let operation = OperationId::new(installation(), &world.credential.name, world.ledger.generation + 1, attempt);
    let known: Vec<&VersionId> = world.ledger.versions.keys().collect();
    let copy_of = (number == 3).then(|| known.first().map(|version| (*version).clone())).flatten();
    match kind {
        0..=2 => Event::Planned { plan: plan(origin) },
        3 => Event::CreateIntended { attempt, operation, version: operation.version(world.ledger.generation + 1), seen: BTreeSet::new() },
        4..=6 => world.issued(&key(&format!("wild-{number}-{}", world.ledger.versions.len() % 4)), copy_of),
        7 | 8 => Event::Stored,
        9 | 10 => Event::Verified { proof: proof([Says::For, Says::For, Says::Nothing, Says::Against][usize::from(number)]), term: 1 },
        11 => Event::Refused { at: world.now.instant(), counted: number > 1 },
        12 | 13 => Event::Promoted { at: world.now.instant() },
        14 => Event::Confirmed { stragglers: Vec::new() },
        15 => Event::Retired { term: 1 },
        16 => Event::RevokeIntended,
        17 => Event::Revoked { at: wall, closure: Closure::Unproved },
        18 => Event::Closed,
        19 => Event::Abandoning { reason: AbandonReason::NoFreeSlot },
        20 if number > 1 => Event::Undone,
        20 => Event::Abandoned { at: wall, next_try_at: wall },
        21 => Event::OrphanFound { key_id: key(&format!("wild-{number}-0")), burns_attempt: number > 1 },
        22 if number > 2 => Event::OrphanRevoked { key_id: key(&format!("wild-{number}-0")) },
        22 if number > 0 => {
            let operation = rotation.map_or(operation, |rotation| rotation.operation);
            Event::ReplyLost { operation, burns_attempt: true, old_ends_at: wall }
        }
        22 => Event::PossibleOrphan { operation: rotation.map_or(operation, |rotation| rotation.operation), at: wall },
        23 if number > 1 => Event::CurrentRefused { at: wall },
        23 => Event::CurrentAccepted,
        24 => Event::Compromised { at: world.now.instant(), within: Duration::from_secs(u64::from(number) * 50_000) },
        25 => Event::IncidentClosed { at: wall, unknown_keys: None },
        26 => Event::RevocationAsked { asked: RevocationAsked::Anyway, stragglers: vec![blocker(None)] },
        27 if number == 0 => Event::Forgotten,
        27 => Event::Cleared,
        28 => Event::ManualRequested { at: wall, deadline: wall, reason: "wild".to_owned(), by_time: number > 1 },
        29 => Event::ManualReminded {
            at: wall,
            asks: [Asks::NewKey, Asks::OldKeyRemoval][usize::from(number % 2)],
            urgency: [Urgency::Notice, Urgency::Soon, Urgency::Urgent, Urgency::Overdue][usize::from(number)],
        },
        30 => Event::ManualWithdrawn,
        31 => Event::RemovalAsked { at: wall, deadline: wall },
        32 => Event::RemovalSeen { at: world.now.instant(), alive: number > 1 },
        33 | 34 if number == 3 => Event::RolledOut { step: 2, reach: Reach::Everybody, at: world.now.instant() },
        33 | 34 => Event::RolledOut { step: 1, reach: Reach::UpTo(u64::from(number) << 62), at: world.now.instant() },
        35 => world.failed_report(),
        36 => Event::Rehearsed { rotations: u64::from(number) },
        37 => Event::SecondaryCancelled,
        _ => Event::RollbackPlanned { plan: plan(Origin::RolledBack) },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is appended: what is accepted keeps the ledger sound, what isn't changes nothing, and nothing panics.
    #[test]
    fn no_journal_makes_an_unsound_ledger(kinds in proptest::collection::vec(any_event(), 0..300)) {
        let mut world = World::empty(true);
        world.policy.rollout = vec![Share::Instances(1), Share::Percent(100)];
        let mut left: BTreeSet<VersionId> = BTreeSet::new();
        for kind in kinds {
            let event = wild_event(kind, &world);
            let before = world.ledger.clone();
            let Ok(after) = apply(&before, &event) else { continue };
            for (version, facts) in &before.versions {
                let kept = after.versions.get(version);
                prop_assert!(kept.is_none_or(|kept| kept.is_going() >= facts.is_going()), "I10: {version} came back");
            }
            if before.current != after.current {
                let goes = event == Event::Forgotten && after.current.is_none();
                prop_assert!(goes || matches!(event, Event::Promoted { .. }), "only a promotion moves current");
                left.extend(before.current.clone());
                prop_assert!(goes || after.current.as_ref().is_some_and(|current| !left.contains(current)), "a label returned");
            }
            if let Some(current) = &after.current {
                prop_assert!(!after.versions[current].is_going(), "I10");
                prop_assert!(after.versions[current].proof.is_some(), "I4, I18");
                for version in after.same_key(current) {
                    prop_assert!(!after.versions[&version].is_going(), "I5: current's key goes under another name");
                }
            }
            prop_assert!(after.revision >= before.revision && after.generation >= before.generation);
            world.ledger = after;
        }
    }
}
