//! Alert rules, by promtool; and that what they and the dashboard ask for is what the daemon tells.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::typed::Groups;
use crate::{installed, rendered, repository, the};

fn groups() -> Groups {
    serde_json::from_value(the(&rendered("monitoring"), "PrometheusRule", "keywright")["spec"].clone()).unwrap()
}

/// The expressions of the dashboard's panels.
fn queries() -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("deploy/monitoring/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()).map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// Our metrics that stand in this expression.
pub(crate) fn metrics_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("keywright_")).map(str::to_owned).collect()
}

/// What alerts and dashboard ask for.
pub(crate) fn metrics_asked_for() -> BTreeSet<String> {
    let rules = groups().groups.into_iter().flat_map(|group| group.rules).map(|rule| rule.expr);
    rules.chain(queries()).flat_map(|expression| metrics_in(&expression)).collect()
}

fn promtool(arguments: &[&str], folder: &Path) -> (bool, String) {
    let program = installed("prometheus").join("usr/bin/promtool");
    let output = Command::new(program).args(arguments).current_dir(folder).output().expect("promtool starts");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}

/// The rules as Prometheus itself reads them, and their tests beside them.
fn put_rules(folder: &Path, rules: &str) {
    std::fs::write(folder.join("rules.json"), rules).unwrap();
    std::fs::copy(repository().join("deploy/monitoring/rules_test.yaml"), folder.join("rules_test.yaml")).unwrap();
}

#[test]
fn rules_pass_their_tests_by_promtool() {
    let folder = tempfile::tempdir().unwrap();
    let rules = serde_json::to_string(&groups()).unwrap();
    put_rules(folder.path(), &rules);
    let (sound, said) = promtool(&["check", "rules", "rules.json"], folder.path());
    assert!(sound, "{said}");
    let (sound, said) = promtool(&["test", "rules", "rules_test.yaml"], folder.path());
    assert!(sound, "{said}");
    // Each bound matters to some test.
    for (from, to) in [
        ("< 43200", "< 86400"),
        (
            "environment) (keywright_credential_deadline_seconds{job=\\\"keywright\\\"}) < 0",
            "environment) (keywright_credential_deadline_seconds{job=\\\"keywright\\\"}) < -7200",
        ),
        ("> 0.05", "> 0.15"),
        ("> 0.05", "> 0.01"),
        ("outcome=~\\\"3xx|5xx", "outcome=~\\\"3xx|4xx|5xx"),
        ("\\n  > 3\\n", "\\n  > 5\\n"),
        ("verdict=\\\"mismatch\\\"", "verdict=\\\"match\\\""),
        ("\"for\":\"1h\"", "\"for\":\"3h\""),
        ("current-refused|possible", "possible"),
        ("audit-trail-broken|audit-unavailable\\\"}) > 0", "audit-unavailable\\\"}) > 0"),
        ("== 1)", "== 2)"),
    ] {
        assert!(rules.contains(from), "{from}: {rules}");
        put_rules(folder.path(), &rules.replace(from, to));
        let (sound, _) = promtool(&["test", "rules", "rules_test.yaml"], folder.path());
        assert!(!sound, "nothing tests `{from}` against `{to}`");
    }
}

#[test]
fn every_alert_has_a_test_and_a_way_out() {
    let tests = std::fs::read_to_string(repository().join("deploy/monitoring/rules_test.yaml")).unwrap();
    let mut names = BTreeSet::new();
    for rule in groups().groups.into_iter().flat_map(|group| group.rules) {
        assert!(tests.contains(&format!("alertname: {}\n", rule.alert)), "{} isn't tested", rule.alert);
        assert!(["warning", "critical"].contains(&rule.labels.severity.as_str()), "{}", rule.alert);
        assert!(rule.annotations.action.ends_with('.') && !rule.annotations.summary.ends_with('.'), "{}", rule.alert);
        assert!(rule.expr.contains("job=\"keywright\""), "{}: only our own series", rule.alert);
        assert!(names.insert(rule.alert.clone()), "{} is there twice", rule.alert);
    }
    // What was asked for by name.
    for name in [
        "DeadlineNear",
        "Overdue",
        "Stuck",
        "EnvironmentMismatch",
        "OldVersionHeld",
        "AuditBroken",
        "ProviderErrors",
        "ProviderSlow",
        "DeliveryFailing",
        "WebhookGivenUp",
    ] {
        assert!(names.contains(&format!("Keywright{name}")), "{name} among {names:?}");
    }
}

#[test]
fn promtool_reads_every_query_of_the_dashboard() {
    let folder = tempfile::tempdir().unwrap();
    let rules: Vec<Value> =
        queries().iter().enumerate().map(|(n, query)| serde_json::json!({"record": format!("panel:{n}"), "expr": query})).collect();
    assert!(rules.len() > 15);
    let file = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(folder.path().join("dashboard.json"), file.to_string()).unwrap();
    let (sound, said) = promtool(&["check", "rules", "dashboard.json"], folder.path());
    assert!(sound, "{said}");
}

#[test]
fn the_monitor_finds_the_service_and_names_the_job_that_rules_go_by() {
    let (monitoring, installation) = (rendered("monitoring"), rendered("overlays/replicas"));
    let spec = &the(&monitoring, "ServiceMonitor", "keywright")["spec"];
    let service = the(&installation, "Service", "keywright");
    let wanted = spec["selector"]["matchLabels"].as_object().unwrap();
    assert!(wanted.iter().all(|(name, value)| service["metadata"]["labels"][name] == *value), "{wanted:?}");
    assert_eq!(spec["namespaceSelector"]["matchNames"][0], service["metadata"]["namespace"]);
    assert_eq!(service["metadata"]["labels"][spec["jobLabel"].as_str().unwrap()], "keywright", "the job of every series");
    assert_eq!(spec["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    let others = installation.iter().filter(|object| object["kind"] == "Service" && object["metadata"]["name"] != "keywright");
    for other in others {
        let fits = wanted.iter().all(|(name, value)| other["metadata"]["labels"][name] == *value);
        assert!(!fits, "each pod is scraped once, not by {} as well", other["metadata"]["name"]);
    }
}
