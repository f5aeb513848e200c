//! The daemon, wired: every adapter is named here once, handed over as a trait, and ended in order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::api::{App, EngineService, Limits, Listener, bind_address, bind_socket, serve};
use crate::delivery::stream::StreamHub;
use crate::domain::policy::Policies;
use crate::domain::span::Span;
use crate::embedded::Embedded;
use crate::engine::audit::{Action, Actor, Audit};
use crate::engine::clock::Clock;
use crate::engine::{Engine, Options, Seams};
use crate::issuers::declarative::DeclarativeIssuer;
use crate::issuers::dispatch::Dispatch;
use crate::issuers::generated::GeneratedIssuer;
use crate::journal::{Anchor, Journal};
use crate::policies::Problems;
use crate::runtime::audit::{AuditFile, Head, Leading, STARTED, VerifyError, last_leading, verify};
use crate::runtime::clock::{SystemClock, wall_now};
use crate::runtime::config::{Config, JournalConfig, StoreConfig};
use crate::runtime::couriers::Couriers;
use crate::runtime::metrics::Metrics;
use crate::runtime::reload::{LOOK_EVERY, Watch};
use crate::runtime::shutdown::Shutdown;
use crate::stores::aws::AwsStore;
use crate::stores::vault::VaultStore;
use crate::stores::{Apart, Availability, Cached, Paced, Promoter, SecretStore, StoreShare};

use super::backup::StoreSnapshots;
use super::certificate::Tls;
use super::failure::Failure;
use super::measures::{Counting, answers, render};
use super::pods::KnownPods;
use super::replicas::{Duties, Shared, lead_or_follow};
use super::rewrap::StoreRewraps;
use super::settings::{Held, read_policies};
use super::terminal::counted;

/// How often a store that is away is asked whether it is back.
const ASK_AWAY_EVERY: Duration = Duration::from_secs(5);
/// How often repeated disclosures are written down (I17).
const FLUSH_EVERY: Duration = Duration::from_secs(60);

/// A daemon that serves, until it is stopped or dropped.
#[derive(Debug)]
pub(super) struct DaemonHandle {
    socket: PathBuf,
    address: SocketAddr,
    audit_file: PathBuf,
    shutdown: Shutdown,
    work: JoinHandle<bool>,
}

impl DaemonHandle {
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where it listens for HTTP.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn audit_file(&self) -> &Path {
        &self.audit_file
    }

    /// Ends it: streams say `bye`, steps under way end, files are closed, all within the deadline of the shutdown.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.shutdown.begin();
        self.ended().await
    }

    /// Waits for its end, which a signal or a broken part begins.
    pub(super) async fn ended(self) -> Result<(), Failure> {
        match self.work.await {
            Ok(true) => Ok(()),
            _ => Err(Failure::failed("ended", "the daemon ended before it was told to", "a part of it broke; its log says which")),
        }
    }
}

/// What was opened: all that can fail before anything serves.
struct Opened {
    embedded: Embedded,
    journal: Arc<dyn Journal>,
    /// Where replicas share the journal.
    shared: Option<Shared>,
    audit: Arc<AuditFile>,
    clock: Arc<SystemClock>,
    policies: Policies,
    watch: Watch,
    tls: Option<Tls>,
    /// The record of the audit trail that the journal remembers.
    anchor: Option<Anchor>,
}

/// The store, as the engine uses it.
struct Stores {
    store: Arc<dyn SecretStore>,
    promoter: Arc<dyn Promoter>,
    /// Where the store is elsewhere: what is kept of it.
    cached: Option<Arc<Cached>>,
}

/// How long kept values are served while the store is away: as configured, else an hour at most, and half of the shortest overlap,
/// so that nobody gets a key that has ended meanwhile (I6).
fn stale_bound(configured: Option<Span>, policies: &Policies) -> Duration {
    const MOST: Duration = Duration::from_secs(3_600);
    let shortest = policies.shortest_overlap().map_or(MOST, |overlap| overlap.as_duration() / 2);
    configured.map_or(shortest.min(MOST), Span::as_duration)
}

/// The store, and what promotes in it: within our share of its quota, where the configuration names one.
async fn stores(opened: &Opened, config: &Config) -> Result<Stores, Failure> {
    let limits = &config.store_limits;
    let share = limits.own_calls().zip(limits.quota).map(|(calls, quota)| Arc::new(StoreShare::new(calls, quota.per)));
    let elsewhere: Arc<dyn SecretStore> = match &config.store {
        StoreConfig::Embedded { .. } => {
            let store = opened.embedded.store();
            // It is here or nothing is: there is nothing to keep beside it.
            let apart = |store: Arc<dyn SecretStore>| -> Arc<dyn Promoter> { Arc::new(Apart::new(store, Arc::clone(&opened.journal))) };
            let (store, beside): (Arc<dyn SecretStore>, Arc<dyn Promoter>) = match share {
                None => (Arc::new(store.clone()), Arc::new(store)),
                Some(share) => (Arc::new(Paced::new(store.clone(), Arc::clone(&share))), Arc::new(Paced::new(store, share))),
            };
            // Stage and journal commit together only where they share the file.
            let promoter = if opened.shared.is_some() { apart(Arc::clone(&store)) } else { beside };
            return Ok(Stores { store, promoter, cached: None });
        }
        // These pace themselves: one call to them is several there.
        StoreConfig::Aws { settings, .. } => Arc::new(AwsStore::new(settings, share).await),
        StoreConfig::Vault { settings, .. } => {
            let store = VaultStore::open(settings.clone(), share);
            Arc::new(store.map_err(|error| cannot_start("Vault can't be used as the store", &error))?)
        }
    };
    let clock = Arc::clone(&opened.clock);
    let bound = stale_bound(config.max_stale, &opened.policies);
    let cached = Cached::open(elsewhere, Arc::new(opened.embedded.store()), bound, Arc::new(move || clock.now()));
    let cached = Arc::new(cached.await.map_err(|error| cannot_start("what was kept of the store can't be read", &error))?);
    let store: Arc<dyn SecretStore> = Arc::clone(&cached) as _;
    let promoter = Arc::new(Apart::new(Arc::clone(&store), Arc::clone(&opened.journal)));
    Ok(Stores { store, promoter, cached: Some(cached) })
}

/// Opens, starts and serves. Ready when this returns.
///
/// # Errors
/// Exit status 2 for invalid policies and for a certificate that can't be used, 1 for all else; nothing is left running.
pub(super) async fn start_daemon(config: Config, shutdown: Shutdown) -> Result<DaemonHandle, Failure> {
    let opened = open(&config, &shutdown).await?;
    let (held, known_pods) = (Held::by(&config), KnownPods::open(&config)?);
    let hub = Arc::new(StreamHub::new());
    let metrics = Metrics::new();
    let issuer = DeclarativeIssuer::new(provider_timeout(&opened.policies)).observed_by(answers(metrics.clone()));
    let issuer = Arc::new(issuer);
    let Stores { store, promoter, cached } = stores(&opened, &config).await?;
    let seams = Seams {
        store,
        journal: Arc::clone(&opened.journal),
        promoter,
        issuer: Arc::new(Dispatch::new(Arc::clone(&issuer) as _, Arc::new(GeneratedIssuer))),
        audit: Arc::clone(&opened.audit) as _,
        clock: Arc::clone(&opened.clock) as _,
        delivery: Arc::clone(&hub) as _,
        meter: Arc::new(Counting(metrics.clone())),
        keyring: opened.embedded.keyring(),
    };
    let digest = opened.policies.digest.clone();
    let options = Options { base_urls: config.providers.clone(), max_stale: config.max_stale.map(Span::as_duration) };
    let engine = start_engine(seams, opened.shared.as_ref(), opened.policies, options).await?;
    announce_start(opened.audit.as_ref(), &digest, &engine).await?;
    let (listeners, address) = listen(&config, opened.tls.as_ref()).await?;
    let ready = Arc::new(AtomicBool::new(false));
    let is_alone = opened.shared.is_none();
    let rewraps = Arc::new(StoreRewraps::new(opened.embedded.clone(), Arc::clone(&opened.audit)));
    let app = App {
        service: Arc::new(EngineService(Arc::clone(&engine))),
        hub: Arc::clone(&hub),
        operators: config.operators.clone(),
        reviews: known_pods.as_ref().map(KnownPods::reviews),
        metrics: render(metrics.clone(), Arc::clone(&engine), issuer),
        // A copy of the file alone would be without the journal that replicas share, and its key is theirs as well.
        snapshots: is_alone.then(|| Arc::new(StoreSnapshots { embedded: opened.embedded.clone(), audit: Arc::clone(&opened.audit) }) as _),
        rewraps: is_alone.then(|| Arc::clone(&rewraps) as _),
        ready: Arc::clone(&ready),
        limits: limits_of(&config),
    };
    let mut tasks = JoinSet::new();
    let checked = Arc::clone(&engine);
    let elsewhere = cached.is_some();
    let (leads, led) = tokio::sync::watch::channel(false);
    let leads = Arc::new(leads);
    let lead = move |engine: &Arc<Engine>, tenure: &CancellationToken| duties(engine, elsewhere, &leads, tenure);
    match opened.shared {
        None => lead(&engine, &shutdown.token()).into_iter().for_each(|duty| drop(tasks.spawn(duty))),
        Some(shared) => share_work(&mut tasks, shared, &engine, &opened.audit, Box::new(lead), &shutdown),
    }
    tasks.spawn(serve(listeners, app, shutdown.token()));
    let couriers = Couriers::new(Arc::clone(&engine), super::ways::couriers(&config, &engine, opened.embedded.keyring()), hub, metrics);
    tasks.spawn(couriers.run(led, shutdown.token()));
    tasks.spawn(rewraps.follow(Arc::clone(&engine), shutdown.clone()));
    if let Some(tls) = opened.tls {
        tasks.spawn(tls.follow(Arc::clone(&engine)));
    }
    if let Some(cached) = cached.clone() {
        tasks.spawn(follow_store(cached, Arc::clone(&engine), shutdown.clone()));
    }
    if let Some(pods) = known_pods {
        tasks.spawn(pods.follow(Arc::clone(&engine), shutdown.clone()));
    }
    tasks.spawn(follow_policies(config.policies, held, opened.watch, engine, cached));
    tasks.spawn(flush_repeats(Arc::clone(&opened.audit), shutdown.clone()));
    tokio::spawn(check_trail(config.audit.clone(), opened.anchor, Arc::clone(&opened.audit), Arc::clone(&checked)));
    ready.store(true, Ordering::Release);
    tracing::info!(socket = %config.listen.socket.display(), address = %address, "ready");
    let work = tokio::spawn(supervise(tasks, opened.audit, ready, shutdown.clone()));
    Ok(DaemonHandle { socket: config.listen.socket, address, audit_file: config.audit, shutdown, work })
}

/// The API's bounds, with as many streams as the configuration asks for. Requests always find room beside them.
fn limits_of(config: &Config) -> Limits {
    let usual = Limits::default();
    let room = usual.connections - usual.streams;
    let streams = config.listen.streams.unwrap_or(usual.streams);
    let streams_per_identity = config.listen.streams_per_identity.unwrap_or(usual.streams_per_identity);
    Limits { connections: streams + room, streams, streams_per_identity, ..usual }
}

/// What one of several replicas does beside serving.
fn share_work(tasks: &mut JoinSet<()>, shared: Shared, engine: &Arc<Engine>, audit: &Arc<AuditFile>, duties: Duties, shutdown: &Shutdown) {
    tasks.spawn(Arc::clone(engine).keep_up(shutdown.token()));
    tasks.spawn(Arc::clone(engine).run_attendance(shutdown.token()));
    tasks.spawn(lead_or_follow(Arc::clone(engine), shared.contest(), Arc::clone(audit), duties, shutdown.clone()));
}

/// One process leads at once; one of several follows first.
async fn start_engine(seams: Seams, shared: Option<&Shared>, policies: Policies, options: Options) -> Result<Arc<Engine>, Failure> {
    let started = match shared {
        None => Engine::start(seams, policies, options).await,
        Some(shared) => Engine::follow(seams, shared.replica(), policies, options).await,
    };
    started.map_err(|error| cannot_start("the engine can't start", &error))
}

/// What who leads does, until its token is cancelled; where there is one process, that is to its end.
fn duties(engine: &Arc<Engine>, elsewhere: bool, leads: &Arc<Leads>, until: &CancellationToken) -> Vec<BoxFuture<'static, ()>> {
    let mut duties: Vec<BoxFuture<'static, ()>> =
        vec![Box::pin(Arc::clone(engine).run(until.clone())), Box::pin(tell_couriers(Arc::clone(leads), until.clone()))];
    if elsewhere {
        duties.push(Box::pin(follow_changes(Arc::clone(engine), until.clone())));
    }
    duties
}

/// Whether this process leads, for those who deliver.
type Leads = tokio::sync::watch::Sender<bool>;

/// Only who leads delivers beside the stream.
async fn tell_couriers(leads: Arc<Leads>, until: CancellationToken) {
    leads.send_replace(true);
    until.cancelled().await;
    leads.send_replace(false);
}

/// How long a call to a provider may take: a tenth of the shortest `maxAge`, so that one slow answer costs no deadline, within
/// bounds that a provider over the internet needs.
fn provider_timeout(policies: &Policies) -> Duration {
    let longest = DeclarativeIssuer::TIMEOUT_DEFAULT;
    policies.shortest_max_age().map_or(longest, |span| (span.as_duration() / 10).clamp(Duration::from_secs(2).min(longest), longest))
}

async fn open(config: &Config, shutdown: &Shutdown) -> Result<Opened, Failure> {
    let tls = match config.listen.tls.clone() {
        Some(files) => Some(Tls::open(files, shutdown).await?),
        None => None,
    };
    // Made before the policies are read, so that a change in between is noticed.
    let watch = Watch::new(vec![config.policies.clone()], LOOK_EVERY, shutdown.clone());
    let policies = look_up_policies(&config.policies, Held::by(config)).await?.map_err(|problems| {
        log_problems(&problems);
        Failure::documents("policies-invalid", "the policies are invalid", &problems)
            .then(format!("mend them in {}; `keywright check` looks again", config.policies.display()))
    })?;
    let (directory, key, trail) = (config.data_directory().to_owned(), config.key.clone(), config.audit.clone());
    let embedded =
        blocking(move || Embedded::open(&directory, &key)).await?.map_err(|error| cannot_start("the store can't be opened", &error))?;
    let audit = blocking(move || AuditFile::open(&trail, wall_now())).await?;
    let audit = audit.map_err(|error| cannot_start("the audit trail can't be opened", &error))?;
    let shared = match &config.journal {
        JournalConfig::BesideStore => {
            check_age(&embedded, config.audit.clone()).await?;
            None
        }
        JournalConfig::Kubernetes(settings) => Some(Shared::open(config, settings, &embedded.keyring())?),
    };
    let journal: Arc<dyn Journal> = match &shared {
        Some(shared) => Arc::clone(&shared.journal) as _,
        None => Arc::new(embedded.journal()),
    };
    let heartbeat = journal.heartbeat().await.map_err(|error| cannot_start("the journal can't be read", &error))?;
    let anchor = heartbeat.audit.clone();
    let clock = Arc::new(SystemClock::new(heartbeat));
    Ok(Opened { embedded, journal, shared, audit: Arc::new(audit), clock, policies, watch, tls, anchor })
}

async fn listen(config: &Config, tls: Option<&Tls>) -> Result<(Vec<Listener>, SocketAddr), Failure> {
    let failed = |place: &dyn std::fmt::Display, error: crate::api::BindError| {
        Failure::failed("cannot-listen", "the daemon can't listen", format!("{place}: {error}"))
    };
    let path = &config.listen.socket;
    let socket = bind_socket(path).map_err(|error| failed(&path.display(), error))?;
    let wanted = config.listen.address;
    let secured = tls.map(Tls::server_config).transpose()?;
    let tcp = bind_address(wanted, secured).await.map_err(|error| failed(&wanted, error))?;
    let address = tcp.address().unwrap_or(wanted);
    Ok((vec![Listener::Socket(socket), tcp], address))
}

/// A store that is older than what led last by this trail was put back by hand: what it calls current may be long dead (I10).
async fn check_age(embedded: &Embedded, trail: PathBuf) -> Result<(), Failure> {
    let unreadable = |what: String| Failure::failed("cannot-start", "the audit trail and the store can't be compared", what);
    let standing = embedded.standing().await.map_err(|what| unreadable(what.to_owned()))?;
    let last = blocking(move || last_leading(&trail)).await?.map_err(|error| unreadable(error.kind().to_string()))?;
    let (Some(last), Some(installation), false) = (last, standing.installation, standing.is_empty) else { return Ok(()) };
    if !last.is_ahead_of(installation, &standing.former, standing.term) {
        return Ok(());
    }
    let ours = Leading { installation, term: standing.term };
    let detail =
        format!("by the audit trail {last} led last; the store is at {ours}: an older copy of it was put back, or another store's");
    Err(Failure::failed("older-store", "the store is older than the audit trail remembers", detail)
        .then("`keywright restore` takes it over as a backup: nothing of it is served before it was verified again"))
}

/// Before anything is done: which policies hold, and who leads.
async fn announce_start(audit: &AuditFile, digest: &str, engine: &Engine) -> Result<(), Failure> {
    let (installation, term) = engine.leading();
    let detail = Some(format!("digest {digest}; {}", Leading { installation, term }));
    let action = Action { actor: Actor::Daemon, action: STARTED.to_owned(), credential: None, version: None, detail };
    audit.record(wall_now(), action).await.map_err(|error| cannot_start("the audit trail can't be written", &error))
}

/// Waits for the end, or for a part that ends by itself, which must not happen; then for all parts, within the deadline.
async fn supervise(mut tasks: JoinSet<()>, audit: Arc<AuditFile>, ready: Arc<AtomicBool>, shutdown: Shutdown) -> bool {
    let sound = tokio::select! {
        biased;
        () = shutdown.begun() => true,
        _ = tasks.join_next() => false,
    };
    if !sound {
        tracing::error!("a part of the daemon ended by itself: the daemon ends, so that it is started again");
    }
    ready.store(false, Ordering::Release);
    shutdown.begin();
    let mut whole = sound;
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            whole &= ended.is_ok();
        }
    };
    let in_time = shutdown.in_time(all).await.is_some();
    if !in_time {
        tracing::warn!("some work was cut off at the end; the next start takes it up");
        tasks.shutdown().await;
    }
    // What can't be written now was counted, not lost: each first disclosure was recorded before it happened.
    let _ = audit.flush_repeats(wall_now()).await;
    tracing::info!("ended");
    whole
}

async fn flush_repeats(audit: Arc<AuditFile>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.begun() => return,
            () = tokio::time::sleep(FLUSH_EVERY) => {}
        }
        if audit.flush_repeats(wall_now()).await.is_err() {
            tracing::warn!("repeated disclosures can't be written down; they are counted and tried again");
        }
    }
}

/// Looks through the whole trail once, while the daemon works: what the journal remembers of it must be there, unchanged (I17).
async fn check_trail(path: PathBuf, anchor: Option<Anchor>, audit: Arc<AuditFile>, engine: Arc<Engine>) {
    let head = anchor.map(|anchor| Head { seq: anchor.record, hash: anchor.hash });
    let (done, outcome) = tokio::sync::oneshot::channel();
    // A thread of its own, which the end of the daemon doesn't wait for: a trail of years takes a while.
    let check = move || drop(done.send(verify(&path, head.as_ref())));
    if std::thread::Builder::new().name("audit-check".to_owned()).spawn(check).is_err() {
        tracing::warn!("the audit trail couldn't be checked: no thread could be started");
    }
    let broken = match outcome.await {
        Ok(Err(VerifyError::Broken(broken))) => broken.to_string(),
        Ok(Err(VerifyError::Unreadable(kind))) => format!("it can't be read: {kind}"),
        Ok(Ok(_)) | Err(_) => return,
    };
    tracing::error!(reason = broken, "the audit trail isn't what was written");
    let message = format!("the audit trail isn't what was written: {broken}; keep the file as evidence, and look for a copy");
    engine.set_problem("audit-trail-broken", Some(message));
    let action =
        Action { actor: Actor::Daemon, action: "trail-found-broken".to_owned(), credential: None, version: None, detail: Some(broken) };
    if audit.record(wall_now(), action).await.is_err() {
        tracing::warn!("that the audit trail is broken couldn't be recorded in it");
    }
}

/// What waited for a store that was away goes on as soon as it answers. Meanwhile it is asked now and then, because the patience of
/// those who wait grows, and readers are served without it.
async fn follow_store(cached: Arc<Cached>, engine: Arc<Engine>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.begun() => return,
            () = cached.returned() => engine.store_returned().await,
            () = tokio::time::sleep(ASK_AWAY_EVERY) => {
                if cached.availability() != Availability::Here {
                    // Whether it answers is noted by the call itself.
                    let _ = cached.list(None, 1).await;
                }
            }
        }
    }
}

/// Asks the store, now and then, what others changed there.
async fn follow_changes(engine: Arc<Engine>, until: CancellationToken) {
    loop {
        let Some(wait) = engine.look_for_changes().await else { return until.cancelled().await };
        tokio::select! {
            () = until.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Bad policies leave the last good ones in force, loudly.
async fn follow_policies(folder: PathBuf, held: Held, mut watch: Watch, engine: Arc<Engine>, cached: Option<Arc<Cached>>) {
    const CODE: &str = "policies-invalid";
    while watch.next().await.is_some() {
        match look_up_policies(&folder, held).await {
            Ok(Ok(policies)) => {
                tracing::info!(digest = policies.digest, "policies were read again");
                cached.iter().for_each(|cached| cached.set_bound(stale_bound(held.max_stale, &policies)));
                if policies.digest != engine.policies().digest {
                    engine.set_policies(policies).await;
                }
                engine.set_problem(CODE, None);
            }
            Ok(Err(problems)) => {
                log_problems(&problems);
                let count = counted(problems.as_slice().len(), "problem", "problems");
                let message = format!("{count}: the last good policies stay in force; `keywright check` shows each with its place");
                engine.set_problem(CODE, Some(message));
            }
            Err(_) => engine.set_problem(CODE, Some("the policies can't be read; the last good ones stay in force".to_owned())),
        }
    }
}

/// Off the async threads: a disk can be slow.
async fn look_up_policies(folder: &Path, held: Held) -> Result<Result<Policies, Problems>, Failure> {
    let folder = folder.to_owned();
    blocking(move || read_policies(&folder, held)).await
}

fn log_problems(problems: &Problems) {
    for problem in problems.iter() {
        let (file, line, column) = (&problem.file, problem.line, problem.column);
        tracing::error!(file = file.as_str(), line, column, reason = problem.code, "{}", problem.message);
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Failure::failed("ended", "the daemon can't start", "a part of it broke; its log says which"))
}

pub(super) fn cannot_start(title: &str, error: &dyn std::error::Error) -> Failure {
    Failure::failed("cannot-start", title, error.to_string())
}
