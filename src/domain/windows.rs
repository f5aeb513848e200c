//! Windows: when a rotation may act. The one seam to the `cron` and `chrono-tz` crates; the rest of the crate sees
//! [`jiff::Timestamp`] only.

use std::str::FromStr;
use std::time::Duration;

use chrono::TimeZone as _;
use chrono_tz::Tz;
use jiff::Timestamp;

use super::span::Span;

/// A window: opens at each time of the cron expression in its time zone, and stays open for a while.
#[derive(Debug, Clone)]
pub struct Window {
    expression: String,
    schedule: cron::Schedule,
    timezone: Tz,
    open: Span,
}

/// Why a window can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error("a schedule has five fields: minute, hour, day of month, month, day of week")]
    FieldCount,
    #[error("days of the week are written by name (Mon-Fri): numbers begin at another day in each dialect")]
    NumericWeekday,
    #[error("day of month and day of week are both given: dialects differ on whether one or both must fit; give one and `*`")]
    BothDays,
    #[error("this is no cron expression")]
    Syntax,
    #[error("this time never comes")]
    Never,
    #[error("unknown time zone: use a name such as Europe/Berlin or UTC")]
    Timezone,
    #[error("a window is open for 31 days at most")]
    OpenTooLong,
}

/// How far ahead a next opening is looked for: past the next 29 February, also around the year 2100.
const LOOK_AHEAD: Duration = Duration::from_secs(9 * 366 * 86_400);

impl PartialEq for Window {
    fn eq(&self, other: &Window) -> bool {
        (&self.expression, self.timezone, self.open) == (&other.expression, other.timezone, other.open)
    }
}

impl Window {
    /// `now` bounds the search for a first opening: an expression that never fits is refused.
    ///
    /// # Errors
    /// [`WindowError`] says which part is wrong and what to write.
    pub fn new(expression: &str, timezone: &str, open: Span, now: Timestamp) -> Result<Window, WindowError> {
        let fields: Vec<&str> = expression.split_ascii_whitespace().collect();
        let [_, _, day_of_month, _, day_of_week] = fields[..] else { return Err(WindowError::FieldCount) };
        if day_of_week.bytes().any(|byte| byte.is_ascii_digit()) {
            return Err(WindowError::NumericWeekday);
        }
        let any = |field: &str| field == "*" || field == "?";
        if !any(day_of_month) && !any(day_of_week) {
            return Err(WindowError::BothDays);
        }
        if open.as_secs() > 31 * 86_400 {
            return Err(WindowError::OpenTooLong);
        }
        let timezone = Tz::from_str(timezone).map_err(|_| WindowError::Timezone)?;
        let schedule = cron::Schedule::from_str(&format!("0 {}", fields.join(" "))).map_err(|_| WindowError::Syntax)?;
        let window = Window { expression: fields.join(" "), schedule, timezone, open };
        window.next_opening(now).ok_or(WindowError::Never)?;
        Ok(window)
    }

    /// Whether it is open at this time.
    pub fn is_open(&self, at: Timestamp) -> bool {
        let open = self.open.as_duration();
        let Ok(from) = at.checked_sub(open) else { return false };
        // Open during [opening, opening + open): the first opening strictly after `at - open` and not after `at`.
        self.openings_after(from).next().is_some_and(|opening| opening <= at)
    }

    /// The next time from `at` on at which it is open: `at` itself if it is open then.
    pub fn next_open(&self, at: Timestamp) -> Option<Timestamp> {
        if self.is_open(at) { Some(at) } else { self.next_opening(at) }
    }

    fn next_opening(&self, after: Timestamp) -> Option<Timestamp> {
        self.openings_after(after).next()
    }

    /// Openings strictly after a time, in order, each instant once. A local time that the autumn change repeats opens
    /// at its first instant only; one that the spring change skips opens when the clock has jumped over it.
    fn openings_after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        // Worked in local wall time, where the cron crate can neither skip nor double: the zone is applied afterwards.
        // Early enough that a local time within a jump isn't passed over: no jump of a zone in use exceeds three hours.
        let local = self.timezone.from_utc_datetime(&to_chrono(after).naive_utc()).naive_local();
        let start = chrono::Utc.from_utc_datetime(&(local - chrono::Duration::hours(4)));
        let limit = after.checked_add(LOOK_AHEAD).unwrap_or(Timestamp::MAX);
        let mut last = after;
        self.schedule
            .after(&start)
            .filter_map(|naive| self.resolve(naive.naive_utc()))
            .take_while(move |opening| *opening <= limit)
            // Several skipped local times open at the same instant.
            .filter(move |opening| {
                let later = *opening > last;
                last = last.max(*opening);
                later
            })
    }

    fn resolve(&self, local: chrono::NaiveDateTime) -> Option<Timestamp> {
        // Minute by minute out of a gap, so that everything within it opens at its very end, and nothing before what
        // follows: a gap is an hour nearly everywhere, half an hour at Lord Howe, never more than a day.
        (0..=24 * 60).find_map(|minutes| {
            let candidate = local + chrono::Duration::minutes(minutes);
            let resolved = match self.timezone.from_local_datetime(&candidate) {
                chrono::LocalResult::None => return None,
                chrono::LocalResult::Single(one) => one,
                chrono::LocalResult::Ambiguous(first, _) => first,
            };
            Timestamp::from_second(resolved.timestamp()).ok()
        })
    }
}

fn to_chrono(at: Timestamp) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp(at.as_second(), 0).unwrap_or_default()
}

/// Whether any of the windows is open; no windows means always.
pub fn any_open(windows: &[Window], at: Timestamp) -> bool {
    windows.is_empty() || windows.iter().any(|window| window.is_open(at))
}

/// The next time from `at` on at which any window is open.
pub fn next_open(windows: &[Window], at: Timestamp) -> Option<Timestamp> {
    if windows.is_empty() {
        return Some(at);
    }
    windows.iter().filter_map(|window| window.next_open(at)).min()
}

/// How many openings [`longest_wait`] looks at: five weeks of one each minute, centuries of one a day.
const OPENINGS_MAX: usize = 50_000;

/// The longest wait for a window, looking `within` ahead from `from`: the widest time in which none is open.
pub fn longest_wait(windows: &[Window], from: Timestamp, within: Duration) -> Duration {
    if windows.is_empty() {
        return Duration::ZERO;
    }
    let end = from.checked_add(within).unwrap_or(Timestamp::MAX);
    let mut heads: Vec<_> = windows.iter().map(|window| openings_around(window, from).peekable()).collect();
    let mut longest = Duration::ZERO;
    let mut open_until = from;
    for _ in 0..OPENINGS_MAX {
        let soonest = (0..heads.len()).filter_map(|index| Some((*heads[index].peek()?, index))).min();
        let opening = soonest.map_or(end, |(opening, _)| opening).min(end);
        longest = longest.max(Duration::try_from(opening.duration_since(open_until)).unwrap_or_default());
        let Some((_, index)) = soonest.filter(|_| opening < end) else { break };
        heads[index].next();
        let closing = opening.checked_add(windows[index].open.as_duration()).unwrap_or(Timestamp::MAX);
        open_until = open_until.max(closing);
    }
    longest
}

/// Openings from the one that may still be open at this time.
fn openings_around(window: &Window, at: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
    window.openings_after(at.checked_sub(window.open.as_duration()).unwrap_or(Timestamp::MIN))
}

#[cfg(test)]
mod tests;
