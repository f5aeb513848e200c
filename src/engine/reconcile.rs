//! The loop: looks at all credentials, drives those that have something to do, earliest deadline first.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::agenda::Agenda;
use super::cell::Cell;
use super::drift::store_look_due;
use super::gather::{Context, Documents};
use super::manual::removal_due;
use super::status::{blocker_text, is_overdue};
use super::verify::{check_due, sweep_due};
use crate::domain::due::{Decision, deadline_of, decide};
use crate::domain::holders::Blocker;
use crate::domain::ids::Name;
use crate::domain::ledger::Ledger;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::rotation::Step;
use crate::journal::Heartbeat;

/// How many credentials are driven at once.
const DRIVEN_MAX: usize = 64;
/// How long the steps under way may take to end when the daemon stops; what is cut off then is recovered at the next start.
const STOP_WITHIN: Duration = Duration::from_secs(6);

/// What the look at one credential says.
enum Look {
    Act {
        deadline: Timestamp,
    },
    /// Nothing to do for so long.
    Rest(Duration),
}

/// A wait that is over, or nearly, still lets others have their turn.
const REST_MIN: Duration = Duration::from_millis(10);

/// How often one turn goes over all credentials: each time, less is left to do.
const PASSES_MAX: usize = 64;

/// What a look at several credentials found.
struct Due {
    /// Earliest deadline first (I14).
    cells: Vec<Arc<Cell>>,
    /// How long the others, and the leases, have nothing to do.
    rest: Duration,
}

impl Engine {
    /// Runs until `stop`; then lets the steps under way end.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut driven = JoinSet::new();
        let mut agenda = Agenda::default();
        // Running time of the next look at all credentials; until then only at those that something happened to, or whose wait is
        // over.
        let mut all_at = Duration::ZERO;
        while !stop.is_cancelled() {
            self.expire_own_leases().await;
            self.beat(false).await;
            self.look_around(&mut agenda, &mut all_at);
            self.spawn_ready(&mut driven, &mut agenda);
            let next = [agenda.next_rested(), self.next_expiry()].into_iter().flatten().min().unwrap_or(Duration::MAX);
            let running = self.seams.clock.now().running;
            let rest = next.saturating_sub(running).max(REST_MIN).min(all_at.min(self.beat_at()).saturating_sub(running));
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(rest) => {}
                Some(ended) = driven.join_next() => self.driven(ended),
            }
        }
        let ended = tokio::time::timeout(STOP_WITHIN, async { while driven.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!("steps under way were cut off; the next start takes them up");
        }
        self.beat(true).await;
    }

    /// One turn of the loop, and all that it starts, awaited: leases that are over, the heartbeat, and whatever has something to
    /// do, one credential after the other, until all of them wait. Says how long nothing is due by time. For simulations: the
    /// same steps as [`Engine::run`], in an order that repeats.
    pub async fn turn(&self) -> Duration {
        self.expire_own_leases().await;
        self.beat(false).await;
        for _ in 0..PASSES_MAX {
            let due = self.due(self.all_cells());
            if due.cells.is_empty() {
                return due.rest;
            }
            for cell in due.cells {
                self.drive(&cell).await;
            }
        }
        Duration::ZERO
    }

    /// The store answers again: what waited for it is tried now, and not when its patience ends.
    pub async fn store_returned(&self) {
        tracing::info!("the store answers again");
        for cell in self.all_cells() {
            // Whoever drives it now finds that by itself.
            if let Ok(mut work) = cell.work.try_lock() {
                work.backoff.succeeded();
                work.upkeep_backoff.succeeded();
            }
            self.look_at(&cell.name);
        }
    }

    /// A credential was driven: there may be more to do, or a time to wait for.
    fn driven(&self, ended: Result<Name, tokio::task::JoinError>) {
        match ended {
            Ok(name) => self.look_at(&name),
            Err(error) if error.is_panic() => tracing::error!("a task that drove a rotation panicked; it is taken up again"),
            Err(_) => {}
        }
    }

    /// Writes the heartbeat when it is due, so that a restart loses little of the running time.
    async fn beat(&self, now_whatever: bool) {
        let now = self.seams.clock.now();
        if (now.running < self.beat_at() && !now_whatever) || !self.leads() {
            return;
        }
        let beat = Heartbeat { audit: self.seams.audit.anchor(), ..self.seams.clock.heartbeat() };
        if self.seams.journal.write_heartbeat(self.term(), beat).await.is_err() {
            tracing::warn!("the heartbeat couldn't be written");
        }
        let next = now.running + self.part_of_shortest(60, Duration::from_millis(500), Duration::from_secs(30));
        *self.beat_at.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// Running time of the next heartbeat.
    fn beat_at(&self) -> Duration {
        *self.beat_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part of the shortest `maxAge` in use, within bounds.
    pub(super) fn part_of_shortest(&self, part: u32, least: Duration, most: Duration) -> Duration {
        let shortest = self.policies().shortest_max_age();
        shortest.map_or(most, |span| (span.as_duration() / part).clamp(least, most))
    }

    /// Looks at all credentials when it is time for that, else at those that something happened to, or whose wait is over.
    fn look_around(&self, agenda: &mut Agenda, all_at: &mut Duration) {
        let running = self.seams.clock.now().running;
        let mut asked = std::mem::take(&mut *self.looks.lock().unwrap_or_else(PoisonError::into_inner));
        let cells = if running >= *all_at {
            *all_at = running + self.part_of_shortest(100, Duration::from_millis(100), Duration::from_secs(10));
            agenda.clear();
            self.all_cells()
        } else {
            asked.extend(agenda.take_rested(running));
            asked.iter().filter_map(|name| self.cell(name)).collect()
        };
        let documents = self.documents();
        for cell in cells {
            match self.look(&documents, &cell) {
                Some(Look::Act { deadline }) => agenda.put_ready(&cell.name, deadline),
                // The next look at all comes first.
                Some(Look::Rest(rest)) if running.saturating_add(rest) >= *all_at => agenda.strike(&cell.name),
                Some(Look::Rest(rest)) => agenda.put_resting(&cell.name, running + rest),
                None => agenda.strike(&cell.name),
            }
        }
    }

    /// Starts driving what has something to do; the others' turn comes when one of those under way has ended.
    fn spawn_ready(self: &Arc<Self>, driven: &mut JoinSet<Name>, agenda: &mut Agenda) {
        while driven.len() < DRIVEN_MAX
            && let Some(name) = agenda.take_ready()
        {
            let Some(cell) = self.cell(&name) else { continue };
            let engine = self.clone();
            driven.spawn(async move {
                engine.drive(&cell).await;
                cell.name.clone()
            });
        }
    }

    /// Which of these credentials have something to do, and when the next of the others, or a lease, has.
    fn due(&self, cells: Vec<Arc<Cell>>) -> Due {
        let running = self.seams.clock.now().running;
        let documents = self.documents();
        let mut rest = self.next_expiry().map_or(Duration::MAX, |expiry| expiry.saturating_sub(running));
        let mut due: Vec<(Timestamp, Arc<Cell>)> = Vec::new();
        for cell in cells {
            match self.look(&documents, &cell) {
                Some(Look::Act { deadline }) => due.push((deadline, cell)),
                Some(Look::Rest(its)) => rest = rest.min(its),
                None => {}
            }
        }
        due.sort_by_key(|(deadline, _)| *deadline);
        if is_on(Mutant::LatestDeadlineFirst) {
            due.reverse();
        }
        Due { cells: due.into_iter().map(|(_, cell)| cell).collect(), rest: rest.max(REST_MIN) }
    }

    /// `None`: it is being driven, or has no document.
    fn look(&self, documents: &Arc<Documents>, cell: &Cell) -> Option<Look> {
        let work = cell.work.try_lock().ok()?;
        let context = Engine::context_in(Arc::clone(documents), &cell.name)?;
        let now = self.seams.clock.now();
        if work.backoff.is_waiting(now.running) {
            return Some(Look::Rest(work.backoff.until() - now.running));
        }
        let ledger = cell.ledger();
        let deadline = ledger.current_facts().map_or(now.wall, |facts| deadline_of(facts, &context.policy));
        if self.must_be_verified(&context, &ledger) {
            return Some(Look::Act { deadline });
        }
        let are_ours = cell.drift().is_none_or(|drift| drift.leaves_bytes());
        let upkeep = (are_ours && (sweep_due(&work, &context, now.running) || check_due(&work, &context, &ledger, now)))
            || store_look_due(cell, &work, &context, &ledger, now.running)
            || removal_due(&work, &context, &ledger, now.running);
        if upkeep && ledger.current.is_some() && !work.upkeep_backoff.is_waiting(now.running) {
            return Some(Look::Act { deadline });
        }
        let gathered = self.gather(&context, &ledger);
        let until = match decide(&self.facts(&context, &ledger, &work, &gathered)) {
            Decision::Step(Step::Wait(wait)) => {
                self.alert_if_overdue(cell, &context, &ledger, &gathered.blockers);
                wait.until
            }
            // The next look at the store decides.
            Decision::Due { .. } if cell.drift().is_some() => None,
            Decision::Due { .. } | Decision::Step(_) => return Some(Look::Act { deadline }),
            Decision::Steady { wake_at } => Some(wake_at),
            Decision::Blocked { until, .. } => until,
            Decision::Missing | Decision::Stuck { .. } => None,
        };
        let rest = until.map(|until| Duration::try_from(until.duration_since(now.wall)).unwrap_or_default());
        Some(Look::Rest(rest.unwrap_or(Duration::MAX)))
    }

    /// Says it loudly, once, when an old key outlives its deadline because somebody holds it.
    fn alert_if_overdue(&self, cell: &Cell, context: &Context, ledger: &Ledger, blockers: &[Blocker]) {
        let Some(old) = ledger.previous().filter(|_| !blockers.is_empty()) else { return };
        if is_overdue(ledger, context, self.seams.clock.now().wall) && cell.is_news_that_overdue(old) {
            let holders: Vec<String> = blockers.iter().map(blocker_text).collect();
            let holders = holders.join(", ");
            tracing::error!(credential = %cell.name, version = %old, holders, "an old key is past its deadline and still held");
        }
    }
}
