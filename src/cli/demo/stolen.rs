//! The second chapter: the key that is in use is stolen. One instance takes its successor up, one doesn't, and the thief has made
//! a key as well. The same code replaces it as in `keywright rotate --compromised`.

use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::rotate::{Board, Request, Row, report, report_text, watch_all};
use crate::domain::material::Secret;

use super::application::{Application, INSTANCE, Manner, NAME};
use super::folder::CREDENTIAL;
use super::loopback::ask_token;
use super::story::{Claim, Story, seconds};
use super::verdict::{SEEN_LATE, claim};
use super::watch::{Seen, status};
use super::{Stage, start_application};

/// The instance that never takes a new version up.
const STRAGGLER: &str = "demo-2";
/// The name of the key that the thief made at the provider.
pub(super) const THIEFS: &str = "made by a thief";
const WITHIN: Duration = Duration::from_secs(6);
const REASON: &str = "DEMO-1: found in a public repository";
/// How late a key may die after the limit: the current one is verified afresh before it, and a busy machine takes its time.
pub(super) const SOON: Duration = Duration::from_secs(10);
const TAKE_UP_MAX: Duration = Duration::from_secs(10);

/// What the proof needs to know of it.
pub(super) struct Theft {
    straggler: Application,
    declared: Instant,
    /// The stolen key at the provider.
    client_id: String,
    version: String,
    thiefs: String,
    /// What the command says at its end, as `--json` prints it.
    pub(super) report: Value,
}

pub(super) async fn tell(stage: &mut Stage, seen: &mut Seen, story: &mut Story) -> Result<Theft, Failure> {
    let straggler = start_application(stage, STRAGGLER, Manner::KeepsTheFirst);
    let version = until_it_holds(&straggler, stage, seen, story).await?;
    story.more("it will go on with this one, whatever comes")?;
    let (client_id, thiefs) = rob(stage)?;
    story.step("thief", format!("has a copy of {version}, and made another key at the provider: {thiefs}"))?;
    let command = format!("keywright rotate {CREDENTIAL} --compromised --within {}s --reason '{REASON}'", WITHIN.as_secs());
    story.step("stolen", command)?;
    let declared = Instant::now();
    seen.declared = Some(declared);
    let mut rows = [Row::new(CREDENTIAL.parse().map_err(|_| broken("the name of the credential"))?)];
    replace(&mut rows, stage, seen, story).await?;
    story.step("report", "what the command says at its end")?;
    let text = anstream::adapter::strip_str(&report_text(&rows, true)).to_string();
    for line in text.lines().filter(|line| !line.is_empty()) {
        story.more(line)?;
    }
    Ok(Theft { straggler, declared, client_id, version, thiefs, report: report(&rows, true) })
}

fn broken(what: &str) -> Failure {
    Failure::failed("demo", "the demo can't go on", format!("{what} isn't as it should be"))
}

/// The version that it holds.
async fn until_it_holds(straggler: &Application, stage: &mut Stage, seen: &mut Seen, story: &mut Story) -> Result<String, Failure> {
    let deadline = Instant::now() + TAKE_UP_MAX;
    let confirmed = |story: &Story| story.steps.iter().any(|step| step.step == "confirmed" && step.text.contains(STRAGGLER));
    while !confirmed(story) {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, stage.news.recv()).await {
            Ok(Some(news)) => seen.hear(news, story)?,
            _ => return Err(broken("the second instance")),
        }
    }
    straggler.version().await.ok_or_else(|| broken("the second instance"))
}

/// Client ids: of the key that is in use, and of one that the thief made.
fn rob(stage: &Stage) -> Result<(String, String), Failure> {
    stage.sandbox.make_by_hand(THIEFS).map_err(|error| Failure::io("making a key", &error))?;
    let truth = stage.sandbox.truth();
    let living = |is_it: &dyn Fn(&str) -> bool| {
        let key = truth.keys.iter().rfind(|key| key.revoked.is_none() && is_it(&key.name));
        key.map(|key| key.client_id.clone()).ok_or_else(|| broken("the provider's list of keys"))
    };
    Ok((living(&|name| name.starts_with("kw-"))?, living(&|name| name == THIEFS)?))
}

/// What the command does; its board is told line by line.
async fn replace(rows: &mut [Row], stage: &mut Stage, seen: &mut Seen, story: &mut Story) -> Result<(), Failure> {
    let reason = REASON.parse().map_err(|_| broken("the reason"))?;
    let request = Request { compromised_within: Some(WITHIN), reason: Some(reason), at_once: 1 };
    let (tell, mut told) = mpsc::unbounded_channel();
    // Nobody listens any more only after an error, which is told then.
    let board = Board::Lines(Box::new(move |line| tell.send(line).unwrap_or_default()));
    let client = Client::new(stage.daemon.socket());
    let mut watching = pin!(watch_all(rows, &request, &client, board));
    loop {
        tokio::select! {
            // News first: they happened before the look that shows their effect.
            biased;
            Some(news) = stage.news.recv() => seen.hear(news, story)?,
            Some(line) = told.recv() => story.step("board", line)?,
            () = &mut watching => break,
        }
    }
    while let Ok(news) = stage.news.try_recv() {
        seen.hear(news, story)?;
    }
    while let Ok(line) = told.try_recv() {
        story.step("board", line)?;
    }
    Ok(())
}

impl Theft {
    /// Asked of the provider, of the application, of the daemon, and of the report.
    pub(super) async fn claims(&self, stage: &Stage, application: &Application) -> Result<Vec<Claim>, Failure> {
        let entry = self.report.pointer("/credentials/0").cloned().unwrap_or_default();
        let current = status(stage).await?.and_then(|credential| credential.version);
        let used = application.version().await;
        let (stolen, took) = self.answer(stage, &self.client_id).await;
        let (thiefs, touched) = self.answer(stage, &self.thiefs).await;
        let took_text = took.map_or_else(|| "never revoked".to_owned(), |took| format!("revoked after {}", seconds(took)));
        let stuck = self.straggler.version().await;
        let stragglers = json!([{"application": NAME, "instance": STRAGGLER}]);
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or("nothing").to_owned();
        let complete = self.report["done"] == true
            && (text("outcome"), text("old_closure"), &text("old_version")) == ("done".to_owned(), "proved".to_owned(), &self.version)
            && text("old_died_at").parse::<jiff::Timestamp>().is_ok();
        Ok(vec![
            claim(
                "the stolen key was dead within seconds",
                stolen == Some(StatusCode::UNAUTHORIZED) && took.is_some_and(|took| took <= WITHIN + SOON),
                format!("{took_text}, with a limit of {}; the provider answers it with {}", seconds(WITHIN), said(stolen)),
            ),
            claim(
                "the application uses its successor",
                used.is_some() && used == current && used == entry["version"].as_str().map(str::to_owned),
                format!("{NAME}/{INSTANCE} has {}", used.as_deref().unwrap_or("nothing")),
            ),
            claim(
                "the straggler was waited for until the limit, and is named",
                entry["stragglers"] == stragglers
                    && took.is_some_and(|took| took + SEEN_LATE >= WITHIN)
                    && stuck.as_ref() == Some(&self.version)
                    && !self.straggler.holds_a_living_key().await,
                format!("{NAME}/{STRAGGLER} still has {}, which is refused", stuck.as_deref().unwrap_or("nothing")),
            ),
            claim(
                "the thief's key is named, and left to a person",
                entry["unknown_keys"] == json!([self.thiefs]) && thiefs == Some(StatusCode::OK) && touched.is_none(),
                format!("{} lives until somebody revokes it at the provider", self.thiefs),
            ),
            claim("the report is complete", complete, format!("{} {}, {}", text("old_version"), text("outcome"), text("old_closure"))),
        ])
    }

    /// What the provider answers who shows this key, and when it was revoked after the theft was declared.
    async fn answer(&self, stage: &Stage, client_id: &str) -> (Option<StatusCode>, Option<Duration>) {
        let key = {
            let truth = stage.sandbox.truth();
            truth.keys.iter().find(|key| key.client_id == client_id).map(|key| (key.secret.duplicate(), key.revoked))
        };
        let Some((secret, revoked)) = key else { return (None, None) };
        let status = ask_token(stage.sandbox.address, &Secret::from(client_id.to_owned()), &secret).await;
        (status, revoked.map(|revoked| revoked.saturating_duration_since(self.declared)))
    }

    pub(super) async fn stop(self) {
        self.straggler.stop().await;
    }
}

fn said(status: Option<StatusCode>) -> String {
    status.map_or("nothing".to_owned(), |status| status.as_u16().to_string())
}

/// Who declared it, why, and what the daemon made of it.
pub(super) fn is_on_record(file: &Path) -> Claim {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let records: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of =
        |action: &str| records.iter().filter(|record| record["action"] == action && record["credential"] == CREDENTIAL).collect::<Vec<_>>();
    let declared = of("rotation-requested").into_iter().find(|record| {
        let detail = record["detail"].as_str().unwrap_or_default();
        detail.starts_with("compromised") && detail.ends_with(&format!("reason: {REASON}"))
    });
    let who = declared.and_then(|record| record.pointer("/actor/operator/who")).and_then(Value::as_str);
    let passed = who.is_some() && !of("compromised").is_empty() && !of("incident-closed").is_empty();
    claim("the audit trail has who declared it, and why", passed, format!("{}: {REASON}", who.unwrap_or("nobody")))
}
