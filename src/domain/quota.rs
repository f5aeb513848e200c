//! How many calls a provider allows an account, and how many of them are ours.

use std::time::Duration;

/// How many calls an account may make, how many of them are ours, and where answers tell what is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// What the provider allows each account; `None` where that isn't known.
    pub quota: Option<Quota>,
    /// Our part of it, in percent: the rest is the applications', which call with the same account.
    pub share: u8,
    pub limit_header: Option<String>,
    pub remaining_header: Option<String>,
    pub reset_header: Option<String>,
}

/// So many calls within any such time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    pub calls: u32,
    pub per: Duration,
}

impl Limits {
    /// Half is left to the others where nothing else is said.
    pub const SHARE_DEFAULT: u8 = 50;
    /// A share of fewer calls lets no rotation through: one step makes up to so many calls in one go.
    pub const OWN_CALLS_MIN: u32 = 4;

    /// Our part of the quota.
    pub fn own_calls(&self) -> Option<u32> {
        let own = u64::from(self.quota?.calls) * u64::from(self.share) / 100;
        u32::try_from(own).ok()
    }

    /// What is to be left to the others of so many calls.
    pub fn left_to_others(&self, limit: u64) -> u64 {
        limit - limit.min(limit.saturating_mul(u64::from(self.share)) / 100)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { quota: None, share: Limits::SHARE_DEFAULT, limit_header: None, remaining_header: None, reset_header: None }
    }
}
