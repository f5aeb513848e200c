//! What is read from the headers of a request, each header once and as it stands.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, IF_NONE_MATCH, TRANSFER_ENCODING};

use super::problem::{Problem, Slug};
use crate::domain::ids::{InstanceName, Name, VersionId};
use crate::domain::reason::Reason;

/// The running copy that is calling.
pub(crate) const INSTANCE: HeaderName = HeaderName::from_static("keywright-instance");

/// Which application the caller means to be.
pub(crate) const APPLICATION: HeaderName = HeaderName::from_static("keywright-application");

/// Why a person does this, percent-encoded: kept by the audit trail.
pub(crate) const REASON: HeaderName = HeaderName::from_static("keywright-reason");

/// Refuses what makes a request ambiguous, before anything of it is used.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.keys().any(|name| name == "forwarded" || name.as_str().starts_with("x-forwarded")) {
        return Err(Problem::new(Slug::Forwarded, "this API isn't reached through a proxy"));
    }
    if headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING) {
        return Err(Problem::bad_request("send Content-Length or Transfer-Encoding, not both"));
    }
    for name in [AUTHORIZATION, INSTANCE, APPLICATION, CONTENT_TYPE, REASON] {
        if headers.get_all(&name).iter().count() > 1 {
            return Err(Problem::bad_request(format!("the header `{name}` stands twice")));
        }
    }
    Ok(())
}

/// How the instance names itself, or `default`.
pub(super) fn instance(headers: &HeaderMap) -> Result<InstanceName, Problem> {
    let Some(value) = headers.get(INSTANCE) else { return Ok(InstanceName::unnamed()) };
    let text = value.to_str().unwrap_or_default();
    text.parse().map_err(|error| Problem::bad_request(format!("the header `{INSTANCE}` is no name: {error}")))
}

/// Whether the instance names itself at all.
pub(super) fn names_instance(headers: &HeaderMap) -> bool {
    headers.contains_key(INSTANCE)
}

/// Which application the caller means to be, if it says so.
pub(super) fn application(headers: &HeaderMap) -> Result<Option<Name>, Problem> {
    let Some(value) = headers.get(APPLICATION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let parsed = text.parse().map(Some);
    parsed.map_err(|error| Problem::bad_request(format!("the header `{APPLICATION}` is no name: {error}")))
}

/// The reason that a person gives.
///
/// # Errors
/// `bad-request` for one that is too long, empty, or not as [`Reason::encoded`] writes it.
pub(super) fn reason(headers: &HeaderMap) -> Result<Option<Reason>, Problem> {
    let Some(value) = headers.get(REASON) else { return Ok(None) };
    Reason::decode(value.as_bytes()).map(Some).map_err(|error| Problem::bad_request(format!("the header `{REASON}`: {error}")))
}

/// The bearer token, if the request has an `Authorization` at all.
///
/// # Errors
/// `unauthenticated` for any other scheme and for a token that can't be one: answered like an unknown token.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    match value.as_bytes().split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty() => Ok(Some(token)),
        _ => Err(Problem::unauthenticated()),
    }
}

/// Whether the body says that it is JSON.
pub(super) fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = text.split(';').map(str::trim);
    let json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let known = |part: &str| part.eq_ignore_ascii_case("charset=utf-8") || part.eq_ignore_ascii_case("charset=\"utf-8\"");
    if json && parts.all(known) {
        return Ok(());
    }
    Err(Problem::new(Slug::MediaType, "send the body as `Content-Type: application/json`"))
}

/// Whether `If-None-Match` names this version. Weak tags compare alike: there is one form of each version.
pub(super) fn none_match(headers: &HeaderMap, version: &VersionId) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let names_it = |tag: &str| {
        let tag = tag.trim();
        let opaque = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(version.as_str())
    };
    values.flat_map(|value| value.split(',')).any(names_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn api_headers_find_the_bearer_whatever_its_case() {
        let token = |value| bearer(&headers(&[("authorization", value)])).map(|token| token.map(<[u8]>::to_vec));
        assert_eq!(token("Bearer abc").unwrap(), Some(b"abc".to_vec()));
        assert_eq!(token("bEARER abc").unwrap(), Some(b"abc".to_vec()));
        for bad in ["", "abc", "Basic abc", "Bearer", "Bearer ", "Bearer\tabc"] {
            assert!(token(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn api_headers_compare_entity_tags_weakly() {
        let version: VersionId = "v2-a".parse().unwrap();
        for tags in ["\"v2-a\"", "W/\"v2-a\"", "\"x\", \"v2-a\"", "*"] {
            assert!(none_match(&headers(&[("if-none-match", tags)]), &version), "{tags}");
        }
        for tags in ["v2-a", "\"v2\"", "\"v2-a", ""] {
            assert!(!none_match(&headers(&[("if-none-match", tags)]), &version), "{tags}");
        }
    }

    #[test]
    fn api_headers_take_json_and_nothing_like_it() {
        for good in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(check_json(&headers(&[("content-type", good)])).is_ok(), "{good}");
        }
        for bad in ["", "text/json", "application/jsonp", "application/json; charset=latin1", "application/x-www-form-urlencoded"] {
            assert!(check_json(&headers(&[("content-type", bad)])).is_err(), "{bad}");
        }
    }
}
