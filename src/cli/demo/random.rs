//! Values that look like a provider's: letters and digits by chance.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// So many letters and digits. `None` if the system has no randomness.
pub(super) fn letters(count: usize) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(vec![0u8; count]);
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    // A byte has four letters and a bit: the first few come a little more often, which doesn't matter here.
    let letter = |byte: &u8| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]);
    Some(Zeroizing::new(bytes.iter().map(letter).collect()))
}
