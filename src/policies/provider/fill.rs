//! Example values of a description: written with generated parts, so that nothing in a file looks like somebody's key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::problem::Sink;
use super::super::reader::{Fields, text};
use super::super::tree::{Kind, Node};
use super::examples::json;

pub(in super::super) const KINDS: [(&str, &[u8]); 5] = [
    ("alnum", b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"),
    ("hex", b"0123456789abcdef"),
    ("digits", b"0123456789"),
    ("base64", b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"),
    ("base64url", b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
];
const COUNT_MAX: usize = 999;
/// In characters: no example needs more.
const VALUE_LENGTH_MAX: usize = 4_096;

/// A text with holes such as `{alnum:24}`, or `{jwt: {..}}` with claims. The same text always gives the same value.
pub(super) fn read_value(node: &Node, sink: &Sink<'_>) -> Option<String> {
    if let Kind::Map(_) = node.kind {
        let fields = Fields::of(node, sink)?;
        let claims = fields.need("jwt", "the claims of a token, or write the value as a text").and_then(|node| json(node, sink));
        fields.done();
        return Some(token(&claims?));
    }
    let written = text(node, sink)?;
    let filled = fill(written);
    if filled.is_none() {
        let help = "holes are `{alnum:24}`, `{hex:32}`, `{digits:6}`, `{base64:44}` and `{base64url:43}`";
        sink.report(node.place, "bad-template", "this is no example of a value", help);
    }
    let short = filled.filter(|filled| filled.len() <= VALUE_LENGTH_MAX);
    if short.is_none() && fill(written).is_some() {
        sink.report(node.place, "bad-example", "an example of a value has 4096 characters at most", "show it with a shorter one");
    }
    short
}

/// Signed by nobody: its last part is as long as a signature, and is none.
fn token(claims: &serde_json::Value) -> String {
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let signature: String = characters(KINDS[4].1, 43, 7).collect();
    format!("{}.{}.{signature}", part(r#"{"alg":"ES256","typ":"JWT"}"#), part(&claims.to_string()))
}

fn fill(written: &str) -> Option<String> {
    let mut filled = String::new();
    let mut rest = written;
    while let Some(open) = rest.find(['{', '}']) {
        let (before, hole) = rest.split_at(open);
        filled.push_str(before);
        let (hole, after) = hole.strip_prefix('{')?.split_once('}')?;
        let (kind, count) = hole.split_once(':')?;
        let (_, alphabet) = KINDS.iter().find(|(name, _)| *name == kind)?;
        let is_plain = !count.starts_with('0') && count.bytes().all(|byte| byte.is_ascii_digit());
        let count = count.parse::<usize>().ok().filter(|count| is_plain && (1..=COUNT_MAX).contains(count))?;
        let seed = u64::try_from(filled.len()).unwrap_or(0);
        filled.extend(characters(alphabet, count, seed));
        rest = after;
        if filled.len() > VALUE_LENGTH_MAX {
            // Long enough to be refused; a file could ask for gigabytes.
            return Some(filled);
        }
    }
    filled.push_str(rest);
    Some(filled)
}

/// The upper bits of a linear congruential generator (Knuth): nothing here is to be secret.
fn characters(alphabet: &[u8], count: usize, seed: u64) -> impl Iterator<Item = char> {
    let next = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    let states = std::iter::successors(next(&(seed ^ 0x9e37_79b9_7f4a_7c15)), next);
    let length = u64::try_from(alphabet.len()).unwrap_or(1);
    states.take(count).filter_map(move |state| alphabet.get(usize::try_from((state >> 33) % length).ok()?).map(|byte| char::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_with_what_they_name_always_alike() {
        let filled = fill("sk_live_{alnum:24}-{hex:8}").unwrap();
        assert_eq!(fill("sk_live_{alnum:24}-{hex:8}").unwrap(), filled);
        let (alnum, hex) = filled.strip_prefix("sk_live_").unwrap().split_once('-').unwrap();
        assert!(alnum.len() == 24 && alnum.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{filled}");
        assert!(hex.len() == 8 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{filled}");
        assert_eq!(fill("plain").unwrap(), "plain");
        for bad in ["{", "}", "{}", "{alnum}", "{alnum:0}", "{alnum:+1}", "{alnum:1000}", "{other:3}", "a}b{alnum:1}"] {
            assert_eq!(fill(bad), None, "{bad}");
        }
    }
}
