//! Finds secrets in outputs, whole or in part, in any encoding that a library may have put them into.
//!
//! Each encoding is undone over the whole output, then every 8-byte window of it is looked up: so a leaked part
//! is found like a leaked whole, and an encoding costs one pass, however many canaries there are.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::canaries::Canary;

pub(crate) const WINDOW: usize = 8;
const FILTER_BITS: usize = 1 << 22;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leak {
    pub(crate) canary: String,
    pub(crate) encoding: &'static str,
    pub(crate) output: String,
    /// Where in the decoded output; near the place in the output itself, never its content.
    pub(crate) offset: usize,
}

pub(crate) struct Scanner {
    windows: HashMap<u64, usize, BuildHasherDefault<Spread>>,
    // Nearly every window misses: a bit per hash answers that without a look into the map.
    filter: Vec<u64>,
    names: Vec<String>,
}

impl Scanner {
    pub(crate) fn new<'a>(canaries: impl IntoIterator<Item = &'a Canary>) -> Self {
        let mut scanner = Self { windows: HashMap::default(), filter: vec![0; FILTER_BITS / 64], names: Vec::new() };
        for canary in canaries {
            let index = scanner.names.len();
            scanner.names.push(canary.name.clone());
            for core in &canary.cores {
                let bytes = &canary.value.as_bytes()[core.clone()];
                assert!(bytes.len() >= WINDOW, "canary `{}` is too short to be looked for", canary.name);
                for window in bytes.windows(WINDOW) {
                    let word = word_of(window);
                    scanner.windows.entry(word).or_insert(index);
                    let bit = slot(word);
                    scanner.filter[bit / 64] |= 1 << (bit % 64);
                }
            }
        }
        scanner
    }

    /// All leaks, at most one per canary, so that a report stays readable.
    pub(crate) fn scan(&self, output: &str, bytes: &[u8]) -> Vec<Leak> {
        let mut leaks = Vec::new();
        // A log line escapes what it is given, which may have been escaped before: what was encoded is looked for behind each.
        let mut layer = bytes.to_vec();
        for encoding in ["raw", "escaped", "escaped twice", "escaped thrice", "escaped four times"] {
            self.layer(output, encoding, &layer, &mut leaks);
            // What has nothing to undo was looked through just now.
            let escaped: Vec<&[u8]> = layer.split(|byte| *byte == b'\n').filter(|line| line.contains(&b'\\')).collect();
            let unescaped = unescape(&escaped.join(&b'\n'));
            if unescaped.is_empty() || unescaped == layer {
                break;
            }
            layer = unescaped;
        }
        leaks
    }

    fn layer(&self, output: &str, encoding: &'static str, bytes: &[u8], leaks: &mut Vec<Leak>) {
        self.pass(output, encoding, bytes, leaks);
        if bytes.contains(&b'%') {
            self.pass(output, "percent", &unpercent(bytes), leaks);
        }
        for phase in 0..2 {
            self.pass(output, "hex", &unhex(bytes, phase), leaks);
            self.pass(output, "utf-16le", &unutf16(bytes, phase, u16::from_le_bytes), leaks);
            self.pass(output, "utf-16be", &unutf16(bytes, phase, u16::from_be_bytes), leaks);
        }
        for phase in 0..4 {
            self.pass(output, "base64", &unbase64(bytes, phase), leaks);
        }
        self.pass(output, "decimal", &undecimal(bytes), leaks);
    }

    fn pass(&self, output: &str, encoding: &'static str, bytes: &[u8], leaks: &mut Vec<Leak>) {
        let mut word = 0u64;
        for (at, byte) in bytes.iter().enumerate() {
            word = (word << 8) | u64::from(*byte);
            if at + 1 < WINDOW {
                continue;
            }
            let bit = slot(word);
            if self.filter[bit / 64] & (1 << (bit % 64)) == 0 {
                continue;
            }
            let Some(index) = self.windows.get(&word) else {
                continue;
            };
            let canary = &self.names[*index];
            if !leaks.iter().any(|known| known.canary == *canary) {
                leaks.push(Leak { canary: canary.clone(), encoding, output: output.to_owned(), offset: at + 1 - WINDOW });
            }
        }
    }
}

/// Canaries are random already, and nobody attacks a test: a careful hash of millions of windows is most of its time.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

fn word_of(window: &[u8]) -> u64 {
    window.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte))
}

fn slot(word: u64) -> usize {
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 42) as usize % FILTER_BITS
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

fn unpercent(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = (bytes.get(at + 1).copied().and_then(hex_digit), bytes.get(at + 2).copied().and_then(hex_digit));
        match (bytes[at], pair) {
            (b'%', (Some(high), Some(low))) => {
                out.push(high << 4 | low);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// JSON's escapes and those of Rust's `Debug`: `\n`, `\"`, `\u0041`, surrogate pairs, `\u{41}`, `\x41`, `\0`.
fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'\\'
            && let Some((decoded, used)) = one_escape(&bytes[at + 1..])
        {
            out.extend_from_slice(&decoded);
            at += 1 + used;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

/// The bytes of one escape and how many characters after the backslash it took.
fn one_escape(rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let single = match rest.first()? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'f' => 12,
        b'0' => 0,
        byte @ (b'"' | b'\\' | b'/' | b'\'') => *byte,
        b'x' => return Some((vec![hex_number(rest.get(1..3)?)? as u8], 3)),
        b'u' if rest.get(1) == Some(&b'{') => {
            let end = rest.iter().take(9).position(|byte| *byte == b'}')?;
            let character = char::from_u32(hex_number(rest.get(2..end)?)?)?;
            return Some((character.to_string().into_bytes(), end + 1));
        }
        b'u' => return unicode_escape(rest),
        _ => return None,
    };
    Some((vec![single], 1))
}

fn unicode_escape(rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let first = hex_number(rest.get(1..5)?)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character.to_string().into_bytes(), 5));
    }
    let (b"\\u", second) = (rest.get(5..7)?, hex_number(rest.get(7..11)?)?) else {
        return None;
    };
    let pair = char::decode_utf16([first as u16, second as u16]).next()?.ok()?;
    Some((pair.to_string().into_bytes(), 11))
}

fn hex_number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |number, digit| Some(number << 4 | u32::from(hex_digit(*digit)?)))
}

/// Each run of hex digits as bytes, from an even or an odd start; `:` and one space between pairs are passed over.
fn unhex(bytes: &[u8], phase: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / 2);
    let mut digits = 0;
    let mut high = 0;
    let mut in_run = false;
    for byte in bytes {
        match hex_digit(*byte) {
            Some(digit) => {
                in_run = true;
                if digits >= phase {
                    if (digits - phase).is_multiple_of(2) {
                        high = digit;
                    } else {
                        out.push(high << 4 | digit);
                    }
                }
                digits += 1;
            }
            None if in_run && matches!(byte, b':' | b' ') => {}
            None => {
                // A separator that no canary contains, so that two runs are never read as one.
                if in_run {
                    out.push(0xff);
                }
                digits = 0;
                in_run = false;
            }
        }
    }
    out
}

/// Both alphabets at once; `phase` says how many characters of a run stand before the first whole group.
fn unbase64(bytes: &[u8], phase: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut position = 0;
    let mut bits = 0u32;
    for byte in bytes {
        let Some(value) = base64_digit(*byte) else {
            // What a run ends with is at most two bytes of an unfinished group.
            let left = position_in_group(position, phase);
            if left >= 2 {
                let filled = bits << (6 * (4 - left) as u32);
                out.extend_from_slice(&filled.to_be_bytes()[1..left]);
            }
            if position > 0 {
                out.push(0xff);
            }
            (position, bits) = (0, 0);
            continue;
        };
        if position >= phase {
            bits = (bits << 6 | u32::from(value)) & 0x00ff_ffff;
            if position_in_group(position + 1, phase) == 0 {
                out.extend_from_slice(&bits.to_be_bytes()[1..]);
                bits = 0;
            }
        }
        position += 1;
    }
    let left = position_in_group(position, phase);
    if left >= 2 {
        let filled = bits << (6 * (4 - left) as u32);
        out.extend_from_slice(&filled.to_be_bytes()[1..left]);
    }
    out
}

fn position_in_group(position: usize, phase: usize) -> usize {
    position.saturating_sub(phase) % 4
}

fn base64_digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

fn unutf16(bytes: &[u8], phase: usize, unit: fn([u8; 2]) -> u16) -> Vec<u8> {
    let units = bytes.get(phase..).unwrap_or_default().chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect();
    text.into_bytes()
}

/// Lists of numbers under 256 with commas or spaces between, as `{:?}` of bytes prints them.
fn undecimal(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            if !matches!(bytes[at], b',' | b' ' | b'\n') {
                out.push(0xff);
            }
            at += 1;
            continue;
        }
        let mut number = 0u32;
        while at < bytes.len() && bytes[at].is_ascii_digit() {
            number = number.saturating_mul(10).saturating_add(u32::from(bytes[at] - b'0'));
            at += 1;
        }
        out.push(u8::try_from(number).unwrap_or(0xff));
    }
    out
}
