//! The part of the support that looks for leaks, for tests that don't start the binary.

pub(crate) mod canaries;
pub(crate) mod controls;
pub(crate) mod encodings;
pub(crate) mod outputs;
pub(crate) mod rng;
pub(crate) mod scanner;
pub(crate) mod tls;
pub(crate) mod wire;
