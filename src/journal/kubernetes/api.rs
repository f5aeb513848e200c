//! Reading and writing one object: bounded, by compare-and-set, and never repeated without having looked.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, PostParams};
use tokio::time::Instant;

use super::objects::WriteId;
use crate::cluster::{Cluster, ClusterError};
use crate::journal::JournalError;

/// Objects in one page of a list.
const PAGE: u32 = 500;
/// How often a list is begun anew because its pages expired while they were read.
const LISTS_MAX: u32 = 5;
/// For how long one operation is tried while the API says to come again, or nothing.
const TRYING: Duration = Duration::from_secs(15);
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What became of a compare-and-set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Yes,
    /// Somebody else wrote in between, and nothing of ours is there.
    Changed,
}

/// The ConfigMaps of one namespace.
#[derive(Clone)]
pub(super) struct Objects {
    pub(super) cluster: Cluster,
    maps: Api<ConfigMap>,
    pub(super) watching: Api<ConfigMap>,
    leases: Api<Lease>,
}

impl From<ClusterError> for JournalError {
    fn from(error: ClusterError) -> JournalError {
        JournalError::Unavailable(match error {
            ClusterError::NotFound => "there is no such namespace in the cluster",
            ClusterError::Conflict | ClusterError::AlreadyExists | ClusterError::Owned => "the object was changed since it was read",
            ClusterError::Gone => "the Kubernetes API doesn't remember that far back",
            ClusterError::Unauthorized => "the Kubernetes API doesn't take our token",
            ClusterError::Forbidden => "the Kubernetes API forbids it: does our role allow it, in this namespace?",
            ClusterError::Invalid => "the Kubernetes API finds it invalid",
            ClusterError::TooLarge => "an object of the journal would grow beyond what Kubernetes keeps in one",
            ClusterError::TooMany { .. } => "the Kubernetes API is asked too often",
            ClusterError::Unavailable { .. } => "the Kubernetes API doesn't answer",
            ClusterError::Unreadable => "the Kubernetes API's answer can't be read",
        })
    }
}

/// Waits longer each time, and no longer than [`TRYING`] in all.
struct Patience {
    until: Instant,
    wait: Duration,
}

impl Patience {
    fn new() -> Patience {
        Patience { until: Instant::now() + TRYING, wait: FIRST_WAIT }
    }

    /// # Errors
    /// The error itself, if it won't pass or the time is over.
    async fn wait_after(&mut self, error: ClusterError) -> Result<(), ClusterError> {
        let wait = error.retry_after().unwrap_or(self.wait);
        if !error.is_passing() || Instant::now() + wait > self.until {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Ok(())
    }
}

impl Objects {
    pub(super) fn new(cluster: Cluster, namespace: &str) -> Objects {
        let maps = Api::namespaced(cluster.client(), namespace);
        let watching = Api::namespaced(cluster.watch_client(), namespace);
        let leases = Api::namespaced(cluster.client(), namespace);
        Objects { cluster, maps, watching, leases }
    }

    /// As the API has it now, not as a cache remembers it.
    pub(super) async fn get(&self, name: &str) -> Result<Option<ConfigMap>, JournalError> {
        Ok(self.read(name, &mut Patience::new()).await?)
    }

    async fn read(&self, name: &str, patience: &mut Patience) -> Result<Option<ConfigMap>, ClusterError> {
        loop {
            match self.cluster.call(self.maps.get(name)).await {
                Ok(object) => return Ok(Some(object)),
                Err(ClusterError::NotFound) => return Ok(None),
                Err(error) => patience.wait_after(error).await?,
            }
        }
    }

    /// How often the lease has changed hands; 0 where there is none.
    pub(super) async fn transitions(&self, lease: &str) -> Result<u64, JournalError> {
        let mut patience = Patience::new();
        loop {
            match self.cluster.call(self.leases.get(lease)).await {
                Ok(lease) => return Ok(lease.spec.and_then(|spec| spec.lease_transitions?.try_into().ok()).unwrap_or_default()),
                Err(ClusterError::NotFound) => return Ok(0),
                Err(error) => patience.wait_after(error).await?,
            }
        }
    }

    /// Replaces the object of this version, or creates it where it has none. It is the same write however often it is sent: it names
    /// what it replaces, so it takes effect once at most, and `id` tells it from others. It is sent again only when the object was
    /// read in between and is still the one to be replaced.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`]: whether it took effect, or still will, isn't known.
    pub(super) async fn write(&self, object: &ConfigMap, id: &WriteId) -> Result<Written, JournalError> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let version = object.metadata.resource_version.as_deref();
        let params = PostParams { field_manager: Some("keywright".to_owned()), ..PostParams::default() };
        let mut patience = Patience::new();
        let mut answers_lost = false;
        loop {
            let sent = match version {
                Some(_) => self.cluster.call(self.maps.replace(name, &params, object)).await,
                None => self.cluster.call(self.maps.create(&params, object)).await,
            };
            match sent {
                Ok(_) => return Ok(Written::Yes),
                // Only who lost an answer can meet his own write.
                Err(ClusterError::Conflict | ClusterError::AlreadyExists) if !answers_lost => return Ok(Written::Changed),
                Err(ClusterError::NotFound) if version.is_some() && !answers_lost => return Ok(Written::Changed),
                Err(ClusterError::Conflict | ClusterError::AlreadyExists) => {}
                Err(ClusterError::NotFound) if version.is_some() => {}
                // Refused before it was looked at.
                Err(error @ ClusterError::TooMany { .. }) => patience.wait_after(error).await?,
                Err(ClusterError::Unreadable) => answers_lost = true,
                Err(ClusterError::Unavailable { retry_after }) => {
                    answers_lost = true;
                    tokio::time::sleep(retry_after.unwrap_or_default().min(LONGEST_WAIT)).await;
                }
                Err(error) => return Err(error.into()),
            }
            if !answers_lost {
                continue;
            }
            let found = self.read(name, &mut patience).await?;
            if found.as_ref().is_some_and(|found| id.is_in(found)) {
                return Ok(Written::Yes);
            }
            if found.as_ref().and_then(|found| found.metadata.resource_version.as_deref()) != version {
                return Ok(Written::Changed);
            }
            patience.wait_after(ClusterError::Unavailable { retry_after: None }).await?;
        }
    }

    /// All of them as they were at one moment, and the version of that moment.
    pub(super) async fn list(&self, selector: &str) -> Result<(Vec<ConfigMap>, String), JournalError> {
        let mut patience = Patience::new();
        for _ in 0..LISTS_MAX {
            let (mut objects, mut params) = (Vec::new(), ListParams::default().labels(selector).limit(PAGE));
            loop {
                match self.cluster.call(self.maps.list(&params)).await {
                    Ok(page) => {
                        objects.extend(page.items);
                        match page.metadata.continue_.filter(|token| !token.is_empty()) {
                            Some(token) => params = params.continue_token(&token),
                            None => return Ok((objects, page.metadata.resource_version.unwrap_or_default())),
                        }
                    }
                    // The pages expired: what was read so far is of another moment than what would follow.
                    Err(ClusterError::Gone) => break,
                    Err(error) => patience.wait_after(error).await?,
                }
            }
        }
        Err(ClusterError::Gone.into())
    }

    /// Whether there is any, and the version of now.
    pub(super) async fn any(&self, selector: &str) -> Result<(bool, String), JournalError> {
        let (params, mut patience) = (ListParams::default().labels(selector).limit(1), Patience::new());
        loop {
            match self.cluster.call(self.maps.list(&params)).await {
                Ok(page) => return Ok((!page.items.is_empty(), page.metadata.resource_version.unwrap_or_default())),
                Err(error) => patience.wait_after(error).await?,
            }
        }
    }
}
