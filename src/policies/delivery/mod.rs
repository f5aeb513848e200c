//! `delivery` of an Application document: ways beside the stream, each in a file of its own.

mod file;
mod kubernetes;
mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

use super::credential::WrittenApplication;
use super::links::Table;
use super::problem::{Place, Sink};
use super::reader::{At, Fields, text};
use super::tree::Node;
use crate::domain::delivery::{Deliveries, KubernetesDelivery, is_plain_path, overlap};
use crate::domain::ids::{Name, ObjectName};

pub(super) use file::SIGNALS;

/// As written: what is valid of it, and the places of folder and Secret, which no two applications may share.
#[derive(Debug)]
pub(super) struct WrittenDelivery {
    /// `None` where something of it is wrong.
    pub(super) deliveries: Option<Deliveries>,
    folder: Option<At<PathBuf>>,
    secret: Option<At<KubernetesDelivery>>,
}

impl Default for WrittenDelivery {
    /// Nothing beside the stream.
    fn default() -> WrittenDelivery {
        WrittenDelivery { deliveries: Some(Deliveries::default()), folder: None, secret: None }
    }
}

impl WrittenDelivery {
    /// `namespace`: of the application's own identity, where that is in Kubernetes. `now` bounds the search for windows.
    pub(super) fn read(node: &Node, sink: &Sink<'_>, namespace: Option<&Name>, now: Timestamp) -> WrittenDelivery {
        let broken = WrittenDelivery { deliveries: None, folder: None, secret: None };
        let Some(fields) = Fields::of(node, sink) else { return broken };
        // Asked for and wrong is `Some(None)`: a way that was asked for is never left out in silence.
        let file = fields.get("file").map(|node| file::read(node, sink));
        let kubernetes = fields.get("kubernetes").map(|node| kubernetes::read(node, sink, now, namespace));
        let webhook = fields.get("webhook").map(|node| webhook::read(node, sink));
        fields.done();
        let folder = file.as_ref().and_then(|read| read.as_ref()).map(|(_, folder)| folder.clone());
        let secret = kubernetes.as_ref().and_then(Clone::clone);
        let whole = || {
            Some(Deliveries {
                file: asked(file)?.map(|(file, _)| file),
                kubernetes: asked(kubernetes)?.map(|at| at.value),
                webhook: asked(webhook)?,
            })
        };
        WrittenDelivery { deliveries: whole(), folder, secret }
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

/// No two applications are given one Secret: each would take the other's values out of it.
pub(super) fn check_secrets(applications: &Table<WrittenApplication>, sink: &Sink<'_>) {
    let secret = |written: &WrittenApplication| written.delivery.secret.clone();
    let mut all: Vec<At<KubernetesDelivery>> =
        applications.values().filter_map(|declared| declared.value.as_ref().and_then(secret)).collect();
    all.sort_by_key(|at| at.place);
    let mut taken: BTreeMap<(Name, ObjectName), Place> = BTreeMap::new();
    for At { value, place } in all {
        let first = *taken.entry((value.namespace, value.secret)).or_insert(place);
        if first != place {
            let help = format!("give each application a Secret of its own; the first is at {}", sink.locate(first));
            sink.report(place, "duplicate-secret", "another application's values go to this Secret", help);
        }
    }
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
