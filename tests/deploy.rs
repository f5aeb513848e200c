//! What is in `deploy/`: rendered as kustomize does, read as typed objects, held against Kubernetes' own schemas, against the daemon's
//! configuration, metrics and routes, and started as a pod would be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a failed unwrap in a test is a failed test"
)]
#![allow(missing_debug_implementations, dead_code, reason = "the support is shared with the black-box tests")]

#[path = "support/exposition.rs"]
mod exposition;
#[allow(unused_imports, reason = "shared with tests/kubernetes.rs, which asks as others too")]
#[path = "support/kube/mod.rs"]
mod fake;
#[path = "deploy/image.rs"]
mod image;
#[path = "deploy/kustomize.rs"]
mod kustomize;
#[path = "deploy/manifests.rs"]
mod manifests;
#[path = "deploy/monitoring.rs"]
mod monitoring;
#[path = "deploy/pod.rs"]
mod pod;
#[path = "deploy/readme.rs"]
mod readme;
#[path = "deploy/rights.rs"]
mod rights;
#[path = "support/tls.rs"]
mod tls;
#[path = "deploy/typed.rs"]
mod typed;
#[path = "support/wire.rs"]
mod wire;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The folders that somebody applies.
pub(crate) const APPLIED: [&str; 6] =
    ["overlays/single", "overlays/replicas", "overlays/replicas-vault", "monitoring", "example", "example/secret"];
pub(crate) const OVERLAYS: [&str; 3] = ["overlays/single", "overlays/replicas", "overlays/replicas-vault"];

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Every object of one of these folders, as `kubectl apply -k` sends it.
pub(crate) fn rendered(folder: &str) -> Vec<Value> {
    kustomize::render(&repository().join("deploy").join(folder))
}

/// `kind namespace/name`, for messages.
pub(crate) fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{} {}/{}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}

/// The only one of this kind and name.
pub(crate) fn the<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found: Vec<&Value> = objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name).collect();
    assert_eq!(found.len(), 1, "{kind} {name} among {:?}", objects.iter().map(title).collect::<Vec<_>>());
    found[0]
}

/// What runs pods, in this folder.
pub(crate) fn workloads(objects: &[Value]) -> Vec<&Value> {
    objects.iter().filter(|object| object["spec"]["template"]["spec"]["containers"].is_array()).collect()
}

/// Lower-case hex of SHA-256.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

/// A list of objects; an absent one is empty.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The folder where `tests/run` installs what tests need.
pub(crate) fn installed(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's temporary folder is in `target`");
    let folder = target.join("tests").join(name);
    assert!(folder.exists(), "{} isn't there: `tests/run` installs it", folder.display());
    folder
}
