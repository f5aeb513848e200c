//! The courier of this way: cargo in, a Secret and its restarts out, and words about them for `status`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::trouble::Trouble;
use super::{KubernetesSecrets, Progress as Rollout, SecretAt};
use crate::delivery::{Cargo, Courier, CourierError, Outcome, Progress, Remark, Withdrawn};
use crate::domain::delivery::{KubernetesDelivery, Way};
use crate::domain::dispatch::Place;
use crate::domain::document::Document;
use crate::domain::ids::{Name, ObjectName};
use crate::domain::policy::Application;
use crate::domain::restarts::Waiting;

/// Brings cargo into Secrets.
#[derive(Debug)]
pub struct SecretCourier {
    /// Or why there is no cluster.
    secrets: Result<KubernetesSecrets, String>,
    remarks: Mutex<BTreeMap<Name, Remark>>,
}

impl SecretCourier {
    pub fn new(secrets: KubernetesSecrets) -> SecretCourier {
        SecretCourier::of(Ok(secrets))
    }

    /// Where there is no cluster to write to: says so to those applications that ask for a Secret.
    pub fn without_cluster(why: String) -> SecretCourier {
        SecretCourier::of(Err(why))
    }

    fn of(secrets: Result<KubernetesSecrets, String>) -> SecretCourier {
        SecretCourier { secrets, remarks: Mutex::default() }
    }

    fn secrets(&self, application: &Name) -> Result<&KubernetesSecrets, CourierError> {
        self.secrets.as_ref().map_err(|why| {
            self.remark_on(application, Some(Remark { text: why.clone(), stragglers: Vec::new() }));
            CourierError::Refused("there is no cluster to write to")
        })
    }

    fn remark_on(&self, application: &Name, remark: Option<Remark>) {
        // A panic while it was held leaves whole entries: each change is one insertion.
        let mut remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        match remark {
            Some(remark) => drop(remarks.insert(application.clone(), remark)),
            None => drop(remarks.remove(application)),
        }
    }

    fn refused(&self, application: &Name, trouble: &Trouble) -> CourierError {
        self.remark_on(application, Some(Remark { text: trouble.to_string(), stragglers: Vec::new() }));
        error_of(trouble)
    }
}

#[async_trait]
impl Courier for SecretCourier {
    fn way(&self) -> Way {
        Way::KubernetesSecret
    }

    async fn deliver(&self, cargo: &Cargo<'_>) -> Result<Progress, CourierError> {
        let application = &cargo.application.name;
        let to = asked(cargo.application)?;
        let documents: Vec<&Document> = cargo.parcels.iter().filter_map(|parcel| parcel.document.as_ref()).collect();
        let delivered = self.secrets(application)?.deliver(application, to, &documents, cargo.now).await;
        let (written, progress) = delivered.map_err(|trouble| self.refused(application, &trouble))?;
        let (outcome, remark) = match progress {
            Rollout::Delivered { in_use: true } => (Outcome::TakenUp, None),
            Rollout::Delivered { in_use: false } if written => (Outcome::Delivered, None),
            Rollout::Delivered { in_use: false } => (Outcome::Unchanged, None),
            Rollout::Rolling { waiting, stragglers, .. } if waiting.needs_a_person() => {
                let text = rolling_text(&waiting, &stragglers);
                self.remark_on(application, Some(Remark { text, stragglers }));
                return Err(CourierError::Refused("restarts wait for a person"));
            }
            Rollout::Rolling { waiting, until, stragglers } => {
                let text = rolling_text(&waiting, &stragglers);
                (Outcome::UnderWay { until }, Some(Remark { text, stragglers }))
            }
        };
        self.remark_on(application, remark);
        Ok(Progress { outcome, left: 0 })
    }

    async fn withdraw(&self, application: &Name, place: &Place) -> Result<Withdrawn, CourierError> {
        let Place::Secret { namespace, secret } = place.clone() else { return Ok(Withdrawn::NotOurs) };
        let at = SecretAt { namespace, name: secret };
        let withdrawn = self.secrets(application)?.withdraw(application, at).await;
        let withdrawn = withdrawn.map_err(|trouble| self.refused(application, &trouble))?;
        self.remark_on(application, None);
        Ok(withdrawn)
    }

    async fn look_at(&self, application: &Name, place: &Place) -> Result<(), CourierError> {
        let Place::Secret { namespace, secret } = place.clone() else { return Ok(()) };
        let at = SecretAt { namespace, name: secret };
        let looked = self.secrets(application)?.look(&at).await;
        looked.map(drop).map_err(|trouble| self.refused(application, &trouble))
    }

    async fn remark(&self, application: &Name) -> Option<Remark> {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner).get(application).cloned()
    }
}

fn asked(application: &Application) -> Result<&KubernetesDelivery, CourierError> {
    application.delivery.kubernetes.as_ref().ok_or(CourierError::Refused("the document asks for no Secret"))
}

/// The seam's word for it; the whole of it is the remark's.
fn error_of(trouble: &Trouble) -> CourierError {
    const BUSY: &str = "the Kubernetes API asks to be left alone for a while";
    match (trouble.retry_after(), trouble) {
        (Some(wait), _) => CourierError::Later { why: BUSY, wait: wait.max(Duration::from_millis(500)) },
        (None, trouble) if trouble.is_passing() => CourierError::Unavailable("the Secret can't be brought up to date now"),
        (None, Trouble::NotOurs { .. }) => CourierError::Refused("the Secret isn't ours"),
        (None, Trouble::TooLarge { .. }) => CourierError::Refused("the values are more than a Secret holds"),
        (None, _) => CourierError::Refused("the Kubernetes API refuses it"),
    }
}

fn rolling_text(waiting: &Waiting, stragglers: &[ObjectName]) -> String {
    match stragglers.len() {
        0 => waiting.to_string(),
        1 => format!("{waiting}; 1 pod may still use the old value"),
        count => format!("{waiting}; {count} pods may still use the old value"),
    }
}

#[cfg(test)]
mod tests;
