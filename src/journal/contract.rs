//! What every journal must do. An implementation's test is one call of [`contract`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failed unwrap here is a failed test of the journal"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::{Anchor, Changed, Cursor, Heartbeat, History, HoldingChange, Holdings, Journal, JournalError, Pause, Position, SealedCopy};
use crate::domain::credential::Environment;
use crate::domain::delivery::Way;
use crate::domain::dispatch::{Dispatch, Place, Placed};
use crate::domain::holders::Holding;
use crate::domain::ids::{InstallationId, Name, OperationId};
use crate::domain::launch::{Launch, SignOff};
use crate::domain::ledger::{Closure, Fingerprint, Ledger};
use crate::domain::outbox::{Outbox, Subject};
use crate::domain::rotation::{Event, Instant};
use crate::sealing::Sealed;

/// Runs the whole suite; each part on a journal of its own.
///
/// # Panics
/// Where the journal doesn't keep the contract.
pub async fn contract<J: Journal>(mut make: impl FnMut() -> J) {
    identity_and_terms_stay(&make()).await;
    events_come_back_in_their_order(&make()).await;
    an_append_is_compare_and_set(&make()).await;
    a_deposed_term_appends_nothing(&make()).await;
    the_sealed_copy_comes_and_goes_with_its_event(&make()).await;
    a_snapshot_replaces_what_was_before(&make()).await;
    one_of_many_appends_wins(&make()).await;
    credentials_turn_pages(&make()).await;
    holdings_are_kept(&make()).await;
    the_heartbeat_is_kept(&make()).await;
    the_pause_is_kept(&make()).await;
    launches_are_kept(&make()).await;
    dispatches_are_kept(&make()).await;
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Events of several shapes; the number tells them apart.
pub fn event(number: u64) -> Event {
    let operation = OperationId::new(InstallationId(Uuid::from_u128(7)), &name("dinie"), number, 1);
    let wall = Timestamp::from_second(1_700_000_000 + number.cast_signed()).unwrap();
    let fingerprint = |digit: &str| Fingerprint { field: "client_secret".parse().unwrap(), digest: digit.repeat(64) };
    match number % 5 {
        0 => Event::CreateIntended {
            attempt: 1,
            operation,
            version: operation.version(number),
            seen: BTreeSet::from(["key \"1\"".replace([' ', '"'], "_").parse().unwrap()]),
        },
        1 => Event::Issued {
            key_id: Some("ab:c/d%\"\\".parse().unwrap()),
            issued_at: wall,
            expires_at: None,
            old_ends_at: None,
            fingerprints: vec![fingerprint("a"), fingerprint("0")],
            copy_of: None,
        },
        2 => Event::Promoted { at: Instant { wall, running: Duration::from_nanos(number + 1) } },
        3 => Event::Revoked { at: wall, closure: Closure::Unproved },
        _ => Event::PossibleOrphan { operation, at: wall },
    }
}

fn snapshot(revision: u64) -> Event {
    Event::Snapshot { ledger: Box::new(Ledger { revision, ..Ledger::default() }) }
}

async fn append_all(journal: &impl Journal, credential: &Name, term: u64, count: u64) -> Position {
    let mut position = journal.load(credential).await.unwrap().position;
    for number in 0..count {
        position = journal.append(credential, position, term, &event(number), SealedCopy::Keep).await.unwrap();
    }
    position
}

async fn conflicts(journal: &impl Journal, credential: &Name, expected: Position, term: u64) {
    let before = journal.load(credential).await.unwrap();
    let conflict = JournalError::Conflict { credential: credential.clone() };
    let copy = SealedCopy::Put(Sealed(vec![9]));
    assert_eq!(journal.append(credential, expected, term, &event(1), copy).await, Err(conflict.clone()));
    assert_eq!(journal.compact(credential, expected, term, &snapshot(1)).await, Err(conflict));
    let after = journal.load(credential).await.unwrap();
    assert_eq!((after.position, after.events, after.sealed), (before.position, before.events, before.sealed));
}

async fn identity_and_terms_stay(journal: &impl Journal) {
    let first = journal.installation().await.unwrap();
    assert_eq!(journal.installation().await.unwrap(), first);
    let terms = [journal.begin_term().await.unwrap(), journal.begin_term().await.unwrap(), journal.begin_term().await.unwrap()];
    assert!(terms[0] > 0 && terms[0] < terms[1] && terms[1] < terms[2], "{terms:?}");
}

async fn events_come_back_in_their_order(journal: &impl Journal) {
    let dinie = name("dinie");
    let empty = journal.load(&dinie).await.unwrap();
    assert_eq!((empty.position, empty.events.len(), empty.sealed), (Position::default(), 0, None));
    let term = journal.begin_term().await.unwrap();
    let position = append_all(journal, &dinie, term, 12).await;
    assert_eq!(position, Position { term, revision: 12 });
    for _ in 0..2 {
        let History { position: loaded, events, .. } = journal.load(&dinie).await.unwrap();
        assert_eq!(loaded, position);
        assert_eq!(events, (0..12).map(event).collect::<Vec<_>>());
    }
    assert!(journal.load(&name("dinie-2")).await.unwrap().events.is_empty());
}

async fn an_append_is_compare_and_set(journal: &impl Journal) {
    let dinie = name("dinie");
    let term = journal.begin_term().await.unwrap();
    let position = append_all(journal, &dinie, term, 3).await;
    for revision in [0, 2, 4] {
        conflicts(journal, &dinie, Position { revision, ..position }, term).await;
    }
    conflicts(journal, &dinie, Position { term: term - 1, ..position }, term).await;
    conflicts(journal, &name("tap"), position, term).await;
    append_all(journal, &dinie, term, 1).await;
}

async fn a_deposed_term_appends_nothing(journal: &impl Journal) {
    let (dinie, tap) = (name("dinie"), name("tap"));
    let old = journal.begin_term().await.unwrap();
    let position = append_all(journal, &dinie, old, 2).await;
    let new = journal.begin_term().await.unwrap();
    conflicts(journal, &dinie, position, old).await;
    // Also where the new leader hasn't written yet.
    conflicts(journal, &tap, Position::default(), old).await;
    let position = journal.append(&dinie, position, new, &event(2), SealedCopy::Keep).await.unwrap();
    assert_eq!(position, Position { term: new, revision: 3 });
}

async fn the_sealed_copy_comes_and_goes_with_its_event(journal: &impl Journal) {
    let dinie = name("dinie");
    let term = journal.begin_term().await.unwrap();
    let copy = |byte: u8| Sealed(vec![byte; 100_000]);
    let mut position = append_all(journal, &dinie, term, 1).await;
    let steps = [
        (SealedCopy::Keep, None),
        (SealedCopy::Put(copy(1)), Some(copy(1))),
        (SealedCopy::Keep, Some(copy(1))),
        (SealedCopy::Put(copy(2)), Some(copy(2))),
        (SealedCopy::Erase, None),
        (SealedCopy::Erase, None),
    ];
    for (number, (change, kept)) in (1..).zip(steps) {
        position = journal.append(&dinie, position, term, &event(number), change).await.unwrap();
        assert_eq!(journal.load(&dinie).await.unwrap().sealed, kept);
    }
    position = journal.append(&dinie, position, term, &event(9), SealedCopy::Put(copy(3))).await.unwrap();
    journal.compact(&dinie, position, term, &snapshot(1)).await.unwrap();
    assert_eq!(journal.load(&dinie).await.unwrap().sealed, Some(copy(3)));
    assert_eq!(journal.load(&name("tap")).await.unwrap().sealed, None);
}

async fn a_snapshot_replaces_what_was_before(journal: &impl Journal) {
    let dinie = name("dinie");
    let term = journal.begin_term().await.unwrap();
    let mut position = append_all(journal, &dinie, term, 7).await;
    let others = append_all(journal, &name("dinie-2"), term, 3).await;
    for round in 0..3 {
        position = journal.compact(&dinie, position, term, &snapshot(round)).await.unwrap();
        position = journal.append(&dinie, position, term, &event(round), SealedCopy::Keep).await.unwrap();
        let history = journal.load(&dinie).await.unwrap();
        assert_eq!(history.events, [snapshot(round), event(round)]);
        assert_eq!(history.position, position);
    }
    assert_eq!(position.revision, 7 + 6);
    let neighbour = journal.load(&name("dinie-2")).await.unwrap();
    assert_eq!((neighbour.position, neighbour.events.len()), (others, 3));
}

async fn one_of_many_appends_wins(journal: &impl Journal) {
    let dinie = name("dinie");
    let term = journal.begin_term().await.unwrap();
    let position = append_all(journal, &dinie, term, 1).await;
    let rivals: Vec<Event> = (10..18).map(event).collect();
    let outcomes =
        futures_util::future::join_all(rivals.iter().map(|rival| journal.append(&dinie, position, term, rival, SealedCopy::Keep))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let winner = outcomes.iter().position(Result::is_ok).unwrap();
    assert_eq!(journal.load(&dinie).await.unwrap().events, [event(0), rivals[winner].clone()]);
}

async fn credentials_turn_pages(journal: &impl Journal) {
    assert!(journal.credentials(None, 10).await.unwrap().is_empty());
    let term = journal.begin_term().await.unwrap();
    let mut names = vec!["a", "a-1", "a1", "b", "z"];
    for each in &names {
        append_all(journal, &name(each), term, 2).await;
    }
    names.sort_unstable();
    for limit in [1, 2, 100] {
        let mut listed: Vec<Name> = Vec::new();
        loop {
            let page = journal.credentials(listed.last(), limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        assert_eq!(listed.iter().map(Name::as_str).collect::<Vec<_>>(), names);
    }
}

async fn holdings_are_kept(journal: &impl Journal) {
    assert_eq!(journal.holdings().await.unwrap(), Holdings::default());
    let deposed = journal.begin_term().await.unwrap();
    let term = journal.begin_term().await.unwrap();
    let holding = |application: &str, instance: &str, version: &str| {
        Holding::first(name(application), instance.parse().unwrap(), name("dinie"), version.parse().unwrap())
    };
    let long = "I".repeat(128);
    let [one, two, three] = [holding("app", "one", "v1"), holding("app", &long, "v1"), holding("app-2", "one", "v1")];
    let seen = |application: &str| HoldingChange::Seen { application: name(application), credential: name("dinie") };
    let puts = [&one, &two, &three].map(|each| HoldingChange::Put(each.clone()));
    journal.write_holdings(term, &puts).await.unwrap();
    journal.write_holdings(term, &[seen("app"), seen("app"), seen("app-2")]).await.unwrap();
    let mut served = one.clone();
    served.serve(&"v2".parse().unwrap());
    let remove = HoldingChange::Remove { application: name("app"), instance: long.parse().unwrap(), credential: name("dinie") };
    for _ in 0..2 {
        journal.write_holdings(term, &[HoldingChange::Put(served.clone()), remove.clone()]).await.unwrap();
    }
    journal.write_holdings(term, &[]).await.unwrap();
    // Whoever led before strikes nobody, and brings nobody back.
    let late = HoldingChange::Remove { application: name("app"), instance: "one".parse().unwrap(), credential: name("dinie") };
    for change in [late, HoldingChange::Put(two), HoldingChange::Put(one)] {
        let refused = Err(JournalError::Conflict { credential: name("dinie") });
        assert_eq!(journal.write_holdings(deposed, &[change]).await, refused);
    }
    let kept = journal.holdings().await.unwrap();
    assert_eq!(kept.holdings, [served, three]);
    assert_eq!(kept.seen, [(name("app"), name("dinie")), (name("app-2"), name("dinie"))]);
}

async fn the_heartbeat_is_kept(journal: &impl Journal) {
    assert_eq!(journal.heartbeat().await.unwrap(), Heartbeat::default());
    let deposed = journal.begin_term().await.unwrap();
    let term = journal.begin_term().await.unwrap();
    for second in [5, 9] {
        let audit = Some(Anchor { record: second, hash: "a0".repeat(32) });
        let wall = Timestamp::from_second(second.cast_signed()).ok();
        let beat = Heartbeat { running: Duration::new(second, 7), wall, doubted: wall, audit };
        journal.write_heartbeat(term, beat.clone()).await.unwrap();
        assert_eq!(journal.heartbeat().await.unwrap(), beat);
        let late = Heartbeat { running: Duration::from_secs(3_600), ..Heartbeat::default() };
        assert_eq!(journal.write_heartbeat(deposed, late).await, Err(JournalError::Deposed));
        assert_eq!(journal.heartbeat().await.unwrap(), beat);
    }
}

async fn launches_are_kept(journal: &impl Journal) {
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    let sign_off = SignOff { by: "Ana Souza".parse().unwrap(), reason: Some("OPS-7".to_owned()), at, digest: "d".to_owned() };
    let signed = Launch { sign_offs: [("pay.order-form".parse().unwrap(), sign_off)].into(), live: [(name("pay"), at)].into() };
    assert_eq!(journal.launches().await.unwrap(), []);
    let term = journal.begin_term().await.unwrap();
    let mut kept = Vec::new();
    for (application, launch) in [("a", &signed), ("z-9", &signed), ("b", &signed), ("b", &Launch::default())] {
        journal.write_launch(term, &name(application), launch).await.unwrap();
        kept.retain(|(known, _)| *known != name(application));
        kept.push((name(application), launch.clone()));
        kept.sort_by(|(one, _), (other, _)| one.cmp(other));
        assert_eq!(journal.launches().await.unwrap(), kept);
    }
    let next = journal.begin_term().await.unwrap();
    let late = journal.write_launch(term, &name("a"), &Launch::default()).await;
    assert_eq!(late, Err(JournalError::Deposed));
    assert_eq!(journal.launches().await.unwrap(), kept);
    journal.write_launch(next, &name("a"), &Launch::default()).await.unwrap();
}

async fn dispatches_are_kept(journal: &impl Journal) {
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    let subject = |revision: u64| Subject {
        credential: name("dinie"),
        environment: Environment::Production,
        version: format!("v{revision}").parse().unwrap(),
        revision,
    };
    let outbox = |revision| Outbox::default().with_changes(InstallationId(Uuid::from_u128(7)), &name("a"), [subject(revision)], now);
    let messages = Dispatch { outbox: outbox(3).unwrap().with_first_tried(), ..Dispatch::default() };
    let dead = Dispatch { outbox: outbox(4).unwrap().with_first_dead(now, "nobody wants it"), ..Dispatch::default() };
    let folder = Place::Folder { on: Some(name("keywright-0")), directory: "/run/a b/ä".into(), mode: 0o440, owner: Some(7), group: None };
    let secret = Place::Secret { namespace: name("shop"), secret: "a.b".parse().unwrap() };
    let placed = |place, since| Placed { place, unasked_since: since, failing_since: since };
    let places = Dispatch { places: vec![placed(folder, None), placed(secret, Some(now))], ..Dispatch::default() };
    assert_eq!(journal.dispatches().await.unwrap(), []);
    let term = journal.begin_term().await.unwrap();
    let longest = "a".repeat(63);
    let mut kept: Vec<((Name, Way), Dispatch)> = Vec::new();
    let writings = [
        ("a", Way::Webhook, &messages),
        ("a-file", Way::File, &places),
        ("a", Way::File, &places),
        ("a", Way::Webhook, &dead),
        (&longest, Way::KubernetesSecret, &places),
        ("a", Way::File, &Dispatch::default()),
    ];
    for (application, way, dispatch) in writings {
        let of = (name(application), way);
        journal.write_dispatch(term, &of.0, way, dispatch).await.unwrap();
        kept.retain(|(known, _)| *known != of);
        kept.push((of, dispatch.clone()));
        kept.sort_by(|(one, _), (other, _)| one.cmp(other));
        assert_eq!(sorted(journal.dispatches().await.unwrap()), kept);
    }
    let next = journal.begin_term().await.unwrap();
    assert_eq!(journal.write_dispatch(term, &name("a"), Way::Webhook, &messages).await, Err(JournalError::Deposed));
    assert_eq!(sorted(journal.dispatches().await.unwrap()), kept);
    journal.write_dispatch(next, &name("a"), Way::Webhook, &messages).await.unwrap();
}

fn sorted(mut found: Vec<((Name, Way), Dispatch)>) -> Vec<((Name, Way), Dispatch)> {
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

async fn the_pause_is_kept(journal: &impl Journal) {
    assert_eq!(journal.pause().await.unwrap(), None);
    let deposed = journal.begin_term().await.unwrap();
    let term = journal.begin_term().await.unwrap();
    let pause = Some(Pause { since: Timestamp::from_second(1_700_000_000).unwrap() });
    for pause in [pause, pause, None, None, pause] {
        journal.write_pause(term, pause).await.unwrap();
        assert_eq!(journal.write_pause(deposed, None).await, Err(JournalError::Deposed));
        assert_eq!(journal.pause().await.unwrap(), pause);
    }
}

/// What a journal must do that several processes share, on two handles of one journal, as two processes have them.
///
/// # Panics
/// Where the journal doesn't keep the contract.
pub async fn shared_contract<J: Journal>(mut make: impl FnMut() -> (J, J)) {
    let (leader, follower) = make();
    changes_are_told(&leader, &follower).await;
    let (leader, follower) = make();
    who_waits_is_woken(&leader, &follower).await;
}

/// Long enough for any change to arrive; none of these tests waits for its end.
const PATIENCE: Duration = Duration::from_secs(60);
const NO_PATIENCE: Duration = Duration::from_millis(20);

/// Follows until these were told, at least.
async fn told(follower: &impl Journal, mut cursor: Cursor, names: &[&str], settings: bool) -> Cursor {
    let mut awaited: BTreeSet<Name> = names.iter().map(|each| name(each)).collect();
    let mut settings = settings;
    while !awaited.is_empty() || settings {
        let changes = follower.changes(&cursor, PATIENCE).await.unwrap();
        assert!(!changes.is_none(), "{awaited:?} weren't told");
        cursor = changes.cursor;
        match changes.changed {
            Changed::Everything => return cursor,
            Changed::These { credentials, general } => {
                awaited.retain(|each| !credentials.contains(each));
                settings &= !general;
            }
        }
    }
    cursor
}

/// Follows until nothing more is told: a change may be told more than once.
async fn quiet(follower: &impl Journal, mut cursor: Cursor) -> Cursor {
    loop {
        let changes = follower.changes(&cursor, NO_PATIENCE).await.unwrap();
        if changes.is_none() {
            return changes.cursor;
        }
        cursor = changes.cursor;
    }
}

async fn changes_are_told(leader: &impl Journal, follower: &impl Journal) {
    let term = leader.begin_term().await.unwrap();
    append_all(leader, &name("before"), term, 1).await;
    let first = follower.changes(&Cursor::default(), PATIENCE).await.unwrap();
    assert_eq!(first.changed, Changed::Everything);
    let cursor = quiet(follower, first.cursor).await;
    append_all(leader, &name("dinie"), term, 2).await;
    append_all(leader, &name("tap"), term, 1).await;
    let after = told(follower, cursor.clone(), &["dinie", "tap"], false).await;
    assert_eq!(follower.load(&name("dinie")).await.unwrap().position, Position { term, revision: 2 });
    let after = quiet(follower, after).await;
    // Neither the heartbeat nor who holds what wakes anybody.
    leader.write_heartbeat(term, Heartbeat { running: Duration::from_secs(5), ..Heartbeat::default() }).await.unwrap();
    assert!(follower.changes(&after, NO_PATIENCE).await.unwrap().is_none());
    let position = leader.load(&name("dinie")).await.unwrap().position;
    leader.compact(&name("dinie"), position, term, &snapshot(1)).await.unwrap();
    let after = told(follower, after, &["dinie"], false).await;
    let pause = Some(Pause { since: Timestamp::from_second(1_700_000_000).unwrap() });
    leader.write_pause(term, pause).await.unwrap();
    let after = told(follower, after, &[], true).await;
    assert_eq!(follower.pause().await.unwrap(), pause);
    leader.write_launch(term, &name("pay"), &Launch::default()).await.unwrap();
    told(follower, after, &[], true).await;
    // An older cursor tells at least what came since.
    told(follower, cursor, &["dinie", "tap"], true).await;
}

async fn who_waits_is_woken(leader: &impl Journal, follower: &impl Journal) {
    let term = leader.begin_term().await.unwrap();
    let cursor = quiet(follower, follower.changes(&Cursor::default(), PATIENCE).await.unwrap().cursor).await;
    let waits = told(follower, cursor, &["dinie"], false);
    let writes = async {
        tokio::time::sleep(NO_PATIENCE).await;
        append_all(leader, &name("dinie"), term, 1).await;
    };
    futures_util::future::join(waits, writes).await;
}
