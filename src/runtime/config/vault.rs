//! `store: {vault: …}`: where Vault is, and how the daemon logs in there.

use std::path::{Path, PathBuf};

use crate::policies::problem::Sink;
use crate::policies::reader::{Fields, text};
use crate::policies::tree::Node;
use crate::policies::values::{Scheme, base_url};
use crate::stores::vault::{APPROLE_MOUNT, Auth, KUBERNETES_MOUNT, SERVICE_ACCOUNT_TOKEN, VaultSettings, check_path};

const MOUNT: &str = "secret";
const PREFIX: &str = "keywright";

pub(super) fn read_vault(node: &Node, folder: &Path, sink: &Sink<'_>) -> Option<VaultSettings> {
    let fields = Fields::of(node, sink)?;
    let address = fields.need("address", "for example `https://vault.example.com:8200`").and_then(|node| address(node, sink));
    let mount = path_or(&fields, "mount", MOUNT, "where the KV engine is mounted, for example `secret`");
    let prefix = path_or(&fields, "prefix", PREFIX, "for example `keywright`");
    let namespace = match fields.get("namespace") {
        Some(node) => Some(vault_path(node, sink, "for example `team-a`")?),
        None => None,
    };
    let ca = fields.get("ca").map(|node| super::path(node, folder, sink));
    let auth = fields.need("auth", "for example `{token: {file: ./vault-token}}`").and_then(|node| read_auth(node, folder, sink));
    fields.done();
    let ca = match ca {
        Some(read) => Some(read?),
        None => None,
    };
    Some(VaultSettings { address: address?, mount: mount?, prefix: prefix?, namespace, ca, auth: auth? })
}

/// The library puts its own path behind the host, before what stood there.
fn address(node: &Node, sink: &Sink<'_>) -> Option<String> {
    let address = base_url(node, sink, Scheme::HttpsOrLoopback)?;
    let has_path = address.split_once("://").is_none_or(|(_, rest)| rest.contains('/'));
    if has_path {
        sink.report(node.place, "bad-url", "the address of Vault has no path", "for example `https://vault.example.com:8200`");
        return None;
    }
    Some(address)
}

fn read_auth(node: &Node, folder: &Path, sink: &Sink<'_>) -> Option<Auth> {
    let fields = Fields::of(node, sink)?;
    let methods = ["token", "appRole", "kubernetes"].map(|method| (method, fields.get(method)));
    fields.done();
    let mut named = methods.into_iter().filter_map(|(method, node)| node.map(|node| (method, node)));
    let (Some((method, inner)), None) = (named.next(), named.next()) else {
        let help = "name one: `token`, `appRole` or `kubernetes`";
        sink.report(node.place, "bad-auth", "the daemon logs in to Vault in one way", help);
        return None;
    };
    let fields = Fields::of(inner, sink)?;
    let auth = match method {
        "token" => file(&fields, "file", folder, "a file with the token, for example `./vault-token`").map(|file| Auth::Token { file }),
        "appRole" => {
            let mount = path_or(&fields, "mount", APPROLE_MOUNT, "where the auth method is mounted, for example `approle`");
            let role_id = word(&fields, "roleId", "the id of the role");
            let secret_id = file(&fields, "secretIdFile", folder, "a file with the secret id, for example `./vault-secret-id`");
            mount.zip(role_id).zip(secret_id).map(|((mount, role_id), secret_id)| Auth::AppRole { mount, role_id, secret_id })
        }
        _ => {
            let mount = path_or(&fields, "mount", KUBERNETES_MOUNT, "where the auth method is mounted, for example `kubernetes`");
            let role = word(&fields, "role", "the role that our service account has");
            let token = match fields.get("tokenFile") {
                Some(node) => super::path(node, folder, sink),
                None => Some(PathBuf::from(SERVICE_ACCOUNT_TOKEN)),
            };
            mount.zip(role).zip(token).map(|((mount, role), token)| Auth::Kubernetes { mount, role, token })
        }
    };
    fields.done();
    auth
}

fn file(fields: &Fields<'_>, name: &'static str, folder: &Path, help: &str) -> Option<PathBuf> {
    fields.need(name, help).and_then(|node| super::path(node, folder, fields.sink))
}

/// Not secret, and in a request's body.
fn word(fields: &Fields<'_>, name: &'static str, help: &str) -> Option<String> {
    let node = fields.need(name, help)?;
    let written = text(node, fields.sink)?;
    if written.is_empty() || !written.bytes().all(|byte| byte.is_ascii_graphic()) {
        fields.sink.report(node.place, "bad-value", "this is no name of Vault's", help);
        return None;
    }
    Some(written.to_owned())
}

fn path_or(fields: &Fields<'_>, name: &'static str, default: &str, help: &str) -> Option<String> {
    match fields.get(name) {
        Some(node) => vault_path(node, fields.sink, help),
        None => Some(default.to_owned()),
    }
}

/// Slashes around it are how Vault's own tools print it.
fn vault_path(node: &Node, sink: &Sink<'_>, help: &str) -> Option<String> {
    let written = text(node, sink)?.trim_matches('/');
    match check_path(written) {
        Ok(()) => Some(written.to_owned()),
        Err(error) => {
            sink.report(node.place, "bad-path", error.to_string(), help);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::{Config, StoreConfig, parse};
    use super::*;
    use crate::policies::{Problems, Source};

    fn parsed(vault: &str) -> Result<Config, Problems> {
        let text = format!("store: {{vault: {vault}}}\n");
        parse(&Source { file: "k.yaml".to_owned(), text }, Path::new("/etc/keywright"), 7)
    }

    fn settings(vault: &str) -> VaultSettings {
        match parsed(vault).unwrap().store {
            StoreConfig::Vault { settings, .. } => settings,
            StoreConfig::Embedded { .. } | StoreConfig::Aws { .. } => panic!("not Vault"),
        }
    }

    #[test]
    fn what_is_left_out_has_a_default_and_nothing_comes_from_elsewhere() {
        let read = settings("{address: \"https://vault.example.com:8200/\", auth: {token: {file: ./token}}}");
        let expected = VaultSettings {
            address: "https://vault.example.com:8200".to_owned(),
            mount: "secret".to_owned(),
            prefix: "keywright".to_owned(),
            namespace: None,
            ca: None,
            auth: Auth::Token { file: PathBuf::from("/etc/keywright/token") },
        };
        assert_eq!(read, expected);
        assert_eq!(
            parsed("{address: \"https://v\", auth: {token: {file: t}}}").unwrap().data_directory(),
            Path::new("/etc/keywright/data")
        );
    }

    #[test]
    fn each_way_to_log_in_is_read() {
        let read = settings(
            "{address: \"http://127.0.0.1:8200\", mount: /kv/team/, prefix: a/b, namespace: n, ca: ./ca.pem, auth: {appRole: {roleId: r, \
             secretIdFile: ./s}}}",
        );
        assert_eq!((read.mount.as_str(), read.prefix.as_str(), read.namespace.as_deref()), ("kv/team", "a/b", Some("n")));
        assert_eq!(read.ca.as_deref(), Some(Path::new("/etc/keywright/ca.pem")));
        let secret_id = PathBuf::from("/etc/keywright/s");
        assert_eq!(read.auth, Auth::AppRole { mount: "approle".to_owned(), role_id: "r".to_owned(), secret_id });
        let read = settings("{address: \"https://v\", auth: {kubernetes: {role: r, mount: k8s/one}}}");
        let token = PathBuf::from(SERVICE_ACCOUNT_TOKEN);
        assert_eq!(read.auth, Auth::Kubernetes { mount: "k8s/one".to_owned(), role: "r".to_owned(), token });
    }

    #[test]
    fn the_embedded_journal_lies_where_it_is_said() {
        let text = "store: {vault: {address: \"https://v\", auth: {token: {file: t}}}}\njournal: {embedded: {directory: ./j}}\n";
        let config = parse(&Source { file: "k.yaml".to_owned(), text: text.to_owned() }, Path::new("/k"), 7).unwrap();
        assert_eq!((config.data_directory(), config.key.as_path()), (Path::new("/k/j"), Path::new("/k/j/keywright.key")));
    }

    #[rstest]
    #[case("{address: \"http://vault.example.com\", auth: {token: {file: t}}}", &["bad-url"])]
    #[case("{address: \"https://v/vault\", auth: {token: {file: t}}}", &["bad-url"])]
    #[case("{address: \"https://v\", mount: a/../b, prefix: \"a b\", auth: {token: {file: t}}}", &["bad-path", "bad-path"])]
    #[case("{address: \"https://v\", namespace: \"a\\nb\", auth: {token: {file: t}}}", &["bad-path"])]
    #[case("{address: \"https://v\", auth: {token: made-for-a-test}}", &["bad-type"])]
    #[case("{address: \"https://v\", auth: {}}", &["bad-auth"])]
    #[case("{address: \"https://v\", auth: {token: {file: t}, kubernetes: {role: r}}}", &["bad-auth"])]
    #[case("{address: \"https://v\", auth: {appRole: {roleId: \"a b\"}}}", &["missing-field", "bad-value"])]
    #[case("{address: \"https://v\", verify: false, auth: {token: {file: t}}}", &["unknown-field"])]
    fn what_is_wrong_is_told(#[case] vault: &str, #[case] expected: &[&str]) {
        let problems = parsed(vault).unwrap_err();
        assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), expected);
    }
}
