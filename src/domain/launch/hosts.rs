//! Whether an address is one that production can use: what can't be reached from outside, and names that sound like a rehearsal.

// From `core`: forms of addresses, and nothing that could reach one.
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::environment::origin_of;
use super::ItemState;

/// Names that nobody outside can resolve, by their last label (RFC 2606, RFC 6761, RFC 6762, ICANN's `internal`).
const NOT_PUBLIC: [&str; 6] = ["localhost", "local", "test", "invalid", "internal", "localdomain"];

/// Words in a name that make a person look twice.
const SOUNDS_LIKE_REHEARSAL: [&str; 18] = [
    "sandbox",
    "sbx",
    "staging",
    "stage",
    "stg",
    "test",
    "tests",
    "testing",
    "uat",
    "qa",
    "dev",
    "develop",
    "development",
    "preprod",
    "demo",
    "mock",
    "fake",
    "local",
];

/// The host of an absolute address in lower case, without port, brackets and a closing dot.
pub(super) fn host_of(url: &str) -> String {
    let origin = origin_of(url);
    let authority = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// `sandboxes` are the hosts at which providers have their sandbox alone.
pub(super) fn judge_url(what: &str, url: &str, sandboxes: &[String]) -> (ItemState, String) {
    let host = host_of(url);
    let found = |state, why: &str| (state, format!("{what} is at `{host}`: {why}"));
    if !url.to_ascii_lowercase().starts_with("https://") {
        return found(ItemState::Failed, "it isn't called by https");
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return match is_reachable(address) {
            false => found(ItemState::Failed, "this address can't be reached from outside"),
            true => found(ItemState::NeedsPerson, "it is an address without a name, so that nothing tells whose it is"),
        };
    }
    let labels: Vec<&str> = host.split('.').collect();
    let last = labels.last().copied().unwrap_or_default();
    if labels.len() < 2 || NOT_PUBLIC.contains(&last) {
        return found(ItemState::Failed, "this name means nothing outside of its own network");
    }
    if sandboxes.contains(&host) {
        return found(ItemState::Failed, "that is a provider's sandbox");
    }
    // The last label is nobody's choice: there are real names below `dev`.
    let words = labels[..labels.len() - 1].iter().flat_map(|label| label.split(['-', '_']));
    let sounds = words.map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit())).find(|word| SOUNDS_LIKE_REHEARSAL.contains(word));
    match sounds {
        Some(word) => found(ItemState::NeedsPerson, &format!("`{word}` in its name sounds like a rehearsal")),
        None => found(ItemState::Passed, "https, and a public name"),
    }
}

/// Whether somebody in another network could reach it.
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_reachable_v4(address),
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or_else(|| is_reachable_v6(address), is_reachable_v4),
    }
}

fn is_reachable_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let shared = first == 100 && (64..128).contains(&second);
    let special = address.is_loopback() || address.is_private() || address.is_link_local() || address.is_documentation();
    !(special || shared || first == 0 || first >= 224)
}

fn is_reachable_v6(address: Ipv6Addr) -> bool {
    let documentation = address.segments()[..2] == [0x2001, 0xdb8];
    let local = address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local();
    !(local || documentation || address.is_unspecified() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://payments.example.com/webhook", ItemState::Passed)]
    #[case("https://PAYMENTS.example.com.:8443/webhook", ItemState::Passed)]
    #[case("https://contest.latest.app.dev/x", ItemState::Passed)]
    #[case("http://payments.example.com/webhook", ItemState::Failed)]
    #[case("https://localhost/hook", ItemState::Failed)]
    #[case("https://pay.localhost", ItemState::Failed)]
    #[case("https://printer.local/hook", ItemState::Failed)]
    #[case("https://payments.test/hook", ItemState::Failed)]
    #[case("https://payments.internal/hook", ItemState::Failed)]
    #[case("https://payments/hook", ItemState::Failed)]
    #[case("https://127.0.0.1:9000/hook", ItemState::Failed)]
    #[case("https://10.1.2.3/hook", ItemState::Failed)]
    #[case("https://172.16.9.9/hook", ItemState::Failed)]
    #[case("https://192.168.1.1/hook", ItemState::Failed)]
    #[case("https://169.254.169.254/hook", ItemState::Failed)]
    #[case("https://100.64.0.1/hook", ItemState::Failed)]
    #[case("https://0.0.0.0/hook", ItemState::Failed)]
    #[case("https://[::1]:8443/hook", ItemState::Failed)]
    #[case("https://[fd00::1]/hook", ItemState::Failed)]
    #[case("https://[fe80::1]/hook", ItemState::Failed)]
    #[case("https://[::ffff:10.0.0.1]/hook", ItemState::Failed)]
    #[case("https://8.8.8.8/hook", ItemState::NeedsPerson)]
    #[case("https://[2606:4700::1111]/hook", ItemState::NeedsPerson)]
    #[case("https://sandbox.acme.example/v1", ItemState::Failed)]
    #[case("https://sandbox.payments.example.com/hook", ItemState::NeedsPerson)]
    #[case("https://payments-staging.example.com/hook", ItemState::NeedsPerson)]
    #[case("https://test2.example.com/hook", ItemState::NeedsPerson)]
    #[case("https://uat.example.com/hook", ItemState::NeedsPerson)]
    fn addresses(#[case] url: &str, #[case] expected: ItemState) {
        let (state, why) = judge_url("the webhook", url, &["sandbox.acme.example".to_owned()]);
        assert_eq!(state, expected, "{why}");
        assert!(why.starts_with("the webhook is at `"), "{why}");
    }
}
