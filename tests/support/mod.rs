//! What the end-to-end tests stand on: fakes that keep the truth, the real binary, an application, a leak scanner.
//!
//! Everything here is written from the contract and from the providers' public facts, never from `src`.

pub(crate) mod app;
#[allow(dead_code, reason = "shared with tests/aws, which takes a server away")]
pub(crate) mod aws;
pub(crate) mod canaries;
#[allow(dead_code, reason = "shared with tests/canary.rs, which plants in more places")]
pub(crate) mod controls;
pub(crate) mod daemon;
pub(crate) mod dinie;
pub(crate) mod encodings;
pub(crate) mod exposition;
pub(crate) mod glewlwyd;
#[allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "shared with tests/kubernetes.rs, which asks for more; the fake has a clock of its own"
)]
pub(crate) mod kube;
pub(crate) mod oidc;
#[allow(dead_code, reason = "shared with tests/canary.rs, which collects in more places")]
pub(crate) mod outputs;
pub(crate) mod rng;
pub(crate) mod scanner;
pub(crate) mod site;
#[allow(dead_code, reason = "shared with tests/canary.rs, which knows one provider")]
pub(crate) mod tap;
pub(crate) mod tls;
#[allow(dead_code, reason = "shared with tests/canary.rs, which has no terminal")]
pub(crate) mod tty;
#[allow(dead_code, reason = "shared with tests/vault.rs, which asks for more")]
pub(crate) mod vault;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// Looks every 50 ms whether `condition` holds; false after `limit`.
pub(crate) async fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Lower-case hex of SHA-256: how a policy document names a static token.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

/// The proof that a confirmation carries, as the contract writes it.
pub(crate) fn confirmation_proof(value: &str, credential: &str, version: &str, instance: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, value.as_bytes());
    let message = format!("keywright-confirm\n{credential}\n{version}\n{instance}");
    hex::encode(aws_lc_rs::hmac::sign(&key, message.as_bytes()))
}
