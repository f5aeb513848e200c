//! Default deny, case by case.

use std::sync::Arc;

use rstest::rstest;

use super::*;
use crate::domain::fixtures::credential;
use crate::domain::policy::Uptake;

#[rstest]
#[case::listed("acme-production", &["acme-production"], Environment::Production, true)]
#[case::listed_among_others("acme-production", &["other", "acme-production"], Environment::Production, true)]
#[case::not_listed("acme-production", &["other"], Environment::Production, false)]
#[case::nothing_listed("acme-production", &[], Environment::Production, false)]
#[case::of_the_other_environment("acme-production", &["acme-production"], Environment::Sandbox, false)]
#[case::without_a_document("gone", &["gone"], Environment::Production, false)]
fn an_application_reads_what_its_document_lists(
    #[case] wanted: &str,
    #[case] listed: &[&str],
    #[case] environment: Environment,
    #[case] allowed: bool,
) {
    let mut policies = Policies::default();
    let document = credential("acme-production", Environment::Production);
    policies.credentials.insert(document.name.clone(), Arc::new(document));
    let application = Application {
        name: "payments-api".parse().unwrap(),
        environment,
        credentials: listed.iter().map(|name| name.parse().unwrap()).collect(),
        identity: Identity::Unix { uid: 1_000 },
        uptake: Uptake::Stream,
        lease: None,
        callback: None,
        webhook: None,
        delivery: Default::default(),
    };
    assert_eq!(may_read(&policies, &application, &wanted.parse().unwrap()), allowed);
}
