//! Where replicas keep what each of them says about whom it serves: the seam to the rows.
//!
//! A row is a head and [`PAGES`](crate::domain::replicas::PAGES) pages; each is written whole, by compare-and-set. Pages are their replica's own; into
//! the head the leader writes, too. What the rows mean stands in `domain/replicas.rs`.

#[allow(clippy::unwrap_used, clippy::panic, reason = "test support: a failed unwrap here is a failed test of the rows")]
pub mod contract;
pub mod kubernetes;
pub mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::ids::{InstanceName, Name};
use crate::domain::replicas::{Head, Presence, Row};

/// Which part of whose row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub replica: Name,
    pub part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Head,
    /// Counted from 0.
    Page(u8),
}

/// What stands there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leaf {
    Head(Head),
    Page(#[serde(with = "entries")] Vec<Entry>),
}

/// An instance on a page. Copies share what is said of it: there are thousands, and they are looked at all the time.
pub type Entry = (Name, InstanceName, Arc<Presence>);

/// As if nothing were shared.
mod entries {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Entry, InstanceName, Name, Presence};

    pub(super) fn serialize<S: Serializer>(entries: &[Entry], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(entries.iter().map(|(application, instance, presence)| (application, instance, presence.as_ref())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
        let entries = Vec::<(Name, InstanceName, Presence)>::deserialize(deserializer)?;
        Ok(entries.into_iter().map(|(application, instance, presence)| (application, instance, Arc::new(presence))).collect())
    }
}

/// Of one writing of a leaf: another writing has another. It means something to the rows that give it, and to no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(pub String);

/// A leaf as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub place: Place,
    pub mark: Mark,
    pub leaf: Leaf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// Somebody else wrote since, or it isn't there any more, or is there already. Nothing has changed.
    #[error("the row has been written by somebody else meanwhile")]
    Conflict,
    #[error("a row of a replica is damaged ({0})")]
    Damaged(&'static str),
    /// More than one object holds. Nothing has changed.
    #[error("there are more instances than a row holds")]
    Full,
    /// Whether it took effect isn't known.
    #[error("the rows of the replicas can't be reached: {0}")]
    Unavailable(&'static str),
}

#[async_trait]
pub trait Rows: Send + Sync {
    /// All leaves of all replicas, each as durable at some moment after this call began: never from a cache, because the safety of a
    /// revocation rests on it.
    ///
    /// # Errors
    /// [`RowsError::Damaged`] if any of them can't be understood: what it says isn't known, so it isn't left out.
    async fn all(&self) -> Result<Vec<Kept>, RowsError>;

    /// The same of one replica.
    async fn of(&self, replica: &Name) -> Result<Vec<Kept>, RowsError>;

    /// Durable when it returns. `expected` is the mark of what it replaces; `None`: nothing is there.
    ///
    /// # Errors
    /// [`RowsError::Conflict`] if what is there is something else.
    async fn write(&self, place: &Place, leaf: &Leaf, expected: Option<&Mark>) -> Result<Mark, RowsError>;

    /// Removes a leaf that is still what was read.
    ///
    /// # Errors
    /// [`RowsError::Conflict`] if it was written since, or is gone.
    async fn remove(&self, place: &Place, expected: &Mark) -> Result<(), RowsError>;
}

/// Leaves, put together by replica. A page without a head is part of a row that is being begun or removed: it counts.
pub fn rows_of(kept: &[Kept]) -> Vec<Row> {
    let mut rows: BTreeMap<&Name, Row> = BTreeMap::new();
    for Kept { place, leaf, .. } in kept {
        let empty = || Row { replica: place.replica.clone(), head: Head::default(), presences: BTreeMap::new() };
        let row = rows.entry(&place.replica).or_insert_with(empty);
        match leaf {
            Leaf::Head(head) => row.head = head.clone(),
            Leaf::Page(entries) => {
                let entries = entries.iter().cloned();
                row.presences.extend(entries.map(|(application, instance, presence)| ((application, instance), presence)));
            }
        }
    }
    rows.into_values().collect()
}
