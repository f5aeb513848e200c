//! Reviews of tokens, as the API asks for them: claims first, what was said before next, and the cluster within bounds.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::kept::{Found, Kept, Key};
use super::{ReviewError, TokenReviewer, Verdict};
use crate::domain::material::Secret;
use crate::domain::workload::{Claims, ServiceAccount, Workload};
use crate::rate::Rate;

/// How long the cluster may take to answer.
const REVIEW_TIME: Duration = Duration::from_secs(5);
/// Questions under way at once about tokens that were accepted before, and as many about others.
const AT_ONCE: usize = 32;
/// Questions about tokens that nobody has seen yet: of one account, and of all. Claims can be made up, so a flood that names one
/// account costs this much and no more, and hinders new pods of that account alone.
const NEW_OF_ACCOUNT: u32 = 200;
const NEW_OF_ALL: u32 = 600;
const NEW_PER: Duration = Duration::from_secs(10);
/// An open stream's token is looked at again after this time and up to half of it more, spread by its hash.
const STREAM_AGAIN: Duration = Duration::from_secs(30);

/// The time, by two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Only goes forward, from whenever it began: what is kept, and how often is asked.
    pub running: Duration,
    /// When tokens end.
    pub wall: Timestamp,
}

/// A token that the cluster accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub workload: Workload,
    /// From then on it is worth nothing.
    pub expires: Timestamp,
}

/// Why a token shows nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unshown {
    Refused,
    /// Ask again in a second.
    TooMany,
    /// The cluster doesn't answer, and hasn't said anything of this token before.
    Away,
}

/// Asks for reviews, keeps what they came to for seconds, and bounds what a flood of tokens costs the cluster.
pub struct Reviews {
    reviewer: Arc<dyn TokenReviewer>,
    audience: String,
    now: Box<dyn Fn() -> Now + Send + Sync>,
    stream_again: Duration,
    kept: Mutex<Kept>,
    /// Held while a token is asked for, so that many calls with it lead to one question.
    turns: Mutex<BTreeMap<Key, Weak<tokio::sync::Mutex<()>>>>,
    rates: Mutex<Rates>,
    again: Semaphore,
    new: Semaphore,
    trouble: Mutex<Option<ReviewError>>,
}

struct Rates {
    all: Rate,
    /// Of accounts that documents name: there are no more of them than of those.
    by_account: BTreeMap<ServiceAccount, Rate>,
}

impl fmt::Debug for Reviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviews").finish_non_exhaustive()
    }
}

// A panic while one of these was held leaves whole entries.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reviews {
    /// `audience` is what the reviewer asks for.
    pub fn new(reviewer: Arc<dyn TokenReviewer>, audience: String, now: impl Fn() -> Now + Send + Sync + 'static) -> Reviews {
        let start = now().running;
        Reviews {
            reviewer,
            audience,
            now: Box::new(now),
            stream_again: STREAM_AGAIN,
            kept: Mutex::default(),
            turns: Mutex::default(),
            rates: Mutex::new(Rates { all: Rate::new(NEW_OF_ALL, NEW_PER, start), by_account: BTreeMap::new() }),
            again: Semaphore::new(AT_ONCE),
            new: Semaphore::new(AT_ONCE),
            trouble: Mutex::default(),
        }
    }

    /// Whose token this is. Only what claims to be a living token of a pod of a `known` account, for our audience, is shown to the
    /// cluster: a static token never is.
    ///
    /// # Errors
    /// [`Unshown`].
    pub async fn check(&self, token: &[u8], known: impl Fn(&ServiceAccount) -> bool) -> Result<Shown, Unshown> {
        let claims = self.promising(token).filter(|claims| known(&claims.account)).ok_or(Unshown::Refused)?;
        let key = key_of(token);
        if let Some(answer) = self.known(&key) {
            return answer;
        }
        let turn = self.turn(&key);
        let _turn = turn.lock().await;
        match self.look(&key) {
            Found::Ask { before } => self.ask(key, token, &claims, before).await,
            Found::Accepted(shown) => Ok(shown),
            Found::Refused => Err(Unshown::Refused),
            Found::Unanswered(error) => Err(unanswered(error)),
        }
    }

    /// Returns once this token is over or no longer accepted, within a minute. `expires` is its end.
    pub fn over(self: &Arc<Reviews>, token: Secret, expires: Timestamp) -> impl Future<Output = ()> + Send + use<> {
        let reviews = Arc::clone(self);
        async move {
            let again = reviews.stream_again + reviews.stream_again / 2 * u32::from(key_of(token.expose())[0]) / 256;
            loop {
                let Ok(left) = Duration::try_from((reviews.now)().wall.duration_until(expires)) else { return };
                if left.is_zero() {
                    return;
                }
                // A wall clock that was put back doesn't make it last: the cluster is asked meanwhile.
                sleep(left.min(again)).await;
                if reviews.check(token.expose(), |_| true).await.is_err() {
                    return;
                }
            }
        }
    }

    /// What kept the last question from being answered, until one is.
    pub fn trouble(&self) -> Option<ReviewError> {
        *lock(&self.trouble)
    }

    fn promising(&self, token: &[u8]) -> Option<Claims> {
        let claims = Claims::read(token)?;
        let ours = claims.is_of_pod && claims.audiences.iter().any(|audience| *audience == self.audience);
        (ours && (self.now)().wall < claims.expires).then_some(claims)
    }

    fn look(&self, key: &Key) -> Found {
        let now = (self.now)();
        lock(&self.kept).look(key, now.running, now.wall)
    }

    fn known(&self, key: &Key) -> Option<Result<Shown, Unshown>> {
        settled(self.look(key))
    }

    fn turn(&self, key: &Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.turns);
        if let Some(turn) = turns.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        turns.insert(*key, Arc::downgrade(&turn));
        turn
    }

    async fn ask(&self, key: Key, token: &[u8], claims: &Claims, before: Option<Shown>) -> Result<Shown, Unshown> {
        // Who was accepted before waits in a line of its own, which no flood of others fills.
        let _permit = if before.is_some() {
            self.again.acquire().await.map_err(|_| Unshown::Away)?
        } else {
            let permit = self.new.try_acquire().map_err(|_| Unshown::TooMany)?;
            self.take(&claims.account)?;
            permit
        };
        let secret = Secret::new(token);
        let answer = timeout(REVIEW_TIME, self.reviewer.review(&secret)).await.unwrap_or(Err(ReviewError::Unavailable));
        *lock(&self.trouble) = answer.as_ref().err().copied();
        let now = (self.now)().running;
        let mut kept = lock(&self.kept);
        match answer {
            Ok(Verdict::Accepted(workload)) if workload.account == claims.account => {
                let shown = Shown { workload, expires: claims.expires };
                kept.accept(key, now, shown.clone());
                Ok(shown)
            }
            Ok(_) => {
                kept.refuse(key, now);
                Err(Unshown::Refused)
            }
            Err(error) => {
                kept.leave(key, now, error);
                before.ok_or(unanswered(error))
            }
        }
    }

    fn take(&self, account: &ServiceAccount) -> Result<(), Unshown> {
        let now = (self.now)().running;
        let mut rates = lock(&self.rates);
        let of_account = rates.by_account.entry(account.clone()).or_insert_with(|| Rate::new(NEW_OF_ACCOUNT, NEW_PER, now));
        of_account.take(1, now).map_err(|_| Unshown::TooMany)?;
        rates.all.take(1, now).map_err(|_| Unshown::TooMany)
    }
}

fn key_of(token: &[u8]) -> Key {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, token).as_ref());
    key
}

/// `None`: the cluster is to be asked.
fn settled(found: Found) -> Option<Result<Shown, Unshown>> {
    match found {
        Found::Accepted(shown) => Some(Ok(shown)),
        Found::Refused => Some(Err(Unshown::Refused)),
        Found::Unanswered(error) => Some(Err(unanswered(error))),
        Found::Ask { .. } => None,
    }
}

fn unanswered(error: ReviewError) -> Unshown {
    match error {
        ReviewError::TooMany => Unshown::TooMany,
        ReviewError::Unavailable | ReviewError::Forbidden => Unshown::Away,
    }
}

#[cfg(test)]
pub(super) mod tests;
