//! AWS Secrets Manager, on moto behind a proxy that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Builder;
use keywright::domain::ids::Name;
use keywright::domain::material::Material;
use keywright::stores::Slot;
use keywright::stores::aws::{AwsSettings, AwsStore};

use super::engine;
use super::proxy::{Fate, Proxy};
use super::servers::{Moto, sdk};
use super::{CALLS_AIM, KNOWN_AIM, PASSES_PER_HOUR, fill, mark, print, scaled, seconds};

const PREFIX: &str = "bench";
const ENGINE: &str = "engine";

fn store(endpoint: &str) -> AwsStore {
    let settings = AwsSettings { prefix: PREFIX.to_owned(), endpoint: Some(endpoint.to_owned()), ..AwsSettings::default() };
    AwsStore::on(&sdk(), &settings, None)
}

/// Somebody else, with a client that knows nothing of us.
struct Hand(Client);

impl Hand {
    async fn changes(&self, slot: &Slot, number: usize) {
        let name = format!("{PREFIX}/{}/{}", slot.environment, slot.path);
        let put = self.0.put_secret_value().secret_id(name).secret_string(format!("{{\"client_secret\":\"changed-{number}\"}}"));
        put.send().await.unwrap();
    }
}

/// The calls of an hour's passes, with a change by somebody else before each.
async fn hour(proxy: &Proxy, slots: &[Slot], hand: &Hand) -> usize {
    let counted = store(&proxy.endpoint);
    proxy.judge(|_, _| Fate::Passes);
    for number in 0..PASSES_PER_HOUR {
        let changed = &slots[number * 7919 % slots.len()];
        hand.changes(changed, number).await;
        assert!(mark(&counted, slots, changed).await.is_some());
    }
    proxy.calls().len()
}

pub(super) async fn measure(slots: &[Slot]) {
    let mut moto = Moto::start().await;
    let proxy = Proxy::start(&moto.endpoint).await;
    let (plain, hand) = (store(&moto.endpoint), Hand(Client::from_conf(Builder::from(&sdk()).endpoint_url(&moto.endpoint).build())));
    let start = Instant::now();
    fill(&plain, slots).await;
    print("AWS: promoted for the first time, each", &seconds(start.elapsed() / u32::try_from(slots.len()).unwrap()), "");

    let whole = scaled(hour(&proxy, slots, &hand).await, slots.len());
    print("AWS: calls in an hour for marks, per 10,000, where nothing is sorted", &whole.to_string(), CALLS_AIM);

    moto.sorts().await;
    moto.ages(2 * 3_600).await;
    let sorted = scaled(hour(&proxy, slots, &hand).await, slots.len());
    print("AWS: calls in an hour for marks, per 10,000, sorted as AWS does", &sorted.to_string(), CALLS_AIM);

    let seen = AtomicUsize::new(proxy.calls().len());
    let since = || {
        let calls = proxy.calls().len();
        calls - seen.swap(calls, Ordering::Relaxed)
    };
    let settings = AwsSettings { prefix: ENGINE.to_owned(), endpoint: Some(proxy.endpoint.clone()), ..AwsSettings::default() };
    let shared = Arc::new(AwsStore::on(&sdk(), &settings, None));
    let change = async |name: &Name, value: &Material| {
        let text = String::from_utf8(value.to_json().expose().to_vec()).unwrap();
        hand.0.put_secret_value().secret_id(format!("{ENGINE}/production/{name}")).secret_string(text).send().await.unwrap();
    };
    engine::day("AWS", CALLS_AIM, shared, slots.len(), since, change).await;

    let watching = store(&proxy.endpoint);
    let before = mark(&watching, slots, &slots[1]).await;
    hand.changes(&slots[1], PASSES_PER_HOUR).await;
    let start = Instant::now();
    while mark(&watching, slots, &slots[1]).await == before {}
    print("AWS: from a change to its mark, beside the wait for the next pass (60 s)", &seconds(start.elapsed()), KNOWN_AIM);
}
