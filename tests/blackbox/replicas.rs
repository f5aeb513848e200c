//! Three daemons on one Kubernetes API and one Vault: who leads rotates, all serve; leaders are killed, stopped and cut off, and nobody's
//! key dies, nothing is rotated twice, and reads go on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::deliveries::{RAW_SECRET, Receiver, write_secret};
use crate::support::app::{App, Mode};
use crate::support::daemon::Daemon;
use crate::support::dinie::truth::{Key, Owner};
use crate::support::dinie::{Dinie, Options};
use crate::support::kube::{API_AUDIENCE, ApiServer, Call, Fault, Gate, rights_of_a_replica};
use crate::support::sha256_hex;
use crate::support::site::Site;
use crate::support::wire::{Ask, Events, Target};
use crate::vault::Server;
use crate::world::{PRODUCTION, fields};

const NAMESPACE: &str = "credentials";
const TOKEN: &str = "app-token-of-payments-api-in-a-test-of-replicas";
/// Take-over within 15 s, and what a busy machine adds.
const TAKEN_OVER: Duration = Duration::from_secs(60);
/// A whole rotation with its overlap, a take-over in it.
const ROTATED: Duration = Duration::from_secs(120);

/// What Kubernetes does with a Service: connections go to one of the replicas that are ready, in turn.
struct Service {
    address: SocketAddr,
    backends: Arc<Mutex<Vec<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Service {
    async fn before(backends: Vec<SocketAddr>) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let backends = Arc::new(Mutex::new(backends));
        let task = tokio::spawn(forward(listener, backends.clone()));
        Service { address, backends, task }
    }

    fn only(&self, backends: Vec<SocketAddr>) {
        *self.backends.lock().unwrap() = backends;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(listener: TcpListener, backends: Arc<Mutex<Vec<SocketAddr>>>) {
    let next = AtomicU64::new(0);
    while let Ok((mut client, _)) = listener.accept().await {
        let ready = backends.lock().unwrap().clone();
        let turn = next.fetch_add(1, Ordering::Relaxed) as usize;
        tokio::spawn(async move {
            for at in 0..ready.len() {
                if let Ok(mut server) = TcpStream::connect(ready[(turn + at) % ready.len()]).await {
                    // Whichever side ends, the connection is over.
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
            }
        });
    }
}

/// The installation.
struct Fleet {
    kube: Arc<ApiServer>,
    _vault: Server,
    provider: Arc<Dinie>,
    enrolled: Key,
    daemons: Vec<Daemon>,
    service: Service,
    apps: Vec<App>,
}

fn account(index: usize) -> String {
    format!("keywright-{index}")
}

impl Fleet {
    /// Three daemons run, one leads, and has one submitted key.
    async fn start(rotation: &str) -> Fleet {
        Fleet::start_with(rotation, "").await
    }

    /// With more in the application's document.
    async fn start_with(rotation: &str, more: &str) -> Fleet {
        let kube = ApiServer::start().await;
        kube.namespace(NAMESPACE);
        let vault = Server::start().await;
        let provider = Dinie::start(Options { seed: 2, ..Options::new("production") }).await;
        let enrolled = provider.seed_key("first, by hand", Owner::Enrolled);
        let mut daemons: Vec<Daemon> = Vec::new();
        for index in 0..3 {
            let mut site = Site::new();
            site.provider("dinie", "production", &provider.base_url());
            site.rotation("quick", rotation);
            site.credential(PRODUCTION, "dinie", "production", "quick");
            let identity = format!("identity: {{token: {{sha256: \"{}\"}}}}", sha256_hex(TOKEN.as_bytes()));
            site.document(
                "Application",
                "payments-api",
                &format!("environment: production, credentials: [{PRODUCTION}], {identity}{more}"),
            );
            site.store = vault.config();
            site.journal = "{kubernetes: {}}".to_owned();
            let token = kube.token(NAMESPACE, &account(index), None, &[API_AUDIENCE], Duration::from_secs(86_400));
            kube.grant((NAMESPACE, &account(index)), Some(NAMESPACE), rights_of_a_replica());
            let kubeconfig = kube.kubeconfig(site.folder(), NAMESPACE, &token);
            site.extra_config = format!("cluster: {{kubeconfig: \"{}\"}}\n", kubeconfig.display());
            if let Some(first) = daemons.first() {
                // One key for all of them, as a mounted Secret is.
                std::fs::create_dir_all(site.path("data")).expect("a folder");
                let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                std::fs::set_permissions(site.path("data"), private).expect("it is private");
                std::fs::copy(first.site.path("data/keywright.key"), site.path("data/keywright.key")).expect("the key is copied");
            }
            daemons.push(Daemon::start(site).await);
        }
        let service = Service::before(daemons.iter().map(|daemon| daemon.site.address).collect()).await;
        let fleet = Fleet { kube, _vault: vault, provider, enrolled, daemons, service, apps: Vec::new() };
        let leader = fleet.leader(&[]).await;
        fleet.daemons[leader].submit(PRODUCTION, &fields(&fleet.enrolled)).await;
        fleet
    }

    fn app(&mut self, instance: &str, mode: Mode) {
        self.apps.push(App::start(Target::Tcp(self.service.address), PRODUCTION, TOKEN, instance, mode, &self.provider));
    }

    fn serve_all_but(&self, index: usize) {
        self.service.only(self.others(index).map(|other| self.daemons[other].site.address).collect());
    }

    fn others(&self, index: usize) -> impl Iterator<Item = usize> {
        (0..self.daemons.len()).filter(move |other| *other != index)
    }

    async fn status_of(&self, index: usize) -> Option<Value> {
        let request = Ask { method: "GET", path: "/v1/status", headers: &[], body: None }.bytes();
        let answer = tokio::time::timeout(Duration::from_secs(5), self.daemons[index].site.socket().raw(&request)).await;
        answer.ok()?.ok()?.filter(|answer| answer.status == 200).map(|answer| answer.json())
    }

    async fn row_of(&self, index: usize) -> Option<Value> {
        self.status_of(index).await.map(|status| status["credentials"][0].clone())
    }

    /// Which one leads, of all but these.
    async fn leader(&self, but: &[usize]) -> usize {
        let begun = Instant::now();
        loop {
            for index in (0..self.daemons.len()).filter(|index| !but.contains(index)) {
                if self.status_of(index).await.is_some_and(|status| status["leadership"]["leads"] == true) {
                    return index;
                }
            }
            assert!(begun.elapsed() < TAKEN_OVER, "nobody leads:\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn logs(&self) -> String {
        let tails = self.daemons.iter().enumerate().map(|(index, daemon)| format!("--- {index}\n{}", daemon.log_tail()));
        tails.collect::<Vec<_>>().join("\n")
    }

    /// Generations that the daemons had keys made of so far. A key whose making was never journaled is swept, and another attempt of the
    /// same generation takes its place: that is one rotation.
    fn made(&self) -> usize {
        self.attempts().len()
    }

    /// How many keys were made of each generation.
    fn attempts(&self) -> BTreeMap<String, usize> {
        let state = self.provider.lock();
        let mut attempts = BTreeMap::new();
        for key in state.truth.keys.iter().filter(|key| key.owner == Owner::Daemon) {
            let (generation, _attempt) = key.name.rsplit_once('-').expect("a marker ends with its attempt");
            *attempts.entry(generation.to_owned()).or_default() += 1;
        }
        attempts
    }

    fn dead(&self) -> usize {
        self.provider.revoked_of_ours()
    }

    async fn until(&self, limit: Duration, what: &str, condition: impl Fn(&Fleet) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            let made = self.provider.lock().truth.report();
            assert!(
                begun.elapsed() < limit,
                "not in {limit:?}: {what}\nprovider: {made}\n{:?}\n{}",
                self.row_of_anybody().await,
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn row_of_anybody(&self) -> Option<Value> {
        for index in 0..self.daemons.len() {
            if let Some(row) = self.row_of(index).await {
                return Some(row);
            }
        }
        None
    }

    /// How the application's delivery stands, once this replica says so.
    async fn until_delivery(&self, index: usize, state: &str) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.status_of(index).await.unwrap_or_default();
            let standing = &status["deliveries"][0];
            if standing["state"] == state {
                return standing.clone();
            }
            assert!(begun.elapsed() < TAKEN_OVER, "never {state} at {index}: {standing}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Till these replicas say that no rotation is open, and all say the same.
    async fn settled(&self, replicas: &[usize]) -> Value {
        let begun = Instant::now();
        loop {
            let mut rows = Vec::new();
            for index in replicas {
                rows.extend(self.row_of(*index).await);
            }
            let same = |row: &Value| ["version", "generation", "phase"].iter().all(|field| row[field] == rows[0][field]);
            if rows.len() == replicas.len() && rows[0]["phase"] == "steady" && rows.iter().all(same) {
                return rows.remove(0);
            }
            assert!(begun.elapsed() < ROTATED, "not settled: {rows:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The process is stopped by SIGSTOP at its n-th write into the credential's journal, and that write meets this.
    fn stop_at_write(&self, leader: usize, number: usize, fault: Fault) {
        let user = crate::support::kube::service_account(NAMESPACE, &account(leader));
        let (pid, mut writes) = (self.pid(leader), 0);
        self.kube.plan(move |call: &Call| {
            let of_journal = call.resource == "configmaps" && call.writes() && call.name.ends_with(&format!("journal-{PRODUCTION}"));
            if !of_journal || call.user != user {
                return None;
            }
            writes += 1;
            if writes != number {
                return None;
            }
            kill_process(pid, Signal::STOP).expect("it is stopped");
            Some(fault.clone())
        });
    }

    async fn order_rotation(&self, leader: usize) {
        self.daemons[leader].cli(&["rotate", PRODUCTION]).await.assert_code(0);
    }

    fn assert_nobody_is_dead(&self) {
        self.apps.iter().for_each(App::assert_never_dead);
        let state = self.provider.lock();
        state.truth.assert_foreign_untouched();
        state.truth.assert_none_revoked_itself();
    }

    /// One rotation came to its end, and no key was made beside it.
    async fn assert_rotated_once(&self, before: usize, replicas: &[usize]) {
        self.until(ROTATED, "the old key dies", |fleet| fleet.dead() > before).await;
        self.settled(replicas).await;
        let state = self.provider.lock();
        let living = state.truth.living().len();
        assert_eq!(living, 1, "one key lives:{}", state.truth.report());
        drop(state);
        assert_eq!(self.made(), before + 1, "one generation was made");
        assert!(self.attempts().values().all(|attempts| *attempts <= 2), "at most one lost key of each was swept: {:?}", self.attempts());
        self.assert_nobody_is_dead();
    }

    fn pid(&self, index: usize) -> Pid {
        Pid::from_raw(i32::try_from(self.daemons[index].id()).unwrap()).unwrap()
    }
}

async fn get(target: &Target, instance: &str, more: &[(&str, &str)]) -> crate::support::wire::Answer {
    let bearer = format!("Bearer {TOKEN}");
    let mut headers = vec![("authorization", bearer.as_str()), ("keywright-instance", instance)];
    headers.extend_from_slice(more);
    target.get(&format!("/v1/credentials/{PRODUCTION}"), &headers).await
}

#[tokio::test]
async fn all_serve_one_leads_and_a_leader_that_is_killed_is_succeeded() {
    let mut fleet = Fleet::start("maxAge: 90d, overlap: 10s, spread: 1s").await;
    let leader = fleet.leader(&[]).await;
    for (instance, mode) in
        [("one", Mode::Confirms), ("two", Mode::Confirms), ("three", Mode::Polls), ("four", Mode::Reconnects(Duration::from_secs(3)))]
    {
        fleet.app(instance, mode);
    }
    fleet.until(TAKEN_OVER, "all have the first key", |fleet| fleet.apps.iter().all(|app| app.versions() == 1)).await;
    // Orders are the leader's, and who doesn't lead says who does.
    for other in fleet.others(leader) {
        let refused = fleet.daemons[other].site.socket();
        let answer =
            refused.ask(Ask { method: "POST", path: &format!("/v1/credentials/{PRODUCTION}/rotations"), headers: &[], body: None }).await;
        answer.assert_problem(503, "not-ready");
        assert!(fleet.daemons[other].cli(&["status"]).await.assert_code(0).out().contains("this replica follows"));
    }
    fleet.order_rotation(leader).await;
    fleet.assert_rotated_once(0, &[0, 1, 2]).await;
    assert!(fleet.apps.iter().all(|app| app.versions() == 2));
    // Killed in the middle of the next one.
    fleet.settled(&[0, 1, 2]).await;
    fleet.order_rotation(leader).await;
    fleet.daemons[leader].kill().await;
    let survivors: Vec<usize> = fleet.others(leader).collect();
    let killed = Instant::now();
    let next = fleet.leader(&[leader]).await;
    println!("taken over by {next} after {:?}", killed.elapsed());
    fleet.assert_rotated_once(1, &survivors).await;
    // It comes back as a follower, and nothing happens because of that.
    let (made, versions) = (fleet.made(), fleet.apps.iter().map(App::versions).sum::<usize>());
    fleet.daemons[leader].again().await;
    fleet.settled(&[0, 1, 2]).await;
    assert_eq!(fleet.leader(&[]).await, next);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((fleet.made(), fleet.apps.iter().map(App::versions).sum::<usize>()), (made, versions), "nothing was made or pushed again");
    for daemon in &fleet.daemons {
        daemon.cli(&["audit", "verify"]).await.assert_code(0);
    }
    fleet.assert_nobody_is_dead();
}

#[tokio::test]
async fn a_stream_that_moves_is_resumed_by_its_cursor_and_never_goes_back() {
    let fleet = Fleet::start("maxAge: 90d, overlap: 10s, spread: 1s").await;
    let leader = fleet.leader(&[]).await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "mover")];
    let mut cursor = String::new();
    let mut revision = 0;
    for round in 0..4 {
        if round > 0 {
            fleet.settled(&[0, 1, 2]).await;
            fleet.order_rotation(leader).await;
            fleet.until(ROTATED, "a key is made", |fleet| fleet.made() == round).await;
        }
        for daemon in &fleet.daemons {
            let shown = cursor.clone();
            let mut resumed = headers.to_vec();
            if !shown.is_empty() {
                resumed.push(("last-event-id", shown.as_str()));
            }
            let path = format!("/v1/events?credentials={PRODUCTION}");
            let mut events = Events::open(&daemon.site.tcp(), &path, &resumed).await.unwrap().unwrap_or_else(|answer| panic!("{answer:?}"));
            let event = events.wait_for("credential", ROTATED).await.expect("a snapshot");
            let document: Value = serde_json::from_str(&event.data).unwrap();
            let seen = document["revision"].as_u64().unwrap();
            assert!(seen >= revision, "from {revision} back to {seen}");
            (revision, cursor) = (seen, event.id.expect("each event has an id"));
            let version = document["version"].as_str().unwrap();
            let secret = document["fields"]["client_secret"].as_str().unwrap();
            assert!(fleet.provider.alive(secret), "a dead key");
            // It confirms wherever it is.
            let proof = crate::support::confirmation_proof(secret, PRODUCTION, version, "mover");
            let body = json!({"credential": PRODUCTION, "version": version, "instance": "mover", "field": "client_secret", "proof": proof})
                .to_string();
            let confirmed = daemon
                .site
                .tcp()
                .ask(Ask { method: "POST", path: "/v1/confirmations", headers: &headers, body: Some(body.as_bytes()) })
                .await;
            // Between its snapshot and its confirmation it may have been promoted anew.
            assert!(matches!(confirmed.status, 204 | 409), "{confirmed:?}");
        }
        if round > 0 {
            // Who names the version that it has from elsewhere isn't given an older one.
            let (_, newest) = cursor.rsplit_once(':').unwrap();
            for daemon in &fleet.daemons {
                let answer = get(&daemon.site.tcp(), "mover", &[]).await;
                assert!(answer.json()["revision"].as_u64().unwrap() >= newest.parse().unwrap());
            }
            confirm_all(&fleet, "mover").await;
            fleet.until(ROTATED, "the old key dies", |fleet| fleet.dead() == round).await;
        }
    }
}

#[tokio::test]
async fn what_is_reported_at_a_replica_that_follows_takes_the_rollout_back() {
    let mut fleet = Fleet::start("maxAge: 90d, overlap: 80s, spread: 1s, rollout: [1, 100%]").await;
    let leader = fleet.leader(&[]).await;
    for instance in ["one", "two", "three"] {
        fleet.app(instance, Mode::NeverConfirms);
    }
    fleet.until(TAKEN_OVER, "all have the first key", |fleet| fleet.apps.iter().all(|app| app.versions() == 1)).await;
    fleet.order_rotation(leader).await;
    let have_new = |fleet: &Fleet| fleet.apps.iter().filter(|app| app.versions() == 2).count();
    fleet.until(ROTATED, "one gets the new version", |fleet| have_new(fleet) == 1).await;
    let canary = fleet.apps.iter().find(|app| app.versions() == 2).unwrap();
    let failed = canary.seen().handed[1].clone();
    let (instance, bearer) = (canary.instance.clone(), format!("Bearer {TOKEN}"));
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", instance.as_str())];
    let body = json!({"credential": PRODUCTION, "version": failed.version, "instance": instance, "outcome": "failed"}).to_string();
    // Wherever it comes to, also where it was served nothing.
    for other in fleet.others(leader) {
        let ask = Ask { method: "POST", path: "/v1/reports", headers: &headers, body: Some(body.as_bytes()) };
        let answer = fleet.daemons[other].site.tcp().ask(ask).await;
        // Taken back after the first report, it may have a newer one by the second.
        assert!(answer.status == 204 || (answer.status == 409 && other != fleet.others(leader).next().unwrap()), "{answer:?}");
    }
    let old = fleet.enrolled.secret.clone();
    let is_back = |app: &App| app.seen().handed.last().is_some_and(|last| last.secret == old && last.revision > failed.revision);
    fleet.until(ROTATED, "all have the old value, as a new version", |fleet| fleet.apps.iter().all(is_back)).await;
    let status = fleet.status_of(leader).await.expect("it answers");
    assert!(status["problems"].as_array().unwrap().iter().any(|problem| problem["code"] == "canary-failed"), "{status}");
    assert!(fleet.apps.iter().filter(|app| app.seen().handed.iter().any(|had| had.secret == failed.secret)).count() == 1, "one had it");
    fleet.assert_nobody_is_dead();
}

/// What is current now is confirmed, at each replica.
async fn confirm_all(fleet: &Fleet, instance: &str) {
    fleet
        .until(ROTATED, "promotion", |fleet| fleet.provider.lock().truth.keys.iter().any(|key| key.owner == Owner::Daemon && key.looks > 0))
        .await;
    for _ in 0..100 {
        let mut versions = std::collections::BTreeSet::new();
        for daemon in &fleet.daemons {
            let document = get(&daemon.site.tcp(), instance, &[]).await.json();
            let (version, secret) =
                (document["version"].as_str().unwrap().to_owned(), document["fields"]["client_secret"].as_str().unwrap().to_owned());
            let proof = crate::support::confirmation_proof(&secret, PRODUCTION, &version, instance);
            let body =
                json!({"credential": PRODUCTION, "version": version, "instance": instance, "field": "client_secret", "proof": proof})
                    .to_string();
            let bearer = format!("Bearer {TOKEN}");
            let headers = [("authorization", bearer.as_str()), ("keywright-instance", instance)];
            daemon.site.tcp().ask(Ask { method: "POST", path: "/v1/confirmations", headers: &headers, body: Some(body.as_bytes()) }).await;
            versions.insert((version, document["revision"].as_u64().unwrap()));
        }
        let phase = fleet.row_of_anybody().await.map(|row| row["phase"].clone()).unwrap_or_default();
        if versions.len() == 1 && ["promoted", "confirmed", "retired", "steady"].iter().any(|known| phase == *known) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the replicas don't agree:\n{}", fleet.logs());
}

/// At which write of the leader's journal of the credential it is stopped. `KEYWRIGHT_REPLICA_STEPS=all` takes each.
fn steps() -> Vec<usize> {
    if std::env::var("KEYWRIGHT_REPLICA_STEPS").as_deref() == Ok("all") { (1..=10).collect() } else { vec![2, 6] }
}

/// The process is stopped with SIGSTOP at its n-th write, held back or with its answer lost; another one takes over and ends the
/// rotation; then it wakes, its late write arrives, and it follows.
async fn stopped_at(late: bool) {
    let mut fleet = Fleet::start("maxAge: 90d, overlap: 4s, spread: 1s").await;
    for step in steps() {
        let leader = fleet.leader(&[]).await;
        fleet.serve_all_but(leader);
        fleet.apps.clear();
        for instance in ["one", "two"] {
            fleet.app(&format!("{instance}-{step}"), Mode::Confirms);
        }
        fleet.until(TAKEN_OVER, "the applications have a key", |fleet| fleet.apps.iter().all(|app| app.versions() > 0)).await;
        let generations = fleet.made();
        let (before, gate) = (fleet.dead(), Gate::new());
        fleet.stop_at_write(leader, step, if late { Fault::Stalls(gate.clone()) } else { Fault::LosesReplyAfterEffect });
        fleet.settled(&[0, 1, 2]).await;
        // Who is stopped at the very first write answers nobody.
        let ordered = tokio::time::timeout(Duration::from_secs(10), fleet.daemons[leader].cli(&["rotate", PRODUCTION])).await;
        assert_eq!(ordered.is_err(), step == 1);
        let next = fleet.leader(&[leader]).await;
        assert_ne!(next, leader);
        if fleet.row_of(next).await.is_some_and(|row| row["phase"] == "steady") && fleet.made() == generations {
            assert_eq!(step, 1, "what was answered is known to the next one");
            fleet.order_rotation(next).await;
        }
        fleet.until(ROTATED, "the old key dies", |fleet| fleet.dead() > before).await;
        let survivors: Vec<usize> = fleet.others(leader).collect();
        fleet.settled(&survivors).await;
        kill_process(fleet.pid(leader), Signal::CONT).expect("it goes on");
        gate.open();
        fleet.kube.nothing_goes_wrong();
        // It learns better, and changes nothing.
        fleet.settled(&[0, 1, 2]).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(fleet.leader(&[]).await, next, "stopped at write {step}");
        fleet.assert_rotated_once(generations, &[0, 1, 2]).await;
        let answer = get(&fleet.daemons[leader].site.tcp(), "asks-the-one-that-woke", &[]).await;
        assert_eq!(answer.status, 200);
        assert!(fleet.provider.alive(answer.json()["fields"]["client_secret"].as_str().unwrap()));
        fleet.daemons[next].cli(&["release", "payments-api", "asks-the-one-that-woke"]).await.assert_code(0);
        let gone: Vec<String> = fleet.apps.iter().map(|app| app.instance.clone()).collect();
        fleet.apps.clear();
        for instance in gone {
            fleet.daemons[next].cli(&["release", "payments-api", &instance]).await.assert_code(0);
        }
    }
}

/// As [`stopped_at`], but the successor rolls back what was promoted: who wakes brings nothing of it back.
#[tokio::test]
async fn a_leader_that_wakes_after_its_successor_rolled_back_changes_nothing() {
    let mut fleet = Fleet::start("maxAge: 90d, overlap: 40s, spread: 1s").await;
    for step in [4, 7] {
        let leader = fleet.leader(&[]).await;
        fleet.serve_all_but(leader);
        fleet.apps.clear();
        fleet.app(&format!("rb-{step}"), Mode::Confirms);
        fleet.until(TAKEN_OVER, "the application has a key", |fleet| fleet.apps.iter().all(|app| app.versions() > 0)).await;
        let (dead, gate) = (fleet.dead(), Gate::new());
        let living = |fleet: &Fleet| fleet.provider.lock().truth.living().iter().map(|key| key.secret.clone()).collect::<Vec<_>>();
        let old = living(&fleet);
        fleet.settled(&[0, 1, 2]).await;
        fleet.stop_at_write(leader, step, Fault::Stalls(gate.clone()));
        fleet.daemons[leader].cli(&["rotate", PRODUCTION]).await.assert_code(0);
        let next = fleet.leader(&[leader]).await;
        let begun = Instant::now();
        while fleet.row_of(next).await.is_none_or(|row| row["phase"] != "promoted" && row["phase"] != "confirmed") {
            assert!(begun.elapsed() < ROTATED, "not promoted\n{}", fleet.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        fleet.daemons[next].cli(&["rollback", PRODUCTION]).await.assert_code(0);
        fleet.until(ROTATED, "the new key dies", |fleet| fleet.dead() > dead).await;
        let survivors: Vec<usize> = fleet.others(leader).collect();
        let version = fleet.settled(&survivors).await["version"].clone();
        kill_process(fleet.pid(leader), Signal::CONT).expect("it goes on");
        gate.open();
        fleet.kube.nothing_goes_wrong();
        assert_eq!(fleet.settled(&[0, 1, 2]).await["version"], version, "stopped at write {step}");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(fleet.settled(&[0, 1, 2]).await["version"], version, "stopped at write {step}");
        assert_eq!(living(&fleet), old, "the old key is the one that lives");
        fleet.assert_nobody_is_dead();
        fleet.apps.clear();
        fleet.daemons[next].cli(&["release", "payments-api", &format!("rb-{step}")]).await.assert_code(0);
    }
}

#[tokio::test]
async fn a_leader_stopped_before_its_write_arrives_wakes_without_harm() {
    stopped_at(true).await;
}

#[tokio::test]
async fn a_leader_stopped_after_its_write_took_effect_wakes_without_harm() {
    stopped_at(false).await;
}

/// For so many seconds the API is away.
fn away() -> Duration {
    Duration::from_secs(std::env::var("KEYWRIGHT_REPLICA_AWAY").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(60))
}

#[tokio::test]
async fn while_the_api_is_away_reads_go_on_and_afterwards_all_goes_on() {
    let mut fleet = Fleet::start("maxAge: 90d, overlap: 10m, spread: 1s").await;
    for (instance, mode) in [("one", Mode::Confirms), ("two", Mode::Polls)] {
        fleet.app(instance, mode);
    }
    fleet.until(TAKEN_OVER, "all have the first key", |fleet| fleet.apps.iter().all(|app| app.versions() == 1)).await;
    for daemon in &fleet.daemons {
        assert_eq!(get(&daemon.site.tcp(), "reader", &[]).await.status, 200);
    }
    fleet.kube.stop();
    let begun = Instant::now();
    while begun.elapsed() < away() {
        for daemon in &fleet.daemons {
            let answer = get(&daemon.site.tcp(), "reader", &[]).await;
            assert_eq!(answer.status, 200, "{answer:?}\n{}", daemon.log_tail());
            assert!(fleet.provider.alive(answer.json()["fields"]["client_secret"].as_str().unwrap()));
            // Who was never served has to wait: that can't be written down.
            get(&daemon.site.tcp(), "new", &[]).await.assert_problem(503, "store-unavailable");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    fleet.kube.resume().await;
    let leader = fleet.leader(&[]).await;
    fleet.order_rotation(leader).await;
    fleet.until(ROTATED, "all have the new key", |fleet| fleet.apps.iter().all(|app| app.versions() == 2)).await;
    assert_eq!((fleet.made(), fleet.dead()), (1, 0));
    for daemon in &fleet.daemons {
        assert_eq!(get(&daemon.site.tcp(), "new", &[]).await.status, 200);
    }
    fleet.assert_nobody_is_dead();
}

/// What was sent, and what nobody wanted, is known to whoever leads next.
#[tokio::test]
async fn a_message_goes_on_under_the_next_leader_where_the_one_before_stopped() {
    let receiver = Receiver::start().await;
    let home = tempfile::tempdir().expect("a folder");
    let secret = write_secret(home.path(), "hook-secret", RAW_SECRET);
    let url = &receiver.url;
    let delivery = format!(", delivery: {{webhook: {{url: \"{url}\", allowPrivate: true, secrets: [{{file: {}}}]}}}}", secret.display());
    let mut fleet = Fleet::start_with("maxAge: 90d, overlap: 5s, spread: 1s", &delivery).await;
    let first = fleet.leader(&[]).await;
    fleet.app("one", Mode::Confirms);
    fleet.until(TAKEN_OVER, "it has the first key", |fleet| fleet.apps[0].versions() == 1).await;
    fleet.until_delivery(first, "delivered").await;
    receiver.now("410 Gone");
    fleet.order_rotation(first).await;
    let dead = fleet.until_delivery(first, "dead").await;
    assert_eq!(receiver.seen().len(), 2);
    fleet.settled(&[0, 1, 2]).await;

    fleet.daemons[first].kill().await;
    let second = fleet.leader(&[first]).await;
    let known = fleet.until_delivery(second, "dead").await;
    assert_eq!(known["dead_letters"], dead["dead_letters"], "the former leader's dead letters");
    assert_eq!(receiver.seen().len(), 2, "neither what was accepted nor what nobody wants is sent again");

    // Tried, not accepted, and then its sender dies.
    receiver.now("500 Internal Server Error");
    fleet.order_rotation(second).await;
    fleet.until_delivery(second, "failing").await;
    fleet.daemons[first].again().await;
    fleet.daemons[second].kill().await;
    receiver.now("200 OK");
    let third = fleet.leader(&[second]).await;
    let made_good = fleet.until_delivery(third, "delivered").await;
    assert_eq!(made_good["dead_letters"], json!([]));
    let seen = receiver.seen();
    let tries = &seen[2..];
    assert!(tries.len() >= 2 && tries.iter().all(|message| message.id == tries[0].id && message.body == tries[0].body), "{tries:?}");
    assert!(seen[..2].iter().all(|message| message.id != tries[0].id));
    fleet.assert_nobody_is_dead();
}
