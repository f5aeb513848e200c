//! What each call passes before it is sent: our share of the quota, and the breaker of its provider.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::reply::Reply;
use crate::domain::credential::Environment;
use crate::domain::ids::Name;
use crate::domain::material::Secret;
use crate::issuers::breaker::{Breaker, BreakerState, Health, Pass};
use crate::issuers::pace::{Demand, LaneKey, Pacer};
use crate::issuers::{IssuerError, ProviderHealth, Target};

const BROKEN: IssuerError = IssuerError::Unreachable("its calls failed again and again, so none is made for a while");

/// An access token, and the call that it was fetched for: both are counted at once, so that no call is left waiting with its
/// token in hand.
pub(super) struct Token {
    pub secret: Secret,
    paid: AtomicBool,
}

impl Token {
    /// `paid`: the call that it is for was counted with it.
    pub(super) fn new(secret: Secret, paid: bool) -> Token {
        Token { secret, paid: AtomicBool::new(paid) }
    }

    /// What one more call with it counts as; `None` for the one that was counted with the token.
    pub(super) fn demand(&self) -> Option<Demand> {
        (!self.paid.swap(false, Ordering::AcqRel)).then_some(Demand { calls: 1, begun: true, routine: false })
    }
}

/// One for all providers.
pub(super) struct Gate {
    pacer: Pacer,
    breakers: Mutex<BTreeMap<(Name, Environment), Breaker>>,
    began: Instant,
    /// How long a call waits for its turn at most; a breaker that opened stays open for as long.
    timeout: Duration,
}

/// A call that may be sent. Dropped before it is told how the call ended, it counts as one that told nothing.
pub(super) struct Entry<'a> {
    gate: &'a Gate,
    target: &'a Target,
    pass: Option<Pass>,
}

impl Gate {
    pub(super) fn new(timeout: Duration) -> Gate {
        Gate { pacer: Pacer::default(), breakers: Mutex::default(), began: Instant::now(), timeout }
    }

    /// Waits for its turn, if it `may_wait` and the turn comes within the time-out. Without a `demand` it was counted before.
    ///
    /// # Errors
    /// [`IssuerError::Throttled`], [`IssuerError::Unreachable`]: nothing may be sent now.
    pub(super) async fn enter<'a>(&'a self, target: &'a Target, demand: Option<Demand>, may_wait: bool) -> Result<Entry<'a>, IssuerError> {
        let lane = LaneKey::of(target);
        let until = self.now() + if may_wait { self.timeout } else { Duration::ZERO };
        loop {
            if self.is_broken(target) {
                return Err(BROKEN);
            }
            let Some(demand) = demand else { break };
            let now = self.now();
            let Err(wait) = self.pacer.ask(&lane, &target.provider.limits, demand, now) else { break };
            if now + wait > until {
                return Err(IssuerError::Throttled { retry_after: Some(wait) });
            }
            tokio::time::sleep(wait).await;
        }
        let pass = self.change(target, |breaker, now| breaker.ask(now)).ok_or(BROKEN)?;
        Ok(Entry { gate: self, target, pass: Some(pass) })
    }

    pub(super) fn health(&self) -> Vec<ProviderHealth> {
        let now = self.now();
        let breakers = self.lock();
        let all = breakers.iter().map(|((provider, environment), breaker)| ProviderHealth {
            provider: provider.clone(),
            environment: *environment,
            breaker: breaker.state(),
            retry_in: breaker.retry_in(now),
        });
        all.collect()
    }

    fn is_broken(&self, target: &Target) -> bool {
        let now = self.now();
        let breakers = self.lock();
        let breaker = breakers.get(&(target.provider.name.clone(), target.environment));
        breaker.is_some_and(|breaker| match breaker.state() {
            BreakerState::Closed => false,
            BreakerState::Open => breaker.retry_in(now).is_some_and(|left| !left.is_zero()),
            BreakerState::HalfOpen => true,
        })
    }

    /// Says it in the log when calls stop, and when they begin again; not at each try in between.
    fn change<T>(&self, target: &Target, change: impl FnOnce(&mut Breaker, Duration) -> T) -> T {
        let (provider, environment) = (target.provider.name.as_str(), target.environment.as_str());
        let mut breakers = self.lock();
        let breaker = breakers.entry((target.provider.name.clone(), target.environment)).or_insert_with(|| Breaker::new(self.timeout));
        let before = breaker.state();
        let changed = change(breaker, self.now());
        match (before, breaker.state()) {
            (BreakerState::Closed, BreakerState::Open) => {
                tracing::error!(
                    provider,
                    environment,
                    state = "open",
                    "calls to a provider fail again and again: it is left alone for a while"
                );
            }
            (BreakerState::Open | BreakerState::HalfOpen, BreakerState::Closed) => {
                tracing::info!(provider, environment, state = "closed", "a provider answers again: calls are made as usual");
            }
            _ => {}
        }
        changed
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Name, Environment), Breaker>> {
        // Each change is one assignment: a panic elsewhere leaves nothing halfway.
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry<'_> {
    /// How the call ended.
    pub(super) fn told(mut self, answer: &Result<Reply, IssuerError>) {
        if let Ok(reply) = answer {
            let limits = &self.target.provider.limits;
            self.gate.pacer.heard(&LaneKey::of(self.target), limits, reply.quota(limits), self.gate.now());
        }
        self.end(health_of(answer));
    }

    fn end(&mut self, health: Health) {
        if let Some(pass) = self.pass.take() {
            self.gate.change(self.target, |breaker, now| breaker.told(pass, health, now));
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.end(Health::Unknown);
    }
}

/// A refusal is an answer. What no client understands isn't one.
fn health_of(answer: &Result<Reply, IssuerError>) -> Health {
    match answer {
        Ok(reply) if reply.tells_nothing() || matches!(reply.status, 300..=399) => Health::Failing,
        Ok(_) => Health::Well,
        Err(IssuerError::Unreachable(_) | IssuerError::Unclear(_)) => Health::Failing,
        Err(_) => Health::Unknown,
    }
}
