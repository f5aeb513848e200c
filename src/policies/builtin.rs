//! The provider descriptions of `policies/providers/`, compiled in. A new one is a file there and a line here.

use std::sync::{Arc, LazyLock};

use super::links::Declared;
use super::problem::{Place, Sink};
use super::{Source, provider, read_head, tree};
use crate::domain::ids::Name;
use crate::domain::provider::Provider;

const DESCRIPTIONS: [(&str, &str); 15] = [
    ("checkout.yaml", include_str!("../../policies/providers/checkout.yaml")),
    ("dinie.yaml", include_str!("../../policies/providers/dinie.yaml")),
    ("dinie-webhook.yaml", include_str!("../../policies/providers/dinie-webhook.yaml")),
    ("fincode.yaml", include_str!("../../policies/providers/fincode.yaml")),
    ("oauth-initial-access.yaml", include_str!("../../policies/providers/oauth-initial-access.yaml")),
    ("oauth-registration.yaml", include_str!("../../policies/providers/oauth-registration.yaml")),
    ("okra.yaml", include_str!("../../policies/providers/okra.yaml")),
    ("okta.yaml", include_str!("../../policies/providers/okta.yaml")),
    ("plaid.yaml", include_str!("../../policies/providers/plaid.yaml")),
    ("slack.yaml", include_str!("../../policies/providers/slack.yaml")),
    ("stripe.yaml", include_str!("../../policies/providers/stripe.yaml")),
    ("tap.yaml", include_str!("../../policies/providers/tap.yaml")),
    ("tensfer.yaml", include_str!("../../policies/providers/tensfer.yaml")),
    ("twilio.yaml", include_str!("../../policies/providers/twilio.yaml")),
    ("webhook-secret.yaml", include_str!("../../policies/providers/webhook-secret.yaml")),
];

/// Named so that nobody looks for them in the folder.
pub fn sources() -> Vec<Source> {
    DESCRIPTIONS.iter().map(|(file, text)| Source { file: format!("(built in)/{file}"), text: (*text).to_owned() }).collect()
}

/// Read once for each process: they are the same whatever the folder holds. Their examples are our own tests' to judge.
static READ: LazyLock<Vec<(Name, Place, Arc<Provider>)>> = LazyLock::new(|| {
    let sources = sources();
    let sink = Sink::new(&sources);
    let documents = sources.iter().enumerate().flat_map(|(index, source)| tree::documents(index, &source.text, &sink));
    let read = documents.filter_map(|document| {
        let head = read_head(&document, &sink)?;
        let name = head.name?;
        let provider = provider::read(&name.value, head.spec?, provider::Examples::ReadOnly, &sink)?;
        Some((name.value, name.place, Arc::new(provider)))
    });
    read.collect()
});

/// The descriptions, by name, with places in the files that begin with this one.
pub(super) fn declared(first_file: usize) -> impl Iterator<Item = (Name, Declared<Arc<Provider>>)> {
    READ.iter().map(move |(name, place, provider)| {
        let place = Place { file: first_file + place.file, ..*place };
        (name.clone(), Declared { place, value: Some(Arc::clone(provider)) })
    })
}
