//! The one parser of request targets: a path that isn't exactly right is refused, never tidied up and continued.

use std::collections::BTreeMap;
use std::str::FromStr;

use http::{Method, Uri};

use super::problem::{Problem, Slug};
use crate::domain::ids::{InstanceName, Name, NameError};

/// What is asked for, with its names parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    Ready,
    Metrics,
    Credentials,
    Credential(Name),
    Events,
    Confirmations,
    Status,
    StatusOf(Name),
    Plan,
    Backup,
    Submission(Name),
    Rotations(Name),
    Versions(Name),
    /// All instances of an application.
    Instances(Name),
    Instance(Name, InstanceName),
}

/// Query parameters, each known and given once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query<'a>(BTreeMap<&'a str, &'a str>);

/// # Errors
/// `bad-name`, `not-found` or `method`.
pub(super) fn route(method: &Method, uri: &Uri) -> Result<Route, Problem> {
    let segments = segments(uri)?;
    let only = |allowed: Method, text: &'static str, route: Route| {
        if *method == allowed { Ok(route) } else { Err(Problem::method(text)) }
    };
    let get = |route| only(Method::GET, "GET", route);
    match segments.as_slice() {
        ["healthz"] => get(Route::Health),
        ["readyz"] => get(Route::Ready),
        ["metrics"] => get(Route::Metrics),
        ["v1", "credentials"] => get(Route::Credentials),
        ["v1", "credentials", name] => get(Route::Credential(named(name)?)),
        ["v1", "events"] => get(Route::Events),
        ["v1", "confirmations"] => only(Method::POST, "POST", Route::Confirmations),
        ["v1", "status"] => get(Route::Status),
        ["v1", "status", name] => get(Route::StatusOf(named(name)?)),
        ["v1", "plan"] => get(Route::Plan),
        ["v1", "backup"] => get(Route::Backup),
        ["v1", "credentials", name, "submission"] => only(Method::PUT, "PUT", Route::Submission(named(name)?)),
        ["v1", "credentials", name, "rotations"] => only(Method::POST, "POST", Route::Rotations(named(name)?)),
        ["v1", "credentials", name, "versions"] => get(Route::Versions(named(name)?)),
        ["v1", "applications", name, "instances"] => only(Method::DELETE, "DELETE", Route::Instances(named(name)?)),
        ["v1", "applications", name, "instances", instance] => {
            only(Method::DELETE, "DELETE", Route::Instance(named(name)?, named(instance)?))
        }
        _ => Err(Problem::not_found()),
    }
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

impl Route {
    /// The query parameters that it takes.
    pub(super) fn parameters(&self) -> &'static [&'static str] {
        match self {
            Route::Events => &["credentials"],
            Route::Status | Route::Versions(_) => &["limit", "after"],
            Route::Plan => &["days", "limit", "after"],
            _ => &[],
        }
    }

    /// A word for logs and metrics, free of names.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Route::Health => "healthz",
            Route::Ready => "readyz",
            Route::Metrics => "metrics",
            Route::Credentials => "credentials",
            Route::Credential(_) => "credential",
            Route::Events => "events",
            Route::Confirmations => "confirmations",
            Route::Status | Route::StatusOf(_) => "status",
            Route::Plan => "plan",
            Route::Backup => "backup",
            Route::Submission(_) => "submission",
            Route::Rotations(_) => "rotations",
            Route::Versions(_) => "versions",
            Route::Instances(_) | Route::Instance(..) => "instances",
        }
    }
}

impl<'a> Query<'a> {
    /// The longest list, and what a list has unless it is asked for less.
    const LIMIT_MAX: u64 = 1000;

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
        let days = self.number("days", 0..=3660, 90)?;
        Ok(u32::try_from(days).unwrap_or(u32::MAX))
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
        route(&Method::GET, &Uri::from_static(path)).map_err(|problem| problem.slug)
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
            let query = Query::parse(&uri, Route::Plan.parameters())?;
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
