//! Policies and configurations with a secret pasted into them by mistake: into each field, each shape, in each way of writing it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::house::House;
use super::routes::say;
use crate::support::canaries::{Canary, SHAPES};
use crate::support::daemon::{Printed, keywright};
use crate::support::outputs::Outputs;
use crate::support::scanner::Scanner;
use crate::support::site::Site;
use crate::world::STILL;

/// How a text can stand in YAML.
const WRITTEN: [fn(&str) -> String; 4] = [
    |text| serde_json::to_string(text).unwrap(),
    |text| format!("'{}'", text.replace('\'', "''")),
    |text| text.to_owned(),
    // Cut off in the middle of the quotes.
    |text| format!("\"{text}"),
];

/// A document of each kind, as people write them.
fn policies() -> Vec<Value> {
    let document = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "keywright.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    vec![
        document(
            "RotationPolicy",
            "quarterly",
            json!({
                "maxAge": "90d", "overlap": "24h", "spread": "1d", "confirmation": "required", "unconfirmed": "hold",
                "rehearse": "none", "rollout": [1, "10%", "100%"],
                "windows": [{"cron": "0 9 * * Mon-Thu", "timezone": "UTC", "open": "8h"}],
            }),
        ),
        document(
            "Credential",
            "pasted",
            json!({
                "provider": "dinie", "environment": "sandbox", "rotation": "still", "path": "payments/dinie", "account": "one",
                "administeredBy": "other", "twin": "another", "requireGoLive": true, "variables": {"host": "as"},
            }),
        ),
        document(
            "Application",
            "payments",
            json!({
                "environment": "sandbox", "credentials": ["pasted"], "uptake": "stream", "lease": "60s",
                "identity": {"token": {"sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}},
                "endpoints": {"callback": "https://payments.example.com/callback"},
                "delivery": {
                    "file": {"directory": "/run/app", "mode": "0400", "owner": 1000, "group": 1000, "signal": {"pidFile": "/run/app.pid", "name": "HUP"}},
                    "kubernetes": {
                        "secret": "payments", "namespace": "shop", "restart": [{"deployment": "api"}], "batch": 1, "perHour": 6,
                        "windows": [{"cron": "0 9 * * Mon-Thu", "timezone": "UTC", "open": "8h"}],
                    },
                    "webhook": {"url": "https://payments.example.com/hook", "secrets": [{"file": "/etc/secret"}], "allowPrivate": true},
                },
            }),
        ),
        document(
            "Application",
            "pods",
            json!({
                "environment": "sandbox", "credentials": [],
                "identity": {"kubernetes": {"namespace": "payments", "serviceAccount": "payments-api"}},
            }),
        ),
        document(
            "Provider",
            "acme",
            json!({
                "lifecycle": "pairs", "environments": {"sandbox": {"base": "https://sandbox.acme.example/v1"}},
                "fields": {"key": {"class": "secret", "patterns": {"sandbox": "^t_[a-z]+$"}}},
                "calls": {"probe": {"method": "GET", "path": "/ping", "authentication": {"bearer": "key"}}},
                "timing": {"propagation": "2m"}, "limits": {"quota": {"calls": 600, "per": "1m"}, "share": "50%"},
                "facts": [{"about": "calls.probe", "source": "a page", "confidence": "documented"}],
                "goLive": [{"id": "form", "title": "A form", "about": "Of paper.", "confirm": "person", "source": "a page", "confidence": "unknown"}],
            }),
        ),
    ]
}

fn configuration() -> Value {
    json!({
        "policies": "./policies", "store": {"embedded": {"directory": "./data"}}, "journal": {"embedded": {"directory": "./data"}},
        "key": {"file": "./data/keywright.key"}, "audit": {"file": "./data/audit.jsonl"},
        "listen": {"socket": "./data/keywright.sock", "address": "127.0.0.1:1", "streams": 10, "streamsPerIdentity": 5},
        "operators": [{"unix": {"uid": 1000}, "may": ["status"]}, {"token": {"sha256": "9f86"}}],
        "providers": {"dinie": {"sandbox": "https://sandbox.example/v3"}}, "cache": {"maxStale": "5m"},
        "cluster": {"kubeconfig": "./kubeconfig"}, "identities": {"kubernetes": {"audience": "keywright.example"}},
    })
}

fn configurations_with_vault() -> [Value; 3] {
    let vault = |vault: Value| json!({"store": {"vault": vault}});
    let address = "https://vault.example:8200";
    [
        vault(json!({
            "address": address, "mount": "secret", "prefix": "keywright", "namespace": "team", "ca": "./ca.pem",
            "auth": {"appRole": {"mount": "approle", "roleId": "role", "secretIdFile": "./secret-id"}},
        })),
        vault(json!({"address": address, "auth": {"kubernetes": {"mount": "kubernetes", "role": "keywright", "tokenFile": "./jwt"}}})),
        vault(json!({"address": address, "auth": {"token": {"file": "./vault-token"}}})),
    ]
}

fn configuration_with_kubernetes() -> Value {
    json!({"store": {"aws": {}}, "journal": {"kubernetes": {"namespace": "payments", "lease": "keywright", "directory": "./kept"}}})
}

fn configuration_with_aws() -> Value {
    json!({
        "store": {
            "aws": {"region": "eu-central-1", "prefix": "team/keywright", "endpoint": "https://aws.example", "kmsKey": "alias/keywright"},
            "quota": {"calls": 50, "per": "1s"}, "share": "50%",
        },
    })
}

/// An error names the file that it is about: a path is no place for a value. Names of Vault's, AWS's and a cluster's are taken as they stand.
const PATHS: [&str; 21] = [
    "/policies",
    "/store/aws/prefix",
    "/store/embedded/directory",
    "/store/vault/mount",
    "/store/vault/prefix",
    "/store/vault/namespace",
    "/store/vault/ca",
    "/store/vault/auth/appRole/mount",
    "/store/vault/auth/appRole/roleId",
    "/store/vault/auth/appRole/secretIdFile",
    "/store/vault/auth/kubernetes/mount",
    "/store/vault/auth/kubernetes/role",
    "/store/vault/auth/kubernetes/tokenFile",
    "/store/vault/auth/token/file",
    "/journal/embedded/directory",
    "/journal/kubernetes/directory",
    "/cluster/kubeconfig",
    "/identities/kubernetes/audience",
    "/key/file",
    "/audit/file",
    "/listen/socket",
];

/// In place of the secret while a document is put together: it is written in several ways.
const HERE: &str = "here-it-stands";

/// The document with the secret in place of each value, each mapping and each list, and as a field more of each mapping.
fn spoilt(document: &Value) -> Vec<Value> {
    let mut places = Vec::new();
    fn walk(value: &Value, at: &str, places: &mut Vec<String>) {
        places.push(at.to_owned());
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| walk(value, &format!("{at}/{key}"), places)),
            Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| walk(value, &format!("{at}/{index}"), places)),
            _ => {}
        }
    }
    walk(document, "", &mut places);
    let mut all = Vec::new();
    for place in places.iter().filter(|place| !PATHS.contains(&place.as_str())) {
        let mut changed = document.clone();
        let spot = changed.pointer_mut(place).unwrap();
        if let Value::Object(fields) = spot {
            fields.insert(HERE.to_owned(), json!(HERE));
            all.push(changed.clone());
        }
        if !place.is_empty() {
            *changed.pointer_mut(place).unwrap() = json!(HERE);
            all.push(changed);
        }
    }
    all
}

/// As people write YAML: a field a line, lists and small mappings in braces.
fn yaml(document: &Value, secret: &str) -> String {
    fn flow(value: &Value, secret: &str) -> String {
        let text = |text: &str| if text == HERE { secret.to_owned() } else { text.to_owned() };
        match value {
            Value::String(found) if found == HERE => secret.to_owned(),
            Value::String(found) if found.contains(['*', '^', '%', ':']) => format!("\"{found}\""),
            Value::String(found) => found.clone(),
            Value::Array(items) => format!("[{}]", items.iter().map(|item| flow(item, secret)).collect::<Vec<_>>().join(", ")),
            Value::Object(fields) => {
                let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{}: {}", text(key), flow(value, secret))).collect();
                format!("{{{}}}", fields.join(", "))
            }
            other => other.to_string(),
        }
    }
    let mut out = String::new();
    let empty = Map::new();
    for (key, value) in document.as_object().unwrap_or(&empty) {
        let key = if key == HERE { secret } else { key };
        match value {
            Value::Object(fields) if fields.len() > 2 => {
                out.push_str(&format!("{key}:\n"));
                for (key, value) in fields {
                    let key = if key == HERE { secret } else { key };
                    out.push_str(&format!("  {key}: {}\n", flow(value, secret)));
                }
            }
            value => out.push_str(&format!("{key}: {}\n", flow(value, secret))),
        }
    }
    out
}

/// All spoilt documents of these, in one way of writing it.
fn texts(documents: &[Value], canary: &Canary, write: fn(&str) -> String) -> Vec<String> {
    documents.iter().flat_map(spoilt).map(|document| yaml(&document, &write(&canary.value))).collect()
}

/// Each in a file of its own: what is broken hides nothing.
fn paste(site: &Site, texts: &[String]) {
    let _absent = std::fs::remove_dir_all(site.path("policies/pasted"));
    std::fs::create_dir(site.path("policies/pasted")).unwrap();
    for (number, text) in texts.iter().enumerate() {
        std::fs::write(site.path(&format!("policies/pasted/{number}.yaml")), text).unwrap();
    }
}

fn canary(index: usize) -> Canary {
    let canary = Canary::shaped(SHAPES[index], 0xd0_c5);
    // Long ones are cut by the limit of a file, and what is left is as long as a person pastes.
    let end = canary.value.char_indices().nth(1500).map_or(canary.value.len(), |(at, _)| at);
    let cores = canary.cores.iter().map(|core| core.start..core.end.min(end)).filter(|core| core.len() >= 8).collect();
    Canary { value: canary.value[..end].to_owned(), cores, ..canary }
}

fn collect(outputs: &mut Outputs, command: &str, printed: Printed) {
    outputs.add(&format!("stdout of {command}"), printed.stdout);
    outputs.add(&format!("stderr of {command}"), printed.stderr);
}

/// What `check` says of them, for people and for programs, and a daemon that isn't started with them.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_out_of_a_document_with_a_secret_in_it() {
    let canaries: Vec<Canary> = (0..SHAPES.len()).map(canary).collect();
    let (mut outputs, mut written) = (Outputs::default(), 0);
    for (index, canary) in canaries.iter().enumerate() {
        let mut site = Site::new();
        site.rotation("still", STILL);
        site.write();
        let config = site.config();
        for write in WRITTEN {
            let texts = texts(&policies(), canary, write);
            written += texts.len();
            paste(&site, &texts);
            for arguments in [&["check"][..], &["check", "--json"], &["run"]] {
                let arguments: Vec<&str> = arguments.iter().copied().chain(["--config", config.to_str().unwrap()]).collect();
                let printed = keywright(site.folder(), &arguments, &[("RUST_LOG", "trace")], b"").await;
                assert_eq!(printed.code(), Some(2), "{}", printed.err());
                assert!(!(printed.out() + &printed.err()).contains("too-many-problems"), "some aren't shown");
                collect(&mut outputs, arguments[0], printed);
            }
        }
        let [first, second, third] = configurations_with_vault();
        let documents = [configuration(), configuration_with_aws(), configuration_with_kubernetes(), first, second, third];
        let configurations = WRITTEN.map(|write| texts(&documents, canary, write));
        for number in 0..configurations[0].len() {
            // The ways of writing take turns, over the shapes, too.
            std::fs::write(&config, &configurations[(number + index) % WRITTEN.len()][number]).unwrap();
            let arguments = [["check", "status", "run", "plan"][number % 4], "--config", config.to_str().unwrap()];
            let arguments = if number % 3 == index % 3 { &arguments[..] } else { &[arguments[0], "--json", arguments[1], arguments[2]] };
            let printed = keywright(site.folder(), arguments, &[("RUST_LOG", "trace")], b"").await;
            assert_eq!(printed.code(), Some(2), "configuration {number}: {}{}", printed.out(), printed.err());
            written += 1;
            collect(&mut outputs, &format!("{} by a wrong configuration", arguments[0]), printed);
        }
        outputs.files(site.data_files());
    }
    let leaks = outputs.leaks(&Scanner::new(&canaries));
    let (shapes, channels) = (canaries.len(), outputs.channels().len());
    say(&format!("canaries of the process: {written} wrong documents × {shapes} shapes: {} leaks in {channels} channels\n", leaks.len()));
    assert!(leaks.is_empty(), "{leaks:#?}");
}

/// A daemon that runs already keeps its last good policies, and says so without saying what stands there.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_out_of_a_running_daemon_that_reads_such_a_document() {
    let house = House::start(false).await;
    let canaries: Vec<Canary> = (0..SHAPES.len()).map(canary).collect();
    let mut outputs = Outputs::default();
    for (index, canary) in canaries.iter().enumerate() {
        paste(&house.daemon.site, &texts(&policies(), canary, WRITTEN[index % WRITTEN.len()]));
        house.daemon.reload();
        let mut said = false;
        for _ in 0..100 {
            let status = house.daemon.cli(&["status", "--json"]).await;
            said = status.out().contains("policies-invalid");
            if said {
                collect(&mut outputs, "status", status);
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(said, "{}: bad policies aren't told of", canary.name);
        for (word, target) in house.doors() {
            outputs.answer(&format!("metrics over {word}"), &target.get("/metrics", &[]).await);
        }
        outputs.answer("status over the socket", &house.doors()[1].1.get("/v1/status", &[]).await);
        collect(&mut outputs, "status", house.daemon.cli(&["status"]).await);
        collect(&mut outputs, "plan", house.daemon.cli(&["plan"]).await);
        std::fs::remove_dir_all(house.daemon.site.path("policies/pasted")).unwrap();
        house.daemon.reload();
        for _ in 0..100 {
            if !house.daemon.cli(&["status", "--json"]).await.out().contains("policies-invalid") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    outputs.extend(house.left_behind());
    let leaks = outputs.leaks(&Scanner::new(&canaries));
    assert!(leaks.is_empty(), "{leaks:#?}");
}
