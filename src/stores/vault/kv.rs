//! The KV engine, version 2: reads with the number of what was read, writes that compare, removals that leave no bytes.

use std::collections::BTreeMap;

use rustify::endpoint::Endpoint;
use serde::Deserialize;
use serde_json::Value;
use vaultrs::api::kv2::requests::{
    DeleteSecretMetadataRequest, DestroySecretVersionsRequest, ListSecretsRequest, ReadSecretMetadataRequest, ReadSecretRequest,
    SetSecretRequest, SetSecretRequestOptions,
};

use super::session::{Session, Turn};
use super::wire::{Answer, Refusal};

/// What lies at a path. Vault counts a path's versions from 1.
#[derive(Default)]
pub(super) struct Found {
    /// 0: nothing was ever written.
    pub(super) number: u64,
    /// When that version was made, as Vault writes it: a path that was wiped counts from 1 again.
    pub(super) created: String,
    /// `None`: nothing, or it was deleted or destroyed.
    pub(super) data: Option<Value>,
}

/// What a write made.
#[derive(Deserialize)]
pub(super) struct Made {
    #[serde(rename = "version")]
    pub(super) number: u64,
    #[serde(rename = "created_time", default)]
    pub(super) created: String,
}

#[derive(Deserialize)]
struct Read {
    data: Option<Versioned>,
    #[serde(default)]
    errors: Vec<String>,
}

#[derive(Deserialize)]
struct Versioned {
    data: Option<Value>,
    metadata: Made,
}

#[derive(Deserialize)]
struct Written {
    data: Made,
}

#[derive(Deserialize)]
struct Told {
    data: Option<History>,
    #[serde(default)]
    errors: Vec<String>,
}

#[derive(Deserialize)]
struct History {
    current_version: u64,
    #[serde(default)]
    versions: BTreeMap<String, Standing>,
}

#[derive(Deserialize)]
struct Standing {
    #[serde(default)]
    created_time: String,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

#[derive(Deserialize)]
struct Listed {
    data: Option<Keys>,
    #[serde(default)]
    errors: Vec<String>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

const NOT_UNDERSTOOD: Refusal = Refusal::Away("its answer isn't that of a KV engine of version 2");

pub(super) struct Kv<'a> {
    pub(super) session: &'a Session,
    pub(super) mount: &'a str,
    /// How its requests wait for our share of the quota.
    pub(super) turn: Turn,
}

impl Kv<'_> {
    /// The newest version at a path.
    pub(super) async fn read(&self, path: &str) -> Result<Found, Refusal> {
        self.read_at(path, None).await
    }

    /// One version at a path.
    pub(super) async fn read_number(&self, path: &str, number: u64) -> Result<Found, Refusal> {
        self.read_at(path, Some(number)).await
    }

    async fn read_at(&self, path: &str, version: Option<u64>) -> Result<Found, Refusal> {
        let request = ReadSecretRequest { mount: self.mount.to_owned(), path: path.to_owned(), version };
        let answer = self.session.call(&request, self.turn).await?;
        let read = answer.parse::<Read>().ok_or(NOT_UNDERSTOOD)?;
        match read.data {
            Some(found) => Ok(Found { number: found.metadata.number, created: found.metadata.created, data: found.data }),
            // A path that is empty has no text; a mount that isn't there has.
            None if answer.is_missing && read.errors.is_empty() => Ok(Found::default()),
            None if answer.is_missing => Err(Refusal::Missing),
            None => Err(NOT_UNDERSTOOD),
        }
    }

    /// Which version readers of a path have, without its value; `None`: nothing.
    pub(super) async fn standing(&self, path: &str) -> Result<Option<Made>, Refusal> {
        let request = ReadSecretMetadataRequest { mount: self.mount.to_owned(), path: path.to_owned() };
        let answer = self.session.call(&request, self.turn).await?;
        let told = answer.parse::<Told>().ok_or(NOT_UNDERSTOOD)?;
        let Some(History { current_version: number, mut versions }) = told.data else {
            return if answer.is_missing && told.errors.is_empty() { Ok(None) } else { Err(Refusal::Missing) };
        };
        let newest = versions.remove(&number.to_string()).filter(|newest| !newest.destroyed && newest.deletion_time.is_empty());
        Ok(newest.map(|newest| Made { number, created: newest.created_time }))
    }

    /// Writes if `number` is the newest version there now (0: if nothing was ever written). Says what it made.
    ///
    /// # Errors
    /// [`Refusal::Rejected`] if another version is the newest.
    pub(super) async fn write(&self, path: &str, data: Value, number: u64) -> Result<Made, Refusal> {
        let cas = u32::try_from(number).map_err(|_| Refusal::Rejected)?;
        let options = Some(SetSecretRequestOptions { cas });
        let request = SetSecretRequest { mount: self.mount.to_owned(), path: path.to_owned(), data, options };
        let answer = self.present(&request).await?;
        Ok(answer.parse::<Written>().ok_or(NOT_UNDERSTOOD)?.data)
    }

    /// Removes the bytes of these versions for good; the numbers stay taken.
    pub(super) async fn destroy(&self, path: &str, versions: Vec<u64>) -> Result<(), Refusal> {
        let request = DestroySecretVersionsRequest { mount: self.mount.to_owned(), path: path.to_owned(), versions };
        self.session.call(&request, self.turn).await.map(drop)
    }

    /// Removes a path with all its versions. Absent is fine.
    pub(super) async fn remove(&self, path: &str) -> Result<(), Refusal> {
        let request = DeleteSecretMetadataRequest { mount: self.mount.to_owned(), path: path.to_owned() };
        self.session.call(&request, self.turn).await.map(drop)
    }

    /// The names below a path; those with more below them end with a slash.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<String>, Refusal> {
        let request = ListSecretsRequest { mount: self.mount.to_owned(), path: path.to_owned() };
        let answer = self.session.call(&request, self.turn).await?;
        let listed = answer.parse::<Listed>().ok_or(NOT_UNDERSTOOD)?;
        match listed.data {
            Some(keys) => Ok(keys.keys),
            None if answer.is_missing && listed.errors.is_empty() => Ok(Vec::new()),
            None => Err(Refusal::Missing),
        }
    }

    async fn present(&self, request: &impl Endpoint) -> Result<Answer, Refusal> {
        let answer = self.session.call(request, self.turn).await?;
        if answer.is_missing { Err(Refusal::Missing) } else { Ok(answer) }
    }
}
