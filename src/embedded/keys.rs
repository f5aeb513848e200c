//! What the file says of its keys: which one it is sealed with, what hashes are keyed with, and what opens the rows that a new
//! key hasn't reached yet.
//!
//! From the transaction that begins a rewrap, the new key opens everything, alone: the former one is in the file, sealed with
//! it, until no row needs it. Never the other way round: pages that are free again keep what was written in them, and who has
//! the former key must not find the new one there. So at each moment one of the two opens all there is.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::open::{OpenError, open_error};
use super::rows::{ALL_ROWS, At, Broken, CODE_LENGTH, EVENTS, Key, META, encode, load};
use crate::domain::material::Secret;
use crate::sealing::{Context, KeyError, Keyring, SealError, Sealed};

/// Sealed with the key of the file: tells whether a key is that one, and the file's format.
const CHECK: At<'static> = ("check", "", "");
/// What hashes are keyed with, sealed with the key of the file. Only where that isn't the first one.
const CODES: At<'static> = ("codes", "", "");
/// The former key, sealed with the new one, while rows are left that need it.
const RETIRING: At<'static> = ("retiring", "", "");
/// Which key came after the former one, and where it lies: sealed with the former one, so that nobody else can point a daemon
/// that starts with that at a key of his own. Until `key.file` holds the new one.
const SUCCESSOR: At<'static> = ("successor", "", "");
/// How far the last rewrap has come.
const REWRAP: At<'static> = ("rewrap", "", "");

/// Hashes are keyed from the key-encryption key.
const FORMAT_1: &str = "keywright embedded store, format 1";
/// They are keyed as the file says.
const FORMAT_2: &str = "keywright embedded store, format 2";

/// A new key in the place of another, and how far that has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rewrap {
    /// Ids of the former key and of the new one.
    pub(super) from: String,
    pub(super) to: String,
    /// Where the new key lies, or was made.
    pub(super) file: PathBuf,
    /// We made it, to take the place of the key file.
    pub(super) replaces: bool,
    pub(super) begun_at: Timestamp,
    pub(super) finished_at: Option<Timestamp>,
    /// The file was written anew since: no free page holds what the former key sealed.
    pub(super) is_clean: bool,
}

/// Where the new key is, for who has the former one.
#[derive(Debug, Serialize, Deserialize)]
struct Successor {
    to: String,
    file: PathBuf,
    begun_at: Timestamp,
}

/// The sealed rows of a file that isn't open yet.
struct Found {
    check: Option<Sealed>,
    codes: Option<Sealed>,
    retiring: Option<Sealed>,
    successor: Option<Sealed>,
    /// Unchecked: only to say more in an error.
    rewrap: Option<Rewrap>,
}

fn place(row: At<'static>) -> Context<'static> {
    Context { table: "meta", name: row.0, version: "", part: "" }
}

/// # Errors
/// [`SealError::Library`].
pub(super) fn first_check(keyring: &Keyring) -> Result<(At<'static>, Sealed), SealError> {
    Ok((CHECK, keyring.seal(&place(CHECK), &Secret::from(FORMAT_1.to_owned()))?))
}

/// All that opens this file, from the key of the key file: that key itself, or, where it is the former one, its successor.
///
/// # Errors
/// [`OpenError`]: another key, or not the one that is needed, or damage.
pub(super) fn unlock(database: &Database, file: &Path, key_file: &Path, configured: Keyring) -> Result<Keyring, OpenError> {
    let damaged = |what| OpenError::Damaged { file: file.to_owned(), what };
    let found = Found::read(database).map_err(|broken| open_error(file, broken))?;
    let check = found.check.clone().ok_or_else(|| damaged("its check record is missing"))?;
    let needed = check.key_id().ok_or_else(|| damaged("its check record was altered"))?;
    let keyring = if configured.id() == needed { configured } else { found.successor_of(&configured, &needed, file, key_file)? };
    let same = |text: &str, secret: &Secret| secret.same_as(&Secret::from(text.to_owned()));
    let keyring = match keyring.unseal(&place(CHECK), &check) {
        Ok(text) if same(FORMAT_1, &text) => keyring,
        Ok(text) if same(FORMAT_2, &text) => {
            let codes = found.codes.as_ref().ok_or_else(|| damaged("what its hashes are keyed with is missing"))?;
            let codes = keyring.unseal(&place(CODES), codes).and_then(|codes| keyring.with_codes(&codes));
            codes.map_err(|_| damaged("what its hashes are keyed with was altered"))?
        }
        Ok(_) => return Err(damaged("it was written by a newer Keywright")),
        Err(_) => return Err(damaged("its check record was altered")),
    };
    if let Some(retiring) = &found.retiring {
        let former = keyring.unseal(&place(RETIRING), retiring).and_then(|former| keyring.remember(&former));
        former.map_err(|_| damaged("the former key in it was altered"))?;
    }
    Ok(keyring)
}

impl Found {
    fn read(database: &Database) -> Result<Found, Broken> {
        let transaction = database.begin_read()?;
        for rows in ALL_ROWS {
            transaction.open_table(rows)?;
        }
        transaction.open_table(EVENTS)?;
        let meta = transaction.open_table(META)?;
        let bytes = |at: At<'static>| -> Result<Option<Vec<u8>>, Broken> { Ok(meta.get(at)?.map(|row| row.value().to_vec())) };
        let sealed = |at| -> Result<Option<Sealed>, Broken> { Ok(bytes(at)?.map(Sealed)) };
        let rewrap = bytes(REWRAP)?.and_then(|row| serde_json::from_slice(row.get(CODE_LENGTH..)?).ok());
        Ok(Found { check: sealed(CHECK)?, codes: sealed(CODES)?, retiring: sealed(RETIRING)?, successor: sealed(SUCCESSOR)?, rewrap })
    }

    fn successor_of(&self, configured: &Keyring, needed: &str, file: &Path, key_file: &Path) -> Result<Keyring, OpenError> {
        let since = self.rewrap.as_ref().filter(|rewrap| rewrap.to == needed).map(|rewrap| rewrap.begun_at);
        let wrong = |key_file: &Path, found: String| OpenError::WrongKey {
            file: file.to_owned(),
            key_file: key_file.to_owned(),
            needed: needed.to_owned(),
            found,
            since: Since(since),
        };
        let told = self.successor.as_ref().and_then(|sealed| configured.unseal(&place(SUCCESSOR), sealed).ok());
        let told = told.and_then(|told| serde_json::from_slice::<Successor>(told.expose()).ok()).filter(|told| told.to == needed);
        let Some(successor) = told else { return Err(wrong(key_file, configured.id())) };
        let new_key = lies_at(&successor.file, key_file);
        let keyring = Keyring::read(&new_key).map_err(|error| match error {
            KeyError::Missing { .. } => OpenError::NewKeyMissing {
                file: file.to_owned(),
                key_file: key_file.to_owned(),
                new_key: successor.file.clone(),
                needed: needed.to_owned(),
                begun_at: successor.begun_at,
            },
            error => OpenError::Key(error),
        })?;
        if keyring.id() == needed { Ok(keyring) } else { Err(wrong(&new_key, keyring.id())) }
    }
}

/// Where a new key is found: where it was made or named, or, when the folder was moved since, beside the key file.
pub(super) fn lies_at(file: &Path, key_file: &Path) -> PathBuf {
    let beside = file.file_name().map(|name| key_file.with_file_name(name));
    beside.filter(|beside| !file.exists() && beside.exists()).unwrap_or_else(|| file.to_owned())
}

/// Since when a store is under its key, where it had another one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since(Option<Timestamp>);

impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |at| write!(f, " since the rewrap of {at}"))
    }
}

/// From this transaction on `next` opens everything.
pub(super) fn begin(transaction: &WriteTransaction, keyring: &Keyring, next: &Keyring, rewrap: &Rewrap) -> Result<(), Broken> {
    let failed = |_| Broken::Row("the cryptographic library failed");
    let successor = Successor { to: rewrap.to.clone(), file: rewrap.file.clone(), begun_at: rewrap.begun_at };
    let successor = serde_json::to_string(&successor).map_err(|_| Broken::Row("the key file's path isn't text"))?;
    let row = encode(keyring, META, REWRAP, rewrap)?;
    let sealed = [
        (CHECK, next.seal(&place(CHECK), &Secret::from(FORMAT_2.to_owned()))),
        (CODES, next.seal(&place(CODES), &keyring.codes())),
        (RETIRING, next.seal(&place(RETIRING), &keyring.wrapping())),
        (SUCCESSOR, keyring.seal(&place(SUCCESSOR), &Secret::from(successor))),
    ];
    let sealed = sealed.map(|(at, sealed)| sealed.map(|sealed| (at, sealed)));
    let mut meta = transaction.open_table(META)?;
    for row in sealed.into_iter().collect::<Result<Vec<_>, _>>().map_err(failed)? {
        meta.insert(row.0, row.1.0.as_slice())?;
    }
    meta.insert(REWRAP, row.as_slice())?;
    Ok(())
}

pub(super) fn rewrap_of(meta: &impl ReadableTable<Key, &'static [u8]>, keyring: &Keyring) -> Result<Option<Rewrap>, Broken> {
    load(keyring, META, meta, REWRAP)
}

/// Whether the key file is still to hold the new key.
pub(super) fn awaits_key_file(meta: &impl ReadableTable<Key, &'static [u8]>) -> Result<bool, Broken> {
    Ok(meta.get(SUCCESSOR)?.is_some())
}

pub(super) fn put_rewrap(transaction: &WriteTransaction, keyring: &Keyring, rewrap: &Rewrap) -> Result<(), Broken> {
    transaction.open_table(META)?.insert(REWRAP, encode(keyring, META, REWRAP, rewrap)?.as_slice())?;
    Ok(())
}

/// No row needs the former key any more.
pub(super) fn finish(transaction: &WriteTransaction, keyring: &Keyring, rewrap: &Rewrap) -> Result<(), Broken> {
    put_rewrap(transaction, keyring, rewrap)?;
    transaction.open_table(META)?.remove(RETIRING)?;
    Ok(())
}

/// The key file holds the new key.
pub(super) fn settle(transaction: &WriteTransaction, keyring: &Keyring, rewrap: &Rewrap) -> Result<(), Broken> {
    put_rewrap(transaction, keyring, rewrap)?;
    transaction.open_table(META)?.remove(SUCCESSOR)?;
    Ok(())
}
