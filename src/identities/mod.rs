//! Who pods are: the seams to what a cluster says of a token and of its pods, and the reviews that the API asks for.
//!
//! A token is shown to the cluster only after its claims were looked at, and what the cluster said is kept for seconds: see [`Reviews`].

pub mod contract;
mod judge;
mod kept;
pub mod kubernetes;
pub mod memory;
mod reviews;

use std::collections::BTreeSet;

use async_trait::async_trait;

use crate::domain::ids::{Name, ObjectUid};
use crate::domain::material::Secret;
use crate::domain::workload::Workload;

pub use judge::{Answer, judge};
pub use reviews::{Now, Reviews, Shown, Unshown};

/// What a review came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accepted(Workload),
    /// Not for our audience, over, revoked, of no pod, or of a pod or an account that is gone. Which of these is nobody's to know.
    Refused,
}

/// Why the cluster didn't say anything of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    #[error("the cluster can't be asked whose tokens these are")]
    Unavailable,
    #[error("the cluster is asked too often")]
    TooMany,
    /// Our own account lacks the right to `create` `tokenreviews`, or its token isn't taken.
    #[error("the cluster doesn't let us ask whose tokens these are: our account needs the right to create tokenreviews")]
    Forbidden,
}

/// Asks the cluster whose token this is, for our audience. Keeps nothing.
#[async_trait]
pub trait TokenReviewer: Send + Sync {
    /// # Errors
    /// [`ReviewError`]: nothing is known of the token then.
    async fn review(&self, token: &Secret) -> Result<Verdict, ReviewError>;
}

/// Why the cluster didn't say which pods there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PodsError {
    #[error("the cluster can't be asked which pods there are")]
    Unavailable,
    /// Our own account lacks the right to `list` `pods` there.
    #[error("our account may not list pods there")]
    Forbidden,
}

/// Knows which pods there are.
#[async_trait]
pub trait Pods: Send + Sync {
    /// The pods of a namespace that haven't ended, all of them, as of a moment after the call: a pod that existed before it and isn't
    /// among them is gone for good.
    ///
    /// # Errors
    /// [`PodsError`]; a part of the pods is never an answer.
    async fn living(&self, namespace: &Name) -> Result<BTreeSet<ObjectUid>, PodsError>;
}
