//! What delivery as a Secret must do, whatever the calls go to: memory, the API server of the tests, or a real cluster.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failed unwrap here is a failed test of the delivery"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::objects::{Objects, SecretAt};
use super::owner::{ADOPT, FINGERPRINT, Foreign};
use super::trouble::Trouble;
use super::{KubernetesSecrets, Progress};
use crate::delivery::Withdrawn;
use crate::domain::credential::Environment;
use crate::domain::delivery::KubernetesDelivery;
use crate::domain::document::{Document, Previous};
use crate::domain::ids::{InstallationId, Name};
use crate::domain::material::{Material, Secret};
use crate::domain::restarts::{Restarts, Waiting, Workload, WorkloadKind};
use crate::sealing::Keyring;

/// What other people do in the cluster. None of it is a call of ours.
#[async_trait]
pub trait Hand: Send + Sync + fmt::Debug {
    /// As somebody else, with these values.
    async fn create_secret(&self, at: &SecretAt, data: &[(&str, &str)]);
    async fn edit_secret(&self, at: &SecretAt, name: &str, value: &str);
    async fn annotate_secret(&self, at: &SecretAt, name: &str, value: &str);
    async fn delete_secret(&self, at: &SecretAt);
    /// All of it, ours and theirs.
    async fn data(&self, at: &SecretAt) -> Option<BTreeMap<String, Vec<u8>>>;
    /// Without pods, beside this Secret.
    async fn create_workload(&self, at: &SecretAt, workload: &Workload);
    /// Its controller has done what there was to do.
    async fn settle(&self, at: &SecretAt, workload: &Workload);
}

/// A cluster, and a namespace of it that nobody else uses.
#[derive(Debug, Clone)]
pub struct World {
    pub objects: Arc<dyn Objects>,
    pub hand: Arc<dyn Hand>,
    pub namespace: Name,
}

const NOON: &str = "2026-11-23T12:00:00Z";

fn noon() -> Timestamp {
    NOON.parse().unwrap()
}

/// The document of a credential of this name and revision, with these fields.
pub fn document(name: &str, revision: u64, fields: &[(&str, &str)]) -> Document {
    Document {
        name: name.parse().unwrap(),
        provider: "dinie".parse().unwrap(),
        environment: Environment::Sandbox,
        version: format!("v{revision}").parse().unwrap(),
        revision,
        issued_at: noon(),
        stale: false,
        fields: Arc::new(material(fields)),
        previous: None,
    }
}

fn material(fields: &[(&str, &str)]) -> Material {
    fields.iter().map(|(field, value)| (field.parse().unwrap(), Secret::from((*value).to_owned()))).collect()
}

fn key(revision: u64, value: &str) -> Document {
    document("dinie", revision, &[("client_id", "id"), ("client_secret", value)])
}

/// Names of a part's own, so that parts don't meet.
struct Part {
    world: World,
    at: SecretAt,
    courier: KubernetesSecrets,
    keyring: Arc<Keyring>,
    restarts: Option<Restarts>,
}

fn application() -> Name {
    "payments".parse().unwrap()
}

fn installation() -> InstallationId {
    InstallationId(Uuid::from_u128(7))
}

impl Part {
    fn new(world: &World, secret: &str) -> Part {
        let keyring = Arc::new(Keyring::ephemeral().unwrap());
        let courier = KubernetesSecrets::new(Arc::clone(&world.objects), Arc::clone(&keyring), installation());
        let at = SecretAt { namespace: world.namespace.clone(), name: secret.parse().unwrap() };
        Part { world: world.clone(), at, courier, keyring, restarts: None }
    }

    fn restarting(mut self, workloads: &[Workload], per_hour: u32) -> Part {
        self.restarts = Some(Restarts { workloads: workloads.to_vec(), windows: Vec::new(), batch: 1, per_hour });
        self
    }

    fn to(&self) -> KubernetesDelivery {
        KubernetesDelivery { secret: self.at.name.clone(), namespace: self.at.namespace.clone(), restarts: self.restarts.clone() }
    }

    async fn deliver(&self, documents: &[Document]) -> Result<Progress, Trouble> {
        let documents: Vec<&Document> = documents.iter().collect();
        self.courier.deliver(&application(), &self.to(), &documents, noon()).await.map(|(_, progress)| progress)
    }

    async fn delivered(&self, documents: &[Document]) {
        assert_eq!(self.deliver(documents).await, Ok(Progress::Delivered { in_use: false }));
    }

    /// As it stands in the cluster, as text.
    async fn data(&self) -> Vec<(String, String)> {
        let data = self.world.hand.data(&self.at).await.unwrap();
        data.into_iter().map(|(name, value)| (name, String::from_utf8(value).unwrap())).collect()
    }

    async fn version(&self) -> String {
        self.world.objects.secret(&self.at).await.unwrap().unwrap().resource_version
    }

    /// Refused because of this, and untouched.
    async fn refused(&self, documents: &[Document], expected: Foreign) {
        let before = (self.version().await, self.data().await);
        let refused = self.deliver(documents).await.unwrap_err();
        assert!(matches!(&refused, Trouble::NotOurs { why, .. } if *why == expected), "{refused}");
        assert!(!refused.is_passing() && refused.to_string().contains("kubectl annotate"), "{refused}");
        assert_eq!(self.courier.withdraw(&application(), self.at.clone()).await.unwrap(), Withdrawn::NotOurs);
        assert_eq!((self.version().await, self.data().await), before, "it was touched");
    }
}

fn entries(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Runs the whole suite; each part on Secrets of its own.
///
/// # Panics
/// Where the delivery doesn't keep the contract.
pub async fn contract(world: &World) {
    what_is_asked_stands_there_and_is_written_once(world).await;
    a_change_is_written_and_what_access_ended_to_goes(world).await;
    what_is_not_ours_is_not_touched_until_it_is_handed_over(world).await;
    another_owners_is_not_touched(world).await;
    what_was_changed_by_hand_is_put_right(world).await;
    an_older_state_never_replaces_a_newer(world).await;
    what_was_deleted_is_written_anew(world).await;
    withdrawn_is_empty_and_nothing_is_made_for_nothing(world).await;
    every_shape_arrives_as_it_is(world).await;
    more_than_a_secret_holds_is_refused(world).await;
    a_workload_is_marked_once_for_each_value(world).await;
    a_workload_that_is_not_there_is_named(world).await;
    two_secrets_restart_one_workload(world).await;
}

async fn what_is_asked_stands_there_and_is_written_once(world: &World) {
    let part = Part::new(world, "contract-once");
    part.delivered(&[key(1, "first")]).await;
    assert_eq!(part.data().await, entries(&[("dinie.client_id", "id"), ("dinie.client_secret", "first")]));
    let version = part.version().await;
    part.delivered(&[key(1, "first")]).await;
    // A new version of the same value, too: nothing that an application sees has changed.
    part.delivered(&[key(2, "first")]).await;
    // As after a start of the daemon: nothing is remembered but the keys.
    let again = KubernetesSecrets::new(Arc::clone(&world.objects), Arc::clone(&part.keyring), installation());
    again.deliver(&application(), &part.to(), &[&key(2, "first")], noon()).await.unwrap();
    assert_eq!(part.version().await, version, "it was written though nothing had changed");
    let seen = world.objects.secret(&part.at).await.unwrap().unwrap();
    assert!(!seen.has_others && seen.annotations[FINGERPRINT].len() == 64);
    assert!(!format!("{seen:?}").contains("first"));
}

async fn a_change_is_written_and_what_access_ended_to_goes(world: &World) {
    let part = Part::new(world, "contract-change");
    let tap = || document("tap", 5, &[("token", "tapped")]);
    part.delivered(&[key(1, "first"), tap()]).await;
    world.hand.edit_secret(&part.at, "theirs", "stays").await;
    part.delivered(&[key(2, "second"), tap()]).await;
    let all = [("dinie.client_id", "id"), ("dinie.client_secret", "second"), ("tap.token", "tapped"), ("theirs", "stays")];
    assert_eq!(part.data().await, entries(&all));
    part.delivered(&[tap()]).await;
    assert_eq!(part.data().await, entries(&all[2..]));
}

async fn what_is_not_ours_is_not_touched_until_it_is_handed_over(world: &World) {
    let part = Part::new(world, "contract-foreign");
    world.hand.create_secret(&part.at, &[("dinie.client_id", "theirs"), ("password", "old")]).await;
    part.refused(&[key(1, "first")], Foreign::Unmarked).await;
    world.hand.annotate_secret(&part.at, ADOPT, "another").await;
    part.refused(&[key(1, "first")], Foreign::Unmarked).await;
    world.hand.annotate_secret(&part.at, ADOPT, "payments").await;
    part.delivered(&[key(1, "first")]).await;
    let both = entries(&[("dinie.client_id", "id"), ("dinie.client_secret", "first"), ("password", "old")]);
    assert_eq!(part.data().await, both);
    let version = part.version().await;
    part.delivered(&[key(1, "first")]).await;
    assert_eq!(part.version().await, version);
}

async fn another_owners_is_not_touched(world: &World) {
    let part = Part::new(world, "contract-owner");
    let ledger: Name = "ledger".parse().unwrap();
    part.courier.deliver(&ledger, &part.to(), &[&key(1, "first")], noon()).await.unwrap();
    part.refused(&[key(1, "mine")], Foreign::OtherApplication).await;
    world.hand.delete_secret(&part.at).await;
    let elsewhere = InstallationId(Uuid::from_u128(8));
    let other = KubernetesSecrets::new(Arc::clone(&world.objects), Arc::clone(&part.keyring), elsewhere);
    other.deliver(&application(), &part.to(), &[&key(9, "first")], noon()).await.unwrap();
    part.refused(&[key(1, "mine")], Foreign::OtherInstallation).await;
    world.hand.annotate_secret(&part.at, ADOPT, "payments").await;
    // After a restore revisions may be lower than what the installation before it wrote.
    part.delivered(&[key(1, "mine")]).await;
    assert_eq!(part.data().await[1].1, "mine");
}

async fn what_was_changed_by_hand_is_put_right(world: &World) {
    let part = Part::new(world, "contract-hand");
    part.delivered(&[key(1, "first")]).await;
    world.hand.edit_secret(&part.at, "dinie.client_secret", "typo").await;
    part.delivered(&[key(1, "first")]).await;
    assert_eq!(part.data().await, entries(&[("dinie.client_id", "id"), ("dinie.client_secret", "first")]));
    let version = part.version().await;
    part.delivered(&[key(1, "first")]).await;
    assert_eq!(part.version().await, version);
}

async fn an_older_state_never_replaces_a_newer(world: &World) {
    let part = Part::new(world, "contract-older");
    part.delivered(&[key(7, "newer")]).await;
    let refused = part.deliver(&[key(6, "older")]).await.unwrap_err();
    assert!(matches!(refused, Trouble::Overtaken { .. }) && refused.is_passing(), "{refused}");
    assert_eq!(part.data().await[1].1, "newer");
}

async fn what_was_deleted_is_written_anew(world: &World) {
    let part = Part::new(world, "contract-deleted");
    part.delivered(&[key(1, "first")]).await;
    world.hand.delete_secret(&part.at).await;
    part.delivered(&[key(1, "first")]).await;
    assert_eq!(part.data().await[1].1, "first");
}

async fn withdrawn_is_empty_and_nothing_is_made_for_nothing(world: &World) {
    let part = Part::new(world, "contract-withdrawn");
    part.delivered(&[]).await;
    assert!(world.hand.data(&part.at).await.is_none(), "there is nothing to keep in it");
    part.courier.withdraw(&application(), part.at.clone()).await.unwrap();
    part.delivered(&[key(1, "first")]).await;
    world.hand.edit_secret(&part.at, "theirs", "stays").await;
    part.courier.withdraw(&application(), part.at.clone()).await.unwrap();
    assert_eq!(part.data().await, entries(&[("theirs", "stays")]));
    part.delivered(&[key(1, "first")]).await;
    assert_eq!(part.data().await.len(), 3, "it is still ours");
}

async fn every_shape_arrives_as_it_is(world: &World) {
    let part = Part::new(world, "contract-shapes");
    let long = "64KiB-".repeat(11_000)[..Secret::LENGTH_MAX].to_owned();
    let shapes = [
        "x",
        "-----BEGIN X-----\nabc=\n-----END X-----\n",
        r#"a"b'c\d\n"#,
        "%41%00",
        "\u{2603}\u{301}\u{202e}",
        "a\0b\u{1}",
        r#"{"a":"{}"}"#,
        &long,
    ];
    let mut document = document("dinie", 1, &[]);
    let fields = shapes.iter().enumerate().map(|(index, text)| (format!("f{index}").parse().unwrap(), Secret::from((*text).to_owned())));
    document.fields = Arc::new(fields.collect());
    document.previous =
        Some(Arc::new(Previous { version: "v0".parse().unwrap(), fields: material(&[("f0", "before")]), valid_until: noon() }));
    part.delivered(&[document]).await;
    let mut expected: Vec<(String, String)> =
        shapes.iter().enumerate().map(|(index, text)| (format!("dinie.f{index}"), (*text).to_owned())).collect();
    expected.push(("dinie.previous.f0".to_owned(), "before".to_owned()));
    assert_eq!(part.data().await, expected);
}

async fn more_than_a_secret_holds_is_refused(world: &World) {
    let part = Part::new(world, "contract-large");
    let value = "v".repeat(Secret::LENGTH_MAX);
    let documents: Vec<Document> = (0..17).map(|index| document(&format!("c{index}"), 1, &[("f", value.as_str())])).collect();
    part.delivered(&documents[..16]).await;
    let refused = part.deliver(&documents).await.unwrap_err();
    assert!(matches!(refused, Trouble::TooLarge { .. }) && !refused.is_passing(), "{refused}");
    assert_eq!(part.data().await.len(), 16, "what was there stays");
}

/// All three kinds; none of them has pods, so that a real cluster needs no image.
fn workload(kind: WorkloadKind, name: &str) -> Workload {
    Workload { kind, name: format!("{name}-{}", kind.as_str().to_lowercase()).parse().unwrap() }
}

async fn a_workload_is_marked_once_for_each_value(world: &World) {
    for kind in WorkloadKind::ALL {
        let target = workload(kind, "contract-marked");
        let part = Part::new(world, target.name.as_str()).restarting(std::slice::from_ref(&target), 2);
        world.hand.create_workload(&part.at, &target).await;
        let mark = async || world.objects.workload(&part.at, &target).await.unwrap().unwrap().seen;
        assert_eq!(mark().await.checksum, None);
        let rolling = |progress: Progress| matches!(&progress, Progress::Rolling { waiting: Waiting::Rolling(of), .. } if *of == target);
        assert!(rolling(part.deliver(&[key(1, "first")]).await.unwrap()), "{kind:?}");
        let first = mark().await;
        assert_eq!(first.restarted, [noon()]);
        world.hand.settle(&part.at, &target).await;
        assert_eq!(part.deliver(&[key(2, "first")]).await, Ok(Progress::Delivered { in_use: true }), "{kind:?}");
        assert_eq!(mark().await.checksum, first.checksum, "nothing has changed");
        assert!(rolling(part.deliver(&[key(3, "second")]).await.unwrap()));
        let second = mark().await;
        assert!(second.checksum.is_some() && second.checksum != first.checksum);
        assert_eq!(second.restarted, [noon(), noon()]);
        world.hand.settle(&part.at, &target).await;
        let capped = part.deliver(&[key(4, "third")]).await.unwrap();
        assert!(matches!(capped, Progress::Rolling { waiting: Waiting::Cap, .. }), "{capped:?}");
        assert_eq!(part.data().await[1].1, "third", "the Secret doesn't wait");
        assert_eq!(mark().await.checksum, second.checksum);
    }
}

async fn a_workload_that_is_not_there_is_named(world: &World) {
    let target = workload(WorkloadKind::Deployment, "contract-absent");
    let part = Part::new(world, "contract-absent").restarting(std::slice::from_ref(&target), 6);
    let progress = part.deliver(&[key(1, "first")]).await.unwrap();
    assert!(matches!(&progress, Progress::Rolling { waiting: Waiting::Absent(of), .. } if *of == target), "{progress:?}");
    assert_eq!(world.objects.workload(&part.at, &target).await, Ok(None), "nothing was made of it");
}

async fn two_secrets_restart_one_workload(world: &World) {
    let target = workload(WorkloadKind::Deployment, "contract-shared");
    let parts = ["contract-one", "contract-two"].map(|name| Part::new(world, name).restarting(std::slice::from_ref(&target), 6));
    world.hand.create_workload(&parts[0].at, &target).await;
    world.hand.create_workload(&parts[1].at, &target).await;
    for part in &parts {
        part.deliver(&[key(1, "first")]).await.unwrap();
    }
    for part in &parts {
        let seen = world.objects.workload(&part.at, &target).await.unwrap().unwrap().seen;
        assert!(seen.checksum.is_some(), "the other's mark took it away");
        assert_eq!(seen.restarted.len(), 1);
    }
}
