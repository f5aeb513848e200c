//! Which configuration a command works by, and what it needs of it.

use std::path::{Path, PathBuf};

use crate::domain::policy::Policies;
use crate::domain::span::Span;
use crate::policies::{Problem, Problems, overlaps_within, read_folder};
use crate::runtime::clock::wall_now;
use crate::runtime::config::Config;

use super::client::Client;
use super::failure::Failure;

/// The configuration file that was named, if one was. Read only by the commands that need it.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    path: Option<PathBuf>,
}

impl Settings {
    pub(super) fn new(path: Option<PathBuf>) -> Settings {
        // An empty variable is how a shell says "none".
        Settings { path: path.filter(|path| !path.as_os_str().is_empty()) }
    }

    pub(super) fn path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    /// # Errors
    /// Exit status 2: the file can't be read, or isn't a configuration.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        Config::load(self.path.as_deref()).map_err(|problems| {
            Failure::documents("configuration-invalid", "the configuration is invalid", &problems)
                .then("mend the file, or name another one with --config FILE")
        })
    }

    pub(super) fn client(&self) -> Result<Client, Failure> {
        self.config().map(|config| Client::new(config.listen.socket))
    }
}

/// Reads the policies, and holds them to what the configuration says of the cache: an overlap that isn't longer than
/// what readers may be behind would let one of them hold a dead key (I6).
pub(super) fn read_policies(path: &Path, max_stale: Option<Span>) -> Result<Policies, Problems> {
    let policies = read_folder(path, wall_now())?;
    let Some(max_stale) = max_stale else { return Ok(policies) };
    let short = overlaps_within(&policies, max_stale).into_iter().map(|name| {
        let message = format!("the overlap of `{name}` isn't longer than `cache.maxStale` of the configuration ({max_stale})");
        Problem::of_file(
            path.display().to_string(),
            "overlap-within-stale",
            message,
            "make the overlap longer, or `cache.maxStale` shorter",
        )
    });
    let problems: Vec<Problem> = short.collect();
    if problems.is_empty() { Ok(policies) } else { Err(Problems::new(problems, &[])) }
}
