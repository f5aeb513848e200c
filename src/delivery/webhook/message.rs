//! The bytes of one message: a reference to what changed, the same on each try.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::ids::Name;
use crate::domain::outbox::{Message, Subject};

#[derive(Serialize)]
struct Body<'m> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: Data<'m>,
}

#[derive(Serialize)]
struct Data<'m> {
    application: &'m Name,
    #[serde(flatten)]
    subject: &'m Subject,
}

/// One line of JSON. Whoever gets it fetches the value, and is recorded.
pub(super) fn body(message: &Message, application: &Name) -> Option<Vec<u8>> {
    let data = Data { application, subject: &message.subject };
    serde_json::to_vec(&Body { r#type: "credential.changed", timestamp: message.noticed_at, data }).ok()
}
