//! The provider descriptions of `policies/providers/`, compiled in. A new one is a file there and a line here.

use super::Source;

const DESCRIPTIONS: [(&str, &str); 4] = [
    ("dinie.yaml", include_str!("../../policies/providers/dinie.yaml")),
    ("oauth-initial-access.yaml", include_str!("../../policies/providers/oauth-initial-access.yaml")),
    ("oauth-registration.yaml", include_str!("../../policies/providers/oauth-registration.yaml")),
    ("webhook-secret.yaml", include_str!("../../policies/providers/webhook-secret.yaml")),
];

/// Named so that nobody looks for them in the folder.
pub fn sources() -> Vec<Source> {
    DESCRIPTIONS.iter().map(|(file, text)| Source { file: format!("(built in)/{file}"), text: (*text).to_owned() }).collect()
}
