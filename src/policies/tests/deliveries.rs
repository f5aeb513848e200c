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
#[case("{kubernetes: {secret: app.keys, namespace: shop, restart: [{deployment: api}, {statefulSet: db}, {daemonSet: agent}], windows: [{cron: \"0 9 * * *\", timezone: UTC, open: 8h}], batch: 2, perHour: 12}}", &[])]
#[case("{kubernetes: {secret: keys, namespace: shop}}", &[])]
#[case("{kubernetes: {secret: keys}}", &["8:26 missing-namespace"])]
#[case("{kubernetes: {namespace: shop}}", &["8:26 missing-field"])]
#[case("{kubernetes: {secret: a..b, namespace: a.b}}", &["8:35 bad-name", "8:52 bad-name"])]
#[case("{kubernetes: {secret: ../etc, namespace: shop}}", &["8:35 bad-name"])]
#[case("{kubernetes: {secret: a123456789b123456789c123456789d123456789e123456789f123, namespace: shop}}", &[])]
#[case("{kubernetes: {secret: a123456789b123456789c123456789d123456789e123456789f1234, namespace: shop}}", &["8:35 bad-name"])]
#[case("{kubernetes: {secret: a, namespace: b, restart: []}}", &["8:61 bad-restart"])]
#[case("{kubernetes: {secret: a, namespace: b, restart: [{}]}}", &["8:62 bad-restart"])]
#[case("{kubernetes: {secret: a, namespace: b, restart: [{deployment: a, daemonSet: a}]}}", &["8:62 bad-restart"])]
#[case("{kubernetes: {secret: a, namespace: b, restart: [{cronJob: a}]}}", &["8:62 bad-restart", "8:63 unknown-field"])]
#[case("{kubernetes: {secret: a, namespace: b, restart: [{deployment: A}, {deployment: a/b}]}}", &["8:75 bad-name", "8:92 bad-name"])]
#[case("{kubernetes: {secret: a, namespace: b, restart: [{deployment: a}, {deployment: a}]}}", &["8:79 duplicate-entry"])]
#[case("{kubernetes: {secret: a, namespace: b, restart: [{deployment: a}], batch: 0, perHour: 361}}", &["8:87 bad-type", "8:99 bad-type"])]
#[case("{kubernetes: {secret: a, namespace: b, restart: [{deployment: a}], windows: [{}]}}", &["8:90 missing-field", "8:90 missing-field", "8:90 missing-field"])]
#[case("{kubernetes: {secret: a, namespace: b, perHour: 3}}", &["8:52 nothing-to-restart"])]
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
fn two_applications_never_share_a_secret() {
    let app = |name: &str, uid: u32, to: &str| {
        head("Application", name)
            + &format!(
                "spec: {{environment: sandbox, credentials: [], identity: {{unix: {{uid: {uid}}}}}, delivery: {{kubernetes: {to}}}}}\n---\n"
            )
    };
    let one = "{secret: keys, namespace: shop}";
    assert_eq!(problems_of(&(app("a", 2, one) + &app("b", 3, one))), ["9:98 duplicate-secret"]);
    assert_eq!(problems_of(&(app("a", 2, one) + &app("b", 3, "{secret: keys, namespace: other}"))), Vec::<String>::new());
}

#[test]
fn a_secret_restarts_nothing_unless_asked_and_then_slowly() {
    let read = |more: &str| {
        let text = head("Application", "a")
            + &format!(
                "spec: {{environment: sandbox, credentials: [], identity: {{unix: {{uid: 2}}}}, delivery: {{kubernetes: {{secret: keys, namespace: shop{more}}}}}}}\n"
            );
        let policies = parse(&[base(), source("t.yaml", &text)], now()).unwrap();
        policies.applications[&"a".parse::<Name>().unwrap()].delivery.kubernetes.clone().unwrap().restarts
    };
    assert_eq!(read(""), None);
    let restarts = read(", restart: [{deployment: api}]").unwrap();
    assert_eq!((restarts.batch, restarts.per_hour, restarts.windows.len()), (1, 6, 0));
    assert_eq!(restarts.workloads[0].to_string(), "deployment/api");
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
