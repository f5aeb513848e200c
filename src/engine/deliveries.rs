//! Deliveries beside the stream, as the engine sees them: what is to go, what has arrived, and how each way stands.
//!
//! Who carries it is `runtime::couriers`. Nothing here is waited for by a rotation, but through the barrier: what a courier read is
//! held in the application's name, and counts as served once its target has it. Nothing is confirmed in an application's name.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::backoff::wait_after;
use super::errors::ReadError;
use super::views::{CredentialStatus, DeliveryState, DeliveryStatus, StatusProblem};
use super::{Engine, Reader};
use crate::delivery::Parcel;
use crate::domain::access::may_read;
use crate::domain::delivery::Way;
use crate::domain::ids::{Name, ObjectName, VersionId};
use crate::domain::outbox::DeadLetter;
use crate::domain::policy::{Application, Policies};
use crate::domain::rollout::common_view;

/// How long a message is tried.
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// The longest wait between two tries of what carries values: an application waits for it.
const CARRY_WAIT_MAX: Duration = Duration::from_secs(300);
/// The same of messages, whose receiver may be down for hours.
const MESSAGE_WAIT_MAX: Duration = Duration::from_secs(3_600);
/// How often pods are looked at while they roll.
const ROLLOUT_LOOK_MAX: Duration = Duration::from_secs(2);
/// How often a target is looked at although nothing changed.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(300);

const UNVERIFIED: &str = "a credential isn't verified yet after a restore";

/// Why nothing can be delivered now. It may be possible soon: the store, the audit trail or the provider has to answer first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Withheld(pub &'static str);

/// A version of a credential, as an application sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub credential: Name,
    pub version: VersionId,
    pub revision: u64,
}

impl Engine {
    /// The applications with a delivery beside the stream, and its ways.
    pub fn asked_deliveries(&self) -> Vec<(Name, Way)> {
        asked(&self.policies()).collect()
    }

    /// Who asks for this way, as its document is now.
    pub fn recipient(&self, application: &Name, way: Way) -> Option<Arc<Application>> {
        let found = self.policies().applications.get(application).cloned()?;
        let is_asked = found.delivery.ways().any(|asked| asked == way);
        is_asked.then_some(found)
    }

    /// Which versions are to be delivered now, by name: cheap to ask after each change.
    ///
    /// # Errors
    /// [`Withheld`] as [`Engine::parcels`].
    pub async fn references(&self, application: &Application, way: Way) -> Result<Vec<Reference>, Withheld> {
        let policies = self.policies();
        let reader = Reader::Application { application: application.name.clone(), instance: way.instance(), pod: None };
        let mut references = Vec::new();
        let listed: BTreeSet<&Name> = application.credentials.iter().filter(|name| may_read(&policies, application, name)).collect();
        for name in listed {
            if self.is_available(&reader, name).await
                && let Some((version, revision)) = self.deliverable(&reader, way, name)?
            {
                references.push(Reference { credential: name.clone(), version, revision });
            }
        }
        Ok(references)
    }

    /// What is to be delivered now, by name. For a way that carries material it is read in the application's name: recorded as any
    /// disclosure before it is returned (I17).
    ///
    /// # Errors
    /// [`Withheld`] if a credential of it can't be read now: the target keeps what it has, as a whole.
    pub async fn parcels(&self, application: &Application, way: Way) -> Result<Vec<Parcel>, Withheld> {
        let reader = Reader::Application { application: application.name.clone(), instance: way.instance(), pod: None };
        let mut parcels = Vec::new();
        for Reference { credential, version, revision } in self.references(application, way).await? {
            // An application and its credentials are of one environment.
            let environment = application.environment;
            let parcel = if way.carries_material() {
                let document = self.read(&reader, &credential).await.map_err(withheld)?;
                let (version, revision) = (document.version.clone(), document.revision);
                Parcel { credential, environment, version, revision, document: Some(document) }
            } else {
                Parcel { credential, environment, version, revision, document: None }
            };
            parcels.push(parcel);
        }
        Ok(parcels)
    }

    /// What of a credential is to go; `None` where nothing was submitted yet, or all was forgotten.
    fn deliverable(&self, reader: &Reader, way: Way, name: &Name) -> Result<Option<(VersionId, u64)>, Withheld> {
        let Some(cell) = self.cell(name) else { return Ok(None) };
        let ledger = cell.ledger();
        let view = if way.carries_material() { self.view_of(&ledger, reader) } else { common_view(&ledger) };
        match view {
            // Restored from a backup and not yet looked at is not the same as never submitted.
            Some(_) if ledger.unverified => Err(Withheld(UNVERIFIED)),
            view => Ok(view.map(|view| (view.version.clone(), view.revision))),
        }
    }

    /// The target has all of these: from now on they count as served to the application.
    pub fn has_arrived(&self, application: &Name, way: Way, parcels: &[Parcel]) {
        for parcel in parcels.iter().filter(|_| way.carries_material()) {
            if self.book.arrived(application, &way.instance(), &parcel.credential, &parcel.version) {
                self.look_at(&parcel.credential);
            }
        }
    }

    /// How this way stands from now on. `since` moves only when the state does.
    pub fn note_delivery(
        &self,
        application: &Name,
        way: Way,
        state: DeliveryState,
        reason: Option<String>,
        stragglers: Vec<ObjectName>,
        dead: Vec<DeadLetter>,
    ) {
        let now = self.seams.clock.now().wall;
        let mut deliveries = self.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
        // Its document may have gone while the courier was under way.
        let Some(status) = deliveries.get_mut(&(application.clone(), way)) else { return };
        if status.state != state || status.since.is_none() {
            status.since = Some(now);
        }
        status.state = state;
        status.reason = reason;
        status.stragglers = stragglers;
        status.dead_letters = dead;
    }

    /// What was brought this way to a place that isn't asked for any more couldn't be taken away, for this reason: also of an
    /// application that has no document any more. `None`: nothing is left anywhere.
    pub fn note_left(&self, application: &Name, way: Way, reason: Option<String>) {
        let is_asked = self.recipient(application, way).is_some();
        let key = (application.clone(), way);
        match reason {
            Some(reason) => {
                let mut deliveries = self.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
                deliveries.entry(key).or_insert_with(|| fresh(application.clone(), way));
                drop(deliveries);
                self.note_delivery(application, way, DeliveryState::Left, Some(reason), Vec::new(), Vec::new());
            }
            None if !is_asked => drop(self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).remove(&key)),
            // Its next round says how it stands.
            None => {}
        }
    }

    /// How all ways of all applications stand.
    pub fn deliveries(&self) -> Vec<DeliveryStatus> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Of the applications that read one of these credentials.
    pub(super) fn deliveries_of(&self, credentials: &[CredentialStatus]) -> Vec<DeliveryStatus> {
        let readers: BTreeSet<&Name> = credentials.iter().flat_map(|row| row.applications.iter().map(|entry| &entry.name)).collect();
        let mut all = self.deliveries();
        // What is left of an application without a document is read by nobody, and everybody's to know.
        all.retain(|status| readers.contains(&status.application) || status.state == DeliveryState::Left);
        all
    }

    /// After documents were read: a row for each way that is asked for, and the instances in whose names we read.
    pub(super) fn adopt_deliveries(&self, policies: &Policies) {
        let asked: BTreeSet<(Name, Way)> = asked(policies).collect();
        let carried = asked.iter().filter(|(_, way)| way.carries_material());
        let couriers = carried.map(|(application, way)| (application.clone(), way.instance())).collect();
        self.book.set_couriers(couriers, self.seams.clock.now().running);
        let mut deliveries = self.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
        deliveries.retain(|key, status| asked.contains(key) || status.state == DeliveryState::Left);
        for (application, way) in asked {
            deliveries.entry((application.clone(), way)).or_insert_with(|| fresh(application, way));
        }
    }

    /// How long a message is tried: a day, and no longer than a key lives.
    pub fn give_up_after(&self) -> Duration {
        self.policies().shortest_max_age().map_or(GIVE_UP_AFTER, |age| GIVE_UP_AFTER.min(age.as_duration()))
    }

    /// How often a target is looked at although nothing changed.
    pub fn look_at_targets_every(&self) -> Duration {
        self.scaled(LOOK_EVERY_MAX)
    }

    /// The wait after so many failures in a row of one delivery: doubled from 400 ms on, with jitter by hash.
    pub fn delivery_wait(&self, application: &Name, way: Way, failures: u32) -> Duration {
        let longest = if way.carries_material() { CARRY_WAIT_MAX } else { MESSAGE_WAIT_MAX };
        wait_after(application, failures, self.scaled(longest))
    }

    /// When to look again at copies that take something up: then, or soon.
    pub fn rollout_wait(&self, until: Option<Timestamp>, now: Timestamp) -> Duration {
        let soon = self.scaled(ROLLOUT_LOOK_MAX);
        let until = until.map_or(soon, |until| Duration::try_from(until.duration_since(now)).unwrap_or_default());
        until.clamp(soon, self.look_at_targets_every().max(soon))
    }

    /// Waits of ours scale down with the shortest policy.
    fn scaled(&self, longest: Duration) -> Duration {
        self.policies().shortest_max_age().map_or(longest, |age| longest.min(age.as_duration() / 20))
    }
}

fn asked(policies: &Policies) -> impl Iterator<Item = (Name, Way)> {
    let applications = policies.applications.values();
    applications.flat_map(|application| application.delivery.ways().map(|way| (application.name.clone(), way)))
}

fn fresh(application: Name, way: Way) -> DeliveryStatus {
    let state = DeliveryState::Waiting;
    DeliveryStatus { application, way, state, since: None, reason: None, stragglers: Vec::new(), dead_letters: Vec::new() }
}

fn withheld(error: ReadError) -> Withheld {
    Withheld(match error {
        ReadError::StoreUnavailable => "the store can't be reached and nothing is cached",
        ReadError::AuditUnavailable => "the audit trail can't be written, and this would be a first disclosure",
        ReadError::TooManyInstances => "the application has too many instances",
        ReadError::NotVerified => UNVERIFIED,
        ReadError::NoVersion => "a credential has no version that may be served: its own row says why",
        ReadError::NotLive | ReadError::Forbidden | ReadError::ReasonMissing => "what the application may read is changing",
    })
}

/// What a person should know of it.
pub(super) fn delivery_problem(status: &DeliveryStatus) -> Option<StatusProblem> {
    let (application, way) = (&status.application, status.way.as_str());
    let reason = status.reason.as_deref().unwrap_or("no reason is known");
    let (code, message) = match status.state {
        DeliveryState::Delivered | DeliveryState::Waiting => return None,
        DeliveryState::Failing => {
            ("delivery-failing", format!("`{application}` isn't told of changes by {way}: {reason}; it is tried again"))
        }
        DeliveryState::Left => (
            "delivery-left",
            format!("what went to `{application}` by {way} lies where nobody asks for it any more: {reason}; it is tried again"),
        ),
        DeliveryState::Dead => {
            let about: Vec<&str> = status.dead_letters.iter().map(|letter| letter.credential.as_str()).collect();
            let about = about.join(", ");
            (
                "delivery-dead",
                format!("a message to `{application}` by {way} was given up ({about}): {reason}; the next change is sent again"),
            )
        }
    };
    Some(StatusProblem { credential: None, code: code.to_owned(), message })
}
