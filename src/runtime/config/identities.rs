//! `identities: {kubernetes: {audience: AUD}}`: for whom the tokens of pods have to be issued.

use crate::policies::problem::Sink;
use crate::policies::reader::{Fields, text};
use crate::policies::tree::Node;

/// How pods show who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesIdentities {
    /// What the tokens are issued for: nobody else's audience.
    pub audience: String,
}

/// What to do where a service account is named and this isn't.
pub const AUDIENCE_HELP: &str =
    "add `identities: {kubernetes: {audience: NAME}}` to the configuration, and mount tokens for that audience into the pods";

const AUDIENCE_MAX: usize = 256;

/// Tokens for these lie in pods for others: for the API server itself, by default in every pod, and for well-known services. Who gets one
/// of them from a pod could show it to us.
const OTHERS: [&str; 12] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "default",
    "api",
    "k3s",
    "vault",
    "istio-ca",
    "sts.amazonaws.com",
    "pods.eks.amazonaws.com",
    "api://azureadtokenexchange",
    "iam.googleapis.com",
];

pub(super) fn read_identities(node: &Node, sink: &Sink<'_>) -> Option<KubernetesIdentities> {
    let fields = Fields::of(node, sink)?;
    let kubernetes = fields.need("kubernetes", "`{kubernetes: {audience: NAME}}`");
    fields.done();
    let inner = Fields::of(kubernetes?, sink)?;
    let help = "it has no default: a name of your own, for example `keywright.payments.example`";
    let written = inner.need("audience", help).and_then(|node| Some((node.place, text(node, sink)?)));
    inner.done();
    let (place, audience) = written?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":/._-".contains(&byte);
    if !(1..=AUDIENCE_MAX).contains(&audience.len()) || !audience.bytes().all(allowed) {
        sink.report(place, "bad-audience", "an audience has 1 to 256 letters, digits and `:/._-`", help);
        return None;
    }
    if is_others(audience) {
        sink.report(place, "bad-audience", "tokens for this audience are meant for others", help);
        return None;
    }
    Some(KubernetesIdentities { audience: audience.to_owned() })
}

fn is_others(audience: &str) -> bool {
    let small = audience.to_ascii_lowercase();
    let bare = small.strip_prefix("https://").unwrap_or(&small).trim_end_matches('/');
    let host = bare.split(['/', ':']).next().unwrap_or_default();
    // Whatever the cluster's own domain is.
    let is_api_server = host == "kubernetes.default.svc" || host.starts_with("kubernetes.default.svc.");
    is_api_server || OTHERS.contains(&bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audiences_that_others_use_are_told() {
        for others in [
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc.cluster.local",
            "https://kubernetes.default.svc.corp.example/",
            "https://kubernetes.default.svc:443",
            "kubernetes.default.svc",
            "api",
            "API",
            "vault",
            "https://vault/",
            "sts.amazonaws.com",
            "api://AzureADTokenExchange",
        ] {
            assert!(is_others(others), "{others}");
        }
        for ours in ["keywright", "keywright.payments.example", "https://keywright.example", "vault-keywright", "kubernetes.default.svcs"] {
            assert!(!is_others(ours), "{ours}");
        }
    }
}
