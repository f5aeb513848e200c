//! Which configuration a command works by, and what it needs of it.

use std::path::PathBuf;

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
        Config::load(self.path.as_deref()).map_err(|error| {
            Failure::invalid("configuration", "the configuration is invalid", error.to_string())
                .then("mend the file, or name another one with --config FILE")
        })
    }

    pub(super) fn policies(&self) -> Result<PathBuf, Failure> {
        self.config().map(|config| config.policies)
    }

    pub(super) fn audit_file(&self) -> Result<PathBuf, Failure> {
        self.config().map(|config| config.audit)
    }

    pub(super) fn client(&self) -> Result<Client, Failure> {
        self.config().map(|config| Client::new(config.listen.socket))
    }
}
