//! What becomes of a real input: bytes, words, numbers, lines and members are changed, doubled, moved, nested and cut off.

use proptest::arbitrary::any;
use proptest::collection::vec;
use proptest::strategy::Strategy;

/// The longest input, in bytes. The limits of the parsers themselves are higher, and have tests of their own.
const INPUT_MAX: usize = 64 * 1024;
const CHANGES_MAX: usize = 5;
const KINDS: u8 = 18;

/// Which real input, and what is done to it, one after the other.
pub(crate) type Recipe = (u32, Vec<Change>);

/// A kind, and three numbers that say where, what and how much.
pub(crate) type Change = (u8, u32, u32, u16);

/// What YAML makes hard: anchors, aliases, merges, tags, directives, indicators, all that ends a line or looks like it, and
/// words that are other types than they look.
pub(crate) const YAML: &[&str] = &[
    "&a ",
    "*a",
    "<<: *a\n",
    "&a [*a, *a]",
    "!!binary ",
    "!x ",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "%TAG ! x\n",
    "? ",
    ": ",
    "- ",
    "|\n",
    ">-\n",
    "|9\n",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"",
    "'",
    "\\x00",
    "\\u0000",
    "\"\\uD800\"",
    "\t",
    "\r",
    "\r\n",
    "\n",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "\u{0}",
    "\u{1b}[31m",
    "\u{202e}",
    "#",
    " #",
    "null",
    "~",
    "true",
    "no",
    "yes",
    ".inf",
    "0x1f",
    "0o17",
    "1_000",
    "1e3",
    "2001-01-01",
    "é",
    "日本",
    "\u{1f980}",
    "spec: ",
    "metadata: ",
    "name: ",
    "x: 1\n",
    "apiVersion: keywright.dev/v1\n",
];

/// What JSON makes hard.
pub(crate) const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\ud83e\\udd80",
    "null",
    "true",
    "false",
    "{}",
    "[]",
    "\"\"",
    "0",
    "-1",
    "-0",
    "1e309",
    "1.5",
    "NaN",
    "\"a\":\"b\",",
    "\"a\":1,",
    "\"\":{},",
    " ",
    "\n",
    "\t",
    "\u{feff}",
    "\u{0}",
    "/*x*/",
    "//x\n",
    "é",
    "\u{1f980}",
];

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "00",
    "007",
    "+1",
    "255",
    "256",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999",
    "1.5",
    "1e9",
    "1e309",
    "-1e309",
    "1e-400",
    "NaN",
    "inf",
    "0x10",
    "1_0",
    "٣",
    "253402300800",
    "-62135596801",
    "99999999999999",
];

const EDGES: &[u8] = b"\0\x01\x7f\x80\xff\xc0\xe2 \t\r\n{}[]()\"'&*!|>%@`:,#-/\\=?;.~+$<^aAzZ09_";
const NOT_UTF8: &[&[u8]] = &[b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f", b"\xc0\xaf", b"\xf8\x88\x80\x80\x80"];
const BRACKETS: [(&[u8], &[u8]); 6] = [(b"[", b"]"), (b"{", b"}"), (b"{\"a\":", b"}"), (b"- ", b""), (b"{a: ", b"}"), (b"\"", b"\"")];
const SEPARATORS: &[u8] = b"\n,&;/ .:=";

/// Few changes and often none: what is accepted has to come back as it was, too.
pub(crate) fn recipes() -> impl Strategy<Value = Recipe> {
    (any::<u32>(), vec((0..KINDS, any::<u32>(), any::<u32>(), any::<u16>()), 0..=CHANGES_MAX))
}

pub(crate) fn apply((which, changes): &Recipe, corpus: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[*which as usize % corpus.len()].clone();
    for change in changes {
        changed(&mut bytes, *change, corpus, words);
        bytes.truncate(INPUT_MAX);
    }
    bytes
}

fn pick<'a, T: ?Sized>(from: &[&'a T], number: u32) -> &'a T {
    from[number as usize % from.len()]
}

fn changed(bytes: &mut Vec<u8>, (kind, at, with, size): Change, corpus: &[Vec<u8>], words: &[Vec<u8>]) {
    let place = at as usize % (bytes.len() + 1);
    let other = &corpus[with as usize % corpus.len()];
    let word = || words.get(with as usize % words.len().max(1)).cloned().unwrap_or_default();
    let few = usize::from(size % 16) + 1;
    match kind {
        0 => on_byte(bytes, place, |byte| *byte ^= 1 << (with % 8)),
        1 => on_byte(bytes, place, |byte| *byte = EDGES[with as usize % EDGES.len()]),
        2 => insert(bytes, place, &[EDGES[with as usize % EDGES.len()]].repeat(few)),
        3 => drop(bytes.drain(place..(place + few).min(bytes.len()))),
        4 => bytes.truncate(place),
        5 | 6 => insert(bytes, place, &word()),
        7 | 8 => on_token(bytes, place, |_| word()),
        9 => {
            let token = token_at(other, size.into()).map(|range| other[range].to_vec()).unwrap_or_default();
            on_token(bytes, place, |_| token);
        }
        10 => on_token(bytes, place, |_| pick(NUMBERS, with).into()),
        11 => on_token(bytes, place, |token| {
            token.iter().map(|byte| if with % 2 == 0 { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() }).collect()
        }),
        12 => doubled(bytes, place, with, size),
        13 => moved(bytes, place, with, size),
        14 => {
            let (open, close) = BRACKETS[with as usize % BRACKETS.len()];
            let depth = [1, 2, 15, 16, 17, 24, 25, 64, 65, 130, 3_000][usize::from(size) % 11];
            let end = token_at(bytes, place).map_or(place, |range| range.end).max(place);
            insert(bytes, end, &close.repeat(depth));
            insert(bytes, place, &open.repeat(depth));
        }
        15 => {
            let from = usize::from(size) % (other.len() + 1);
            bytes.truncate(place);
            bytes.extend_from_slice(&other[from..]);
        }
        16 => insert(bytes, place, NOT_UTF8[with as usize % NOT_UTF8.len()]),
        _ => {
            let end = (place + few * 4).min(bytes.len());
            let part = bytes[place..end].repeat([1, 2, 10, 100, 1_000][with as usize % 5]);
            insert(bytes, place, &part);
        }
    }
}

fn on_byte(bytes: &mut [u8], place: usize, change: impl FnOnce(&mut u8)) {
    let last = bytes.len().saturating_sub(1);
    if let Some(byte) = bytes.get_mut(place.min(last)) {
        change(byte);
    }
}

fn insert(bytes: &mut Vec<u8>, place: usize, part: &[u8]) {
    bytes.splice(place..place, part.iter().copied());
}

fn on_token(bytes: &mut Vec<u8>, place: usize, change: impl FnOnce(&[u8]) -> Vec<u8>) {
    let range = token_at(bytes, place).unwrap_or(place..place);
    let token = change(&bytes[range.clone()]);
    bytes.splice(range, token);
}

/// The word that stands here, or the next one.
fn token_at(bytes: &[u8], place: usize) -> Option<std::ops::Range<usize>> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+');
    let place = place % (bytes.len() + 1);
    let mut start = place + bytes[place..].iter().position(is_word)?;
    while start > 0 && is_word(&bytes[start - 1]) {
        start -= 1;
    }
    let length = bytes[start..].iter().position(|byte| !is_word(byte)).unwrap_or(bytes.len() - start);
    Some(start..start + length)
}

/// The piece between two separators (a line, a member, a segment) that holds this place, with the separator behind it.
fn piece(bytes: &[u8], place: usize, separator: u8) -> std::ops::Range<usize> {
    let start = bytes[..place].iter().rposition(|byte| *byte == separator).map_or(0, |at| at + 1);
    let end = bytes[place..].iter().position(|byte| *byte == separator).map_or(bytes.len(), |at| place + at + 1);
    start..end
}

fn separator(with: u32) -> u8 {
    SEPARATORS[with as usize % SEPARATORS.len()]
}

/// A line, a member or a segment stands twice.
fn doubled(bytes: &mut Vec<u8>, place: usize, with: u32, size: u16) {
    let range = piece(bytes, place, separator(with));
    let mut copy = bytes[range.clone()].to_vec();
    // The last one has no separator behind it.
    if copy.last() != Some(&separator(with)) {
        copy.insert(0, separator(with));
    }
    let times = if size.is_multiple_of(8) { usize::from(size % 100) } else { 1 };
    insert(bytes, range.end, &copy.repeat(times));
}

/// A line, a member or a segment goes elsewhere, or away.
fn moved(bytes: &mut Vec<u8>, place: usize, with: u32, size: u16) {
    let range = piece(bytes, place, separator(with));
    let part: Vec<u8> = bytes.drain(range).collect();
    if !size.is_multiple_of(3) {
        let to = piece(bytes, usize::from(size) % (bytes.len() + 1), separator(with)).start;
        insert(bytes, to, &part);
    }
}
