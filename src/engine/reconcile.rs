//! The loop: looks at all credentials, drives those that have something to do, earliest deadline first.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::cell::Cell;
use super::verify::{check_due, sweep_due};
use crate::domain::due::{Decision, deadline_of, decide};
use crate::domain::ids::Name;
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

/// When the loop looks again.
struct Agenda {
    beat_at: Duration,
    /// Running time of the next look at all credentials; until then only those that something happened to.
    all_at: Duration,
}

impl Engine {
    /// Runs until `stop`; then lets the steps under way end.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut driven = JoinSet::new();
        let mut agenda = Agenda { beat_at: Duration::ZERO, all_at: Duration::ZERO };
        while !stop.is_cancelled() {
            self.expire_leases().await;
            self.beat(&mut agenda).await;
            self.spawn_due(&mut driven, &mut agenda);
            let running = self.seams.clock.now().running;
            let rest = agenda.all_at.min(agenda.beat_at).saturating_sub(running);
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
        agenda.beat_at = Duration::ZERO;
        self.beat(&mut agenda).await;
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
    async fn beat(&self, agenda: &mut Agenda) {
        let now = self.seams.clock.now();
        if now.running < agenda.beat_at {
            return;
        }
        let beat = Heartbeat { running: now.running, wall: now.trusted.then_some(now.wall) };
        if self.seams.journal.write_heartbeat(beat).await.is_err() {
            tracing::warn!("the heartbeat couldn't be written");
        }
        agenda.beat_at = now.running + self.part_of_shortest(60, Duration::from_millis(500), Duration::from_secs(30));
    }

    /// A part of the shortest `maxAge` in use, within bounds.
    fn part_of_shortest(&self, part: u32, least: Duration, most: Duration) -> Duration {
        let shortest = self.policies().shortest_max_age();
        shortest.map_or(most, |span| (span.as_duration() / part).clamp(least, most))
    }

    /// Starts driving what has something to do, earliest deadline first (I14).
    fn spawn_due(self: &Arc<Self>, driven: &mut JoinSet<Name>, agenda: &mut Agenda) {
        let running = self.seams.clock.now().running;
        let asked = std::mem::take(&mut *self.looks.lock().unwrap_or_else(PoisonError::into_inner));
        let cells = if running >= agenda.all_at {
            agenda.all_at = running + self.part_of_shortest(100, Duration::from_millis(100), Duration::from_secs(10));
            self.all_cells()
        } else {
            asked.iter().filter_map(|name| self.cell(name)).collect()
        };
        let least = Duration::from_millis(10);
        if let Some(expiry) = self.book.next_expiry() {
            agenda.all_at = agenda.all_at.min(expiry.max(running + least));
        }
        let mut due: Vec<(Timestamp, Arc<Cell>)> = Vec::new();
        for cell in cells {
            match self.look(&cell) {
                Some(Look::Act { deadline }) => due.push((deadline, cell)),
                Some(Look::Rest(rest)) => agenda.all_at = agenda.all_at.min(running.saturating_add(rest.max(least))),
                None => {}
            }
        }
        due.sort_by_key(|(deadline, _)| *deadline);
        let free = DRIVEN_MAX.saturating_sub(driven.len());
        for (place, (_, cell)) in due.into_iter().enumerate() {
            if place >= free {
                // Its turn comes when one of those under way has ended.
                self.looks.lock().unwrap_or_else(PoisonError::into_inner).insert(cell.name.clone());
                continue;
            }
            let engine = self.clone();
            driven.spawn(async move {
                engine.drive(&cell).await;
                cell.name.clone()
            });
        }
    }

    /// `None`: it is being driven, or has no document.
    fn look(&self, cell: &Cell) -> Option<Look> {
        let work = cell.work.try_lock().ok()?;
        let context = self.context(&cell.name)?;
        let now = self.seams.clock.now();
        if work.backoff.is_waiting(now.running) {
            return Some(Look::Rest(work.backoff.until() - now.running));
        }
        let ledger = cell.ledger();
        let deadline = ledger.current_facts().map_or(now.wall, |facts| deadline_of(facts, &context.policy));
        let upkeep = sweep_due(&work, &context, now.running) || check_due(&work, &context, &ledger, now.running);
        if upkeep && ledger.current.is_some() && !work.upkeep_backoff.is_waiting(now.running) {
            return Some(Look::Act { deadline });
        }
        let blockers = self.blockers(&context, &ledger);
        let until = match decide(&self.facts(&context, &ledger, &work, &blockers, false)) {
            Decision::Step(Step::Wait(wait)) => wait.until,
            Decision::Due { .. } | Decision::Step(_) => return Some(Look::Act { deadline }),
            Decision::Steady { wake_at } => Some(wake_at),
            Decision::Blocked { until, .. } => until,
            Decision::Missing | Decision::Stuck { .. } => None,
        };
        let rest = until.map(|until| Duration::try_from(until.duration_since(now.wall)).unwrap_or_default());
        Some(Look::Rest(rest.unwrap_or(Duration::MAX)))
    }
}
