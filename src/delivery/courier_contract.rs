//! What every courier must do, as a suite that the tests of each call.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failed unwrap here is a failed test of the courier"
)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::memory::Delivered;
use super::{Cargo, Courier, Outcome, Parcel};
use crate::domain::access::Identity;
use crate::domain::credential::Environment;
use crate::domain::delivery::{Deliveries, Way};
use crate::domain::document::Document;
use crate::domain::material::{Material, Secret};
use crate::domain::policy::{Application, Uptake};

/// A courier and its target, in the hands of the suite.
#[async_trait]
pub trait Stage: Send + Sync {
    fn courier(&self) -> &dyn Courier;

    /// The application whose target this is.
    fn application(&self) -> Application {
        application()
    }

    /// The process ends, and another one begins: what isn't durable is gone.
    fn again(&mut self);

    /// From now on the target can't be reached, or refuses.
    fn break_target(&self);

    fn mend_target(&self);

    /// What the application finds at the target; `None` where it isn't given states but told of changes.
    async fn has(&self) -> Option<Delivered>;
}

pub fn application() -> Application {
    Application {
        name: "payments-api".parse().unwrap(),
        environment: Environment::Sandbox,
        credentials: ["key", "other"].map(|name| name.parse().unwrap()).into(),
        identity: Identity::Unix { uid: 1 },
        uptake: Uptake::Stream,
        lease: None,
        callback: None,
        webhook: None,
        delivery: Deliveries::default(),
    }
}

pub const NOW: &str = "2026-11-22T03:00:00Z";

/// These credentials in these revisions; the version is named after the revision, and the secret after both.
pub fn cargo<'a>(application: &'a Application, way: Way, what: &[(&str, u64)]) -> Cargo<'a> {
    let parcels = what.iter().map(|(credential, revision)| parcel(way, credential, *revision)).collect();
    Cargo { application, parcels, now: NOW.parse().unwrap(), give_up_after: Duration::from_secs(60) }
}

fn parcel(way: Way, credential: &str, revision: u64) -> Parcel {
    let (credential, environment) = (credential.parse().unwrap(), Environment::Sandbox);
    let version: crate::domain::ids::VersionId = format!("v{revision}").parse().unwrap();
    let document = way.carries_material().then(|| {
        let mut fields = Material::default();
        fields.insert("client_id".parse().unwrap(), Secret::from(format!("id-{credential}")));
        fields.insert("client_secret".parse().unwrap(), Secret::from(secret(&credential, revision)));
        Document {
            name: credential.clone(),
            provider: "dinie".parse().unwrap(),
            environment,
            version: version.clone(),
            revision,
            issued_at: Timestamp::UNIX_EPOCH,
            stale: false,
            fields: Arc::new(fields),
            previous: None,
        }
    });
    Parcel { credential, environment, version, revision, document }
}

/// The secret of a credential in a revision.
pub fn secret(credential: &crate::domain::ids::Name, revision: u64) -> String {
    format!("secret-value-of-{credential}-{revision}")
}

/// Until nothing is left, or it fails.
async fn all(stage: &dyn Stage, what: &[(&str, u64)]) -> Result<Vec<Outcome>, super::CourierError> {
    let application = stage.application();
    let cargo = cargo(&application, stage.courier().way(), what);
    let mut outcomes = Vec::new();
    for _ in 0..100 {
        let progress = stage.courier().deliver(&cargo).await?;
        outcomes.push(progress.outcome);
        if progress.left == 0 {
            return Ok(outcomes);
        }
    }
    panic!("it never comes to an end: {outcomes:?}");
}

fn expected(what: &[(&str, u64)]) -> Delivered {
    what.iter().map(|(name, revision)| (name.parse().unwrap(), (format!("v{revision}").parse().unwrap(), *revision))).collect()
}

/// # Panics
/// If the courier delivers what is there already, loses a change, or leaves a mix behind.
pub async fn check(mut stage: impl Stage) {
    let delivered = |outcomes: &[Outcome]| outcomes.contains(&Outcome::Delivered);
    let states: [&[(&str, u64)]; 3] = [&[("key", 1), ("other", 1)], &[("key", 2), ("other", 1)], &[("key", 3), ("other", 2)]];
    for state in states {
        assert!(delivered(&all(&stage, state).await.unwrap()), "{state:?} is new");
        assert!(stage.has().await.is_none_or(|has| has == expected(state)), "{state:?} isn't there");
        assert_eq!(all(&stage, state).await, Ok(vec![Outcome::Unchanged]), "{state:?} is there already");
        stage.again();
        assert_eq!(all(&stage, state).await, Ok(vec![Outcome::Unchanged]), "{state:?} is there, and a restart delivers nothing");
    }
    fails_whole_and_recovers(&mut stage).await;
    // A credential that the application may no longer have.
    let less = [("key", 5)];
    all(&stage, &less).await.unwrap();
    assert!(stage.has().await.is_none_or(|has| has == expected(&less)), "what it may no longer have is left");
    assert!(stage.courier().dead_letters(&stage.application().name).await.is_empty());
}

async fn fails_whole_and_recovers(stage: &mut impl Stage) {
    let before = stage.has().await;
    stage.break_target();
    for _ in 0..2 {
        assert!(all(stage, &[("key", 4), ("other", 3)]).await.is_err(), "a broken target is no success");
    }
    stage.mend_target();
    assert_eq!(stage.has().await, before, "what failed has changed nothing");
    // Meanwhile there is something newer.
    let newest = [("key", 5), ("other", 3)];
    let outcomes = all(stage, &newest).await.unwrap();
    assert!(outcomes.contains(&Outcome::Delivered));
    assert!(stage.has().await.is_none_or(|has| has == expected(&newest)));
    stage.again();
    assert_eq!(all(stage, &newest).await, Ok(vec![Outcome::Unchanged]));
}
