//! Runs the couriers: one task per application and way, at the start, on each change, and again after a failure.
//!
//! A rotation never waits for any of it. Only the process that leads delivers; the latest state is all that is promised, so a change
//! that comes while one is under way makes one more round, whatever its number.
//!
//! Where values go (`places.rs`) is in the journal before they go there, and is struck once they were taken away: what a document no
//! longer asks for is emptied whoever leads by then, and whatever was down when the document changed.

mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::clock::wall_now;
use super::metrics::Metrics;
use crate::delivery::stream::{Changes, StreamHub};
use crate::delivery::{Cargo, Courier, Outcome, Parcel};
use crate::domain::delivery::Way;
use crate::domain::dispatch::Place;
use crate::domain::ids::{Name, ObjectName};
use crate::domain::policy::Application;
use crate::engine::views::DeliveryState;
use crate::engine::{Engine, Reference};

/// How often a courier is called in one round: far more than an application has messages waiting. Then it is the next round's turn.
const CALLS_MAX: usize = 10_000;

/// How long a delivery that broke is left alone, and a journal that couldn't be asked.
const BROKEN_WAIT: Duration = Duration::from_secs(1);

/// Before it is looked again at who asks, when somebody came to an end: many may in the same moment.
const ENDED_WAIT: Duration = Duration::from_millis(100);

const ELSEWHERE: &str = "another replica leads, and delivers";

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
    /// The target has it all, and not every copy of the application: looked at again then, or soon.
    UnderWay {
        until: Option<Timestamp>,
    },
    Failed {
        retry_after: Option<Duration>,
    },
    /// What is asked for is there; what isn't any more couldn't be taken away.
    Left,
    /// Nothing is asked for, and what lies there stays for now.
    Kept,
    /// Another process began to lead meanwhile.
    Elsewhere,
    /// The document doesn't ask for it any more, and nothing of it is left.
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
        let mut led = leads.clone();
        let mut known = None;
        loop {
            let digest = self.engine.policies().digest.clone();
            if known.as_ref() != Some(&digest) {
                let is_all = self.follow_documents(&mut routes, &mut tasks, &leads, &stop).await;
                known = is_all.then_some(digest);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next() => {
                    if ended.is_err() {
                        // It begins anew, after a while: what broke it may still be there.
                        tracing::error!("a delivery broke, and begins anew");
                    }
                    sleep(if ended.is_err() { BROKEN_WAIT } else { ENDED_WAIT }).await;
                    while tasks.try_join_next().is_some_and(|other| other.is_ok()) {}
                    // Who came to an end because nobody asked may be asked for by now.
                    known = None;
                },
                Ok(()) = led.changed() => known = None,
                () = sleep(BROKEN_WAIT), if known.is_none() => {}
                () = changes.next() => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// A route for each way that is asked for, and for each that brought something which may still lie there. `false`: who leads
    /// couldn't read the latter.
    async fn follow_documents(
        &self,
        routes: &mut Routes,
        tasks: &mut JoinSet<()>,
        leads: &watch::Receiver<bool>,
        stop: &CancellationToken,
    ) -> bool {
        let mut wanted: BTreeSet<(Name, Way)> = self.engine.asked_deliveries().into_iter().collect();
        let brought = if *leads.borrow() { self.engine.ways_with_places().await } else { Ok(Vec::new()) };
        let is_all = brought.is_ok();
        wanted.extend(brought.unwrap_or_default());
        routes.retain(|key, (token, task)| {
            // Without the journal nobody knows who may go.
            let stays = (wanted.contains(key) || !is_all) && !task.is_finished();
            if !stays {
                token.cancel();
                // A row that has no document is only its task's to take away.
                self.engine.note_left(&key.0, key.1, None);
            }
            stays
        });
        for (application, way) in wanted {
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
                delivered: None,
                was_left: false,
                was_under_way: false,
                tried: None,
            };
            let task = tasks.spawn(route.run(leads.clone(), token.clone()));
            routes.insert((application, way), (token, task));
        }
        is_all
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
    was_left: bool,
    was_under_way: bool,
    /// Its document at the last round.
    tried: Option<Arc<Application>>,
    /// What its target is known to have.
    delivered: Option<Delivered>,
}

/// How often in a row it failed.
#[derive(Debug, Default)]
struct Failures {
    to_bring: u32,
    to_empty: u32,
}

/// What was delivered last, and by which document.
struct Delivered {
    document: Arc<Application>,
    references: Vec<Reference>,
}

impl Route {
    /// Until `stop`, or until nobody asks for it any more and nothing of it is left.
    async fn run(mut self, mut leads: watch::Receiver<bool>, stop: CancellationToken) {
        let mut failures = Failures::default();
        loop {
            if !*leads.borrow() {
                self.stand_by();
            }
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
            if round == Round::Unasked {
                return;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.wait_after(round, &mut failures, &mut leads) => {}
            }
        }
    }

    fn stand_by(&mut self) {
        (self.was_failing, self.was_left) = (false, false);
        let (way, elsewhere) = (self.courier.way(), Some(ELSEWHERE.to_owned()));
        match self.engine.recipient(&self.application, way) {
            Some(_) => self.engine.note_delivery(&self.application, way, DeliveryState::Waiting, elsewhere, Vec::new(), Vec::new()),
            None => self.engine.note_left(&self.application, way, None),
        }
    }

    /// Until there may be something to do.
    async fn wait_after(&mut self, round: Round, failures: &mut Failures, leads: &mut watch::Receiver<bool>) {
        let (way, now) = (self.courier.way(), Instant::now());
        match round {
            Round::Unasked => {}
            Round::UpToDate => {
                *failures = Failures::default();
                self.rest(leads, now + self.engine.look_at_targets_every()).await;
            }
            Round::Left => {
                failures.to_bring = 0;
                failures.to_empty = failures.to_empty.saturating_add(1);
                // What is new doesn't wait for that.
                self.rest(leads, now + self.engine.delivery_wait(&self.application, way, failures.to_empty)).await;
            }
            Round::Kept => tokio::select! {
                Ok(()) = leads.changed() => {}
                () = self.changes.next() => {}
                () = sleep(self.engine.look_at_targets_every()) => {}
            },
            Round::Elsewhere => tokio::select! {
                Ok(()) = leads.changed() => {}
                () = sleep(BROKEN_WAIT) => {}
            },
            Round::UnderWay { until } => {
                failures.to_bring = 0;
                tokio::select! {
                    () = self.changes.next() => {}
                    () = sleep(self.engine.rollout_wait(until, wall_now())) => {}
                }
            }
            Round::Failed { retry_after } => {
                failures.to_bring = failures.to_bring.saturating_add(1);
                let wait = self.engine.delivery_wait(&self.application, way, failures.to_bring);
                let wait = retry_after.map_or(wait, |asked| asked.clamp(wait, self.engine.give_up_after().max(wait)));
                tokio::select! {
                    // Who leads anew tries at once, and so does who has another document.
                    Ok(()) = leads.changed() => failures.to_bring = 0,
                    () = self.another_document() => failures.to_bring = 0,
                    () = sleep(wait) => {}
                }
            }
        }
    }

    async fn another_document(&mut self) {
        while self.engine.recipient(&self.application, self.courier.way()) == self.tried {
            self.changes.next().await;
        }
    }

    /// Until something has changed that this application sees, who leads has changed, or it is time to look at the target all the
    /// same. What others are told of costs no look at it.
    async fn rest(&mut self, leads: &mut watch::Receiver<bool>, look_at: Instant) {
        loop {
            tokio::select! {
                () = self.changes.next() => if self.has_changed().await { return },
                Ok(()) = leads.changed() => return,
                () = sleep_until(look_at) => return,
            }
        }
    }

    async fn has_changed(&self) -> bool {
        match (self.engine.recipient(&self.application, self.courier.way()), &self.delivered) {
            (None, None) => false,
            (Some(document), Some(delivered)) => {
                *document != *delivered.document
                    || self.engine.references(&document, self.courier.way()).await.as_ref() != Ok(&delivered.references)
            }
            _ => true,
        }
    }

    /// All is where it is asked for.
    async fn arrived(&mut self, cargo: &Cargo<'_>, document: &Arc<Application>) -> Round {
        self.engine.has_arrived(&self.application, self.courier.way(), &cargo.parcels);
        let references = cargo.parcels.iter().map(reference).collect();
        self.delivered = Some(Delivered { document: Arc::clone(document), references });
        self.was_failing = false;
        // What stays for now is looked at by a later round.
        if let Err(round) = self.clear().await {
            return round;
        }
        self.up_to_date().await;
        Round::UpToDate
    }

    /// Brings the target up to date.
    async fn round(&mut self) -> Round {
        let way = self.courier.way();
        self.tried = self.engine.recipient(&self.application, way);
        let Some(document) = self.tried.clone() else { return self.end().await };
        // Of this document, and before anything can be withheld: from now on nobody takes away what lies there.
        if let Some(place) = Place::of(&document.delivery, way, self.engine.replica())
            && let Err(round) = self.will_lie_at(&place).await
        {
            return round;
        }
        let parcels = match self.engine.parcels(&document, way).await {
            Ok(parcels) => parcels,
            Err(withheld) => return self.failed(withheld.0, Vec::new(), None).await,
        };
        let mut cargo = Cargo { application: &document, parcels, now: wall_now(), give_up_after: self.engine.give_up_after() };
        for _ in 0..CALLS_MAX {
            // Messages carry the time of their try.
            cargo.now = wall_now();
            match self.courier.deliver(&cargo).await {
                Ok(progress) => {
                    self.count(progress.outcome);
                    if let Outcome::UnderWay { until } = progress.outcome {
                        self.under_way().await;
                        return Round::UnderWay { until };
                    }
                    if progress.outcome == Outcome::TakenUp && !self.take_up(&cargo).await {
                        return self.failed("that it is in use everywhere couldn't be recorded", Vec::new(), None).await;
                    }
                    if progress.left == 0 {
                        return self.arrived(&cargo, &document).await;
                    }
                }
                Err(error) => {
                    if !self.engine.leads() {
                        return Round::Elsewhere;
                    }
                    let remark = self.words_for(error).await;
                    return self.failed(&remark.text, remark.stragglers, error.retry_after()).await;
                }
            }
        }
        self.failed("there is more to deliver than one round takes", Vec::new(), None).await
    }

    fn count(&mut self, outcome: Outcome) {
        let (way, application) = (self.courier.way().as_str(), self.application.as_str());
        match outcome {
            Outcome::Unchanged => {}
            Outcome::UnderWay { .. } => self.was_under_way = true,
            // Said at each look: it is news once.
            Outcome::TakenUp if !std::mem::take(&mut self.was_under_way) => {}
            Outcome::Delivered | Outcome::TakenUp => {
                self.metrics.delivery_ended(way, "delivered");
                tracing::info!(application, kind = way, "delivered");
            }
            Outcome::GivenUp(reason) => {
                self.metrics.delivery_ended(way, "given-up");
                tracing::error!(application, kind = way, reason, "a message was given up");
            }
        }
    }

    /// Copies that run with something older are named, and nothing counts as served before they are gone.
    async fn under_way(&mut self) {
        self.was_failing = false;
        let remark = self.courier.remark(&self.application).await;
        let (reason, stragglers) = remark.map(|remark| (remark.text, remark.stragglers)).unzip();
        let (way, stragglers) = (self.courier.way(), stragglers.unwrap_or_default());
        self.engine.note_delivery(&self.application, way, DeliveryState::Waiting, reason, stragglers, Vec::new());
    }

    /// Whether it is on record that every copy of the application runs with this.
    async fn take_up(&self, cargo: &Cargo<'_>) -> bool {
        let versions: Vec<_> = cargo.parcels.iter().map(|parcel| (parcel.credential.clone(), parcel.version.clone())).collect();
        self.engine.taken_up(&self.application, self.courier.way(), &versions).await.is_ok()
    }

    async fn up_to_date(&mut self) {
        self.was_failing = false;
        let dead = self.courier.dead_letters(&self.application).await;
        let reason = dead.first().map(|letter| letter.reason.clone());
        let state = if dead.is_empty() { DeliveryState::Delivered } else { DeliveryState::Dead };
        self.engine.note_delivery(&self.application, self.courier.way(), state, reason, Vec::new(), dead);
    }

    async fn failed(&mut self, reason: &str, stragglers: Vec<ObjectName>, retry_after: Option<Duration>) -> Round {
        let way = self.courier.way();
        self.was_left = false;
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
        self.engine.note_delivery(&self.application, way, DeliveryState::Failing, Some(reason.to_owned()), stragglers, dead);
        Round::Failed { retry_after }
    }
}

fn reference(parcel: &Parcel) -> Reference {
    Reference { credential: parcel.credential.clone(), version: parcel.version.clone(), revision: parcel.revision }
}
