//! Streams, leases and releases: how an instance comes to count, and how it stops counting.

use std::fmt;
use std::sync::{Arc, PoisonError};

use super::Engine;
use super::audit::Order;
use super::book::Expired;
use super::errors::ReleaseError;
use crate::domain::ids::{InstanceName, Name};
use crate::journal::HoldingChange;

/// While it lives, the instance has an open stream; when it is dropped, the lease begins.
pub struct StreamGuard {
    engine: Arc<Engine>,
    application: Name,
    instance: InstanceName,
}

impl fmt::Debug for StreamGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamGuard").field("application", &self.application).field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let running = self.engine.seams.clock.now().running;
        self.engine.book.stream_ended(&self.application, &self.instance, running);
    }
}

impl Engine {
    pub fn open_stream(self: &Arc<Self>, application: &Name, instance: &InstanceName) -> StreamGuard {
        self.book.stream_began(application, instance);
        self.touch(application, instance);
        StreamGuard { engine: self.clone(), application: application.clone(), instance: instance.clone() }
    }

    /// Any authenticated call of an instance: its lease runs from now.
    pub fn touch(&self, application: &Name, instance: &InstanceName) {
        self.book.touch(application, instance, self.lease(application), self.seams.clock.now().running);
    }

    /// A person says that an instance, or all of an application, holds nothing any more. Without an instance, this holds also for
    /// credentials that the application was never served.
    ///
    /// # Errors
    /// [`ReleaseError::Unknown`] if there is nothing to release.
    pub async fn release(&self, order: Order, application: &Name, instance: Option<&InstanceName>) -> Result<(), ReleaseError> {
        let mut chosen = self.book.instances_of(application);
        // An application that was never seen is released as a whole, also under the name of one that doesn't name itself.
        let instance = instance.filter(|instance| !(chosen.is_empty() && instance.is_unnamed()));
        chosen.retain(|(name, _)| instance.is_none_or(|wanted| wanted == name));
        let listed = self.policies().applications.get(application).map(|application| application.credentials.clone());
        if chosen.is_empty() && (instance.is_some() || listed.is_none()) {
            return Err(ReleaseError::Unknown);
        }
        let who = instance.map_or_else(|| format!("{application}: all instances"), |instance| format!("{application}/{instance}"));
        self.record(order, "released", None, None, Some(&who)).await.map_err(|_| ReleaseError::AuditUnavailable)?;
        let unseen = if instance.is_none() { listed.unwrap_or_default() } else { Vec::new() };
        let mut changes: Vec<HoldingChange> = unseen
            .iter()
            .map(|credential| HoldingChange::Seen { application: application.clone(), credential: credential.clone() })
            .collect();
        changes.extend(chosen.iter().flat_map(|(name, credentials)| removals(application, name, credentials)));
        // The book first, as with leases: who reads in between is recorded anew, after the removal.
        for (name, _) in &chosen {
            self.book.remove(application, name, None);
        }
        self.seams.journal.write_holdings(self.term, &changes).await.map_err(|_| ReleaseError::Unavailable)?;
        for (name, credentials) in chosen {
            credentials.iter().for_each(|credential| self.look_at(credential));
            self.restore_returned(&Expired { application: application.clone(), instance: name, credentials }).await;
        }
        for credential in &unseen {
            self.book.mark_seen(application, credential);
            self.look_at(credential);
        }
        Ok(())
    }

    /// Forgets instances whose lease has run out.
    pub(super) async fn expire_leases(&self) {
        let running = self.seams.clock.now().running;
        for expired in self.book.expired(running) {
            // The book first: who comes back in between is recorded anew, after the removal.
            if !self.book.remove(&expired.application, &expired.instance, Some(running)) {
                continue;
            }
            tracing::info!(application = %expired.application, instance = %expired.instance, "lease ended");
            let removals = removals(&expired.application, &expired.instance, &expired.credentials);
            if self.seams.journal.write_holdings(self.term, &removals).await.is_err() {
                // It comes back at the next start with a lease of its own: late, never wrong.
                tracing::warn!(application = %expired.application, "the end of a lease couldn't be written");
            }
            self.restore_returned(&expired).await;
            expired.credentials.iter().for_each(|credential| self.look_at(credential));
        }
    }

    /// Who came back while its removal was being written is written once more.
    pub(super) async fn restore_returned(&self, expired: &Expired) {
        let held = |credential: &Name| self.book.holding(&expired.application, &expired.instance, credential);
        let returned: Vec<HoldingChange> = expired.credentials.iter().filter_map(held).map(HoldingChange::Put).collect();
        if !returned.is_empty() && self.write_holdings(returned).await.is_err() {
            tracing::warn!(application = %expired.application, "an instance that came back couldn't be written");
        }
    }

    /// Something happened to this credential: the loop looks at it now.
    pub(super) fn look_at(&self, credential: &Name) {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).insert(credential.clone());
        self.wake.notify_one();
    }
}

fn removals(application: &Name, instance: &InstanceName, credentials: &[Name]) -> Vec<HoldingChange> {
    let remove = |credential: &Name| HoldingChange::Remove {
        application: application.clone(),
        instance: instance.clone(),
        credential: credential.clone(),
    };
    credentials.iter().map(remove).collect()
}
