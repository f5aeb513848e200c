//! RBAC: what the daemon asks of the API server, and that the manifests grant just that.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{APPLIED, list, rendered, title};

/// What the daemon asks for, where, by name if the name is known: the rights are held against this list in both directions.
const CALLS: [(&str, &str, &str, &str, &str); 19] = [
    // folder, namespace (`*`: of the cluster), group/resource, names, verb
    ("overlays/single", "*", "authentication.k8s.io/tokenreviews", "", "create"),
    ("overlays/replicas", "*", "authentication.k8s.io/tokenreviews", "", "create"),
    ("overlays/replicas", "keywright-journal", "/configmaps", "", "create"),
    ("overlays/replicas", "keywright-journal", "/configmaps", "", "get"),
    ("overlays/replicas", "keywright-journal", "/configmaps", "", "list"),
    ("overlays/replicas", "keywright-journal", "/configmaps", "", "watch"),
    ("overlays/replicas", "keywright-journal", "/configmaps", "", "update"),
    ("overlays/replicas", "keywright-journal", "/configmaps", "", "delete"),
    ("overlays/replicas", "keywright-journal", "coordination.k8s.io/leases", "keywright", "get"),
    ("overlays/replicas", "keywright-journal", "coordination.k8s.io/leases", "keywright", "update"),
    ("overlays/replicas", "keywright-journal", "coordination.k8s.io/leases", "", "create"),
    ("example", "payments", "/pods", "", "list"),
    ("example/secret", "payments", "/secrets", "ledger-credentials", "create"),
    ("example/secret", "payments", "/secrets", "ledger-credentials", "get"),
    ("example/secret", "payments", "/secrets", "ledger-credentials", "patch"),
    ("example/secret", "payments", "apps/deployments", "ledger", "get"),
    ("example/secret", "payments", "apps/deployments", "ledger", "patch"),
    ("example/secret", "payments", "/pods", "", "list"),
    ("overlays/replicas-vault", "*", "authentication.k8s.io/tokenreviews", "", "create"),
];

/// One right, as [`CALLS`] writes it.
type Right = (String, String, String, String);

fn words(value: &Value) -> Vec<String> {
    list(value).iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn granted(folder: &str) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for object in rendered(folder).iter().filter(|object| object["kind"] == "Role" || object["kind"] == "ClusterRole") {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("*");
        for rule in list(&object["rules"]) {
            for group in words(&rule["apiGroups"]) {
                for resource in words(&rule["resources"]) {
                    for verb in words(&rule["verbs"]) {
                        let names = words(&rule["resourceNames"]).join(",");
                        rights.insert((namespace.to_owned(), format!("{group}/{resource}"), names, verb));
                    }
                }
            }
        }
    }
    rights
}

#[test]
fn what_is_granted_is_what_is_asked_for() {
    for folder in ["overlays/single", "overlays/replicas", "example", "example/secret"] {
        let asked = CALLS.iter().filter(|(of, ..)| *of == folder);
        let asked: BTreeSet<Right> = asked
            .map(|(_, namespace, resource, names, verb)| {
                ((*namespace).to_owned(), (*resource).to_owned(), (*names).to_owned(), (*verb).to_owned())
            })
            .collect();
        assert_eq!(granted(folder), asked, "{folder}");
    }
    assert_eq!(granted("overlays/replicas-vault"), granted("overlays/replicas"), "another store, the same rights");
}

#[test]
fn no_right_is_wider_than_a_namespace_and_secrets_go_by_name() {
    for folder in APPLIED {
        for (namespace, resource, names, verb) in granted(folder) {
            let right = format!("{folder}: {verb} {resource} in {namespace}");
            assert!(!resource.contains('*') && verb != "*", "{right}");
            assert!(namespace != "*" || (resource == "authentication.k8s.io/tokenreviews" && verb == "create"), "{right}");
            assert!(resource != "/secrets" || !names.is_empty(), "{right}: by name");
            assert!(resource != "/secrets" || !["list", "watch", "delete"].contains(&verb.as_str()), "{right}");
            assert!(!resource.contains("rbac.") && !["escalate", "bind", "impersonate"].contains(&verb.as_str()), "{right}");
            // Nobody but a person changes the policies that bind the daemon.
            assert!(namespace != "keywright", "{right}");
        }
    }
}

#[test]
fn rights_go_to_the_daemons_own_account() {
    for folder in APPLIED {
        let objects = rendered(folder);
        let roles: BTreeSet<(String, String)> = objects.iter().map(|object| (title(object), object["kind"].to_string())).collect();
        for binding in objects.iter().filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Binding"))) {
            let subject = serde_json::json!([{"kind": "ServiceAccount", "name": "keywright", "namespace": "keywright"}]);
            assert_eq!(binding["subjects"], subject, "{folder}: {}", title(binding));
            let kind = binding["roleRef"]["kind"].as_str().unwrap();
            let namespace = binding["metadata"]["namespace"].as_str().unwrap_or_default();
            let role = format!("{kind} {namespace}/{}", binding["roleRef"]["name"].as_str().unwrap());
            assert!(roles.iter().any(|(title, _)| *title == role), "{folder}: {role}");
        }
    }
}
