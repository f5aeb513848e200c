//! What is measured, as a scraper reads it, of a daemon that has rotated; and what is told of a provider that fails.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::app::Mode;
use crate::support::dinie::faults::Fault;
use crate::support::eventually;
use crate::support::exposition::{Family, parse};
use crate::support::wire::Target;
use crate::world::{PRODUCTION, Plan, SANDBOX, World};

async fn scraped(target: &Target) -> BTreeMap<String, Family> {
    let answer = target.get("/metrics", &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    parse(std::str::from_utf8(&answer.body).expect("UTF-8"))
}

const GAUGES: [&str; 7] = [
    "credential_age_seconds",
    "credential_deadline_seconds",
    "environment_proof",
    "holders_of_previous_version",
    "holders_after_overlap",
    "provider_rate_limit_remaining",
    "provider_breaker_open",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_scraper_reads_all_of_a_daemon_that_has_rotated() {
    let mut world = World::start(Plan::quick()).await;
    world.production_app("pod-a", Mode::Confirms);
    world.production_app("pod-b", Mode::Confirms);
    world.sandbox_app("pod-a", Mode::Polls);
    world.wait_for_revocations(1, Duration::from_secs(60)).await;
    let local = scraped(&world.daemon.site.socket()).await;
    let open = scraped(&world.daemon.site.tcp()).await;

    for families in [&local, &open] {
        let family = |name: &str| families.get(&format!("keywright_{name}")).unwrap_or_else(|| panic!("{name} is missing: {families:#?}"));
        assert!(families.keys().all(|name| name.starts_with("keywright_")));
        GAUGES.iter().for_each(|name| assert_eq!(family(name).kind, "gauge", "{name}"));
        ["rotations", "provider_requests"].iter().for_each(|name| assert_eq!(family(name).kind, "counter", "{name}"));
        ["rotation_step_seconds", "push_latency_seconds", "provider_request_seconds"]
            .iter()
            .for_each(|name| assert_eq!(family(name).kind, "histogram", "{name}"));
        for environment in ["sandbox", "production"] {
            let labels = [("provider", "dinie"), ("environment", environment)];
            let gauge = |name: &str| family(name).value("", &labels).unwrap_or_else(|| panic!("{name} of {environment}"));
            // Seconds, not milliseconds: the policy lets no key live for 15 of them.
            assert!((0.0..15.0).contains(&gauge("credential_age_seconds")), "{environment}");
            assert!((-1.0..15.0).contains(&gauge("credential_deadline_seconds")), "{environment}");
            assert!((0.0..=2.0).contains(&gauge("holders_of_previous_version")), "{environment}");
            assert_eq!(gauge("provider_rate_limit_remaining"), 900.0, "as the provider's headers say");
            assert_eq!(gauge("provider_breaker_open"), 0.0);
            let proved = [("provider", "dinie"), ("environment", environment), ("verdict", "match")];
            assert_eq!(family("environment_proof").value("", &proved), Some(1.0));
            let answered = [("provider", "dinie"), ("environment", environment), ("outcome", "2xx")];
            let timed = family("provider_request_seconds").value("_count", &labels);
            assert!(timed.is_some_and(|count| count > 10.0), "{environment}: {timed:?}");
            assert!(family("provider_requests").value("_total", &answered).is_some_and(|count| count > 10.0), "{environment}");
        }
        assert!(family("rotations").value("_total", &[("outcome", "revoked")]).is_some_and(|count| count >= 2.0));
        let create = [("step", "create")];
        let steps = family("rotation_step_seconds");
        assert!(steps.value("_count", &create).is_some_and(|count| count >= 2.0));
        assert!(steps.value("_sum", &create).is_some_and(|sum| (0.000_1..10.0).contains(&sum)), "{steps:?}");
        pushes_are_measured_from_the_promotion(family("push_latency_seconds"), &world);
    }
    names_stand_on_the_socket_only(&local, &open);
}

/// Two instances stream and one asks twice a second: each new version comes to each of them once, and within that.
fn pushes_are_measured_from_the_promotion(pushes: &Family, world: &World) {
    let count = pushes.value("_count", &[]).expect("pushes are counted");
    let handed: usize = world.apps.iter().map(|app| app.versions()).sum();
    let first_ones = world.apps.len();
    assert!(count >= 3.0 && count <= (handed - first_ones + 3) as f64, "{count} pushes of {handed} versions: a repeated read is none");
    let sum = pushes.value("_sum", &[]).expect("and added up");
    assert!(sum > 0.0 && sum / count < 0.8, "{sum} s for {count} pushes");
}

fn names_stand_on_the_socket_only(local: &BTreeMap<String, Family>, open: &BTreeMap<String, Family>) {
    let named = |families: &BTreeMap<String, Family>, credential: &str| {
        let samples = families.values().flat_map(|family| &family.samples);
        samples.filter(|(_, labels, _)| labels.values().any(|value| value == credential)).count()
    };
    for credential in [SANDBOX, PRODUCTION] {
        assert_eq!(named(local, credential), 5, "age, deadline, proof, holders, and those of them after the overlap");
        assert_eq!(named(open, credential), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_provider_is_left_alone_and_everybody_is_told() {
    let world = World::start(Plan::quick()).await;
    {
        let mut state = world.sandbox.lock();
        state.faults.at_random(100, &[Fault::EchoError]);
        state.faults.at_most_in_a_row(u32::MAX);
    }
    let status = || async { world.daemon.cli(&["status", "--json"]).await.json() };
    let row = |document: &serde_json::Value, environment: &str| {
        let rows = document["providers"].as_array().expect("providers");
        let found: Vec<_> = rows.iter().filter(|row| row["environment"] == environment && row["name"] == "dinie").collect();
        assert_eq!(found.len(), 1, "{document}");
        found[0].clone()
    };
    let mut open = serde_json::Value::Null;
    for _ in 0..100 {
        let document = status().await;
        assert_eq!(row(&document, "production")["breaker"], "closed");
        if row(&document, "sandbox")["breaker"] == "open" {
            open = document;
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let sandbox = row(&open, "sandbox");
    assert_eq!(sandbox["endpoint"], world.sandbox.base_url(), "{open}");
    assert!(sandbox["retry_at"].is_string() && row(&open, "production")["retry_at"].is_null(), "{open}");
    let problems = open["problems"].as_array().expect("problems");
    assert!(problems.iter().any(|problem| problem["code"] == "provider-breaker-open"), "{open}");
    let labels = [("provider", "dinie"), ("environment", "sandbox")];
    let gauge = scraped(&world.daemon.site.tcp()).await["keywright_provider_breaker_open"].value("", &labels);
    assert_eq!(gauge, Some(1.0));
    let problems = scraped(&world.daemon.site.tcp()).await["keywright_problems"].value("", &[("code", "provider-breaker-open")]);
    assert_eq!(problems, Some(1.0));

    let calls = || world.sandbox.lock().truth.calls.values().sum::<u32>();
    let before = calls();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let tried = calls() - before;
    assert!((1..=4).contains(&tried), "one call each two seconds, not {tried} in six");
    world.sandbox.lock().faults.clear();
    assert!(eventually(Duration::from_secs(10), || calls() > before + tried + 3).await, "{}", world.daemon.log_tail());
    assert_eq!(row(&status().await, "sandbox")["breaker"], "closed");
    let log: String = world.daemon.logs().iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect();
    let told = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!((told("it is left alone for a while"), told("answers again")), (1, 1), "once per change: {}", world.daemon.log_tail());
}

#[test]
fn the_reader_of_metrics_refuses_what_is_out_of_place() {
    let whole = "# HELP k_a A.\n# TYPE k_a counter\nk_a_total{x=\"1\"} 1\nk_a_total{x=\"2\"} 1\n# EOF\n";
    assert_eq!(parse(whole)["k_a"].value("_total", &[("x", "2")]), Some(1.0));
    for (from, to) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\nk_a_total 1\n"),
        ("x=\"2\"", "x=\"1\""),
        ("k_a_total{x=\"2\"}", "k_a{x=\"2\"}"),
        ("# TYPE k_a counter\n", ""),
        ("# HELP k_a A.\n", ""),
        ("x=\"2\"} 1", "x=\"2\"} one"),
        ("x=\"2\"} 1", "x=\"2\",x=\"3\"} 1"),
        ("x=\"2\"}", "x=\"2}"),
        ("k_a_total{x=\"2\"} 1\n", "# HELP k_a Again.\n"),
    ] {
        let bad = whole.replacen(from, to, 1);
        assert!(std::panic::catch_unwind(|| parse(&bad)).is_err(), "{bad}");
    }
    let buckets = |first: u32| {
        format!(
            "# HELP k_h H.\n# TYPE k_h histogram\nk_h_sum 1\nk_h_count 2\nk_h_bucket{{le=\"1.0\"}} {first}\nk_h_bucket{{le=\"+Inf\"}} 2\n# EOF\n"
        )
    };
    parse(&buckets(2));
    assert!(std::panic::catch_unwind(|| parse(&buckets(3))).is_err(), "buckets are cumulative");
}
