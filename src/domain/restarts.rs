//! Rollout restarts: which workloads are restarted when, once the Secret that they use has changed, and who runs on with the old one.
//!
//! A workload is asked to restart by a checksum of the Secret in its pod template, and each pod carries the checksum of the template
//! that it was made from. A container reads the Secret when it starts, and the Secret is written before any checksum: so a pod with
//! the new checksum is given the new value (unless its kubelet's own watch lags behind), and one that is Ready works with it.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::ids::ObjectName;
use super::windows::{self, Window};

/// How many workloads a document names at most: each is looked at by two calls.
pub const WORKLOADS_MAX: usize = 64;
/// At most so many restarts in an hour may be allowed; each is kept for an hour in an annotation.
pub const PER_HOUR_MAX: u32 = 360;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// What makes pods from a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
}

/// One workload, in the namespace of its Secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    pub kind: WorkloadKind,
    pub name: ObjectName,
}

/// Which workloads are restarted, and how fast.
#[derive(Debug, Clone, PartialEq)]
pub struct Restarts {
    /// In the order in which they are restarted; each once.
    pub workloads: Vec<Workload>,
    /// When a restart may begin; none: always. One that has begun goes on.
    pub windows: Vec<Window>,
    /// So many workloads roll at a time; one at least.
    pub batch: usize,
    /// So many restarts begin within any hour; one at least.
    pub per_hour: u32,
}

/// How far a workload's controller is with the template of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Every pod that it wants is there, updated and available.
    Settled,
    Rolling,
    /// A person has paused it: it makes no pods of a new template.
    Paused,
    /// It has given up: its deadline for progress has passed.
    Failed,
}

/// One pod that may still be running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub name: ObjectName,
    /// Of the template that it was made from; `None` for one from before the first restart.
    pub checksum: Option<String>,
    pub is_ready: bool,
}

/// What was seen of a workload that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// In its template now.
    pub checksum: Option<String>,
    /// When we restarted it, as far as that is remembered: the last hour.
    pub restarted: Vec<Timestamp>,
    pub progress: Progress,
    pub pods: Vec<Pod>,
}

/// A workload and what was seen of it; `None`: there is none of this name.
pub type Sighting = (Workload, Option<Seen>);

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// All pods of all workloads are of the template with this checksum, and Ready.
    Done,
    /// These are restarted now.
    Restart(Vec<Workload>),
    /// `until`: when it is worth while to look again, where the time is known.
    Wait { reason: Waiting, until: Option<Timestamp> },
}

/// Why nothing is restarted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// There is no such workload: a name that is written wrongly must not pass for one whose pods are all new.
    Absent(Workload),
    /// Its rollout failed: no other is begun before a person has looked.
    Failed(Workload),
    Paused(Workload),
    /// New pods are being made; the first of those that roll.
    Rolling(Workload),
    Window,
    Cap,
}

impl Waiting {
    /// Whether it goes on by itself; else somebody has to mend something first.
    pub fn needs_a_person(&self) -> bool {
        matches!(self, Waiting::Absent(_) | Waiting::Failed(_) | Waiting::Paused(_))
    }
}

impl Decision {
    fn wait(reason: Waiting) -> Decision {
        Decision::Wait { reason, until: None }
    }
}

impl Seen {
    fn is_asked(&self, wanted: &str) -> bool {
        self.checksum.as_deref() == Some(wanted)
    }

    /// Pods that are being made or are ending count until they are gone: an old one may still make a call.
    fn is_done(&self, wanted: &str) -> bool {
        let pods_are = self.pods.iter().all(|pod| pod.is_ready && pod.checksum.as_deref() == Some(wanted));
        self.is_asked(wanted) && self.progress == Progress::Settled && pods_are
    }
}

/// What comes next for workloads that shall run with this checksum. The Secret has been written with it: that is the caller's to know.
///
/// One change of the checksum restarts each workload once, because the template then bears it.
pub fn decide(restarts: &Restarts, seen: &[Sighting], wanted: &str, now: Timestamp) -> Decision {
    let present = || seen.iter().filter_map(|(workload, seen)| Some((workload, seen.as_ref()?)));
    let rolling: Vec<_> = present().filter(|(_, seen)| seen.is_asked(wanted) && !seen.is_done(wanted)).collect();
    let first = |progress: Progress| rolling.iter().find(|(_, seen)| seen.progress == progress).map(|(workload, _)| (*workload).clone());
    if let Some(workload) = first(Progress::Failed) {
        return Decision::wait(Waiting::Failed(workload));
    }
    let outdated: Vec<&Workload> = present().filter(|(_, seen)| !seen.is_asked(wanted)).map(|(workload, _)| workload).collect();
    if outdated.is_empty() || rolling.len() >= restarts.batch {
        let absent = seen.iter().find(|(_, seen)| seen.is_none()).map(|(workload, _)| Waiting::Absent(workload.clone()));
        let under_way = rolling.first().map(|(workload, _)| Waiting::Rolling((*workload).clone()));
        let reason = first(Progress::Paused).map(Waiting::Paused).or(under_way).or(absent);
        return reason.map_or(Decision::Done, Decision::wait);
    }
    if !windows::any_open(&restarts.windows, now) {
        return Decision::Wait { reason: Waiting::Window, until: windows::next_open(&restarts.windows, now) };
    }
    let recent = recent(present().flat_map(|(_, seen)| &seen.restarted), now);
    let allowed = usize::try_from(restarts.per_hour).unwrap_or(usize::MAX).saturating_sub(recent.len());
    if allowed == 0 {
        // As many have to become old as are more than the cap allows, less one: then there is room for the next.
        let until = recent.get(recent.len().saturating_sub(restarts.per_hour.max(1) as usize)).and_then(|at| at.checked_add(HOUR).ok());
        return Decision::Wait { reason: Waiting::Cap, until };
    }
    let free = restarts.batch - rolling.len();
    Decision::Restart(outdated.into_iter().take(free.min(allowed)).cloned().collect())
}

/// The restarts that count for the cap, oldest first. A time ahead of the clock counts as well, unless it is so far ahead that it
/// can't be one of ours.
pub fn recent<'a>(restarted: impl IntoIterator<Item = &'a Timestamp>, now: Timestamp) -> Vec<Timestamp> {
    let counts = |at: &&Timestamp| at.duration_since(now).abs() < HOUR;
    let mut recent: Vec<Timestamp> = restarted.into_iter().filter(counts).copied().collect();
    recent.sort_unstable();
    recent
}

/// The pods that may still use the old value, by name: made from a template with another checksum, or from none of ours.
pub fn stragglers(seen: &[Sighting], wanted: &str) -> Vec<ObjectName> {
    let pods = seen.iter().filter_map(|(_, seen)| seen.as_ref()).flat_map(|seen| &seen.pods);
    let mut names: Vec<ObjectName> = pods.filter(|pod| pod.checksum.as_deref() != Some(wanted)).map(|pod| pod.name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl WorkloadKind {
    pub const ALL: [WorkloadKind; 3] = [WorkloadKind::Deployment, WorkloadKind::StatefulSet, WorkloadKind::DaemonSet];

    /// As documents name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            WorkloadKind::Deployment => "deployment",
            WorkloadKind::StatefulSet => "statefulSet",
            WorkloadKind::DaemonSet => "daemonSet",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str().to_ascii_lowercase(), self.name)
    }
}

/// What a person reads, and can do about it.
impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::Absent(workload) => write!(f, "there is no {workload}: mend its name in the document, or create it"),
            Waiting::Failed(workload) => {
                write!(
                    f,
                    "the rollout of {workload} failed, so no other is begun: `kubectl rollout status` says why; it goes on once its pods are Ready"
                )
            }
            Waiting::Paused(workload) => write!(f, "the rollout of {workload} is paused: `kubectl rollout resume` it"),
            Waiting::Rolling(workload) => write!(f, "{workload} rolls"),
            Waiting::Window => f.write_str("restarts wait for a window"),
            Waiting::Cap => f.write_str("restarts wait: as many as an hour may have were begun"),
        }
    }
}

#[cfg(test)]
mod tests;
