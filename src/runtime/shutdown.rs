//! The end of the process, and the wish to read policies again: signals turned into something to wait for.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// From the signal to the end of the process.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Of this, what is left for closing files after everything that waits for others was ended.
const CLOSING: Duration = Duration::from_secs(2);

/// Told to everything that runs. Clones are the same shutdown.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    begun: CancellationToken,
    /// A second signal: somebody doesn't want to wait.
    hurried: CancellationToken,
    since: Arc<OnceLock<Instant>>,
    /// How often a reload was asked for.
    reload: Arc<watch::Sender<u64>>,
}

impl Shutdown {
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Listens for SIGTERM and SIGINT (end) and SIGHUP (reload), as long as the runtime lives.
    ///
    /// # Errors
    /// If the handlers can't be installed.
    pub fn listen(&self) -> io::Result<()> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        tokio::spawn(self.clone().obey(terminate, interrupt, hangup));
        Ok(())
    }

    async fn obey(self, mut terminate: Signal, mut interrupt: Signal, mut hangup: Signal) {
        loop {
            tokio::select! {
                Some(()) = terminate.recv() => self.signalled("SIGTERM"),
                Some(()) = interrupt.recv() => self.signalled("SIGINT"),
                Some(()) = hangup.recv() => self.request_reload(),
                else => return,
            }
        }
    }

    fn signalled(&self, signal: &'static str) {
        tracing::info!(signal, "asked to end");
        if self.is_begun() {
            self.hurried.cancel();
        }
        self.begin();
    }

    /// Begins to end. The deadline counts from the first time.
    pub fn begin(&self) {
        self.since.get_or_init(Instant::now);
        self.begun.cancel();
    }

    pub fn is_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits for the beginning of the end.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// For tasks and streams: cancelled when the end begins. Cancelling it ends the process; children of it don't.
    pub fn token(&self) -> CancellationToken {
        self.begun.clone()
    }

    /// Waits for what is being ended, no longer than leaves time to close files; `None` if it wasn't done by then. Before the end
    /// has begun, there is no limit.
    pub async fn in_time<F: Future>(&self, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = work => Some(output),
            () = self.hurried.cancelled() => None,
            () = self.late() => None,
        }
    }

    async fn late(&self) {
        self.begun().await;
        let since = *self.since.get_or_init(Instant::now);
        tokio::time::sleep_until(since + DEADLINE.saturating_sub(CLOSING)).await;
    }

    /// Asks for the policies to be read again.
    pub fn request_reload(&self) {
        self.reload.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// For one task that waits for such requests: what is asked from now on counts for it.
    pub fn reloads(&self) -> Reloads {
        Reloads(self.reload.subscribe())
    }
}

/// What one task has seen of the requests to reload.
#[derive(Debug)]
pub struct Reloads(watch::Receiver<u64>);

impl Reloads {
    /// Waits until somebody asks for a reload; what was asked since the last time counts.
    pub async fn requested(&mut self) {
        // The sender lives as long as the shutdown: without it nobody asks any more.
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_ends_in_time_is_waited_for_and_what_does_not_is_left() {
        let shutdown = Shutdown::new();
        assert_eq!(shutdown.in_time(tokio::time::sleep(Duration::from_millis(1))).await, Some(()));
        // As if the end had begun almost long enough ago.
        let left = Duration::from_millis(200);
        shutdown.since.set(Instant::now().checked_sub(DEADLINE - CLOSING - left).unwrap()).unwrap();
        shutdown.begin();
        assert_eq!(shutdown.in_time(tokio::time::sleep(Duration::from_millis(1))).await, Some(()));
        let begun = Instant::now();
        assert_eq!(shutdown.in_time(std::future::pending::<()>()).await, None);
        assert!(begun.elapsed() < DEADLINE - CLOSING);
    }

    #[tokio::test]
    async fn a_second_signal_hurries() {
        let shutdown = Shutdown::new();
        shutdown.signalled("SIGTERM");
        shutdown.begun().await;
        let begun = Instant::now();
        shutdown.signalled("SIGTERM");
        assert_eq!(shutdown.in_time(std::future::pending::<()>()).await, None);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn signals_arrive() {
        let shutdown = Shutdown::new();
        shutdown.listen().unwrap();
        let (mut one, mut other) = (shutdown.reloads(), shutdown.reloads());
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::HUP).unwrap();
        one.requested().await;
        other.requested().await;
        assert!(!shutdown.is_begun());
        rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
        shutdown.begun().await;
        assert!(shutdown.token().is_cancelled());
    }
}
