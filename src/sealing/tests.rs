//! Sealed is opened by the same key and for the same place alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn context() -> Context<'static> {
    Context { table: "versions", name: "dinie/sandbox", version: "v1", part: "served" }
}

fn secret(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

#[test]
fn what_is_sealed_opens_again_and_never_looks_the_same_twice() {
    let keyring = Keyring::ephemeral().unwrap();
    for text in ["", "a", &"x".repeat(Secret::LENGTH_MAX)] {
        let first = keyring.seal(&context(), &secret(text)).unwrap();
        let second = keyring.seal(&context(), &secret(text)).unwrap();
        assert_ne!(first, second);
        assert!(keyring.unseal(&context(), &first).unwrap().same_as(&secret(text)));
    }
}

#[test]
fn another_place_another_key_and_every_flipped_bit_are_refused() {
    let keyring = Keyring::ephemeral().unwrap();
    let sealed = keyring.seal(&context(), &secret("hush-hush")).unwrap();
    let elsewhere = [
        Context { table: "management", ..context() },
        Context { name: "dinie/production", ..context() },
        Context { version: "v2", ..context() },
        Context { part: "management", ..context() },
        Context { table: "versionsd", name: "inie/sandbox", ..context() },
    ];
    for other in elsewhere {
        assert_eq!(keyring.unseal(&other, &sealed).unwrap_err(), SealError::Damaged);
    }
    assert_eq!(Keyring::ephemeral().unwrap().unseal(&context(), &sealed).unwrap_err(), SealError::OtherKey);
    for index in 0..sealed.0.len() {
        let mut flipped = sealed.clone();
        flipped.0[index] ^= 1;
        assert!(keyring.unseal(&context(), &flipped).is_err(), "byte {index}");
        assert!(keyring.unseal(&context(), &Sealed(sealed.0[..index].to_vec())).is_err(), "cut at {index}");
    }
}

#[test]
fn a_fingerprint_is_of_its_scope_its_key_and_its_value() {
    let keyring = Keyring::ephemeral().unwrap();
    let one = keyring.fingerprint("client_secret", &secret("value"));
    assert_eq!(one, keyring.fingerprint("client_secret", &secret("value")));
    assert_eq!(one.len(), 64);
    assert_ne!(one, keyring.fingerprint("client_secre", &secret("tvalue")));
    assert_ne!(one, Keyring::ephemeral().unwrap().fingerprint("client_secret", &secret("value")));
}

#[test]
fn proofs_are_hmac_sha256_in_lower_case_hex() {
    // RFC 4231, test case 2.
    let key = secret("Jefe");
    let proof = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    let message = b"what do ya want for nothing?";
    assert_eq!(hmac_sha256_hex(&key, message), proof);
    assert!(hmac_sha256_matches(&key, message, proof));
    for wrong in ["", &proof[1..], &proof.to_uppercase(), &proof.replace('5', "6"), "é"] {
        assert!(!hmac_sha256_matches(&key, message, wrong), "{wrong}");
    }
    assert_eq!(hex::encode(sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn the_key_file_is_made_once_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keywright.key");
    assert_eq!(Keyring::read(&file).unwrap_err(), KeyError::Missing { file: file.clone() });
    let made = Keyring::read_or_create(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(&file).unwrap().len(), KEY_LENGTH);
    assert_eq!(Keyring::read_or_create(&file).unwrap().id(), made.id());
    let sealed = made.seal(&context(), &secret("hush")).unwrap();
    assert!(Keyring::read(&file).unwrap().unseal(&context(), &sealed).is_ok());

    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(Keyring::read(&file).unwrap_err(), KeyError::Exposed { file: file.clone() });
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    for length in [0, 31, 33] {
        fs::write(&file, vec![7; length]).unwrap();
        assert_eq!(Keyring::read(&file).unwrap_err(), KeyError::NoKey { file: file.clone() });
    }
}

#[test]
fn a_store_of_an_earlier_build_is_read_with_the_same_hashes() {
    // HKDF-SHA256 and HMAC-SHA256, worked out by another library.
    let keyring = Keyring::derive(&[7; KEY_LENGTH]).unwrap();
    assert_eq!(keyring.id(), "9f74da4d79701186004908f9721fccc1");
    let fingerprint = "2d9c280761493dcd6a05b33d21e3994b8551628d2bf8c4e52054ba7ea968b097";
    let code = "052a75c3d94832080aa33bf734e5482e2122e3934008300480f0abc61c147613";
    let other = Keyring::ephemeral().unwrap();
    assert_ne!(other.fingerprint("field", &secret("value")), fingerprint);
    // A later key carries them along.
    for keyring in [other.with_codes(&keyring.codes()).unwrap(), keyring] {
        assert_eq!(keyring.fingerprint("field", &secret("value")), fingerprint);
        assert_eq!(hex::encode(keyring.row_code(&[b"meta", b"x"])), code);
    }
}

#[test]
fn a_successor_seals_and_what_was_sealed_before_still_opens() {
    let (keyring, next) = (Keyring::ephemeral().unwrap(), Keyring::ephemeral().unwrap());
    let before = keyring.seal(&context(), &secret("hush")).unwrap();
    assert!(!keyring.is_former_key(&before.0) && keyring.renew(&context(), &before).unwrap().is_none());
    let wrapping = keyring.wrapping();
    let former = keyring.id();
    keyring.succeed(&next);
    assert_eq!(keyring.id(), next.id());
    assert!(keyring.unseal(&context(), &before).unwrap().same_as(&secret("hush")) && keyring.is_former_key(&before.0));
    let anew = keyring.renew(&context(), &before).unwrap().unwrap();
    assert!(next.unseal(&context(), &anew).unwrap().same_as(&secret("hush")));
    assert_eq!(next.unseal(&context(), &before).unwrap_err(), SealError::OtherKey);
    // Its place is bound as before, also while it is renewed.
    assert_eq!(keyring.renew(&Context { version: "v2", ..context() }, &before).unwrap_err(), SealError::Damaged);
    // As after a restart, with the former key from the file.
    assert_eq!(next.remember(&wrapping).unwrap(), former);
    assert!(next.unseal(&context(), &before).unwrap().same_as(&secret("hush")));
    for broken in [&wrapping.expose()[1..], &[][..]] {
        assert_eq!(next.remember(&Secret::new(broken)).unwrap_err(), SealError::Damaged);
    }
    assert!(next.with_codes(&wrapping).is_err(), "of another length");
}

#[test]
fn debug_tells_the_id_alone() {
    let keyring = Keyring::ephemeral().unwrap();
    assert_eq!(format!("{keyring:?}"), format!("Keyring {{ id: {:?}, .. }}", keyring.id()));
}
