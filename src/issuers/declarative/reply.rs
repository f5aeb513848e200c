//! What came back, and what it means by the description's rules. Holds a body, and never shows it.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::domain::provider::{Limits, Meaning, Rule};
use crate::issuers::IssuerError;
use crate::issuers::pace::Told;

/// One answer. No `Debug`: a provider may echo our secret.
pub(super) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: ReplyBody,
}

pub(super) enum ReplyBody {
    Empty,
    Json(Value),
    /// It came whole, and isn't JSON in UTF-8.
    NotJson(&'static str),
    /// It didn't come whole: too large, too slow, cut off.
    Broken(&'static str),
}

impl Reply {
    /// The first rule that fits decides.
    pub(super) fn meaning(&self, rules: &[Rule]) -> Meaning {
        match &self.body {
            ReplyBody::Json(json) => Rule::decide(rules, self.status, Some(json)),
            ReplyBody::Empty | ReplyBody::NotJson(_) => Rule::decide(rules, self.status, None),
            ReplyBody::Broken(_) => match rules.iter().find(|rule| rule.is_of(self.status)) {
                // Whether this rule fits can't be known, so nor can those after it.
                Some(rule) if rule.equals.is_some() => Meaning::Inconclusive,
                Some(rule) => rule.meaning,
                None => Meaning::by_default(self.status),
            },
        }
    }

    /// # Errors
    /// [`IssuerError::Unclear`] if the answer isn't JSON, or didn't come whole.
    pub(super) fn json(&self) -> Result<&Value, IssuerError> {
        match &self.body {
            ReplyBody::Json(json) => Ok(json),
            ReplyBody::Empty => Err(IssuerError::Unclear("it is empty")),
            ReplyBody::NotJson(why) | ReplyBody::Broken(why) => Err(IssuerError::Unclear(why)),
        }
    }

    /// What success without a needed value must look like: empty, or JSON. A page of a proxy is neither.
    pub(super) fn is_plausible(&self) -> Result<(), IssuerError> {
        match &self.body {
            ReplyBody::Empty => Ok(()),
            _ => self.json().map(|_| ()),
        }
    }

    /// Whether the same question may well be answered a moment later: a failure of the provider's own, or a success whose body
    /// is none.
    pub(super) fn tells_nothing(&self) -> bool {
        let broken = matches!(self.body, ReplyBody::NotJson(_) | ReplyBody::Broken(_));
        self.status >= 500 || (broken && matches!(self.status, 200..=299))
    }

    /// The provider's clock.
    pub(super) fn date(&self) -> Option<Timestamp> {
        http_date(self.header("date")?)
    }

    pub(super) fn throttled(&self, limits: &Limits) -> IssuerError {
        let asked = self.header("retry-after").and_then(|text| self.wait(text));
        let reset = || self.reset(limits);
        IssuerError::Throttled { retry_after: asked.or_else(reset).map(|wait| wait.min(WAIT_MAX)) }
    }

    /// What it tells of the quota, for all calls of the account.
    pub(super) fn quota(&self, limits: &Limits) -> Told {
        let asked_to_wait = (self.status == 429).then(|| self.header("retry-after").and_then(|text| self.wait(text))).flatten();
        let limit = limits.limit_header.as_deref().and_then(|name| self.header(name)?.parse().ok());
        Told { limit, remaining: self.remaining(limits), reset: self.reset(limits), asked_to_wait }
    }

    pub(super) fn remaining(&self, limits: &Limits) -> Option<u64> {
        self.header(limits.remaining_header.as_deref()?)?.parse().ok()
    }

    /// How long until the quota is full again.
    pub(super) fn reset(&self, limits: &Limits) -> Option<Duration> {
        self.wait(self.header(limits.reset_header.as_deref()?)?)
    }

    /// Seconds from now, an epoch, or an HTTP date. The last two are measured by the provider's own `Date`, so that a clock
    /// of ours that is wrong doesn't make us wait for years.
    fn wait(&self, text: &str) -> Option<Duration> {
        if let Ok(number) = text.parse::<u64>() {
            if number < EPOCH_MIN {
                return Some(Duration::from_secs(number));
            }
            let until = Timestamp::from_second(i64::try_from(number).ok()?).ok()?;
            return until_from(self.date()?, until);
        }
        until_from(self.date()?, http_date(text)?)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }
}

/// Below it a number of seconds is a span, from it on a point in time (2001): nobody asks to wait for thirty years.
const EPOCH_MIN: u64 = 1_000_000_000;

/// Longer than that nobody is made to wait without being asked anew.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

fn until_from(now: Timestamp, until: Timestamp) -> Option<Duration> {
    Some(Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO))
}

fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// A value that isn't of the form it should have. Tells nothing of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotThat;

/// A time: ISO 8601, or an epoch in seconds (from 10^11 on: milliseconds). Absent, null, empty and 0 mean none.
pub(super) fn time(json: &Value, pointer: Option<&str>) -> Result<Option<Timestamp>, NotThat> {
    let Some(value) = pointer.and_then(|pointer| json.pointer(pointer)) else { return Ok(None) };
    match value {
        Value::Null => Ok(None),
        Value::Number(number) => epoch(number.as_f64().ok_or(NotThat)?),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => match text.parse::<f64>() {
            Ok(number) => epoch(number),
            // Without an offset it is UTC: the only reading that is the same everywhere.
            Err(_) => text.parse::<Timestamp>().or_else(|_| in_utc(text)).map(Some),
        },
        _ => Err(NotThat),
    }
}

fn in_utc(text: &str) -> Result<Timestamp, NotThat> {
    let civil: DateTime = text.parse().map_err(|_| NotThat)?;
    civil.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(|_| NotThat)
}

fn epoch(number: f64) -> Result<Option<Timestamp>, NotThat> {
    if number == 0.0 {
        return Ok(None);
    }
    let seconds = if number.abs() < 1e11 { number } else { number / 1e3 };
    let span = jiff::SignedDuration::try_from_secs_f64(seconds).map_err(|_| NotThat)?;
    Timestamp::from_duration(span).map(Some).map_err(|_| NotThat)
}

/// A text, or a whole number as text: what ids are.
pub(super) fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}
