//! What making a new key does to the one before it, and how long the provider lets both work.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::provider::{Body, JsonTemplate, Lifecycle, Provider};

/// What a create does to the version before it. Fixed with the plan, because it decides what a lost reply means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Succession {
    /// Nothing: both live until the old one is revoked.
    #[default]
    Beside,
    /// The provider ends the old one by itself, after the overlap that was asked for.
    EndsOld,
    /// The old one dies at once. There is no overlap, and no way back.
    ReplacesOld,
}

impl Succession {
    /// Whether a create leaves the old key alone. Where it doesn't, it destroys: it waits for whatever a revocation waits for.
    pub const fn spares_the_old(self) -> bool {
        matches!(self, Succession::Beside)
    }
}

/// How long old and new may both work, as far as the provider tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OverlapBounds {
    pub least: Option<Duration>,
    /// What it gives where a create can't ask.
    pub default: Option<Duration>,
    pub most: Option<Duration>,
}

/// The variable of a create's body that asks for an overlap.
pub const OVERLAP_SECONDS: &str = "overlap_seconds";

impl Provider {
    pub fn succession(&self) -> Succession {
        match self.lifecycle {
            Lifecycle::Pairs | Lifecycle::Promote | Lifecycle::Manual | Lifecycle::Generated => Succession::Beside,
            Lifecycle::Rotate => Succession::EndsOld,
            Lifecycle::Replace => Succession::ReplacesOld,
        }
    }

    /// Whether a create says how long the old key is to live on.
    pub fn asks_for_overlap(&self) -> bool {
        self.calls.create.as_ref().is_some_and(|create| create.call.body.mentions(OVERLAP_SECONDS))
    }

    /// How long the old key lives on after a create that wants this overlap, by what the description says.
    pub fn overlap_given(&self, wanted: Duration) -> Duration {
        let bounds = self.timing.overlap;
        match bounds.default {
            Some(fixed) if !self.asks_for_overlap() => fixed,
            _ => wanted.max(bounds.least.unwrap_or(wanted)).min(bounds.most.unwrap_or(Duration::MAX)),
        }
    }
}

impl Body {
    /// Whether one of its templates has this variable.
    pub fn mentions(&self, variable: &str) -> bool {
        match self {
            Body::None => false,
            Body::Form(pairs) => pairs.iter().any(|(_, template)| template.variables().any(|name| name == variable)),
            Body::Json(json) => json.mentions(variable),
        }
    }
}

impl JsonTemplate {
    fn mentions(&self, variable: &str) -> bool {
        match self {
            JsonTemplate::Text(template) => template.variables().any(|name| name == variable),
            JsonTemplate::Number(name) => name == variable,
            JsonTemplate::Literal(_) => false,
            JsonTemplate::List(items) => items.iter().any(|item| item.mentions(variable)),
            JsonTemplate::Object(members) => members.iter().any(|(_, member)| member.mentions(variable)),
        }
    }
}
