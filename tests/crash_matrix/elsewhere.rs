//! The matrix with the values at AWS: each call that writes there is a point like each append to the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keywright::faults::Faults;
use keywright::stores::aws::{AwsSettings, AwsStore};
use rstest::rstest;

use super::aws::{Moto, sdk};
use super::life::Scenario;
use super::proxy::{Fate, Proxy};
use super::world::Backend;

/// The calls that change something; the SDK names them in a header.
const WRITES: [&str; 6] = ["CreateSecret", "PutSecretValue", "UpdateSecretVersionStage", "TagResource", "DeleteSecret", "RestoreSecret"];

/// What becomes of a call: a dead process makes none, and what fails takes the connection with it.
fn fate(faults: &Faults, name: &str) -> Fate {
    let Some(point) = WRITES.into_iter().find(|write| *write == name) else {
        return if faults.alive().is_ok() { Fate::Passes } else { Fate::Lost };
    };
    let passed = faults.point(point);
    match (passed.before(), passed.after()) {
        (Err(_), _) => Fate::Lost,
        (Ok(()), Err(_)) => Fate::AnswerLost,
        (Ok(()), Ok(())) => Fate::Passes,
    }
}

/// Half of the scenarios on one server, one life after the other, below a prefix each. A life there takes some seconds, so few
/// points are tried: `KEYWRIGHT_AWS_CRASH_STRIDE=1` tries all, which takes hours.
#[rstest]
#[tokio::test]
async fn points_recover_at_aws(#[values(0, 1)] half: usize) {
    let moto = Moto::start().await;
    let proxy = Arc::new(Proxy::start(&moto.endpoint).await);
    let lives = AtomicUsize::new(0);
    let backend = || {
        let prefix = format!("life/{}", lives.fetch_add(1, Ordering::Relaxed));
        let store = |endpoint: &str| {
            let settings = AwsSettings { prefix: prefix.clone(), endpoint: Some(endpoint.to_owned()), ..AwsSettings::default() };
            Arc::new(AwsStore::on(&sdk(), &settings, None))
        };
        let (proxy, through) = (proxy.clone(), store(&proxy.endpoint));
        let pass = move |faults: &Faults| {
            let faults = faults.clone();
            proxy.judge(move |_, name| fate(&faults, name));
        };
        Backend::elsewhere(through, store(&moto.endpoint), Box::new(pass))
    };
    let stride = std::env::var("KEYWRIGHT_AWS_CRASH_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(151);
    for scenario in Scenario::ALL.into_iter().skip(half).step_by(2) {
        super::matrix("AWS", &backend, scenario, stride).await;
    }
}
