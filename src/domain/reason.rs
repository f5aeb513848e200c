//! Why a person does what the audit trail keeps: a short text, parsed once, and its form in a header.

use std::fmt;
use std::str::FromStr;

/// The longest reason, in characters.
pub const REASON_CHARS_MAX: usize = 500;

/// What a person gave as a reason: 1 to 500 characters of one line. It stands in the audit trail as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reason(String);

/// Why a text is no reason. The text itself isn't repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReasonError {
    #[error("a reason has 1 to {REASON_CHARS_MAX} characters")]
    Length,
    #[error("a reason is one line of plain text, without control characters")]
    Control,
    #[error("a reason is printable ASCII in a header, and all else is percent-encoded UTF-8 (`%` is `%25`)")]
    Encoding,
}

impl Reason {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in a header: ASCII, with all else percent-encoded.
    pub fn encoded(&self) -> String {
        let mut out = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            match byte {
                b'%' => out.push_str("%25"),
                b' '..=b'~' => out.push(char::from(byte)),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        out
    }

    /// Reads the form in a header.
    ///
    /// # Errors
    /// [`ReasonError`].
    pub fn decode(header: &[u8]) -> Result<Reason, ReasonError> {
        let mut bytes = Vec::with_capacity(header.len());
        let mut rest = header;
        while let Some((first, after)) = rest.split_first() {
            match first {
                b'%' => {
                    let (digits, after) = after.split_first_chunk::<2>().ok_or(ReasonError::Encoding)?;
                    bytes.push(hex_value(digits[0]).zip(hex_value(digits[1])).map(|(a, b)| a * 16 + b).ok_or(ReasonError::Encoding)?);
                    rest = after;
                }
                b' '..=b'~' => {
                    bytes.push(*first);
                    rest = after;
                }
                _ => return Err(ReasonError::Encoding),
            }
        }
        String::from_utf8(bytes).map_err(|_| ReasonError::Encoding)?.parse()
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

impl FromStr for Reason {
    type Err = ReasonError;

    fn from_str(text: &str) -> Result<Reason, ReasonError> {
        if text.chars().any(is_control) {
            return Err(ReasonError::Control);
        }
        let text = text.trim();
        if text.is_empty() || text.chars().count() > REASON_CHARS_MAX {
            return Err(ReasonError::Length);
        }
        Ok(Reason(text.to_owned()))
    }
}

/// Also what ends a line or turns the direction of the text: a trail must read as it was written.
fn is_control(char: char) -> bool {
    char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reason_is_a_short_line() {
        assert_eq!(" INC-7: 50% of calls fail ".parse::<Reason>().unwrap().as_str(), "INC-7: 50% of calls fail");
        assert!("ü".repeat(REASON_CHARS_MAX).parse::<Reason>().is_ok());
        for text in ["", "  ", &"x".repeat(REASON_CHARS_MAX + 1)] {
            assert_eq!(text.parse::<Reason>(), Err(ReasonError::Length));
        }
        for text in ["a\nb", "a\r", "\ta", "\u{1b}[31m", "a\u{85}b", "a\u{2028}b", "a\u{202e}b", "\0"] {
            assert_eq!(text.parse::<Reason>(), Err(ReasonError::Control), "{text:?}");
        }
    }

    #[test]
    fn a_header_is_decoded_strictly() {
        assert_eq!(Reason::decode(b"caf%C3%A9 100%25").unwrap().as_str(), "café 100%");
        for bad in ["50% off", "%", "%4", "%zz", "%+1", "%FF", "caf\u{e9}", "a\tb"] {
            assert_eq!(Reason::decode(bad.as_bytes()), Err(ReasonError::Encoding), "{bad}");
        }
        assert_eq!(Reason::decode(b"a%0Ab"), Err(ReasonError::Control));
        assert_eq!(Reason::decode(b"%20"), Err(ReasonError::Length));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_ascii_and_comes_back(text in "\\PC{1,60}") {
            prop_assume!(text.parse::<Reason>().is_ok());
            let reason: Reason = text.parse().unwrap();
            let encoded = reason.encoded();
            prop_assert!(encoded.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(Reason::decode(encoded.as_bytes()), Ok(reason));
        }
    }
}
