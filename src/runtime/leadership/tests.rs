//! The contest: each decision by itself, many lives of several replicas in simulated time, and the loop on a lease in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::candidate::{Candidate, Move};
use super::contract::{ByHand, contract};
use super::memory::{Fault, MemoryLease};
use super::*;

const TIMING: Timing = Timing::DEFAULT;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn record(holder: Option<&str>, transitions: u64, mark: &str) -> Record {
    Record { holder: holder.map(Identity::new), transitions, duration: Some(secs(10)), mark: mark.to_owned() }
}

fn claim(candidate: &Candidate, now: Duration) -> Claim {
    match candidate.next(now) {
        Move::Write(claim) => claim,
        other => panic!("{other:?}"),
    }
}

/// One that leads since `now`.
fn leader(now: Duration) -> Candidate {
    let mut candidate = Candidate::new(Identity::new("a_1"), TIMING);
    candidate.observe(None, now);
    let claim = claim(&candidate, now);
    candidate.wrote(&claim, &record(Some("a_1"), claim.transitions, "x"), now, now);
    candidate
}

#[test]
fn who_finds_no_lease_or_a_free_one_takes_it_at_once() {
    let mut candidate = Candidate::new(Identity::new("a_1"), TIMING);
    assert_eq!(candidate.next(secs(1)), Move::Look);
    candidate.observe(None, secs(1));
    assert_eq!((claim(&candidate, secs(1)).transitions, claim(&candidate, secs(1)).is_new), (1, true));
    candidate.observe(Some(&record(None, 7, "x")), secs(1));
    assert_eq!(claim(&candidate, secs(1)).transitions, 8);
}

#[test]
fn who_finds_a_holder_waits_for_a_whole_lease_without_a_change() {
    let mut candidate = Candidate::new(Identity::new("b_1"), TIMING);
    candidate.observe(Some(&record(Some("a_1"), 3, "x")), secs(100));
    assert_eq!(candidate.next(secs(100)), Move::WaitUntil(secs(102)));
    for now in (102..110).step_by(2) {
        assert_eq!(candidate.next(secs(now)), Move::Look);
        candidate.observe(Some(&record(Some("a_1"), 3, "x")), secs(now));
    }
    candidate.observe(Some(&record(Some("a_1"), 3, "x")), secs(109));
    assert_eq!(candidate.next(secs(109)), Move::WaitUntil(secs(110)), "and not until the next look");
    assert_eq!(claim(&candidate, secs(110)).transitions, 4);
    candidate.observe(Some(&record(Some("a_1"), 3, "y")), secs(110));
    assert_eq!(candidate.next(secs(110)), Move::WaitUntil(secs(112)), "it lives, and the wait begins anew");
}

#[test]
fn a_longer_lease_of_somebody_elses_is_kept_to_but_not_for_ever() {
    let mut candidate = Candidate::new(Identity::new("b_1"), TIMING);
    let with = |seconds: u64| Record { duration: Some(secs(seconds)), ..record(Some("a_1"), 1, "x") };
    for (written, counts) in [(0, 10), (15, 15), (1_000_000, 60)] {
        candidate.observe(Some(&with(written)), secs(100));
        candidate.observe(Some(&with(written)), secs(100 + counts - 1));
        assert!(!matches!(candidate.next(secs(100 + counts - 1)), Move::Write(_)), "{written}");
        assert!(matches!(candidate.next(secs(100 + counts)), Move::Write(_)), "{written}");
        candidate = Candidate::new(Identity::new("b_1"), TIMING);
    }
}

#[test]
fn a_leader_renews_and_steps_down_when_it_could_not() {
    let mut candidate = leader(secs(100));
    assert_eq!(candidate.standing(), Standing::Leading { transitions: 1, since: secs(100) });
    assert_eq!(candidate.next(secs(100)), Move::WaitUntil(secs(102)));
    let renewal = claim(&candidate, secs(102));
    assert_eq!((renewal.transitions, renewal.is_new), (1, false));
    // The answer took three seconds: the renewal counts from when it was sent.
    candidate.wrote(&renewal, &record(Some("a_1"), 1, "y"), secs(102), secs(105));
    assert_eq!(candidate.leads_until(), Some(secs(108)));
    assert_eq!(candidate.standing(), Standing::Leading { transitions: 1, since: secs(100) });
    candidate.forget();
    assert_eq!(candidate.next(secs(107)), Move::Look);
    assert_eq!(candidate.next(secs(108)), Move::StepDown);
    candidate.step_down();
    assert_eq!(candidate.standing(), Standing::Following { leader: None });
    candidate.observe(Some(&record(Some("a_1"), 1, "y")), secs(109));
    assert_eq!(claim(&candidate, secs(109)).transitions, 2, "the next tenure has another number, though nobody was in between");
}

#[test]
fn a_renewal_that_is_answered_after_the_deadline_renews_nothing() {
    let mut candidate = leader(secs(100));
    let renewal = claim(&candidate, secs(102));
    candidate.wrote(&renewal, &record(Some("a_1"), 1, "y"), secs(102), secs(106));
    assert_eq!(candidate.standing(), Standing::Following { leader: None });
    assert_eq!((claim(&candidate, secs(106)).transitions, claim(&candidate, secs(106)).is_new), (2, true));
}

#[test]
fn a_tenure_ends_when_the_lease_says_another_one() {
    for other in [record(Some("b_1"), 2, "z"), record(None, 1, "z"), record(Some("a_1"), 9, "z")] {
        let mut candidate = leader(secs(100));
        candidate.observe(Some(&other), secs(101));
        assert!(!candidate.standing().is_leading(), "{other:?}");
    }
    let mut candidate = leader(secs(100));
    candidate.observe(Some(&record(Some("a_1"), 1, "touched by hand")), secs(101));
    assert!(candidate.standing().is_leading());
}

#[test]
fn a_deleted_lease_is_nobodys_before_its_time_and_its_number_goes_on() {
    let mut follower = Candidate::new(Identity::new("b_1"), TIMING);
    follower.observe(Some(&record(Some("a_1"), 5, "x")), secs(100));
    follower.observe(None, secs(102));
    assert!(!matches!(follower.next(secs(103)), Move::Write(_)), "who held it may believe in it still");
    assert_eq!(follower.standing(), Standing::Following { leader: None });
    assert_eq!(claim(&follower, secs(110)).transitions, 6);
    let mut candidate = leader(secs(100));
    candidate.observe(None, secs(102));
    assert_eq!((claim(&candidate, secs(102)).transitions, claim(&candidate, secs(102)).is_new), (1, false), "its holder makes it again");
}

#[test]
fn who_leads_gives_the_lease_back_and_nobody_else_does() {
    let candidate = leader(secs(100));
    let released = candidate.release().unwrap();
    assert_eq!((released.holder, released.transitions), (None, 1));
    let mut follower = Candidate::new(Identity::new("b_1"), TIMING);
    follower.observe(Some(&record(Some("a_1"), 1, "x")), secs(100));
    assert_eq!(follower.release(), None);
}

/// Numbers by chance, drawn anew from one seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A call under way.
enum Call {
    Read,
    Write(Option<u64>, Claim),
}

enum Answer {
    Record(Option<(Record, u64)>),
    Changed,
}

struct Flight {
    call: Call,
    sent: Duration,
    effect_at: Duration,
    answer_at: Duration,
    answer: Option<Answer>,
}

struct Replica {
    candidate: Candidate,
    /// Its monotonic clock began elsewhere.
    offset: Duration,
    version: Option<u64>,
    flight: Option<Flight>,
    /// Nobody waits for these any more, and they take place all the same.
    late: Vec<Flight>,
    paused_until: Duration,
}

struct World {
    lease: Option<(Record, u64)>,
    versions: u64,
    replicas: Vec<Replica>,
    numbers: BTreeSet<u64>,
    last: Vec<Option<u64>>,
}

impl World {
    fn new(dice: &mut Dice) -> World {
        let replica = |index: u64, dice: &mut Dice| Replica {
            candidate: Candidate::new(Identity::new(&format!("r-{index}_x")), TIMING),
            offset: secs(dice.below(1_000_000)),
            version: None,
            flight: None,
            late: Vec::new(),
            paused_until: Duration::ZERO,
        };
        let replicas = (0..3).map(|index| replica(index, dice)).collect();
        World { lease: None, versions: 0, replicas, numbers: BTreeSet::new(), last: vec![None; 3] }
    }

    fn take_effect(lease: &mut Option<(Record, u64)>, versions: &mut u64, flight: &mut Flight) {
        flight.answer = Some(match &flight.call {
            Call::Read => Answer::Record(lease.clone()),
            Call::Write(seen, _) if lease.as_ref().map(|(_, version)| *version) != *seen => Answer::Changed,
            Call::Write(_, claim) => {
                *versions += 1;
                let (holder, mark) = (claim.holder.clone(), versions.to_string());
                let record = Record { holder, transitions: claim.transitions, duration: Some(claim.duration), mark };
                *lease = Some((record, *versions));
                Answer::Record(lease.clone())
            }
        });
    }

    /// One moment of one replica. `trouble` in percent.
    fn live(&mut self, index: usize, now: Duration, trouble: u64, dice: &mut Dice) {
        let (lease, versions) = (&mut self.lease, &mut self.versions);
        let replica = &mut self.replicas[index];
        for flight in replica.late.iter_mut().chain(&mut replica.flight).filter(|flight| flight.effect_at <= now && flight.answer.is_none())
        {
            World::take_effect(lease, versions, flight);
        }
        replica.late.retain(|flight| flight.answer.is_none());
        if now < replica.paused_until {
            return;
        }
        if dice.below(1000) < trouble {
            replica.paused_until = now + secs(dice.below(30));
            return;
        }
        let local = now + replica.offset;
        if let Some(flight) = replica.flight.take() {
            if flight.answer.is_some() && flight.answer_at <= now {
                match (flight.answer, flight.call) {
                    (Some(Answer::Record(seen)), Call::Read) => {
                        replica.candidate.observe(seen.as_ref().map(|(record, _)| record), local);
                        replica.version = seen.map(|(_, version)| version);
                    }
                    (Some(Answer::Record(Some((record, version)))), Call::Write(_, claim)) => {
                        replica.candidate.wrote(&claim, &record, flight.sent, local);
                        replica.version = Some(version);
                    }
                    _ => replica.candidate.forget(),
                }
            } else if local >= flight.sent + TIMING.call_max {
                replica.candidate.forget();
                replica.late.push(flight);
            } else {
                // A leader waits for nothing beyond its deadline.
                let is_over = replica.candidate.next(local) == Move::StepDown;
                if is_over {
                    replica.candidate.step_down();
                    replica.late.push(flight);
                } else {
                    replica.flight = Some(flight);
                }
            }
            return;
        }
        let call = match replica.candidate.next(local) {
            Move::WaitUntil(_) => return,
            Move::StepDown => return replica.candidate.step_down(),
            Move::Look => Call::Read,
            Move::Write(claim) => Call::Write(replica.version, claim),
        };
        let slow = dice.below(100) < trouble;
        let delay = |dice: &mut Dice| Duration::from_millis(if slow { dice.below(6000) } else { dice.below(100) });
        let effect_at = now + delay(dice);
        let lost = slow && dice.below(3) == 0;
        let answer_at = if lost { Duration::MAX } else { effect_at + delay(dice) };
        replica.flight = Some(Flight { call, sent: local, effect_at, answer_at, answer: None });
    }

    fn leaders(&self, now: Duration) -> Vec<usize> {
        let leads = |replica: &&Replica| replica.candidate.leads_until().is_some_and(|until| now + replica.offset < until);
        (0..self.replicas.len()).filter(|index| leads(&&self.replicas[*index])).collect()
    }

    fn check(&mut self, now: Duration) {
        let leaders = self.leaders(now);
        assert!(leaders.len() <= 1, "{leaders:?} lead at {now:?}");
        for (index, replica) in self.replicas.iter().enumerate() {
            let number = match replica.candidate.standing() {
                Standing::Leading { transitions, .. } if leaders.contains(&index) => Some(transitions),
                _ => None,
            };
            if let Some(number) = number.filter(|_| number != self.last[index]) {
                assert!(self.numbers.insert(number), "number {number} was used before");
                assert_eq!(self.numbers.last(), Some(&number), "numbers grow");
            }
            self.last[index] = number;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is slow, lost, late or paused: at no moment two replicas lead, no number is used twice, and once the trouble is over
    /// there is a leader within 15 s.
    #[test]
    fn at_most_one_leads_and_soon_one_does(seed: u64, trouble in 0_u64..40) {
        let mut dice = Dice(seed);
        let mut world = World::new(&mut dice);
        let mut now = Duration::ZERO;
        let tick = Duration::from_millis(50);
        for _ in 0..4000 {
            for index in 0..3 {
                world.live(index, now, trouble, &mut dice);
                world.check(now);
            }
            now += tick;
        }
        // Nobody is paused any more, and what was under way has come in.
        world.replicas.iter_mut().for_each(|replica| replica.paused_until = Duration::ZERO);
        let calm = now + secs(6);
        let mut led_at = None;
        while now < calm + secs(15) {
            for index in 0..3 {
                world.live(index, now, 0, &mut dice);
                world.check(now);
            }
            now += tick;
            led_at = led_at.or_else(|| (!world.leaders(now).is_empty()).then_some(now));
        }
        prop_assert!(led_at.is_some(), "nobody leads");
        prop_assert_eq!(world.leaders(now).len(), 1, "and it stays so");
    }
}

/// Short, so that nobody waits long; in the same proportions.
const FAST: Timing = Timing {
    lease: Duration::from_millis(500),
    renew_every: Duration::from_millis(50),
    renew_deadline: Duration::from_millis(300),
    call_max: Duration::from_millis(100),
};

/// The system's clock, which a test can set forward, as if the process had been stopped.
#[derive(Default)]
struct Skips(AtomicU64);

impl Monotonic for Skips {
    fn now(&self) -> Duration {
        BootClock.now() + Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

fn enter(lease: &MemoryLease, name: &str) -> Leadership {
    Leadership::start(Arc::new(lease.clone()), Identity::new(name), FAST, Arc::new(BootClock))
}

/// Within a bound that no machine exceeds.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 30 s: {what}");
}

#[tokio::test]
async fn a_lease_in_memory_keeps_the_contract() {
    contract(MemoryLease::default, async |lease, by_hand| match by_hand {
        ByHand::Delete => lease.edit(|record| *record = None),
        ByHand::Touch => lease.edit(|_| {}),
    })
    .await;
}

#[tokio::test]
async fn one_leads_the_others_know_it_and_follow_when_it_resigns() {
    let lease = MemoryLease::default();
    let first = enter(&lease.of_another(), "a_1");
    until("a leads", || first.leads()).await;
    let second = enter(&lease.of_another(), "b_1");
    let following = Standing::Following { leader: Some(Identity::new("a_1")) };
    until("b follows", || second.standing() == following).await;
    assert!(matches!(first.standing(), Standing::Leading { transitions: 1, .. }));
    first.resign().await;
    assert!(!first.leads());
    until("b leads", || second.leads()).await;
    assert!(matches!(second.standing(), Standing::Leading { transitions: 2, .. }));
    second.resign().await;
    assert_eq!(lease.record().unwrap().holder, None);
}

#[tokio::test]
async fn who_dies_without_a_word_is_replaced_when_its_lease_is_over() {
    let lease = MemoryLease::default();
    lease.edit(|record| *record = Some(Record { duration: None, ..super::tests::record(Some("dead_1"), 6, "x") }));
    let second = enter(&lease, "b_1");
    until("b leads", || second.leads()).await;
    assert!(matches!(second.standing(), Standing::Leading { transitions: 7, .. }));
}

#[tokio::test]
async fn who_can_not_reach_the_lease_leads_no_more_and_comes_back() {
    let lease = MemoryLease::default();
    let (near, far) = (lease.of_another(), lease.of_another());
    let first = enter(&near, "a_1");
    until("a leads", || first.leads()).await;
    near.plan(|_| Some(Fault::Fails(Some(Duration::from_secs(60)))));
    until("a leads no more", || !first.leads() && !first.watch().borrow().is_leading()).await;
    let second = enter(&far, "b_1");
    until("b leads", || second.leads()).await;
    assert!(!first.leads());
    second.resign().await;
}

#[tokio::test]
async fn lost_replies_and_changes_by_hand_do_not_end_a_tenure() {
    let lease = MemoryLease::default();
    let mut count = 0;
    lease.plan(move |writes| {
        count += u64::from(writes);
        (writes && count % 2 == 1).then_some(Fault::LosesReply)
    });
    let first = enter(&lease, "a_1");
    until("a leads", || first.leads()).await;
    lease.nothing_goes_wrong();
    let Standing::Leading { transitions, .. } = first.standing() else { panic!("a leads") };
    for touched in [true, false] {
        let before = lease.record();
        lease.edit(|record| {
            if !touched {
                *record = None;
            }
        });
        until("it was renewed", || lease.record().is_some_and(|record| Some(&record) != before.as_ref())).await;
        until("a leads on", || first.leads()).await;
        assert!(matches!(first.standing(), Standing::Leading { transitions: now, .. } if now == transitions));
    }
    lease.edit(|record| *record = Some(Record { duration: Some(secs(2)), ..super::tests::record(Some("other_1"), 90, "z") }));
    until("a leads no more", || first.standing() == Standing::Following { leader: Some(Identity::new("other_1")) }).await;
    until("a leads again", || matches!(first.standing(), Standing::Leading { transitions: 91, .. })).await;
}

#[tokio::test]
async fn who_was_stopped_past_its_deadline_knows_before_it_does_anything() {
    let (lease, clock) = (MemoryLease::default(), Arc::new(Skips::default()));
    let timing = Timing { renew_every: Duration::from_secs(100), renew_deadline: Duration::from_secs(300), ..FAST };
    let first = Leadership::start(Arc::new(lease), Identity::new("a_1"), timing, clock.clone());
    until("a leads", || first.leads()).await;
    // Its own task sleeps, and hasn't been told anything.
    clock.0.store(301_000, Ordering::SeqCst);
    assert!(!first.leads());
    assert_eq!(first.standing(), Standing::Following { leader: None });
    assert!(first.watch().borrow().is_leading(), "what was told is old, which is why one asks");
}

#[test]
fn no_two_processes_are_the_same() {
    let (one, other) = (Identity::of_this_process(), Identity::of_this_process());
    assert_ne!(one, other);
    assert_eq!(one.host(), other.host());
    assert!(!one.host().is_empty());
}
