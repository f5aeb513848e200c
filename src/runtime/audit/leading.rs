//! What the trail remembers of who led last: a store that is older than that was put back without `restore` (I10).

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use uuid::Uuid;

use super::record::LINE_BYTES_MAX;
use crate::domain::ids::InstallationId;

/// The action of the record that each start writes.
pub const STARTED: &str = "started";

/// Which installation led, in which term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leading {
    pub installation: InstallationId,
    pub term: u64,
}

impl Leading {
    /// Whether a store can't be the one that led last, nor come after it: it is an older copy.
    pub fn is_ahead_of(&self, installation: InstallationId, former: &[InstallationId], term: u64) -> bool {
        if self.installation == installation { self.term > term } else { !former.contains(&self.installation) }
    }
}

impl fmt::Display for Leading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {} of {}", self.term, self.installation.0)
    }
}

impl FromStr for Leading {
    type Err = ();

    /// From the end of a longer text, too.
    fn from_str(text: &str) -> Result<Leading, ()> {
        let (_, rest) = text.rsplit_once("term ").ok_or(())?;
        let (term, installation) = rest.split_once(" of ").ok_or(())?;
        let installation = InstallationId(Uuid::parse_str(installation).map_err(|_| ())?);
        Ok(Leading { installation, term: term.parse().map_err(|_| ())? })
    }
}

#[derive(Deserialize)]
struct Start {
    action: String,
    #[serde(default)]
    detail: Option<String>,
}

/// Who led last, as the trail says. Reads backward: as far as the last start, not to the beginning.
///
/// # Errors
/// If the file can't be read. One that isn't there remembers nothing.
pub fn last_leading(path: &Path) -> io::Result<Option<Leading>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut end = file.seek(SeekFrom::End(0))?;
    // The beginning of a line whose end was read already.
    let mut rest: Vec<u8> = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(LINE_BYTES_MAX as u64);
        let mut chunk = vec![0; usize::try_from(end - start).unwrap_or(LINE_BYTES_MAX)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut chunk)?;
        chunk.append(&mut rest);
        let whole = if start == 0 { 0 } else { chunk.iter().position(|byte| *byte == b'\n').map_or(chunk.len(), |at| at + 1) };
        if let Some(found) = chunk[whole..].split(|byte| *byte == b'\n').rev().find_map(leading_in) {
            return Ok(Some(found));
        }
        chunk.truncate(whole);
        // A line that is longer than any record holds nothing for us.
        if chunk.len() <= 2 * LINE_BYTES_MAX {
            rest = chunk;
        }
        end = start;
    }
    Ok(None)
}

fn leading_in(line: &[u8]) -> Option<Leading> {
    let start: Start = serde_json::from_slice(line).ok()?;
    start.detail.filter(|_| start.action == STARTED)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(number: u128) -> InstallationId {
        InstallationId(Uuid::from_u128(number))
    }

    #[test]
    fn the_last_start_is_found_however_far_back_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        assert_eq!(last_leading(&path).unwrap(), None);
        let leading = |term| Leading { installation: installation(7), term };
        let start = |term| format!("{{\"seq\":1,\"action\":\"started\",\"detail\":\"digest abc; {}\"}}\n", leading(term));
        let other = "{\"seq\":2,\"action\":\"disclosed\",\"detail\":\"term 9 of 00000000-0000-0000-0000-000000000009\"}\n";
        for others in [0, 1, 700, 5_000] {
            let text = start(1) + other + &start(2) + &other.repeat(others) + "{\"torn";
            std::fs::write(&path, text).unwrap();
            assert_eq!(last_leading(&path).unwrap(), Some(leading(2)), "{others}");
        }
        std::fs::write(&path, other.repeat(3)).unwrap();
        assert_eq!(last_leading(&path).unwrap(), None);
    }

    #[test]
    fn a_store_is_behind_unless_it_led_last_or_came_from_what_did() {
        let led = Leading { installation: installation(1), term: 5 };
        assert!(!led.is_ahead_of(installation(1), &[], 5) && !led.is_ahead_of(installation(1), &[], 9));
        assert!(led.is_ahead_of(installation(1), &[], 4), "an older copy of the same");
        assert!(!led.is_ahead_of(installation(2), &[installation(1)], 1), "restored from it");
        assert!(led.is_ahead_of(installation(2), &[], 9), "it led, and this one doesn't know of it");
    }
}
