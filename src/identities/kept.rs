//! What reviews came to, kept for seconds. Pure: time is an argument. Tokens are known by their SHA-256, in memory alone.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::ReviewError;
use super::reviews::Shown;

/// How long an accepted token isn't asked for again.
pub(super) const FRESH: Duration = Duration::from_secs(10);
/// The same of a refused one.
pub(super) const REFUSED: Duration = Duration::from_secs(2);
/// How long an accepted token is believed while the cluster can't be asked (I19).
pub(super) const AWAY: Duration = Duration::from_secs(600);
/// After a question that wasn't answered, that token isn't asked for again so soon.
pub(super) const UNANSWERED: Duration = Duration::from_secs(1);

/// The most that are kept of each kind.
const ACCEPTED_MAX: usize = 16_384;
const OTHERS_MAX: usize = 4_096;

pub(super) type Key = [u8; 32];

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Accepted(Shown),
    Refused,
    Unanswered(ReviewError),
    /// The cluster is to be asked. `before` is what it last said, where that is still believed if it doesn't answer.
    Ask {
        before: Option<Shown>,
    },
}

/// Times are those of a clock that only goes forward, from whenever it began.
#[derive(Debug, Default)]
pub(super) struct Kept {
    accepted: BTreeMap<Key, (Duration, Shown)>,
    refused: BTreeMap<Key, (Duration, ())>,
    unanswered: BTreeMap<Key, (Duration, ReviewError)>,
}

impl Kept {
    pub(super) fn look(&self, key: &Key, now: Duration, wall: Timestamp) -> Found {
        let since = |at: Duration| now.saturating_sub(at);
        let unanswered = self.unanswered.get(key).filter(|(at, _)| since(*at) < UNANSWERED).map(|(_, error)| *error);
        match self.accepted.get(key) {
            Some((_, shown)) if wall >= shown.expires => return Found::Refused,
            Some((at, shown)) if since(*at) < FRESH => return Found::Accepted(shown.clone()),
            Some((at, shown)) if since(*at) < AWAY => {
                let shown = shown.clone();
                return if unanswered.is_some() { Found::Accepted(shown) } else { Found::Ask { before: Some(shown) } };
            }
            _ => {}
        }
        match unanswered {
            Some(error) => Found::Unanswered(error),
            None if self.refused.get(key).is_some_and(|(at, ())| since(*at) < REFUSED) => Found::Refused,
            None => Found::Ask { before: None },
        }
    }

    pub(super) fn accept(&mut self, key: Key, now: Duration, shown: Shown) {
        self.refused.remove(&key);
        self.unanswered.remove(&key);
        put(&mut self.accepted, ACCEPTED_MAX, AWAY, key, now, shown);
    }

    /// A refusal is the last word: what was accepted before isn't believed any more.
    pub(super) fn refuse(&mut self, key: Key, now: Duration) {
        self.accepted.remove(&key);
        self.unanswered.remove(&key);
        put(&mut self.refused, OTHERS_MAX, REFUSED, key, now, ());
    }

    /// The cluster didn't answer. What is known of the token stays as it is.
    pub(super) fn leave(&mut self, key: Key, now: Duration, error: ReviewError) {
        put(&mut self.unanswered, OTHERS_MAX, UNANSWERED, key, now, error);
    }
}

/// Makes room first, where there is none: by what is over, then by the oldest.
fn put<T>(kept: &mut BTreeMap<Key, (Duration, T)>, most: usize, lasts: Duration, key: Key, now: Duration, what: T) {
    if kept.len() >= most && !kept.contains_key(&key) {
        kept.retain(|_, (at, _)| now.saturating_sub(*at) < lasts);
        if kept.len() >= most
            && let Some(oldest) = kept.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| *key)
        {
            kept.remove(&oldest);
        }
    }
    kept.insert(key, (now, what));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identities::reviews::tests::shown;

    const KEY: Key = [7; 32];

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_was_accepted_is_asked_for_again_and_believed_while_nobody_answers() {
        let mut kept = Kept::default();
        assert_eq!(kept.look(&KEY, at(0), wall(0)), Found::Ask { before: None });
        kept.accept(KEY, at(100), shown(10_000));
        assert_eq!(kept.look(&KEY, at(109), wall(9)), Found::Accepted(shown(10_000)));
        assert_eq!(kept.look(&KEY, at(110), wall(10)), Found::Ask { before: Some(shown(10_000)) });
        kept.leave(KEY, at(110), ReviewError::Unavailable);
        assert_eq!(kept.look(&KEY, at(110), wall(10)), Found::Accepted(shown(10_000)), "asked a moment ago");
        assert_eq!(kept.look(&KEY, at(699), wall(599)), Found::Ask { before: Some(shown(10_000)) });
        assert_eq!(kept.look(&KEY, at(700), wall(600)), Found::Ask { before: None }, "believed for no longer");
        kept.leave(KEY, at(700), ReviewError::TooMany);
        assert_eq!(kept.look(&KEY, at(700), wall(600)), Found::Unanswered(ReviewError::TooMany));
    }

    #[test]
    fn nothing_is_believed_past_its_end() {
        let mut kept = Kept::default();
        kept.accept(KEY, at(0), shown(5));
        assert_eq!(kept.look(&KEY, at(4), wall(4)), Found::Accepted(shown(5)));
        assert_eq!(kept.look(&KEY, at(5), wall(5)), Found::Refused);
        kept.leave(KEY, at(5), ReviewError::Unavailable);
        assert_eq!(kept.look(&KEY, at(5), wall(5)), Found::Refused, "whoever is away");
    }

    #[test]
    fn a_refusal_is_the_last_word_and_short() {
        let mut kept = Kept::default();
        kept.accept(KEY, at(0), shown(10_000));
        kept.refuse(KEY, at(20));
        assert_eq!(kept.look(&KEY, at(21), wall(21)), Found::Refused);
        assert_eq!(kept.look(&KEY, at(22), wall(22)), Found::Ask { before: None });
        kept.leave(KEY, at(22), ReviewError::Unavailable);
        assert_eq!(kept.look(&KEY, at(22), wall(22)), Found::Unanswered(ReviewError::Unavailable));
    }

    #[test]
    fn a_flood_of_wrong_tokens_fills_nothing_and_drives_nobody_out() {
        let key = |number: u32| -> Key {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            key
        };
        let mut kept = Kept::default();
        kept.accept(KEY, at(0), shown(10_000));
        for number in 0..4_200 {
            kept.refuse(key(number), at(0));
            kept.leave(key(number), at(0), ReviewError::TooMany);
        }
        assert_eq!((kept.refused.len(), kept.unanswered.len()), (OTHERS_MAX, OTHERS_MAX));
        assert_eq!(kept.look(&KEY, at(2), wall(2)), Found::Accepted(shown(10_000)));
        for number in 0..16_400 {
            kept.accept(key(number), at(3), shown(10_000));
        }
        assert_eq!(kept.accepted.len(), ACCEPTED_MAX);
    }
}
