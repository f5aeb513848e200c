//! What every issuer must do, whatever its provider: one suite, run for each with a provider whose truth is known.
#![allow(clippy::expect_used, clippy::panic, reason = "a suite of assertions: it ends by panicking")]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Administrator, CreateRequest, Issuer, IssuerError, Minted, ProbeOutcome, Target};
use crate::domain::ids::{InstallationId, KeyId, OperationId, is_marked, marker};
use crate::domain::ledger::Closure;
use crate::domain::material::{Material, Secret};
use crate::domain::provider::{FieldClass, Provider, SignedCall};

/// An issuer, and a provider that holds one living key of ours.
pub struct Subject {
    pub issuer: Arc<dyn Issuer>,
    pub target: Target,
    pub current: Material,
    pub current_key: KeyId,
    /// Whether the provider accepts this key now: the truth, asked behind the issuer's back.
    pub accepts: Arc<dyn Fn(&KeyId) -> bool + Send + Sync>,
    pub can_list: bool,
    /// Creating and revoking are signed by the acting version, not by nobody, by the key's own management fields, or by an
    /// administering credential.
    pub signed: bool,
    /// The same operation brings the same key.
    pub idempotent: bool,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject")
    }
}

/// Panics at the first promise that isn't kept.
pub async fn run(subject: &Subject) {
    the_living_and_the_strange_are_told_apart(subject).await;
    a_key_is_made_listed_and_revoked(subject).await;
    a_repeated_create_is_no_second_key(subject).await;
    nobody_else_may_act(subject).await;
    a_refused_administrator_is_no_refused_key(subject).await;
    no_key_revokes_itself(subject).await;
    a_key_is_disabled_before_it_is_removed(subject).await;
    a_key_without_its_material_is_revoked_by_the_list(subject).await;
    assert!((subject.accepts)(&subject.current_key), "the current key lives through all of it");
}

async fn the_living_and_the_strange_are_told_apart(subject: &Subject) {
    let (issuer, target) = (&subject.issuer, &subject.target);
    let report = issuer.probe(target, &subject.current).await.expect("a living key can be probed");
    assert_eq!(report.outcome, ProbeOutcome::Works);
    assert!(!issuer.is_dead(target, &subject.current).await.expect("a living key can be asked for"));
    let stranger = subject.stranger();
    let report = issuer.probe(target, &stranger).await.expect("a wrong secret is an answer, no error");
    assert_eq!((report.outcome, report.proves_environment), (ProbeOutcome::Dead, false));
    assert!(issuer.is_dead(target, &stranger).await.expect("a wrong secret is an answer, no error"));
}

async fn a_key_is_made_listed_and_revoked(subject: &Subject) {
    let (issuer, target) = (&subject.issuer, &subject.target);
    let minted = subject.create(1).await;
    assert!((subject.accepts)(&minted.key_id), "what was created is accepted");
    assert_ne!(minted.key_id, subject.current_key);
    assert!(!minted.material.same_as(&subject.current));
    for (field, _) in target.provider.fields.iter().filter(|(_, described)| described.class == FieldClass::Secret) {
        assert!(minted.material.get(field).is_some(), "`{field}` is missing");
    }
    assert_eq!(issuer.probe(target, &minted.material).await.expect("a new key can be probed").outcome, ProbeOutcome::Works);
    assert_eq!(subject.listed_alive(&minted.key_id).await, subject.can_list.then_some(true));
    assert_eq!(subject.listed_alive(&subject.current_key).await, subject.can_list.then_some(true));

    for time in ["once", "twice"] {
        let revocation = issuer.revoke(target, &subject.current, &minted.key_id, Some(&minted.material)).await;
        assert_eq!(revocation.map(|revocation| revocation.closure), Ok(Closure::Proved), "revoked {time}");
        assert!(!(subject.accepts)(&minted.key_id), "revoked is dead");
    }
    assert_eq!(issuer.is_dead(target, &minted.material).await, Ok(true));
    assert_eq!(subject.listed_alive(&minted.key_id).await, subject.can_list.then_some(false));
}

async fn a_repeated_create_is_no_second_key(subject: &Subject) {
    let (first, second) = (subject.create(2).await, subject.create(2).await);
    assert_eq!(first.key_id == second.key_id, subject.idempotent);
    for minted in [first, second] {
        subject.revoke(&minted).await;
    }
}

async fn nobody_else_may_act(subject: &Subject) {
    let (issuer, target, stranger) = (&subject.issuer, &subject.target, subject.stranger());
    if !subject.signed {
        return;
    }
    let refused = issuer.create(target, &stranger, &subject.request(3)).await.expect_err("a wrong secret creates nothing");
    assert_eq!(refused, IssuerError::Unauthenticated);
    if subject.can_list {
        assert_eq!(issuer.list(target, &stranger).await, Err(IssuerError::Unauthenticated));
    }
    let minted = subject.create(3).await;
    let refused = issuer.revoke(target, &stranger, &minted.key_id, Some(&minted.material)).await;
    assert_eq!(refused, Err(IssuerError::Unauthenticated));
    assert!((subject.accepts)(&minted.key_id), "a wrong secret revokes nothing");
    subject.revoke(&minted).await;
}

/// Where an administering credential signs: a wrong one makes, shows and removes nothing, and says nothing of the current key.
async fn a_refused_administrator_is_no_refused_key(subject: &Subject) {
    let Some(administrator) = &subject.target.administrator else { return };
    let material = stranger_of(&administrator.target.provider, &administrator.material);
    let wrong = Administrator { target: administrator.target.clone(), material };
    let target = Target { administrator: Some(Arc::new(wrong)), ..subject.target.clone() };
    let (issuer, provider) = (&subject.issuer, &target.provider);
    let refused = IssuerError::AdministratorRefused;
    if provider.administrator_signs(SignedCall::Create) {
        assert_eq!(issuer.create(&target, &subject.current, &subject.request(6)).await.map(|minted| minted.key_id), Err(refused.clone()));
    }
    if provider.administrator_signs(SignedCall::List) {
        assert_eq!(issuer.list(&target, &subject.current).await, Err(refused.clone()));
    }
    if provider.administrator_signs(SignedCall::Revoke) {
        let minted = subject.create(6).await;
        assert_eq!(issuer.revoke(&target, &subject.current, &minted.key_id, Some(&minted.material)).await, Err(refused));
        assert!((subject.accepts)(&minted.key_id), "a wrong administrator revokes nothing");
        subject.revoke(&minted).await;
    }
    let report = issuer.probe(&target, &subject.current).await.expect("the key itself is asked with itself");
    assert_eq!(report.outcome, ProbeOutcome::Works);
}

async fn no_key_revokes_itself(subject: &Subject) {
    let minted = subject.create(4).await;
    let refused = subject.issuer.revoke(&subject.target, &minted.material, &minted.key_id, Some(&minted.material)).await;
    assert!(matches!(refused, Err(IssuerError::Impossible(_))), "{refused:?}");
    assert!((subject.accepts)(&minted.key_id));
    subject.revoke(&minted).await;
}

async fn a_key_is_disabled_before_it_is_removed(subject: &Subject) {
    let (issuer, target) = (&subject.issuer, &subject.target);
    let minted = subject.create(7).await;
    let disable = || issuer.disable(target, &subject.current, &minted.key_id, Some(&minted.material));
    if target.provider.calls.disable.is_none() {
        assert!(matches!(disable().await, Err(IssuerError::Impossible(_))));
        return subject.revoke(&minted).await;
    }
    let itself = issuer.disable(target, &minted.material, &minted.key_id, Some(&minted.material)).await;
    assert!(matches!(itself, Err(IssuerError::Impossible(_))), "{itself:?}");
    for time in ["once", "twice"] {
        assert_eq!(disable().await, Ok(()), "disabled {time}");
        assert!(!(subject.accepts)(&minted.key_id), "nobody can use it");
        assert_eq!(subject.listed_alive(&minted.key_id).await, Some(true), "and it takes its slot");
    }
    subject.revoke(&minted).await;
    assert_eq!(subject.listed_alive(&minted.key_id).await, Some(false));
}

async fn a_key_without_its_material_is_revoked_by_the_list(subject: &Subject) {
    if !subject.can_list {
        return;
    }
    let (issuer, target) = (&subject.issuer, &subject.target);
    let minted = subject.create(5).await;
    let revocation = issuer.revoke(target, &subject.current, &minted.key_id, None).await;
    assert_eq!(revocation.map(|revocation| revocation.closure), Ok(Closure::Reported));
    assert!(!(subject.accepts)(&minted.key_id));
}

impl Subject {
    fn request(&self, generation: u64) -> CreateRequest {
        let operation = OperationId::new(INSTALLATION, &self.target.credential, generation, 1);
        CreateRequest { operation, marker: marker(INSTALLATION, &self.target.credential, generation, 1), overlap: OVERLAP }
    }

    async fn create(&self, generation: u64) -> Minted {
        let request = self.request(generation);
        self.issuer.create(&self.target, &self.current, &request).await.expect("a key can be created")
    }

    async fn revoke(&self, minted: &Minted) {
        let revocation = self.issuer.revoke(&self.target, &self.current, &minted.key_id, Some(&minted.material)).await;
        assert_eq!(revocation.map(|revocation| revocation.closure), Ok(Closure::Proved));
    }

    /// Whether the list shows a key as living; `None` where there is no list.
    async fn listed_alive(&self, key_id: &KeyId) -> Option<bool> {
        match self.issuer.list(&self.target, &self.current).await {
            Ok(keys) => {
                let found = keys.iter().find(|key| key.key_id == *key_id);
                let marked =
                    found.and_then(|key| key.name.as_deref()).is_some_and(|name| is_marked(INSTALLATION, &self.target.credential, name));
                assert!(marked || found.is_none() || *key_id == self.current_key, "our key bears our marker");
                Some(found.is_some_and(|key| key.alive))
            }
            Err(IssuerError::Impossible(_)) => None,
            Err(other) => panic!("the list failed: {other}"),
        }
    }

    /// The current version with other secrets.
    fn stranger(&self) -> Material {
        stranger_of(&self.target.provider, &self.current)
    }
}

fn stranger_of(provider: &Provider, material: &Material) -> Material {
    let fields = material.iter().map(|(field, value)| {
        let is_secret = provider.fields.get(field).is_some_and(|described| described.class == FieldClass::Secret);
        let value = if is_secret { Secret::from("nobody_has_this_secret_0123456789".to_owned()) } else { value.duplicate() };
        (field.clone(), value)
    });
    fields.collect()
}

/// What is asked of a provider that ends the old key by itself.
const OVERLAP: Duration = Duration::from_secs(3600);
const INSTALLATION: InstallationId = InstallationId(Uuid::from_u128(0x6b65_7977_7269_6768_7400_0000_0000_0001));
