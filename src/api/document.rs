//! Documents with values, as answers and as events.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::body::secret_bytes;
use crate::domain::ids::Name;
use crate::engine::views::Document;

/// The document of `GET /v1/credentials/{name}`: one line of JSON. Line breaks of values are escaped in it.
pub(super) fn render(document: &Document) -> Zeroizing<Vec<u8>> {
    document.to_json()
}

/// The same as an event. Its id is opaque to clients, and any value resumes: a stream always begins with a snapshot.
pub(super) fn event(document: &Document) -> Bytes {
    let head = format!("event: credential\nid: {}:{}\ndata: ", document.name, document.revision);
    secret_bytes(document.framed(&head, "\n\n"))
}

/// The event that says that access ended.
pub(super) fn withdrawn(name: &Name) -> Bytes {
    Bytes::from(format!("event: withdrawn\ndata: {{\"name\":\"{name}\"}}\n\n"))
}
