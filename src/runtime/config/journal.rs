//! `journal:` of the configuration: in the embedded file, or in Kubernetes, where replicas share it.

use std::path::{Path, PathBuf};

use crate::journal::kubernetes::KubernetesSettings;
use crate::policies::problem::Sink;
use crate::policies::reader::{At, Fields};
use crate::policies::tree::Node;
use crate::policies::values::name;

/// The lease and the beginning of the names of all objects, where the file doesn't say.
const LEASE: &str = "keywright";

/// The journal that was chosen.
pub(super) enum JournalWritten {
    /// With the directory, if it was named.
    Embedded(At<Option<PathBuf>>),
    /// With the directory of what stays here, if it was named.
    Kubernetes(KubernetesSettings, Option<At<PathBuf>>),
}

pub(super) fn read_journal(node: &Node, folder: &Path, sink: &Sink<'_>) -> Option<JournalWritten> {
    let fields = Fields::of(node, sink)?;
    let Some(kubernetes) = fields.get("kubernetes") else {
        return super::read_embedded(fields, folder).map(JournalWritten::Embedded);
    };
    if fields.get("embedded").is_some() {
        sink.report(kubernetes.place, "two-journals", "there is one journal", "name one of `embedded` and `kubernetes`");
    }
    fields.done();
    let inner = Fields::of(kubernetes, sink)?;
    let namespace = inner.get("namespace").map(|node| name(node, sink));
    let lease = inner.get("lease").map(|node| name(node, sink));
    let directory = inner.get("directory");
    let directory = directory.and_then(|node| Some(At { value: super::path(node, folder, sink)?, place: node.place }));
    inner.done();
    let lease = lease.map_or_else(|| LEASE.parse().ok(), |lease| lease.map(|lease| lease.value));
    let namespace = match namespace {
        Some(namespace) => Some(namespace?.value),
        None => None,
    };
    Some(JournalWritten::Kubernetes(KubernetesSettings { namespace, lease: lease? }, directory))
}
