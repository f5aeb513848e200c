//! Watches the rotation from outside: what the provider and the application tell, and what `status` shows.

use std::time::{Duration, Instant};

use crate::cli::client::Call;
use crate::cli::failure::Failure;
use crate::cli::views::{CredentialView, StatusView};

use super::application::{Application, INSTANCE, NAME};
use super::folder::{CREDENTIAL, MAX_AGE_SECONDS, OVERLAP_SECONDS};
use super::story::{News, Story, millis, seconds};
use super::{Stage, counted};

/// Names of keys at the provider that the daemon didn't make.
pub(super) const SUBMITTED: &str = "made in the dashboard";
pub(super) const SOMEBODY_ELSES: &str = "of another team";

const LOOK_EVERY: Duration = Duration::from_millis(50);
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Longer than any rotation of this policy takes: what isn't done by then has failed.
const WATCH_MAX: Duration = Duration::from_secs(MAX_AGE_SECONDS + 35);

/// What was seen, as far as the proof needs it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) first_version: Option<String>,
    pub(super) second_version: Option<String>,
    pub(super) confirmed: Vec<(String, u16)>,
    pub(super) made: Option<Instant>,
    pub(super) promoted: Option<Instant>,
    pub(super) deleted: Option<(Duration, Instant)>,
    due: bool,
    closed: bool,
}

pub(super) async fn watch(stage: &mut Stage, application: &Application, story: &mut Story) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut told = Instant::now();
    let deadline = Instant::now() + WATCH_MAX;
    let mut pushed_before = None;
    while !seen.closed && Instant::now() < deadline {
        tokio::select! {
            // News first: they happened before the look that shows their effect.
            biased;
            Some(news) = stage.news.recv() => seen.hear(news, story)?,
            _ = look.tick() => {
                let view: StatusView = stage.client.document(&format!("/v1/status/{CREDENTIAL}")).await?;
                if let Some(credential) = view.credentials.first() {
                    seen.look(credential, story)?;
                }
            }
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tell_the_day(&seen, application, story)?;
            if seen.made.is_none() {
                pushed_before = pushing_seconds(stage).await;
            }
        }
    }
    if let (Some(before), Some(after)) = (pushed_before, pushing_seconds(stage).await) {
        story.step(
            "measured",
            format!("{:.0} ms from the promotion until the application was served the new key", (after - before) * 1000.0),
        )?;
    }
    if !seen.closed {
        story.step("too late", "the rotation didn't end in time")?;
    }
    Ok(seen)
}

/// What all pushes took so far, as the daemon's own metrics say.
async fn pushing_seconds(stage: &Stage) -> Option<f64> {
    let reply = stage.client.send(Call::get("/metrics")).await.ok()?;
    let text = std::str::from_utf8(&reply.body).ok()?;
    text.lines().find_map(|line| line.strip_prefix("keywright_push_latency_seconds_sum ")?.trim().parse().ok())
}

/// While nothing happens: which day of the ninety it would be.
fn tell_the_day(seen: &Seen, application: &Application, story: &mut Story) -> Result<(), Failure> {
    let (accepted, refused, _) = counted(application);
    let day = story.elapsed().as_secs() * 90 / MAX_AGE_SECONDS;
    let what = if seen.promoted.is_some() { "both keys work" } else { "nothing is due" };
    story.step("", format!("as if it were day {day}: {what}; the application's key was accepted {accepted} times, refused {refused} times"))
}

impl Seen {
    fn hear(&mut self, news: News, story: &mut Story) -> Result<(), Failure> {
        match news {
            News::KeyMade { name, at } => {
                self.tell_due(None, story)?;
                self.made = Some(at);
                story.step("new key", format!("made at the provider under the name {name}"))
            }
            News::Pushed { version, .. } if self.first_version.is_none() => {
                self.first_version = Some(version.clone());
                story.step("application", format!("{NAME}/{INSTANCE} started and took {version} up from the stream"))
            }
            News::Pushed { version, at } if self.first_version.as_ref() != Some(&version) => {
                self.tell_promoted(&version, at, story)?;
                let since = self.made.map(|made| format!(", {} ms after the provider made it", millis(at.saturating_duration_since(made))));
                story.step("pushed", format!("{version} to {NAME}/{INSTANCE}{}", since.unwrap_or_default()))
            }
            News::Pushed { .. } => Ok(()),
            News::Confirmed { version, status } => {
                self.confirmed.push((version.clone(), status));
                match status {
                    204 => story.step("confirmed", format!("{NAME}/{INSTANCE} proved that it has {version} and uses nothing older")),
                    status => story.step("refused", format!("the confirmation of {version} was answered with {status}")),
                }
            }
            News::KeyDeleted { name, age, at } if name == SUBMITTED => {
                self.deleted = Some((age, at));
                let since =
                    self.promoted.map(|promoted| format!(", {} after the promotion", seconds(at.saturating_duration_since(promoted))));
                story.step("revoked", format!("the old key, {} old{}", seconds(age), since.unwrap_or_default()))
            }
            News::KeyDeleted { name, .. } => story.step("deleted", format!("the key named {name}")),
        }
    }

    fn look(&mut self, credential: &CredentialView, story: &mut Story) -> Result<(), Failure> {
        if !matches!(credential.phase.as_str(), "steady" | "missing") {
            self.tell_due(credential.reason.as_deref(), story)?;
        }
        if let (Some(first), Some(version)) = (&self.first_version, &credential.version)
            && first != version
        {
            self.tell_promoted(&version.clone(), Instant::now(), story)?;
        }
        self.closed = self.deleted.is_some() && self.second_version.is_some() && credential.phase == "steady";
        Ok(())
    }

    fn tell_due(&mut self, reason: Option<&str>, story: &mut Story) -> Result<(), Failure> {
        if std::mem::replace(&mut self.due, true) {
            return Ok(());
        }
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        story.step("due", format!("{CREDENTIAL} is rotated in time for its old key to be dead at {MAX_AGE_SECONDS} s{reason}"))
    }

    fn tell_promoted(&mut self, version: &str, at: Instant, story: &mut Story) -> Result<(), Failure> {
        if self.second_version.is_some() {
            return Ok(());
        }
        self.second_version = Some(version.to_owned());
        self.promoted = Some(at);
        story.step(
            "promoted",
            format!("{version} was stored, read back, proved and accepted: it is current; the old key works on for {OVERLAP_SECONDS} s"),
        )
    }
}
