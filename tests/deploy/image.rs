//! The Dockerfile: what it takes from the repository, and what its last stage is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{OVERLAYS, list, rendered, repository, workloads};

/// The instructions of the file, comments left out.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(repository().join("deploy/Dockerfile")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').map(|(word, rest)| (word.to_owned(), rest.to_owned())).expect("an instruction")).collect()
}

fn all<'a>(instructions: &'a [(String, String)], word: &str) -> Vec<&'a str> {
    instructions.iter().filter(|(one, _)| one == word).map(|(_, rest)| rest.as_str()).collect()
}

/// What the build stage copies out of the repository.
fn copied() -> Vec<String> {
    let instructions = instructions();
    let from_here = all(&instructions, "COPY").into_iter().filter(|rest| !rest.starts_with("--from"));
    from_here.flat_map(|rest| rest.rsplit_once(' ').unwrap().0.split(' ')).map(str::to_owned).collect()
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            copy(&path, &to.join(path.file_name().unwrap()));
        }
    } else {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

#[test]
fn the_last_stage_is_the_program_alone_for_a_user_who_isnt_root() {
    let instructions = instructions();
    let stages = all(&instructions, "FROM");
    let [build, last] = stages[..] else { panic!("{stages:?}") };
    assert_eq!(last, "scratch");
    let version = build.strip_prefix("rust:").and_then(|rest| rest.split('-').next()).expect("a pinned image of Rust");
    assert_eq!(version.split('.').count(), 3, "{build}: a whole version");
    assert!(version.starts_with(env!("CARGO_PKG_RUST_VERSION")), "{build}");
    let at = instructions.iter().position(|(word, rest)| word == "FROM" && rest == "scratch").unwrap();
    let last: Vec<String> = instructions[at + 1..].iter().map(|(word, rest)| format!("{word} {rest}")).collect();
    assert_eq!(
        last,
        [
            "COPY --from=build /rootfs /",
            "ENV PATH=/usr/local/bin",
            "ENV KEYWRIGHT_CONFIG=/etc/keywright/config/keywright.yaml",
            "USER 65532:65532",
            "ENTRYPOINT [\"/usr/local/bin/keywright\"]",
            "CMD [\"run\"]",
        ],
        "the root file system is what `deploy/rootfs.sh` makes, which the pod's test starts"
    );
    let runs = all(&instructions, "RUN");
    assert!(
        runs.iter().all(|run| run.contains("--locked") && run.contains("deploy/rootfs.sh target/release/keywright /rootfs")),
        "{runs:?}"
    );
    for folder in OVERLAYS {
        for workload in workloads(&rendered(folder)) {
            let pod = &workload["spec"]["template"]["spec"];
            assert_eq!(
                (pod["securityContext"]["runAsUser"].as_u64(), pod["securityContext"]["runAsGroup"].as_u64()),
                (Some(65532), Some(65532))
            );
            let container = &pod["containers"][0];
            assert_eq!(container["image"], concat!("keywright:", env!("CARGO_PKG_VERSION")), "{folder}");
            assert_eq!(list(&container["env"])[0]["value"], "/etc/keywright/config/keywright.yaml", "for `kubectl exec` as for the pod");
        }
    }
}

#[test]
fn what_is_copied_is_let_through_and_makes_a_whole_crate() {
    let ignored = fs::read_to_string(repository().join("deploy/Dockerfile.dockerignore")).unwrap();
    let mut lines = ignored.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"), "nothing that isn't named gets into the build");
    let let_through: BTreeSet<String> = lines.map(|line| line.strip_prefix('!').expect("an exception").to_owned()).collect();
    let copied = copied();
    assert_eq!(let_through, copied.iter().cloned().collect());
    let folder = tempfile::tempdir().unwrap();
    for name in &copied {
        copy(&repository().join(name), &folder.path().join(name));
    }
    // Without its sources, cargo refuses the crate; each bench that the manifest names must be there as well.
    let cargo = |folder: &Path| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["metadata", "--no-deps", "--locked", "--offline", "--format-version", "1"]).current_dir(folder).output().unwrap()
    };
    let output = cargo(folder.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let manifest = fs::read_to_string(folder.path().join("Cargo.toml")).unwrap();
    for bench in manifest.split("[[bench]]\nname = \"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let there = [format!("benches/{bench}.rs"), format!("benches/{bench}/main.rs")];
        assert!(there.iter().any(|file| folder.path().join(file).exists()), "{bench}");
    }
    // What the code includes lies within.
    let mut missing = Vec::new();
    includes(&folder.path().join("src"), &mut missing);
    assert_eq!(missing, Vec::<String>::new());
    fs::remove_dir_all(folder.path().join("src")).unwrap();
    assert!(!cargo(folder.path()).status.success(), "what is missing is noticed");
}

/// Files that the shipped code includes and that aren't there.
fn includes(folder: &Path, missing: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            includes(&path, missing);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let shipped = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let is_test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("golden.rs");
        for part in shipped.split("include_str!(\"").skip(1).filter(|_| !is_test) {
            let included = path.parent().unwrap().join(part.split('"').next().unwrap());
            if !included.exists() {
                missing.push(format!("{} of {}", included.display(), path.display()));
            }
        }
    }
}
