//! Which journals changed since a reader last looked: how replicas that don't lead follow the one that does.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::ids::Name;

/// How far a reader has followed. The default is nowhere: the first answer is [`Changed::Everything`], at once.
///
/// A reader takes its first cursor, then loads everything, then asks what changed since: nothing falls between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor(Option<String>);

impl Cursor {
    /// `mark` means something to the journal that gives it, and to no other.
    pub fn at(mark: String) -> Cursor {
        Cursor(Some(mark))
    }

    pub fn mark(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// What a reader is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Where to go on from.
    pub cursor: Cursor,
    pub changed: Changed,
}

/// What to load again. One's own writes count too; something that didn't change may be named, nothing that did is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Since when isn't known any more, or was never known.
    Everything,
    /// Only this; nothing at all, where the time to wait is over.
    These {
        credentials: BTreeSet<Name>,
        /// The pause, or what was signed off of a going-live list. Not the heartbeat, the term or who holds what.
        general: bool,
    },
}

impl Changes {
    /// Nothing happened after `since`.
    pub fn none(since: &Cursor) -> Changes {
        Changes { cursor: since.clone(), changed: Changed::These { credentials: BTreeSet::new(), general: false } }
    }

    pub fn everything(cursor: Cursor) -> Changes {
        Changes { cursor, changed: Changed::Everything }
    }

    pub fn is_none(&self) -> bool {
        matches!(&self.changed, Changed::These { credentials, general: false } if credentials.is_empty())
    }
}

/// The number of the last change of each thing, for a journal in one process.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    count: u64,
    credentials: BTreeMap<Name, u64>,
    general: u64,
}

impl Tally {
    pub(super) fn credential(&mut self, credential: &Name) {
        self.count += 1;
        self.credentials.insert(credential.clone(), self.count);
    }

    pub(super) fn general(&mut self) {
        self.count += 1;
        self.general = self.count;
    }

    /// `None`: nothing yet.
    pub(super) fn since(&self, since: &Cursor) -> Option<Changes> {
        let cursor = Cursor::at(self.count.to_string());
        let Some(seen) = since.mark().and_then(|mark| mark.parse().ok()).filter(|seen| *seen <= self.count) else {
            return Some(Changes::everything(cursor));
        };
        let credentials = self.credentials.iter().filter(|(_, at)| **at > seen).map(|(name, _)| name.clone()).collect();
        let changed = Changed::These { credentials, general: self.general > seen };
        Some(Changes { cursor, changed }).filter(|changes| !changes.is_none())
    }
}
