//! Delivery as signed messages (Standard Webhooks): they name what changed, and hold no value.
//!
//! Each change of a credential is one message with one id, the same on each try and after a restart: the id is a function of
//! installation, application, credential and revision, so that even a process that has lost its queue sends no change under two ids.
//! Messages of an application go in order: the next one waits until the one before was accepted or given up. A newer change of a
//! credential takes the place of a waiting one that was never tried; what was tried stays, because its receiver may know it.

mod message;
mod queue;
mod sender;
mod signing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::{Cargo, Courier, CourierError, DeadLetter, Outcome, Progress};
use crate::domain::delivery::{Way, WebhookDelivery};
use crate::domain::ids::{InstallationId, Name};
use queue::{Queue, Queues};
use sender::{Answer, Sender};

const TOO_LONG: &str = "it wasn't accepted in all the time that a message is tried";
const GONE: &str = "the receiver answers 410: it wants no more";

/// Sends messages, and keeps what waits in a folder of its own.
#[derive(Debug)]
pub struct WebhookCourier {
    installation: InstallationId,
    queues: Queues,
    sender: Sender,
    /// By application; read from the folder when it is first needed.
    open: Mutex<BTreeMap<Name, Arc<Mutex<Queue>>>>,
}

impl WebhookCourier {
    /// `folder` is made when the first message is due. `installation` is part of each message's id.
    pub fn new(folder: PathBuf, installation: InstallationId) -> WebhookCourier {
        WebhookCourier { installation, queues: Queues::new(folder), sender: Sender::new(), open: Mutex::default() }
    }

    async fn queue(&self, application: &Name) -> Result<Arc<Mutex<Queue>>, CourierError> {
        let mut open = self.open.lock().await;
        if let Some(queue) = open.get(application) {
            return Ok(Arc::clone(queue));
        }
        let queue = Arc::new(Mutex::new(self.queues.load(application).await?));
        open.insert(application.clone(), Arc::clone(&queue));
        Ok(queue)
    }

    /// Changes the queue on disk, then in memory: what can't be written hasn't happened.
    async fn keep(&self, application: &Name, queue: &mut Queue, changed: Queue) -> Result<(), CourierError> {
        self.queues.store(application, &changed).await?;
        *queue = changed;
        Ok(())
    }

    async fn send_first(
        &self,
        application: &Name,
        asked: &WebhookDelivery,
        queue: &mut Queue,
        now: Timestamp,
    ) -> Result<Outcome, CourierError> {
        let Some(message) = queue.first().cloned() else { return Ok(Outcome::Unchanged) };
        if !message.tried {
            // On record before it goes: whether its receiver knows it decides what may take its place.
            let tried = queue.with_first_tried();
            self.keep(application, queue, tried).await?;
        }
        let given_up = |reason| Outcome::GivenUp(reason);
        match self.sender.send(asked, &message, application, now).await? {
            Answer::Accepted => {
                let accepted = queue.without_first();
                self.keep(application, queue, accepted).await?;
                Ok(Outcome::Delivered)
            }
            Answer::Gone => {
                let dead = queue.with_first_dead(now, GONE);
                self.keep(application, queue, dead).await?;
                Ok(given_up(GONE))
            }
        }
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
        let queue = self.queue(application).await?;
        let mut queue = queue.lock().await;
        if let Some(grown) = queue.with_changes(self.installation, application, &cargo.parcels, cargo.now) {
            self.keep(application, &mut queue, grown).await?;
        }
        if queue.is_first_late(cargo.now, cargo.give_up_after) {
            let dead = queue.with_first_dead(cargo.now, TOO_LONG);
            self.keep(application, &mut queue, dead).await?;
            return Ok(Progress { outcome: Outcome::GivenUp(TOO_LONG), left: queue.waiting() });
        }
        let outcome = self.send_first(application, asked, &mut queue, cargo.now).await?;
        Ok(Progress { outcome, left: queue.waiting() })
    }

    async fn dead_letters(&self, application: &Name) -> Vec<DeadLetter> {
        match self.queue(application).await {
            Ok(queue) => queue.lock().await.dead_letters(),
            // Said by the delivery itself.
            Err(_) => Vec::new(),
        }
    }
}
