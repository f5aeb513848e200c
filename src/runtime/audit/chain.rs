//! Reads the trail: all of it for `audit verify`, its end for a start.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::record::{Flaw, Head, LINE_BYTES_MAX, read_alone, read_next};

/// What a whole, unbroken trail holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub records: u64,
    /// Bytes of a last line without its newline: no record; the next start removes them, and records that.
    pub torn_bytes: u64,
}

/// The first place where the trail isn't what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {record}: {reason}")]
pub struct Broken {
    /// Number of the record that should stand there, counted from 1.
    pub record: u64,
    pub reason: Flaw,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the audit file can't be read: {0}")]
    Unreadable(io::ErrorKind),
}

impl From<io::Error> for VerifyError {
    fn from(error: io::Error) -> VerifyError {
        VerifyError::Unreadable(error.kind())
    }
}

/// Checks the whole chain, offline. `anchor` is a head that is remembered elsewhere: without one, nobody can see that
/// records are missing from the end, or that the whole trail was written anew.
///
/// # Errors
/// [`VerifyError::Broken`] names the first broken record.
pub fn verify(path: &Path, anchor: Option<&Head>) -> Result<Verified, VerifyError> {
    let mut reader = BufReader::with_capacity(LINE_BYTES_MAX, File::open(path)?);
    let mut head = Head::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        let broken = |reason| Broken { record: head.seq.saturating_add(1), reason };
        let Some(record) = line.strip_suffix(b"\n") else {
            let torn_bytes = read as u64 + io::copy(&mut reader.by_ref(), &mut NewlineRefused).map_err(|_| broken(Flaw::TooLong))?;
            let missing = anchor.filter(|anchor| anchor.seq > head.seq);
            if missing.is_some() {
                return Err(broken(Flaw::Missing).into());
            }
            return Ok(Verified { records: head.seq, torn_bytes });
        };
        head = read_next(&head, record).map_err(broken)?;
        if anchor.is_some_and(|anchor| anchor.seq == head.seq && anchor.hash != head.hash) {
            return Err(Broken { record: head.seq, reason: Flaw::NotAnchored }.into());
        }
    }
}

/// Swallows the rest of a line that is too long for a record; fails if it turns out to be a complete one.
struct NewlineRefused;

impl io::Write for NewlineRefused {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.contains(&b'\n') { Err(io::ErrorKind::InvalidData.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end of the trail, as a start finds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) head: Head,
    /// Length of the file up to the last newline.
    pub(super) whole_bytes: u64,
    /// What stands behind it.
    pub(super) torn_bytes: u64,
}

/// Reads the last record, and checks it against itself and against the one before it. The rest of the chain is `verify`'s: a
/// start must not take longer with each year of records.
pub(super) fn tail(file: &mut File) -> Result<Tail, VerifyError> {
    let length = file.seek(SeekFrom::End(0))?;
    let Some(last_newline) = newline_before(file, length)? else {
        return Ok(Tail { head: Head::default(), whole_bytes: 0, torn_bytes: length });
    };
    let whole_bytes = last_newline + 1;
    let last_start = newline_before(file, last_newline)?.map_or(0, |newline| newline + 1);
    let (head, prev) = read_line(file, last_start, last_newline)?;
    let before = if last_start == 0 {
        Head::default()
    } else {
        let end = last_start - 1;
        let start = newline_before(file, end)?.map_or(0, |newline| newline + 1);
        read_line(file, start, end)?.0
    };
    if before.seq.checked_add(1) != Some(head.seq) {
        return Err(Broken { record: before.seq.saturating_add(1), reason: Flaw::OutOfOrder { found: head.seq } }.into());
    }
    if prev != before.hash {
        return Err(Broken { record: head.seq, reason: Flaw::Unchained }.into());
    }
    Ok(Tail { head, whole_bytes, torn_bytes: length - whole_bytes })
}

/// Place of the last newline before `end`.
fn newline_before(file: &mut File, mut end: u64) -> io::Result<Option<u64>> {
    let mut chunk = vec![0; LINE_BYTES_MAX];
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let size = usize::try_from(end - start).unwrap_or(chunk.len());
        let bytes = &mut chunk[..size];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(bytes)?;
        if let Some(place) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(Some(start + place as u64));
        }
        end = start;
    }
    Ok(None)
}

fn read_line(file: &mut File, start: u64, end: u64) -> Result<(Head, String), VerifyError> {
    // A damaged record can't be trusted to say its number, so it is found by counting: slow, and only on the way to a refusal.
    let size = usize::try_from(end - start).ok().filter(|size| *size < LINE_BYTES_MAX);
    let Some(size) = size else { return Err(Broken { record: line_number(file, start)?, reason: Flaw::TooLong }.into()) };
    let mut line = vec![0; size];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut line)?;
    match read_alone(&line) {
        Ok(read) => Ok(read),
        Err(reason) => Err(Broken { record: line_number(file, start)?, reason }.into()),
    }
}

fn line_number(file: &mut File, start: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(file.take(start));
    let mut number = 1;
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(number);
        }
        number += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let size = bytes.len();
        reader.consume(size);
    }
}
