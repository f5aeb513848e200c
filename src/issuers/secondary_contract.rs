//! What every issuer must do where there is a primary secret and at most a secondary one: one suite, as [`super::contract`].
#![allow(clippy::expect_used, clippy::panic, reason = "a suite of assertions: it ends by panicking")]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{CreateRequest, Issuer, IssuerError, Minted, Target};
use crate::domain::ids::{InstallationId, KeyId, OperationId, marker};
use crate::domain::ledger::Closure;
use crate::domain::material::{Material, Secret};
use crate::domain::provider::FieldClass;

/// An issuer, and an account with a primary secret of ours and no other.
pub struct Subject {
    pub issuer: Arc<dyn Issuer>,
    pub target: Target,
    pub primary: Material,
    /// Whether the provider accepts these values now: the truth, asked behind the issuer's back.
    pub accepts: Arc<dyn Fn(&Material) -> bool + Send + Sync>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject")
    }
}

const INSTALLATION: InstallationId = InstallationId(Uuid::from_u128(0x6b65_7977_7269_6768_7400_0000_0000_0003));

/// Panics at the first promise that isn't kept.
pub async fn run(subject: &Subject) {
    subject.what_the_provider_cant_is_impossible().await;
    subject.strangers_change_nothing().await;
    subject.a_secondary_secret_is_taken_back().await;
    subject.promoting_ends_the_primary_and_nothing_later().await;
}

impl Subject {
    async fn what_the_provider_cant_is_impossible(&self) {
        let (issuer, target, primary) = (&self.issuer, &self.target, &self.primary);
        let key_id: KeyId = "any".parse().expect("an id");
        assert!(matches!(issuer.list(target, primary).await, Err(IssuerError::Impossible(_))));
        assert!(matches!(issuer.disable(target, primary, &key_id, None).await, Err(IssuerError::Impossible(_))));
        for doomed in [None, Some(primary)] {
            let revoked = issuer.revoke(target, primary, &key_id, doomed).await;
            assert!(matches!(revoked, Err(IssuerError::Impossible(_))), "{revoked:?}");
        }
        let cancelled = issuer.cancel(target, primary, Some(primary)).await;
        assert!(matches!(cancelled, Err(IssuerError::Impossible(_))), "{cancelled:?}");
        assert!((self.accepts)(primary));
    }

    async fn strangers_change_nothing(&self) {
        let second = self.create(&self.primary, 2).await.material;
        let stranger = self.stranger();
        let refused = self.issuer.create(&self.target, &stranger, &self.request(9)).await;
        assert!(refused.expect_err("a wrong secret makes nothing").had_no_effect());
        let refused = self.issuer.cancel(&self.target, &stranger, Some(&second)).await;
        assert_eq!(refused, Err(IssuerError::Unauthenticated), "and takes nothing back");
        // What isn't accepted can't promote: it is dead, and that is all that was asked for.
        self.ends(&second, &stranger).await;
        self.alive(&[&self.primary, &second]);
        self.cancels(&self.primary, Some(&second)).await;
    }

    async fn a_secondary_secret_is_taken_back(&self) {
        let Minted { key_id, material: second, .. } = self.create(&self.primary, 3).await;
        assert_eq!(key_id.as_str(), self.request(3).operation.to_string(), "nothing names it but its operation");
        for (field, described) in &self.target.provider.fields {
            let (old, new) = (self.primary.get(field).expect("a field"), second.get(field).expect("the same field"));
            assert_eq!(old.same_as(new), described.class == FieldClass::Public, "`{field}`");
        }
        self.alive(&[&self.primary, &second]);
        self.cancels(&self.primary, Some(&second)).await;
        assert!((self.accepts)(&self.primary) && !(self.accepts)(&second));
        // Said again, because the reply was lost; and once more, where nobody knows what it was.
        self.cancels(&self.primary, Some(&second)).await;
        self.cancels(&self.primary, None).await;
        self.alive(&[&self.primary]);
    }

    async fn promoting_ends_the_primary_and_nothing_later(&self) {
        let second = self.create(&self.primary, 4).await.material;
        self.ends(&second, &self.primary).await;
        assert!((self.accepts)(&second) && !(self.accepts)(&self.primary));
        self.ends(&second, &self.primary).await;
        self.alive(&[&second]);
        // The next rotation is on its way when a process that was deposed says it once more (I7).
        let third = self.create(&second, 5).await.material;
        self.ends(&second, &self.primary).await;
        self.alive(&[&second, &third]);
        self.cancels(&second, None).await;
        assert!((self.accepts)(&second) && !(self.accepts)(&third));
    }

    fn alive(&self, all: &[&Material]) {
        assert!(all.iter().all(|material| (self.accepts)(material)), "all of them are accepted");
    }

    fn request(&self, generation: u64) -> CreateRequest {
        let credential = &self.target.credential;
        let operation = OperationId::new(INSTALLATION, credential, generation, 1);
        CreateRequest { operation, marker: marker(INSTALLATION, credential, generation, 1), overlap: Duration::ZERO }
    }

    async fn create(&self, primary: &Material, generation: u64) -> Minted {
        self.issuer.create(&self.target, primary, &self.request(generation)).await.expect("a secondary secret can be made")
    }

    async fn ends(&self, acting: &Material, doomed: &Material) {
        let key_id = "any".parse().expect("an id");
        let revocation = self.issuer.revoke(&self.target, acting, &key_id, Some(doomed)).await.expect("it is told as dead");
        assert_eq!(revocation.closure, Closure::Proved);
    }

    async fn cancels(&self, acting: &Material, doomed: Option<&Material>) {
        let revocation = self.issuer.cancel(&self.target, acting, doomed).await.expect("it is taken back");
        assert_eq!(revocation.closure, if doomed.is_some() { Closure::Proved } else { Closure::Reported });
    }

    /// The same account, with another secret.
    fn stranger(&self) -> Material {
        let fields = self.primary.iter().map(|(field, value)| {
            let class = self.target.provider.fields.get(field).map(|described| described.class);
            let is_secret = class == Some(FieldClass::Secret);
            (field.clone(), if is_secret { Secret::from("0f1e2d3c4b5a69788796a5b4c3d2e1f0".to_owned()) } else { value.duplicate() })
        });
        fields.collect()
    }
}
