//! Fields that we make ourselves: `generate`, `use`, and what else holds for `lifecycle: generated`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::domain::credential::Environment;
use crate::domain::provider::{Site, Timing, Usage};
use crate::domain::recipe::{ENTROPY_MIN_BITS, Encoding, LENGTH_MAX, Recipe, Writing};

use super::super::problem::{Sink, shown};
use super::super::reader::{Fields, choice, text, whole_number};
use super::super::tree::{Kind, Node};

pub(in super::super) const PREFIX_LENGTH_MAX: usize = 32;
pub(in super::super) const ALPHABET_MAX: usize = 94;

pub(in super::super) const USAGES: [(&str, Usage); 2] = [("sign", Usage::Sign), ("verify", Usage::Verify)];
pub(in super::super) const ENCODINGS: [(&str, Encoding); 3] =
    [("base64", Encoding::Base64), ("base64url", Encoding::Base64url), ("hex", Encoding::Hex)];

pub(super) fn read_usage(node: &Node, sink: &Sink<'_>) -> Option<Usage> {
    choice(node, sink, &USAGES).map(|at| at.value)
}

/// `generate: {length, encoding | alphabet, prefix}`.
pub(super) fn read_recipe(node: &Node, sink: &Sink<'_>) -> Option<Recipe> {
    let fields = Fields::of(node, sink)?;
    let help = "random bytes with an `encoding`, characters with an `alphabet`";
    let length = fields.need("length", help).and_then(|node| whole_number(node, sink, 1..=LENGTH_MAX));
    let prefix = match fields.get("prefix") {
        Some(node) => read_prefix(node, sink)?,
        None => String::new(),
    };
    let encoding = fields.get("encoding").map(|node| choice(node, sink, &ENCODINGS).map(|at| Writing::Encoded(at.value)));
    let alphabet = fields.get("alphabet").map(|node| read_alphabet(node, sink).map(Writing::Alphabet));
    let place = fields.place;
    fields.done();
    let writing = match (encoding, alphabet) {
        (Some(one), None) | (None, Some(one)) => one?,
        _ => {
            let message = "a value is written either with an `encoding` or with an `alphabet`";
            sink.report(place, "bad-recipe", message, "for example `{length: 32, encoding: base64}`");
            return None;
        }
    };
    let recipe = Recipe { prefix, length: length?, writing };
    let bits = recipe.entropy_bits();
    if bits < ENTROPY_MIN_BITS {
        let message = format!("there are {bits} bits of chance in it, at least {ENTROPY_MIN_BITS} are needed");
        sink.report(place, "guessable", message, "make `length` greater; 32 random bytes are usual");
        return None;
    }
    Some(recipe)
}

fn read_prefix(node: &Node, sink: &Sink<'_>) -> Option<String> {
    let written = text(node, sink)?;
    if written.len() <= PREFIX_LENGTH_MAX && written.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(written.to_owned());
    }
    let message = format!("a prefix has {PREFIX_LENGTH_MAX} printable characters at most");
    sink.report(node.place, "bad-recipe", message, "for example `prefix: whsec_`");
    None
}

fn read_alphabet(node: &Node, sink: &Sink<'_>) -> Option<Vec<u8>> {
    let bytes = text(node, sink)?.as_bytes().to_vec();
    let each_once = bytes.iter().collect::<BTreeSet<_>>().len() == bytes.len();
    if (2..=ALPHABET_MAX).contains(&bytes.len()) && each_once && bytes.iter().all(u8::is_ascii_graphic) {
        return Some(bytes);
    }
    let message = "an alphabet has 2 to 94 printable ASCII characters, each once";
    sink.report(node.place, "bad-recipe", message, "for example `alphabet: 0123456789abcdef`");
    None
}

/// We make all fields or none.
pub(super) fn check_fields(described: &Node, generated: bool, sink: &Sink<'_>) {
    let Kind::Map(entries) = &described.kind else { return };
    for (key, node) in entries {
        let Kind::Map(parts) = &node.kind else { continue };
        let recipe = parts.iter().map(|(part, _)| part).find(|part| part.text == "generate");
        let name = shown(&key.text);
        match (recipe, generated) {
            (None, true) => {
                let message = format!("nothing says how the field {name} is made");
                sink.report(key.place, "missing-recipe", message, "add `generate: {length: 32, encoding: base64}` to it");
            }
            (Some(recipe), false) => {
                let message = format!("the field {name} can't be made here: the provider makes the keys");
                sink.report(recipe.place, "recipe-unused", message, "leave `generate` out, or write `lifecycle: generated`");
            }
            _ => {}
        }
    }
}

/// There is no provider: no address, and nobody who could be called.
pub(super) fn check_calls(fields: &Fields<'_>, sink: &Sink<'_>) {
    for name in ["environments", "calls"] {
        if let (_, Some(key)) = (fields.get(name), fields.key(name)) {
            let message = format!("a generated credential has no `{name}`: nobody is asked");
            sink.report(key.place, "not-generated", message, "leave it out");
        }
    }
}

/// A value of our own works in both, and nowhere until it is served.
pub(super) fn environments() -> BTreeMap<Environment, Site> {
    Environment::ALL.map(|environment| (environment, Site::default())).into()
}

/// Nothing needs time to spread.
pub(super) fn timing(timing: Timing) -> Timing {
    Timing { propagation: timing.propagation.or(Some(Duration::ZERO)), ..timing }
}
