//! The Kubernetes API that replicas share: how we reach it, as whom, in which namespace, and what its answers mean to us.
//!
//! What lies there (leases, journals, Secrets) is the business of those who use it. No environment variable is read, no proxy taken,
//! and nothing is repeated behind the caller's back: who mutates decides himself what a lost answer means.

mod answers;
mod error;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::client::ClientBuilder;
use tower::util::MapResponseLayer;

pub use error::ClusterError;
pub use settings::{ClusterSettings, ConnectError};

/// How long a connection may take to stand.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the API may say nothing while it answers, and how long a whole call may take.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);

/// What a watch may ask for as `timeoutSeconds`, at most: a connection that died unnoticed is found soon after.
pub const WATCH_SECONDS_MAX: u32 = 30;

/// A watch that says nothing for longer is dead: the API ends it at [`WATCH_SECONDS_MAX`].
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS_MAX as u64 + 5);

/// The longest answer that is taken in, in bytes. Objects have 1.5 MiB at most, so a page of them is to be asked with a limit.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A connection to the API. Clones share it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    watching: Client,
    namespace: Arc<str>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reads who we are and whom we trust. Makes no call. Within a runtime of tokio.
    ///
    /// # Errors
    /// [`ConnectError`]: these settings can't be used.
    pub fn connect(settings: &ClusterSettings) -> Result<Cluster, ConnectError> {
        let config = settings.read()?;
        let namespace = config.default_namespace.as_str().into();
        let client = build(&config, CALL_TIME_MAX, answers::with_retry_after_in_the_body, ANSWER_BYTES_MAX)?;
        // A watch is one long answer.
        let watching = build(&config, WATCH_SILENCE_MAX, answers::with_retry_after_in_the_body, usize::MAX)?;
        Ok(Cluster { client, watching, namespace })
    }

    /// For everything but watches. Its errors become a [`ClusterError`] before they go anywhere: use [`Cluster::call`].
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// For watches, which may say nothing for up to [`WATCH_SECONDS_MAX`].
    pub fn watch_client(&self) -> Client {
        self.watching.clone()
    }

    /// Our own namespace: that of our pod, or of the kubeconfig's context.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A whole call, within 10 s.
    ///
    /// # Errors
    /// [`ClusterError`]. After [`ClusterError::Unavailable`] a mutation may have had its effect.
    pub async fn call<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
        self.call_within(CALL_TIME_MAX, call).await
    }

    /// The same with another bound.
    ///
    /// # Errors
    /// As [`Cluster::call`].
    pub async fn call_within<T>(&self, longest: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
        match tokio::time::timeout(longest, call).await {
            Ok(answer) => answer.map_err(ClusterError::from),
            Err(_) => Err(ClusterError::Unavailable { retry_after: None }),
        }
    }
}

fn build(config: &kube::Config, silence_max: Duration, mend: answers::Mend, bytes_max: usize) -> Result<Client, ConnectError> {
    let mut config = config.clone();
    config.connect_timeout = Some(CONNECT_TIME_MAX);
    config.read_timeout = Some(silence_max);
    config.write_timeout = Some(CALL_TIME_MAX);
    // Else the time that a pooled connection was idle would count as silence.
    config.reset_reader_on_write = true;
    config.default_retry = false;
    config.proxy_url = None;
    let builder = ClientBuilder::try_from(config).map_err(|_| ConnectError::Credentials)?;
    let bounded = MapResponseLayer::new(move |response| answers::bounded(mend(response), bytes_max));
    Ok(builder.with_layer(&bounded).build())
}
