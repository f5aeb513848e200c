//! The documents of answers that the engine's views don't have as they are.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::credential::Environment;
use crate::domain::ids::{FieldName, Name, OperationId, VersionId};
use crate::engine::VersionView;
use crate::engine::views::Listed;

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Up {
    pub(super) status: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Credentials {
    pub(super) credentials: Vec<Listed>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Versions {
    pub(super) versions: Vec<VersionView>,
    /// The last version of this page, if there are more.
    pub(super) next: Option<VersionId>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Started {
    pub(super) operation_id: OperationId,
}

// Only its form is used: `document` writes it, in memory that is wiped. A test holds the two together.
/// A credential, as an application reads it.
#[derive(JsonSchema)]
#[schemars(rename = "Credential")]
#[allow(dead_code, reason = "a type for its form")]
pub(super) struct ReadDocument {
    name: Name,
    provider: Name,
    environment: Environment,
    version: VersionId,
    /// Grows with each change that an application can see.
    revision: u64,
    issued_at: Timestamp,
    /// The store was away when this was served; the value is from the cache.
    stale: bool,
    /// The served fields of this one version.
    fields: BTreeMap<FieldName, String>,
    /// During the overlap, where a field's use is to verify: accept what either of the two signed.
    #[schemars(with = "ReadPrevious", skip_serializing_if = "Option::is_none")]
    previous: Option<ReadPrevious>,
}

/// The version before, as long as it is good.
#[derive(JsonSchema)]
#[schemars(rename = "Previous")]
#[allow(dead_code, reason = "a type for its form")]
struct ReadPrevious {
    version: VersionId,
    /// The end of the overlap. It stays listed for longer while somebody still holds it.
    valid_until: Timestamp,
    /// The fields whose use is to verify.
    fields: BTreeMap<FieldName, String>,
}
