//! The decision, pure: from what was seen in the lease and when, to what a replica does about it next.

use std::time::Duration;

use super::{Claim, Identity, Record, Standing, Timing};

/// A duration that somebody else wrote is believed up to here: nobody may stop take-over for ever by one edit.
const FOREIGN_LEASE_MAX: Duration = Duration::from_secs(60);

/// One replica in the contest.
#[derive(Debug)]
pub(super) struct Candidate {
    me: Identity,
    timing: Timing,
    /// The last record that differed from the one before, and since when we know it. Kept when the lease is deleted: who held it may
    /// still believe in it.
    known: Option<(Record, Duration)>,
    /// When the lease was last read; `None` when what we know of it is out of date.
    looked: Option<Duration>,
    is_absent: bool,
    /// The highest number that was seen: a lease that is deleted and made anew doesn't begin again.
    highest: u64,
    tenure: Option<Tenure>,
}

#[derive(Debug, Clone, Copy)]
struct Tenure {
    transitions: u64,
    began: Duration,
    /// When the last write that is known to have had its effect was sent.
    renewed: Duration,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Move {
    /// Read the lease.
    Look,
    Write(Claim),
    /// Our tenure is over.
    StepDown,
    /// There is nothing to do before this moment.
    WaitUntil(Duration),
}

impl Candidate {
    pub(super) fn new(me: Identity, timing: Timing) -> Candidate {
        Candidate { me, timing, known: None, looked: None, is_absent: false, highest: 0, tenure: None }
    }

    pub(super) fn next(&self, now: Duration) -> Move {
        if let Some(tenure) = self.tenure {
            let due = tenure.renewed + self.timing.renew_every;
            return if now >= tenure.renewed + self.timing.renew_deadline {
                Move::StepDown
            } else if self.looked.is_none() {
                Move::Look
            } else if now >= due {
                Move::Write(self.claim(tenure.transitions, false))
            } else {
                Move::WaitUntil(due)
            };
        }
        let Some(looked) = self.looked else { return Move::Look };
        let free = self.free_from();
        if now >= free {
            return Move::Write(self.claim(self.highest.saturating_add(1), true));
        }
        let again = looked + self.timing.renew_every;
        if now >= again { Move::Look } else { Move::WaitUntil(free.min(again)) }
    }

    /// When the lease may be taken. A record of ours of an earlier tenure binds nobody but us.
    fn free_from(&self) -> Duration {
        match &self.known {
            Some((Record { holder: Some(holder), duration, .. }, since)) if *holder != self.me => {
                let theirs = duration.unwrap_or_default().min(FOREIGN_LEASE_MAX);
                *since + self.timing.lease.max(theirs)
            }
            _ => Duration::ZERO,
        }
    }

    fn claim(&self, transitions: u64, is_new: bool) -> Claim {
        Claim { holder: Some(self.me.clone()), transitions, duration: self.timing.lease, is_new }
    }

    /// The lease was read, and `now` is after the answer: what was seen changed before that.
    pub(super) fn observe(&mut self, record: Option<&Record>, now: Duration) {
        self.looked = Some(now);
        self.is_absent = record.is_none();
        let Some(record) = record else { return };
        self.highest = self.highest.max(record.transitions);
        if self.known.as_ref().is_none_or(|(known, _)| known != record) {
            self.known = Some((record.clone(), now));
        }
        // Somebody else's, given back for us, or written over: in any case not the tenure that we began.
        let is_ours = |tenure: &Tenure| record.holder.as_ref() == Some(&self.me) && record.transitions == tenure.transitions;
        if self.tenure.is_some_and(|tenure| !is_ours(&tenure)) {
            self.tenure = None;
        }
    }

    /// A claim of ours had its effect; `sent` is from before it was sent, `now` from after the answer. A renewal whose answer came
    /// after the deadline renews nothing: somebody was told meanwhile that we don't lead, so the next tenure is another one.
    pub(super) fn wrote(&mut self, claim: &Claim, record: &Record, sent: Duration, now: Duration) {
        let is_over = self.leads_until().is_some_and(|until| now >= until);
        let began = self.tenure.map_or(now, |tenure| tenure.began);
        let tenure = Tenure { transitions: claim.transitions, began, renewed: sent };
        self.tenure = (claim.holder.is_some() && !is_over).then_some(tenure);
        self.highest = self.highest.max(claim.transitions);
        self.known = Some((record.clone(), now));
        self.looked = Some(now);
        self.is_absent = false;
    }

    /// Our tenure is over: what is known of the lease may be old.
    pub(super) fn step_down(&mut self) {
        self.tenure = None;
        self.looked = None;
    }

    /// What is known of the lease may be old: a write conflicted, or its answer was lost.
    pub(super) fn forget(&mut self) {
        self.looked = None;
    }

    /// What gives the lease back, if it is ours.
    pub(super) fn release(&self) -> Option<Claim> {
        let tenure = self.tenure?;
        Some(Claim { holder: None, transitions: tenure.transitions, duration: self.timing.lease, is_new: false })
    }

    /// Until when we lead, if we do.
    pub(super) fn leads_until(&self) -> Option<Duration> {
        self.tenure.map(|tenure| tenure.renewed + self.timing.renew_deadline)
    }

    pub(super) fn standing(&self) -> Standing {
        match (self.tenure, &self.known) {
            (Some(tenure), _) => Standing::Leading { transitions: tenure.transitions, since: tenure.began },
            (None, Some((record, _))) if !self.is_absent => {
                Standing::Following { leader: record.holder.clone().filter(|holder| *holder != self.me) }
            }
            (None, _) => Standing::Following { leader: None },
        }
    }
}
