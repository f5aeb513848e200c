//! Reads: what an application may have, recorded before it has it.

use std::sync::Arc;

use jiff::Timestamp;

use super::audit::Action;
use super::cell::{Cell, Loaded, Served, Shared, Wanted};
use super::errors::ReadError;
use super::follow::Contact;
use super::gather::Context;
use super::material::join;
use super::status::overlap_end;
use super::views::{Document, Listed, Previous};
use super::{Engine, Reader};
use crate::domain::access::{may_read, needs_reason};
use crate::domain::environment::{Acceptance, Says, pure_evidence};
use crate::domain::ids::{FieldName, Name, VersionId};
use crate::domain::incident::Incident;
use crate::domain::ledger::Ledger;
use crate::domain::material::Material;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::provider::Usage;
use crate::domain::replicas::page_of;
use crate::domain::rollout::View;
use crate::domain::workload::Workload;
use crate::journal::HoldingChange;
use crate::stores::{Availability, StoreError};

/// What became of a disclosure.
enum Disclosed {
    /// It is on record since earlier, or a person's.
    Before,
    Now {
        /// The instance held an older version until now.
        holds_older: bool,
    },
    /// It isn't what is served any more: nothing goes out.
    Outdated,
}

/// How often a read starts over because a promotion came between; then the promotion is faster than any reader.
const READ_TRIES: usize = 8;

impl Engine {
    /// The current version. Audited, and recorded as held, before it is returned (I17).
    ///
    /// # Errors
    /// [`ReadError`]; credentials that don't exist and those that the caller may not read are answered alike.
    pub async fn read(&self, reader: &Reader, name: &Name) -> Result<Document, ReadError> {
        self.admit(reader, name)?;
        self.require_reason(reader, name)?;
        self.require_live(reader, name).await?;
        let mut looked = None;
        for _ in 0..READ_TRIES {
            let (Some(cell), Some(context)) = (self.cell(name), self.context(name)) else { return Err(ReadError::NoVersion) };
            let (served, stale) = match self.served(&cell, &context, reader).await {
                // Who follows may not have heard of it yet.
                Err(ReadError::NoVersion) if self.term() == 0 && looked.is_none() => {
                    looked = Some(self.afresh(&cell).await.map_err(|_| ReadError::StoreUnavailable)?);
                    continue;
                }
                served => served?,
            };
            let now = View { version: &served.version, revision: served.revision };
            let taken_up = match self.disclose(reader, &cell, now).await? {
                Disclosed::Before => false,
                Disclosed::Now { holds_older } => holds_older,
                Disclosed::Outdated => continue,
            };
            if let Some(previous) = &served.previous {
                self.disclose_previous(reader, name, &previous.version).await?;
            }
            // A promotion in between: the instance is on record for the old version, which holds it alive; it gets the new one.
            let ledger = self.cell(name).map_or_else(|| cell.ledger(), |cell| cell.ledger());
            let outdated = self.view_of(&ledger, reader) != Some(now);
            if outdated && !is_on(Mutant::OldValueServed) {
                continue;
            }
            if taken_up {
                self.note_push(&ledger);
            }
            return Ok(Document {
                name: name.clone(),
                provider: context.provider.name.clone(),
                environment: context.credential.environment,
                version: served.version.clone(),
                revision: served.revision,
                issued_at: served.issued_at,
                stale,
                fields: served.fields.clone(),
                previous: served.previous.clone(),
            });
        }
        Err(ReadError::StoreUnavailable)
    }

    fn note_push(&self, ledger: &Ledger) {
        let rotation = ledger.rotation.as_ref();
        // Where it goes step by step, from the beginning of this step.
        let begun = rotation.and_then(|rotation| rotation.rollout.as_ref().map(|rollout| rollout.began).or(rotation.promoted));
        if let Some(at) = begun {
            self.seams.meter.pushed(self.seams.clock.now().running.saturating_sub(at.running));
        }
    }

    fn admit(&self, reader: &Reader, name: &Name) -> Result<(), ReadError> {
        let policies = self.policies();
        let admitted = match reader {
            Reader::Application { application, .. } => {
                policies.applications.get(application).is_some_and(|application| may_read(&policies, application, name))
            }
            Reader::Operator { .. } => policies.credentials.contains_key(name),
        };
        if admitted { Ok(()) } else { Err(ReadError::Forbidden) }
    }

    /// A person's read of production leaves a reason behind; an application's reason is its document.
    fn require_reason(&self, reader: &Reader, name: &Name) -> Result<(), ReadError> {
        let Reader::Operator { reason: None, .. } = reader else { return Ok(()) };
        let policies = self.policies();
        let credential = policies.credentials.get(name).ok_or(ReadError::Forbidden)?;
        if needs_reason(credential.environment) { Err(ReadError::ReasonMissing) } else { Ok(()) }
    }

    /// The bytes of the version that this reader gets: from memory, or read from the store once and judged. And whether the store is
    /// away: then they are served within its bound, and nobody knows of what was changed there since.
    async fn served(&self, cell: &Arc<Cell>, context: &Context, reader: &Reader) -> Result<Loaded, ReadError> {
        let ledger = cell.ledger();
        verified(&ledger)?;
        let Some(view) = self.view_of(&ledger, reader) else { return Err(ReadError::NoVersion) };
        let out_of_contact = match self.contact() {
            Contact::CutOff => return Err(ReadError::StoreUnavailable),
            contact => contact == Contact::Stale,
        };
        let (served, stale) = match self.in_memory(cell, context, view)? {
            Some(served) => served,
            None => self.load_together(cell, context, &ledger, view).await?,
        };
        if self.may_serve(context, &cell.ledger(), &served) { Ok((served, stale || out_of_contact)) } else { Err(ReadError::NoVersion) }
    }

    /// What was read before, and whether the store is away meanwhile.
    fn in_memory(&self, cell: &Cell, context: &Context, view: View<'_>) -> Result<Option<Loaded>, ReadError> {
        // A description that was read again may keep back what it gave before.
        let still_served = |served: &Arc<Served>| served.fields.iter().all(|(field, _)| is_served(context, field));
        match (cell.served(view).filter(still_served), self.seams.store.availability()) {
            (Some(_), Availability::Away { is_servable: false, .. }) => Err(ReadError::StoreUnavailable),
            (Some(served), availability) => Ok(Some((served, availability != Availability::Here))),
            (None, _) => Ok(None),
        }
    }

    /// Of thousands who want a new version at once, one asks the store.
    async fn load_together(&self, cell: &Cell, context: &Context, ledger: &Ledger, view: View<'_>) -> Result<Loaded, ReadError> {
        let wanted = Wanted { version: view.version.clone(), revision: view.revision, documents: context.documents_id() };
        for _ in 0..READ_TRIES {
            let mut ours = None;
            let load = async {
                let loaded = match self.in_memory(cell, context, view) {
                    Ok(None) => self.load_served(cell, context, ledger, view).await,
                    Ok(Some(loaded)) => Ok(loaded),
                    Err(error) => Err(error),
                };
                // Ours stays until we have it: what others share keeps no secret alive.
                ours = loaded.as_ref().ok().map(|(served, _)| served.clone());
                let outcome = loaded.map(|(served, stale)| (Arc::downgrade(&served), stale));
                Shared { of: wanted.clone(), outcome }
            };
            let Shared { of, outcome } = cell.loads.share(load).await;
            // While a version is rolled out, two are served: the other one is somebody else's. So is what was read by other documents.
            if of != wanted {
                continue;
            }
            let (served, stale) = outcome?;
            let Some(served) = served.upgrade() else { break };
            drop(ours);
            return Ok((served, stale));
        }
        self.load_served(cell, context, ledger, view).await
    }

    async fn load_served(&self, cell: &Cell, context: &Context, ledger: &Ledger, view: View<'_>) -> Result<Loaded, ReadError> {
        let Some(facts) = ledger.versions.get(view.version) else { return Err(ReadError::NoVersion) };
        let reading = self.seams.store.read_to_serve(&context.slot(), view.version).await.map_err(|error| match error {
            StoreError::NotFound { .. } => ReadError::NoVersion,
            _ => ReadError::StoreUnavailable,
        })?;
        let (bytes, stale) = (join(reading.bytes), reading.stale);
        if !self.is_as_recorded(context, ledger, view.version, &bytes) {
            // Somebody else's bytes are nobody's key: what is in service already stays so, and a person is told.
            cell.suspect(true);
            self.look_at(&cell.name);
            return Err(ReadError::NoVersion);
        }
        let fields = linked(context, bytes).partition(|field| is_served(context, field)).0;
        let previous = self.load_previous(ledger, context).await?.map(Arc::new);
        let (version, revision) = (view.version.clone(), view.revision);
        let served = Arc::new(Served { version, revision, issued_at: facts.issued_at, fields: Arc::new(fields), previous });
        // What was kept is looked at again once the store is back.
        if !stale {
            cell.set_served(ledger, served.clone());
        }
        Ok((served, stale))
    }

    /// The old version, for those who verify with it: until the intent to revoke it is journaled, which is a revision of its own.
    async fn load_previous(&self, ledger: &Ledger, context: &Context) -> Result<Option<Previous>, ReadError> {
        let open = ledger.rotation.as_ref().is_some_and(|rotation| rotation.plan.serves_previous);
        let Some(version) = ledger.previous().filter(|_| open && context.provider.serves_previous()) else { return Ok(None) };
        let going = ledger.versions.get(version).is_none_or(|facts| facts.is_going());
        let (false, Some(valid_until)) = (going, good_until(ledger)) else { return Ok(None) };
        let bytes = match self.seams.store.read_to_serve(&context.slot(), version).await {
            Ok(reading) => reading.bytes,
            // Gone since the ledger was looked at: the caller looks again.
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(_) => return Err(ReadError::StoreUnavailable),
        };
        let verifies =
            |name: &FieldName| context.provider.fields.get(name).is_some_and(|field| field.served && field.usage == Usage::Verify);
        let fields = linked(context, bytes.served).partition(verifies).0;
        Ok(Some(Previous { version: version.clone(), fields, valid_until }))
    }

    /// At each read: the recorded verdict and the pure evidence, no network (I18).
    fn may_serve(&self, context: &Context, ledger: &Ledger, served: &Served) -> bool {
        let recorded = ledger.versions.get(&served.version).and_then(|facts| facts.proof.as_ref());
        let accepted = recorded
            .map(|proof| proof.acceptance(&context.credential))
            .is_some_and(|acceptance| acceptance != Acceptance::Mismatch && acceptance.is_enough());
        let against = |piece: &crate::domain::environment::Evidence| piece.says == Says::Against;
        accepted && !pure_evidence(&context.provider, &context.credential, &served.fields, &self.base_url(context), &[]).iter().any(against)
    }

    async fn disclose(&self, reader: &Reader, cell: &Cell, view: View<'_>) -> Result<Disclosed, ReadError> {
        let (name, version) = (&cell.name, view.version);
        let action = Action {
            actor: reader.actor(),
            action: "disclosed".to_owned(),
            credential: Some(name.to_string()),
            version: Some(version.to_string()),
            detail: reader.remarks(),
        };
        let unrecorded = is_on(Mutant::DisclosureUnrecorded);
        let Reader::Application { application, instance, pod } = reader else {
            // A person's reads are each recorded: there are few of them.
            let recorded = self.seams.audit.record(self.seams.clock.now().wall, action).await;
            return recorded.map(|()| Disclosed::Before).map_err(|_| ReadError::AuditUnavailable);
        };
        if self.book.is_full(application, instance) {
            return Err(ReadError::TooManyInstances);
        }
        let changes = self.book.serve(application, instance, name, version, pod.as_ref().map(Workload::pod_key).as_ref());
        self.book.touch(application, instance, self.lease(application), self.seams.clock.now().running);
        let Some(changes) = changes else {
            self.seams.audit.repeated(action);
            return Ok(Disclosed::Before);
        };
        let holds_older = changes.iter().any(|change| matches!(change, HoldingChange::Put(holding) if holding.held.len() > 1));
        if !unrecorded {
            self.seams.audit.record(self.seams.clock.now().wall, action).await.map_err(|_| ReadError::AuditUnavailable)?;
        }
        if let Some(roll) = self.roll.as_ref().filter(|_| !is_on(Mutant::HoldingNotDurable)) {
            // Struck meanwhile, it is served anew.
            let Some(serial) = self.book.serial_of(application, instance, name, version) else { return Ok(Disclosed::Outdated) };
            let said = roll.say(&self.book, page_of(application, instance), serial).await;
            said.map_err(|_| ReadError::StoreUnavailable)?;
        } else {
            self.write_holdings(changes).await.map_err(|_| ReadError::StoreUnavailable)?;
        }
        if self.roll.is_some() {
            // Durable in our row first, then looked up: see `domain/replicas.rs`.
            let ledger = self.afresh(cell).await.map_err(|_| ReadError::StoreUnavailable)?;
            if self.view_of(&ledger, reader) != Some(view) {
                return Ok(Disclosed::Outdated);
            }
        }
        self.book.recorded(application, instance, name, version);
        Ok(Disclosed::Now { holds_older })
    }

    /// The old version goes out beside the current one, to verify with: it is on record, and nobody holds it for that.
    async fn disclose_previous(&self, reader: &Reader, name: &Name, version: &VersionId) -> Result<(), ReadError> {
        if let Reader::Application { application, instance, .. } = reader
            && self.book.is_recorded(application, instance, name, version)
        {
            return Ok(());
        }
        let action = Action {
            actor: reader.actor(),
            action: "disclosed".to_owned(),
            credential: Some(name.to_string()),
            version: Some(version.to_string()),
            detail: Some(reader.remarks().map_or_else(|| "as previous".to_owned(), |remarks| format!("as previous; {remarks}"))),
        };
        self.seams.audit.record(self.seams.clock.now().wall, action).await.map_err(|_| ReadError::AuditUnavailable)?;
        if let Reader::Application { application, instance, .. } = reader {
            self.book.recorded(application, instance, name, version);
        }
        Ok(())
    }

    /// Writes what an instance holds, until what is durable is what the book says: another write may have come between.
    pub(super) async fn write_holdings(&self, mut changes: Vec<HoldingChange>) -> Result<(), crate::journal::JournalError> {
        if self.roll.is_some() && !is_on(Mutant::HoldingNotDurable) {
            return self.keep_holdings(&changes).await;
        }
        for _ in 0..READ_TRIES {
            if is_on(Mutant::HoldingNotDurable) {
                return Ok(());
            }
            self.seams.journal.write_holdings(self.term(), &changes).await?;
            let moved: Vec<HoldingChange> = changes.iter().filter_map(|change| self.moved_since(change)).collect();
            if moved.is_empty() {
                return Ok(());
            }
            changes = moved;
        }
        Err(crate::journal::JournalError::Unavailable("an instance's holdings change faster than they can be written"))
    }

    fn moved_since(&self, change: &HoldingChange) -> Option<HoldingChange> {
        let HoldingChange::Put(written) = change else { return None };
        let now = self.book.holding(&written.application, &written.instance, &written.credential)?;
        // What a confirmation is about to free is written before the book says so: only additions count here.
        now.was_served_since(written).then_some(HoldingChange::Put(now))
    }

    /// Version and revision of what is current, without disclosing it.
    pub fn current(&self, name: &Name) -> Option<(VersionId, u64)> {
        let ledger = self.cell(name)?.ledger();
        let served = ledger.current.clone().filter(|_| !ledger.unverified)?;
        Some((served, ledger.revision))
    }

    /// The same of what this reader would be served.
    pub fn current_for(&self, reader: &Reader, name: &Name) -> Option<(VersionId, u64)> {
        let ledger = self.cell(name)?.ledger();
        let view = self.view_of(&ledger, reader).filter(|_| !ledger.unverified)?;
        Some((view.version.clone(), view.revision))
    }

    /// What the caller may read, without fields.
    pub async fn list(&self, reader: &Reader) -> Vec<Listed> {
        let policies = self.policies();
        let mut listed = Vec::new();
        for credential in policies.credentials.values().filter(|credential| self.admit(reader, &credential.name).is_ok()) {
            let ledger = self.cell(&credential.name).map(|cell| cell.ledger());
            let available = self.is_available(reader, &credential.name).await;
            let view = ledger.as_ref().and_then(|ledger| self.view_of(ledger, reader));
            let unverified = ledger.as_ref().is_some_and(|ledger| ledger.unverified);
            listed.push(Listed {
                name: credential.name.clone(),
                environment: credential.environment,
                version: view.filter(|_| available && !unverified).map(|view| view.version.clone()),
                revision: view.map_or_else(|| ledger.as_ref().map_or(0, |ledger| ledger.revision), |view| view.revision),
            });
        }
        listed
    }
}

/// What came back from a backup waits for its first look; what the provider refuses then is as good as none (I10).
fn verified(ledger: &Ledger) -> Result<(), ReadError> {
    match (ledger.unverified && !is_on(Mutant::RestoredServedUnverified), ledger.refused_since) {
        (false, _) => Ok(()),
        (true, None) => Err(ReadError::NotVerified),
        (true, Some(_)) => Err(ReadError::NoVersion),
    }
}

/// With the fields that depend on others, also where a description that was edited since has new ones.
fn linked(context: &Context, mut material: Material) -> Material {
    context.provider.link(&mut material);
    material
}

fn is_served(context: &Context, field: &FieldName) -> bool {
    context.provider.fields.get(field).is_some_and(|field| field.served)
}

/// When who verifies with the old version is to stop. Once it is stolen, those who sign with it still have the incident's limit.
fn good_until(ledger: &Ledger) -> Option<Timestamp> {
    ledger.open_incident().map(Incident::limit_at).or_else(|| overlap_end(ledger))
}
