//! Secrets that are known to the scanner: the eight shapes of the leak test, each unique by its seed.

use std::ops::Range;

use super::rng::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Short,
    Pem,
    Quotes,
    Percent,
    Unicode,
    Nul,
    Huge,
    JsonInJson,
}

pub(crate) const SHAPES: [Shape; 8] =
    [Shape::Short, Shape::Pem, Shape::Quotes, Shape::Percent, Shape::Unicode, Shape::Nul, Shape::Huge, Shape::JsonInJson];

/// One secret and where in it the secret really is: `BEGIN PRIVATE KEY` or `dinie_cs_live_` may be printed.
#[derive(Debug, Clone)]
pub(crate) struct Canary {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) cores: Vec<Range<usize>>,
}

impl Canary {
    /// A value that is secret from its first byte to its last.
    pub(crate) fn whole(name: &str, value: &str) -> Self {
        Self::after(name, "", value)
    }

    /// A value whose `prefix` is public: a provider's marker.
    pub(crate) fn after(name: &str, prefix: &str, value: &str) -> Self {
        let start = if value.starts_with(prefix) { prefix.len() } else { 0 };
        Self { name: name.to_owned(), value: value.to_owned(), cores: std::iter::once(start..value.len()).collect() }
    }

    pub(crate) fn shaped(shape: Shape, seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ (shape as u64).wrapping_mul(0x51_7c_c1_b7_27_22_0a_95));
        let mut builder = Builder::default();
        match shape {
            Shape::Short => builder.secret(&rng.alnum(12)),
            Shape::Pem => {
                builder.public("-----BEGIN PRIVATE KEY-----\n");
                for _ in 0..6 {
                    builder.secret(&rng.alnum(64));
                    builder.public("\n");
                }
                builder.public("-----END PRIVATE KEY-----\n");
            }
            Shape::Quotes => builder.secret(&mixed(&mut rng, &["\"", "\\", "'", "\\\""])),
            Shape::Percent => builder.secret(&mixed(&mut rng, &["%", "%25", "+", "&", "%00"])),
            Shape::Unicode => {
                let text: String = (0..40)
                    .map(|_| match rng.below(3) {
                        0 => char::from_u32(0x0430 + rng.below(32) as u32),
                        1 => char::from_u32(0x4e00 + rng.below(20_000) as u32),
                        _ => char::from_u32(0x1f400 + rng.below(200) as u32),
                    })
                    .map(|c| c.unwrap_or('ж'))
                    .collect();
                builder.secret(&text);
            }
            Shape::Nul => builder.secret(&mixed(&mut rng, &["\0"])),
            Shape::Huge => builder.secret(&rng.alnum(64 * 1024)),
            Shape::JsonInJson => {
                builder.public("{\"k\":\"{\\\"inner\\\":\\\"");
                builder.secret(&rng.alnum(40));
                builder.public("\\\"}\"}");
            }
        }
        Self { name: format!("{shape:?}"), value: builder.value, cores: builder.cores }
    }
}

/// Three random characters between each two specials: no window of eight consists of specials alone.
fn mixed(rng: &mut Rng, specials: &[&str]) -> String {
    (0..12).map(|_| format!("{}{}", rng.alnum(3), rng.pick(specials))).collect()
}

#[derive(Default)]
struct Builder {
    value: String,
    cores: Vec<Range<usize>>,
}

impl Builder {
    fn public(&mut self, text: &str) {
        self.value.push_str(text);
    }

    fn secret(&mut self, text: &str) {
        let start = self.value.len();
        self.value.push_str(text);
        self.cores.push(start..self.value.len());
    }
}
