//! Documents with values, as bytes: rendered straight into memory that is wiped. The only place of the API that sees values.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::body::secret_bytes;
use crate::domain::ids::Name;
use crate::engine::views::Document;

/// The document of `GET /v1/credentials/{name}`: one line of JSON. Line breaks of values are escaped in it.
pub(super) fn render(document: &Document) -> Zeroizing<Vec<u8>> {
    write(document, "", "")
}

/// The same as an event. Its id is opaque to clients, and any value resumes: a stream always begins with a snapshot.
pub(super) fn event(document: &Document) -> Bytes {
    let head = format!("event: credential\nid: {}:{}\ndata: ", document.name, document.revision);
    secret_bytes(write(document, &head, "\n\n"))
}

/// The event that says that access ended.
pub(super) fn withdrawn(name: &Name) -> Bytes {
    Bytes::from(format!("event: withdrawn\ndata: {{\"name\":\"{name}\"}}\n\n"))
}

fn write(document: &Document, head: &str, tail: &str) -> Zeroizing<Vec<u8>> {
    // Names, versions and times have no character that JSON would escape.
    let front = format!(
        "{head}{{\"name\":\"{}\",\"provider\":\"{}\",\"environment\":\"{}\",\"version\":\"{}\",\"revision\":{},\"issued_at\":\"{}\",\"stale\":{},\"fields\":",
        document.name, document.provider, document.environment, document.version, document.revision, document.issued_at, document.stale,
    );
    let previous = document.previous.as_ref().map(|previous| {
        let front =
            format!(",\"previous\":{{\"version\":\"{}\",\"valid_until\":\"{}\",\"fields\":", previous.version, previous.valid_until);
        (front, previous.fields.to_json())
    });
    let fields = document.fields.to_json();
    let mut pieces = vec![front.as_bytes(), fields.expose()];
    if let Some((front, fields)) = &previous {
        pieces.extend([front.as_bytes(), fields.expose(), b"}".as_slice()]);
    }
    pieces.extend([b"}".as_slice(), tail.as_bytes()]);
    // Reserved once: growing would leave unwiped copies behind.
    let mut out = Zeroizing::new(Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum()));
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    out
}
