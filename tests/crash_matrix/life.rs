//! One life of a credential, from its submission to the end of its first rotation, held to the invariants at every turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keywright::domain::credential::Environment;
use keywright::domain::ids::{KeyId, VersionId};
use keywright::domain::material::{Material, Secret};
use keywright::domain::replicas::Report;
use keywright::engine::errors::SubmitError;
use keywright::engine::{Engine, StreamGuard};
use keywright::faults::When;
use keywright::issuers::memory::FaultAction;

use super::world::{App, Backend, DOCUMENTS, DOCUMENTS_BY_HAND, OVERLAP, World, name, operator};

const CREDENTIAL: &str = "dinie-production";
/// Turns of one life at most: more is stuck.
const TURNS_MAX: usize = 600;
/// Longer than any life: whoever holds the stolen key is waited for.
const STOLEN_WITHIN: Duration = Duration::from_secs(86_400);
const DEATHS_IN_A_STORM: usize = 12;

/// What goes wrong in a life whatever the matrix adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing: enrol, rotate, confirm, revoke, forget.
    Whole,
    /// The first candidate is refused for ever and abandoned; the next one works.
    Refused,
    /// The reply to the first create is lost.
    LostReply,
    /// The provider repeats keys by operation id, and every reply to the first create is lost.
    LostReplyIdempotent,
    /// The submitted key is stolen: replaced now, and dead as soon as the application has confirmed.
    Stolen,
    /// The first rotation is turned round: the submitted key stays.
    RolledBack,
    /// A person is asked for a new key, submits it, and removes the old one when asked to.
    ByHand,
    /// There is one secret: the provider ends the old one by itself, after the overlap.
    Rotated,
    /// There is one secret: the old one dies when the next is made.
    Replaced,
    /// A secondary secret is made beside the primary one, and promoting it ends that.
    Secondary,
    /// The same, turned round: the secondary secret is taken back.
    SecondaryBack,
    /// The account has few slots, and the old key is disabled before it is removed.
    Disabled,
    /// The new version goes to its instance step by step, and is confirmed.
    RolledOut,
    /// The instance that has the new version first says that it fails: the submitted key stays.
    CanaryFailed,
    /// Somebody writes another key where native readers look: it takes the place of the submitted one.
    Changed,
}

impl Scenario {
    pub const ALL: [Scenario; 14] = [
        Scenario::Whole,
        Scenario::Refused,
        Scenario::LostReply,
        Scenario::LostReplyIdempotent,
        Scenario::Stolen,
        Scenario::RolledBack,
        Scenario::ByHand,
        Scenario::Rotated,
        Scenario::Replaced,
        Scenario::Secondary,
        Scenario::SecondaryBack,
        Scenario::Disabled,
        Scenario::RolledOut,
        Scenario::CanaryFailed,
    ];

    /// The key stays, and its secret changes.
    fn has_one_secret(self) -> bool {
        matches!(self, Scenario::Rotated | Scenario::Replaced) || self.has_secondary()
    }

    fn has_secondary(self) -> bool {
        matches!(self, Scenario::Secondary | Scenario::SecondaryBack)
    }

    fn world(self, backend: Backend) -> World {
        match self {
            Scenario::Rotated => World::with(backend, &one_secret("rotate", "authentication: token", "overlap: 60s, unconfirmed: revoke")),
            Scenario::Replaced => World::with(backend, &one_secret("replace", "authentication: {management: manager}", "overlap: 0s")),
            Scenario::Secondary | Scenario::SecondaryBack => World::with(backend, &secondary()),
            Scenario::Disabled => World::with(backend, &disabling()),
            Scenario::RolledOut | Scenario::CanaryFailed => {
                World::with(backend, &DOCUMENTS.replace("spread: 1s", "spread: 1s, rollout: [1, 50%, 100%]"))
            }
            Scenario::ByHand => World::with(backend, DOCUMENTS_BY_HAND),
            _ => World::new(backend),
        }
    }

    /// Lost replies make further secrets, all of which end with the next create or by themselves.
    fn spares_nothing(self) -> bool {
        matches!(self, Scenario::Rotated | Scenario::Replaced)
    }

    /// The submitted key stays.
    fn goes_back(self) -> bool {
        matches!(self, Scenario::RolledBack | Scenario::SecondaryBack | Scenario::CanaryFailed)
    }

    fn prepare(self, world: &World) {
        world.issuer.behave(|behaviour| behaviour.idempotent = self == Scenario::LostReplyIdempotent);
        match self {
            Scenario::Whole | Scenario::Stolen | Scenario::RolledBack | Scenario::ByHand | Scenario::Changed => {}
            Scenario::Secondary | Scenario::SecondaryBack => {}
            Scenario::Rotated | Scenario::Replaced | Scenario::Disabled | Scenario::RolledOut | Scenario::CanaryFailed => {}
            Scenario::Refused => world.issuer.behave(|behaviour| behaviour.stillborn = true),
            Scenario::LostReply | Scenario::LostReplyIdempotent => world.issuer.inject("issuer.create", FaultAction::LoseReply),
        }
    }
}

/// One life.
pub struct Life {
    pub world: World,
    scenario: Scenario,
    engine: Option<Arc<Engine>>,
    stream: Option<StreamGuard>,
    app: App,
    first: (KeyId, Material),
    /// The key that a person makes when asked for it.
    second: Option<(KeyId, Material)>,
    /// A submission was acknowledged.
    acknowledged: bool,
    /// When each version was first seen to be current, and when the application first said that it uses it.
    promoted: BTreeMap<VersionId, Timestamp>,
    confirming: BTreeMap<VersionId, Timestamp>,
    deaths: usize,
    /// State of the dice, and deaths to come.
    storm: (u64, usize),
}

impl Life {
    pub fn new(backend: Backend, scenario: Scenario) -> Life {
        let world = scenario.world(backend);
        scenario.prepare(&world);
        world.hook_issuer();
        let mut first = world.made_by_hand();
        if scenario == Scenario::Replaced {
            first.1.insert("manager".parse().unwrap(), Secret::from("what-manages-the-key-4Rt8".to_owned()));
        }
        let app = App::new("payments", "one");
        Life {
            world,
            scenario,
            engine: None,
            stream: None,
            app,
            first,
            second: None,
            acknowledged: false,
            promoted: BTreeMap::new(),
            confirming: BTreeMap::new(),
            deaths: 0,
            storm: (0, 0),
        }
    }

    /// Dies again and again, each time some points after it was revived.
    pub fn in_a_storm(mut self, seed: u64) -> Life {
        self.storm = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, DEATHS_IN_A_STORM);
        self.next_blow();
        self
    }

    fn next_blow(&mut self) {
        let (state, left) = &mut self.storm;
        if *left == 0 {
            return;
        }
        *left -= 1;
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let (gap, when) = ((*state >> 8) as usize % 24, if *state & 16 == 0 { When::Before } else { When::After });
        self.world.faults.crash_at(self.world.faults.count() + gap, when);
    }

    /// Lives to the end. How often the process died on the way.
    ///
    /// # Panics
    /// At the first broken invariant.
    pub async fn run(mut self) -> (World, usize) {
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "stuck: {:#?}", self.engine.as_ref().and_then(|engine| engine.status(None, None, 10)));
            let Some(engine) = self.alive().await else { continue };
            let rest = self.turn(&engine).await;
            self.check().await;
            if self.world.faults.alive().is_err() {
                self.die(engine);
                continue;
            }
            if self.is_over(&engine).await {
                drop(engine);
                break;
            }
            // Who was hindered tries again within the patience of a step.
            let most = if self.is_canary(&engine) { Duration::from_secs(5) } else { self.step_max(&engine) };
            drop(engine);
            self.world.clocks.advance(rest.clamp(Duration::from_millis(10), most));
            self.check().await;
        }
        self.check_end().await;
        self.stream = None;
        self.engine = None;
        (self.world, self.deaths)
    }

    /// How far time goes at once: the application looks once in each turn, and where the provider ends the old secret by its own clock,
    /// nobody waits for it.
    fn step_max(&self, engine: &Engine) -> Duration {
        let status = engine.status(Some(&name(CREDENTIAL)), None, 1);
        let steady = status.is_none_or(|status| status.credentials.first().is_none_or(|row| row.phase == "steady"));
        Duration::from_secs(if self.scenario == Scenario::Rotated && !steady { 20 } else { 60 })
    }

    /// The engine, started if it isn't running.
    async fn alive(&mut self) -> Option<Arc<Engine>> {
        if self.engine.is_none() {
            match self.world.start().await {
                Ok(engine) => {
                    self.stream = Some(engine.open_stream(&self.app.application, &self.app.instance));
                    self.engine = Some(engine);
                }
                Err(_) => {
                    self.deaths += usize::from(self.world.faults.alive().is_err());
                    self.world.faults.revive();
                    self.world.backend.close();
                    self.next_blow();
                    return None;
                }
            }
        }
        self.engine.clone()
    }

    fn die(&mut self, engine: Arc<Engine>) {
        self.deaths += 1;
        (self.stream, self.engine) = (None, None);
        self.world.bury(engine);
        self.next_blow();
    }

    async fn turn(&mut self, engine: &Arc<Engine>) -> Duration {
        let credential = name(CREDENTIAL);
        if engine.current(&credential).is_none() {
            assert!(!self.acknowledged, "an acknowledged submission is lost");
            match engine.submit(operator(), &credential, self.first.1.duplicate()).await {
                Ok(submitted) => {
                    self.acknowledged = true;
                    assert_eq!(engine.current(&credential).map(|(version, _)| version), Some(submitted.version));
                }
                Err(error) => assert!(
                    !matches!(error, SubmitError::EnvironmentMismatch { .. } | SubmitError::Undetermined { .. }),
                    "it can be submitted again: {error}"
                ),
            }
        }
        let fetched = self.app.fetch(engine).await;
        if fetched && self.scenario == Scenario::CanaryFailed && self.is_canary(engine) {
            let (version, instance) = (self.app.held.as_ref().unwrap().0.clone(), self.app.instance.clone());
            let (application, credential) = (self.app.application.clone(), credential.clone());
            let report = Report { application, instance, credential, version };
            let reported = engine.report_failed(&report).await;
            assert!(reported.is_ok() || self.world.faults.fired().is_some() || self.storm.0 != 0, "{reported:?}");
        } else if fetched && self.app.confirmed != self.app.held.as_ref().map(|(version, _)| version.clone()) {
            let version = self.app.held.as_ref().unwrap().0.clone();
            self.confirming.entry(version).or_insert(self.world.now());
            self.app.confirm(engine).await;
        }
        self.act(engine).await;
        let rest = engine.turn().await;
        let abandoned = engine
            .status(Some(&credential), None, 1)
            .is_some_and(|status| status.problems.iter().any(|problem| problem.code == "candidate-refused"));
        if abandoned && self.scenario == Scenario::Refused {
            self.world.issuer.behave(|behaviour| behaviour.stillborn = false);
        }
        rest
    }

    /// Whether a new version is being tried.
    fn is_canary(&self, engine: &Engine) -> bool {
        let status = engine.status(Some(&name(CREDENTIAL)), None, 1);
        status.is_some_and(|status| status.credentials.iter().any(|row| row.rollout.is_some()))
    }

    /// What an operator does in this scenario, again until it is taken.
    async fn act(&mut self, engine: &Engine) {
        let credential = name(CREDENTIAL);
        let Some(row) = engine.status(Some(&credential), None, 1).and_then(|status| status.credentials.into_iter().next()) else { return };
        let asked = match (self.scenario, row.generation, row.phase.as_str()) {
            // Once the application has the key that is stolen.
            (Scenario::Stolen, 1, _) if row.incident.is_none() && self.app.held.is_some() => {
                engine.compromised(operator(), &credential, STOLEN_WITHIN).await.err().map(|error| error.to_string())
            }
            (Scenario::RolledBack | Scenario::SecondaryBack | Scenario::CanaryFailed, 1, "steady") => {
                engine.rotate(operator(), &credential).await.err().map(|error| error.to_string())
            }
            (Scenario::RolledBack | Scenario::SecondaryBack, 2, "promoted" | "confirmed") => {
                engine.roll_back(operator(), &credential).await.err().map(|error| error.to_string())
            }
            (Scenario::ByHand, 1, "steady") => engine.rotate(operator(), &credential).await.err().map(|error| error.to_string()),
            (Scenario::ByHand, 1, "planned") => {
                let world = &self.world;
                let material = self.second.get_or_insert_with(|| world.made_by_hand()).1.duplicate();
                engine.submit(operator(), &credential, material).await.err().map(|error| error.to_string())
            }
            (Scenario::Changed, 1, "steady") if self.app.held.is_some() => {
                if self.second.is_none() {
                    let second = self.world.made_by_hand();
                    let Backend::Memory { store, .. } = &self.world.backend else { panic!("others write into memory only") };
                    store.write_natively(&credential, Environment::Production, Some(second.1.duplicate()));
                    self.second = Some(second);
                }
                engine.look_for_changes().await;
                None
            }
            (Scenario::ByHand, 2, "retired") if row.request.is_some() => {
                self.world.issuer.kill(&self.first.0);
                None
            }
            _ => None,
        };
        if let Some(why) = asked {
            assert!(self.world.faults.fired().is_some() || self.storm.0 != 0, "refused without a fault: {why}");
        }
    }

    /// What must hold at any time.
    async fn check(&mut self) {
        let (world, now) = (&self.world, self.world.now());
        assert!(world.foreign_live(), "keys of others are left alone (I2)");
        let living = world.ours_living();
        assert!(living.len() <= 2, "never more than two keys of ours: {living:?}");
        assert!(world.secrets_living() <= 2 || self.scenario.spares_nothing(), "never more than two secrets of ours");
        let stages = world.stages(CREDENTIAL).await;
        let Some(current) = stages.current else { return };
        let material = world.stored(CREDENTIAL, &current).await;
        // The one exception: the next secret is made, and this one died with that.
        let outdated = |material: &Material| self.scenario == Scenario::Replaced && !world.is_newest(&self.first.0, material);
        assert!(world.accepts(&material) || outdated(&material), "the current version is accepted (I3)");
        if let Some((_, held)) = &self.app.held {
            assert!(world.accepts(held) || outdated(held), "what the application holds is accepted (I6)");
        }
        if self.scenario == Scenario::Replaced {
            return;
        }
        self.promoted.entry(current.clone()).or_insert(now);
        // The first key is dead: then the current one had its overlap, and was confirmed (I5).
        if !world.accepts(&self.first.1) {
            let promoted = self.promoted[&current];
            let overlap = Duration::try_from(now.duration_since(promoted)).unwrap();
            // Where the provider ends the old one, it counts from the create.
            let counts_otherwise = matches!(self.scenario, Scenario::Stolen | Scenario::Rotated);
            assert!(overlap >= OVERLAP || counts_otherwise, "the old key had its overlap, not {overlap:?} (I5)");
            assert!(self.confirming.contains_key(&current), "the application had confirmed (I5)");
        }
    }

    async fn is_over(&self, engine: &Engine) -> bool {
        let status = engine.status(Some(&name(CREDENTIAL)), None, 1).unwrap();
        let row = &status.credentials[0];
        let incident_over = row.incident.as_ref().is_none_or(|incident| incident.closed_at.is_some());
        let stolen_is_said = self.scenario != Scenario::Stolen || row.incident.is_some();
        let ended = row.phase == "steady" && incident_over && stolen_is_said;
        ended && row.generation >= 2 && self.world.stages(CREDENTIAL).await.previous.is_none()
    }

    async fn check_end(&self) {
        let world = &self.world;
        let engine = self.engine.as_ref().unwrap();
        let status = engine.status(None, None, 10).unwrap();
        let left_over = |code: &str| self.scenario != Scenario::CanaryFailed || !code.starts_with("canary-");
        assert!(status.problems.iter().all(|problem| !left_over(&problem.code)), "nothing is left over: {:?}", status.problems);
        let living = world.ours_living();
        assert_eq!((living.len(), world.secrets_living()), (1, 1), "one key of ours lives, with one secret");
        let rolled_back = self.scenario.goes_back() && status.credentials[0].generation >= 3;
        let key_stays = rolled_back || self.scenario.has_one_secret();
        assert_eq!(living.contains(&self.first.0), key_stays, "the old one is dead, unless it was taken back");
        assert_eq!(world.accepts(&self.first.1), rolled_back, "and so is its secret");
        // A fault may shut the way back; without one it is gone.
        assert!(rolled_back || !self.scenario.goes_back() || world.faults.fired().is_some() || self.deaths > 0);
        if self.scenario == Scenario::Stolen {
            let incident = status.credentials[0].incident.as_ref().expect("the report stays");
            assert!(incident.revoked_at.is_some() && incident.stragglers.is_empty(), "{incident:?}");
            assert_eq!(incident.unknown_keys, Some(BTreeSet::new()), "keys of others are older");
        }
        let current = world.stages(CREDENTIAL).await.current.unwrap();
        let material = world.stored(CREDENTIAL, &current).await;
        assert!(world.accepts(&material), "and the current one is it");
        let history = world.backend.journal().load(&name(CREDENTIAL)).await.unwrap();
        assert_eq!(history.sealed, None, "the sealed copy is erased (I11)");
        assert!(self.acknowledged || self.deaths > 0 || world.faults.fired().is_some());
        // Nothing but the current version is kept.
        assert_eq!(world.stages(CREDENTIAL).await.pending, None);
        let issued = world.issuer.history(|keys| keys.iter().filter(|key| key.environment == Environment::Production).count());
        assert!(issued <= 8, "not more keys than faults explain: {issued}");
    }
}

/// Dinie's own description, with slots for two keys of others and two of ours, and a call that disables.
fn disabling() -> String {
    let disable = "    disable: {method: POST, path: \"/auth/credentials/{key_id}/off\", authentication: token}\n    revoke:";
    let dinie = include_str!("../../policies/providers/dinie.yaml");
    let described = dinie.replace("    revoke:", disable).replace("  lifecycle: pairs\n", "  lifecycle: pairs\n  slots: 4\n");
    assert!(described.contains("disable:") && described.contains("slots: 4"), "the description has changed its shape");
    format!("{described}---{}", super::world::DOCUMENTS)
}

/// Dinie's shape with one secret, and a policy for it.
fn one_secret(lifecycle: &str, authentication: &str, terms: &str) -> String {
    let asks = if lifecycle == "rotate" { "body: {json: {seconds: \"{overlap_seconds}\"}}, " } else { "" };
    let manager = if authentication.contains("manager") { "\n    manager: {class: management}" } else { "" };
    let usual = super::world::DOCUMENTS.replace("overlap: 60s", terms);
    format!(
        "apiVersion: keywright.dev/v1alpha1
kind: Provider
metadata: {{name: dinie}}
spec:
  title: Dinie with one secret
  lifecycle: {lifecycle}
  environments: {{production: {{base: \"https://api.dinie.com.br/v3\"}}}}
  fields:
    client_id: {{class: public}}
    client_secret: {{class: secret}}{manager}
  calls:
    token: {{method: POST, path: /token, authentication: {{basic: {{username: client_id, password: client_secret}}}}, accessToken: /a}}
    create: {{method: POST, path: /rotate, {authentication}, {asks}fields: {{client_secret: /secret}}}}
---{usual}"
    )
}

/// Dinie's shape with a primary and a secondary secret.
fn secondary() -> String {
    let (described, usual) = one_secret("promote", "authentication: token", "overlap: 60s")
        .split_once("\n---")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let calls = "
    promote: {method: POST, path: /secondary/promote, authentication: token}
    cancel: {method: DELETE, path: /secondary, authentication: token}";
    format!("{described}{calls}\n---{usual}")
}
