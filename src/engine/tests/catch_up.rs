//! Long down, and everything is overdue: each rotates once, the earliest deadline first, within our share of the quota (I14, I15).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use keywright::domain::credential::Environment;
use keywright::domain::ids::Name;
use keywright::domain::provider::ListedKey;
use keywright::domain::rotation::Moment;
use keywright::engine::clock::Clock;
use keywright::issuers::memory::{MemoryIssuer, SimClock};
use keywright::issuers::pace::{Demand, LaneKey, Pacer};
use keywright::issuers::{CreateRequest, Issuer, IssuerError, Minted, ProbeReport, ProviderHealth, Revocation, Target};
use tokio_util::sync::CancellationToken;

use super::*;

const FLEET: usize = 300;
/// What the description below makes of it: half of 2,000.
const OWN_CALLS_A_SECOND: usize = 1_000;
/// The engine drives so many at once: so far they may overtake each other.
const DRIVEN_MAX: usize = 64;

/// Real time, from a wall clock that a test sets.
struct Away {
    began: Instant,
    jumped: Mutex<SignedDuration>,
    /// Of it, what went by while the daemon ran.
    ran: Mutex<Duration>,
}

impl Clock for Away {
    fn now(&self) -> Moment {
        let wall = world::start_of_time().checked_add(self.began.elapsed()).unwrap();
        Moment {
            wall: wall.checked_add(*self.jumped.lock().unwrap()).unwrap(),
            running: self.began.elapsed() + *self.ran.lock().unwrap(),
            trusted: true,
        }
    }

    fn heard(&self, _provider_time: Timestamp) {}
}

/// The simulated provider behind a quota: each question costs as many calls as Dinie's do, a token and the call itself.
struct Paced {
    inner: Arc<MemoryIssuer>,
    pacer: Pacer,
    clock: Arc<Away>,
    theirs: SimClock,
    calls: Mutex<Vec<Duration>>,
}

impl Paced {
    async fn pass(&self, target: &Target, calls: u32) -> Result<(), IssuerError> {
        let until = self.clock.began.elapsed() + Duration::from_secs(1);
        loop {
            let now = self.clock.began.elapsed();
            let asked =
                self.pacer.ask(&LaneKey::of(target), &target.provider.limits, Demand { calls, begun: false, routine: target.routine }, now);
            self.theirs.set(self.clock.now().wall);
            match asked {
                Ok(()) => {
                    self.calls.lock().unwrap().extend(std::iter::repeat_n(now, calls as usize));
                    return Ok(());
                }
                Err(wait) if now + wait > until => return Err(IssuerError::Throttled { retry_after: Some(wait) }),
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }
}

#[async_trait]
impl Issuer for Paced {
    async fn probe(&self, target: &Target, material: &Material) -> Result<ProbeReport, IssuerError> {
        self.pass(target, 2).await?;
        self.inner.probe(target, material).await
    }

    async fn is_dead(&self, target: &Target, material: &Material) -> Result<bool, IssuerError> {
        self.pass(target, 1).await?;
        self.inner.is_dead(target, material).await
    }

    async fn list(&self, target: &Target, acting: &Material) -> Result<Vec<ListedKey>, IssuerError> {
        self.pass(target, 2).await?;
        self.inner.list(target, acting).await
    }

    async fn create(&self, target: &Target, acting: &Material, request: &CreateRequest) -> Result<Minted, IssuerError> {
        self.pass(target, 2).await?;
        self.inner.create(target, acting, request).await
    }

    async fn revoke(
        &self,
        target: &Target,
        acting: &Material,
        key_id: &KeyId,
        doomed: Option<&Material>,
    ) -> Result<Revocation, IssuerError> {
        self.pass(target, 3).await?;
        self.inner.revoke(target, acting, key_id, doomed).await
    }

    fn health(&self) -> Vec<ProviderHealth> {
        self.inner.health()
    }
}

fn called(number: usize) -> Name {
    name(&format!("tenant-{number:03}"))
}

/// Dinie's own description with a quota, and one account for all.
fn fleet() -> String {
    let dinie = include_str!("../../../policies/providers/dinie.yaml");
    let limits = "limits: {quota: {calls: 2000, per: 1s}, ";
    assert!(dinie.contains("limits: {"), "the description has its limits on one line");
    let policy = "apiVersion: keywright.dev/v1alpha1\nkind: RotationPolicy\nmetadata: {name: often}\nspec: {maxAge: 20d, overlap: 1h}\n";
    let credentials = (0..FLEET).map(|number| {
        let spec = "{provider: dinie, environment: production, rotation: often, account: shared}";
        format!("---\napiVersion: keywright.dev/v1alpha1\nkind: Credential\nmetadata: {{name: {}}}\nspec: {spec}\n", called(number))
    });
    let credentials: String = credentials.collect();
    format!("{}---\n{policy}{credentials}", dinie.replacen("limits: {", limits, 1))
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(40), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Most calls within any second.
fn most_in_a_second(calls: &[Duration]) -> usize {
    let mut calls = calls.to_vec();
    calls.sort();
    let mut first = 0;
    let counts = calls.iter().enumerate().map(|(place, call)| {
        while calls[first] + Duration::from_secs(1) <= *call {
            first += 1;
        }
        place - first + 1
    });
    counts.max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_thirty_days_each_rotates_once_by_deadline_within_the_share() {
    let world = World::with(Backend::memory(), &fleet());
    let clock = Arc::new(Away { began: Instant::now(), jumped: Mutex::default(), ran: Mutex::default() });
    let issuer = Arc::new(Paced {
        inner: world.issuer.clone(),
        pacer: Pacer::default(),
        clock: clock.clone(),
        theirs: world.clocks.theirs.clone(),
        calls: Mutex::default(),
    });
    let engine = world.start_with(issuer.clone(), clock.clone()).await.unwrap();
    // In an order of deadlines that isn't that of the names.
    let by_deadline: Vec<usize> = (0..FLEET).map(|place| place * 7 % FLEET).collect();
    for number in &by_deadline {
        *clock.jumped.lock().unwrap() += SignedDuration::from_secs(30);
        world.clocks.theirs.set(clock.now().wall);
        let (_, material) = world.made_by_hand();
        engine.submit(operator(), &called(*number), material).await.unwrap();
    }
    world.bury(engine);
    *clock.jumped.lock().unwrap() += SignedDuration::from_hours(30 * 24);
    issuer.calls.lock().unwrap().clear();
    let began = Instant::now();

    let engine = world.start_with(issuer.clone(), clock.clone()).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(engine.clone().run(stop.clone()));
    until("all are promoted", || engine.measures().iter().all(|one| one.age.is_some_and(|age| age < SignedDuration::from_hours(1)))).await;
    println!("{FLEET} rotations after {:.1?}, {} calls", began.elapsed(), issuer.calls.lock().unwrap().len());
    // The overlap passes.
    *clock.jumped.lock().unwrap() += SignedDuration::from_hours(1);
    *clock.ran.lock().unwrap() += Duration::from_hours(1);
    until("the old ones are revoked", || world.ours_living().len() == FLEET).await;
    stop.cancel();
    running.await.unwrap();

    let made: Vec<String> =
        world.issuer.history(|keys| keys.iter().map(|key| key.name.clone()).filter(|name| name.contains("tenant")).collect());
    assert_eq!(made.len(), FLEET, "one key each");
    let place: BTreeMap<Name, usize> = by_deadline.iter().enumerate().map(|(place, number)| (called(*number), place)).collect();
    let mut furthest = 0;
    for (made_as, key) in made.iter().enumerate() {
        let credential = place.keys().find(|name| key.contains(name.as_str())).unwrap();
        furthest = furthest.max(made_as.abs_diff(place[credential]));
    }
    assert!(place.keys().all(|name| made.iter().any(|key| key.contains(name.as_str()))), "each of them");
    let most = most_in_a_second(&issuer.calls.lock().unwrap());
    println!("furthest from the order of deadlines: {furthest} places; most calls in a second: {most} of {OWN_CALLS_A_SECOND}");
    assert!(furthest <= DRIVEN_MAX, "{furthest} places from the order of deadlines");
    assert!(most <= OWN_CALLS_A_SECOND, "{most} calls in a second");
    assert!(most > OWN_CALLS_A_SECOND / 4, "the quota was felt: {most} calls in a second");
    assert!(world.foreign_live());
    assert_eq!(world.issuer.living(Environment::Production).len(), FLEET + world.foreign.len());
}
