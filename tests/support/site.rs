//! One installation on disk: the configuration and policy files of the contract, in a folder of its own.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::dinie::Dinie;
use super::outputs::{LOGS, files_below};
use super::rng::Rng;
use super::sha256_hex;
use super::tls::Authority;
use super::wire::Target;

pub(crate) struct Site {
    folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    /// Provider name to its lines of `environment: url`.
    providers: BTreeMap<String, Vec<String>>,
    documents: Vec<String>,
    /// What stands behind `store:`.
    pub(crate) store: String,
    /// What stands behind `journal:`.
    pub(crate) journal: String,
    pub(crate) extra_config: String,
    /// What else stands in `listen`, with a comma before it.
    pub(crate) more_listen: String,
    /// What the address is served with, and what clients trust.
    pub(crate) authority: Option<Authority>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::Builder::new().prefix("keywright-").tempdir().expect("a temporary folder"),
            address: free_address(),
            providers: BTreeMap::new(),
            documents: Vec::new(),
            store: "{embedded: {directory: ./data}}".to_owned(),
            journal: "{embedded: {directory: ./data}}".to_owned(),
            extra_config: String::new(),
            more_listen: String::new(),
            authority: None,
        }
    }

    /// Sandbox and production Dinie, one credential each, all under one rotation policy.
    pub(crate) fn with_dinies(sandbox: &Dinie, production: &Dinie, rotation: &str) -> Self {
        let mut site = Self::new();
        site.provider("dinie", "sandbox", &sandbox.base_url());
        site.provider("dinie", "production", &production.base_url());
        site.rotation("quick", rotation);
        site.credential("dinie-sandbox", "dinie", "sandbox", "quick");
        if rotation.contains("rehearse: sandbox") {
            let spec = "provider: dinie, environment: production, rotation: quick, twin: dinie-sandbox";
            site.document("Credential", "dinie-production", spec);
        } else {
            site.credential("dinie-production", "dinie", "production", "quick");
        }
        site
    }

    pub(crate) fn provider(&mut self, name: &str, environment: &str, url: &str) {
        self.providers.entry(name.to_owned()).or_default().push(format!("{environment}: \"{url}\""));
    }

    pub(crate) fn rotation(&mut self, name: &str, spec: &str) {
        self.document("RotationPolicy", name, spec);
    }

    pub(crate) fn credential(&mut self, name: &str, provider: &str, environment: &str, rotation: &str) {
        let spec = format!("provider: {provider}, environment: {environment}, rotation: {rotation}");
        self.document("Credential", name, &spec);
    }

    /// Returns the token that its document holds the hash of.
    pub(crate) fn application(&mut self, name: &str, environment: &str, credentials: &[&str], more: &str) -> String {
        let token = format!("app-token-{}", Rng::new(uuid::Uuid::new_v4().as_u64_pair().1).alnum(32));
        let spec = format!(
            "environment: {environment}, credentials: [{}], identity: {{token: {{sha256: \"{}\"}}}}{}{more}",
            credentials.join(", "),
            sha256_hex(token.as_bytes()),
            if more.is_empty() { "" } else { ", " },
        );
        self.document("Application", name, &spec);
        token
    }

    pub(crate) fn document(&mut self, kind: &str, name: &str, spec: &str) {
        self.documents.push(format!("apiVersion: keywright.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"));
    }

    pub(crate) fn forget_document(&mut self, name: &str) {
        let mark = format!("metadata: {{name: {name}}}\n");
        self.documents.retain(|document| !document.contains(&mark));
    }

    /// Writes what was said so far; again after changes, for a reload.
    pub(crate) fn write(&self) {
        let policies = self.path("policies");
        std::fs::create_dir_all(&policies).expect("the policies' folder");
        std::fs::write(policies.join("all.yaml"), self.documents.join("---\n")).expect("the policies are written");
        std::fs::write(self.config(), self.config_text()).expect("the configuration is written");
    }

    fn config_text(&self) -> String {
        let providers: String =
            self.providers.iter().map(|(name, environments)| format!("  {name}: {{{}}}\n", environments.join(", "))).collect();
        let providers = if providers.is_empty() { String::new() } else { format!("providers:\n{providers}") };
        let tls = if self.authority.is_some() { ", tls: {certificate: ./tls/chain.pem, key: ./tls/key.pem}" } else { "" };
        format!(
            "policies: ./policies\n\
             store: {}\n\
             journal: {}\n\
             key: {{file: ./data/keywright.key}}\n\
             audit: {{file: ./data/audit.jsonl}}\n\
             listen: {{socket: ./data/keywright.sock, address: \"{}\"{tls}{}}}\n\
             {providers}{}",
            self.store, self.journal, self.address, self.more_listen, self.extra_config
        )
    }

    /// Makes a certificate and its key, and puts them where the configuration names them. Returns the certificate.
    pub(crate) fn renew_certificate(&self) -> Vec<u8> {
        let issued = self.authority.as_ref().expect("an authority").issue();
        self.put_certificate(&issued.chain, &issued.key);
        issued.der
    }

    /// The key first: it fits its certificate only when both are there.
    pub(crate) fn put_certificate(&self, chain: &str, key: &str) {
        std::fs::create_dir_all(self.path("tls")).expect("a folder");
        for (name, text) in [("tls/key.pem", key), ("tls/chain.pem", chain)] {
            std::fs::write(self.path(name), text).expect("it is written");
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(self.path(name), private).expect("it is private");
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("keywright.yaml")
    }

    pub(crate) fn tcp(&self) -> Target {
        match &self.authority {
            Some(authority) => Target::Tls(self.address, authority.client()),
            None => Target::Tcp(self.address),
        }
    }

    pub(crate) fn socket(&self) -> Target {
        Target::Socket(self.path("data/keywright.sock"))
    }

    /// Every file under `data`, read whole; a name that is gone by then is passed over.
    pub(crate) fn data_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        files_below(&self.path("data"))
    }

    /// What the daemon has printed in all its lives, by file.
    pub(crate) fn logs(&self) -> Vec<(PathBuf, Vec<u8>)> {
        LOGS.map(|name| self.path(name)).into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap_or_default())).collect()
    }
}

/// Below the ports that the kernel hands to outgoing calls: one of those could take the daemon's port while it
/// is down between a kill and its restart.
fn free_address() -> SocketAddr {
    let mut rng = Rng::new(uuid::Uuid::new_v4().as_u64_pair().0);
    for _ in 0..1000 {
        let address = SocketAddr::from(([127, 0, 0, 1], 12_000 + rng.below(18_000) as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port on loopback");
}
