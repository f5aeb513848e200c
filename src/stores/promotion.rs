//! A promotion and its journal event: one transaction where store and journal share a file, else one after the other.

use std::sync::Arc;

use async_trait::async_trait;

use super::{SecretStore, Slot, StoreError};
use crate::domain::ids::VersionId;
use crate::domain::rotation::Event;
use crate::journal::{Journal, JournalError, Position, SealedCopy};

/// What is asked of the store, as for [`SecretStore::promote`].
#[derive(Debug, Clone, Copy)]
pub struct Promotion<'a> {
    pub slot: &'a Slot,
    pub version: &'a VersionId,
    pub replacing: Option<&'a VersionId>,
}

/// What is asked of the journal, as for [`Journal::append`]; the sealed copy stays as it is.
#[derive(Debug, Clone, Copy)]
pub struct Append<'a> {
    pub expected: Position,
    pub term: u64,
    pub event: &'a Event,
}

/// Which of the two refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromotionError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Moves the stage and journals it. Safe to repeat.
#[async_trait]
pub trait Promoter: Send + Sync {
    /// # Errors
    /// [`PromotionError::Store`] unless it is [`StoreError::Unavailable`]: neither has changed. Otherwise what is durable decides:
    /// the event may be missing where the stage moved, never the other way round.
    async fn promote_with(&self, promotion: Promotion<'_>, append: Append<'_>) -> Result<Position, PromotionError>;
}

/// For a store and a journal that lie apart. The stage moves first: an event that says more than the store would be believed, a
/// stage that is ahead of its event is found by asking the store, whose truth it is.
pub struct Apart {
    store: Arc<dyn SecretStore>,
    journal: Arc<dyn Journal>,
}

impl Apart {
    pub fn new(store: Arc<dyn SecretStore>, journal: Arc<dyn Journal>) -> Apart {
        Apart { store, journal }
    }
}

impl std::fmt::Debug for Apart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Apart(..)")
    }
}

#[async_trait]
impl Promoter for Apart {
    async fn promote_with(&self, promotion: Promotion<'_>, append: Append<'_>) -> Result<Position, PromotionError> {
        let Promotion { slot, version, replacing } = promotion;
        self.store.promote(slot, version, replacing).await?;
        let Append { expected, term, event } = append;
        Ok(self.journal.append(&slot.credential, expected, term, event, SealedCopy::Keep).await?)
    }
}
