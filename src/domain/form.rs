//! What the form of a value can tell: marks of an environment, the shape that is documented, and what else it may be.

use std::collections::BTreeMap;

use regex::Regex;

use super::credential::Environment;

/// All that a description says of the form of a field. Empty: the form is no evidence.
#[derive(Debug, Clone, Default)]
pub struct Form {
    /// What tells the values of one environment from those of the other one.
    pub marks: BTreeMap<Environment, Mark>,
    /// What all values look like, in both environments.
    pub shape: Option<Shape>,
    /// Values of others that fit the marks, too.
    pub look_alikes: Vec<LookAlike>,
    pub claims: Option<Claims>,
    /// The value is an address: the base URL that goes with the key.
    pub is_address: bool,
}

#[derive(Debug, Clone)]
pub struct Mark {
    /// Anchored.
    pub pattern: Regex,
    /// A value that fits the other environment's mark as well is the other one's: no mark is the mark of this one.
    pub unless_other: bool,
}

#[derive(Debug, Clone)]
pub struct Shape {
    /// Anchored.
    pub pattern: Regex,
    /// Whether the provider says so itself: only then a value of another shape is refused.
    pub documented: bool,
}

/// Values of another provider, more exactly described than our own marks.
#[derive(Debug, Clone)]
pub struct LookAlike {
    /// Whose they are, as people call it.
    pub of: String,
    /// Anchored.
    pub pattern: Regex,
}

/// The claim of a JWT that names the environment. It is read, and never verified: the key to do so is the provider's.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// JSON pointer into the claims.
    pub pointer: String,
    /// What stands there, by environment.
    pub values: BTreeMap<Environment, Vec<serde_json::Value>>,
}

impl Form {
    /// The one environment whose mark the value bears.
    pub fn marked(&self, value: &str) -> Option<Environment> {
        let fits = |environment: Environment| self.marks.get(&environment).is_some_and(|mark| mark.pattern.is_match(value));
        let bears = |environment: Environment| {
            let yields = self.marks.get(&environment).is_some_and(|mark| mark.unless_other) && fits(environment.other());
            fits(environment) && !yields
        };
        match Environment::ALL.map(bears) {
            [true, false] => Some(Environment::ALL[0]),
            [false, true] => Some(Environment::ALL[1]),
            _ => None,
        }
    }

    /// Whether the value has another shape than the values of this field have, as far as that is known or supposed.
    pub fn is_misshapen(&self, value: &str) -> bool {
        self.shape.as_ref().is_some_and(|shape| !shape.pattern.is_match(value))
    }

    /// Whether the provider's own word rules the value out.
    pub fn is_ruled_out(&self, value: &str) -> bool {
        self.shape.as_ref().is_some_and(|shape| shape.documented && !shape.pattern.is_match(value))
    }

    /// Whose value it may be as well.
    pub fn look_alike(&self, value: &str) -> Option<&str> {
        self.look_alikes.iter().find(|other| other.pattern.is_match(value)).map(|other| other.of.as_str())
    }

    /// Whether the form of a value is evidence of anything.
    pub fn is_described(&self) -> bool {
        !self.marks.is_empty() || self.shape.is_some() || !self.look_alikes.is_empty()
    }
}
