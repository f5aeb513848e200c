//! Values that we make ourselves: random, as the description says. No provider takes part, and none can be asked.

use async_trait::async_trait;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::{CreateRequest, Issuer, IssuerError, Minted, ProbeOutcome, ProbeReport, ProviderHealth, Revocation, Target};
use crate::domain::ids::KeyId;
use crate::domain::ledger::Closure;
use crate::domain::material::{Material, Secret, check_value};
use crate::domain::provider::ListedKey;
use crate::domain::recipe::{Encoding, Recipe, Writing};

/// Draws until what was drawn can be a value: an alphabet may spell what looks like a redaction mark.
const DRAWS_MAX: u32 = 16;
/// Random bytes that are asked for at once.
const CHUNK: usize = 64;

const NO_RANDOMNESS: IssuerError = IssuerError::Unreachable("the system gives no randomness");
const NOBODY_TO_ASK: IssuerError = IssuerError::Impossible("nobody can be asked about a value of our own");

/// Makes what the fields' recipes say.
#[derive(Debug, Clone, Copy, Default)]
pub struct GeneratedIssuer;

#[async_trait]
impl Issuer for GeneratedIssuer {
    /// What we made and can read is good: there is nobody who could refuse it.
    async fn probe(&self, _target: &Target, _material: &Material) -> Result<ProbeReport, IssuerError> {
        Ok(ProbeReport { outcome: ProbeOutcome::Works, proves_environment: false, provider_time: None })
    }

    async fn is_dead(&self, _target: &Target, _material: &Material) -> Result<bool, IssuerError> {
        Err(NOBODY_TO_ASK)
    }

    async fn list(&self, _target: &Target, _acting: &Material) -> Result<Vec<ListedKey>, IssuerError> {
        Err(NOBODY_TO_ASK)
    }

    async fn create(&self, target: &Target, _acting: &Material, request: &CreateRequest) -> Result<Minted, IssuerError> {
        let mut material = Material::default();
        for (name, field) in &target.provider.fields {
            let recipe = field.recipe.as_ref().ok_or(IssuerError::Impossible("the description doesn't say how a field is made"))?;
            material.insert(name.clone(), value(recipe)?);
        }
        // No provider names it: the operation does.
        let key_id = request.operation.to_string().parse().map_err(|_| IssuerError::BadValue)?;
        Ok(Minted { key_id, material, issued_at: None, expires_at: None, previous_expires_at: None })
    }

    /// We stop to serve it. Whether somebody still accepts it, nothing can tell.
    async fn revoke(
        &self,
        _target: &Target,
        _acting: &Material,
        _key_id: &KeyId,
        _doomed: Option<&Material>,
    ) -> Result<Revocation, IssuerError> {
        Ok(Revocation { closure: Closure::Unproved })
    }

    /// Nobody is called who could be ill.
    fn health(&self) -> Vec<ProviderHealth> {
        Vec::new()
    }
}

fn value(recipe: &Recipe) -> Result<Secret, IssuerError> {
    for _ in 0..DRAWS_MAX {
        let value = draw(recipe)?;
        if check_value(&value).is_ok() {
            return Ok(value);
        }
    }
    Err(IssuerError::BadValue)
}

fn draw(recipe: &Recipe) -> Result<Secret, IssuerError> {
    let length = usize::try_from(recipe.length).map_err(|_| IssuerError::BadValue)?;
    // Reserved once: growing would leave unwiped copies behind. Hex takes two characters for a byte.
    let mut text = Zeroizing::new(String::with_capacity(recipe.prefix.len() + 2 * length + 4));
    text.push_str(&recipe.prefix);
    match &recipe.writing {
        Writing::Encoded(encoding) => {
            let mut bytes = Zeroizing::new(vec![0; length]);
            rand::fill(&mut bytes).map_err(|_| NO_RANDOMNESS)?;
            match encoding {
                Encoding::Base64 => STANDARD.encode_string(&*bytes, &mut text),
                Encoding::Base64url => URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text),
                Encoding::Hex => bytes.iter().for_each(|byte| {
                    for half in [byte >> 4, byte & 15] {
                        text.extend(char::from_digit(half.into(), 16));
                    }
                }),
            }
        }
        Writing::Alphabet(characters) => spell(&mut text, characters, length)?,
    }
    Ok(Secret::new(text.as_bytes()))
}

/// Each character equally likely: bytes beyond the last whole multiple of the alphabet are drawn again.
fn spell(text: &mut String, characters: &[u8], length: usize) -> Result<(), IssuerError> {
    let count = u8::try_from(characters.len()).map_err(|_| IssuerError::BadValue)?;
    if count < 2 {
        return Err(IssuerError::BadValue);
    }
    let fair = u8::MAX - (u8::MAX % count + 1) % count;
    let mut left = length;
    let mut bytes = Zeroizing::new([0; CHUNK]);
    while left > 0 {
        rand::fill(bytes.as_mut()).map_err(|_| NO_RANDOMNESS)?;
        for byte in bytes.iter().filter(|byte| **byte <= fair).take(left) {
            text.push(char::from(characters[usize::from(byte % count)]));
            left -= 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
