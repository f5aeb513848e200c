//! Texts with holes: what a call sends, before it is known for whom.

use super::ids::FieldName;

/// A JSON value whose texts are templates.
#[derive(Debug, Clone)]
pub enum JsonTemplate {
    Text(Template),
    Literal(serde_json::Value),
    List(Vec<JsonTemplate>),
    Object(Vec<(String, JsonTemplate)>),
}

/// A text with holes: `{name}` stands for a variable of the request. Which names exist depends on the place: base URLs
/// and paths know the credential's variables and `{key_id}`; bodies also `{marker}`, `{operation_id}` and `{field:NAME}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Literal(String),
    /// A credential's variable, or `key_id`, `marker`, `operation_id`.
    Variable(String),
    /// A field of the acting version.
    Field(FieldName),
}

impl Template {
    pub fn literal(text: &str) -> Template {
        Template(vec![Piece::Literal(text.to_owned())])
    }

    /// # Errors
    /// Names the brace or the name that is wrong.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            if rest.as_bytes()[open] == b'}' {
                return Err("a `}` without its `{`".to_owned());
            }
            if open > 0 {
                pieces.push(Piece::Literal(rest[..open].to_owned()));
            }
            let Some(length) = rest[open + 1..].find('}') else { return Err("a `{` without its `}`".to_owned()) };
            let hole = &rest[open + 1..open + 1 + length];
            pieces.push(match hole.strip_prefix("field:") {
                Some(field) => Piece::Field(field.parse().map_err(|error| format!("`{{field:…}}`: {error}"))?),
                None if !hole.is_empty() && hole.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') => Piece::Variable(hole.to_owned()),
                None => return Err("a `{…}` whose name isn't lower-case letters and underscores".to_owned()),
            });
            rest = &rest[open + length + 2..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Template(pieces))
    }

    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable(name) => Some(name.as_str()),
            _ => None,
        })
    }

    pub fn fields(&self) -> impl Iterator<Item = &FieldName> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Field(name) => Some(name),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_know_their_holes() {
        let template = Template::parse("/t/{tenant}/{field:client_id}.json").unwrap();
        assert_eq!(template.variables().collect::<Vec<_>>(), ["tenant"]);
        assert_eq!(template.fields().count(), 1);
        for bad in ["{", "}", "{}", "{Tenant}", "{a b}", "{field:}", "a}b{c}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
