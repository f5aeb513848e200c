//! How much of AWS's list has to be read to know what native readers find: pure.
//!
//! The list is asked for with what was changed last first. Where it really is sorted so, a pass ends at what the last pass must have
//! seen; where it isn't, or where a whole pass costs little, or was long ago, all of it is read.

use std::collections::BTreeMap;
use std::time::Duration;

/// AWS says that a list may be five minutes behind: what is older than twice that was in the last pass.
const BEHIND_MILLIS: i64 = 10 * 60 * 1_000;
/// So many pages are always read.
const ALWAYS_PAGES: usize = 10;
/// What is gone stands on no page: it is missed when all of them are read.
const WHOLE_EVERY: Duration = Duration::from_secs(3_600);

/// One secret of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// AWS's name for the version that native readers get.
    pub(super) current: Option<String>,
    /// When AWS saw the last change of whatever kind, in milliseconds.
    pub(super) changed: Option<i64>,
}

/// What the passes until now found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    current: BTreeMap<String, String>,
    /// The last change in them.
    newest: Option<i64>,
    whole: Option<Whole>,
}

/// The last pass that read all pages.
#[derive(Debug, Clone, Copy)]
struct Whole {
    at: Duration,
    pages: usize,
    was_sorted: bool,
}

/// One reading of the list, page by page. Dropped before its end, it leaves no trace.
#[derive(Debug)]
pub(super) struct Pass {
    at: Duration,
    /// What was changed before this is known; `None`: all pages are read.
    known_before: Option<i64>,
    found: BTreeMap<String, Option<String>>,
    pages: usize,
    newest: Option<i64>,
    oldest: Option<i64>,
    is_sorted: bool,
    is_whole: bool,
}

impl Seen {
    /// `now` is a time that never goes back.
    pub(super) fn begin(&self, now: Duration) -> Pass {
        let sorted = |whole: &Whole| whole.was_sorted && whole.pages > ALWAYS_PAGES && now.saturating_sub(whole.at) < WHOLE_EVERY;
        let known_before = self.whole.as_ref().filter(|whole| sorted(whole)).and(self.newest).map(|newest| newest - BEHIND_MILLIS);
        Pass { at: now, known_before, found: BTreeMap::new(), pages: 0, newest: None, oldest: None, is_sorted: true, is_whole: true }
    }

    pub(super) fn end(&mut self, pass: Pass) {
        self.newest = self.newest.max(pass.newest);
        if pass.is_whole {
            self.whole = Some(Whole { at: pass.at, pages: pass.pages, was_sorted: pass.is_sorted });
            self.current.clear();
        }
        for (name, current) in pass.found {
            match current {
                Some(current) => drop(self.current.insert(name, current)),
                None => drop(self.current.remove(&name)),
            }
        }
    }

    /// AWS's name for the version that is current in a secret.
    pub(super) fn current(&self, name: &str) -> Option<&str> {
        self.current.get(name).map(String::as_str)
    }
}

impl Pass {
    /// Takes the next page. True if what follows is known.
    pub(super) fn take(&mut self, entries: Vec<Entry>) -> bool {
        self.pages += 1;
        for entry in entries {
            // Who doesn't say when something was changed doesn't sort by it.
            self.is_sorted &= entry.changed.is_some() && self.oldest.is_none_or(|oldest| entry.changed <= Some(oldest));
            self.newest = self.newest.max(entry.changed);
            self.oldest = entry.changed.or(self.oldest);
            self.found.insert(entry.name, entry.current);
        }
        let is_known = self.is_sorted && self.oldest.zip(self.known_before).is_some_and(|(oldest, known)| oldest < known);
        self.is_whole = !is_known;
        is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000;
    const MINUTE: Duration = Duration::from_secs(60);

    /// A list of so many secrets, one changed each hour, and what is on each page.
    struct List {
        entries: Vec<Entry>,
        sorts: bool,
    }

    impl List {
        fn of(secrets: usize, sorts: bool) -> List {
            let entry = |number: usize| Entry {
                name: format!("p/{number}"),
                current: Some("v1".to_owned()),
                changed: Some(number as i64 * SECOND),
            };
            List { entries: (0..secrets).map(entry).collect(), sorts }
        }

        fn change(&mut self, number: usize, version: &str, at: i64) {
            self.entries[number].current = Some(version.to_owned());
            self.entries[number].changed = Some(at);
        }

        /// One pass, and how many pages it read.
        fn read(&self, seen: &mut Seen, now: Duration) -> usize {
            let mut entries = self.entries.clone();
            if self.sorts {
                entries.sort_by_key(|entry| std::cmp::Reverse(entry.changed));
            }
            let mut pass = seen.begin(now);
            for page in entries.chunks(100) {
                if pass.take(page.to_vec()) {
                    break;
                }
            }
            let pages = pass.pages;
            seen.end(pass);
            pages
        }
    }

    const SECRETS: usize = 10_000;
    /// When the last of them was made.
    const MADE: i64 = SECRETS as i64 * SECOND;

    #[test]
    fn a_sorted_list_is_read_as_far_as_it_may_be_new() {
        let (mut seen, mut list) = (Seen::default(), List::of(SECRETS, true));
        assert_eq!(list.read(&mut seen, Duration::ZERO), 100);
        // Ten minutes of changes stand on the first six pages.
        assert_eq!(list.read(&mut seen, MINUTE), 7);
        list.change(17, "v2", MADE + SECOND);
        assert_eq!(list.read(&mut seen, 2 * MINUTE), 7);
        assert_eq!(seen.current("p/17"), Some("v2"));
        assert_eq!(seen.current("p/18"), Some("v1"), "what wasn't on these pages is remembered");
        list.change(18, "v2", MADE + 3_600 * SECOND);
        assert_eq!(list.read(&mut seen, 3 * MINUTE), 7);
        assert_eq!(list.read(&mut seen, 4 * MINUTE), 1, "a quiet time costs one page");
    }

    #[test]
    fn a_list_that_is_behind_is_caught_up_with() {
        let (mut seen, mut list) = (Seen::default(), List::of(SECRETS, true));
        list.read(&mut seen, Duration::ZERO);
        list.change(1, "v2", MADE + 3_600 * SECOND);
        list.read(&mut seen, MINUTE);
        // Happened before that one, and is shown five minutes later.
        list.change(2, "v2", MADE + 3_310 * SECOND);
        list.read(&mut seen, 6 * MINUTE);
        assert_eq!(seen.current("p/2"), Some("v2"));
    }

    #[test]
    fn a_server_that_ignores_the_order_is_read_whole() {
        let (mut seen, mut list) = (Seen::default(), List::of(SECRETS, false));
        for minute in 0..5 {
            assert_eq!(list.read(&mut seen, minute * MINUTE), 100);
        }
        // Sorted at first, and not any more.
        let (mut seen, sorted) = (Seen::default(), List::of(SECRETS, true));
        sorted.read(&mut seen, Duration::ZERO);
        list.change(9_999, "v2", MADE + SECOND);
        assert_eq!(list.read(&mut seen, MINUTE), 100);
        assert_eq!(seen.current("p/9999"), Some("v2"));
        // Doesn't say when something was changed.
        let (mut seen, mut silent) = (Seen::default(), List::of(SECRETS, true));
        for entry in &mut silent.entries {
            entry.changed = None;
        }
        assert_eq!([0, 1].map(|minute| silent.read(&mut seen, minute * MINUTE)), [100, 100]);
    }

    #[test]
    fn a_short_list_is_read_whole_and_so_is_any_once_an_hour() {
        let (mut seen, short) = (Seen::default(), List::of(1_000, true));
        assert_eq!([0, 1].map(|minute| short.read(&mut seen, minute * MINUTE)), [10, 10]);
        let (mut seen, mut long) = (Seen::default(), List::of(SECRETS, true));
        long.read(&mut seen, Duration::ZERO);
        long.entries.remove(5);
        assert!(long.read(&mut seen, 59 * MINUTE) < 10);
        assert_eq!(seen.current("p/5"), Some("v1"), "what is gone is on no page");
        assert_eq!(long.read(&mut seen, 60 * MINUTE), 100);
        assert_eq!(seen.current("p/5"), None);
        assert!(long.read(&mut seen, 61 * MINUTE) < 10);
    }

    #[test]
    fn a_pass_that_didnt_end_left_no_trace_and_what_has_no_current_version_no_mark() {
        let (mut seen, mut list) = (Seen::default(), List::of(SECRETS, true));
        list.read(&mut seen, Duration::ZERO);
        list.change(3, "v2", MADE + SECOND);
        let mut broken = seen.begin(MINUTE);
        broken.take(vec![list.entries[3].clone()]);
        drop(broken);
        assert_eq!(seen.current("p/3"), Some("v1"));
        list.read(&mut seen, MINUTE);
        assert_eq!(seen.current("p/3"), Some("v2"));
        list.entries[3].current = None;
        list.read(&mut seen, 2 * MINUTE);
        assert_eq!(seen.current("p/3"), None);
    }

    /// At a pass a minute, for an hour, with a thousand changes in it.
    #[test]
    fn an_hour_costs_less_than_the_aim() {
        let (mut seen, mut list) = (Seen::default(), List::of(SECRETS, true));
        let mut pages = 0;
        for minute in 0..60_u32 {
            for number in 0..17 {
                list.change((minute as usize * 131 + number * 577) % SECRETS, "v2", MADE + (3_600 + i64::from(minute) * 60) * SECOND);
            }
            pages += list.read(&mut seen, minute * MINUTE);
        }
        assert!(pages < 300, "{pages} calls");
        assert!(list.entries.iter().all(|entry| seen.current(&entry.name) == entry.current.as_deref()));
    }
}
