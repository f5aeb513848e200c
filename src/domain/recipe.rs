//! How a value is made that we choose ourselves: from how much chance, and how it is written.

/// The least chance in a value, in bits: nobody guesses one of 2^128.
pub const ENTROPY_MIN_BITS: u32 = 128;
/// How long a value may be made: random bytes, or characters.
pub const LENGTH_MAX: u32 = 1_024;

/// What a field of a generated credential is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Stands before the random part, and is no part of the chance.
    pub prefix: String,
    /// Random bytes with an encoding, characters with an alphabet.
    pub length: u32,
    pub writing: Writing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writing {
    Encoded(Encoding),
    /// One of these characters at each place: printable ASCII, each once.
    Alphabet(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 4648, section 4, with padding.
    Base64,
    /// RFC 4648, section 5, without padding.
    Base64url,
    /// Lower case.
    Hex,
}

impl Recipe {
    /// How much chance is in a value, rounded down.
    pub fn entropy_bits(&self) -> u32 {
        match &self.writing {
            Writing::Encoded(_) => self.length.saturating_mul(8),
            Writing::Alphabet(characters) => {
                let each = (characters.len().max(1) as f64).log2();
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
                let all = (each * f64::from(self.length)) as u32;
                all
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_counted_from_what_is_drawn_alone() {
        let encoded = |length| Recipe { prefix: "whsec_".to_owned(), length, writing: Writing::Encoded(Encoding::Hex) };
        assert_eq!((encoded(16).entropy_bits(), encoded(15).entropy_bits()), (128, 120));
        let drawn = |length, alphabet: &[u8]| Recipe { prefix: String::new(), length, writing: Writing::Alphabet(alphabet.to_vec()) };
        assert_eq!(drawn(128, b"01").entropy_bits(), 128);
        assert_eq!(drawn(38, b"0123456789").entropy_bits(), 126);
        assert_eq!(drawn(39, b"0123456789").entropy_bits(), 129);
        assert_eq!(drawn(1_024, b"0").entropy_bits(), 0);
    }
}
