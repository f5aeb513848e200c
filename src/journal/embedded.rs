//! The journal in the embedded file: events chained by keyed codes, so that one that is removed, altered or moved is noticed.
//!
//! A credential's head says where its chain begins and ends; head, event and sealed copy change in one transaction.

mod applications;

use std::time::Duration;

use async_trait::async_trait;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Changes, Cursor, Heartbeat, History, HoldingChange, Holdings, Journal, JournalError, Pause, Position, SealedCopy, copy_of};
use crate::domain::delivery::Way;
use crate::domain::dispatch::Dispatch;
use crate::domain::holders::Holding;
use crate::domain::ids::{InstallationId, Name, VersionId};
use crate::domain::launch::Launch;
use crate::domain::rotation::Event;
use crate::embedded::Embedded;
use crate::embedded::rows::{At, Broken, CODE_LENGTH, COPIES, EVENTS, HEADS, HOLDINGS, META, Rows, SEEN, decode, encode, load};
use crate::sealing::{Keyring, Sealed, sha256};

use applications::{dispatch_row, launch_row};

type Code = [u8; CODE_LENGTH];

const INSTALLATION: At<'static> = ("installation", "", "");
const FORMER: At<'static> = ("former-installations", "", "");
const TERM: At<'static> = ("term", "", "");
const PAUSE: At<'static> = ("pause", "", "");
const HEARTBEAT: At<'static> = ("heartbeat", "", "");

/// Events, holdings and the heartbeat in the embedded file.
#[derive(Debug, Clone)]
pub struct EmbeddedJournal {
    embedded: Embedded,
}

impl EmbeddedJournal {
    /// What belongs to no credential is the newest process's to write.
    async fn write_setting<T: Serialize + Send + Sync + 'static>(&self, term: u64, at: At<'_>, value: T) -> Result<(), JournalError> {
        let (kind, one, other) = (at.0.to_owned(), at.1.to_owned(), at.2.to_owned());
        let written = self.embedded.write(move |transaction, keyring| {
            let at = (kind.as_str(), one.as_str(), other.as_str());
            let mut meta = transaction.open_table(META)?;
            let highest: u64 = load(keyring, META, &meta, TERM)?.unwrap_or_default();
            if term < highest {
                return Ok(false);
            }
            meta.insert(at, encode(keyring, META, at, &value)?.as_slice())?;
            Ok(true)
        });
        if written.await? { Ok(()) } else { Err(JournalError::Deposed) }
    }
}

/// Which installation a store is, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `None` before the first start.
    pub installation: Option<InstallationId>,
    pub former: Vec<InstallationId>,
    /// The highest leadership term begun.
    pub term: u64,
    /// No credential has a journal.
    pub is_empty: bool,
}

/// Where the chain of one credential stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Head {
    position: Position,
    /// Index of the first event that is kept; the next one gets `next`.
    first: u64,
    next: u64,
    /// The code before the first event that is kept, and that of the last one.
    base: Code,
    last: Code,
    /// SHA-256 of the sealed copy, if there is one.
    copy: Option<[u8; 32]>,
}

impl From<Broken> for JournalError {
    fn from(broken: Broken) -> JournalError {
        match broken {
            Broken::Row(what) | Broken::File(what) => JournalError::Damaged(what),
            Broken::Away(what) => JournalError::Unavailable(what),
        }
    }
}

impl EmbeddedJournal {
    pub(crate) fn new(embedded: Embedded) -> EmbeddedJournal {
        EmbeddedJournal { embedded }
    }

    async fn push(
        &self,
        credential: &Name,
        expected: Position,
        term: u64,
        event: &Event,
        change: Change,
    ) -> Result<Position, JournalError> {
        let (name, bytes) = (credential.clone(), event_bytes(event)?);
        let pushed = self.embedded.write(move |transaction, keyring| push(transaction, keyring, &name, expected, term, &bytes, &change));
        pushed.await?.ok_or_else(|| JournalError::Conflict { credential: credential.clone() })
    }
}

/// What else an append changes.
pub(crate) enum Change {
    Append(SealedCopy),
    Compact,
}

#[async_trait]
impl Journal for EmbeddedJournal {
    async fn installation(&self) -> Result<InstallationId, JournalError> {
        let known = self.embedded.read(|transaction, keyring| load(keyring, META, &transaction.open_table(META)?, INSTALLATION)).await?;
        if let Some(installation) = known {
            return Ok(installation);
        }
        let made = self.embedded.write(|transaction, keyring| {
            let mut table = transaction.open_table(META)?;
            if let Some(installation) = load(keyring, META, &table, INSTALLATION)? {
                return Ok(installation);
            }
            let installation = InstallationId(Uuid::new_v4());
            table.insert(INSTALLATION, encode(keyring, META, INSTALLATION, &installation)?.as_slice())?;
            Ok(installation)
        });
        Ok(made.await?)
    }

    async fn former_installations(&self) -> Result<Vec<InstallationId>, JournalError> {
        let known = self.embedded.read(|transaction, keyring| load(keyring, META, &transaction.open_table(META)?, FORMER));
        Ok(known.await?.unwrap_or_default())
    }

    async fn begin_term(&self) -> Result<u64, JournalError> {
        let begun = self.embedded.write(|transaction, keyring| {
            let mut table = transaction.open_table(META)?;
            let highest: u64 = load(keyring, META, &table, TERM)?.unwrap_or_default();
            let term = highest.checked_add(1).ok_or(Broken::Row("the terms are used up"))?;
            table.insert(TERM, encode(keyring, META, TERM, &term)?.as_slice())?;
            Ok(term)
        });
        Ok(begun.await?)
    }

    async fn credentials(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, JournalError> {
        let after = after.cloned();
        let listed = self.embedded.read(move |transaction, _| {
            let table = transaction.open_table(HEADS)?;
            // Greater than the credential's own row, smaller than any longer name's.
            let from = after.as_ref().map_or(("", "", ""), |name| (name.as_str(), "~", ""));
            let names = table.range(from..)?.take(limit).map(|row| row?.0.value().0.parse().map_err(|_| Broken::Row("a name was altered")));
            names.collect::<Result<Vec<Name>, Broken>>()
        });
        Ok(listed.await?)
    }

    async fn load(&self, credential: &Name) -> Result<History, JournalError> {
        let name = credential.clone();
        Ok(self.embedded.read(move |transaction, keyring| history(transaction, keyring, &name)).await?)
    }

    async fn load_each(&self, credentials: &[Name]) -> Result<Vec<History>, JournalError> {
        let names = credentials.to_vec();
        let read = self.embedded.read(move |transaction, keyring| names.iter().map(|name| history(transaction, keyring, name)).collect());
        Ok(read.await?)
    }

    async fn append(
        &self,
        credential: &Name,
        expected: Position,
        term: u64,
        event: &Event,
        sealed: SealedCopy,
    ) -> Result<Position, JournalError> {
        self.push(credential, expected, term, event, Change::Append(sealed)).await
    }

    async fn compact(&self, credential: &Name, expected: Position, term: u64, snapshot: &Event) -> Result<Position, JournalError> {
        self.push(credential, expected, term, snapshot, Change::Compact).await
    }

    async fn holdings(&self) -> Result<Holdings, JournalError> {
        let read = self.embedded.read(|transaction, keyring| {
            Ok(Holdings { holdings: all(transaction, keyring, HOLDINGS)?, seen: all(transaction, keyring, SEEN)? })
        });
        Ok(read.await?)
    }

    async fn write_holdings(&self, term: u64, changes: &[HoldingChange]) -> Result<(), JournalError> {
        let Some(first) = changes.first() else { return Ok(()) };
        let deposed = JournalError::Conflict { credential: first.credential().clone() };
        let changes = changes.to_vec();
        let written = self.embedded.write(move |transaction, keyring| {
            let highest: u64 = load(keyring, META, &transaction.open_table(META)?, TERM)?.unwrap_or_default();
            if term < highest {
                return Ok(false);
            }
            let mut holdings = transaction.open_table(HOLDINGS)?;
            let mut seen = transaction.open_table(SEEN)?;
            for change in &changes {
                match change {
                    HoldingChange::Put(holding) => {
                        let at = holding_row(holding);
                        holdings.insert(at, encode(keyring, HOLDINGS, at, holding)?.as_slice())?;
                    }
                    HoldingChange::Remove { application, instance, credential } => {
                        holdings.remove((application.as_str(), instance.as_str(), credential.as_str()))?;
                    }
                    HoldingChange::Seen { application, credential } => {
                        let at = (application.as_str(), credential.as_str(), "");
                        seen.insert(at, encode(keyring, SEEN, at, &(application, credential))?.as_slice())?;
                    }
                }
            }
            Ok(true)
        });
        if written.await? { Ok(()) } else { Err(deposed) }
    }

    async fn heartbeat(&self) -> Result<Heartbeat, JournalError> {
        let read = self.embedded.read(|transaction, keyring| load(keyring, META, &transaction.open_table(META)?, HEARTBEAT));
        Ok(read.await?.unwrap_or_default())
    }

    async fn write_heartbeat(&self, term: u64, heartbeat: Heartbeat) -> Result<(), JournalError> {
        self.write_setting(term, HEARTBEAT, heartbeat).await
    }

    async fn pause(&self) -> Result<Option<Pause>, JournalError> {
        let read = self.embedded.read(|transaction, keyring| load(keyring, META, &transaction.open_table(META)?, PAUSE));
        Ok(read.await?.flatten())
    }

    async fn write_pause(&self, term: u64, pause: Option<Pause>) -> Result<(), JournalError> {
        self.write_setting(term, PAUSE, pause).await
    }

    async fn launches(&self) -> Result<Vec<(Name, Launch)>, JournalError> {
        self.read_launches().await
    }

    async fn write_launch(&self, term: u64, application: &Name, launch: &Launch) -> Result<(), JournalError> {
        self.write_setting(term, launch_row(application), launch.clone()).await
    }

    async fn dispatches(&self) -> Result<Vec<((Name, Way), Dispatch)>, JournalError> {
        self.read_dispatches().await
    }

    async fn write_dispatch(&self, term: u64, application: &Name, way: Way, dispatch: &Dispatch) -> Result<(), JournalError> {
        self.write_setting(term, dispatch_row(application, way), dispatch.clone()).await
    }

    /// The file is this process's alone.
    async fn changes(&self, since: &Cursor, wait: Duration) -> Result<Changes, JournalError> {
        if since.mark().is_none() {
            return Ok(Changes::everything(Cursor::at("alone".to_owned())));
        }
        tokio::time::sleep(wait).await;
        Ok(Changes::none(since))
    }
}

/// Makes a journal that came back from a backup one of its own: another installation, a higher term, and in each credential's
/// journal the note that what happened since isn't known. How many credentials there are.
///
/// The record that the audit trail had come to is forgotten where there is no trail that could still hold it.
pub(crate) fn renew(transaction: &WriteTransaction, keyring: &Keyring, has_trail: bool) -> Result<(InstallationId, usize), Broken> {
    let mut names: Vec<(Name, Position)> = Vec::new();
    for row in transaction.open_table(HEADS)?.iter()? {
        let (at, row) = row?;
        let head: Head = decode(keyring, HEADS, at.value(), row.value())?;
        names.push((at.value().0.parse().map_err(|_| Broken::Row("a name was altered"))?, head.position));
    }
    let installation = InstallationId(Uuid::new_v4());
    let term = {
        let mut meta = transaction.open_table(META)?;
        let mut former: Vec<InstallationId> = load(keyring, META, &meta, FORMER)?.unwrap_or_default();
        former.extend(load::<InstallationId>(keyring, META, &meta, INSTALLATION)?);
        meta.insert(FORMER, encode(keyring, META, FORMER, &former)?.as_slice())?;
        meta.insert(INSTALLATION, encode(keyring, META, INSTALLATION, &installation)?.as_slice())?;
        applications::forget_folders(&mut meta, keyring)?;
        if !has_trail {
            let heartbeat: Heartbeat = load(keyring, META, &meta, HEARTBEAT)?.unwrap_or_default();
            let heartbeat = Heartbeat { audit: None, ..heartbeat };
            meta.insert(HEARTBEAT, encode(keyring, META, HEARTBEAT, &heartbeat)?.as_slice())?;
        }
        let highest: u64 = load(keyring, META, &meta, TERM)?.unwrap_or_default();
        highest.checked_add(1).ok_or(Broken::Row("the terms are used up"))?
    };
    let bytes = event_bytes(&Event::Restored).map_err(|_| Broken::Row("an event can't be written"))?;
    for (name, position) in &names {
        push(transaction, keyring, name, *position, term, &bytes, &Change::Append(SealedCopy::Keep))?
            .ok_or(Broken::Row("a journal is ahead of the terms"))?;
    }
    Ok((installation, names.len()))
}

/// What a store says of itself, to be compared with what is remembered outside of it.
pub(crate) fn standing(transaction: &ReadTransaction, keyring: &Keyring) -> Result<Standing, Broken> {
    let meta = transaction.open_table(META)?;
    let is_empty = transaction.open_table(HEADS)?.is_empty()?;
    Ok(Standing {
        installation: load(keyring, META, &meta, INSTALLATION)?,
        former: load(keyring, META, &meta, FORMER)?.unwrap_or_default(),
        term: load(keyring, META, &meta, TERM)?.unwrap_or_default(),
        is_empty,
    })
}

pub(crate) fn event_bytes(event: &Event) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(event).map_err(|_| JournalError::Unavailable("an event can't be written"))
}

fn holding_row(holding: &Holding) -> At<'_> {
    (holding.application.as_str(), holding.instance.as_str(), holding.credential.as_str())
}

fn all<T: serde::de::DeserializeOwned>(transaction: &ReadTransaction, keyring: &Keyring, rows: Rows) -> Result<Vec<T>, Broken> {
    let table = transaction.open_table(rows)?;
    let each = table.iter()?.map(|row| {
        let (at, row) = row?;
        decode(keyring, rows, at.value(), row.value())
    });
    each.collect()
}

/// The code of one event: over its place, the code before it, and its bytes.
fn code_of(keyring: &Keyring, credential: &str, index: u64, before: &Code, bytes: &[u8]) -> Code {
    keyring.row_code(&[b"events", credential.as_bytes(), &index.to_be_bytes(), before, bytes])
}

/// Everything is looked at before anything is written; `None` is a conflict. For the embedded store, too, which moves a stage in
/// the same transaction.
pub(crate) fn push(
    transaction: &WriteTransaction,
    keyring: &Keyring,
    credential: &Name,
    expected: Position,
    term: u64,
    bytes: &[u8],
    asked: &Change,
) -> Result<Option<Position>, Broken> {
    let name = credential.as_str();
    let at = (name, "", "");
    let (mut meta, mut heads) = (transaction.open_table(META)?, transaction.open_table(HEADS)?);
    let highest: u64 = load(keyring, META, &meta, TERM)?.unwrap_or_default();
    let mut head: Head = load(keyring, HEADS, &heads, at)?.unwrap_or_default();
    if head.position != expected || term < highest {
        return Ok(None);
    }
    let code = code_of(keyring, name, head.next, &head.last, bytes);
    let mut events = transaction.open_table(EVENTS)?;
    // A new key may have come since the copy was sealed: nothing is written under a former one.
    let anew = match asked {
        Change::Append(SealedCopy::Put(copy)) if keyring.is_former_key(&copy.0) => {
            Some(renewed(keyring, credential, &chain(&events, keyring, name, &head)?, copy)?)
        }
        _ => None,
    };
    let change = anew.map(|copy| Change::Append(SealedCopy::Put(copy)));
    let change = change.as_ref().unwrap_or(asked);
    let first = head.first;
    if matches!(change, Change::Compact) {
        (head.base, head.first) = (head.last, head.next);
    }
    (head.last, head.next) = (code, head.next + 1);
    head.position = Position { term, revision: expected.revision + 1 };
    match change {
        Change::Append(SealedCopy::Put(copy)) => head.copy = Some(sha256(&copy.0)),
        Change::Append(SealedCopy::Erase) => head.copy = None,
        Change::Append(SealedCopy::Keep) | Change::Compact => {}
    }
    let row = encode(keyring, HEADS, at, &head)?;
    let highest_row = encode(keyring, META, TERM, &term)?;
    heads.insert(at, row.as_slice())?;
    if term > highest {
        meta.insert(TERM, highest_row.as_slice())?;
    }
    if first < head.first {
        events.retain_in((name, first)..(name, head.first), |_, _| false)?;
    }
    events.insert((name, head.next - 1), [code.as_slice(), bytes].concat().as_slice())?;
    write_copy(transaction, at, change)?;
    Ok(Some(head.position))
}

fn write_copy(transaction: &WriteTransaction, at: At<'_>, change: &Change) -> Result<(), Broken> {
    match change {
        Change::Append(SealedCopy::Put(copy)) => drop(transaction.open_table(COPIES)?.insert(at, copy.0.as_slice())?),
        Change::Append(SealedCopy::Erase) => drop(transaction.open_table(COPIES)?.remove(at)?),
        Change::Append(SealedCopy::Keep) | Change::Compact => {}
    }
    Ok(())
}

/// Seals the copy of a credential anew, where a former key sealed it. Its head tells the copy from others, so it changes too.
pub(crate) fn reseal_copy(transaction: &WriteTransaction, keyring: &Keyring, credential: &str) -> Result<(), Broken> {
    let at = (credential, "", "");
    let name: Name = credential.parse().map_err(|_| Broken::Row("a name was altered"))?;
    let (mut copies, mut heads) = (transaction.open_table(COPIES)?, transaction.open_table(HEADS)?);
    let copy = copies.get(at)?.map(|row| Sealed(row.value().to_vec()));
    let head: Option<Head> = load(keyring, HEADS, &heads, at)?;
    let (Some(copy), Some(mut head)) = (copy, head) else { return Err(Broken::Row("a sealed copy has no head")) };
    if head.copy != Some(sha256(&copy.0)) {
        return Err(Broken::Row("a sealed copy isn't the one that was written"));
    }
    let events = chain(&transaction.open_table(EVENTS)?, keyring, credential, &head)?;
    let anew = renewed(keyring, &name, &events, &copy)?;
    head.copy = Some(sha256(&anew.0));
    let row = encode(keyring, HEADS, at, &head)?;
    heads.insert(at, row.as_slice())?;
    copies.insert(at, anew.0.as_slice())?;
    Ok(())
}

/// A copy is sealed for its version, which only the events name: it opens for one of those, or for none.
pub(super) fn renewed(keyring: &Keyring, credential: &Name, events: &[Event], copy: &Sealed) -> Result<Sealed, Broken> {
    let versions = events.iter().rev().flat_map(versions_named);
    let mut opened = versions.filter_map(|version| keyring.renew(&copy_of(credential, version), copy).ok().flatten());
    opened.next().ok_or(Broken::Row("a sealed copy was altered"))
}

fn versions_named(event: &Event) -> Vec<&VersionId> {
    match event {
        Event::Planned { plan } | Event::RollbackPlanned { plan } => vec![&plan.version],
        Event::CreateIntended { version, .. } => vec![version],
        Event::Snapshot { ledger } => {
            let open = std::iter::successors(ledger.rotation.as_deref(), |rotation| rotation.turned.as_deref());
            open.map(|rotation| &rotation.version).chain(ledger.versions.keys()).collect()
        }
        _ => Vec::new(),
    }
}

fn history(transaction: &ReadTransaction, keyring: &Keyring, credential: &Name) -> Result<History, Broken> {
    let name = credential.as_str();
    let at = (name, "", "");
    let head: Option<Head> = load(keyring, HEADS, &transaction.open_table(HEADS)?, at)?;
    let known = head.is_some();
    let head = head.unwrap_or_default();
    let events = chain(&transaction.open_table(EVENTS)?, keyring, name, &head)?;
    if !known && !events.is_empty() {
        return Err(Broken::Row("events have no head"));
    }
    let copy = transaction.open_table(COPIES)?.get(at)?.map(|row| row.value().to_vec());
    if copy.as_deref().map(sha256) != head.copy {
        return Err(Broken::Row("a sealed copy isn't the one that was written"));
    }
    Ok(History { position: head.position, events, sealed: copy.map(Sealed) })
}

/// Walks the chain: each event must be the next one, with the code that follows from all before it.
fn chain(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    keyring: &Keyring,
    name: &str,
    head: &Head,
) -> Result<Vec<Event>, Broken> {
    const BROKEN: Broken = Broken::Row("an event was removed, altered or moved");
    let mut events = Vec::new();
    let (mut index, mut last) = (head.first, head.base);
    for row in table.range((name, 0)..=(name, u64::MAX))? {
        let (key, row) = row?;
        let (code, bytes) = row.value().split_at_checked(CODE_LENGTH).ok_or(BROKEN)?;
        last = code_of(keyring, name, index, &last, bytes);
        if key.value().1 != index || code != last {
            return Err(BROKEN);
        }
        events.push(serde_json::from_slice(bytes).map_err(|_| Broken::Row("an event is of another format"))?);
        index += 1;
    }
    if index == head.next && last == head.last { Ok(events) } else { Err(BROKEN) }
}
