//! The daemon's list, as far as it is shown. What is unknown here is passed over.

use jiff::Timestamp;
use serde::Deserialize;

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct ListView {
    pub(super) application: String,
    pub(super) environment: String,
    pub(super) ready: bool,
    pub(super) credentials: Vec<CredentialView>,
    pub(super) items: Vec<ItemView>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct CredentialView {
    pub(super) name: String,
    pub(super) provider: String,
    pub(super) environment: String,
    pub(super) require_go_live: bool,
    pub(super) live_since: Option<Timestamp>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct ItemView {
    pub(super) id: String,
    pub(super) credential: Option<String>,
    pub(super) title: String,
    pub(super) state: String,
    pub(super) evidence: Vec<String>,
    pub(super) source: String,
    pub(super) confidence: String,
    pub(super) confirmation: Option<ConfirmationView>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct ConfirmationView {
    pub(super) by: String,
    pub(super) at: Option<Timestamp>,
    pub(super) reason: Option<String>,
    pub(super) outdated: bool,
}

impl ItemView {
    /// The name without its credential, which stands above it.
    pub(super) fn short(&self) -> &str {
        self.id.split_once('.').map_or(&self.id, |(_, item)| item)
    }
}
