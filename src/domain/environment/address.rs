//! The base URL that goes with a key: whose it is by host, tenant and path.

use std::collections::BTreeMap;

use crate::domain::credential::Environment;
use crate::domain::ids::Name;
use crate::domain::provider::{Piece, Provider, Template};

/// Where an address lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lies {
    /// On this environment's addresses, and not on the other one's.
    In(Environment),
    /// Both environments share it.
    InBoth,
    /// On an address that another tenant would have.
    AtAnotherTenant,
    Elsewhere,
    /// Not written as an address is: nothing is concluded from it.
    Unreadable,
    /// The description names no address to compare it with.
    Unknown,
}

/// The longest base that it lies below decides: one environment's path may be the beginning of the other one's.
pub(super) fn lies(provider: &Provider, variables: &BTreeMap<String, Name>, address: &str) -> Lies {
    let Some(address) = plain(address) else { return Lies::Unreadable };
    let bases: Vec<(Environment, &Template)> =
        provider.environments.iter().flat_map(|(environment, site)| site.bases().map(|base| (*environment, base))).collect();
    if bases.is_empty() {
        return Lies::Unknown;
    }
    let fitting: Vec<(usize, Environment)> = bases
        .iter()
        .filter_map(|(environment, template)| {
            let base = plain(&provider.render(template, variables))?;
            is_below(&address, &base).then_some((base.len(), *environment))
        })
        .collect();
    let longest = fitting.iter().map(|(length, _)| *length).max();
    let named = |environment: Environment| fitting.iter().any(|(length, of)| Some(*length) == longest && *of == environment);
    match Environment::ALL.map(named) {
        [true, true] => Lies::InBoth,
        [true, false] => Lies::In(Environment::ALL[0]),
        [false, true] => Lies::In(Environment::ALL[1]),
        [false, false] if bases.iter().any(|(_, template)| is_of_some_tenant(&address, template)) => Lies::AtAnotherTenant,
        [false, false] => Lies::Elsewhere,
    }
}

/// Scheme and host in lower case, without the port that everybody leaves out, and without closing slashes. `None` for what an
/// address parser may read otherwise than a person.
fn plain(written: &str) -> Option<String> {
    let (scheme, rest) = written.split_once("://")?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let path = path.trim_end_matches('/');
    let clean = written.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'%' | b'?' | b'#' | b'@'));
    let steps = path.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."));
    if authority.is_empty() || !clean || steps {
        return None;
    }
    let scheme = scheme.to_ascii_lowercase();
    let authority = authority.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let authority = authority.strip_suffix(usual).unwrap_or(&authority);
    Some(format!("{scheme}://{authority}{path}"))
}

/// The same, or further down the path.
fn is_below(address: &str, base: &str) -> bool {
    address.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether some value of the variables would make it fit. Each variable is one label of a host, or one part of a path.
fn is_of_some_tenant(address: &str, template: &Template) -> bool {
    if template.variables().next().is_none() {
        return false;
    }
    let mut rest = address;
    let mut pieces = template.0.iter().peekable();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Literal(text) => {
                let text = if pieces.peek().is_none() { text.trim_end_matches('/') } else { text };
                match rest.strip_prefix(text) {
                    Some(after) => rest = after,
                    None => return false,
                }
            }
            _ => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
                if end == 0 {
                    return false;
                }
                rest = &rest[end..];
            }
        }
    }
    rest.is_empty() || rest.starts_with('/')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::fixtures::provider;
    use crate::domain::provider::Site;

    fn site(base: &str, aliases: &[&str]) -> Site {
        let template = |text: &str| Template::parse(text).unwrap();
        Site { base: Some(template(base)), aliases: aliases.iter().map(|text| template(text)).collect(), token: None }
    }

    fn described(sandbox: Site, production: Site) -> Provider {
        let mut provider = provider(true);
        provider.environments = [(Environment::Sandbox, sandbox), (Environment::Production, production)].into_iter().collect();
        provider.variables = [("tenant".to_owned(), None)].into_iter().collect();
        provider
    }

    fn tenant() -> BTreeMap<String, Name> {
        [("tenant".to_owned(), "shop".parse().unwrap())].into_iter().collect()
    }

    #[rstest]
    #[case("https://shop.bank.tech", Lies::In(Environment::Production))]
    #[case("https://shop.bank.tech/", Lies::In(Environment::Production))]
    #[case("https://shop.bank.tech/api/v6/services/x", Lies::In(Environment::Production))]
    #[case("HTTPS://SHOP.bank.tech:443/api", Lies::In(Environment::Production))]
    #[case("https://shop.bank.software/sandbox", Lies::In(Environment::Sandbox))]
    #[case("https://shop.bank.software/api/v6/services/", Lies::In(Environment::Sandbox))]
    #[case("https://shop.bank.software", Lies::Elsewhere)]
    #[case("https://shop.bank.software/sandboxed", Lies::Elsewhere)]
    #[case("https://other.bank.tech/api", Lies::AtAnotherTenant)]
    #[case("https://other.bank.software/sandbox", Lies::AtAnotherTenant)]
    #[case("https://a.shop.bank.tech", Lies::Elsewhere)]
    #[case("https://shop.bank.tech.evil.example", Lies::Elsewhere)]
    #[case("http://shop.bank.tech", Lies::Elsewhere)]
    #[case("https://shop.bank.tech:8443", Lies::Elsewhere)]
    #[case("https://shop.bank.tech@evil.example", Lies::Unreadable)]
    #[case("https://shop.bank.tech/a/../b", Lies::Unreadable)]
    #[case("https://shop.bank.tech/%2e%2e", Lies::Unreadable)]
    #[case("https://shop.bank.tech/?a", Lies::Unreadable)]
    #[case("https://shop.bank.tech\\x", Lies::Unreadable)]
    #[case("ftp://shop.bank.tech", Lies::Unreadable)]
    #[case("shop.bank.tech", Lies::Unreadable)]
    #[case("https:///x", Lies::Unreadable)]
    #[case("", Lies::Unreadable)]
    fn tenants_are_in_the_host(#[case] address: &str, #[case] expected: Lies) {
        let sandbox = site("https://{tenant}.bank.software/sandbox", &["https://{tenant}.bank.software/api/v6/services"]);
        let provider = described(sandbox, site("https://{tenant}.bank.tech", &[]));
        assert_eq!(lies(&provider, &tenant(), address), expected);
    }

    #[rstest]
    #[case("https://api.okra.example/v2", Lies::In(Environment::Production))]
    #[case("https://api.okra.example/v2/auth", Lies::In(Environment::Production))]
    #[case("https://api.okra.example/v2/sandbox", Lies::In(Environment::Sandbox))]
    #[case("https://api.okra.example/v2/sandbox/auth", Lies::In(Environment::Sandbox))]
    #[case("https://api.okra.example/sandbox/v2/", Lies::In(Environment::Sandbox))]
    #[case("https://api.okra.example/v2/sandboxes", Lies::In(Environment::Production))]
    #[case("https://api.okra.example/v3", Lies::Elsewhere)]
    fn the_path_tells_where_the_host_does_not(#[case] address: &str, #[case] expected: Lies) {
        let sandbox = site("https://api.okra.example/v2/sandbox", &["https://api.okra.example/sandbox/v2"]);
        let provider = described(sandbox, site("https://api.okra.example/v2", &[]));
        assert_eq!(lies(&provider, &tenant(), address), expected);
    }

    #[test]
    fn one_base_for_both_tells_nothing_and_none_neither() {
        let one = || site("https://api.tap.example/v2", &[]);
        assert_eq!(lies(&described(one(), one()), &tenant(), "https://api.tap.example/v2"), Lies::InBoth);
        assert_eq!(lies(&described(Site::default(), Site::default()), &tenant(), "https://api.tap.example/v2"), Lies::Unknown);
    }
}
