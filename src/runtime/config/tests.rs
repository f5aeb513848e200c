//! What the configuration file may say, and what is wrong in it, with its place.

use rstest::rstest;

use super::*;

fn parsed(text: &str) -> Result<Config, Problems> {
    parse(&Source { file: "k.yaml".to_owned(), text: text.to_owned() }, Path::new("/etc/keywright"), 7)
}

#[test]
fn nothing_said_is_the_default() {
    let config = Config::without_file(7);
    assert_eq!(config.policies, Path::new("policies"));
    assert_eq!(config.data_directory(), Path::new("data"));
    assert_eq!((config.key.as_path(), config.audit.as_path()), (Path::new("data/keywright.key"), Path::new("data/audit.jsonl")));
    assert_eq!(
        (config.listen.socket.as_path(), config.listen.address.to_string()),
        (Path::new("data/keywright.sock"), "127.0.0.1:8750".to_owned())
    );
    assert_eq!(config.operators, [Operator { identity: Identity::Unix { uid: 7 }, may: Right::ALL.into() }]);
    let empty = parsed("# nothing\n").unwrap();
    assert_eq!(empty.key, Path::new("/etc/keywright/data/keywright.key"));
    assert_eq!(read(None, 7).unwrap(), config);
}

#[test]
fn the_contracts_example_is_read_as_it_stands() {
    let config = parsed(
        r#"
policies: ./policies
store: {embedded: {directory: ./data}}
journal: {embedded: {directory: ./data}}
key: {file: ./data/keywright.key}
audit: {file: /var/log/audit.jsonl}
listen: {socket: ./data/keywright.sock, address: "[::1]:0"}
operators: [{unix: {uid: 0}, may: [status, read]}, {unix: {uid: 5}}, {unix: {uid: 7}}]
providers:
  dinie: {sandbox: "http://127.0.0.1:9001/v3/", production: "https://dinie.example/v3"}
cache: {maxStale: 1h}
"#,
    )
    .unwrap();
    assert_eq!(config.policies, Path::new("/etc/keywright/policies"));
    assert_eq!(config.audit, Path::new("/var/log/audit.jsonl"));
    assert_eq!(config.listen.address.to_string(), "[::1]:0");
    assert_eq!(config.operators[0].may, [Right::Status, Right::Read].into());
    assert_eq!(config.operators[1].may, [Right::Status, Right::Rotate].into());
    assert_eq!(config.operators[2].may, Right::ALL.into(), "the daemon's own uid");
    assert_eq!(config.listen.tls, None);
    let dinie = &config.providers[&"dinie".parse().unwrap()];
    assert_eq!(dinie[&Environment::Sandbox], "http://127.0.0.1:9001/v3");
    assert_eq!(config.max_stale, Some(Span::from_secs(3600)));
}

#[test]
fn values_may_lie_at_aws_and_the_journal_in_a_folder() {
    let config = parsed("store: {aws: {region: eu-central-1, prefix: team/keywright, kmsKey: alias/k}}\n").unwrap();
    let settings = AwsSettings {
        region: Some("eu-central-1".to_owned()),
        prefix: "team/keywright".to_owned(),
        endpoint: None,
        kms_key: Some("alias/k".to_owned()),
    };
    assert_eq!(config.store, StoreConfig::Aws { directory: "/etc/keywright/data".into(), settings });
    assert_eq!(config.key, Path::new("/etc/keywright/data/keywright.key"));
    let config = parsed("store: {aws: {endpoint: \"http://127.0.0.1:5000/\"}}\njournal: {embedded: {directory: /var/k}}\n").unwrap();
    let StoreConfig::Aws { directory, settings } = &config.store else { panic!("{:?}", config.store) };
    assert_eq!((directory.as_path(), settings.prefix.as_str()), (Path::new("/var/k"), "keywright"));
    assert_eq!(settings.endpoint.as_deref(), Some("http://127.0.0.1:5000"));
    assert_eq!((config.data_directory(), config.audit.as_path()), (Path::new("/var/k"), Path::new("/var/k/audit.jsonl")));
}

#[test]
fn the_journal_may_lie_in_kubernetes_beside_any_store() {
    let journal = |text: &str| parsed(text).unwrap().journal;
    let kubernetes = |namespace: Option<&str>, lease: &str| {
        let namespace = namespace.map(|namespace| namespace.parse().unwrap());
        JournalConfig::Kubernetes(KubernetesSettings { namespace, lease: lease.parse().unwrap() })
    };
    assert_eq!(journal("journal: {kubernetes: {}}\n"), kubernetes(None, "keywright"));
    assert_eq!(journal("journal: {kubernetes: {namespace: pay, lease: kw-2}}\n"), kubernetes(Some("pay"), "kw-2"));
    for store in ["embedded: {directory: /var/k}", "aws: {}", "vault: {address: \"https://v.example\", auth: {token: {file: ./t}}}"] {
        let config =
            parsed(&format!("store: {{{store}}}\njournal: {{kubernetes: {{}}}}\n")).unwrap_or_else(|wrong| panic!("{store}: {wrong:?}"));
        assert_eq!(config.journal, kubernetes(None, "keywright"));
        assert!(config.key.ends_with("keywright.key"), "{store}");
    }
    let config = parsed("store: {aws: {}}\njournal: {kubernetes: {directory: /var/k}}\n").unwrap();
    assert_eq!((config.data_directory(), config.audit.as_path()), (Path::new("/var/k"), Path::new("/var/k/audit.jsonl")));
    assert_eq!(config.journal, kubernetes(None, "keywright"), "what is kept of the store lies here all the same");
    assert_eq!(journal(""), JournalConfig::BesideStore);
}

#[test]
fn a_kubeconfig_stands_beside_the_configuration() {
    let config = parsed("cluster: {kubeconfig: ./kubeconfig}\n").unwrap();
    assert_eq!(config.cluster.kubeconfig.as_deref(), Some(Path::new("/etc/keywright/kubeconfig")));
    assert_eq!(parsed("").unwrap().cluster, ClusterSettings::default());
}

#[test]
fn tls_opens_other_addresses_and_its_files_stand_beside_the_configuration() {
    let config = parsed("listen: {address: \"0.0.0.0:8750\", tls: {certificate: ./tls/c.pem, key: /run/k.pem}}\n").unwrap();
    assert_eq!(config.listen.address.to_string(), "0.0.0.0:8750");
    let files = crate::runtime::tls::TlsFiles { certificate: "/etc/keywright/tls/c.pem".into(), key: "/run/k.pem".into() };
    assert_eq!(config.listen.tls, Some(files));
    let config = parsed("listen: {tls: {certificate: c, key: k}}\n").unwrap();
    assert_eq!(config.listen.address, ADDRESS, "also on loopback, for who wants it there");
    assert!(config.listen.tls.is_some());
}

#[test]
fn how_many_streams_there_may_be_can_be_said() {
    let config = parsed("listen: {streams: 10000, streamsPerIdentity: 5000}\n").unwrap();
    assert_eq!((config.listen.streams, config.listen.streams_per_identity), (Some(10_000), Some(5_000)));
    let nothing = parsed("listen: {}\n").unwrap();
    assert_eq!((nothing.listen.streams, nothing.listen.streams_per_identity), (None, None));
}

#[test]
fn whoever_moves_the_data_moves_all_of_it() {
    let config = parsed("store: {embedded: {directory: /var/lib/keywright}}\n").unwrap();
    assert_eq!(config.key, Path::new("/var/lib/keywright/keywright.key"));
    assert_eq!(config.listen.socket, Path::new("/var/lib/keywright/keywright.sock"));
}

#[rstest]
#[case("[]", &["1:1 bad-type"])]
#[case("polices: x", &["1:1 unknown-field"])]
#[case("policies: ''", &["1:11 bad-path"])]
#[case("a: 1\n---\nb: 2\n", &["1:1 unknown-field", "3:1 one-document"])]
#[case("store: {aws: {region: EU, prefix: /a, endpoint: \"http://a.example\", kmsKey: '', zone: b}}", &["1:23 bad-value", "1:35 bad-value", "1:49 bad-url", "1:77 bad-value", "1:81 unknown-field"])]
#[case("store: {aws: {prefix: a//b}, embedded: {}}", &["1:9 two-stores", "1:23 bad-value"])]
#[case("store: {vault: {}, aws: {}}", &["1:9 two-stores"])]
#[case("store: {vault: {}, embedded: {}}", &["1:9 two-stores", "1:16 missing-field", "1:16 missing-field"])]
#[case("store: {}", &["1:8 missing-field"])]
#[case("store: {embedded: {}, quota: {calls: 50, per: 1s}, share: 101%}", &["1:59 bad-share"])]
#[case("store: {embedded: {}, quota: {calls: 50, per: 1s}, share: 1%}", &["1:30 share-too-small"])]
#[case("store: {embedded: {}, quota: 50}", &["1:30 bad-type"])]
#[case("journal: {}", &["1:10 missing-field"])]
#[case("journal: {kubernetes: {namespace: A, lease: a.b, context: c}}", &["1:35 bad-name", "1:45 bad-name", "1:50 unknown-field"])]
#[case("journal: {kubernetes: {}, embedded: {directory: ./a}}", &["1:23 two-journals"])]
#[case("journal: {kubernetes: x}", &["1:23 bad-type"])]
#[case("journal: {kubernetes: {directory: ./kept}}", &["1:35 journal-elsewhere"])]
#[case("journal: {embedded: {directory: ./elsewhere}}", &["1:33 journal-elsewhere"])]
#[case("key: x", &["1:6 bad-type"])]
#[case("cluster: {}", &["1:10 missing-field"])]
#[case("cluster: {kubeconfig: '', namespace: a}", &["1:23 bad-path", "1:27 unknown-field"])]
#[case("listen: {address: \"0.0.0.0:8750\"}", &["1:19 tls-required"])]
#[case("listen: {address: \"[::]:8750\"}", &["1:19 tls-required"])]
#[case("listen: {address: \"0.0.0.0:8750\", tls: {}}", &["1:40 missing-field", "1:40 missing-field"])]
#[case("listen: {tls: {certificate: a, key: '', ca: b}}", &["1:37 bad-path", "1:41 unknown-field"])]
#[case("listen: {tls: a}", &["1:15 bad-type"])]
#[case("listen: {address: none}", &["1:19 bad-address"])]
#[case("listen: {streams: 0, streamsPerIdentity: 60001}", &["1:19 bad-type", "1:42 bad-type"])]
#[case("operators: [{unix: {uid: 0}, may: [all]}, {token: {sha256: x}}, {}]", &["1:36 bad-value", "1:60 bad-hash", "1:65 bad-identity"])]
#[case("operators: [{unix: {uid: 0}}, {unix: {uid: 0}}]", &["1:12 duplicate-identity"])]
#[case("operators: [{kubernetes: {namespace: ops, serviceAccount: rota}}]", &["1:12 identities-missing"])]
#[case("identities: {}", &["1:13 missing-field"])]
#[case("identities: {kubernetes: {}, oidc: {}}", &["1:26 missing-field", "1:30 unknown-field"])]
#[case("identities: {kubernetes: {audience: api}}", &["1:37 bad-audience"])]
#[case("providers: {Dinie: {sandbox: \"https://a.example\"}}", &["1:13 bad-name"])]
#[case("providers: {dinie: {sandbox: \"http://a.example\", staging: x}}", &["1:30 bad-url", "1:50 unknown-field"])]
#[case("providers: {dinie: {sandbox: \"https://u@a.example\"}}", &["1:30 bad-url"])]
#[case("providers: {dinie: {sandbox: \"http://127.0.0.1.evil.example\"}}", &["1:30 bad-url"])]
#[case("cache: {maxStale: 1}", &["1:19 bad-duration"])]
fn what_is_wrong_is_told_with_its_place(#[case] text: &str, #[case] expected: &[&str]) {
    let problems = parsed(text).unwrap_err();
    let found: Vec<String> = problems.iter().map(|p| format!("{}:{} {}", p.line, p.column, p.code)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_configuration_that_is_no_file_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("gone.yaml")] {
        assert_eq!(read(Some(&path), 0).unwrap_err().as_slice().len(), 1);
    }
    let file = folder.path().join("k.yaml");
    std::fs::write(&file, "policies: rules\n").unwrap();
    assert_eq!(read(Some(&file), 0).unwrap().policies, folder.path().join("rules"));
}
