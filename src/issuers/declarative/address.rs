//! Which addresses a call may go to: public ones, and the one that the configuration names.
//!
//! A description is a document: it must not be able to make the daemon speak to its own network.

use reqwest::Url;

use crate::domain::environment::BaseUrl;
use crate::issuers::IssuerError;
use crate::outbound::{NOT_ALLOWED, Reach, may_call};

/// A base URL that has been looked at: every call of a target goes to its origin and no other.
#[derive(Debug)]
pub(super) struct Base {
    pub url: Url,
    pub reach: Reach,
}

/// # Errors
/// [`IssuerError::Impossible`] if the address is none that a call may go to.
pub(super) fn base(named: &BaseUrl) -> Result<Base, IssuerError> {
    if named.url.is_empty() {
        return Err(IssuerError::Impossible("the description names no address: name it under `providers` of the configuration"));
    }
    let url = Url::parse(&named.url).map_err(|_| IssuerError::Impossible("the base URL is no URL"))?;
    if has_extras(&url) || url.query().is_some() {
        return Err(IssuerError::Impossible("the base URL holds more than scheme, host and path"));
    }
    let reach = match (url.scheme(), named.overridden) {
        ("https", false) => Reach::Public,
        ("https", true) => Reach::Named,
        ("http", true) => Reach::Loopback,
        ("http", false) => return Err(IssuerError::Impossible("plain HTTP is for loopback addresses of the configuration only")),
        _ => return Err(IssuerError::Impossible("the base URL isn't https")),
    };
    if !may_call(&url, reach) {
        return Err(IssuerError::Impossible(NOT_ALLOWED));
    }
    Ok(Base { url, reach })
}

/// Whether both are of the same scheme, host and port, and the second holds no user, password or fragment.
pub(super) fn same_origin(base: &Url, other: &Url) -> bool {
    base.scheme() == other.scheme()
        && base.host_str() == other.host_str()
        && base.port_or_known_default() == other.port_or_known_default()
        && !has_extras(other)
}

fn has_extras(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some() || url.fragment().is_some()
}
