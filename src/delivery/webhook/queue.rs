//! What waits, what was told, and what was given up, of one application: one small file each, replaced as a whole.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::message::Message;
use crate::delivery::{CourierError, DeadLetter, Parcel};
use crate::domain::ids::{InstallationId, Name};

/// More than the messages of all credentials that an application can list.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
const UNREADABLE: CourierError =
    CourierError::Refused("what was sent to this application before can't be read: see `deliveries` in the data folder");
const UNWRITABLE: CourierError = CourierError::Unavailable("what is to be sent can't be written to the data folder");

/// The messages of one application. Each change makes a new one, which counts once it is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Queue {
    /// The newest revision of each credential that there was a message for.
    told: BTreeMap<Name, u64>,
    /// In order. At most one of each credential, beside the first.
    waiting: VecDeque<Message>,
    /// The last that was given up, of each credential, until a later one is accepted.
    dead: BTreeMap<Name, Dead>,
    /// The term in which it was worked on last; 0: none is known.
    #[serde(default)]
    term: u64,
    /// When this process began to lead after another one: from then on what had waited is tried as if it was new.
    taken_over_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dead {
    message: Message,
    given_up_at: Timestamp,
    reason: String,
}

impl Queue {
    pub(super) fn first(&self) -> Option<&Message> {
        self.waiting.front()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// As it stands in this term; `None` if it stood in it already. Where another process may have led since, that one may have sent
    /// newer messages, and these as well: what isn't the newest of its credential goes, though it was tried, and the rest has all its
    /// time again. Terms that follow on each other are a restart, which renews nothing.
    pub(super) fn with_tenure(&self, term: u64, parcels: &[Parcel], now: Timestamp) -> Option<Queue> {
        // 0: it doesn't lead any more, and the call comes to its end.
        if term == 0 || term == self.term {
            return None;
        }
        let mut queue = Queue { term, ..self.clone() };
        if self.term.checked_add(1) != Some(term) || self.term == 0 {
            queue.taken_over_at = Some(now);
            let newest_known = |credential: &Name| {
                let parcel = parcels.iter().find(|parcel| parcel.credential == *credential);
                parcel.map(|parcel| parcel.revision).max(self.told.get(credential).copied())
            };
            queue.waiting.retain(|message| newest_known(&message.credential).is_none_or(|newest| newest <= message.revision));
        }
        Some(queue)
    }

    /// With a message for each credential that is newer than what was told of it; `None` if none is.
    pub(super) fn with_changes(
        &self,
        installation: InstallationId,
        application: &Name,
        parcels: &[Parcel],
        now: Timestamp,
    ) -> Option<Queue> {
        let newer = |parcel: &&Parcel| self.told.get(&parcel.credential).is_none_or(|told| *told < parcel.revision);
        let mut grown: Option<Queue> = None;
        for parcel in parcels.iter().filter(newer) {
            let queue = grown.get_or_insert_with(|| self.clone());
            let message = Message::new(installation, application, parcel, now);
            queue.told.insert(parcel.credential.clone(), parcel.revision);
            match queue.waiting.iter_mut().find(|waiting| waiting.credential == parcel.credential && !waiting.tried) {
                Some(waiting) => *waiting = message,
                None => queue.waiting.push_back(message),
            }
        }
        grown
    }

    pub(super) fn with_first_tried(&self) -> Queue {
        let mut queue = self.clone();
        if let Some(first) = queue.waiting.front_mut() {
            first.tried = true;
        }
        queue
    }

    /// The first was accepted: what was given up of the same credential before is made good.
    pub(super) fn without_first(&self) -> Queue {
        let mut queue = self.clone();
        if let Some(accepted) = queue.waiting.pop_front() {
            queue.dead.remove(&accepted.credential);
        }
        queue
    }

    pub(super) fn with_first_dead(&self, now: Timestamp, reason: &str) -> Queue {
        let mut queue = self.clone();
        if let Some(message) = queue.waiting.pop_front() {
            queue.dead.insert(message.credential.clone(), Dead { message, given_up_at: now, reason: reason.to_owned() });
        }
        queue
    }

    /// Whether the first was tried for so long that it is given up. One that only waited behind others is tried once at least.
    pub(super) fn is_first_late(&self, now: Timestamp, give_up_after: Duration) -> bool {
        let since = |first: &Message| self.taken_over_at.map_or(first.noticed_at, |at| at.max(first.noticed_at));
        let waited = |first: &Message| Duration::try_from(now.duration_since(since(first))).unwrap_or_default();
        self.first().is_some_and(|first| first.tried && waited(first) >= give_up_after)
    }

    pub(super) fn dead_letters(&self) -> Vec<DeadLetter> {
        let letter = |dead: &Dead| DeadLetter {
            id: dead.message.id.clone(),
            credential: dead.message.credential.clone(),
            version: dead.message.version.clone(),
            revision: dead.message.revision,
            given_up_at: dead.given_up_at,
            reason: dead.reason.clone(),
        };
        self.dead.values().map(letter).collect()
    }
}

/// The folder with the queues. They hold names, versions and times: no address, no key, no value.
#[derive(Debug)]
pub(super) struct Queues {
    folder: PathBuf,
}

impl Queues {
    pub(super) fn new(folder: PathBuf) -> Queues {
        Queues { folder }
    }

    fn file(&self, application: &Name) -> PathBuf {
        self.folder.join(format!("{application}.webhook.json"))
    }

    /// Empty where there is none.
    pub(super) async fn load(&self, application: &Name) -> Result<Queue, CourierError> {
        let file = self.file(application);
        tokio::task::spawn_blocking(move || load(&file)).await.map_err(|_| UNREADABLE)?
    }

    /// Durable when it returns.
    pub(super) async fn store(&self, application: &Name, queue: &Queue) -> Result<(), CourierError> {
        let bytes = serde_json::to_vec(queue).map_err(|_| UNWRITABLE)?;
        let (folder, file) = (self.folder.clone(), self.file(application));
        let stored = tokio::task::spawn_blocking(move || store(&folder, &file, &bytes)).await;
        stored.map_err(|_| UNWRITABLE)?.map_err(|_| UNWRITABLE)
    }
}

fn load(file: &Path) -> Result<Queue, CourierError> {
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Queue::default()),
        Err(_) => return Err(UNREADABLE),
    };
    let mut bytes = Vec::new();
    opened.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|_| UNREADABLE)?;
    serde_json::from_slice(&bytes).map_err(|_| UNREADABLE)
}

fn store(folder: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => folder.parent().map_or(Ok(()), |around| File::open(around)?.sync_all())?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let fresh = file.with_extension("fresh");
    let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    opened.write_all(bytes)?;
    opened.sync_all()?;
    std::fs::rename(&fresh, file)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::courier_contract::{application, cargo};
    use crate::domain::delivery::Way;

    fn installation() -> InstallationId {
        InstallationId(uuid::Uuid::from_u128(7))
    }

    fn grown(queue: &Queue, what: &[(&str, u64)]) -> Option<Queue> {
        let application = application();
        let cargo = cargo(&application, Way::Webhook, what);
        queue.with_changes(installation(), &application.name, &cargo.parcels, cargo.now)
    }

    fn line(queue: &Queue) -> Vec<(String, u64)> {
        queue.waiting.iter().map(|message| (message.credential.to_string(), message.revision)).collect()
    }

    fn named(what: &[(&str, u64)]) -> Vec<(String, u64)> {
        what.iter().map(|(name, revision)| ((*name).to_owned(), *revision)).collect()
    }

    #[test]
    fn a_newer_change_takes_the_place_of_one_that_was_never_tried() {
        let queue = grown(&Queue::default(), &[("key", 1), ("other", 1)]).unwrap();
        assert_eq!(grown(&queue, &[("key", 1), ("other", 1)]), None, "nothing is new");
        assert_eq!(grown(&queue, &[("key", 0)]), None, "nobody goes back");
        assert_eq!(line(&grown(&queue, &[("other", 3)]).unwrap()), named(&[("key", 1), ("other", 3)]));
        let tried = queue.with_first_tried();
        let more = grown(&tried, &[("key", 2)]).unwrap();
        assert_eq!(line(&more), named(&[("key", 1), ("other", 1), ("key", 2)]), "what was tried stays");
        let most = grown(&more, &[("key", 9), ("other", 9)]).unwrap();
        assert_eq!(line(&most), named(&[("key", 1), ("other", 9), ("key", 9)]), "so the line never grows beyond one of each");
    }

    #[test]
    fn a_change_has_one_id_whoever_tells_of_it_and_when() {
        let id = |what: &[(&str, u64)]| grown(&Queue::default(), what).unwrap().first().unwrap().id.clone();
        assert_eq!(id(&[("key", 1)]), id(&[("key", 1)]));
        assert_ne!(id(&[("key", 1)]), id(&[("key", 2)]));
        assert_ne!(id(&[("key", 1)]), id(&[("other", 1)]));
    }

    #[test]
    fn one_that_only_waited_is_tried_before_it_is_given_up() {
        let queue = grown(&Queue::default(), &[("key", 1)]).unwrap();
        let at = |seconds: i64| queue.first().unwrap().noticed_at + jiff::SignedDuration::from_secs(seconds);
        let day = Duration::from_secs(60);
        assert!(!queue.is_first_late(at(600), day));
        let tried = queue.with_first_tried();
        assert!(!tried.is_first_late(at(59), day) && tried.is_first_late(at(60), day));
        assert!(!tried.is_first_late(at(-600), day), "a clock that was set back gives nothing up");
        let dead = tried.with_first_dead(at(60), "late");
        assert_eq!((dead.waiting(), dead.dead_letters().len()), (0, 1));
        let made_good = grown(&dead, &[("key", 2)]).unwrap().without_first();
        assert!(made_good.dead_letters().is_empty());
    }

    fn begun(queue: &Queue, term: u64, what: &[(&str, u64)], later: i64) -> Option<Queue> {
        let application = application();
        let cargo = cargo(&application, Way::Webhook, what);
        queue.with_tenure(term, &cargo.parcels, cargo.now + jiff::SignedDuration::from_secs(later))
    }

    #[test]
    fn who_leads_after_another_keeps_the_newest_only_and_tries_it_for_all_its_time() {
        let day = Duration::from_secs(60);
        let queue = begun(&Queue::default(), 3, &[], 0).unwrap();
        let queue = grown(&queue, &[("key", 1), ("other", 1)]).unwrap().with_first_tried();
        let queue = grown(&queue, &[("key", 2)]).unwrap();
        let noticed_at = queue.first().unwrap().noticed_at;
        let late = |queue: &Queue, seconds: i64| queue.is_first_late(noticed_at + jiff::SignedDuration::from_secs(seconds), day);
        for term in [3, 0] {
            assert_eq!(begun(&queue, term, &[("key", 9)], 100), None, "{term}");
        }
        let restarted = begun(&queue, 4, &[("key", 9)], 100).unwrap();
        assert_eq!(line(&restarted), line(&queue), "nobody led since, so what was tried stays");
        assert!(late(&restarted, 60), "and its time goes on");

        let again = begun(&queue, 5, &[("other", 1)], 100).unwrap();
        assert_eq!(line(&again), named(&[("other", 1), ("key", 2)]), "the newest that is known by the queue itself");
        let again = begun(&queue, 5, &[("key", 3), ("other", 1)], 100).unwrap();
        assert_eq!(line(&again), named(&[("other", 1)]), "or by what is to be delivered");
        assert_eq!(line(&grown(&again, &[("key", 3), ("other", 1)]).unwrap()), named(&[("other", 1), ("key", 3)]));
        let tried = again.with_first_tried();
        assert!(!late(&tried, 159) && late(&tried, 160), "its time begins anew when the term does");
        let restarted = begun(&tried, 6, &[], 150).unwrap();
        assert!(late(&restarted, 160), "and not again at a restart");
    }

    #[test]
    fn a_queue_of_no_known_term_is_taken_over() {
        let text = br#"{"told":{"key":1},"waiting":[],"dead":{}}"#;
        let queue: Queue = serde_json::from_slice(text).unwrap();
        assert_eq!((queue.term, queue.taken_over_at), (0, None));
        assert!(begun(&queue, 1, &[], 0).unwrap().taken_over_at.is_some());
    }

    #[test]
    fn it_is_kept_as_it_is_and_damage_is_no_empty_queue() {
        let folder = tempfile::tempdir().unwrap();
        let (around, file) = (folder.path().join("deliveries"), folder.path().join("deliveries/a.webhook.json"));
        assert_eq!(load(&file), Ok(Queue::default()));
        let queue = grown(&Queue::default(), &[("key", 1), ("other", 4)]).unwrap().with_first_dead(Timestamp::UNIX_EPOCH, "late");
        store(&around, &file, &serde_json::to_vec(&queue).unwrap()).unwrap();
        assert_eq!(load(&file), Ok(queue));
        std::fs::write(&file, b"{").unwrap();
        assert_eq!(load(&file), Err(UNREADABLE));
    }
}
