//! `plan`: what rotates when, why, what stands in the way, and where many start at once.

use std::time::Duration;

use jiff::Timestamp;

use super::Engine;
use super::cell::Cell;
use super::status::blocker_text;
use super::views::{Herd, Plan, PlanEntry};
use crate::domain::due::{Decision, schedule};
use crate::domain::forecast::{Herds, forecast};
use crate::domain::ids::Name;
use crate::domain::rotation::Step;

/// How many starts are worked out for one page: a thousand credentials that are rotated each week, for a year.
const STARTS_MAX: usize = 60_000;

/// Starts that are counted while a page is put together.
struct Counting {
    herds: Herds,
    uncounted: Vec<Name>,
    left: usize,
}

impl Engine {
    /// What rotates within so many days, soonest deadline not first but by name, as the pages go.
    pub fn plan(&self, days: u32, after: Option<&Name>, limit: usize) -> Plan {
        let now = self.seams.clock.now().wall;
        let horizon = now.checked_add(Duration::from_secs(u64::from(days) * 86_400)).unwrap_or(Timestamp::MAX);
        let mut counting = Counting { herds: Herds::default(), uncounted: Vec::new(), left: STARTS_MAX };
        let mut plan = Vec::new();
        let mut next = None;
        let mut cells = self.cells_after(after, limit.saturating_add(1));
        while let Some(last) = cells.last().cloned() {
            for cell in cells {
                let Some(entry) = self.plan_entry(&cell).filter(|entry| entry.starts_at <= horizon) else { continue };
                if plan.len() == limit {
                    next = plan.last().map(|entry: &PlanEntry| entry.name.clone());
                    break;
                }
                plan.push(entry);
                self.count_starts(&cell, (now, horizon), &mut counting);
            }
            cells = if next.is_some() { Vec::new() } else { self.cells_after(Some(&last.name), limit.saturating_add(1)) };
        }
        let herds = counting.herds.into_days().map(|(account, day, starts)| Herd { account, day, starts }).collect();
        Plan { plan, next, herds, uncounted: counting.uncounted }
    }

    fn count_starts(&self, cell: &Cell, span: (Timestamp, Timestamp), counting: &mut Counting) {
        let ledger = cell.ledger();
        let (Some(it), Some(current)) = (self.context(&cell.name), ledger.current_facts()) else { return };
        let forecast = forecast(&it.credential, &it.policy, &it.provider, ledger.generation, current, span, counting.left);
        counting.left -= forecast.starts.len().min(counting.left);
        if forecast.whole {
            counting.herds.count(&it.credential.account, &forecast.starts);
        } else {
            // A part of its starts would make a wrong mean.
            counting.uncounted.push(cell.name.clone());
        }
    }

    fn plan_entry(&self, cell: &Cell) -> Option<PlanEntry> {
        let context = self.context(&cell.name)?;
        let ledger = cell.ledger();
        let planned = schedule(&context.credential, &context.policy, &context.provider, ledger.generation, ledger.current_facts()?);
        let standing = self.standing(cell, &context);
        let mut blocked_by: Vec<String> = match &standing.decision {
            Decision::Blocked { reason, .. } => vec![reason.as_str().to_owned()],
            Decision::Stuck { reason } => vec![reason.as_str().to_owned()],
            // It has begun: a person makes the key.
            Decision::Step(Step::Wait(wait)) if ledger.rotation.is_none() => vec![wait.reason.as_str().to_owned()],
            // The next rotation begins when the open one has ended.
            Decision::Step(_) => vec!["rotation-open".to_owned()],
            Decision::Missing | Decision::Steady { .. } | Decision::Due { .. } => Vec::new(),
        };
        if standing.waits_for_rehearsal().is_some() {
            blocked_by.extend(standing.rehearses_with.iter().map(ToString::to_string));
        }
        blocked_by.extend(standing.blockers.iter().map(blocker_text));
        Some(PlanEntry {
            name: cell.name.clone(),
            starts_at: planned.starts_at,
            deadline_at: planned.deadline_at,
            reason: planned.reason.as_str().to_owned(),
            blocked_by,
        })
    }
}
