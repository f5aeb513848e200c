//! Deliveries beside the stream: what is brought, by whom it counts as held, and that no rotation waits for it but by the barrier.

use std::collections::BTreeMap;

use keywright::delivery::memory::MemoryCourier;
use keywright::delivery::stream::StreamHub;
use keywright::delivery::{Change, Courier, CourierError, Delivery as _};
use keywright::domain::delivery::Way;
use keywright::domain::dispatch::Place;
use keywright::domain::policy::Policies;
use keywright::engine::views::{DeliveryState, DeliveryStatus};
use keywright::engine::{Fate, Reader};
use keywright::runtime::couriers::Couriers;
use keywright::runtime::metrics::Metrics;
use keywright::sealing::hmac_sha256_hex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

const FILE: &str = "file: {directory: /run/app}";
const WEBHOOK: &str = "webhook: {url: \"https://a.example/hook\", secrets: [{file: /etc/secret}]}";

fn with_delivery(delivery: &str, policy: &str) -> String {
    let identity = "  identity: {unix: {uid: 1000}}\n";
    documents(&[(identity, &format!("{identity}  delivery: {{{delivery}}}\n")), ("spread: 1s", &format!("spread: 1s{policy}"))])
}

/// Couriers at work on an engine, until it is dropped.
struct Post {
    courier: Arc<MemoryCourier>,
    hub: Arc<StreamHub>,
    leads: watch::Sender<bool>,
    metrics: Metrics,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Post {
    fn start(engine: &Arc<Engine>, courier: Arc<MemoryCourier>) -> Post {
        let (hub, metrics, stop) = (Arc::new(StreamHub::new()), Metrics::new(), CancellationToken::new());
        let (leads, led) = watch::channel(true);
        let ways = vec![Arc::clone(&courier) as Arc<dyn Courier>];
        let couriers = Couriers::new(Arc::clone(engine), ways, Arc::clone(&hub), metrics.clone());
        let task = Some(tokio::spawn(couriers.run(led, stop.clone())));
        Post { courier, hub, leads, metrics, stop, task }
    }

    /// Something has changed; until the target is as it should be.
    async fn until(&self, mut done: impl FnMut() -> bool) {
        for _ in 0..1_200 {
            self.hub.announce(Change::Policies);
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("it never came about: {:?}", self.courier);
    }

    fn has(&self, version: &VersionId) -> bool {
        self.courier.target(&name(APPLICATION)).get(&name(CREDENTIAL)).is_some_and(|(found, _)| found == version)
    }

    async fn until_nothing_is_remembered(&self, engine: &Engine) {
        for _ in 0..1_200 {
            if engine.ways_with_places().await.unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("something is left: {:?}", self.courier);
    }

    async fn end(mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
    }
}

fn standing(engine: &Engine) -> DeliveryStatus {
    let [status] = status(engine).deliveries.try_into().unwrap();
    status
}

fn state_of_file(engine: &Engine) -> Option<String> {
    let applications = row(engine).applications;
    let file = applications.into_iter().find(|row| row.instance == Some(Way::File.instance()))?;
    serde_json::to_value(file.state).unwrap().as_str().map(str::to_owned)
}

async fn delivered(delivery: &str, policy: &str, way: Way) -> (Scene, Post) {
    let scene = Scene::new(&with_delivery(delivery, policy)).await;
    let post = Post::start(&scene.engine, Arc::new(MemoryCourier::new(way)));
    let first = current(&scene.engine);
    post.until(|| post.has(&first) && standing(&scene.engine).state == DeliveryState::Delivered).await;
    (scene, post)
}

#[tokio::test]
async fn what_a_courier_read_counts_as_served_once_its_target_has_it() {
    let (scene, post) = delivered(FILE, ", confirmation: observed", Way::File).await;
    assert_eq!(state_of_file(&scene.engine).as_deref(), Some("served"));
    post.courier.fail(vec![CourierError::Unavailable("the disk is away"); 1_000]);
    scene.rotate().await;
    let second = current(&scene.engine);
    post.until(|| standing(&scene.engine).state == DeliveryState::Failing).await;
    let failing = standing(&scene.engine);
    assert_eq!((failing.reason.as_deref(), failing.since.is_some()), (Some("the disk is away"), true));
    assert!(codes(&scene.engine).contains(&"delivery-failing".to_owned()));
    // It has read the new one, and the target hasn't got it: the old key lives past its overlap, and nobody is told otherwise.
    assert!(!post.has(&second));
    scene.live(120).await;
    assert_eq!(state_of_file(&scene.engine).as_deref(), Some("holds"));
    assert!(scene.alive(&scene.first.0));
    post.courier.mend();
    post.until(|| post.has(&second) && standing(&scene.engine).state == DeliveryState::Delivered).await;
    scene.live(10).await;
    assert!(!scene.alive(&scene.first.0), "observed is enough here");
    let text = post.metrics.encode(&[], &BTreeMap::new(), false).unwrap();
    assert!(text.contains("keywright_deliveries_total{way=\"file\",outcome=\"failed\"}"), "{text}");
    post.end().await;
}

#[tokio::test]
async fn nobody_confirms_in_the_applications_name_but_itself() {
    let (scene, post) = delivered(FILE, "", Way::File).await;
    scene.rotate().await;
    let second = current(&scene.engine);
    post.until(|| post.has(&second) && state_of_file(&scene.engine).as_deref() == Some("served")).await;
    // Its lease doesn't run: what lies in the folder is in use for as long as nobody proves otherwise.
    scene.live(2 * 3_600).await;
    assert!(scene.alive(&scene.first.0));
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("overdue"));
    let reader = Reader::Application { application: name(APPLICATION), instance: Way::File.instance(), pod: None };
    let version = current(&scene.engine);
    let document = scene.engine.read(&reader, &name(CREDENTIAL)).await.unwrap();
    assert_eq!(document.version, version);
    let message = format!("keywright-confirm\n{CREDENTIAL}\n{version}\nfile");
    let proof = hmac_sha256_hex(document.fields.get(&secret_field()).unwrap(), message.as_bytes());
    scene.engine.confirm(&name(APPLICATION), &Way::File.instance(), &name(CREDENTIAL), &version, &secret_field(), &proof).await.unwrap();
    assert_eq!(state_of_file(&scene.engine).as_deref(), Some("confirmed"));
    scene.live(10).await;
    assert!(!scene.alive(&scene.first.0));
    post.end().await;
}

#[tokio::test]
async fn only_who_leads_delivers_and_a_restart_with_nothing_changed_delivers_nothing() {
    let (scene, post) = delivered(FILE, "", Way::File).await;
    post.leads.send(false).unwrap();
    // What waits for a change is woken once, and then waits until it leads.
    post.hub.announce(Change::Policies);
    tokio::time::sleep(Duration::from_millis(200)).await;
    scene.rotate().await;
    let (second, (calls, deliveries)) = (current(&scene.engine), post.courier.counts());
    for _ in 0..20 {
        post.hub.announce(Change::Policies);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(post.courier.counts(), (calls, deliveries), "it doesn't lead");
    let standing_by = standing(&scene.engine);
    assert_eq!((standing_by.state, standing_by.reason.is_some()), (DeliveryState::Waiting, true));
    post.leads.send(true).unwrap();
    post.until(|| post.has(&second)).await;
    let courier = Arc::clone(&post.courier);
    post.end().await;
    let (_, before) = courier.counts();
    let scene = scene.restart().await;
    let disclosures = |scene: &Scene| scene.world.audit.records().iter().filter(|(_, action)| action.action == "disclosed").count();
    let disclosed = disclosures(&scene);
    let again = Post::start(&scene.engine, Arc::clone(&courier));
    again.until(|| standing(&scene.engine).state == DeliveryState::Delivered).await;
    assert_eq!((courier.counts().1, disclosures(&scene)), (before, disclosed), "nothing changed");
    again.end().await;
}

#[tokio::test]
async fn a_message_holds_nothing_and_what_is_given_up_is_named_until_it_is_made_good() {
    let (scene, post) = delivered(WEBHOOK, "", Way::Webhook).await;
    assert!(row(&scene.engine).applications.iter().all(|row| row.instance.is_none()), "nothing was read");
    assert!(scene.world.audit.records().iter().all(|(_, action)| action.action != "disclosed"));
    post.end().await;
    // As the process after the next finds it: this one's first call gives it up.
    let courier = Arc::new(MemoryCourier::new(Way::Webhook));
    courier.give_up("nobody wants it");
    let post = Post::start(&scene.engine, Arc::clone(&courier));
    for _ in 0..400 {
        if standing(&scene.engine).state == DeliveryState::Dead {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let dead = standing(&scene.engine);
    assert_eq!((dead.state, dead.reason.as_deref(), dead.dead_letters.len()), (DeliveryState::Dead, Some("nobody wants it"), 1));
    assert!(codes(&scene.engine).contains(&"delivery-dead".to_owned()));
    scene.rotate().await;
    post.until(|| standing(&scene.engine).state == DeliveryState::Delivered).await;
    assert!(standing(&scene.engine).dead_letters.is_empty() && !codes(&scene.engine).contains(&"delivery-dead".to_owned()));
    post.end().await;
}

fn folder(directory: &str) -> Place {
    Place::Folder { directory: directory.into(), mode: 0o400, owner: None, group: None }
}

#[tokio::test]
async fn what_the_document_no_longer_asks_for_ends_and_its_row_goes() {
    let (scene, post) = delivered(FILE, "", Way::File).await;
    scene.engine.set_policies(policies(DOCUMENTS)).await;
    assert!(status(&scene.engine).deliveries.is_empty());
    post.until(|| post.courier.withdrawn() == [folder("/run/app")]).await;
    post.until_nothing_is_remembered(&scene.engine).await;
    assert!(status(&scene.engine).deliveries.is_empty());
    let (calls, _) = post.courier.counts();
    for _ in 0..10 {
        post.hub.announce(Change::Policies);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(post.courier.counts().0, calls);
    scene.engine.set_policies(policies(&with_delivery(FILE, ""))).await;
    post.until(|| post.courier.counts().0 > calls).await;
    assert_eq!(post.courier.withdrawn().len(), 1);
    post.end().await;
}

#[tokio::test]
async fn what_was_dropped_while_nobody_ran_is_taken_away_by_who_starts_next() {
    let (scene, post) = delivered(FILE, "", Way::File).await;
    let courier = Arc::clone(&post.courier);
    post.end().await;
    let scene = scene.restart().await;
    // A folder of documents that isn't there is no wish.
    let nothing = Policies { applications: BTreeMap::new(), credentials: BTreeMap::new(), ..policies(DOCUMENTS) };
    scene.engine.set_policies(nothing).await;
    let post = Post::start(&scene.engine, Arc::clone(&courier));
    for _ in 0..20 {
        post.hub.announce(Change::Policies);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(courier.withdrawn().is_empty());
    courier.refuse_withdrawal(Some(CourierError::Unavailable("the disk is away")));
    scene.engine.set_policies(policies(DOCUMENTS)).await;
    post.until(|| codes(&scene.engine).contains(&"delivery-left".to_owned())).await;
    let left = standing(&scene.engine);
    assert_eq!((left.state, left.reason.as_deref()), (DeliveryState::Left, Some("the disk is away")));
    courier.refuse_withdrawal(None);
    post.until(|| courier.withdrawn() == [folder("/run/app")]).await;
    post.until_nothing_is_remembered(&scene.engine).await;
    assert!(status(&scene.engine).deliveries.is_empty());
    post.end().await;
}

#[tokio::test]
async fn what_goes_elsewhere_by_now_is_there_before_the_former_place_is_emptied() {
    let (scene, post) = delivered(FILE, "", Way::File).await;
    post.courier.refuse_withdrawal(Some(CourierError::Refused("the folder isn't ours")));
    scene.engine.set_policies(policies(&with_delivery("file: {directory: /run/moved}", ""))).await;
    post.until(|| standing(&scene.engine).state == DeliveryState::Left).await;
    // It doesn't keep what is new from going out.
    scene.rotate().await;
    let second = current(&scene.engine);
    post.until(|| post.has(&second)).await;
    let kept = scene.engine.dispatch(&name(APPLICATION), Way::File).await.unwrap();
    assert_eq!(kept.places, [folder("/run/app"), folder("/run/moved")]);
    post.courier.refuse_withdrawal(None);
    post.until(|| standing(&scene.engine).state == DeliveryState::Delivered).await;
    assert_eq!(post.courier.withdrawn(), [folder("/run/app")]);
    // Nobody's folder is emptied under another application's files.
    let text = with_delivery(FILE, "").replace("directory: /run/app", "directory: /run/other");
    scene.engine.set_policies(policies(&text)).await;
    post.until(|| post.courier.withdrawn().len() == 2).await;
    assert_eq!(scene.engine.fate_of(&name("somebody"), &folder("/run/other/inner")), Fate::IsAnothers);
    assert_eq!(scene.engine.fate_of(&name(APPLICATION), &folder("/run/other/inner")), Fate::IsEmptied);
    post.end().await;
}

/// A message is for all instances at once: who fetches on it must be served the new version, whatever its rank.
#[tokio::test]
async fn a_message_comes_when_the_last_instance_is_served() {
    let scene = Scene::new(&with_delivery(WEBHOOK, ", rollout: [1, 50%, 100%]")).await;
    let mut apps: Vec<App> = (0..4).map(|number| App::new(APPLICATION, &format!("pod-{number}"))).collect();
    for app in &mut apps {
        assert!(app.fetch(&scene.engine).await);
    }
    let _streams: Vec<_> = apps.iter().map(|app| scene.engine.open_stream(&app.application, &app.instance)).collect();
    let recipient = scene.engine.recipient(&name(APPLICATION), Way::Webhook).unwrap();
    let old = current(&scene.engine);
    scene.rotate().await;
    let new = current(&scene.engine);
    let mut steps = 0;
    loop {
        let told = scene.engine.parcels(&recipient, Way::Webhook).await.unwrap().remove(0);
        assert!(told.document.is_none());
        let served: Vec<VersionId> = apps.iter().map(|app| scene.engine.current_for(&app.reader(), &app.credential).unwrap().0).collect();
        let for_all = served.iter().all(|version| *version == new);
        assert_eq!(told.version, if for_all { new.clone() } else { old.clone() }, "{served:?}");
        if for_all {
            break;
        }
        steps += 1;
        for app in &mut apps {
            assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
        }
        scene.live(1).await;
    }
    assert_eq!(steps, 2);
}
