//! Where the API is and who we are there: from the folder that each pod has, or from a kubeconfig.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use http::Uri;
use kube::config::{AuthInfo, Kubeconfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Where each pod finds its token, the certificate authority of the API, and the name of its namespace.
const POD_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The API's name in each cluster.
const POD_ADDRESS: &str = "https://kubernetes.default.svc";

/// Which cluster; the one that we run in by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Read in place of the pod's own folder. Its current context counts.
    pub kubeconfig: Option<PathBuf>,
}

/// Why there can't be a connection. Each says the way out; none repeats what is in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("could not read `{}`: outside of a pod, name a kubeconfig as `cluster: {{kubeconfig: FILE}}`; in one, let it mount its service account's token", .file.display())]
    NotInPod { file: PathBuf },
    #[error("could not read `{}` as a kubeconfig", .file.display())]
    Unreadable { file: PathBuf },
    #[error("the kubeconfig `{}` can't be used: {problem}", .file.display())]
    Unusable { file: PathBuf, problem: &'static str },
    #[error("the token, certificate or key for the Kubernetes API can't be used: check the files that the kubeconfig or the pod names")]
    Credentials,
}

impl ClusterSettings {
    pub(super) fn read(&self) -> Result<kube::Config, ConnectError> {
        match &self.kubeconfig {
            Some(file) => of_kubeconfig(file),
            None => of_pod(Uri::from_static(POD_ADDRESS), Path::new(POD_FOLDER)),
        }
    }
}

/// The token and the authority are read again each minute: both change while we run.
pub(super) fn of_pod(address: Uri, folder: &Path) -> Result<kube::Config, ConnectError> {
    let missing = |name: &str| ConnectError::NotInPod { file: folder.join(name) };
    let token = folder.join("token");
    std::fs::metadata(&token).map_err(|_| missing("token"))?;
    let authority = std::fs::read(folder.join("ca.crt")).map_err(|_| missing("ca.crt"))?;
    let namespace = std::fs::read_to_string(folder.join("namespace")).map_err(|_| missing("namespace"))?;
    let mut config = kube::Config::new(address);
    config.default_namespace = namespace.trim().to_owned();
    config.root_cert = Some(certificates(&authority).ok_or(ConnectError::Credentials)?);
    config.root_cert_file = Some(folder.join("ca.crt"));
    config.auth_info = AuthInfo { token_file: Some(token.display().to_string()), ..AuthInfo::default() };
    Ok(config)
}

/// Read by hand, because the library's own reader takes a proxy from the environment, runs programs that the file names, and lets
/// the file turn the verification of certificates off.
fn of_kubeconfig(file: &Path) -> Result<kube::Config, ConnectError> {
    let unusable = |problem| ConnectError::Unusable { file: file.to_owned(), problem };
    let read = Kubeconfig::read_from(file).map_err(|_| ConnectError::Unreadable { file: file.to_owned() })?;
    let current = read.current_context.as_deref().unwrap_or_default();
    let context = read.contexts.iter().find(|named| named.name == current).and_then(|named| named.context.as_ref());
    let context = context.ok_or_else(|| unusable("it has no current context"))?;
    let cluster = read.clusters.iter().find(|named| named.name == context.cluster).and_then(|named| named.cluster.as_ref());
    let cluster = cluster.ok_or_else(|| unusable("it lacks the cluster of its current context"))?;
    if cluster.insecure_skip_tls_verify == Some(true) {
        return Err(unusable("`insecure-skip-tls-verify` isn't taken: name the `certificate-authority`"));
    }
    if cluster.proxy_url.as_ref().is_some_and(|url| !url.is_empty()) {
        return Err(unusable("`proxy-url` isn't taken"));
    }
    let address: Option<Uri> = cluster.server.as_deref().and_then(|server| server.parse().ok());
    let address = address.ok_or_else(|| unusable("the `server` of its cluster is no address"))?;
    let mut config = kube::Config::new(address);
    match config.cluster_url.scheme_str() {
        Some("https") => {
            let pem = match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
                (Some(data), _) => base64::prelude::BASE64_STANDARD.decode(data).ok(),
                (None, Some(path)) => std::fs::read(path).ok(),
                (None, None) => return Err(unusable("its cluster has no `certificate-authority`")),
            };
            let read = pem.and_then(|pem| certificates(&pem));
            config.root_cert = Some(read.ok_or_else(|| unusable("the `certificate-authority` of its cluster can't be read"))?);
        }
        Some("http") if is_loopback(&config.cluster_url) => {}
        _ => return Err(unusable("the `server` of its cluster isn't `https://…`")),
    }
    config.tls_server_name.clone_from(&cluster.tls_server_name);
    config.default_namespace = context.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let user = read.auth_infos.into_iter().find(|named| Some(&named.name) == context.user.as_ref());
    if let Some(user) = user.and_then(|named| named.auth_info) {
        config.auth_info = credentials(user).map_err(unusable)?;
    }
    Ok(config)
}

/// Tokens and client certificates alone.
fn credentials(user: AuthInfo) -> Result<AuthInfo, &'static str> {
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err("its user is a program to run, which isn't taken: use a token or a client certificate");
    }
    if user.username.is_some() || user.password.is_some() {
        return Err("its user is a name and a password, which isn't taken: use a token or a client certificate");
    }
    if user.impersonate.is_some() || user.impersonate_groups.is_some() || user.impersonate_uid.is_some() {
        return Err("its user acts as another one, which isn't taken");
    }
    Ok(user)
}

fn certificates(pem: &[u8]) -> Option<Vec<Vec<u8>>> {
    let read: Result<Vec<Vec<u8>>, _> = CertificateDer::pem_slice_iter(pem).map(|read| read.map(|der| der.to_vec())).collect();
    read.ok().filter(|certificates| !certificates.is_empty())
}

fn is_loopback(address: &Uri) -> bool {
    let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
