//! README's way from nothing to a rotated credential in a cluster: its commands are few, and name what is there.

use crate::{rendered, repository, title};

/// The chapter's text.
fn chapter() -> String {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let from = readme.split_once("\n## In Kubernetes\n").expect("the chapter").1;
    from.split_once("\n## ").expect("a chapter after it").0.to_owned()
}

/// The commands of the chapter's first block, continued lines joined.
pub(crate) fn commands() -> Vec<String> {
    let chapter = chapter().replace("\\\n", " ");
    let block: Vec<&str> = chapter.split("\n\n").find(|part| part.starts_with("    docker build")).expect("the block").lines().collect();
    block.iter().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn ten_commands_lead_to_a_rotated_credential() {
    let commands = commands();
    assert!((5..=10).contains(&commands.len()), "{commands:#?}");
    let all = commands.join("\n");
    for word in all.split_whitespace().filter(|word| word.starts_with("deploy/")).map(|word| word.trim_end_matches([',', ';'])) {
        assert!(word == "deploy/keywright" || word == "deploy/payments-api" || repository().join(word).exists(), "{word}");
    }
    for made in ["keywright-tls", "keywright-key", "keywright-ca"] {
        assert!(all.contains(made), "{made}");
    }
    let names: Vec<String> = ["overlays/single", "example"].into_iter().flat_map(rendered).map(|object| title(&object)).collect();
    for workload in ["Deployment keywright/keywright", "Deployment payments/payments-api"] {
        assert!(names.iter().any(|name| name == workload), "{workload}");
    }
    assert!(all.contains("keywright rotate payments-webhook") && all.contains("logs"), "{all}");
}
