//! Objects in memory, with faults: for tests of what stands above the calls.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::contract::Hand;
use super::objects::{Intent, Mark, Objects, SecretAt, SecretSeen, WorkloadSeen};
use super::owner::{self, APPLICATION, FINGERPRINT, INSTALLATION, MANAGED_BY, REVISIONS};
use crate::cluster::ClusterError;
use crate::domain::restarts::{Pod, Progress, Seen, Workload};

/// What befalls one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this, without effect.
    Refused(ClusterError),
    /// It has its effect, and the answer is lost.
    ReplyLost,
}

/// A cluster of Secrets and workloads, without anything that moves by itself.
#[derive(Default)]
pub struct MemoryObjects {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    secrets: BTreeMap<SecretAt, Stored>,
    workloads: BTreeMap<(SecretAt, Workload), WorkloadSeen>,
    counter: u64,
    /// Calls until now, by name.
    calls: Vec<&'static str>,
    /// The call of this number, from 0, and what befalls it.
    fault: Option<(usize, Fault)>,
    /// What befalls every call.
    outage: Option<Fault>,
}

#[derive(Clone, Default)]
struct Stored {
    uid: u64,
    version: u64,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    data: BTreeMap<String, Vec<u8>>,
    ours: BTreeSet<String>,
    has_others: bool,
}

impl fmt::Debug for MemoryObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryObjects(..)")
    }
}

impl Stored {
    fn seen(&self) -> SecretSeen {
        SecretSeen {
            uid: self.uid.to_string(),
            resource_version: self.version.to_string(),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            ours: self.ours.clone(),
            has_others: self.has_others,
            is_ending: false,
        }
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// What befalls this call.
    fn begin(&mut self, call: &'static str) -> Result<Option<Fault>, ClusterError> {
        let number = self.calls.len();
        self.calls.push(call);
        let fault = self.fault.take_if(|(at, _)| *at == number).map(|(_, fault)| fault);
        match self.outage.or(fault) {
            Some(Fault::Refused(error)) => Err(error),
            found => Ok(found),
        }
    }

    fn over(&self, at: &SecretAt, over: Option<&SecretSeen>) -> Result<(), ClusterError> {
        match (over, self.secrets.get(at)) {
            (Some(over), Some(stored)) if (&over.uid, &over.resource_version) == (&stored.uid.to_string(), &stored.version.to_string()) => {
                Ok(())
            }
            (None, _) => Ok(()),
            _ => Err(ClusterError::Conflict),
        }
    }
}

fn unless_lost<T>(fault: Option<Fault>, answer: T) -> Result<T, ClusterError> {
    match fault {
        Some(Fault::ReplyLost) => Err(ClusterError::Unavailable { retry_after: None }),
        _ => Ok(answer),
    }
}

impl MemoryObjects {
    pub fn new() -> MemoryObjects {
        MemoryObjects::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls since the last time that this was asked.
    pub fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.state().calls)
    }

    /// The call of this number from now on, beginning at 0, meets this.
    pub fn fail_at(&self, number: usize, fault: Fault) {
        let mut state = self.state();
        let number = state.calls.len() + number;
        state.fault = Some((number, fault));
    }

    /// What befalls every call from now on; `None`: nothing.
    pub fn set_fault(&self, outage: Option<Fault>) {
        self.state().outage = outage;
    }

    /// What is seen of a workload from now on; `None`: it is gone.
    pub fn set_workload(&self, at: &SecretAt, workload: &Workload, seen: Option<Seen>) {
        let mut state = self.state();
        let key = (at.clone(), workload.clone());
        let uid = state.workloads.get(&key).map_or_else(|| state.counter.to_string(), |workload| workload.uid.clone());
        match seen {
            Some(seen) => drop(state.workloads.insert(key, WorkloadSeen { uid, seen })),
            None => drop(state.workloads.remove(&key)),
        }
    }

    pub fn seen_of(&self, at: &SecretAt, workload: &Workload) -> Option<Seen> {
        self.state().workloads.get(&(at.clone(), workload.clone())).map(|workload| workload.seen.clone())
    }

    /// Its controller makes a pod of the template of now; `is_ready` if it comes up. The old ones go then.
    pub fn roll(&self, at: &SecretAt, workload: &Workload, is_ready: bool) {
        let Some(mut seen) = self.seen_of(at, workload) else { return };
        let number = self.state().next();
        let Ok(name) = format!("{}-{number}", workload.name).parse() else { return };
        if is_ready {
            seen.pods.clear();
        }
        seen.progress = if is_ready { Progress::Settled } else { Progress::Rolling };
        seen.pods.push(Pod { name, checksum: seen.checksum.clone(), is_ready });
        self.set_workload(at, workload, Some(seen));
    }
}

#[async_trait]
impl Objects for MemoryObjects {
    async fn secret(&self, at: &SecretAt) -> Result<Option<SecretSeen>, ClusterError> {
        let mut state = self.state();
        let fault = state.begin("get secret")?;
        unless_lost(fault, state.secrets.get(at).map(Stored::seen))
    }

    async fn apply_secret(&self, at: &SecretAt, intent: Intent<'_>) -> Result<SecretSeen, ClusterError> {
        let mut state = self.state();
        let fault = state.begin("apply secret")?;
        state.over(at, intent.over)?;
        let version = state.next();
        let mut stored = state.secrets.get(at).cloned().unwrap_or_else(|| Stored { uid: version, ..Stored::default() });
        let body = intent.contents.close("{\"data\":");
        let body: serde_json::Value = serde_json::from_slice(&body).map_err(|_| ClusterError::Invalid)?;
        let entries = body["data"].as_object().ok_or(ClusterError::Invalid)?;
        let mut data = BTreeMap::new();
        for (name, value) in entries {
            let value = BASE64_STANDARD.decode(value.as_str().unwrap_or_default()).map_err(|_| ClusterError::Invalid)?;
            data.insert(name.clone(), value);
        }
        let theirs =
            |name: &String, value: &Vec<u8>| !stored.ours.contains(name) && stored.data.get(name).is_some_and(|there| there != value);
        if intent.over.is_none() && data.iter().any(|(name, value)| theirs(name, value)) {
            return Err(ClusterError::Owned);
        }
        stored.data.retain(|name, _| !stored.ours.contains(name));
        stored.ours = data.keys().cloned().collect();
        stored.data.extend(data);
        stored.version = version;
        stored.labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
        for (name, value) in [
            (APPLICATION, intent.owner.application.to_string()),
            (INSTALLATION, intent.owner.installation.0.to_string()),
            (FINGERPRINT, intent.contents.fingerprint().to_owned()),
            (REVISIONS, owner::written(intent.contents.revisions())),
        ] {
            stored.annotations.insert(name.to_owned(), value);
        }
        let seen = stored.seen();
        state.secrets.insert(at.clone(), stored);
        unless_lost(fault, seen)
    }

    async fn release_secret(&self, at: &SecretAt, over: &SecretSeen) -> Result<(), ClusterError> {
        let mut state = self.state();
        let fault = state.begin("release secret")?;
        state.over(at, Some(over))?;
        let version = state.next();
        if let Some(stored) = state.secrets.get_mut(at) {
            let ours = std::mem::take(&mut stored.ours);
            stored.data.retain(|name, _| !ours.contains(name));
            stored.labels.remove(MANAGED_BY.0);
            [APPLICATION, INSTALLATION, FINGERPRINT, REVISIONS].iter().for_each(|name| drop(stored.annotations.remove(*name)));
            stored.version = version;
        }
        unless_lost(fault, ())
    }

    async fn workload(&self, secret: &SecretAt, workload: &Workload) -> Result<Option<WorkloadSeen>, ClusterError> {
        let mut state = self.state();
        let fault = state.begin("get workload")?;
        unless_lost(fault, state.workloads.get(&(secret.clone(), workload.clone())).cloned())
    }

    async fn restart(&self, secret: &SecretAt, workload: &Workload, uid: &str, mark: &Mark) -> Result<(), ClusterError> {
        let mut state = self.state();
        let fault = state.begin("restart workload")?;
        let known = state.workloads.get_mut(&(secret.clone(), workload.clone())).filter(|known| known.uid == uid);
        let known = known.ok_or(ClusterError::Conflict)?;
        if known.seen.checksum.as_ref() != Some(&mark.checksum) {
            known.seen.progress = Progress::Rolling;
        }
        known.seen.checksum = Some(mark.checksum.clone());
        known.seen.restarted.clone_from(&mark.restarted);
        unless_lost(fault, ())
    }
}

#[async_trait]
impl Hand for MemoryObjects {
    async fn create_secret(&self, at: &SecretAt, data: &[(&str, &str)]) {
        let mut state = self.state();
        let uid = state.next();
        let data = data.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        state.secrets.insert(at.clone(), Stored { uid, version: uid, data, has_others: true, ..Stored::default() });
    }

    async fn edit_secret(&self, at: &SecretAt, name: &str, value: &str) {
        let mut state = self.state();
        let version = state.next();
        if let Some(stored) = state.secrets.get_mut(at) {
            stored.data.insert(name.to_owned(), value.as_bytes().to_vec());
            stored.ours.remove(name);
            (stored.version, stored.has_others) = (version, true);
        }
    }

    async fn annotate_secret(&self, at: &SecretAt, name: &str, value: &str) {
        let mut state = self.state();
        let version = state.next();
        if let Some(stored) = state.secrets.get_mut(at) {
            stored.annotations.insert(name.to_owned(), value.to_owned());
            (stored.version, stored.has_others) = (version, true);
        }
    }

    async fn delete_secret(&self, at: &SecretAt) {
        self.state().secrets.remove(at);
    }

    async fn data(&self, at: &SecretAt) -> Option<BTreeMap<String, Vec<u8>>> {
        self.state().secrets.get(at).map(|stored| stored.data.clone())
    }

    async fn create_workload(&self, at: &SecretAt, workload: &Workload) {
        let seen = Seen { checksum: None, restarted: Vec::new(), progress: Progress::Settled, pods: Vec::new() };
        self.set_workload(at, workload, Some(seen));
    }

    async fn settle(&self, at: &SecretAt, workload: &Workload) {
        if let Some(mut seen) = self.seen_of(at, workload) {
            seen.progress = Progress::Settled;
            self.set_workload(at, workload, Some(seen));
        }
    }
}
