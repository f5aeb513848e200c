//! The former key: gone when nothing needs it, kept while something does, and never to be seen.

use super::*;

#[tokio::test]
async fn nothing_that_the_former_key_sealed_is_left_after_the_next_start() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    fill_all(&embedded).await;
    embedded.store().put_pending(&other(0), &version("v9"), &bytes(&canary(1).repeat(200))).await.unwrap();
    // From each page of a long value, some bytes.
    let former: Vec<Vec<u8>> = {
        let transaction = embedded.database.begin_read().unwrap();
        let rows = [VERSIONS, MANAGEMENT].map(|rows| transaction.open_table(rows).unwrap().get(("other-000", "sandbox", "v9")).unwrap());
        let rows = rows.map(|row| row.unwrap().value().to_vec());
        rows.iter().flat_map(|row| row.chunks(4096).map(|page| page[..48].to_vec())).collect()
    };
    assert!(former.len() > 20);
    let old_id = hex::decode(embedded.keyring().id()).unwrap();
    begin(&embedded, None).await.unwrap();
    go_on(&embedded, usize::MAX).await;
    drop(embedded);
    let holds = |needle: &[u8]| {
        let file = fs::read(directory.join(FILE_NAME)).unwrap();
        file.windows(needle.len()).any(|window| window == needle)
    };
    assert!(former.iter().any(|part| holds(part)), "the scan finds what lies in free pages");
    // As if a start had been cut off while it wrote the file anew.
    fs::write(directory.join("keywright.redb.new"), "half").unwrap();
    let before = told(&open(&directory).unwrap()).await;
    assert!(!former.iter().any(|part| holds(part)) && !holds(&old_id));
    assert!(!directory.join("keywright.redb.new").exists());
    assert_eq!(fs::metadata(directory.join(FILE_NAME)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(told(&open(&directory).unwrap()).await, before);
}

/// The transaction that begins it took effect, and nobody was told.
#[tokio::test]
async fn a_process_without_the_new_key_lets_the_former_one_never_go() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    fill_all(&embedded).await;
    let NewKey { keyring: next, file, replaces } = embedded.new_key(None).await.unwrap();
    let (from, to) = (embedded.keyring().id(), next.id());
    let rewrap = Rewrap { from, to, file, replaces, begun_at: at(50), finished_at: None, is_clean: false };
    embedded.write(move |transaction, keyring| keys::begin(transaction, keyring, &next, &rewrap)).await.unwrap();
    let before = told(&embedded).await;
    assert!(matches!(Rewrapper::new(embedded.clone()).next().await, Err(RewrapError::Store(_))));
    drop(embedded);
    let embedded = open(&directory).unwrap();
    go_on(&embedded, usize::MAX).await;
    assert_eq!(told(&embedded).await, before);
    assert!(embedded.rewrap_standing().await.unwrap().unwrap().finished_at.is_some());
}

#[tokio::test]
async fn a_damaged_row_keeps_the_former_key_until_it_is_gone() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    fill_all(&embedded).await;
    let place = ("other-003", "sandbox", "v1");
    embedded
        .write(move |transaction, _| {
            let mut table = transaction.open_table(VERSIONS)?;
            let mut row = table.get(place)?.map(|row| row.value().to_vec()).unwrap();
            *row.last_mut().unwrap() ^= 1;
            table.insert(place, row.as_slice())?;
            Ok(())
        })
        .await
        .unwrap();
    begin(&embedded, None).await.unwrap();
    let mut rewrapper = Rewrapper::new(embedded.clone());
    let stuck = loop {
        match rewrapper.next().await {
            Ok(step) => rewrapper.perform(step, at(60)).await.unwrap(),
            Err(stuck) => break stuck,
        }
    };
    assert_eq!(stuck, RewrapError::Damaged { credentials: "other-003".to_owned() });
    assert_eq!(rewrapper.left(), 1);
    assert!(embedded.rewrap_standing().await.unwrap().unwrap().finished_at.is_none());
    embedded.store().clear(&other(3), &["v1".parse().unwrap()].into()).await.unwrap();
    go_on(&embedded, usize::MAX).await;
    assert!(embedded.rewrap_standing().await.unwrap().unwrap().finished_at.is_some());
}

#[tokio::test]
async fn a_file_that_was_changed_by_somebody_without_the_key_isnt_believed() {
    for (row, expected) in [("codes", "keyed with"), ("retiring", "former key"), ("check", "check record")] {
        let fresh = Fresh::default();
        let directory = fresh.directory();
        let embedded = Fresh::open_in(&directory);
        fill(&embedded).await;
        begin(&embedded, Some(How::Named.prepare(&directory).unwrap())).await.unwrap();
        drop(embedded);
        let database = redb::Database::open(directory.join(FILE_NAME)).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut meta = transaction.open_table(META).unwrap();
            let mut sealed = meta.get((row, "", "")).unwrap().unwrap().value().to_vec();
            *sealed.last_mut().unwrap() ^= 1;
            meta.insert((row, "", ""), sealed.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
        drop(database);
        let refused = open(&directory).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { what, .. } if what.contains(expected)), "{row}: {refused:?}");
    }
}

#[tokio::test]
async fn nothing_of_a_key_is_in_the_file_or_in_what_is_printed() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    fill_all(&embedded).await;
    let new_key = embedded.new_key(None).await.unwrap();
    let keys = ["keywright.key", "keywright.key.new"].map(|file| fs::read(directory.join(file)).unwrap());
    assert!(keys.iter().all(|key| key.len() == 32) && keys[0] != keys[1]);
    let mut printed = format!("{new_key:?}");
    embedded.begin_rewrap(new_key, at(50)).await.unwrap();
    printed += &format!("{embedded:?} {:?}", Rewrapper::new(embedded.clone()));
    go_on(&embedded, 3).await;
    let file = fs::read(directory.join(FILE_NAME)).unwrap();
    for part in keys.iter().flat_map(|key| key.windows(8)) {
        assert!(!file.windows(8).any(|window| window == part) && !printed.contains(&hex::encode(part)));
    }
    let transaction = embedded.database.begin_read().unwrap();
    assert!(ALL_ROWS.iter().all(|rows| transaction.open_table(*rows).is_ok()));
}
