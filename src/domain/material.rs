//! Secret bytes, and the fields of one version. The one type in which a secret travels through the daemon.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret, SecretSlice};
use zeroize::Zeroizing;

use super::ids::FieldName;

/// Bytes that must not be seen: no `Display`, no `Serialize`, no `Clone`; `Debug` tells nothing, not even the length.
/// Zeroed when dropped. Reading them is allowed in the files that `tests/tidy.rs` lists, and nowhere else.
pub struct Secret(SecretSlice<u8>);

impl Secret {
    /// The longest value of a field, in bytes: the limit of AWS Secrets Manager.
    pub const LENGTH_MAX: usize = 65_536;

    pub fn new(bytes: impl Into<Box<[u8]>>) -> Secret {
        Secret(SecretSlice::from(bytes.into()))
    }

    /// The bytes. Named so that a reader, and a test, finds every place.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// The text, if it is UTF-8.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(self.expose()).ok()
    }

    /// In bytes.
    pub fn length(&self) -> usize {
        self.expose().len()
    }

    /// A second copy, asked for by name because each copy is one more place in memory.
    pub fn duplicate(&self) -> Secret {
        Secret::new(self.expose())
    }

    /// Whether both are the same, in a time that doesn't depend on where they differ.
    pub fn same_as(&self, other: &Secret) -> bool {
        let (left, right) = (self.expose(), other.expose());
        let differing = left.iter().zip(right).fold(0u8, |seen, (a, b)| seen | (a ^ b));
        left.len() == right.len() && std::hint::black_box(differing) == 0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret::new(text.into_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a value can't be a secret of anyone (I12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueProblem {
    #[error("is empty")]
    Empty,
    #[error("is longer than 65536 bytes")]
    TooLong,
    #[error("begins or ends with white space: was it cut out of a longer text?")]
    Padded,
    #[error("is not text (UTF-8): the store couldn't give it back unchanged")]
    NotText,
    #[error("looks like a placeholder or a redaction mark, not like a value")]
    Placeholder,
}

/// Refuses what is certainly no value: what a form or a log leaves where the value was.
pub fn check_value(value: &Secret) -> Result<(), ValueProblem> {
    let bytes = value.expose();
    if bytes.is_empty() {
        return Err(ValueProblem::Empty);
    }
    if bytes.len() > Secret::LENGTH_MAX {
        return Err(ValueProblem::TooLong);
    }
    if value.expose_str().is_none() {
        return Err(ValueProblem::NotText);
    }
    // A PEM key ends with a newline and means it.
    let body = bytes.strip_suffix(b"-----\n").unwrap_or(bytes);
    if body.first().is_some_and(u8::is_ascii_whitespace) || body.last().is_some_and(u8::is_ascii_whitespace) {
        return Err(ValueProblem::Padded);
    }
    if looks_like_placeholder(bytes) {
        return Err(ValueProblem::Placeholder);
    }
    Ok(())
}

fn looks_like_placeholder(bytes: &[u8]) -> bool {
    const WORDS: [&str; 14] = [
        "changeme",
        "change_me",
        "change-me",
        "redacted",
        "[redacted]",
        "<redacted>",
        "(redacted)",
        "secret",
        "password",
        "placeholder",
        "todo",
        "none",
        "null",
        "undefined",
    ];
    let one_mark = bytes.iter().all(|byte| *byte == bytes[0]) && matches!(bytes[0], b'*' | b'x' | b'X' | b'.' | b'-' | b'#' | b'0');
    let bullets = std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(|c| matches!(c, '•' | '●' | '…' | '█')));
    let starred = bytes.windows(4).any(|window| window == b"****") || bytes.ends_with(b"...");
    let bracketed = (bytes.starts_with(b"<") && bytes.ends_with(b">")) || (bytes.starts_with(b"${") && bytes.ends_with(b"}"));
    one_mark || bullets || starred || bracketed || WORDS.iter().any(|word| bytes.eq_ignore_ascii_case(word.as_bytes()))
}

/// The fields of one version. All values are held as [`Secret`], the public ones too: which is which is the provider
/// description's to say, and a mistake there must not print anything.
#[derive(Debug, Default)]
pub struct Material {
    fields: BTreeMap<FieldName, Secret>,
}

/// Why bytes are no [`Material`]. Says nothing of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not one flat JSON object of names and texts")]
pub struct MaterialError;

impl Material {
    pub fn get(&self, field: &FieldName) -> Option<&Secret> {
        self.fields.get(field)
    }

    pub fn insert(&mut self, field: FieldName, value: Secret) {
        self.fields.insert(field, value);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&FieldName, &Secret)> {
        self.fields.iter()
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub fn duplicate(&self) -> Material {
        self.iter().map(|(name, value)| (name.clone(), value.duplicate())).collect()
    }

    pub fn same_as(&self, other: &Material) -> bool {
        self.len() == other.len() && self.iter().all(|(name, value)| other.get(name).is_some_and(|theirs| value.same_as(theirs)))
    }

    /// Splits off the fields that `wanted` picks.
    pub fn partition(self, wanted: impl Fn(&FieldName) -> bool) -> (Material, Material) {
        let (picked, rest): (Vec<_>, Vec<_>) = self.fields.into_iter().partition(|(name, _)| wanted(name));
        (picked.into_iter().collect(), rest.into_iter().collect())
    }

    /// One flat JSON object, fields in the order of their names: what a native reader of the store sees. The same
    /// fields always give the same bytes.
    pub fn to_json(&self) -> Secret {
        // Reserved once: growing would leave unwiped copies behind. Escapes take six bytes per byte at most.
        let worst: usize = self.iter().map(|(name, value)| name.as_str().len() + 6 * value.expose().len() + 8).sum();
        let mut out = Zeroizing::new(Vec::with_capacity(worst + 2));
        out.push(b'{');
        for (index, (name, value)) in self.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_json_text(&mut out, name.as_str());
            out.push(b':');
            push_json_text(&mut out, value.expose_str().unwrap_or_default());
        }
        out.push(b'}');
        Secret::new(out.as_slice())
    }

    /// # Errors
    /// [`MaterialError`] if the bytes are anything but a flat object of known names and texts, each once.
    pub fn from_json(bytes: &[u8]) -> Result<Material, MaterialError> {
        serde_json::from_slice::<FlatObject>(bytes).map(|flat| flat.0).map_err(|_| MaterialError)
    }
}

impl FromIterator<(FieldName, Secret)> for Material {
    fn from_iter<I: IntoIterator<Item = (FieldName, Secret)>>(fields: I) -> Material {
        Material { fields: fields.into_iter().collect() }
    }
}

fn push_json_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0..0x20 => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

struct FlatObject(Material);

impl<'de> serde::Deserialize<'de> for FlatObject {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> serde::de::Visitor<'de> for Fields {
            type Value = Material;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a flat object of texts")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Material, A::Error> {
                use serde::de::Error;
                let mut material = Material::default();
                while let Some(name) = map.next_key::<FieldName>()? {
                    let value = Secret::from(map.next_value::<String>()?);
                    if material.get(&name).is_some() {
                        return Err(A::Error::custom("a field stands twice"));
                    }
                    material.insert(name, value);
                }
                Ok(material)
            }
        }

        deserializer.deserialize_map(Fields).map(FlatObject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[test]
    fn debug_tells_nothing() {
        let material: Material = [("client_secret".parse().unwrap(), secret("hush-hush-hush"))].into_iter().collect();
        assert!(!format!("{material:?}").contains("hush"));
    }

    #[test]
    fn json_goes_there_and_back_for_every_shape() {
        let long = "é\"\\\u{0}\n".repeat(2000);
        for text in ["a", "\"quoted\" \\ back", "nul\u{0}nul", "{\"json\":\"in json\"}", "☃ %41", &long] {
            let material: Material = [("a".parse().unwrap(), secret(text)), ("b".parse().unwrap(), secret("2"))].into_iter().collect();
            let json = material.to_json();
            assert!(Material::from_json(json.expose()).unwrap().same_as(&material));
            let by_serde: BTreeMap<String, String> = serde_json::from_slice(json.expose()).unwrap();
            assert_eq!(by_serde["a"], text);
        }
    }

    #[test]
    fn only_flat_objects_of_texts_are_material() {
        for bad in ["", "[]", "{\"a\":1}", "{\"a\":{}}", "{\"a\":\"1\",\"a\":\"2\"}", "{\"A\":\"1\"}", "{\"a\":\"1\"} x"] {
            assert_eq!(Material::from_json(bad.as_bytes()).unwrap_err(), MaterialError, "{bad}");
        }
    }

    #[test]
    fn what_is_certainly_no_value_is_refused() {
        for (text, problem) in [
            ("", ValueProblem::Empty),
            (" abc", ValueProblem::Padded),
            ("abc\n", ValueProblem::Padded),
            ("********", ValueProblem::Placeholder),
            ("dinie_cs_live_****", ValueProblem::Placeholder),
            ("sk_live_abc...", ValueProblem::Placeholder),
            ("<client secret>", ValueProblem::Placeholder),
            ("[REDACTED]", ValueProblem::Placeholder),
            ("••••••", ValueProblem::Placeholder),
            ("${SECRET}", ValueProblem::Placeholder),
        ] {
            assert_eq!(check_value(&secret(text)), Err(problem), "{text}");
        }
        assert_eq!(check_value(&Secret::new(vec![b'a'; 65_537])), Err(ValueProblem::TooLong));
        assert_eq!(check_value(&Secret::new(vec![b'a', 0xff, b'b'])), Err(ValueProblem::NotText));
        for good in ["dinie_cs_live_0123456789abcdef", "-----BEGIN X-----\nabc\n-----END X-----\n"] {
            assert_eq!(check_value(&secret(good)), Ok(()));
        }
    }

    #[test]
    fn equal_means_the_same_bytes() {
        assert!(secret("abc").same_as(&secret("abc")));
        assert!(!secret("abc").same_as(&secret("abd")));
        assert!(!secret("abc").same_as(&secret("abcd")));
    }
}
