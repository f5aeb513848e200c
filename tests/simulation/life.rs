//! One seed, one life: simulated weeks of one daemon, with everything that the seed does to it, and then a calm time in which
//! all that is due must come to its end.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jiff::SignedDuration;
use keywright::delivery::Change;
use keywright::domain::ids::{InstallationId, KeyId, Name};
use keywright::domain::material::Material;
use keywright::domain::policy::{Policies, Uptake};
use keywright::engine::audit::Actor;
use keywright::engine::meter::NoMeter;
use keywright::engine::{Engine, Options, Seams};
use keywright::journal::Journal;
use keywright::journal::memory::MemoryJournal;
use keywright::runtime::clock::Judge;
use keywright::sealing::Keyring;
use keywright::stores::memory::MemoryStore;
use keywright::stores::{Apart, FOREIGN, SecretStore};

use super::applications::App;
use super::deeds::Deed;
use super::model::checks::Kept;
use super::model::restored::Backup;
use super::model::{Copy, Deeds, Model, Rollouts, Violation};
use super::rng::Rng;
use super::scene::{Process, Scene, Seat};
use super::seams::{SeatAudit, SeatClock, SeatIssuer, SeatJournal, SeatStore, Told};
use super::setting::{Setting, lease_of, secs};

/// Polls of one call at most: more is a deadlock.
const POLLS_MAX: usize = 100_000;
/// Steps of one life at most: more is a loop.
const STEPS_MAX: usize = 2_000_000;

/// What became of a life.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    pub violation: Option<Violation>,
    pub trace: Vec<String>,
    pub faults: u64,
    pub processes: u64,
    pub promotions: u64,
    /// What others wrote into the store, and how much of it became a version.
    pub written: u64,
    pub taken_up: u64,
    pub revocations: u64,
    pub deeds: Deeds,
    pub rollouts: Rollouts,
    pub steps: usize,
}

type Turn = Pin<Box<dyn Future<Output = Duration>>>;

/// An engine that stood still in the middle of a call while another one took over.
pub struct Deposed {
    pub process: Arc<Process>,
    pub turn: Turn,
}

pub struct Leader {
    pub engine: Arc<Engine>,
    pub process: Arc<Process>,
}

/// What became of a call.
pub enum Ran<T> {
    Done(T),
    Died,
    Paused,
}

pub struct Life {
    pub seed: u64,
    pub scene: Arc<Scene>,
    pub setting: Setting,
    pub policies: Policies,
    pub rng: Rng,
    pub store: MemoryStore,
    pub journal: MemoryJournal,
    pub keyring: Arc<Keyring>,
    pub told: Arc<Told>,
    pub leader: Option<Leader>,
    pub deposed: Vec<Deposed>,
    pub apps: Vec<App>,
    pub agenda: BTreeMap<(Duration, u64), Deed>,
    pub deeds: u64,
    /// The key that a person has at hand for a credential.
    pub in_hand: BTreeMap<Name, (KeyId, Material)>,
    pub calm: bool,
    pub foreign: Vec<KeyId>,
    /// The last one: store, journal, and what the model knew then.
    pub backup: Option<(MemoryStore, MemoryJournal, Backup)>,
}

/// As whoever acts, or as an order without a reason.
pub fn operator<By: From<Actor>>() -> By {
    Actor::Operator { who: "uid 0".to_owned() }.into()
}

fn poll<T>(future: &mut (impl Future<Output = T> + Unpin + ?Sized), process: &Process) -> Ran<T> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..POLLS_MAX {
        if let Poll::Ready(done) = Pin::new(&mut *future).poll(&mut context) {
            return Ran::Done(done);
        }
        if Process::is(&process.dead) {
            return Ran::Died;
        }
        if Process::is(&process.paused) {
            return Ran::Paused;
        }
    }
    panic!("a call never ends");
}

/// What needs no process.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    match poll(&mut Box::pin(future), &Process::default()) {
        Ran::Done(done) => done,
        _ => panic!("a fake in memory waits"),
    }
}

impl Life {
    pub fn new(seed: u64, traced: bool) -> Life {
        Life::with(seed, traced, |setting| setting)
    }

    /// At a provider where a person makes and removes the keys.
    pub fn by_hand(seed: u64, traced: bool) -> Life {
        Life::with(seed, traced, Setting::by_hand)
    }

    /// In a store that others write into.
    pub fn among_writers(seed: u64, traced: bool) -> Life {
        Life::with(seed, traced, Setting::among_writers)
    }

    fn with(seed: u64, traced: bool, way: fn(Setting) -> Setting) -> Life {
        let mut rng = Rng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6b65_7977);
        let setting = way(Setting::draw(&mut rng));
        let installation = InstallationId(uuid::Uuid::from_u128(u128::from(rng.next()) << 64 | 7));
        let model = Model::new(&setting, installation);
        let scene = Arc::new(Scene::new(Rng::new(rng.next()), setting.rates, model, traced));
        scene.issuer.behave(|behaviour| behaviour.idempotent = setting.idempotent);
        Life {
            seed,
            policies: setting.policies.clone(),
            scene,
            rng,
            store: MemoryStore::default(),
            journal: MemoryJournal::of_installation(installation),
            keyring: Arc::new(Keyring::ephemeral().unwrap()),
            told: Arc::default(),
            leader: None,
            deposed: Vec::new(),
            apps: Vec::new(),
            agenda: BTreeMap::new(),
            deeds: 0,
            in_hand: BTreeMap::new(),
            calm: false,
            foreign: Vec::new(),
            backup: None,
            setting,
        }
    }

    pub fn at(&self) -> Duration {
        self.scene.lock().at
    }

    /// Lives to the end, or to the first broken promise.
    pub fn run(mut self) -> Outcome {
        self.open();
        let settle = self.settling();
        let longest = self.longest();
        let calm_from = self.setting.rough;
        let settled = calm_from + settle;
        let end = settled + longest.mul_f64(1.1);
        let step = secs(900).min(self.shortest() / 4) / 2;
        let (mut steps, mut looked) = (0usize, 0);
        while self.at() < end && !self.is_broken() {
            steps += 1;
            if steps > STEPS_MAX {
                self.scene.lock().broken("liveness", "the life doesn't come to its end");
            }
            if !self.calm && self.at() >= calm_from {
                self.calm_down();
            }
            self.deeds_due();
            let rest = self.turn();
            // Where nothing was called, only time went by: that is looked at now and then.
            let passes = self.scene.lock().passes;
            if passes != looked || steps.is_multiple_of(8) {
                looked = passes;
                self.check(step, settled);
            }
            self.go_on(rest, step);
        }
        if !self.is_broken() {
            self.scene.lock().check_replays();
        }
        self.finish(steps)
    }

    fn finish(mut self, steps: usize) -> Outcome {
        let status = self.leader.as_ref().and_then(|leader| leader.engine.status(None, None, 100));
        for row in status.iter().flat_map(|status| &status.credentials) {
            self.scene.note(|| format!("{}: {} because {:?}, deadline {:?}", row.name, row.phase, row.reason, row.deadline_at));
        }
        for problem in status.iter().flat_map(|status| &status.problems) {
            self.scene.note(|| format!("problem {}: {}", problem.code, problem.message));
        }
        self.deposed.clear();
        self.drop_streams();
        let mut inner = self.scene.lock();
        Outcome {
            seed: self.seed,
            violation: inner.model.violation.clone(),
            trace: inner.trace.take().unwrap_or_default(),
            faults: inner.faults,
            processes: inner.newest,
            promotions: inner.model.promotions,
            written: inner.model.written,
            taken_up: inner.model.taken_up(),
            revocations: inner.model.revocations,
            deeds: inner.model.deeds,
            rollouts: inner.model.rollouts,
            steps,
        }
    }

    pub fn is_broken(&self) -> bool {
        self.scene.lock().model.violation.is_some()
    }

    pub fn longest(&self) -> Duration {
        self.setting.policies.rotations.values().map(|policy| policy.max_age.as_duration()).max().unwrap_or_default()
    }

    pub fn shortest(&self) -> Duration {
        self.setting.policies.rotations.values().map(|policy| policy.max_age.as_duration()).min().unwrap_or_default()
    }

    /// How long everything that was held up may take to come right.
    fn settling(&self) -> Duration {
        let of = |policy: &keywright::domain::policy::RotationPolicy| {
            let rollout = if policy.rollout.is_empty() {
                Duration::ZERO
            } else {
                policy.canary_wait_max() + policy.rollout_time() * 2 + policy.terms.overlap.as_duration() * 2
            };
            let once = policy.terms.overlap.as_duration() * 3 + policy.window_wait * 3 + policy.retry_wait_max() * 12 + secs(4 * 3_600);
            // With a rehearsal, one after the other.
            (once + rollout) * if policy.rehearse { 2 } else { 1 }
        };
        self.setting.policies.rotations.values().map(|policy| of(policy)).max().unwrap_or_default()
    }

    fn open(&mut self) {
        self.plan(Duration::ZERO, Deed::Start);
        for crowd in self.setting.crowds.clone() {
            // Some have the key from elsewhere, and aren't seen before it is replaced.
            let late = if self.rng.chance(15) { self.longest().mul_f64(1.2) } else { Duration::ZERO };
            let policy = Setting::policy_of(&self.policies, &crowd.credential);
            for number in 0..crowd.copies {
                let slow = policy.terms.overlap.as_duration().mul_f64(self.rng.below(40) as f64 / 100.0);
                let stuck = self.rng.chance(15);
                let app = App::new(&crowd.application, number, &crowd.credential, crowd.uptake, slow, stuck);
                self.enlist(&app);
                self.apps.push(app);
                let index = self.apps.len() - 1;
                let first = late + secs(self.rng.below(1_200) as u64);
                self.plan_connect(first, index);
            }
        }
        for name in self.policies.credentials.keys().cloned().collect::<Vec<_>>() {
            let first = secs(self.rng.below(600) as u64);
            self.plan(first, Deed::Submit(name));
        }
        let hand = (!self.setting.manual).then_some(Deed::Hand);
        for deed in [Deed::Weather, Deed::Jump, Deed::Others, Deed::Round, Deed::Mischief, Deed::Churn].into_iter().chain(hand) {
            let first = self.shortest().mul_f64(self.rng.below(20) as f64 / 100.0);
            self.plan(first, deed);
        }
        if self.setting.writers {
            self.plan(Duration::ZERO, Deed::Look);
            self.plan(self.shortest() / 10, Deed::Write);
        }
    }

    pub fn enlist(&self, app: &App) {
        let lease = lease_of(&self.policies, &app.id.0);
        let copy = Copy {
            credential: app.credential.clone(),
            held: Default::default(),
            newest: None,
            uses: None,
            streams: false,
            sign: self.at(),
            lease,
            gone: false,
            released: false,
            excused: Default::default(),
        };
        self.scene.lock().model.copies.insert(app.id.clone(), copy);
    }

    pub fn plan(&mut self, after: Duration, deed: Deed) {
        self.deeds += 1;
        let at = self.at() + after;
        self.agenda.insert((at, self.deeds), deed);
    }

    fn deeds_due(&mut self) {
        while let Some((key, _)) = self.agenda.first_key_value() {
            if key.0 > self.at() || self.is_broken() {
                return;
            }
            let Some((_, deed)) = self.agenda.pop_first() else { return };
            self.scene.note(|| format!("deed {deed:?}"));
            self.scene.lock().model.turn_plans.clear();
            self.perform(deed);
        }
    }

    /// Runs a call of the leader's to its end, or to the leader's.
    pub fn call<T>(&mut self, call: impl AsyncFnOnce(Arc<Engine>) -> T) -> Option<T> {
        let leader = self.leader.as_ref()?;
        let (engine, process) = (leader.engine.clone(), leader.process.clone());
        let ran = poll(&mut Box::pin(call(engine)), &process);
        match ran {
            Ran::Done(done) => Some(done),
            Ran::Died | Ran::Paused => {
                self.bury();
                None
            }
        }
    }

    /// The process has died; somebody starts another one, sooner or later.
    pub fn bury(&mut self) {
        self.drop_streams();
        self.leader = None;
        self.scene.note(|| "the process died".to_owned());
        let at = self.at();
        self.scene.lock().disturb(at);
        let down = match self.rng.below(10) {
            0 => self.shortest().mul_f64(self.rng.below(100) as f64 / 100.0),
            1..=3 => secs(self.rng.below(600) as u64),
            _ => secs(self.rng.below(5) as u64),
        };
        self.plan(if self.calm { Duration::ZERO } else { down }, Deed::Start);
    }

    pub fn drop_streams(&mut self) {
        let at = self.at();
        for index in 0..self.apps.len() {
            if self.apps[index].stream.take().is_some() {
                if let Some(copy) = self.scene.lock().model.copies.get_mut(&self.apps[index].id) {
                    (copy.streams, copy.sign) = (false, at);
                }
                let after = secs(self.rng.below(20) as u64);
                self.plan_connect(after, index);
            }
        }
    }

    /// Once at a time: who waits for the daemon doesn't multiply.
    pub fn plan_connect(&mut self, after: Duration, index: usize) {
        if !std::mem::replace(&mut self.apps[index].waits, true) {
            self.plan(after, Deed::Connect(index));
        }
    }

    pub fn start(&mut self) {
        if self.leader.is_some() {
            return;
        }
        let (number, off, wall, at) = {
            let mut inner = self.scene.lock();
            inner.newest += 1;
            inner.model.maybe_paused = false;
            // Running time goes on from here.
            inner.quiet_since = inner.quiet_since.max(inner.at);
            (inner.newest, inner.off, inner.wall(), inner.at)
        };
        let process = Arc::new(Process { number, ..Process::default() });
        let seat = Seat { scene: self.scene.clone(), process: process.clone() };
        let judge = Mutex::new(Judge::new(now(self.journal.heartbeat()).unwrap(), wall));
        let store = Arc::new(SeatStore { seat: seat.clone(), inner: self.store.clone() });
        let journal = Arc::new(SeatJournal { seat: seat.clone(), inner: self.journal.clone() });
        let seams = Seams {
            store: store.clone(),
            journal: journal.clone(),
            promoter: Arc::new(Apart::new(store, journal)),
            issuer: Arc::new(SeatIssuer { seat: seat.clone() }),
            audit: Arc::new(SeatAudit { seat: seat.clone() }),
            clock: Arc::new(SeatClock { seat, began: at, judge }),
            delivery: self.told.clone(),
            meter: Arc::new(NoMeter),
            keyring: self.keyring.clone(),
        };
        if off.abs() > SignedDuration::from_secs(300) {
            self.scene.lock().model.misled.insert(number);
        }
        // Leases start anew, but whose was over doesn't come back.
        for copy in self.scene.lock().model.copies.values_mut() {
            copy.released |= copy.forgotten(at);
            copy.sign = at;
        }
        let started = Engine::start(seams, self.policies.clone(), Options::default());
        match poll(&mut Box::pin(started), &process) {
            Ran::Done(Ok(engine)) => self.leader = Some(Leader { engine, process }),
            Ran::Done(Err(error)) => {
                let broken = matches!(error, keywright::engine::errors::StartError::JournalBroken { .. });
                self.scene.lock().require(!broken, "I8", || error.to_string());
                self.plan(secs(20), Deed::Start);
            }
            Ran::Died | Ran::Paused => self.plan(secs(5), Deed::Start),
        }
    }

    fn turn(&mut self) -> Duration {
        let Some(leader) = &self.leader else { return Duration::MAX };
        let (engine, process) = (leader.engine.clone(), leader.process.clone());
        {
            let mut inner = self.scene.lock();
            inner.model.turn_plans.clear();
            inner.model.turn_faults = inner.faults;
        }
        process.may_pause.store(true, Ordering::Relaxed);
        let mut turn: Turn = Box::pin(async move { engine.turn().await });
        let ran = poll(&mut turn, &process);
        process.may_pause.store(false, Ordering::Relaxed);
        match ran {
            Ran::Done(rest) => {
                self.tell();
                rest
            }
            Ran::Died => {
                drop(turn);
                self.bury();
                Duration::MAX
            }
            Ran::Paused => {
                // Another one takes over while this one stands still in the middle of a call.
                self.deposed.push(Deposed { process, turn });
                self.bury();
                let later = secs(self.rng.below(1_800) as u64);
                self.plan(later, Deed::Resume);
                Duration::MAX
            }
        }
    }

    /// A deposed engine goes on where it stood, not knowing.
    pub fn resume(&mut self) {
        let Some(mut deposed) = (!self.deposed.is_empty()).then(|| self.deposed.remove(0)) else { return };
        let (at, alone) = (self.at(), self.leader.is_none());
        if alone {
            // Nobody took over: then it wouldn't be deposed.
            self.deposed.insert(0, deposed);
            return self.plan(self.patience(), Deed::Resume);
        }
        self.scene.lock().disturb(at);
        deposed.process.paused.store(false, Ordering::Relaxed);
        let _ended = poll(&mut deposed.turn, &deposed.process);
    }

    /// Applications that stream hear of what changed.
    fn tell(&mut self) {
        let told = std::mem::take(&mut *self.told.0.lock().unwrap());
        for change in told {
            let Change::Credential { name, .. } = change else { continue };
            for index in 0..self.apps.len() {
                let app = &self.apps[index];
                if app.credential == name && app.stream.is_some() && (!app.stuck || self.calm) {
                    let after = Duration::from_millis(self.rng.below(2_000) as u64);
                    self.plan(after, Deed::Fetch(index));
                } else if app.credential == name && app.uptake == Uptake::Start && self.calm {
                    let after = secs(self.rng.below(20) as u64);
                    self.plan_connect(after, index);
                }
            }
        }
    }

    fn check(&mut self, step: Duration, settled: Duration) {
        if self.leader.is_none() {
            let mut inner = self.scene.lock();
            inner.quiet_since = inner.quiet_since.max(inner.at);
        }
        for name in self.policies.credentials.keys() {
            let slot = self.slot(name);
            let stages = now(self.store.stages(&slot)).unwrap();
            let is_foreign = stages.current.as_ref().is_some_and(|current| current.as_str().starts_with(FOREIGN));
            let versions: Vec<_> = {
                let inner = self.scene.lock();
                let known = &inner.model.known[name];
                [&known.current, &known.old, &known.candidate].into_iter().flatten().cloned().collect()
            };
            let readable = versions.into_iter().filter(|version| now(self.store.read(&slot, version)).is_ok()).collect();
            // What others made current is nobody's here: ours stays in service.
            let current = if is_foreign { self.scene.lock().model.known[name].current.clone() } else { stages.current };
            let kept = Kept { current, readable };
            self.scene.lock().check(&self.scene.issuer, name, &kept);
        }
        let mut inner = self.scene.lock();
        inner.check_orphans(&self.scene.issuer, step);
        if self.calm && inner.at > settled {
            inner.check_deadlines(&self.scene.issuer, settled);
        }
    }

    fn go_on(&mut self, rest: Duration, step: Duration) {
        let at = self.at();
        let next = self.agenda.first_key_value().map_or(Duration::MAX, |(key, _)| key.0.saturating_sub(at));
        let by = rest.min(step).min(next).max(Duration::from_millis(10));
        self.scene.advance(by);
    }
}
