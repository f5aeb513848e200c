//! What came out, by channel: collected while something is worked, scanned at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::scanner::{Leak, Scanner};
use super::wire::{Answer, Event};

/// What the daemon prints into, in its folder.
pub(crate) const LOGS: [&str; 2] = ["daemon.stdout", "daemon.stderr"];

/// Each pair of channel and bytes once: what is repeated isn't scanned again.
#[derive(Default)]
pub(crate) struct Outputs(BTreeSet<(String, Vec<u8>)>);

impl Outputs {
    pub(crate) fn add(&mut self, channel: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.0.insert((channel.to_owned(), bytes));
        }
    }

    pub(crate) fn extend(&mut self, other: Outputs) {
        self.0.extend(other.0);
    }

    /// An answer that must not carry a credential.
    pub(crate) fn answer(&mut self, channel: &str, answer: &Answer) {
        self.add(channel, answer.body.as_slice());
        self.head(channel, answer);
    }

    /// The head alone, of an answer that carries a credential in its body.
    pub(crate) fn head(&mut self, channel: &str, answer: &Answer) {
        self.add(&format!("{channel} head"), answer.head.as_slice());
    }

    /// All of an event but the data of a credential's.
    pub(crate) fn event(&mut self, channel: &str, event: &Event) {
        self.add(channel, event.rest.as_bytes());
        if event.name != "credential" {
            self.add(channel, event.data.as_bytes());
        }
    }

    pub(crate) fn error(&mut self, channel: &str, error: &impl std::error::Error) {
        self.add(channel, format!("{error}\n{error:?}\n{error:#?}"));
    }

    /// Names and contents of files.
    pub(crate) fn files(&mut self, files: Vec<(PathBuf, Vec<u8>)>) {
        for (path, bytes) in files {
            self.add("file name", path.as_os_str().as_bytes());
            self.add(&path.display().to_string(), bytes);
        }
    }

    /// What other processes of the machine can see of one. Not dumpable means that even its owner may not read some of these;
    /// root may.
    pub(crate) fn process(&mut self, id: u32) {
        for name in ["cmdline", "environ", "status", "limits"] {
            self.add(name, std::fs::read(format!("/proc/{id}/{name}")).unwrap_or_default());
        }
    }

    pub(crate) fn channels(&self) -> BTreeSet<&str> {
        self.0.iter().map(|(channel, _)| channel.as_str()).collect()
    }

    pub(crate) fn leaks(&self, scanner: &Scanner) -> Vec<Leak> {
        // The same bytes are looked through once, and a leak in them is named for each channel where they came out.
        let mut distinct: BTreeMap<&[u8], Vec<&str>> = BTreeMap::new();
        for (channel, bytes) in &self.0 {
            distinct.entry(bytes).or_default().push(channel);
        }
        let mut leaks = Vec::new();
        for (bytes, channels) in distinct {
            let found = scanner.scan(channels[0], bytes);
            leaks.extend(
                found.iter().flat_map(|leak| channels.iter().map(|channel| Leak { output: (*channel).to_owned(), ..leak.clone() })),
            );
        }
        leaks
    }

    pub(crate) fn assert_silent(&self, scanner: &Scanner) {
        let leaks = self.leaks(scanner);
        assert!(leaks.is_empty(), "{leaks:#?}");
    }
}

/// Every file below, read whole; a name that is gone by then is passed over.
pub(crate) fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return files;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if let Ok(bytes) = std::fs::read(&path) {
            files.push((path, bytes));
        }
    }
    files
}
