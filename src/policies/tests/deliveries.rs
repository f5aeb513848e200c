//! `delivery` of Application documents: every problem at its place, and what is taken.

use super::*;
use crate::domain::delivery::{FileDelivery, SignalName};

fn problems(delivery: &str) -> Vec<String> {
    let spec = format!("spec:\n  environment: sandbox\n  credentials: []\n  identity: {{unix: {{uid: 2}}}}\n  delivery: {delivery}\n");
    problems_of(&(head("Application", "a") + &spec))
}

#[rstest]
#[case("{}", &[])]
#[case("[]", &["8:13 bad-type"])]
#[case("{file: {directory: /run/a, mode: 0440, owner: 0, group: 4294967294, signal: {pidFile: /run/a.pid, name: HUP}}}", &[])]
#[case("{file: {directory: /run/a, mode: \"0600\"}}", &[])]
#[case("{file: {}}", &["8:20 missing-field"])]
#[case("{file: {directory: run/a}}", &["8:32 bad-folder"])]
#[case("{file: {directory: /run/../a}}", &["8:32 bad-folder"])]
#[case("{file: {directory: /run/./a}}", &["8:32 bad-folder"])]
#[case("{file: {directory: /run/a/}}", &["8:32 bad-folder"])]
#[case("{file: {directory: /}}", &["8:32 bad-folder"])]
#[case("{file: {directory: /a, mode: 0444}}", &["8:42 bad-mode"])]
#[case("{file: {directory: /a, mode: 400}}", &["8:42 bad-mode"])]
#[case("{file: {directory: /a, owner: root}}", &["8:43 bad-type"])]
#[case("{file: {directory: /a, group: 4294967295}}", &["8:43 bad-type"])]
#[case("{file: {directory: /a, signal: {pidFile: a.pid, name: KILL}}}", &["8:54 bad-folder", "8:67 bad-value"])]
#[case("{file: {directory: /a, signal: {}}}", &["8:44 missing-field", "8:44 missing-field"])]
#[case("{file: {directory: /a, mod: 0400}}", &["8:36 unknown-field"])]
#[case("{webhook: {url: \"https://a.example/hook\", secrets: [{file: /etc/one}, {file: /etc/two}]}}", &[])]
#[case("{webhook: {url: \"http://127.0.0.1:9/hook\", allowPrivate: true, secrets: [{file: /etc/one}]}}", &[])]
#[case("{webhook: {url: \"http://127.0.0.1:9/hook\", secrets: [{file: /etc/one}]}}", &["8:29 bad-url"])]
#[case("{webhook: {url: \"http://10.0.0.1/hook\", allowPrivate: true, secrets: [{file: /etc/one}]}}", &["8:29 bad-url"])]
#[case("{webhook: {url: \"https://u:p@a.example\", secrets: [{file: /etc/one}]}}", &["8:29 bad-url"])]
#[case("{webhook: {url: \"https://a.example/?token=x\", secrets: [{file: /etc/one}]}}", &["8:29 bad-url"])]
#[case("{webhook: {url: \"https://a.example\", secrets: []}}", &["8:61 bad-secrets"])]
#[case("{webhook: {url: \"https://a.example\", secrets: [{file: /1}, {file: /2}, {file: /3}]}}", &["8:61 bad-secrets"])]
#[case("{webhook: {url: \"https://a.example\", secrets: [{file: /1}, {file: /1}]}}", &["8:74 duplicate-entry"])]
#[case("{webhook: {url: \"https://a.example\", secrets: [whsec_c2VjcmV0]}}", &["8:62 bad-type"])]
#[case("{webhook: {url: \"https://a.example\", secrets: [{file: secret}]}}", &["8:69 bad-folder"])]
#[case("{webhook: {}}", &["8:23 missing-field", "8:23 missing-field"])]
#[case("{pigeon: {}}", &["8:14 unknown-field"])]
fn deliveries(#[case] delivery: &str, #[case] expected: &[&str]) {
    assert_eq!(problems(delivery), expected);
}

#[test]
fn two_applications_never_share_a_folder() {
    let app = |name: &str, uid: u32, folder: &str| {
        head("Application", name)
            + &format!(
                "spec: {{environment: sandbox, credentials: [], identity: {{unix: {{uid: {uid}}}}}, delivery: {{file: {{directory: {folder}}}}}}}\n---\n"
            )
    };
    for (first, second, clash) in
        [("/run/a", "/run/a", true), ("/run/a", "/run/a/b", true), ("/run/a/b", "/run/a", true), ("/run/a", "/run/ab", false)]
    {
        let found = problems_of(&(app("a", 2, first) + &app("b", 3, second)));
        let expected: &[&str] = if clash { &["9:109 duplicate-folder"] } else { &[] };
        assert_eq!(found, expected, "{first} {second}");
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let text = head("Application", "a")
        + "spec: {environment: sandbox, credentials: [], identity: {unix: {uid: 2}}, delivery: {file: {directory: /run/a, signal: {pidFile: /p, name: USR2}}, webhook: {url: \"https://a.example/h\", secrets: [{file: /s}]}}}\n";
    let policies = parse(&[base(), source("t.yaml", &text)], now()).unwrap();
    let delivery = &policies.applications[&"a".parse::<Name>().unwrap()].delivery;
    let file = delivery.file.as_ref().unwrap();
    assert_eq!((file.mode, file.owner, file.group), (FileDelivery::MODE_DEFAULT, None, None));
    assert_eq!(file.signal.as_ref().map(|signal| signal.name), Some(SignalName::Usr2));
    assert!(!delivery.webhook.as_ref().unwrap().allow_private);
    assert_eq!(delivery.ways().count(), 2);
}
