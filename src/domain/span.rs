//! Lengths of time as policies write them: `30s`, `15m`, `24h`, `90d`; never months, whose length varies.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A length of time in whole seconds, between one second and [`Span::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(u64);

/// Why a text is no [`Span`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    #[error("a duration is a whole number and a unit: `30s`, `15m`, `24h` or `90d`")]
    Shape,
    #[error("a duration is at least one second")]
    Zero,
    #[error("a duration is at most 3650 days")]
    TooLong,
}

impl Span {
    /// Ten years: longer than any key should live, short enough that sums never overflow.
    pub const MAX: Span = Span(3650 * 86_400);

    /// No time at all: an overlap that can't be. Policies write it where it is allowed, and nowhere else.
    pub const ZERO: Span = Span(0);

    /// Brought into the bounds: one computed from others (a tenth of five seconds) must still be readable once written.
    pub const fn from_secs(seconds: u64) -> Span {
        match seconds {
            0 => Span(1),
            seconds if seconds > Self::MAX.0 => Self::MAX,
            seconds => Span(seconds),
        }
    }

    pub const fn as_secs(self) -> u64 {
        self.0
    }

    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit = match text.as_bytes().last() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3_600,
            Some(b'd') => 86_400,
            _ => return Err(SpanError::Shape),
        };
        let digits = &text[..text.len() - 1];
        // `u64::from_str` would take a sign: a duration has none.
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SpanError::Shape);
        }
        let count: u64 = digits.parse().map_err(|_| SpanError::TooLong)?;
        let seconds = count.checked_mul(unit).ok_or(SpanError::TooLong)?;
        match seconds {
            0 => Err(SpanError::Zero),
            seconds if seconds > Self::MAX.0 => Err(SpanError::TooLong),
            seconds => Ok(Span(seconds)),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == Span::ZERO.to_string() { Ok(Span::ZERO) } else { text.parse() }
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, letter) in [(86_400, 'd'), (3_600, 'h'), (60, 'm')] {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{letter}", self.0 / unit);
            }
        }
        write!(f, "{}s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_four_units_and_writes_the_largest_that_fits() {
        for (text, seconds) in [("30s", 30), ("15m", 900), ("24h", 86_400), ("90d", 7_776_000)] {
            assert_eq!(text.parse::<Span>().unwrap().as_secs(), seconds);
        }
        assert_eq!(Span::from_secs(86_400).to_string(), "1d");
        assert_eq!(Span::from_secs(90).to_string(), "90s");
        for seconds in [0, 1, u64::MAX] {
            let span = Span::from_secs(seconds);
            assert_eq!(span.to_string().parse(), Ok(span));
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "s", "3", "3M", "-3s", "+3s", "1.5h", "3 s", "٣s", "3mo"] {
            assert_eq!(text.parse::<Span>(), Err(SpanError::Shape), "{text}");
        }
        assert_eq!("0s".parse::<Span>(), Err(SpanError::Zero));
        assert_eq!("3651d".parse::<Span>(), Err(SpanError::TooLong));
        assert_eq!("99999999999999999999d".parse::<Span>(), Err(SpanError::TooLong));
    }
}
