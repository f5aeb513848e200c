//! Where calls may go, and where not even the description can send them.

use rstest::rstest;

use super::raw::{Answer, Raw, json};
use super::{acting, pair, quick, request};
use crate::domain::environment::BaseUrl;
use crate::domain::material::Secret;
use crate::domain::provider::Template;
use crate::issuers::{Issuer, IssuerError, Target, fixtures};

fn described(url: &str, overridden: bool) -> Target {
    let base_url = BaseUrl { url: url.to_owned(), overridden };
    Target { base_url, ..fixtures::target(fixtures::dinie(), "http://unused.invalid") }
}

#[rstest]
#[case("https://169.254.169.254/v3")]
#[case("https://10.1.2.3/v3")]
#[case("https://172.16.0.1/v3")]
#[case("https://192.168.1.1/v3")]
#[case("https://127.0.0.1/v3")]
#[case("https://2130706433/v3")]
#[case("https://0x7f.1/v3")]
#[case("https://[::ffff:127.0.0.1]/v3")]
#[case("https://[::ffff:10.0.0.1]/v3")]
#[case("https://[64:ff9b::7f00:1]/v3")]
#[case("https://[::1]/v3")]
#[case("https://[::]/v3")]
#[case("https://[fd00::1]/v3")]
#[case("https://[fe80::1]/v3")]
#[case("https://[ff02::1]/v3")]
#[case("https://100.64.0.1/v3")]
#[case("https://100.127.255.255/v3")]
#[case("https://0.0.0.0/v3")]
#[case("https://224.0.0.1/v3")]
#[case("https://255.255.255.255/v3")]
#[case("https://localhost/v3")]
#[case("http://127.0.0.1/v3")]
#[case("http://api.example.com/v3")]
#[case("https://user:pass@api.example.com/v3")]
#[case("https://api.example.com/v3?x=y")]
#[case("ftp://api.example.com")]
#[case("api.example.com")]
#[tokio::test]
async fn a_description_reaches_public_addresses_by_https_only(#[case] url: &str) {
    let answer = quick().create(&described(url, false), &acting(), &request()).await.unwrap_err();
    assert!(matches!(answer, IssuerError::Impossible(_)), "{url}: {answer:?}");
}

#[rstest]
#[case("http://10.1.2.3/v3")]
#[case("http://169.254.169.254/v3")]
#[case("http://example.com@10.0.0.1/v3")]
#[tokio::test]
async fn plain_http_is_for_the_loopback_only_even_where_the_configuration_names_it(#[case] url: &str) {
    let answer = quick().create(&described(url, true), &acting(), &request()).await.unwrap_err();
    assert!(matches!(answer, IssuerError::Impossible(_)), "{url}: {answer:?}");
}

#[tokio::test]
async fn a_loopback_that_the_configuration_names_is_reached_by_name_and_number() {
    let raw = Raw::always(Answer::Bytes(json(200, &[], "{}"))).await;
    for host in ["127.0.0.1", "localhost"] {
        let url = raw.url.replace("127.0.0.1", host);
        let report = quick().probe(&described(&url, true), &acting()).await;
        assert!(report.is_ok(), "{host}: {report:?}");
    }
    let closed = described("http://127.0.0.1:1/v3", true);
    assert_eq!(quick().probe(&closed, &acting()).await, Err(IssuerError::Unreachable("no connection")));
}

#[tokio::test]
async fn the_keys_own_url_must_lie_on_the_environments_origin() {
    let raw = Raw::always(Answer::Bytes(json(204, &[], ""))).await;
    let target = raw.target_of(fixtures::oauth_registration());
    let port = raw.url.trim_start_matches("http://127.0.0.1:").trim_end_matches("/v3").to_owned();
    let elsewhere = [
        "https://evil.example/reg/1".to_owned(),
        "http://127.0.0.1:1/reg/1".to_owned(),
        format!("https://127.0.0.1:{port}/reg/1"),
        format!("http://localhost:{port}/reg/1"),
        format!("http://127.0.0.1:{port}@evil.example/reg/1"),
        format!("http://user@127.0.0.1:{port}/reg/1"),
        "/reg/1".to_owned(),
    ];
    for url in elsewhere {
        let mut doomed = pair("old", "an_older_secret_0123456789");
        doomed.insert(fixtures::field("registration_access_token"), Secret::from("management-token".to_owned()));
        doomed.insert(fixtures::field("registration_client_uri"), Secret::from(url.clone()));
        let answer = quick().revoke(&target, &acting(), &"old".parse().unwrap(), Some(&doomed)).await;
        assert!(matches!(answer, Err(IssuerError::Impossible(_))), "{url}: {answer:?}");
    }
    assert!(raw.requests().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn a_value_stays_in_its_segment_of_the_path() {
    let raw = Raw::always(Answer::Bytes(json(404, &[], "{}"))).await;
    for (id, sent) in [("a/../b", "/a%2F..%2Fb "), ("a?b=c#d", "/a%3Fb%3Dc%23d "), ("%2e%2e", "/%252e%252e "), ("a;b", "/a%3Bb ")] {
        let _gone = quick().revoke(&raw.target(), &acting(), &id.parse().unwrap(), None).await;
        let requests = raw.requests();
        assert!(
            requests.iter().any(|text| text.starts_with("DELETE") && text.lines().next().unwrap().contains(sent)),
            "{id}: {requests:?}"
        );
    }
    let before = raw.requests().len();
    for id in [".", ".."] {
        let answer = quick().revoke(&raw.target(), &acting(), &id.parse().unwrap(), None).await;
        assert_eq!(answer.unwrap_err(), IssuerError::Impossible("a value would change the path"), "{id}");
    }
    assert!(raw.requests()[before..].iter().all(|text| text.contains("/auth/token")));
}

#[tokio::test]
async fn a_basic_pair_is_form_encoded_and_a_form_keeps_its_fields_apart() {
    let raw = Raw::start(|_| None).await;
    let mut provider = fixtures::dinie();
    let hole = Template::parse("{field:client_id}").unwrap();
    let crate::domain::provider::Body::Form(pairs) = &mut provider.calls.token.as_mut().unwrap().body else { panic!("a form") };
    pairs.push(("id".to_owned(), hole));
    quick().is_dead(&raw.target_of(provider), &pair("a:b&c=d e", "p%:+é-0123456789")).await.unwrap();
    let request = raw.requests().remove(0);
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "a%3Ab%26c%3Dd%20e:p%25%3A%2B%C3%A9-0123456789");
    assert!(request.contains(&format!("authorization: Basic {basic}")), "{request}");
    assert!(request.ends_with("grant_type=client_credentials&id=a%3Ab%26c%3Dd%20e"), "{request}");
}
