//! Deliveries beside the stream: what is brought, by whom it counts as held, and that no rotation waits for it but by the barrier.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keywright::delivery::memory::MemoryCourier;
use keywright::delivery::stream::StreamHub;
use keywright::delivery::{Change, Courier, CourierError, Delivery as _};
use keywright::domain::delivery::Way;
use keywright::domain::dispatch::{Dispatch, Fate, Place};
use keywright::domain::policy::{Application, Policies};
use keywright::engine::Reader;
use keywright::engine::views::{DeliveryState, DeliveryStatus};
use keywright::faults::When;
use keywright::journal::JournalError;
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
    Place::Folder { on: None, directory: directory.into(), mode: 0o400, owner: None, group: None }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// With keys so short-lived that what isn't asked for settles within a second.
fn hasty(text: &str) -> String {
    let hasty = text.replace("maxAge: 1h, overlap: 60s", "maxAge: 20s, overlap: 2s");
    assert_ne!(hasty, text);
    hasty
}

async fn places(engine: &Engine) -> Vec<Place> {
    let (_, dispatch) = engine.dispatch(&name(APPLICATION), Way::File).await.unwrap();
    dispatch.places.into_iter().map(|placed| placed.place).collect()
}

async fn hasty_delivered() -> (Scene, Post) {
    let (scene, post) = delivered(FILE, "", Way::File).await;
    ask_for(&scene, FILE).await;
    post.hub.announce(Change::Policies);
    (scene, post)
}

/// The document asks for this from now on; nothing, where it is empty.
async fn ask_for(scene: &Scene, delivery: &str) {
    let text = if delivery.is_empty() { DOCUMENTS.to_owned() } else { with_delivery(delivery, "") };
    scene.engine.set_policies(policies(&hasty(&text))).await;
}

/// Nobody asks for it any more, and it can't be taken away.
async fn left(scene: &Scene, post: &Post, fault: CourierError, delivery: &str) {
    post.courier.refuse_withdrawal(Some(fault));
    ask_for(scene, delivery).await;
    post.until(|| codes(&scene.engine).contains(&"delivery-left".to_owned())).await;
}

#[tokio::test]
async fn what_the_document_no_longer_asks_for_ends_and_its_row_goes() {
    let (scene, post) = hasty_delivered().await;
    ask_for(&scene, "").await;
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

/// Documents reach replicas one by one, and a folder of them file by file.
#[tokio::test]
async fn nothing_is_taken_away_before_the_documents_have_settled() {
    let (scene, post) = delivered(FILE, "", Way::File).await;
    for round in 0..3 {
        // Minutes, by the policy of these documents.
        scene.engine.set_policies(policies(DOCUMENTS)).await;
        for _ in 0..20 {
            post.hub.announce(Change::Policies);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (_, dispatch) = scene.engine.dispatch(&name(APPLICATION), Way::File).await.unwrap();
        assert!(dispatch.places[0].unasked_since.is_some(), "{round}");
        scene.engine.set_policies(policies(&with_delivery(FILE, ""))).await;
        post.until(|| standing(&scene.engine).state == DeliveryState::Delivered).await;
        let (_, dispatch) = scene.engine.dispatch(&name(APPLICATION), Way::File).await.unwrap();
        assert_eq!(dispatch.places[0].unasked_since, None, "asked for again, its time is over");
    }
    assert!(post.courier.withdrawn().is_empty());
    post.end().await;
}

#[tokio::test]
async fn what_was_dropped_while_nobody_ran_is_taken_away_by_who_starts_next() {
    let (scene, post) = hasty_delivered().await;
    let courier = Arc::clone(&post.courier);
    post.end().await;
    let scene = scene.restart().await;
    // A folder of documents that isn't there is no wish.
    let nothing = Policies { applications: BTreeMap::new(), credentials: BTreeMap::new(), ..policies(&hasty(DOCUMENTS)) };
    scene.engine.set_policies(nothing).await;
    let post = Post::start(&scene.engine, Arc::clone(&courier));
    for _ in 0..150 {
        post.hub.announce(Change::Policies);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(courier.withdrawn().is_empty());
    left(&scene, &post, CourierError::Unavailable("the disk is away"), "").await;
    let left = standing(&scene.engine);
    assert_eq!((left.state, left.reason.as_deref()), (DeliveryState::Left, Some("the disk is away")));
    // Whatever documents are read again meanwhile, it is still so.
    ask_for(&scene, "").await;
    assert_eq!(standing(&scene.engine).since, left.since);
    courier.refuse_withdrawal(None);
    post.until(|| courier.withdrawn() == [folder("/run/app")]).await;
    post.until_nothing_is_remembered(&scene.engine).await;
    post.until(|| status(&scene.engine).deliveries.is_empty()).await;
    post.end().await;
}

#[tokio::test]
async fn who_does_not_lead_any_more_says_nothing_of_what_is_left() {
    let (scene, post) = hasty_delivered().await;
    left(&scene, &post, CourierError::Unavailable("the disk is away"), "").await;
    post.leads.send(false).unwrap();
    post.until(|| status(&scene.engine).deliveries.is_empty()).await;
    post.leads.send(true).unwrap();
    post.until(|| codes(&scene.engine).contains(&"delivery-left".to_owned())).await;
    post.end().await;
}

#[tokio::test]
async fn what_goes_elsewhere_by_now_is_there_before_the_former_place_is_emptied() {
    let (scene, post) = hasty_delivered().await;
    left(&scene, &post, CourierError::Refused("the folder isn't ours"), "file: {directory: /run/moved}").await;
    // It doesn't keep what is new from going out.
    scene.rotate().await;
    let second = current(&scene.engine);
    post.until(|| post.has(&second)).await;
    assert_eq!(places(&scene.engine).await, [folder("/run/app"), folder("/run/moved")]);
    post.courier.refuse_withdrawal(None);
    post.until(|| standing(&scene.engine).state == DeliveryState::Delivered).await;
    assert_eq!(post.courier.withdrawn(), [folder("/run/app")]);
    assert_eq!(places(&scene.engine).await, [folder("/run/moved")]);
    post.end().await;
}

#[tokio::test]
async fn a_place_that_cannot_be_reached_is_not_remembered_and_a_better_one_is_taken_at_once() {
    let (scene, post) = hasty_delivered().await;
    post.courier.hide_places(Some(CourierError::Refused("a link is on the way")));
    ask_for(&scene, "file: {directory: /run/wrong}").await;
    post.until(|| standing(&scene.engine).state == DeliveryState::Failing).await;
    assert_eq!(places(&scene.engine).await, [folder("/run/app")]);
    post.courier.hide_places(None);
    ask_for(&scene, "file: {directory: /run/right}").await;
    post.until(|| post.courier.withdrawn() == [folder("/run/app")]).await;
    post.until(|| standing(&scene.engine).state == DeliveryState::Delivered).await;
    assert_eq!(places(&scene.engine).await, [folder("/run/right")]);
    post.end().await;
}

#[tokio::test]
async fn a_folder_that_another_application_has_by_now_is_not_emptied() {
    let (scene, post) = hasty_delivered().await;
    let asking = policies(&hasty(&with_delivery(FILE, ""))).applications[&name(APPLICATION)].clone();
    let mut given = policies(&hasty(DOCUMENTS));
    let other = name("another-application");
    given.applications.insert(other.clone(), Arc::new(Application { name: other.clone(), ..(*asking).clone() }));
    scene.engine.set_policies(given).await;
    for _ in 0..1_200 {
        post.hub.announce(Change::Policies);
        if places(&scene.engine).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(places(&scene.engine).await, []);
    let theirs = scene.engine.dispatch(&other, Way::File).await.unwrap().1;
    assert!(theirs.has(&folder("/run/app")) && post.courier.withdrawn().is_empty(), "{theirs:?}");
    post.end().await;
}

/// Its documents may be read file by file: what another application had a moment ago isn't emptied for one that had it before.
#[tokio::test]
async fn a_folder_that_another_application_had_until_now_is_not_emptied_yet() {
    let (scene, post) = hasty_delivered().await;
    post.end().await;
    let (application, other, way) = (name(APPLICATION), name("another-application"), Way::File);
    let unasked = |dispatch: &Dispatch, second: i64| dispatch.with_unasked(None, None, at(second)).unwrap();
    let (term, mine) = scene.engine.dispatch(&application, way).await.unwrap();
    let mine = unasked(&mine, 0);
    scene.engine.keep_dispatch(&application, way, term, mine.clone()).await.unwrap();
    ask_for(&scene, "").await;
    let fate = |second: i64| scene.engine.fate_of(&application, way, &mine.places[0], at(second));
    assert_eq!(fate(100), Fate::IsEmptied { at_last: false });
    scene.engine.dispatch(&other, way).await.unwrap();
    let theirs = Dispatch::default().with_place(&folder("/run/app")).unwrap();
    scene.engine.keep_dispatch(&other, way, term, theirs.clone()).await.unwrap();
    assert_eq!(fate(100), Fate::Stays, "it is asked for, as far as is known");
    scene.engine.keep_dispatch(&other, way, term, unasked(&theirs, 100)).await.unwrap();
    assert_eq!((fate(100), fate(102)), (Fate::Stays, Fate::IsEmptied { at_last: false }));
}

/// A folder on another replica's machine waits for that one, and nobody is busy with it meanwhile.
#[tokio::test]
async fn what_is_out_of_reach_stays_on_record_with_one_task_at_rest() {
    let scene = Scene::new(DOCUMENTS).await;
    let (application, way) = (name(APPLICATION), Way::File);
    let (term, none) = scene.engine.dispatch(&application, way).await.unwrap();
    let place = Place::Folder { on: Some(name("keywright-9")), directory: "/run/app".into(), mode: 0o400, owner: None, group: None };
    scene.engine.keep_dispatch(&application, way, term, none.with_place(&place).unwrap()).await.unwrap();
    let before = Arc::strong_count(&scene.engine);
    let post = Post::start(&scene.engine, Arc::new(MemoryCourier::new(way)));
    // The couriers, and one task of theirs.
    post.until(|| Arc::strong_count(&scene.engine) == before + 2).await;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(Arc::strong_count(&scene.engine), before + 2, "it came to an end");
    }
    assert!(post.courier.withdrawn().is_empty() && scene.engine.dispatch(&application, way).await.unwrap().1.has(&place));
    post.end().await;
}

/// What a write whose answer was lost came to, the journal knows.
#[tokio::test]
async fn what_is_in_doubt_is_read_again_and_nothing_of_another_term_is_written() {
    let (scene, post) = delivered(FILE, "", Way::File).await;
    post.end().await;
    let (application, way) = (name(APPLICATION), Way::File);
    let (term, known) = scene.engine.dispatch(&application, way).await.unwrap();
    let more = known.with_place(&folder("/run/more")).unwrap();
    scene.world.faults.arm(scene.world.faults.count(), When::After);
    assert!(scene.engine.keep_dispatch(&application, way, term, more.clone()).await.is_err());
    assert_eq!(scene.engine.dispatch(&application, way).await.unwrap(), (term, more.clone()), "it had its effect");
    for other in [term - 1, term + 1] {
        assert_eq!(scene.engine.keep_dispatch(&application, way, other, known.clone()).await, Err(JournalError::Deposed));
    }
    assert_eq!(scene.engine.dispatch(&application, way).await.unwrap(), (term, more));
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
