//! Delivery as signed messages (Standard Webhooks): they name what changed, and hold no value.
//!
//! Each change of a credential is one message with one id, the same on each try and after a restart: the id is a function of
//! installation, application, credential and revision, so that even a process that has lost its queue sends no change under two ids.
//! Messages of an application go in order: the next one waits until the one before was accepted or given up.
//!
//! What waits, was told and was given up is kept where all replicas find it: whoever leads next goes on where the one before it stopped.
//! It sends again what was sent without its answer being on record, under the same id.

mod message;
mod sender;
mod signing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;

use super::{Cargo, Courier, CourierError, Outboxes, Outcome, Parcel, Progress};
use crate::domain::delivery::{Way, WebhookDelivery};
use crate::domain::ids::{InstallationId, Name};
use crate::domain::outbox::{DeadLetter, Outbox, Subject};
use sender::{Answer, Sender, TIMEOUT};

const TOO_LONG: &str = "it wasn't accepted in all the time that a message is tried";
const GONE: &str = "the receiver answers 410: it wants no more";

/// Sends messages.
#[derive(Debug)]
pub struct WebhookCourier {
    installation: InstallationId,
    outboxes: Arc<dyn Outboxes>,
    sender: Sender,
}

impl WebhookCourier {
    /// `installation` is part of each message's id.
    pub fn new(installation: InstallationId, outboxes: Arc<dyn Outboxes>) -> WebhookCourier {
        WebhookCourier { installation, outboxes, sender: Sender::new(TIMEOUT) }
    }

    /// Sends the first one, and tells what is left. `term` is that in which the outbox was read.
    async fn send_first(
        &self,
        cargo: &Cargo<'_>,
        asked: &WebhookDelivery,
        term: u64,
        mut outbox: Outbox,
    ) -> Result<Progress, CourierError> {
        let application = &cargo.application.name;
        let Some(message) = outbox.first().cloned() else { return Ok(Progress { outcome: Outcome::Unchanged, left: 0 }) };
        if !message.tried {
            // On record before it goes: whether its receiver knows it decides what may take its place.
            outbox = outbox.with_first_tried();
            self.outboxes.keep(application, term, &outbox).await?;
        }
        let (rest, outcome) = match self.sender.send(cargo, asked, &message).await? {
            Answer::Accepted => (outbox.without_first(), Outcome::Delivered),
            Answer::Gone => (outbox.with_first_dead(cargo.now, GONE), Outcome::GivenUp(GONE)),
        };
        self.outboxes.keep(application, term, &rest).await?;
        Ok(Progress { outcome, left: rest.waiting() })
    }
}

fn subject(parcel: &Parcel) -> Subject {
    Subject {
        credential: parcel.credential.clone(),
        environment: parcel.environment,
        version: parcel.version.clone(),
        revision: parcel.revision,
    }
}

#[async_trait]
impl Courier for WebhookCourier {
    fn way(&self) -> Way {
        Way::Webhook
    }

    async fn deliver(&self, cargo: &Cargo<'_>) -> Result<Progress, CourierError> {
        let application = &cargo.application.name;
        let asked = cargo.application.delivery.webhook.as_ref();
        let asked = asked.ok_or(CourierError::Refused("the document of the application asks for no webhook"))?;
        let (term, mut outbox) = self.outboxes.outbox(application).await?;
        if let Some(grown) = outbox.with_changes(self.installation, application, cargo.parcels.iter().map(subject), cargo.now) {
            self.outboxes.keep(application, term, &grown).await?;
            outbox = grown;
        }
        if outbox.is_first_late(cargo.now, cargo.give_up_after) {
            let rest = outbox.with_first_dead(cargo.now, TOO_LONG);
            self.outboxes.keep(application, term, &rest).await?;
            return Ok(Progress { outcome: Outcome::GivenUp(TOO_LONG), left: rest.waiting() });
        }
        self.send_first(cargo, asked, term, outbox).await
    }

    async fn dead_letters(&self, application: &Name) -> Vec<DeadLetter> {
        match self.outboxes.outbox(application).await {
            Ok((_, outbox)) => outbox.dead_letters(),
            // Said by the delivery itself.
            Err(_) => Vec::new(),
        }
    }
}
