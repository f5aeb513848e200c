//! The journal as ConfigMaps: the contract, also while answers are lost and calls refused; damage; pages; what followers are told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keywright::domain::ids::Name;
use keywright::domain::rotation::Event;
use keywright::journal::contract::{contract, event, shared_contract};
use keywright::journal::kubernetes::{KubernetesJournal, KubernetesSettings};
use keywright::journal::{Anchor, Changed, Cursor, Heartbeat, Journal, JournalError, Pause, Position, SealedCopy};
use keywright::sealing::{Keyring, Sealed};
use serde_json::json;

use crate::fake::{Call, Fault, Gate};
use crate::world::World;

#[path = "journal/fights.rs"]
mod fights;

/// Replicas of one installation: they share key, namespace and lease.
pub(crate) struct Installation {
    pub(crate) world: Arc<World>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) lease: Name,
}

impl Installation {
    pub(crate) fn new(world: &Arc<World>) -> Installation {
        let lease = format!("kw-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        Installation { world: Arc::clone(world), keyring: Arc::new(Keyring::ephemeral().unwrap()), lease: name(&lease) }
    }

    pub(crate) fn replica(&self, replica: &str) -> KubernetesJournal {
        let settings = KubernetesSettings { namespace: Some(name(&self.world.namespace)), lease: self.lease.clone() };
        KubernetesJournal::new(self.world.cluster.clone(), &settings, Arc::clone(&self.keyring), name(replica))
    }

    fn object(&self, rest: &str) -> String {
        format!("{}-{rest}", self.lease)
    }

    pub(crate) fn edit(&self, rest: &str, edit: impl FnOnce(&mut serde_json::Value)) {
        assert!(self.world.fake().edit("configmaps", &self.world.namespace, &self.object(rest), edit), "{rest}");
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn worlds() -> Vec<Arc<World>> {
    World::all().await.into_iter().map(Arc::new).collect()
}

async fn on_fake() -> Installation {
    Installation::new(&Arc::new(World::on_fake().await))
}

/// Nothing is open afterwards.
pub(crate) const QUIET: Event = Event::Paused { at: None };

async fn append(journal: &KubernetesJournal, credential: &str, term: u64, event: &Event) -> Result<Position, JournalError> {
    let position = journal.load(&name(credential)).await?.position;
    journal.append(&name(credential), position, term, event, SealedCopy::Keep).await
}

#[tokio::test]
async fn kubernetes_keeps_the_contract() {
    for world in worlds().await {
        contract(|| Installation::new(&world).replica("a")).await;
    }
}

#[tokio::test]
async fn kubernetes_is_shared_by_contract() {
    for world in worlds().await {
        shared_contract(|| {
            let installation = Installation::new(&world);
            (installation.replica("a"), installation.replica("b"))
        })
        .await;
    }
}

#[tokio::test]
async fn the_contract_holds_while_the_answer_to_each_write_is_lost() {
    let world = Arc::new(World::on_fake().await);
    world.fake().plan(|call| (call.writes() && call.resource == "configmaps").then_some(Fault::LosesReplyAfterEffect));
    contract(|| Installation::new(&world).replica("a")).await;
}

#[tokio::test]
async fn the_contract_holds_while_calls_are_refused_first() {
    let faults = [Fault::RefusesBefore, Fault::Answers(429, Some(0)), Fault::Answers(503, None), Fault::Answers(500, None)];
    for fault in faults {
        let world = Arc::new(World::on_fake().await);
        let (mut count, mut refused) = (0, BTreeSet::new());
        world.fake().plan(move |call| {
            // One in four, and never the same twice in a row.
            count += 1;
            let key = (call.verb.clone(), call.name.clone());
            let is_second = refused.remove(&key);
            let is_refused = call.resource == "configmaps" && count % 4 == 0 && !is_second && refused.insert(key);
            is_refused.then(|| fault.clone())
        });
        contract(|| Installation::new(&world).replica("a")).await;
    }
}

#[tokio::test]
async fn each_way_of_failing_is_told_and_changes_nothing() {
    let installation = on_fake().await;
    let journal = installation.replica("a");
    let term = journal.begin_term().await.unwrap();
    append(&journal, "dinie", term, &QUIET).await.unwrap();
    let position = journal.load(&name("dinie")).await.unwrap().position;
    for code in [401, 403, 404, 413, 422] {
        installation.world.fake().plan(move |call: &Call| call.writes().then_some(Fault::Answers(code, None)));
        let outcome = journal.append(&name("tap"), Position::default(), term, &QUIET, SealedCopy::Keep).await;
        assert!(matches!(outcome, Err(JournalError::Unavailable(_))), "{code}: {outcome:?}");
        installation.world.fake().nothing_goes_wrong();
        assert_eq!(journal.load(&name("tap")).await.unwrap().position, Position::default());
    }
    // Nothing of that is kept in mind.
    journal.append(&name("dinie"), position, term, &QUIET, SealedCopy::Keep).await.unwrap();
}

#[tokio::test]
async fn a_write_waits_for_the_api_to_come_back() {
    let installation = on_fake().await;
    let journal = installation.replica("a");
    let term = journal.begin_term().await.unwrap();
    installation.world.fake().stop();
    let write = append(&journal, "dinie", term, &QUIET);
    let back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        installation.world.fake().resume().await;
    };
    let (position, ()) = futures_util::future::join(write, back).await;
    assert_eq!(position.unwrap(), Position { term, revision: 1 });
}

#[tokio::test]
async fn a_term_is_above_the_leases_transitions() {
    for world in worlds().await {
        let installation = Installation::new(&world);
        let leases: kube::Api<k8s_openapi::api::coordination::v1::Lease> = kube::Api::namespaced(world.cluster.client(), &world.namespace);
        let lease = json!({"metadata": {"name": installation.lease.as_str()}, "spec": {"leaseTransitions": 41}});
        leases.create(&kube::api::PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
        let (one, other) = (installation.replica("a"), installation.replica("b"));
        assert_eq!(one.begin_term().await.unwrap(), 42);
        assert_eq!(other.begin_term().await.unwrap(), 43);
        assert_eq!(one.begin_term().await.unwrap(), 44);
    }
}

#[tokio::test]
async fn who_leads_acts_on_nothing_that_a_write_under_way_could_change() {
    let installation = on_fake().await;
    let (old, new) = (installation.replica("a"), installation.replica("b"));
    let first = old.begin_term().await.unwrap();
    // A rotation is open, as far as anybody can tell.
    append(&old, "dinie", first, &event(0)).await.unwrap();
    let stalled = stalled_append(&installation, &old, first, event(1));
    let overtaken = async {
        let second = new.begin_term().await.unwrap();
        let loaded = new.load(&name("dinie")).await.unwrap();
        assert_eq!(loaded.events, [event(0)]);
        (second, loaded)
    };
    let (outcome, (second, loaded)) = stalled.run_while(overtaken).await;
    assert!(outcome.is_err(), "{outcome:?}");
    let now = new.load(&name("dinie")).await.unwrap();
    assert_eq!((now.position, now.events), (loaded.position, vec![event(0)]), "claimed: the write found another version");
    let position = new.append(&name("dinie"), loaded.position, second, &event(2), SealedCopy::Keep).await.unwrap();
    assert_eq!(position, Position { term: second, revision: 2 });
}

#[tokio::test]
async fn what_a_deposed_leader_leaves_where_nothing_was_open_is_acted_on_by_nobody() {
    let installation = on_fake().await;
    let (old, new) = (installation.replica("a"), installation.replica("b"));
    let first = old.begin_term().await.unwrap();
    append(&old, "dinie", first, &QUIET).await.unwrap();
    let stalled = stalled_append(&installation, &old, first, event(0));
    let overtaken = async {
        let second = new.begin_term().await.unwrap();
        (second, new.load(&name("dinie")).await.unwrap())
    };
    let (outcome, (second, loaded)) = stalled.run_while(overtaken).await;
    // It stands there, and its writer doesn't hear that it does: not from the append, and not by reading it back.
    assert!(matches!(outcome, Err(JournalError::Unavailable(_))), "{outcome:?}");
    let conflict = JournalError::Conflict { credential: name("dinie") };
    assert_eq!(old.load(&name("dinie")).await.map(|history| history.position), Err(conflict.clone()));
    // The new leader's first append finds it, and nothing was done before that.
    let append = new.append(&name("dinie"), loaded.position, second, &event(1), SealedCopy::Keep).await;
    assert_eq!(append, Err(conflict));
    let found = new.load(&name("dinie")).await.unwrap();
    assert_eq!(found.events, [QUIET, event(0)]);
    new.append(&name("dinie"), found.position, second, &event(1), SealedCopy::Keep).await.unwrap();
    // Who was deposed follows from here on, and sees what is.
    assert_eq!(old.load(&name("dinie")).await.unwrap().events, [QUIET, event(0), event(1)]);
}

/// An append whose write waits at the API.
struct Stalled<'a> {
    gate: Gate,
    reached: Arc<AtomicUsize>,
    append: std::pin::Pin<Box<dyn Future<Output = Result<Position, JournalError>> + 'a>>,
}

fn stalled_append<'a>(installation: &Installation, journal: &'a KubernetesJournal, term: u64, event: Event) -> Stalled<'a> {
    let (gate, reached, object) = (Gate::new(), Arc::new(AtomicUsize::new(0)), installation.object("journal-dinie"));
    let (closed, count) = (gate.clone(), Arc::clone(&reached));
    installation.world.fake().plan(move |call| {
        let is_first = call.is("update", "configmaps") && call.name == object && count.fetch_add(1, Ordering::SeqCst) == 0;
        is_first.then(|| Fault::Stalls(closed.clone()))
    });
    Stalled { gate, reached, append: Box::pin(async move { append(journal, "dinie", term, &event).await }) }
}

impl Stalled<'_> {
    /// What the append says that is held up until `meanwhile` is done.
    async fn run_while<T>(self, meanwhile: impl Future<Output = T>) -> (Result<Position, JournalError>, T) {
        let done = async {
            while self.reached.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let done = meanwhile.await;
            self.gate.open();
            done
        };
        futures_util::future::join(self.append, done).await
    }
}

#[tokio::test]
async fn each_replica_finds_the_anchor_of_its_own_trail() {
    let installation = on_fake().await;
    let (one, other) = (installation.replica("a"), installation.replica("b"));
    let beat = |second: u64, record: Option<u64>| Heartbeat {
        running: Duration::from_secs(second),
        audit: record.map(|record| Anchor { record, hash: "a0".repeat(32) }),
        ..Heartbeat::default()
    };
    let term = one.begin_term().await.unwrap();
    one.write_heartbeat(term, beat(5, Some(7))).await.unwrap();
    assert_eq!(other.heartbeat().await.unwrap(), beat(5, None));
    let term = other.begin_term().await.unwrap();
    other.write_heartbeat(term, beat(6, Some(3))).await.unwrap();
    assert_eq!(one.heartbeat().await.unwrap(), beat(6, Some(7)));
    assert_eq!(other.heartbeat().await.unwrap(), beat(6, Some(3)));
    assert_eq!(one.write_heartbeat(term - 1, beat(9, None)).await, Err(JournalError::Deposed));
}

#[tokio::test]
async fn what_others_alter_is_damaged_and_nothing_else_is() {
    let installation = on_fake().await;
    let journal = installation.replica("a");
    let term = journal.begin_term().await.unwrap();
    let sealed = SealedCopy::Put(Sealed(vec![1, 2, 3]));
    for credential in ["a", "b", "c", "d"] {
        append(&journal, credential, term, &QUIET).await.unwrap();
    }
    journal.append(&name("d"), Position { term, revision: 1 }, term, &QUIET, sealed).await.unwrap();
    installation.edit("journal-a", |object| object["data"]["events"] = json!(""));
    let b = installation.world.fake().object("configmaps", &installation.world.namespace, &installation.object("journal-b")).unwrap();
    installation.edit("journal-c", |object| object["data"] = b["data"].clone());
    installation.edit("journal-d", |object| object["data"]["copy"] = json!("AAAA"));
    for credential in ["a", "c", "d"] {
        let loaded = journal.load(&name(credential)).await;
        assert!(matches!(loaded, Err(JournalError::Damaged(_))), "{credential}: {loaded:?}");
        let position = Position { term, revision: 1 };
        let appended = journal.append(&name(credential), position, term, &QUIET, SealedCopy::Keep).await;
        assert!(matches!(appended, Err(JournalError::Damaged(_))), "{credential}: {appended:?}");
    }
    append(&journal, "b", term, &QUIET).await.unwrap();
    // Labels and annotations of others are theirs.
    installation.edit("journal-b", |object| object["metadata"]["annotations"] = json!({"team": "x"}));
    append(&journal, "b", term, &QUIET).await.unwrap();
    installation.edit("journal", |object| object["data"]["state"] = json!("{\"term\":1}"));
    assert!(matches!(journal.begin_term().await, Err(JournalError::Damaged(_))));
    assert!(matches!(append(&journal, "b", term, &QUIET).await, Err(JournalError::Damaged(_))));
}

#[tokio::test]
async fn a_head_that_is_gone_is_damage_and_never_made_anew() {
    let installation = on_fake().await;
    let journal = installation.replica("a");
    let term = journal.begin_term().await.unwrap();
    append(&journal, "dinie", term, &QUIET).await.unwrap();
    assert!(installation.world.fake().delete("configmaps", &installation.world.namespace, &installation.object("journal")));
    let late = installation.replica("b");
    assert_eq!(late.begin_term().await, Err(JournalError::Damaged("its head is missing")));
    assert_eq!(late.installation().await, Err(JournalError::Damaged("its head is missing")));
    assert_eq!(append(&journal, "dinie", term, &QUIET).await, Err(JournalError::Damaged("its head is missing")));
}

#[tokio::test]
async fn a_take_over_of_many_is_a_few_pages_that_may_expire() {
    const MANY: usize = 1_100;
    let installation = on_fake().await;
    let journal = installation.replica("a");
    let term = journal.begin_term().await.unwrap();
    let names: Vec<Name> = (0..MANY).map(|number| name(&format!("credential-{number:05}"))).collect();
    for some in names.chunks(50) {
        let appends = some.iter().map(|each| journal.append(each, Position::default(), term, &QUIET, SealedCopy::Keep));
        futures_util::future::try_join_all(appends).await.unwrap();
    }
    let fake = installation.world.fake();
    let later = installation.replica("b");
    later.begin_term().await.unwrap();
    fake.forget_calls();
    let mut pages = 0;
    fake.plan(move |call| {
        pages += u32::from(call.is("list", "configmaps"));
        (call.verb == "list" && pages == 2).then_some(Fault::Answers(410, None))
    });
    let mut found: Vec<Name> = Vec::new();
    loop {
        let page = later.credentials(found.last(), 1_000).await.unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!(found, names);
    let histories = later.load_each(&found).await.unwrap();
    assert!(histories.iter().all(|history| history.position == Position { term, revision: 1 } && history.events == [QUIET]));
    let calls: Vec<String> = fake.calls().iter().map(|(call, code)| format!("{} {code}", call.verb)).collect();
    assert_eq!(calls, ["list 200", "list 410", "list 200", "list 200", "list 200"], "nothing is read one by one");
    // Who asks again gets what is there now.
    append(&journal, "credential-00007", later.begin_term().await.unwrap(), &QUIET).await.unwrap();
    assert_eq!(later.load_each(&names[7..8]).await.unwrap()[0].position.revision, 2);
}

#[tokio::test]
async fn who_follows_goes_on_after_bookmarks_and_starts_anew_when_history_is_forgotten() {
    let installation = on_fake().await;
    let (leader, follower) = (installation.replica("a"), installation.replica("b"));
    let fake = Arc::clone(installation.world.fake());
    let term = leader.begin_term().await.unwrap();
    let cursor = follower.changes(&Cursor::default(), Duration::from_secs(60)).await.unwrap().cursor;
    append(&leader, "dinie", term, &QUIET).await.unwrap();
    fake.compact();
    let told = follower.changes(&cursor, Duration::from_secs(60)).await.unwrap();
    assert_eq!(told.changed, Changed::Everything);
    // Others' objects move the version on, and a bookmark tells of it.
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}, "data": {"a": "b"}});
    fake.put("configmaps", &installation.world.namespace, object);
    let bookmarks = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        fake.bookmark();
    };
    let follow = follower.changes(&told.cursor, Duration::from_millis(1_500));
    let (quiet, ()) = futures_util::future::join(follow, bookmarks).await;
    let quiet = quiet.unwrap();
    assert!(quiet.is_none(), "{quiet:?}");
    assert_ne!(quiet.cursor, told.cursor);
    fake.compact();
    leader.write_pause(term, Some(Pause { since: jiff::Timestamp::UNIX_EPOCH })).await.unwrap();
    let told = follower.changes(&quiet.cursor, Duration::from_secs(60)).await.unwrap();
    assert_eq!(told.changed, Changed::These { credentials: [].into(), general: true }, "the bookmark's place was still known");
}

#[tokio::test]
async fn a_watch_that_ends_is_begun_again_where_it_was() {
    let installation = on_fake().await;
    let (leader, follower) = (installation.replica("a"), installation.replica("b"));
    let fake = Arc::clone(installation.world.fake());
    let term = leader.begin_term().await.unwrap();
    let cursor = follower.changes(&Cursor::default(), Duration::from_secs(60)).await.unwrap().cursor;
    let follow = follower.changes(&cursor, Duration::from_secs(60));
    let life = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            fake.end_watches();
        }
        append(&leader, "dinie", term, &QUIET).await.unwrap();
    };
    let (told, ()) = futures_util::future::join(follow, life).await;
    assert_eq!(told.unwrap().changed, Changed::These { credentials: [name("dinie")].into(), general: false });
}

#[tokio::test]
async fn two_installations_share_a_namespace() {
    let world = Arc::new(World::on_fake().await);
    let (one, other) = (Installation::new(&world), Installation::new(&world));
    let (first, second) = (one.replica("a"), other.replica("a"));
    let term = first.begin_term().await.unwrap();
    append(&first, "dinie", term, &QUIET).await.unwrap();
    assert!(second.credentials(None, 10).await.unwrap().is_empty());
    assert_eq!(second.load(&name("dinie")).await.unwrap().position, Position::default());
    assert_ne!(first.installation().await.unwrap(), second.installation().await.unwrap());
}
