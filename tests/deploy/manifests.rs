//! That the manifests fit each other, the daemon's configuration and the image, and that pods may do no more than they must.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use keywright::policies::Source;
use keywright::runtime::config::{Config, parse};
use serde_json::{Value, json};

use crate::{APPLIED, OVERLAYS, list, rendered, repository, the, title, workloads};

/// What isn't made by these manifests: by a person, by the operator of certificates, or by Kubernetes itself.
const MADE_ELSEWHERE: [&str; 5] = ["keywright-tls", "keywright-key", "keywright-ca", "vault-ca", "kube-root-ca.crt"];

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn pod(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]
}

/// The configuration of an overlay, as the daemon of its pods reads it.
pub(crate) fn configuration(objects: &[Value]) -> Config {
    let found = objects.iter().filter(|object| object["kind"] == "ConfigMap" && object["data"]["keywright.yaml"].is_string());
    let found: Vec<&Value> = found.collect();
    assert_eq!(found.len(), 1);
    let source = Source { file: "keywright.yaml".to_owned(), text: text(&found[0]["data"]["keywright.yaml"]).to_owned() };
    parse(&source, Path::new("/etc/keywright/config"), 65532).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The volume that is mounted where this path is, and how far below its mount it lies.
fn mounted(workload: &Value, path: &Path) -> (Value, PathBuf, bool) {
    let mounts = list(&pod(workload)["containers"][0]["volumeMounts"]);
    let mount =
        mounts.iter().filter(|mount| path.starts_with(text(&mount["mountPath"]))).max_by_key(|mount| text(&mount["mountPath"]).len());
    let mount = mount.unwrap_or_else(|| panic!("nothing is mounted at {}", path.display()));
    let claims = list(&workload["spec"]["volumeClaimTemplates"]).iter();
    let claims = claims.map(|claim| json!({"name": claim["metadata"]["name"], "persistentVolumeClaim": {}}));
    let volumes: Vec<Value> = list(&pod(workload)["volumes"]).iter().cloned().chain(claims).collect();
    let volume = volumes.into_iter().find(|volume| volume["name"] == mount["name"]).expect("the volume of a mount");
    (volume, path.strip_prefix(text(&mount["mountPath"])).unwrap().to_owned(), mount["readOnly"] == true)
}

#[test]
fn pods_may_do_no_more_than_they_must() {
    for folder in APPLIED {
        for workload in workloads(&rendered(folder)) {
            let pod = pod(workload);
            let what = format!("{folder}: {}", title(workload));
            let own = &pod["securityContext"];
            assert_eq!((&own["runAsNonRoot"], &own["seccompProfile"]["type"]), (&json!(true), &json!("RuntimeDefault")), "{what}");
            assert!(own["runAsUser"].as_u64().is_some_and(|user| user > 999) && own["runAsGroup"].as_u64().is_some(), "{what}");
            assert_eq!((&pod["automountServiceAccountToken"], &pod["enableServiceLinks"]), (&json!(false), &json!(false)), "{what}");
            for forbidden in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "initContainers", "ephemeralContainers"] {
                assert!(pod[forbidden].is_null(), "{what}: {forbidden}");
            }
            assert!(list(&pod["volumes"]).iter().all(|volume| volume["hostPath"].is_null()), "{what}");
            for container in list(&pod["containers"]) {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false, "{what}");
                assert_eq!(context["readOnlyRootFilesystem"], true, "{what}");
                assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{what}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{what}");
                assert!(container["resources"]["requests"]["cpu"].is_string(), "{what}");
                let image = text(&container["image"]);
                assert!(!image.ends_with(":latest") && image.contains(':'), "{what}: {image}");
            }
        }
    }
}

#[test]
fn namespaces_admit_restricted_pods_only_and_lie_among_what_is_applied() {
    for folder in APPLIED.into_iter().filter(|folder| !["monitoring", "example/secret"].contains(folder)) {
        let objects = rendered(folder);
        let namespaces: BTreeSet<&str> =
            objects.iter().filter(|object| object["kind"] == "Namespace").map(|object| text(&object["metadata"]["name"])).collect();
        for namespace in objects.iter().filter(|object| object["kind"] == "Namespace") {
            assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted", "{folder}");
        }
        for object in &objects {
            if let Some(namespace) = object["metadata"]["namespace"].as_str() {
                assert!(namespaces.contains(namespace), "{folder}: {}", title(object));
            }
        }
        let titles: BTreeSet<String> = objects.iter().map(title).collect();
        assert_eq!(titles.len(), objects.len(), "{folder}: one object of a name");
    }
}

#[test]
fn what_is_selected_and_referred_to_is_there() {
    for folder in OVERLAYS.into_iter().chain(["example"]) {
        let objects = rendered(folder);
        for workload in workloads(&objects) {
            let labels = &workload["spec"]["template"]["metadata"]["labels"];
            let chosen = |selector: &Value| selector.as_object().unwrap().iter().all(|(name, value)| labels[name] == *value);
            assert!(chosen(&workload["spec"]["selector"]["matchLabels"]), "{}", title(workload));
            let ports = list(&pod(workload)["containers"][0]["ports"]);
            let has_port = |name: &Value| ports.iter().any(|port| port["name"] == *name || port["containerPort"] == *name);
            for object in &objects {
                match text(&object["kind"]) {
                    "Service" => {
                        assert!(chosen(&object["spec"]["selector"]), "{folder}: {}", title(object));
                        assert!(list(&object["spec"]["ports"]).iter().all(|port| has_port(&port["targetPort"])), "{}", title(object));
                    }
                    "PodDisruptionBudget" => assert!(chosen(&object["spec"]["selector"]["matchLabels"]), "{}", title(object)),
                    "NetworkPolicy" => {
                        assert!(chosen(&object["spec"]["podSelector"]["matchLabels"]), "{folder}: {}", title(object));
                        let taken = list(&object["spec"]["ingress"]).iter().flat_map(|rule| list(&rule["ports"]));
                        assert!(taken.clone().all(|port| has_port(&port["port"])), "{}", title(object));
                    }
                    _ => {}
                }
            }
            for constraint in list(&pod(workload)["topologySpreadConstraints"]) {
                assert!(chosen(&constraint["labelSelector"]["matchLabels"]));
            }
            if let Some(service) = workload["spec"]["serviceName"].as_str() {
                assert_eq!(the(&objects, "Service", service)["spec"]["clusterIP"], "None");
            }
            the(&objects, "ServiceAccount", text(&pod(workload)["serviceAccountName"]));
            volumes_are_there(&objects, workload);
        }
    }
}

fn volumes_are_there(objects: &[Value], workload: &Value) {
    let is_there = |kind: &str, name: &Value| {
        let name = text(name);
        MADE_ELSEWHERE.contains(&name) || objects.iter().any(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    };
    let mut names: BTreeSet<&str> =
        list(&workload["spec"]["volumeClaimTemplates"]).iter().map(|claim| text(&claim["metadata"]["name"])).collect();
    for volume in list(&pod(workload)["volumes"]) {
        assert!(names.insert(text(&volume["name"])), "{volume}");
        let sources = std::iter::once(volume).chain(list(&volume["projected"]["sources"]));
        for source in sources {
            if source["configMap"].is_object() {
                assert!(is_there("ConfigMap", &source["configMap"]["name"]), "{source}");
            }
            if source["secret"].is_object() {
                assert!(is_there("Secret", &source["secret"]["secretName"]), "{source}");
                assert_eq!(source["secret"]["defaultMode"], 0o440, "the daemon refuses keys that others may read");
            }
            if source["persistentVolumeClaim"].is_object() {
                assert!(is_there("PersistentVolumeClaim", &source["persistentVolumeClaim"]["claimName"]), "{source}");
            }
        }
    }
    let mounts: BTreeSet<&str> = list(&pod(workload)["containers"][0]["volumeMounts"]).iter().map(|mount| text(&mount["name"])).collect();
    assert_eq!(mounts, names, "{}: what is mounted, and what there is", title(workload));
}

#[test]
fn the_configuration_fits_the_volumes_the_ports_and_the_probes() {
    for folder in OVERLAYS {
        let objects = rendered(folder);
        let config = configuration(&objects);
        let workload = workloads(&objects)[0];
        let container = &pod(workload)["containers"][0];
        let (volume, below, read_only) = mounted(workload, &config.policies);
        assert_eq!((volume["configMap"]["name"].as_str(), read_only), (Some("keywright-policies"), true), "{folder}");
        assert_eq!(below, Path::new(""), "{folder}: the whole ConfigMap, so that a change reaches the pod");
        let (volume, below, read_only) = mounted(workload, &config.key);
        assert_eq!((&volume["secret"]["secretName"], below.to_str(), read_only), (&json!("keywright-key"), Some("keywright.key"), true));
        let tls = config.listen.tls.as_ref().expect("TLS");
        for (file, name) in [(&tls.certificate, "tls.crt"), (&tls.key, "tls.key")] {
            let (volume, below, read_only) = mounted(workload, file);
            assert_eq!((&volume["secret"]["secretName"], below.to_str(), read_only), (&json!("keywright-tls"), Some(name), true));
        }
        // The volume's own folder is root's, and its group may write there; the daemon's own is made below it.
        let (volume, below, read_only) = mounted(workload, config.data_directory());
        assert!(volume["persistentVolumeClaim"].is_object() && !read_only, "{folder}: {volume}");
        assert_eq!(below.components().count(), 1, "{folder}");
        let (volume, below, read_only) = mounted(workload, &config.audit);
        assert!(volume["persistentVolumeClaim"].is_object() && !read_only && below.components().count() == 1, "{folder}");
        assert!(!config.audit.starts_with(config.data_directory()), "an older copy of the data folder is noticed by the trail beside it");
        let (volume, _, read_only) = mounted(workload, &config.listen.socket);
        assert!(volume["emptyDir"].is_object() && !read_only, "{folder}");
        assert_eq!(container["ports"][0]["containerPort"], config.listen.address.port(), "{folder}");
        assert!(config.listen.address.ip().is_unspecified(), "{folder}");
        let environment = list(&container["env"]);
        assert_eq!(environment.len(), 1, "the daemon reads one variable");
        let (volume, below, _) = mounted(workload, Path::new(text(&environment[0]["value"])));
        assert!(text(&volume["configMap"]["name"]).starts_with("keywright-config-"), "its change starts the pods anew");
        assert_eq!((environment[0]["name"].as_str(), below.to_str()), (Some("KEYWRIGHT_CONFIG"), Some("keywright.yaml")));
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let asked = &container[probe]["httpGet"];
            let path = if probe == "readinessProbe" { "/readyz" } else { "/healthz" };
            assert_eq!(asked, &json!({"path": path, "port": container["ports"][0]["name"], "scheme": "HTTPS"}), "{folder}: {probe}");
        }
    }
}

#[test]
fn one_replica_is_never_two_and_replicas_are_spread_and_kept() {
    let single = rendered("overlays/single");
    let deployment = the(&single, "Deployment", "keywright");
    assert_eq!((&deployment["spec"]["replicas"], &deployment["spec"]["strategy"]), (&json!(1), &json!({"type": "Recreate"})));
    assert!(!single.iter().any(|object| object["kind"] == "PodDisruptionBudget"), "it would keep the node of the one pod");
    for folder in ["overlays/replicas", "overlays/replicas-vault"] {
        let objects = rendered(folder);
        let spec = &the(&objects, "StatefulSet", "keywright")["spec"];
        assert_eq!((&spec["replicas"], &spec["podManagementPolicy"]), (&json!(3), &json!("Parallel")), "{folder}");
        assert_eq!(spec["persistentVolumeClaimRetentionPolicy"], json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
        assert_eq!(spec["volumeClaimTemplates"][0]["metadata"]["name"], "data");
        assert!(spec["strategy"].is_null() && list(&spec["template"]["spec"]["topologySpreadConstraints"]).len() == 2);
        assert_eq!(the(&objects, "PodDisruptionBudget", "keywright")["spec"]["maxUnavailable"], 1);
        assert!(!objects.iter().any(|object| object["kind"] == "Deployment"), "{folder}");
        // The pod is the same but for where its data lies.
        let mut pod = spec["template"]["spec"].clone();
        let mut base = deployment["spec"]["template"]["spec"].clone();
        pod.as_object_mut().unwrap().remove("topologySpreadConstraints");
        for pod in [&mut pod, &mut base] {
            pod["volumes"]
                .as_array_mut()
                .unwrap()
                .retain(|volume| volume["name"] != "data" && volume["name"] != "vault" && volume["name"] != "config");
            pod["containers"][0]["volumeMounts"].as_array_mut().unwrap().retain(|mount| mount["name"] != "vault");
        }
        assert_eq!(pod, base, "{folder}");
    }
}

#[test]
fn every_file_is_used() {
    let deploy = repository().join("deploy");
    let mut unused = Vec::new();
    let mut folders = vec![deploy.clone()];
    while let Some(folder) = folders.pop() {
        let named = std::fs::read_to_string(folder.join("kustomization.yaml")).unwrap_or_default();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let inside = path.strip_prefix(&deploy).unwrap().to_str().unwrap().to_owned();
            let by_itself = [
                "Dockerfile",
                "Dockerfile.dockerignore",
                "rootfs.sh",
                "keys.sh",
                "monitoring/rules_test.yaml",
                "example/secret/application.yaml",
                "base/policies",
            ];
            if path.is_dir() {
                folders.push(path);
            } else if !(name == "kustomization.yaml" || named.contains(&name) || by_itself.iter().any(|known| inside.starts_with(known))) {
                unused.push(inside);
            }
        }
    }
    assert_eq!(unused, Vec::<String>::new());
}
