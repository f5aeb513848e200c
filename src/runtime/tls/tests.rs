//! Which pairs are taken, and what is said of those that aren't.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

struct Made {
    folder: tempfile::TempDir,
    files: TlsFiles,
}

fn generate() -> (String, String) {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (cert.pem(), signing_key.serialize_pem())
}

impl Made {
    fn new() -> Made {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles { certificate: folder.path().join("chain.pem"), key: folder.path().join("key.pem") };
        let made = Made { folder, files };
        let (certificate, key) = generate();
        made.put(&certificate, &key);
        made
    }

    fn put(&self, certificate: &str, key: &str) {
        fs::write(&self.files.certificate, certificate).unwrap();
        fs::write(&self.files.key, key).unwrap();
        fs::set_permissions(&self.files.key, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn error(&self) -> TlsError {
        let error = Pair::read(&self.files).unwrap_err();
        let key = fs::read_to_string(&self.files.key).unwrap_or_default();
        let inside: Vec<&str> = key.lines().filter(|line| line.len() > 20 && !line.starts_with('-')).collect();
        let said = format!("{error} {error:?}");
        assert!(said.contains(self.folder.path().to_str().unwrap()), "it names the file: {said}");
        assert!(inside.iter().all(|line| !said.contains(line)), "nothing of the key is said");
        error
    }
}

#[test]
fn a_pair_is_taken_and_never_shown() {
    let made = Made::new();
    let pair = Pair::read(&made.files).unwrap();
    assert_eq!(format!("{pair:?}"), "Pair(..)");
    let config = pair.server_config().unwrap();
    assert!(!format!("{config:?}").contains("BEGIN"));
    assert_eq!(config.alpn_protocols, [b"http/1.1"]);
    assert!(pair.is_same(&Pair::read(&made.files).unwrap()));
}

#[test]
fn a_chain_may_have_more_than_one_and_all_must_be_sound() {
    let made = Made::new();
    let (own, key) = generate();
    let (above, _) = generate();
    made.put(&format!("{own}{above}"), &key);
    assert_eq!(Pair::read(&made.files).unwrap().current().cert.len(), 2);
    let damaged = format!("{own}-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n");
    for chain in [damaged.as_str(), "", "garbage", &own[..own.len() - 30], &key] {
        made.put(chain, &key);
        assert_eq!(made.error(), TlsError::NoCertificate { file: made.files.certificate.clone() });
    }
}

#[test]
fn keys_that_are_none_or_another_ones_are_refused() {
    let made = Made::new();
    let (certificate, _) = generate();
    let (_, other) = generate();
    made.put(&certificate, &other);
    assert_eq!(made.error(), TlsError::Mismatch { certificate: made.files.certificate.clone(), key: made.files.key.clone() });
    let encrypted = other.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for key in ["", "garbage", &certificate, &encrypted, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        made.put(&certificate, key);
        assert_eq!(made.error(), TlsError::NoKey { file: made.files.key.clone() });
    }
}

#[test]
fn files_that_others_may_read_or_nobody_can_are_refused() {
    let made = Made::new();
    for mode in [0o640, 0o604, 0o644, 0o620] {
        fs::set_permissions(&made.files.key, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(made.error(), TlsError::Exposed { file: made.files.key.clone() });
    }
    let long = "x".repeat(FILE_BYTES_MAX + 1);
    made.put(&long, "");
    assert_eq!(made.error(), TlsError::TooLong { file: made.files.certificate.clone() });
    fs::remove_file(&made.files.certificate).unwrap();
    let missing = TlsError::Unreadable { file: made.files.certificate.clone(), kind: io::ErrorKind::NotFound };
    assert_eq!(made.error(), missing);
}
