//! The table of routes. The router goes by it and the OpenAPI document is made from it, so no route is without its row.
//!
//! A new route is a variant of [`Route`](super::path::Route), a row here, and an arm in `handle::dispatch`.

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::answers::{Credentials, ReadDocument, Started, Up, Versions};
use super::input::{Submission, WrittenConfirmation, WrittenReport, WrittenRewrap, WrittenRotation, WrittenSignOff};
use super::path::{Names, Route};
use super::problem::{Problem, Slug};
use super::service::RewrapView;
use crate::domain::access::Right;
use crate::engine::launch_view::LaunchView;
use crate::engine::views::{Plan, RolledBack, Status, Submitted};

/// One method of one path: how it is found, what is asked of its caller, and what it says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint {
    /// For logs and for clients made from the OpenAPI document: unique, and free of names.
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    /// A segment in braces stands for a name.
    pub(super) path: &'static str,
    pub(super) route: fn(&Names<'_>) -> Result<Route, Problem>,
    pub(super) who: Who,
    /// Any replica for a `GET` and who leads for all else, unless the row says otherwise: what is forgotten here is refused, not lost.
    pub(super) taken_by: Taker,
    /// The query parameters that it takes.
    pub(super) query: &'static [&'static str],
    /// The headers that mean something to it, beside `Authorization`.
    pub(super) headers: &'static [&'static str],
    pub(super) body: Option<Taken>,
    pub(super) summary: &'static str,
    pub(super) about: &'static str,
    pub(super) answers: &'static [Answer],
    /// Beside those that follow from the rest of the row: see `openapi::problems_of`.
    pub(super) problems: &'static [Slug],
}

/// Who may call: the table of rights. Reads are an application's call first; what an operator needs for them is looked at where
/// it is known who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// No identity needed.
    Anybody,
    Application,
    /// An application, or an operator who may `read`.
    Reader,
    Operator(Right),
    /// An operator who may `rotate`, or for a stolen key one who may `revoke`.
    Rotator,
}

/// Which of several replicas takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taker {
    /// Each of them. Beside reads that is what one instance holds, which every replica writes down; what it reports, which is left to
    /// who leads; and a rewrap, which is about the own file.
    Any,
    /// The one that leads: it is an order. The others refuse it, and tell who leads.
    Leader,
}

/// The form of a document, from the type that is written or read.
pub(super) type Form = fn(&mut SchemaGenerator) -> Schema;

/// The body of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) form: Form,
    pub(super) required: bool,
}

/// One way to succeed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) about: &'static str,
    pub(super) content: Content,
    /// `ETag` comes with it.
    pub(super) tagged: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    Nothing,
    Json(Form),
    /// Any JSON document.
    AnyJson,
    Text(&'static str),
    Bytes(&'static str),
}

fn form<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const fn json<T: JsonSchema>(status: u16, about: &'static str) -> Answer {
    Answer { status, about, content: Content::Json(form::<T>), tagged: false }
}

const fn empty(status: u16, about: &'static str) -> Answer {
    Answer { status, about, content: Content::Nothing, tagged: false }
}

const fn text(kind: &'static str, about: &'static str) -> Answer {
    Answer { status: 200, about, content: Content::Text(kind), tagged: false }
}

const fn row(method: &'static str, path: &'static str, name: &'static str, route: fn(&Names<'_>) -> Result<Route, Problem>) -> Endpoint {
    Endpoint {
        name,
        method,
        path,
        route,
        who: Who::Anybody,
        taken_by: if matches!(method.as_bytes(), b"GET") { Taker::Any } else { Taker::Leader },
        query: &[],
        headers: &[],
        body: None,
        summary: "",
        about: "",
        answers: &[],
        problems: &[],
    }
}

const INSTANCE: &str = "Keywright-Instance";
pub(super) const APPLICATION: &str = "Keywright-Application";
const REASON: &str = "Keywright-Reason";
/// What an operator's order may carry.
const ORDER: &[&str] = &[REASON];
const PAGE: &[&str] = &["limit", "after"];
const CHANGES: &[Slug] = &[Slug::NotFound, Slug::StoreUnavailable, Slug::AuditUnavailable];

/// Said wherever a confirmation is described (and in the README).
pub(super) const TOO_EARLY: &str = "**A confirmation that is sent too early kills your own key.** It says: every pool, worker \
and child of this instance has stopped using the old version, and a call with the new one succeeded. In this order: try the new \
value, switch over, wait for calls under way, confirm. The old key is revoked as soon as the overlap is over and everybody has \
confirmed; nobody here can know that one of your workers still uses it.";

/// All routes, in the order of the documentation.
pub(super) static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        who: Who::Reader,
        headers: &[INSTANCE, APPLICATION, REASON, "If-None-Match"],
        summary: "Read a credential",
        about: "The current version, as one document. The first disclosure of each version to each instance is on record before it is \
sent, and whoever names the version in `If-None-Match` counts as holding it.",
        answers: &[
            Answer { tagged: true, ..json::<ReadDocument>(200, "The credential; `ETag` is its version.") },
            Answer { tagged: true, ..empty(304, "The caller has this version.") },
        ],
        problems: &[Slug::NoVersion, Slug::StoreUnavailable, Slug::AuditUnavailable],
        ..row("GET", "/v1/credentials/{name}", "credential", |names| Ok(Route::Credential(names.at(0)?)))
    },
    Endpoint {
        who: Who::Reader,
        headers: &[INSTANCE, APPLICATION],
        summary: "List what the caller may read",
        about: "Without fields.",
        answers: &[json::<Credentials>(200, "The credentials that the caller may read.")],
        ..row("GET", "/v1/credentials", "credentials", |_| Ok(Route::Credentials))
    },
    Endpoint {
        who: Who::Reader,
        query: &["credentials"],
        headers: &[INSTANCE, APPLICATION, REASON, "Last-Event-ID"],
        summary: "Follow the changes",
        about: EVENTS,
        answers: &[text("text/event-stream", "Events, until the caller goes, its access ends, or the daemon stops.")],
        ..row("GET", "/v1/events", "events", |_| Ok(Route::Events))
    },
    Endpoint {
        who: Who::Application,
        taken_by: Taker::Any,
        headers: &[INSTANCE, APPLICATION],
        body: Some(Taken { form: form::<WrittenConfirmation>, required: true }),
        summary: "Confirm that nothing older is in use",
        about: TOO_EARLY,
        answers: &[empty(204, "It is on disk. The same again when it is repeated.")],
        problems: &[
            Slug::BadName,
            Slug::WrongProof,
            Slug::VersionConflict,
            Slug::AmbiguousInstance,
            Slug::StoreUnavailable,
            Slug::AuditUnavailable,
        ],
        ..row("POST", "/v1/confirmations", "confirm", |_| Ok(Route::Confirmations))
    },
    Endpoint {
        who: Who::Application,
        taken_by: Taker::Any,
        headers: &[INSTANCE, APPLICATION],
        body: Some(Taken { form: form::<WrittenReport>, required: true }),
        summary: "Report that a version doesn't work",
        about: REPORT,
        answers: &[empty(204, "It is on disk. The same again when it is repeated.")],
        problems: &[Slug::BadName, Slug::VersionConflict, Slug::AmbiguousInstance, Slug::StoreUnavailable, Slug::AuditUnavailable],
        ..row("POST", "/v1/reports", "report", |_| Ok(Route::Reports))
    },
    Endpoint {
        who: Who::Operator(Right::Status),
        query: PAGE,
        summary: "Where every credential stands",
        about: "As `keywright status --json`. Problems of the daemon itself stand on every page.",
        answers: &[json::<Status>(200, "One page, by name.")],
        problems: &[Slug::NotFound],
        ..row("GET", "/v1/status", "status", |_| Ok(Route::Status))
    },
    Endpoint {
        who: Who::Operator(Right::Status),
        summary: "Where one credential stands",
        about: "As `keywright status NAME --json`.",
        answers: &[json::<Status>(200, "The one credential, and what needs a person.")],
        problems: &[Slug::NotFound],
        ..row("GET", "/v1/status/{name}", "status-of", |names| Ok(Route::StatusOf(names.at(0)?)))
    },
    Endpoint {
        who: Who::Operator(Right::Status),
        query: &["days", "limit", "after"],
        summary: "What will rotate when",
        about: "As `keywright plan --json`: the next rotation of each credential, why, and what stands in the way. `herds` counts the \
starts of the credentials of this page, later ones included, by account and day: add the rows up over the pages.",
        answers: &[json::<Plan>(200, "One page, by name.")],
        ..row("GET", "/v1/plan", "plan", |_| Ok(Route::Plan))
    },
    Endpoint {
        who: Who::Operator(Right::Read),
        summary: "Back the store up",
        about: "The whole store at one moment, sealed as it is: it opens with the key file only. Not found where the store isn't a file \
of ours.",
        answers: &[Answer {
            status: 200,
            about: "What `keywright restore` brings back.",
            content: Content::Bytes("application/octet-stream"),
            tagged: false,
        }],
        problems: &[Slug::NotFound, Slug::StoreUnavailable, Slug::AuditUnavailable],
        ..row("GET", "/v1/backup", "backup", |_| Ok(Route::Backup))
    },
    Endpoint {
        who: Who::Operator(Right::Revoke),
        taken_by: Taker::Any,
        body: Some(Taken { form: form::<WrittenRewrap>, required: false }),
        summary: "Seal the store with another key",
        about: "Answers when the new key opens everything; `GET /v1/rewrap` shows how the rest goes. Rows are sealed anew while everything \
else goes on, over crashes and restarts too. Asked again for the same, it tells the one under way. Not found where the store isn't a \
file of ours.",
        answers: &[json::<RewrapView>(202, "It is under way.")],
        problems: CHANGES,
        ..row("POST", "/v1/rewrap", "rewrap", |_| Ok(Route::Rewrap))
    },
    Endpoint {
        who: Who::Operator(Right::Status),
        summary: "How far the last rewrap is",
        answers: &[json::<RewrapView>(200, "The last one, or that there was none.")],
        problems: &[Slug::NotFound, Slug::StoreUnavailable],
        ..row("GET", "/v1/rewrap", "rewrap-standing", |_| Ok(Route::RewrapStanding))
    },
    Endpoint {
        who: Who::Operator(Right::Rotate),
        body: Some(Taken { form: form::<Submission>, required: true }),
        summary: "Enrol a key",
        about: "Answers when the key is proved, stored and current, or refused; this can take minutes. Nothing of a refused key is kept. \
Where somebody else's value lies in the store, `adopt` takes it over; without it the answer is 409.",
        answers: &[json::<Submitted>(201, "It is current.")],
        problems: &[
            Slug::NotFound,
            Slug::RotationOpen,
            Slug::VersionConflict,
            Slug::InvalidFields,
            Slug::EnvironmentMismatch,
            Slug::Undetermined,
            Slug::ProviderRefused,
            Slug::StoreUnavailable,
            Slug::AuditUnavailable,
        ],
        ..row("PUT", "/v1/credentials/{name}/submission", "submit", |names| Ok(Route::Submission(names.at(0)?)))
    },
    Endpoint {
        who: Who::Rotator,
        headers: ORDER,
        body: Some(Taken { form: form::<WrittenRotation>, required: false }),
        summary: "Rotate now",
        about: "Answers when the rotation is accepted; `GET /v1/status/{name}` shows how it goes. With `compromised` the key is stolen: it \
is replaced without a delay, an open rotation is hastened, and the old key dies once all who hold it have confirmed, or at the limit. The \
member `incident` of the status is the report.",
        answers: &[json::<Started>(202, "The rotation begins.")],
        problems: &[
            Slug::NotFound,
            Slug::RotationOpen,
            Slug::NoVersion,
            Slug::ProviderRefused,
            Slug::StoreUnavailable,
            Slug::AuditUnavailable,
        ],
        ..row("POST", "/v1/credentials/{name}/rotations", "rotate", |names| Ok(Route::Rotations(names.at(0)?)))
    },
    Endpoint {
        who: Who::Operator(Right::Revoke),
        headers: ORDER,
        summary: "Go back to the old key",
        about: "While the old key still lives, its value becomes current again, as a new version; the new key is retired.",
        answers: &[json::<RolledBack>(200, "The old value is current.")],
        problems: &[Slug::NotFound, Slug::VersionConflict, Slug::ProviderRefused, Slug::StoreUnavailable, Slug::AuditUnavailable],
        ..row("POST", "/v1/credentials/{name}/rollback", "rollback", |names| Ok(Route::Rollback(names.at(0)?)))
    },
    Endpoint {
        who: Who::Operator(Right::Revoke),
        query: &["force"],
        headers: ORDER,
        summary: "Revoke a version now",
        about: "The old version of an open rotation, or a candidate; never the current one. Without `force` not while somebody holds it.",
        answers: &[empty(204, "It is dead, or its end is durably intended. The same again when it is repeated.")],
        problems: &[Slug::NotFound, Slug::NotRevocable, Slug::StoreUnavailable, Slug::AuditUnavailable],
        ..row("DELETE", "/v1/credentials/{name}/versions/{version}", "revoke", |names| Ok(Route::Version(names.at(0)?, names.at(1)?)))
    },
    Endpoint {
        who: Who::Operator(Right::Revoke),
        query: &["force"],
        headers: ORDER,
        summary: "Forget a credential",
        about: "Removes what is kept here. Nothing is revoked: its keys live on at the provider. Without `force` not while a document names \
it, an application holds it, or a rotation is open.",
        answers: &[empty(204, "It is forgotten. The same again when it is repeated.")],
        problems: &[Slug::NotFound, Slug::NotRevocable, Slug::RotationOpen, Slug::StoreUnavailable, Slug::AuditUnavailable],
        ..row("DELETE", "/v1/credentials/{name}", "forget", |names| Ok(Route::Forget(names.at(0)?)))
    },
    Endpoint {
        who: Who::Operator(Right::Revoke),
        headers: ORDER,
        summary: "Pause everything",
        about: "Stops all that destroys, over restarts too, also of credentials that come later.",
        answers: &[empty(204, "It is paused, durably.")],
        problems: CHANGES,
        ..row("PUT", "/v1/pause", "pause-all", |_| Ok(Route::Pause(None)))
    },
    Endpoint {
        who: Who::Operator(Right::Revoke),
        headers: ORDER,
        summary: "Resume everything",
        about: "But for what was paused by its name.",
        answers: &[empty(204, "It goes on.")],
        problems: CHANGES,
        ..row("DELETE", "/v1/pause", "resume-all", |_| Ok(Route::Resume(None)))
    },
    Endpoint {
        who: Who::Operator(Right::Revoke),
        headers: ORDER,
        summary: "Pause one credential",
        about: "Stops all that destroys, over restarts too.",
        answers: &[empty(204, "It is paused, durably.")],
        problems: CHANGES,
        ..row("PUT", "/v1/credentials/{name}/pause", "pause", |names| Ok(Route::Pause(Some(names.at(0)?))))
    },
    Endpoint {
        who: Who::Operator(Right::Revoke),
        headers: ORDER,
        summary: "Resume one credential",
        answers: &[empty(204, "It goes on, unless everything is paused.")],
        problems: CHANGES,
        ..row("DELETE", "/v1/credentials/{name}/pause", "resume", |names| Ok(Route::Resume(Some(names.at(0)?))))
    },
    Endpoint {
        who: Who::Operator(Right::Status),
        query: PAGE,
        summary: "The versions that are remembered",
        about: "The newest first. `after` is a version here.",
        answers: &[json::<Versions>(200, "One page.")],
        problems: &[Slug::NotFound],
        ..row("GET", "/v1/credentials/{name}/versions", "versions", |names| Ok(Route::Versions(names.at(0)?)))
    },
    Endpoint {
        who: Who::Operator(Right::Rotate),
        headers: ORDER,
        summary: "Release all instances of an application",
        about: "Says that none of them holds anything any more. Like an early confirmation it can kill a key in use.",
        answers: &[empty(204, "Released.")],
        problems: CHANGES,
        ..row("DELETE", "/v1/applications/{application}/instances", "release-all", |names| Ok(Route::Instances(names.at(0)?)))
    },
    Endpoint {
        who: Who::Operator(Right::Rotate),
        headers: ORDER,
        summary: "Release one instance",
        about: "Says that it holds nothing any more. Like an early confirmation it can kill a key in use.",
        answers: &[empty(204, "Released.")],
        problems: CHANGES,
        ..row("DELETE", "/v1/applications/{application}/instances/{instance}", "release", |names| {
            Ok(Route::Instance(names.at(0)?, names.at(1)?))
        })
    },
    Endpoint {
        who: Who::Operator(Right::Status),
        summary: "The going-live list of an application",
        about: "As `keywright golive APPLICATION --json`: what each provider asks for, what the daemon found, and what a person has to \
confirm. `ready` is true once each item `passed` or is `confirmed`.",
        answers: &[json::<LaunchView>(200, "The list, with its evidence.")],
        problems: &[Slug::NotFound],
        ..row("GET", "/v1/golive/{application}", "golive", |names| Ok(Route::GoLive(names.at(0)?)))
    },
    Endpoint {
        who: Who::Operator(Right::Rotate),
        body: Some(Taken { form: form::<WrittenSignOff>, required: true }),
        summary: "Sign an item off",
        about: "Only for items that need a person; what failed can't be signed away. A sign-off is bound to the item's text and to what was \
found: when either changes, it asks again.",
        answers: &[empty(204, "It is on record and on disk. The same again when it is repeated.")],
        problems: CHANGES,
        ..row("PUT", "/v1/golive/{application}/confirmations/{item}", "golive-confirm", |names| {
            Ok(Route::SignOff(names.at(0)?, names.at(1)?))
        })
    },
    Endpoint {
        who: Who::Operator(Right::Rotate),
        headers: ORDER,
        summary: "Take a sign-off back",
        about: "What went live stays live.",
        answers: &[empty(204, "It isn't signed off. The same again when it is repeated.")],
        problems: CHANGES,
        ..row("DELETE", "/v1/golive/{application}/confirmations/{item}", "golive-withdraw", |names| {
            Ok(Route::Withdrawal(names.at(0)?, names.at(1)?))
        })
    },
    Endpoint {
        summary: "Whether the process answers",
        answers: &[json::<Up>(200, "It does.")],
        ..row("GET", "/healthz", "healthz", |_| Ok(Route::Health))
    },
    Endpoint {
        summary: "Whether it serves",
        about: "The store is open, policies are loaded, and it listens.",
        answers: &[json::<Up>(200, "It does.")],
        ..row("GET", "/readyz", "readyz", |_| Ok(Route::Ready))
    },
    Endpoint {
        summary: "Metrics",
        about: "Names of credentials appear on the socket only.",
        answers: &[text("application/openmetrics-text", "In the form of OpenMetrics 1.0.")],
        ..row("GET", "/metrics", "metrics", |_| Ok(Route::Metrics))
    },
    Endpoint {
        summary: "This document",
        about: "It holds nothing secret, so it is for whoever reaches the API.",
        answers: &[Answer { status: 200, about: "OpenAPI 3.1.", content: Content::AnyJson, tagged: false }],
        ..row("GET", "/v1/openapi.json", "openapi", |_| Ok(Route::OpenApi))
    },
];

const REPORT: &str = "For an instance whose calls with the newest version that it was served fail. While that version is rolled out \
step by step, one report stops it: the version before comes back, as a new version, to all who had the failed one. At any other time the \
report is only on record.";

const EVENTS: &str = "Server-sent events. A `credential` event for each credential that the caller may read comes first, and \
one after every change; its `data` is one line, the document of `GET /v1/credentials/{name}`. Take up a document whose `revision` is \
greater than the one you have, ignore the others. `withdrawn` with `{\"name\": …}` says that access ended, `bye` that the daemon \
stops. A comment line comes at least every 15 s. After a lost connection connect again: a stream begins with a full snapshot, with \
or without `Last-Event-ID`. An instance whose stream ended counts on for its application's lease.";
