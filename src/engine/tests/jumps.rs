//! The engine with the real judge of clocks: whatever the wall clock does, nothing is revoked early, rotated twice or forgotten
//! to be due (I13). The truth is the provider's clock, which goes evenly.

use std::sync::Mutex;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use keywright::domain::rotation::Moment;
use keywright::engine::clock::Clock;
use keywright::issuers::memory::SimClock;
use keywright::journal::Heartbeat;
use keywright::runtime::clock::Judge;
use proptest::prelude::*;

use super::*;

const TEN_YEARS_S: i64 = 10 * 365 * 86_400;
/// Of [`world::DOCUMENTS`].
const MAX_AGE: Duration = Duration::from_hours(1);

/// A machine whose wall clock is off by what a test says.
struct Machine {
    theirs: SimClock,
    /// Of this run.
    elapsed: Mutex<Duration>,
    off_s: Mutex<i64>,
    judge: Mutex<Judge>,
}

impl Machine {
    fn boot(theirs: &SimClock, heartbeat: Heartbeat, off_s: i64) -> Arc<Machine> {
        let wall = theirs.now().checked_add(SignedDuration::from_secs(off_s)).unwrap();
        let judge = Mutex::new(Judge::new(heartbeat, wall));
        Arc::new(Machine { theirs: theirs.clone(), elapsed: Mutex::default(), off_s: Mutex::new(off_s), judge })
    }

    fn wall(&self) -> Timestamp {
        self.theirs.now().checked_add(SignedDuration::from_secs(*self.off_s.lock().unwrap())).unwrap()
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().unwrap()
    }

    fn advance(&self, by: Duration) {
        self.theirs.advance(by);
        *self.elapsed.lock().unwrap() += by;
    }

    fn set_off(&self, seconds: i64) {
        *self.off_s.lock().unwrap() = seconds;
    }
}

#[async_trait]
impl Clock for Machine {
    fn now(&self) -> Moment {
        self.judge.lock().unwrap().look(self.wall(), self.elapsed())
    }

    async fn sleep(&self, by: Duration) {
        self.advance(by);
        tokio::task::yield_now().await;
    }

    fn heartbeat(&self) -> Heartbeat {
        self.judge.lock().unwrap().heartbeat(self.wall(), self.elapsed())
    }

    fn heard(&self, provider_time: Timestamp) {
        self.judge.lock().unwrap().heard(provider_time, self.wall(), self.elapsed());
    }
}

/// One life under one machine after another.
struct Life {
    world: World,
    machine: Arc<Machine>,
    engine: Arc<Engine>,
    first: KeyId,
    app: App,
    /// A rotation begins at once, because a person asked for it or because nobody can tell better.
    asked_for: bool,
}

impl Life {
    async fn begin() -> Life {
        let world = World::with(Backend::memory(), DOCUMENTS);
        let machine = Machine::boot(&world.clocks.theirs, Heartbeat::default(), 0);
        let engine = world.start_with(world.issuer.clone(), machine.clone()).await.unwrap();
        let (first, material) = world.made_by_hand();
        engine.submit(operator(), &name(CREDENTIAL), material).await.unwrap();
        let mut app = App::new(APPLICATION, "one");
        assert!(app.fetch(&engine).await);
        Life { world, machine, engine, first, app, asked_for: false }
    }

    /// A new process after so long, with its clock off by so much.
    async fn restart(&mut self, away: Duration, off_s: i64) {
        self.world.faults.revive();
        self.world.clocks.theirs.advance(away);
        let heartbeat = self.world.backend.journal().heartbeat().await.unwrap();
        self.machine = Machine::boot(&self.world.clocks.theirs, heartbeat, off_s);
        self.engine = self.world.start_with(self.world.issuer.clone(), self.machine.clone()).await.unwrap();
    }

    /// The application takes up and confirms whatever is new.
    async fn live(&mut self, by: Duration) {
        let mut left = by;
        while !left.is_zero() {
            let rest = self.engine.turn().await.clamp(Duration::from_millis(10), Duration::from_secs(5)).min(left);
            assert!(self.app.fetch(&self.engine).await && self.app.confirm(&self.engine).await);
            self.machine.advance(rest);
            left -= rest;
            self.check();
        }
    }

    /// What no clock may break, by the provider's truth.
    fn check(&self) {
        assert!(self.world.accepts(&self.app.held.as_ref().unwrap().1), "what the application holds lives");
        let ours: Vec<(Timestamp, Option<Timestamp>)> = self.world.issuer.history(|keys| {
            let ours = keys.iter().filter(|key| !self.world.foreign.contains(&key.key_id));
            ours.map(|key| (key.created_at, key.dead_from)).collect()
        });
        for pair in ours.windows(2) {
            let [(made, dead), (next, _)] = pair else { continue };
            assert!(next.duration_since(*made) > SignedDuration::from_mins(30) || self.asked_for, "rotated again too soon: {ours:?}");
            assert!(dead.is_none_or(|dead| dead.duration_since(*next) >= SignedDuration::from_secs(60)), "died too soon: {ours:?}");
        }
    }

    /// Asks for a rotation, and lets it come to the middle of the overlap.
    async fn rotate(&mut self) {
        self.asked_for = true;
        self.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
        self.live(Duration::from_secs(30)).await;
        assert_eq!(row(&self.engine).phase, "confirmed");
    }

    fn made(&self) -> u64 {
        self.world.issuer.calls("issuer.create")
    }

    fn first_lives(&self) -> bool {
        self.world.issuer.accepts(&self.first, self.world.clocks.theirs.now())
    }
}

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_jump_within_the_overlap_is_found_out_and_revokes_nothing() {
    for jump in [TEN_YEARS_S, -TEN_YEARS_S, 3_600, -3_600] {
        let mut life = Life::begin().await;
        life.rotate().await;
        life.machine.set_off(jump);
        life.live(30 * MINUTE).await;
        assert!(life.first_lives() && life.made() == 1, "{jump}");
        assert!(codes(&life.engine).contains(&"clock-untrusted".to_owned()), "{jump}: {:?}", codes(&life.engine));
        life.machine.set_off(0);
        life.live(5 * MINUTE).await;
        assert!(!life.first_lives() && life.made() == 1, "{jump}: it goes on");
    }
}

#[tokio::test]
async fn what_was_due_stays_due_whatever_the_clock_says_meanwhile() {
    for jump in [TEN_YEARS_S, -TEN_YEARS_S] {
        let mut life = Life::begin().await;
        life.live(20 * MINUTE).await;
        life.machine.set_off(jump);
        // Until well after it was to begin: no clock that isn't believed says that it is time, or that it isn't.
        life.live(50 * MINUTE).await;
        assert_eq!(life.made(), 0, "{jump}");
        life.machine.set_off(0);
        life.live(5 * MINUTE).await;
        assert_eq!((life.made(), life.first_lives()), (1, false), "{jump}: once, and the old key is dead");
    }
}

#[tokio::test]
async fn a_storm_of_seconds_changes_nothing() {
    let mut life = Life::begin().await;
    for second in 0..3 * 3_600 / 20 {
        life.machine.set_off(second % 3 - 1);
        life.live(Duration::from_secs(20)).await;
        assert!(!codes(&life.engine).contains(&"clock-untrusted".to_owned()));
    }
    assert_eq!(life.made(), 3, "by policy, and no more");
    let ages = life.world.issuer.history(|keys| {
        let ours = keys.iter().filter(|key| !life.world.foreign.contains(&key.key_id));
        ours.filter_map(|key| Some(key.dead_from?.duration_since(key.created_at))).collect::<Vec<_>>()
    });
    assert!(ages.len() == 3 && ages.iter().all(|age| *age < SignedDuration::from_hours(1)), "{ages:?}");
}

#[tokio::test]
async fn a_restart_with_the_clock_behind_waits_until_it_is_right() {
    for off in [-TEN_YEARS_S, -3_600] {
        let mut life = Life::begin().await;
        life.rotate().await;
        life.restart(MINUTE, off).await;
        life.live(20 * MINUTE).await;
        assert!(life.first_lives() && life.made() == 1, "{off}");
        life.machine.set_off(0);
        life.live(5 * MINUTE).await;
        assert!(!life.first_lives() && life.made() == 1, "{off}");
    }
}

#[tokio::test]
async fn a_jump_is_not_made_true_by_a_restart() {
    for jump in [TEN_YEARS_S, -TEN_YEARS_S] {
        let mut life = Life::begin().await;
        life.rotate().await;
        life.machine.set_off(jump);
        life.live(MINUTE).await;
        for _ in 0..3 {
            life.restart(MINUTE, jump).await;
            life.live(10 * MINUTE).await;
            assert!(life.first_lives() && life.made() == 1, "{jump}");
        }
        life.restart(MINUTE, 0).await;
        life.live(5 * MINUTE).await;
        assert!(!life.first_lives() && life.made() == 1, "{jump}: set right while it was down");
    }
}

/// Nobody can tell a clock that is ahead from a long time down, until the provider is heard: one rotation begins, and the old
/// key lives until both clocks agree.
#[tokio::test]
async fn a_restart_with_the_clock_ahead_rotates_once_and_revokes_nothing() {
    let mut life = Life::begin().await;
    life.asked_for = true;
    life.live(MINUTE).await;
    life.restart(MINUTE, TEN_YEARS_S).await;
    life.live(45 * MINUTE).await;
    assert!(life.first_lives() && life.made() <= 1, "{}", life.made());
    life.machine.set_off(0);
    life.live(5 * MINUTE).await;
    assert!(life.made() <= 1 && life.world.ours_living().len() == 1, "{}", life.made());
}

#[tokio::test]
async fn a_provider_that_disagrees_stops_revocations_and_its_agreement_ends_that() {
    let mut life = Life::begin().await;
    life.rotate().await;
    life.world.clocks.theirs.advance(Duration::from_secs(400));
    // Ours is 400 seconds behind from here on.
    life.machine.set_off(-400);
    life.live(20 * MINUTE).await;
    assert!(life.first_lives());
    life.machine.set_off(0);
    life.live(20 * MINUTE).await;
    assert!(!life.first_lives() && life.made() == 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Jumps of every size in any order, and restarts, which are with the clock as it was. Each lasts until the next heartbeat: what
    /// was never written can't be remembered. A start with the clock behind has a test of its own: from there any later time may be
    /// the right one.
    #[test]
    fn no_storm_of_jumps_breaks_anything(
        storm in prop::collection::vec((prop::sample::select(vec![0, 1, -1, 200, -200, 400, -400, 86_400, -86_400, TEN_YEARS_S, -TEN_YEARS_S]), 61_u64..900, prop::bool::weighted(0.2)), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut life = Life::begin().await;
            for (off, seconds, restart) in storm {
                life.machine.set_off(off);
                life.live(Duration::from_secs(seconds)).await;
                if restart && off >= 0 {
                    life.restart(Duration::from_secs(1), off).await;
                }
            }
            life.machine.set_off(0);
            life.live(2 * MAX_AGE).await;
            assert!(!life.first_lives(), "once the clock is right, the first key goes as the policy says");
            assert!(life.world.ours_living().len() <= 2 && life.world.foreign_live());
        });
    }
}
