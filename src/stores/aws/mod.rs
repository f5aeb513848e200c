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
//! - What somebody else made current is called by its AWS version, of which each write makes another one (`secret::foreign`).
//! - Whether somebody changed what native readers see is asked for all at once, by pages of `ListSecrets` (`marks.rs`).
//! - A quota is kept by the store itself, per call to AWS, and not by `Paced`: one call to the store is several.
//! - moto's plain `GetSecretValue` stays on the old version after a label moved, so its tests ask for the stage; neither server throttles
//!   or enforces limits, so a proxy of the tests does (`tests/aws/proxy.rs`), and `AwsStore::VALUE_MAX` is ours.

mod calls;
mod lists;
mod marks;
mod moves;
mod secret;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::calls::{Calls, Described, Owner, Refusal, Whose};
use self::marks::Seen;
use self::secret::{APART, CURRENT, Pair, Part, Secret, Standing, serves, token};
use super::{Mark, Native, SecretStore, Slot, Stages, StoreError, StoreShare, VersionBytes};
use crate::domain::credential::Environment;
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
    /// What the last lists said, for all copies of this store.
    seen: Arc<Mutex<Seen>>,
    began: Instant,
}

impl AwsStore {
    /// The longest value that AWS takes, in bytes: of all fields of a credential together, as JSON.
    pub const VALUE_MAX: usize = 65_536;

    /// Makes no call to the store; where credentials come from is looked up at the first one. Each call counts in `share`, and those
    /// that write wait for their turn.
    pub async fn new(settings: &AwsSettings, share: Option<Arc<StoreShare>>) -> AwsStore {
        AwsStore::with(Calls::new(settings, share).await, settings)
    }

    /// With what was looked up elsewhere: credentials, region, and how HTTP is spoken.
    pub fn on(shared: &aws_config::SdkConfig, settings: &AwsSettings, share: Option<Arc<StoreShare>>) -> AwsStore {
        AwsStore::with(Calls::on(shared, settings, share), settings)
    }

    fn with(calls: Calls, settings: &AwsSettings) -> AwsStore {
        AwsStore { calls, prefix: settings.prefix.clone(), seen: Arc::default(), began: Instant::now() }
    }

    /// Where native readers look.
    fn native_name(&self, slot: &Slot) -> String {
        format!("{}/{}/{}", self.prefix, slot.environment, slot.path)
    }

    /// What no native reader may meet. An environment has another name, so no path can meet it.
    fn apart_name(&self, slot: &Slot) -> String {
        format!("{}/{APART}/{}/{}", self.prefix, slot.environment, slot.path)
    }

    /// Of a secret that is ours, or absent.
    async fn describe(&self, slot: &Slot, secret: &str) -> Result<Secret, StoreError> {
        let Described { secret: described, whose } = self.calls.describe(secret, owner(slot)).await?;
        let reason = match whose {
            Whose::Ours => return Ok(described),
            Whose::Others => "by its tags the secret of its name is another credential's: remove those tags if that one is gone",
            Whose::Nobodys if secret == self.apart_name(slot) => "somebody else made a secret below `keywright-apart`: remove it",
            Whose::Nobodys if described.standing == Standing::Deleted => {
                "a secret of its name that somebody else made is marked for deletion: restore it, or wait until it is gone"
            }
            Whose::Nobodys => "a secret of its name is there that lacks our tags: `keywright submit NAME --adopt` takes it over",
        };
        Err(StoreError::Refused { credential: slot.credential.clone(), reason })
    }

    async fn pair(&self, slot: &Slot) -> Result<Pair, StoreError> {
        let (native, apart) = (self.native_name(slot), self.apart_name(slot));
        let (native, apart) = futures_util::future::try_join(self.describe(slot, &native), self.describe(slot, &apart)).await?;
        Ok(Pair { native, apart })
    }

    /// Both parts of a version whose served part is kept in this secret. AWS goes on to give out what lost its label: we don't.
    async fn read_from(&self, slot: &Slot, secret: &str, version: &VersionId) -> Result<Option<VersionBytes>, StoreError> {
        let Some(value) = self.calls.get(secret, &token(Part::Served, version)).await? else { return Ok(None) };
        let Some(has_management) = serves(&value.labels, version) else { return Ok(None) };
        let damaged = || StoreError::Damaged { credential: slot.credential.clone() };
        let served = material(&value.bytes).ok_or_else(damaged)?;
        if !has_management {
            return Ok(Some(VersionBytes { served, management: Material::default() }));
        }
        let management = self.calls.get(&self.apart_name(slot), &token(Part::Management, version)).await?.ok_or_else(damaged)?;
        Ok(Some(VersionBytes { served, management: material(&management.bytes).ok_or_else(damaged)? }))
    }

    async fn find(&self, slot: &Slot, version: &VersionId) -> Result<Option<VersionBytes>, StoreError> {
        if let Some(found) = self.read_from(slot, &self.native_name(slot), version).await? {
            return Ok(Some(found));
        }
        self.read_from(slot, &self.apart_name(slot), version).await
    }
}

#[async_trait]
impl SecretStore for AwsStore {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        let native = self.describe(slot, &self.native_name(slot)).await?;
        let mut pair = Pair { native, apart: Secret::default() };
        if !pair.native_says_all() {
            pair.apart = self.describe(slot, &self.apart_name(slot)).await?;
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
        if self.apart_name(slot).len() > NAME_MAX {
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
        let secret = if pair.native.is_filled() { self.native_name(slot) } else { self.apart_name(slot) };
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
            self.calls.restore(&self.native_name(slot)).await?;
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

    async fn native(&self, slot: &Slot) -> Result<Option<Native>, StoreError> {
        let name = self.native_name(slot);
        let Described { secret: native, whose } = self.calls.describe(&name, owner(slot)).await?;
        let is_managed = whose == Whose::Ours;
        let mut pair = Pair { native, apart: Secret::default() };
        if is_managed && !pair.native_says_all() {
            pair.apart = self.describe(slot, &self.apart_name(slot)).await?;
        }
        let Some((version, id)) = pair.current().zip(pair.native.holder(CURRENT)) else { return Ok(None) };
        let value = self.calls.get(&name, id).await?;
        Ok(value.map(|value| Native { version, served: material(&value.bytes), is_managed }))
    }

    /// Tags alone: the value, its labels and what else the secret has stay as they are. An empty secret is taken over as well.
    async fn adopt(&self, slot: &Slot) -> Result<(), StoreError> {
        let name = self.native_name(slot);
        let Described { secret, whose } = self.calls.describe(&name, owner(slot)).await?;
        if whose == Whose::Nobodys && secret.is_live() {
            return Ok(self.calls.own(&name, owner(slot)).await?);
        }
        self.describe(slot, &name).await.map(drop)
    }

    async fn marks(&self, slots: &[Slot]) -> Result<Option<BTreeMap<Name, Mark>>, StoreError> {
        let places = [Environment::Sandbox, Environment::Production].map(|environment| format!("{}/{environment}/", self.prefix));
        // One at a time: who comes second gets what the list says then.
        let mut seen = self.seen.lock().await;
        let mut pass = seen.begin(self.began.elapsed());
        let mut page = None;
        loop {
            let listed = self.calls.page(&places, page).await?;
            page = listed.next;
            if pass.take(listed.entries) || page.is_none() {
                break;
            }
        }
        seen.end(pass);
        let mark = |slot: &Slot| Some((slot.credential.clone(), Mark(seen.current(&self.native_name(slot))?.to_owned())));
        Ok(Some(slots.iter().filter_map(mark).collect()))
    }
}

fn owner(slot: &Slot) -> Owner<'_> {
    Owner { credential: &slot.credential, environment: slot.environment.as_str() }
}

/// `None` if it isn't a flat object of texts.
fn material(bytes: &material::Secret) -> Option<Material> {
    Material::from_json(bytes.expose()).ok()
}
