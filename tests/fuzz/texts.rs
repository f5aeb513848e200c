//! Names, spans of time, reasons: each text is taken as it stands or refused, and comes back as it was written.

use std::str::FromStr;
use std::time::Duration;

use keywright::domain::ids::{FieldName, InstanceName, KeyId, Name, VersionId};
use keywright::domain::incident::parse_within;
use keywright::domain::reason::{REASON_CHARS_MAX, Reason};
use keywright::domain::span::Span;
use keywright::runtime::audit::Leading;

use crate::harness::{Judged, Target, Verdict, broken, tells};

/// What a text is, and whether it is one.
type Rule = (&'static str, fn(&str) -> bool);

/// The rules as the contract has them, not as the code does.
const RULES: [Rule; 5] = [
    ("a name", is_label),
    ("a version", is_label),
    ("an instance", |text| {
        (1..=128).contains(&text.len()) && text.chars().all(|c| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '-'))
    }),
    ("a field", |text| {
        let first = text.chars().next().is_some_and(|c| c.is_ascii_lowercase());
        first && text.len() < 64 && text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'))
    }),
    ("a key's id", |text| (1..=256).contains(&text.len()) && text.chars().all(|c| matches!(c, '!'..='~'))),
];

/// `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`
fn is_label(text: &str) -> bool {
    let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9');
    text.len() < 64 && text.starts_with(plain) && text.ends_with(plain) && text.chars().all(|c| plain(c) || c == '-')
}

/// What a parser makes of a text: the text that it writes back, or what it says.
type Read = fn(&str) -> Result<String, String>;

fn read<T: FromStr<Err: ToString> + ToString>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|name| name.to_string()).map_err(|error| error.to_string())
}

const READERS: [Read; 5] = [read::<Name>, read::<VersionId>, read::<InstanceName>, read::<FieldName>, read::<KeyId>];

fn names() -> Target {
    let long = ["a".repeat(63), "a".repeat(64), "A.b_".repeat(32), "~!".repeat(128), "f".repeat(63)];
    let short = ["a", "0", "dinie-production", "v2-4f0c9a1b7d3e", "payments-api", "pod-1.ns_A", "client_secret", "dinie_ci_test_1"];
    let corpus = short.iter().map(|text| text.as_bytes().to_vec()).chain(long.iter().map(|text| text.as_bytes().to_vec()));
    let words = ["-", ".", "..", "/", "//", "%2f", "%00", "_", "A", "é", "\u{0}", "\n", " ", "\u{ff41}", "\u{130}", "ı", "\u{200b}", "~"];
    Target::new("names", corpus.collect(), &[&words])
}

fn judge_names(readers: [Read; 5], input: &[u8]) -> Judged {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Verdict::Refused) };
    let mut verdict = Verdict::Refused;
    for (reader, (what, rule)) in readers.iter().zip(RULES) {
        match (reader(text), rule(text)) {
            (Ok(_), false) => return broken(format!("taken as {what}, which the rule doesn't allow")),
            (Err(_), true) => return broken(format!("refused as {what}, which the rule allows")),
            (Ok(written), true) if written != text => return broken(format!("{what} was changed on its way")),
            (Ok(_), true) => verdict = Verdict::Accepted,
            (Err(said), false) if text.len() < 1_024 && tells(&said, text) => return broken(format!("what is said of {what} repeats it")),
            (Err(_), false) => {}
        }
    }
    Ok(verdict)
}

#[test]
fn fuzz_names() {
    names().run(|input| judge_names(READERS, input));
}

#[test]
fn fuzz_names_notices_faults() {
    let with = |at: usize, reader: Read| {
        let mut readers = READERS;
        readers[at] = reader;
        readers
    };
    let lenient: Read = |text| read::<Name>(&text.to_ascii_lowercase());
    names().notices("upper case is taken", |input| judge_names(with(0, lenient), input));
    names().notices("white space is cut off", |input| judge_names(with(1, |text| read::<VersionId>(text.trim())), input));
    names().notices("a name may be longer by one", |input| {
        judge_names(with(0, |text| if text.len() == 64 { Ok(text.to_owned()) } else { read::<Name>(text) }), input)
    });
    names()
        .notices("the text is told", |input| judge_names(with(3, |text| read::<FieldName>(text).map_err(|_| format!("no {text}"))), input));
}

fn texts() -> Target {
    let corpus = ["30s", "15m", "24h", "90d", "0s", "3650d", "86400s", "INC-7: calls fail", "caf%C3%A9 100%25", "a%20b", "  padded  "];
    let leading = "digest abc; term 12 of 018f2b6e-0000-7000-8000-0000000000aa";
    let corpus = corpus.iter().copied().chain([leading, "99d", "%E2%80%AE"]).map(|text| text.as_bytes().to_vec()).collect();
    let words =
        ["s", "m", "h", "d", "+", "-", ".5", "٣", "%", "%0A", "%00", "%C3", "%FF", "%25", "é", "\u{202e}", "term ", " of ", "M", "w"];
    Target::new("texts", corpus, &[&words])
}

/// What is counted in a span, read by a rule of our own.
fn seconds(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    let trimmed = digits.trim_start_matches('0');
    if !plain || trimmed.len() > 12 {
        return None;
    }
    Some(trimmed.parse::<u64>().unwrap_or(0) * unit)
}

/// The text that is percent-encoded here, if all of it is.
fn unescaped(header: &[u8]) -> Option<String> {
    let mut parts = header.split(|byte| *byte == b'%');
    let mut bytes = parts.next()?.to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.extend(hex::decode(digits).ok()?);
        bytes.extend_from_slice(rest);
    }
    String::from_utf8(bytes).ok()
}

fn judge_texts(span: impl Fn(&str) -> Option<Span>, reason: impl Fn(&[u8]) -> Option<Reason>, input: &[u8]) -> Judged {
    let mut verdict = Verdict::Refused;
    if let Some(reason) = reason(input) {
        let text = reason.as_str();
        let fits = (1..=REASON_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control) && text.trim() == text;
        if !fits || unescaped(input).is_none_or(|plain| plain.trim() != text) {
            return broken("a reason is empty, too long, padded, of more than one line, or not what stands there");
        }
        let encoded = reason.encoded();
        if !encoded.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || Reason::decode(encoded.as_bytes()) != Ok(reason) {
            return broken("a reason doesn't come back from its header");
        }
        verdict = Verdict::Accepted;
    }
    let Ok(text) = std::str::from_utf8(input) else { return Ok(verdict) };
    let expected = seconds(text);
    let read = span(text);
    if read.map(Span::as_secs) != expected.filter(|seconds| (1..=3650 * 86_400).contains(seconds)) {
        return broken(format!("a span is read as {read:?}"));
    }
    if read.is_some_and(|span| span.to_string().parse() != Ok(span)) {
        return broken("a span doesn't come back");
    }
    if parse_within(text) != expected.filter(|seconds| *seconds <= 86_400).map(Duration::from_secs) {
        return broken("the time within which holders are waited for is read wrongly");
    }
    if let Ok(leading) = text.parse::<Leading>()
        && leading.to_string().parse() != Ok(leading)
    {
        return broken("who led last doesn't come back");
    }
    Ok(if read.is_some() { Verdict::Accepted } else { verdict })
}

#[test]
fn fuzz_texts() {
    texts().run(|input| judge_texts(|text| text.parse().ok(), |header| Reason::decode(header).ok(), input));
}

#[test]
fn fuzz_texts_notices_faults() {
    let (span, reason) = (|text: &str| text.parse().ok(), |header: &[u8]| Reason::decode(header).ok());
    texts().notices("a sign is taken", |input| judge_texts(|text| text.trim_start_matches('+').parse().ok(), reason, input));
    texts().notices("escapes that are broken are passed over", |input| {
        let lenient = |header: &[u8]| {
            let is_escape = |at: usize| header.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
            let whole = (0..header.len()).filter(|at| header[*at] != b'%' || is_escape(*at)).map(|at| header[at]);
            Reason::decode(&whole.collect::<Vec<u8>>()).ok()
        };
        judge_texts(span, lenient, input)
    });
}
