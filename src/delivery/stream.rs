//! Delivery over the event streams: wakes every open one, which then looks at what it may read.

use tokio::sync::watch;

use super::{Change, Delivery};

/// Wakes the open streams of this process. Only the latest state is promised, so one counter is enough: a stream that
/// was slow sees one change instead of a hundred, and there is no queue that could overflow.
#[derive(Debug)]
pub struct StreamHub {
    changes: watch::Sender<u64>,
}

/// One stream's view of the hub.
#[derive(Debug)]
pub struct Changes(watch::Receiver<u64>);

impl StreamHub {
    pub fn new() -> StreamHub {
        StreamHub { changes: watch::Sender::new(0) }
    }

    /// Sees all changes from now on.
    pub fn subscribe(&self) -> Changes {
        Changes(self.changes.subscribe())
    }
}

impl Default for StreamHub {
    fn default() -> StreamHub {
        StreamHub::new()
    }
}

impl Delivery for StreamHub {
    fn announce(&self, _change: Change) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Changes {
    /// Returns once something was announced since the last call; many announcements are one.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The hub is gone, so nothing will be announced any more: the stream goes on with what it has.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::delivery::contract;

    #[tokio::test]
    async fn delivery_stream_keeps_the_contract() {
        let hub = StreamHub::new();
        let mut changes = hub.subscribe();
        contract::check(&hub);
        tokio::time::timeout(Duration::from_secs(1), changes.next()).await.unwrap();
    }

    #[tokio::test]
    async fn delivery_stream_makes_one_of_many() {
        let hub = StreamHub::new();
        let mut changes = hub.subscribe();
        (0..10_000).for_each(|_| hub.announce(Change::Policies));
        changes.next().await;
        assert!(tokio::time::timeout(Duration::from_millis(20), changes.next()).await.is_err());
    }
}
