//! Every store keeps the contract, with the fault points beside it too; memory and the embedded store can't be told apart.

use proptest::prelude::*;

use std::sync::Arc;

use super::contract::{contract, promoter_contract, shapes};
use super::foreign_contract::foreign_contract;
use super::memory::MemoryStore;
use super::*;
use crate::domain::material::Secret;
use crate::domain::rotation::Event;
use crate::embedded::tests::Fresh;
use crate::faults::{Faults, When};
use crate::journal::memory::MemoryJournal;
use crate::journal::{Journal, Position};

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract(MemoryStore::default).await;
}

#[tokio::test]
async fn memory_behind_silent_faults_keeps_the_contract() {
    contract(|| MemoryStore::default().faulty(&Faults::default())).await;
}

#[tokio::test]
async fn memory_tells_what_others_write() {
    let store = MemoryStore::default();
    foreign_contract(&store, async |slot: &Slot, value| store.write_natively(&slot.credential, slot.environment, Some(value))).await;
}

#[tokio::test]
async fn embedded_keeps_the_contract() {
    let fresh = Fresh::default();
    contract(|| fresh.open().store()).await;
}

#[tokio::test]
async fn embedded_behind_silent_faults_keeps_the_contract() {
    let fresh = Fresh::default();
    contract(|| Faulty::new(fresh.open().store(), Faults::default())).await;
}

#[tokio::test]
async fn store_and_journal_apart_keep_the_promoters_contract() {
    let (store, journal) = (Arc::new(MemoryStore::default()), Arc::new(MemoryJournal::default()));
    promoter_contract(store.as_ref(), journal.as_ref(), &Apart::new(store.clone(), journal.clone())).await;
    let file = Fresh::default().open();
    let (store, journal) = (Arc::new(file.store()), Arc::new(file.journal()));
    promoter_contract(store.as_ref(), journal.as_ref(), &Apart::new(store.clone(), journal.clone())).await;
}

#[tokio::test]
async fn store_and_journal_in_one_file_keep_the_promoters_contract() {
    let file = Fresh::default().open();
    promoter_contract(&file.store(), &file.journal(), &file.store()).await;
    let file = Fresh::default().open();
    promoter_contract(&file.store(), &file.journal(), &Faulty::new(file.store(), Faults::default())).await;
}

#[tokio::test]
async fn in_one_file_a_stage_and_its_event_are_one_commit() {
    let file = Fresh::default().open();
    let (store, journal) = (file.store(), file.journal());
    let (slot, one) = (slot(0), version(1));
    let term = journal.begin_term().await.unwrap();
    store.put_pending(&slot, &one, &bytes(0)).await.unwrap();
    let promotion = Promotion { slot: &slot, version: &one, replacing: None };
    let ahead = Append { expected: Position { term, revision: 1 }, term, event: &Event::Paused { at: None } };
    assert!(store.promote_with(promotion, ahead).await.is_err());
    assert_eq!(store.stages(&slot).await.unwrap().current, None, "an event that is refused keeps the stage back");
    let before = file.commits();
    store.promote_with(promotion, Append { expected: Position::default(), ..ahead }).await.unwrap();
    assert_eq!(file.commits() - before, 1);
}

#[tokio::test]
async fn a_fault_is_unavailable_with_or_without_the_effect() {
    fault_around(MemoryStore::default()).await;
    fault_around(Fresh::default().open().store()).await;
}

async fn fault_around(store: impl SecretStore) {
    let faults = Faults::default();
    let faulty = Faulty::new(store, faults.clone());
    let (slot, version) = (slot(0), "v1".parse::<VersionId>().unwrap());
    for (when, effect) in [(When::Before, None), (When::After, Some(version.clone()))] {
        faults.arm(faults.count(), when);
        assert_eq!(faulty.put_pending(&slot, &version, &bytes(0)).await, Err(StoreError::Unavailable("a fault was injected")));
        assert_eq!(faulty.stages(&slot).await.unwrap().pending, effect);
    }
    faulty.put_pending(&slot, &version, &bytes(0)).await.unwrap();
    faulty.promote(&slot, &version, None).await.unwrap();
    assert_eq!(faults.trace(), ["store.put_pending", "store.put_pending", "store.put_pending", "store.promote"]);
}

#[derive(Debug, Clone)]
enum Call {
    Put {
        slot: usize,
        version: usize,
        value: usize,
    },
    Promote {
        slot: usize,
        version: usize,
        replacing: Option<usize>,
    },
    /// With what is current, so that promotions go through too.
    PromoteRightly {
        slot: usize,
        version: usize,
    },
    Forget {
        slot: usize,
        version: usize,
    },
    Read {
        slot: usize,
        version: usize,
    },
    List {
        after: Option<usize>,
        limit: usize,
    },
    Restart,
}

fn call() -> impl Strategy<Value = Call> {
    let (slot, version) = (0..3usize, 0..5usize);
    prop_oneof![
        4 => (slot.clone(), version.clone(), 0..3usize).prop_map(|(slot, version, value)| Call::Put { slot, version, value }),
        1 => (slot.clone(), version.clone(), proptest::option::of(version.clone())).prop_map(|(slot, version, replacing)| Call::Promote { slot, version, replacing }),
        3 => (slot.clone(), version.clone()).prop_map(|(slot, version)| Call::PromoteRightly { slot, version }),
        2 => (slot.clone(), version.clone()).prop_map(|(slot, version)| Call::Forget { slot, version }),
        2 => (slot.clone(), version).prop_map(|(slot, version)| Call::Read { slot, version }),
        1 => (proptest::option::of(slot), 0..3usize).prop_map(|(after, limit)| Call::List { after, limit }),
        1 => Just(Call::Restart),
    ]
}

fn slot(number: usize) -> Slot {
    let credential: Name = ["a", "a-b", "b"][number].parse().unwrap();
    Slot { path: credential.to_string(), credential, environment: Environment::ALL[number % 2] }
}

fn bytes(number: usize) -> VersionBytes {
    let (field, value) = shapes().swap_remove(number);
    let one = |value: String| [(field.parse().unwrap(), Secret::from(value))].into_iter().collect();
    VersionBytes { served: one(value.clone()), management: if number == 1 { one(value) } else { Material::default() } }
}

fn version(number: usize) -> VersionId {
    format!("v{number}").parse().unwrap()
}

/// What a store answers, in a form that can be compared.
async fn answer(store: &dyn SecretStore, call: &Call) -> String {
    let text = match call {
        Call::Put { slot: at, version: v, value } => format!("{:?}", store.put_pending(&slot(*at), &version(*v), &bytes(*value)).await),
        Call::Promote { slot: at, version: v, replacing } => {
            format!("{:?}", store.promote(&slot(*at), &version(*v), replacing.map(version).as_ref()).await)
        }
        Call::PromoteRightly { slot: at, version: v } => {
            let current = store.stages(&slot(*at)).await.unwrap().current;
            format!("{:?}", store.promote(&slot(*at), &version(*v), current.as_ref()).await)
        }
        Call::Forget { slot: at, version: v } => format!("{:?}", store.forget(&slot(*at), &version(*v)).await),
        Call::Read { slot: at, version: v } => match store.read(&slot(*at), &version(*v)).await {
            Ok(read) => format!("{:?}", (0..3).find(|number| read.same_as(&bytes(*number)))),
            Err(error) => format!("{error:?}"),
        },
        Call::List { after, limit } => {
            let after = after.map(|number| slot(number).credential);
            format!("{:?}", store.list(after.as_ref(), *limit).await)
        }
        Call::Restart => String::new(),
    };
    let mut stages = Vec::new();
    for number in 0..3 {
        stages.push(store.stages(&slot(number)).await);
    }
    format!("{text} {stages:?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn memory_and_embedded_answer_alike(calls in proptest::collection::vec(call(), 1..40)) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let fresh = Fresh::default();
            let directory = fresh.directory();
            let memory = MemoryStore::default();
            let mut embedded = Fresh::open_in(&directory).store();
            for call in &calls {
                if let Call::Restart = call {
                    drop(embedded);
                    embedded = Fresh::open_in(&directory).store();
                }
                assert_eq!(answer(&memory, call).await, answer(&embedded, call).await, "{call:?}");
            }
        });
    }
}
