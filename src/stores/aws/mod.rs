//! The store in AWS Secrets Manager: one secret per slot at `<prefix>/<environment>/<path>`, whose current version is always the
//! promoted one.
//!
//! `secret.rs` is pure: what a described secret says, of which versions are ours and which stage each has. AWS names a version by
//! the token that it was written with, derived from ours (`token`), so a repeated write is none; a label of ours on it is the way
//! back, and says that it is kept. So a new leader needs nothing but AWS, and no label is in two places. `moves.rs` are the writes, in an order in
//! which each can be the last one: `tests/aws/crashes.rs` stops at each, before and after its effect.
//!
//! - The compare-and-set is one `UpdateSecretVersionStage` of AWSCURRENT with `RemoveFromVersionId`; for the first version it is `CreateSecret`.
//! - AWS makes the first version of a secret current whatever stages it is given. So a first version lies in the secret apart until its
//!   promotion makes the native one; management parts lie there always.
//! - AWSCURRENT can't be taken away. What was cleared bears `keywright-cleared`, and its secret is marked for deletion.
//! - That a version was current is AWSCURRENT or AWSPREVIOUS, and a label of ours from when AWSPREVIOUS is about to leave it.
//! - A quota is kept by the store itself, per call to AWS, and not by `Paced`: one call to the store is several.
//! - moto's plain `GetSecretValue` stays on the old version after a label moved, so its tests ask for the stage; neither server throttles
//!   or enforces limits, so a proxy of the tests does (`tests/aws/proxy.rs`), and `AwsStore::VALUE_MAX` is ours.

mod calls;
mod moves;
mod secret;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use self::calls::{Calls, Owner, Refusal};
use self::secret::{APART, Pair, Part, Secret, Standing, serves, token};
use super::{SecretStore, Slot, Stages, StoreError, StoreShare, VersionBytes};
use crate::domain::ids::{Name, VersionId};
use crate::domain::material::{self, Material};

/// The longest name that AWS takes.
const NAME_MAX: usize = 512;

/// Where the secrets are. Credentials come from the SDK's default chain: environment, profile, web identity, container or pod
/// identity, instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsSettings {
    /// Else the SDK's default chain tells.
    pub region: Option<String>,
    /// What the names of all secrets begin with, without a closing slash.
    pub prefix: String,
    /// Another address than AWS's own.
    pub endpoint: Option<String>,
    /// The id, ARN or alias of the KMS key of new secrets; else the account's default key.
    pub kms_key: Option<String>,
}

impl AwsSettings {
    /// What [`AwsSettings::prefix`] is where nothing is said.
    pub const PREFIX_DEFAULT: &'static str = "keywright";
}

/// Versions in AWS Secrets Manager.
#[derive(Debug, Clone)]
pub struct AwsStore {
    calls: Calls,
    prefix: String,
}

impl AwsStore {
    /// The longest value that AWS takes, in bytes: of all fields of a credential together, as JSON.
    pub const VALUE_MAX: usize = 65_536;

    /// Makes no call to the store; where credentials come from is looked up at the first one. Each call counts in `share`, and those
    /// that write wait for their turn.
    pub async fn new(settings: &AwsSettings, share: Option<Arc<StoreShare>>) -> AwsStore {
        AwsStore { calls: Calls::new(settings, share).await, prefix: settings.prefix.clone() }
    }

    /// With what was looked up elsewhere: credentials, region, and how HTTP is spoken.
    pub fn on(shared: &aws_config::SdkConfig, settings: &AwsSettings, share: Option<Arc<StoreShare>>) -> AwsStore {
        AwsStore { calls: Calls::on(shared, settings, share), prefix: settings.prefix.clone() }
    }

    /// Where native readers look.
    fn native(&self, slot: &Slot) -> String {
        format!("{}/{}/{}", self.prefix, slot.environment, slot.path)
    }

    /// What no native reader may meet. An environment has another name, so no path can meet it.
    fn apart(&self, slot: &Slot) -> String {
        format!("{}/{APART}/{}/{}", self.prefix, slot.environment, slot.path)
    }

    async fn describe(&self, slot: &Slot, secret: &str) -> Result<Secret, StoreError> {
        let not_ours = || StoreError::Refused {
            credential: slot.credential.clone(),
            reason: "a secret of its name is somebody else's: it lacks our tags",
        };
        self.calls.describe(secret, owner(slot)).await?.ok_or_else(not_ours)
    }

    async fn pair(&self, slot: &Slot) -> Result<Pair, StoreError> {
        let (native, apart) = (self.native(slot), self.apart(slot));
        let (native, apart) = futures_util::future::try_join(self.describe(slot, &native), self.describe(slot, &apart)).await?;
        Ok(Pair { native, apart })
    }

    /// Both parts of a version whose served part is kept in this secret. AWS goes on to give out what lost its label: we don't.
    async fn read_from(&self, slot: &Slot, secret: &str, version: &VersionId) -> Result<Option<VersionBytes>, StoreError> {
        let Some(value) = self.calls.get(secret, &token(Part::Served, version)).await? else { return Ok(None) };
        let Some(has_management) = serves(&value.labels, version) else { return Ok(None) };
        let damaged = || StoreError::Damaged { credential: slot.credential.clone() };
        let material = |bytes: &material::Secret| Material::from_json(bytes.expose()).map_err(|_| damaged());
        let served = material(&value.bytes)?;
        if !has_management {
            return Ok(Some(VersionBytes { served, management: Material::default() }));
        }
        let management = self.calls.get(&self.apart(slot), &token(Part::Management, version)).await?.ok_or_else(damaged)?;
        Ok(Some(VersionBytes { served, management: material(&management.bytes)? }))
    }

    async fn find(&self, slot: &Slot, version: &VersionId) -> Result<Option<VersionBytes>, StoreError> {
        if let Some(found) = self.read_from(slot, &self.native(slot), version).await? {
            return Ok(Some(found));
        }
        self.read_from(slot, &self.apart(slot), version).await
    }
}

#[async_trait]
impl SecretStore for AwsStore {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        let native = self.describe(slot, &self.native(slot)).await?;
        let mut pair = Pair { native, apart: Secret::default() };
        if !pair.native_says_all() {
            pair.apart = self.describe(slot, &self.apart(slot)).await?;
        }
        Ok(Stages { pending: pair.pending(), current: pair.current(), previous: pair.previous() })
    }

    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
        let different = || StoreError::DifferentValue { credential: slot.credential.clone(), version: version.clone() };
        let pair = self.pair(slot).await?;
        if pair.is_forgotten(version) {
            return Err(different());
        }
        if pair.serves(version).is_some() {
            let there = self.find(slot, version).await?;
            return if there.is_some_and(|there| there.same_as(bytes)) { Ok(()) } else { Err(different()) };
        }
        let (served, management) = (bytes.served.to_json(), bytes.management.to_json());
        let refused = |reason| Err(StoreError::Refused { credential: slot.credential.clone(), reason });
        if [&served, &management].iter().any(|bytes| bytes.length() > Self::VALUE_MAX) {
            return refused("AWS takes 65536 bytes at most, of all fields together");
        }
        if self.apart(slot).len() > NAME_MAX {
            return refused("its path is longer than AWS takes");
        }
        let exists = |error: Refusal| if error == Refusal::Exists { different() } else { error.into() };
        let has_management = !bytes.management.is_empty();
        if has_management || !pair.native.is_filled() {
            self.prepare_apart(slot, pair.apart.standing).await?;
        }
        if has_management {
            self.put_management(slot, version, &management).await.map_err(exists)?;
        }
        let secret = if pair.native.is_filled() { self.native(slot) } else { self.apart(slot) };
        self.put_served(&secret, version, &served, has_management, true).await.map_err(exists)
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        let missing = || StoreError::NotFound { credential: slot.credential.clone(), version: version.clone() };
        self.find(slot, version).await?.ok_or_else(missing)
    }

    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
        let changed = || StoreError::CurrentChanged { credential: slot.credential.clone(), version: version.clone() };
        let pair = self.pair(slot).await?;
        let current = pair.current();
        if current.as_ref() == Some(version) {
            return self.settle(slot, version, &pair).await;
        }
        let Some(has_management) = pair.serves(version).filter(|_| !pair.is_forgotten(version)) else {
            return Err(StoreError::NotFound { credential: slot.credential.clone(), version: version.clone() });
        };
        if current.as_ref() != replacing || pair.native.was_current(version) {
            return Err(changed());
        }
        let moved = match pair.native.standing {
            Standing::Absent => self.make_native(slot, version, has_management).await?,
            Standing::Live if !pair.native.is_filled() => self.fill_native(slot, version, has_management).await?,
            // Marked for deletion by somebody else: it isn't ours to bring back what was current there.
            Standing::Deleted if !pair.native.is_cleared() => return Err(changed()),
            Standing::Deleted | Standing::Live => self.move_current(slot, version, has_management, &pair.native).await?,
        };
        if moved {
            return self.settle(slot, version, &pair).await;
        }
        // Refused: somebody else was faster, or this call itself was and its answer got lost.
        let now = self.pair(slot).await?;
        if now.current().as_ref() == Some(version) { self.settle(slot, version, &now).await } else { Err(changed()) }
    }

    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        let pair = self.pair(slot).await?;
        if pair.current().as_ref() == Some(version) {
            return Err(StoreError::IsCurrent { credential: slot.credential.clone(), version: version.clone() });
        }
        self.remember(slot, &pair, std::iter::once(version)).await?;
        self.take_labels(slot, &pair, version).await?;
        self.remove_what_is_empty(slot).await
    }

    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        let mut pair = self.pair(slot).await?;
        // Marked for deletion by somebody else, before we cleared it: labels move only on a living secret.
        if pair.native.standing == Standing::Deleted && versions.iter().any(|version| pair.native.serves(version).is_some()) {
            self.calls.restore(&self.native(slot)).await?;
            pair = self.pair(slot).await?;
        }
        self.remember(slot, &pair, versions.iter()).await?;
        if let Some(current) = pair.current().filter(|current| versions.contains(current)) {
            self.mark_cleared(slot, &current, &pair.native).await?;
        }
        for version in versions {
            self.take_labels(slot, &pair, version).await?;
        }
        self.remove_what_is_empty(slot).await
    }

    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        let listed = self.calls.list(&format!("{}/", self.prefix)).await?;
        let with_versions = listed.into_iter().filter(|entry| secret::keeps_something(entry.labels.iter()));
        // By our names, which AWS doesn't sort by: a path may be another, and each environment has its own.
        let names: BTreeSet<Name> = with_versions.map(|entry| entry.credential).collect();
        Ok(names.into_iter().filter(|name| after.is_none_or(|after| name > after)).take(limit).collect())
    }
}

fn owner(slot: &Slot) -> Owner<'_> {
    Owner { credential: &slot.credential, environment: slot.environment.as_str() }
}
