//! `delivery` of an Application document: ways beside the stream, each in a file of its own.

mod file;
mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::credential::WrittenApplication;
use super::links::Table;
use super::problem::{Place, Sink};
use super::reader::{At, Fields, text};
use super::tree::Node;
use crate::domain::delivery::{Deliveries, is_plain_path, overlap};

pub(super) use file::SIGNALS;

/// As written: what is valid of it, and the place of the folder, which no two applications may share.
#[derive(Debug)]
pub(super) struct WrittenDelivery {
    /// `None` where something of it is wrong.
    pub(super) deliveries: Option<Deliveries>,
    folder: Option<At<PathBuf>>,
}

impl Default for WrittenDelivery {
    /// Nothing beside the stream.
    fn default() -> WrittenDelivery {
        WrittenDelivery { deliveries: Some(Deliveries::default()), folder: None }
    }
}

impl WrittenDelivery {
    pub(super) fn read(node: &Node, sink: &Sink<'_>) -> WrittenDelivery {
        let broken = WrittenDelivery { deliveries: None, folder: None };
        let Some(fields) = Fields::of(node, sink) else { return broken };
        // Asked for and wrong is `Some(None)`: a way that was asked for is never left out in silence.
        let file = fields.get("file").map(|node| file::read(node, sink));
        let webhook = fields.get("webhook").map(|node| webhook::read(node, sink));
        fields.unsupported("kubernetes");
        fields.done();
        let folder = file.as_ref().and_then(|read| read.as_ref()).map(|(_, folder)| folder.clone());
        let whole = || Some(Deliveries { file: asked(file)?.map(|(file, _)| file), webhook: asked(webhook)? });
        WrittenDelivery { deliveries: whole(), folder }
    }
}

/// `None` if it was asked for and is wrong.
fn asked<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        Some(None) => None,
        Some(found) => Some(found),
        None => Some(None),
    }
}

/// An absolute path in its shortest form. The message never repeats it: a value may stand in the wrong place.
fn path(node: &Node, sink: &Sink<'_>) -> Option<At<PathBuf>> {
    let written = text(node, sink)?;
    if is_plain_path(written) {
        return Some(At { value: PathBuf::from(written), place: node.place });
    }
    let message = "a path is absolute here, without `.`, `..`, `//` and a slash at its end";
    sink.report(node.place, "bad-folder", message, "for example `/run/payments/credentials`");
    None
}

/// No two applications are given one folder, nor one within another's.
pub(super) fn check_folders(applications: &Table<WrittenApplication>, sink: &Sink<'_>) {
    let folder = |written: &WrittenApplication| written.delivery.folder.clone();
    let mut all: Vec<At<PathBuf>> = applications.values().filter_map(|declared| declared.value.as_ref().and_then(folder)).collect();
    all.sort_by_key(|at| at.place);
    // Paths are in order by their parts: what lies in a folder comes right behind it.
    let mut taken: BTreeMap<PathBuf, Place> = BTreeMap::new();
    for At { value, place } in all {
        let around = value.ancestors().skip(1).find_map(|above| taken.get(above)).copied();
        let within = taken.range(value.clone()..).next().filter(|(other, _)| overlap(&value, other)).map(|(_, place)| *place);
        if let Some(first) = around.or(within) {
            let help = format!("give each application a folder of its own; the first is at {}", sink.locate(first));
            sink.report(place, "duplicate-folder", "another application's files go to this folder, or to one around it or in it", help);
        } else {
            taken.insert(value, place);
        }
    }
}
