//! Several processes that each believe they lead, over a network that delays, loses and refuses: by many seeds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use keywright::domain::rotation::Event;
use keywright::journal::contract::event;
use keywright::journal::{History, Journal, JournalError, Position, SealedCopy};

use super::{Installation, name};
use crate::fake::Fault;
use crate::world::World;

const SEEDS: u64 = 16;
const PROCESSES: u64 = 3;
const DEEDS: u64 = 14;

/// A sequence of numbers from a seed (SplitMix64).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What the processes were told.
#[derive(Default)]
struct Told {
    /// Appends that count, for who made them: at which position, what.
    kept: Vec<(Position, Event)>,
    /// What a leader loaded after it had begun its term.
    loaded: Vec<(u64, History)>,
}

#[tokio::test]
async fn no_append_of_a_lower_term_counts_once_a_higher_one_has_loaded() {
    let mut kept = 0;
    for seed in 0..SEEDS {
        kept += fight(seed).await;
    }
    assert!(kept > 100, "only {kept} appends of all fights counted");
}

async fn fight(seed: u64) -> usize {
    let world = Arc::new(World::on_fake().await);
    let installation = Installation::new(&world);
    let mut dice = Dice(seed);
    world.fake().plan(move |call| match dice.below(12) {
        0 if call.resource == "configmaps" => Some(Fault::LosesReplyAfterEffect),
        1 if call.resource == "configmaps" => Some(Fault::RefusesBefore),
        // Long enough for another to take over, between a look and the write that follows.
        2..5 if call.is("update", "configmaps") => Some(Fault::Delays(Duration::from_millis(20 + dice.below(80)))),
        _ => None,
    });
    let (told, begun) = (Arc::new(Mutex::new(Told::default())), Arc::new(AtomicU64::new(0)));
    let processes = (0..PROCESSES).map(|process| {
        let journal = installation.replica(&format!("p{process}"));
        live(journal, Dice(seed << 8 | process), seed % 2 == 0, Arc::clone(&told), Arc::clone(&begun))
    });
    futures_util::future::join_all(processes).await;
    world.fake().nothing_goes_wrong();
    let last = installation.replica("last").load(&name("dinie")).await.unwrap();
    let told = told.lock().unwrap();
    judge(seed, &told, &last);
    told.kept.len()
}

/// After which nothing is open, so that who loads it claims nothing.
fn quiet(number: u64) -> Event {
    Event::Paused { at: Timestamp::from_second(number.cast_signed()).ok() }
}

/// A process that takes over now and then, and else appends whatever it believes. Quiet: nothing is ever open.
async fn live(journal: impl Journal, mut dice: Dice, is_quiet: bool, told: Arc<Mutex<Told>>, begun: Arc<AtomicU64>) {
    let dinie = name("dinie");
    let (mut term, mut position) = (0, Position::default());
    for _ in 0..DEEDS {
        if term == 0 || dice.below(5) == 0 {
            let Ok(new) = journal.begin_term().await else { continue };
            begun.fetch_max(new, Ordering::SeqCst);
            term = new;
            let Ok(history) = journal.load(&dinie).await else { continue };
            position = history.position;
            told.lock().unwrap().loaded.push((term, history));
            continue;
        }
        let number = dice.below(1 << 30);
        let event = if is_quiet || dice.below(3) == 0 { quiet(number) } else { event(number) };
        let highest = begun.load(Ordering::SeqCst);
        let copy = if dice.below(4) == 0 { SealedCopy::Erase } else { SealedCopy::Keep };
        let outcome = journal.append(&dinie, position, term, &event, copy).await;
        assert!(outcome.is_err() || term >= highest, "{outcome:?} in term {term}, after {highest} had begun");
        let counts = match &outcome {
            Ok(_) => true,
            // As the engine does: what is durable decides, if it can be read.
            Err(_) => {
                let Ok(history) = journal.load(&dinie).await else { continue };
                let ours = Position { term, revision: position.revision + 1 };
                let counts = history.position == ours && history.events.last() == Some(&event);
                if !counts {
                    assert!(!matches!(outcome, Err(JournalError::Damaged(_))), "{outcome:?}");
                    position = history.position;
                }
                counts
            }
        };
        if counts {
            position = Position { term, revision: position.revision + 1 };
            told.lock().unwrap().kept.push((position, event));
        }
    }
}

fn judge(seed: u64, told: &Told, last: &History) {
    let at = |history: &History, revision: u64| history.events.get(usize::try_from(revision).unwrap() - 1).cloned();
    assert_eq!(last.position.revision, last.events.len() as u64, "seed {seed}");
    for (position, event) in &told.kept {
        assert_eq!(at(last, position.revision).as_ref(), Some(event), "seed {seed}: {position:?} is lost");
        for (term, loaded) in told.loaded.iter().filter(|(term, _)| *term > position.term) {
            assert_eq!(at(loaded, position.revision).as_ref(), Some(event), "seed {seed}: {position:?} wasn't there for {term} to load");
        }
    }
    let mut revisions: Vec<u64> = told.kept.iter().map(|(position, _)| position.revision).collect();
    revisions.sort_unstable();
    let count = revisions.len();
    revisions.dedup();
    assert_eq!(revisions.len(), count, "seed {seed}: two appends count for one place");
}
