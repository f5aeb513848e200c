//! Credentials that another one administers: it signs, and what befalls it isn't said of those that it signs for.

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;
use keywright::domain::ids::Name;
use keywright::domain::rotation::Event;
use keywright::engine::errors::SubmitError;
use keywright::engine::meter::NoMeter;
use keywright::engine::{Options, Seams};
use keywright::issuers::memory::FaultAction;
use keywright::stores::{Apart, SecretStore, Slot, Stages, StoreError, VersionBytes};

use super::*;

const BOSS: &str = "boss";

/// The built-in description of Dinie as `acme`, whose keys an administrator makes, lists and removes.
fn acme() -> String {
    let built_in = dinie().replace("metadata: {name: dinie}", "metadata: {name: acme}");
    let (before, calls) = built_in.split_once("    create:\n").unwrap();
    assert_eq!(calls.matches("authentication: token\n").count(), 3);
    format!("{before}    create:\n{}", calls.replace("authentication: token\n", "authentication: administrator\n"))
}

/// [`acme`], where nobody can list: a lost reply can't be searched for.
fn acme_without_a_list() -> String {
    let acme = acme();
    let (before, from_list) = acme.split_once("    list:\n").unwrap();
    format!("{before}    revoke:\n{}", from_list.split_once("    revoke:\n").unwrap().1)
}

fn administered(provider: &str, verify_every: &str) -> String {
    let boss = "---
apiVersion: keywright.dev/v1alpha1
kind: RotationPolicy
metadata: {name: yearly}
spec: {maxAge: 365d}
---
apiVersion: keywright.dev/v1alpha1
kind: Credential
metadata: {name: boss}
spec: {provider: dinie, environment: production, rotation: yearly}
";
    let usual = documents(&[
        (
            "provider: dinie, environment: production, rotation: hourly",
            "provider: acme, environment: production, rotation: hourly, administeredBy: boss",
        ),
        ("spread: 1s", &format!("spread: 1s, verifyEvery: {verify_every}")),
    ]);
    format!("{provider}\n---{usual}{boss}")
}

/// A scene with an administrator that works.
struct Administered {
    world: World,
    engine: Arc<Engine>,
    first: KeyId,
    boss: KeyId,
}

impl Administered {
    async fn new(provider: &str, verify_every: &str) -> Administered {
        let world = World::with(Backend::memory(), &administered(provider, verify_every));
        let engine = world.start().await.unwrap();
        let boss = Self::submit(&world, &engine, BOSS).await.unwrap();
        let first = Self::submit(&world, &engine, CREDENTIAL).await.unwrap();
        Administered { world, engine, first, boss }
    }

    async fn submit(world: &World, engine: &Engine, credential: &str) -> Result<KeyId, SubmitError> {
        let (key_id, material) = world.made_by_hand();
        engine.submit(operator(), &name(credential), material).await.map(|_| key_id)
    }

    async fn live(&self, seconds: u64) {
        self.world.live(&self.engine, Duration::from_secs(seconds)).await;
    }

    async fn rotates(&self) -> bool {
        let before = current(&self.engine);
        self.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
        self.live(30).await;
        current(&self.engine) != before
    }

    fn alive(&self, key_id: &KeyId) -> bool {
        self.world.issuer.accepts(key_id, self.world.clocks.theirs.now())
    }

    fn all_codes(&self) -> Vec<(Option<String>, String)> {
        status(&self.engine).problems.into_iter().map(|problem| (problem.credential.map(|name| name.to_string()), problem.code)).collect()
    }

    fn has(&self, credential: &str, code: &str) -> bool {
        self.all_codes().contains(&(Some(credential.to_owned()), code.to_owned()))
    }

    async fn events(&self) -> Vec<Event> {
        self.world.backend.journal().load(&name(CREDENTIAL)).await.unwrap().events
    }
}

#[tokio::test]
async fn an_administered_key_is_rotated_whole_and_the_administrators_is_untouched() {
    let scene = Administered::new(&acme(), "24h").await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    assert!(scene.rotates().await, "{:?}", scene.all_codes());
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(100).await;
    assert_eq!(row(&scene.engine).phase, "steady", "{:?}", scene.all_codes());
    assert!(!scene.alive(&scene.first) && scene.alive(&scene.boss) && scene.world.foreign_live());
    assert_eq!(scene.world.ours_living().len(), 2, "the administrator's key and the new one");
}

#[tokio::test]
async fn a_refused_administrator_leaves_the_current_key_alone_and_a_new_one_goes_on() {
    let scene = Administered::new(&acme(), "24h").await;
    let before = current(&scene.engine);
    scene.world.issuer.kill(&scene.boss);
    assert!(!scene.rotates().await);
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("administrator-refused"));
    assert!(scene.has(CREDENTIAL, "administrator-refused"), "{:?}", scene.all_codes());
    // Long enough for any number of refusals to be believed.
    scene.live(3_000).await;
    assert!(scene.has(BOSS, "current-refused"), "of the administrator it is said: {:?}", scene.all_codes());
    assert!(!scene.has(CREDENTIAL, "current-refused"), "{:?}", scene.all_codes());
    assert!(!scene.events().await.iter().any(|event| matches!(event, Event::CurrentRefused { .. })));
    assert_eq!(current(&scene.engine), before);
    assert!(scene.alive(&scene.first) && scene.world.ours_living().len() == 1);
    // A key that is known to be refused isn't tried any more.
    let (asked, created) = (scene.world.issuer.calls("issuer.list"), scene.world.issuer.calls("issuer.create"));
    scene.live(600).await;
    assert!(scene.has(CREDENTIAL, "administrator-refused"), "{:?}", scene.all_codes());
    assert_eq!(scene.world.issuer.calls("issuer.create"), created);
    assert!(scene.world.issuer.calls("issuer.list") - asked < 4, "what is left is the administrator's own list");
    Administered::submit(&scene.world, &scene.engine, BOSS).await.unwrap();
    scene.live(400).await;
    assert_ne!(current(&scene.engine), before, "{:?}", scene.all_codes());
    assert!(!scene.has(CREDENTIAL, "administrator-refused"), "{:?}", scene.all_codes());
}

#[tokio::test]
async fn the_administrators_current_version_is_loaded_for_each_call() {
    let scene = Administered::new(&acme(), "24h").await;
    let second = Administered::submit(&scene.world, &scene.engine, BOSS).await.unwrap();
    scene.world.issuer.kill(&scene.boss);
    assert!(scene.rotates().await, "the old key of the administrator signs nothing more: {:?}", scene.all_codes());
    assert!(scene.alive(&second));
}

#[tokio::test]
async fn without_a_version_of_the_administrator_it_is_said_and_nothing_is_intended() {
    let world = World::with(Backend::memory(), &administered(&acme_without_a_list(), "24h"));
    let engine = world.start().await.unwrap();
    let first = Administered::submit(&world, &engine, CREDENTIAL).await.unwrap();
    let scene = Administered { boss: first.clone(), first, world, engine };
    assert!(!scene.rotates().await);
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("administrator-missing"));
    scene.live(2_000).await;
    assert!(scene.has(CREDENTIAL, "administrator-missing") && !scene.has(CREDENTIAL, "possible-orphan"), "{:?}", scene.all_codes());
    assert!(!scene.events().await.iter().any(|event| matches!(event, Event::CreateIntended { .. })));
    assert_eq!(scene.world.issuer.calls("issuer.create"), 0);
    Administered::submit(&scene.world, &scene.engine, BOSS).await.unwrap();
    let before = current(&scene.engine);
    scene.live(400).await;
    assert_ne!(current(&scene.engine), before, "{:?}", scene.all_codes());
}

#[tokio::test]
async fn a_rotation_that_waits_for_its_administrator_gives_way_to_a_key_that_a_person_brings() {
    let world = World::with(Backend::memory(), &administered(&acme_without_a_list(), "24h"));
    let engine = world.start().await.unwrap();
    let first = Administered::submit(&world, &engine, CREDENTIAL).await.unwrap();
    let scene = Administered { boss: first.clone(), first, world, engine };
    let before = current(&scene.engine);
    assert!(!scene.rotates().await);
    let second = Administered::submit(&scene.world, &scene.engine, CREDENTIAL).await.unwrap();
    assert_ne!(current(&scene.engine), before);
    scene.engine.release(operator(), &name(APPLICATION), None).await.unwrap();
    scene.live(100).await;
    assert!(scene.has(CREDENTIAL, "administrator-missing") && scene.alive(&scene.first), "the administrator signs the revocation, too");
    Administered::submit(&scene.world, &scene.engine, BOSS).await.unwrap();
    scene.live(400).await;
    assert_eq!((row(&scene.engine).phase.as_str(), scene.all_codes()), ("steady", Vec::new()));
    assert!(!scene.alive(&scene.first) && scene.alive(&second));

    for _ in 0..20 {
        scene.world.issuer.inject("issuer.create", FaultAction::Unauthenticated);
    }
    assert!(!scene.rotates().await);
    let third = Administered::submit(&scene.world, &scene.engine, CREDENTIAL).await.unwrap();
    scene.engine.release(operator(), &name(APPLICATION), None).await.unwrap();
    scene.live(400).await;
    assert_eq!((row(&scene.engine).phase.as_str(), scene.all_codes()), ("steady", Vec::new()));
    assert!(!scene.alive(&second) && scene.alive(&third));
}

#[tokio::test]
async fn where_nobody_can_list_a_refused_administrator_leaves_no_possible_orphan() {
    let scene = Administered::new(&acme_without_a_list(), "24h").await;
    for _ in 0..8 {
        scene.world.issuer.inject("issuer.create", FaultAction::Unauthenticated);
    }
    assert!(!scene.rotates().await);
    assert!(scene.has(CREDENTIAL, "administrator-refused"), "{:?}", scene.all_codes());
    scene.live(400).await;
    // What certainly had no effect may be done again, and then it is done once.
    assert_eq!(scene.world.issuer.calls("issuer.create"), 9);
    assert!(!scene.has(CREDENTIAL, "possible-orphan") && !scene.has(CREDENTIAL, "administrator-refused"), "{:?}", scene.all_codes());
    assert_eq!(scene.events().await.iter().filter(|event| matches!(event, Event::CreateIntended { .. })).count(), 1);
    // A reply that is lost may have had an effect: then it stays what it is.
    scene.world.issuer.inject("issuer.create", FaultAction::LoseReply);
    scene.engine.release(operator(), &name(APPLICATION), None).await.unwrap();
    scene.live(200).await;
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(5).await;
    assert!(scene.has(CREDENTIAL, "possible-orphan"), "{:?}", scene.all_codes());
}

#[tokio::test]
async fn a_list_that_the_administrator_signs_is_no_look_at_the_current_key() {
    // Lists come every 15 minutes, looks at the key itself every 20.
    let scene = Administered::new(&acme(), "20m").await;
    scene.live(60).await;
    scene.world.issuer.kill(&scene.first);
    let listed = scene.world.issuer.calls("issuer.list");
    scene.live(2_700).await;
    assert!(scene.world.issuer.calls("issuer.list") > listed, "the administrator's lists go on");
    assert!(scene.has(CREDENTIAL, "current-refused"), "and don't hide that the key is dead: {:?}", scene.all_codes());
    assert!(!scene.has(BOSS, "current-refused"));
}

#[tokio::test]
async fn a_refused_administrator_doesnt_keep_anybody_from_looking_at_the_current_key() {
    let scene = Administered::new(&acme(), "20m").await;
    scene.live(60).await;
    scene.world.issuer.kill(&scene.boss);
    scene.world.issuer.kill(&scene.first);
    scene.live(2_700).await;
    assert!(scene.has(CREDENTIAL, "current-refused"), "{:?}", scene.all_codes());
}

#[tokio::test]
async fn a_submission_whose_times_only_the_administrator_can_ask_for_waits_for_it() {
    let world = World::with(Backend::memory(), &administered(&acme(), "24h"));
    let engine = world.start().await.unwrap();
    let refused = Administered::submit(&world, &engine, CREDENTIAL).await;
    let Err(SubmitError::ProviderUnavailable { reason }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("`boss`") && reason.contains("keywright submit boss"), "{reason}");
    assert!(engine.current(&name(CREDENTIAL)).is_none());
    Administered::submit(&world, &engine, BOSS).await.unwrap();
    Administered::submit(&world, &engine, CREDENTIAL).await.unwrap();
    // With the list, a key made an hour ago is an hour old.
    let (_, old) = world.made_by_hand();
    world.live(&engine, Duration::from_secs(1_000)).await;
    engine.submit(operator(), &name(CREDENTIAL), old).await.unwrap();
    assert!(row(&engine).age_seconds.unwrap() >= 1_000);
}

/// A store that can't read one credential while it is told so.
struct Locked {
    inner: Arc<dyn SecretStore>,
    locked: Arc<Mutex<Option<Name>>>,
}

#[async_trait]
impl SecretStore for Locked {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        self.inner.stages(slot).await
    }

    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
        self.inner.put_pending(slot, version, bytes).await
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        if self.locked.lock().unwrap().as_ref() == Some(&slot.credential) {
            return Err(StoreError::Unavailable("locked"));
        }
        self.inner.read(slot, version).await
    }

    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
        self.inner.promote(slot, version, replacing).await
    }

    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        self.inner.forget(slot, version).await
    }

    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        self.inner.clear(slot, versions).await
    }

    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        self.inner.list(after, limit).await
    }
}

#[tokio::test]
async fn an_administrator_in_a_store_that_is_away_hinders_and_nothing_is_sent() {
    let world = World::with(Backend::memory(), &administered(&acme(), "24h"));
    let locked = Arc::<Mutex<Option<Name>>>::default();
    let Backend::Memory { keyring, .. } = &world.backend else { panic!("it is in memory") };
    let store = Arc::new(Locked { inner: world.backend.store(), locked: locked.clone() });
    let seams = Seams {
        store: store.clone(),
        journal: world.backend.journal(),
        promoter: Arc::new(Apart::new(store, world.backend.journal())),
        issuer: world.issuer.clone(),
        audit: world.audit.clone(),
        clock: world.clocks.clone(),
        delivery: world.pushes.clone(),
        meter: Arc::new(NoMeter),
        keyring: keyring.clone(),
    };
    let documents = world.documents.lock().unwrap().clone();
    let engine = Engine::start(seams, documents, Options::default()).await.unwrap();
    let boss = Administered::submit(&world, &engine, BOSS).await.unwrap();
    let first = Administered::submit(&world, &engine, CREDENTIAL).await.unwrap();
    let scene = Administered { world, engine, first, boss };
    scene.live(5).await;
    *locked.lock().unwrap() = Some(name(BOSS));
    let listed = scene.world.issuer.calls("issuer.list");
    assert!(!scene.rotates().await);
    assert!(scene.has(CREDENTIAL, "store-unavailable"), "{:?}", scene.all_codes());
    assert_eq!((scene.world.issuer.calls("issuer.list"), scene.world.issuer.calls("issuer.create")), (listed, 0));
    *locked.lock().unwrap() = None;
    let before = current(&scene.engine);
    scene.live(100).await;
    assert_ne!(current(&scene.engine), before, "{:?}", scene.all_codes());
}
