//! Sandbox and production at two fakes, one daemon, some applications: what most tests here begin with.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::support::app::{App, Mode};
use crate::support::canaries::Canary;
use crate::support::daemon::Daemon;
use crate::support::dinie::truth::{Key, Owner};
use crate::support::dinie::{Dinie, Options};
use crate::support::outputs::Outputs;
use crate::support::scanner::Scanner;
use crate::support::site::Site;

/// The acceptance's own policy, as the issue writes it.
pub(crate) const ACCEPTANCE: &str = "maxAge: 40s, overlap: 8s, spread: 1s";
/// The same in less time, where the variant is what matters.
pub(crate) const QUICK: &str = "maxAge: 15s, overlap: 3s, spread: 1s";
/// Never due while a test runs: rotations come from the command line only.
pub(crate) const STILL: &str = "maxAge: 90d, overlap: 2s, spread: 1s";

pub(crate) const SANDBOX: &str = "dinie-sandbox";
pub(crate) const PRODUCTION: &str = "dinie-production";

pub(crate) struct World {
    pub(crate) daemon: Daemon,
    pub(crate) sandbox: Arc<Dinie>,
    pub(crate) production: Arc<Dinie>,
    pub(crate) enrolled_sandbox: Key,
    pub(crate) enrolled_production: Key,
    pub(crate) sandbox_token: String,
    pub(crate) production_token: String,
    pub(crate) apps: Vec<App>,
}

pub(crate) struct Plan<'a> {
    pub(crate) rotation: &'a str,
    pub(crate) lease: &'a str,
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// What stands behind `store:`; empty for the embedded one.
    pub(crate) store: &'a str,
    pub(crate) options: fn(Options) -> Options,
}

impl Plan<'_> {
    pub(crate) fn still() -> Self {
        Self { rotation: STILL, lease: "2s", environment: &[], store: "", options: |options| options }
    }

    pub(crate) fn quick() -> Self {
        Self { rotation: QUICK, lease: "2s", ..Self::still() }
    }
}

impl World {
    /// The daemon runs and knows its documents; nothing is submitted yet.
    pub(crate) async fn unsubmitted(plan: Plan<'_>) -> Self {
        let sandbox = Dinie::start((plan.options)(Options::new("sandbox"))).await;
        let production = Dinie::start((plan.options)(Options { seed: 2, ..Options::new("production") })).await;
        for fake in [&sandbox, &production] {
            fake.seed_key("reporting, made by hand", Owner::Foreign);
            fake.seed_key("kw-looks-like-ours-but-is-not", Owner::Foreign);
        }
        let enrolled_sandbox = sandbox.seed_key("first, by hand", Owner::Enrolled);
        let enrolled_production = production.seed_key("first, by hand", Owner::Enrolled);
        let mut site = Site::with_dinies(&sandbox, &production, plan.rotation);
        if !plan.store.is_empty() {
            plan.store.clone_into(&mut site.store);
        }
        let lease = format!("lease: {}", plan.lease);
        let sandbox_token = site.application("payments-sandbox", "sandbox", &[SANDBOX], &lease);
        let production_token = site.application("payments-api", "production", &[PRODUCTION], &lease);
        let daemon = Daemon::start_with(site, plan.environment).await;
        Self { daemon, sandbox, production, enrolled_sandbox, enrolled_production, sandbox_token, production_token, apps: Vec::new() }
    }

    pub(crate) async fn start(plan: Plan<'_>) -> Self {
        let world = Self::unsubmitted(plan).await;
        world.daemon.submit(SANDBOX, &fields(&world.enrolled_sandbox)).await;
        world.daemon.submit(PRODUCTION, &fields(&world.enrolled_production)).await;
        world
    }

    pub(crate) fn production_app(&mut self, instance: &str, mode: Mode) {
        let target = self.daemon.site.tcp();
        let app = App::start(target, PRODUCTION, &self.production_token, instance, mode, &self.production);
        self.apps.push(app);
    }

    pub(crate) fn sandbox_app(&mut self, instance: &str, mode: Mode) {
        let target = self.daemon.site.tcp();
        self.apps.push(App::start(target, SANDBOX, &self.sandbox_token, instance, mode, &self.sandbox));
    }

    /// Till each environment has seen so many of our keys die.
    pub(crate) async fn wait_for_revocations(&mut self, each: usize, limit: Duration) {
        self.wait_for_revocations_in((each, each), limit).await;
    }

    /// The same with a number for the sandbox and one for production.
    pub(crate) async fn wait_for_revocations_in(&mut self, each: (usize, usize), limit: Duration) {
        let (sandbox, production) = (self.sandbox.clone(), self.production.clone());
        let enough = || sandbox.revoked_of_ours() >= each.0 && production.revoked_of_ours() >= each.1;
        if !crate::support::eventually(limit, enough).await {
            let status = self.daemon.cli(&["status", "--json"]).await;
            panic!(
                "not {each:?} revocations in {limit:?}\nsandbox:{}\nproduction:{}\nstatus: {}\n{}",
                self.sandbox.lock().truth.report(),
                self.production.lock().truth.report(),
                status.out(),
                self.daemon.log_tail()
            );
        }
        assert!(self.daemon.has_ended().is_none(), "the daemon ended:\n{}", self.daemon.log_tail());
    }

    /// What must hold at the end of every story, faults or not.
    pub(crate) async fn assert_all_is_well(&self) {
        for app in &self.apps {
            app.assert_never_dead();
        }
        for (fake, credential) in [(&self.sandbox, SANDBOX), (&self.production, PRODUCTION)] {
            {
                let state = fake.lock();
                state.truth.assert_foreign_untouched();
                state.truth.assert_none_revoked_itself();
                // Two foreign keys are made first, at which time none of ours lives.
                let ours = state.truth.timeline.iter().position(|(_, count)| *count > 0);
                let ours = ours.expect("a key of ours was made");
                for (_, count) in &state.truth.timeline[ours..] {
                    assert!((1..=2).contains(count), "{count} living keys:{}", state.truth.report());
                }
            }
            self.assert_no_orphans(fake, credential).await;
        }
        self.daemon.cli(&["audit", "verify"]).await.assert_code(0);
        self.assert_silent(&[]);
    }

    /// Every living key is one of the versions that the daemon names as living.
    async fn assert_no_orphans(&self, fake: &Dinie, credential: &str) {
        let orphan_limit = Duration::from_secs(15);
        let clean = || fake.lock().truth.living().len() <= 2;
        assert!(crate::support::eventually(orphan_limit, clean).await, "orphans:{}", fake.lock().truth.report());
        let path = format!("/v1/credentials/{credential}/versions");
        // A rotation may be under way: what lives and what is named must agree at some moment.
        for _ in 0..60 {
            let answer = self.daemon.site.socket().get(&path, &[]).await.json();
            let named = answer["versions"].as_array().expect("a list of versions");
            let named = named.iter().filter(|row| row["revoked_at"].is_null()).count();
            if fake.lock().truth.living().len() == named {
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("`{credential}`: what lives is not what the daemon names:{}", fake.lock().truth.report());
    }

    /// Every secret that was in play: both providers', the applications' tokens, and what the caller adds.
    pub(crate) fn scanner(&self, more: &[Canary]) -> Scanner {
        let mut canaries = self.sandbox.canaries();
        canaries.extend(self.production.canaries());
        for token in [&self.sandbox_token, &self.production_token] {
            canaries.push(Canary::after("application token", "app-token-", token));
        }
        canaries.extend(more.iter().cloned());
        Scanner::new(&canaries)
    }

    /// Nothing of any secret in what the daemon printed or left on disk.
    pub(crate) fn assert_silent(&self, more: &[Canary]) {
        left_behind(&self.daemon.site).assert_silent(&self.scanner(more));
    }
}

/// What a daemon printed and left on disk.
pub(crate) fn left_behind(site: &Site) -> Outputs {
    let mut outputs = Outputs::default();
    outputs.files(site.logs());
    outputs.files(site.data_files());
    outputs
}

pub(crate) fn fields(key: &Key) -> serde_json::Value {
    json!({"client_id": key.client_id, "client_secret": key.secret})
}
