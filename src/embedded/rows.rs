//! The tables of the file, and rows in clear that carry a code: a row that was altered, or moved to another key, isn't believed.

use redb::{ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sealing::Keyring;

/// All tables but the events have one kind of key: three words, the last ones empty where fewer are needed.
pub(crate) type Key = (&'static str, &'static str, &'static str);
pub(crate) type Rows = TableDefinition<'static, Key, &'static [u8]>;
pub(crate) type At<'a> = (&'a str, &'a str, &'a str);

/// (credential, environment): stages, and which versions there are.
pub(crate) const SLOTS: Rows = TableDefinition::new("slots");
/// (credential, environment, version): what native readers would see, sealed.
pub(crate) const VERSIONS: Rows = TableDefinition::new("versions");
/// (credential, environment, version): the fields of class `management`, sealed.
pub(crate) const MANAGEMENT: Rows = TableDefinition::new("management");
/// (credential): where its journal stands.
pub(crate) const HEADS: Rows = TableDefinition::new("heads");
/// (credential): the sealed copy of a minted reply.
pub(crate) const COPIES: Rows = TableDefinition::new("copies");
/// (application, instance, credential).
pub(crate) const HOLDINGS: Rows = TableDefinition::new("holdings");
/// (application, credential).
pub(crate) const SEEN: Rows = TableDefinition::new("seen");
/// (what), or (what, application).
pub(crate) const META: Rows = TableDefinition::new("meta");
/// (credential, index): a code over the event and the code of the one before, then the event.
pub(crate) const EVENTS: TableDefinition<'static, (&'static str, u64), &'static [u8]> = TableDefinition::new("events");

pub(crate) const ALL_ROWS: [Rows; 8] = [SLOTS, VERSIONS, MANAGEMENT, HEADS, COPIES, HOLDINGS, SEEN, META];

pub(crate) const CODE_LENGTH: usize = 32;

/// Why an operation on the file didn't come to an answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// One row isn't what was written: the operation is refused, others go on.
    Row(&'static str),
    /// The file isn't what was written.
    File(&'static str),
    /// The disk, or the file, doesn't answer.
    Away(&'static str),
}

const CORRUPTED: Broken = Broken::File("the file is corrupted");

impl From<redb::StorageError> for Broken {
    fn from(error: redb::StorageError) -> Broken {
        match error {
            redb::StorageError::Corrupted(_) => CORRUPTED,
            redb::StorageError::ValueTooLarge(_) => Broken::Away("a row is too large"),
            redb::StorageError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Broken::File("the file ends too early"),
            redb::StorageError::Io(_) => Broken::Away("the disk answers with an error: is it full?"),
            redb::StorageError::PreviousIo => Broken::Away("the disk answered with an error before: restart the daemon"),
            _ => Broken::Away("the file is closed"),
        }
    }
}

impl From<redb::TableError> for Broken {
    fn from(error: redb::TableError) -> Broken {
        match error {
            redb::TableError::Storage(error) => error.into(),
            _ => Broken::File("a table is missing or of another kind"),
        }
    }
}

impl From<redb::TransactionError> for Broken {
    fn from(error: redb::TransactionError) -> Broken {
        match error {
            redb::TransactionError::Storage(error) => error.into(),
            _ => Broken::Away("no transaction can begin"),
        }
    }
}

impl From<redb::CommitError> for Broken {
    fn from(error: redb::CommitError) -> Broken {
        match error {
            redb::CommitError::Storage(error) => error.into(),
            _ => Broken::Away("the transaction can't be committed"),
        }
    }
}

/// The row as text and structure, if there is one and its code is right.
pub(crate) fn load<T: DeserializeOwned>(
    keyring: &Keyring,
    rows: Rows,
    table: &impl ReadableTable<Key, &'static [u8]>,
    at: At<'_>,
) -> Result<Option<T>, Broken> {
    let Some(row) = table.get(at)? else { return Ok(None) };
    decode(keyring, rows, at, row.value()).map(Some)
}

/// # Errors
/// [`Broken::Row`] if the code is wrong.
pub(crate) fn decode<T: DeserializeOwned>(keyring: &Keyring, rows: Rows, at: At<'_>, row: &[u8]) -> Result<T, Broken> {
    let (code, payload) = row.split_at_checked(CODE_LENGTH).ok_or(Broken::Row("a row is too short"))?;
    if code != code_of(keyring, rows, at, payload) {
        return Err(Broken::Row("a row was altered"));
    }
    serde_json::from_slice(payload).map_err(|_| Broken::Row("a row is of another format"))
}

pub(crate) fn encode<T: Serialize>(keyring: &Keyring, rows: Rows, at: At<'_>, value: &T) -> Result<Vec<u8>, Broken> {
    let payload = serde_json::to_vec(value).map_err(|_| Broken::Row("a row can't be written"))?;
    let mut row = code_of(keyring, rows, at, &payload).to_vec();
    row.extend_from_slice(&payload);
    Ok(row)
}

fn code_of(keyring: &Keyring, rows: Rows, at: At<'_>, payload: &[u8]) -> [u8; CODE_LENGTH] {
    use redb::TableHandle;
    keyring.row_code(&[rows.name().as_bytes(), at.0.as_bytes(), at.1.as_bytes(), at.2.as_bytes(), payload])
}
