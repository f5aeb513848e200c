//! Where Vault is, and how we log in there. All of it is said by the configuration, nothing by the environment.

use std::path::PathBuf;

/// The auth method's own mount, where the configuration names none.
pub const APPROLE_MOUNT: &str = "approle";
pub const KUBERNETES_MOUNT: &str = "kubernetes";
/// Where Kubernetes puts the token of a pod's service account.
pub const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// What is needed to reach one KV engine (version 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultSettings {
    /// `https://host:port`, or plain HTTP on loopback; no path, no closing slash.
    pub address: String,
    /// Where the KV engine is mounted, without slashes around it.
    pub mount: String,
    /// Below the mount: all that we touch. Without slashes around it.
    pub prefix: String,
    pub namespace: Option<String>,
    /// The one authority that is trusted, in PEM. `None`: those of the machine.
    pub ca: Option<PathBuf>,
    pub auth: Auth,
}

/// How we log in. What is secret lies in files, which are read anew at each login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// A token that somebody else makes and replaces, for example Vault's agent.
    Token {
        file: PathBuf,
    },
    AppRole {
        mount: String,
        role_id: String,
        secret_id: PathBuf,
    },
    Kubernetes {
        mount: String,
        role: String,
        token: PathBuf,
    },
}

/// Why a text is no mount, prefix or namespace: what is asked for would lie elsewhere, or the library would panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is made of letters, digits, `-`, `_` and `.`, with `/` between its parts")]
pub struct PathError;

/// # Errors
/// [`PathError`]. `.` and `..` are no parts.
pub fn check_path(text: &str) -> Result<(), PathError> {
    let is_part = |part: &str| {
        let plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        plain && !part.is_empty() && part.bytes().any(|byte| byte != b'.')
    };
    let whole = text.len() <= 512 && text.split('/').all(is_part);
    if whole { Ok(()) } else { Err(PathError) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lie_elsewhere_is_no_path() {
        for good in ["secret", "team-a/kv", "a.b/c_d", "K"] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "a//b", "..", "a/../b", "a/.", "a b", "a%2f", "a\n", "é", "a?b", "a#b"] {
            assert_eq!(check_path(bad), Err(PathError), "{bad}");
        }
    }
}
