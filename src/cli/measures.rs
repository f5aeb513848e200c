//! Metrics of the daemon: what the engine counts, and what a scrape asks for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Metrics as Render;
use crate::domain::delivery::Way;
use crate::engine::Engine;
use crate::engine::meter::Meter;
use crate::engine::views::{CredentialMeasure, DeliveryState, DeliveryStatus};
use crate::issuers::declarative::{AnswerObserver, DeclarativeIssuer};
use crate::issuers::{BreakerState, Issuer};
use crate::runtime::metrics::{CredentialSample, Metrics};

/// The engine's counts, as metrics.
#[derive(Debug)]
pub(super) struct Counting(pub(super) Metrics);

impl Meter for Counting {
    fn rotation_ended(&self, outcome: &'static str) {
        self.0.rotation_ended(outcome);
    }

    fn step_took(&self, step: &'static str, took: Duration) {
        self.0.step_took(step, took);
    }

    fn pushed(&self, latency: Duration) {
        self.0.pushed(latency);
    }
}

/// Providers' answers, as metrics.
pub(super) fn answers(metrics: Metrics) -> AnswerObserver {
    Arc::new(move |provider, environment, took| metrics.provider_took(provider.as_str(), environment.as_str(), took))
}

/// What `/metrics` answers: the argument says whether credentials are named.
pub(super) fn render(metrics: Metrics, engine: Arc<Engine>, issuer: Arc<DeclarativeIssuer>) -> Render {
    Arc::new(move |with_names| {
        tell_of_providers(&metrics, &issuer);
        tell_of_deliveries(&metrics, &engine);
        let store = engine.store_status();
        metrics.store(store.breaker != BreakerState::Closed, Duration::from_secs(store.stale_for_seconds.unwrap_or_default()));
        if let Some(leadership) = engine.leadership() {
            metrics.leads(leadership.leads);
        }
        let samples: Vec<CredentialSample> = engine.measures().iter().map(sample).collect();
        metrics.encode(&samples, &engine.problem_counts(), with_names).unwrap_or_default()
    })
}

fn tell_of_deliveries(metrics: &Metrics, engine: &Engine) {
    let all = engine.deliveries();
    for way in Way::ALL {
        let of_way: Vec<&DeliveryStatus> = all.iter().filter(|status| status.way == way).collect();
        let failing = of_way
            .iter()
            .filter(|status| matches!(status.state, DeliveryState::Failing | DeliveryState::Dead | DeliveryState::Left))
            .count();
        metrics.delivery_standing(way.as_str(), failing, of_way.iter().map(|status| status.dead_letters.len()).sum());
    }
}

fn tell_of_providers(metrics: &Metrics, issuer: &DeclarativeIssuer) {
    // Tenants have hosts of their own: the one with least left counts.
    let mut least = BTreeMap::new();
    for limit in issuer.limits() {
        let left = least.entry((limit.provider, limit.environment)).or_insert(limit.remaining);
        *left = limit.remaining.min(*left);
    }
    for ((provider, environment), remaining) in least {
        metrics.rate_limit_remaining(provider.as_str(), environment.as_str(), remaining);
    }
    let mut totals = BTreeMap::new();
    for seen in issuer.requests() {
        *totals.entry((seen.provider, seen.environment, seen.outcome)).or_insert(0) += seen.count;
    }
    for ((provider, environment, outcome), total) in totals {
        metrics.provider_answered(provider.as_str(), environment.as_str(), outcome, total);
    }
    for one in issuer.health() {
        metrics.breaker(one.provider.as_str(), one.environment.as_str(), one.breaker != BreakerState::Closed);
    }
}

fn sample(measured: &CredentialMeasure) -> CredentialSample {
    CredentialSample {
        name: measured.name.to_string(),
        provider: measured.provider.to_string(),
        environment: measured.environment.as_str(),
        age: measured.age.map(|age| Duration::try_from(age).unwrap_or_default()),
        until_deadline_seconds: measured.until_deadline.map(|left| left.as_secs_f64()),
        verdict: measured.verdict.map(|verdict| verdict.as_str()),
        request: measured.request.map(|(asks, urgency, left)| (asks.as_str(), urgency.as_str(), left.as_secs_f64())),
        store_changed: measured.store_changed,
        holders: u64::try_from(measured.holders_of_previous).unwrap_or(u64::MAX),
        holders_after_overlap: u64::try_from(measured.holders_after_overlap).unwrap_or(u64::MAX),
        rollout_step: measured.rollout_step.map(|step| u64::try_from(step).unwrap_or(u64::MAX)),
    }
}
