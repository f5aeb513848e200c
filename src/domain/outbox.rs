//! Messages to one application: what waits, what was told of, and what was given up. What sends them is `delivery::webhook`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::credential::Environment;
use super::ids::{InstallationId, Name, VersionId};

/// A version of a credential that an application is to be told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub credential: Name,
    pub environment: Environment,
    pub version: VersionId,
    /// Grows with each change that the application can see.
    pub revision: u64,
}

/// A change that an application is told of: the same on each try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// A function of installation, application, credential and revision, so that nobody sends one change under two ids.
    pub id: String,
    pub subject: Subject,
    /// When the change was noticed: it stands in the body.
    pub noticed_at: Timestamp,
    /// Its receiver may know it.
    pub tried: bool,
}

impl Message {
    fn new(installation: InstallationId, application: &Name, subject: Subject, now: Timestamp) -> Message {
        let what = format!("keywright-webhook\n{}\n{application}\n{}\n{}", installation.0, subject.credential, subject.revision);
        let id = format!("msg_{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, what.as_bytes()).simple());
        Message { id, subject, noticed_at: now, tried: false }
    }
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DeadLetter {
    /// The message's own id, the same on each try.
    pub id: String,
    pub credential: Name,
    pub version: VersionId,
    pub revision: u64,
    pub given_up_at: Timestamp,
    /// In the daemon's own words: nothing of an answer or an address.
    pub reason: String,
}

/// The messages of one application. Each change makes a new one, which counts once it is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    /// The newest revision of each credential that there was a message for.
    told: BTreeMap<Name, u64>,
    /// In order. At most one of each credential, beside the first.
    waiting: VecDeque<Message>,
    /// The last that was given up, of each credential, until a later one is accepted.
    dead: BTreeMap<Name, Dead>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Dead {
    message: Message,
    given_up_at: Timestamp,
    reason: String,
}

impl Outbox {
    pub fn first(&self) -> Option<&Message> {
        self.waiting.front()
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// With a message for each credential that is newer than what was told of it; `None` if none is. A newer change takes the place of
    /// a waiting one that was never tried; what was tried stays, because its receiver may know it.
    pub fn with_changes(
        &self,
        installation: InstallationId,
        application: &Name,
        subjects: impl IntoIterator<Item = Subject>,
        now: Timestamp,
    ) -> Option<Outbox> {
        let newer = |subject: &Subject| self.told.get(&subject.credential).is_none_or(|told| *told < subject.revision);
        let mut grown: Option<Outbox> = None;
        for subject in subjects.into_iter().filter(newer) {
            let outbox = grown.get_or_insert_with(|| self.clone());
            outbox.told.insert(subject.credential.clone(), subject.revision);
            let credential = subject.credential.clone();
            let message = Message::new(installation, application, subject, now);
            match outbox.waiting.iter_mut().find(|waiting| waiting.subject.credential == credential && !waiting.tried) {
                Some(waiting) => *waiting = message,
                None => outbox.waiting.push_back(message),
            }
        }
        grown
    }

    pub fn with_first_tried(&self) -> Outbox {
        let mut outbox = self.clone();
        if let Some(first) = outbox.waiting.front_mut() {
            first.tried = true;
        }
        outbox
    }

    /// The first was accepted: what was given up of the same credential before is made good.
    pub fn without_first(&self) -> Outbox {
        let mut outbox = self.clone();
        if let Some(accepted) = outbox.waiting.pop_front() {
            outbox.dead.remove(&accepted.subject.credential);
        }
        outbox
    }

    pub fn with_first_dead(&self, now: Timestamp, reason: &str) -> Outbox {
        let mut outbox = self.clone();
        if let Some(message) = outbox.waiting.pop_front() {
            let dead = Dead { message, given_up_at: now, reason: reason.to_owned() };
            outbox.dead.insert(dead.message.subject.credential.clone(), dead);
        }
        outbox
    }

    /// Whether the first was tried for so long that it is given up. One that only waited behind others is tried once at least.
    pub fn is_first_late(&self, now: Timestamp, give_up_after: Duration) -> bool {
        let waited = |first: &Message| Duration::try_from(now.duration_since(first.noticed_at)).unwrap_or_default();
        self.first().is_some_and(|first| first.tried && waited(first) >= give_up_after)
    }

    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let letter = |dead: &Dead| {
            let Message { id, subject, .. } = dead.message.clone();
            let Subject { credential, version, revision, .. } = subject;
            DeadLetter { id, credential, version, revision, given_up_at: dead.given_up_at, reason: dead.reason.clone() }
        };
        self.dead.values().map(letter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(60);

    fn now() -> Timestamp {
        "2026-11-22T03:00:00Z".parse().unwrap()
    }

    fn subject(credential: &str, revision: u64) -> Subject {
        let version = format!("v{revision}").parse().unwrap();
        Subject { credential: credential.parse().unwrap(), environment: Environment::Sandbox, version, revision }
    }

    fn grown(outbox: &Outbox, what: &[(&str, u64)]) -> Option<Outbox> {
        let subjects = what.iter().map(|(credential, revision)| subject(credential, *revision));
        outbox.with_changes(InstallationId(Uuid::from_u128(7)), &"payments-api".parse().unwrap(), subjects, now())
    }

    fn line(outbox: &Outbox) -> Vec<(&str, u64)> {
        outbox.waiting.iter().map(|message| (message.subject.credential.as_str(), message.subject.revision)).collect()
    }

    #[test]
    fn a_newer_change_takes_the_place_of_one_that_was_never_tried() {
        let outbox = grown(&Outbox::default(), &[("key", 1), ("other", 1)]).unwrap();
        assert_eq!(grown(&outbox, &[("key", 1), ("other", 1)]), None, "nothing is new");
        assert_eq!(grown(&outbox, &[("key", 0)]), None, "nobody goes back");
        assert_eq!(line(&grown(&outbox, &[("other", 3)]).unwrap()), [("key", 1), ("other", 3)]);
        let tried = outbox.with_first_tried();
        let more = grown(&tried, &[("key", 2)]).unwrap();
        assert_eq!(line(&more), [("key", 1), ("other", 1), ("key", 2)], "what was tried stays");
        let most = grown(&more, &[("key", 9), ("other", 9)]).unwrap();
        assert_eq!(line(&most), [("key", 1), ("other", 9), ("key", 9)], "so the line never grows beyond one of each");
    }

    #[test]
    fn a_change_has_one_id_whoever_tells_of_it_and_when() {
        let id = |what: &[(&str, u64)]| grown(&Outbox::default(), what).unwrap().first().unwrap().id.clone();
        assert_eq!(id(&[("key", 1)]), id(&[("key", 1)]));
        assert_ne!(id(&[("key", 1)]), id(&[("key", 2)]));
        assert_ne!(id(&[("key", 1)]), id(&[("other", 1)]));
    }

    #[test]
    fn one_that_only_waited_is_tried_before_it_is_given_up() {
        let outbox = grown(&Outbox::default(), &[("key", 1)]).unwrap();
        let at = |seconds: i64| now() + jiff::SignedDuration::from_secs(seconds);
        assert!(!outbox.is_first_late(at(600), DAY));
        let tried = outbox.with_first_tried();
        assert!(!tried.is_first_late(at(59), DAY) && tried.is_first_late(at(60), DAY));
        assert!(!tried.is_first_late(at(-600), DAY), "a clock that was set back gives nothing up");
        let dead = tried.with_first_dead(at(60), "late");
        assert_eq!((dead.waiting(), dead.dead_letters().len()), (0, 1));
        let made_good = grown(&dead, &[("key", 2)]).unwrap().without_first();
        assert!(made_good.dead_letters().is_empty());
    }

    #[test]
    fn it_is_written_and_read_as_it_is_and_tells_no_more_than_names_and_times() {
        let outbox = grown(&Outbox::default(), &[("key", 1), ("other", 4)]).unwrap().with_first_dead(now(), "late");
        let text = serde_json::to_string(&outbox).unwrap();
        assert_eq!(serde_json::from_str::<Outbox>(&text).unwrap(), outbox);
        assert!(text.len() < 800, "{text}");
    }
}
