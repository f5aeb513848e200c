//! A secret in a header of the description's own, and tokens that are fetched at another address.

use super::super::request::{Extras, Signer, build};
use super::{SECRET, acting};
use crate::domain::credential::Environment;
use crate::domain::environment::BaseUrl;
use crate::domain::provider::{Authentication, Method, Piece, Site, Template};
use crate::issuers::{Target, fixtures};

#[test]
fn a_secret_stands_in_a_named_header_beside_constants_and_is_never_shown() {
    let target = Target {
        base_url: BaseUrl { url: "https://shop.example".to_owned(), overridden: false },
        ..fixtures::target(fixtures::dinie(), "")
    };
    let mut call = fixtures::call(Method::Get, "/settings", Authentication::Open, Vec::new());
    let token = Template(vec![Piece::Field("client_secret".parse().unwrap())]);
    call.headers = vec![
        ("X-Auth-Token".to_owned(), token),
        ("platform".to_owned(), Template::literal("shop")),
        ("uuid".to_owned(), Template::literal("200")),
    ];
    let material = acting();
    let signer = Signer { acting: &material, subject: None, token: None, administrator: None };
    let prepared = build(&target, &call, signer, Extras::default()).unwrap_or_else(|error| panic!("{error:?}"));
    let headers = prepared.request.headers();
    assert_eq!(
        (headers["x-auth-token"].to_str().unwrap(), &headers["platform"], &headers["uuid"]),
        (SECRET, &"shop".parse().unwrap(), &"200".parse().unwrap())
    );
    assert!(headers["x-auth-token"].is_sensitive() && headers.get("authorization").is_none());
    let shown = format!("{:?}", prepared.request);
    assert!(SECRET.as_bytes().windows(8).all(|window| !shown.as_bytes().windows(8).any(|part| part == window)), "{shown}");
}

#[test]
fn tokens_are_fetched_where_the_description_says_unless_the_configuration_says_where_all_is() {
    let template = |text: &str| Template::parse(text).ok();
    let mut provider = fixtures::dinie();
    let site = Site { base: template("https://api.example/v3"), aliases: Vec::new(), token: template("https://id.example/oauth/") };
    provider.environments = [(Environment::Sandbox, site)].into_iter().collect();
    let described =
        Target { base_url: BaseUrl { url: "https://api.example/v3".to_owned(), overridden: false }, ..fixtures::target(provider, "") };
    assert_eq!(described.for_tokens().base_url, BaseUrl { url: "https://id.example/oauth".to_owned(), overridden: false });
    let simulated = Target { base_url: BaseUrl { url: "http://127.0.0.1:1".to_owned(), overridden: true }, ..described.clone() };
    assert_eq!(simulated.for_tokens().base_url, simulated.base_url);
    let plain = Target { provider: std::sync::Arc::new(fixtures::dinie()), ..described };
    assert_eq!(plain.for_tokens().base_url, plain.base_url);
}
