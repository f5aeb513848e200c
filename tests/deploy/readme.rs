//! README's way from nothing to a rotated credential in a cluster: its commands are few, and name what is there; and its script makes
//! what is missing, and no more.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::{rendered, repository, title};

const SCRIPT: &str = "deploy/keys.sh";

/// Stands in for a cluster: what is made leaves a mark with its name, and the files that it was made of.
const KUBECTL: &str = r#"#!/bin/sh
set -eu
namespace=$2 verb=$3 kind=$4
shift 4
case "$verb $kind $*" in
  *go-template*) cat "$MADE/tls.crt" ;;
  get*) if [ -e "$MADE/$namespace $kind $1" ]; then echo "$kind/$1"; fi ;;
  create*)
    [ "$kind" = configmap ] || shift
    mkdir "$MADE/$namespace $kind $1"
    shift
    for option; do cp -p "${option#*=}" "$MADE/"; done ;;
  *) echo "not known here: $verb $kind $*" >&2; exit 1 ;;
esac
"#;

/// The chapter's text.
fn chapter() -> String {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let from = readme.split_once("\n## In Kubernetes\n").expect("the chapter").1;
    from.split_once("\n## ").expect("a chapter after it").0.to_owned()
}

/// What a shell runs of the chapter's first block, command by command, wherever a line ends.
fn commands() -> Vec<String> {
    let chapter = chapter().replace("\\\n", " ");
    let block = chapter.split("\n\n").find(|part| part.starts_with("    docker build")).expect("the block");
    // Nothing that is quoted there has one of these signs.
    block.split(['\n', ';', '&', '|']).map(|command| command.trim().to_owned()).filter(|command| !command.is_empty()).collect()
}

/// Runs the script against a cluster in this folder, with another name for the service in its certificate.
pub(crate) fn make_keys(made: &Path, names: &str) -> Output {
    let script = fs::read_to_string(repository().join(SCRIPT)).unwrap();
    let own = "subjectAltName=DNS:keywright.keywright.svc";
    assert_eq!(script.matches(own).count(), 1, "{SCRIPT} makes a certificate");
    let tools = tempfile::tempdir().unwrap();
    let kubectl = tools.path().join("kubectl");
    fs::write(&kubectl, KUBECTL).unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    let temporary = tools.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = Command::new("bash");
    command.args(["-c", &script.replace(own, &format!("subjectAltName={names}"))]);
    let done = command.env("PATH", path).env("TMPDIR", &temporary).env("MADE", made).output().unwrap();
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "no private file is left behind");
    done
}

#[test]
fn ten_commands_lead_to_a_rotated_credential() {
    let commands = commands();
    assert!((5..=10).contains(&commands.len()), "{commands:#?}");
    for command in &commands {
        // One that runs others would hide how many there are.
        let first = command.split_whitespace().next().unwrap();
        assert!(["docker", "kind", "kubectl", SCRIPT].contains(&first), "{command}");
        assert!(!command.contains("$(") && !command.contains('`'), "{command}");
    }
    let all = commands.join("\n");
    for word in all.split_whitespace().filter(|word| word.starts_with("deploy/")) {
        assert!(word == "deploy/keywright" || word == "deploy/payments-api" || repository().join(word).exists(), "{word}");
    }
    assert!(commands.iter().any(|command| command == SCRIPT), "{all}");
    let mode = fs::metadata(repository().join(SCRIPT)).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{SCRIPT} can be run");
    let image = concat!("keywright:", env!("CARGO_PKG_VERSION"));
    for wanted in [format!("-t {image} "), format!("load docker-image {image}")] {
        assert!(all.contains(&wanted), "{wanted}");
    }
    let names: Vec<String> = ["overlays/single", "example"].into_iter().flat_map(rendered).map(|object| title(&object)).collect();
    for workload in ["Deployment keywright/keywright", "Deployment payments/payments-api"] {
        assert!(names.iter().any(|name| name == workload), "{workload}");
    }
    let [.., rotated, seen] = &commands[..] else { panic!("{all}") };
    // Without waiting, the log might not have the new version yet.
    assert!(rotated.contains("keywright rotate payments-webhook") && rotated.contains("--wait"), "{rotated}");
    assert!(seen.contains("logs"), "{seen}");
}

#[test]
fn the_script_makes_what_is_missing_and_leaves_what_is_there() {
    let made = tempfile::tempdir().unwrap();
    let run = || {
        let done = make_keys(made.path(), "DNS:keywright.keywright.svc");
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.success(), said)
    };
    let objects = [
        "keywright secret keywright-tls",
        "keywright secret keywright-key",
        "keywright configmap keywright-ca",
        "payments configmap keywright-ca",
    ];
    let files = ["tls.crt", "tls.key", "keywright.key", "ca.crt"];
    let contents = || files.map(|file| fs::read(made.path().join(file)).unwrap());
    let (is_done, said) = run();
    assert!(is_done, "{said}");
    assert!(objects.iter().all(|object| made.path().join(object).exists()), "{said}");
    let first = contents();
    assert!(first[0] == first[3] && first[2].len() == 32);
    for private in ["tls.key", "keywright.key"] {
        let mode = fs::metadata(made.path().join(private)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }

    // A second run changes nothing; after one that was broken off, it makes the rest.
    let (is_done, said) = run();
    assert!(is_done && said.matches("stays").count() == objects.len(), "{said}");
    fs::remove_dir(made.path().join(objects[3])).unwrap();
    let (is_done, said) = run();
    assert!(is_done && said.matches("stays").count() == objects.len() - 1, "{said}");
    assert!(made.path().join(objects[3]).exists() && contents() == first, "{said}");

    // Another pair would be refused by those who trust the one that is gone.
    fs::remove_dir(made.path().join(objects[0])).unwrap();
    let (is_done, said) = run();
    assert!(!is_done && said.contains("keywright-ca in keywright"), "{said}");
    assert!(!made.path().join(objects[0]).exists() && contents() == first, "{said}");
}
