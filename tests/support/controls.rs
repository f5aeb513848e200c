//! Leaks on purpose, to see that what collects and what scans would catch them: each encoding, whole and as a part of eight
//! bytes, each of a canary of its own, so that one look at a channel counts them all.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::canaries::Canary;
use super::encodings::{ENCODINGS, parts, surrounded};
use super::outputs::{Outputs, files_below};
use super::rng::Rng;
use super::scanner::Scanner;
use super::wire::{Events, Target};

/// One leak.
pub(crate) struct Planting {
    name: String,
    canary: Canary,
    pub(crate) bytes: Vec<u8>,
}

impl Planting {
    /// For what takes text only.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).expect("a canary of ASCII is text in every encoding")
    }
}

/// Leaks of a value with something to escape in it.
pub(crate) fn plantings(channel: &str) -> Vec<Planting> {
    planted(channel, |rng| (0..6).map(|_| format!("{}{}", rng.alnum(3), rng.pick(&["\"", "\\"]))).collect())
}

/// Leaks without a NUL and without a slash, whatever the encoding: for names of files, arguments and variables.
pub(crate) fn plantings_for_names(channel: &str) -> Vec<Planting> {
    planted(channel, |rng| {
        loop {
            // UTF-16 of these has no NUL; and six of them are no longer than a name may be, in any encoding.
            let text: String =
                (0..6).filter_map(|_| char::from_u32(0x4e30 + 0x100 * rng.below(60) as u32 + rng.below(0x60) as u32)).collect();
            let clean = |bytes: Vec<u8>| !bytes.iter().any(|byte| matches!(byte, 0 | b'/'));
            if ENCODINGS.iter().all(|(_, encode)| clean(encode(&text))) {
                return text;
            }
        }
    })
}

fn planted(channel: &str, value: impl Fn(&mut Rng) -> String) -> Vec<Planting> {
    let mut rng = Rng::new(channel.bytes().fold(0x1ea4, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte)));
    let mut all = Vec::new();
    for (encoding, encode) in ENCODINGS {
        for whole in [true, false] {
            let name = format!("{encoding}{}", if whole { "" } else { ", a part of eight bytes" });
            let canary = Canary::whole(&name, &value(&mut rng));
            let shown = if whole { canary.value.clone() } else { parts(&canary.value).last().copied().unwrap_or_default().to_owned() };
            all.push(Planting { bytes: surrounded(&encode(&shown)), canary, name });
        }
    }
    all
}

/// What was planted and what was found, over all channels.
#[derive(Default)]
pub(crate) struct Tally {
    planted: usize,
    channels: usize,
    missing: Vec<String>,
}

impl Tally {
    /// Looks for each of these in what was collected from this channel.
    pub(crate) fn count(&mut self, channel: &str, plantings: &[Planting], outputs: &Outputs) {
        let scanner = Scanner::new(plantings.iter().map(|planting| &planting.canary));
        let found: BTreeSet<String> = outputs.leaks(&scanner).into_iter().map(|leak| leak.canary).collect();
        self.channels += 1;
        self.planted += plantings.len();
        let missing = plantings.iter().filter(|planting| !found.contains(&planting.name));
        self.missing.extend(missing.map(|planting| format!("{channel}: {}", planting.name)));
    }

    pub(crate) fn found(&self) -> usize {
        self.planted - self.missing.len()
    }

    /// Says the result.
    ///
    /// # Panics
    /// If one wasn't found.
    pub(crate) fn finish(self, word: &str) {
        let found = self.found();
        let text = format!(
            "{word}: {found} of {} planted leaks found ({} channels, {} encodings)\n",
            self.planted,
            self.channels,
            ENCODINGS.len()
        );
        // Not by the macro, which a test runner keeps to itself.
        let _unread = std::io::stderr().write_all(text.as_bytes());
        assert!(self.missing.is_empty(), "{:#?}", self.missing);
    }
}

/// Bodies, heads and streams, from a server that leaks, through the client that the tests collect with.
pub(crate) async fn count_answers(tally: &mut Tally) {
    for (channel, places) in [("answer", &["body"][..]), ("metrics", &["body"]), ("headers", &["header", "reason"]), ("stream", STREAM)] {
        for place in places {
            let plantings = plantings(&format!("{channel} {place}"));
            let (target, server) = leaky(place, plantings.iter().map(|planting| planting.bytes.clone()).collect()).await;
            let mut outputs = Outputs::default();
            for _ in &plantings {
                if channel == "stream" {
                    let mut events = Events::open(&target, "/v1/events", &[]).await.unwrap().unwrap();
                    while let Some(event) = events.next().await {
                        outputs.event(channel, &event);
                    }
                } else {
                    outputs.answer(channel, &target.get("/", &[]).await);
                }
            }
            server.abort();
            tally.count(&format!("{channel}, {place}"), &plantings, &outputs);
        }
    }
}

const STREAM: &[&str] = &["event: ", "id: ", "retry: ", ":"];

/// Answers each connection with one leak.
async fn leaky(place: &'static str, leaks: Vec<Vec<u8>>) -> (Target, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::Tcp(listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        for leak in leaks {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The whole request: closing with bytes unread would take the answer away.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap() > 0 {}
            stream.write_all(&leaky_answer(place, &leak)).await.unwrap();
        }
    });
    (target, server)
}

fn leaky_answer(place: &str, leak: &[u8]) -> Vec<u8> {
    let length = leak.len();
    let ok: &[u8] = b"HTTP/1.1 200 OK\r\n";
    match place {
        "body" => [ok, format!("content-length: {length}\r\n\r\n").as_bytes(), leak].concat(),
        "header" => [ok, b"content-length: 0\r\nx-leak: ", leak, b"\r\n\r\n"].concat(),
        "reason" => [b"HTTP/1.1 200 ", leak, b"\r\ncontent-length: 0\r\n\r\n"].concat(),
        line => {
            // A line break would be another line of the stream.
            let leak: Vec<u8> = leak.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect();
            let event = [line.as_bytes(), &leak, b"\n\n"].concat();
            let head = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", event.len());
            [ok, head.as_bytes(), &event, b"\r\n0\r\n\r\n"].concat()
        }
    }
}

/// Leaks appended to each of these files, which are there already; the collecting is the caller's.
pub(crate) fn count_files(tally: &mut Tally, files: &[std::path::PathBuf], collect: impl Fn() -> Outputs) {
    for file in files {
        let plantings = plantings(&file.display().to_string());
        for planting in &plantings {
            let mut open = std::fs::OpenOptions::new().append(true).open(file).unwrap();
            open.write_all(&planting.bytes).unwrap();
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tally.count(&name, &plantings, &collect());
    }
}

/// Leaks as names of files in a folder.
pub(crate) fn count_file_names(tally: &mut Tally, folder: &std::path::Path) {
    use std::os::unix::ffi::OsStrExt as _;
    let plantings = plantings_for_names("file names");
    for planting in &plantings {
        std::fs::write(folder.join(std::ffi::OsStr::from_bytes(&planting.bytes)), "").unwrap();
    }
    let mut outputs = Outputs::default();
    outputs.files(files_below(folder));
    tally.count("file names", &plantings, &outputs);
}

/// Leaks as arguments and as variables of a process.
pub(crate) fn count_processes(tally: &mut Tally) {
    use std::os::unix::ffi::OsStrExt as _;
    for channel in ["cmdline", "environ"] {
        let plantings = plantings_for_names(channel);
        let mut command = Command::new("sleep");
        command.arg("infinity").env_clear().stdout(Stdio::null()).stderr(Stdio::null());
        if channel == "cmdline" {
            // A shell that waits for its input takes any arguments.
            command = Command::new("sh");
            command.args(["-c", "read -r _"]).args(plantings.iter().map(|planting| std::ffi::OsStr::from_bytes(&planting.bytes)));
            command.env_clear().stdin(Stdio::piped());
        }
        for (index, planting) in plantings.iter().enumerate().filter(|_| channel == "environ") {
            command.env(format!("LEAK_{index}"), std::ffi::OsStr::from_bytes(&planting.bytes));
        }
        let mut child: Child = command.spawn().unwrap();
        // A new program's memory is filled in a moment after it was started: until then both are empty.
        let started = std::time::Instant::now();
        let place = format!("/proc/{}/{channel}", child.id());
        while std::fs::read(&place).unwrap().is_empty() && started.elapsed().as_secs() < 10 {
            std::thread::yield_now();
        }
        let mut outputs = Outputs::default();
        outputs.process(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        tally.count(channel, &plantings, &outputs);
    }
}
