//! Every journal keeps the contract, with the fault points beside it too; and faults do what they say.

use super::contract::{contract, event, shared_contract};
use super::memory::MemoryJournal;
use super::*;
use crate::embedded::Embedded;
use crate::embedded::tests::Fresh;
use crate::faults::{Faults, When};

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract(MemoryJournal::default).await;
}

#[tokio::test]
async fn memory_is_shared_by_contract() {
    shared_contract(|| {
        let journal = MemoryJournal::default();
        (journal.clone(), journal)
    })
    .await;
}

#[tokio::test]
async fn the_file_of_one_process_changes_from_nowhere_else() {
    let fresh = Fresh::default();
    let journal = fresh.open().journal();
    let first = journal.changes(&Cursor::default(), Duration::from_secs(3_600)).await.unwrap();
    assert_eq!(first.changed, Changed::Everything);
    let term = journal.begin_term().await.unwrap();
    journal.append(&"dinie".parse().unwrap(), Position::default(), term, &event(1), SealedCopy::Keep).await.unwrap();
    let second = journal.changes(&first.cursor, Duration::from_millis(20)).await.unwrap();
    assert!(second.is_none(), "{second:?}");
}

#[tokio::test]
async fn memory_behind_silent_faults_keeps_the_contract() {
    contract(|| MemoryJournal::default().faulty(&Faults::default())).await;
}

#[tokio::test]
async fn embedded_keeps_the_contract() {
    let fresh = Fresh::default();
    contract(|| fresh.open().journal()).await;
}

#[tokio::test]
async fn embedded_behind_silent_faults_keeps_the_contract() {
    let fresh = Fresh::default();
    contract(|| FaultyJournal::new(fresh.open().journal(), Faults::default())).await;
}

#[tokio::test]
async fn a_fault_is_unavailable_with_or_without_the_effect() {
    fault_around(MemoryJournal::default()).await;
    fault_around(Fresh::default().open().journal()).await;
}

async fn fault_around(journal: impl Journal) {
    let faults = Faults::default();
    let faulty = FaultyJournal::new(journal, faults.clone());
    let dinie = "dinie".parse().unwrap();
    let term = faulty.begin_term().await.unwrap();
    for (when, effect) in [(When::Before, 0), (When::After, 1)] {
        faults.crash_at(faults.count(), when);
        let outcome = faulty.append(&dinie, Position::default(), term, &event(1), SealedCopy::Keep).await;
        assert_eq!(outcome, Err(JournalError::Unavailable("a fault was injected")));
        assert!(faulty.load(&dinie).await.is_err());
        assert_eq!(faults.fired(), Some("journal.append issued"));
        faults.revive();
        assert_eq!(faulty.load(&dinie).await.unwrap().events.len(), effect);
    }
    assert_eq!(faults.trace(), ["journal.begin_term", "journal.append issued", "journal.append issued"]);
}

#[tokio::test]
async fn appends_that_arrive_together_share_commits() {
    let fresh = Fresh::default();
    let embedded = fresh.open();
    let journal = embedded.journal();
    let term = journal.begin_term().await.unwrap();
    let before = embedded.commits();
    let names: Vec<Name> = (0..200).map(|number| format!("credential-{number}").parse().unwrap()).collect();
    let one = event(1);
    let appends = names.iter().map(|name| journal.append(name, Position::default(), term, &one, SealedCopy::Keep));
    for outcome in futures_util::future::join_all(appends).await {
        outcome.unwrap();
    }
    let commits = embedded.commits() - before;
    assert!(commits < 40, "{commits} commits for 200 appends");
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let dinie: Name = "dinie".parse().unwrap();
    let (installation, term, position) = {
        let journal = Fresh::open_in(&directory).journal();
        let (installation, term) = (journal.installation().await.unwrap(), journal.begin_term().await.unwrap());
        let position = journal.append(&dinie, Position::default(), term, &event(1), SealedCopy::Put(Sealed(vec![1, 2]))).await.unwrap();
        (installation, term, position)
    };
    let embedded: Embedded = Fresh::open_in(&directory);
    let journal = embedded.journal();
    assert_eq!(journal.installation().await.unwrap(), installation);
    let history = journal.load(&dinie).await.unwrap();
    assert_eq!((history.position, history.events, history.sealed), (position, vec![event(1)], Some(Sealed(vec![1, 2]))));
    assert!(journal.begin_term().await.unwrap() > term);
}
