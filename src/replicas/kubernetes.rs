//! The rows in Kubernetes: a ConfigMap for each head and each page, by compare-and-set on its `resourceVersion`.
//!
//! Each has a keyed code over its name and what it holds: who can write ConfigMaps can't free a key that is held, nor put one row in the
//! place of another. A lost answer isn't repeated here: the caller's next write conflicts, and it looks.
//!
//! The metadata of all rows, which is short, tells which of them were written since they were last read, and only these are read whole:
//! where there are thousands of instances, rows have megabytes, and who leads looks at them each second. The code stands there, too: a
//! cluster that came back from a backup gives versions out a second time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::ObjectMeta;

use super::{Kept, Leaf, Mark, Part, Place, Rows, RowsError};
use crate::cluster::{Cluster, ClusterError};
use crate::domain::ids::Name;
use crate::sealing::Keyring;

/// Where the JSON stands.
const ROW: &str = "row";
/// The annotation with its code.
const CODE: &str = "keywright.dev/row-code";
/// The API refuses a ConfigMap of more than 1 MiB.
const BYTES_MAX: usize = 960 << 10;
/// Objects in one page of a list.
const PAGE: u32 = 100;
/// Of objects of which only the metadata is asked for: some 1 KiB each.
const METADATA_PAGE: u32 = 500;
/// If more than these say something new, all are read at once.
const READ_SINGLY_MAX: usize = 8;
/// How often a list is begun anew because its pages expired, and how often a call is sent again that the API had no time for.
const TRIES: usize = 5;
const WAIT: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(2);

const COMPONENT: &str = "app.kubernetes.io/component";
const REPLICA: &str = "keywright.dev/replica";
const PART: &str = "keywright.dev/part";

/// ConfigMaps of one namespace.
pub struct KubernetesRows {
    cluster: Cluster,
    maps: Api<ConfigMap>,
    keyring: Arc<Keyring>,
    lease: Name,
    /// By an object's name: what was last read or written of it.
    known: Mutex<BTreeMap<String, Known>>,
}

/// An object as it was read or written.
struct Known {
    signs: Signs,
    place: Place,
    leaf: Leaf,
}

/// What metadata tells of one writing of an object. What has the same says the same.
#[derive(PartialEq, Eq)]
struct Signs {
    uid: String,
    version: String,
    code: String,
}

impl fmt::Debug for KubernetesRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesRows").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl From<ClusterError> for RowsError {
    fn from(error: ClusterError) -> RowsError {
        match error {
            ClusterError::Conflict | ClusterError::AlreadyExists | ClusterError::NotFound | ClusterError::Owned => RowsError::Conflict,
            ClusterError::TooLarge => RowsError::Full,
            ClusterError::Unauthorized => RowsError::Unavailable("the Kubernetes API doesn't take our token"),
            ClusterError::Forbidden => RowsError::Unavailable("the Kubernetes API forbids it: does our role allow it, in this namespace?"),
            ClusterError::Gone => RowsError::Unavailable("the Kubernetes API forgets its lists while they are read"),
            ClusterError::Invalid => RowsError::Unavailable("the Kubernetes API finds it invalid"),
            ClusterError::TooMany { .. } => RowsError::Unavailable("the Kubernetes API is asked too often"),
            ClusterError::Unavailable { .. } => RowsError::Unavailable("the Kubernetes API doesn't answer"),
            ClusterError::Unreadable => RowsError::Unavailable("the Kubernetes API's answer can't be read"),
        }
    }
}

impl KubernetesRows {
    /// Makes no call. The name of the lease tells one installation's rows from another's; `namespace` is our own by default. All
    /// replicas need the same key.
    pub fn new(cluster: Cluster, namespace: Option<&Name>, lease: Name, keyring: Arc<Keyring>) -> KubernetesRows {
        let namespace = namespace.map_or(cluster.namespace(), Name::as_str).to_owned();
        KubernetesRows { maps: Api::namespaced(cluster.client(), &namespace), cluster, keyring, lease, known: Mutex::default() }
    }

    fn name_of(&self, place: &Place) -> String {
        format!("{}-replica-{}-{}", self.lease, place.replica, text_of(place.part))
    }

    fn component(&self) -> String {
        format!("app.kubernetes.io/managed-by=keywright,app.kubernetes.io/instance={},{COMPONENT}=replica", self.lease)
    }

    fn code_of(&self, name: &str, row: &str) -> String {
        hex::encode(self.keyring.row_code(&[b"replica-row", name.as_bytes(), row.as_bytes()]))
    }

    fn object(&self, place: &Place, leaf: &Leaf, expected: Option<&Mark>) -> Result<ConfigMap, RowsError> {
        let name = self.name_of(place);
        let row = serde_json::to_string(leaf).map_err(|_| RowsError::Damaged("it can't be written"))?;
        if row.len() > BYTES_MAX {
            return Err(RowsError::Full);
        }
        let labels = [
            ("app.kubernetes.io/managed-by", "keywright"),
            ("app.kubernetes.io/instance", self.lease.as_str()),
            (COMPONENT, "replica"),
            (REPLICA, place.replica.as_str()),
            (PART, &text_of(place.part)),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let code = self.code_of(&name, &row);
        Ok(ConfigMap {
            metadata: ObjectMeta {
                name: Some(name),
                resource_version: expected.map(|mark| mark.0.clone()),
                labels: Some(labels.into()),
                annotations: Some(BTreeMap::from([(CODE.to_owned(), code)])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(ROW.to_owned(), row)])),
            ..ConfigMap::default()
        })
    }

    fn kept(&self, object: &ConfigMap) -> Result<Kept, RowsError> {
        const OTHER: RowsError = RowsError::Damaged("a ConfigMap with its labels is of another format");
        const ALTERED: RowsError = RowsError::Damaged("a ConfigMap of it was altered, or put in another's place");
        let label = |key: &str| object.metadata.labels.as_ref()?.get(key).map(String::as_str);
        let replica = label(REPLICA).and_then(|text| text.parse().ok()).ok_or(OTHER)?;
        let place = Place { replica, part: label(PART).and_then(part_of).ok_or(OTHER)? };
        let name = object.metadata.name.as_deref().ok_or(OTHER)?;
        let row = object.data.as_ref().and_then(|data| data.get(ROW)).ok_or(OTHER)?;
        // Labels aren't covered by the code: the name that they must make is.
        let signs = Signs::of(&object.metadata).ok_or(OTHER)?;
        if name != self.name_of(&place) || signs.code != self.code_of(name, row) {
            return Err(ALTERED);
        }
        let leaf: Leaf = serde_json::from_str(row).map_err(|_| OTHER)?;
        let fits = matches!((&leaf, place.part), (Leaf::Head(_), Part::Head) | (Leaf::Page(_), Part::Page(_)));
        if !fits {
            return Err(ALTERED);
        }
        let mark = Mark(signs.version.clone());
        self.known().insert(name.to_owned(), Known { signs, place: place.clone(), leaf: leaf.clone() });
        Ok(Kept { place, mark, leaf })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of an object, if nobody wrote it since.
    fn recall(&self, metadata: &ObjectMeta) -> Option<Kept> {
        let signs = Signs::of(metadata)?;
        let known = self.known();
        let known = known.get(metadata.name.as_ref()?).filter(|known| known.signs == signs)?;
        Some(Kept { place: known.place.clone(), mark: Mark(signs.version), leaf: known.leaf.clone() })
    }

    /// As the API has it now: without a version, nothing is from its cache.
    async fn list(&self, selector: &str) -> Result<Vec<Kept>, RowsError> {
        let mut wait = WAIT;
        let mut last = ClusterError::Gone;
        for _ in 0..TRIES {
            match self.list_once(selector).await {
                Ok(kept) => return kept,
                Err(ClusterError::NotFound) => return Err(RowsError::Unavailable("there is no such namespace in the cluster")),
                Err(error @ (ClusterError::Gone | ClusterError::TooMany { .. })) => {
                    last = error;
                    tokio::time::sleep(error.retry_after().unwrap_or(wait).min(WAIT_MAX)).await;
                    wait = (wait * 2).min(WAIT_MAX);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.into())
    }

    async fn list_once(&self, selector: &str) -> Result<Result<Vec<Kept>, RowsError>, ClusterError> {
        let listed = self.list_metadata(selector).await?;
        let (mut kept, mut news) = (Vec::new(), Vec::new());
        for metadata in &listed {
            match self.recall(metadata) {
                Some(known) => kept.push(known),
                None => news.push(metadata),
            }
        }
        if news.len() > READ_SINGLY_MAX {
            let objects = self.list_whole(selector).await?;
            return Ok(objects.iter().map(|object| self.kept(object)).collect());
        }
        let read = try_join_all(news.iter().map(|metadata| self.read_unchanged(metadata))).await?;
        let Some(read) = read.into_iter().collect::<Option<Vec<ConfigMap>>>() else {
            // Together they must be as they were at one moment, as a list is.
            let objects = self.list_whole(selector).await?;
            return Ok(objects.iter().map(|object| self.kept(object)).collect());
        };
        let read: Result<Vec<Kept>, RowsError> = read.iter().map(|object| self.kept(object)).collect();
        Ok(read.map(|read| {
            kept.extend(read);
            kept
        }))
    }

    /// `None`: it was written or removed since it was listed.
    async fn read_unchanged(&self, listed: &ObjectMeta) -> Result<Option<ConfigMap>, ClusterError> {
        let name = listed.name.as_deref().ok_or(ClusterError::Unreadable)?;
        let read = self.cluster.call(self.maps.get_opt(name)).await?;
        let is_same = |read: &ConfigMap| read.metadata.uid == listed.uid && read.metadata.resource_version == listed.resource_version;
        Ok(read.filter(is_same))
    }

    async fn list_metadata(&self, selector: &str) -> Result<Vec<ObjectMeta>, ClusterError> {
        let (mut all, mut params) = (Vec::new(), ListParams::default().labels(selector).limit(METADATA_PAGE));
        loop {
            let page = self.cluster.call(self.maps.list_metadata(&params)).await?;
            all.extend(page.items.into_iter().map(|object| object.metadata));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    async fn list_whole(&self, selector: &str) -> Result<Vec<ConfigMap>, ClusterError> {
        let (mut objects, mut params) = (Vec::new(), ListParams::default().labels(selector).limit(PAGE));
        loop {
            let page = self.cluster.call(self.maps.list(&params)).await?;
            objects.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(objects),
            }
        }
    }
}

impl Signs {
    /// `None`: it isn't an object of ours.
    fn of(metadata: &ObjectMeta) -> Option<Signs> {
        let code = metadata.annotations.as_ref()?.get(CODE)?.clone();
        Some(Signs { uid: metadata.uid.clone()?, version: metadata.resource_version.clone()?, code })
    }
}

#[async_trait]
impl Rows for KubernetesRows {
    async fn all(&self) -> Result<Vec<Kept>, RowsError> {
        let all = self.list(&self.component()).await?;
        let names: BTreeSet<String> = all.iter().map(|kept| self.name_of(&kept.place)).collect();
        self.known().retain(|name, _| names.contains(name));
        Ok(all)
    }

    async fn of(&self, replica: &Name) -> Result<Vec<Kept>, RowsError> {
        self.list(&format!("{},{REPLICA}={replica}", self.component())).await
    }

    async fn write(&self, place: &Place, leaf: &Leaf, expected: Option<&Mark>) -> Result<Mark, RowsError> {
        let object = self.object(place, leaf, expected)?;
        let name = self.name_of(place);
        let params = PostParams { field_manager: Some("keywright".to_owned()), ..PostParams::default() };
        let mut wait = WAIT;
        for _ in 0..TRIES {
            let sent = match expected {
                Some(_) => self.cluster.call(self.maps.replace(&name, &params, &object)).await,
                None => self.cluster.call(self.maps.create(&params, &object)).await,
            };
            match sent {
                Ok(written) => {
                    // Who may write these objects may also change what is written, on its way: then it is read before it counts as known.
                    let signs = Signs::of(&written.metadata).filter(|_| written.data == object.data);
                    if let Some(signs) = signs {
                        self.known().insert(name, Known { signs, place: place.clone(), leaf: leaf.clone() });
                    }
                    return written.metadata.resource_version.map(Mark).ok_or(RowsError::Unavailable("its version isn't known"));
                }
                Err(ClusterError::NotFound) if expected.is_none() => {
                    return Err(RowsError::Unavailable("there is no such namespace in the cluster"));
                }
                // Refused before it was looked at: the same may be sent again.
                Err(error @ ClusterError::TooMany { .. }) => {
                    tokio::time::sleep(error.retry_after().unwrap_or(wait).min(WAIT_MAX)).await;
                    wait = (wait * 2).min(WAIT_MAX);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(RowsError::Unavailable("the Kubernetes API is asked too often"))
    }

    async fn remove(&self, place: &Place, expected: &Mark) -> Result<(), RowsError> {
        let preconditions = Preconditions { resource_version: Some(expected.0.clone()), uid: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        self.cluster.call(self.maps.delete(&self.name_of(place), &params)).await?;
        Ok(())
    }
}

fn text_of(part: Part) -> String {
    match part {
        Part::Head => "head".to_owned(),
        Part::Page(number) => format!("{number:02}"),
    }
}

fn part_of(text: &str) -> Option<Part> {
    let part = if text == "head" { Part::Head } else { Part::Page(text.parse().ok()?) };
    (text_of(part) == text).then_some(part)
}
