//! What Keywright keeps in Kubernetes, against an API server of ours, and against a real one where `KEYWRIGHT_TEST_KUBECONFIG` names it:
//! each suite in a namespace of its own there, which is removed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a failed unwrap in a test is a failed test, and the fake has a clock of its own"
)]
#![allow(missing_debug_implementations, dead_code, reason = "the fake is shared with the black-box tests")]

#[path = "support/kube/mod.rs"]
mod fake;
#[path = "kubernetes/fake_test.rs"]
mod fake_test;
#[path = "kubernetes/identities.rs"]
mod identities;
#[path = "kubernetes/journal.rs"]
mod journal;
#[path = "kubernetes/leadership.rs"]
mod leadership;
#[path = "kubernetes/secrets.rs"]
mod secrets;
#[path = "support/tls.rs"]
mod tls;
#[path = "kubernetes/world.rs"]
mod world;
