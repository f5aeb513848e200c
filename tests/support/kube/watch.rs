//! Watches: one JSON line for each change since a version, bookmarks, and an end.

use std::sync::Weak;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::ApiServer;
use super::ask::Ask;
use super::kinds::Kind;
use super::select::Selector;
use super::state::{Change, Event, State};
use super::status::{Reply, failure};

/// Where nobody asks for less. Real servers choose between half an hour and an hour.
const LONGEST: Duration = Duration::from_secs(1800);

/// What one watch has told already.
pub(super) struct Watch {
    kind: &'static Kind,
    namespace: String,
    selector: Selector,
    takes_bookmarks: bool,
    until: Instant,
    /// Up to this version.
    told: u64,
    bookmarks: u64,
    epoch: u64,
    first: Vec<Value>,
}

impl Watch {
    pub(super) fn begin(state: &State, kind: &'static Kind, ask: &Ask) -> Result<Watch, Reply> {
        let selector = Selector::parse(kind, ask.query("labelSelector"), ask.query("fieldSelector"))?;
        let seconds = ask.query("timeoutSeconds").parse().map_or(LONGEST, Duration::from_secs);
        let takes_bookmarks = ask.says("allowWatchBookmarks");
        let from = ask.query("resourceVersion");
        let mut first = Vec::new();
        let lists_first = ask.says("sendInitialEvents");
        let told = match from.parse::<u64>() {
            _ if lists_first => state.version,
            Ok(0) | Err(_) => state.version,
            Ok(version) if version < state.compacted => {
                let message = format!("too old resource version: {version} ({})", state.compacted);
                first.push(json!({"type": "ERROR", "object": failure(410, "Expired", message, Value::Null).body}));
                version
            }
            Ok(version) => version,
        };
        if lists_first || from.is_empty() || from == "0" {
            let all = state.all_of(kind.plural, &ask.namespace);
            first.extend(all.into_iter().filter(|object| selector.takes(object)).map(|object| json!({"type": "ADDED", "object": object})));
        }
        if lists_first {
            first.push(bookmark(kind, state.version, true));
        }
        let (bookmarks, epoch) = (state.bookmarks, state.watch_epoch);
        let namespace = ask.namespace.clone();
        Ok(Watch { kind, namespace, selector, takes_bookmarks, until: Instant::now() + seconds, told, bookmarks, epoch, first })
    }

    /// Until the time is up, the history it needs is forgotten, or nobody listens.
    pub(super) async fn run(mut self, server: Weak<ApiServer>, lines: mpsc::Sender<Bytes>) {
        let Some(mut changed) = server.upgrade().map(|server| server.changed.subscribe()) else { return };
        let is_refused = self.first.first().is_some_and(|event| event["type"] == json!("ERROR"));
        for event in std::mem::take(&mut self.first) {
            if lines.send(line(&event)).await.is_err() {
                return;
            }
        }
        while !is_refused {
            changed.borrow_and_update();
            let Some(events) = server.upgrade().and_then(|server| self.news(&server.lock())) else { return };
            for event in events {
                let is_error = event["type"] == json!("ERROR");
                if lines.send(line(&event)).await.is_err() || is_error {
                    return;
                }
            }
            let left = self.until.saturating_duration_since(Instant::now());
            tokio::select! {
                () = lines.closed() => return,
                () = tokio::time::sleep(left) => {
                    if self.takes_bookmarks && let Some(version) = server.upgrade().map(|server| server.version()) {
                        let _ = lines.send(line(&bookmark(self.kind, version, false))).await;
                    }
                    return;
                }
                outcome = changed.changed() => if outcome.is_err() { return },
            }
        }
    }

    /// What happened since the last look; `None` when all watches end.
    fn news(&mut self, state: &State) -> Option<Vec<Value>> {
        if state.watch_epoch != self.epoch {
            return None;
        }
        if self.told < state.compacted {
            let message = format!("too old resource version: {} ({})", self.told, state.compacted);
            return Some(vec![json!({"type": "ERROR", "object": failure(410, "Expired", message, Value::Null).body})]);
        }
        let begin = state.history.partition_point(|event| event.version <= self.told);
        let mut events: Vec<Value> = state.history[begin..].iter().filter_map(|event| self.seen(event)).collect();
        self.told = state.version.max(self.told);
        if state.bookmarks != self.bookmarks {
            self.bookmarks = state.bookmarks;
            events.extend(self.takes_bookmarks.then(|| bookmark(self.kind, state.version, false)));
        }
        Some(events)
    }

    /// What leaves the selection is deleted for who selects, and what enters it is added.
    fn seen(&self, event: &Event) -> Option<Value> {
        if event.plural != self.kind.plural || !(self.namespace.is_empty() || self.namespace == event.namespace) {
            return None;
        }
        let is_in = event.change != Change::Deleted && self.selector.takes(&event.object);
        let was_in = event.before.as_ref().is_some_and(|before| self.selector.takes(before));
        let kind = match (was_in, is_in) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        Some(json!({"type": kind, "object": event.object}))
    }
}

fn bookmark(kind: &Kind, version: u64, ends_the_list: bool) -> Value {
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    if ends_the_list {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    json!({"type": "BOOKMARK", "object": {"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata}})
}

fn line(event: &Value) -> Bytes {
    Bytes::from(format!("{event}\n"))
}
