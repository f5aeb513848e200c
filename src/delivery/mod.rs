//! Telling applications of a new version: the seam to the ways of delivery.
//!
//! [`Delivery`] wakes whoever waits in this process. A [`Courier`] brings one application's state to a place outside: it is called
//! by `runtime::couriers`, at the start, on each change and again after a failure, and never by a rotation.

#[cfg(test)]
mod contract;
pub mod courier_contract;
pub mod file;
pub mod kubernetes;
pub mod memory;
pub mod stream;
pub mod webhook;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::domain::credential::Environment;
use crate::domain::delivery::Way;
use crate::domain::dispatch::Place;
use crate::domain::document::Document;
use crate::domain::ids::{Name, ObjectName, VersionId};
use crate::domain::outbox::{DeadLetter, Outbox};
use crate::domain::policy::Application;

/// Something that an application can see has changed. Carries no material: who is told fetches it, and is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The credential has a new revision.
    Credential { name: Name, revision: u64 },
    /// The policies changed: access may have begun or ended.
    Policies,
}

/// Takes note of a change without waiting: a slow application must not hold up a rotation.
pub trait Delivery: Send + Sync + fmt::Debug {
    fn announce(&self, change: Change);
}

/// One credential of an application, as it is to be delivered.
#[derive(Debug)]
pub struct Parcel {
    pub credential: Name,
    pub environment: Environment,
    pub version: VersionId,
    /// Grows with each change that the application can see.
    pub revision: u64,
    /// The document, for ways that carry material ([`Way::carries_material`]); its disclosure is on record already.
    pub document: Option<Document>,
}

/// The whole state of an application: all its credentials that it may be given now. What isn't in it is to be taken away, where the
/// way can.
#[derive(Debug)]
pub struct Cargo<'a> {
    pub application: &'a Application,
    /// By name.
    pub parcels: Vec<Parcel>,
    /// The wall clock.
    pub now: Timestamp,
    /// How long one message is tried before it is given up.
    pub give_up_after: Duration,
}

/// What one call of a courier came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All was there already: nothing was done.
    Unchanged,
    Delivered,
    /// All is there, and every copy of the application runs with it: what they held before, none of them holds any more.
    TakenUp,
    /// All is there, and not every copy of the application runs with it. `until`: when to look again, where that is known; else soon.
    UnderWay {
        until: Option<Timestamp>,
    },
    /// One message was given up, for this reason, and the next one is up.
    GivenUp(&'static str),
}

/// What one call did, and whether another one is to follow at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub outcome: Outcome,
    /// How much of the cargo is still to be delivered. Zero: the target has it all.
    pub left: usize,
}

/// Why a call came to nothing. The texts are ours: of no answer, no path and no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CourierError {
    /// The target or its settings aren't as they must be: somebody has to mend them. It is tried again all the same.
    #[error("{0}")]
    Refused(&'static str),
    /// It may work later by itself.
    #[error("{0}")]
    Unavailable(&'static str),
    /// The target asks to be left alone for so long.
    #[error("{why}")]
    Later { why: &'static str, wait: Duration },
}

impl CourierError {
    /// The wait that the target asked for.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            CourierError::Later { wait, .. } => Some(wait),
            CourierError::Refused(_) | CourierError::Unavailable(_) => None,
        }
    }
}

/// What a person reads of the last call for an application, in more words than its outcome has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Names the object, and the way out where there is something to be mended. Of no value and no answer.
    pub text: String,
    /// Copies of the application that may still use what was there before.
    pub stragglers: Vec<ObjectName>,
}

/// What became of a place where nobody wants values any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// Nothing of ours is there.
    Emptied,
    /// What is there is somebody else's to take away, and stays.
    NotOurs,
}

/// Brings applications' states to where they are wanted, by one way.
///
/// Only the latest state is promised. A courier remembers durably what it delivered (in the target itself, or in the journal), so that a
/// restart with nothing changed delivers nothing. The caller sees to it that one application has one call at a time, that only the
/// process that leads calls, that it is known where values lie, and waits between failures.
#[async_trait]
pub trait Courier: Send + Sync + fmt::Debug {
    fn way(&self) -> Way;

    /// Brings the target up to date, or takes one step towards that. Called again at once while something is left.
    ///
    /// # Errors
    /// [`CourierError`]: the target has what it had before, or all of the new state; never a mix that an application could read.
    async fn deliver(&self, cargo: &Cargo<'_>) -> Result<Progress, CourierError>;

    /// Values of this application aren't wanted at `place` any more: its document dropped it or names another one, or is gone. Takes
    /// away what is the application's there, and makes nothing anew for that.
    ///
    /// # Errors
    /// [`CourierError`]: it may be repeated.
    async fn withdraw(&self, _application: &Name, _place: &Place) -> Result<Withdrawn, CourierError> {
        Ok(Withdrawn::Emptied)
    }

    /// Whether values can be brought to `place`, and taken away again: asked before anything is brought to one that is new. Changes
    /// nothing there that an application could see.
    ///
    /// # Errors
    /// [`CourierError`] as [`Courier::deliver`] would have it.
    async fn look_at(&self, _application: &Name, _place: &Place) -> Result<(), CourierError> {
        Ok(())
    }

    /// About the last call for this application; `None` if there is nothing to say.
    async fn remark(&self, _application: &Name) -> Option<Remark> {
        None
    }

    /// Messages to this application that were given up, and that no later one has made good.
    async fn dead_letters(&self, _application: &Name) -> Vec<DeadLetter> {
        Vec::new()
    }
}

/// Where the messages of each application are kept.
#[async_trait]
pub trait Outboxes: Send + Sync + fmt::Debug {
    /// As it was kept last, by whichever process, with the term in which this one leads; empty where nothing was.
    ///
    /// # Errors
    /// [`CourierError`]: nothing may be sent.
    async fn outbox(&self, application: &Name) -> Result<(u64, Outbox), CourierError>;

    /// Durable when it returns. `term` is that in which the outbox was read.
    ///
    /// # Errors
    /// [`CourierError`], also where another process has led since: what isn't kept hasn't happened.
    async fn keep(&self, application: &Name, term: u64, outbox: &Outbox) -> Result<(), CourierError>;
}
