//! The store in AWS Secrets Manager against servers that nobody here wrote: moto, LocalStack, and a real one where it is named.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed unwrap in a test is a failed test, and what it prints is its report"
)]
#![allow(missing_debug_implementations, reason = "nobody prints a fake")]

mod crashes;
mod foreign;
mod others;
mod proxy;
mod rough;
#[allow(dead_code, reason = "shared with the black-box tests, which read with boto3")]
#[path = "../support/aws.rs"]
mod servers;

use std::sync::Arc;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::BehaviorVersion;
use keywright::domain::material::Material;
use keywright::journal::memory::MemoryJournal;
use keywright::stores::aws::{AwsSettings, AwsStore};
use keywright::stores::contract::{contract_within, promoter_contract};
use keywright::stores::foreign_contract::foreign_contract;
use keywright::stores::native_contract::native_contract;
use keywright::stores::{Apart, Slot, StoreShare};

use servers::{LocalStack, Moto};

/// Names a real endpoint. Credentials and region are what the SDK finds.
const REAL: &str = "KEYWRIGHT_TEST_AWS_ENDPOINT";

/// A server, and stores on it: each below a prefix of its own.
pub(crate) struct Place {
    shared: aws_config::SdkConfig,
    endpoint: String,
    prefix: String,
    made: std::cell::Cell<u32>,
}

impl Place {
    pub(crate) fn on(endpoint: &str) -> Place {
        Place { shared: servers::sdk(), endpoint: endpoint.to_owned(), prefix: "keywright-test".to_owned(), made: Default::default() }
    }

    async fn real(endpoint: String) -> Place {
        let shared = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
        let prefix = format!("keywright-test-{}", uuid::Uuid::new_v4().simple());
        Place { shared, endpoint, prefix, made: Default::default() }
    }

    /// A store that is empty.
    pub(crate) fn fresh(&self) -> AwsStore {
        self.made.set(self.made.get() + 1);
        AwsStore::on(&self.shared, &self.settings(), None)
    }

    /// The one that was made last, once more.
    pub(crate) fn again(&self) -> AwsStore {
        AwsStore::on(&self.shared, &self.settings(), None)
    }

    /// An empty one that keeps within a quota.
    pub(crate) fn paced(&self, share: StoreShare) -> AwsStore {
        self.fresh();
        AwsStore::on(&self.shared, &self.settings(), Some(Arc::new(share)))
    }

    fn settings(&self) -> AwsSettings {
        AwsSettings { prefix: self.below(), endpoint: Some(self.endpoint.clone()), ..AwsSettings::default() }
    }

    fn below(&self) -> String {
        format!("{}/{}", self.prefix, self.made.get())
    }

    /// Where native readers look in the store that was made last.
    pub(crate) fn address(&self, slot: &Slot) -> String {
        format!("{}/{}/{}", self.below(), slot.environment, slot.path)
    }

    /// A client that knows nothing of the store's habits.
    pub(crate) fn client(&self) -> Client {
        let config = aws_sdk_secretsmanager::config::Builder::from(&self.shared).endpoint_url(&self.endpoint);
        Client::from_conf(config.build())
    }

    /// What a native reader finds. moto's plain answer stays on the old version after a label moved, so it is asked for the stage,
    /// which is what a plain call means.
    pub(crate) async fn see(&self, slot: &Slot, stage: Option<&str>) -> Option<Material> {
        let asked = self.client().get_secret_value().secret_id(self.address(slot)).set_version_stage(stage.map(str::to_owned));
        let found = asked.send().await.ok()?;
        Some(Material::from_json(found.secret_string()?.as_bytes()).expect("a flat object"))
    }

    async fn keeps_the_contract(&self, stage: Option<&str>) {
        contract_within(|| self.fresh(), AwsStore::VALUE_MAX).await;
        let (store, journal) = (Arc::new(self.fresh()), Arc::new(MemoryJournal::default()));
        promoter_contract(store.as_ref(), journal.as_ref(), &Apart::new(store.clone(), journal.clone())).await;
        let store = self.fresh();
        native_contract(&store, async |slot: &Slot| self.see(slot, stage).await).await;
        let store = self.fresh();
        foreign_contract(&store, async |slot: &Slot, value: Material| self.write(slot, &value).await).await;
    }

    /// Writes as somebody does who knows nothing of stages; makes the secret if there is none.
    pub(crate) async fn write(&self, slot: &Slot, value: &Material) {
        let (client, name, text) = (self.client(), self.address(slot), value.to_json());
        let text = text.expose_str().expect("a text");
        let Err(refused) = client.put_secret_value().secret_id(&name).secret_string(text).send().await else { return };
        assert!(refused.into_service_error().is_resource_not_found_exception(), "only what isn't there is refused");
        client.create_secret().name(&name).secret_string(text).send().await.expect("a new secret");
    }

    /// Removes everything below the prefix, at once.
    async fn clean(&self) -> usize {
        let client = self.client();
        let filter = aws_sdk_secretsmanager::types::Filter::builder()
            .key(aws_sdk_secretsmanager::types::FilterNameStringType::Name)
            .values(&self.prefix)
            .build();
        let mut pages = client.list_secrets().filters(filter).include_planned_deletion(true).into_paginator().send();
        // All pages first: where a page begins may depend on how many are left.
        let mut names = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.expect("a list of secrets");
            names.extend(page.secret_list().iter().filter_map(|entry| entry.name()).map(str::to_owned));
        }
        names.retain(|name| name.starts_with(&format!("{}/", self.prefix)));
        for name in &names {
            client.delete_secret().secret_id(name).force_delete_without_recovery(true).send().await.expect("it is removed");
        }
        names.len()
    }
}

#[tokio::test]
async fn moto_keeps_the_contract() {
    let moto = Moto::start().await;
    Place::on(&moto.endpoint).keeps_the_contract(Some("AWSCURRENT")).await;
}

#[tokio::test]
async fn localstack_keeps_the_contract() {
    let localstack = LocalStack::start().await;
    let place = Place::on(&localstack.endpoint);
    place.keeps_the_contract(None).await;
    assert!(place.clean().await > 10, "what a real endpoint would be left with is found and removed");
    assert_eq!(place.clean().await, 0);
}

/// Needs nothing but the variable, and touches only names below its own prefix.
#[tokio::test]
async fn a_real_endpoint_keeps_the_contract() {
    let Some(endpoint) = std::env::var(REAL).ok().filter(|endpoint| !endpoint.is_empty()) else {
        println!("no real endpoint is named: {REAL}=https://secretsmanager.REGION.amazonaws.com tries one");
        return;
    };
    let place = Place::real(endpoint).await;
    let work = async { place.keeps_the_contract(None).await };
    let outcome = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(work)).await;
    println!("{} secrets were removed", place.clean().await);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}
