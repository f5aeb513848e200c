//! Runs the couriers: one task per application and way, at the start, on each change, and again after a failure.
//!
//! A rotation never waits for any of it. Only the process that leads delivers; the latest state is all that is promised, so a change
//! that comes while one is under way makes one more round, whatever its number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::clock::wall_now;
use super::metrics::Metrics;
use crate::delivery::stream::{Changes, StreamHub};
use crate::delivery::{Cargo, Courier, Outcome};
use crate::domain::delivery::Way;
use crate::domain::ids::Name;
use crate::engine::Engine;
use crate::engine::views::DeliveryState;

/// How often a courier is called in one round: far more than an application has messages waiting. Then it is the next round's turn.
const CALLS_MAX: usize = 10_000;

/// How long a delivery that broke is left alone.
const BROKEN_WAIT: Duration = Duration::from_secs(1);

/// What ends each task, and whether it has ended.
type Routes = BTreeMap<(Name, Way), (CancellationToken, AbortHandle)>;

/// All couriers of the process.
#[derive(Debug)]
pub struct Couriers {
    engine: Arc<Engine>,
    ways: Vec<Arc<dyn Courier>>,
    hub: Arc<StreamHub>,
    metrics: Metrics,
}

/// How one round came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    UpToDate,
    Failed {
        retry_after: Option<Duration>,
    },
    /// The document doesn't ask for it any more.
    Unasked,
}

impl Couriers {
    pub fn new(engine: Arc<Engine>, ways: Vec<Arc<dyn Courier>>, hub: Arc<StreamHub>, metrics: Metrics) -> Couriers {
        Couriers { engine, ways, hub, metrics }
    }

    /// Until `stop`. While `leads` says false nothing new begins; a call that is under way comes to its end.
    pub async fn run(self, leads: watch::Receiver<bool>, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut routes = Routes::new();
        // Subscribed before the first look, so that no document can come unseen in between.
        let mut changes = self.hub.subscribe();
        let mut known = None;
        loop {
            let digest = self.engine.policies().digest.clone();
            if known.as_ref() != Some(&digest) {
                self.follow_documents(&mut routes, &mut tasks, &leads, &stop);
                known = Some(digest);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next() => if ended.is_err() {
                    // It begins anew, after a while: what broke it may still be there.
                    tracing::error!("a delivery broke, and begins anew");
                    sleep(BROKEN_WAIT).await;
                    known = None;
                },
                () = changes.next() => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    fn follow_documents(&self, routes: &mut Routes, tasks: &mut JoinSet<()>, leads: &watch::Receiver<bool>, stop: &CancellationToken) {
        let asked = self.engine.asked_deliveries();
        routes.retain(|key, (token, task)| {
            let stays = asked.contains(key) && !task.is_finished();
            if !stays {
                token.cancel();
            }
            stays
        });
        for (application, way) in asked {
            let Some(courier) = self.ways.iter().find(|courier| courier.way() == way) else { continue };
            if routes.contains_key(&(application.clone(), way)) {
                continue;
            }
            let token = stop.child_token();
            let route = Route {
                engine: Arc::clone(&self.engine),
                courier: Arc::clone(courier),
                changes: self.hub.subscribe(),
                metrics: self.metrics.clone(),
                application: application.clone(),
                was_failing: false,
            };
            let task = tasks.spawn(route.run(leads.clone(), token.clone()));
            routes.insert((application, way), (token, task));
        }
    }
}

/// One application, one way.
struct Route {
    engine: Arc<Engine>,
    courier: Arc<dyn Courier>,
    changes: Changes,
    metrics: Metrics,
    application: Name,
    was_failing: bool,
}

impl Route {
    async fn run(mut self, mut leads: watch::Receiver<bool>, stop: CancellationToken) {
        let mut failures = 0u32;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // Who says who leads is gone at the end of the process only.
                led = leads.wait_for(|leads| *leads) => if led.is_err() { return },
            }
            // A file is replaced by a thread that goes on, and a message that was cut off is sent again under its own id.
            let round = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                round = self.round() => round,
            };
            let way = self.courier.way();
            match round {
                Round::Unasked => tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.changes.next() => {}
                },
                Round::UpToDate => {
                    failures = 0;
                    let every = self.engine.look_at_targets_every();
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.changes.next() => {}
                        () = sleep(every) => {}
                    }
                }
                Round::Failed { retry_after } => {
                    failures = failures.saturating_add(1);
                    let wait = self.engine.delivery_wait(&self.application, way, failures);
                    let wait = retry_after.map_or(wait, |asked| asked.clamp(wait, self.engine.give_up_after().max(wait)));
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Brings the target up to date.
    async fn round(&mut self) -> Round {
        let way = self.courier.way();
        let Some(document) = self.engine.recipient(&self.application, way) else { return Round::Unasked };
        let parcels = match self.engine.parcels(&document, way).await {
            Ok(parcels) => parcels,
            Err(withheld) => return self.failed(withheld.0, None).await,
        };
        let mut cargo = Cargo { application: &document, parcels, now: wall_now(), give_up_after: self.engine.give_up_after() };
        for _ in 0..CALLS_MAX {
            // Messages carry the time of their try.
            cargo.now = wall_now();
            match self.courier.deliver(&cargo).await {
                Ok(progress) => {
                    self.count(progress.outcome);
                    if progress.left == 0 {
                        self.engine.has_arrived(&self.application, way, &cargo.parcels);
                        self.up_to_date().await;
                        return Round::UpToDate;
                    }
                }
                Err(error) => return self.failed(&error.to_string(), error.retry_after()).await,
            }
        }
        self.failed("there is more to deliver than one round takes", None).await
    }

    fn count(&self, outcome: Outcome) {
        let (way, application) = (self.courier.way().as_str(), self.application.as_str());
        match outcome {
            Outcome::Unchanged => {}
            Outcome::Delivered => {
                self.metrics.delivery_ended(way, "delivered");
                tracing::info!(application, kind = way, "delivered");
            }
            Outcome::GivenUp(reason) => {
                self.metrics.delivery_ended(way, "given-up");
                tracing::error!(application, kind = way, reason, "a message was given up");
            }
        }
    }

    async fn up_to_date(&mut self) {
        self.was_failing = false;
        let dead = self.courier.dead_letters(&self.application).await;
        let reason = dead.first().map(|letter| letter.reason.clone());
        let state = if dead.is_empty() { DeliveryState::Delivered } else { DeliveryState::Dead };
        self.engine.note_delivery(&self.application, self.courier.way(), state, reason, dead);
    }

    async fn failed(&mut self, reason: &str, retry_after: Option<Duration>) -> Round {
        let way = self.courier.way();
        self.metrics.delivery_ended(way.as_str(), "failed");
        // Once at the first failure: `status` says for how long it goes on.
        if !std::mem::replace(&mut self.was_failing, true) {
            tracing::warn!(
                application = self.application.as_str(),
                kind = way.as_str(),
                reason,
                "couldn't be delivered; it is tried again"
            );
        }
        let dead = self.courier.dead_letters(&self.application).await;
        self.engine.note_delivery(&self.application, way, DeliveryState::Failing, Some(reason.to_owned()), dead);
        Round::Failed { retry_after }
    }
}
