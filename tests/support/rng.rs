//! A seeded generator (splitmix64), so that a failing run can be repeated from the seed that it printed.

#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed nobody has used before; `KEYWRIGHT_TEST_SEED` repeats an old one.
    pub(crate) fn fresh_seed() -> u64 {
        let seed = match std::env::var("KEYWRIGHT_TEST_SEED") {
            Ok(text) => text.parse().expect("KEYWRIGHT_TEST_SEED is a whole number"),
            Err(_) => uuid::Uuid::new_v4().as_u64_pair().0,
        };
        println!("seed {seed} (repeat with KEYWRIGHT_TEST_SEED={seed})");
        seed
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: u8) -> bool {
        self.below(100) < usize::from(percent)
    }

    pub(crate) fn alnum(&mut self, length: usize) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..length).map(|_| char::from(ALPHABET[self.below(ALPHABET.len())])).collect()
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
