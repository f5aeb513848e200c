//! `delivery.kubernetes`: the Secret that an application's values are written to, and the workloads that are restarted then.

use jiff::Timestamp;

use super::super::problem::Sink;
use super::super::reader::{At, Fields, list, parsed, whole_number};
use super::super::rotation::read_windows;
use super::super::tree::Node;
use super::super::values::name;
use super::asked;
use crate::domain::delivery::KubernetesDelivery;
use crate::domain::ids::{Name, ObjectName};
use crate::domain::restarts::{PER_HOUR_MAX, Restarts, WORKLOADS_MAX, Workload, WorkloadKind};

/// How many workloads roll at a time, where the document doesn't say.
const BATCH_DEFAULT: usize = 1;
/// How many restarts begin within an hour, where the document doesn't say.
const PER_HOUR_DEFAULT: u32 = 6;

/// What is valid. `namespace` is that of the application's own identity, where it has one in Kubernetes.
pub(super) fn read(node: &Node, sink: &Sink<'_>, now: Timestamp, namespace: Option<&Name>) -> Option<At<KubernetesDelivery>> {
    let fields = Fields::of(node, sink)?;
    let secret = fields.need("secret", "the name of the Secret, for example `secret: payments-credentials`");
    let secret = secret.and_then(|node| secret_name(node, sink));
    let written = match fields.get("namespace") {
        Some(node) => name(node, sink).map(|at| at.value),
        None if fields.has("namespace") => None,
        None => namespace.cloned().or_else(|| {
            // Of its own code: what the identity is, a schema can't tell.
            let help =
                "where the Secret lies, as `namespace: payments`; only an application with an identity in Kubernetes has one already";
            sink.report(fields.place, "missing-namespace", "`namespace` is missing", help);
            None
        }),
    };
    let restarts = asked(restarts(&fields, sink, now));
    fields.done();
    let value = KubernetesDelivery { secret: secret?, namespace: written?, restarts: restarts? };
    Some(At { value, place: node.place })
}

/// Annotations are named after the Secret, and their names are short.
fn secret_name(node: &Node, sink: &Sink<'_>) -> Option<ObjectName> {
    let secret = parsed::<ObjectName>(node, sink, "bad-name", "for example `payments-credentials`")?;
    if secret.value.as_str().len() > KubernetesDelivery::SECRET_LENGTH_MAX {
        let message = format!("the name of a Secret has {} characters at most here", KubernetesDelivery::SECRET_LENGTH_MAX);
        sink.report(node.place, "bad-name", message, "workloads bear its checksum in an annotation of its name, which has 63 in all");
        return None;
    }
    Some(secret.value)
}

/// `None`: no workload is named.
fn restarts(fields: &Fields<'_>, sink: &Sink<'_>, now: Timestamp) -> Option<Option<Restarts>> {
    let named = fields.get("restart").map(|node| workloads(node, sink));
    let windows = fields.get("windows").map(|node| read_windows(node, sink, now));
    let batch = fields.get("batch").map(|node| whole_number(node, sink, 1..=WORKLOADS_MAX as u32));
    let per_hour = fields.get("perHour").map(|node| whole_number(node, sink, 1..=PER_HOUR_MAX));
    if !fields.has("restart") {
        for idle in ["windows", "batch", "perHour"] {
            if let Some(key) = fields.key(idle) {
                let help = "name the workloads, as `restart: [{deployment: payments-api}]`, or leave this out";
                sink.report(key.place, "nothing-to-restart", format!("`{idle}` is about restarts, and nothing is restarted"), help);
                return Some(None);
            }
        }
        return None;
    }
    let read = || {
        Some(Restarts {
            workloads: named??,
            windows: asked(windows)?.unwrap_or_default(),
            batch: asked(batch)?.map_or(BATCH_DEFAULT, |batch| batch as usize),
            per_hour: asked(per_hour)?.unwrap_or(PER_HOUR_DEFAULT),
        })
    };
    Some(read())
}

fn workloads(node: &Node, sink: &Sink<'_>) -> Option<Vec<Workload>> {
    let items = list(node, sink)?;
    if items.is_empty() || items.len() > WORKLOADS_MAX {
        let message = format!("1 to {WORKLOADS_MAX} workloads are restarted");
        sink.report(node.place, "bad-restart", message, "leave `restart` out if nothing is to be restarted");
        return None;
    }
    // Each is looked at, so that all problems come out together.
    let read: Vec<Option<Workload>> = items.iter().map(|item| workload(item, sink)).collect();
    let read: Vec<Workload> = read.into_iter().collect::<Option<_>>()?;
    for (index, workload) in read.iter().enumerate() {
        if read[..index].contains(workload) {
            let place = items.get(index).map_or(node.place, |item| item.place);
            sink.report(place, "duplicate-entry", "this workload is listed twice", "list it once");
            return None;
        }
    }
    Some(read)
}

fn workload(node: &Node, sink: &Sink<'_>) -> Option<Workload> {
    let fields = Fields::of(node, sink)?;
    let named = |kind: WorkloadKind| {
        let read = fields.get(kind.as_str()).map(|node| parsed::<ObjectName>(node, sink, "bad-name", "for example `payments-api`"));
        fields.has(kind.as_str()).then_some((kind, read.flatten()))
    };
    let given: Vec<(WorkloadKind, Option<At<ObjectName>>)> = WorkloadKind::ALL.into_iter().filter_map(named).collect();
    fields.done();
    match <[_; 1]>::try_from(given) {
        Ok([(kind, name)]) => Some(Workload { kind, name: name?.value }),
        Err(given) => {
            let message = if given.is_empty() { "no workload is named" } else { "two workloads are named at once" };
            sink.report(node.place, "bad-restart", message, "give one: `deployment: NAME`, `statefulSet: NAME` or `daemonSet: NAME`");
            None
        }
    }
}
