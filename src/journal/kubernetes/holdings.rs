//! Who holds what, of the process that leads: in a few objects by a hash, so that a batch is a few writes and none outgrows its object.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

use super::api::Written;
use super::objects::{Kind, WriteId, object, parts, state, with_state};
use super::{KubernetesJournal, ROUNDS_MAX};
use crate::domain::holders::Holding;
use crate::domain::ids::{InstanceName, Name};
use crate::journal::{HoldingChange, Holdings, JournalError};
use crate::sealing::sha256;

/// Objects that they are spread over. It can't change without moving what is kept.
const SHARDS: u8 = 64;

#[derive(Default, Serialize, Deserialize)]
struct State {
    term: u64,
    write: String,
    holdings: Vec<Holding>,
    seen: BTreeSet<(Name, Name)>,
}

type Key = (Name, InstanceName, Name);

fn key_of(holding: &Holding) -> Key {
    (holding.application.clone(), holding.instance.clone(), holding.credential.clone())
}

/// Of the whole key, so that many instances of one application are spread as well.
fn shard_of(change: &HoldingChange) -> u8 {
    let application = match change {
        HoldingChange::Put(holding) => &holding.application,
        HoldingChange::Remove { application, .. } | HoldingChange::Seen { application, .. } => application,
    };
    let instance = match change {
        HoldingChange::Put(holding) => holding.instance.as_str(),
        HoldingChange::Remove { instance, .. } => instance.as_str(),
        HoldingChange::Seen { .. } => "",
    };
    sha256(format!("{application}/{instance}/{}", change.credential()).as_bytes())[0] % SHARDS
}

impl State {
    fn change(&mut self, changes: &[&HoldingChange]) {
        let kept = std::mem::take(&mut self.holdings);
        let mut holdings: BTreeMap<Key, Holding> = kept.into_iter().map(|holding| (key_of(&holding), holding)).collect();
        for change in changes {
            match change {
                HoldingChange::Put(holding) => drop(holdings.insert(key_of(holding), holding.clone())),
                HoldingChange::Remove { application, instance, credential } => {
                    holdings.remove(&(application.clone(), instance.clone(), credential.clone()));
                }
                HoldingChange::Seen { application, credential } => drop(self.seen.insert((application.clone(), credential.clone()))),
            }
        }
        self.holdings = holdings.into_values().collect();
    }
}

impl KubernetesJournal {
    pub(super) async fn read_holdings(&self) -> Result<Holdings, JournalError> {
        let (found, _) = self.objects.list(&self.naming.selector(&[Kind::Holdings])).await?;
        let (mut holdings, mut seen) = (BTreeMap::new(), BTreeSet::new());
        for object in &found {
            let state: State = state(&parts(&self.keyring, object)?)?;
            holdings.extend(state.holdings.into_iter().map(|holding| (key_of(&holding), holding)));
            seen.extend(state.seen);
        }
        Ok(Holdings { holdings: holdings.into_values().collect(), seen: seen.into_iter().collect() })
    }

    /// Each shard is one write. If a later one fails, the earlier ones stand: changes say what is, so they can be written again.
    pub(super) async fn change_holdings(&self, term: u64, changes: &[HoldingChange]) -> Result<(), JournalError> {
        let Some(first) = changes.first() else { return Ok(()) };
        let _alone = self.batching.lock().await;
        let mut shards: BTreeMap<u8, Vec<&HoldingChange>> = BTreeMap::new();
        for change in changes {
            shards.entry(shard_of(change)).or_default().push(change);
        }
        let mut any_written = false;
        for (shard, changes) in shards {
            match self.change_shard(term, shard, &changes).await {
                Ok(()) => any_written = true,
                Err(JournalError::Deposed) if !any_written => {
                    return Err(JournalError::Conflict { credential: first.credential().clone() });
                }
                Err(JournalError::Deposed) => return Err(JournalError::Unavailable("another process began to lead while it was written")),
                Err(error) => return Err(error),
            }
        }
        self.confirm(term).await
    }

    async fn change_shard(&self, term: u64, shard: u8, changes: &[&HoldingChange]) -> Result<(), JournalError> {
        let name = self.naming.holdings(shard);
        for _ in 0..ROUNDS_MAX {
            let (found, highest) = futures_util::future::try_join(self.objects.get(&name), self.highest()).await?;
            let (mut state, version) = self.shard(found)?;
            if term < highest.max(state.term) {
                return Err(JournalError::Deposed);
            }
            let id = WriteId::new();
            state.change(changes);
            state.term = term;
            id.as_str().clone_into(&mut state.write);
            let object = object(&self.keyring, &self.naming, Kind::Holdings, name.clone(), version, with_state(&state)?)?;
            if self.objects.write(&object, &id).await? == Written::Yes {
                return Ok(());
            }
        }
        Err(JournalError::Unavailable("what is held is written by others all the time"))
    }

    fn shard(&self, found: Option<ConfigMap>) -> Result<(State, Option<String>), JournalError> {
        let Some(object) = found else { return Ok((State::default(), None)) };
        Ok((state(&parts(&self.keyring, &object)?)?, object.metadata.resource_version))
    }
}
