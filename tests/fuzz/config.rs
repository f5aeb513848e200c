//! The configuration file: every mistake has its place and its way out, and what is taken keeps the rules of the contract.

use std::collections::BTreeSet;
use std::path::Path;

use keywright::domain::access::Identity;
use keywright::policies::{Problems, Source};
use keywright::runtime::config::{Config, StoreConfig, parse};

use crate::harness::problems::{CANARY, repeats_a_key, wrong_with};
use crate::harness::{Judged, Target, Verdict, YAML, broken};

const FULL: &str = r#"policies: ./policies
store: {embedded: {directory: ./data}}
journal: {embedded: {directory: ./data}}
key: {file: ./data/keywright.key}
audit: {file: /var/log/audit.jsonl}
listen: {socket: ./data/keywright.sock, address: "[::1]:0", streams: 1000, streamsPerIdentity: 500}
operators: [{unix: {uid: 0}, may: [status, read]}, {unix: {uid: 5}}, {unix: {uid: 7}}]
providers:
  dinie: {sandbox: "http://127.0.0.1:9001/v3/", production: "https://dinie.example/v3"}
cache: {maxStale: 5m}
cluster: {kubeconfig: ./kubeconfig}
identities: {kubernetes: {audience: keywright.example}}
"#;
const SHORT: &str = "# nothing\n";
const TLS: &str = "listen: {address: \"0.0.0.0:8750\", tls: {certificate: ./tls/chain.pem, key: ./tls/key.pem}}\n";
const AWS: &str = "store: {aws: {region: eu-central-1, prefix: team/keywright, endpoint: \"http://127.0.0.1:5000\", kmsKey: alias/k}}\njournal: {embedded: {directory: /var/k}}\n";
const KUBERNETES: &str =
    "store: {aws: {}}\njournal: {kubernetes: {namespace: pay, lease: kw-2, directory: /var/k}}\ncluster: {kubeconfig: ./kubeconfig}\n";
const TOKEN: &str = "operators:\n  - {token: {sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}, may: [status]}\n  - {unix: {uid: 1000}, may: [status, rotate]}\n";
/// With a key that nobody knows: what is written wrongly is an input, too.
const UNKNOWN: &str = "policies: ./policies\nx: 1\nkey: {file: ./k}\n";
/// Plain HTTP for everybody.
const OPEN: &str = "listen: {address: \"0.0.0.0:1\"}\n";
const KNOWN: &[&str] =
    &["policies", "store", "journal", "key", "audit", "listen", "operators", "providers", "cache", "cluster", "identities"];

fn config() -> Target {
    let corpus = [FULL, SHORT, TLS, AWS, KUBERNETES, TOKEN, UNKNOWN, OPEN].map(|text| text.as_bytes().to_vec()).into();
    let words =
        ["policies: a\n", "store", "embedded", "directory", "0.0.0.0:1", "https://a/b", "http://a/", "uid: 7", "may: []", CANARY, "x: "];
    Target::new("config", corpus, &[YAML, &words]).costing(2)
}

fn judge(read: impl Fn(&Source) -> Result<Config, Problems>, input: &[u8]) -> Judged {
    // What isn't UTF-8 is refused before: `fuzz_policies` goes through files.
    let Ok(text) = String::from_utf8(input.to_vec()) else { return Ok(Verdict::Refused) };
    let source = Source { file: "keywright.yaml".to_owned(), text };
    let config = match read(&source) {
        Ok(config) => config,
        Err(problems) => return wrong_with(&problems, &[source]).map_or(Ok(Verdict::Refused), broken),
    };
    if repeats_a_key(&source.text, KNOWN) {
        return broken("taken, and a key stands twice or isn't known");
    }
    if !config.listen.address.ip().is_loopback() && config.listen.tls.is_none() {
        return broken("plain HTTP for more than loopback");
    }
    let operators: BTreeSet<_> = config.operators.iter().map(|operator| &operator.identity).collect();
    if operators.len() < config.operators.len() {
        return broken("two operators are one");
    }
    let bases = config.providers.values().flat_map(|environments| environments.values());
    let is_safe = |base: &String| {
        base.starts_with("https://") || ["http://127.", "http://[::1]", "http://localhost"].iter().any(|start| base.starts_with(start))
    };
    if let Some(base) = bases.into_iter().find(|base| !is_safe(base)) {
        return broken(format!("a provider is called without TLS: {base}"));
    }
    let of_pods = |identity: &Identity| matches!(identity, Identity::Kubernetes(_));
    match &config.identities {
        None if operators.iter().any(|identity| of_pods(identity)) => {
            return broken("a service account, and nobody asks whose tokens these are");
        }
        Some(identities) if matches!(identities.audience.as_str(), "" | "api" | "vault") => return broken("an audience of others"),
        _ => {}
    }
    if let StoreConfig::Aws { settings, .. } = &config.store {
        if settings.endpoint.iter().any(|endpoint| !is_safe(endpoint)) {
            return broken("values go out without TLS");
        }
        if settings.prefix.split('/').any(str::is_empty) || settings.prefix.contains(char::is_whitespace) {
            return broken("a prefix that isn't a part of a name");
        }
    }
    if config.listen.socket.as_os_str().len() > 107 && source.text.contains("socket") {
        return broken("the path of the socket is too long for the system");
    }
    Ok(Verdict::Accepted)
}

fn read(source: &Source) -> Result<Config, Problems> {
    parse(source, Path::new("/etc/keywright"), 7)
}

#[test]
fn fuzz_config() {
    config().run(|input| judge(read, input));
}

#[test]
fn fuzz_config_notices_faults() {
    let changed = |source: &Source, from: &str, to: &str| Source { text: source.text.replace(from, to), ..source.clone() };
    config().notices("a key that isn't known is passed over", |input| judge(|source| read(&changed(source, "x: ", "# ")), input));
    config().notices("addresses aren't looked at", |input| {
        let lenient = |source: &Source| {
            let text = source.text.replace("0.0.0.0:1", "127.0.0.1:1");
            read(&Source { text, ..source.clone() }).map(|mut config| {
                if source.text.contains("0.0.0.0:1") && config.listen.tls.is_none() {
                    config.listen.address = "0.0.0.0:1".parse().unwrap();
                }
                config
            })
        };
        judge(lenient, input)
    });
    config().notices("places are counted from the next line", |input| {
        let moved = |source: &Source| read(&Source { text: format!("#\n{}", source.text), ..source.clone() });
        judge(moved, input)
    });
}
