//! Hashes that don't need the keyring: proofs of confirmations, and plain digests.

use aws_lc_rs::{digest, hmac};

use crate::domain::material::Secret;

/// Lower-case hex HMAC-SHA256 with a secret as the key: what an application sends to prove that it holds a value.
pub fn hmac_sha256_hex(key: &Secret, message: &[u8]) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), message))
}

/// Whether `proof` is what [`hmac_sha256_hex`] gives, compared in constant time. Upper-case hex is no proof: there is one spelling.
pub fn hmac_sha256_matches(key: &Secret, message: &[u8], proof: &str) -> bool {
    let spelled = proof.len() == 64 && proof.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    let Ok(code) = hex::decode(proof) else { return false };
    spelled && hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), message, &code).is_ok()
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
