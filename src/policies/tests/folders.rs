//! Folders as they are mounted, what can't be read in them, and how much of anything is too much.

use super::*;

#[test]
fn a_folder_is_read_as_kubernetes_mounts_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir_all(root.join("..2026_11_21")).unwrap();
    std::fs::write(root.join("..2026_11_21/a.yaml"), base().text).unwrap();
    std::os::unix::fs::symlink("..2026_11_21", root.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    std::fs::create_dir(root.join("team")).unwrap();
    std::fs::write(root.join("team/b.yml"), head("RotationPolicy", "b") + "spec: {maxAge: 1d}\n").unwrap();
    std::fs::write(root.join("notes.txt"), "not: [yaml").unwrap();
    assert_eq!(read_folder(root, now()).unwrap().rotations.len(), 2);
    assert_eq!(read_folder(&root.join("team/b.yml"), now()).unwrap().rotations.len(), 1);
}

#[test]
fn what_cannot_be_read_is_a_problem_beside_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    assert!(read_folder(root, now()).unwrap().credentials.is_empty());
    assert_eq!(read_folder(&root.join("gone"), now()).unwrap_err().as_slice()[0].code, "not-found");
    std::fs::write(root.join("big.yaml"), vec![b'#'; 1_048_577]).unwrap();
    std::fs::write(root.join("latin.yaml"), b"a: \xe9").unwrap();
    std::fs::write(root.join("z.yaml"), "a: 1\n").unwrap();
    std::os::unix::fs::symlink(".", root.join("loop")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("dangling.yaml")).unwrap();
    let problems = read_folder(root, now()).unwrap_err();
    let codes: std::collections::BTreeSet<&str> = problems.iter().map(|problem| problem.code).collect();
    assert!(["too-large", "not-utf8", "linked-folder", "not-found", "missing-field"].iter().all(|code| codes.contains(code)), "{problems}");
    assert!(problems.render(false).contains("latin.yaml"));
}

#[test]
fn very_many_problems_stay_bounded() {
    let text = "a: 1\n---\n".repeat(2_000);
    let problems = parse(&[source("t.yaml", &text)], now()).unwrap_err();
    assert_eq!(problems.as_slice().len(), problem::PROBLEMS_MAX + 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn mutated_documents_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4, "\\PC|[\\x00-\\x20:{}\\[\\]\"'&*!|>-]{1,3}"), 1..8)) {
        let mut text: Vec<char> = (head("Provider", "acme") + WHOLE_PROVIDER + "---\n" + &base().text).chars().collect();
        for (at, remove, insert) in edits {
            let start = at.index(text.len());
            let end = (start + remove * 3).min(text.len());
            text.splice(start..end, insert.chars());
            if text.is_empty() { text.push('a'); }
        }
        let text: String = text.into_iter().collect();
        let parsed = parse(&[source("t.yaml", &text)], now());
        if parsed.is_ok() {
            schema::agrees(&text, &[]);
        }
        if let Err(problems) = parsed {
            // A lone carriage return ends a line in YAML, too.
            let lines = text.replace("\r\n", "\n").replace('\r', "\n").lines().count() + 1;
            prop_assert!(problems.iter().all(|problem| problem.line >= 1 && problem.line <= lines && problem.column >= 1));
            problems.render(true);
        }
    }
}

#[test]
fn pathological_files_are_answered_in_time() {
    let size = 1 << 17;
    for piece in
        ["[", "{", "---\n", "a: 1\n", "- ", "? ", "a", "\"", "&a ", "*a ", "#\n", "a: {", "- - - - - - -\n", "|\n", "\r", "\u{2028}"]
    {
        let text = piece.repeat(size / piece.len());
        let began = std::time::Instant::now();
        let _ = parse(&[source("t.yaml", &text)], now());
        assert!(began.elapsed().as_secs() < 20, "{piece:?} took {:?}", began.elapsed());
    }
    let keys: String = (0..10_000).map(|key| format!("k{key}: 1\n")).collect();
    let _ = parse(&[source("t.yaml", &keys)], now());
}
