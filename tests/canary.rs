//! Known secrets go through a whole life in one process, at trace level, while every call of every seam goes wrong in every way: nothing of
//! them comes out. The list of calls comes from a run without faults, so that a new call is covered by itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failed unwrap in a test is a failed test"
)]
#![allow(missing_debug_implementations, unreachable_pub, dead_code, reason = "a world is shared with other tests, and nobody prints it")]

#[path = "canary/calls.rs"]
mod calls;
#[path = "canary/capture.rs"]
mod capture;
#[path = "canary/cast.rs"]
mod cast;
#[path = "canary/controls.rs"]
mod controls;
#[path = "canary/installation.rs"]
mod installation;
#[path = "canary/life.rs"]
mod life;
#[path = "canary/refusals.rs"]
mod refusals;
#[path = "support/leaks.rs"]
mod support;
#[path = "crash_matrix/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use keywright::faults::When;
use rstest::rstest;

use calls::Blow;
use capture::Capture;
use cast::Cast;
use life::{Life, Scenario};
use support::canaries::{SHAPES, Shape};
use world::Backend;

const BLOWS: [Blow; 6] =
    [Blow::Stop(When::Before), Blow::Stop(When::After), Blow::Error(When::Before), Blow::Error(When::After), Blow::Other, Blow::Panic];

/// What one matrix is about.
#[derive(Clone, Copy)]
struct Matrix {
    word: &'static str,
    backend: fn() -> Backend,
    scenario: Scenario,
    /// Every so manieth combination is tried.
    stride: usize,
}

/// The calls of a life without faults, in their order.
async fn points(matrix: Matrix, cast: &Cast, capture: &Capture) -> Vec<&'static str> {
    let life = Life::new((matrix.backend)(), matrix.scenario, cast.again());
    life.run(capture).await.unwrap_or_else(|why| panic!("without a fault: {why}")).points
}

/// One life with one fault; what went wrong else.
async fn live(matrix: Matrix, cast: &Cast, point: usize, blow: Blow, capture: &Capture) -> Result<(), String> {
    let life = Life::new((matrix.backend)(), matrix.scenario, cast.again());
    life.calls.arm(point, blow);
    let said = |panic: Box<dyn std::any::Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or("a panic".to_owned(), |text| (*text).to_owned()),
    };
    let end = AssertUnwindSafe(life.run(capture)).catch_unwind().await.map_err(said)??;
    if end.fired.is_none() {
        return Err("the point wasn't met".to_owned());
    }
    if blow == Blow::Panic && !end.outputs.channels().contains("stderr") {
        return Err("the panic wasn't told".to_owned());
    }
    let leaks = end.outputs.leaks(&cast.scanner);
    if leaks.is_empty() { Ok(()) } else { Err(format!("{leaks:?}")) }
}

async fn run(matrix: Matrix, blows: &[Blow]) {
    let all_shapes = std::env::var_os("KEYWRIGHT_CANARY_SHAPES").is_some_and(|text| text == "all");
    let capture = Capture::begin();
    let mut casts: Vec<(Vec<&str>, Cast)> = Vec::new();
    for cast in SHAPES.into_iter().map(Cast::new) {
        // Only a secret of 64 KiB is refused earlier in some places than others.
        let known = casts.first().filter(|_| cast.shape != Shape::Huge).map(|(points, _)| points.clone());
        let points = match known {
            Some(points) => points,
            None => points(matrix, &cast, &capture).await,
        };
        casts.push((points, cast));
    }
    let most = casts.iter().map(|(points, _)| points.len()).max().unwrap_or_default();
    let pairs = (0..most).flat_map(|index| blows.iter().map(move |blow| (index, *blow))).step_by(matrix.stride);
    let (mut tried, mut silent, mut lives, mut kinds) = (0, 0, 0, BTreeSet::new());
    let mut failures = Vec::new();
    for (index, blow) in pairs {
        let able: Vec<_> = casts.iter().filter(|(points, _)| points.get(index).is_some_and(|point| blow.strikes(point))).collect();
        let mut outcomes = Vec::new();
        // The shapes take turns.
        for (place, (points, cast)) in able.iter().enumerate() {
            if all_shapes || place == tried % able.len() {
                kinds.insert(points[index]);
                let outcome = live(matrix, cast, index, blow, &capture).await;
                outcomes.push(outcome.map_err(|why| format!("{index} {}, {blow:?}, {:?}: {why}", points[index], cast.shape)));
            }
        }
        tried += usize::from(!outcomes.is_empty());
        lives += outcomes.len();
        silent += usize::from(!outcomes.is_empty() && outcomes.iter().all(Result::is_ok));
        failures.extend(outcomes.into_iter().filter_map(Result::err));
    }
    capture.end();
    let Matrix { word, scenario, .. } = matrix;
    capture::say(&format!(
        "canaries: {scenario:?} on {word}, {blows:?}: {silent} of {tried} points were silent, in {lives} lives ({most} calls; {} kinds tried)",
        kinds.len(),
    ));
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

/// Every so manieth combination is tried: 1 is all of them.
fn stride(default: usize) -> usize {
    std::env::var("KEYWRIGHT_CANARY_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[rstest]
#[tokio::test]
async fn nothing_comes_out_of_memory(#[values(0, 1, 2, 3, 4, 5)] blow: usize) {
    let matrix = Matrix { word: "memory", backend: Backend::memory, scenario: Scenario::Whole, stride: stride(1) };
    run(matrix, &BLOWS[blow..=blow]).await;
}

/// What only a candidate that is given up leads to.
#[tokio::test]
async fn nothing_comes_out_of_a_rotation_that_is_abandoned() {
    let matrix = Matrix { word: "memory", backend: Backend::memory, scenario: Scenario::Refused, stride: stride(41) };
    run(matrix, &BLOWS).await;
}

/// The file, its journal and the audit file are the real ones here, and are looked through.
#[tokio::test]
async fn nothing_comes_out_of_the_embedded_file() {
    let matrix = Matrix { word: "embedded", backend: Backend::embedded, scenario: Scenario::Whole, stride: stride(29) };
    run(matrix, &BLOWS).await;
}

/// All that is refused before any call of a seam, with a secret in every place: each shape, over both listeners.
#[tokio::test]
async fn nothing_comes_out_of_what_is_refused() {
    let capture = Capture::begin();
    let mut failures = Vec::new();
    for cast in SHAPES.into_iter().map(Cast::new) {
        let mut life = Life::new(Backend::memory(), Scenario::Whole, cast.again());
        life.all_refusals = true;
        match life.run(&capture).await {
            Ok(end) => failures.extend(end.outputs.leaks(&cast.scanner).iter().map(|leak| format!("{:?}: {leak:?}", cast.shape))),
            Err(why) => failures.push(why),
        }
    }
    capture.end();
    capture::say(&format!("canaries: refusals in {} shapes, {} leaks", SHAPES.len(), failures.len()));
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

/// Once per channel that these tests look at, and per encoding: planted there, it is found by what collects there.
#[tokio::test]
async fn every_leak_on_purpose_is_found() {
    controls::every_leak_is_found().await;
}
