//! Every way a secret may come out, for the scanner's positive controls.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::scanner::WINDOW;

/// Every way a secret may be written; a new encoding is one more row.
pub(crate) type Encoding = (&'static str, fn(&str) -> Vec<u8>);
pub(crate) const ENCODINGS: &[Encoding] = &[
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
pub(crate) fn surrounded(encoded: &[u8]) -> Vec<u8> {
    [b"{\"level\":\"TRACE\",\"n\":17,\"message\":\"".as_slice(), encoded, b"\"} then more"].concat()
}

/// From several starts the shortest part of at least eight bytes that ends between characters.
pub(crate) fn parts(text: &str) -> Vec<&str> {
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
