//! Documents and the problems that they must get, each with its line, its column and its code.

mod by_hand;
mod deliveries;
mod folders;
mod fuzz;
mod go_live;
mod language;
mod lifecycles;
mod rollouts;
mod schema;
mod table;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::domain::credential::Environment;
use crate::domain::policy::{Confirmation, Unconfirmed, Uptake};

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn source(file: &str, text: &str) -> Source {
    Source { file: file.to_owned(), text: text.to_owned() }
}

fn head(kind: &str, name: &str) -> String {
    format!("apiVersion: keywright.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n")
}

/// Documents that are whole, and that those under test refer to.
fn base() -> Source {
    let policy = head("RotationPolicy", "quarter") + "spec: {maxAge: 90d}\n---\n";
    let live = head("Credential", "live") + "spec: {provider: dinie, environment: production, rotation: quarter}\n---\n";
    let test = head("Credential", "test") + "spec: {provider: dinie, environment: sandbox, rotation: quarter}\n---\n";
    let app = head("Application", "app") + "spec: {environment: sandbox, credentials: [test], identity: {unix: {uid: 1}}}\n";
    source("base.yaml", &(policy + &live + &test + &app))
}

/// `line:column code` of each problem in the second file.
fn problems_of(text: &str) -> Vec<String> {
    match parse(&[base(), source("t.yaml", text)], now()) {
        Ok(_) => {
            schema::agrees(text, &[]);
            Vec::new()
        }
        Err(problems) => {
            assert!(problems.iter().all(|problem| problem.file == "t.yaml"), "{problems}");
            schema::agrees(text, &problems.iter().map(|problem| problem.code).collect::<Vec<_>>());
            problems.iter().map(|problem| format!("{}:{} {}", problem.line, problem.column, problem.code)).collect()
        }
    }
}

#[rstest]
// The outer form.
#[case("", &[])]
#[case("# nothing\n---\n---\n", &[])]
#[case("- a\n", &["1:1 bad-type"])]
#[case("kind: [\n", &["1:7 syntax"])]
#[case("kind: Nonsense\n", &["1:1 missing-field", "1:1 missing-field", "1:1 missing-field", "1:7 bad-value"])]
#[case("apiVersion: v1\nkind: RotationPolicy\nmetadata: {name: a}\nspec: {maxAge: 90d}\n", &["1:13 bad-api-version"])]
#[case("apiVersion: keywright.dev/v1alpha1\nkind: RotationPolicy\nmetadata: {name: A, labels: {}}\nspec: {maxAge: 90d}\nstatus: {}\n",
    &["3:18 bad-name", "3:21 unknown-field", "5:1 unknown-field"])]
#[case("a: &x 1\n", &["1:7 alias"])]
#[case("a: *x\n", &["1:4 alias"])]
#[case("a: !!str x\n", &["1:10 tag"])]
#[case("a: {b: 1, b: 2}\n", &["1:1 missing-field", "1:1 missing-field", "1:1 missing-field", "1:1 missing-field", "1:1 unknown-field", "1:11 duplicate-key"])]
#[case("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n", &["1:25 too-deep"])]
fn outer_form(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(problems_of(text), expected);
}

#[rstest]
#[case("{maxAge: 90d, overlap: 24h, spread: 0s, confirmation: none, unconfirmed: revoke, rehearse: none, rollout: [100%], verifyEvery: 1h}", &[])]
#[case("{}", &["4:7 missing-field"])]
#[case("{maxAge: }", &["4:8 missing-value"])]
#[case("{maxAge: 90}", &["4:16 bad-duration"])]
#[case("{maxAge: 3mo, overlap: 0x, spread: x, verifyEvery: -1s}", &["4:16 bad-duration", "4:30 bad-duration", "4:42 bad-duration", "4:58 bad-duration"])]
// Whether there may be none, the provider decides: see `lifecycles`.
#[case("{maxAge: 90d, overlap: 0s}", &[])]
#[case("{maxAge: true}", &["4:16 bad-type"])]
#[case("{maxage: 90d}", &["4:7 missing-field", "4:8 unknown-field"])]
#[case("{maxAge: 24h, overlap: 24h}", &["4:30 overlap-too-long"])]
#[case("{maxAge: 24h, overlap: 12h, spread: 12h}", &["4:16 impossible-schedule"])]
#[case("{maxAge: 1s}", &["4:16 overlap-too-long"])]
#[case("{maxAge: 40s, overlap: 8s, spread: 1s}", &[])]
#[case("{maxAge: 1d, confirmation: maybe, unconfirmed: drop}", &["4:34 bad-value", "4:54 bad-value"])]
#[case("{maxAge: 90d, rehearse: sandbox, rollout: [1, 10%, 100%]}", &[])]
#[case("{maxAge: 90d, rollout: [2, 5, 1%, 99%, 100%]}", &[])]
#[case("{maxAge: 90d, rollout: [1, 10%]}", &["4:34 bad-rollout"])]
#[case("{maxAge: 90d, rollout: [10%, 1, 100%]}", &["4:36 bad-rollout"])]
#[case("{maxAge: 90d, rollout: [50%, 50%, 100%]}", &["4:36 bad-rollout"])]
#[case("{maxAge: 90d, rollout: [0, 101%, 1.5%, many]}", &["4:31 bad-rollout", "4:34 bad-rollout", "4:40 bad-rollout", "4:46 bad-rollout"])]
#[case("{maxAge: 90d, rehearse: production}", &["4:31 bad-value"])]
#[case("{maxAge: 90d, windows: [{cron: \"0 9 * * Mon-Thu\", timezone: America/Sao_Paulo, open: 8h}]}", &[])]
#[case("{maxAge: 90d, windows: [{}]}", &["4:31 missing-field", "4:31 missing-field", "4:31 missing-field"])]
#[case("{maxAge: 90d, windows: [{cron: 0 0 9 * * Mon, timezone: UTC, open: 8h}]}", &["4:38 cron-fields"])]
#[case("{maxAge: 90d, windows: [{cron: 0 9 * * 1-5, timezone: UTC, open: 8h}]}", &["4:38 cron-weekday"])]
#[case("{maxAge: 90d, windows: [{cron: 0 9 1 * Mon, timezone: UTC, open: 8h}]}", &["4:38 cron-both-days"])]
#[case("{maxAge: 90d, windows: [{cron: 0 25 * * *, timezone: UTC, open: 8h}]}", &["4:38 cron-syntax"])]
#[case("{maxAge: 90d, windows: [{cron: 0 9 31 2 *, timezone: UTC, open: 8h}]}", &["4:38 cron-never"])]
#[case("{maxAge: 90d, windows: [{cron: 0 9 * * *, timezone: Brazil/Nowhere, open: 8h}]}", &["4:59 bad-timezone"])]
#[case("{maxAge: 90d, windows: [{cron: 0 9 * * *, timezone: UTC, open: 32d}]}", &["4:70 bad-duration"])]
#[case("{maxAge: 7d, windows: [{cron: 0 9 1 * *, timezone: UTC, open: 8h}]}", &["4:16 impossible-schedule"])]
fn rotation_policies(#[case] spec: &str, #[case] expected: &[&str]) {
    assert_eq!(problems_of(&format!("{}spec: {spec}\n", head("RotationPolicy", "p"))), expected);
}

#[rstest]
#[case("{provider: dinie, environment: production, rotation: quarter, path: a/b, account: main, acceptUndetermined: we asked them, requireGoLive: false, twin: test}", &[])]
#[case("{}", &["4:7 missing-field", "4:7 missing-field", "4:7 missing-field"])]
#[case("{provider: nobody, environment: staging, rotation: never}", &["4:18 unknown-reference", "4:39 bad-value", "4:58 unknown-reference"])]
#[case("{provider: dinie, environment: sandbox, rotation: quarter, path: ../x}", &["4:72 bad-path"])]
#[case("{provider: dinie, environment: sandbox, rotation: quarter, path: test}", &["4:72 duplicate-path"])]
#[case("{provider: dinie, environment: sandbox, rotation: quarter, variables: {tenant: a}}", &["4:78 unknown-variable"])]
#[case("{provider: dinie, environment: sandbox, rotation: quarter, administeredBy: live}", &["4:82 administrator-unused", "4:82 environment-mismatch"])]
#[case("{provider: dinie, environment: sandbox, rotation: quarter, administeredBy: c}", &["4:82 administered-by-itself", "4:82 administrator-unused"])]
#[case("{provider: oauth-registration, environment: sandbox, rotation: quarter, administeredBy: gone}", &["4:95 unknown-reference"])]
#[case("{provider: oauth-initial-access, environment: sandbox, rotation: quarter}", &[])]
#[case("{provider: dinie, environment: sandbox, rotation: quarter, twin: test}", &["4:72 bad-twin"])]
#[case("{provider: dinie, environment: production, rotation: quarter, twin: live}", &["4:75 bad-twin"])]
#[case("{provider: oauth-registration, environment: production, rotation: quarter, twin: test}", &["4:88 bad-twin"])]
#[case("{provider: dinie, environment: production, rotation: quarter, acceptUndetermined: \" \", requireGoLive: true}", &["4:89 bad-reason"])]
#[case("{provider: dinie, environment: production, rotation: quarter, requireGoLive: true}", &[])]
#[case("{provider: dinie, environment: sandbox, rotation: quarter, requireGoLive: true}", &["4:81 go-live-in-sandbox"])]
#[case("{provider: dinie, environment: production, rotation: quarter, requireGoLive: later}", &["4:84 bad-type"])]
#[case("{provider: oauth-registration, environment: sandbox, rotation: quarter, variables: {host: a.b}}", &["4:97 bad-name"])]
fn credentials(#[case] spec: &str, #[case] expected: &[&str]) {
    assert_eq!(problems_of(&format!("{}spec: {spec}\n", head("Credential", "c"))), expected);
}

#[rstest]
#[case("{environment: production, credentials: [live], identity: {unix: {uid: 2}}, uptake: start, lease: 1h, endpoints: {callback: \"https://a.example\"}}", &[])]
#[case("{environment: production, credentials: [], identity: {unix: {uid: 2}}}", &[])]
#[case("{}", &["4:7 missing-field", "4:7 missing-field", "4:7 missing-field"])]
#[case("{environment: production, credentials: [live, test, live, gone], identity: {unix: {uid: 2}}}", &["4:53 environment-mismatch", "4:59 duplicate-entry", "4:65 unknown-reference"])]
#[case("{environment: sandbox, credentials: [], identity: {unix: {uid: 1}}}", &["4:57 duplicate-identity"])]
#[case("{environment: sandbox, credentials: [], identity: {kubernetes: {namespace: pay, serviceAccount: api.v2}}}", &[])]
#[case("{environment: sandbox, credentials: [], identity: {kubernetes: {namespace: a}}}", &["4:70 missing-field"])]
#[case("{environment: sandbox, credentials: [], identity: {kubernetes: {namespace: a.b, serviceAccount: A, uid: 1}}}", &["4:82 bad-name", "4:103 bad-name", "4:106 unknown-field"])]
#[case("{environment: sandbox, credentials: [], identity: {kubernetes: {namespace: a, serviceAccount: b}, unix: {uid: 2}}}", &["4:57 bad-identity"])]
#[case("{environment: sandbox, credentials: [], identity: {}}", &["4:57 bad-identity"])]
#[case("{environment: sandbox, credentials: [], identity: {unix: {uid: -1}}}", &["4:70 bad-type"])]
#[case("{environment: sandbox, credentials: [], identity: {token: {sha256: hunter2}}}", &["4:74 bad-hash"])]
#[case("{environment: sandbox, credentials: [], identity: {unix: {uid: 2}}, uptake: native, reads: 1h, delivery: {}}", &["4:83 unsupported", "4:91 unsupported"])]
#[case("{environment: sandbox, credentials: [], identity: {unix: {uid: 2}}, endpoints: {callback: \"http://a.example\", webhook: \"https://u:p@a.example\"}}", &["4:97 bad-url", "4:126 bad-url"])]
fn applications(#[case] spec: &str, #[case] expected: &[&str]) {
    assert_eq!(problems_of(&format!("{}spec: {spec}\n", head("Application", "a"))), expected);
}

const WHOLE_PROVIDER: &str = r#"spec:
  title: Acme
  lifecycle: pairs
  environments: {sandbox: {base: "https://{tenant}.acme.example/"}}
  variables: {tenant: }
  fields:
    id: {class: public, patterns: {sandbox: "^t_[a-z]+$"}}
    secret: {class: secret}
    manager: {class: management, bound: false}
  calls:
    token: {method: POST, path: /token, authentication: {basic: {username: id, password: secret}}, accessToken: /access_token}
    create: {method: POST, path: /keys, authentication: token, body: {json: {n: ["{marker}", 1, null]}}, keyId: /id, fields: {secret: /secret}}
    revoke: {method: DELETE, path: "/keys/{key_id}", authentication: {management: manager}, rules: [{status: [404], equals: {pointer: /a, value: 1}, means: gone}]}
"#;

#[rstest]
#[case("", "", &[])]
#[case("lifecycle: pairs", "lifecycle: slots", &["6:14 bad-value"])]
#[case("lifecycle: pairs", "lifecycle: manual", &["15:5 unused-call", "16:5 unused-call"])]
#[case("lifecycle: pairs", "lifecycle: pairs\n  signs: token", &[])]
#[case("lifecycle: pairs", "lifecycle: pairs\n  signs: {basic: {username: id, password: secret}}", &[])]
#[case("lifecycle: pairs", "lifecycle: pairs\n  signs: {bearer: secret}", &[])]
#[case("lifecycle: pairs", "lifecycle: pairs\n  signs: {bearer: manager}", &["7:19 field-class"])]
#[case("lifecycle: pairs", "lifecycle: pairs\n  signs: {bearer: secret, basic: {}}", &["7:10 bad-authentication"])]
#[case("lifecycle: pairs", "lifecycle: pairs\n  signs: open", &["7:10 bad-authentication"])]
#[case("lifecycle: pairs", "lifecycle: pairs\n  signs: {management: manager}", &["7:10 bad-authentication", "7:11 unknown-field"])]
#[case("title: Acme", "titel: Acme", &["5:3 missing-field", "5:3 unknown-field"])]
#[case("https://{tenant}.acme.example/", "http://acme.example/", &["7:34 bad-url"])]
#[case("https://{tenant}.acme.example/", "https://acme.example/?a=b", &["7:34 bad-url"])]
#[case("https://{tenant}.acme.example/", "https://{region}.acme.example", &["7:34 unknown-variable"])]
#[case("https://{tenant}.acme.example/", "https://{tenant.acme.example", &["7:34 bad-template"])]
#[case("sandbox: {base", "staging: {base", &["7:18 unknown-field"])]
#[case("{tenant: }", "{tenant: , key_id: a}", &["8:25 bad-name"])]
#[case("^t_[a-z]+$", "t_[a-z]+$", &["10:45 bad-pattern"])]
#[case("^t_[a-z]+$", "^t_[a-z+$", &["10:45 bad-pattern"])]
#[case("^t_[a-z]+$", "^((a{1000}){1000}){9}$", &["10:45 bad-pattern"])]
#[case("{class: secret}", "{class: public}", &["10:5 no-secret-field", "15:126 no-new-secret"])]
#[case("secret: {class: secret}", "secret: {class: secret, with: id}", &["11:35 split-pair"])]
#[case("class: management,", "class: management, served: true,", &["12:42 management-served"])]
#[case("password: secret", "password: manager", &["14:90 field-class"])]
#[case("password: secret", "password: pass", &["14:90 undeclared-field"])]
#[case(", accessToken: /access_token", "", &["14:12 missing-field"])]
#[case("accessToken: /access_token", "accessToken: access_token", &["14:113 bad-pointer"])]
#[case("path: /token", "path: token?a=b", &["14:33 bad-path"])]
#[case("path: /token", "urlField: secret", &["14:37 field-class"])]
#[case("path: /token", "path: \"/{field:secret}\"", &["14:33 field-in-address"])]
#[case("path: /token", "path: \"/{marker}\"", &["14:33 unknown-variable"])]
#[case("path: /token", "path: /token, headers: {Authorization: x}", &["14:51 bad-header"])]
#[case("path: /token", "path: /token, body: {}", &["14:47 bad-body"])]
#[case("method: POST, path: /token", "method: PATCH, path: /token", &["14:21 bad-value"])]
#[case("authentication: {basic: {username: id, password: secret}}", "authentication: token", &["14:57 no-token-call"])]
#[case("authentication: token", "authentication: maybe", &["15:57 bad-authentication"])]
#[case("authentication: token", "authentication: administrator", &[])]
#[case("authentication: {management: manager}", "authentication: administrator", &[])]
#[case("authentication: {basic: {username: id, password: secret}}", "authentication: administrator", &["14:57 bad-authentication"])]
#[case("  calls:\n", "  calls:\n    probe: {method: GET, path: /p, harmless: true, authentication: administrator}\n", &["14:68 bad-authentication"])]
#[case("fields: {secret: /secret}", "fields: {password: /p}", &["15:126 no-new-secret", "15:127 undeclared-field"])]
#[case("status: [404]", "status: [99, x]", &["16:111 bad-type", "16:115 bad-type"])]
#[case("means: gone", "means: lost", &["16:157 bad-value"])]
fn descriptions(#[case] from: &str, #[case] to: &str, #[case] expected: &[&str]) {
    assert!(WHOLE_PROVIDER.contains(from), "{from}");
    let spec = if from.is_empty() { WHOLE_PROVIDER.to_owned() } else { WHOLE_PROVIDER.replacen(from, to, 1) };
    assert_eq!(problems_of(&(head("Provider", "acme") + &spec)), expected);
}

const GENERATED: &str = r#"spec:
  title: Hooks
  lifecycle: generated
  fields:
    id: {class: public, generate: {length: 26, alphabet: "0123456789abcdefghijklmnopqrstuvwxyz"}}
    secret: {class: secret, use: verify, generate: {length: 32, encoding: base64, prefix: whsec_}}
"#;

#[rstest]
#[case("", "", &[])]
#[case("lifecycle: generated", "lifecycle: pairs", &["5:3 missing-field", "8:25 recipe-unused", "9:42 recipe-unused"])]
#[case("generate: {length: 32, encoding: base64, prefix: whsec_}", "patterns: {}", &["9:5 missing-recipe"])]
#[case("length: 32", "length: 15", &["9:52 guessable"])]
#[case("length: 26", "length: 24", &["8:35 guessable"])]
#[case("length: 32", "length: 2000", &["9:61 bad-type"])]
#[case("encoding: base64", "encoding: rot13", &["9:75 bad-value"])]
#[case(", encoding: base64", "", &["9:52 bad-recipe"])]
#[case("encoding: base64", "encoding: base64, alphabet: ab", &["9:52 bad-recipe"])]
#[case("0123456789abcdefghijklmnopqrstuvwxyz", "aab", &["8:58 bad-recipe"])]
#[case("prefix: whsec_", "prefix: \"a b\"", &["9:91 bad-recipe"])]
#[case("use: verify", "use: both", &["9:34 bad-value"])]
#[case("class: secret", "class: public", &["8:5 no-secret-field"])]
#[case("  title: Hooks", "  title: Hooks\n  environments: {sandbox: {base: \"https://a.example\"}}", &["6:3 not-generated"])]
#[case("  title: Hooks", "  title: Hooks\n  calls: {}", &["6:3 not-generated"])]
fn values_of_our_own(#[case] from: &str, #[case] to: &str, #[case] expected: &[&str]) {
    assert!(GENERATED.contains(from), "{from}");
    let spec = if from.is_empty() { GENERATED.to_owned() } else { GENERATED.replacen(from, to, 1) };
    assert_eq!(problems_of(&(head("Provider", "hooks") + &spec)), expected);
}

#[test]
fn all_problems_come_at_once_and_a_broken_document_hides_none_of_the_others() {
    let policy = head("RotationPolicy", "quarter") + "spec: {maxAge: x}\n---\n";
    let broken = "apiVersion: \"unclosed\n---\n";
    let credential = head("Credential", "c") + "spec: {provider: none, environment: sandbox, rotation: quarter}\n---\n";
    let app = head("Application", "a") + "spec:\n  environment: production\n  credentials: [c, c2]\n  identity: {unix: {uid: 0}}\n";
    let expected = [
        "3:18 duplicate-name",
        "4:16 bad-duration",
        "6:21 syntax",
        "11:18 unknown-reference",
        "18:17 environment-mismatch",
        "18:20 unknown-reference",
    ];
    assert_eq!(problems_of(&(policy + broken + &credential + &app)), expected);
}

#[test]
fn an_administrator_is_never_served_and_the_circle_is_found() {
    let spec =
        |by: &str| format!("spec: {{provider: oauth-registration, environment: sandbox, rotation: quarter, administeredBy: {by}}}\n---\n");
    let chain = head("Credential", "a") + &spec("b") + &head("Credential", "b") + &spec("a");
    assert_eq!(problems_of(&chain), ["4:95 administered-by-itself", "9:95 administered-by-itself"]);
    let served = head("Credential", "a")
        + &spec("boss")
        + &head("Credential", "boss")
        + "spec: {provider: dinie, environment: sandbox, rotation: quarter}\n---\n"
        + &head("Application", "x")
        + "spec: {environment: sandbox, credentials: [boss], identity: {unix: {uid: 9}}}\n";
    assert_eq!(problems_of(&served), ["14:44 administrator-listed"]);
}

#[test]
fn who_administers_is_named_where_a_call_needs_it_can_sign_and_is_used() {
    let credential =
        |name: &str, spec: &str| head("Credential", name) + &format!("spec: {{environment: sandbox, rotation: quarter, {spec}}}\n---\n");
    let token = credential("token", "provider: oauth-initial-access");
    assert_eq!(problems_of(&(token.clone() + &credential("c", "provider: oauth-registration, administeredBy: token"))), [""; 0]);
    // Its provider says nothing of how it signs.
    let other = credential("other", "provider: oauth-registration");
    let signs_nothing = other + &credential("c", "provider: oauth-registration, administeredBy: other");
    assert_eq!(problems_of(&signs_nothing), ["9:95 administrator-signs-nothing"]);
    // Nothing of this provider would be signed by it.
    let unused = token.clone() + &credential("c", "provider: dinie, administeredBy: token");
    assert_eq!(problems_of(&unused), ["9:82 administrator-unused"]);
    // A call that only an administrator signs.
    for (from, to) in [
        ("authentication: token", "authentication: administrator"),
        ("authentication: {management: manager}", "authentication: administrator"),
    ] {
        let acme = head("Provider", "acme") + &WHOLE_PROVIDER.replacen(from, to, 1) + "---\n";
        let variables = "provider: acme, variables: {tenant: a}";
        let at = acme.lines().count() + 4;
        assert_eq!(problems_of(&(acme.clone() + &credential("c", variables))), [format!("{at}:7 missing-administrator")]);
        assert_eq!(problems_of(&(acme + &token + &credential("c", &format!("{variables}, administeredBy: token")))), [""; 0]);
    }
}

#[test]
fn a_description_needs_its_variables_and_time_of_its_own() {
    let timing = "  timing: {manualLead: 85d}\n";
    let provider = head("Provider", "acme") + WHOLE_PROVIDER + timing + "---\n";
    let credential = head("Credential", "c") + "spec: {provider: acme, environment: production, rotation: quarter}\n";
    let expected = ["22:7 missing-variable", "22:37 unknown-environment", "22:59 impossible-schedule"];
    assert_eq!(problems_of(&(provider + &credential)), expected);
}

#[rstest]
#[case("{quota: {calls: 600, per: 1m}, share: 50%, limitHeader: L, remainingHeader: R, resetHeader: S}", &[])]
#[case("{quota: {calls: 600}}", &["17:19 missing-field"])]
#[case("{quota: {calls: 0, per: 1m}}", &["17:27 bad-type"])]
#[case("{quota: {calls: 600, per: 1mo}}", &["17:37 bad-duration"])]
#[case("{quota: {calls: 7, per: 1m}}", &["17:19 share-too-small"])]
#[case("{quota: {calls: 8, per: 1m}, share: 49%}", &["17:19 share-too-small"])]
#[case("{share: 0%}", &["17:19 bad-share"])]
#[case("{share: 101%}", &["17:19 bad-share"])]
#[case("{share: 50}", &["17:19 bad-share"])]
#[case("{share: +5%, burst: 3}", &["17:19 bad-share", "17:24 unknown-field"])]
fn limits_of_a_description(#[case] limits: &str, #[case] expected: &[&str]) {
    assert_eq!(problems_of(&format!("{}{WHOLE_PROVIDER}  limits: {limits}\n", head("Provider", "acme"))), expected);
}

#[test]
fn half_of_a_quota_is_ours_where_nothing_else_is_said() {
    let read = |limits: &str| {
        let text = format!("{}{WHOLE_PROVIDER}  limits: {limits}\n", head("Provider", "acme"));
        parse(&[source("t.yaml", &text)], now()).unwrap().providers[&"acme".parse::<Name>().unwrap()].limits.clone()
    };
    assert_eq!(read("{quota: {calls: 600, per: 1m}}").own_calls(), Some(300));
    assert_eq!(read("{quota: {calls: 600, per: 1m}, share: 10%}").own_calls(), Some(60));
    let headers = read("{remainingHeader: X-RateLimit-Remaining}");
    assert_eq!((headers.own_calls(), headers.left_to_others(101)), (None, 51));
}

#[test]
fn defaults_are_those_of_the_contract() {
    let tight = head("RotationPolicy", "tight") + "spec: {maxAge: 50s}\n";
    let policies = parse(&[base(), source("t.yaml", &tight)], now()).unwrap();
    let name = |text: &str| -> Name { text.parse().unwrap() };
    let quarter = &policies.rotations[&name("quarter")];
    assert_eq!(quarter.terms.overlap, Span::from_secs(86_400));
    assert_eq!(quarter.spread.as_secs(), 7 * 86_400);
    assert_eq!((quarter.terms.confirmation, quarter.terms.unconfirmed), (Confirmation::Required, Unconfirmed::Hold));
    assert_eq!(quarter.verify_every, Span::from_secs(86_400));
    assert!(quarter.window_wait.is_zero());
    let tight = &policies.rotations[&name("tight")];
    assert_eq!((tight.terms.overlap.as_secs(), tight.spread.as_secs()), (5, 5));
    let live = &policies.credentials[&name("live")];
    assert_eq!((live.path.as_str(), live.account.as_str()), ("live", "dinie-production"));
    let app = &policies.applications[&name("app")];
    assert_eq!((app.uptake, app.lease), (Uptake::Stream, None));
    assert_eq!(overlaps_within(&policies, Span::from_secs(3600)), [name("tight")]);
}

#[test]
fn the_longest_wait_for_a_window_is_that_over_the_weekend() {
    let text = head("RotationPolicy", "w") + "spec: {maxAge: 90d, windows: [{cron: 0 9 * * Mon-Thu, timezone: UTC, open: 8h}]}\n";
    let policies = parse(&[source("t.yaml", &text)], now()).unwrap();
    let wait = policies.rotations.values().next().unwrap().window_wait;
    assert_eq!(wait.as_secs(), 88 * 3600);
}

#[test]
fn the_built_in_descriptions_are_whole_and_a_folder_replaces_them() {
    let policies = parse(&[], now()).unwrap();
    let names: Vec<&str> = policies.providers.keys().map(Name::as_str).collect();
    assert_eq!(names.len(), builtin_sources().len());
    let dinie = &policies.providers[&"dinie".parse::<Name>().unwrap()];
    assert!(dinie.can_mint() && dinie.can_find_orphans());
    assert_eq!(dinie.environments.len(), Environment::ALL.len());
    let own = head("Provider", "dinie") + WHOLE_PROVIDER;
    let replaced = parse(&[source("t.yaml", &own)], now()).unwrap();
    assert_eq!(replaced.providers[&dinie.name].title, "Acme");
    assert_ne!(replaced.digest, policies.digest);
    assert_eq!(policies.digest, parse(&[], now()).unwrap().digest);
}

#[test]
fn a_pattern_is_anchored_on_both_sides_also_over_alternatives() {
    let text = head("Provider", "acme") + &WHOLE_PROVIDER.replace("^t_[a-z]+$", "^a|b$");
    let policies = parse(&[source("t.yaml", &text)], now()).unwrap();
    let provider = &policies.providers[&"acme".parse().unwrap()];
    let pattern = &provider.fields[&"id".parse().unwrap()].form.marks[&Environment::Sandbox].pattern;
    assert!(pattern.is_match("a") && pattern.is_match("b"));
    assert!(!pattern.is_match("ax") && !pattern.is_match("xb"));
    assert_eq!(
        provider.environments[&Environment::Sandbox].base,
        crate::domain::provider::Template::parse("https://{tenant}.acme.example").ok()
    );
}

#[test]
fn every_file_of_the_repository_is_valid_as_it_stands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    for folder in ["examples", "providers", ""] {
        let policies = read_folder(&root.join(folder), now()).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        assert!(folder == "providers" || policies.credentials.len() >= 3);
    }
    let described = std::fs::read_dir(root.join("providers")).unwrap();
    let files = described.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "yaml")).count();
    assert_eq!(files, builtin_sources().len(), "a description isn't listed in builtin.rs");
}

#[test]
fn nothing_that_looks_like_a_secret_is_repeated() {
    let secret = "Zq3vT9xLk2Wm8Rp5Yb7N";
    let text = head("Credential", "c")
        + &format!(
            "spec:\n  provider: {secret}\n  environment: {secret}\n  rotation: {}\n  clientSecret: short1\n  {secret}: 1\n",
            secret.to_lowercase()
        );
    let app =
        head("Application", "a") + &format!("spec: {{environment: sandbox, credentials: [], identity: {{token: {{sha256: {secret}}}}}}}\n");
    let problems = parse(&[base(), source("t.yaml", &(text + "---\n" + &app))], now()).unwrap_err();
    let all = format!("{problems} {problems:?} {} {}", problems.render(true), serde_json::to_string(&problems).unwrap()).to_lowercase();
    assert!(problems.as_slice().len() >= 6);
    for piece in secret.to_lowercase().as_bytes().windows(8) {
        assert!(!all.contains(std::str::from_utf8(piece).unwrap()), "{all}");
    }
    assert!(!all.contains("short1"), "{all}");
}

#[test]
fn problems_are_shown_with_their_line_and_in_the_contracts_json() {
    let text = head("RotationPolicy", "p") + "spec: {maxAge: soon}\n";
    let problems = parse(&[source("t.yaml", &text)], now()).unwrap_err();
    let shown = problems.render(false);
    assert!(shown.contains("error[bad-duration]") && shown.contains("--> t.yaml:4:16") && shown.contains("maxAge: soon"), "{shown}");
    assert!(!shown.contains('\u{1b}') && problems.render(true).contains('\u{1b}'));
    let json: serde_json::Value = serde_json::to_value(&problems).unwrap();
    let keys: Vec<&String> = json["problems"][0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["code", "column", "file", "help", "line", "message"]);
}
