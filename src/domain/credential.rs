//! A credential: a named set of fields for one provider and one environment, in versions and stages.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::Name;

/// Where a credential works. There are two, and nothing may cross between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    Sandbox,
    Production,
}

impl Environment {
    pub const ALL: [Environment; 2] = [Environment::Sandbox, Environment::Production];

    pub const fn as_str(self) -> &'static str {
        match self {
            Environment::Sandbox => "sandbox",
            Environment::Production => "production",
        }
    }

    pub const fn other(self) -> Environment {
        match self {
            Environment::Sandbox => Environment::Production,
            Environment::Production => Environment::Sandbox,
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The role of a version in the store (AWSPENDING, AWSCURRENT, AWSPREVIOUS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Pending,
    Current,
    Previous,
}

/// A `Credential` document, as validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub name: Name,
    pub provider: Name,
    pub environment: Environment,
    /// Name of its `RotationPolicy`.
    pub rotation: Name,
    /// Where the store keeps it, below the environment; the name unless the document says otherwise.
    pub path: String,
    /// What the provider's templates ask for (`tenant`); each one DNS label.
    pub variables: BTreeMap<String, Name>,
    /// Slots, quota, minting and orphan search are serialised per account.
    pub account: Name,
    /// The credential that authorises calls which the description leaves to an administrator.
    pub administered_by: Option<Name>,
    /// Its twin in the sandbox.
    pub twin: Option<Name>,
    /// Why a verdict of `undetermined` is good enough in production.
    pub accept_undetermined: Option<String>,
    /// How long its twin's rotation takes, where that comes first.
    pub rehearsal_time: Duration,
    /// No application is served it before its going-live list is passed.
    pub require_go_live: bool,
}
