//! Events as journals hold them, changed: what is read comes back as it was written, and whatever is added up, nothing panics.

use super::*;
use crate::domain::rotation::apply::IllegalEvent;
use crate::fuzz::{JSON, Judged, Target, Verdict, broken};

/// The journals of whole lives: rotations that come to their end, go back, are given up, hurried by an incident, and forgotten.
fn lives() -> Vec<Vec<Event>> {
    let mut lives = Vec::new();
    for lists in [true, false] {
        let mut life = World::enrolled(lists);
        for _ in 0..2 {
            life.requested = true;
            life.settle_after_start();
            life.days(30);
        }
        lives.push(life.events);
        let mut life = World::in_phase(Phase::Promoted, lists);
        life.roll_back();
        life.settle();
        lives.push(life.events);
    }
    let mut life = World::enrolled(true);
    let at = life.now.instant();
    life.journal(Event::Compromised { at, within: Duration::from_secs(600) });
    life.step_until(|world| world.ledger.rotation.is_none() && world.ledger.open_incident().is_none());
    life.journal(Event::Paused { at: Some(life.now.wall) });
    life.journal(Event::Resumed);
    life.journal(Event::CurrentRefused { at: life.now.wall });
    life.journal(Event::CurrentAccepted);
    lives.push(life.events);
    for fails in [true, false] {
        let mut life = World::on_step(1);
        if fails {
            life.journal(life.failed_report());
        }
        life.crew.clear();
        life.settle();
        lives.push(life.events);
    }
    let mut life = World::generating();
    life.settle_after_start();
    lives.push(life.events);
    let mut life = World::with_secondary();
    life.fault = Some(Fault::ReplyLost);
    life.settle_after_start();
    lives.push(life.events);
    for lifecycle in [Lifecycle::Rotate, Lifecycle::Replace] {
        let mut life = World::with_one_secret(lifecycle, false);
        life.fault = Some(Fault::ReplyLost);
        life.requested = true;
        life.settle_after_start();
        lives.push(life.events);
    }
    let mut life = World::by_hand();
    for number in 0..2 {
        let at = life.now.wall;
        life.journal(Event::ManualRequested {
            at,
            deadline: at + Duration::from_secs(600),
            reason: "requested".to_owned(),
            by_time: false,
        });
        life.advance(Duration::from_secs(400));
        life.submit(&key(&format!("by-hand-{number}")));
        life.step_until(|world| world.ledger.rotation.as_ref().is_some_and(|open| open.awaits_removal()));
        life.journal(Event::RemovalSeen { at: life.now.instant(), alive: number == 0 });
        life.journal(Event::RevocationAsked { asked: RevocationAsked::Anyway, stragglers: Vec::new() });
        life.settle();
    }
    lives.push(life.events);
    let snapshot = lives[0].len() - 1;
    let ledger = replay(&lives[0][..snapshot]);
    lives.push(vec![Event::Snapshot { ledger: Box::new(ledger) }]);
    lives
}

fn events() -> (Target, Vec<Ledger>) {
    let lives = lives();
    let ledgers = lives.iter().flat_map(|life| (0..=life.len()).step_by(2).map(|end| replay(&life[..end])).collect::<Vec<_>>()).collect();
    let corpus = lives.iter().flatten().map(|event| serde_json::to_vec(event).unwrap()).collect();
    let words = [
        "\"event\":\"stored\",",
        "\"event\":\"closed\"",
        "\"term\":0,",
        "promoted",
        "verified",
        "retired",
        "undone",
        "minted",
        "submitted",
        "copied",
        "null",
        "[]",
        "2026-01-01T00:00:00Z",
        "9999-12-30T22:00:00.999999999Z",
        "-009999-01-02T01:59:59Z",
        "v1",
        "key-1",
        "rotation",
        "ledger",
        "{\"secs\":0,\"nanos\":0}",
    ];
    (Target::new("events", corpus, &[JSON, &words]).costing(3), ledgers)
}

fn judge(
    write: impl Fn(&Event) -> Vec<u8>,
    add: impl Fn(&Ledger, &Event) -> Result<Ledger, IllegalEvent>,
    ledgers: &[Ledger],
    input: &[u8],
) -> Judged {
    let Ok(event) = serde_json::from_slice::<Event>(input) else { return Ok(Verdict::Refused) };
    let written = write(&event);
    match serde_json::from_slice::<Event>(&written) {
        Ok(again) if again == event && write(&again) == written => {}
        _ => return broken("it doesn't come back as it was"),
    }
    // Wherever it stands in a journal it fits, or is an error.
    for ledger in ledgers.iter().chain([&Ledger::default()]) {
        let Ok(after) = add(ledger, &event) else { continue };
        let written = serde_json::to_vec(&after).unwrap();
        if serde_json::from_slice::<Ledger>(&written).ok().as_ref() != Some(&after) {
            return broken("a ledger doesn't come back as it was");
        }
    }
    Ok(Verdict::Accepted)
}

fn write(event: &Event) -> Vec<u8> {
    serde_json::to_vec(event).unwrap()
}

#[test]
fn fuzz_events() {
    let (target, ledgers) = events();
    target.run(|input| judge(write, apply, &ledgers, input));
}

#[test]
fn fuzz_events_notices_faults() {
    let (target, ledgers) = events();
    target.notices("what was seen is lost when it is written", |input| {
        let lossy = |event: &Event| {
            String::from_utf8(write(event))
                .unwrap()
                .replace("\"paused\":true", "\"paused\":false")
                .replace("\"attempt\":1", "\"attempt\":2")
        };
        judge(|event| lossy(event).into_bytes(), apply, &ledgers, input)
    });
    target.notices("an event that doesn't fit panics", |input| {
        judge(write, |ledger, event| Ok(apply(ledger, event).unwrap()), &ledgers, input)
    });
}
