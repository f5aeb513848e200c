//! What comes in as JSON: bounded before it is parsed, parsed strictly, and never repeated in an answer.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::problem::{Problem, Slug};
use super::service::Confirmation;
use crate::domain::ids::{FieldName, InstanceName, Name, NameError, VersionId};
use crate::domain::material::{Material, Secret};

const NESTING_MAX: usize = 16;

// Its values are secrets from the parser on.
/// The key that the provider gave out.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Submission {
    /// A text for each field that the provider's description names, each field once.
    #[schemars(with = "BTreeMap<FieldName, String>")]
    fields: Fields,
}

/// An empty object: this call takes no arguments (yet).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// An application's proof that one of its instances has this version, and uses nothing older.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Confirmation")]
pub(super) struct WrittenConfirmation {
    #[schemars(with = "Name")]
    credential: String,
    /// The newest that this instance was served.
    #[schemars(with = "VersionId")]
    version: String,
    /// As in the header `Keywright-Instance`; without the header it is `default`.
    #[schemars(with = "InstanceName")]
    instance: String,
    /// A secret field of the credential.
    #[schemars(with = "FieldName")]
    field: String,
    /// The HMAC-SHA256 in lower-case hex, with the field's value (UTF-8) as key, over
    /// `keywright-confirm\n<credential>\n<version>\n<instance>`.
    #[schemars(extend("pattern" = "^[0-9a-f]{64}$"))]
    proof: String,
}

/// # Errors
/// `bad-request`.
pub(super) fn submission(body: &[u8]) -> Result<Material, Problem> {
    let submission: Submission = parse(body, "the body must be `{\"fields\": {…}}` with a text for each field, each field once")?;
    Ok(submission.fields.0)
}

/// # Errors
/// `bad-request` for anything but nothing, or an empty object.
pub(super) fn nothing(body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() {
        return Ok(());
    }
    parse::<Nothing>(body, "this call takes no arguments").map(|_| ())
}

/// # Errors
/// `bad-request`, or `bad-name` for a credential or version that is no name.
pub(super) fn confirmation(body: &[u8], application: &Name, instance: InstanceName) -> Result<Confirmation, Problem> {
    let expected = "the body must be an object of the texts credential, version, instance, field and proof";
    let written: WrittenConfirmation = parse(body, expected)?;
    let bad_name = |part: &str| {
        let part = part.to_owned();
        move |error: NameError| Problem::new(Slug::BadName, format!("`{part}`: {error}"))
    };
    if written.instance != instance.as_str() {
        return Err(Problem::bad_request("`instance` and the header Keywright-Instance differ (without the header it is `default`)"));
    }
    Ok(Confirmation {
        application: application.clone(),
        instance,
        credential: written.credential.parse().map_err(bad_name("credential"))?,
        version: written.version.parse().map_err(bad_name("version"))?,
        field: written.field.parse::<FieldName>().map_err(|error| Problem::bad_request(format!("`field`: {error}")))?,
        proof: written.proof,
    })
}

/// The parser's own words quote what they complain about, so they stay here.
fn parse<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, Problem> {
    check_nesting(body)?;
    // An object and nothing else: the parser would take an array of the same values in order, too.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::bad_request(expected));
    }
    serde_json::from_slice(body).map_err(|_| Problem::bad_request(expected))
}

/// Looks at brackets outside of texts only; whether it is JSON at all is the parser's to say.
fn check_nesting(body: &[u8]) -> Result<(), Problem> {
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTING_MAX {
            return Err(Problem::bad_request(format!("the body is nested deeper than {NESTING_MAX}")));
        }
    }
    Ok(())
}

/// Fields of a submission, each once.
#[derive(Debug)]
struct Fields(Material);

/// A value on its way from the parser into a [`Secret`], without a `String` in between.
struct Value(Secret);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value(Secret::new(text.as_bytes())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut material = Material::default();
                while let Some((name, Value(value))) = map.next_entry::<FieldName, Value>()? {
                    if material.get(&name).is_some() {
                        return Err(A::Error::custom("a field stands twice"));
                    }
                    material.insert(name, value);
                }
                Ok(Fields(material))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Fields, A::Error> {
                Err(A::Error::custom("no object"))
            }
        }

        deserializer.deserialize_map(Map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_input_takes_one_strict_form_of_a_submission() {
        let good = submission(br#"{"fields":{"client_id":"a","client_secret":"b\u0041\n"}}"#).unwrap();
        let expected: Material = [("client_id", "a"), ("client_secret", "bA\n")]
            .map(|(f, v)| (f.parse().unwrap(), Secret::from(v.to_owned())))
            .into_iter()
            .collect();
        assert!(good.same_as(&expected));
        for bad in [
            "",
            "[]",
            "{}",
            "null",
            "[{}]",
            r#"{"fields":[]}"#,
            r#"{"fields":{"a":1}}"#,
            r#"{"fields":{"a":"1","a":"2"}}"#,
            r#"{"fields":{},"fields":{}}"#,
            r#"{"fields":{},"x":1}"#,
            r#"{"fields":{"A":"1"}}"#,
            r#"{"fields":{}} x"#,
            r#"{"fields":{"a":"\ud800"}}"#,
        ] {
            assert_eq!(submission(bad.as_bytes()).unwrap_err().slug, Slug::BadRequest, "{bad}");
        }
        assert!(submission(b"{\"fields\":{\"a\":\"\xff\"}}").is_err());
    }

    #[test]
    fn api_input_counts_brackets_outside_of_texts() {
        assert!(check_nesting(format!("{}{}", "[".repeat(16), "]".repeat(16)).as_bytes()).is_ok());
        assert!(check_nesting("[".repeat(17).as_bytes()).is_err());
        assert!(check_nesting(format!("\"{}\\\"{}\"", "[".repeat(40), "{".repeat(40)).as_bytes()).is_ok());
        assert!(check_nesting(format!("\"\\\\\"{}", "[".repeat(17)).as_bytes()).is_err());
    }

    #[test]
    fn api_input_of_a_call_without_arguments_is_nothing() {
        assert!(nothing(b"").is_ok());
        assert!(nothing(b"{}").is_ok());
        assert!(nothing(b"{\"compromised\":true}").is_err());
    }
}
