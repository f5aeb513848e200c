//! What is made is what the recipe says, never twice the same, and each character is equally likely.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::ids::{InstallationId, OperationId};
use crate::issuers::dispatch::Dispatch;
use crate::issuers::fixtures;
use crate::issuers::memory::{MemoryIssuer, SimClock};
use crate::policies::{Source, parse};

const HOOK: &str = "
apiVersion: keywright.dev/v1alpha1
kind: Provider
metadata: {name: hook}
spec:
  title: Hooks
  lifecycle: generated
  fields:
    key_id: {class: public, generate: {length: 32, encoding: hex}}
    signing_secret: {class: secret, use: verify, generate: {length: 32, encoding: base64, prefix: whsec_}}
";

fn hook() -> Target {
    let source = Source { file: "hook.yaml".to_owned(), text: HOOK.to_owned() };
    let policies = parse(&[source], "2026-11-21T12:00:00Z".parse().unwrap()).unwrap();
    fixtures::target((*policies.providers[&"hook".parse().unwrap()]).clone(), "")
}

fn request(attempt: u32) -> CreateRequest {
    let installation = InstallationId(Uuid::from_u128(7));
    CreateRequest {
        operation: OperationId::new(installation, &"hook".parse().unwrap(), 1, attempt),
        marker: String::new(),
        overlap: std::time::Duration::ZERO,
    }
}

#[tokio::test]
async fn all_fields_are_made_and_no_two_are_alike() {
    let (issuer, target) = (GeneratedIssuer, hook());
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        // The same operation again is another value: nobody had the first one.
        let made = issuer.create(&target, &Material::default(), &request(1)).await.unwrap();
        assert_eq!(made.material.len(), 2);
        let secret = made.material.get(&"signing_secret".parse().unwrap()).unwrap().expose_str().unwrap().to_owned();
        let bytes = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        assert_eq!(bytes.len(), 32);
        assert!(seen.insert(secret));
        let report = issuer.probe(&target, &made.material).await.unwrap();
        assert_eq!((report.outcome, report.proves_environment), (ProbeOutcome::Works, false));
        let revocation = issuer.revoke(&target, &Material::default(), &made.key_id, Some(&made.material)).await.unwrap();
        assert_eq!(revocation.closure, Closure::Unproved, "nobody can tell");
        assert!(matches!(issuer.is_dead(&target, &made.material).await, Err(IssuerError::Impossible(_))));
        assert!(matches!(issuer.list(&target, &made.material).await, Err(IssuerError::Impossible(_))));
    }
}

#[tokio::test]
async fn the_description_decides_who_is_asked() {
    let provider = Arc::new(MemoryIssuer::new(SimClock::new("2026-11-21T12:00:00Z".parse().unwrap())));
    let issuer = Dispatch::new(provider.clone(), Arc::new(GeneratedIssuer));
    assert!(issuer.create(&hook(), &Material::default(), &request(1)).await.is_ok());
    assert_eq!(provider.calls("issuer.create"), 0);
    let dinie = fixtures::target(fixtures::dinie(), "http://127.0.0.1:1");
    assert!(issuer.create(&dinie, &Material::default(), &request(1)).await.is_err(), "nobody signs");
    assert_eq!(provider.calls("issuer.create"), 1);
}

/// Chi-squared over all characters: with modulo bias, an alphabet of 100 characters would show a third more of the first 56.
#[test]
fn no_character_is_likelier_than_another() {
    for count in [2_u8, 10, 62, 94] {
        let characters: Vec<u8> = (33..33 + count).collect();
        let draws = 20_000 * usize::from(count);
        let mut text = String::new();
        spell(&mut text, &characters, draws).unwrap();
        let mut counts: BTreeMap<u8, f64> = BTreeMap::new();
        text.bytes().for_each(|byte| *counts.entry(byte).or_default() += 1.0);
        let expected = 20_000.0;
        let chi: f64 = characters.iter().map(|c| (counts.get(c).copied().unwrap_or(0.0) - expected).powi(2) / expected).sum();
        let freedom = f64::from(count) - 1.0;
        // Mean plus seven standard deviations: once in a lifetime of runs.
        assert!(chi < freedom + 7.0 * (2.0 * freedom).sqrt() + 20.0, "{count}: {chi}");
    }
}

fn writings() -> impl Strategy<Value = Writing> {
    let encodings = prop::sample::select(vec![Encoding::Base64, Encoding::Base64url, Encoding::Hex]).prop_map(Writing::Encoded);
    let alphabets = prop::collection::btree_set(33_u8..127, 2..94).prop_map(|set| Writing::Alphabet(set.into_iter().collect()));
    prop_oneof![encodings, alphabets]
}

proptest! {
    #[test]
    fn a_value_is_as_its_recipe_says(writing in writings(), length in 16_u32..200, prefix in "[a-z_]{0,8}") {
        let recipe = Recipe { prefix: prefix.clone(), length, writing };
        let value = value(&recipe).unwrap();
        let text = value.expose_str().unwrap();
        let random = text.strip_prefix(&prefix).unwrap();
        let length = usize::try_from(length).unwrap();
        match &recipe.writing {
            Writing::Encoded(Encoding::Hex) => prop_assert_eq!(random.len(), 2 * length),
            Writing::Encoded(Encoding::Base64) => prop_assert_eq!(STANDARD.decode(random).unwrap().len(), length),
            Writing::Encoded(Encoding::Base64url) => prop_assert_eq!(URL_SAFE_NO_PAD.decode(random).unwrap().len(), length),
            Writing::Alphabet(characters) => {
                prop_assert_eq!(random.len(), length);
                prop_assert!(random.bytes().all(|byte| characters.contains(&byte)));
            }
        }
    }
}
