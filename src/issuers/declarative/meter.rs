//! What the answers told about quotas, and how many there were of which kind: for metrics. Never a path, never a value.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::reply::Reply;
use crate::domain::credential::Environment;
use crate::domain::ids::Name;
use crate::issuers::{IssuerError, Target};

/// The quota that is left, as an answer told last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    pub provider: Name,
    pub environment: Environment,
    /// Host of the environment; tenants have their own.
    pub host: String,
    pub remaining: u64,
    /// From that answer on, until the quota is full again.
    pub reset: Option<Duration>,
}

/// How many requests of one kind ended in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestCount {
    pub provider: Name,
    pub environment: Environment,
    /// `token`, `probe`, `create`, `list` or `revoke`.
    pub call: &'static str,
    /// `2xx` to `5xx`, `unreachable`, `unclear` or `impossible`.
    pub outcome: &'static str,
    pub count: u64,
}

/// Beyond that many hosts no new one is remembered: names in metrics stay bounded.
const HOSTS_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Meter {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    limits: BTreeMap<(Name, Environment, String), (u64, Option<Duration>)>,
    requests: BTreeMap<(Name, Environment, &'static str, &'static str), u64>,
}

impl Meter {
    pub(super) fn note(&self, target: &Target, call: &'static str, answer: &Result<Reply, IssuerError>) {
        let (name, environment) = (target.provider.name.clone(), target.environment);
        let mut seen = self.lock();
        *seen.requests.entry((name.clone(), environment, call, outcome_of(answer))).or_default() += 1;
        let Ok(reply) = answer else { return };
        let Some(remaining) = reply.remaining(&target.provider.limits) else { return };
        let host = target.base_url.origin().split("://").last().unwrap_or_default().to_owned();
        let key = (name, environment, host);
        if seen.limits.len() < HOSTS_MAX || seen.limits.contains_key(&key) {
            seen.limits.insert(key, (remaining, reply.reset(&target.provider.limits)));
        }
    }

    pub(super) fn limits(&self) -> Vec<RateLimit> {
        let seen = self.lock();
        let all = seen.limits.iter().map(|((provider, environment, host), (remaining, reset))| RateLimit {
            provider: provider.clone(),
            environment: *environment,
            host: host.clone(),
            remaining: *remaining,
            reset: *reset,
        });
        all.collect()
    }

    pub(super) fn requests(&self) -> Vec<RequestCount> {
        let seen = self.lock();
        let all = seen.requests.iter().map(|((provider, environment, call, outcome), count)| RequestCount {
            provider: provider.clone(),
            environment: *environment,
            call,
            outcome,
            count: *count,
        });
        all.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Numbers can't be left half-written: a panic elsewhere doesn't spoil them.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outcome_of(answer: &Result<Reply, IssuerError>) -> &'static str {
    match answer {
        Ok(reply) => match reply.status {
            0..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            500.. => "5xx",
        },
        Err(IssuerError::Unreachable(_)) => "unreachable",
        Err(IssuerError::Impossible(_)) => "impossible",
        Err(_) => "unclear",
    }
}
