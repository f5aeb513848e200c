//! The decision pass over 100,000 credentials: what the engine does at every look. Aim: under 100 ms.

#![allow(clippy::panic, reason = "a measurement of nothing is no measurement")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use keywright::domain::credential::{Credential, Environment};
use keywright::domain::due::{Decision, decide};
use keywright::domain::ids::{InstallationId, OperationId, VersionId};
use keywright::domain::ledger::{Ledger, Origin, VersionFacts};
use keywright::domain::policy::{Confirmation, RotationPolicy, Terms, Unconfirmed};
use keywright::domain::provider::{Authentication, Body, Call, Calls, Create, Lifecycle, Limits, Method, Provider, Template, Timing};
use keywright::domain::rotation::{Facts, Moment};
use keywright::domain::span::Span;
use keywright::domain::windows::{Window, longest_wait};
use uuid::Uuid;

const CREDENTIALS: u32 = 100_000;
const DAY: u64 = 86_400;
const INSTALLATION: InstallationId = InstallationId(Uuid::from_u128(7));

fn start() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap_or_default()
}

fn after_days(days: u64) -> Timestamp {
    start().checked_add(Duration::from_secs(days * DAY)).unwrap_or_default()
}

fn provider() -> Provider {
    let call = Call {
        method: Method::Post,
        path: Template::literal("/keys"),
        url_field: None,
        query: Vec::new(),
        headers: Vec::new(),
        authentication: Authentication::Token,
        body: Body::None,
        rules: Vec::new(),
        access_token: None,
        proves_environment: false,
    };
    let create = Create {
        call,
        idempotency_headers: Vec::new(),
        key_id: "/id".to_owned(),
        fields: BTreeMap::new(),
        issued_at: None,
        expires_at: None,
    };
    Provider {
        name: name("acme"),
        title: "Acme".to_owned(),
        retired: false,
        environments: BTreeMap::new(),
        variables: BTreeMap::new(),
        fields: BTreeMap::new(),
        calls: Calls { create: Some(create), ..Calls::default() },
        signs: None,
        lifecycle: Lifecycle::Pairs,
        manual: Default::default(),
        timing: Timing { propagation: None, tokens_outlive: None, manual_lead: None },
        limits: Limits::default(),
        facts: Vec::new(),
    }
}

fn policy(windows: Vec<Window>) -> RotationPolicy {
    RotationPolicy {
        name: name("client-secret-90d"),
        max_age: Span::from_secs(90 * DAY),
        terms: Terms { overlap: Span::from_secs(DAY), confirmation: Confirmation::Required, unconfirmed: Unconfirmed::Hold },
        spread: Duration::from_secs(7 * DAY),
        window_wait: longest_wait(&windows, start(), Duration::from_secs(90 * DAY)),
        windows,
        verify_every: Span::from_secs(DAY),
    }
}

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is a name"))
}

/// One credential in its steady state, issued on some day of the last 90.
fn credential(number: u32) -> (Credential, Ledger) {
    let credential = Credential {
        name: name(&format!("credential-{number}")),
        provider: name("acme"),
        environment: Environment::Production,
        rotation: name("client-secret-90d"),
        path: format!("credential-{number}"),
        variables: BTreeMap::new(),
        account: name("acme"),
        administered_by: None,
        twin: None,
        accept_undetermined: None,
    };
    let operation = OperationId::new(INSTALLATION, &credential.name, 1, 1);
    let version: VersionId = operation.version(1);
    let facts = VersionFacts {
        operation,
        generation: 1,
        origin: Origin::Submitted,
        key_id: None,
        issued_at: after_days(u64::from(number % 75)),
        expires_at: None,
        fingerprints: Vec::new(),
        proof: None,
        copy_of: None,
        doomed: false,
        ended: None,
    };
    let versions = BTreeMap::from([(version.clone(), Box::new(facts))]);
    (credential, Ledger { generation: 1, current: Some(version), versions, ..Ledger::default() })
}

/// How many are due, so that nothing is optimised away.
fn pass(fleet: &[(Credential, Ledger)], policy: &RotationPolicy, provider: &Provider, now: Timestamp) -> usize {
    let now = Moment { wall: now, running: Duration::ZERO, trusted: true };
    let facts = |(credential, ledger)| Facts {
        now,
        term: 1,
        credential,
        policy,
        provider,
        ledger,
        blockers: &[],
        create_unsent: false,
        seen: None,
        installation: INSTALLATION,
        requested: false,
        all_paused: false,
    };
    fleet.iter().filter(|(credential, ledger)| matches!(decide(&facts((credential, ledger))), Decision::Due { .. })).count()
}

fn decisions(criterion: &mut Criterion) {
    let fleet: Vec<_> = (0..CREDENTIALS).map(credential).collect();
    let provider = provider();
    let window = Window::new("0 9 * * Mon-Thu", "America/Sao_Paulo", Span::from_secs(8 * 3_600), start());
    let windows: Vec<Window> = window.into_iter().collect();
    let mut group = criterion.benchmark_group("decide 100,000 credentials");
    group.sample_size(20);
    // An ordinary day: a few in a hundred have come to their time, or wait for a window.
    // After 30 days of downtime: a third is due together, and within a closed window waits together.
    for (day, days) in [("ordinary day", 80), ("after a month away", 106)] {
        for (kind, windows) in [("always open", Vec::new()), ("windows", windows.clone())] {
            let policy = policy(windows);
            group.bench_function(format!("{day}, {kind}"), |bencher| {
                bencher.iter(|| black_box(pass(&fleet, &policy, &provider, after_days(days))));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
