//! The configuration file: as written, then valid, with the same strictness and the same problems as the policies.

mod aws;
mod cluster;
mod identities;
mod journal;
mod listen;
mod vault;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::cluster::ClusterSettings;
use crate::domain::access::{Identity, Operator, Right};
use crate::domain::credential::Environment;
use crate::domain::ids::Name;
use crate::domain::provider::Limits;
use crate::domain::span::Span;
use crate::journal::kubernetes::KubernetesSettings;
use crate::policies::problem::Sink;
use crate::policies::provider::limits::read_quota_and_share;
use crate::policies::reader::{At, Fields, choice, entries, list, text};
use crate::policies::tree::{self, Key, Node};
use crate::policies::values::{ENVIRONMENTS, Scheme, base_url, identity_of, span};
use crate::policies::{Problems, Source, read_sources};
use crate::stores::aws::AwsSettings;
use crate::stores::vault::VaultSettings;

use journal::JournalWritten;

pub use identities::{AUDIENCE_HELP, KubernetesIdentities};
pub use listen::Listen;

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8750);

/// What the daemon runs with. Relative paths of the file were joined to its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that this is from, if there is one.
    pub file: Option<PathBuf>,
    /// A folder tree, or one file.
    pub policies: PathBuf,
    pub store: StoreConfig,
    /// What the store allows, and our share of it; without a quota nothing is held back.
    pub store_limits: Limits,
    pub journal: JournalConfig,
    /// The Kubernetes cluster; the one that we run in by default.
    pub cluster: ClusterSettings,
    /// Whose tokens are taken beside static ones; none but those where the file doesn't say.
    pub identities: Option<KubernetesIdentities>,
    /// The key-encryption and fingerprint key.
    pub key: PathBuf,
    pub audit: PathBuf,
    pub listen: Listen,
    pub operators: Vec<Operator>,
    /// Base URLs, without a closing slash, that replace those of the descriptions.
    pub providers: BTreeMap<Name, BTreeMap<Environment, String>>,
    /// How old what is served may be while the store is away. `None` where the file doesn't say.
    pub max_stale: Option<Span>,
}

/// Where values are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    Embedded {
        directory: PathBuf,
    },
    /// The journal, which no such store can keep, lies in the embedded file in `directory`.
    Aws {
        directory: PathBuf,
        settings: AwsSettings,
    },
    /// As with AWS.
    Vault {
        directory: PathBuf,
        settings: VaultSettings,
    },
}

/// Where rotations are journaled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalConfig {
    /// In the embedded file, which is also the embedded store's.
    BesideStore,
    /// In ConfigMaps, which replicas share. The key and the audit trail stay in the data directory, as does an embedded store.
    Kubernetes(KubernetesSettings),
}

impl Config {
    /// Reads the file, or gives the defaults where there is none, for the user that this process runs as.
    ///
    /// # Errors
    /// All problems together.
    pub fn load(file: Option<&Path>) -> Result<Config, Problems> {
        read(file, rustix::process::geteuid().as_raw())
    }

    /// What holds without a file: everything below the working directory.
    pub fn without_file(uid: u32) -> Config {
        Config::default_in(Path::new(""), uid)
    }

    fn default_in(base: &Path, uid: u32) -> Config {
        let data = base.join("data");
        Config {
            file: None,
            policies: base.join("policies"),
            key: data.join("keywright.key"),
            audit: data.join("audit.jsonl"),
            listen: Listen { socket: data.join("keywright.sock"), address: ADDRESS, tls: None, streams: None, streams_per_identity: None },
            store: StoreConfig::Embedded { directory: data },
            store_limits: Limits::default(),
            journal: JournalConfig::BesideStore,
            cluster: ClusterSettings::default(),
            identities: None,
            operators: vec![Operator { identity: Identity::Unix { uid }, may: Right::ALL.into() }],
            providers: BTreeMap::new(),
            max_stale: None,
        }
    }

    /// Whoever moves the data moves all of it; each file can still be named by itself.
    fn put_data_in(&mut self, directory: &Path) {
        self.key = directory.join("keywright.key");
        self.audit = directory.join("audit.jsonl");
        self.listen.socket = directory.join("keywright.sock");
        self.store = StoreConfig::Embedded { directory: directory.to_owned() };
    }

    /// The folder that the daemon creates with mode 0700.
    pub fn data_directory(&self) -> &Path {
        match &self.store {
            StoreConfig::Embedded { directory } | StoreConfig::Aws { directory, .. } | StoreConfig::Vault { directory, .. } => directory,
        }
    }
}

/// Reads the file, or gives the defaults where there is none. `uid` is the daemon's own: the operator by default.
///
/// # Errors
/// All problems together.
pub fn read(file: Option<&Path>, uid: u32) -> Result<Config, Problems> {
    let Some(file) = file else { return Ok(Config::without_file(uid)) };
    let sources = read_sources(file).map_err(|(_, problems)| problems)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let [source] = &sources[..] else { return Err(not_one_file(file)) };
    parse(source, folder, uid).map(|config| Config { file: Some(file.to_owned()), ..config })
}

fn not_one_file(file: &Path) -> Problems {
    let name = file.display().to_string();
    let problem = crate::policies::Problem::of_file(name, "unreadable", "the configuration is one file", "name the file, not a folder");
    Problems::new(vec![problem], &[])
}

/// The pure part of [`read`]: `folder` is what relative paths are relative to.
///
/// # Errors
/// All problems together.
pub fn parse(source: &Source, folder: &Path, uid: u32) -> Result<Config, Problems> {
    let sources = std::slice::from_ref(source);
    let sink = Sink::new(sources);
    let documents = tree::documents(0, &source.text, &sink);
    if let Some(second) = documents.get(1) {
        sink.report(second.place, "one-document", "a configuration is one document", "remove the `---` and what follows it");
    }
    let mut config = Config::default_in(folder, uid);
    if let Some(fields) = documents.first().and_then(|node| Fields::of(node, &sink)) {
        read_fields(&fields, folder, uid, &mut config);
        fields.done();
    }
    sink.finish()?;
    Ok(config)
}

fn read_fields(fields: &Fields<'_>, folder: &Path, uid: u32, config: &mut Config) {
    let sink = fields.sink;
    if let Some(path) = fields.get("policies").and_then(|node| path(node, folder, sink)) {
        config.policies = path;
    }
    let store = fields.get("store").and_then(|node| read_store(node, folder, sink, &mut config.store_limits));
    if let Some(StoreWritten::Embedded(At { value: Some(directory), .. })) = &store {
        config.put_data_in(directory);
    }
    match fields.get("journal").and_then(|node| journal::read_journal(node, folder, sink)) {
        Some(JournalWritten::Kubernetes(settings, directory)) => {
            config.journal = JournalConfig::Kubernetes(settings);
            directory.into_iter().for_each(|directory| put_kept_in(store.as_ref(), directory, sink, config));
        }
        Some(JournalWritten::Embedded(journal)) => put_journal_beside(store.as_ref(), journal, sink, config),
        None => {}
    }
    let directory = config.data_directory().to_owned();
    match store {
        Some(StoreWritten::Aws(settings)) => config.store = StoreConfig::Aws { directory, settings },
        Some(StoreWritten::Vault(settings)) => config.store = StoreConfig::Vault { directory, settings },
        Some(StoreWritten::Embedded(_)) | None => {}
    }
    if let Some(file) = fields.get("key").and_then(|node| read_file_field(node, folder, sink)) {
        config.key = file;
    }
    if let Some(file) = fields.get("audit").and_then(|node| read_file_field(node, folder, sink)) {
        config.audit = file;
    }
    if let Some(cluster) = fields.get("cluster").and_then(|node| cluster::read_cluster(node, folder, sink)) {
        config.cluster = cluster;
    }
    if let Some(node) = fields.get("listen") {
        listen::read_listen(node, folder, sink, config);
    }
    config.identities = fields.get("identities").and_then(|node| identities::read_identities(node, sink));
    if let Some(node) = fields.get("operators") {
        config.operators = list(node, sink).unwrap_or_default().iter().filter_map(|item| read_operator(item, uid, sink)).collect();
        check_operators(node, config, sink);
    }
    if let Some(node) = fields.get("providers") {
        config.providers = read_providers(node, sink);
    }
    if let Some(node) = fields.get("cache")
        && let Some(cache) = Fields::of(node, sink)
    {
        config.max_stale = cache.get("maxStale").and_then(|node| span(node, sink)).map(|span| span.value);
        cache.done();
    }
}

/// What stays on this machine although the journal doesn't: what is kept of the store.
fn put_kept_in(store: Option<&StoreWritten>, directory: At<PathBuf>, sink: &Sink<'_>, config: &mut Config) {
    if matches!(store, Some(StoreWritten::Aws(_) | StoreWritten::Vault(_))) {
        return config.put_data_in(&directory.value);
    }
    let help = "name it in `store: {embedded: {directory}}`: here it is for values that lie at AWS or in Vault";
    sink.report(directory.place, "journal-elsewhere", "the embedded store has a directory of its own", help);
}

fn put_journal_beside(store: Option<&StoreWritten>, journal: At<Option<PathBuf>>, sink: &Sink<'_>, config: &mut Config) {
    let Some(directory) = journal.value.filter(|directory| directory != config.data_directory()) else { return };
    if matches!(store, Some(StoreWritten::Aws(_) | StoreWritten::Vault(_))) {
        return config.put_data_in(&directory);
    }
    let help = "leave `journal` out: the embedded journal is in the file of the embedded store, so that both commit together";
    sink.report(journal.place, "journal-elsewhere", "the embedded journal isn't beside the store", help);
}

fn path(node: &Node, folder: &Path, sink: &Sink<'_>) -> Option<PathBuf> {
    let written = text(node, sink)?;
    if written.is_empty() || written.contains('\0') {
        sink.report(node.place, "bad-path", "this is no path", "for example `./data`");
        return None;
    }
    Some(join(folder, written))
}

/// Joined without `.` parts, so that two spellings of one path are equal.
fn join(folder: &Path, written: &str) -> PathBuf {
    let joined: PathBuf = folder.join(written).components().filter(|part| *part != std::path::Component::CurDir).collect();
    if joined.as_os_str().is_empty() { PathBuf::from(".") } else { joined }
}

/// The store that was chosen.
enum StoreWritten {
    /// With the directory, if it was named.
    Embedded(At<Option<PathBuf>>),
    Aws(AwsSettings),
    Vault(VaultSettings),
}

fn read_store(node: &Node, folder: &Path, sink: &Sink<'_>, limits: &mut Limits) -> Option<StoreWritten> {
    let fields = Fields::of(node, sink)?;
    let (quota, share) = read_quota_and_share(&fields, sink);
    *limits = Limits { quota, share, ..Limits::default() };
    let (embedded, aws, vault) = (fields.has("embedded"), fields.get("aws"), fields.get("vault"));
    if aws.is_none() && vault.is_none() {
        return read_embedded(fields, folder).map(StoreWritten::Embedded);
    }
    if embedded {
        fields.get("embedded");
    }
    let named: Vec<&str> = ["embedded", "aws", "vault"].into_iter().filter(|name| fields.has(name)).collect();
    if let (true, Some(second)) = (named.len() > 1, named.last().and_then(|name| fields.key(name))) {
        sink.report(second.place, "two-stores", "there is one store", "name one of `embedded`, `aws` and `vault`");
    }
    fields.done();
    match (aws, vault) {
        (Some(aws), _) => aws::read_aws(aws, sink).map(StoreWritten::Aws),
        (None, Some(vault)) => vault::read_vault(vault, folder, sink).map(StoreWritten::Vault),
        (None, None) => None,
    }
}

/// `{embedded: {directory}}`.
fn read_embedded(fields: Fields<'_>, folder: &Path) -> Option<At<Option<PathBuf>>> {
    let sink = fields.sink;
    let embedded = fields.need("embedded", "for example `{embedded: {directory: ./data}}`");
    fields.done();
    let inner = Fields::of(embedded?, sink)?;
    let (directory, inner_place) = (inner.get("directory"), inner.place);
    inner.done();
    let place = directory.map_or(inner_place, |node| node.place);
    Some(At { value: directory.map(|node| path(node, folder, sink)).unwrap_or_default(), place })
}

fn read_file_field(node: &Node, folder: &Path, sink: &Sink<'_>) -> Option<PathBuf> {
    let fields = Fields::of(node, sink)?;
    let file = fields.need("file", "for example `{file: ./data/keywright.key}`").and_then(|node| path(node, folder, sink));
    fields.done();
    file
}

fn read_operator(node: &Node, uid: u32, sink: &Sink<'_>) -> Option<Operator> {
    let fields = Fields::of(node, sink)?;
    let identity = identity_of(&fields, node);
    let may = match fields.get("may") {
        Some(node) => {
            let rights = list(node, sink).unwrap_or_default();
            let words = Right::ALL.map(|right| (right.as_str(), right));
            rights.iter().filter_map(|right| choice(right, sink, &words)).map(|right| right.value).collect()
        }
        None if identity.as_ref().is_some_and(|identity| identity.value == Identity::Unix { uid }) => Right::ALL.into(),
        None => BTreeSet::from([Right::Status, Right::Rotate]),
    };
    fields.done();
    Some(Operator { identity: identity?.value, may })
}

fn check_operators(node: &Node, config: &Config, sink: &Sink<'_>) {
    let distinct: BTreeSet<&Identity> = config.operators.iter().map(|operator| &operator.identity).collect();
    if distinct.len() < config.operators.len() {
        sink.report(node.place, "duplicate-identity", "two operators have one identity", "list each once, with all that it may");
    }
    if config.identities.is_none() && distinct.iter().any(|identity| matches!(identity, Identity::Kubernetes(_))) {
        sink.report(node.place, "identities-missing", "an operator is a service account, and no audience is named", AUDIENCE_HELP);
    }
}

fn read_providers(node: &Node, sink: &Sink<'_>) -> BTreeMap<Name, BTreeMap<Environment, String>> {
    let mut providers = BTreeMap::new();
    for (key, node) in entries(node, sink).unwrap_or_default() {
        let bases = read_bases(node, sink);
        match key.text.parse::<Name>() {
            Ok(name) => {
                providers.insert(name, bases);
            }
            Err(error) => sink.report(key.place, "bad-name", error.to_string(), "the name of a Provider, for example `dinie`"),
        }
    }
    providers
}

fn read_bases(node: &Node, sink: &Sink<'_>) -> BTreeMap<Environment, String> {
    let read = entries(node, sink).unwrap_or_default().iter().filter_map(|(Key { text, place }, node)| {
        let Some((_, environment)) = ENVIRONMENTS.iter().find(|(word, _)| word == text) else {
            sink.report(*place, "unknown-field", "unknown environment", "there are two: sandbox, production");
            return None;
        };
        Some((*environment, base_url(node, sink, Scheme::HttpsOrLoopback)?))
    });
    read.collect()
}

#[cfg(test)]
mod tests {
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
            let config = parsed(&format!("store: {{{store}}}\njournal: {{kubernetes: {{}}}}\n"))
                .unwrap_or_else(|wrong| panic!("{store}: {wrong:?}"));
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
}
