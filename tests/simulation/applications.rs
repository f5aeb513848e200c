//! Applications: copies that come and go, take up what they are served, and say so, sooner or later.

use std::collections::BTreeMap;
use std::time::Duration;

use keywright::domain::ids::{FieldName, InstanceName, KeyId, Name, VersionId};
use keywright::domain::material::{Material, Secret};
use keywright::domain::policy::Uptake;
use keywright::engine::{Reader, StreamGuard};
use keywright::sealing::hmac_sha256_hex;

use super::model::CopyId;

/// One copy.
pub struct App {
    pub id: CopyId,
    pub instance: InstanceName,
    pub credential: Name,
    pub uptake: Uptake,
    /// With the number of the process that it streams from.
    pub stream: Option<StreamGuard>,
    pub values: BTreeMap<VersionId, (Material, KeyId)>,
    pub newest: Option<VersionId>,
    pub uses: Option<VersionId>,
    /// How long it takes to act, at the most.
    pub slow: Duration,
    /// It takes nothing up and says nothing until the rough part is over.
    pub stuck: bool,
    /// It is about to connect.
    pub waits: bool,
    /// What it was last served, by which process: that must go on working whatever is away (I19).
    pub had: Option<(u64, VersionId)>,
    pub names: u32,
}

pub fn field(text: &str) -> FieldName {
    text.parse().unwrap()
}

impl App {
    pub fn new(application: &Name, number: usize, credential: &Name, uptake: Uptake, slow: Duration, stuck: bool) -> App {
        let instance: InstanceName = format!("copy-{number}").parse().unwrap();
        App {
            id: (application.clone(), instance.to_string()),
            instance,
            credential: credential.clone(),
            uptake,
            stream: None,
            values: BTreeMap::new(),
            newest: None,
            uses: None,
            slow,
            stuck,
            waits: false,
            had: None,
            names: 0,
        }
    }

    pub fn reader(&self) -> Reader {
        Reader::Application { application: self.id.0.clone(), instance: self.instance.clone(), pod: None }
    }

    /// The proof that it has this version.
    pub fn proof(&self, version: &VersionId) -> Option<String> {
        let (material, _) = self.values.get(version)?;
        let message = format!("keywright-confirm\n{}\n{version}\n{}", self.credential, self.instance);
        Some(hmac_sha256_hex(material.get(&field("client_secret"))?, message.as_bytes()))
    }

    /// A proof with a value that is none.
    pub fn wrong_proof(&self, version: &VersionId) -> String {
        let message = format!("keywright-confirm\n{}\n{version}\n{}", self.credential, self.instance);
        hmac_sha256_hex(&Secret::from("guessed".to_owned()), message.as_bytes())
    }

    /// It ends, and another one takes its place under a new name.
    pub fn successor(&mut self) {
        self.names += 1;
        let base = self.id.1.split('.').next().unwrap_or_default();
        self.instance = format!("{base}.{}", self.names).parse().unwrap();
        self.id.1 = self.instance.to_string();
        (self.stream, self.newest, self.uses, self.had) = (None, None, None, None);
        self.values.clear();
    }
}
