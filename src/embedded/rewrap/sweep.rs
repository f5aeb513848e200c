//! Seals anew what a former key sealed, so many rows in a transaction that those who read and write hardly notice.
//!
//! Each value is opened and sealed with a fresh data key: who knew the old data keys knows none of the new ones. Whatever is
//! written meanwhile is under the new key already, so one way through the tables meets all that is left.

use std::ops::Bound;

use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use crate::embedded::rows::{At, Broken, COPIES, Rows};
use crate::journal::embedded::reseal_copy;
use crate::sealing::{Keyring, Sealed};
use crate::stores::embedded::{PARTS, sealed_for};

/// In one transaction, at most.
const SEALED_MAX: usize = 64;
const SEALED_BYTES_MAX: usize = 1 << 20;
const LOOKED_AT_MAX: usize = 1024;

/// Where the next transaction goes on: a table, and the last row that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    table: usize,
    after: Option<[String; 3]>,
}

/// What one transaction did.
#[derive(Debug, Default)]
pub(super) struct Swept {
    pub(super) resealed: u64,
    /// Credentials whose rows don't open with the key that sealed them.
    pub(super) damaged: Vec<String>,
    /// `None` at the end.
    pub(super) next: Option<Cursor>,
}

/// The tables that hold sealed rows, in the order in which they are gone through.
fn tables() -> [Rows; 3] {
    [PARTS[0].1, PARTS[1].1, COPIES]
}

/// How many rows are sealed with a former key.
pub(super) fn count_left(transaction: &ReadTransaction, keyring: &Keyring) -> Result<u64, Broken> {
    let mut left = 0;
    for rows in tables() {
        for row in transaction.open_table(rows)?.iter()? {
            left += u64::from(keyring.is_former_key(row?.1.value()));
        }
    }
    Ok(left)
}

/// One transaction's worth.
pub(super) fn sweep(transaction: &WriteTransaction, keyring: &Keyring, from: &Cursor) -> Result<Swept, Broken> {
    let Some(rows) = tables().get(from.table).copied() else { return Ok(Swept::default()) };
    let (found, last) = look(transaction, keyring, rows, from)?;
    let next = match last {
        Some(after) => Cursor { table: from.table, after: Some(after) },
        None => Cursor { table: from.table + 1, after: None },
    };
    let mut swept = Swept { next: (next.table < tables().len()).then_some(next), ..Swept::default() };
    for (at, sealed) in found {
        let place = (at[0].as_str(), at[1].as_str(), at[2].as_str());
        match reseal(transaction, keyring, from.table, place, &sealed) {
            Ok(()) => swept.resealed += 1,
            Err(Broken::Row(_)) => swept.damaged.push(at[0].clone()),
            Err(broken) => return Err(broken),
        }
    }
    Ok(swept)
}

type Found = Vec<([String; 3], Sealed)>;

/// Rows under a former key from the cursor on, and the last row looked at unless the table ended.
fn look(transaction: &WriteTransaction, keyring: &Keyring, rows: Rows, from: &Cursor) -> Result<(Found, Option<[String; 3]>), Broken> {
    let table = transaction.open_table(rows)?;
    let after = from.after.as_ref().map(|at| (at[0].as_str(), at[1].as_str(), at[2].as_str()));
    let (mut found, mut bytes): (Found, usize) = (Vec::new(), 0);
    let range: (Bound<At<'_>>, Bound<At<'_>>) = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
    for (looked_at, row) in table.range::<At<'_>>(range)?.enumerate() {
        let (at, value) = row?;
        let (at, value) = (at.value(), value.value());
        let at = [at.0.to_owned(), at.1.to_owned(), at.2.to_owned()];
        if keyring.is_former_key(value) {
            bytes += value.len();
            found.push((at.clone(), Sealed(value.to_vec())));
        }
        if found.len() == SEALED_MAX || bytes >= SEALED_BYTES_MAX || looked_at + 1 == LOOKED_AT_MAX {
            return Ok((found, Some(at)));
        }
    }
    Ok((found, None))
}

fn reseal(transaction: &WriteTransaction, keyring: &Keyring, table: usize, at: At<'_>, sealed: &Sealed) -> Result<(), Broken> {
    let Some((_, rows)) = PARTS.get(table) else { return reseal_copy(transaction, keyring, at.0) };
    let anew = keyring.renew(&sealed_for(table, at), sealed).map_err(|_| Broken::Row("a value was altered"))?;
    if let Some(anew) = anew {
        transaction.open_table(*rows)?.insert(at, anew.0.as_slice())?;
    }
    Ok(())
}
