//! Policies: when and how to rotate, and which applications use what. The validated form of the documents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::Identity;
use super::credential::{Credential, Environment};
use super::delivery::Deliveries;
use super::ids::Name;
use super::provider::Provider;
use super::rollout::{Share, time_of};
use super::span::Span;
use super::windows::Window;

/// All documents of the folder, validated together: references resolve, environments agree.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    pub providers: BTreeMap<Name, Arc<Provider>>,
    pub rotations: BTreeMap<Name, Arc<RotationPolicy>>,
    pub credentials: BTreeMap<Name, Arc<Credential>>,
    pub applications: BTreeMap<Name, Arc<Application>>,
    /// SHA-256 over the documents as read, lower-case hex: what a reload is audited by.
    pub digest: String,
}

/// A `RotationPolicy` document.
#[derive(Debug, Clone, PartialEq)]
pub struct RotationPolicy {
    pub name: Name,
    pub max_age: Span,
    pub terms: Terms,
    /// Moves a start earlier by a part of itself, so that anniversaries don't meet. May be zero.
    pub spread: Duration,
    pub windows: Vec<Window>,
    /// The longest wait between two windows, worked out once when the policy is read; zero without windows.
    pub window_wait: Duration,
    pub verify_every: Span,
    /// The sandbox twin has to have rotated first.
    pub rehearse: bool,
    /// The steps in which instances get a new version; empty: all at once.
    pub rollout: Vec<Share>,
}

/// What an open rotation keeps from the policy that it began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Old and new both work for this long.
    pub overlap: Span,
    pub confirmation: Confirmation,
    pub unconfirmed: Unconfirmed,
}

/// What ends an instance's hold on the old version. In the order of growing caution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confirmation {
    None,
    Observed,
    Required,
}

/// What happens at the end of the overlap while an instance still holds the old version. In the order of growing caution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unconfirmed {
    Revoke,
    Hold,
}

impl Terms {
    /// The safer of both in every part: an open rotation takes over edits only in that direction.
    pub fn safer(self, other: Terms) -> Terms {
        Terms {
            overlap: self.overlap.max(other.overlap),
            confirmation: self.confirmation.max(other.confirmation),
            unconfirmed: self.unconfirmed.max(other.unconfirmed),
        }
    }
}

impl RotationPolicy {
    /// How long a fresh key may be refused: the description's figure, else `min(120 s, overlap)`. Without an overlap the old key
    /// is dead, and patience costs nothing: then `min(120 s, maxAge/20)`.
    pub fn propagation(&self, provider: &Provider) -> Duration {
        let bound = match self.terms.overlap {
            Span::ZERO => self.max_age.as_duration() / 20,
            overlap => overlap.as_duration(),
        };
        provider.timing.propagation.unwrap_or(Duration::from_secs(120).min(bound))
    }

    /// How long a disabled key is kept before it is removed: a person who misses it can still undo that.
    pub fn soak(&self, provider: &Provider) -> Duration {
        provider.timing.soak.unwrap_or(Duration::from_secs(3_600).min(self.max_age.as_duration() / 20))
    }

    /// The longest that a retry waits: `min(5 min, maxAge/20)`, unless `Retry-After` says more.
    pub fn retry_wait_max(&self) -> Duration {
        Duration::from_secs(300).min(self.max_age.as_duration() / 20)
    }

    /// The longest wait before a rotation is tried again whose new version was taken back: `overlap + maxAge/20`.
    pub fn canary_wait_max(&self) -> Duration {
        self.terms.overlap.as_duration() + self.max_age.as_duration() / 20
    }

    /// The longest that the steps of the rollout take before the last one.
    pub fn rollout_time(&self) -> Duration {
        time_of(self.terms.overlap.as_duration(), self.rollout.len())
    }

    /// How often orphans are looked for: `min(15 min, maxAge/4)`.
    pub fn sweep_every(&self) -> Duration {
        Duration::from_secs(900).min(self.max_age.as_duration() / 4)
    }
}

/// An `Application` document.
#[derive(Debug, Clone, PartialEq)]
pub struct Application {
    pub name: Name,
    pub environment: Environment,
    pub credentials: Vec<Name>,
    pub identity: Identity,
    pub uptake: Uptake,
    /// How long an instance counts after its stream ended. `None` with [`Uptake::Start`]: unknown use is use. `None`
    /// with [`Uptake::Stream`]: `min(15 min, overlap)`.
    pub lease: Option<Span>,
    pub callback: Option<String>,
    pub webhook: Option<String>,
    /// Ways of delivery beside the stream, which every application has.
    pub delivery: Deliveries,
}

/// When an instance takes up a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Uptake {
    Stream,
    Start,
}

impl Policies {
    pub fn rotation_of(&self, credential: &Credential) -> Option<&Arc<RotationPolicy>> {
        self.rotations.get(&credential.rotation)
    }

    pub fn provider_of(&self, credential: &Credential) -> Option<&Arc<Provider>> {
        self.providers.get(&credential.provider)
    }

    /// The shortest `maxAge` of all policies in use: the engine's own waits scale with it.
    pub fn shortest_max_age(&self) -> Option<Span> {
        self.credentials.values().filter_map(|credential| self.rotation_of(credential)).map(|policy| policy.max_age).min()
    }

    /// Of the overlaps in use; where the provider leaves none, no bound of ours would help.
    pub fn shortest_overlap(&self) -> Option<Span> {
        let overlaps = self.credentials.values().filter_map(|credential| self.rotation_of(credential)).map(|policy| policy.terms.overlap);
        overlaps.filter(|overlap| *overlap != Span::ZERO).min()
    }
}
