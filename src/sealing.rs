//! Sealing: envelope encryption of what lies on disk, and keyed fingerprints.

use serde::{Deserialize, Serialize};

/// Sealed bytes: safe to store, useless without the key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(pub Vec<u8>);
