//! Proof of environment: evidence, weighed into a verdict. A fact is never guessed: what tells nothing says nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::credential::{Credential, Environment};
use super::ids::{FieldName, Name};
use super::material::Material;
use super::provider::{FieldClass, Provider};

/// What one piece of evidence says about the claim "this value belongs to this environment".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Says {
    For,
    Against,
    Nothing,
}

/// Where a piece of evidence comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EvidenceKind {
    /// The form of a field.
    Pattern,
    /// Host and path of an address.
    Url,
    /// A keyed fingerprint: the same value under another credential.
    Fingerprint,
    /// A harmless call at the provider.
    Probe,
}

/// One piece of evidence, with a reason that a person understands and that holds nothing of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    pub kind: EvidenceKind,
    pub says: Says,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Match,
    Mismatch,
    Undetermined,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Match => "match",
            Verdict::Mismatch => "mismatch",
            Verdict::Undetermined => "undetermined",
        }
    }
}

/// The verdict with what led to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Proof {
    pub verdict: Verdict,
    pub evidence: Vec<Evidence>,
}

/// Whether a proof is good enough for this credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    Proved,
    /// Undetermined, and the sandbox or the document takes that.
    Accepted,
    Mismatch,
    Undetermined,
}

/// The value of a field is known already, under this credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FingerprintHit {
    pub field: FieldName,
    pub credential: Name,
    pub environment: Environment,
    /// The version that it was met in was revoked.
    pub revoked: bool,
}

impl Evidence {
    pub fn new(kind: EvidenceKind, says: Says, why: impl Into<String>) -> Evidence {
        Evidence { kind, says, why: why.into() }
    }
}

impl Proof {
    /// One piece against outweighs all others; without any piece for, nothing is proved.
    pub fn weigh(evidence: Vec<Evidence>) -> Proof {
        let any = |says: Says| evidence.iter().any(|piece| piece.says == says);
        let verdict = if any(Says::Against) {
            Verdict::Mismatch
        } else if any(Says::For) {
            Verdict::Match
        } else {
            Verdict::Undetermined
        };
        Proof { verdict, evidence }
    }

    /// Undetermined is taken in the sandbox, and in production only with the document's `acceptUndetermined` (I18).
    pub fn acceptance(&self, credential: &Credential) -> Acceptance {
        let tolerant = credential.environment == Environment::Sandbox || credential.accept_undetermined.is_some();
        match self.verdict {
            Verdict::Match => Acceptance::Proved,
            Verdict::Mismatch => Acceptance::Mismatch,
            Verdict::Undetermined if tolerant => Acceptance::Accepted,
            Verdict::Undetermined => Acceptance::Undetermined,
        }
    }

    /// The reasons that decided, for an error or a table.
    pub fn reasons(&self) -> String {
        let decisive = match self.verdict {
            Verdict::Match => Says::For,
            Verdict::Mismatch => Says::Against,
            Verdict::Undetermined => Says::Nothing,
        };
        let reasons: Vec<&str> = self.evidence.iter().filter(|piece| piece.says == decisive).map(|piece| piece.why.as_str()).collect();
        reasons.join("; ")
    }
}

impl Acceptance {
    pub fn is_enough(&self) -> bool {
        matches!(self, Acceptance::Proved | Acceptance::Accepted)
    }
}

/// The evidence that needs no network: the form of the fields, addresses within them, fingerprints. In this order.
pub fn pure_evidence(
    provider: &Provider,
    credential: &Credential,
    material: &Material,
    base_url: &BaseUrl,
    hits: &[FingerprintHit],
) -> Vec<Evidence> {
    let mut evidence = pattern_evidence(provider, credential.environment, material);
    evidence.extend(url_evidence(provider, material, base_url));
    evidence.extend(fingerprint_evidence(credential, hits));
    evidence
}

/// Where the environment is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// Without a closing slash.
    pub url: String,
    /// Named by the configuration instead of the description: it then tells nothing about the environment.
    pub overridden: bool,
}

impl BaseUrl {
    /// Scheme, host and port: up to the first slash of the path.
    pub fn origin(&self) -> &str {
        origin_of(&self.url)
    }
}

/// Scheme, host and port of an absolute URL.
pub fn origin_of(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url[after_scheme..].find(['/', '?', '#']).map_or(url.len(), |at| after_scheme + at);
    &url[..end]
}

/// Scheme and host have no case (RFC 3986); everything else is compared as it stands.
fn same_origin(url: &str, origin: &str) -> bool {
    origin_of(url).eq_ignore_ascii_case(origin)
}

fn pattern_evidence(provider: &Provider, environment: Environment, material: &Material) -> Vec<Evidence> {
    let described = provider.fields.iter().filter(|(_, field)| !field.patterns.is_empty());
    let judged = described.filter_map(|(name, field)| {
        let value = material.get(name)?.expose_str()?;
        let fits = |environment: Environment| field.patterns.get(&environment).is_some_and(|pattern| pattern.is_match(value));
        let other = environment.other();
        let (says, why) = match (fits(environment), fits(other)) {
            (true, false) => (Says::For, format!("`{name}` has the form of a {environment} value")),
            (false, true) => (Says::Against, format!("`{name}` has the form of a {other} value")),
            _ => (Says::Nothing, format!("the form of `{name}` doesn't tell its environment")),
        };
        Some(Evidence::new(EvidenceKind::Pattern, says, why))
    });
    judged.collect()
}

fn url_evidence(provider: &Provider, material: &Material, base_url: &BaseUrl) -> Vec<Evidence> {
    let own = if provider.is_generated() {
        Evidence::new(EvidenceKind::Url, Says::Nothing, "no provider has it, so that there is no address to judge it by")
    } else if base_url.overridden {
        Evidence::new(EvidenceKind::Url, Says::Nothing, "the address is the configuration's and tells nothing")
    } else {
        Evidence::new(
            EvidenceKind::Url,
            Says::Nothing,
            "the address is this environment's own; only the probe tells whether the key works there",
        )
    };
    let strays = provider.fields.iter().filter(|(_, field)| field.class == FieldClass::Management).filter_map(|(name, _)| {
        let value = material.get(name)?.expose_str()?;
        // Behind an address of the configuration's own the provider may well name itself otherwise.
        let says = if base_url.overridden { Says::Nothing } else { Says::Against };
        (value.contains("://") && !same_origin(value, base_url.origin()))
            .then(|| Evidence::new(EvidenceKind::Url, says, format!("`{name}` is an address of another host")))
    });
    std::iter::once(own).chain(strays).collect()
}

fn fingerprint_evidence(credential: &Credential, hits: &[FingerprintHit]) -> Vec<Evidence> {
    let against = hits.iter().filter(|hit| hit.revoked || hit.credential != credential.name).map(|hit| {
        let why = if hit.credential == credential.name {
            format!("the value of `{}` was revoked before", hit.field)
        } else {
            format!("the value of `{}` is in use as `{}` in {}", hit.field, hit.credential, hit.environment)
        };
        Evidence::new(EvidenceKind::Fingerprint, Says::Against, why)
    });
    let against: Vec<Evidence> = against.collect();
    if against.is_empty() {
        return vec![Evidence::new(EvidenceKind::Fingerprint, Says::Nothing, "no other credential has this value")];
    }
    against
}

#[cfg(test)]
mod tables;
#[cfg(test)]
mod tests {
    use super::*;

    fn piece(says: Says) -> Evidence {
        Evidence::new(EvidenceKind::Probe, says, "because")
    }

    #[test]
    fn one_piece_against_outweighs_all() {
        let verdict = |says: &[Says]| Proof::weigh(says.iter().map(|s| piece(*s)).collect()).verdict;
        assert_eq!(verdict(&[]), Verdict::Undetermined);
        assert_eq!(verdict(&[Says::Nothing]), Verdict::Undetermined);
        assert_eq!(verdict(&[Says::Nothing, Says::For]), Verdict::Match);
        assert_eq!(verdict(&[Says::For, Says::For, Says::Against]), Verdict::Mismatch);
    }

    #[test]
    fn an_origin_ends_where_the_path_begins() {
        assert_eq!(origin_of("https://a.example:8443/v3?x"), "https://a.example:8443");
        assert_eq!(origin_of("https://a.example"), "https://a.example");
        assert_ne!(origin_of("https://a.example@evil.example/"), "https://a.example");
    }
}
