//! `delivery.file`: a folder of files, and who is signalled when they were replaced.

use std::path::PathBuf;

use super::super::problem::Sink;
use super::super::reader::{At, Fields, choice, text, whole_number};
use super::super::tree::Node;
use super::path;
use crate::domain::delivery::{FileDelivery, SignalDelivery, SignalName};

pub(in crate::policies) const SIGNALS: [(&str, SignalName); 5] = [
    ("HUP", SignalName::Hup),
    ("USR1", SignalName::Usr1),
    ("USR2", SignalName::Usr2),
    ("INT", SignalName::Int),
    ("TERM", SignalName::Term),
];

/// What is valid, and where the folder is named.
pub(super) fn read(node: &Node, sink: &Sink<'_>) -> Option<(FileDelivery, At<PathBuf>)> {
    let fields = Fields::of(node, sink)?;
    let directory = fields.need("directory", "where the files go, for example `/run/payments/credentials`");
    let directory = directory.and_then(|node| path(node, sink));
    let id = |name: &'static str| fields.get(name).map(|node| whole_number(node, sink, 0..=u32::MAX - 1));
    let (owner, group) = (id("owner"), id("group"));
    let mode = fields.get("mode").map(|node| mode(node, sink));
    let signal = fields.get("signal").map(|node| signal(node, sink));
    fields.done();
    let directory = directory?;
    let file = FileDelivery {
        directory: directory.value.clone(),
        mode: super::asked(mode)?.unwrap_or(FileDelivery::MODE_DEFAULT),
        owner: super::asked(owner)?,
        group: super::asked(group)?,
        signal: super::asked(signal)?,
    };
    Some((file, directory))
}

/// Read by its owner, and by its group at most. Whoever else may read a value is no matter of this document.
fn mode(node: &Node, sink: &Sink<'_>) -> Option<u32> {
    let found = match text(node, sink)? {
        "0400" => Some(0o400),
        "0440" => Some(0o440),
        "0600" => Some(0o600),
        "0640" => Some(0o640),
        _ => None,
    };
    if found.is_none() {
        let message = "this isn't one of `0400`, `0440`, `0600`, `0640`";
        sink.report(node.place, "bad-mode", message, "files with values are read by their owner, and by their group at most");
    }
    found
}

fn signal(node: &Node, sink: &Sink<'_>) -> Option<SignalDelivery> {
    let fields = Fields::of(node, sink)?;
    let pid_file = fields.need("pidFile", "the file with the number of the process, for example `/run/payments/payments.pid`");
    let pid_file = pid_file.and_then(|node| path(node, sink));
    let name = fields.need("name", "for example `name: HUP`").and_then(|node| choice(node, sink, &SIGNALS));
    fields.done();
    Some(SignalDelivery { pid_file: pid_file?.value, name: name?.value })
}
