//! What stands in a Secret: one entry for each field, `<credential>.<field>`; and what tells two states of it apart.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::objects::SecretAt;
use crate::domain::document::Document;
use crate::domain::ids::Name;
use crate::domain::material::{Material, Secret};
use crate::sealing::Keyring;

/// The most that Kubernetes takes, in bytes: all values of a Secret together.
pub const BYTES_MAX: usize = 1 << 20;

/// The values of an application, as they stand in its Secret.
pub struct Contents {
    /// Names and values (base64), as one JSON object.
    data: Secret,
    names: BTreeSet<String>,
    fingerprint: String,
    checksum: String,
    revisions: Vec<(Name, u64)>,
}

/// The values are more than [`BYTES_MAX`] together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the values are more than 1 MiB together")]
pub struct TooLarge;

/// One entry: its name, and its value.
type Entry<'a> = (String, &'a Secret);

impl Contents {
    /// # Errors
    /// [`TooLarge`].
    pub fn of(documents: &[&Document], at: &SecretAt, keyring: &Keyring) -> Result<Contents, TooLarge> {
        let current: Vec<Entry<'_>> = documents.iter().flat_map(|document| entries(&document.name, "", &document.fields)).collect();
        let previous = documents.iter().filter_map(|document| Some((&document.name, document.previous.as_ref()?)));
        let previous: Vec<Entry<'_>> = previous.flat_map(|(name, previous)| entries(name, "previous.", &previous.fields)).collect();
        if current.iter().chain(&previous).map(|(_, value)| value.length()).sum::<usize>() > BYTES_MAX {
            return Err(TooLarge);
        }
        let data = json(current.iter().chain(&previous));
        // Pods start anew for a new version, and not when the one before it ends.
        let checksum = keyring.fingerprint(&format!("kubernetes-template/{}/{}", at.namespace, at.name), &json(current.iter()));
        let fingerprint = keyring.fingerprint(&format!("kubernetes-secret/{}/{}", at.namespace, at.name), &data);
        let revisions = documents.iter().map(|document| (document.name.clone(), document.revision)).collect();
        let names = current.into_iter().chain(previous).map(|(name, _)| name).collect();
        Ok(Contents { data, names, fingerprint, checksum, revisions })
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names of the entries.
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Of all entries: a keyed hash, as lower-case hex. The same values have the same one, also after a restart.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Of the current versions alone: what a pod template bears.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// Of each credential.
    pub fn revisions(&self) -> &[(Name, u64)] {
        &self.revisions
    }

    /// The `data` of the Secret, behind what stands before it in the object, and closed.
    pub(super) fn close(&self, front: &str) -> Zeroizing<Vec<u8>> {
        // Reserved once: growing would leave unwiped copies behind.
        let mut body = Zeroizing::new(Vec::with_capacity(front.len() + self.data.length() + 1));
        body.extend_from_slice(front.as_bytes());
        body.extend_from_slice(self.data.expose());
        body.push(b'}');
        body
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").field("names", &self.names).field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

fn entries<'a>(credential: &Name, part: &str, fields: &'a Material) -> Vec<Entry<'a>> {
    fields.iter().map(|(field, value)| (format!("{credential}.{part}{field}"), value)).collect()
}

/// Names have no character that JSON would escape, and base64 has none either.
fn json<'a>(entries: impl Iterator<Item = &'a Entry<'a>> + Clone) -> Secret {
    let encoded_length = |length: usize| length.div_ceil(3) * 4;
    let length: usize = entries.clone().map(|(name, value)| name.len() + encoded_length(value.length()) + 6).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(length + 2));
    out.push(b'{');
    for (index, (name, value)) in entries.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(format!("\"{name}\":\"").as_bytes());
        let (start, bytes) = (out.len(), value.expose());
        out.resize(start + encoded_length(bytes.len()), 0);
        // The room is exactly what the encoding takes.
        let written = BASE64_STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
        out.truncate(start + written);
        out.push(b'"');
    }
    out.push(b'}');
    Secret::new(out.as_slice())
}

#[cfg(test)]
mod tests;
