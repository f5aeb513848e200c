//! What was signed off of going-live lists, and what is live: one object per application.

use serde::{Deserialize, Serialize};

use super::api::Written;
use super::objects::{Kind, WriteId, object, parts, state, with_state};
use super::{KubernetesJournal, ROUNDS_MAX};
use crate::domain::ids::Name;
use crate::domain::launch::Launch;
use crate::journal::JournalError;

#[derive(Serialize, Deserialize)]
struct State {
    term: u64,
    write: String,
    launch: Launch,
}

impl KubernetesJournal {
    pub(super) async fn read_launches(&self) -> Result<Vec<(Name, Launch)>, JournalError> {
        let (found, _) = self.objects.list(&self.naming.selector(&[Kind::Launch])).await?;
        let mut launches = Vec::with_capacity(found.len());
        for object in &found {
            let state: State = state(&parts(&self.keyring, object)?)?;
            let name = self.naming.named(object, Kind::Launch);
            launches.push((name.ok_or(JournalError::Damaged("a ConfigMap with its labels has another's name"))?, state.launch));
        }
        launches.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(launches)
    }

    pub(super) async fn replace_launch(&self, term: u64, application: &Name, launch: &Launch) -> Result<(), JournalError> {
        let name = self.naming.launch(application);
        for _ in 0..ROUNDS_MAX {
            let (found, highest) = futures_util::future::try_join(self.objects.get(&name), self.highest()).await?;
            let stamp = match &found {
                Some(object) => state::<State>(&parts(&self.keyring, object)?)?.term,
                None => 0,
            };
            if term < highest.max(stamp) {
                return Err(JournalError::Deposed);
            }
            let id = WriteId::new();
            let parts = with_state(&State { term, write: id.as_str().to_owned(), launch: launch.clone() })?;
            let version = found.and_then(|object| object.metadata.resource_version);
            let object = object(&self.keyring, &self.naming, Kind::Launch, name.clone(), version, parts)?;
            if self.objects.write(&object, &id).await? == Written::Yes {
                return self.confirm(term).await;
            }
        }
        Err(JournalError::Unavailable("a going-live list is written by others all the time"))
    }
}
