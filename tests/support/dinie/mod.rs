//! A Dinie of our own, from its public facts alone: one instance is one environment on a loopback port.

pub(crate) mod faults;
mod http;
pub(crate) use http::EXEMPT_HEADER;
mod replies;
pub(crate) mod truth;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::canaries::{Canary, SHAPES, Shape};
use super::rng::Rng;
use faults::{Call, Schedule};
use truth::{Key, Owner, Truth};

pub(crate) const SECRET_PREFIX: &str = "dinie_cs_live_";
pub(crate) const TOKEN_PREFIX: &str = "dinie_at_";

#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// `sandbox` or `production`.
    pub(crate) environment: &'static str,
    pub(crate) seed: u64,
    pub(crate) page_limit: usize,
    pub(crate) idempotency: bool,
    /// How long a new key is refused; with `flapping`, by every second look only.
    pub(crate) propagation: Duration,
    pub(crate) flapping: bool,
    /// How many keys may live in the account, somebody else's included.
    pub(crate) slots: Option<usize>,
    /// At the slot limit: kill the oldest key of ours, instead of refusing.
    pub(crate) evicts: bool,
    pub(crate) epoch_times: bool,
    /// New secrets take these shapes in turn, as a provider would that holds to no format at all.
    pub(crate) odd_secrets: bool,
}

impl Options {
    pub(crate) fn new(environment: &'static str) -> Self {
        Self {
            environment,
            seed: 1,
            page_limit: 100,
            idempotency: true,
            propagation: Duration::ZERO,
            flapping: false,
            slots: None,
            evicts: false,
            epoch_times: false,
            odd_secrets: false,
        }
    }
}

pub(crate) struct State {
    pub(crate) truth: Truth,
    pub(crate) faults: Schedule,
    rng: Rng,
}

pub(crate) struct Dinie {
    pub(crate) options: Options,
    pub(crate) address: SocketAddr,
    state: Mutex<State>,
    hangs: mpsc::UnboundedSender<Call>,
    reached: tokio::sync::Mutex<mpsc::UnboundedReceiver<Call>>,
}

impl Dinie {
    pub(crate) async fn start(options: Options) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let (hangs, reached) = mpsc::unbounded_channel();
        let state = State { truth: Truth::default(), faults: Schedule::new(options.seed), rng: Rng::new(options.seed ^ 0xd1_4e) };
        let fake = Arc::new(Self {
            address: listener.local_addr().expect("a bound socket has an address"),
            options,
            state: Mutex::new(state),
            hangs,
            reached: tokio::sync::Mutex::new(reached),
        });
        tokio::spawn(http::serve(listener, fake.clone()));
        fake
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v3", self.address)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test thread died in here")
    }

    /// A key made by hand, as one finds in a real account: the one to submit, or somebody else's.
    pub(crate) fn seed_key(&self, name: &str, owner: Owner) -> Key {
        let mut state = self.lock();
        let secret = format!("{SECRET_PREFIX}{}", state.rng.alnum(32));
        let key = self.make_key(&mut state, name, secret, None, owner);
        if let Some(seeded) = state.truth.key_mut(&key.client_id) {
            seeded.settled = seeded.created;
        }
        key
    }

    fn make_key(&self, state: &mut State, name: &str, secret: String, expires_at: Option<String>, owner: Owner) -> Key {
        let marker = if self.options.environment == "production" { "live" } else { "test" };
        let now = Instant::now();
        let key = Key {
            id: format!("cred_{}", state.rng.alnum(16)),
            client_id: format!("dinie_ci_{marker}_{}", state.rng.alnum(24)),
            secret,
            name: name.to_owned(),
            owner,
            created: now,
            created_at: Timestamp::now(),
            updated_at: Timestamp::now(),
            last_used_at: None,
            expires_at,
            settled: now + self.options.propagation,
            revoked: None,
            revoked_by: None,
            looks: 0,
        };
        state.truth.keys.push(key.clone());
        state.truth.count_living();
        key
    }

    fn next_secret(&self, state: &mut State) -> String {
        if !self.options.odd_secrets {
            return format!("{SECRET_PREFIX}{}", state.rng.alnum(32));
        }
        let made = state.truth.keys.iter().filter(|key| key.owner == Owner::Daemon).count();
        // The ordinary shape between any two odd ones: so rotations go on, whatever a description says of the odd.
        match SHAPES.get((made / 2) % SHAPES.len()) {
            Some(shape) if made % 2 == 1 => Canary::shaped(*shape, state.rng.next()).value,
            _ => format!("{SECRET_PREFIX}{}", state.rng.alnum(32)),
        }
    }

    /// After so many more calls one has its effect, tells `reached`, and is never answered.
    pub(crate) async fn hang_after(&self, calls: u32) {
        let mut reached = self.reached.lock().await;
        while reached.try_recv().is_ok() {}
        self.lock().faults.hang_after(calls);
    }

    /// Waits till a call hangs after its effect.
    pub(crate) async fn reached(&self) -> Option<Call> {
        self.reached.lock().await.recv().await
    }

    /// Whether the key lives: dead is dead, a key that is still propagating is not.
    pub(crate) fn alive(&self, secret: &str) -> bool {
        let now = Instant::now();
        self.lock().truth.by_secret(secret).is_some_and(|key| key.alive(now))
    }

    pub(crate) fn accepts(&self, secret: &str, at: Instant) -> bool {
        self.lock().truth.accepts(secret, at)
    }

    pub(crate) fn calls(&self, call: Call) -> u32 {
        self.lock().truth.calls.get(&call).copied().unwrap_or(0)
    }

    pub(crate) fn revoked_of_ours(&self) -> usize {
        let state = self.lock();
        state.truth.keys.iter().filter(|key| key.owner != Owner::Foreign && key.revoked.is_some()).count()
    }

    /// Every secret and every token that this provider ever gave out, for the scanner.
    pub(crate) fn canaries(&self) -> Vec<Canary> {
        let state = self.lock();
        let environment = self.options.environment;
        let keys = state.truth.keys.iter().map(|key| {
            let name = format!("{environment} secret of {}", key.name);
            // A PEM's frame and JSON's braces are no secrets; only the shapes know where those are.
            shaped_again(&key.secret).unwrap_or_else(|| Canary::after(&name, SECRET_PREFIX, &key.secret))
        });
        let tokens = state.truth.tokens.keys();
        let tokens = tokens.map(|token| Canary::after(&format!("{environment} token"), TOKEN_PREFIX, token));
        keys.chain(tokens).collect()
    }
}

/// The public frame of the shapes that have one, found again in a minted value.
fn shaped_again(secret: &str) -> Option<Canary> {
    let frames = [(Shape::Pem, "-----BEGIN"), (Shape::JsonInJson, "{\"k\"")];
    let (shape, _) = frames.iter().find(|(_, start)| secret.starts_with(start))?;
    let mut canary = Canary::whole(&format!("{shape:?}"), secret);
    let template = Canary::shaped(*shape, 0);
    // Same shape, same lengths: the places of the secret parts are the same whatever the seed was.
    canary.cores = template.cores;
    Some(canary)
}
