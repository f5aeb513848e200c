//! What a description may say of environments, fields and probes, and its examples: taken, refused, and held against it.

use rstest::rstest;

use super::*;
use crate::domain::provider::Site;

/// Says everything that can be said of a form; its examples are the test of what that means.
const BANK: &str = r#"spec:
  title: Bank
  lifecycle: manual
  environments:
    sandbox: {base: "https://{tenant}.bank.example/sandbox", aliases: ["https://{tenant}.bank.example/v2/sandbox"], token: "https://id.bank.example"}
    production: {base: "https://{tenant}.bank.example"}
  variables: {tenant: }
  fields:
    url: {class: public, address: true}
    key:
      class: secret
      patterns: {sandbox: "^k_sbox_[a-z0-9]+$", production: {pattern: "^k_[a-z0-9_]+$", unless: sandbox}}
      shape: {pattern: "^k_[a-z0-9_]{8,40}$", confidence: documented}
      lookAlikes: {Other Bank: "^k_live_[a-z0-9]{24}$"}
    jwt:
      class: secret
      jwt: {claim: /ctx/env, sandbox: [test, 0], production: [live, true]}
  calls:
    probe:
      harmless: true
      method: POST
      path: /balance
      authentication: {bearer: key}
      rules:
        - {status: [400], equals: {pointer: /error_code, value: UNAUTHORIZED_ENVIRONMENT}, means: wrong-environment}
        - {status: [400], equals: {pointer: /error_code, value: INVALID_API_KEYS}, means: dead}
        - {status: [200], equals: {pointer: /ok, value: false}, means: dead}
  examples:
    values:
      - {fields: {key: "k_sbox_{digits:12}"}, environment: sandbox, verdict: match}
      - {fields: {key: "k_sbox_{digits:12}"}, environment: production, verdict: mismatch}
      - {fields: {key: "k_{digits:12}"}, environment: production, verdict: match}
      - {fields: {key: "k_{digits:12}"}, environment: sandbox, verdict: mismatch}
      - {fields: {key: "k_live_{digits:24}"}, environment: production, verdict: undetermined}
      - {fields: {key: "k_{digits:7}"}, environment: production, verdict: invalid}
      - {fields: {key: "{digits:12}"}, environment: production, verdict: invalid}
      - {fields: {jwt: {jwt: {ctx: {env: live}}}}, environment: production, verdict: match}
      - {fields: {jwt: {jwt: {ctx: {env: true}}}}, environment: sandbox, verdict: mismatch}
      - {fields: {jwt: {jwt: {ctx: {env: 0}}}}, environment: sandbox, verdict: match}
      - {fields: {jwt: {jwt: {ctx: {env: other}}}}, environment: sandbox, verdict: undetermined}
      - {fields: {jwt: "{base64url:40}"}, environment: sandbox, verdict: undetermined}
      - {fields: {key: "k_sbox_{digits:12}", jwt: {jwt: {ctx: {env: live}}}}, environment: sandbox, verdict: mismatch}
      - {fields: {url: "https://shop.bank.example/sandbox/v1"}, variables: {tenant: shop}, environment: sandbox, verdict: match}
      - {fields: {url: "https://shop.bank.example/v2/sandbox"}, variables: {tenant: shop}, environment: sandbox, verdict: match}
      - {fields: {url: "https://shop.bank.example/sandbox"}, variables: {tenant: shop}, environment: production, verdict: mismatch}
      - {fields: {url: "https://shop.bank.example/v1"}, variables: {tenant: shop}, environment: production, verdict: match}
      - {fields: {url: "https://shop.bank.example/v1"}, variables: {tenant: bakery}, environment: production, verdict: mismatch}
      - {fields: {url: "https://bank.example.evil.example"}, environment: production, verdict: mismatch}
      - {fields: {url: "https://shop.bank.example/../x"}, variables: {tenant: shop}, environment: production, verdict: undetermined}
    replies:
      - {call: probe, status: 400, body: {error_code: UNAUTHORIZED_ENVIRONMENT}, means: wrong-environment}
      - {call: probe, status: 400, body: {error_code: INVALID_API_KEYS}, means: dead}
      - {call: probe, status: 400, body: {error_code: 1}, means: inconclusive}
      - {call: probe, status: 400, means: inconclusive}
      - {call: probe, status: 200, body: {ok: false}, means: dead}
      - {call: probe, status: 200, body: {ok: true}, means: works}
"#;

fn bank(from: &str, to: &str) -> Vec<String> {
    assert!(BANK.contains(from), "{from}");
    let spec = if from.is_empty() { BANK.to_owned() } else { BANK.replacen(from, to, 1) };
    problems_of(&(head("Provider", "bank") + &spec))
}

#[rstest]
#[case("", "", &[])]
#[case("base: \"https://{tenant}.bank.example/sandbox\", ", "", &["8:15 missing-field"])]
#[case("aliases: [\"https://{tenant}.bank.example/v2/sandbox\"]", "aliases: [\"http://bank.example\"]", &["8:72 bad-url"])]
#[case("aliases: [\"https://{tenant}.bank.example/v2/sandbox\"]", "aliases: \"https://a.example\"", &["8:71 bad-type"])]
#[case("token: \"https://id.bank.example\"", "token: \"https://id.bank.example?x\"", &["8:124 bad-url"])]
#[case("class: public, address", "class: secret, address", &["12:10 field-class"])]
#[case("unless: sandbox}", "unless: production}", &["15:97 bad-pattern"])]
#[case("unless: sandbox}", "unless: neither}", &["15:97 bad-value"])]
#[case(", unless: sandbox}", "}", &["15:61 missing-field"])]
#[case("sandbox: \"^k_sbox_[a-z0-9]+$\", ", "", &["15:18 bad-pattern"])]
#[case("confidence: documented}", "confidence: unknown}", &["16:59 bad-value"])]
#[case(", confidence: documented}", "}", &["16:14 missing-field"])]
#[case("Other Bank:", "\"Other\\tBank\":", &["17:20 bad-name"])]
#[case("claim: /ctx/env", "claim: env", &["20:20 bad-pointer"])]
#[case("production: [live, true]", "production: [test]", &["20:62 bad-claim"])]
#[case(", sandbox: [test, 0], production: [live, true]", "", &["20:12 missing-field"])]
#[case("      harmless: true\n", "", &["23:7 missing-field"])]
#[case("harmless: true", "harmless: false", &["23:17 harmful-probe"])]
#[case("harmless: true", "harmless: true\n      otherHost: true", &["24:18 unsupported"])]
#[case("harmless: true", "harmless: true\n      otherHost: false", &[])]
#[case("k_{digits:12}\"}, environment: production, verdict: match", "k_{digits:12}\"}, environment: production, verdict: undetermined",
    &["35:76 bad-example"])]
#[case("status: 200, body: {ok: true}, means: works", "status: 200, body: {ok: true}, means: dead", &["59:61 bad-example"])]
#[case("call: probe, status: 400, means", "call: token, status: 400, means", &["57:16 bad-example"])]
#[case("call: probe, status: 400, means", "call: other, status: 400, means", &["57:16 bad-value"])]
#[case("k_{digits:7}", "k_{digit:7}", &["38:24 bad-template"])]
#[case("k_{digits:7}", "{digits:999}{digits:999}{digits:999}{digits:999}{digits:999}", &["38:24 bad-example"])]
#[case("{fields: {key: \"{digits:12}\"", "{fields: {kee: \"{digits:12}\"", &["39:19 undeclared-field"])]
#[case("variables: {tenant: bakery}", "variables: {tenent: bakery}", &["50:69 unknown-variable"])]
#[case("  examples:\n", "  examples:\n    others: []\n", &["32:5 unknown-field"])]
fn descriptions_say_it_and_examples_hold_them_to_it(#[case] from: &str, #[case] to: &str, #[case] expected: &[&str]) {
    assert_eq!(bank(from, to), expected);
}

#[test]
fn a_failing_example_says_what_came_out_instead_and_nothing_of_the_value() {
    let text = head("Provider", "bank") + &BANK.replacen("verdict: invalid", "verdict: match", 1);
    let problems = parse(&[source("t.yaml", &text)], now()).unwrap_err();
    let problem = &problems.as_slice()[0];
    assert!(problem.message.contains("`invalid`") && problem.message.contains("`key` doesn't have the form"), "{}", problem.message);
    assert!(!problem.message.contains("k_"), "{}", problem.message);
}

#[test]
fn an_environment_has_its_aliases_and_may_fetch_its_tokens_elsewhere() {
    let policies = parse(&[source("t.yaml", &(head("Provider", "bank") + BANK))], now()).unwrap();
    let bank = &policies.providers[&"bank".parse::<Name>().unwrap()];
    let Site { base, aliases, token } = &bank.environments[&Environment::Sandbox];
    assert!(base.is_some() && aliases.len() == 1);
    assert_eq!(token.as_ref().map(|token| bank.render(token, &BTreeMap::new())).as_deref(), Some("https://id.bank.example"));
}

/// The owner of a credential says what the provider doesn't publish: by a document of the same name.
#[test]
fn the_owners_description_of_tensfer_replaces_ours() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/providers/README.md")).unwrap();
    let at = readme.find("metadata: {name: tensfer}").expect("README.md shows how");
    let begin = readme[..at].rfind("```yaml\n").unwrap() + "```yaml\n".len();
    let text = readme[begin..].split("```").next().unwrap();
    let policies = parse(&[source("README.md", text)], now()).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    schema::agrees(text, &[]);
    let tensfer = &policies.providers[&"tensfer".parse::<Name>().unwrap()];
    assert!(tensfer.environments.values().all(|site| site.base.is_some()));
    assert!(tensfer.fields.values().any(|field| !field.form.marks.is_empty()));
}

#[test]
fn every_fact_of_a_built_in_description_is_about_something_and_none_is_without_one() {
    for provider in parse(&[], now()).unwrap().providers.values() {
        let told = |about: &str| provider.facts.iter().any(|fact| fact.about == about || fact.about.starts_with(&format!("{about}.")));
        for field in provider.fields.keys() {
            assert!(told(&format!("fields.{field}")), "{}: nothing says where `{field}` is from", provider.name);
        }
        assert!(provider.is_generated() || told("environments"), "{}: nothing says where its addresses are from", provider.name);
        assert!(provider.calls.probe.is_none() || told("calls.probe"), "{}: nothing says where its probe is from", provider.name);
    }
}
