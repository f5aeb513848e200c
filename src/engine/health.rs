//! How the providers and the store stand, and the numbers of all credentials in one go.

use std::collections::BTreeMap;

use super::Engine;
use super::cell::Cell;
use super::deliveries::delivery_problem;
use super::manual::asked_for;
use super::rollout::rolled_out;
use super::status::{is_forgotten, overlap_end, unmanaged};
use super::views::{CredentialMeasure, ProviderStatus, StatusProblem, StoreStatus};
use crate::domain::credential::Environment;
use crate::domain::due::deadline_of;
use crate::domain::ids::Name;
use crate::issuers::{BreakerState, ProviderHealth};
use crate::stores::Availability;

impl Engine {
    /// The environments that these credentials are called at, each once.
    pub(super) fn providers_of<'a>(&self, cells: impl Iterator<Item = &'a Cell>) -> Vec<ProviderStatus> {
        let health = self.seams.issuer.health();
        let health: BTreeMap<(&Name, Environment), &ProviderHealth> =
            health.iter().map(|one| ((&one.provider, one.environment), one)).collect();
        let now = self.seams.clock.now().wall;
        let mut rows = BTreeMap::new();
        for context in cells.filter_map(|cell| self.context(&cell.name)) {
            let (name, environment) = (context.provider.name.clone(), context.credential.environment);
            let known = health.get(&(&name, environment));
            let row = ProviderStatus {
                name: name.clone(),
                environment,
                endpoint: self.base_url(&context).url,
                breaker: known.map_or(BreakerState::Closed, |one| one.breaker),
                retry_at: known.and_then(|one| now.checked_add(one.retry_in?).ok()),
            };
            rows.insert((name, environment, row.endpoint.clone()), row);
        }
        rows.into_values().collect()
    }

    /// Nothing of these goes on until the provider is well again.
    pub(super) fn provider_problems(&self) -> Vec<StatusProblem> {
        let broken = self.seams.issuer.health().into_iter().filter(|one| one.breaker != BreakerState::Closed);
        let problems = broken.map(|one| StatusProblem {
            credential: None,
            code: "provider-breaker-open".to_owned(),
            message: format!(
                "{} fails in {} again and again: it is tried with one call now and then until it answers; look whether it can be reached",
                one.provider, one.environment
            ),
        });
        problems.collect()
    }

    /// Whether the store answers, as far as is known.
    pub fn store_status(&self) -> StoreStatus {
        match self.seams.store.availability() {
            Availability::Here => StoreStatus { breaker: BreakerState::Closed, stale_for_seconds: None },
            Availability::Away { stale_for, .. } => {
                StoreStatus { breaker: BreakerState::Open, stale_for_seconds: stale_for.map(|stale_for| stale_for.as_secs()) }
            }
        }
    }

    /// What applications get meanwhile is said with it.
    pub(super) fn store_problem(&self) -> Option<StatusProblem> {
        let Availability::Away { stale_for, is_servable } = self.seams.store.availability() else { return None };
        let since = stale_for.map_or_else(String::new, |stale_for| format!(" for {} s", stale_for.as_secs()));
        let served = if is_servable {
            "applications get what is kept here, marked `stale`, within `cache.maxStale`; nothing is rotated meanwhile"
        } else {
            "what is kept here is older than `cache.maxStale` allows: applications are told to come back later, and nothing is rotated"
        };
        let message = format!("the store hasn't answered{since}: {served}");
        Some(StatusProblem { credential: None, code: "store-away".to_owned(), message })
    }

    /// How often each code stands among the problems of all credentials, of the providers, of deliveries and of the daemon itself.
    pub fn problem_counts(&self) -> BTreeMap<String, u64> {
        let now = self.seams.clock.now().wall;
        let policies = self.policies();
        let mut counts = BTreeMap::new();
        let mut count = |problem: StatusProblem| *counts.entry(problem.code).or_default() += 1;
        let deliveries = self.deliveries();
        let of_deliveries = deliveries.iter().filter_map(delivery_problem);
        self.own_problems().into_iter().chain(self.provider_problems()).chain(of_deliveries).for_each(&mut count);
        for cell in self.all_cells() {
            match self.context(&cell.name) {
                Some(context) => {
                    let standing = self.standing(&cell, &context);
                    self.credential_problems(&cell, &context, &standing, now).into_iter().for_each(&mut count);
                }
                None if !policies.credentials.contains_key(&cell.name) && !is_forgotten(&cell) => count(unmanaged(&cell)),
                None => {}
            }
        }
        counts
    }

    /// The numbers of every credential that has a document, in one pass.
    pub fn measures(&self) -> Vec<CredentialMeasure> {
        self.all_cells().iter().filter_map(|cell| self.measure(cell)).collect()
    }

    fn measure(&self, cell: &Cell) -> Option<CredentialMeasure> {
        let context = self.context(&cell.name)?;
        let ledger = cell.ledger();
        let now = self.seams.clock.now().wall;
        let current = ledger.current_facts();
        let dying = ledger.previous().and_then(|version| ledger.facts_of(version)).or(current);
        let holders = self.blockers(&context, &ledger).len();
        Some(CredentialMeasure {
            name: cell.name.clone(),
            provider: context.provider.name.clone(),
            environment: context.credential.environment,
            age: current.map(|facts| now.duration_since(facts.issued_at)),
            until_deadline: dying.map(|facts| deadline_of(facts, &context.policy).duration_since(now)),
            verdict: current.and_then(|facts| facts.proof.as_ref()).map(|proof| proof.verdict),
            holders_of_previous: holders,
            holders_after_overlap: if overlap_end(&ledger).is_some_and(|end| end <= now) { holders } else { 0 },
            request: asked_for(&ledger)
                .map(|(asks, request, _)| (asks, request.urgency_at(now).max(request.urgency), request.deadline_at.duration_since(now))),
            store_changed: cell.drift().is_some(),
            rollout_step: rolled_out(&ledger).and_then(|rotation| rotation.rollout.as_ref()).map(|rollout| rollout.step),
        })
    }
}
