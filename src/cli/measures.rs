//! Metrics of the daemon: what the engine counts, and what a scrape asks for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Metrics as Render;
use crate::engine::Engine;
use crate::engine::meter::Meter;
use crate::engine::views::CredentialStatus;
use crate::issuers::declarative::DeclarativeIssuer;
use crate::runtime::clock::wall_now;
use crate::runtime::metrics::{CredentialSample, Metrics};

/// A scrape looks at all credentials; the limit only bounds a page.
const PAGE_LENGTH: usize = 1000;

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

/// What `/metrics` answers: the argument says whether credentials are named.
pub(super) fn render(metrics: Metrics, engine: Arc<Engine>, issuer: Arc<DeclarativeIssuer>) -> Render {
    Arc::new(move |with_names| {
        for limit in issuer.limits() {
            metrics.rate_limit_remaining(limit.provider.as_str(), limit.environment.as_str(), limit.remaining);
        }
        let mut totals: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
        for seen in issuer.requests() {
            *totals.entry((seen.provider.to_string(), seen.outcome)).or_default() += seen.count;
        }
        for ((provider, outcome), total) in totals {
            metrics.provider_answered(&provider, outcome, total);
        }
        metrics.encode(&samples(&engine), with_names).unwrap_or_default()
    })
}

fn samples(engine: &Engine) -> Vec<CredentialSample> {
    let mut samples = Vec::new();
    let mut after = None;
    while let Some(page) = engine.status(None, after.as_ref(), PAGE_LENGTH) {
        samples.extend(page.credentials.iter().map(sample));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    samples
}

fn sample(credential: &CredentialStatus) -> CredentialSample {
    CredentialSample {
        name: credential.name.to_string(),
        provider: credential.provider.to_string(),
        environment: credential.environment.as_str(),
        age: credential.age_seconds.map(|age| Duration::from_secs(u64::try_from(age).unwrap_or(0))),
        until_deadline_seconds: credential.deadline_at.map(|deadline| deadline.duration_since(wall_now()).as_secs_f64()),
        verdict: credential.proof.as_ref().map(|proof| proof.verdict.as_str()),
        holders: u64::try_from(credential.holders_of_previous).unwrap_or(u64::MAX),
    }
}
