//! Which configuration a command works by, and what it needs of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain::access::Identity;
use crate::domain::policy::{Application, Policies};
use crate::domain::span::Span;
use crate::policies::{Problem, Problems, overlaps_within, read_folder};
use crate::runtime::clock::wall_now;
use crate::runtime::config::{AUDIENCE_HELP, Config};

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

/// What the policies are held to by the configuration; by default, nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    pub(super) max_stale: Option<Span>,
    knows_no_pods: bool,
}

impl Held {
    pub(super) fn by(config: &Config) -> Held {
        Held { max_stale: config.max_stale, knows_no_pods: config.identities.is_none() }
    }
}

/// Reads the policies, and holds them to what the configuration says of the cache: an overlap that isn't longer than
/// what readers may be behind would let one of them hold a dead key (I6). And to whether there is a way to know pods.
pub(super) fn read_policies(path: &Path, held: Held) -> Result<Policies, Problems> {
    let policies = read_folder(path, wall_now())?;
    let mut problems = overlaps_too_short(path, &policies, held.max_stale);
    if held.knows_no_pods {
        problems.extend(pods_unknown(path, &policies));
    }
    if problems.is_empty() { Ok(policies) } else { Err(Problems::new(problems, &[])) }
}

/// Nobody could ever show to be such an application: that is a mistake, and not a quiet one.
fn pods_unknown(path: &Path, policies: &Policies) -> Vec<Problem> {
    let of_pods = policies.applications.values().filter(|application| matches!(application.identity, Identity::Kubernetes(_)));
    let problem = |application: &Arc<Application>| {
        let message = format!("`{}` is a service account, and the configuration names no audience", application.name);
        Problem::of_file(path.display().to_string(), "identities-missing", message, AUDIENCE_HELP)
    };
    of_pods.map(problem).collect()
}

fn overlaps_too_short(path: &Path, policies: &Policies, max_stale: Option<Span>) -> Vec<Problem> {
    let Some(max_stale) = max_stale else { return Vec::new() };
    let short = overlaps_within(policies, max_stale).into_iter().map(|name| {
        let message = format!("the overlap of `{name}` isn't longer than `cache.maxStale` of the configuration ({max_stale})");
        Problem::of_file(
            path.display().to_string(),
            "overlap-within-stale",
            message,
            "make the overlap longer, or `cache.maxStale` shorter",
        )
    });
    short.collect()
}
