//! The journal of one credential as it stands in its object: pure, from parts and to parts.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

use super::objects::{Kind, Naming, Parts, WriteId, object, parts, state, with_state};
use crate::domain::ids::Name;
use crate::domain::ledger::Ledger;
use crate::domain::rotation::{Event, apply};
use crate::journal::{History, JournalError, Position};
use crate::sealing::{Keyring, Sealed};

/// One JSON object per line, the oldest first.
const EVENTS: &str = "events";
/// The sealed copy, in Base64.
const COPY: &str = "copy";
/// From this size on, in bytes, events are folded into a snapshot: also while a rotation is open, when the engine doesn't.
const FOLD_AT: usize = 512 << 10;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    position: Position,
    /// The highest term whose leader has written here, or has loaded it to lead.
    stamp: u64,
    /// The last writing.
    write: String,
}

/// An event, with the writing that appended it.
#[derive(Serialize, Deserialize)]
struct Line<E> {
    write: String,
    event: E,
}

/// What one object holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// The version of the object; `None` where there is none yet.
    pub(super) version: Option<String>,
    state: State,
    /// As they stand in the object, without line ends.
    lines: Vec<String>,
    copy: Option<Sealed>,
}

const OTHER_FORMAT: JournalError = JournalError::Damaged("a ConfigMap of it is of another format");

impl Record {
    pub(super) fn of(keyring: &Keyring, object: &ConfigMap) -> Result<Record, JournalError> {
        let parts = parts(keyring, object)?;
        let state = state(&parts)?;
        let lines = parts.get(EVENTS).ok_or(OTHER_FORMAT)?.lines().map(str::to_owned).collect();
        let copy = parts.get(COPY).map(|text| BASE64_STANDARD.decode(text).map(Sealed).map_err(|_| OTHER_FORMAT)).transpose()?;
        Ok(Record { version: object.metadata.resource_version.clone(), state, lines, copy })
    }

    pub(super) fn position(&self) -> Position {
        self.state.position
    }

    pub(super) fn stamp(&self) -> u64 {
        self.state.stamp
    }

    pub(super) fn events(&self) -> Result<Vec<Event>, JournalError> {
        let read = |line: &String| serde_json::from_str::<Line<Event>>(line).map(|line| line.event).map_err(|_| OTHER_FORMAT);
        self.lines.iter().map(read).collect()
    }

    pub(super) fn history(self) -> Result<History, JournalError> {
        Ok(History { position: self.state.position, events: self.events()?, sealed: self.copy })
    }

    fn ledger(&self) -> Result<Option<Ledger>, JournalError> {
        let folded = self.events()?.iter().try_fold(Ledger::default(), |ledger, event| apply(&ledger, event));
        Ok(folded.ok())
    }

    /// Whether whoever leads does nothing about it without an append of his own first.
    pub(super) fn is_at_rest(&self) -> Result<bool, JournalError> {
        Ok(self.ledger()?.is_some_and(|ledger| {
            let incident_is_open = ledger.incident.as_ref().is_some_and(|incident| incident.closed.is_none());
            let is_open = ledger.rotation.is_some() || ledger.request.is_some() || incident_is_open;
            !(is_open || ledger.clearing || ledger.unverified || !ledger.orphans.is_empty())
        }))
    }

    /// One more event.
    pub(super) fn push(&mut self, term: u64, event: &Event, id: &WriteId) -> Result<(), JournalError> {
        if self.lines.iter().map(String::len).sum::<usize>() > FOLD_AT
            && let Some(ledger) = self.ledger()?
        {
            self.lines = vec![line(&Event::Snapshot { ledger: Box::new(ledger) }, id)?];
        }
        self.lines.push(line(event, id)?);
        self.advance(term);
        Ok(())
    }

    /// One event in place of all.
    pub(super) fn replace(&mut self, term: u64, snapshot: &Event, id: &WriteId) -> Result<(), JournalError> {
        self.lines = vec![line(snapshot, id)?];
        self.advance(term);
        Ok(())
    }

    fn advance(&mut self, term: u64) {
        self.state.position = Position { term, revision: self.state.position.revision + 1 };
        self.state.stamp = term;
    }

    /// Nobody of a lower term writes here from now on.
    pub(super) fn claim(&mut self, term: u64) {
        self.state.stamp = term;
    }

    pub(super) fn keep_copy(&mut self, copy: Option<Sealed>) {
        self.copy = copy;
    }

    pub(super) fn to_object(&self, keyring: &Keyring, naming: &Naming, credential: &Name, id: &WriteId) -> Result<ConfigMap, JournalError> {
        let mut parts: Parts = with_state(&State { write: id.as_str().to_owned(), ..self.state.clone() })?;
        parts.insert(EVENTS.to_owned(), self.lines.join("\n"));
        if let Some(copy) = &self.copy {
            parts.insert(COPY.to_owned(), BASE64_STANDARD.encode(&copy.0));
        }
        object(keyring, naming, Kind::Credential, naming.credential(credential), self.version.clone(), parts)
    }
}

fn line(event: &Event, id: &WriteId) -> Result<String, JournalError> {
    serde_json::to_string(&Line { write: id.as_str().to_owned(), event })
        .map_err(|_| JournalError::Unavailable("an event can't be written"))
}
