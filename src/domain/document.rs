//! The document of a credential: what a reader gets, and how it is written as JSON, straight into memory that is wiped.

use std::sync::Arc;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::credential::Environment;
use super::ids::{Name, VersionId};
use super::material::Material;

/// What an application gets: the served fields of one version, never a mix.
#[derive(Debug)]
pub struct Document {
    pub name: Name,
    pub provider: Name,
    pub environment: Environment,
    pub version: VersionId,
    /// Grows with each change that an application can see.
    pub revision: u64,
    pub issued_at: Timestamp,
    /// The store was away when this was served; the value is from the cache.
    pub stale: bool,
    /// Served fields only.
    pub fields: Arc<Material>,
    /// During the overlap, where a field's use is to verify.
    pub previous: Option<Arc<Previous>>,
}

/// The version before, for those who check what others signed with it.
#[derive(Debug)]
pub struct Previous {
    pub version: VersionId,
    /// The fields whose use is to verify.
    pub fields: Material,
    /// The end of the overlap, or of the time that an incident leaves. It stays listed for longer while somebody still holds it: as long as it is listed, it is good.
    pub valid_until: Timestamp,
}

impl Document {
    /// One line of JSON, as `GET /v1/credentials/{name}` answers it. Line breaks of values are escaped in it.
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        self.framed("", "")
    }

    /// The same with something before and after it, in one piece of memory.
    pub fn framed(&self, head: &str, tail: &str) -> Zeroizing<Vec<u8>> {
        self.write(head, &format!("\"stale\":{},", self.stale), tail)
    }

    /// What lasts of it: the same without `stale`, which is about the moment of an answer. Two looks at the same revision are alike.
    pub fn lasting_json(&self) -> Zeroizing<Vec<u8>> {
        self.write("", "", "\n")
    }

    fn write(&self, head: &str, staleness: &str, tail: &str) -> Zeroizing<Vec<u8>> {
        // Names, versions and times have no character that JSON would escape.
        let front = format!(
            "{head}{{\"name\":\"{}\",\"provider\":\"{}\",\"environment\":\"{}\",\"version\":\"{}\",\"revision\":{},\"issued_at\":\"{}\",{staleness}\"fields\":",
            self.name, self.provider, self.environment, self.version, self.revision, self.issued_at,
        );
        let previous = self.previous.as_ref().map(|previous| {
            let front =
                format!(",\"previous\":{{\"version\":\"{}\",\"valid_until\":\"{}\",\"fields\":", previous.version, previous.valid_until);
            (front, previous.fields.to_json())
        });
        let fields = self.fields.to_json();
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
}
