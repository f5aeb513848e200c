//! Descriptions of what a person does, and of fields that depend on others.

use rstest::rstest;

use super::*;

const BY_HAND: &str = r#"spec:
  title: Acme
  lifecycle: manual
  environments: {sandbox: {base: "https://acme.example/"}}
  fields:
    secret: {class: secret}
    hook: {class: secret, use: verify, is: secret}
  manual:
    create: ["Make one for {credential}."]
    remove: ["Remove {old_version}."]
"#;

#[rstest]
#[case("", "", &[])]
#[case("{credential}", "{credential} in {environment}, beside {old_version} of {old_issued_at}", &[])]
#[case("{credential}", "{who}", &["12:14 unknown-variable"])]
#[case("{credential}", "{field:secret}", &["12:14 field-in-address"])]
#[case("{credential}", "{credential", &["12:14 bad-template"])]
#[case("Make one for {credential}.", " ", &["12:14 bad-step"])]
#[case("{credential}", "a1b2c3d4e5f6a7b8c9d0", &["12:14 secret-in-step"])]
#[case("[\"Make one for {credential}.\"]", "make one", &["12:13 bad-type"])]
#[case("    remove: [\"Remove {old_version}.\"]\n", "    replaces: true\n", &[])]
#[case("    remove:", "    replaces: true\n    remove:", &["14:5 nothing-to-remove"])]
#[case("    remove:", "    ask: nobody\n    remove:", &["13:5 unknown-field"])]
#[case("lifecycle: manual", "lifecycle: pairs", &["11:3 not-manual"])]
#[case("is: secret", "is: other", &["10:44 undeclared-field"])]
#[case("is: secret", "is: hook", &["10:44 bad-link"])]
#[case("is: secret", "is: Hook", &["10:44 bad-name"])]
#[case("class: secret, use", "class: public, use", &["10:44 bad-link"])]
#[case("is: secret", "is: secret, patterns: {sandbox: \"^a$\"}", &["10:44 bad-link"])]
#[case("is: secret", "with: secret", &[])]
#[case("is: secret", "with: hook", &["10:46 bad-link"])]
fn by_hand(#[case] from: &str, #[case] to: &str, #[case] expected: &[&str]) {
    assert!(BY_HAND.contains(from), "{from}");
    let spec = if from.is_empty() { BY_HAND.to_owned() } else { BY_HAND.replacen(from, to, 1) };
    assert_eq!(problems_of(&(head("Provider", "acme") + &spec)), expected);
}

#[test]
fn a_linked_field_is_bound_by_the_one_that_it_comes_from() {
    let text = head("Provider", "acme") + BY_HAND;
    let policies = parse(&[source("t.yaml", &text)], now()).unwrap();
    let acme = &policies.providers[&"acme".parse().unwrap()];
    let hook = &acme.fields[&"hook".parse().unwrap()];
    assert!(hook.served && !hook.bound && acme.serves_previous());
    assert_eq!((acme.manual.create.len(), acme.manual.remove.len(), acme.manual.replaces), (1, 1, false));
    let secret: crate::domain::ids::FieldName = "secret".parse().unwrap();
    let mut material: crate::domain::material::Material =
        [(secret.clone(), crate::domain::material::Secret::from("a-value-of-acme".to_owned()))].into_iter().collect();
    acme.link(&mut material);
    assert!(material.get(&"hook".parse().unwrap()).unwrap().same_as(material.get(&secret).unwrap()));
}
