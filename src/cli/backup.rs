//! `backup` and `restore`: a copy of the store while the daemon runs, and the way back as another installation.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use crate::api::service::{SnapshotError, Snapshots};
use crate::embedded::{Embedded, Restore, restore};
use crate::engine::audit::{Action, Actor, Audit};
use crate::runtime::audit::{AuditFile, OpenError};
use crate::runtime::clock::wall_now;

use super::client::{Call, Client};
use super::failure::Failure;
use super::settings::Settings;
use super::terminal::{Terminal, counted};

/// The daemon's end: the embedded file, and the trail that says who copied it.
pub(super) struct StoreSnapshots {
    pub(super) embedded: Embedded,
    pub(super) audit: Arc<AuditFile>,
}

#[async_trait]
impl Snapshots for StoreSnapshots {
    async fn take(&self, actor: Actor) -> Result<File, SnapshotError> {
        self.audit.record(wall_now(), plain(actor, "backed-up", None)).await.map_err(|_| SnapshotError::AuditUnavailable)?;
        self.embedded.snapshot().await.map_err(|_| SnapshotError::Unavailable)
    }
}

fn plain(actor: Actor, action: &str, detail: Option<String>) -> Action {
    Action { actor, action: action.to_owned(), credential: None, version: None, detail }
}

/// `backup FILE`.
pub(super) async fn backup(path: &Path, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    let doing = format!("writing the backup {}", path.display());
    let failed = |error: std::io::Error| Failure::io(&doing, &error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let written = client.download(Call::get("/v1/backup"), &mut file).await;
    let written = written.and_then(|bytes| {
        file.sync_all().and_then(|()| sync_parent(path)).map_err(failed)?;
        Ok(bytes)
    });
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(failure) => {
            // Half a backup would be taken for one.
            drop(std::fs::remove_file(path));
            return Err(failure);
        }
    };
    if terminal.json {
        terminal.print_json(&json!({"file": path, "bytes": bytes}))?;
    } else {
        terminal.print(&format!("{bytes} bytes in {}, sealed: it opens with the key file only, which isn't in it", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// `restore [FILE] [--force]`. Without a daemon: it would have the store open.
pub(super) async fn bring_back(backup: Option<PathBuf>, force: bool, settings: &Settings, terminal: Terminal) -> Result<ExitCode, Failure> {
    let config = settings.config()?;
    let directory = config.data_directory().to_owned();
    let has_trail = std::fs::metadata(&config.audit).is_ok_and(|metadata| metadata.len() > 0);
    let (key_file, source) = (config.key.clone(), backup.clone());
    let restoring = move || {
        let asked = Restore { directory: &directory, key_file: &key_file, backup: source.as_deref(), force, has_trail };
        restore(&asked)
    };
    let refused = |error: &dyn std::error::Error| Failure::failed("not-restored", "nothing was restored", error.to_string());
    let trail = AuditFile::open(&config.audit, wall_now()).map_err(|error| match error {
        OpenError::InUse => refused(&error).then("the daemon runs: stop it first"),
        error => refused(&error),
    })?;
    let who = Actor::Operator { who: format!("uid:{}", rustix::process::getuid().as_raw()) };
    let from = backup.as_deref().map_or_else(|| "the store that lay there".to_owned(), |path| path.display().to_string());
    trail.record(wall_now(), plain(who, "restoring", Some(format!("from {from}")))).await.map_err(|error| refused(&error))?;
    let restored = restoring().map_err(|error| refused(&error))?;
    if terminal.json {
        let answer = json!({"installation": restored.installation, "credentials": restored.credentials, "replaced": restored.replaced});
        terminal.print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let count = counted(restored.credentials, "credential", "credentials");
    terminal.print(&format!("restored {count}; this is another installation now: {}", restored.installation.short()))?;
    if let Some(replaced) = &restored.replaced {
        terminal.print(&format!("the store that was there lies in {} now", replaced.display()))?;
    }
    terminal.print("start the daemon: it serves nothing before it was verified again; `keywright status` says what needs a person")?;
    Ok(ExitCode::SUCCESS)
}
