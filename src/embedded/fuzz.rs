//! Rows of the file that were changed: each is what was written for its very place, or damage; nothing else ever comes out.

use redb::{ReadableDatabase, ReadableTable, TableHandle};
use serde_json::Value;

use super::Embedded;
use super::rows::{ALL_ROWS, Broken, CODE_LENGTH, EVENTS, HEADS, HOLDINGS, META, Rows, SEEN, SLOTS, decode};
use super::tests::{Fresh, fill, whole_or_damaged};
use crate::fuzz::{JSON, Judged, Target, Verdict, broken};
use crate::journal::Position;

/// One row as it lies in the file.
#[derive(Clone)]
struct Row {
    /// In [`ALL_ROWS`]; `None` for an event.
    table: Option<Rows>,
    at: [String; 3],
    index: u64,
    bytes: Vec<u8>,
}

impl Row {
    fn at(&self) -> (&str, &str, &str) {
        (&self.at[0], &self.at[1], &self.at[2])
    }

    fn is_of(&self, rows: &Rows) -> bool {
        self.table.is_some_and(|table| table.name() == rows.name())
    }

    /// Whether it is text behind a code. What tells the right key from others is sealed.
    fn is_coded(&self) -> bool {
        self.at[0] != "check" && [SLOTS, HEADS, HOLDINGS, SEEN, META].iter().any(|table| self.is_of(table))
    }
}

fn rows_of(embedded: &Embedded) -> Vec<Row> {
    let reading = embedded.database.begin_read().unwrap();
    let mut rows = Vec::new();
    for table in ALL_ROWS {
        for row in reading.open_table(table).unwrap().iter().unwrap() {
            let (at, bytes) = row.unwrap();
            let (one, two, three) = at.value();
            let at = [one, two, three].map(str::to_owned);
            rows.push(Row { table: Some(table), at, index: 0, bytes: bytes.value().to_vec() });
        }
    }
    for row in reading.open_table(EVENTS).unwrap().iter().unwrap() {
        let (at, bytes) = row.unwrap();
        let (name, index) = at.value();
        rows.push(Row { table: None, at: [name.to_owned(), String::new(), String::new()], index, bytes: bytes.value().to_vec() });
    }
    rows
}

async fn filled(fresh: &Fresh) -> (Embedded, Position, Vec<Row>) {
    let embedded = fresh.open();
    let position = fill(&embedded).await;
    let rows = rows_of(&embedded);
    assert!(rows.len() > 12, "there are {} rows", rows.len());
    (embedded, position, rows)
}

fn judge_coded(read: impl Fn(&Row, &[u8]) -> Result<Value, Broken>, rows: &[Row], input: &[u8]) -> Judged {
    let mut verdict = Verdict::Refused;
    for row in rows {
        match (read(row, input), row.bytes == input) {
            (Ok(_), false) => return broken(format!("another row is taken for {:?}", row.at)),
            (Err(why), true) => return broken(format!("{:?} isn't what was written: {why:?}", row.at)),
            (Ok(value), true) => {
                if serde_json::from_slice::<Value>(&input[CODE_LENGTH..]).ok() != Some(value) {
                    return broken("what was read isn't what stands there");
                }
                verdict = Verdict::Accepted;
            }
            (Err(Broken::Row(_)), false) => {}
            (Err(why), false) => return broken(format!("one row that was altered is said to be {why:?}")),
        }
    }
    Ok(verdict)
}

#[tokio::test]
async fn fuzz_coded_rows() {
    let fresh = Fresh::default();
    let (embedded, _, rows) = filled(&fresh).await;
    let (target, rows) = coded(rows);
    let keyring = embedded.keyring();
    target.run(|input| judge_coded(|row, bytes| decode(&keyring, row.table.unwrap(), row.at(), bytes), &rows, input));
}

fn coded(rows: Vec<Row>) -> (Target, Vec<Row>) {
    let rows: Vec<Row> = rows.into_iter().filter(Row::is_coded).collect();
    (Target::new("coded rows", rows.iter().map(|row| row.bytes.clone()).collect(), &[JSON, &["v1", "v2", "current", "dinie", "app"]]), rows)
}

#[tokio::test]
async fn fuzz_coded_rows_notices_faults() {
    let fresh = Fresh::default();
    let (embedded, _, rows) = filled(&fresh).await;
    let (target, rows) = coded(rows);
    let keyring = embedded.keyring();
    target.notices("the place isn't under the code", |input| {
        let anywhere = |_: &Row, bytes: &[u8]| {
            let mut places = rows.iter().map(|row| decode(&keyring, row.table.unwrap(), row.at(), bytes));
            places.find(Result::is_ok).unwrap_or(Err(Broken::Row("nowhere")))
        };
        judge_coded(anywhere, &rows, input)
    });
    target.notices("the code isn't looked at", |input| {
        let lenient = |_: &Row, bytes: &[u8]| {
            serde_json::from_slice(bytes.get(CODE_LENGTH..).unwrap_or_default()).map_err(|_| Broken::Row("no JSON"))
        };
        judge_coded(lenient, &rows, input)
    });
}

/// Each input is a row's number, and bytes for its place. What no question of [`whole_or_damaged`] meets stays out.
fn placed(rows: Vec<Row>) -> (Target, Vec<Row>) {
    let rows: Vec<Row> = rows.into_iter().filter(|row| !row.is_of(&META)).collect();
    let numbered = rows.iter().enumerate().map(|(number, row)| [&[u8::try_from(number).unwrap()], row.bytes.as_slice()].concat());
    (Target::new("rows in place", numbered.collect(), &[JSON, &["\u{0}", "\u{1}", "\u{2}", "\u{7}"]]).costing(25), rows)
}

async fn put(embedded: &Embedded, row: &Row, bytes: Vec<u8>) {
    let row = row.clone();
    let written = embedded.write(move |transaction, _| {
        match row.table {
            Some(table) => drop(transaction.open_table(table)?.insert(row.at(), bytes.as_slice())?),
            None => drop(transaction.open_table(EVENTS)?.insert((row.at[0].as_str(), row.index), bytes.as_slice())?),
        }
        Ok(())
    });
    written.await.unwrap();
}

/// Puts the bytes into the file, asks store and journal for all that they hold, and puts back what was there.
async fn judge_placed(embedded: &Embedded, position: Position, rows: &[Row], input: &[u8], blind: bool) -> Judged {
    let Some((number, bytes)) = input.split_first() else { return Ok(Verdict::Refused) };
    let row = &rows[usize::from(*number) % rows.len()];
    put(embedded, row, bytes.to_vec()).await;
    let whole = blind || whole_or_damaged(embedded, position).await;
    put(embedded, row, row.bytes.clone()).await;
    match (whole, row.bytes == bytes) {
        (true, true) => Ok(Verdict::Accepted),
        (false, false) => Ok(Verdict::Refused),
        (true, false) => broken(format!("a row at {:?} was changed, and nobody notices", row.at)),
        (false, true) => broken("what was written is called damaged"),
    }
}

/// Questions are asked in an async context of their own, because an oracle is a plain function.
fn waiting<T>(work: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}

#[tokio::test(flavor = "multi_thread")]
async fn fuzz_rows_in_place() {
    let fresh = Fresh::default();
    let (embedded, position, rows) = filled(&fresh).await;
    let (target, rows) = placed(rows);
    target.run(|input| waiting(judge_placed(&embedded, position, &rows, input, false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn fuzz_rows_in_place_notices_faults() {
    let fresh = Fresh::default();
    let (embedded, position, rows) = filled(&fresh).await;
    let (target, rows) = placed(rows);
    target.notices("nobody looks", |input| waiting(judge_placed(&embedded, position, &rows, input, true)));
}
