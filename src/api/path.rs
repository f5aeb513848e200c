//! The one parser of request targets: a path that isn't exactly right is refused, never tidied up and continued.

use std::collections::BTreeMap;
use std::str::FromStr;

use http::{Method, Uri};

use super::problem::{Problem, Slug};
use super::routes::{ENDPOINTS, Endpoint};
use crate::domain::ids::{InstanceName, ItemId, Name, NameError, VersionId};

/// What is asked for, with its names parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    Ready,
    Metrics,
    Credentials,
    Credential(Name),
    /// To be forgotten.
    Forget(Name),
    Events,
    Confirmations,
    Reports,
    Status,
    StatusOf(Name),
    Plan,
    Backup,
    /// To begin one.
    Rewrap,
    RewrapStanding,
    Submission(Name),
    Rotations(Name),
    Rollback(Name),
    /// To be revoked.
    Version(Name, VersionId),
    /// Pause and resume; without a name, everything.
    Pause(Option<Name>),
    Resume(Option<Name>),
    Versions(Name),
    /// All instances of an application.
    Instances(Name),
    Instance(Name, InstanceName),
    /// The going-live list of an application.
    GoLive(Name),
    /// An item to be signed off, or a sign-off to be taken back.
    SignOff(Name, ItemId),
    Withdrawal(Name, ItemId),
    OpenApi,
}

/// Query parameters, each known and given once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query<'a>(BTreeMap<&'a str, &'a str>);

/// The names in a path, in their order.
#[derive(Debug)]
pub(super) struct Names<'a>(Vec<&'a str>);

impl Names<'_> {
    /// # Errors
    /// `bad-name`.
    pub(super) fn at<T: FromStr<Err = NameError>>(&self, index: usize) -> Result<T, Problem> {
        named(self.0.get(index).copied().unwrap_or_default())
    }
}

/// The route that is asked for, and its row in the table.
///
/// # Errors
/// `bad-name`, `not-found` or `method`.
pub(super) fn route(method: &Method, uri: &Uri) -> Result<(&'static Endpoint, Route), Problem> {
    let segments = segments(uri)?;
    let mut allowed = Vec::new();
    for endpoint in ENDPOINTS {
        let Some(names) = fitting(endpoint.path, &segments) else { continue };
        // A name that is none is told first, whatever the method.
        let route = (endpoint.route)(&names)?;
        if endpoint.method == method.as_str() {
            return Ok((endpoint, route));
        }
        allowed.push(endpoint.method);
    }
    if allowed.is_empty() { Err(Problem::not_found()) } else { Err(Problem::method(&allowed)) }
}

/// The names that stand where the pattern has braces, if all else is the same.
fn fitting<'a>(pattern: &str, segments: &[&'a str]) -> Option<Names<'a>> {
    let mut names = Vec::new();
    let mut parts = pattern.split('/').skip(1);
    for segment in segments {
        match parts.next()? {
            part if part.starts_with('{') => names.push(*segment),
            part if part == *segment => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some(Names(names))
}

fn segments(uri: &Uri) -> Result<Vec<&str>, Problem> {
    let refuse = |why: &str| Err(Problem::new(Slug::BadName, why));
    if uri.authority().is_some() {
        return Err(Problem::bad_request("ask for a path, not for an address: this is no proxy"));
    }
    let Some(path) = uri.path().strip_prefix('/') else { return refuse("a path begins with a slash") };
    if path.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'%') {
        return refuse("a path has printable ASCII characters only, and no percent escapes");
    }
    if path.is_empty() {
        return Err(Problem::not_found());
    }
    let segments: Vec<&str> = path.split('/').collect();
    if segments.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
        return refuse("a path has no empty segments, and none that are `.` or `..`");
    }
    Ok(segments)
}

fn named<T: FromStr<Err = NameError>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: NameError| Problem::new(Slug::BadName, error.to_string()))
}

impl<'a> Query<'a> {
    /// The longest list, and what a list has unless it is asked for less.
    pub(super) const LIMIT_MAX: u64 = 1000;
    pub(super) const DAYS_MAX: u64 = 3660;
    pub(super) const DAYS_DEFAULT: u64 = 90;

    /// # Errors
    /// `bad-request` for a parameter that is unknown, repeated or without a value.
    pub(super) fn parse(uri: &'a Uri, allowed: &[&str]) -> Result<Query<'a>, Problem> {
        let mut found = BTreeMap::new();
        for pair in uri.query().into_iter().filter(|query| !query.is_empty()).flat_map(|query| query.split('&')) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Problem::bad_request("a query parameter is written `name=value`"));
            };
            if !allowed.contains(&key) {
                return Err(Problem::bad_request("this call doesn't know one of the query parameters"));
            }
            if found.insert(key, value).is_some() {
                return Err(Problem::bad_request("a query parameter stands twice"));
            }
        }
        Ok(Query(found))
    }

    /// How many rows are wanted.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let limit = self.number("limit", 1..=Self::LIMIT_MAX, Self::LIMIT_MAX)?;
        Ok(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    pub(super) fn days(&self) -> Result<u32, Problem> {
        let days = self.number("days", 0..=Self::DAYS_MAX, Self::DAYS_DEFAULT)?;
        Ok(u32::try_from(days).unwrap_or(u32::MAX))
    }

    /// Whether it is done although somebody is in the way.
    pub(super) fn force(&self) -> Result<bool, Problem> {
        match self.0.get("force").copied() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::bad_request("`force` is `true` or `false`")),
        }
    }

    /// After which row the list goes on.
    pub(super) fn after<T: FromStr<Err = NameError>>(&self) -> Result<Option<T>, Problem> {
        self.0.get("after").map(|text| named(text)).transpose()
    }

    /// The names of `credentials=a,b`. Form encoders write the comma as `%2C`, so this one escape is understood, here
    /// and nowhere else; it can't stand in a name.
    pub(super) fn credentials(&self) -> Result<Option<Vec<Name>>, Problem> {
        let Some(text) = self.0.get("credentials") else { return Ok(None) };
        let text = text.replace("%2C", ",").replace("%2c", ",");
        let names: Vec<Name> = text.split(',').map(named).collect::<Result<_, _>>()?;
        let mut seen = std::collections::BTreeSet::new();
        if !names.iter().all(|name| seen.insert(name)) {
            return Err(Problem::bad_request("a credential stands twice"));
        }
        Ok(Some(names))
    }

    fn number(&self, key: &str, range: std::ops::RangeInclusive<u64>, default: u64) -> Result<u64, Problem> {
        let Some(text) = self.0.get(key) else { return Ok(default) };
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if plain && range.contains(&number) => Ok(number),
            _ => Err(Problem::bad_request(format!("`{key}` is a whole number from {} to {}", range.start(), range.end()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &'static str) -> Result<Route, Slug> {
        route(&Method::GET, &Uri::from_static(path)).map(|(_, route)| route).map_err(|problem| problem.slug)
    }

    #[test]
    fn api_paths_are_never_normalised() {
        assert_eq!(parsed("/v1/credentials/a"), Ok(Route::Credential("a".parse().unwrap())));
        for bad in [
            "//",
            "/v1//credentials",
            "/v1/credentials/",
            "/v1/credentials/.",
            "/v1/credentials/..",
            "/v1/credentials/../a",
            "/v1/credentials/a%2fb",
            "/v1/credentials/%00",
            "/v1/credentials/%61",
            "/v1/credentials/A",
            "/v1/credentials/a_b",
            "/v1/credentials/-a",
            "/v1/credentials/a.b",
        ] {
            assert_eq!(parsed(bad), Err(Slug::BadName), "{bad}");
        }
        assert_eq!(parsed("/v2/credentials/a"), Err(Slug::NotFound));
        assert_eq!(parsed("/v1/confirmations"), Err(Slug::Method));
        assert_eq!(parsed("http://elsewhere/v1/credentials/a"), Err(Slug::BadRequest));
    }

    #[test]
    fn api_queries_are_known_and_given_once() {
        let query = |text: &str| {
            let uri: Uri = format!("/v1/plan?{text}").parse().unwrap();
            let query = Query::parse(&uri, &["days", "limit", "after"])?;
            Ok::<_, Problem>((query.days()?, query.limit()?, query.after::<Name>()?))
        };
        assert_eq!(query("").unwrap(), (90, 1000, None));
        assert_eq!(query("days=7&limit=5&after=a").unwrap(), (7, 5, Some("a".parse().unwrap())));
        for bad in ["days", "days=1&days=1", "x=1", "limit=0", "limit=1001", "limit=+1", "limit=", "days=-1", "&", "after=A"] {
            assert!(query(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn api_lists_of_credentials_take_an_encoded_comma() {
        let names = |text: &str| {
            let uri: Uri = format!("/v1/events?credentials={text}").parse().unwrap();
            Query::parse(&uri, &["credentials"])?.credentials().map(|names| names.map_or(0, |names| names.len()))
        };
        assert_eq!(names("a,b").unwrap(), 2);
        assert_eq!(names("a%2Cb").unwrap(), 2);
        for bad in ["", "a,", "a,a", "a%2fb", "%61", "A"] {
            assert!(names(bad).is_err(), "{bad}");
        }
    }
}
