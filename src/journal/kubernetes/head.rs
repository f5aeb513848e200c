//! The head: which installation this is, the highest term, the heartbeat and the pause. One object, so each change is one write.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::KubernetesJournal;
use super::api::Written;
use super::objects::{Kind, WriteId, object, parts, state, with_state};
use crate::domain::ids::{InstallationId, Name};
use crate::journal::{Anchor, Heartbeat, JournalError, Pause};

/// How often a change is made anew because others change the head as well.
const ROUNDS_MAX: u32 = 20;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Head {
    /// The highest term begun.
    pub(super) term: u64,
    pub(super) installation: Option<InstallationId>,
    #[serde(default)]
    pub(super) former: Vec<InstallationId>,
    /// Without its anchor.
    #[serde(default)]
    heartbeat: Heartbeat,
    /// How far each replica's audit trail had come: each has its own file.
    #[serde(default)]
    anchors: BTreeMap<Name, Anchor>,
    #[serde(default)]
    pub(super) pause: Option<Pause>,
    /// Grows with each change that is told to who follows.
    #[serde(default)]
    pub(super) told: u64,
    /// The last writing.
    #[serde(default)]
    write: String,
}

impl Head {
    /// The heartbeat as this replica is to see it: with the anchor of its own trail.
    pub(super) fn heartbeat(&self, replica: &Name) -> Heartbeat {
        Heartbeat { audit: self.anchors.get(replica).cloned(), ..self.heartbeat.clone() }
    }

    pub(super) fn beat(&mut self, replica: &Name, heartbeat: Heartbeat) {
        match heartbeat.audit.clone() {
            Some(anchor) => drop(self.anchors.insert(replica.clone(), anchor)),
            None => drop(self.anchors.remove(replica)),
        }
        self.heartbeat = Heartbeat { audit: None, ..heartbeat };
    }
}

impl KubernetesJournal {
    /// `None` before the first start.
    pub(super) async fn head(&self) -> Result<Option<(Head, Option<String>)>, JournalError> {
        let Some(found) = self.objects.get(&self.naming.head()).await? else { return Ok(None) };
        let head = state(&parts(&self.keyring, &found)?)?;
        Ok(Some((head, found.metadata.resource_version)))
    }

    /// The highest term begun, as it is now.
    pub(super) async fn highest(&self) -> Result<u64, JournalError> {
        match self.head().await? {
            Some((head, _)) => Ok(head.term),
            None if self.term.load(Ordering::Acquire) > 0 => Err(HEADLESS),
            None => Ok(0),
        }
    }

    /// Reads the head, changes it and writes it, anew for as long as others do the same. Where `change` fails, nothing has changed.
    pub(super) async fn change_head<T>(&self, change: impl Fn(&mut Head) -> Result<T, JournalError>) -> Result<T, JournalError> {
        for _ in 0..ROUNDS_MAX {
            let found = self.head().await?;
            if found.is_none() && self.objects.any(&self.naming.selector(&[Kind::Credential])).await?.0 {
                return Err(HEADLESS);
            }
            let (mut head, version) = found.unwrap_or_default();
            let outcome = change(&mut head)?;
            let id = WriteId::new();
            id.as_str().clone_into(&mut head.write);
            let object = object(&self.keyring, &self.naming, Kind::Head, self.naming.head(), version, with_state(&head)?)?;
            if self.objects.write(&object, &id).await? == Written::Yes {
                return Ok(outcome);
            }
        }
        Err(JournalError::Unavailable("the journal's head is written by others all the time"))
    }

    /// The newest process's to write.
    pub(super) async fn change_head_in(&self, term: u64, change: impl Fn(&mut Head)) -> Result<(), JournalError> {
        self.change_head(|head| {
            if term < head.term {
                return Err(JournalError::Deposed);
            }
            change(head);
            Ok(())
        })
        .await
    }

    /// Higher than all terms before, and than the lease's transitions.
    pub(super) async fn raise_term(&self) -> Result<u64, JournalError> {
        let transitions = self.objects.transitions(self.naming.lease.as_str()).await?;
        self.change_head(|head| {
            head.term = head.term.max(transitions).checked_add(1).ok_or(JournalError::Damaged("the terms are used up"))?;
            Ok(head.term)
        })
        .await
    }
}

const HEADLESS: JournalError = JournalError::Damaged("its head is missing");
