//! What needs no cluster: the form of the objects, and who finds it altered.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::objects::{BYTES_MAX, Kind, Naming, Parts, WriteId, object, parts, state, with_state};
use super::record::Record;
use crate::domain::delivery::Way;
use crate::domain::ids::Name;
use crate::journal::contract::event;
use crate::journal::{JournalError, Position};
use crate::sealing::{Keyring, Sealed};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn naming() -> Naming {
    Naming { lease: name("keywright") }
}

fn written(keyring: &Keyring, credential: &str, count: u64) -> ConfigMap {
    let (mut record, id) = (Record::default(), WriteId::new());
    record.keep_copy(Some(Sealed(vec![7; 40])));
    for number in 0..count {
        record.push(3, &event(number), &id).unwrap();
    }
    record.to_object(keyring, &naming(), &name(credential), &id).unwrap()
}

#[test]
fn a_record_comes_back_as_it_was_written() {
    let keyring = Keyring::ephemeral().unwrap();
    let object = written(&keyring, "dinie", 12);
    assert_eq!(object.metadata.name.as_deref(), Some("keywright-journal-dinie"));
    assert_eq!((Kind::of(&object), naming().named(&object, Kind::Credential)), (Some(Kind::Credential), Some(name("dinie"))));
    let record = Record::of(&keyring, &object).unwrap();
    assert_eq!((record.position(), record.stamp()), (Position { term: 3, revision: 12 }, 3));
    let history = record.history().unwrap();
    assert_eq!(history.events, (0..12).map(event).collect::<Vec<_>>());
    assert_eq!(history.sealed, Some(Sealed(vec![7; 40])));
}

#[test]
fn names_of_the_greatest_length_fit() {
    let (lease, longest) = (name(&"l".repeat(63)), name(&"c".repeat(63)));
    let naming = Naming { lease };
    for name in [
        naming.credential(&longest),
        naming.launch(&longest),
        naming.dispatch(&longest, Way::KubernetesSecret),
        naming.holdings(255),
        naming.head(),
    ] {
        assert!(name.len() <= 253, "{name}");
    }
}

#[test]
fn whatever_is_altered_is_noticed() {
    let keyring = Keyring::ephemeral().unwrap();
    let object = written(&keyring, "dinie", 3);
    let lines = object.data.as_ref().unwrap()["events"].clone();
    let lines: Vec<&str> = lines.lines().collect();
    let with = |key: &str, value: String| {
        let mut altered = object.clone();
        altered.data.get_or_insert_default().insert(key.to_owned(), value);
        altered
    };
    let data = object.data.as_ref().unwrap();
    let mut cases = vec![
        with("events", lines[..2].join("\n")),
        with("events", [lines[1], lines[0], lines[2]].join("\n")),
        with("events", lines.join("\n").replace("dinie", "other") + "\n"),
        with("state", data["state"].replace("\"revision\":3", "\"revision\":2")),
        with("copy", "AAAA".to_owned()),
        with("more", String::new()),
        with("code", "0".repeat(64)),
        ConfigMap { binary_data: Some([("x".to_owned(), k8s_openapi::ByteString(vec![1]))].into()), ..object.clone() },
        ConfigMap { data: None, ..object.clone() },
    ];
    for key in ["events", "state", "copy", "code"] {
        let mut lacking = object.clone();
        lacking.data.get_or_insert_default().remove(key);
        cases.push(lacking);
    }
    let mut elsewhere = object.clone();
    elsewhere.metadata.name = Some("keywright-journal-tap".to_owned());
    cases.push(elsewhere);
    for case in &cases {
        assert!(matches!(Record::of(&keyring, case), Err(JournalError::Damaged(_))), "{:?}", case.data);
    }
    assert!(matches!(Record::of(&Keyring::ephemeral().unwrap(), &object), Err(JournalError::Damaged(_))), "another key");
    // What others write beside it is theirs.
    let mut labelled = object.clone();
    labelled.metadata.labels.get_or_insert_default().insert("team".to_owned(), "x".to_owned());
    assert_eq!(Record::of(&keyring, &labelled).unwrap().position().revision, 3);
}

#[test]
fn a_write_is_found_again_by_its_id_also_below_a_later_one() {
    let keyring = Keyring::ephemeral().unwrap();
    let (mut record, ids) = (Record::default(), [WriteId::new(), WriteId::new(), WriteId::new()]);
    record.push(1, &event(1), &ids[0]).unwrap();
    record.push(1, &event(2), &ids[1]).unwrap();
    let object = record.to_object(&keyring, &naming(), &name("dinie"), &ids[1]).unwrap();
    assert_eq!(ids.map(|id| id.is_in(&object)), [true, true, false]);
}

#[test]
fn a_long_journal_is_folded_before_it_outgrows_its_object() {
    let keyring = Keyring::ephemeral().unwrap();
    let mut record = Record::default();
    let paused = crate::domain::rotation::Event::Paused { at: None };
    for _ in 0..12_000 {
        record.push(1, &paused, &WriteId::new()).unwrap();
    }
    let object = record.to_object(&keyring, &naming(), &name("dinie"), &WriteId::new()).unwrap();
    assert!(object.data.unwrap()["events"].len() < 600 << 10);
    assert_eq!(record.position().revision, 12_000);
    let ledger = record
        .history()
        .unwrap()
        .events
        .iter()
        .try_fold(crate::domain::ledger::Ledger::default(), |ledger, event| crate::domain::rotation::apply(&ledger, event));
    assert!(ledger.unwrap().paused);
}

#[test]
fn too_much_is_refused_before_kubernetes_does() {
    let keyring = Keyring::ephemeral().unwrap();
    let with = |bytes: usize| -> Result<ConfigMap, JournalError> {
        let parts: Parts = BTreeMap::from([("state".to_owned(), "x".repeat(bytes))]);
        object(&keyring, &naming(), Kind::Head, naming().head(), None, parts)
    };
    assert!(with(BYTES_MAX - 100).is_ok());
    assert!(matches!(with(BYTES_MAX), Err(JournalError::Unavailable(_))));
}

#[test]
fn a_state_of_another_format_is_damage() {
    let keyring = Keyring::ephemeral().unwrap();
    let written = with_state(&"a text").unwrap();
    let object = object(&keyring, &naming(), Kind::Head, naming().head(), None, written).unwrap();
    let read = parts(&keyring, &object).and_then(|parts| state::<Vec<u64>>(&parts));
    assert_eq!(read, Err(JournalError::Damaged("a ConfigMap of it is of another format")));
}
