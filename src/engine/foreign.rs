//! What somebody else writes into the store: seen by its marks, proved like a submission before it is served or pushed. Refused, it
//! is reported, and the last good version stays in service.

use std::time::Duration;

use super::Engine;
use super::audit::Actor;
use super::cell::{Cell, Work};
use super::errors::SubmitError;
use super::gather::Context;
use super::submit::{Bringing, Word, check_fields, keeps_out};
use super::views::Submitted;
use crate::domain::ids::{Name, VersionId};
use crate::domain::ledger::{Fingerprint, Ledger};
use crate::domain::material::Material;
use crate::domain::rotation::Rotation;
use crate::stores::{FOREIGN, Native, StoreError};

/// How often a change is tried that the provider refuses, or that can't be promoted: a fresh key may take its time to spread.
const TRIES_MAX: u32 = 5;

/// The store refuses to tell what others changed.
const CHANGES_UNSEEN: &str = "store-changes-unseen";

/// What was done about the change that stands in the store.
#[derive(Debug, Default)]
pub(super) struct ChangeTried {
    version: Option<VersionId>,
    /// Which look at the store it followed.
    looked_at: Option<Duration>,
    tries: u32,
    is_final: bool,
}

impl Engine {
    /// Asks the store which credentials somebody changed, and has those looked at. Returns when to ask again; `None`: nobody else
    /// can write there. An answer that doesn't come is asked for again at the usual time.
    pub async fn look_for_changes(&self) -> Option<Duration> {
        const LEAST: Duration = Duration::from_secs(1);
        const MOST: Duration = Duration::from_secs(60);
        let began = self.seams.clock.now().running;
        let cells = self.all_cells();
        let watched = cells.iter().filter(|cell| cell.ledger().current.is_some());
        let slots: Vec<_> = watched.filter_map(|cell| Some(self.context(&cell.name)?.slot())).collect();
        match self.seams.store.marks(&slots).await {
            Ok(None) => return None,
            Ok(Some(mut marks)) => {
                self.set_problem(CHANGES_UNSEEN, None);
                for slot in &slots {
                    let Some(cell) = self.cell(&slot.credential) else { continue };
                    if cell.tell(marks.remove(&slot.credential), began) {
                        cell.suspect(true);
                        self.look_at(&cell.name);
                    }
                }
            }
            // That it is away, or asked too often, is told elsewhere.
            Err(StoreError::Unavailable(_) | StoreError::Throttled { .. }) => {}
            Err(error) => {
                tracing::warn!("the store doesn't tell what others change in it");
                let message = format!("what others change in the store isn't seen, but for the looks of `verifyEvery`: {error}");
                self.set_problem(CHANGES_UNSEEN, Some(message));
            }
        }
        let every = self.part_of_shortest(200, LEAST, MOST);
        Some(every.saturating_sub(self.seams.clock.now().running.saturating_sub(began)).max(LEAST))
    }

    /// After a look at the store: what was found there in the place of ours is proved, and becomes a version like any other.
    pub(super) async fn take_up_change(&self, cell: &Cell, work: &mut Work, context: &Context) {
        let Some(foreign) = cell.foreign() else { return };
        // A version that another process of ours promoted isn't somebody's change: this one was deposed, and is about to hear of it.
        if !foreign.as_str().starts_with(FOREIGN) && !cell.ledger().versions.contains_key(&foreign) {
            return;
        }
        let tried = &work.change_tried;
        let is_same = tried.version.as_ref() == Some(&foreign);
        if is_same && (tried.is_final || tried.tries >= TRIES_MAX || tried.looked_at == work.store_looked_at) {
            return;
        }
        let tries = if is_same { tried.tries + 1 } else { 1 };
        let (looked_at, ledger) = (work.store_looked_at, cell.ledger());
        // A removal that only a person can do has its deadline; a submission would close it without a proof.
        let is_open = keeps_out(&ledger) || ledger.rotation.as_ref().is_some_and(|open| open.awaits_removal());
        if is_open || ledger.clearing || ledger.unverified || ledger.open_incident().is_some() {
            // Not a try: it is looked at when what is under way has ended.
            cell.set_refusal(foreign, "it is looked at once what is under way here has ended".to_owned());
            return;
        }
        if !self.seams.clock.now().trusted {
            cell.set_refusal(foreign, "its age would be counted by a clock that jumped: it is looked at once that is believed".to_owned());
            return;
        }
        work.change_tried = ChangeTried { version: Some(foreign.clone()), looked_at, tries, is_final: false };
        let Err(refused) = self.take_change(cell, work, context, &foreign).await else { return };
        let is_final = match refused {
            SubmitError::InvalidFields(_) | SubmitError::EnvironmentMismatch { .. } | SubmitError::Undetermined { .. } => true,
            SubmitError::Unreadable | SubmitError::NothingThere | SubmitError::UnknownCredential => true,
            SubmitError::ProviderRefused { .. } => false,
            // Nothing is known of it yet.
            _ => {
                work.change_tried.tries -= 1;
                false
            }
        };
        work.change_tried.is_final = is_final;
        tracing::error!(credential = %cell.name, is_final, "what somebody else wrote into the store isn't taken up");
        cell.set_refusal(foreign, refused.to_string());
    }

    async fn take_change(&self, cell: &Cell, work: &mut Work, context: &Context, foreign: &VersionId) -> Result<(), SubmitError> {
        // Somebody removed it: there is nothing to be proved.
        let Some(native) = self.native(context).await? else { return Err(SubmitError::NothingThere) };
        if native.version != *foreign {
            // Changed again since it was looked at.
            cell.suspect(true);
            return Ok(());
        }
        let bringing = Bringing { actor: Actor::Daemon, word: Word::Changed, replacing: Some(native.version) };
        let Some(mut material) = native.served else { return Err(self.refuse(&bringing, &cell.name, SubmitError::Unreadable).await) };
        if let Err(refusal) = check_fields(context, &material) {
            return Err(self.refuse(&bringing, &cell.name, refusal).await);
        }
        context.provider.link(&mut material);
        self.enlist(bringing, cell, work, context, material).await?;
        work.backoff.succeeded();
        self.advance(cell, work, context).await;
        Ok(())
    }

    /// Takes over what somebody else wrote where this credential belongs in the store: proved like a submission. `brought` is
    /// submitted in its place, where it holds anything.
    ///
    /// # Errors
    /// [`SubmitError`]; what lies there is as it was then.
    pub async fn adopt(&self, actor: Actor, name: &Name, brought: Material) -> Result<Submitted, SubmitError> {
        let (Some(cell), Some(context)) = (self.cell(name), self.context(name)) else { return Err(SubmitError::UnknownCredential) };
        let mut work = cell.work.lock().await;
        let native = self.native(&context).await?.ok_or(SubmitError::NothingThere)?;
        let is_ours = cell.ledger().current.as_ref() == Some(&native.version);
        let replacing = (!is_ours).then_some(native.version);
        let bringing = Bringing { actor, word: Word::Adopted, replacing };
        let found = if brought.is_empty() { native.served } else { Some(brought) };
        let Some(mut material) = found else { return Err(self.refuse(&bringing, name, SubmitError::Unreadable).await) };
        check_fields(&context, &material)?;
        context.provider.link(&mut material);
        let submitted = self.take(bringing, &cell, &mut work, &context, material).await;
        drop(work);
        self.look_at(name);
        submitted
    }

    /// What stands in the way of a submission in the store, or is replaced by it.
    pub(super) async fn replaced_by_submission(
        &self,
        cell: &Cell,
        work: &mut Work,
        context: &Context,
    ) -> Result<Option<VersionId>, SubmitError> {
        let unavailable = |_| SubmitError::StoreUnavailable;
        let ledger = cell.ledger();
        if ledger.current.is_none() {
            let is_free = ledger.rotation.is_some() || ledger.clearing || self.native(context).await?.is_none();
            return if is_free { Ok(None) } else { Err(SubmitError::Occupied) };
        }
        let found = self.drift_of(context, &ledger).await.map_err(unavailable)?;
        self.note_drift(cell, work, &ledger, found).await.map_err(unavailable)?;
        Ok(cell.foreign())
    }

    async fn native(&self, context: &Context) -> Result<Option<Native>, SubmitError> {
        self.seams.store.native(&context.slot()).await.map_err(|_| SubmitError::StoreUnavailable)
    }

    /// Whether somebody made the old key current again in the store: then native readers use it, and it mustn't die.
    pub(super) async fn is_put_back(&self, context: &Context, ledger: &Ledger, rotation: &Rotation) -> Result<bool, StoreError> {
        let (Some(old), Some(theirs)) = (&rotation.old, self.seams.store.stages(&context.slot()).await?.current) else { return Ok(false) };
        if ledger.current.as_ref() == Some(&theirs) {
            return Ok(false);
        }
        let known: &[Fingerprint] = ledger.facts_of(old).map_or(&[], |facts| &facts.fingerprints);
        let served = self.seams.store.native(&context.slot()).await?.and_then(|native| native.served);
        let found = served.map(|served| self.fingerprints(&context.provider, &served)).unwrap_or_default();
        Ok(theirs == *old || found.iter().any(|print| known.contains(print)))
    }
}
