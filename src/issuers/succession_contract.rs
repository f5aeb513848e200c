//! What every issuer must do where there is one secret and the next takes its place: one suite, as [`super::contract`].
#![allow(clippy::expect_used, clippy::panic, reason = "a suite of assertions: it ends by panicking")]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Administrator, CreateRequest, Issuer, IssuerError, Minted, ProbeOutcome, Target};
use crate::domain::ids::{InstallationId, OperationId, marker};
use crate::domain::material::{Material, Secret};
use crate::domain::provider::{FieldClass, Provider, SignedCall};
use crate::domain::succession::Succession;

/// An issuer, and a provider that accepts one secret of ours.
pub struct Subject {
    pub issuer: Arc<dyn Issuer>,
    pub target: Target,
    pub current: Material,
    /// Whether the provider accepts these values now: the truth, asked behind the issuer's back.
    pub accepts: Arc<dyn Fn(&Material) -> bool + Send + Sync>,
    /// Lets so much of the provider's time pass.
    pub wait: Arc<dyn Fn(Duration) + Send + Sync>,
    /// The same operation brings the same secret.
    pub idempotent: bool,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject")
    }
}

const OVERLAP: Duration = Duration::from_secs(3600);
const INSTALLATION: InstallationId = InstallationId(Uuid::from_u128(0x6b65_7977_7269_6768_7400_0000_0000_0002));

/// Panics at the first promise that isn't kept.
pub async fn run(subject: &Subject) {
    nobody_else_may_act(subject).await;
    nothing_is_listed_or_revoked(subject).await;
    let second = the_next_secret_takes_the_place_of_the_old_one(subject).await;
    a_repeated_create_is_another_secret_only_where_it_must_be(subject, &second).await;
}

async fn nobody_else_may_act(subject: &Subject) {
    let (issuer, target) = (&subject.issuer, &subject.target);
    let refused = match &target.administrator {
        Some(administrator) if target.provider.administrator_signs(SignedCall::Create) => {
            let material = stranger_of(&administrator.target.provider, &administrator.material);
            let wrong = Administrator { target: administrator.target.clone(), material };
            let target = Target { administrator: Some(Arc::new(wrong)), ..target.clone() };
            issuer.create(&target, &subject.current, &subject.request(9)).await
        }
        _ => issuer.create(target, &stranger_of(&target.provider, &subject.current), &subject.request(9)).await,
    };
    let error = refused.expect_err("a wrong secret makes nothing");
    assert!(error.had_no_effect(), "{error}");
    assert!((subject.accepts)(&subject.current), "and ends nothing");
}

async fn nothing_is_listed_or_revoked(subject: &Subject) {
    let (issuer, target) = (&subject.issuer, &subject.target);
    assert!(matches!(issuer.list(target, &subject.current).await, Err(IssuerError::Impossible(_))));
    let key_id = "any".parse().expect("an id");
    let other = stranger_of(&target.provider, &subject.current);
    let revoked = issuer.revoke(target, &subject.current, &key_id, Some(&other)).await;
    assert!(matches!(revoked, Err(IssuerError::Impossible(_))), "{revoked:?}");
    assert!((subject.accepts)(&subject.current));
}

async fn the_next_secret_takes_the_place_of_the_old_one(subject: &Subject) -> Material {
    let (target, current) = (&subject.target, &subject.current);
    let minted = subject.create(current, 1).await;
    assert!((subject.accepts)(&minted.material), "what was made is accepted");
    for (field, described) in &target.provider.fields {
        let (old, new) = (current.get(field), minted.material.get(field));
        let same = old.zip(new).map(|(old, new)| old.same_as(new));
        match described.class {
            FieldClass::Secret if described.bound => assert_eq!(same, Some(false), "`{field}` is new"),
            FieldClass::Public => assert_eq!(same, Some(true), "`{field}` stays"),
            FieldClass::Secret | FieldClass::Management => assert!(same.is_some(), "`{field}` is there"),
        }
    }
    let gives_time = target.provider.succession() == Succession::EndsOld;
    assert_eq!((subject.accepts)(current), gives_time, "the old one has its overlap, or none");
    assert!(gives_time || minted.previous_expires_at.is_none());
    subject.assert_dead(current, !gives_time).await;
    (subject.wait)(OVERLAP - Duration::from_secs(1));
    assert_eq!((subject.accepts)(current), gives_time, "all of it");
    (subject.wait)(Duration::from_secs(1));
    assert!(!(subject.accepts)(current), "and no more");
    subject.assert_dead(current, true).await;
    subject.assert_dead(&minted.material, false).await;
    minted.material
}

/// A reply may be lost: asked again, the provider gives what it made, or the next one. Either is accepted.
async fn a_repeated_create_is_another_secret_only_where_it_must_be(subject: &Subject, current: &Material) {
    let (first, again) = (subject.create(current, 2).await, subject.create(current, 2).await);
    assert_eq!(first.material.same_as(&again.material), subject.idempotent);
    assert!((subject.accepts)(&again.material), "the newest is accepted");
    (subject.wait)(OVERLAP);
    assert!((subject.accepts)(&again.material) && !(subject.accepts)(current));
    assert_eq!((subject.accepts)(&first.material), subject.idempotent, "and it alone");
}

impl Subject {
    fn request(&self, generation: u64) -> CreateRequest {
        let credential = &self.target.credential;
        let operation = OperationId::new(INSTALLATION, credential, generation, 1);
        CreateRequest { operation, marker: marker(INSTALLATION, credential, generation, 1), overlap: OVERLAP }
    }

    async fn create(&self, current: &Material, generation: u64) -> Minted {
        self.issuer.create(&self.target, current, &self.request(generation)).await.expect("the next secret can be made")
    }

    /// As the provider says of it, where it can be asked.
    async fn assert_dead(&self, material: &Material, dead: bool) {
        if self.target.provider.has_check() {
            assert_eq!(self.issuer.is_dead(&self.target, material).await, Ok(dead));
            let outcome = self.issuer.probe(&self.target, material).await.expect("an answer").outcome;
            assert_eq!(outcome == ProbeOutcome::Dead, dead);
        }
    }
}

/// The same with other secrets, and other management fields.
fn stranger_of(provider: &Provider, material: &Material) -> Material {
    let fields = material.iter().map(|(field, value)| {
        let class = provider.fields.get(field).map(|described| described.class);
        // Where the key's record is stays known: what opens it is strange.
        let is_url = provider.calls.create.as_ref().is_some_and(|create| create.call.url_field.as_ref() == Some(field));
        let value = match class {
            Some(FieldClass::Secret | FieldClass::Management) if !is_url => Secret::from("nobody_has_this_secret_0123456789".to_owned()),
            _ => value.duplicate(),
        };
        (field.clone(), value)
    });
    fields.collect()
}
