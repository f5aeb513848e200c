//! `demo`: the whole job in about a minute, through the real daemon: 90 days made short, each step told, and proved at
//! the end.

mod application;
mod folder;
mod loopback;
mod provider;
mod random;
mod scan;

mod stolen;
mod story;
mod verdict;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::domain::credential::Environment;
use crate::domain::material::Material;
use crate::runtime::shutdown::Shutdown;

use super::client::{Call, Client, SUBMIT_TIMEOUT};
use super::daemon::{DaemonHandle, start_daemon};
use super::failure::Failure;
use super::run::prepare_process;
use super::settings::Settings;
use super::submit::submission;
use super::terminal::Terminal;
use super::views::ProofView;
use application::{Application, INSTANCE, Manner, Surroundings};
use folder::{CREDENTIAL, Folder, MAX_AGE_SECONDS, OVERLAP_SECONDS, Places};
use provider::SimulatedProvider;
use story::{Claim, News, NewsSender, Story, millis, news_channel, seconds};

#[derive(Debug, clap::Args)]
pub(super) struct DemoArguments {
    /// Then tell a second chapter: the new key is stolen, and replaced within seconds
    #[arg(long)]
    stolen: bool,
    /// Keep what is written in this folder, which must be new or empty
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(super) async fn demo(options: DemoArguments, terminal: Terminal) -> Result<ExitCode, Failure> {
    tokio::select! {
        result = Box::pin(perform(options, terminal)) => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::failed("interrupted", "the demo was interrupted", "nothing is left of it")),
    }
}

/// Everything that takes part.
struct Stage {
    folder: Folder,
    sandbox: SimulatedProvider,
    production: SimulatedProvider,
    daemon: DaemonHandle,
    client: Client,
    token: Zeroizing<String>,
    news: mpsc::Receiver<News>,
    sender: NewsSender,
}

async fn perform(options: DemoArguments, terminal: Terminal) -> Result<ExitCode, Failure> {
    let mut story = Story::begin(terminal);
    let mut stage = Box::pin(set_the_stage(&options, &mut story)).await?;
    offer_a_production_key(&stage, &mut story).await?;
    let first = make_first_keys(&stage)?;
    enrol(&stage, &first, &mut story).await?;
    let application = start_application(&stage, INSTANCE, Manner::TakesUp);
    let mut seen = watch::watch(&mut stage, &application, &mut story).await?;
    let theft = match options.stolen && seen.has_ended() {
        true => Some(Box::pin(stolen::tell(&mut stage, &mut seen, &mut story)).await?),
        false => None,
    };
    let cut_short = options.stolen && theft.is_none();
    let report = theft.as_ref().map(|theft| theft.report.clone());
    let mut claims = Box::pin(verdict::judge(stage, application, &first, &seen, theft, &story)).await?;
    if cut_short {
        claims.push(verdict::claim("the second chapter was told", false, "the first one didn't end in time".to_owned()));
    }
    conclude(&claims, report.as_ref(), &story, &options, terminal)
}

async fn set_the_stage(options: &DemoArguments, story: &mut Story) -> Result<Stage, Failure> {
    let failed = |error: std::io::Error| Failure::io("setting up the demo", &error);
    let folder = Folder::make(options.keep.as_deref()).map_err(failed)?;
    let (sender, news) = news_channel();
    let sandbox = SimulatedProvider::start(Environment::Sandbox, sender.clone()).await.map_err(failed)?;
    let production = SimulatedProvider::start(Environment::Production, sender.clone()).await.map_err(failed)?;
    let token = random::letters(40).ok_or_else(|| Failure::io("asking for randomness", &std::io::ErrorKind::Other.into()))?;
    let hash = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()));
    let places = Places {
        api: free_address().map_err(failed)?,
        sandbox: &sandbox.base_url(),
        production: &production.base_url(),
        token_sha256: &hash,
    };
    folder.write(&places).map_err(failed)?;
    story.step("provider", format!("a simulated Dinie listens: sandbox {}, production {}", sandbox.address, production.address))?;

    prepare_process(Some(&folder.log()))?;
    let config = Settings::new(Some(folder.configuration())).config()?;
    let daemon = start_daemon(config, Shutdown::new()).await?;
    let client = Client::new(daemon.socket());
    story.step(
        "daemon",
        format!("ready at {} and on its socket; configuration, policies and log in {}", places.api, folder.path().display()),
    )?;
    story.more(format!("policy: {MAX_AGE_SECONDS} s stand for 90 days; old and new key work side by side for {OVERLAP_SECONDS} s"))?;
    Ok(Stage { folder, sandbox, production, daemon, client, token, news, sender })
}

/// A port that was free a moment ago: the configuration names it, as any configuration does.
fn free_address() -> std::io::Result<std::net::SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

async fn offer_a_production_key(stage: &Stage, story: &mut Story) -> Result<(), Failure> {
    let material = stage.production.make_by_hand("made in the dashboard").map_err(|error| Failure::io("making a key", &error))?;
    match submit(stage, &material).await {
        Ok(_) => story.step("accepted", format!("a production key was taken for {CREDENTIAL}: this must not happen")),
        Err(failure) => {
            story.step("refused", format!("a production key, offered to {CREDENTIAL}"))?;
            story.more(failure.problem.detail.unwrap_or(failure.problem.title))
        }
    }
}

/// Ours, as a person would get it from the dashboard, and one that belongs to somebody else in the same account.
fn make_first_keys(stage: &Stage) -> Result<Material, Failure> {
    let failed = |error: std::io::Error| Failure::io("making a key", &error);
    stage.sandbox.make_by_hand(watch::SOMEBODY_ELSES).map_err(failed)?;
    stage.sandbox.make_by_hand(watch::SUBMITTED).map_err(failed)
}

#[derive(Deserialize)]
struct SubmittedView {
    version: String,
    proof: ProofView,
}

async fn submit(stage: &Stage, material: &Material) -> Result<SubmittedView, Failure> {
    let path = format!("/v1/credentials/{CREDENTIAL}/submission");
    let call = Call { body: Some(submission(material, false)), timeout: SUBMIT_TIMEOUT, ..Call::new(Method::PUT, path) };
    stage.client.send(call).await?.parse()
}

async fn enrol(stage: &Stage, material: &Material, story: &mut Story) -> Result<(), Failure> {
    let submitted = submit(stage, material).await?;
    story.step("enrolled", format!("{CREDENTIAL} {}, proof of its environment: {}", submitted.version, submitted.proof.verdict))?;
    for piece in submitted.proof.evidence.iter().filter(|piece| piece.says == "for") {
        story.more(format!("{}: {}", piece.kind, piece.why))?;
    }
    Ok(())
}

fn start_application(stage: &Stage, instance: &'static str, manner: Manner) -> Application {
    let (daemon, provider) = (stage.daemon.address(), stage.sandbox.address);
    Application::start(Surroundings { instance, manner, daemon, provider, token: stage.token.clone(), news: stage.sender.clone() })
}

fn conclude(
    claims: &[Claim],
    report: Option<&Value>,
    story: &Story,
    options: &DemoArguments,
    terminal: Terminal,
) -> Result<ExitCode, Failure> {
    let passed = claims.iter().all(|claim| claim.passed);
    if terminal.json {
        let document = json!({
            "passed": passed, "elapsed_ms": millis(story.elapsed()), "claims": claims, "steps": story.steps, "kept": options.keep,
            "report": report,
        });
        terminal.print_json(&document)?;
    } else {
        terminal.print("\nproof")?;
        for claim in claims {
            story.claim(claim)?;
        }
        let word = if passed { "all of it is so" } else { "NOT all of it is so" };
        terminal.print(&format!("\n{word}, after {}", seconds(story.elapsed())))?;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How often the application's key was accepted, refused, and not answered.
fn counted(application: &Application) -> (u64, u64, u64) {
    let counts = application.counts();
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    (read(&counts.accepted), read(&counts.refused), read(&counts.unanswered))
}
