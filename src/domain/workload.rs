//! Workloads of a Kubernetes cluster: service accounts, what a token of theirs claims, and what a review of it has shown.
//!
//! Claims are what anybody can write. They only spare the cluster a question whose answer would be no.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;

use super::holders::PodKey;
use super::ids::{Name, ObjectName, ObjectUid};

/// In bytes. Tokens of service accounts have about 1 KiB; what is longer than a head of a request never arrives.
const TOKEN_LENGTH_MAX: usize = 16_384;

const USERNAME_PREFIX: &str = "system:serviceaccount:";

/// A service account, as documents and the configuration name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAccount {
    pub namespace: Name,
    pub name: ObjectName,
}

impl ServiceAccount {
    /// From `system:serviceaccount:NAMESPACE:NAME`, which is what the cluster calls it; nothing else is one.
    pub fn of_username(text: &str) -> Option<ServiceAccount> {
        let (namespace, name) = text.strip_prefix(USERNAME_PREFIX)?.split_once(':')?;
        Some(ServiceAccount { namespace: namespace.parse().ok()?, name: name.parse().ok()? })
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod that has shown who it is: what the API server said of its token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Workload {
    pub account: ServiceAccount,
    /// An account that was deleted and made anew under its name has another one.
    pub account_uid: ObjectUid,
    pub pod: ObjectName,
    pub pod_uid: ObjectUid,
}

impl Workload {
    pub fn pod_key(&self) -> PodKey {
        PodKey { namespace: self.account.namespace.clone(), uid: self.pod_uid.clone() }
    }
}

/// As the audit trail keeps it.
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod uid {} of service account {} (uid {})", self.pod_uid, self.account, self.account_uid)
    }
}

/// What a token says of itself, unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub account: ServiceAccount,
    pub audiences: Vec<String>,
    pub expires: Timestamp,
    /// Whether it names the pod that it is bound to. Legacy tokens don't, nor do those that a person made without one.
    pub is_of_pod: bool,
}

/// As it stands in the token (RFC 7519, section 4.1; the cluster's own claims are private ones).
#[derive(Deserialize)]
struct Written {
    sub: String,
    aud: Audiences,
    exp: i64,
    #[serde(rename = "kubernetes.io")]
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Cluster {
    pod: Option<Bound>,
}

#[derive(Deserialize)]
struct Bound {
    #[serde(rename = "name")]
    _name: ObjectName,
    #[serde(rename = "uid")]
    _uid: ObjectUid,
}

impl Claims {
    /// `None` for what isn't the token of a service account: not three parts, no end, no account.
    pub fn read(token: &[u8]) -> Option<Claims> {
        if token.len() > TOKEN_LENGTH_MAX {
            return None;
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (header, payload, signature, end) = (parts.next()?, parts.next()?, parts.next()?, parts.next());
        let is_part = |part: &[u8]| !part.is_empty() && part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if end.is_some() || ![header, payload, signature].into_iter().all(is_part) {
            return None;
        }
        let decoded = zeroize::Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
        let written: Written = serde_json::from_slice(&decoded).ok()?;
        let audiences = match written.aud {
            Audiences::One(audience) => vec![audience],
            Audiences::Many(audiences) => audiences,
        };
        Some(Claims {
            account: ServiceAccount::of_username(&written.sub)?,
            audiences,
            expires: Timestamp::from_second(written.exp).ok()?,
            is_of_pod: written.cluster.is_some_and(|cluster| cluster.pod.is_some()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn token(payload: &Value) -> String {
        format!("eyJhbGciOiJSUzI1NiJ9.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(payload.to_string()))
    }

    fn whole() -> Value {
        json!({
            "iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:payments:payments-api", "aud": ["keywright"],
            "iat": 1_700_000_000, "exp": 1_700_003_600,
            "kubernetes.io": {"namespace": "payments", "pod": {"name": "api-1", "uid": "5c0e"}, "serviceaccount": {"name": "payments-api", "uid": "a1"}},
        })
    }

    fn changed(pointer: &str, value: Value) -> Value {
        let mut changed = whole();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed
    }

    fn without(field: &str) -> Value {
        let mut changed = whole();
        changed.as_object_mut().unwrap().remove(field);
        changed
    }

    #[test]
    fn a_token_of_a_pod_says_whose_it_is() {
        let claims = Claims::read(token(&whole()).as_bytes()).unwrap();
        assert_eq!(claims.account.to_string(), "payments/payments-api");
        assert_eq!((claims.audiences, claims.expires.as_second(), claims.is_of_pod), (vec!["keywright".to_owned()], 1_700_003_600, true));
        let one = Claims::read(token(&changed("/aud", json!("keywright"))).as_bytes()).unwrap();
        assert_eq!(one.audiences, ["keywright"], "one audience may stand by itself (RFC 7519, section 4.1.3)");
    }

    #[test]
    fn a_token_that_is_bound_to_no_pod_is_told_apart() {
        for unbound in [without("kubernetes.io"), changed("/kubernetes.io", json!({"namespace": "payments"}))] {
            assert!(!Claims::read(token(&unbound).as_bytes()).unwrap().is_of_pod, "{unbound}");
        }
    }

    #[test]
    fn what_is_no_token_of_a_service_account_claims_nothing() {
        let good = token(&whole());
        let long = token(&changed("/iss", json!("x".repeat(TOKEN_LENGTH_MAX))));
        let wrong = [
            without("sub"),
            without("aud"),
            // Legacy tokens never end.
            without("exp"),
            changed("/sub", json!("system:node:payments:payments-api")),
            changed("/sub", json!("system:serviceaccount:payments")),
            changed("/sub", json!("system:serviceaccount:payments:a:b")),
            changed("/sub", json!("system:serviceaccount:Payments:api")),
            changed("/aud", json!([1])),
            changed("/exp", json!("soon")),
            changed("/exp", json!(i64::MAX)),
            changed("/kubernetes.io/pod/uid", json!("a b")),
            json!([]),
        ];
        for bad in wrong {
            assert_eq!(Claims::read(token(&bad).as_bytes()), None, "{bad}");
        }
        for bad in ["", "static-token", "..", "a.b.c", &good[20..], &format!("{good}."), &format!("{good}.x"), &format!("{good}="), &long] {
            assert_eq!(Claims::read(bad.as_bytes()), None, "{bad}");
        }
        assert!(Claims::read(b"e30.\xff\xfe.e30").is_none());
    }
}
