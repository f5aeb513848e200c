//! Rollouts: step by step, stopped by a report or by silence, and back to the old key.

use super::*;
use crate::domain::holders::HoldingState;
use crate::domain::policy::Confirmation;
use crate::domain::rollout::{Reach, Rollout, Share, StopReason, rank, view};

pub(super) const STEPS: [Share; 3] = [Share::Instances(1), Share::Percent(50), Share::Percent(100)];

/// A quarter of the overlap.
const PATIENCE: u64 = DAY / 4;

/// `pod-0` and on; confirmed where this says so.
pub(super) fn crew(count: u8, confirmed: impl Fn(u8) -> bool) -> Vec<Member> {
    let member = |number: u8| {
        let who = blocker(Some(&format!("pod-{number}")));
        let rank = rank(&who.application, who.instance.as_ref().unwrap());
        Member { who, rank, state: if confirmed(number) { HoldingState::Confirmed } else { HoldingState::Holds } }
    };
    (0..count).map(member).collect()
}

impl World {
    /// Six instances; the rollout stands on this step, and waits.
    pub(super) fn on_step(step: usize) -> World {
        let mut world = World::enrolled(true);
        world.policy.rollout = STEPS.to_vec();
        world.crew = crew(6, |_| false);
        world.requested = true;
        world.step_until(|world| world.phase() == Some(Phase::Promoted) && world.rollout().step == 1);
        for _ in 1..step {
            world.confirm_reached();
            assert_eq!(world.step(), Progress::Moved);
        }
        world
    }

    pub(super) fn rollout(&self) -> &Rollout {
        self.rotation().rollout.as_ref().expect("it is rolled out")
    }

    pub(super) fn failed_report(&self) -> Event {
        let at = crate::domain::rotation::next_try(&self.ledger, &self.policy, self.now.wall);
        Event::RolloutStopped { reason: StopReason::CanaryFailed, who: vec![blocker(Some("pod-1"))], next_try_at: at }
    }

    fn confirm_reached(&mut self) {
        let reach = self.rollout().reach;
        self.crew.iter_mut().filter(|member| reach.includes(member.rank)).for_each(|member| member.state = HoldingState::Confirmed);
    }

    fn reached(&self) -> usize {
        self.crew.iter().filter(|member| self.rollout().reach.includes(member.rank)).count()
    }

    /// How many of the six get the new version, by what they are served.
    fn served_new(&self) -> usize {
        let current = self.ledger.current.as_ref();
        let version =
            |member: &Member| view(&self.ledger, Some((&member.who.application, member.who.instance.as_ref()?))).map(|view| view.version);
        self.crew.iter().filter(|member| version(member) == current).count()
    }
}

#[test]
fn each_step_begins_when_the_one_before_has_confirmed_and_the_overlap_with_the_last() {
    let mut world = World::on_step(1);
    for (step, reached) in [(1, 1), (2, 3)] {
        assert_eq!((world.rollout().step, world.reached(), world.served_new()), (step, reached, reached));
        assert!(matches!(world.step(), Progress::Waits(WaitReason::Rollout, Some(_))));
        world.advance(Duration::from_secs(PATIENCE - 60));
        assert!(matches!(world.step(), Progress::Waits(WaitReason::Rollout, Some(_))));
        world.confirm_reached();
        assert_eq!(world.step(), Progress::Moved);
    }
    assert_eq!((world.rollout().step, world.served_new(), world.rollout().reach), (3, 6, Reach::Everybody));
    assert_eq!(world.step(), Progress::Moved, "nobody holds the old key");
    let Progress::Waits(WaitReason::Overlap, Some(until)) = world.step() else { panic!("the overlap has begun") };
    assert_eq!(until.duration_since(world.now.wall).as_secs(), i64::try_from(DAY).unwrap(), "with the last step");
    world.settle();
    assert_eq!((world.ledger.failure.clone(), world.ledger.rotations), (None, 1));
}

#[test]
fn a_report_takes_the_new_version_back_and_the_next_try_waits_longer_each_time() {
    let mut world = World::on_step(1);
    let mut waits = Vec::new();
    for tries in 1..4 {
        let (old, new) = (world.rotation().old.clone().unwrap(), world.ledger.current.clone().unwrap());
        world.journal(world.failed_report());
        assert!(apply(&world.ledger, &world.failed_report()).is_err(), "once is enough");
        let stopped_at = world.now.wall;
        world.step_until(|world| world.ledger.current.as_ref() != Some(&new));
        let current = world.ledger.current.clone().unwrap();
        assert!(world.ledger.same_key(&old).contains(&current), "the old value is current again");
        assert_eq!((world.served_new(), world.rotation().plan.reason.as_str()), (6, "canary-failed"));
        assert!(world.alive.len() >= 2, "nothing is revoked yet");
        let failure = world.ledger.failure.clone().unwrap();
        assert_eq!((failure.reason, failure.count), (AbandonReason::CanaryFailed, tries));
        waits.push(failure.next_try_at.duration_since(stopped_at).as_secs());
        world.settle();
        assert!(world.ledger.versions[&new].ended.is_some(), "the failed key is dead");
        // Due as before: the next try is by time, and so is its wait.
        world.requested = true;
        world.crew = crew(6, |_| false);
        world.step_until(|world| world.phase() == Some(Phase::Promoted) && world.rollout().step == 1);
    }
    assert!(waits.is_sorted() && waits[0] < waits[1], "{waits:?}");
    assert_eq!(world.ledger.rotations, 0, "none has come to its end");
}

#[test]
fn silence_takes_it_back_when_the_patience_of_a_step_is_over() {
    let mut world = World::on_step(2);
    world.advance(Duration::from_secs(PATIENCE));
    assert_eq!(world.step(), Progress::Moved);
    let Some(Event::RolloutStopped { reason: StopReason::CanarySilent, who, .. }) = world.events.last() else { panic!("it is stopped") };
    assert_eq!(who.len(), 2, "the third has confirmed the step before");
    world.settle();
    assert_eq!(world.current_key(), Some(key("submitted-1")));
    let failure = world.ledger.failure.clone().unwrap();
    assert_eq!((failure.reason, failure.count), (AbandonReason::CanarySilent, 1));
}

#[test]
fn where_nothing_is_confirmed_steps_go_by_time_and_being_served_is_enough_where_that_counts() {
    let mut world = World::on_step(1);
    world.ledger.rotation.as_mut().unwrap().plan.terms.confirmation = Confirmation::None;
    world.policy.terms.confirmation = Confirmation::None;
    for step in 1..3 {
        assert_eq!(world.rollout().step, step);
        assert!(matches!(world.step(), Progress::Waits(WaitReason::Rollout, Some(_))));
        world.advance(Duration::from_secs(PATIENCE));
        assert_eq!(world.step(), Progress::Moved);
    }
    assert_eq!(world.served_new(), 6);
    let mut world = World::on_step(1);
    world.ledger.rotation.as_mut().unwrap().plan.terms.confirmation = Confirmation::Observed;
    world.policy.terms.confirmation = Confirmation::Observed;
    world.crew.iter_mut().for_each(|member| member.state = HoldingState::Served);
    assert_eq!(world.step(), Progress::Moved);
    assert_eq!(world.rollout().step, 2);
}

#[test]
fn who_comes_next_takes_the_place_of_a_canary_that_is_gone() {
    let mut world = World::on_step(1);
    let reach = world.rollout().reach;
    world.crew.retain(|member| !reach.includes(member.rank));
    assert_eq!(world.step(), Progress::Moved);
    assert_eq!((world.rollout().step, world.reached()), (1, 1), "it dies before it says anything: the next one is tried");
    assert!(matches!(world.step(), Progress::Waits(WaitReason::Rollout, Some(_))));
}

#[test]
fn who_is_in_a_hurry_skips_the_steps() {
    let mut world = World::on_step(1);
    world.journal(Event::Compromised { at: world.now.instant(), within: Duration::from_secs(600) });
    assert_eq!((world.rollout().reach, world.served_new()), (Reach::Everybody, 6));
    assert!(apply(&world.ledger, &world.failed_report()).is_err(), "the old key is stolen: there is no way back");
    let mut world = World::on_step(1);
    world.journal(Event::RevocationAsked { asked: RevocationAsked::Anyway, stragglers: Vec::new() });
    assert_eq!(world.served_new(), 6);
    let mut world = World::on_step(1);
    world.journal(Event::Restored);
    assert_eq!(world.served_new(), 6, "what became of the old key isn't known");
    // The provider itself ends the old key before the steps are over.
    let mut world = World::on_step(1);
    let old = world.rotation().old.clone().unwrap();
    world.ledger.versions.get_mut(&old).unwrap().expires_at = Some(world.now.wall + Duration::from_secs(PATIENCE));
    assert_eq!(world.step(), Progress::Moved);
    assert_eq!(world.served_new(), 6);
}

#[test]
fn a_new_key_that_the_provider_refuses_is_taken_back() {
    let mut world = World::on_step(1);
    world.killed_outside.insert(world.current_key().unwrap());
    world.alive.remove(&world.current_key().unwrap());
    world.journal(Event::CurrentRefused { at: world.now.wall });
    world.settle();
    assert_eq!(world.current_key(), Some(key("submitted-1")));
}

#[test]
fn where_the_way_back_is_shut_because_the_old_key_is_dead_everybody_gets_the_new_one() {
    let mut world = World::on_step(1);
    world.journal(world.failed_report());
    world.candidate_works = false;
    world.step_until(|world| world.rotation().turned.is_some());
    world.step_until(|world| world.rotation().turned.is_none());
    assert_eq!((world.rollout().stopped.clone(), world.served_new()), (None, 6));
    world.settle();
}

#[test]
fn the_first_version_and_a_way_back_go_to_all_at_once() {
    let mut world = World::empty(true);
    world.policy.rollout = STEPS.to_vec();
    world.submit(&key("submitted-1"));
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    assert_eq!(world.rotation().rollout, None);
    let mut world = World::on_step(2);
    assert!(world.roll_back(), "a person may go back at any step");
    world.step_until(|world| world.rotation().plan.origin == Origin::RolledBack && world.phase() == Some(Phase::Promoted));
    assert_eq!((world.rotation().rollout.clone(), world.served_new(), world.ledger.failure.clone()), (None, 6, None));
}

#[test]
fn a_rollout_takes_its_time_out_of_the_reserve() {
    let mut policy = policy(90 * DAY, DAY, 0);
    let before = crate::domain::due::reserve(&policy, &provider(true));
    policy.rollout = STEPS.to_vec();
    assert_eq!(crate::domain::due::reserve(&policy, &provider(true)), before + Duration::from_secs(2 * PATIENCE));
}
