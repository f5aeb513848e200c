//! Why a Secret isn't written, or a workload isn't restarted: with the object, and the way out.

use super::contents::BYTES_MAX;
use super::objects::SecretAt;
use super::owner::{ADOPT, Foreign, Owner};
use crate::cluster::ClusterError;

/// What was asked of the API, as its rights name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doing {
    pub verb: &'static str,
    /// For example `secrets/payments in shop`.
    pub object: String,
}

/// One enum for all that this way of delivery can meet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("{}", api_text(.doing, *.error))]
    Api { doing: Doing, error: ClusterError },
    #[error("{}", foreign_text(.at, .owner, *.why))]
    NotOurs { at: SecretAt, owner: Owner, why: Foreign },
    #[error(
        "the values for {at} are more than {BYTES_MAX} bytes together, which is what a Secret holds: list fewer credentials in this application"
    )]
    TooLarge { at: SecretAt },
    #[error("{at} has newer values than these: another replica wrote them")]
    Overtaken { at: SecretAt },
    #[error("{at} changed with each look, and is tried again")]
    Contended { at: SecretAt },
    #[error("{at} is being deleted, and is written anew once it is gone")]
    Ending { at: SecretAt },
}

impl Trouble {
    /// Whether it may go by itself; else a person is needed, and it is looked at again now and then.
    pub fn is_passing(&self) -> bool {
        match self {
            Trouble::Api { error, .. } => error.is_passing() || matches!(error, ClusterError::Conflict | ClusterError::Gone),
            Trouble::Overtaken { .. } | Trouble::Contended { .. } | Trouble::Ending { .. } => true,
            Trouble::NotOurs { .. } | Trouble::TooLarge { .. } => false,
        }
    }

    /// For how long the API asks to be left alone.
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Trouble::Api { error, .. } => error.retry_after(),
            _ => None,
        }
    }
}

fn api_text(doing: &Doing, error: ClusterError) -> String {
    let Doing { verb, object } = doing;
    match error {
        ClusterError::Forbidden => {
            format!("the Kubernetes API forbids us to {verb} {object}: give our service account that right in a Role there")
        }
        ClusterError::NotFound => format!("could not {verb} {object}: there is no such namespace, or the object is gone"),
        ClusterError::Invalid => format!(
            "could not {verb} {object}: the Kubernetes API doesn't take it; an object that is immutable or of another type has to be deleted first"
        ),
        other => format!("could not {verb} {object}: {other}"),
    }
}

fn foreign_text(at: &SecretAt, owner: &Owner, why: Foreign) -> String {
    let why = match why {
        Foreign::Unmarked => "wasn't made by Keywright",
        Foreign::OtherApplication => "belongs to another application",
        Foreign::OtherInstallation => "belongs to another installation of Keywright, or to this one before it was restored",
    };
    let (namespace, name, application) = (&at.namespace, &at.name, &owner.application);
    format!(
        "{at} {why}, and isn't touched: name another Secret in the document, or hand it over with `kubectl annotate -n {namespace} secret {name} {ADOPT}={application}`"
    )
}
