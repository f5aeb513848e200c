//! The crash matrix: for every durable write and every call to the provider, stop before, stop after, and do it twice; all recover.
//!
//! The list of points comes from a run without faults, so that a new step is covered by itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed unwrap in a test is a failed test"
)]
#![allow(missing_debug_implementations, unreachable_pub, dead_code, reason = "a world is shared with other tests, and nobody prints it")]

#[path = "support/aws.rs"]
mod aws;
#[path = "crash_matrix/elsewhere.rs"]
mod elsewhere;
#[allow(clippy::disallowed_methods, reason = "the fake has a clock of its own")]
#[path = "support/kube/mod.rs"]
mod fake_kube;
#[allow(clippy::disallowed_methods, reason = "the fake has a clock of its own")]
#[path = "support/vault/mod.rs"]
mod fake_vault;
#[path = "crash_matrix/kubernetes.rs"]
mod kubernetes;
#[path = "crash_matrix/life.rs"]
mod life;
#[path = "aws/proxy.rs"]
mod proxy;
#[path = "crash_matrix/vault.rs"]
mod vault;
#[path = "crash_matrix/world.rs"]
mod world;

use std::io::Write;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use keywright::faults::When;
use rstest::rstest;

use life::{Life, Scenario};
use world::Backend;

/// What is done at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// The process dies there.
    Stop(When),
    /// It took effect, and the caller doesn't know: it is done again.
    Again,
    /// It fails once, and goes on.
    Fail,
}

const BLOWS: [Blow; 4] = [Blow::Stop(When::Before), Blow::Stop(When::After), Blow::Again, Blow::Fail];

async fn trace(backend: &dyn Fn() -> Backend, scenario: Scenario) -> Vec<&'static str> {
    let (world, deaths) = Life::new(backend(), scenario).run().await;
    assert_eq!(deaths, 0);
    world.faults.trace()
}

/// Whether a life recovers from this; what went wrong else.
async fn recovers(backend: &dyn Fn() -> Backend, scenario: Scenario, point: usize, blow: Blow) -> Result<(), String> {
    let life = Life::new(backend(), scenario);
    match blow {
        Blow::Stop(when) => life.world.faults.crash_at(point, when),
        Blow::Again => life.world.faults.arm(point, When::After),
        Blow::Fail => life.world.faults.arm(point, When::Before),
    }
    let outcome = AssertUnwindSafe(life.run()).catch_unwind().await;
    let said = |panic: Box<dyn std::any::Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or("a panic".to_owned(), |text| (*text).to_owned()),
    };
    let (world, deaths) = outcome.map_err(said)?;
    let stopped = matches!(blow, Blow::Stop(_));
    if world.faults.fired().is_none() || stopped != (deaths > 0) {
        return Err(format!("the point wasn't met: {deaths} deaths"));
    }
    Ok(())
}

async fn matrix(word: &str, backend: &dyn Fn() -> Backend, scenario: Scenario, stride: usize) {
    let points = trace(backend, scenario).await;
    let first = if stride > points.len() { scenario as usize * 31 } else { 0 };
    let mut failures = Vec::new();
    let mut tried = 0;
    for (index, point) in points.iter().enumerate() {
        for (place, blow) in BLOWS.into_iter().enumerate() {
            // Where few are tried, each scenario begins with another one.
            if !(index * BLOWS.len() + place + first).is_multiple_of(stride) {
                continue;
            }
            tried += 1;
            if let Err(why) = recovers(backend, scenario, index, blow).await {
                failures.push(format!("{index} {point}, {blow:?}: {why}"));
            }
        }
    }
    let recovered = tried - failures.len();
    // Not by the macro, which a test runner keeps to itself.
    let _unread = writeln!(
        std::io::stderr(),
        "crash matrix: {scenario:?} on {word}: {recovered} of {tried} points recovered ({} writes and calls)",
        points.len()
    );
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

/// Every so manieth combination is tried: 1 is all of them.
fn stride(default: usize) -> usize {
    std::env::var("KEYWRIGHT_CRASH_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[rstest]
#[tokio::test]
async fn all_points_recover_in_memory(
    #[values(
        Scenario::Whole,
        Scenario::Refused,
        Scenario::LostReply,
        Scenario::LostReplyIdempotent,
        Scenario::Stolen,
        Scenario::RolledBack,
        Scenario::ByHand,
        Scenario::Rotated,
        Scenario::Replaced,
        Scenario::Secondary,
        Scenario::SecondaryBack,
        Scenario::Disabled,
        Scenario::RolledOut,
        Scenario::CanaryFailed,
        Scenario::Changed
    )]
    scenario: Scenario,
) {
    matrix("memory", &Backend::memory, scenario, stride(1)).await;
}

#[rstest]
#[tokio::test]
async fn all_points_recover_in_the_embedded_file(
    #[values(
        Scenario::Whole,
        Scenario::Refused,
        Scenario::LostReply,
        Scenario::LostReplyIdempotent,
        Scenario::Stolen,
        Scenario::RolledBack,
        Scenario::ByHand,
        Scenario::Rotated,
        Scenario::Replaced,
        Scenario::Secondary,
        Scenario::SecondaryBack,
        Scenario::Disabled,
        Scenario::RolledOut,
        Scenario::CanaryFailed
    )]
    scenario: Scenario,
) {
    // Each commit is a real one: in the whole, each kind of write meets each blow, and the points take turns.
    matrix("embedded", &Backend::embedded, scenario, stride(9)).await;
}

/// Dying once is not all that can happen: it dies while it recovers, too.
#[tokio::test]
async fn a_storm_of_deaths_is_outlived() {
    for seed in 0..100 {
        let scenario = Scenario::ALL[seed as usize % Scenario::ALL.len()];
        let life = Life::new(Backend::memory(), scenario).in_a_storm(seed);
        let outcome = AssertUnwindSafe(life.run()).catch_unwind().await;
        let Ok((_, deaths)) = outcome else { panic!("seed {seed}, {scenario:?}") };
        assert!(deaths >= 2, "seed {seed}: {deaths}");
    }
}
