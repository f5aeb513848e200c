//! The going-live list as it is shown.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::credential::Environment;
use crate::domain::ids::{ItemId, Name};
use crate::domain::launch::{ItemState, Judge, Judged};
use crate::domain::provider::Confidence;

/// `golive --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "GoLive")]
pub struct LaunchView {
    pub application: Name,
    pub environment: Environment,
    /// Each item passed or is confirmed.
    pub ready: bool,
    /// What the application lists, in its order.
    pub credentials: Vec<LaunchCredential>,
    pub items: Vec<LaunchItemView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "GoLiveCredential")]
pub struct LaunchCredential {
    pub name: Name,
    pub provider: Name,
    pub environment: Environment,
    /// The application isn't served it before this list is passed.
    pub require_go_live: bool,
    /// Since when it is served for that reason. Nothing takes that back.
    pub live_since: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "GoLiveItem")]
pub struct LaunchItemView {
    /// What a sign-off names.
    pub id: ItemId,
    /// `null`: it is about the whole application.
    pub credential: Option<Name>,
    pub title: String,
    pub about: String,
    /// What the daemon judges by itself; `null`: only a person can tell.
    pub check: Option<&'static str>,
    pub state: ItemState,
    /// Why, for people.
    pub evidence: Vec<String>,
    /// Where the item is known from.
    pub source: String,
    pub confidence: Confidence,
    /// The last sign-off.
    pub confirmation: Option<LaunchConfirmation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "GoLiveConfirmation")]
pub struct LaunchConfirmation {
    pub by: String,
    pub at: Timestamp,
    pub reason: Option<String>,
    /// The item has changed since: it asks again.
    pub outdated: bool,
}

pub(super) fn item_view(judged: &Judged) -> LaunchItemView {
    let confirmation = judged.sign_off.as_ref().map(|sign_off| LaunchConfirmation {
        by: sign_off.by.to_string(),
        at: sign_off.at,
        reason: sign_off.reason.clone(),
        outdated: judged.is_outdated(),
    });
    LaunchItemView {
        id: judged.id.clone(),
        credential: judged.credential.clone(),
        title: judged.item.title.clone(),
        about: judged.item.about.clone(),
        check: match judged.item.judge {
            Judge::Daemon(check) => Some(check.as_str()),
            Judge::Person => None,
        },
        state: judged.state,
        evidence: judged.evidence.clone(),
        source: judged.item.source.clone(),
        confidence: judged.item.confidence,
        confirmation,
    }
}
