//! How a running program is called: two of them must never have one name, or one would confirm for the other.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::domain::ids::InstanceName;

/// No host has a longer name.
const HOST_LENGTH_MAX: usize = 64;

/// The pod, where the token names one, because the daemon knows it by that. Else host, process and something that nobody else
/// has: hosts and processes in containers have the same names and ids again and again.
pub(super) fn instance(token: Option<&[u8]>) -> InstanceName {
    let own = || {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let unique = Uuid::new_v4().simple().to_string();
        format!("{}-{}-{}", name_of(&host), std::process::id(), &unique[..8])
    };
    token.and_then(pod_of).or_else(|| own().parse().ok()).unwrap_or_else(InstanceName::unnamed)
}

/// What of a host's name may stand in an instance's.
fn name_of(host: &str) -> String {
    let may_stand = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let name: String = host.trim().chars().take(HOST_LENGTH_MAX).map(may_stand).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    cluster: Cluster,
}

#[derive(Deserialize)]
struct Cluster {
    pod: Pod,
}

#[derive(Deserialize)]
struct Pod {
    name: InstanceName,
}

/// The pod that a service account's token is bound to. The daemon has it reviewed; here it is only read.
fn pod_of(token: &[u8]) -> Option<InstanceName> {
    let mut parts = token.split(|byte| *byte == b'.');
    let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(claims).ok()?);
    serde_json::from_slice::<Claims>(&claims).ok().map(|claims| claims.cluster.pod.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> Vec<u8> {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)).into_bytes()
    }

    #[test]
    fn cli_exec_is_the_pod_that_its_token_names() {
        let bound = token(r#"{"sub":"system:serviceaccount:a:b","kubernetes.io":{"namespace":"a","pod":{"name":"api-5f","uid":"1"}}}"#);
        assert_eq!(instance(Some(&bound)).as_str(), "api-5f");
        for other in
            [token(r#"{"kubernetes.io":{}}"#), token("{}"), token("x"), b"app-token-1".to_vec(), b"a.b".to_vec(), b"a.b.c.d".to_vec()]
        {
            assert_eq!(pod_of(&other), None);
        }
    }

    #[test]
    fn cli_exec_has_a_name_of_its_own_each_time() {
        let (one, other) = (instance(None), instance(Some(b"app-token-1")));
        assert!(one != other && one != InstanceName::unnamed(), "{one} {other}");
        assert!(one.as_str().contains(&format!("-{}-", std::process::id())), "{one}");
        assert_eq!(name_of("web 1\n"), "web-1");
        assert_eq!(name_of("\n"), "host");
        assert_eq!(name_of(&"é".repeat(200)).len(), HOST_LENGTH_MAX);
    }
}
