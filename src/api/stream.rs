//! The event stream of one instance: first everything that it may read, then every change, to the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::document;
use super::handle::Api;
use super::limits::Permit;
use super::service::StreamGuard;
use crate::delivery::stream::Changes;
use crate::domain::access::{may_read, needs_reason};
use crate::domain::ids::Name;
use crate::domain::policy::{Application, Policies};
use crate::engine::Reader;

/// How many events may wait for a slow reader. What isn't sent yet isn't read yet, so this bounds the memory, too.
const WAITING_MAX: usize = 2;

/// The longest that `bye` waits for room.
const BYE_TIME: Duration = Duration::from_millis(500);

/// Who a stream is for, as it was when it began.
pub(super) enum Subject {
    Application(Arc<Application>),
    Operator,
}

/// Everything that one stream knows.
pub(super) struct EventStream {
    pub(super) api: Arc<Api>,
    pub(super) subject: Subject,
    pub(super) reader: Reader,
    /// The credentials asked for; `None` for all.
    pub(super) only: Option<BTreeSet<Name>>,
    pub(super) changes: Changes,
    /// Holds the instance's lease.
    pub(super) _guard: Option<StreamGuard>,
    pub(super) _permit: Permit,
}

/// The revisions that the reader has been sent, and what it could read when we last looked.
#[derive(Default)]
struct Sent {
    revisions: BTreeMap<Name, u64>,
    readable: BTreeSet<Name>,
}

enum Outcome {
    /// The reader has the latest of everything.
    UpToDate,
    /// Something couldn't be read: worth another try soon.
    TryAgain,
    End,
}

impl EventStream {
    /// Starts the stream; the receiver gets what the reader is to see. It ends once what the caller showed is `over`.
    pub(super) fn start(self, over: BoxFuture<'static, ()>) -> mpsc::Receiver<Bytes> {
        let (out, frames) = mpsc::channel(WAITING_MAX);
        tokio::spawn(self.run(over, out));
        frames
    }

    async fn run(mut self, mut over: BoxFuture<'static, ()>, out: mpsc::Sender<Bytes>) {
        let mut sent = Sent::default();
        let mut wait = self.api.limits.retry_first;
        if out.send(Bytes::from_static(b"retry: 1000\n\n")).await.is_err() {
            return;
        }
        let stop = self.api.stop.clone();
        loop {
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => return say_bye(&out).await,
                () = out.closed() => return,
                () = &mut over => return,
                outcome = self.catch_up(&out, &mut sent) => outcome,
            };
            let again = match outcome {
                Outcome::End => return,
                Outcome::UpToDate => None,
                Outcome::TryAgain => Some(Instant::now() + wait),
            };
            wait = if again.is_some() { (wait * 2).min(self.api.limits.retry_first * 32) } else { self.api.limits.retry_first };
            tokio::select! {
                biased;
                () = stop.cancelled() => return say_bye(&out).await,
                () = out.closed() => return,
                () = &mut over => return,
                () = self.changes.next() => {}
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
        }
    }

    /// Sends what changed since the last look: ended access first, then newer revisions.
    async fn catch_up(&self, out: &mpsc::Sender<Bytes>, sent: &mut Sent) -> Outcome {
        let readable = self.readable(&self.api.service.policies());
        let ended = match &readable {
            Some(readable) => sent.readable.difference(readable).cloned().collect(),
            None => sent.readable.clone(),
        };
        for name in ended {
            let Some(room) = self.room(out).await else { return Outcome::End };
            room.send(document::withdrawn(&name));
            sent.readable.remove(&name);
            sent.revisions.remove(&name);
        }
        let Some(readable) = readable else { return Outcome::End };
        sent.readable = readable;
        let mut outcome = Outcome::UpToDate;
        for name in &sent.readable {
            let Some((_, wanted)) = self.api.service.current(&self.reader, name) else { continue };
            if sent.revisions.get(name).is_some_and(|revision| *revision >= wanted) {
                continue;
            }
            // Room first, then the value: it is disclosed right before it is sent, and it is the newest by then.
            let Some(room) = self.room(out).await else { return Outcome::End };
            let Ok(document) = self.api.service.read(&self.reader, name).await else {
                outcome = Outcome::TryAgain;
                continue;
            };
            if sent.revisions.get(name).is_none_or(|revision| *revision < document.revision) {
                sent.revisions.insert(name.clone(), document.revision);
                room.send(document::event(&document));
            }
            if document.revision < wanted {
                outcome = Outcome::TryAgain;
            }
        }
        outcome
    }

    /// What may be read now; `None` once the application itself is gone, or is shown by another identity: then the token
    /// that opened this stream is no longer good.
    fn readable(&self, policies: &Policies) -> Option<BTreeSet<Name>> {
        let asked_for = |name: &&Name| self.only.as_ref().is_none_or(|only| only.contains(*name));
        let Subject::Application(then) = &self.subject else {
            // What became production's since the stream began isn't read without a reason.
            let open = policies.credentials.iter().filter(|(_, credential)| self.has_reason() || !needs_reason(credential.environment));
            return Some(open.map(|(name, _)| name).filter(asked_for).cloned().collect());
        };
        let now = policies.applications.get(&then.name).filter(|now| now.identity == then.identity)?;
        Some(now.credentials.iter().filter(asked_for).filter(|name| may_read(policies, now, name)).cloned().collect())
    }

    fn has_reason(&self) -> bool {
        matches!(self.reader, Reader::Operator { reason: Some(_), .. })
    }

    /// `None`: the reader takes nothing, or is gone.
    async fn room<'a>(&self, out: &'a mpsc::Sender<Bytes>) -> Option<mpsc::Permit<'a, Bytes>> {
        timeout(self.api.limits.write_timeout, out.reserve()).await.ok()?.ok()
    }
}

async fn say_bye(out: &mpsc::Sender<Bytes>) {
    // A reader that takes nothing sees the end of the stream instead.
    let _ = timeout(BYE_TIME, out.send(Bytes::from_static(b"event: bye\ndata: {}\n\n"))).await;
}
