//! The claims of a JWT: read, bounded, and never trusted. Anybody can write them; the signature is the provider's to check.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::domain::credential::Environment;
use crate::domain::form::Claims;

/// In bytes. Longer ones exist nowhere: they travel in headers.
const TOKEN_LENGTH_MAX: usize = 16_384;

/// What the claims say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claimed {
    Names(Environment),
    /// They can be read, and don't tell.
    Silent,
    /// There are none that can be read.
    Unreadable,
}

pub(super) fn claimed(claims: &Claims, value: &str) -> Claimed {
    let Some(payload) = payload_of(value) else { return Claimed::Unreadable };
    let Some(found) = payload.pointer(&claims.pointer) else { return Claimed::Silent };
    let named = |environment: &Environment| claims.values.get(environment).is_some_and(|values| values.contains(found));
    match Environment::ALL.iter().find(|environment| named(environment)) {
        Some(environment) => Claimed::Names(*environment),
        None => Claimed::Silent,
    }
}

/// The middle one of three parts (RFC 7519, section 3; RFC 7515, section 3.1).
fn payload_of(value: &str) -> Option<Value> {
    if value.len() > TOKEN_LENGTH_MAX {
        return None;
    }
    let mut parts = value.split('.');
    let (header, payload, _, end) = (parts.next()?, parts.next()?, parts.next()?, parts.next());
    if header.is_empty() || end.is_some() {
        return None;
    }
    let decoded = zeroize::Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
    serde_json::from_slice::<Value>(&decoded).ok().filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        let values = [(Environment::Sandbox, vec!["test".into(), 0.into()]), (Environment::Production, vec!["live".into(), true.into()])];
        Claims { pointer: "/k/env".to_owned(), values: values.into_iter().collect() }
    }

    fn token(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn claims_name_an_environment_or_say_nothing() {
        for (payload, expected) in [
            (r#"{"k":{"env":"test"}}"#, Claimed::Names(Environment::Sandbox)),
            (r#"{"k":{"env":0}}"#, Claimed::Names(Environment::Sandbox)),
            (r#"{"k":{"env":"live"}}"#, Claimed::Names(Environment::Production)),
            (r#"{"k":{"env":true}}"#, Claimed::Names(Environment::Production)),
            (r#"{"k":{"env":"Live"}}"#, Claimed::Silent),
            (r#"{"env":"live"}"#, Claimed::Silent),
            ("{}", Claimed::Silent),
            ("[]", Claimed::Unreadable),
            ("\"live\"", Claimed::Unreadable),
            ("{", Claimed::Unreadable),
            ("", Claimed::Unreadable),
        ] {
            assert_eq!(claimed(&claims(), &token(payload)), expected, "{payload}");
        }
    }

    #[test]
    fn what_is_no_token_is_no_claim() {
        let good = token(r#"{"k":{"env":"live"}}"#);
        let deep = token(&format!(r#"{{"k":{}"#, "[".repeat(8_000)));
        let long = token(&format!(r#"{{"k":{{"env":"live"}},"x":"{}"}}"#, "x".repeat(TOKEN_LENGTH_MAX)));
        for bad in ["", ".", "..", "a.b", "a.b.c", &good[3..], &format!("{good}.x"), &good.replace('.', ".="), &deep, &long] {
            assert_eq!(claimed(&claims(), bad), Claimed::Unreadable, "{bad}");
        }
    }
}
