//! Several daemons on one journal: what they share is opened here, and each follows or leads as its lease says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::domain::ids::Name;
use crate::engine::audit::{Action, Actor, Audit};
use crate::engine::office::Mandate;
use crate::engine::{Engine, Replica};
use crate::journal::kubernetes::{KubernetesJournal, KubernetesSettings};
use crate::replicas::kubernetes::KubernetesRows;
use crate::runtime::audit::{AuditFile, Leading};
use crate::runtime::clock::wall_now;
use crate::runtime::config::Config;
use crate::runtime::leadership::lease::KubernetesLease;
use crate::runtime::leadership::{BootClock, Identity, Leadership, Standing, Timing};
use crate::runtime::shutdown::Shutdown;
use crate::sealing::Keyring;

use super::daemon::cannot_start;
use super::failure::Failure;

/// Between two tries to take office while the lease is ours.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long the letters of the host's name may be in a row's: the whole is one DNS label.
const HOST_MAX: usize = 40;

/// What replicas share, as one of them has it.
pub(super) struct Shared {
    pub(super) journal: Arc<KubernetesJournal>,
    rows: Arc<KubernetesRows>,
    lease: KubernetesLease,
    identity: Identity,
    name: Name,
}

impl Shared {
    /// Connects; makes no call.
    ///
    /// # Errors
    /// The cluster can't be reached as configured, or the host has no name that can be told to others.
    pub(super) fn open(config: &Config, settings: &KubernetesSettings, keyring: &Arc<Keyring>) -> Result<Shared, Failure> {
        let cluster = Cluster::connect(&config.cluster).map_err(|error| cannot_start("the Kubernetes API can't be used", &error))?;
        let identity = Identity::of_this_process();
        let host = host_label(identity.host());
        // Of the process, so that one that starts again never writes into the row of the one before.
        let chance = identity.as_str().rsplit('_').next().unwrap_or_default();
        let unnamed = |error| cannot_start("the host's name can't name a replica", &error);
        let name: Name = format!("{host}-{chance}").parse().map_err(unnamed)?;
        let namespace = settings.namespace.as_ref().map_or(cluster.namespace(), Name::as_str).to_owned();
        let lease = KubernetesLease::new(&cluster, &namespace, settings.lease.as_str());
        let rows = KubernetesRows::new(cluster.clone(), settings.namespace.as_ref(), settings.lease.clone(), Arc::clone(keyring));
        // Its audit trail is the host's, whichever process writes it.
        let host: Name = host.parse().map_err(unnamed)?;
        let journal = KubernetesJournal::new(cluster, settings, Arc::clone(keyring), host);
        Ok(Shared { journal: Arc::new(journal), rows: Arc::new(rows), lease, identity, name })
    }

    pub(super) fn replica(&self) -> Replica {
        Replica { name: self.name.clone(), rows: Arc::clone(&self.rows) as _ }
    }

    /// Enters the contest.
    pub(super) fn contest(self) -> Leadership {
        Leadership::start(Arc::new(self.lease), self.identity, Timing::DEFAULT, Arc::new(BootClock))
    }
}

/// A host's name as a part of a DNS label.
fn host_label(host: &str) -> String {
    let letters = host.chars().map(|letter| letter.to_ascii_lowercase());
    let label: String = letters.map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).take(HOST_MAX).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "replica".to_owned() } else { label.to_owned() }
}

struct ByLease(Leadership);

impl Mandate for ByLease {
    fn holds(&self) -> bool {
        self.0.leads()
    }
}

/// What only who leads does, until its token is cancelled.
pub(super) type Duties = Box<dyn Fn(&Arc<Engine>, &CancellationToken) -> Vec<BoxFuture<'static, ()>> + Send + Sync>;

/// Takes and leaves office as the lease says, until the shutdown; gives the lease back then, when nothing acts any more.
pub(super) async fn lead_or_follow(engine: Arc<Engine>, leadership: Leadership, audit: Arc<AuditFile>, duties: Duties, shutdown: Shutdown) {
    let mut told = leadership.watch();
    loop {
        let standing = told.borrow_and_update().clone();
        match standing {
            Standing::Following { leader } => engine.set_leader(leader.map(|leader| leader.host().to_owned())),
            Standing::Leading { .. } => {
                lead(&engine, &leadership, &audit, &duties, &shutdown).await;
            }
        }
        tokio::select! {
            biased;
            () = shutdown.begun() => break,
            changed = told.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(TRY_AGAIN), if leadership.leads() => {}
        }
    }
    leadership.resign().await;
}

/// One tenure, from the take-over to its end.
async fn lead(engine: &Arc<Engine>, leadership: &Leadership, audit: &AuditFile, duties: &Duties, shutdown: &Shutdown) {
    let term = match engine.take_office(Arc::new(ByLease(leadership.clone()))).await {
        Ok(term) => term,
        Err(error) => {
            tracing::warn!(%error, "this replica can't take over yet");
            return;
        }
    };
    let leading = Leading { installation: engine.leading().0, term };
    let action = Action {
        actor: Actor::Daemon,
        action: "took-office".to_owned(),
        credential: None,
        version: None,
        detail: Some(leading.to_string()),
    };
    if audit.record(wall_now(), action).await.is_err() {
        // Each change has a record of its own before it: without the trail nothing is changed.
        tracing::warn!("that this replica leads couldn't be recorded");
    }
    let tenure = CancellationToken::new();
    let mut work: JoinSet<()> = duties(engine, &tenure).into_iter().collect();
    let broke = tokio::select! {
        biased;
        () = shutdown.begun() => false,
        () = until_deposed(leadership) => {
            engine.leave_office();
            false
        }
        _ = work.join_next() => true,
    };
    tenure.cancel();
    while work.join_next().await.is_some() {}
    engine.leave_office();
    if broke && !shutdown.is_begun() {
        tracing::error!("a part of what leads ended by itself: the daemon ends, so that another one leads");
        shutdown.begin();
    }
}

/// Looks at the clock as well: the standing of a process that was stopped is old.
async fn until_deposed(leadership: &Leadership) {
    let mut told = leadership.watch();
    while leadership.leads() {
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TRY_AGAIN) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_names_a_replica() {
        for (host, label) in
            [("keywright-7d9c-x", "keywright-7d9c-x"), ("Host.example_1", "host-example-1"), ("..", "replica"), ("", "replica")]
        {
            assert_eq!(host_label(host), label);
        }
        let long = host_label(&format!("{}-b", "a".repeat(HOST_MAX - 1)));
        assert!(format!("{long}-0123456789ab").parse::<Name>().is_ok());
    }
}
