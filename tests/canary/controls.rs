//! Leaks on purpose, once per channel of these tests and per encoding, through what these tests collect with.

use std::io::Write;

use keywright::engine::audit::{Action, Actor, Audit, MemoryAudit};
use keywright::runtime::audit::AuditFile;

use crate::capture::Capture;
use crate::support::controls::{Planting, Tally, count_answers, count_file_names, count_files, count_processes, plantings};
use crate::support::outputs::{Outputs, files_below};

pub async fn every_leak_is_found() {
    let mut tally = Tally::default();
    let capture = Capture::begin();
    logs(&mut tally, &capture);
    printed(&mut tally, &capture);
    capture.end();
    audits(&mut tally).await;
    errors(&mut tally);
    let folder = tempfile::tempdir().unwrap();
    let files = ["keywright.redb", "keywright.key"].map(|name| folder.path().join(name));
    for file in &files {
        std::fs::write(file, "").unwrap();
    }
    count_files(&mut tally, &files, || {
        let mut outputs = Outputs::default();
        outputs.files(files_below(folder.path()));
        outputs
    });
    count_file_names(&mut tally, folder.path());
    count_processes(&mut tally);
    count_answers(&mut tally).await;
    tally.finish("canaries in process");
}

/// What the way is called, and how it logs.
type Way = (&'static str, fn(&str));

/// Through the daemon's own layer, by targets and fields that it lets pass, in each way that a value gets into a line.
fn logs(tally: &mut Tally, capture: &Capture) {
    const TARGET: &str = "keywright::engine";
    let ways: [Way; 5] = [
        ("log, a text", |leak| tracing::trace!(target: TARGET, reason = leak, "on purpose")),
        ("log, a display", |leak| tracing::info!(target: TARGET, error = %leak, "on purpose")),
        ("log, a debug", |leak| tracing::error!(target: TARGET, error = ?leak, "on purpose")),
        ("log, the message", |leak| tracing::warn!(target: TARGET, "{leak}")),
        ("log, a span", |leak| {
            let span = tracing::debug_span!(target: TARGET, "on purpose", credential = leak);
            let _entered = span.enter();
            tracing::debug!(target: TARGET, "on purpose");
        }),
    ];
    for (channel, log) in ways {
        let plantings = plantings(channel);
        plantings.iter().for_each(|planting| log(&planting.text()));
        tally.count(channel, &plantings, &capture.take());
    }
    // The layer drops what isn't listed: a leak there is no leak, and the same look finds nothing of it.
    let dropped = plantings("dropped");
    for planting in &dropped {
        tracing::error!(target: "hyper", reason = planting.text(), "of another crate");
        tracing::error!(target: TARGET, client_secret = planting.text(), "of no listed field");
    }
    assert_eq!(found(&dropped, &capture.take()), 0);
}

fn printed(tally: &mut Tally, capture: &Capture) {
    for channel in ["stdout", "stderr"] {
        let plantings = plantings(channel);
        for planting in &plantings {
            match channel {
                "stdout" => std::io::stdout().write_all(&[planting.bytes.as_slice(), b"\n"].concat()).unwrap(),
                _ => std::io::stderr().write_all(&planting.bytes).unwrap(),
            }
        }
        tally.count(channel, &plantings, &capture.take());
    }
    // A panic is told by its place, on the channel that was just seen to be heard.
    let panics = plantings("panics");
    for planting in &panics {
        let text = planting.text();
        std::thread::spawn(move || panic!("{text}")).join().unwrap_err();
    }
    let outputs = capture.take();
    assert!(outputs.channels().contains("stderr"), "a panic is told");
    assert_eq!(found(&panics, &outputs), 0);
}

fn found(plantings: &[Planting], outputs: &Outputs) -> usize {
    let mut tally = Tally::default();
    tally.count("", plantings, outputs);
    tally.found()
}

async fn audits(tally: &mut Tally) {
    let folder = tempfile::tempdir().unwrap();
    let file = AuditFile::open(&folder.path().join("audit.jsonl"), jiff::Timestamp::UNIX_EPOCH).unwrap();
    let memory = MemoryAudit::new();
    let trails: [(&str, &dyn Audit); 2] = [("audit file", &file), ("audit in memory", &memory)];
    for (channel, trail) in trails {
        let plantings = plantings(channel);
        for planting in &plantings {
            let (actor, detail) = (Actor::Daemon, Some(planting.text()));
            let action = Action { actor, action: "on-purpose".to_owned(), credential: None, version: None, detail };
            trail.record(jiff::Timestamp::UNIX_EPOCH, action).await.unwrap();
        }
        let mut outputs = Outputs::default();
        outputs.files(files_below(folder.path()));
        let records: Vec<Action> = memory.records().into_iter().map(|(_, action)| action).collect();
        outputs.add("audit", serde_json::to_vec(&records).unwrap());
        tally.count(channel, &plantings, &outputs);
    }
}

fn errors(tally: &mut Tally) {
    /// An error that tells what it shouldn't, by its `Debug` alone.
    #[derive(Debug, thiserror::Error)]
    #[error("refused")]
    struct Telltale {
        _value: String,
    }
    let plantings = plantings("errors");
    let mut outputs = Outputs::default();
    for planting in &plantings {
        outputs.error("error", &Telltale { _value: planting.text() });
    }
    tally.count("errors", &plantings, &outputs);
}
