//! What is measured, for Prometheus. Names of credentials stand in it only where the caller asks for them (on the socket).
//!
//! Labels are constants of the code, or names from the policies: never what a provider or an application sent.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PREFIX: &str = "keywright";

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;

/// What one credential looks like at a scrape. Absent numbers make no line.
#[derive(Debug, Clone, PartialEq)]
pub struct CredentialSample {
    pub name: String,
    pub provider: String,
    /// `sandbox` or `production`.
    pub environment: &'static str,
    /// Of the current version.
    pub age: Option<Duration>,
    /// Seconds until the deadline; negative past it.
    pub until_deadline_seconds: Option<f64>,
    /// `match`, `mismatch` or `undetermined`.
    pub verdict: Option<&'static str>,
    /// Instances that hold the previous version.
    pub holders: u64,
    /// Those of them who hold it although the overlap is over.
    pub holders_after_overlap: u64,
    /// What a person is asked for, how urgent that is, and the seconds that are left.
    pub request: Option<(&'static str, &'static str, f64)>,
    /// The store isn't as the journal says.
    pub store_changed: bool,
    /// While one is under way.
    pub rollout_step: Option<u64>,
}

/// The counters and histograms of the process. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    rotations: Family<Labels, Counter>,
    steps: Family<Labels, Histogram, fn() -> Histogram>,
    requests: Family<Labels, Counter>,
    answers: Family<Labels, Histogram, fn() -> Histogram>,
    remaining: Gauges,
    breakers: Gauges,
    store_breaker: Gauge<f64, AtomicU64>,
    store_stale: Gauge<f64, AtomicU64>,
    /// A line only where there are several replicas.
    leader: Gauges,
    pushes: Histogram,
    deliveries: Family<Labels, Counter>,
    failing: Gauges,
    dead_letters: Gauges,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            rotations: Family::default(),
            steps: Family::new_with_constructor(step_histogram),
            requests: Family::default(),
            answers: Family::new_with_constructor(answer_histogram),
            remaining: Gauges::default(),
            breakers: Gauges::default(),
            store_breaker: Gauge::default(),
            store_stale: Gauge::default(),
            leader: Gauges::default(),
            // 1 ms to about 16 s.
            pushes: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            deliveries: Family::default(),
            failing: Gauges::default(),
            dead_letters: Gauges::default(),
        }
    }
}

/// 5 ms to about 80 s: most steps wait for a provider.
fn step_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 15))
}

/// Three seconds, beyond which an answer counts as slow, is one of the bounds; ten are the longest that a call may take.
fn answer_histogram() -> Histogram {
    Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0])
}

impl Metrics {
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// A rotation ended: `revoked` or `abandoned`.
    pub fn rotation_ended(&self, outcome: &'static str) {
        self.rotations.get_or_create(&vec![("outcome", outcome.to_owned())]).inc();
    }

    pub fn step_took(&self, step: &'static str, time: Duration) {
        self.steps.get_or_create(&vec![("step", step.to_owned())]).observe(time.as_secs_f64());
    }

    /// So many calls to a provider have ended since the start; `provider` is its name in the policies. A smaller number than told
    /// before changes nothing: a counter only grows.
    pub fn provider_answered(&self, provider: &str, environment: &'static str, outcome: &'static str, total: u64) {
        let labels = vec![("provider", provider.to_owned()), ("environment", environment.to_owned()), ("outcome", outcome.to_owned())];
        let counter = self.requests.get_or_create_owned(&labels);
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// A provider's answer came, after this time.
    pub fn provider_took(&self, provider: &str, environment: &'static str, time: Duration) {
        let labels = vec![("provider", provider.to_owned()), ("environment", environment.to_owned())];
        self.answers.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// What the provider says is left of its quota.
    pub fn rate_limit_remaining(&self, provider: &str, environment: &'static str, remaining: u64) {
        let labels = vec![("provider", provider.to_owned()), ("environment", environment.to_owned())];
        self.remaining.get_or_create(&labels).set(as_number(remaining));
    }

    /// Whether calls are kept from a provider because they failed again and again.
    pub fn breaker(&self, provider: &str, environment: &'static str, is_open: bool) {
        let labels = vec![("provider", provider.to_owned()), ("environment", environment.to_owned())];
        self.breakers.get_or_create(&labels).set(f64::from(u8::from(is_open)));
    }

    /// Whether the store is left alone but for a call now and then, and how long ago it last answered, while that is so.
    pub fn store(&self, is_away: bool, stale_for: Duration) {
        self.store_breaker.set(f64::from(u8::from(is_away)));
        self.store_stale.set(stale_for.as_secs_f64());
    }

    /// Whether this one of several replicas leads.
    pub fn leads(&self, leads: bool) {
        self.leader.get_or_create(&Vec::new()).set(f64::from(u8::from(leads)));
    }

    /// From promotion until an instance that holds an older version was first given the new one.
    pub fn pushed(&self, latency: Duration) {
        self.pushes.observe(latency.as_secs_f64());
    }

    /// A try of a way of delivery beside the stream ended: `delivered`, `failed` or `given-up`. What was there already isn't counted.
    pub fn delivery_ended(&self, way: &'static str, outcome: &'static str) {
        self.deliveries.get_or_create(&vec![("way", way.to_owned()), ("outcome", outcome.to_owned())]).inc();
    }

    /// How many applications' last try failed or was given up, and how many messages were given up and not made good.
    pub fn delivery_standing(&self, way: &'static str, failing: usize, dead_letters: usize) {
        let labels = vec![("way", way.to_owned())];
        self.failing.get_or_create(&labels).set(as_number(u64::try_from(failing).unwrap_or(u64::MAX)));
        self.dead_letters.get_or_create(&labels).set(as_number(u64::try_from(dead_letters).unwrap_or(u64::MAX)));
    }

    /// All metrics as text; `problems` are how often each code stands in `status`.
    ///
    /// With names there is a line per credential; without, credentials of one provider and environment are one
    /// line: the greatest age, the nearest deadline, the sum of holders, the number with each verdict.
    ///
    /// # Errors
    /// None that a `String` makes; the library's signature has one.
    pub fn encode(
        &self,
        credentials: &[CredentialSample],
        problems: &BTreeMap<String, u64>,
        with_names: bool,
    ) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix(PREFIX);
        Scrape::new(credentials, problems, with_names).register(&mut registry);
        self.register(&mut registry);
        let mut text = String::new();
        encode_registry(&mut text, &registry)?;
        encode_eof(&mut text)?;
        Ok(text)
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("rotations", "Rotations that ended, by outcome", self.rotations.clone());
        registry.register("rotation_step_seconds", "How long the steps of rotations took", self.steps.clone());
        registry.register("provider_requests", "Calls to providers, by outcome", self.requests.clone());
        registry.register(
            "provider_request_seconds",
            "From sending a request to a provider to the end of its answer, where one came",
            self.answers.clone(),
        );
        registry.register("provider_rate_limit_remaining", "What providers say is left of their quota", self.remaining.clone());
        registry.register(
            "provider_breaker_open",
            "1 while a provider is left alone because it failed again and again",
            self.breakers.clone(),
        );
        registry.register("store_breaker_open", "1 while the store doesn't answer", self.store_breaker.clone());
        registry.register("store_stale_seconds", "Since the store last answered, while it doesn't", self.store_stale.clone());
        registry.register("leader", "1 at the replica that leads, 0 at the others; none where there is one process", self.leader.clone());
        registry.register(
            "push_latency_seconds",
            "From promotion until an instance with an older version is given the new one",
            self.pushes.clone(),
        );
        registry.register("deliveries", "Tries of deliveries beside the stream, by way and outcome", self.deliveries.clone());
        registry.register("delivery_failing", "Applications whose last delivery by this way failed or was given up", self.failing.clone());
        registry.register("delivery_dead_letters", "Messages that were given up and not made good since", self.dead_letters.clone());
    }
}

/// The gauges of one scrape: they say what is, so nothing of them is kept.
#[derive(Default)]
struct Scrape {
    age: Gauges,
    deadline: Gauges,
    proof: Gauges,
    holders: Gauges,
    late_holders: Gauges,
    problems: Gauges,
    requests: Gauges,
    request_seconds: Gauges,
    changed: Gauges,
    rollout: Gauges,
}

impl Scrape {
    fn new(credentials: &[CredentialSample], problems: &BTreeMap<String, u64>, with_names: bool) -> Scrape {
        let mut groups: BTreeMap<Labels, Group> = BTreeMap::new();
        for sample in credentials {
            let mut labels = vec![("provider", sample.provider.clone()), ("environment", sample.environment.to_owned())];
            if with_names {
                labels.insert(0, ("credential", sample.name.clone()));
            }
            groups.entry(labels).or_default().add(sample);
        }
        let scrape = Scrape::default();
        for (labels, group) in groups {
            scrape.fill(labels, group);
        }
        for (code, count) in problems {
            scrape.problems.get_or_create(&vec![("code", code.clone())]).set(as_number(*count));
        }
        scrape
    }

    fn fill(&self, labels: Labels, group: Group) {
        if let Some(age) = group.age {
            self.age.get_or_create(&labels).set(age);
        }
        if let Some(deadline) = group.deadline {
            self.deadline.get_or_create(&labels).set(deadline);
        }
        self.holders.get_or_create(&labels).set(as_number(group.holders));
        self.late_holders.get_or_create(&labels).set(as_number(group.late_holders));
        if group.changed > 0 {
            self.changed.get_or_create(&labels).set(as_number(group.changed));
        }
        for ((asks, urgency), (count, left)) in group.requests {
            let of_person = [("asks", asks.to_owned()), ("urgency", urgency.to_owned())];
            let labels: Labels = labels.iter().cloned().chain(of_person).collect();
            self.requests.get_or_create(&labels).set(as_number(count));
            self.request_seconds.get_or_create(&labels).set(left);
        }
        if let Some(step) = group.rollout {
            self.rollout.get_or_create(&labels).set(as_number(step));
        }
        for (verdict, count) in group.verdicts {
            let labels = labels.iter().cloned().chain([("verdict", verdict.to_owned())]).collect();
            self.proof.get_or_create(&labels).set(as_number(count));
        }
    }

    fn register(self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, metric: Gauges| registry.register(name, help, metric);
        add("credential_age_seconds", "Age of the current version", self.age);
        add("credential_deadline_seconds", "Seconds until the current version's deadline, negative past it", self.deadline);
        add("environment_proof", "Credentials by the verdict about their environment", self.proof);
        add("manual_requests", "What persons are asked for, by urgency", self.requests);
        add("manual_request_seconds", "Seconds until a person is to have done what is asked, negative past it", self.request_seconds);
        add("store_changed", "Credentials whose store was changed by somebody else", self.changed);
        add("holders_of_previous_version", "Instances that hold a previous version", self.holders);
        add("holders_after_overlap", "Instances that hold a previous version although the overlap is over", self.late_holders);
        add("problems", "Problems in `status`, by code", self.problems);
        add("rollout_step", "The step of a rollout that is under way", self.rollout);
    }
}

#[derive(Debug, Default)]
struct Group {
    age: Option<f64>,
    deadline: Option<f64>,
    holders: u64,
    late_holders: u64,
    rollout: Option<u64>,
    verdicts: BTreeMap<&'static str, u64>,
    /// How many, and the least time that is left.
    requests: BTreeMap<(&'static str, &'static str), (u64, f64)>,
    changed: u64,
}

impl Group {
    fn add(&mut self, sample: &CredentialSample) {
        let age = sample.age.map(|age| age.as_secs_f64());
        self.age = [self.age, age].into_iter().flatten().reduce(f64::max);
        self.deadline = [self.deadline, sample.until_deadline_seconds].into_iter().flatten().reduce(f64::min);
        self.holders = self.holders.saturating_add(sample.holders);
        self.late_holders = self.late_holders.saturating_add(sample.holders_after_overlap);
        self.changed += u64::from(sample.store_changed);
        if let Some((asks, urgency, left)) = sample.request {
            let (count, least) = self.requests.entry((asks, urgency)).or_insert((0, left));
            *count += 1;
            *least = least.min(left);
        }
        self.rollout = self.rollout.max(sample.rollout_step);
        if let Some(verdict) = sample.verdict {
            *self.verdicts.entry(verdict).or_default() += 1;
        }
    }
}

/// Exact up to 2^53, which no count here comes near.
fn as_number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems() -> BTreeMap<String, u64> {
        BTreeMap::from([("overdue".to_owned(), 2)])
    }

    fn sample(name: &str, environment: &'static str, age: u64, deadline: f64) -> CredentialSample {
        CredentialSample {
            name: name.into(),
            provider: "dinie".into(),
            environment,
            age: Some(Duration::from_secs(age)),
            until_deadline_seconds: Some(deadline),
            verdict: Some("match"),
            holders: 2,
            holders_after_overlap: 1,
            request: Some(("new-key", "soon", deadline)),
            store_changed: true,
            rollout_step: Some(1),
        }
    }

    #[test]
    fn every_family_of_the_contract_is_there() {
        let metrics = Metrics::new();
        metrics.rotation_ended("proved");
        metrics.step_took("promote", Duration::from_millis(7));
        metrics.provider_answered("dinie", "sandbox", "2xx", 1);
        metrics.provider_took("dinie", "sandbox", Duration::from_millis(2_500));
        metrics.breaker("dinie", "sandbox", true);
        metrics.store(true, Duration::from_secs(7));
        metrics.rate_limit_remaining("dinie", "sandbox", 41);
        metrics.clone().pushed(Duration::from_millis(3));
        metrics.delivery_ended("webhook", "failed");
        metrics.delivery_standing("webhook", 2, 3);
        let text = metrics.encode(&[sample("dinie-a", "sandbox", 10, 5.0)], &problems(), true).unwrap();
        for line in [
            "keywright_credential_age_seconds{credential=\"dinie-a\",provider=\"dinie\",environment=\"sandbox\"} 10.0",
            "keywright_credential_deadline_seconds{credential=\"dinie-a\",provider=\"dinie\",environment=\"sandbox\"} 5.0",
            "keywright_environment_proof{credential=\"dinie-a\",provider=\"dinie\",environment=\"sandbox\",verdict=\"match\"} 1.0",
            "keywright_holders_of_previous_version{credential=\"dinie-a\",provider=\"dinie\",environment=\"sandbox\"} 2.0",
            "keywright_holders_after_overlap{credential=\"dinie-a\",provider=\"dinie\",environment=\"sandbox\"} 1.0",
            "keywright_problems{code=\"overdue\"} 2.0",
            "keywright_provider_request_seconds_bucket{le=\"2.0\",provider=\"dinie\",environment=\"sandbox\"} 0",
            "keywright_provider_request_seconds_bucket{le=\"3.0\",provider=\"dinie\",environment=\"sandbox\"} 1",
            "keywright_manual_requests{credential=\"dinie-a\",provider=\"dinie\",environment=\"sandbox\",asks=\"new-key\",urgency=\"soon\"} 1.0",
            "keywright_manual_request_seconds{credential=\"dinie-a\",provider=\"dinie\",environment=\"sandbox\",asks=\"new-key\",urgency=\"soon\"} 5.0",
            "keywright_store_changed{credential=\"dinie-a\",provider=\"dinie\",environment=\"sandbox\"} 1.0",
            "keywright_rollout_step{credential=\"dinie-a\",provider=\"dinie\",environment=\"sandbox\"} 1.0",
            "keywright_rotations_total{outcome=\"proved\"} 1",
            "keywright_rotation_step_seconds_count{step=\"promote\"} 1",
            "keywright_provider_requests_total{provider=\"dinie\",environment=\"sandbox\",outcome=\"2xx\"} 1",
            "keywright_provider_breaker_open{provider=\"dinie\",environment=\"sandbox\"} 1.0",
            "keywright_provider_rate_limit_remaining{provider=\"dinie\",environment=\"sandbox\"} 41.0",
            "keywright_store_breaker_open 1.0",
            "keywright_store_stale_seconds 7.0",
            "keywright_push_latency_seconds_count 1",
            "keywright_deliveries_total{way=\"webhook\",outcome=\"failed\"} 1",
            "keywright_delivery_failing{way=\"webhook\"} 2.0",
            "keywright_delivery_dead_letters{way=\"webhook\"} 3.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn without_names_credentials_are_added_up() {
        let mut late = sample("dinie-c", "production", 90, -3.5);
        late.verdict = Some("undetermined");
        let samples = [sample("dinie-a", "production", 10, 5.0), sample("dinie-b", "sandbox", 20, 7.0), late];
        let text = Metrics::new().encode(&samples, &problems(), false).unwrap();
        assert!(!text.contains("dinie-") && !text.contains("credential=\""), "{text}");
        for line in [
            "keywright_credential_age_seconds{provider=\"dinie\",environment=\"production\"} 90.0",
            "keywright_credential_deadline_seconds{provider=\"dinie\",environment=\"production\"} -3.5",
            "keywright_environment_proof{provider=\"dinie\",environment=\"production\",verdict=\"undetermined\"} 1.0",
            "keywright_holders_of_previous_version{provider=\"dinie\",environment=\"production\"} 4.0",
            "keywright_manual_requests{provider=\"dinie\",environment=\"production\",asks=\"new-key\",urgency=\"soon\"} 2.0",
            "keywright_manual_request_seconds{provider=\"dinie\",environment=\"production\",asks=\"new-key\",urgency=\"soon\"} -3.5",
            "keywright_store_changed{provider=\"dinie\",environment=\"production\"} 2.0",
            "keywright_holders_of_previous_version{provider=\"dinie\",environment=\"sandbox\"} 2.0",
            "keywright_holders_after_overlap{provider=\"dinie\",environment=\"production\"} 2.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_is_not_known_makes_no_line() {
        let mut missing = sample("dinie-a", "sandbox", 0, 0.0);
        (missing.age, missing.until_deadline_seconds, missing.verdict) = (None, None, None);
        let text = Metrics::new().encode(&[missing], &BTreeMap::new(), true).unwrap();
        assert!(!text.contains("age_seconds{") && !text.contains("deadline_seconds{") && !text.contains("proof{"), "{text}");
    }
}
