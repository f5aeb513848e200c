//! One piece of work for many who ask at once: each is content with one that began after it asked. So ten thousand first disclosures
//! cost a few writes and readings, one after the other, and not ten thousand.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The outcome is shared, failures too.
#[derive(Debug)]
pub(super) struct Turns<T> {
    begun: AtomicU64,
    at_work: tokio::sync::Mutex<()>,
    /// The number of the last that ended, and what it came to.
    ended: Mutex<Option<(u64, T)>>,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns { begun: AtomicU64::new(0), at_work: tokio::sync::Mutex::new(()), ended: Mutex::new(None) }
    }
}

impl<T: Clone> Turns<T> {
    /// The outcome of this work, or of the same work that another began after this call.
    pub(super) async fn share(&self, work: impl Future<Output = T>) -> T {
        self.share_unless(|| None, work).await
    }

    /// The same, unless it turns out to be needless once it would be our turn: that is no outcome for others, whose need is another.
    pub(super) async fn share_unless(&self, needless: impl FnOnce() -> Option<T>, work: impl Future<Output = T>) -> T {
        let begun_before = self.begun.load(Ordering::SeqCst);
        let _turn = self.at_work.lock().await;
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, outcome)) = ended.filter(|(number, _)| *number > begun_before) {
            return outcome;
        }
        if let Some(outcome) = needless() {
            return outcome;
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let outcome = work.await;
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, outcome.clone()));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_share_a_few_works_and_each_began_after_its_question() {
        let turns = Arc::new(Turns::<u64>::default());
        let begun = Arc::new(AtomicU64::new(0));
        let ask = |turns: Arc<Turns<u64>>, begun: Arc<AtomicU64>| async move {
            let before = begun.load(Ordering::SeqCst);
            let work = async {
                let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
                number
            };
            assert!(turns.share(work).await > before, "a work that had begun before isn't enough");
        };
        let mut asking = tokio::task::JoinSet::new();
        for round in 0..200 {
            asking.spawn(ask(Arc::clone(&turns), Arc::clone(&begun)));
            if round % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
        assert!(begun.load(Ordering::SeqCst) < 100, "they shared");
    }

    #[tokio::test]
    async fn what_is_needless_for_one_is_no_outcome_for_others() {
        let turns = Arc::new(Turns::<u64>::default());
        let (go, gate) = tokio::sync::oneshot::channel::<()>();
        let first = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move {
                let work = async {
                    let _ = gate.await;
                    1
                };
                turns.share(work).await
            }
        });
        tokio::task::yield_now().await;
        let (needless, needed) = (turns.share_unless(|| Some(0), async { 2 }), turns.share(async { 3 }));
        let _ = go.send(());
        let both = futures_util::future::join(needless, needed).await;
        assert_eq!((first.await.unwrap(), both), (1, (0, 3)), "it began after it was asked for");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_the_turn_to_others() {
        let turns = Turns::<u64>::default();
        let gave_up = tokio::time::timeout(Duration::from_millis(5), turns.share(std::future::pending())).await;
        assert!(gave_up.is_err());
        assert_eq!(turns.share(async { 7 }).await, 7);
    }
}
