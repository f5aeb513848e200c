//! What really is so at the provider: every key, when it lived, who killed it. Faults bend replies, never this.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::faults::Call;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Made over the API, so by the daemon.
    Daemon,
    /// Made by hand at the start and submitted.
    Enrolled,
    /// Somebody else's key in the same account.
    Foreign,
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) client_id: String,
    pub(crate) secret: String,
    pub(crate) name: String,
    pub(crate) owner: Owner,
    pub(crate) created: Instant,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) last_used_at: Option<Timestamp>,
    pub(crate) expires_at: Option<String>,
    /// The first moment at which every replica accepts it.
    pub(crate) settled: Instant,
    pub(crate) revoked: Option<Instant>,
    /// Whose token authorised the revocation.
    pub(crate) revoked_by: Option<String>,
    pub(crate) looks: u32,
}

impl Key {
    pub(crate) fn alive(&self, at: Instant) -> bool {
        self.created <= at && self.revoked.is_none_or(|revoked| at < revoked)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// In the order of their making.
    pub(crate) keys: Vec<Key>,
    /// Access token to the client id it was issued to, and when it ends.
    pub(crate) tokens: HashMap<String, (String, Instant)>,
    pub(crate) replays: HashMap<String, String>,
    pub(crate) calls: HashMap<Call, u32>,
    /// After each change: how many keys of ours lived then.
    pub(crate) timeline: Vec<(Instant, usize)>,
}

impl Truth {
    pub(crate) fn key(&self, client_id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.client_id == client_id)
    }

    pub(crate) fn key_mut(&mut self, client_id: &str) -> Option<&mut Key> {
        self.keys.iter_mut().find(|key| key.client_id == client_id)
    }

    pub(crate) fn by_secret(&self, secret: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.secret == secret)
    }

    /// Whether a call with this secret would work at that time, on every replica.
    pub(crate) fn accepts(&self, secret: &str, at: Instant) -> bool {
        self.by_secret(secret).is_some_and(|key| key.alive(at) && key.settled <= at)
    }

    pub(crate) fn living(&self) -> Vec<&Key> {
        self.keys.iter().filter(|key| key.owner != Owner::Foreign && key.revoked.is_none()).collect()
    }

    pub(crate) fn count_living(&mut self) {
        let living = self.living().len();
        self.timeline.push((Instant::now(), living));
    }

    pub(crate) fn revoke(&mut self, client_id: &str, by: Option<String>) {
        let now = Instant::now();
        if let Some(key) = self.key_mut(client_id)
            && key.revoked.is_none()
        {
            key.revoked = Some(now);
            key.revoked_by = by;
            key.updated_at = Timestamp::now();
        }
        self.count_living();
    }

    /// How old our keys became, in their order; for those that live: by now.
    pub(crate) fn ages(&self) -> Vec<Duration> {
        let ours = self.keys.iter().filter(|key| key.owner != Owner::Foreign);
        ours.map(|key| key.revoked.unwrap_or_else(Instant::now).duration_since(key.created)).collect()
    }

    pub(crate) fn assert_foreign_untouched(&self) {
        for key in self.keys.iter().filter(|key| key.owner == Owner::Foreign) {
            assert!(key.revoked.is_none(), "somebody else's key `{}` was revoked", key.name);
        }
    }

    /// A key that was revoked with its own token: had that failed half-way, nobody could have tried again.
    pub(crate) fn assert_none_revoked_itself(&self) {
        for key in &self.keys {
            assert!(key.revoked_by.as_deref() != Some(key.client_id.as_str()), "`{}` was revoked with its own token", key.name);
        }
    }

    /// Names and times for a failed test's message; no secrets.
    pub(crate) fn report(&self) -> String {
        let start = self.keys.first().map(|key| key.created);
        let since = |at: Instant| start.map_or(0.0, |start| at.saturating_duration_since(start).as_secs_f32());
        self.keys
            .iter()
            .map(|key| {
                let end = key.revoked.map_or("living".to_owned(), |at| format!("dead {:.1}", since(at)));
                format!("\n  {:?} {} born {:.1} {end}", key.owner, key.name, since(key.created))
            })
            .collect()
    }
}
