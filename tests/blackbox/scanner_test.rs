//! The scanner's positive controls: each shape in each encoding is found, and what is innocent is not.

use crate::support::canaries::{Canary, SHAPES, Shape};
use crate::support::scanner::{Scanner, WINDOW};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Every way a secret may be written; a new encoding is one more row.
type Encoding = (&'static str, fn(&str) -> Vec<u8>);
const ENCODINGS: &[Encoding] = &[
    ("raw", |v| v.as_bytes().to_vec()),
    ("base64 at 0", |v| STANDARD.encode(v).into_bytes()),
    ("base64 at 1", |v| STANDARD.encode(format!("a{v}")).into_bytes()),
    ("base64 at 2", |v| STANDARD.encode(format!("ab{v}")).into_bytes()),
    ("base64 after other letters", |v| format!("xyz{}", STANDARD.encode(v)).into_bytes()),
    ("base64url at 0", |v| URL_SAFE_NO_PAD.encode(v).into_bytes()),
    ("base64url at 1", |v| URL_SAFE_NO_PAD.encode(format!("a{v}")).into_bytes()),
    ("base64url at 2", |v| URL_SAFE_NO_PAD.encode(format!("ab{v}")).into_bytes()),
    ("hex", |v| hex::encode(v).into_bytes()),
    ("HEX", |v| hex::encode_upper(v).into_bytes()),
    ("hex, odd start", |v| format!("f{}", hex::encode(v)).into_bytes()),
    ("hex with colons", |v| v.bytes().map(|b| format!("{b:02x}:")).collect::<String>().into_bytes()),
    ("percent, all", |v| v.bytes().map(|b| format!("%{b:02X}")).collect::<String>().into_bytes()),
    ("percent, where needed", percent_where_needed),
    ("json", |v| serde_json::to_vec(v).unwrap()),
    ("json in json", |v| serde_json::to_vec(&serde_json::to_string(v).unwrap()).unwrap()),
    ("json, all \\u", |v| v.encode_utf16().map(|u| format!("\\u{u:04x}")).collect::<String>().into_bytes()),
    ("json, all \\U", |v| v.encode_utf16().map(|u| format!("\\u{u:04X}")).collect::<String>().into_bytes()),
    ("debug", |v| format!("{v:?}").into_bytes()),
    ("byte string", |v| v.as_bytes().escape_ascii().to_string().into_bytes()),
    ("decimals", |v| format!("{:?}", v.as_bytes()).into_bytes()),
    ("decimals with spaces", |v| v.bytes().map(|b| format!("{b} ")).collect::<String>().into_bytes()),
    ("pretty decimals", |v| format!("{:#?}", v.as_bytes()).into_bytes()),
    ("utf-16le", |v| v.encode_utf16().flat_map(u16::to_le_bytes).collect()),
    ("utf-16be", |v| v.encode_utf16().flat_map(u16::to_be_bytes).collect()),
];

fn percent_where_needed(value: &str) -> Vec<u8> {
    let text: String =
        value.bytes().map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02x}") }).collect();
    text.into_bytes()
}

/// Noise before and after, so that a find never depends on where the output begins.
fn surrounded(encoded: &[u8]) -> Vec<u8> {
    [b"{\"level\":\"TRACE\",\"n\":17,\"message\":\"".as_slice(), encoded, b"\"} then more"].concat()
}

#[test]
fn every_shape_is_found_in_every_encoding() {
    for shape in SHAPES {
        let canary = Canary::shaped(shape, 7);
        let scanner = Scanner::new([&canary]);
        for (name, encode) in ENCODINGS {
            let leaks = scanner.scan("log", &surrounded(&encode(&canary.value)));
            assert!(leaks.iter().any(|leak| leak.canary == canary.name), "{shape:?} as {name} was not found");
        }
    }
}

#[test]
fn any_part_of_eight_bytes_is_found_in_every_encoding() {
    for shape in SHAPES {
        let canary = Canary::shaped(shape, 8);
        let scanner = Scanner::new([&canary]);
        let core = canary.cores[0].clone();
        let text = &canary.value[core];
        for part in parts(text) {
            for (name, encode) in ENCODINGS {
                let leaks = scanner.scan("log", &surrounded(&encode(part)));
                assert!(!leaks.is_empty(), "a part of {shape:?} as {name} was not found");
            }
        }
    }
}

/// From several starts the shortest part of at least eight bytes that ends between characters.
fn parts(text: &str) -> Vec<&str> {
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).take_while(|at| at + WINDOW <= text.len()).collect();
    starts
        .iter()
        .step_by((starts.len() / 5).max(1))
        .filter_map(|start| {
            let end = (start + WINDOW..=text.len()).find(|end| text.is_char_boundary(*end))?;
            Some(&text[*start..end])
        })
        .collect()
}

#[test]
fn innocent_outputs_are_not_found() {
    let canaries: Vec<Canary> = SHAPES.iter().map(|shape| Canary::shaped(*shape, 9)).collect();
    let scanner = Scanner::new(&canaries);
    let others: Vec<Canary> = SHAPES.iter().map(|shape| Canary::shaped(*shape, 10)).collect();
    for other in &others {
        for (name, encode) in ENCODINGS {
            let leaks = scanner.scan("log", &surrounded(&encode(&other.value)));
            assert!(leaks.is_empty(), "{} as {name} was taken for a canary: {leaks:?}", other.name);
        }
    }
}

#[test]
fn seven_bytes_and_public_prefixes_are_no_leak() {
    let canary = Canary::after("secret", "dinie_cs_live_", "dinie_cs_live_Zq81hT0bWvX2");
    let scanner = Scanner::new([&canary]);
    assert!(scanner.scan("log", b"the pattern is dinie_cs_live_").is_empty());
    assert!(scanner.scan("log", b"Zq81hT0 and 1hT0bWv").is_empty());
    assert_eq!(scanner.scan("log", b"it was Zq81hT0b")[0].canary, "secret");
    let pem = Canary::shaped(Shape::Pem, 3);
    assert!(Scanner::new([&pem]).scan("log", b"-----BEGIN PRIVATE KEY-----\n").is_empty());
}

#[test]
fn megabytes_are_scanned_for_huge_canaries() {
    let huge = Canary::shaped(Shape::Huge, 4);
    let scanner = Scanner::new([&huge]);
    let mut noise = Canary::shaped(Shape::Huge, 5).value.repeat(8).into_bytes();
    assert!(scanner.scan("disk", &noise).is_empty());
    noise.extend_from_slice(&huge.value.as_bytes()[60_000..60_008]);
    assert_eq!(scanner.scan("disk", &noise).len(), 1);
}
