//! Proof of environment: evidence, weighed into a verdict. A fact is never guessed: what tells nothing says nothing.

mod address;
mod claims;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::address::{Lies, lies};
use self::claims::{Claimed, claimed};
use super::credential::{Credential, Environment};
use super::form::Form;
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
    /// A claim of a JWT, which nobody verified.
    Claim,
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

/// The evidence that needs no network: the form of the fields, their claims, addresses within them, fingerprints. In this order.
pub fn pure_evidence(
    provider: &Provider,
    credential: &Credential,
    material: &Material,
    base_url: &BaseUrl,
    hits: &[FingerprintHit],
) -> Vec<Evidence> {
    let mut testimonies = by_form(provider, credential.environment, material);
    testimonies.extend(by_claims(provider, credential.environment, material));
    let addresses = by_address(provider, credential, material, base_url);
    let disagreement = disagreement(testimonies.iter().chain(&addresses));
    let mut evidence: Vec<Evidence> = testimonies.into_iter().map(|testimony| testimony.evidence).collect();
    evidence.extend(disagreement);
    evidence.extend(url_evidence(provider, credential, material, base_url));
    evidence.extend(addresses.into_iter().map(|testimony| testimony.evidence));
    evidence.extend(fingerprint_evidence(credential, hits));
    evidence
}

/// What one field tells.
struct Testimony<'a> {
    field: &'a FieldName,
    names: Option<Environment>,
    evidence: Evidence,
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

/// The text of a field whose description has something to say of it.
fn texts<'a>(
    provider: &'a Provider,
    material: &'a Material,
    is_judged: impl Fn(&Form) -> bool,
) -> impl Iterator<Item = (&'a FieldName, &'a Form, &'a str)> {
    let judged = provider.fields.iter().filter(move |(_, field)| is_judged(&field.form));
    judged.filter_map(|(name, field)| Some((name, &field.form, material.get(name)?.expose_str()?)))
}

fn by_form<'a>(provider: &'a Provider, environment: Environment, material: &'a Material) -> Vec<Testimony<'a>> {
    let judged = texts(provider, material, Form::is_described).map(|(field, form, value)| {
        let marked = form.marked(value);
        let (names, why) = match (marked, form.look_alike(value)) {
            (Some(theirs), _) if theirs != environment => (marked, format!("`{field}` has the form of a {theirs} value")),
            (_, Some(other)) => (None, format!("`{field}` also has the form of a {other} value, so that it tells nothing")),
            (_, None) if form.is_misshapen(value) => {
                (None, format!("`{field}` hasn't the usual form of such a value, so that it tells nothing: is it whole?"))
            }
            (Some(own), None) => (marked, format!("`{field}` has the form of a {own} value")),
            (None, None) => (None, format!("the form of `{field}` doesn't tell its environment")),
        };
        Testimony::new(field, names, environment, EvidenceKind::Pattern, why)
    });
    judged.collect()
}

fn by_claims<'a>(provider: &'a Provider, environment: Environment, material: &'a Material) -> Vec<Testimony<'a>> {
    let judged = texts(provider, material, |form| form.claims.is_some()).filter_map(|(field, form, value)| {
        let (names, why) = match claimed(form.claims.as_ref()?, value) {
            Claimed::Names(named) => (Some(named), format!("the claims of `{field}`, which nobody verified, name {named}")),
            Claimed::Silent => (None, format!("the claims of `{field}`, which nobody verified, don't tell its environment")),
            Claimed::Unreadable => (None, format!("`{field}` holds no claims that can be read")),
        };
        Some(Testimony::new(field, names, environment, EvidenceKind::Claim, why))
    });
    judged.collect()
}

impl<'a> Testimony<'a> {
    fn new(field: &'a FieldName, names: Option<Environment>, own: Environment, kind: EvidenceKind, why: String) -> Testimony<'a> {
        let says = match names {
            Some(named) if named == own => Says::For,
            Some(_) => Says::Against,
            None => Says::Nothing,
        };
        Testimony { field, names, evidence: Evidence::new(kind, says, why) }
    }
}

/// Fields of which one names this environment and one the other don't belong together: both are named, because either may be the
/// wrong one.
fn disagreement<'a>(testimonies: impl Iterator<Item = &'a Testimony<'a>> + Clone) -> Option<Evidence> {
    let naming = |environment: Environment| {
        let first = testimonies.clone().find(|testimony| testimony.names == Some(environment) && testimony.evidence.says != Says::Nothing);
        first.map(|testimony| testimony.field)
    };
    let (sandbox, production) = (naming(Environment::Sandbox)?, naming(Environment::Production)?);
    let why = if sandbox == production {
        format!("`{sandbox}` names sandbox by one sign and production by another")
    } else {
        format!("`{sandbox}` is a sandbox value and `{production}` a production value: they don't belong together")
    };
    Some(Evidence::new(EvidenceKind::Pattern, Says::Against, why))
}

/// Base URLs that are part of the credential.
fn by_address<'a>(provider: &'a Provider, credential: &Credential, material: &'a Material, base_url: &BaseUrl) -> Vec<Testimony<'a>> {
    let judged = texts(provider, material, |form| form.is_address).map(|(field, _, value)| {
        let own = credential.environment;
        let lies = lies(provider, &credential.variables, value);
        let (names, why) = match lies {
            Lies::In(named) => (Some(named), format!("`{field}` is an address of {named}")),
            Lies::InBoth => (None, format!("`{field}` is the address of both environments")),
            Lies::AtAnotherTenant => (None, format!("`{field}` is the address of another tenant")),
            Lies::Elsewhere => (None, format!("`{field}` is an address of neither environment")),
            Lies::Unreadable => (None, format!("`{field}` isn't written as an address is")),
            Lies::Unknown => (None, format!("there is no known address to compare `{field}` with")),
        };
        let mut testimony = Testimony::new(field, names, own, EvidenceKind::Url, why);
        if matches!(lies, Lies::AtAnotherTenant | Lies::Elsewhere) {
            testimony.evidence.says = Says::Against;
        }
        // Behind an address of the configuration's own the provider may well be named otherwise.
        if base_url.overridden {
            testimony.evidence.says = Says::Nothing;
        }
        testimony
    });
    judged.collect()
}

fn url_evidence(provider: &Provider, credential: &Credential, material: &Material, base_url: &BaseUrl) -> Vec<Evidence> {
    let why = if provider.is_generated() {
        "no provider has it, so that there is no address to judge it by"
    } else if base_url.overridden {
        "the address is the configuration's and tells nothing"
    } else if base_url.url.is_empty() {
        "no address of this environment is known: the configuration names it under `providers`"
    } else {
        "the address is this environment's own; only the probe tells whether the key works there"
    };
    let own = Evidence::new(EvidenceKind::Url, Says::Nothing, why);
    let site = provider.environments.get(&credential.environment);
    let aliases: Vec<String> =
        site.iter().flat_map(|site| &site.aliases).map(|alias| provider.render(alias, &credential.variables)).collect();
    let is_ours = |address: &str| {
        let mut known = std::iter::once(base_url.url.as_str()).chain(aliases.iter().map(String::as_str));
        known.any(|base| same_origin(address, origin_of(base)))
    };
    let strays = provider.fields.iter().filter(|(_, field)| field.class == FieldClass::Management).filter_map(|(name, _)| {
        let value = material.get(name)?.expose_str()?;
        // Behind an address of the configuration's own the provider may well name itself otherwise.
        let says = if base_url.overridden || base_url.url.is_empty() { Says::Nothing } else { Says::Against };
        (value.contains("://") && !is_ours(value))
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
