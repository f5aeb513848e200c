//! The simulator: the real engine and domain through weeks of simulated time, with everything that a seed can do to them, watched
//! by a model that knows the truth.
//!
//! `KEYWRIGHT_SIM_MUTANT` keeps to the faults of ours with this in their name.
//! `KEYWRIGHT_SIM_SEEDS` says how many lives, `KEYWRIGHT_SIM_FROM` which is the first; `KEYWRIGHT_SIM_SEED` repeats one, and prints it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a failed unwrap in a test is a failed test"
)]
#![allow(missing_debug_implementations, unreachable_pub, dead_code, reason = "a world of a test, and nobody prints it")]

#[path = "simulation/applications.rs"]
mod applications;
#[path = "simulation/by_hand.rs"]
mod by_hand;
#[path = "simulation/deeds.rs"]
mod deeds;
#[path = "simulation/hands.rs"]
mod hands;
#[path = "simulation/life.rs"]
mod life;
#[path = "simulation/model/mod.rs"]
mod model;
#[path = "support/rng.rs"]
mod rng;
#[path = "simulation/scene.rs"]
mod scene;
#[path = "simulation/seams.rs"]
mod seams;
#[path = "simulation/setting.rs"]
mod setting;
#[path = "simulation/writers.rs"]
mod writers;

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use keywright::domain::mutants::{self, Mutant};

use life::{Life, Outcome};
use model::{Deeds, Rollouts, Violation};

/// Lives in CI: about a minute on two slow cores in the profile of the tests.
const SEEDS: u64 = 150;
/// And at providers where a person makes and removes the keys.
const SEEDS_BY_HAND: u64 = 40;
/// And in a store that others write into.
const SEEDS_AMONG_WRITERS: u64 = 40;
/// Lives that each fault of ours has to be noticed in.
const MUTANT_SEEDS: u64 = 300;
/// Faults that show where a person makes and removes the keys.
const OF_PERSONS: [Mutant; 3] = [Mutant::RemovalBelieved, Mutant::RemovalGivenUp, Mutant::RolledBackToDoomed];
/// Lines of the trace that are printed of a life that failed.
const TAIL: usize = 40;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a whole number")))
}

/// Not by the macro, which a test runner keeps to itself.
fn say(text: &str) {
    let _unread = writeln!(std::io::stderr(), "{text}");
}

/// What is known of many lives.
#[derive(Debug, Default)]
struct Sum {
    lives: u64,
    faults: u64,
    processes: u64,
    promotions: u64,
    written: u64,
    taken_up: u64,
    revocations: u64,
    steps: u64,
    deeds: Deeds,
    rollouts: Rollouts,
    failed: Vec<u64>,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.lives += 1;
        self.faults += outcome.faults;
        self.processes += outcome.processes;
        self.promotions += outcome.promotions;
        self.written += outcome.written;
        self.taken_up += outcome.taken_up;
        self.revocations += outcome.revocations;
        self.steps += outcome.steps as u64;
        self.deeds += outcome.deeds;
        self.rollouts += outcome.rollouts;
        if outcome.violation.is_some() {
            self.failed.push(outcome.seed);
        }
    }
}

/// Lives the same life once more, to tell it.
fn report(seed: u64, life: fn(u64, bool) -> Life) -> String {
    let outcome = life(seed, true).run();
    let quiet = ["heartbeat", "deed Connect", "issuer.list Go", "store.read", "store.stages"];
    let trace: Vec<String> = outcome.trace.into_iter().filter(|line| !quiet.iter().any(|word| line.ends_with(word))).collect();
    let from = trace.len().saturating_sub(TAIL);
    let broken = outcome.violation.map_or("it doesn't fail again".to_owned(), |broken| format!("{}: {}", broken.invariant, broken.what));
    format!(
        "seed {seed}: {broken}\n{}\nrepeat it with:\n  KEYWRIGHT_SIM_SEED={seed} cargo nextest run --test simulation one_seed --no-capture\n  just sim-seed {seed}",
        trace[from..].join("\n")
    )
}

/// Lives all of these on all cores; stops after the first few that fail.
fn live(from: u64, count: u64, life: fn(u64, bool) -> Life) -> Sum {
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Sum::default());
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || sum.lock().unwrap().failed.len() >= 5 {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| life(seed, false).run());
                    let outcome = outcome.unwrap_or_else(|_| panic!("seed {seed} panicked"));
                    if let Some(broken) = &outcome.violation {
                        say(&format!("seed {seed} failed: {}: {}", broken.invariant, broken.what));
                    }
                    let mut sum = sum.lock().unwrap();
                    sum.add(&outcome);
                    if sum.lives.is_multiple_of(5_000) {
                        say(&format!("{} lives, {} failed", sum.lives, sum.failed.len()));
                    }
                }
            });
        }
    });
    sum.into_inner().unwrap()
}

#[test]
fn lives_keep_all_promises() {
    let began = std::time::Instant::now();
    let (from, count) = (number("KEYWRIGHT_SIM_FROM").unwrap_or(0), number("KEYWRIGHT_SIM_SEEDS").unwrap_or(SEEDS));
    let sum = live(from, count, Life::new);
    say(&format!(
        "simulation: {} lives from seed {from}, {} violations: {} steps, {} faults, {} processes, {} promotions, {} revocations in {:.0?}",
        sum.lives,
        sum.failed.len(),
        sum.steps,
        sum.faults,
        sum.processes,
        sum.promotions,
        sum.revocations,
        began.elapsed()
    ));
    say(&format!("operators: {:?}", sum.deeds));
    say(&format!("rollouts: {:?}", sum.rollouts));
    let reports: Vec<String> = sum.failed.iter().take(2).map(|seed| report(*seed, Life::new)).collect();
    assert!(sum.failed.is_empty(), "\nseeds {:?} failed\n{}\n", sum.failed, reports.join("\n\n"));
    assert!(sum.promotions > count && sum.revocations > count / 2 && sum.faults > count, "too little happens: {sum:?}");
}

#[test]
fn lives_by_hand_keep_all_promises() {
    let (from, count) = (number("KEYWRIGHT_SIM_FROM").unwrap_or(0), number("KEYWRIGHT_SIM_SEEDS_BY_HAND").unwrap_or(SEEDS_BY_HAND));
    let sum = live(from, count, Life::by_hand);
    say(&format!(
        "simulation by hand: {} lives from seed {from}, {} violations: {} steps, {} faults, {} processes, {} promotions, closed: {:?}",
        sum.lives,
        sum.failed.len(),
        sum.steps,
        sum.faults,
        sum.processes,
        sum.promotions,
        (sum.deeds.proved, sum.deeds.reported, sum.deeds.unproved)
    ));
    let reports: Vec<String> = sum.failed.iter().take(2).map(|seed| report(*seed, Life::by_hand)).collect();
    assert!(sum.failed.is_empty(), "\nseeds {:?} failed\n{}\n", sum.failed, reports.join("\n\n"));
    let all_ways = sum.deeds.proved > count && sum.deeds.reported > 0 && sum.deeds.unproved > 0;
    assert!(sum.promotions > 2 * count && all_ways, "too little happens: {sum:?}");
}

#[test]
fn lives_among_writers_keep_all_promises() {
    let count = number("KEYWRIGHT_SIM_SEEDS_AMONG_WRITERS").unwrap_or(SEEDS_AMONG_WRITERS);
    let from = number("KEYWRIGHT_SIM_FROM").unwrap_or(0);
    let sum = live(from, count, Life::among_writers);
    say(&format!(
        "simulation among writers: {} lives from seed {from}, {} violations: {} steps, {} faults, {} processes, {} promotions, {} of {} writes taken up",
        sum.lives,
        sum.failed.len(),
        sum.steps,
        sum.faults,
        sum.processes,
        sum.promotions,
        sum.taken_up,
        sum.written
    ));
    let reports: Vec<String> = sum.failed.iter().take(2).map(|seed| report(*seed, Life::among_writers)).collect();
    assert!(sum.failed.is_empty(), "\nseeds {:?} failed\n{}\n", sum.failed, reports.join("\n\n"));
    assert!(sum.promotions > count && sum.written > count && sum.taken_up > count / 4, "too little happens: {sum:?}");
}

/// The first life that notices a fault of ours, and by which promise.
fn caught(mutant: Mutant, lives: u64) -> Option<(u64, Violation)> {
    mutants::set(Some(mutant));
    let found = (0..lives).find_map(|seed| {
        // A panic in the engine is noticed, too.
        let life = if OF_PERSONS.contains(&mutant) { Life::by_hand } else { Life::new };
        let outcome = std::panic::catch_unwind(|| life(seed, false).run().violation);
        let panicked = || Some(Violation { invariant: "panic", what: "the engine panicked".to_owned() });
        Some((seed, outcome.unwrap_or_else(|_| panicked())?))
    });
    mutants::set(None);
    found
}

#[test]
fn faults_of_ours_are_all_caught() {
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let lives = number("KEYWRIGHT_SIM_MUTANT_SEEDS").unwrap_or(MUTANT_SEEDS);
    let wanted = std::env::var("KEYWRIGHT_SIM_MUTANT").ok();
    let named = |mutant: &&Mutant| wanted.as_ref().is_none_or(|wanted| format!("{mutant:?}").contains(wanted));
    let mutants: Vec<Mutant> = Mutant::ALL.iter().filter(named).copied().collect();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = caught(*mutant, lives);
                    rows.lock().unwrap().push((*mutant, found));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|(mutant, _)| Mutant::ALL.iter().position(|other| other == mutant));
    for (mutant, found) in &rows {
        match found {
            Some((seed, broken)) => say(&format!("{mutant:?}: caught by seed {seed}: {}: {}", broken.invariant, broken.what)),
            None => say(&format!("{mutant:?}: NOT CAUGHT by {lives} lives")),
        }
    }
    let missed: Vec<&Mutant> = rows.iter().filter(|(_, found)| found.is_none()).map(|(mutant, _)| mutant).collect();
    say(&format!("mutants: {} of {} caught", rows.len() - missed.len(), rows.len()));
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn one_seed_is_one_life() {
    let seeds: Vec<u64> = number("KEYWRIGHT_SIM_SEED").map_or_else(|| (1_000_000..1_000_003).collect(), |seed| vec![seed]);
    for seed in seeds {
        let (first, second) = (Life::new(seed, true).run(), Life::new(seed, true).run());
        if number("KEYWRIGHT_SIM_SEED").is_some() {
            say(&first.trace.join("\n"));
        }
        assert_eq!(first.trace, second.trace, "seed {seed} lives two lives");
        assert_eq!(first.violation, None, "{}", report(seed, Life::new));
        assert!(first.trace.len() > 100, "seed {seed}: little happens");
    }
}
