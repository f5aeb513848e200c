//! Several engines on one journal: who leads rotates, all of them serve, and nobody's key dies because another replica handed it out.

use std::sync::atomic::Ordering;

use keywright::domain::replicas::{PAGES, Report};
use keywright::engine::Reader;
use keywright::engine::errors::{ReadError, ReportError};
use keywright::faults::When;
use keywright::replicas::{Rows, rows_of};

use super::trio::{Process, Trio};
use super::*;

fn holders(engine: &Engine) -> Vec<String> {
    let rows = row(engine).applications.into_iter().filter_map(|row| Some(format!("{}:{:?}", row.instance?, row.state?)));
    rows.collect()
}

#[tokio::test]
async fn who_follows_serves_what_the_leader_promoted_with_the_same_revision_and_tells_its_streams() {
    let trio = Trio::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(trio.engine(1)).await);
    assert_eq!(app.held.as_ref().unwrap().0, current(trio.engine(0)));
    trio.processes.iter().for_each(|process| drop(process.pushes.taken()));
    let second = trio.rotate(0).await;
    for process in &trio.processes {
        assert_eq!(process.engine.current(&name(CREDENTIAL)), trio.engine(0).current(&name(CREDENTIAL)));
        assert!(!process.pushes.taken().is_empty(), "its streams were woken");
    }
    assert!(app.fetch(trio.engine(2)).await);
    assert_eq!(app.held.as_ref().unwrap().0, second);
    // Each disclosure is in the chain of the replica that made it.
    let disclosed = |process: &Process| process.audit.records().iter().filter(|(_, action)| action.action == "disclosed").count();
    assert_eq!(trio.processes.iter().map(disclosed).collect::<Vec<_>>(), [0, 1, 1]);
    assert!(trio.engine(0).leads() && !trio.engine(1).leads());
}

#[tokio::test]
async fn of_many_who_are_served_at_once_each_page_is_written_once_and_says_all_of_them() {
    let trio = Trio::usual().await;
    let apps: Vec<App> = (0..300).map(|number| App::new(APPLICATION, &format!("pod-{number}"))).collect();
    let readers: Vec<Reader> = apps.iter().map(App::reader).collect();
    let follower = &trio.processes[1];
    let points = follower.faults.count();
    let read = readers.iter().map(|reader| follower.engine.read(reader, &apps[0].credential));
    assert!(futures_util::future::join_all(read).await.iter().all(Result::is_ok));
    let writes = follower.faults.trace()[points..].iter().filter(|point| **point == "rows.write").count();
    assert_eq!(writes, usize::from(PAGES));
    // Durable, as another replica reads it.
    let wanted = current(trio.engine(0));
    let left = trio.rows.all().await.unwrap();
    let rows = rows_of(&left);
    let row = rows.iter().find(|row| !row.presences.is_empty()).unwrap();
    assert_eq!(row.presences.len(), apps.len());
    assert!(row.presences.values().all(|presence| presence.holdings[&apps[0].credential].versions.contains_key(&wanted)));
    // Who comes later is written, too, also after somebody of the same page.
    let mut late = App::new(APPLICATION, "late");
    assert!(late.fetch(&follower.engine).await);
    assert_eq!(follower.faults.trace()[points..].iter().filter(|point| **point == "rows.write").count(), writes + 1);
}

#[tokio::test]
async fn an_instance_is_one_wherever_it_is_served_and_its_confirmation_counts_from_anywhere() {
    let trio = Trio::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(trio.engine(1)).await);
    let _stream = trio.engine(1).open_stream(&app.application, &app.instance);
    trio.rotate(0).await;
    trio.live(100).await;
    assert!(trio.first_lives(), "it is held by who was served elsewhere");
    assert_eq!(row(trio.engine(0)).reason.as_deref(), Some("held"));
    assert!(app.fetch(trio.engine(2)).await, "it comes to another replica");
    trio.live(10).await;
    assert!(trio.first_lives(), "it has the new one, and hasn't confirmed it");
    assert!(app.confirm(trio.engine(0)).await, "and confirms at a third one");
    for process in &trio.processes {
        // Who follows doesn't read the rows in each round.
        for _ in 0..4 {
            process.attend().await;
        }
        assert_eq!(holders(&process.engine), ["one:Confirmed"]);
    }
    trio.live(10).await;
    assert!(!trio.first_lives());
    assert_eq!(holders(trio.engine(1)), ["one:Confirmed"]);
}

#[tokio::test]
async fn a_replica_that_lags_hands_nothing_out_that_isnt_current_any_more() {
    let trio = Trio::usual().await;
    let before = current(trio.engine(1));
    trio.engine(0).rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    // The follower hears nothing of all this.
    for _ in 0..400 {
        trio.engine(0).turn().await;
        trio.world.clocks.advance(Duration::from_secs(1));
        if current(trio.engine(0)) != before {
            break;
        }
    }
    assert_eq!(current(trio.engine(1)), before);
    let mut app = App::new(APPLICATION, "late");
    assert!(app.fetch(trio.engine(1)).await);
    assert_eq!(app.held.as_ref().unwrap().0, current(trio.engine(0)), "looked up before it went out");
}

#[tokio::test]
async fn who_was_shown_more_elsewhere_gets_no_less_here() {
    let trio = Trio::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(trio.engine(1)).await);
    let before = current(trio.engine(1));
    trio.engine(0).rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    for _ in 0..400 {
        trio.engine(0).turn().await;
        trio.world.clocks.advance(Duration::from_secs(1));
        if current(trio.engine(0)) != before {
            break;
        }
    }
    let (version, revision) = trio.engine(0).current(&name(CREDENTIAL)).unwrap();
    assert_eq!(current(trio.engine(1)), before);
    trio.engine(1).has_been_shown(&name(CREDENTIAL), Some(revision), None).await;
    assert_eq!(trio.engine(1).current(&name(CREDENTIAL)), Some((version.clone(), revision)));
    trio.engine(2).has_been_shown(&name(CREDENTIAL), None, Some(&version)).await;
    assert_eq!(current(trio.engine(2)), version);
}

#[tokio::test]
async fn a_leader_that_wakes_after_its_successor_began_changes_nothing_and_follows() {
    let trio = Trio::usual().await;
    let keys = trio.world.ours_living();
    trio.processes[1].take_office().await;
    let late = trio.engine(0).rotate(operator(), &name(CREDENTIAL)).await;
    assert!(late.is_err(), "its append fails");
    trio.engine(0).turn().await;
    assert_eq!(trio.world.ours_living(), keys);
    trio.engine(0).leave_office();
    assert!(!trio.engine(0).leads());
    let second = trio.rotate(1).await;
    assert_eq!(current(trio.engine(0)), second);
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(trio.engine(0)).await);
    assert_eq!(app.held.unwrap().0, second);
    trio.live(300).await;
    assert_eq!(trio.world.ours_living().len(), 1 + usize::from(trio.first_lives()));
}

#[tokio::test]
async fn without_its_mandate_it_takes_no_step() {
    let trio = Trio::usual().await;
    trio.engine(0).rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    trio.processes[0].word.0.store(true, Ordering::SeqCst);
    let keys = trio.world.ours_living();
    trio.live(200).await;
    assert_eq!(trio.world.ours_living(), keys, "it doesn't even begin to make a key");
    assert_eq!(row(trio.engine(0)).phase, "planned");
    trio.engine(0).leave_office();
    trio.processes[2].take_office().await;
    let before = current(trio.engine(2));
    trio.promoted(2, &before).await;
    assert_eq!(trio.world.ours_living().len(), 2);
}

/// One rotation with an application at each replica. The leader is cut off at a point of its own, before or after its effect, and a
/// successor takes over. Ends when the old key is dead; the application's keys work at each moment.
async fn a_leader_lost_at(point: usize, when: When, wakes: bool) -> bool {
    let trio = Trio::usual().await;
    let mut apps: Vec<App> = ["at-a", "at-b", "at-c"].into_iter().map(|called| App::new(APPLICATION, called)).collect();
    for (index, app) in apps.iter_mut().enumerate() {
        assert!(app.fetch(trio.engine(index)).await);
    }
    trio.engine(0).rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    let lost = &trio.processes[0];
    lost.faults.crash_at(lost.faults.count() + point, when);
    let mut leader = 0;
    for round in 0..300_u64 {
        trio.live(2).await;
        if leader == 0 && lost.faults.alive().is_err() {
            trio.processes[1].take_office().await;
            leader = 1;
            if wakes {
                // It wakes up as the leader that it believes to be, goes on with what it was at, and only then learns better.
                lost.faults.revive();
                lost.engine.turn().await;
                lost.engine.leave_office();
            }
        }
        for (index, app) in apps.iter_mut().enumerate() {
            let at = if lost.faults.alive().is_err() && index == 0 { 2 } else { index };
            // Keeps calling, as an application that lives.
            if !app.fetch(trio.engine(at)).await {
                continue;
            }
            assert!(
                trio.world.accepts(&app.held.as_ref().unwrap().1),
                "{} has a dead key, lost at {:?} {when:?}",
                app.instance,
                lost.faults.fired()
            );
            if round % 4 == 0 {
                app.confirm(trio.engine(at)).await;
            }
        }
        if !trio.first_lives() && row(trio.engine(leader)).phase == "steady" {
            break;
        }
    }
    let living = trio.world.ours_living();
    assert!(
        !trio.first_lives() && living.len() == 1,
        "one key, lost at {:?} {when:?}: {living:?} {:#?}",
        lost.faults.fired(),
        row(trio.engine(leader))
    );
    assert_eq!(row(trio.engine(leader)).generation, 2, "one rotation and no more, lost at {:?} {when:?}", lost.faults.fired());
    leader == 1
}

async fn lost_at_each_write(when: When, wakes: bool) {
    let mut points = 0;
    while a_leader_lost_at(points, when, wakes).await {
        points += 1;
    }
    assert!(points > 12, "a rotation has more writes than {points}");
}

#[tokio::test]
async fn a_leader_that_dies_before_any_of_its_writes_is_succeeded_without_harm() {
    lost_at_each_write(When::Before, false).await;
}

#[tokio::test]
async fn a_leader_that_dies_after_any_of_its_writes_is_succeeded_without_harm() {
    lost_at_each_write(When::After, false).await;
}

#[tokio::test]
async fn a_leader_stopped_before_any_of_its_writes_wakes_without_harm() {
    lost_at_each_write(When::Before, true).await;
}

#[tokio::test]
async fn a_leader_stopped_after_any_of_its_writes_wakes_without_harm() {
    lost_at_each_write(When::After, true).await;
}

#[tokio::test]
async fn who_was_served_by_a_replica_that_is_gone_counts_until_its_lease_is_over_and_the_row_goes_then() {
    let trio = Trio::new(&documents(&[("identity:", "lease: 40s\n  identity:")])).await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(trio.engine(2)).await);
    let stream = trio.engine(2).open_stream(&app.application, &app.instance);
    trio.live(3).await;
    trio.rotate(0).await;
    trio.processes[2].cut_off().await;
    trio.live(65).await;
    assert!(trio.first_lives(), "its lease began when its replica was taken for gone");
    trio.live(40).await;
    assert!(!trio.first_lives());
    trio.live(5).await;
    let left = trio.rows.all().await.unwrap();
    assert!(left.iter().all(|kept| kept.place.replica != name("c")), "{left:?}");
    // It comes back: whom it streams to stands in its row again.
    trio.processes[2].faults.revive();
    trio.live(5).await;
    assert_eq!(holders(trio.engine(0)), ["one:Holds"]);
    drop(stream);
}

#[tokio::test]
async fn a_replica_that_starts_anew_leaves_its_row_to_those_who_answer_for_it() {
    let mut trio = Trio::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(trio.engine(1)).await);
    trio.live(3).await;
    trio.processes[1].cut_off().await;
    trio.processes.remove(1);
    trio.join("d").await;
    let _stream = trio.engine(2).open_stream(&app.application, &app.instance);
    assert!(app.fetch(trio.engine(2)).await);
    trio.live(40).await;
    let left = trio.rows.all().await.unwrap();
    assert!(left.iter().all(|kept| kept.place.replica != name("b")), "the living row says the same: {left:?}");
    trio.rotate(0).await;
    trio.live(100).await;
    assert!(trio.first_lives());
    assert!(app.fetch(trio.engine(2)).await && app.confirm(trio.engine(2)).await);
    trio.live(10).await;
    assert!(!trio.first_lives());
}

#[tokio::test]
async fn a_release_reaches_the_rows_of_the_others() {
    let trio = Trio::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(trio.engine(2)).await);
    let _stream = trio.engine(2).open_stream(&app.application, &app.instance);
    trio.rotate(0).await;
    trio.live(100).await;
    assert!(trio.first_lives());
    trio.engine(0).release(operator(), &app.application, Some(&app.instance)).await.unwrap();
    assert_eq!(holders(trio.engine(0)), Vec::<String>::new(), "durable with the answer");
    trio.live(10).await;
    assert!(!trio.first_lives());
    assert_eq!(holders(trio.engine(2)), Vec::<String>::new());
    let unknown = trio.engine(0).release(operator(), &app.application, Some(&instance("nobody"))).await;
    assert!(unknown.is_err());
}

#[tokio::test]
async fn while_the_rows_are_away_known_readers_are_served_new_ones_wait_and_nothing_is_revoked() {
    let trio = Trio::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(trio.engine(1)).await);
    trio.rotate(0).await;
    assert!(app.fetch(trio.engine(1)).await && app.confirm(trio.engine(1)).await);
    trio.rows.set_away(true);
    trio.live(200).await;
    assert!(trio.first_lives(), "who else holds it can't be read");
    let known = trio.engine(1).read(&app.reader(), &app.credential).await.map(|document| (document.version, document.stale));
    assert_eq!(known, Ok((current(trio.engine(0)), false)));
    let mut new = App::new(APPLICATION, "two");
    let refused = trio.engine(1).read(&new.reader(), &new.credential).await.map(|_| ());
    assert_eq!(refused, Err(ReadError::StoreUnavailable));
    trio.rows.set_away(false);
    trio.live(30).await;
    assert!(!trio.first_lives());
    assert!(new.fetch(trio.engine(1)).await);
}

#[tokio::test]
async fn out_of_contact_it_says_so_and_then_serves_nothing_before_anything_can_have_died() {
    let trio = Trio::usual().await;
    let app = App::new(APPLICATION, "one");
    let read = async |engine: &Arc<Engine>| engine.read(&app.reader(), &app.credential).await.map(|document| document.stale);
    assert_eq!(read(trio.engine(1)).await, Ok(false));
    trio.processes[1].cut_off().await;
    trio.live(14).await;
    assert_eq!(read(trio.engine(1)).await, Ok(false));
    trio.live(4).await;
    assert_eq!(read(trio.engine(1)).await, Ok(true), "flagged");
    trio.live(13).await;
    assert_eq!(read(trio.engine(1)).await, Err(ReadError::StoreUnavailable), "half of the overlap is over");
    assert!(trio.engine(1).is_cut_off() && !trio.engine(0).is_cut_off());
    trio.processes[1].faults.revive();
    trio.live(2).await;
    assert_eq!(read(trio.engine(1)).await, Ok(false));
}

#[tokio::test]
async fn a_hundred_first_disclosures_at_once_cost_a_few_writes() {
    let trio = Trio::usual().await;
    let before = trio.processes[1].faults.count();
    let mut reading = tokio::task::JoinSet::new();
    for number in 0..200 {
        let engine = trio.engine(1).clone();
        reading.spawn(async move {
            let reader = Reader::Application { application: name(APPLICATION), instance: instance(&format!("pod-{number}")), pod: None };
            engine.read(&reader, &name(CREDENTIAL)).await.is_ok()
        });
    }
    while let Some(read) = reading.join_next().await {
        assert!(read.unwrap());
    }
    let writes = trio.processes[1].faults.count() - before;
    assert!(writes < 64, "{writes} writes");
    trio.attend().await;
    assert_eq!(holders(trio.engine(0)).len(), 200);
}

#[tokio::test]
async fn what_goes_live_at_a_follower_is_journaled_by_who_leads() {
    let trio = Trio::new(&documents(&[(
        "provider: dinie, environment: production",
        "requireGoLive: true, provider: dinie, environment: production",
    )]))
    .await;
    let mut app = App::new(APPLICATION, "one");
    assert!(!app.fetch(trio.engine(1)).await, "its list isn't passed");
    let launch = trio.engine(0).launch(&app.application).await.unwrap();
    for item in launch.items.iter().filter(|item| serde_json::to_value(item.state).unwrap() == "needs-person") {
        let signer = "somebody".parse().unwrap();
        trio.engine(0).confirm_item(operator(), &app.application, &item.id, &signer).await.unwrap();
    }
    trio.live(2).await;
    let ready = trio.engine(0).launch(&app.application).await.unwrap().ready;
    let fetched = app.fetch(trio.engine(1)).await;
    assert!(!fetched, "who leads hasn't let it out yet");
    trio.live(6).await;
    assert_eq!(app.fetch(trio.engine(1)).await, ready, "let out exactly if the list is passed");
}

#[tokio::test]
async fn what_is_reported_at_a_follower_takes_the_rollout_back() {
    let trio = Trio::new(&documents(&[("spread: 1s", "spread: 1s, rollout: [1, 50%, 100%]")])).await;
    let follower = trio.engine(1);
    let mut apps: Vec<App> = (0..4).map(|number| App::new(APPLICATION, &format!("pod-{number}"))).collect();
    for app in &mut apps {
        assert!(app.fetch(follower).await);
    }
    let _streams: Vec<_> = apps.iter().map(|app| follower.open_stream(&app.application, &app.instance)).collect();
    let old = current(trio.engine(0));
    trio.engine(0).rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    let chosen = |apps: &[App]| apps.iter().position(|app| follower.current_for(&app.reader(), &app.credential).unwrap().0 != old);
    for _ in 0..400 {
        trio.live(1).await;
        if chosen(&apps).is_some() {
            break;
        }
    }
    let first = chosen(&apps).expect("one instance gets the new version first");
    assert!(apps[first].fetch(follower).await);
    let new = apps[first].held.as_ref().unwrap().0.clone();
    let App { application, instance, credential, .. } = &apps[first];
    let failed =
        Report { application: application.clone(), instance: instance.clone(), credential: credential.clone(), version: new.clone() };
    let report = || follower.report_failed(&failed);

    trio.rows.set_away(true);
    assert_eq!(report().await, Err(ReportError::Unavailable), "nobody would hear of it");
    trio.rows.set_away(false);
    trio.live(2).await;
    assert_eq!(row(trio.engine(0)).rollout.map(|rollout| rollout.step), Some(1), "it goes on");

    assert_eq!(report().await, Ok(()));
    assert_eq!(report().await, Ok(()), "the same again");
    // It is durable: whoever leads next hears of it, although this replica is gone.
    trio.processes[1].cut_off().await;
    for _ in 0..60 {
        trio.live(1).await;
    }
    let back = current(trio.engine(0));
    assert!(back != new && back != old, "the old value is back, as a new version");
    assert!(codes(trio.engine(0)).contains(&"canary-failed".to_owned()));
    let records = trio.processes[1].audit.records();
    assert!(records.iter().any(|(_, action)| action.action == "reported-failed"), "who reported it stands where it was reported");
}
