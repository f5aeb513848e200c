//! Calls that an administering credential signs: with what, fetched where, and what a refusal is said of.

use rstest::rstest;

use super::raw::{Answer, Raw, json};
use super::{NEW_SECRET, SECRET, TOKEN, acting, pair, quick, request};
use crate::domain::material::Material;
use crate::domain::provider::{Provider, Signature};
use crate::issuers::fixtures::{self, field};
use crate::issuers::{Issuer, IssuerError, Target};

/// Holds a colon: what Basic encodes, and what must be seen nowhere else.
const BOSS: &str = "boss_secret_Tq9Lm4Xz7Wc2Vb6N:x";
const BOSS_TOKEN: &str = "dinie_at_of_the_boss_alone_5Rk2";

fn boss() -> Material {
    pair("dinie_ci_test_boss", BOSS)
}

fn by(signs: Option<Signature>, home: &str, target: Target) -> Target {
    fixtures::signed_by(target, Provider { signs, ..fixtures::dinie() }, home, boss())
}

fn created() -> Answer {
    Answer::Bytes(json(201, &[], &format!("{{\"client_id\":\"dinie_ci_test_new\",\"client_secret\":\"{NEW_SECRET}\"}}")))
}

fn basic_of_the_boss() -> String {
    use base64::Engine;
    let pair = "dinie_ci_test_boss:boss_secret_Tq9Lm4Xz7Wc2Vb6N%3Ax";
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// One call of each kind; all of them are answered alike.
async fn all_three(target: &Target) -> [Option<IssuerError>; 3] {
    // An issuer for each, or its breaker would open between them.
    [
        quick().list(target, &acting()).await.err(),
        quick().create(target, &acting(), &request()).await.err(),
        quick().revoke(target, &acting(), &"dinie_ci_test_old".parse().unwrap(), None).await.err(),
    ]
}

#[rstest]
#[case(Signature::Bearer { field: field("client_secret") }, format!("Bearer {BOSS}"))]
#[case(Signature::Basic { username: field("client_id"), password: field("client_secret") }, basic_of_the_boss())]
#[tokio::test]
async fn the_administrator_signs_with_its_own_fields(#[case] signs: Signature, #[case] expected: String) {
    let raw = Raw::start(|request| {
        let list = request.starts_with("GET ").then(|| Answer::Bytes(json(200, &[], "{\"data\":[],\"has_more\":false}")));
        Some(list.unwrap_or_else(|| if request.starts_with("DELETE ") { Answer::Bytes(json(204, &[], "")) } else { created() }))
    })
    .await;
    let target = by(Some(signs), "http://127.0.0.1:1/elsewhere", raw.target_of(fixtures::administered()));
    assert_eq!(all_three(&target).await, [None, None, None]);
    let requests = raw.requests();
    assert_eq!(requests.len(), 4, "list, create, revoke, and the list that shows that it is gone: {requests:#?}");
    for request in requests {
        assert!(request.contains(&format!("authorization: {expected}\r\n")), "{request}");
        assert!(!request.contains(SECRET) && !request.contains(TOKEN), "the credential itself signs nothing: {request}");
    }
}

#[tokio::test]
async fn its_token_is_fetched_at_its_own_address_and_sent_to_the_other() {
    let home = Raw::start(|_| Some(Answer::Bytes(json(200, &[], &format!("{{\"access_token\":\"{BOSS_TOKEN}\"}}"))))).await;
    let raw = Raw::always(created()).await;
    let target = by(Some(Signature::Token), &home.url, raw.target_of(fixtures::administered()));
    quick().create(&target, &acting(), &request()).await.unwrap();
    let (at_home, sent) = (home.requests(), raw.requests());
    assert_eq!((at_home.len(), sent.len()), (1, 1));
    assert!(at_home[0].starts_with("POST /v3/auth/token ") && at_home[0].contains(&basic_of_the_boss()), "{at_home:?}");
    assert!(sent[0].starts_with("POST /v3/auth/credentials ") && sent[0].contains(&format!("Bearer {BOSS_TOKEN}")), "{sent:?}");
    assert!(!sent[0].contains(&basic_of_the_boss()), "its key stays at home");
}

#[rstest]
#[case(401, IssuerError::AdministratorRefused)]
#[case(403, IssuerError::Unclear("no rule of the description fits it"))]
#[case(429, IssuerError::Throttled { retry_after: None })]
#[case(500, IssuerError::Unclear("it is a failure of the provider's own"))]
#[tokio::test]
async fn a_refused_signature_is_said_of_the_administrator(#[case] status: u16, #[case] expected: IssuerError) {
    let raw = Raw::always(Answer::Bytes(json(status, &[], "{}"))).await;
    let bearer = Signature::Bearer { field: field("client_secret") };
    let target = by(Some(bearer), "http://127.0.0.1:1", raw.target_of(fixtures::administered()));
    let errors = all_three(&target).await;
    // The create call names 403 as a refusal; the others say nothing of it.
    let create = if status == 403 { IssuerError::Refused { status } } else { expected.clone() };
    assert_eq!(errors, [Some(expected.clone()), Some(create), Some(expected)]);
    assert!(errors.iter().flatten().all(|error| *error != IssuerError::Unauthenticated));
}

#[rstest]
#[case(401, IssuerError::AdministratorRefused)]
#[case(429, IssuerError::Throttled { retry_after: None })]
#[case(500, IssuerError::Unreachable("the token endpoint's answer tells nothing"))]
#[tokio::test]
async fn without_its_token_nothing_is_sent(#[case] status: u16, #[case] expected: IssuerError) {
    let home = Raw::start(move |_| Some(Answer::Bytes(json(status, &[], "{}")))).await;
    let raw = Raw::always(created()).await;
    let target = by(Some(Signature::Token), &home.url, raw.target_of(fixtures::administered()));
    assert_eq!(all_three(&target).await, [Some(expected.clone()), Some(expected.clone()), Some(expected)]);
    assert!(raw.requests().is_empty(), "the administered provider heard nothing");
}

#[tokio::test]
async fn what_it_must_sign_is_impossible_without_it() {
    let raw = Raw::always(created()).await;
    let no_one = raw.target_of(fixtures::administered());
    let silent = by(None, "http://127.0.0.1:1", raw.target_of(fixtures::administered()));
    for target in [no_one, silent] {
        let errors = all_three(&target).await;
        assert!(errors.iter().all(|error| matches!(error, Some(IssuerError::Impossible(_)))), "{errors:?}");
    }
    assert!(raw.requests().is_empty());
}

#[tokio::test]
async fn open_registration_bears_its_signature_where_there_is_one_and_none_where_not() {
    let answer = "{\"client_id\":\"c\",\"client_secret\":\"a-secret-of-some-length\",\"registration_access_token\":\"a-token-of-some-length\",\
                  \"registration_client_uri\":\"https://as.example/reg/c\"}";
    let raw = Raw::start(move |_| Some(Answer::Bytes(json(201, &[], answer)))).await;
    let open = raw.target_of(fixtures::oauth_registration());
    let bearer = Signature::Bearer { field: field("client_secret") };
    quick().create(&open, &acting(), &request()).await.unwrap();
    quick().create(&by(Some(bearer), "http://127.0.0.1:1", open), &acting(), &request()).await.unwrap();
    let requests = raw.requests();
    assert!(!requests[0].to_lowercase().contains("authorization:"), "{}", requests[0]);
    assert!(requests[1].contains(&format!("authorization: Bearer {BOSS}\r\n")), "{}", requests[1]);
}

#[tokio::test]
async fn a_401_that_nobody_signed_says_nothing_of_the_current_key() {
    let raw = Raw::start(|_| Some(Answer::Bytes(json(401, &[], "{}")))).await;
    let open = raw.target_of(fixtures::oauth_registration());
    let refused = quick().create(&open, &acting(), &request()).await.unwrap_err();
    assert_eq!(refused, IssuerError::Refused { status: 401 });
    let bearer = Signature::Bearer { field: field("client_secret") };
    let refused = quick().create(&by(Some(bearer), "http://127.0.0.1:1", open), &acting(), &request()).await.unwrap_err();
    assert_eq!(refused, IssuerError::AdministratorRefused);
    assert!(refused.had_no_effect());
}

#[tokio::test]
async fn calls_that_the_credential_signs_itself_dont_know_the_administrator() {
    let raw = Raw::always(created()).await;
    let bearer = Signature::Bearer { field: field("client_secret") };
    let target = by(Some(bearer), "http://127.0.0.1:1", raw.target());
    quick().create(&target, &acting(), &request()).await.unwrap();
    quick().probe(&target, &acting()).await.unwrap();
    assert!(raw.requests().iter().all(|request| !request.contains(BOSS)));
}

#[test]
fn nothing_of_it_is_shown() {
    let provider = fixtures::administered();
    let target = by(Some(Signature::Token), "http://127.0.0.1:1", fixtures::target(provider, "http://127.0.0.1:2"));
    let shown = format!("{target:?}");
    assert!(shown.contains("Administrator(..)") && !shown.contains("127.0.0.1:1\"") && !shown.contains("boss"), "{shown}");
}
