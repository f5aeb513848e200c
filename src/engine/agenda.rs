//! What the loop has to come to: who waits to be driven, and who is to be looked at again and when. One that has ended, or whose
//! wait is over, costs a look at that one, however many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::ids::Name;

/// Credentials by what is next for each. One stands in one of the two lists at most.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// Earliest deadline first (I14).
    ready: BTreeSet<(Timestamp, Name)>,
    /// By running time.
    resting: BTreeSet<(Duration, Name)>,
    places: BTreeMap<Name, Place>,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Ready(Timestamp),
    Resting(Duration),
}

impl Agenda {
    pub(super) fn clear(&mut self) {
        *self = Agenda::default();
    }

    /// It has something to do.
    pub(super) fn put_ready(&mut self, name: &Name, deadline: Timestamp) {
        self.strike(name);
        self.ready.insert((deadline, name.clone()));
        self.places.insert(name.clone(), Place::Ready(deadline));
    }

    /// It is to be looked at again at this running time.
    pub(super) fn put_resting(&mut self, name: &Name, until: Duration) {
        self.strike(name);
        self.resting.insert((until, name.clone()));
        self.places.insert(name.clone(), Place::Resting(until));
    }

    pub(super) fn strike(&mut self, name: &Name) {
        match self.places.remove(name) {
            Some(Place::Ready(deadline)) => drop(self.ready.remove(&(deadline, name.clone()))),
            Some(Place::Resting(until)) => drop(self.resting.remove(&(until, name.clone()))),
            None => {}
        }
    }

    /// Who is next to be driven.
    pub(super) fn take_ready(&mut self) -> Option<Name> {
        let (_, name) = self.ready.pop_first()?;
        self.places.remove(&name);
        Some(name)
    }

    /// Whose wait is over.
    pub(super) fn take_rested(&mut self, running: Duration) -> Vec<Name> {
        let mut rested = Vec::new();
        while self.next_rested().is_some_and(|until| until <= running)
            && let Some((_, name)) = self.resting.pop_first()
        {
            self.places.remove(&name);
            rested.push(name);
        }
        rested
    }

    /// When the next wait is over.
    pub(super) fn next_rested(&self) -> Option<Duration> {
        self.resting.first().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn the_earliest_deadline_comes_first_and_each_comes_once() {
        let mut agenda = Agenda::default();
        for (second, text) in [(30, "late"), (10, "soon"), (20, "later-sooner"), (5, "struck")] {
            agenda.put_ready(&name(text), Timestamp::from_second(second).unwrap());
        }
        agenda.put_ready(&name("later-sooner"), Timestamp::from_second(1).unwrap());
        agenda.strike(&name("struck"));
        let order: Vec<Name> = std::iter::from_fn(|| agenda.take_ready()).collect();
        assert_eq!(order, [name("later-sooner"), name("soon"), name("late")]);
    }

    #[test]
    fn a_wait_ends_at_its_time_and_not_once_it_has_something_to_do() {
        let mut agenda = Agenda::default();
        let at = Duration::from_secs;
        for (until, text) in [(3, "third"), (1, "first"), (2, "second"), (2, "ready")] {
            agenda.put_resting(&name(text), at(until));
        }
        agenda.put_ready(&name("ready"), Timestamp::UNIX_EPOCH);
        assert_eq!(agenda.next_rested(), Some(at(1)));
        assert!(agenda.take_rested(Duration::from_millis(999)).is_empty());
        assert_eq!(agenda.take_rested(at(2)), [name("first"), name("second")]);
        assert_eq!(agenda.next_rested(), Some(at(3)));
        assert_eq!(agenda.take_ready(), Some(name("ready")));
        agenda.clear();
        assert_eq!((agenda.next_rested(), agenda.take_ready()), (None, None));
    }
}
