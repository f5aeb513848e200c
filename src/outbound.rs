//! Calls to hosts that documents name: which addresses they may reach, and the client that sees to it.
//!
//! A document must not be able to make the daemon speak to its own network: what a name resolves to is looked at once, and what was
//! looked at is what is called.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url, redirect, retry};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How far a call may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// HTTPS to public addresses only.
    Public,
    /// HTTPS to whatever its name resolves to.
    Named,
    /// Plain HTTP: loopback only.
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

/// Said of an address that a call may not go to.
pub(crate) const NOT_ALLOWED: &str = "the address is none that a call may go to";

/// Whether the host of this address is one, or may be: a literal address isn't resolved by anyone, so it is looked at here. The parser
/// has brought `0x7f.1` and the like into form.
pub(crate) fn may_call(url: &Url, reach: Reach) -> bool {
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    !host.is_empty() && literal.ok().is_none_or(|address| reach.allows(address))
}

/// A client of this reach: it follows no redirect, knows no proxy, repeats nothing, and looks at each address that a name resolves to.
/// `None` where TLS can't be set up: a machine without root certificates still reaches its loopback.
pub(crate) fn client(reach: Reach, timeout: Duration) -> Option<Client> {
    let builder = Client::builder()
        .user_agent(concat!("keywright/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .referer(false)
        .http1_only()
        // A connection kept open may close while we write: then nobody knows whether it was sent. Calls are few.
        .pool_max_idle_per_host(0)
        // Shorter than the whole: a host that doesn't answer is then known not to have been sent anything.
        .connect_timeout(CONNECT_TIMEOUT.min(timeout / 2))
        .timeout(timeout)
        .https_only(reach != Reach::Loopback)
        .dns_resolver(resolver(reach));
    let builder = if reach == Reach::Loopback { builder.tls_certs_only([]) } else { builder };
    builder.build().ok()
}

/// Resolves once, and hands on what it looked at: nothing resolves the name a second time.
pub(crate) struct Resolver(pub Reach);

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
pub(crate) fn resolver(reach: Reach) -> Arc<Resolver> {
    Arc::new(Resolver(reach))
}

/// The name resolves to an address that the call may not go to.
#[derive(Debug)]
pub(crate) struct AddressRefused;

impl fmt::Display for AddressRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NOT_ALLOWED)
    }
}

impl Error for AddressRefused {}

/// Whether an error of the client comes from [`Resolver`].
pub(crate) fn was_refused(error: &(dyn Error + 'static)) -> bool {
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
