//! Which addresses a call may go to: public ones, and the one that the configuration names.
//!
//! A description is a document: it must not be able to make the daemon speak to its own network.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::domain::environment::BaseUrl;
use crate::issuers::IssuerError;

/// How far a call may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// From a description: HTTPS to public addresses only.
    Public,
    /// Named by the configuration: HTTPS to whatever its name resolves to.
    Named,
    /// Named by the configuration, in plain HTTP: loopback only.
    Loopback,
}

impl Reach {
    fn allows(self, address: IpAddr) -> bool {
        match self {
            Reach::Public => is_public(address),
            Reach::Named => true,
            Reach::Loopback => address.to_canonical().is_loopback(),
        }
    }
}

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
    let host = url.host_str().unwrap_or_default();
    // A literal address isn't resolved by anyone: it is looked at here. The parser has brought `0x7f.1` and the like into form.
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if host.is_empty() || literal.is_ok_and(|address| !reach.allows(address)) {
        return Err(IssuerError::Impossible(NOT_ALLOWED));
    }
    Ok(Base { url, reach })
}

pub(super) const NOT_ALLOWED: &str = "the address is none that a call may go to";

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

/// Resolves once, and hands on what it looked at: nothing resolves the name a second time.
pub(super) struct Resolver(pub Reach);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One address that isn't allowed spoils all: an honest public name has none.
            if found.is_empty() || !found.iter().all(|address| reach.allows(address.ip())) {
                return Err(Box::new(AddressRefused) as Box<dyn Error + Send + Sync>);
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// A resolver for a client of this reach.
pub(super) fn resolver(reach: Reach) -> Arc<Resolver> {
    Arc::new(Resolver(reach))
}

/// The name resolves to an address that the call may not go to.
#[derive(Debug)]
pub(super) struct AddressRefused;

impl fmt::Display for AddressRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NOT_ALLOWED)
    }
}

impl Error for AddressRefused {}

/// Whether an error of the client comes from [`Resolver`].
pub(super) fn was_refused(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<AddressRefused>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether an address is reachable by all the world, by the registries of special-purpose addresses (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..]
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // NAT64: an IPv4 address in other clothes.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))),
        // Teredo, benchmarking, documentation, 6to4: none is where a provider lives.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, ..] => false,
        // Global unicast is 2000::/3; loopback, link-local, unique-local and multicast lie outside.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}
