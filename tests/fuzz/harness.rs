//! Runs one parser on inputs that began as real ones: each seed draws one and changes it, an oracle judges what the parser
//! made of it.
//!
//! `KEYWRIGHT_FUZZ_CASES` says how many cases a target of the usual cost gets, `KEYWRIGHT_FUZZ_FROM` which seed is the first;
//! `KEYWRIGHT_FUZZ_SEED` repeats one, and prints it. proptest draws, and makes what failed smaller.
#![allow(dead_code, reason = "mounted by the tests of the crate and by those outside of it, and neither uses all")]

pub(crate) mod json;
mod mutate;
pub(crate) mod problems;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

pub(crate) use mutate::{JSON, YAML};
use mutate::{Recipe, recipes};

/// Cases in CI of a target whose cost is 1: all targets together take about a minute on two slow cores.
const CASES: u64 = 6_000;
/// How often a failed input is tried smaller.
const SHRINKS: usize = 2_000;
const SHRINK_TIME: Duration = Duration::from_secs(20);
/// Nothing that is parsed here may compute for longer, however slow the machine: far above what a case takes, far below what
/// one that grows with a power of its input would.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of an input that are printed.
const SHOWN: usize = 4_000;

/// What the parser made of an input that it rightly took or refused. `Err` of [`Judged`] is a broken promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Refused,
}

pub(crate) type Judged = Result<Verdict, String>;

/// One parser, and what its inputs are made of.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Real inputs, from the code or the files that write them.
    pub(crate) corpus: Vec<Vec<u8>>,
    /// Words of its language, beside those of [`YAML`] or [`JSON`].
    pub(crate) words: Vec<Vec<u8>>,
    /// How many ordinary cases one of this costs.
    pub(crate) cost: u64,
}

/// The first case that failed.
struct Failure {
    seed: u64,
    why: String,
    input: Vec<u8>,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a whole number")))
}

/// Not by the macro, which a test runner keeps to itself.
pub(crate) fn say(text: &str) {
    let _unread = writeln!(std::io::stderr(), "{text}");
}

pub(crate) fn shown(input: &[u8]) -> String {
    let rest = input.len().saturating_sub(SHOWN);
    let dots = if rest > 0 { format!("… and {rest} bytes more") } else { String::new() };
    format!("{}{dots}", input[..input.len() - rest].escape_ascii())
}

impl Target {
    /// A target of the usual cost.
    pub(crate) fn new(name: &'static str, corpus: Vec<Vec<u8>>, words: &[&[&str]]) -> Target {
        assert!(!corpus.is_empty(), "{name} begins with real inputs");
        let words = words.iter().flat_map(|list| list.iter()).map(|word| word.as_bytes().to_vec()).collect();
        Target { name, corpus, words, cost: 1 }
    }

    pub(crate) fn costing(self, cost: u64) -> Target {
        Target { cost, ..self }
    }

    fn seeds(&self) -> std::ops::Range<u64> {
        let from = number("KEYWRIGHT_FUZZ_FROM").unwrap_or(0);
        let count = number("KEYWRIGHT_FUZZ_CASES").unwrap_or(CASES) / self.cost;
        from..from + count.max(40)
    }

    /// What a seed draws: the same changes always, as long as corpus and words are the same. Where the corpus is sealed or coded with a
    /// key of the test, its bytes differ from run to run, and the changes don't.
    fn drawn(&self, seed: u64) -> impl ValueTree<Value = Recipe> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config { failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        recipes().new_tree(&mut runner).unwrap_or_else(|why| panic!("nothing can be drawn: {why}"))
    }

    fn input(&self, recipe: &Recipe) -> Vec<u8> {
        mutate::apply(recipe, &self.corpus, &self.words)
    }

    /// Fails with the seed and the smallest input, if one breaks a promise; or if all or none are accepted, which would prove
    /// little.
    pub(crate) fn run(&self, judge: impl Fn(&[u8]) -> Judged) {
        if let Some(seed) = number("KEYWRIGHT_FUZZ_SEED") {
            let input = self.input(&self.drawn(seed).current());
            let judged = judged(&judge, &input);
            say(&format!("fuzz: {}: seed {seed}: {judged:?}\n{}", self.name, shown(&input)));
            assert!(judged.is_ok(), "seed {seed} failed");
            return;
        }
        let began = Instant::now();
        let (mut accepted, mut refused, mut slowest) = (0, 0, (Duration::ZERO, 0));
        for seed in self.seeds() {
            let (tree, before) = (self.drawn(seed), computed());
            match judged(&judge, &self.input(&tree.current())) {
                Ok(Verdict::Accepted) => accepted += 1,
                Ok(Verdict::Refused) => refused += 1,
                Err(why) => {
                    let failure = self.smallest(seed, why, tree, &judge);
                    panic!("{}", self.report(&failure));
                }
            }
            slowest = slowest.max((computed().saturating_sub(before), seed));
        }
        say(&format!(
            "fuzz: {}: {} cases from seed {}, {accepted} accepted, {refused} refused in {:.1?}, the slowest (seed {}) in {:.1?}",
            self.name,
            accepted + refused,
            self.seeds().start,
            began.elapsed(),
            slowest.1,
            slowest.0
        ));
        assert!(accepted > 0 && refused > 0, "{}: {accepted} accepted, {refused} refused: this proves little", self.name);
    }

    /// The control of a target: with this fault built in on purpose, a case of CI fails.
    pub(crate) fn notices(&self, fault: &str, judge: impl Fn(&[u8]) -> Judged) {
        let found = (0..(CASES / self.cost).max(40)).find(|seed| judged(&judge, &self.input(&self.drawn(*seed).current())).is_err());
        match found {
            Some(seed) => say(&format!("fuzz: {}: the fault on purpose, {fault}, is noticed by seed {seed}", self.name)),
            None => panic!("{}: the fault on purpose, {fault}, is NOT noticed", self.name),
        }
    }

    fn smallest(&self, seed: u64, why: String, mut tree: impl ValueTree<Value = Recipe>, judge: &impl Fn(&[u8]) -> Judged) -> Failure {
        let mut smallest = Failure { seed, why, input: self.input(&tree.current()) };
        let began = Instant::now();
        let mut goes_on = tree.simplify();
        for _ in 0..SHRINKS {
            if !goes_on || began.elapsed() > SHRINK_TIME {
                break;
            }
            let input = self.input(&tree.current());
            goes_on = match judged(judge, &input) {
                Err(why) => {
                    smallest = Failure { seed, why, input };
                    tree.simplify()
                }
                Ok(_) => tree.complicate(),
            };
        }
        smallest
    }

    fn report(&self, failure: &Failure) -> String {
        let Failure { seed, why, input } = failure;
        format!(
            "\n{}: seed {seed}: {why}\nmade smaller, the input is\n{}\nrepeat it with:\n  \
             KEYWRIGHT_FUZZ_SEED={seed} cargo nextest run --locked --lib --test fuzz -E 'test(/fuzz_{}$/)' --no-capture\n",
            self.name,
            shown(input),
            self.name.replace(' ', "_"),
        )
    }
}

/// A panic is a broken promise, and so is taking too long.
fn judged(judge: &impl Fn(&[u8]) -> Judged, input: &[u8]) -> Judged {
    let began = computed();
    let judged = catch_unwind(AssertUnwindSafe(|| judge(input))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("a panic: {}", text.unwrap_or("of no text")))
    })?;
    let taken = computed().saturating_sub(began);
    if taken > TIME_MAX { Err(format!("it takes {taken:?}")) } else { Ok(judged) }
}

/// The time that this thread has had a processor: others on the machine don't count. Zero where the system doesn't tell.
fn computed() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    told.and_then(|text| text.split(' ').next()?.parse().ok()).map(Duration::from_nanos).unwrap_or_default()
}

/// Says what broke.
pub(crate) fn broken(why: impl Into<String>) -> Judged {
    Err(why.into())
}

/// Whether a part of a secret stands in what was said: eight bytes are enough (I20).
pub(crate) fn tells(said: &str, secret: &str) -> bool {
    let (short, long) = if said.len() < secret.len() { (said, secret) } else { (secret, said) };
    (0..short.len()).any(|at| short.get(at..at + 8).is_some_and(|part| long.contains(part)))
}
