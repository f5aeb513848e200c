//! Going live: the list of an application as it stands, what persons sign off, and the gate before what `requireGoLive` keeps back.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use super::audit::{Actor, Order};
use super::errors::{LaunchError, ReadError};
use super::launch_view::{LaunchCredential, LaunchView, item_view};
use super::{Engine, Reader};
use crate::delivery::Change;
use crate::domain::ids::{ItemId, Name};
use crate::domain::launch::{CredentialFacts, Facts, ItemState, Launch, NoSuchItem, Report, SignOff, Signer, report};
use crate::domain::policy::{Application, RotationPolicy};
use crate::journal::JournalError;
use crate::sealing::sha256;

impl Engine {
    /// The list with its evidence. `None`: there is no such application.
    pub async fn launch(&self, application: &Name) -> Option<LaunchView> {
        let application = self.policies().applications.get(application).cloned()?;
        let launch = self.launch_of(&application.name);
        let facts = self.launch_facts(&application).await;
        let report = report(&facts, &launch, digest);
        let credentials = facts.credentials.iter().map(|of| LaunchCredential {
            name: of.credential.name.clone(),
            provider: of.provider.name.clone(),
            environment: of.credential.environment,
            require_go_live: of.credential.require_go_live,
            live_since: launch.live.get(&of.credential.name).copied(),
        });
        Some(LaunchView {
            application: application.name.clone(),
            environment: application.environment,
            ready: report.is_ready(),
            credentials: credentials.collect(),
            items: report.items.iter().map(item_view).collect(),
        })
    }

    /// A person says that an item is so. On record and durable when it returns; the same again changes nothing.
    ///
    /// # Errors
    /// [`LaunchError::Judged`] for what the daemon judges by itself: nobody signs a failure away.
    pub async fn confirm_item(&self, order: Order, application: &Name, item: &ItemId, by: &Signer) -> Result<(), LaunchError> {
        let _one_at_a_time = self.launching.lock().await;
        let report = self.report_of(application).await?;
        let judged = find(&report, item)?;
        let known = judged.sign_off.as_ref().filter(|_| !judged.is_outdated());
        match judged.state {
            ItemState::Passed => return Err(LaunchError::Judged("it passed already: nothing is to be confirmed")),
            ItemState::Failed => return Err(LaunchError::Judged("it failed: its evidence says what to do, and nobody can sign that away")),
            ItemState::Confirmed if known.is_some_and(|sign_off| sign_off.by == *by) => return Ok(()),
            ItemState::Confirmed | ItemState::NeedsPerson => {}
        }
        let at = self.seams.clock.now().wall;
        let reason = order.reason.as_ref().map(ToString::to_string);
        let detail = format!("{application}: {} confirmed by {by}", judged.id);
        self.record(order, "golive-confirmed", judged.credential.as_ref(), None, Some(&detail))
            .await
            .map_err(|_| LaunchError::AuditUnavailable)?;
        let mut launch = self.launch_of(application);
        launch.make_room(&report);
        launch.sign_offs.insert(judged.id.clone(), SignOff { by: by.clone(), reason, at, digest: judged.digest.clone() });
        self.keep_launch(application, launch).await.map_err(|_| LaunchError::Unavailable)?;
        // Streams that wait for the list look again.
        self.seams.delivery.announce(Change::Policies);
        Ok(())
    }

    /// Takes a sign-off back. What went live stays live. Again is fine.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn withdraw_item(&self, order: Order, application: &Name, item: &ItemId) -> Result<(), LaunchError> {
        let _one_at_a_time = self.launching.lock().await;
        let report = self.report_of(application).await?;
        let mut launch = self.launch_of(application);
        // What is in no list any more may have been signed off.
        let id = match find(&report, item) {
            Err(_) if launch.sign_offs.contains_key(item) => item.clone(),
            found => found?.id.clone(),
        };
        if launch.sign_offs.remove(&id).is_none() {
            return Ok(());
        }
        let detail = format!("{application}: {id} withdrawn");
        self.record(order, "golive-withdrawn", None, None, Some(&detail)).await.map_err(|_| LaunchError::AuditUnavailable)?;
        self.keep_launch(application, launch).await.map_err(|_| LaunchError::Unavailable)
    }

    /// Lets an application have what `requireGoLive` keeps back: once its list is passed, and from then on whatever becomes of the
    /// list, because what runs must not stop for an entry in it. An operator's reads aren't bound.
    pub(super) async fn require_live(&self, reader: &Reader, name: &Name) -> Result<(), ReadError> {
        let Reader::Application { application, .. } = reader else { return Ok(()) };
        if self.is_let_out(application, name) {
            return Ok(());
        }
        let _one_at_a_time = self.launching.lock().await;
        if self.is_let_out(application, name) {
            return Ok(());
        }
        let why = match self.is_held_by(application, name) {
            true => "served before the list was asked for",
            false if self.passes(application).await => "the list is passed",
            false => return Err(ReadError::NotLive),
        };
        if let Some(roll) = self.roll.as_ref().filter(|_| !self.leads()) {
            // Who leads journals it; a second later it is let out here.
            roll.ask_live(application, name);
            return Err(ReadError::NotLive);
        }
        self.let_out(application, name, why).await
    }

    async fn let_out(&self, application: &Name, name: &Name, why: &str) -> Result<(), ReadError> {
        let detail = Some(format!("{application}: {why}"));
        self.audit(Actor::Daemon, "went-live", name, None, detail).await.map_err(|_| ReadError::AuditUnavailable)?;
        let mut launch = self.launch_of(application);
        launch.live.insert(name.clone(), self.seams.clock.now().wall);
        self.keep_launch(application, launch).await.map_err(|_| ReadError::StoreUnavailable)
    }

    /// Lets out what was asked for at other replicas, where it may be.
    pub(super) async fn let_out_asked(&self) -> Result<(), JournalError> {
        let Some(roll) = &self.roll else { return Ok(()) };
        for (application, name) in roll.asked_live() {
            let _one_at_a_time = self.launching.lock().await;
            let listed = self.policies().applications.get(&application).is_some_and(|known| known.credentials.contains(&name));
            if !listed || self.is_let_out(&application, &name) || !(self.is_held_by(&application, &name) || self.passes(&application).await)
            {
                continue;
            }
            let let_out = self.let_out(&application, &name, "asked for at another replica, and the list is passed").await;
            let_out.map_err(|_| JournalError::Unavailable("what went live couldn't be written down"))?;
        }
        Ok(())
    }

    /// Whether a read would be let through, for lists: they disclose nothing, so that nothing begins with them.
    pub(super) async fn is_available(&self, reader: &Reader, name: &Name) -> bool {
        let Reader::Application { application, .. } = reader else { return true };
        self.is_let_out(application, name) || self.is_held_by(application, name) || self.passes(application).await
    }

    pub(super) fn is_let_out(&self, application: &Name, name: &Name) -> bool {
        let required = self.policies().credentials.get(name).is_some_and(|credential| credential.require_go_live);
        let launches = self.launches.read().unwrap_or_else(PoisonError::into_inner);
        !required || launches.get(application).is_some_and(|launch| launch.live.contains_key(name))
    }

    fn is_held_by(&self, application: &Name, name: &Name) -> bool {
        self.book.is_held_by(application, name)
    }

    async fn passes(&self, application: &Name) -> bool {
        self.report_of(application).await.is_ok_and(|report| report.is_ready())
    }

    async fn report_of(&self, application: &Name) -> Result<Report, LaunchError> {
        let application = self.policies().applications.get(application).cloned().ok_or(LaunchError::UnknownApplication)?;
        Ok(report(&self.launch_facts(&application).await, &self.launch_of(&application.name), digest))
    }

    fn launch_of(&self, application: &Name) -> Launch {
        self.launches.read().unwrap_or_else(PoisonError::into_inner).get(application).cloned().unwrap_or_default()
    }

    /// Durable first: what isn't on disk isn't so.
    async fn keep_launch(&self, application: &Name, launch: Launch) -> Result<(), crate::journal::JournalError> {
        self.seams.journal.write_launch(self.term(), application, &launch).await?;
        self.launches.write().unwrap_or_else(PoisonError::into_inner).insert(application.clone(), launch);
        Ok(())
    }

    async fn launch_facts(&self, application: &Arc<Application>) -> Facts {
        let mut credentials = Vec::with_capacity(application.credentials.len());
        for name in &application.credentials {
            credentials.extend(self.launch_facts_of(name).await);
        }
        Facts { application: Arc::clone(application), credentials, audited: self.seams.audit.is_writing() }
    }

    async fn launch_facts_of(&self, name: &Name) -> Option<CredentialFacts> {
        let (cell, context) = (self.cell(name)?, self.context(name)?);
        let ledger = cell.ledger();
        // Names alone: whoever looks at a list is shown nothing of a value.
        let kept = match &ledger.current {
            Some(current) => self.seams.store.read(&context.slot(), current).await.ok(),
            None => None,
        };
        let twin = context.credential.twin.as_ref().and_then(|twin| Some((twin.clone(), self.cell(twin)?.ledger())));
        Some(CredentialFacts {
            fields: kept.map(|kept| kept.served.iter().map(|(field, _)| field.clone()).collect::<BTreeSet<_>>()),
            base_url: self.base_url(&context),
            sandbox_url: self.sandbox_url(&context),
            ledger,
            twin,
            staged: is_staged(&context.policy),
            credential: context.credential,
            provider: context.provider,
            policy: context.policy,
        })
    }
}

/// Whether a new version goes to a part of the instances first.
fn is_staged(policy: &RotationPolicy) -> bool {
    !policy.rollout.is_empty()
}

fn find<'a>(report: &'a Report, item: &ItemId) -> Result<&'a crate::domain::launch::Judged, LaunchError> {
    report.find(item).map_err(|error| match error {
        NoSuchItem::Unknown => LaunchError::UnknownItem,
        NoSuchItem::Ambiguous => LaunchError::AmbiguousItem,
    })
}

fn digest(text: &str) -> String {
    hex::encode(sha256(text.as_bytes()))
}
