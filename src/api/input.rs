//! What comes in as JSON: bounded before it is parsed, parsed strictly, and never repeated in an answer.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::problem::{Problem, Slug};
use super::service::Confirmation;
use crate::domain::ids::{FieldName, InstanceName, Name, NameError, VersionId};
use crate::domain::incident::{WITHIN_DEFAULT, parse_within};
use crate::domain::launch::{SIGNER_CHARS_MAX, Signer, SignerError};
use crate::domain::material::{Material, Secret};
use crate::domain::reason::{REASON_CHARS_MAX, Reason};
use crate::domain::replicas::Report;

const NESTING_MAX: usize = 16;

// Its values are secrets from the parser on.
/// The key that the provider gave out.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Submission {
    /// A text for each field that the provider's description names, each field once.
    #[schemars(with = "BTreeMap<FieldName, String>")]
    fields: Fields,
    /// What somebody else wrote where this credential belongs in the store is taken over. Without fields it is proved and kept; with
    /// fields they take its place.
    #[serde(default)]
    adopt: bool,
}

/// How to rotate. It may be left out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Rotation")]
pub(super) struct WrittenRotation {
    /// Somebody else may have the key: no schedule, window or overlap counts, and the old key dies.
    compromised: bool,
    /// How long those who hold a stolen key are waited for: `0s` to `24h`, `10m` where it isn't given. Goes with `compromised` only.
    within: Option<String>,
}

/// Which key is to come. It may be left out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "NewKey")]
pub(super) struct WrittenRewrap {
    /// The absolute path of a key file, as the daemon sees it. Without one, the daemon makes a key and puts it in the place of
    /// its key file.
    #[schemars(extend("pattern" = "^/"))]
    file: Option<String>,
}

/// A person says that an item of a going-live list is so.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SignOff")]
pub(super) struct WrittenSignOff {
    /// Who says so: a name, kept by the audit trail.
    #[schemars(extend("minLength" = 1, "maxLength" = SIGNER_CHARS_MAX))]
    by: String,
    /// Why, in 1 to 500 characters of one line, kept by the audit trail.
    #[serde(default)]
    #[schemars(extend("maxLength" = REASON_CHARS_MAX))]
    reason: Option<String>,
}

/// What is asked of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rotation {
    /// The current key is stolen, and whoever holds it loses it within this time.
    pub(super) compromised_within: Option<Duration>,
}

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

/// An instance's word that a version doesn't work for it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Report")]
pub(super) struct WrittenReport {
    #[schemars(with = "Name")]
    credential: String,
    /// The newest that this instance was served.
    #[schemars(with = "VersionId")]
    version: String,
    /// As in the header `Keywright-Instance`; without the header it is `default`.
    #[schemars(with = "InstanceName")]
    instance: String,
    #[schemars(extend("const" = "failed"))]
    outcome: String,
}

/// # Errors
/// `bad-request`.
pub(super) fn submission(body: &[u8]) -> Result<(Material, bool), Problem> {
    let submission: Submission = parse(body, "the body must be `{\"fields\": {…}}` with a text for each field, each field once")?;
    Ok((submission.fields.0, submission.adopt))
}

/// # Errors
/// `bad-request`.
pub(super) fn rotation(body: &[u8]) -> Result<Rotation, Problem> {
    if body.is_empty() {
        return Ok(Rotation { compromised_within: None });
    }
    let expected = "the body must be left out, or be an object of `compromised` (true or false) and `within` (a text such as `10m`)";
    let written: WrittenRotation = parse(body, expected)?;
    let within = written.within.as_deref().map(within).transpose()?;
    match (written.compromised, within) {
        (false, Some(_)) => Err(Problem::bad_request("`within` goes with `compromised` only")),
        (false, None) => Ok(Rotation { compromised_within: None }),
        (true, within) => Ok(Rotation { compromised_within: Some(within.unwrap_or(WITHIN_DEFAULT)) }),
    }
}

/// # Errors
/// `bad-request`.
pub(super) fn rewrap(body: &[u8]) -> Result<Option<PathBuf>, Problem> {
    if body.is_empty() {
        return Ok(None);
    }
    let expected = "the body must be left out, or be an object of `file`, the absolute path of a key file";
    let written: WrittenRewrap = parse(body, expected)?;
    let is_path = |file: &String| file.starts_with('/') && !file.contains(|c: char| c.is_control());
    match written.file {
        Some(file) if !is_path(&file) => Err(Problem::bad_request(expected)),
        file => Ok(file.map(PathBuf::from)),
    }
}

/// # Errors
/// `bad-request`.
pub(super) fn sign_off(body: &[u8]) -> Result<(Signer, Option<Reason>), Problem> {
    let written: WrittenSignOff = parse(body, "the body must be an object of `by`, who signs off, and maybe `reason`: both texts")?;
    let by: Signer = written.by.parse().map_err(|error: SignerError| Problem::bad_request(format!("`by`: {error}")))?;
    let reason = written.reason.map(|text| text.parse::<Reason>()).transpose();
    Ok((by, reason.map_err(|error| Problem::bad_request(format!("`reason`: {error}")))?))
}

fn within(text: &str) -> Result<Duration, Problem> {
    parse_within(text).ok_or_else(|| Problem::bad_request("`within` is a duration from `0s` to `24h`, such as `10m`"))
}

/// # Errors
/// `bad-request`, or `bad-name` for a credential or version that is no name.
pub(super) fn confirmation(body: &[u8], application: &Name, instance: InstanceName) -> Result<Confirmation, Problem> {
    let expected = "the body must be an object of the texts credential, version, instance, field and proof";
    let written: WrittenConfirmation = parse(body, expected)?;
    check_instance(&written.instance, &instance)?;
    Ok(Confirmation {
        application: application.clone(),
        instance,
        credential: written.credential.parse().map_err(bad_name("credential"))?,
        version: written.version.parse().map_err(bad_name("version"))?,
        field: written.field.parse::<FieldName>().map_err(|error| Problem::bad_request(format!("`field`: {error}")))?,
        proof: written.proof,
    })
}

/// # Errors
/// `bad-request`, or `bad-name` for a credential or version that is no name.
pub(super) fn report(body: &[u8], application: &Name, instance: InstanceName) -> Result<Report, Problem> {
    let expected = "the body must be an object of the texts credential, version, instance and outcome, which is `failed`";
    let written: WrittenReport = parse(body, expected)?;
    check_instance(&written.instance, &instance)?;
    if written.outcome != "failed" {
        return Err(Problem::bad_request("`outcome` is `failed`: that a version works is said by a confirmation"));
    }
    Ok(Report {
        application: application.clone(),
        instance,
        credential: written.credential.parse().map_err(bad_name("credential"))?,
        version: written.version.parse().map_err(bad_name("version"))?,
    })
}

fn check_instance(written: &str, instance: &InstanceName) -> Result<(), Problem> {
    if written == instance.as_str() {
        return Ok(());
    }
    Err(Problem::bad_request("`instance` and the header Keywright-Instance differ (without the header it is `default`)"))
}

fn bad_name(part: &'static str) -> impl FnOnce(NameError) -> Problem {
    move |error| Problem::new(Slug::BadName, format!("`{part}`: {error}"))
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
        assert!(good.0.same_as(&expected) && !good.1);
        let adopted = submission(br#"{"adopt":true,"fields":{}}"#).unwrap();
        assert!(adopted.0.is_empty() && adopted.1);
        for bad in [
            "",
            "[]",
            r#"{"adopt":true}"#,
            r#"{"fields":{},"adopt":1}"#,
            r#"{"fields":{},"adopt":true,"adopt":true}"#,
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
    fn api_input_of_a_rewrap_is_nothing_or_an_absolute_path() {
        for nothing in ["", "{}", r#"{"file":null}"#] {
            assert_eq!(rewrap(nothing.as_bytes()).unwrap(), None, "{nothing}");
        }
        assert_eq!(rewrap(br#"{"file":"/run/new.key"}"#).unwrap(), Some(PathBuf::from("/run/new.key")));
        for bad in [r#"{"file":""}"#, r#"{"file":"a.key"}"#, "{\"file\":\"/a\0\"}", r#"{"key":"x"}"#, r#"["/a"]"#, r#"{"file":7}"#] {
            assert_eq!(rewrap(bad.as_bytes()).unwrap_err().slug, Slug::BadRequest, "{bad}");
        }
    }

    #[test]
    fn api_input_of_a_sign_off_is_a_name_and_maybe_a_reason() {
        let read = |body: &str| sign_off(body.as_bytes()).map(|(by, reason)| (by.to_string(), reason.map(|reason| reason.to_string())));
        assert_eq!(read(r#"{"by":" Ana Souza "}"#).unwrap(), ("Ana Souza".to_owned(), None));
        assert_eq!(read(r#"{"reason":"OPS-7","by":"Ana"}"#).unwrap(), ("Ana".to_owned(), Some("OPS-7".to_owned())));
        for bad in [
            "",
            "{}",
            r#"["Ana"]"#,
            r#"{"by":""}"#,
            r#"{"by":7}"#,
            r#"{"by":"a;b"}"#,
            r#"{"by":"Ana","reason":""}"#,
            r#"{"by":"Ana","reason":"a\nb"}"#,
            r#"{"by":"Ana","at":"now"}"#,
            r#"{"by":"Ana","by":"Rui"}"#,
        ] {
            assert_eq!(read(bad).unwrap_err().slug, Slug::BadRequest, "{bad}");
        }
    }

    #[test]
    fn api_input_of_a_rotation_is_nothing_or_says_how_long_holders_are_waited_for() {
        let asked = |body: &str| rotation(body.as_bytes()).map(|asked| asked.compromised_within.map(|within| within.as_secs()));
        for plain in ["", "{}", r#"{"compromised":false}"#] {
            assert_eq!(asked(plain).unwrap(), None, "{plain}");
        }
        for (body, seconds) in [
            (r#"{"compromised":true}"#, 600),
            (r#"{"compromised":true,"within":null}"#, 600),
            (r#"{"compromised":true,"within":"0s"}"#, 0),
            (r#"{"within":"24h","compromised":true}"#, 86_400),
        ] {
            assert_eq!(asked(body).unwrap(), Some(seconds), "{body}");
        }
        for bad in [
            r#"{"compromised":"yes"}"#,
            r#"{"compromised":true,"within":"25h"}"#,
            r#"{"compromised":true,"within":"86401s"}"#,
            r#"{"compromised":true,"within":"-1s"}"#,
            r#"{"compromised":true,"within":"10"}"#,
            r#"{"compromised":true,"within":600}"#,
            r#"{"compromised":true,"compromised":true}"#,
            r#"{"within":"10m"}"#,
            r#"{"why":"x"}"#,
            "[true]",
            "true",
        ] {
            assert_eq!(asked(bad).unwrap_err().slug, Slug::BadRequest, "{bad}");
        }
    }
}
