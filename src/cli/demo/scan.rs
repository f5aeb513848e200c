//! Looks for values in everything that was written: any eight bytes of them, raw, as base64 and as hex.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// So many bytes of a value are a leak.
const WINDOW: usize = 8;
/// Eight bytes are 16 hex digits, and at least nine letters of base64 whatever the offset.
const WINDOW_HEX: usize = 2 * WINDOW;
const WINDOW_BASE64: usize = 9;
/// A file of the demo has a few hundred KiB.
const FILE_LENGTH_MAX: u64 = 256 << 20;

/// What to look for. Holds parts of values: no `Debug`.
#[derive(Default)]
pub(super) struct Scanner {
    raw: HashSet<Vec<u8>>,
    hex: HashSet<Vec<u8>>,
    base64: HashSet<Vec<u8>>,
}

/// What was looked through, and where something was found: names of files, never what stood there.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) leaks: Vec<String>,
}

impl Scanner {
    /// `value` without what all values of its kind begin with.
    pub(super) fn add(&mut self, value: &[u8]) {
        insert_windows(&mut self.raw, value, WINDOW);
        insert_windows(&mut self.hex, hex::encode(value).as_bytes(), WINDOW_HEX);
        insert_windows(&mut self.hex, hex::encode_upper(value).as_bytes(), WINDOW_HEX);
        for offset in 0..3usize {
            // What stands before and after a value changes the letters at its ends only.
            let padded = [&b"\0\0"[..offset], value].concat();
            for text in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
                let from = (offset * 4).div_ceil(3);
                let to = text.len() - usize::from(padded.len() % 3 != 0);
                insert_windows(&mut self.base64, text.as_bytes().get(from..to).unwrap_or_default(), WINDOW_BASE64);
            }
        }
    }

    pub(super) fn hits(&self, text: &[u8]) -> bool {
        let any = |windows: &HashSet<Vec<u8>>, length: usize| text.windows(length).any(|window| windows.contains(window));
        any(&self.raw, WINDOW) || any(&self.hex, WINDOW_HEX) || any(&self.base64, WINDOW_BASE64)
    }

    /// Every file below the folder, and their names.
    pub(super) fn look_through(&self, folder: &Path, found: &mut Found) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if self.hits(path.as_os_str().as_encoded_bytes()) {
                found.leaks.push("the name of a file".to_owned());
            }
            if kind.is_dir() {
                self.look_through(&path, found)?;
            } else if kind.is_file() {
                self.look_into(&path, found)?;
            }
        }
        Ok(())
    }

    fn look_into(&self, path: &Path, found: &mut Found) -> io::Result<()> {
        if std::fs::metadata(path)?.len() > FILE_LENGTH_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let text = std::fs::read(path)?;
        found.files += 1;
        found.bytes += u64::try_from(text.len()).unwrap_or(u64::MAX);
        if self.hits(&text) {
            found.leaks.push(path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
        }
        Ok(())
    }
}

fn insert_windows(set: &mut HashSet<Vec<u8>>, text: &[u8], length: usize) {
    set.extend(text.windows(length).map(<[u8]>::to_vec));
}

/// A scanner that finds nothing proves nothing: this one must find a value of its own in every form.
pub(super) fn finds_what_is_planted(value: &[u8]) -> bool {
    let mut scanner = Scanner::default();
    scanner.add(value);
    let with = |text: &[u8]| [b"before ", text, b" after"].concat();
    let part = value.get(4..12).unwrap_or(value);
    let planted = [
        with(value),
        with(part),
        with(hex::encode(value).as_bytes()),
        with(hex::encode_upper(part).as_bytes()),
        STANDARD_NO_PAD.encode(with(value)).into_bytes(),
        URL_SAFE_NO_PAD.encode([b"x", value].concat()).into_bytes(),
        STANDARD_NO_PAD.encode([b"xy", value, b"z"].concat()).into_bytes(),
    ];
    planted.iter().all(|text| scanner.hits(text)) && !scanner.hits(b"nothing of it stands in this line")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_demo_scanner_finds_every_form_and_every_part() {
        assert!(finds_what_is_planted(b"Zk3vQ9xT7mB2nL5wR8yC1dF4gH6jK0pS"));
        let value = b"Zk3vQ9xT7mB2nL5wR8yC1dF4gH6jK0pS";
        let mut scanner = Scanner::default();
        scanner.add(value);
        for before in 0..6 {
            for start in 0..=value.len() - 10 {
                let text = [&b"abcdef"[..before], &value[start..start + 10], b"end"].concat();
                assert!(scanner.hits(&text));
                assert!(scanner.hits(hex::encode(&text).as_bytes()));
                assert!(scanner.hits(STANDARD_NO_PAD.encode(&text).as_bytes()), "{before} {start}");
            }
        }
    }

    #[test]
    fn cli_demo_scanner_names_the_file_and_not_the_value() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::write(folder.path().join("data/leaky.log"), "x=Zk3vQ9xT7mB2").unwrap();
        std::fs::write(folder.path().join("clean.log"), "nothing").unwrap();
        let mut scanner = Scanner::default();
        scanner.add(b"Zk3vQ9xT7mB2nL5wR8yC1dF4gH6jK0pS");
        let mut found = Found::default();
        scanner.look_through(folder.path(), &mut found).unwrap();
        assert_eq!((found.files, found.leaks.as_slice()), (2, ["leaky.log".to_owned()].as_slice()));
    }
}
