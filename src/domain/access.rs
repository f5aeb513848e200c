//! Who may do what: applications read what their document lists, operators do what the configuration allows.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::credential::Environment;
use super::ids::Name;
use super::policy::{Application, Policies};
use super::workload::ServiceAccount;

/// How a caller shows who it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// SHA-256 of a static bearer token.
    Token { sha256: [u8; 32] },
    /// The uid of the process at the other end of the Unix socket.
    Unix { uid: u32 },
    /// A token of this service account that is bound to a pod, as the cluster's API server reviews it.
    Kubernetes(ServiceAccount),
}

impl Identity {
    /// The namespace that it is of, for an identity in Kubernetes.
    pub fn namespace(&self) -> Option<&Name> {
        match self {
            Identity::Token { .. } | Identity::Unix { .. } => None,
        }
    }
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// See status, plan, versions and going-live lists.
    Status,
    /// Submit, rotate, release: what brings a credential's next version about. Sign off going-live lists.
    Rotate,
    /// All that ends a key: say that it is stolen, roll back, revoke, forget; pause and resume; and the store's own key.
    Revoke,
    /// Read values.
    Read,
}

impl Right {
    pub const ALL: [Right; 4] = [Right::Status, Right::Rotate, Right::Revoke, Right::Read];

    /// The word for it in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Right::Status => "status",
            Right::Rotate => "rotate",
            Right::Revoke => "revoke",
            Right::Read => "read",
        }
    }
}

/// An entry of `operators` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    pub identity: Identity,
    pub may: BTreeSet<Right>,
}

/// Whether this application may read this credential: only what its document lists, in its own environment (I18).
pub fn may_read(policies: &Policies, application: &Application, credential: &Name) -> bool {
    let environment = |name: &Name| -> Option<Environment> { policies.credentials.get(name).map(|c| c.environment) };
    application.credentials.contains(credential) && environment(credential) == Some(application.environment)
}

/// Whether a person who reads a credential of this environment has to say why.
pub fn needs_reason(environment: Environment) -> bool {
    environment == Environment::Production
}

#[cfg(test)]
mod tests;
