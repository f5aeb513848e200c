//! The journal in Kubernetes: one ConfigMap per credential, written by compare-and-set on its `resourceVersion`.
//!
//! # Why a deposed leader's append counts for nothing (I7)
//! The API knows no write of two objects. The highest term stands in the head, an event in its credential's object, so looking at the
//! one and writing the other are two moments, and a newer leader may begin its term in between. Three things together close the gap:
//!
//! 1. **Looked at before.** An append reads object and head, and goes no further for a term lower than the head's or the object's
//!    *stamp*. So whoever begins after a newer term has begun changes nothing.
//! 2. **Looked at after.** An append is told as done only once the head was read *after* the write took effect, and still had no higher
//!    term. Then the write came before the newer leader's `begin_term` returned, so that leader, who loads after that, has the event. If
//!    the head had gone on, the answer is `Unavailable`, and the next `load` of this credential by the same process is a `Conflict`: it
//!    can't read back that its event stands there and act on it. Such an event was begun before the newer term and is acted on by
//!    nobody: it is what a process leaves that dies right after its append.
//! 3. **Claimed by who loads to lead.** From `begin_term` on, loading a credential on which something is open (a rotation, an incident,
//!    an orphan to be revoked, a store to be cleared) stamps the own term into its object before the history is returned. That changes
//!    the object's version, so a compare-and-set of anybody who read it before fails, and who reads it after sees the stamp. A leader who
//!    acts on what was journaled in an earlier term acts on claimed objects only. Where nothing is open there is nothing to act on but by
//!    an append of one's own, which is such a compare-and-set itself: if an event as in 2 came first, it fails, the caller loads
//!    again, and that claims. So idle credentials, nearly all of them, cost a take-over one list and no write.
//!
//! What belongs to no credential stands in the head itself (one write, no gap), or is stamped and looked at in the same way.
//!
//! # Lost answers
//! Each write carries an id of its own. Whoever loses the answer reads the object: if the id is in it, it took effect; if the object is
//! still the one that was to be replaced, the same write is sent again, which can take effect once at most.
//!
//! # Integrity
//! Each object has a keyed code over its name and all it holds. Changed, truncated, or put in another's place by somebody who can write
//! ConfigMaps, it is `Damaged`. An older state of the same object can't be told from a restored backup (I10): the provider's list and
//! the store tell. All replicas need the same key.

mod api;
mod applications;
mod follow;
mod head;
mod holdings;

mod listing;
mod objects;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Changes, Cursor, Heartbeat, History, HoldingChange, Holdings, Journal, JournalError, Pause, Position, SealedCopy};
use crate::cluster::Cluster;
use crate::domain::delivery::Way;
use crate::domain::dispatch::Dispatch;
use crate::domain::ids::{InstallationId, Name};
use crate::domain::launch::Launch;
use crate::domain::rotation::Event;
use crate::sealing::{Keyring, Sealed};

use api::{Objects, Written};
use listing::Listing;
use objects::{Naming, WriteId};
use record::Record;

/// How often an append is made anew because its object was written meanwhile and is still where the caller believes it to be.
const ROUNDS_MAX: u32 = 10;

/// Where the journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// Our own by default.
    pub namespace: Option<Name>,
    /// The lease that its writers compete for. Its name begins those of all objects, so that two installations fit into a namespace.
    pub lease: Name,
}

/// ConfigMaps of one namespace. One process has one of these; its followers and its leader share it.
pub struct KubernetesJournal {
    objects: Objects,
    naming: Naming,
    keyring: Arc<Keyring>,
    replica: Name,
    /// The term that this process began last, while it doesn't know of a higher one; 0 before, and after.
    term: AtomicU64,
    /// Appends of which we don't know whether they counted: credential and term.
    unsure: Mutex<BTreeMap<Name, u64>>,
    listing: Mutex<Option<Listing>>,
    /// Batches come one after the other, so that they don't compete for the same objects.
    batching: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for KubernetesJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesJournal").field("naming", &self.naming).field("replica", &self.replica).finish_non_exhaustive()
    }
}

/// What else an append changes.
enum Change {
    Append(SealedCopy),
    Compact,
}

impl KubernetesJournal {
    /// Makes no call. `replica` is this process's name among those that share the journal: in the cluster its pod's.
    pub fn new(cluster: Cluster, settings: &KubernetesSettings, keyring: Arc<Keyring>, replica: Name) -> KubernetesJournal {
        let namespace = settings.namespace.as_ref().map_or(cluster.namespace(), Name::as_str).to_owned();
        KubernetesJournal {
            objects: Objects::new(cluster, &namespace),
            naming: Naming { lease: settings.lease.clone() },
            keyring,
            replica,
            term: AtomicU64::new(0),
            unsure: Mutex::default(),
            listing: Mutex::default(),
            batching: tokio::sync::Mutex::default(),
        }
    }

    fn unsure(&self) -> MutexGuard<'_, BTreeMap<Name, u64>> {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn record(&self, credential: &Name) -> Result<Record, JournalError> {
        let found = self.objects.get(&self.naming.credential(credential)).await?;
        found.map_or_else(|| Ok(Record::default()), |object| Record::of(&self.keyring, &object))
    }

    /// Whether a write of this term, which has taken effect, came before any higher term was begun.
    async fn confirm(&self, term: u64) -> Result<(), JournalError> {
        if self.highest().await? > term {
            return Err(JournalError::Unavailable("another process began to lead while it was written"));
        }
        Ok(())
    }

    async fn push(
        &self,
        credential: &Name,
        expected: Position,
        term: u64,
        event: &Event,
        change: Change,
    ) -> Result<Position, JournalError> {
        for _ in 0..ROUNDS_MAX {
            let (mut record, highest) = futures_util::future::try_join(self.record(credential), self.highest()).await?;
            if record.position() != expected || term < highest.max(record.stamp()) {
                return Err(JournalError::Conflict { credential: credential.clone() });
            }
            if term > highest {
                return Err(JournalError::Damaged("its head is older than a term that has begun"));
            }
            let id = WriteId::new();
            self.alter(&mut record, credential, term, event, &change, &id)?;
            let object = record.to_object(&self.keyring, &self.naming, credential, &id)?;
            self.unsure().insert(credential.clone(), term);
            if self.objects.write(&object, &id).await? == Written::Yes {
                self.forget_listed(credential, true);
                self.confirm(term).await?;
                self.unsure().remove(credential);
                return Ok(record.position());
            }
            self.unsure().remove(credential);
        }
        Err(JournalError::Unavailable("the journal of the credential is written by others all the time"))
    }

    fn alter(
        &self,
        record: &mut Record,
        credential: &Name,
        term: u64,
        event: &Event,
        change: &Change,
        id: &WriteId,
    ) -> Result<(), JournalError> {
        match change {
            Change::Compact => return record.replace(term, event, id),
            Change::Append(SealedCopy::Keep) => {}
            Change::Append(SealedCopy::Erase) => record.keep_copy(None),
            Change::Append(SealedCopy::Put(copy)) => record.keep_copy(Some(self.fresh(record, credential, copy)?)),
        }
        record.push(term, event, id)
    }

    /// A new key may have come since the copy was sealed: nothing is written under a former one.
    fn fresh(&self, record: &Record, credential: &Name, copy: &Sealed) -> Result<Sealed, JournalError> {
        if !self.keyring.is_former_key(&copy.0) {
            return Ok(copy.clone());
        }
        Ok(super::embedded::renewed(&self.keyring, credential, &record.events()?, copy)?)
    }

    /// What was read, for who asked. Where this process leads and something is open, it is claimed first.
    async fn loaded(&self, credential: &Name, mut record: Record) -> Result<History, JournalError> {
        self.settle(credential).await?;
        for _ in 0..ROUNDS_MAX {
            let term = self.term.load(Ordering::Acquire);
            if term == 0 || record.version.is_none() || record.stamp() >= term || record.is_at_rest()? {
                return record.history();
            }
            if self.highest().await? > term {
                // Another process leads: from here on this one follows.
                let _raced = self.term.compare_exchange(term, 0, Ordering::AcqRel, Ordering::Acquire);
                return record.history();
            }
            let id = WriteId::new();
            record.claim(term);
            let object = record.to_object(&self.keyring, &self.naming, credential, &id)?;
            if self.objects.write(&object, &id).await? == Written::Yes {
                return record.history();
            }
            record = self.record(credential).await?;
        }
        Err(JournalError::Unavailable("the journal of the credential is written by others all the time"))
    }

    /// An append whose answer we didn't get, or got too late, counts only if no higher term has begun since. The record was read
    /// before this looks.
    async fn settle(&self, credential: &Name) -> Result<(), JournalError> {
        let Some(term) = self.unsure().get(credential).copied() else { return Ok(()) };
        let highest = self.highest().await?;
        self.unsure().remove(credential);
        if highest > term { Err(JournalError::Conflict { credential: credential.clone() }) } else { Ok(()) }
    }
}

#[async_trait]
impl Journal for KubernetesJournal {
    async fn installation(&self) -> Result<InstallationId, JournalError> {
        if let Some(installation) = self.head().await?.and_then(|(head, _)| head.installation) {
            return Ok(installation);
        }
        let made = InstallationId(Uuid::new_v4());
        self.change_head(|head| Ok(*head.installation.get_or_insert(made))).await
    }

    async fn former_installations(&self) -> Result<Vec<InstallationId>, JournalError> {
        Ok(self.head().await?.map(|(head, _)| head.former).unwrap_or_default())
    }

    async fn begin_term(&self) -> Result<u64, JournalError> {
        let term = self.raise_term().await?;
        self.term.store(term, Ordering::Release);
        // Whatever was listed before may miss what the one before us wrote since.
        self.forget_all_listed();
        Ok(term)
    }

    async fn credentials(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, JournalError> {
        self.listed_names(after, limit).await
    }

    async fn load(&self, credential: &Name) -> Result<History, JournalError> {
        let record = self.record(credential).await?;
        self.loaded(credential, record).await
    }

    async fn load_each(&self, credentials: &[Name]) -> Result<Vec<History>, JournalError> {
        self.load_listed(credentials).await
    }

    async fn append(
        &self,
        credential: &Name,
        expected: Position,
        term: u64,
        event: &Event,
        sealed: SealedCopy,
    ) -> Result<Position, JournalError> {
        self.push(credential, expected, term, event, Change::Append(sealed)).await
    }

    async fn compact(&self, credential: &Name, expected: Position, term: u64, snapshot: &Event) -> Result<Position, JournalError> {
        self.push(credential, expected, term, snapshot, Change::Compact).await
    }

    async fn holdings(&self) -> Result<Holdings, JournalError> {
        self.read_holdings().await
    }

    async fn write_holdings(&self, term: u64, changes: &[HoldingChange]) -> Result<(), JournalError> {
        self.change_holdings(term, changes).await
    }

    async fn heartbeat(&self) -> Result<Heartbeat, JournalError> {
        Ok(self.head().await?.map(|(head, _)| head.heartbeat(&self.replica)).unwrap_or_default())
    }

    async fn write_heartbeat(&self, term: u64, heartbeat: Heartbeat) -> Result<(), JournalError> {
        self.change_head_in(term, |head| head.beat(&self.replica, heartbeat.clone())).await
    }

    async fn pause(&self) -> Result<Option<Pause>, JournalError> {
        Ok(self.head().await?.and_then(|(head, _)| head.pause))
    }

    async fn write_pause(&self, term: u64, pause: Option<Pause>) -> Result<(), JournalError> {
        self.change_head_in(term, |head| {
            head.pause = pause;
            head.told += 1;
        })
        .await
    }

    async fn launches(&self) -> Result<Vec<(Name, Launch)>, JournalError> {
        self.read_launches().await
    }

    async fn write_launch(&self, term: u64, application: &Name, launch: &Launch) -> Result<(), JournalError> {
        self.replace_launch(term, application, launch).await
    }

    async fn dispatches(&self) -> Result<Vec<((Name, Way), Dispatch)>, JournalError> {
        self.read_dispatches().await
    }

    async fn write_dispatch(&self, term: u64, application: &Name, way: Way, dispatch: &Dispatch) -> Result<(), JournalError> {
        self.replace_dispatch(term, application, way, dispatch).await
    }

    async fn changes(&self, since: &Cursor, wait: Duration) -> Result<Changes, JournalError> {
        self.follow(since, wait).await
    }
}
