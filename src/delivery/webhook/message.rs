//! One message: a reference to what changed, the same bytes on each try.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::delivery::Parcel;
use crate::domain::credential::Environment;
use crate::domain::ids::{InstallationId, Name, VersionId};

/// A change that an application is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) credential: Name,
    pub(super) environment: Environment,
    pub(super) version: VersionId,
    pub(super) revision: u64,
    /// When the change was noticed: it stands in the body.
    pub(super) noticed_at: Timestamp,
    /// Its receiver may know it.
    pub(super) tried: bool,
}

#[derive(Serialize)]
struct Body<'m> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: Data<'m>,
}

#[derive(Serialize)]
struct Data<'m> {
    application: &'m Name,
    credential: &'m Name,
    environment: Environment,
    version: &'m VersionId,
    revision: u64,
}

impl Message {
    pub(super) fn new(installation: InstallationId, application: &Name, parcel: &Parcel, now: Timestamp) -> Message {
        let what = format!("keywright-webhook\n{}\n{application}\n{}\n{}", installation.0, parcel.credential, parcel.revision);
        Message {
            id: format!("msg_{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, what.as_bytes()).simple()),
            credential: parcel.credential.clone(),
            environment: parcel.environment,
            version: parcel.version.clone(),
            revision: parcel.revision,
            noticed_at: now,
            tried: false,
        }
    }

    /// One line of JSON. Whoever gets it fetches the value, and is recorded.
    pub(super) fn body(&self, application: &Name) -> Option<Vec<u8>> {
        let data = Data {
            application,
            credential: &self.credential,
            environment: self.environment,
            version: &self.version,
            revision: self.revision,
        };
        serde_json::to_vec(&Body { r#type: "credential.changed", timestamp: self.noticed_at, data }).ok()
    }
}
