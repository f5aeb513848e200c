//! Delivery as a Kubernetes Secret, and rollout restarts of the workloads that use it.
//!
//! **The Secret** is of type `Opaque` and has one entry for each field of each credential, `<credential>.<field>`; where values verify,
//! also `<credential>.previous.<field>` for the version before. It is written by server-side apply as `keywright`, which leaves alone
//! what others put beside it, and takes away what we no longer apply: the fields of a credential to which access has ended.
//!
//! **Whose it is** is judged before it is touched (`owner.rs`), by its metadata: its data is never read. What is written names the
//! uid and the resourceVersion that were judged, so a Secret that changed hands in between is a conflict. Where there was none, the
//! answer to the apply tells whether somebody else created one in the same moment: then ours is taken out again.
//!
//! **Nothing is written twice.** A keyed fingerprint of all values stands in an annotation, and the API tells which entries are still
//! as we applied them: a restart of the daemon writes nothing, and what somebody changed by hand is put right. The revisions in
//! another annotation only grow: a replica that led before, and wakes with what it read then, can't write it over newer values.
//!
//! **Restarts** follow the Secret, never the other way round (`domain/restarts.rs`). All that must be remembered stands at the
//! workload: the checksum in its template, and the times of the last hour's restarts in an annotation. So whoever leads next goes on.

pub mod api;
pub mod contents;
pub mod contract;
mod courier;
pub mod memory;
pub mod objects;
pub mod owner;
mod pods;
#[cfg(test)]
mod tests;
pub mod trouble;
mod workloads;

use std::sync::Arc;

use jiff::Timestamp;

use crate::cluster::ClusterError;
use crate::delivery::Withdrawn;
use crate::domain::delivery::KubernetesDelivery;
use crate::domain::document::Document;
use crate::domain::ids::{InstallationId, Name, ObjectName};
use crate::domain::restarts::{Decision, Restarts, Sighting, Waiting, Workload, decide, recent, stragglers};
use crate::sealing::Keyring;

pub use courier::SecretCourier;

use contents::Contents;
use objects::{Intent, Mark, Objects, SecretAt, SecretSeen, WorkloadSeen};
use owner::{Owner, Standing, revisions};
use trouble::{Doing, Trouble};

/// How often a Secret that changes under our hands is looked at anew before it is left for later.
const TRIES: usize = 3;

/// Brings values into Secrets of a cluster.
#[derive(Debug)]
pub struct KubernetesSecrets {
    objects: Arc<dyn Objects>,
    keyring: Arc<Keyring>,
    installation: InstallationId,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The Secret holds the values. `in_use`: and so do all pods of the workloads that the document names, each of them Ready.
    Delivered { in_use: bool },
    /// The Secret holds the values, and not all pods do.
    Rolling {
        waiting: Waiting,
        /// When to look again; `None`: soon.
        until: Option<Timestamp>,
        /// Pods that may still use an older value.
        stragglers: Vec<ObjectName>,
    },
}

impl KubernetesSecrets {
    pub fn new(objects: Arc<dyn Objects>, keyring: Arc<Keyring>, installation: InstallationId) -> KubernetesSecrets {
        KubernetesSecrets { objects, keyring, installation }
    }

    /// Does what comes next, and tells whether the Secret was written, and how far all is. Repeating it is fine. `now` is the wall
    /// clock.
    ///
    /// # Errors
    /// [`Trouble`]; what was begun is taken up by the next call.
    pub async fn deliver(
        &self,
        application: &Name,
        to: &KubernetesDelivery,
        documents: &[&Document],
        now: Timestamp,
    ) -> Result<(bool, Progress), Trouble> {
        let at = SecretAt { namespace: to.namespace.clone(), name: to.secret.clone() };
        let contents = Contents::of(documents, &at, &self.keyring).map_err(|_| Trouble::TooLarge { at: at.clone() })?;
        let owner = Owner { installation: self.installation, application: application.clone() };
        let written = self.write(&at, &owner, &contents).await?;
        let progress = match &to.restarts {
            Some(restarts) if !contents.is_empty() => self.roll(&at, restarts, contents.checksum(), now).await?,
            _ => Progress::Delivered { in_use: false },
        };
        Ok((written, progress))
    }

    /// Takes our values out of the Secret, if it is ours. It stays, empty: to delete it would take one more right. What changes between
    /// the look and the writing is looked at by the next call: it may be wanted again by then.
    ///
    /// # Errors
    /// As [`KubernetesSecrets::deliver`].
    pub async fn withdraw(&self, application: &Name, at: SecretAt) -> Result<Withdrawn, Trouble> {
        let owner = Owner { installation: self.installation, application: application.clone() };
        let seen = self.look(&at).await?;
        match owner.judge(seen.as_ref()) {
            Standing::Ours => {}
            Standing::Absent => return Ok(Withdrawn::Emptied),
            Standing::Ending => return Err(Trouble::Ending { at }),
            Standing::HandedOver | Standing::Foreign(_) => return Ok(Withdrawn::NotOurs),
        }
        let nothing = Contents::of(&[], &at, &self.keyring).map_err(|_| Trouble::TooLarge { at: at.clone() })?;
        if seen.as_ref().is_some_and(|seen| is_whole(seen, &nothing)) {
            return Ok(Withdrawn::Emptied);
        }
        match self.objects.apply_secret(&at, Intent { owner: &owner, contents: &nothing, over: seen.as_ref() }).await {
            Ok(_) => Ok(Withdrawn::Emptied),
            Err(ClusterError::Conflict | ClusterError::Owned | ClusterError::AlreadyExists) => Err(Trouble::Contended { at }),
            Err(error) => Err(api("patch", at.to_string())(error)),
        }
    }

    async fn look(&self, at: &SecretAt) -> Result<Option<SecretSeen>, Trouble> {
        self.objects.secret(at).await.map_err(api("get", at.to_string()))
    }

    /// Makes the Secret hold exactly this of ours; `false` if it did already.
    async fn write(&self, at: &SecretAt, owner: &Owner, contents: &Contents) -> Result<bool, Trouble> {
        for _ in 0..TRIES {
            let seen = self.look(at).await?;
            let standing = owner.judge(seen.as_ref());
            match (standing, &seen) {
                (Standing::Foreign(why), _) => return Err(Trouble::NotOurs { at: at.clone(), owner: owner.clone(), why }),
                (Standing::Ending, _) => return Err(Trouble::Ending { at: at.clone() }),
                (Standing::Absent, _) if contents.is_empty() => return Ok(false),
                (Standing::Ours, Some(seen)) if is_whole(seen, contents) => return Ok(false),
                (Standing::Ours, Some(seen)) if is_newer(seen, contents) => return Err(Trouble::Overtaken { at: at.clone() }),
                (Standing::Absent | Standing::Ours | Standing::HandedOver, _) => {}
            }
            if standing == Standing::Ours && seen.as_ref().is_some_and(|seen| has_fingerprint(seen, contents)) {
                tracing::warn!(application = %owner.application, "the values of a Secret were changed by somebody else, and are put right");
            }
            let written = self.objects.apply_secret(at, Intent { owner, contents, over: seen.as_ref() }).await;
            match written {
                Ok(written) if seen.is_none() && written.has_others => return self.give_up(at, owner, &written).await,
                Ok(_) => {
                    tracing::info!(application = %owner.application, "a Secret was written");
                    return Ok(true);
                }
                // Somebody was there in between: judged anew.
                Err(ClusterError::Conflict | ClusterError::Owned | ClusterError::AlreadyExists) => {}
                Err(error) => return Err(api("patch", at.to_string())(error)),
            }
        }
        Err(Trouble::Contended { at: at.clone() })
    }

    /// Somebody created a Secret of this name in the same moment: it is theirs.
    async fn give_up(&self, at: &SecretAt, owner: &Owner, written: &SecretSeen) -> Result<bool, Trouble> {
        self.objects.release_secret(at, written).await.map_err(api("patch", at.to_string()))?;
        Err(Trouble::NotOurs { at: at.clone(), owner: owner.clone(), why: owner::Foreign::Unmarked })
    }

    /// The Secret holds what has this checksum: restarts what comes next.
    async fn roll(&self, at: &SecretAt, restarts: &Restarts, checksum: &str, now: Timestamp) -> Result<Progress, Trouble> {
        let mut found: Vec<(Workload, Option<WorkloadSeen>)> = Vec::with_capacity(restarts.workloads.len());
        for workload in &restarts.workloads {
            let seen = self
                .objects
                .workload(at, workload)
                .await
                .map_err(api("get", format!("{workload} and list its pods in {}", at.namespace)))?;
            found.push((workload.clone(), seen));
        }
        let sightings: Vec<Sighting> =
            found.iter().map(|(workload, seen)| (workload.clone(), seen.as_ref().map(|workload| workload.seen.clone()))).collect();
        let stragglers = stragglers(&sightings, checksum);
        match decide(restarts, &sightings, checksum, now) {
            Decision::Done => Ok(Progress::Delivered { in_use: true }),
            Decision::Wait { reason, until } => Ok(Progress::Rolling { waiting: reason, until, stragglers }),
            Decision::Restart(chosen) => {
                for (workload, seen) in found.iter().filter(|(workload, _)| chosen.contains(workload)) {
                    let Some(WorkloadSeen { uid, seen }) = seen else { continue };
                    let mut restarted = recent(&seen.restarted, now);
                    restarted.push(now);
                    let mark = Mark { checksum: checksum.to_owned(), restarted };
                    self.objects
                        .restart(at, workload, uid, &mark)
                        .await
                        .map_err(api("patch", format!("{workload} in {}", at.namespace)))?;
                    tracing::info!(place = %workload, "a workload was restarted: its Secret changed");
                }
                let first = chosen.into_iter().next().map(Waiting::Rolling).unwrap_or(Waiting::Window);
                Ok(Progress::Rolling { waiting: first, until: None, stragglers })
            }
        }
    }
}

/// As we wrote it, all of it and nothing more.
fn is_whole(seen: &SecretSeen, contents: &Contents) -> bool {
    has_fingerprint(seen, contents) && seen.ours == *contents.names()
}

fn has_fingerprint(seen: &SecretSeen, contents: &Contents) -> bool {
    seen.annotations.get(owner::FINGERPRINT).is_some_and(|of| of == contents.fingerprint())
}

/// Whether a credential stands there with a later revision than ours.
fn is_newer(seen: &SecretSeen, contents: &Contents) -> bool {
    let written = revisions(seen);
    contents.revisions().iter().any(|(name, revision)| written.get(name.as_str()).is_some_and(|there| there > revision))
}

fn api(verb: &'static str, object: String) -> impl FnOnce(ClusterError) -> Trouble {
    move |error| Trouble::Api { doing: Doing { verb, object }, error }
}
