//! Names and identifiers. Each is parsed once, by the one parser of its kind, and never normalised.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

/// Why a text is no name. The text itself isn't repeated: it may be a secret in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub &'static str);

macro_rules! text_newtype {
    ($(#[doc = $doc:literal])* $type:ident, $check:path, $pattern:literal) => {
        $(#[doc = $doc])*
        /// Its copies share one text: there are many of each.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "Cow<'_, str>")]
        pub struct $type(Arc<str>);

        impl $type {
            /// The same as a regular expression, for those who describe documents.
            pub const PATTERN: &str = $pattern;

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text).map(|()| $type(text.into()))
            }
        }

        impl TryFrom<Cow<'_, str>> for $type {
            type Error = NameError;

            fn try_from(text: Cow<'_, str>) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        /// The pattern says the same as the parser: a test holds the two together.
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": Self::PATTERN,
                    "description": concat!($($doc, "\n"),*).trim(),
                })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_newtype!(
    /// The name of a document: credential, application, policy or provider. A DNS label of 63 characters at most.
    Name,
    check_label,
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
);
text_newtype!(
    /// One issue of a credential: opaque outside, unique for ever, in the form of a [`Name`].
    VersionId,
    check_label,
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
);
text_newtype!(
    /// One running copy of an application, as it names itself: `[A-Za-z0-9._-]{1,128}`.
    InstanceName,
    check_instance,
    "^[A-Za-z0-9._-]{1,128}$"
);
text_newtype!(
    /// One field of a credential: `[a-z][a-z0-9_]{0,62}`.
    FieldName,
    check_field,
    "^[a-z][a-z0-9_]{0,62}$"
);
text_newtype!(
    /// One item of an application's going-live list: `<credential>.<item>`, each part in the form of a [`Name`]; the item alone where
    /// it is about the whole application, or where only one credential has such an item.
    ItemId,
    check_item,
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$"
);
text_newtype!(
    /// The name of an object in Kubernetes: a DNS subdomain of 253 characters at most.
    ObjectName,
    check_subdomain,
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"
);
text_newtype!(
    /// The provider's own id of a key: printable ASCII, 256 characters at most, never a secret.
    KeyId,
    check_key_id,
    "^[!-~]{1,256}$"
);
text_newtype!(
    /// The name of an object in a Kubernetes cluster: a DNS subdomain, 253 characters at most.
    ObjectName,
    check_object,
    r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"
);
text_newtype!(
    /// What a Kubernetes cluster tells an object from all others by, those that had its name before included: opaque.
    ObjectUid,
    check_uid,
    "^[A-Za-z0-9-]{1,64}$"
);

impl InstanceName {
    /// What the daemon itself reads as, when it brings an application's state by a way of delivery.
    pub(super) fn of_way(way: &'static str) -> InstanceName {
        InstanceName(way.into())
    }

    /// What an instance is called that doesn't name itself.
    pub fn unnamed() -> InstanceName {
        InstanceName("default".into())
    }

    pub fn is_unnamed(&self) -> bool {
        &*self.0 == "default"
    }
}

impl ItemId {
    /// An item of a credential's list, or of the application's.
    pub fn of(credential: Option<&Name>, item: &Name) -> ItemId {
        ItemId(credential.map_or_else(|| item.as_str().into(), |credential| format!("{credential}.{item}").into()))
    }
}

fn check_label(text: &str) -> Result<(), NameError> {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    match bytes {
        [] => Err(NameError("a name is not empty")),
        _ if bytes.len() > 63 => Err(NameError("a name has 63 characters at most")),
        _ if !bytes.iter().all(inner) => Err(NameError("a name has lower-case letters, digits and hyphens only")),
        [b'-', ..] | [.., b'-'] => Err(NameError("a name begins and ends with a letter or a digit")),
        _ => Ok(()),
    }
}

fn check_subdomain(text: &str) -> Result<(), NameError> {
    if text.len() > 253 {
        return Err(NameError("a name in Kubernetes has 253 characters at most"));
    }
    text.split('.').try_for_each(check_label)
}

fn check_item(text: &str) -> Result<(), NameError> {
    text.split_once('.').map_or_else(|| check_label(text), |(credential, item)| check_label(credential).and_then(|()| check_label(item)))
}

fn check_instance(text: &str) -> Result<(), NameError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(NameError("an instance has 1 to 128 letters, digits, dots, underscores and hyphens"))
}

fn check_field(text: &str) -> Result<(), NameError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let starts_well = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    if starts_well && text.len() <= 63 && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(NameError("a field has 1 to 63 lower-case letters, digits and underscores, a letter first"))
}

/// The pattern doesn't tell the length of the whole.
fn check_object(text: &str) -> Result<(), NameError> {
    let end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |part: &str| end(part.as_bytes().first()) && end(part.as_bytes().last()) && part.bytes().all(inner);
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(());
    }
    Err(NameError("the name of an object has lower-case letters, digits, hyphens and dots, 253 at most, a letter or a digit at its ends"))
}

fn check_uid(text: &str) -> Result<(), NameError> {
    if (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Ok(());
    }
    Err(NameError("a uid has 1 to 64 letters, digits and hyphens"))
}

fn check_key_id(text: &str) -> Result<(), NameError> {
    if (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(NameError("the id of a key has 1 to 256 printable characters"))
}

/// This installation's identity, made once; a restore from backup renews it (I8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InstallationId(pub Uuid);

impl InstallationId {
    /// Eight hex digits: enough to tell installations of one account apart in the names of keys.
    pub fn short(self) -> String {
        self.0.simple().to_string()[..8].to_owned()
    }
}

/// Names one attempt to issue one generation of one credential: the same inputs give the same id, so that a repeated
/// call at the provider is recognised as a repetition (I8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct OperationId(Uuid);

impl OperationId {
    pub fn new(installation: InstallationId, credential: &Name, generation: u64, attempt: u32) -> OperationId {
        let text = format!("{credential}/{generation}/{attempt}");
        OperationId(Uuid::new_v5(&installation.0, text.as_bytes()))
    }

    /// The version that this operation makes. The generation stands in it for people; nothing reads it back.
    pub fn version(self, generation: u64) -> VersionId {
        VersionId(format!("v{generation}-{}", &self.0.simple().to_string()[..12]).into())
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What we write into a key's name at the provider, so that it can be told to be ours.
pub fn marker(installation: InstallationId, credential: &Name, generation: u64, attempt: u32) -> String {
    format!("{}{generation}-{attempt}", marker_prefix(installation, credential))
}

/// What the markers of all keys of one credential begin with. A longer credential name can share this beginning
/// (`a` and `a-1`): use [`is_marked`] to compare.
pub fn marker_prefix(installation: InstallationId, credential: &Name) -> String {
    format!("kw-{}-{credential}-", installation.short())
}

/// Whether a key's name at the provider is a marker of this very credential: the prefix, then two numbers, no more.
pub fn is_marked(installation: InstallationId, credential: &Name, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(&marker_prefix(installation, credential)) else { return false };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    rest.split_once('-').is_some_and(|(generation, attempt)| number(generation) && number(attempt))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_dns_labels_and_nothing_else() {
        for good in ["a", "dinie-production", "0", &"a".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "A", "a.b", "..", "a/b", "a%2fb", "a\0", "ä", "a b", "a_b", &long] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn instances_and_fields_have_their_own_alphabets() {
        assert!("pod-1.ns_A".parse::<InstanceName>().is_ok());
        for bad in ["", "a b", "a/b", "ä", &"a".repeat(129)] {
            assert!(bad.parse::<InstanceName>().is_err(), "{bad}");
        }
        assert!("client_secret".parse::<FieldName>().is_ok());
        for bad in ["", "_a", "Client", "a-b", "1a"] {
            assert!(bad.parse::<FieldName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn objects_of_a_cluster_are_dns_subdomains() {
        for good in ["payments-api", "a.b-c.d0", "0", &"a".repeat(253)] {
            assert!(good.parse::<ObjectName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a.-b", "A", "a_b", "a/b", "a:b", &"a".repeat(254)] {
            assert!(bad.parse::<ObjectName>().is_err(), "{bad}");
        }
        assert!("5c0ee3a4-9d04-4b0c-8f3c-6a0f4f0f1d52".parse::<ObjectUid>().is_ok());
        for bad in ["", "a b", "a/b", &"a".repeat(65)] {
            assert!(bad.parse::<ObjectUid>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_patterns_say_what_the_parsers_do(text in "[a-zA-Z0-9._ ~\\-]{0,4}|[a-z0-9-]{60,66}|[A-Za-z._]{126,130}|\\PC{0,3}") {
            let fits = |pattern: &str| regex::Regex::new(pattern).unwrap().is_match(&text);
            prop_assert_eq!(text.parse::<Name>().is_ok(), fits(Name::PATTERN));
            prop_assert_eq!(text.parse::<VersionId>().is_ok(), fits(VersionId::PATTERN));
            prop_assert_eq!(text.parse::<InstanceName>().is_ok(), fits(InstanceName::PATTERN));
            prop_assert_eq!(text.parse::<FieldName>().is_ok(), fits(FieldName::PATTERN));
            prop_assert_eq!(text.parse::<ItemId>().is_ok(), fits(ItemId::PATTERN));
            prop_assert_eq!(text.parse::<KeyId>().is_ok(), fits(KeyId::PATTERN));
            prop_assert_eq!(text.parse::<ObjectName>().is_ok(), fits(ObjectName::PATTERN));
            prop_assert_eq!(text.parse::<ObjectUid>().is_ok(), fits(ObjectUid::PATTERN));
        }
    }

    #[test]
    fn an_operation_is_named_by_its_inputs_alone() {
        let installation = InstallationId(Uuid::from_u128(7));
        let name: Name = "dinie".parse().unwrap();
        let first = OperationId::new(installation, &name, 3, 1);
        assert_eq!(first, OperationId::new(installation, &name, 3, 1));
        assert_ne!(first, OperationId::new(installation, &name, 3, 2));
        assert_ne!(first, OperationId::new(InstallationId(Uuid::from_u128(8)), &name, 3, 1));
        assert!(first.version(3).as_str().parse::<Name>().is_ok());
    }

    #[test]
    fn a_marker_of_another_credential_is_not_ours() {
        let installation = InstallationId(Uuid::from_u128(7));
        let short: Name = "pay".parse().unwrap();
        let long: Name = "pay-1".parse().unwrap();
        let of_short = marker(installation, &short, 2, 1);
        let of_long = marker(installation, &long, 2, 1);
        assert!(is_marked(installation, &short, &of_short));
        assert!(!is_marked(installation, &long, &of_short));
        assert!(!is_marked(installation, &short, &of_long));
        assert!(!is_marked(InstallationId(Uuid::from_u128(8 << 96)), &short, &of_short));
    }
}
