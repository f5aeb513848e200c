//! What signs a message: secrets from files, read at each try, so that a new one counts without a restart.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::delivery::CourierError;
use crate::domain::material::Secret;
use crate::sealing::hmac_sha256_hex;

/// As Standard Webhooks asks for.
const SECRET_BYTES_MIN: usize = 24;
const FILE_BYTES_MAX: usize = 1_024;
const PREFIX: &[u8] = b"whsec_";

/// The value of `webhook-signature`: one signature for each secret, in their order.
///
/// # Errors
/// [`CourierError::Refused`] if a secret can't be read, may be read by everybody, or is too short: then nothing is sent.
pub(super) fn sign(secrets: &[PathBuf], id: &str, timestamp: i64, body: &[u8]) -> Result<String, CourierError> {
    let mut message = format!("{id}.{timestamp}.").into_bytes();
    message.extend_from_slice(body);
    let signature = |file: &PathBuf| {
        let code =
            hex::decode(hmac_sha256_hex(&read(file)?, &message)).map_err(|_| CourierError::Refused("the message can't be signed"))?;
        Ok(format!("v1,{}", STANDARD.encode(code)))
    };
    secrets.iter().map(signature).collect::<Result<Vec<String>, CourierError>>().map(|all| all.join(" "))
}

fn read(file: &Path) -> Result<Secret, CourierError> {
    const UNREADABLE: CourierError = CourierError::Refused("a file with a signing secret can't be read");
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    // Through symbolic links: they are how Kubernetes mounts secrets. What is checked is what is read.
    let opened = File::options().read(true).custom_flags(nonblocking).open(file).map_err(|_| UNREADABLE)?;
    let metadata = opened.metadata().map_err(|_| UNREADABLE)?;
    if !metadata.is_file() || metadata.mode() & 0o007 != 0 || metadata.mode() & 0o020 != 0 {
        return Err(CourierError::Refused("a file with a signing secret may be used by others: `chmod 640` it, or stricter"));
    }
    // Reserved once: growing would leave unwiped copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    opened.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|_| UNREADABLE)?;
    secret(&bytes)
}

/// `whsec_` and base64, or the bytes themselves; a newline at the end doesn't belong to them.
fn secret(bytes: &[u8]) -> Result<Secret, CourierError> {
    const UNFIT: CourierError = CourierError::Refused("a signing secret is `whsec_` and base64, or raw: 24 to 1024 bytes");
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let decoded = match bytes.strip_prefix(PREFIX) {
        Some(encoded) => Zeroizing::new(STANDARD.decode(encoded).map_err(|_| UNFIT)?),
        None => Zeroizing::new(bytes.to_vec()),
    };
    if (SECRET_BYTES_MIN..=FILE_BYTES_MAX).contains(&decoded.len()) { Ok(Secret::new(decoded.as_slice())) } else { Err(UNFIT) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The example of the specification's own libraries.
    const EXAMPLE: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn file(folder: &Path, name: &str, text: &[u8], mode: u32) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn it_signs_as_the_specification_does() {
        let folder = tempfile::tempdir().unwrap();
        let first = file(folder.path(), "first", format!("{EXAMPLE}\n").as_bytes(), 0o600);
        let body = br#"{"test": 2432232314}"#;
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(std::slice::from_ref(&first), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body).unwrap(), expected);
        let second = file(folder.path(), "second", b"raw-and-long-enough-to-sign", 0o440);
        let both = sign(&[first, second], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body).unwrap();
        let (one, other) = both.split_once(' ').unwrap();
        assert_eq!(one, expected);
        assert!(other.starts_with("v1,") && other != one);
    }

    #[test]
    fn what_is_no_secret_signs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let long = vec![b'x'; FILE_BYTES_MAX + 1];
        for (text, mode) in [
            (&b"short"[..], 0o600),
            (b"whsec_c2hvcnQ=", 0o600),
            (b"whsec_!", 0o600),
            (b"", 0o600),
            (&long, 0o600),
            (EXAMPLE.as_bytes(), 0o604),
            (EXAMPLE.as_bytes(), 0o660),
        ] {
            let path = file(folder.path(), "secret", text, mode);
            assert!(matches!(sign(&[path], "m", 1, b"{}"), Err(CourierError::Refused(_))), "{mode:o}");
        }
        assert!(sign(&[folder.path().join("none")], "m", 1, b"{}").is_err());
        assert!(sign(&[folder.path().to_owned()], "m", 1, b"{}").is_err());
    }
}
