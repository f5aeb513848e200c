//! Which settings are taken, which are refused, and what answers mean.

use std::path::Path;
use std::time::Duration;

use kube::core::Status;
use rcgen::{CertificateParams, KeyPair};
use rstest::rstest;
use serde_json::{Value, json};

use super::settings::of_pod;
use super::*;
use http::Uri;

fn certificate() -> String {
    CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

/// The kubeconfig of a test, with these fields of its cluster and its user.
fn kubeconfig(folder: &Path, cluster: Value, user: Value) -> ClusterSettings {
    let file = folder.join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": cluster}], "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "payments"}}],
    });
    std::fs::write(&file, text.to_string()).unwrap();
    ClusterSettings { kubeconfig: Some(file) }
}

#[test]
fn a_kubeconfig_names_address_authority_namespace_and_token() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), certificate()).unwrap();
    let cluster = json!({"server": "https://k.example:6443", "certificate-authority": "ca.pem", "tls-server-name": "kubernetes"});
    let config = kubeconfig(folder.path(), cluster, json!({"token": "made-for-a-test"})).read().unwrap();
    assert_eq!(config.cluster_url, "https://k.example:6443/");
    assert_eq!((config.default_namespace.as_str(), config.tls_server_name.as_deref()), ("payments", Some("kubernetes")));
    assert_eq!(config.root_cert.map(|certificates| certificates.len()), Some(1));
    assert!(config.auth_info.token.is_some());
}

#[test]
fn a_pods_folder_names_token_authority_and_namespace() {
    let folder = tempfile::tempdir().unwrap();
    let read = || of_pod(Uri::from_static("https://kubernetes.default.svc"), folder.path());
    for (name, text) in [("token", "made-for-a-test".to_owned()), ("ca.crt", certificate()), ("namespace", "payments\n".to_owned())] {
        assert_eq!(read().unwrap_err(), ConnectError::NotInPod { file: folder.path().join(name) });
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let config = read().unwrap();
    assert_eq!(config.default_namespace, "payments");
    assert_eq!(config.auth_info.token_file.as_deref().map(Path::new), Some(folder.path().join("token").as_path()));
    assert_eq!(config.root_cert_file, Some(folder.path().join("ca.crt")));
    std::fs::write(folder.path().join("ca.crt"), "no certificate").unwrap();
    assert_eq!(read().unwrap_err(), ConnectError::Credentials);
}

#[rstest]
#[case::unverified(json!({"server": "https://k.example", "insecure-skip-tls-verify": true}), json!({}), "insecure-skip")]
#[case::proxied(json!({"server": "https://k.example", "proxy-url": "http://p.example"}), json!({}), "proxy-url")]
#[case::unknown_authority(json!({"server": "https://k.example"}), json!({}), "no `certificate-authority`")]
#[case::bad_authority(json!({"server": "https://k.example", "certificate-authority-data": "bm9uZQ=="}), json!({}), "can't be read")]
#[case::plain(json!({"server": "http://k.example"}), json!({}), "isn't `https")]
#[case::almost_loopback(json!({"server": "http://127.0.0.1.k.example"}), json!({}), "isn't `https")]
#[case::no_address(json!({"server": "a b"}), json!({}), "no address")]
#[case::a_program(json!({"server": "http://127.0.0.1:1"}), json!({"exec": {"command": "x"}}), "a program to run")]
#[case::a_password(json!({"server": "http://127.0.0.1:1"}), json!({"username": "a", "password": "made-for-a-test"}), "a password")]
#[case::another(json!({"server": "http://127.0.0.1:1"}), json!({"as": "system:admin"}), "acts as another")]
fn what_a_kubeconfig_must_not_say_is_refused(#[case] cluster: Value, #[case] user: Value, #[case] problem: &str) {
    let folder = tempfile::tempdir().unwrap();
    let error = kubeconfig(folder.path(), cluster, user).read().unwrap_err().to_string();
    assert!(error.contains(problem), "{error}");
    assert!(!error.contains("made-for-a-test"), "{error}");
}

#[test]
fn what_is_no_kubeconfig_is_refused_without_its_text() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    let read = || ClusterSettings { kubeconfig: Some(file.clone()) }.read().unwrap_err();
    assert_eq!(read(), ConnectError::Unreadable { file: file.clone() });
    std::fs::write(&file, "token: made-for-a-test: x").unwrap();
    assert_eq!(read(), ConnectError::Unreadable { file: file.clone() });
    std::fs::write(&file, "apiVersion: v1\nkind: Config\n").unwrap();
    assert!(matches!(read(), ConnectError::Unusable { .. }));
}

#[rstest]
#[case(404, "NotFound", json!(null), ClusterError::NotFound)]
#[case(409, "AlreadyExists", json!(null), ClusterError::AlreadyExists)]
#[case(409, "Conflict", json!(null), ClusterError::Conflict)]
#[case(409, "Conflict", json!({"causes": [{"reason": "FieldManagerConflict", "field": ".data.a"}]}), ClusterError::Owned)]
#[case(410, "Expired", json!(null), ClusterError::Gone)]
#[case(401, "Unauthorized", json!(null), ClusterError::Unauthorized)]
#[case(403, "Forbidden", json!(null), ClusterError::Forbidden)]
#[case(422, "Invalid", json!(null), ClusterError::Invalid)]
#[case(422, "Invalid", json!({"causes": [{"reason": "FieldValueTooLong"}]}), ClusterError::TooLarge)]
#[case(413, "RequestEntityTooLarge", json!(null), ClusterError::TooLarge)]
#[case(415, "UnsupportedMediaType", json!(null), ClusterError::Invalid)]
#[case(429, "TooManyRequests", json!({"retryAfterSeconds": 2}), ClusterError::TooMany { retry_after: Some(Duration::from_secs(2)) })]
#[case(503, "ServiceUnavailable", json!({"retryAfterSeconds": 9999}), ClusterError::Unavailable { retry_after: Some(Duration::from_secs(60)) })]
#[case(500, "InternalError", json!(null), ClusterError::Unavailable { retry_after: None })]
fn a_status_means_one_thing(#[case] code: u16, #[case] reason: &str, #[case] details: Value, #[case] expected: ClusterError) {
    let written = json!({"status": "Failure", "code": code, "reason": reason, "message": "of theirs", "details": details});
    let status: Status = serde_json::from_value(written).unwrap();
    assert_eq!(ClusterError::of_status(&status), expected);
    assert_eq!(expected.is_passing(), code == 429 || code >= 500);
    assert!(!expected.to_string().contains("of theirs"));
}
