//! Lifecycles where there is one secret: what a description needs for them, and which policies can be kept there.

use super::*;

const ROTATE: &str = r#"spec:
  title: Hooks
  lifecycle: rotate
  environments: {sandbox: {base: "https://hooks.example"}}
  fields:
    id: {class: public}
    secret: {class: secret}
  calls:
    create: {method: POST, path: "/{field:id}/rotate", authentication: {bearer: secret}, body: {json: {seconds: "{overlap_seconds}"}}, fields: {secret: /secret}, previousExpiresAt: /end}
  timing: {overlap: {min: 1m, default: 1h, max: 7d}}
"#;

#[rstest]
#[case("", "", &[])]
#[case("lifecycle: rotate", "lifecycle: replace", &["12:5 overlap-unused", "12:163 unused-part", "13:3 overlap-unused"])]
#[case("lifecycle: rotate", "lifecycle: pairs", &["12:13 missing-field", "12:163 unused-part"])]
#[case("fields: {secret: /secret}", "keyId: /id, fields: {secret: /secret}", &["12:136 unused-part"])]
#[case("  calls:\n", "  calls:\n    list: {method: GET, path: /a, authentication: {bearer: secret}, items: /a, keyId: /b}\n    revoke: {method: DELETE, path: /a, authentication: {bearer: secret}}\n", &["12:5 unused-call", "13:5 unused-call"])]
#[case("{overlap_seconds}", "for {overlap_seconds} s", &[])]
#[case(", body: {json: {seconds: \"{overlap_seconds}\"}}", "", &[])]
#[case("rotate\", auth", "rotate/{overlap_seconds}\", auth", &["12:34 unknown-variable"])]
#[case("{min: 1m, default: 1h, max: 7d}", "{min: 1d, max: 1h}", &["13:21 bad-bounds"])]
#[case("{min: 1m, default: 1h, max: 7d}", "{least: 1m}", &["13:22 unknown-field"])]
fn one_secret_needs_its_own_parts(#[case] from: &str, #[case] to: &str, #[case] expected: &[&str]) {
    assert!(ROTATE.contains(from), "{from}");
    let spec = if from.is_empty() { ROTATE.to_owned() } else { ROTATE.replacen(from, to, 1) };
    assert_eq!(problems_of(&(head("Provider", "hooks") + &spec)), expected);
}

#[rstest]
#[case("lifecycle: pairs", "lifecycle: pairs\n  slots: 2", &["7:3 slots-uncounted"])]
#[case("  calls:\n", "  slots: 2\n  calls:\n    list: {method: GET, path: /keys, authentication: token, items: /a, keyId: /id}\n", &[])]
#[case("lifecycle: pairs", "lifecycle: pairs\n  slots: 1", &["7:10 bad-type"])]
#[case("    revoke:", "    disable: {method: POST, path: \"/keys/{key_id}/off\", authentication: token}\n    revoke:", &[])]
#[case("    revoke:", "    disable:", &["16:5 disable-alone"])]
#[case("  calls:\n", "  timing: {soak: 1h}\n  calls:\n", &[])]
fn slots_and_keys_that_are_disabled_first(#[case] from: &str, #[case] to: &str, #[case] expected: &[&str]) {
    assert!(WHOLE_PROVIDER.contains(from), "{from}");
    assert_eq!(problems_of(&(head("Provider", "acme") + &WHOLE_PROVIDER.replacen(from, to, 1))), expected);
}

#[test]
fn something_says_how_long_the_old_secret_lives_on() {
    let silent = ROTATE.replacen(", body: {json: {seconds: \"{overlap_seconds}\"}}", "", 1).replacen(", default: 1h", "", 1);
    assert_eq!(problems_of(&(head("Provider", "hooks") + &silent)), ["6:3 overlap-unknown"]);
}

fn joined(provider: &str, policy: &str) -> Vec<Problem> {
    let credential = "spec: {provider: hooks, environment: sandbox, rotation: p}\n";
    let text = [&head("Provider", "hooks"), provider, "---\n", &head("RotationPolicy", "p"), "spec: ", policy, "\n---\n"].concat()
        + &head("Credential", "c")
        + credential;
    match parse(&[source("t.yaml", &text)], now()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.as_slice().to_vec(),
    }
}

#[rstest]
#[case("rotate", "{maxAge: 90d, unconfirmed: revoke}", "")]
#[case("rotate", "{maxAge: 90d, confirmation: none}", "")]
#[case("rotate", "{maxAge: 90d}", "cannot-hold")]
#[case("rotate", "{maxAge: 90d, confirmation: observed}", "cannot-hold")]
#[case("rotate", "{maxAge: 90d, unconfirmed: revoke, overlap: 0s}", "overlap-missing")]
#[case("rotate", "{maxAge: 90d, unconfirmed: revoke, overlap: 8d}", "overlap-out-of-range")]
#[case("rotate", "{maxAge: 90d, unconfirmed: revoke, overlap: 30s}", "overlap-out-of-range")]
#[case("fixed", "{maxAge: 90d, unconfirmed: revoke, overlap: 1h}", "")]
#[case("fixed", "{maxAge: 90d, unconfirmed: revoke, overlap: 2h}", "overlap-out-of-range")]
#[case("replace", "{maxAge: 90d, overlap: 0s}", "")]
#[case("replace", "{maxAge: 90d, overlap: 1s}", "no-overlap-possible")]
#[case("replace", "{maxAge: 90d}", "no-overlap-possible")]
#[case("manual", "{maxAge: 90d, overlap: 0s}", "overlap-missing")]
fn a_policy_is_refused_where_its_provider_cant_keep_it(#[case] lifecycle: &str, #[case] policy: &str, #[case] code: &str) {
    let asks = ", body: {json: {seconds: \"{overlap_seconds}\"}}";
    let provider = match lifecycle {
        "rotate" => ROTATE.to_owned(),
        "fixed" => ROTATE.replacen(asks, "", 1),
        "replace" => {
            let plain = ROTATE.replacen(asks, "", 1).replacen(", previousExpiresAt: /end", "", 1);
            plain.replacen("  timing: {overlap: {min: 1m, default: 1h, max: 7d}}\n", "", 1).replacen("rotate\n", "replace\n", 1)
        }
        _ => ROTATE.split("  calls:").next().unwrap().replacen("rotate\n", "manual\n", 1),
    };
    let problems = joined(&provider, policy);
    let codes: Vec<&str> = problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, if code.is_empty() { vec![] } else { vec![code] }, "{problems:?}");
    if let Some(problem) = problems.first() {
        assert!(problem.message.contains("`p`") && problem.message.contains("`hooks`"), "it names both: {}", problem.message);
        assert!(problem.file == "t.yaml" && problem.line > 1 && problem.column == 57 && !problem.help.is_empty(), "{problem:?}");
    }
}

#[test]
fn a_webhook_secret_of_dinies_is_rotated_by_a_credential_of_the_account() {
    let policy = head("RotationPolicy", "p") + "spec: {maxAge: 90d, unconfirmed: revoke}\n---\n";
    let documents = policy
        + &head("Credential", "account")
        + "spec: {provider: dinie, environment: sandbox, rotation: p}\n---\n"
        + &head("Credential", "hook")
        + "spec: {provider: dinie-webhook, environment: sandbox, rotation: p, administeredBy: account, variables: {webhooks: hooks}}\n";
    let policies = parse(&[source("t.yaml", &documents)], now()).unwrap();
    let provider = &policies.providers[&"dinie-webhook".parse::<Name>().unwrap()];
    assert!(provider.can_mint() && provider.asks_for_overlap() && provider.serves_previous() && !provider.can_find_orphans());
}

const PROMOTE: &str = r#"spec:
  title: Two tokens
  lifecycle: promote
  environments: {sandbox: {base: "https://two.example"}}
  fields:
    id: {class: public}
    secret: {class: secret}
  calls:
    create: {method: POST, path: "/second", authentication: {bearer: secret}, fields: {secret: /secret}}
    promote: {method: POST, path: "/promote", authentication: {bearer: secret}}
    cancel: {method: DELETE, path: "/second", authentication: {bearer: secret}}
"#;

#[rstest]
#[case("", "", &[])]
#[case("    cancel: {method: DELETE, path: \"/second\", authentication: {bearer: secret}}\n", "", &["12:5 missing-field"])]
#[case("    promote: {method: POST, path: \"/promote\", authentication: {bearer: secret}}\n", "", &["12:5 missing-field"])]
#[case("fields: {secret: /secret}", "keyId: /id, fields: {secret: /secret}", &["12:79 unused-part"])]
#[case("    cancel:", "    revoke: {method: DELETE, path: /a, authentication: {bearer: secret}}\n    cancel:", &["14:5 unused-call"])]
#[case("/promote\", authentication: {bearer: secret}", "/promote\", authentication: administrator", &["13:63 bad-authentication"])]
#[case("DELETE, path: \"/second\", authentication: {bearer: secret}", "DELETE, path: \"/second\", authentication: open", &["14:63 bad-authentication"])]
#[case("lifecycle: promote", "lifecycle: rotate\n  timing: {overlap: {default: 1h}}", &["14:5 unused-call", "15:5 unused-call"])]
fn a_secondary_secret_needs_all_its_calls_and_no_other(#[case] from: &str, #[case] to: &str, #[case] expected: &[&str]) {
    assert!(PROMOTE.contains(from), "{from}");
    let spec = if from.is_empty() { PROMOTE.to_owned() } else { PROMOTE.replacen(from, to, 1) };
    assert_eq!(problems_of(&(head("Provider", "two") + &spec)), expected);
}

#[test]
fn without_calls_there_is_no_secondary_secret() {
    let spec = PROMOTE.split("  calls:").next().unwrap();
    assert_eq!(problems_of(&(head("Provider", "two") + spec)), ["5:3 missing-field"]);
}
