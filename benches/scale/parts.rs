//! The parts of a start, and the pass over all credentials, in this process: what the daemon does, without its API.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use keywright::domain::ids::KeyId;
use keywright::domain::material::Material;
use keywright::domain::provider::ListedKey;
use keywright::embedded::Embedded;
use keywright::engine::{Engine, Options};
use keywright::issuers::{CreateRequest, Issuer, IssuerError, Minted, ProbeOutcome, ProbeReport, ProviderHealth, Revocation, Target};
use keywright::policies::read_folder;
use keywright::runtime::clock::wall_now;

use super::fleet::{Fleet, seams, worked};
use super::{print, seconds};

const PASSES: usize = 20;

/// A provider whose answers take no time: all is well there, and nothing else is asked.
struct Well;

#[async_trait]
impl Issuer for Well {
    async fn probe(&self, _: &Target, _: &Material) -> Result<ProbeReport, IssuerError> {
        Ok(ProbeReport { outcome: ProbeOutcome::Works, proves_environment: true, provider_time: None })
    }

    async fn is_dead(&self, _: &Target, _: &Material) -> Result<bool, IssuerError> {
        Ok(false)
    }

    async fn list(&self, _: &Target, _: &Material) -> Result<Vec<ListedKey>, IssuerError> {
        Ok(Vec::new())
    }

    async fn create(&self, _: &Target, _: &Material, _: &CreateRequest) -> Result<Minted, IssuerError> {
        Err(IssuerError::Impossible("nothing is made here"))
    }

    async fn revoke(&self, _: &Target, _: &Material, _: &KeyId, _: Option<&Material>) -> Result<Revocation, IssuerError> {
        Err(IssuerError::Impossible("nothing is revoked here"))
    }

    fn health(&self) -> Vec<ProviderHealth> {
        Vec::new()
    }
}

pub(super) async fn measure(fleet: &Fleet) {
    let began = Instant::now();
    let policies = read_folder(&fleet.policies(), wall_now()).unwrap();
    print("  policies read, parsed and checked", &seconds(began.elapsed()), "");
    let began = Instant::now();
    let embedded = Embedded::open(&fleet.data(), &fleet.key()).unwrap();
    print("  store opened, every page checked", &seconds(began.elapsed()), "");
    let began = Instant::now();
    let engine = Engine::start(seams(&embedded, Well), policies, Options::default()).await.unwrap();
    print("  journals read and added up", &seconds(began.elapsed()), "");
    let began = Instant::now();
    engine.turn().await;
    print("first turn: every key looked at once, one by one", &seconds(began.elapsed()), "");
    let before = worked(std::process::id());
    let mut passes: Vec<Duration> = (0..PASSES).map(|_| Duration::ZERO).collect();
    for pass in &mut passes {
        let began = Instant::now();
        engine.turn().await;
        *pass = began.elapsed();
    }
    passes.sort();
    let each = (worked(std::process::id()) - before) / u32::try_from(PASSES).unwrap();
    print("decision pass, median of 20 turns", &seconds(passes[PASSES / 2]), "0.100 s");
    print("  and its work, in the mean", &seconds(each), "");
    print("decision pass, slowest of them", &seconds(passes[PASSES - 1]), "0.100 s");
    let began = Instant::now();
    let measured = engine.measures().len();
    print(&format!("measures of {measured} credentials, for a scrape"), &seconds(began.elapsed()), "");
}
