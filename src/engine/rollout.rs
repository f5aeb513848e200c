//! Rollouts: who can be served a new version, what instances report of it, and how it stands.

use tokio::sync::MutexGuard;

use super::audit::{Action, Actor};
use super::cell::{Cell, Work};
use super::drive::Hindrance;
use super::errors::ReportError;
use super::gather::Context;
use super::views::RolloutStatus;
use super::{Engine, Reader};
use crate::domain::access::may_read;
use crate::domain::holders::{Blocker, HoldingState};
use crate::domain::ids::{InstanceName, VersionId};
use crate::domain::ledger::Ledger;
use crate::domain::policy::Uptake;
use crate::domain::replicas::Report;
use crate::domain::rollout::{Member, Reach, StopReason, View, rank, view};
use crate::domain::rotation::{Event, Phase, Rotation, next_try};
use crate::journal::{JournalError, SealedCopy};

impl Engine {
    /// What this reader is served of a credential, and its revision.
    pub(super) fn view_of<'l>(&self, ledger: &'l Ledger, reader: &Reader) -> Option<View<'l>> {
        view(ledger, reader.instance())
    }

    /// The living instances that can be served the new version while it is rolled out. Who reads only when it starts counts from when
    /// it was served: until then nobody knows when that will be.
    pub(super) fn crew(&self, context: &Context, ledger: &Ledger) -> Vec<Member> {
        let Some(rotation) = rolled_out(ledger) else { return Vec::new() };
        let name = &context.credential.name;
        let holdings = self.holdings_of(name, ledger);
        let mut crew = Vec::new();
        for application in context.readers() {
            let mut note = |instance: &InstanceName, state: HoldingState| {
                if application.uptake == Uptake::Start && state == HoldingState::Holds {
                    return;
                }
                let who = Blocker { application: application.name.clone(), instance: Some(instance.clone()) };
                crew.push(Member { who, rank: rank(&application.name, instance), state });
            };
            let of_application: Vec<_> = holdings.iter().filter(|holding| holding.application == application.name).collect();
            of_application.iter().for_each(|holding| note(&holding.instance, holding.state(Some(&rotation.version))));
            for instance in self.book.streaming(&application.name) {
                if of_application.iter().all(|holding| holding.instance != instance) {
                    note(&instance, HoldingState::Holds);
                }
            }
        }
        crew
    }

    /// An instance says that a version doesn't work for it. While the version is rolled out, that takes it back, durably when this
    /// returns (at a replica that follows, the order to who leads is durable); at any other time it is only on record.
    ///
    /// # Errors
    /// [`ReportError`]; nothing has changed then.
    pub async fn report_failed(&self, report: &Report) -> Result<(), ReportError> {
        let Report { application, instance, credential, version } = report;
        let policies = self.policies();
        if !policies.applications.get(application).is_some_and(|application| may_read(&policies, application, credential)) {
            return Err(ReportError::Forbidden);
        }
        if self.book.is_ambiguous(application, instance) {
            return Err(ReportError::AmbiguousInstance);
        }
        let newest = |engine: &Engine| {
            let known = engine.holding_anywhere(application, instance, credential);
            // Elsewhere it is told a little later that it was served.
            let known = if engine.roll.is_some() { known.map(|known| engine.as_shown_by(known, version)) } else { known };
            known.is_some_and(|held| held.newest == *version)
        };
        if self.roll.is_some() && !newest(self) {
            // Served elsewhere, maybe: rows and journal are read afresh.
            self.holding_to_confirm(application, instance, credential, version).await.map_err(|_| ReportError::Unavailable)?;
        }
        let (Some(cell), Some(context), true) = (self.cell(credential), self.context(credential), newest(self)) else {
            return Err(ReportError::NotNewest);
        };
        self.book.touch(application, instance, self.lease(application), self.seams.clock.now().running);
        let work = cell.work.lock().await;
        if !newest(self) {
            return Err(ReportError::NotNewest);
        }
        let ledger = cell.ledger();
        let action = Action {
            actor: Actor::Application { name: application.to_string(), instance: instance.to_string() },
            action: "reported-failed".to_owned(),
            credential: Some(credential.to_string()),
            version: Some(version.to_string()),
            detail: None,
        };
        if !may_stop(&ledger, version) {
            tracing::warn!(%credential, %application, %instance, "an instance reports that its version doesn't work");
            self.seams.audit.repeated(action);
            return Ok(());
        }
        self.seams.audit.record(self.seams.clock.now().wall, action).await.map_err(|_| ReportError::AuditUnavailable)?;
        if let Some(roll) = self.roll.as_ref().filter(|_| !self.leads()) {
            drop(work);
            return roll.report(&self.book, report.clone()).await.map_err(|_| ReportError::Unavailable);
        }
        self.stop_for(&cell, &context, work, report).await.map_err(|hindrance| match hindrance.trouble.code {
            "audit-unavailable" => ReportError::AuditUnavailable,
            _ => ReportError::Unavailable,
        })
    }

    /// Takes back what is rolled out. The caller has judged that it may be.
    async fn stop_for(&self, cell: &Cell, context: &Context, mut work: MutexGuard<'_, Work>, it: &Report) -> Result<(), Hindrance> {
        let next_try_at = next_try(&cell.ledger(), &context.policy, self.seams.clock.now().wall);
        let who = vec![Blocker { application: it.application.clone(), instance: Some(it.instance.clone()) }];
        let event = Event::RolloutStopped { reason: StopReason::CanaryFailed, who, next_try_at };
        self.append(cell, &mut work, &event, SealedCopy::Keep).await?;
        work.backoff.succeeded();
        drop(work);
        self.look_at(&it.credential);
        Ok(())
    }

    /// What was reported at other replicas, as their rows were last read, takes back what is rolled out. They have judged whose word it is.
    ///
    /// # Errors
    /// [`JournalError`]: the rest waits for the next round.
    pub(super) async fn stop_reported(&self) -> Result<(), JournalError> {
        let Some(roll) = &self.roll else { return Ok(()) };
        for report in roll.reported() {
            let (Some(cell), Some(context)) = (self.cell(&report.credential), self.context(&report.credential)) else { continue };
            let work = cell.work.lock().await;
            if may_stop(&cell.ledger(), &report.version) {
                let stopped = self.stop_for(&cell, &context, work, &report).await;
                stopped.map_err(|hindrance| JournalError::Unavailable(hindrance.trouble.code))?;
            }
        }
        Ok(())
    }

    /// Whether a report that was left to who leads may still change something, as far as is known here.
    pub(super) fn may_stop_at(&self, report: &Report) -> bool {
        self.cell(&report.credential).is_some_and(|cell| may_stop(&cell.ledger(), &report.version))
    }

    /// How far the new version has come, while it is rolled out.
    pub(super) fn rollout_status(&self, context: &Context, ledger: &Ledger) -> Option<RolloutStatus> {
        let rotation = rolled_out(ledger)?;
        let rollout = rotation.rollout.as_ref()?;
        let crew = self.crew(context, ledger);
        let reached = || crew.iter().filter(|member| rollout.reach.includes(member.rank));
        let waits = |member: &&Member| !member.has_proved(rotation.plan.terms.confirmation);
        Some(RolloutStatus {
            step: rollout.step,
            of: rotation.plan.rollout.len(),
            instances: reached().count(),
            waiting_for: reached().filter(waits).map(|member| member.who.clone()).collect(),
        })
    }
}

/// The open rotation whose new version goes to its instances step by step, until all of them have it.
pub(super) fn rolled_out(ledger: &Ledger) -> Option<&Rotation> {
    let rotation = ledger.rotation.as_deref()?;
    (rotation.phase == Phase::Promoted && rotation.rollout.is_some()).then_some(rotation)
}

/// Whether a report stops a rollout of this version: once is enough, and where there is no way back none does.
fn may_stop(ledger: &Ledger, version: &VersionId) -> bool {
    let Some(rotation) = rolled_out(ledger).filter(|rotation| rotation.version == *version) else { return false };
    let in_peace = ledger.open_incident().is_none() && rotation.revocation.is_none();
    in_peace && rotation.rollout.as_ref().is_some_and(|rollout| rollout.reach > Reach::Nobody && rollout.stopped.is_none())
}
