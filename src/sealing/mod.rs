//! Sealing: envelope encryption of what lies on disk, and keyed fingerprints.
//!
//! Each record has a data key of its own, wrapped by the key-encryption key. What a record is sealed for (table, name, version,
//! part, key) is bound to it, so that a row moved to another place doesn't open there.

mod digest;
mod file;
#[cfg(test)]
mod tests;

use std::fmt;

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
const WRAPPED_LENGTH: usize = NONCE_LENGTH + KEY_LENGTH + TAG_LENGTH;
const HEADER_LENGTH: usize = 1 + ID_LENGTH + WRAPPED_LENGTH + NONCE_LENGTH;

/// Sealed bytes: safe to store, useless without the key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(pub Vec<u8>);

impl Sealed {
    /// Which key-encryption key opens it, as [`Keyring::id`] says; `None` for bytes that nothing opens.
    pub fn key_id(&self) -> Option<String> {
        self.0.get(1..=ID_LENGTH).filter(|_| self.0.first() == Some(&FORMAT)).map(hex::encode)
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

/// The key-encryption key and what is derived from it: one key for wrapping, one for fingerprints, one for the integrity of
/// rows that are kept in clear.
pub struct Keyring {
    id: [u8; ID_LENGTH],
    wrapping: RandomizedNonceKey,
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
        Ok(Keyring {
            id: short,
            wrapping: RandomizedNonceKey::new(&AES_256_GCM_SIV, wrapping.as_ref()).map_err(|_| SealError::Library)?,
            fingerprints: hmac::Key::new(hmac::HMAC_SHA256, expand(&root, b"keywright/1/fingerprint")?.as_ref()),
            rows: hmac::Key::new(hmac::HMAC_SHA256, expand(&root, b"keywright/1/rows")?.as_ref()),
        })
    }

    /// Tells which key-encryption key this is, and nothing else about it: lower-case hex.
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }

    /// A keyed hash of one value, lower-case hex. Two values of one scope have the same one if they are the same; across scopes
    /// nothing can be compared.
    pub fn fingerprint(&self, scope: &str, value: &Secret) -> String {
        let mut context = hmac::Context::with_key(&self.fingerprints);
        update_parts(&mut context, &[scope.as_bytes(), value.expose()]);
        hex::encode(context.sign())
    }

    /// Authenticates what is kept in clear. The parts are told apart: moving a byte from one to the next gives another code.
    pub(crate) fn row_code(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.rows);
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
        let bound = self.bound(context);
        let mut out = Vec::with_capacity(HEADER_LENGTH + value.expose().len() + TAG_LENGTH);
        out.push(FORMAT);
        out.extend_from_slice(&self.id);
        push_sealed(&mut out, &self.wrapping, &bound, data_key.as_ref())?;
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
        if start[1..] != self.id {
            return Err(SealError::OtherKey);
        }
        let bound = self.bound(context);
        let data_key = open(&self.wrapping, &bound, wrapped)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, data_key.expose()).map_err(|_| SealError::Damaged)?;
        open(&key, &bound, body)
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

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("id", &self.id()).finish_non_exhaustive()
    }
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
