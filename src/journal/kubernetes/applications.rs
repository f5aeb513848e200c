//! What is kept of each application, one object each: what was signed off of its going-live list and is live, and its deliveries.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::api::Written;
use super::objects::{Kind, WriteId, object, parts, state, with_state};
use super::{KubernetesJournal, ROUNDS_MAX};
use crate::domain::delivery::Way;
use crate::domain::dispatch::Dispatch;
use crate::domain::ids::Name;
use crate::domain::launch::Launch;
use crate::journal::JournalError;

#[derive(Serialize, Deserialize)]
struct State<T> {
    term: u64,
    write: String,
    /// Named after what it was, where a version before the first release wrote it.
    #[serde(alias = "launch")]
    kept: T,
}

/// Whose launch it is, the object's name tells. Names of ways have hyphens as names of applications do, so here it stands inside.
#[derive(Clone, Serialize, Deserialize)]
struct OfWay {
    application: Name,
    way: Way,
    dispatch: Dispatch,
}

impl KubernetesJournal {
    pub(super) async fn read_launches(&self) -> Result<Vec<(Name, Launch)>, JournalError> {
        let (found, _) = self.objects.list(&self.naming.selector(&[Kind::Launch])).await?;
        let mut launches = Vec::with_capacity(found.len());
        for object in &found {
            let state: State<Launch> = state(&parts(&self.keyring, object)?)?;
            let name = self.naming.named(object, Kind::Launch);
            launches.push((name.ok_or(JournalError::Damaged("a ConfigMap with its labels has another's name"))?, state.kept));
        }
        launches.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(launches)
    }

    pub(super) async fn read_dispatches(&self) -> Result<Vec<((Name, Way), Dispatch)>, JournalError> {
        let (found, _) = self.objects.list(&self.naming.selector(&[Kind::Dispatch])).await?;
        let mut dispatches = Vec::with_capacity(found.len());
        for object in &found {
            let OfWay { application, way, dispatch } = state::<State<OfWay>>(&parts(&self.keyring, object)?)?.kept;
            dispatches.push(((application, way), dispatch));
        }
        Ok(dispatches)
    }

    pub(super) async fn replace_launch(&self, term: u64, application: &Name, launch: &Launch) -> Result<(), JournalError> {
        self.replace_whole(term, Kind::Launch, self.naming.launch(application), launch).await
    }

    pub(super) async fn replace_dispatch(&self, term: u64, application: &Name, way: Way, dispatch: &Dispatch) -> Result<(), JournalError> {
        let kept = OfWay { application: application.clone(), way, dispatch: dispatch.clone() };
        self.replace_whole(term, Kind::Dispatch, self.naming.dispatch(application, way), &kept).await
    }

    /// Writes the object whatever it holds, save what a newer leader wrote.
    async fn replace_whole<T>(&self, term: u64, kind: Kind, name: String, kept: &T) -> Result<(), JournalError>
    where
        T: Clone + Serialize + DeserializeOwned,
    {
        for _ in 0..ROUNDS_MAX {
            let (found, highest) = futures_util::future::try_join(self.objects.get(&name), self.highest()).await?;
            let stamp = match &found {
                Some(object) => state::<State<T>>(&parts(&self.keyring, object)?)?.term,
                None => 0,
            };
            if term < highest.max(stamp) {
                return Err(JournalError::Deposed);
            }
            let id = WriteId::new();
            let parts = with_state(&State { term, write: id.as_str().to_owned(), kept: kept.clone() })?;
            let version = found.and_then(|object| object.metadata.resource_version);
            let object = object(&self.keyring, &self.naming, kind, name.clone(), version, parts)?;
            if self.objects.write(&object, &id).await? == Written::Yes {
                return self.confirm(term).await;
            }
        }
        Err(JournalError::Unavailable("what is kept of an application is written by others all the time"))
    }
}
