//! Sealing: envelope encryption of what lies on disk, and keyed fingerprints.
//!
//! Each record has a data key of its own, wrapped by the key-encryption key. What a record is sealed for (table, name, version,
//! part, key) is bound to it, so that a row moved to another place doesn't open there.
//!
//! The key-encryption key may be succeeded by another one while the process runs. What hashes are keyed with stays, so that
//! fingerprints and codes can still be compared.

mod digest;
mod file;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, hmac, rand};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::domain::material::Secret;

pub use digest::{hmac_sha256_hex, hmac_sha256_matches, sha256};
pub use file::{KeyError, is_exposed};

/// Length of the key-encryption key and of each data key, in bytes.
pub const KEY_LENGTH: usize = 32;

const FORMAT: u8 = 1;
const NONCE_LENGTH: usize = 12;
const TAG_LENGTH: usize = 16;
const ID_LENGTH: usize = 16;
/// One key for fingerprints, one for rows.
const CODES_LENGTH: usize = 2 * KEY_LENGTH;
const WRAPPED_LENGTH: usize = NONCE_LENGTH + KEY_LENGTH + TAG_LENGTH;
const HEADER_LENGTH: usize = 1 + ID_LENGTH + WRAPPED_LENGTH + NONCE_LENGTH;

/// Sealed bytes: safe to store, useless without the key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(pub Vec<u8>);

impl Sealed {
    /// Which key-encryption key opens it, as [`Keyring::id`] says; `None` for bytes that nothing opens.
    pub fn key_id(&self) -> Option<String> {
        id_of(&self.0).map(hex::encode)
    }
}

/// What a record is sealed for. It opens with the same four words only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context<'a> {
    pub table: &'a str,
    pub name: &'a str,
    pub version: &'a str,
    pub part: &'a str,
}

/// Why sealed bytes don't open. Says nothing of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("was sealed with another key")]
    OtherKey,
    #[error("is damaged, or was sealed for another place")]
    Damaged,
    /// No randomness, no memory.
    #[error("the cryptographic library failed")]
    Library,
}

/// The key-encryption key, those that it succeeded in this process, and what hashes are keyed with: one key for fingerprints, one
/// for the integrity of rows that are kept in clear.
pub struct Keyring {
    wraps: RwLock<Wraps>,
    codes: Codes,
}

struct Wraps {
    current: Arc<Wrap>,
    /// They open what is still in memory, or not yet sealed anew.
    former: Vec<Arc<Wrap>>,
}

/// Wraps data keys. Derived from a key-encryption key, which can't be had back from it.
struct Wrap {
    id: [u8; ID_LENGTH],
    bytes: Secret,
    key: RandomizedNonceKey,
}

/// What hashes are keyed with. From the first key-encryption key of a store, and kept when that is succeeded.
struct Codes {
    bytes: Secret,
    fingerprints: hmac::Key,
    rows: hmac::Key,
}

impl Keyring {
    /// A key that lives as long as the process: for fakes, the demo and tests.
    ///
    /// # Errors
    /// [`SealError::Library`] if there is no randomness.
    pub fn ephemeral() -> Result<Keyring, SealError> {
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        rand::fill(key.as_mut()).map_err(|_| SealError::Library)?;
        Keyring::derive(&key)
    }

    fn derive(key: &[u8; KEY_LENGTH]) -> Result<Keyring, SealError> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"keywright").extract(key);
        let wrapping = expand(&root, b"keywright/1/wrap")?;
        let id = expand(&root, b"keywright/1/key-id")?;
        let mut short = [0; ID_LENGTH];
        short.copy_from_slice(&id[..ID_LENGTH]);
        let mut codes = Zeroizing::new([0; CODES_LENGTH]);
        codes[..KEY_LENGTH].copy_from_slice(expand(&root, b"keywright/1/fingerprint")?.as_ref());
        codes[KEY_LENGTH..].copy_from_slice(expand(&root, b"keywright/1/rows")?.as_ref());
        let current = Arc::new(Wrap::new(short, wrapping.as_ref())?);
        Ok(Keyring { wraps: RwLock::new(Wraps { current, former: Vec::new() }), codes: Codes::new(&codes) })
    }

    /// Tells which key-encryption key this is, and nothing else about it: lower-case hex.
    pub fn id(&self) -> String {
        hex::encode(self.current().id)
    }

    fn current(&self) -> Arc<Wrap> {
        Arc::clone(&self.wraps.read().unwrap_or_else(PoisonError::into_inner).current)
    }

    fn wrap_of(&self, id: &[u8]) -> Option<Arc<Wrap>> {
        let wraps = self.wraps.read().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(&wraps.current).chain(&wraps.former).find(|wrap| wrap.id == id).cloned()
    }

    /// From here on all is sealed with the other's key. What ours sealed opens as before.
    pub(crate) fn succeed(&self, next: &Keyring) {
        let next = next.current();
        let mut wraps = self.wraps.write().unwrap_or_else(PoisonError::into_inner);
        let former = std::mem::replace(&mut wraps.current, next);
        wraps.former.push(former);
    }

    /// What opens all that this key sealed, to be sealed with its successor.
    pub(crate) fn wrapping(&self) -> Secret {
        let current = self.current();
        let mut both = Zeroizing::new([0; ID_LENGTH + KEY_LENGTH]);
        both[..ID_LENGTH].copy_from_slice(&current.id);
        both[ID_LENGTH..].copy_from_slice(current.bytes.expose());
        Secret::new(both.as_slice())
    }

    /// Opens from here on what this former key sealed. Its id.
    ///
    /// # Errors
    /// [`SealError::Damaged`] unless it is what [`Keyring::wrapping`] gave.
    pub(crate) fn remember(&self, wrapping: &Secret) -> Result<String, SealError> {
        let (id, bytes) = wrapping.expose().split_first_chunk::<ID_LENGTH>().ok_or(SealError::Damaged)?;
        let former = Arc::new(Wrap::new(*id, bytes)?);
        self.wraps.write().unwrap_or_else(PoisonError::into_inner).former.push(former);
        Ok(hex::encode(id))
    }

    /// What hashes are keyed with, to be sealed with a successor.
    pub(crate) fn codes(&self) -> Secret {
        self.codes.bytes.duplicate()
    }

    /// The same keys, with hashes keyed as they were in the store's beginning.
    ///
    /// # Errors
    /// [`SealError::Damaged`] unless it is what [`Keyring::codes`] gave.
    pub(crate) fn with_codes(self, codes: &Secret) -> Result<Keyring, SealError> {
        let codes = codes.expose().first_chunk::<CODES_LENGTH>().filter(|_| codes.expose().len() == CODES_LENGTH);
        Ok(Keyring { codes: Codes::new(codes.ok_or(SealError::Damaged)?), ..self })
    }

    /// The same value under the current key, where a former one sealed it; `None` where there is nothing to do.
    ///
    /// # Errors
    /// As [`Keyring::unseal`].
    pub(crate) fn renew(&self, context: &Context<'_>, sealed: &Sealed) -> Result<Option<Sealed>, SealError> {
        if !self.is_former_key(&sealed.0) {
            return Ok(None);
        }
        self.seal(context, &self.unseal(context, sealed)?).map(Some)
    }

    /// Whether a former key sealed these bytes.
    pub(crate) fn is_former_key(&self, sealed: &[u8]) -> bool {
        let Some(id) = id_of(sealed) else { return false };
        let wraps = self.wraps.read().unwrap_or_else(PoisonError::into_inner);
        wraps.current.id != id && wraps.former.iter().any(|wrap| wrap.id == id)
    }

    /// A keyed hash of one value, lower-case hex. Two values of one scope have the same one if they are the same; across scopes
    /// nothing can be compared.
    pub fn fingerprint(&self, scope: &str, value: &Secret) -> String {
        let mut context = hmac::Context::with_key(&self.codes.fingerprints);
        update_parts(&mut context, &[scope.as_bytes(), value.expose()]);
        hex::encode(context.sign())
    }

    /// Authenticates what is kept in clear. The parts are told apart: moving a byte from one to the next gives another code.
    pub(crate) fn row_code(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.codes.rows);
        update_parts(&mut context, parts);
        let mut code = [0; 32];
        code.copy_from_slice(context.sign().as_ref());
        code
    }

    /// # Errors
    /// [`SealError::Library`].
    pub fn seal(&self, context: &Context<'_>, value: &Secret) -> Result<Sealed, SealError> {
        let mut data_key = Zeroizing::new([0; KEY_LENGTH]);
        rand::fill(data_key.as_mut()).map_err(|_| SealError::Library)?;
        let wrap = self.current();
        let bound = wrap.bound(context);
        let mut out = Vec::with_capacity(HEADER_LENGTH + value.expose().len() + TAG_LENGTH);
        out.push(FORMAT);
        out.extend_from_slice(&wrap.id);
        push_sealed(&mut out, &wrap.key, &bound, data_key.as_ref())?;
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, data_key.as_ref()).map_err(|_| SealError::Library)?;
        push_sealed(&mut out, &key, &bound, value.expose())?;
        Ok(Sealed(out))
    }

    /// # Errors
    /// [`SealError::OtherKey`] if another key-encryption key sealed it, [`SealError::Damaged`] if a bit of it or of the context
    /// differs.
    pub fn unseal(&self, context: &Context<'_>, sealed: &Sealed) -> Result<Secret, SealError> {
        let (header, body) = sealed.0.split_at_checked(1 + ID_LENGTH + WRAPPED_LENGTH).ok_or(SealError::Damaged)?;
        let (start, wrapped) = header.split_at(1 + ID_LENGTH);
        if start[0] != FORMAT {
            return Err(SealError::Damaged);
        }
        let wrap = self.wrap_of(&start[1..]).ok_or(SealError::OtherKey)?;
        let bound = wrap.bound(context);
        let data_key = open(&wrap.key, &bound, wrapped)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, data_key.expose()).map_err(|_| SealError::Damaged)?;
        open(&key, &bound, body)
    }
}

impl Wrap {
    fn new(id: [u8; ID_LENGTH], bytes: &[u8]) -> Result<Wrap, SealError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, bytes).map_err(|_| SealError::Damaged)?;
        Ok(Wrap { id, bytes: Secret::new(bytes), key })
    }

    fn bound(&self, context: &Context<'_>) -> Vec<u8> {
        let mut bound = vec![FORMAT];
        for part in [context.table, context.name, context.version, context.part] {
            bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bound.extend_from_slice(part.as_bytes());
        }
        bound.extend_from_slice(&self.id);
        bound
    }
}

impl Codes {
    fn new(bytes: &[u8; CODES_LENGTH]) -> Codes {
        let (fingerprints, rows) = bytes.split_at(KEY_LENGTH);
        let keyed = |key: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, key);
        Codes { bytes: Secret::new(bytes.as_slice()), fingerprints: keyed(fingerprints), rows: keyed(rows) }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("id", &self.id()).finish_non_exhaustive()
    }
}

fn id_of(sealed: &[u8]) -> Option<&[u8]> {
    sealed.get(1..=ID_LENGTH).filter(|_| sealed.first() == Some(&FORMAT))
}

fn expand(root: &hkdf::Prk, label: &[u8]) -> Result<Zeroizing<[u8; KEY_LENGTH]>, SealError> {
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    let labels = [label];
    let okm = root.expand(&labels, hkdf::HKDF_SHA256).map_err(|_| SealError::Library)?;
    okm.fill(key.as_mut()).map_err(|_| SealError::Library)?;
    Ok(key)
}

fn update_parts(context: &mut hmac::Context, parts: &[&[u8]]) {
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
}

fn push_sealed(out: &mut Vec<u8>, key: &RandomizedNonceKey, bound: &[u8], plain: &[u8]) -> Result<(), SealError> {
    let mut buffer = Zeroizing::new(plain.to_vec());
    let (nonce, tag) = key.seal_in_place_separate_tag(Aad::from(bound), &mut buffer).map_err(|_| SealError::Library)?;
    out.extend_from_slice(nonce.as_ref());
    out.extend_from_slice(&buffer);
    out.extend_from_slice(tag.as_ref());
    Ok(())
}

fn open(key: &RandomizedNonceKey, bound: &[u8], bytes: &[u8]) -> Result<Secret, SealError> {
    let (nonce, body) = bytes.split_at_checked(NONCE_LENGTH).ok_or(SealError::Damaged)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Damaged)?;
    let mut buffer = Zeroizing::new(body.to_vec());
    let plain = key.open_in_place(nonce, Aad::from(bound), &mut buffer).map_err(|_| SealError::Damaged)?;
    Ok(Secret::new(&*plain))
}
