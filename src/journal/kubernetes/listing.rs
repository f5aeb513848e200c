//! All credentials in a few pages, not one by one: what a start or a take-over of many thousands reads.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use tokio::time::Instant;

use super::KubernetesJournal;
use super::objects::Kind;
use super::record::Record;
use crate::domain::ids::Name;
use crate::journal::{History, JournalError};

/// For how long a list is gone through: whoever turns its pages for longer gets a new one.
const KEPT: Duration = Duration::from_secs(60);
/// Loads side by side, where objects are claimed or weren't in the list.
const AT_ONCE: usize = 32;

/// A list that somebody is going through: by name, and then by content.
pub(super) struct Listing {
    taken: Instant,
    names: BTreeSet<Name>,
    /// Each is given out once: who loads again gets it as it is then.
    objects: BTreeMap<Name, ConfigMap>,
}

impl KubernetesJournal {
    fn listing(&self) -> MutexGuard<'_, Option<Listing>> {
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        if listing.as_ref().is_some_and(|listing| listing.taken.elapsed() > KEPT) {
            *listing = None;
        }
        listing
    }

    pub(super) fn forget_all_listed(&self) {
        *self.listing() = None;
    }

    /// It was written since.
    pub(super) fn forget_listed(&self, credential: &Name, exists: bool) {
        if let Some(listing) = self.listing().as_mut() {
            listing.objects.remove(credential);
            if exists {
                listing.names.insert(credential.clone());
            }
        }
    }

    pub(super) async fn listed_names(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, JournalError> {
        let page = |listing: &Listing| {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            listing.names.range::<Name, _>((from, Bound::Unbounded)).take(limit).cloned().collect()
        };
        if after.is_some()
            && let Some(listing) = self.listing().as_ref()
        {
            return Ok(page(listing));
        }
        let listing = self.take_list().await?;
        let names = page(&listing);
        *self.listing() = Some(listing);
        Ok(names)
    }

    async fn take_list(&self) -> Result<Listing, JournalError> {
        let taken = Instant::now();
        let (found, _) = self.objects.list(&self.naming.selector(&[Kind::Credential])).await?;
        let mut objects = BTreeMap::new();
        for object in found {
            let name = self.naming.named(&object, Kind::Credential);
            let name = name.ok_or(JournalError::Damaged("a ConfigMap with its labels has another's name"))?;
            objects.insert(name, object);
        }
        Ok(Listing { taken, names: objects.keys().cloned().collect(), objects })
    }

    pub(super) async fn load_listed(&self, credentials: &[Name]) -> Result<Vec<History>, JournalError> {
        let mut histories = Vec::with_capacity(credentials.len());
        for some in credentials.chunks(AT_ONCE) {
            let loads = some.iter().map(|credential| self.load_one_listed(credential));
            histories.extend(futures_util::future::try_join_all(loads).await?);
        }
        Ok(histories)
    }

    async fn load_one_listed(&self, credential: &Name) -> Result<History, JournalError> {
        let listed = self.listing().as_mut().and_then(|listing| listing.objects.remove(credential));
        let record = match listed {
            Some(object) => Record::of(&self.keyring, &object)?,
            None => self.record(credential).await?,
        };
        self.loaded(credential, record).await
    }
}
