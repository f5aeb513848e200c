//! Delivery as signed messages (Standard Webhooks): they name what changed, and hold no value.
//!
//! Each change of a credential is one message with one id, the same on each try and after a restart: the id is a function of
//! installation, application, credential and revision, so that even a process that has lost its queue sends no change under two ids.
//! Messages of an application go in order: the next one waits until the one before was accepted or given up. A newer change of a
//! credential takes the place of a waiting one that was never tried; what was tried stays, because its receiver may know it.
//!
//! Each replica has a queue of its own. One that leads again after another drops what it knows something newer of, tried or not, and
//! tries the rest for a day from then on: the other may have sent it, and then its receiver gets it a second time, under the same id.

mod message;
mod queue;
mod sender;
mod signing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{Cargo, Courier, CourierError, DeadLetter, Outcome, Progress};
use crate::domain::delivery::{Way, WebhookDelivery};
use crate::domain::ids::{InstallationId, Name};
use queue::{Queue, Queues};
use sender::{Answer, Sender, TIMEOUT};

const TOO_LONG: &str = "it wasn't accepted in all the time that a message is tried";
const GONE: &str = "the receiver answers 410: it wants no more";

/// In which term this process leads: by that a queue knows that another one may have led since it was worked on.
pub trait Tenure: Send + Sync + fmt::Debug {
    /// Greater than any before, and one more only where no other process began one in between; 0 while another one leads.
    fn term(&self) -> u64;
}

/// Sends messages, and keeps what waits in a folder of its own.
#[derive(Debug)]
pub struct WebhookCourier {
    installation: InstallationId,
    tenure: Arc<dyn Tenure>,
    queues: Queues,
    sender: Sender,
    /// By application; read from the folder when it is first needed.
    open: Mutex<BTreeMap<Name, Arc<Mutex<Queue>>>>,
}

impl WebhookCourier {
    /// `folder` is made when the first message is due. `installation` is part of each message's id.
    pub fn new(folder: PathBuf, installation: InstallationId, tenure: Arc<dyn Tenure>) -> WebhookCourier {
        WebhookCourier { installation, tenure, queues: Queues::new(folder), sender: Sender::new(TIMEOUT), open: Mutex::default() }
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

    async fn send_first(&self, cargo: &Cargo<'_>, asked: &WebhookDelivery, queue: &mut Queue) -> Result<Outcome, CourierError> {
        let application = &cargo.application.name;
        let Some(message) = queue.first().cloned() else { return Ok(Outcome::Unchanged) };
        if !message.tried {
            // On record before it goes: whether its receiver knows it decides what may take its place.
            let tried = queue.with_first_tried();
            self.keep(application, queue, tried).await?;
        }
        let given_up = |reason| Outcome::GivenUp(reason);
        match self.sender.send(cargo, asked, &message).await? {
            Answer::Accepted => {
                let accepted = queue.without_first();
                self.keep(application, queue, accepted).await?;
                Ok(Outcome::Delivered)
            }
            Answer::Gone => {
                let dead = queue.with_first_dead(cargo.now, GONE);
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
        if let Some(begun) = queue.with_tenure(self.tenure.term(), &cargo.parcels, cargo.now) {
            if queue.first().is_some() {
                self.keep(application, &mut queue, begun).await?;
            } else {
                // The term alone isn't worth a write: it goes to disk with the next message.
                *queue = begun;
            }
        }
        if let Some(grown) = queue.with_changes(self.installation, application, &cargo.parcels, cargo.now) {
            self.keep(application, &mut queue, grown).await?;
        }
        if queue.is_first_late(cargo.now, cargo.give_up_after) {
            let dead = queue.with_first_dead(cargo.now, TOO_LONG);
            self.keep(application, &mut queue, dead).await?;
            return Ok(Progress { outcome: Outcome::GivenUp(TOO_LONG), left: queue.waiting() });
        }
        let outcome = self.send_first(cargo, asked, &mut queue).await?;
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
