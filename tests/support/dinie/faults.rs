//! What can go wrong with a call, and a seeded schedule of when it does.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::support::rng::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Token,
    Create,
    List,
    Delete,
}

pub(crate) const CALLS: [Call; 4] = [Call::Token, Call::Create, Call::List, Call::Delete];

/// `LoseReply`, the garbage and `HangAfterEffect` come after the effect; the refusals come instead of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    LoseReply,
    DropRequest,
    Throttle {
        retry_after_seconds: u32,
    },
    /// 500 whose body echoes the request, its headers included.
    EchoError,
    NotJson,
    NotUtf8,
    HugeBody,
    Slow(Duration),
    Redirect,
    /// Tells the test that the effect has happened, then never answers: the place to kill the daemon.
    HangAfterEffect,
}

/// One of each that an honest client recovers from within a second or two.
pub(crate) const RECOVERABLE: [Fault; 9] = [
    Fault::LoseReply,
    Fault::DropRequest,
    Fault::Throttle { retry_after_seconds: 1 },
    Fault::EchoError,
    Fault::NotJson,
    Fault::NotUtf8,
    Fault::HugeBody,
    Fault::Slow(Duration::from_millis(600)),
    Fault::Redirect,
];

impl Fault {
    pub(crate) fn comes_before_the_effect(self) -> bool {
        matches!(self, Self::DropRequest | Self::Throttle { .. } | Self::EchoError | Self::Redirect)
    }
}

#[derive(Debug)]
pub(crate) struct Schedule {
    rng: Rng,
    percent: u8,
    kinds: Vec<Fault>,
    scripted: HashMap<Call, VecDeque<Fault>>,
    /// A provider that never answers proves nothing: after this many faults in a row a call gets through.
    most_in_a_row: u32,
    in_a_row: HashMap<Call, u32>,
    injected: HashMap<(Call, String), u32>,
    /// So many calls that change something until one hangs after its effect: reads have none.
    hang_after: Option<u32>,
}

impl Schedule {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            percent: 0,
            kinds: Vec::new(),
            scripted: HashMap::new(),
            most_in_a_row: 2,
            in_a_row: HashMap::new(),
            injected: HashMap::new(),
            hang_after: None,
        }
    }

    pub(crate) fn at_random(&mut self, percent: u8, kinds: &[Fault]) {
        self.percent = percent;
        self.kinds = kinds.to_vec();
    }

    pub(crate) fn at_most_in_a_row(&mut self, most: u32) {
        self.most_in_a_row = most;
    }

    /// The next call of this kind meets this fault; several are met one after another.
    pub(crate) fn next_time(&mut self, call: Call, fault: Fault) {
        self.scripted.entry(call).or_default().push_back(fault);
    }

    pub(crate) fn hang_after(&mut self, calls: u32) {
        self.hang_after = Some(calls);
    }

    pub(crate) fn clear(&mut self) {
        self.percent = 0;
        self.hang_after = None;
        self.scripted.clear();
    }

    pub(crate) fn draw(&mut self, call: Call) -> Option<Fault> {
        let changes = matches!(call, Call::Create | Call::Delete);
        match self.hang_after.filter(|_| changes) {
            Some(0) => {
                self.hang_after = None;
                self.count(call, Fault::HangAfterEffect);
                return Some(Fault::HangAfterEffect);
            }
            Some(calls) => self.hang_after = Some(calls - 1),
            None => {}
        }
        if let Some(fault) = self.scripted.get_mut(&call).and_then(VecDeque::pop_front) {
            self.count(call, fault);
            return Some(fault);
        }
        let in_a_row = self.in_a_row.entry(call).or_default();
        if *in_a_row >= self.most_in_a_row || self.kinds.is_empty() || !self.rng.chance(self.percent) {
            *in_a_row = 0;
            return None;
        }
        *in_a_row += 1;
        let fault = *self.rng.pick(&self.kinds);
        self.count(call, fault);
        Some(fault)
    }

    fn count(&mut self, call: Call, fault: Fault) {
        *self.injected.entry((call, format!("{fault:?}"))).or_default() += 1;
    }

    /// How often each fault was met: a fault test whose faults never came has shown nothing.
    pub(crate) fn injected(&self) -> &HashMap<(Call, String), u32> {
        &self.injected
    }
}
