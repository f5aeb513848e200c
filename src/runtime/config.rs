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
mod tests;
