//! Problem documents (RFC 9457): every refusal, in the contract's closed set of slugs.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::body::Body;
use super::service::{RewrapRefusal, SnapshotError};
use crate::domain::access::Right;
use crate::engine::errors::{
    ConfirmError, ForgetError, LaunchError, PauseError, ReadError, ReleaseError, ReportError, RevokeError, RollbackError, RotateError,
    SubmitError,
};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

macro_rules! slugs {
    ($($slug:ident = $status:literal $text:literal $title:literal,)*) => {
        /// What kind of refusal it is: what a client branches on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Slug { $($slug),* }

        impl Slug {
            pub(super) const ALL: &[Slug] = &[$(Slug::$slug),*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Slug::$slug => $text),* }
            }

            /// What a problem document has as its `type`.
            pub(super) fn address(self) -> String {
                format!("https://keywright.dev/problems/{}", self.as_str())
            }

            pub const fn title(self) -> &'static str {
                match self { $(Slug::$slug => $title),* }
            }

            pub const fn status(self) -> u16 {
                match self { $(Slug::$slug => $status),* }
            }
        }
    };
}

slugs! {
    BadName = 400 "bad-name" "This is no name",
    BadRequest = 400 "bad-request" "The request isn't understood",
    Forwarded = 400 "forwarded" "Forwarded requests aren't taken",
    Unauthenticated = 401 "unauthenticated" "It isn't clear who is asking",
    Forbidden = 403 "forbidden" "The caller may not do this",
    WrongProof = 403 "wrong-proof" "The proof doesn't fit",
    NotFound = 404 "not-found" "There is nothing here",
    Method = 405 "method" "This method isn't for this path",
    Timeout = 408 "timeout" "The request came too slowly",
    VersionConflict = 409 "version-conflict" "Another version is the newest",
    RotationOpen = 409 "rotation-open" "A rotation is open",
    NotRevocable = 409 "not-revocable" "This version can't be revoked",
    AmbiguousInstance = 409 "ambiguous-instance" "It isn't clear which instance is asking",
    TooLarge = 413 "too-large" "The request is too large",
    MediaType = 415 "media-type" "The body must be JSON",
    EnvironmentMismatch = 422 "environment-mismatch" "The key belongs to another environment",
    Undetermined = 422 "undetermined" "Nothing proves where the key belongs",
    ProviderRefused = 422 "provider-refused" "The provider doesn't accept the key",
    InvalidFields = 422 "invalid-fields" "The fields aren't what the provider's description asks for",
    TooMany = 429 "too-many" "Too many at once",
    NotReady = 503 "not-ready" "Not ready",
    NoVersion = 503 "no-version" "Nothing to serve yet",
    StoreUnavailable = 503 "store-unavailable" "The store can't be reached",
    AuditUnavailable = 503 "audit-unavailable" "The audit trail can't be written",
}

const BUG: &str = "this request met a bug: its `request_id` is in the log";

/// A refusal. `detail` says what is wrong and how to go on; it never holds anything of a body or of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub slug: Slug,
    pub detail: String,
    /// What would be allowed, for [`Slug::Method`].
    pub allow: Option<String>,
}

/// A problem document (RFC 9457).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Written<'a> {
    /// `https://keywright.dev/problems/<slug>`: what a client branches on.
    r#type: String,
    title: &'a str,
    status: u16,
    /// What is wrong, and how to go on. Never a value.
    detail: &'a str,
    /// The same as in the header `X-Request-Id`.
    request_id: Uuid,
}

impl Problem {
    pub fn new(slug: Slug, detail: impl Into<String>) -> Problem {
        Problem { slug, detail: detail.into(), allow: None }
    }

    pub(super) fn method(allowed: &[&str]) -> Problem {
        let allow = allowed.join(", ");
        Problem { slug: Slug::Method, detail: format!("this path takes {allow}"), allow: Some(allow) }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(Slug::BadRequest, detail)
    }

    pub(super) fn forbidden() -> Problem {
        Problem::new(Slug::Forbidden, "the caller's document or its entry under `operators` doesn't allow this")
    }

    /// For a caller that means to be an application which isn't the one of its identity.
    pub(super) fn another_application() -> Problem {
        Problem::new(Slug::Forbidden, "the caller isn't the application that it names: look at `identity` of the Application document")
    }

    /// For a call that needs a right which the caller hasn't, whatever it is about.
    pub(super) fn right_missing(right: Right) -> Problem {
        let right = right.as_str();
        Problem::new(Slug::Forbidden, format!("this needs an operator's right `{right}`: see `may` of `operators` in the configuration"))
    }

    pub(super) fn unauthenticated() -> Problem {
        Problem::new(Slug::Unauthenticated, "send a known token as `Authorization: Bearer`, or come over the socket with a known uid")
    }

    pub(super) fn not_found() -> Problem {
        Problem::new(Slug::NotFound, "there is no such path, or no such object")
    }

    pub(super) fn too_many() -> Problem {
        Problem::new(Slug::TooMany, "too many requests, streams or connections are open at once: try again")
    }

    /// What is answered where the handler itself failed; the set of slugs knows no better word.
    pub(super) fn bug() -> Problem {
        Problem::new(Slug::NotReady, BUG)
    }

    pub(super) fn is_bug(&self) -> bool {
        self.detail == BUG
    }

    pub(super) fn json(&self, request_id: Uuid) -> String {
        let written =
            Written { r#type: self.slug.address(), title: self.slug.title(), status: self.slug.status(), detail: &self.detail, request_id };
        // Texts and numbers always serialise.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// All headers that the answer has beside its content type and its request id.
    pub(super) fn extra_headers(&self) -> impl Iterator<Item = (HeaderName, &str)> {
        let challenge = (self.slug == Slug::Unauthenticated).then_some((WWW_AUTHENTICATE, "Bearer"));
        let retry = (self.slug == Slug::TooMany).then_some((RETRY_AFTER, "1"));
        challenge.into_iter().chain(retry).chain(self.allow.as_deref().map(|methods| (ALLOW, methods)))
    }

    pub(super) fn answer(&self, request_id: Uuid) -> Response<Body> {
        let mut answer = Response::new(Body::full(Bytes::from(self.json(request_id))));
        *answer.status_mut() = StatusCode::from_u16(self.slug.status()).unwrap_or(StatusCode::BAD_REQUEST);
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.extra_headers() {
            if let Ok(value) = HeaderValue::from_str(value) {
                answer.headers_mut().insert(name, value);
            }
        }
        answer
    }

    /// The same as bytes of HTTP/1.1, for connections that never reach a handler.
    pub(super) fn wire(&self, request_id: Uuid) -> Vec<u8> {
        let json = self.json(request_id);
        let status = self.slug.status();
        let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
        let mut text = format!("HTTP/1.1 {status} {reason}\r\n{CONTENT_TYPE}: application/problem+json\r\n");
        text.push_str(&format!("content-length: {}\r\n{CACHE_CONTROL}: no-store\r\n{REQUEST_ID}: {request_id}\r\n", json.len()));
        for (name, value) in self.extra_headers() {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("connection: close\r\n\r\n");
        text.push_str(&json);
        text.into_bytes()
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Problem {
        let slug = match error {
            ReadError::Forbidden => return Problem::forbidden(),
            ReadError::ReasonMissing => Slug::BadRequest,
            ReadError::NoVersion => Slug::NoVersion,
            ReadError::NotVerified | ReadError::NotLive => Slug::NotReady,
            ReadError::TooManyInstances => Slug::TooMany,
            ReadError::StoreUnavailable => Slug::StoreUnavailable,
            ReadError::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}

impl From<SnapshotError> for Problem {
    fn from(error: SnapshotError) -> Problem {
        let slug = match error {
            SnapshotError::Unavailable => Slug::StoreUnavailable,
            SnapshotError::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}

impl From<RewrapRefusal> for Problem {
    fn from(error: RewrapRefusal) -> Problem {
        let slug = match error {
            RewrapRefusal::BadKey(_) => Slug::BadRequest,
            RewrapRefusal::NotNow(_) => Slug::NotReady,
            RewrapRefusal::Unavailable(_) => Slug::StoreUnavailable,
            RewrapRefusal::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}

impl From<ConfirmError> for Problem {
    fn from(error: ConfirmError) -> Problem {
        let slug = match error {
            ConfirmError::Forbidden => return Problem::forbidden(),
            ConfirmError::AmbiguousInstance => Slug::AmbiguousInstance,
            ConfirmError::NotNewest => Slug::VersionConflict,
            ConfirmError::WrongProof => Slug::WrongProof,
            ConfirmError::Unavailable => Slug::StoreUnavailable,
            ConfirmError::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}

impl From<ReportError> for Problem {
    fn from(error: ReportError) -> Problem {
        let slug = match error {
            ReportError::Forbidden => return Problem::forbidden(),
            ReportError::AmbiguousInstance => Slug::AmbiguousInstance,
            ReportError::NotNewest => Slug::VersionConflict,
            ReportError::Unavailable => Slug::StoreUnavailable,
            ReportError::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Problem {
        let slug = match error {
            SubmitError::UnknownCredential => Slug::NotFound,
            SubmitError::RotationOpen => Slug::RotationOpen,
            SubmitError::InvalidFields(_) => Slug::InvalidFields,
            SubmitError::EnvironmentMismatch { .. } => Slug::EnvironmentMismatch,
            SubmitError::Undetermined { .. } => Slug::Undetermined,
            SubmitError::ProviderRefused { .. } => Slug::ProviderRefused,
            SubmitError::ProviderUnavailable { .. } => Slug::NotReady,
            SubmitError::Occupied | SubmitError::NothingThere | SubmitError::StoreChanged => Slug::VersionConflict,
            SubmitError::Unreadable => Slug::InvalidFields,
            SubmitError::StoreUnavailable => Slug::StoreUnavailable,
            SubmitError::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}

impl From<RotateError> for Problem {
    fn from(error: RotateError) -> Problem {
        let slug = match error {
            RotateError::UnknownCredential => Slug::NotFound,
            RotateError::RotationOpen => Slug::RotationOpen,
            RotateError::NoVersion => Slug::NoVersion,
            // The set of slugs is closed; these two say best who stands in the way.
            RotateError::CurrentRefused | RotateError::CannotMint => Slug::ProviderRefused,
            RotateError::Paused => Slug::NotReady,
            RotateError::StoreUnavailable => Slug::StoreUnavailable,
            RotateError::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}

impl From<ReleaseError> for Problem {
    fn from(error: ReleaseError) -> Problem {
        let slug = match error {
            ReleaseError::Unknown => Slug::NotFound,
            ReleaseError::Unavailable => Slug::StoreUnavailable,
            ReleaseError::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}

impl From<RollbackError> for Problem {
    fn from(error: RollbackError) -> Problem {
        let slug = match error {
            RollbackError::UnknownCredential => Slug::NotFound,
            // The set of slugs is closed: no version but the newest can be had.
            RollbackError::NothingToGoBackTo | RollbackError::BeingRevoked | RollbackError::Stolen => Slug::VersionConflict,
            RollbackError::Refused => Slug::ProviderRefused,
            RollbackError::StoreUnavailable => Slug::StoreUnavailable,
            RollbackError::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}

impl From<RevokeError> for Problem {
    fn from(error: RevokeError) -> Problem {
        let slug = match error {
            RevokeError::Unknown => Slug::NotFound,
            RevokeError::Current | RevokeError::Held { .. } | RevokeError::NotNow(_) | RevokeError::Later { .. } => Slug::NotRevocable,
            RevokeError::StoreUnavailable => Slug::StoreUnavailable,
            RevokeError::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}

impl From<ForgetError> for Problem {
    fn from(error: ForgetError) -> Problem {
        let slug = match error {
            ForgetError::Unknown => Slug::NotFound,
            ForgetError::RotationOpen => Slug::RotationOpen,
            ForgetError::Documented | ForgetError::Held { .. } => Slug::NotRevocable,
            ForgetError::Paused => Slug::NotReady,
            ForgetError::StoreUnavailable => Slug::StoreUnavailable,
            ForgetError::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}

impl From<LaunchError> for Problem {
    fn from(error: LaunchError) -> Problem {
        let slug = match error {
            LaunchError::UnknownApplication | LaunchError::UnknownItem => Slug::NotFound,
            LaunchError::AmbiguousItem | LaunchError::Judged(_) => Slug::BadRequest,
            LaunchError::Unavailable => Slug::StoreUnavailable,
            LaunchError::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}

impl From<PauseError> for Problem {
    fn from(error: PauseError) -> Problem {
        let slug = match error {
            PauseError::Unknown => Slug::NotFound,
            PauseError::Unavailable => Slug::StoreUnavailable,
            PauseError::AuditUnavailable => Slug::AuditUnavailable,
        };
        Problem::new(slug, error.to_string())
    }
}
