//! `rewrap`: a new key-encryption key for the store while the daemon runs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::sync::Notify;

use crate::api::service::{RewrapRefusal, RewrapState, RewrapView, Rewraps};
use crate::embedded::{Embedded, NewKey, RewrapError, RewrapStanding, RewrapStep, Rewrapper};
use crate::engine::Engine;
use crate::engine::audit::{Action, Actor, Audit};
use crate::runtime::audit::AuditFile;
use crate::runtime::clock::wall_now;
use crate::runtime::shutdown::Shutdown;

use super::client::{Call, Client};
use super::failure::Failure;
use super::terminal::{Terminal, counted};

const PATH: &str = "/v1/rewrap";
/// How often a person's change of the key file is looked for.
const LOOK_AT_KEY_FILE_EVERY: Duration = Duration::from_secs(5);
/// How long what can't go on waits before it is tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How often the command looks how far it has come.
const WATCH_EVERY: Duration = Duration::from_millis(200);

/// Codes of problems in `status`.
const UNDER_WAY: &str = "rewrap-under-way";
const STUCK: &str = "rewrap-stuck";
const KEY_FILE_IS_OLD: &str = "key-file-old";

/// The daemon's end: begins a rewrap, and takes the one that is open further, also that of a former run.
pub(super) struct StoreRewraps {
    embedded: Embedded,
    audit: Arc<AuditFile>,
    /// Held while one begins.
    beginning: tokio::sync::Mutex<()>,
    begun: Notify,
    left: AtomicU64,
    awaits_person: AtomicBool,
    trouble: Mutex<Option<String>>,
}

#[async_trait]
impl Rewraps for StoreRewraps {
    async fn begin(&self, actor: Actor, file: Option<PathBuf>) -> Result<RewrapView, RewrapRefusal> {
        let _one_at_a_time = self.beginning.lock().await;
        let open = self.embedded.rewrap_standing().await?;
        let open = open.filter(|standing| standing.finished_at.is_none() || standing.awaits_key_file);
        if let Some(standing) = open {
            self.joins(&standing, file).await?;
            return self.view().await;
        }
        let key = self.embedded.new_key(file).await?;
        let detail = format!("from key {} to key {} in {}", self.embedded.keyring().id(), key.id(), key.file().display());
        self.record(actor, "rewrap-requested", detail).await.map_err(|_| RewrapRefusal::AuditUnavailable)?;
        self.begin_with(key).await?;
        self.view().await
    }

    async fn view(&self) -> Result<RewrapView, RewrapRefusal> {
        let Some(standing) = self.embedded.rewrap_standing().await? else { return Ok(RewrapView::default()) };
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = match standing.finished_at {
            Some(_) if !standing.awaits_key_file => RewrapState::Done,
            Some(_) if self.awaits_person.load(Ordering::Acquire) => RewrapState::KeyFileOld,
            _ => RewrapState::UnderWay,
        };
        Ok(RewrapView {
            state,
            from: Some(standing.from),
            to: Some(standing.to),
            file: Some(standing.file.display().to_string()),
            former_file: standing.former_file.map(|file| file.display().to_string()),
            begun_at: Some(standing.begun_at),
            finished_at: standing.finished_at,
            rows_left: self.left.load(Ordering::Acquire),
            old_pages: standing.has_old_pages,
            problem: trouble,
        })
    }
}

impl StoreRewraps {
    pub(super) fn new(embedded: Embedded, audit: Arc<AuditFile>) -> StoreRewraps {
        StoreRewraps {
            embedded,
            audit,
            beginning: tokio::sync::Mutex::default(),
            begun: Notify::new(),
            left: AtomicU64::new(0),
            awaits_person: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    async fn begin_with(&self, key: NewKey) -> Result<(), RewrapError> {
        self.awaits_person.store(false, Ordering::Release);
        let id = key.id();
        self.embedded.begin_rewrap(key, wall_now()).await?;
        tracing::info!(state = id, "a rewrap began");
        self.begun.notify_one();
        Ok(())
    }

    /// Asked again for what is open, a rewrap is watched; another one has to wait.
    async fn joins(&self, standing: &RewrapStanding, file: Option<PathBuf>) -> Result<(), RewrapError> {
        let is_same = match file {
            // Finished, it waits for a person or will be done in a moment.
            None => standing.finished_at.is_none() || !self.awaits_person.load(Ordering::Acquire),
            Some(file) => match self.embedded.new_key(Some(file)).await {
                Ok(key) => key.id() == standing.to,
                Err(RewrapError::SameKey { .. }) => true,
                Err(error) => return Err(error),
            },
        };
        let to = standing.to.clone();
        match standing.finished_at {
            _ if is_same => Ok(()),
            None => Err(RewrapError::UnderWay { to }),
            Some(_) => Err(RewrapError::KeyFileIsOld { to, file: standing.file.clone() }),
        }
    }

    async fn record(&self, actor: Actor, action: &str, detail: String) -> Result<(), RewrapError> {
        let action = Action { actor, action: action.to_owned(), credential: None, version: None, detail: Some(detail) };
        let recorded = self.audit.record(wall_now(), action).await;
        recorded.map_err(|_| RewrapError::Store("the audit trail can't be written"))
    }

    /// Goes on with what is open, until the daemon ends.
    pub(super) async fn follow(self: Arc<StoreRewraps>, engine: Arc<Engine>, shutdown: Shutdown) {
        let mut rewrapper = Rewrapper::new(self.embedded.clone());
        loop {
            let stepped = tokio::select! {
                biased;
                () = shutdown.begun() => return,
                stepped = self.step(&mut rewrapper, &engine) => stepped,
            };
            let wait = match &stepped {
                Ok(RewrapStep::Rest) => None,
                Ok(RewrapStep::AwaitKeyFile) => Some(LOOK_AT_KEY_FILE_EVERY),
                Ok(_) => Some(Duration::ZERO),
                Err(_) => Some(TRY_AGAIN_AFTER),
            };
            self.tell(&engine, &stepped);
            let waited = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.begun() => return,
                () = self.begun.notified() => rewrapper = Rewrapper::new(self.embedded.clone()),
                () = waited => {}
            }
        }
    }

    async fn step(&self, rewrapper: &mut Rewrapper, engine: &Engine) -> Result<RewrapStep, RewrapError> {
        let step = rewrapper.next().await?;
        self.left.store(rewrapper.left(), Ordering::Release);
        if matches!(step, RewrapStep::Reseal | RewrapStep::Finish) {
            let left = counted(usize::try_from(rewrapper.left()).unwrap_or(usize::MAX), "row is", "rows are");
            engine.set_problem(UNDER_WAY, Some(format!("the store is being sealed with another key: {left} left")));
        }
        if step == RewrapStep::Finish
            && let Some(RewrapStanding { from, to, .. }) = self.embedded.rewrap_standing().await?
        {
            self.record(Actor::Daemon, "rewrapped", format!("from key {from} to key {to}")).await?;
            tracing::info!(state = to, "everything is sealed with the new key");
        }
        rewrapper.perform(step, wall_now()).await?;
        if step == RewrapStep::AwaitKeyFile
            && let Some(RewrapStanding { to, file, .. }) = self.embedded.rewrap_standing().await?
        {
            let file = file.display();
            let way_out = format!("point `key.file` at `{file}`, or put that key where it points: a start needs both files until then");
            engine.set_problem(KEY_FILE_IS_OLD, Some(format!("the store is sealed with the key of id {to}: {way_out}")));
        }
        Ok(step)
    }

    fn tell(&self, engine: &Engine, stepped: &Result<RewrapStep, RewrapError>) {
        let trouble = stepped.as_ref().err().map(ToString::to_string);
        if let Some(trouble) = &trouble {
            tracing::warn!(error = trouble.as_str(), "a rewrap can't go on");
        }
        self.awaits_person.store(matches!(stepped, Ok(RewrapStep::AwaitKeyFile)), Ordering::Release);
        if matches!(stepped, Ok(RewrapStep::Rest | RewrapStep::AwaitKeyFile)) {
            engine.set_problem(UNDER_WAY, None);
        }
        if matches!(stepped, Ok(RewrapStep::Rest)) {
            engine.set_problem(KEY_FILE_IS_OLD, None);
        }
        engine.set_problem(STUCK, trouble.as_ref().map(|trouble| format!("a rewrap can't go on: {trouble}")));
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

impl From<RewrapError> for RewrapRefusal {
    fn from(error: RewrapError) -> RewrapRefusal {
        let detail = error.to_string();
        match error {
            RewrapError::UnderWay { .. } | RewrapError::KeyFileIsOld { .. } => RewrapRefusal::NotNow(detail),
            RewrapError::Store(_) | RewrapError::Damaged { .. } => RewrapRefusal::Unavailable(detail),
            _ => RewrapRefusal::BadKey(detail),
        }
    }
}

/// `rewrap [--to FILE]`. Ends with the rewrap; cut off, it goes on without us.
pub(super) async fn rewrap(to: Option<PathBuf>, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    let call = match to {
        Some(file) => {
            let file = std::path::absolute(&file).map_err(|error| Failure::io("naming the key file", &error))?;
            let text = file.to_str().ok_or_else(|| Failure::invalid("usage", "the key file can't be named", "its path isn't UTF-8"))?;
            Call { body: Some(Bytes::from(json!({"file": text}).to_string())), ..Call::new(Method::POST, PATH) }
        }
        None => Call::new(Method::POST, PATH),
    };
    let mut view: RewrapView = client.send(call).await?.parse()?;
    let name = |key: &Option<String>| key.clone().unwrap_or_default();
    terminal.remark(&format!("sealing the store with the key of id {}; it goes on by itself if this is cut off", name(&view.to)));
    while view.state == RewrapState::UnderWay && view.problem.is_none() {
        tokio::time::sleep(WATCH_EVERY).await;
        view = client.document(PATH).await?;
    }
    if view.state == RewrapState::UnderWay {
        let problem = view.problem.unwrap_or_default();
        return Err(Failure::failed("rewrap-stuck", "the rewrap can't go on", problem).then("it is tried again by itself"));
    }
    if terminal.json {
        terminal.print_json(&view)?;
    } else {
        terminal.print(&sentences(&view))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn sentences(view: &RewrapView) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let mut lines = vec![format!("everything is sealed with the key of id {} now, in {}", text(&view.to), text(&view.file))];
    match &view.former_file {
        Some(file) => {
            lines.push(format!("the former key is kept as {file}: only it opens older backups; destroy it with the last of them"))
        }
        None => lines.push("keep the former key as long as older backups: only it opens them".to_owned()),
    }
    if view.state == RewrapState::KeyFileOld {
        lines.push(format!(
            "now point `key.file` at {}, or put that key where it points: a start needs both files until then",
            text(&view.file)
        ));
    }
    if view.old_pages {
        lines.push("free pages of the store may hold what the former key sealed until the daemon is started again".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_rewrap_says_what_is_left_to_a_person() {
        let view = RewrapView {
            state: RewrapState::KeyFileOld,
            to: Some("b".repeat(32)),
            file: Some("/run/new.key".to_owned()),
            old_pages: true,
            ..RewrapView::default()
        };
        let said = sentences(&view);
        for part in ["point `key.file` at /run/new.key", "older backups", "free pages", &"b".repeat(32)] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let view = RewrapView { state: RewrapState::Done, former_file: Some("k.key.1".to_owned()), old_pages: false, ..view };
        let said = sentences(&view);
        assert!(said.contains("kept as k.key.1") && !said.contains("point") && !said.contains("free pages"), "{said}");
    }
}
