//! What must be true where a person makes and removes keys: asked for in time, believed for a reason, closed at last.

use keywright::domain::ids::Name;
use keywright::domain::ledger::Closure;
use keywright::domain::rotation::Event;
use keywright::issuers::memory::MemoryIssuer;

use crate::scene::{Inner, truly};

impl Inner {
    /// What must be true when an event becomes durable.
    pub fn may_be_by_hand(&mut self, issuer: &MemoryIssuer, name: &Name, event: &Event) {
        if !self.model.manual {
            return;
        }
        match event {
            Event::CreateIntended { .. } => self.broken("I1", format!("{name}: a key is to be made where only a person can")),
            Event::ManualReminded { asks, urgency, .. } => {
                let told = |known: &Event| matches!(known, Event::ManualReminded { asks: of, urgency: level, .. } if of == asks && level >= urgency);
                let opened = |known: &Event| matches!(known, Event::ManualRequested { .. } | Event::RemovalAsked { .. });
                let again = self.model.known[name].events.iter().rev().take_while(|known| !opened(known)).any(told);
                self.require(!again, "I8", || format!("{name}: {urgency:?} is told twice"));
            }
            Event::RemovalAsked { .. } => {
                let known = &self.model.known[name];
                let doomed = known.old.as_ref().is_some_and(|old| known.versions[old].doomed);
                self.require(doomed, "I1", || format!("{name}: a removal is asked for without the intent"));
            }
            Event::Revoked { closure, .. } => self.closed_by_hand(issuer, name, *closure),
            _ => {}
        }
    }

    fn closed_by_hand(&mut self, issuer: &MemoryIssuer, name: &Name, closure: Closure) {
        let (now, wall) = (truly(self.at), self.wall());
        let known = &self.model.known[name];
        let Some(key) = known.old.as_ref().and_then(|old| known.versions.get(old)).map(|old| old.key.clone()) else {
            return self.broken("I5", format!("{name}: closed where there is no old key"));
        };
        let since = known.events.iter().rev().take_while(|event| !matches!(event, Event::Promoted { .. }));
        let since: Vec<&Event> = since.collect();
        let deadline = since.iter().find_map(|event| if let Event::RemovalAsked { deadline, .. } = event { Some(*deadline) } else { None });
        let lives = since.iter().find_map(|event| if let Event::RemovalSeen { alive, .. } = event { Some(*alive) } else { None });
        let (alive, asked) = (issuer.accepts(&key, now), known.asked.is_some());
        let answered = self.model.answering.as_ref() == Some(name);
        let in_time = deadline.is_some_and(|deadline| deadline <= wall) && lives != Some(true);
        match closure {
            Closure::Proved => {
                self.model.deeds.proved += 1;
                self.require(!alive, "I5", || format!("{name}: {key} lives and is said to be proved dead"));
            }
            Closure::Reported => {
                self.model.deeds.reported += 1;
                self.require(asked, "I5", || format!("{name}: nobody said that {key} is removed"));
            }
            Closure::Unproved => {
                self.model.deeds.unproved += 1;
                self.require(answered || in_time, "I5", || format!("{name}: {key} is given up before its time, by {deadline:?}"));
            }
        }
        // It may live on: that is the person's.
        if closure != Closure::Proved
            && let Some(known) = self.model.known.get_mut(name)
        {
            known.versions.values_mut().filter(|version| version.key == key).for_each(|version| version.left = true);
        }
    }
}
