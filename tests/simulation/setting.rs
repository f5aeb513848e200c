//! What a seed draws before a life begins: documents, the provider's ways, and how rough it gets.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use keywright::domain::access::Identity;
use keywright::domain::credential::{Credential, Environment};
use keywright::domain::ids::Name;
use keywright::domain::policy::{Application, Confirmation, Policies, RotationPolicy, Terms, Unconfirmed, Uptake};
use keywright::domain::provider::{Lifecycle, Provider};
use keywright::domain::rollout::Share;
use keywright::domain::span::Span;
use keywright::domain::windows::{Window, longest_wait};
use keywright::policies::{Source, parse};

use super::model::lead;
use super::rng::Rng;

pub const HOUR: u64 = 3_600;
pub const DAY: u64 = 86_400;

pub fn start_of_time() -> Timestamp {
    Timestamp::from_second(1_767_603_600).unwrap()
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Documents that are parsed once: the real description, and schedules, whose expressions are slow to read.
struct Usual {
    provider: Arc<Provider>,
    /// The same without a list: lost replies can't be searched for.
    blind: Arc<Provider>,
    windows: Vec<(Vec<Window>, Duration)>,
}

fn usual() -> &'static Usual {
    static USUAL: OnceLock<Usual> = OnceLock::new();
    USUAL.get_or_init(|| {
        let text = "apiVersion: keywright.dev/v1alpha1\nkind: RotationPolicy\nmetadata: {name: any}\nspec: {maxAge: 1h}\n";
        let policies = parse(&[Source { file: "usual.yaml".to_owned(), text: text.to_owned() }], start_of_time()).unwrap();
        let provider = policies.providers[&name("dinie")].clone();
        let mut blind = (*provider).clone();
        blind.calls.list = None;
        let windows = [("0 9 * * *", "10h"), ("30 */6 * * *", "2h"), ("0 22 * * Mon-Fri", "12h")].map(|(cron, open)| {
            let window = Window::new(cron, "America/Sao_Paulo", open.parse().unwrap(), start_of_time()).unwrap();
            let wait = longest_wait(std::slice::from_ref(&window), start_of_time(), secs(15 * DAY));
            (vec![window], wait)
        });
        Usual { provider, blind: Arc::new(blind), windows: windows.to_vec() }
    })
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// One application's copies, as they live.
#[derive(Debug, Clone)]
pub struct Crowd {
    pub application: Name,
    pub credential: Name,
    pub uptake: Uptake,
    pub copies: usize,
}

/// What is drawn once for a life.
pub struct Setting {
    pub policies: Policies,
    pub crowds: Vec<Crowd>,
    /// It can't list keys.
    pub blind: bool,
    /// A person makes and removes its keys.
    pub manual: bool,
    /// Others write into the store.
    pub writers: bool,
    pub idempotent: bool,
    /// How long the rough part lasts.
    pub rough: Duration,
    /// Faults of ten thousand passes, for crashes, failed writes, failed calls and pauses.
    pub rates: [usize; 4],
    pub propagation_max: u64,
    /// What the wall clock does.
    pub clock: ClockWay,
}

/// How a wall clock misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockWay {
    Right,
    Storms,
    Jumps,
}

/// Policies of one life are of one scale, or the short one would rotate thousands of times while the long one waits.
fn scale_of(rng: &mut Rng) -> u64 {
    match rng.below(40) {
        0 => (7 + rng.below(84)) as u64 * DAY,
        1..=6 => (1 + rng.below(5)) as u64 * DAY,
        _ => HOUR + rng.below(7 * 3_600) as u64,
    }
}

fn policy(rng: &mut Rng, called: &str, scale: u64) -> RotationPolicy {
    let max_age = (scale * (2 + rng.below(5)) as u64 / 2).min(90 * DAY);
    let overlap = (max_age / (5 + rng.below(40)) as u64).max(60);
    let usual = usual();
    let windows = (max_age >= 4 * DAY && rng.chance(60)).then(|| rng.pick(&usual.windows).clone());
    let (windows, window_wait) = windows.unwrap_or_default();
    RotationPolicy {
        name: name(called),
        max_age: Span::from_secs(max_age),
        terms: Terms {
            overlap: Span::from_secs(overlap),
            confirmation: *rng.pick(&[Confirmation::Required, Confirmation::Required, Confirmation::Observed, Confirmation::None]),
            unconfirmed: *rng.pick(&[Unconfirmed::Hold, Unconfirmed::Hold, Unconfirmed::Revoke]),
        },
        spread: secs(max_age / 10 * rng.below(2) as u64),
        windows,
        window_wait,
        verify_every: Span::from_secs((max_age / 4).min(DAY)),
        rehearse: rng.chance(20),
        rollout: rollout(rng, overlap),
    }
}

/// Steps, where the overlap leaves time for them.
fn rollout(rng: &mut Rng, overlap: u64) -> Vec<Share> {
    if overlap < 120 || !rng.chance(40) {
        return Vec::new();
    }
    let first = *rng.pick(&[Share::Instances(1), Share::Instances(2), Share::Percent(10)]);
    let middle = rng.chance(60).then_some(Share::Percent(50));
    [first].into_iter().chain(middle).chain([Share::Percent(100)]).collect()
}

impl Setting {
    pub fn draw(rng: &mut Rng) -> Setting {
        let blind = rng.chance(15);
        let provider = if blind { usual().blind.clone() } else { usual().provider.clone() };
        let mut policies = Policies { digest: "drawn".to_owned(), ..Policies::default() };
        policies.providers.insert(provider.name.clone(), provider.clone());
        let kinds = 1 + rng.below(2);
        let scale = scale_of(rng);
        for kind in 0..kinds {
            let policy = policy(rng, &format!("policy-{kind}"), scale);
            policies.rotations.insert(policy.name.clone(), Arc::new(policy));
        }
        let count = 1 + rng.below(3);
        let mut crowds = Vec::new();
        for index in 0..count {
            let environment = if rng.chance(65) { Environment::Production } else { Environment::Sandbox };
            let credential = name(&format!("key-{index}"));
            let document = Credential {
                name: credential.clone(),
                provider: provider.name.clone(),
                environment,
                rotation: name(&format!("policy-{}", rng.below(kinds))),
                path: credential.to_string(),
                variables: BTreeMap::new(),
                account: name(&format!("dinie-{environment}")),
                administered_by: None,
                twin: None,
                accept_undetermined: None,
                rehearsal_time: Duration::ZERO,
                require_go_live: false,
            };
            policies.credentials.insert(credential.clone(), Arc::new(document));
            for _ in 0..rng.below(3) {
                let crowd = crowd(rng, crowds.len(), &credential);
                policies.applications.insert(crowd.application.clone(), Arc::new(document_of(rng, &crowd, environment)));
                crowds.push(crowd);
            }
        }
        join_twins(&mut policies);
        let longest = policies.rotations.values().map(|policy| policy.max_age.as_duration()).max().unwrap_or_default();
        let roughness = *rng.pick(&[0, 1, 1, 3]);
        Setting {
            policies,
            crowds,
            blind,
            manual: false,
            writers: false,
            idempotent: rng.chance(50),
            rough: longest.mul_f64(0.8 + rng.below(15) as f64 / 10.0),
            rates: [rng.below(60), rng.below(100), rng.below(400), rng.below(30)].map(|rate| rate * roughness),
            propagation_max: rng.below(121) as u64,
            clock: *rng.pick(&[ClockWay::Right, ClockWay::Right, ClockWay::Storms, ClockWay::Jumps]),
        }
    }

    /// The same where a person makes and removes the keys: it can be asked whether one lives, and nothing else.
    #[must_use]
    pub fn by_hand(mut self) -> Setting {
        let mut provider = (*usual().blind).clone();
        (provider.calls.create, provider.calls.revoke) = (None, None);
        provider.lifecycle = Lifecycle::Manual;
        self.policies.providers.insert(provider.name.clone(), Arc::new(provider));
        (self.blind, self.manual) = (true, true);
        self
    }

    /// The same where others write into the store.
    #[must_use]
    pub fn among_writers(mut self) -> Setting {
        self.writers = true;
        self
    }

    pub fn policy_of(policies: &Policies, credential: &Name) -> Arc<RotationPolicy> {
        policies.rotation_of(&policies.credentials[credential]).unwrap().clone()
    }
}

/// Each production credential rehearses with the first one of the sandbox, where its policy says so and leaves time for it.
fn join_twins(policies: &mut Policies) {
    let twin = policies.credentials.values().find(|credential| credential.environment == Environment::Sandbox).cloned();
    let names: Vec<Name> = policies.credentials.keys().cloned().collect();
    for name in names {
        let document = policies.credentials[&name].clone();
        let policy = Setting::policy_of(policies, &name);
        let twin = twin.as_ref().filter(|_| policy.rehearse && document.environment == Environment::Production);
        let time = twin.map(|twin| lead(&Setting::policy_of(policies, &twin.name))).unwrap_or_default();
        let twin = twin.filter(|_| time + lead(&policy) < policy.max_age.as_duration());
        let rehearsal_time = if twin.is_some() { time } else { Duration::ZERO };
        let document = Credential { twin: twin.map(|twin| twin.name.clone()), rehearsal_time, ..(*document).clone() };
        policies.credentials.insert(name, Arc::new(document));
    }
}

/// How long a twin's rotation takes, after its policy was edited: as the documents are linked anew.
pub fn time_rehearsals(policies: &mut Policies) {
    let twins = policies.credentials.values().filter_map(|document| Some((document.name.clone(), document.twin.clone()?)));
    for (name, twin) in twins.collect::<Vec<_>>() {
        let rehearsal_time = lead(&Setting::policy_of(policies, &twin));
        let document = Credential { rehearsal_time, ..(*policies.credentials[&name]).clone() };
        policies.credentials.insert(name, Arc::new(document));
    }
}

fn crowd(rng: &mut Rng, number: usize, credential: &Name) -> Crowd {
    Crowd {
        application: name(&format!("app-{number}")),
        credential: credential.clone(),
        uptake: if rng.chance(75) { Uptake::Stream } else { Uptake::Start },
        copies: 1 + rng.below(3),
    }
}

fn document_of(rng: &mut Rng, crowd: &Crowd, environment: Environment) -> Application {
    Application {
        name: crowd.application.clone(),
        environment,
        credentials: vec![crowd.credential.clone()],
        identity: Identity::Unix { uid: 1000 },
        uptake: crowd.uptake,
        lease: rng.chance(40).then(|| Span::from_secs(30 + rng.below(1_200) as u64)),
        callback: None,
        webhook: None,
        delivery: Default::default(),
    }
}

/// The lease of an application's instances, as the contract words it.
pub fn lease_of(policies: &Policies, application: &Name) -> Option<Duration> {
    let document = &policies.applications[application];
    if let Some(lease) = document.lease {
        return Some(lease.as_duration());
    }
    let overlap = Setting::policy_of(policies, &document.credentials[0]).terms.overlap.as_duration();
    (document.uptake == Uptake::Stream).then(|| overlap.min(secs(900)))
}
