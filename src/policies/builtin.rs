//! The provider descriptions of `policies/providers/`, compiled in. A new one is a file there and a line here.

use super::Source;

const DESCRIPTIONS: [(&str, &str); 16] = [
    ("checkout.yaml", include_str!("../../policies/providers/checkout.yaml")),
    ("dinie.yaml", include_str!("../../policies/providers/dinie.yaml")),
    ("dinie-webhook.yaml", include_str!("../../policies/providers/dinie-webhook.yaml")),
    ("fincode.yaml", include_str!("../../policies/providers/fincode.yaml")),
    ("glewlwyd.yaml", include_str!("../../policies/providers/glewlwyd.yaml")),
    ("oauth-initial-access.yaml", include_str!("../../policies/providers/oauth-initial-access.yaml")),
    ("oauth-registration.yaml", include_str!("../../policies/providers/oauth-registration.yaml")),
    ("okra.yaml", include_str!("../../policies/providers/okra.yaml")),
    ("okta.yaml", include_str!("../../policies/providers/okta.yaml")),
    ("plaid.yaml", include_str!("../../policies/providers/plaid.yaml")),
    ("slack.yaml", include_str!("../../policies/providers/slack.yaml")),
    ("stripe.yaml", include_str!("../../policies/providers/stripe.yaml")),
    ("tap.yaml", include_str!("../../policies/providers/tap.yaml")),
    ("tensfer.yaml", include_str!("../../policies/providers/tensfer.yaml")),
    ("twilio.yaml", include_str!("../../policies/providers/twilio.yaml")),
    ("webhook-secret.yaml", include_str!("../../policies/providers/webhook-secret.yaml")),
];

/// Named so that nobody looks for them in the folder.
pub fn sources() -> Vec<Source> {
    DESCRIPTIONS.iter().map(|(file, text)| Source { file: format!("(built in)/{file}"), text: (*text).to_owned() }).collect()
}
