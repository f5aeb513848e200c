//! Evidence and acceptance, case by case.

use rstest::rstest;

use super::*;
use crate::domain::fixtures::{credential, proof, provider};
use crate::domain::form::{Form, Mark};
use crate::domain::material::Secret;
use crate::domain::provider::{Field, Usage};

use std::collections::BTreeMap;

const LIVE: &str = "^acme_live_[a-z0-9]+$";
const TEST: &str = "^acme_test_[a-z0-9]+$";

fn described(class: FieldClass, patterns: &[(Environment, &str)]) -> Provider {
    let mark = |text: &str| Mark { pattern: regex::Regex::new(text).unwrap(), unless_other: false };
    let marks: BTreeMap<_, _> = patterns.iter().map(|(environment, text)| (*environment, mark(text))).collect();
    let form = Form { marks, ..Form::default() };
    let mut provider = provider(true);
    provider
        .fields
        .insert("client_id".parse().unwrap(), Field { class, bound: true, served: true, form, usage: Usage::Sign, recipe: None });
    provider
}

fn material(value: &str) -> Material {
    [("client_id".parse().unwrap(), Secret::from(value.to_owned()))].into_iter().collect()
}

fn base_url(overridden: bool) -> BaseUrl {
    BaseUrl { url: "https://api.acme.example/v3".to_owned(), overridden }
}

#[rstest]
#[case::own("acme_live_1", &[(Environment::Production, LIVE), (Environment::Sandbox, TEST)], Some(Says::For))]
#[case::other("acme_test_1", &[(Environment::Production, LIVE), (Environment::Sandbox, TEST)], Some(Says::Against))]
#[case::unmarked("0123456789abcdef", &[(Environment::Production, LIVE), (Environment::Sandbox, TEST)], Some(Says::Nothing))]
#[case::both("acme_live_1", &[(Environment::Production, "^acme"), (Environment::Sandbox, "^acme")], Some(Says::Nothing))]
#[case::only_own_described("acme_live_1", &[(Environment::Production, LIVE)], Some(Says::For))]
#[case::only_other_described("acme_test_1", &[(Environment::Sandbox, TEST)], Some(Says::Against))]
#[case::longer_than_the_form("acme_live_1 acme_test_1", &[(Environment::Production, LIVE), (Environment::Sandbox, TEST)], Some(Says::Nothing))]
#[case::nothing_described("acme_live_1", &[], None)]
fn the_form_of_a_field_is_for_against_or_nothing(
    #[case] value: &str,
    #[case] patterns: &[(Environment, &str)],
    #[case] expected: Option<Says>,
) {
    let provider = described(FieldClass::Public, patterns);
    let credential = credential("acme-production", Environment::Production);
    let evidence = pure_evidence(&provider, &credential, &material(value), &base_url(false), &[]);
    let said = evidence.iter().find(|piece| piece.kind == EvidenceKind::Pattern).map(|piece| piece.says);
    assert_eq!(said, expected);
    assert!(evidence.iter().all(|piece| !piece.why.contains(value)), "no reason repeats a value");
}

#[rstest]
#[case::own_host("https://api.acme.example/register/1", false, None)]
#[case::own_host_in_capitals("https://API.acme.example/register/1", false, None)]
#[case::other_host("https://sandbox.acme.example/register/1", false, Some(Says::Against))]
#[case::other_scheme("http://api.acme.example/register/1", false, Some(Says::Against))]
#[case::scheme_in_capitals("HTTPS://evil.example/", false, Some(Says::Against))]
#[case::other_port("https://api.acme.example:444/", false, Some(Says::Against))]
#[case::host_as_user("https://api.acme.example@evil.example/", false, Some(Says::Against))]
#[case::host_as_beginning("https://api.acme.example.evil.example/", false, Some(Says::Against))]
#[case::behind_our_own_address("https://other.example/register/1", true, Some(Says::Nothing))]
#[case::no_address("token", false, None)]
fn an_address_of_another_host_is_against(#[case] value: &str, #[case] overridden: bool, #[case] stray: Option<Says>) {
    let provider = described(FieldClass::Management, &[]);
    let credential = credential("acme-production", Environment::Production);
    let evidence = pure_evidence(&provider, &credential, &material(value), &base_url(overridden), &[]);
    let urls: Vec<Says> = evidence.iter().filter(|piece| piece.kind == EvidenceKind::Url).map(|piece| piece.says).collect();
    let expected: Vec<Says> = std::iter::once(Says::Nothing).chain(stray).collect();
    assert_eq!(urls, expected);
}

#[rstest]
#[case::own_and_alive("acme-production", Environment::Production, false, Says::Nothing)]
#[case::own_and_revoked("acme-production", Environment::Production, true, Says::Against)]
#[case::another_credential("acme-second", Environment::Production, false, Says::Against)]
#[case::the_other_environment("acme-sandbox", Environment::Sandbox, false, Says::Against)]
#[case::another_one_revoked("acme-sandbox", Environment::Sandbox, true, Says::Against)]
fn a_value_that_was_met_before(#[case] name: &str, #[case] environment: Environment, #[case] revoked: bool, #[case] expected: Says) {
    let hit = FingerprintHit { field: "client_id".parse().unwrap(), credential: name.parse().unwrap(), environment, revoked };
    let credential = credential("acme-production", Environment::Production);
    let provider = described(FieldClass::Public, &[]);
    let evidence = pure_evidence(&provider, &credential, &material("acme_live_1"), &base_url(false), &[hit]);
    let said: Vec<Says> = evidence.iter().filter(|piece| piece.kind == EvidenceKind::Fingerprint).map(|piece| piece.says).collect();
    assert_eq!(said, [expected]);
    let verdict = Proof::weigh(evidence).verdict;
    assert_eq!(verdict == Verdict::Mismatch, expected == Says::Against);
}

#[rstest]
#[case(Says::For, Environment::Production, false, Acceptance::Proved)]
#[case(Says::For, Environment::Sandbox, false, Acceptance::Proved)]
#[case(Says::Against, Environment::Production, true, Acceptance::Mismatch)]
#[case(Says::Against, Environment::Sandbox, true, Acceptance::Mismatch)]
#[case(Says::Nothing, Environment::Sandbox, false, Acceptance::Accepted)]
#[case(Says::Nothing, Environment::Production, false, Acceptance::Undetermined)]
#[case(Says::Nothing, Environment::Production, true, Acceptance::Accepted)]
fn production_fails_closed(#[case] says: Says, #[case] environment: Environment, #[case] tolerates: bool, #[case] expected: Acceptance) {
    let mut credential = credential("acme", environment);
    credential.accept_undetermined = tolerates.then(|| "the provider marks nothing".to_owned());
    let acceptance = proof(says).acceptance(&credential);
    assert_eq!(acceptance.is_enough(), matches!(expected, Acceptance::Proved | Acceptance::Accepted));
    assert_eq!(acceptance, expected);
}

#[test]
fn the_reasons_are_those_that_decided() {
    let piece = |says, why: &str| Evidence::new(EvidenceKind::Probe, says, why);
    let proof = Proof::weigh(vec![piece(Says::For, "works"), piece(Says::Against, "wrong host"), piece(Says::Against, "wrong form")]);
    assert_eq!(proof.reasons(), "wrong host; wrong form");
}

#[test]
fn an_origin_is_cut_at_path_query_and_fragment() {
    for (url, origin) in [
        ("https://a.example/b", "https://a.example"),
        ("https://a.example?b=/c", "https://a.example"),
        ("https://a.example#b", "https://a.example"),
        ("http://127.0.0.1:9001/v3", "http://127.0.0.1:9001"),
        ("http://[::1]:9001/v3", "http://[::1]:9001"),
        ("no-scheme/path", "no-scheme"),
    ] {
        assert_eq!(origin_of(url), origin, "{url}");
    }
}
