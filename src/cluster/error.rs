//! What an answer of the Kubernetes API means to us. Nothing of its text is kept: it can repeat what was sent.

use std::time::Duration;

use kube::core::Status;

/// Nobody is made to wait longer by a header, however long it says.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Why the API didn't do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The object, its namespace, or the whole kind.
    #[error("there is no such object")]
    NotFound,
    /// It was changed, or replaced by another one of its name, since it was read.
    #[error("the object was changed since it was read")]
    Conflict,
    /// Server-side apply: another field manager has one of these fields, with another value.
    #[error("another field manager owns a field of the object")]
    Owned,
    #[error("there is already an object of this name")]
    AlreadyExists,
    /// The version or page that was asked for is forgotten: list anew.
    #[error("the version that was asked for is no longer kept")]
    Gone,
    /// Our token isn't taken (or can't be read).
    #[error("the Kubernetes API doesn't take our token")]
    Unauthorized,
    /// RBAC, a quota, or a namespace that is being removed.
    #[error("the Kubernetes API forbids it")]
    Forbidden,
    #[error("the object isn't valid")]
    Invalid,
    /// 1 MiB of data in a ConfigMap or Secret, 3 MiB of a request.
    #[error("the object is too large")]
    TooLarge,
    #[error("the Kubernetes API is asked too often")]
    TooMany { retry_after: Option<Duration> },
    /// No answer, or one that says to come again. What was to be changed may be changed or not.
    #[error("the Kubernetes API doesn't answer")]
    Unavailable { retry_after: Option<Duration> },
    /// No object of this kind, or no JSON.
    #[error("the Kubernetes API's answer can't be read")]
    Unreadable,
}

impl ClusterError {
    /// Whether the same call may be taken later, without anything changing on our side.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::TooMany { .. } | Self::Unavailable { .. })
    }

    /// For how long the API asks to be left alone; at most a minute.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::TooMany { retry_after } | Self::Unavailable { retry_after } => retry_after,
            _ => None,
        }
    }

    /// Also for the status that stands within an `ERROR` event of a watch.
    pub fn of_status(status: &Status) -> ClusterError {
        let details = status.details.as_ref();
        let has_cause = |reason: &str| details.is_some_and(|details| details.causes.iter().any(|cause| cause.reason == reason));
        let seconds = details.map_or(0, |details| details.retry_after_seconds);
        let retry_after = (seconds > 0).then(|| Duration::from_secs(seconds.into()).min(RETRY_AFTER_MAX));
        match status.code {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            409 if status.reason == "AlreadyExists" => Self::AlreadyExists,
            409 if has_cause("FieldManagerConflict") => Self::Owned,
            409 => Self::Conflict,
            410 => Self::Gone,
            413 => Self::TooLarge,
            422 if has_cause("FieldValueTooLong") => Self::TooLarge,
            429 => Self::TooMany { retry_after },
            400..=499 => Self::Invalid,
            // Also 0, of an answer that doesn't say.
            _ => Self::Unavailable { retry_after },
        }
    }
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> ClusterError {
        use kube::Error;
        match error {
            Error::Api(status) => Self::of_status(&status),
            // What can't be sent as it stands.
            Error::BuildRequest(_) | Error::HttpError(_) => Self::Invalid,
            Error::SerdeError(_) | Error::FromUtf8(_) => Self::Unreadable,
            Error::Auth(_) => Self::Unauthorized,
            // The rest is about the connection, or about settings that were read long before.
            _ => Self::Unavailable { retry_after: None },
        }
    }
}
