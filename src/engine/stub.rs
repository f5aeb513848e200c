//! Stand-ins for what the engine will name: only so that the API compiles before the engine does.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::credential::Stage;
use crate::domain::ids::{InstanceName, Name, VersionId};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reader {
    Application { application: Name, instance: InstanceName },
    Operator { who: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionView {
    pub version: VersionId,
    pub stage: Option<Stage>,
    pub issued_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}
