//! Fills the holes of templates. Each place has its own encoding, so that a value can't leave its place.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::domain::ids::Name;
use crate::domain::material::Material;
use crate::domain::provider::{JsonTemplate, Piece, Template};
use crate::issuers::{IssuerError, Target};

/// What the holes of one request stand for.
pub(super) struct Scope<'a> {
    variables: &'a BTreeMap<String, Name>,
    defaults: &'a BTreeMap<String, Option<Name>>,
    /// `key_id`, `marker`, `operation_id`: what this very call knows.
    own: Vec<(&'static str, String)>,
    acting: &'a Material,
}

impl<'a> Scope<'a> {
    pub(super) fn new(target: &'a Target, acting: &'a Material, own: Vec<(&'static str, String)>) -> Scope<'a> {
        Scope { variables: &target.variables, defaults: &target.provider.variables, own, acting }
    }

    fn value(&self, piece: &'a Piece) -> Result<&str, IssuerError> {
        match piece {
            Piece::Literal(text) => Ok(text),
            Piece::Variable(name) => self.value_of(name),
            Piece::Field(field) => {
                let value = self.acting.get(field).ok_or(IssuerError::Impossible("a field that the call needs is missing"))?;
                value.expose_str().ok_or(IssuerError::Impossible("a field that the call needs is no text"))
            }
        }
    }

    fn value_of(&self, name: &str) -> Result<&str, IssuerError> {
        let own = self.own.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str());
        let given = || self.variables.get(name).map(Name::as_str);
        let default = || self.defaults.get(name)?.as_ref().map(Name::as_str);
        own.or_else(given).or_else(default).ok_or(IssuerError::Impossible("a variable of the description has no value"))
    }

    /// The text as it is, for headers, queries and JSON, which encode it themselves.
    pub(super) fn text(&'a self, template: &'a Template) -> Result<Zeroizing<String>, IssuerError> {
        let pieces = template.0.iter().map(|piece| self.value(piece)).collect::<Result<Vec<_>, _>>()?;
        let mut text = Zeroizing::new(String::with_capacity(pieces.iter().map(|piece| piece.len()).sum()));
        pieces.iter().for_each(|piece| text.push_str(piece));
        Ok(text)
    }

    /// A path: what fills a hole stays within its segment.
    ///
    /// # Errors
    /// [`IssuerError::Impossible`] if a value is empty, or a segment would be `.` or `..`, which an address parser takes away.
    pub(super) fn path(&'a self, template: &'a Template) -> Result<Zeroizing<String>, IssuerError> {
        let mut path = Zeroizing::new(String::with_capacity(256));
        for piece in &template.0 {
            let value = self.value(piece)?;
            match piece {
                Piece::Literal(text) => path.push_str(text),
                _ if value.is_empty() => return Err(IssuerError::Impossible("a value of the path is empty")),
                _ => path.push_str(&percent_encoded(value.as_bytes())),
            }
        }
        if path.split('/').any(|segment| segment == "." || segment == "..") {
            return Err(IssuerError::Impossible("a value would change the path"));
        }
        Ok(path)
    }

    /// `application/x-www-form-urlencoded`.
    pub(super) fn form(&'a self, pairs: &'a [(String, Template)]) -> Result<Zeroizing<String>, IssuerError> {
        let values = pairs.iter().map(|(_, template)| self.text(template)).collect::<Result<Vec<_>, _>>()?;
        let worst: usize = pairs.iter().zip(&values).map(|((name, _), value)| 3 * (name.len() + value.len()) + 2).sum();
        let mut form = Zeroizing::new(String::with_capacity(worst));
        for ((name, _), value) in pairs.iter().zip(&values) {
            if !form.is_empty() {
                form.push('&');
            }
            form.push_str(&percent_encoded(name.as_bytes()));
            form.push('=');
            form.push_str(&percent_encoded(value.as_bytes()));
        }
        Ok(form)
    }

    pub(super) fn json(&'a self, template: &'a JsonTemplate) -> Result<serde_json::Value, IssuerError> {
        Ok(match template {
            JsonTemplate::Text(text) => serde_json::Value::String(self.text(text)?.to_string()),
            JsonTemplate::Number(name) => {
                let number = self.value_of(name)?.parse::<serde_json::Number>();
                serde_json::Value::Number(number.map_err(|_| IssuerError::Impossible("a variable that should be a number is none"))?)
            }
            JsonTemplate::Literal(value) => value.clone(),
            JsonTemplate::List(items) => items.iter().map(|item| self.json(item)).collect::<Result<_, _>>()?,
            JsonTemplate::Object(members) => {
                let members = members.iter().map(|(name, value)| Ok((name.clone(), self.json(value)?)));
                serde_json::Value::Object(members.collect::<Result<_, IssuerError>>()?)
            }
        })
    }
}

/// All but the unreserved characters of RFC 3986, as `%XX`: right in a path segment, a query, a form and, as RFC 6749 section
/// 2.3.1 asks, in Basic credentials. A space becomes `%20`, which every decoder of forms takes too.
pub(super) fn percent_encoded(bytes: &[u8]) -> Zeroizing<String> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Zeroizing::new(String::with_capacity(3 * bytes.len()));
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(*byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}
