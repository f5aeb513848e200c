//! Watches the rotation from outside: what the provider and the application tell, and what `status` shows.

use std::time::{Duration, Instant};

use crate::cli::client::Call;
use crate::cli::failure::Failure;
use crate::cli::views::{CredentialView, IncidentView, StatusView};

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

/// Who declared an incident at another terminal watches it there: the daemon stays for their last look.
const STAY: Duration = Duration::from_secs(3);

/// What was seen, as far as the proof needs it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// In the order in which they became current.
    pub(super) versions: Vec<String>,
    /// By the instance that does what it should.
    pub(super) confirmed: Vec<(String, u16)>,
    pub(super) promoted: Option<Instant>,
    pub(super) deleted: Option<(Duration, Instant)>,
    /// What somebody at another terminal declared meanwhile, as `status` showed it last.
    pub(super) incident: Option<IncidentView>,
    /// Since when a key is known to be stolen.
    pub(super) declared: Option<Instant>,
    made: Option<Instant>,
    due: bool,
    /// Since when nothing is open any more.
    settled: Option<Instant>,
    ended: bool,
}

pub(super) async fn watch(stage: &mut Stage, application: &Application, story: &mut Story) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut told = Instant::now();
    let deadline = Instant::now() + WATCH_MAX;
    let mut pushed_before = None;
    while !seen.ended && Instant::now() < deadline {
        tokio::select! {
            // News first: they happened before the look that shows their effect.
            biased;
            Some(news) = stage.news.recv() => {
                if matches!(news, News::KeyMade { .. }) {
                    // Why it was made comes before it.
                    seen.look_once(stage, story).await?;
                }
                seen.hear(news, story)?;
            }
            _ = look.tick() => seen.look_once(stage, story).await?,
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tell_the_day(&seen, application, story)?;
            if seen.made.is_none() {
                pushed_before = pushing_seconds(stage).await;
            }
        }
    }
    // After an incident there may be several pushes in the sum.
    if let (Some(before), Some(after), None) = (pushed_before, pushing_seconds(stage).await, &seen.incident) {
        story.step(
            "measured",
            format!("{:.0} ms from the promotion until the application was served the new key", (after - before) * 1000.0),
        )?;
    }
    if !seen.ended {
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
    let what = match (seen.incident.is_some(), seen.promoted.is_some()) {
        (true, _) => "a key is stolen",
        (false, true) => "both keys work",
        (false, false) => "nothing is due",
    };
    story.step("", format!("as if it were day {day}: {what}; the application's key was accepted {accepted} times, refused {refused} times"))
}

/// One look at the credential, as any operator may take.
pub(super) async fn status(stage: &Stage) -> Result<Option<CredentialView>, Failure> {
    let mut view: StatusView = stage.client.document(&format!("/v1/status/{CREDENTIAL}")).await?;
    Ok(view.credentials.pop())
}

impl Seen {
    /// Whether the old key is dead and nothing is open.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn hear(&mut self, news: News, story: &mut Story) -> Result<(), Failure> {
        match news {
            News::KeyMade { name, at } => {
                self.tell_due(None, story)?;
                self.made = Some(at);
                story.step("new key", format!("made at the provider under the name {name}"))
            }
            News::Pushed { instance, version, .. } if self.versions.is_empty() || instance != INSTANCE => {
                if self.versions.is_empty() {
                    self.versions.push(version.clone());
                }
                story.step("application", format!("{NAME}/{instance} started and took {version} up from the stream"))
            }
            News::Pushed { instance, version, at } if self.versions.first() != Some(&version) => {
                self.tell_promoted(&version, at, story)?;
                let since = self.made.map(|made| format!(", {} ms after the provider made it", millis(at.saturating_duration_since(made))));
                story.step("pushed", format!("{version} to {NAME}/{instance}{}", since.unwrap_or_default()))
            }
            News::Pushed { .. } => Ok(()),
            News::Confirmed { instance, version, status } => {
                if instance == INSTANCE {
                    self.confirmed.push((version.clone(), status));
                }
                match status {
                    204 => story.step("confirmed", format!("{NAME}/{instance} proved that it has {version} and uses nothing older")),
                    status => story.step("refused", format!("the confirmation of {version} was answered with {status}")),
                }
            }
            News::KeyDeleted { name, age, at } if name == SUBMITTED => {
                self.deleted = Some((age, at));
                let after =
                    self.promoted.map(|promoted| format!(", {} after the promotion", seconds(at.saturating_duration_since(promoted))));
                story.step("revoked", format!("the old key, {} old{}", seconds(age), after.unwrap_or_default()))
            }
            News::KeyDeleted { name, age, at } => match self.declared {
                Some(declared) => {
                    let after = seconds(at.saturating_duration_since(declared));
                    story.step("revoked", format!("the key named {name}, {} old, {after} after it was declared stolen", seconds(age)))
                }
                None => story.step("deleted", format!("the key named {name}")),
            },
        }
    }

    async fn look_once(&mut self, stage: &Stage, story: &mut Story) -> Result<(), Failure> {
        match status(stage).await? {
            Some(credential) => self.look(&credential, story),
            None => Ok(()),
        }
    }

    fn look(&mut self, credential: &CredentialView, story: &mut Story) -> Result<(), Failure> {
        if let Some(incident) = &credential.incident {
            self.tell_incident(incident, story)?;
        }
        if !matches!(credential.phase.as_str(), "steady" | "missing") {
            self.tell_due(credential.reason.as_deref(), story)?;
        }
        if let Some(version) = credential.version.as_ref().filter(|_| !self.versions.is_empty()) {
            self.tell_promoted(&version.clone(), Instant::now(), story)?;
        }
        let is_confirmed = |version: &String| self.confirmed.contains(&(version.clone(), 204));
        let settled = match &credential.incident {
            Some(incident) => incident.closed_at.is_some() && credential.version.as_ref().is_some_and(is_confirmed),
            None => true,
        };
        if !(settled && self.deleted.is_some() && self.versions.len() > 1 && credential.phase == "steady") {
            self.settled = None;
            return Ok(());
        }
        let stay = if self.incident.is_some() { STAY } else { Duration::ZERO };
        self.ended = self.settled.get_or_insert_with(Instant::now).elapsed() >= stay;
        Ok(())
    }

    fn tell_due(&mut self, reason: Option<&str>, story: &mut Story) -> Result<(), Failure> {
        if std::mem::replace(&mut self.due, true) {
            return Ok(());
        }
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        story.step("due", format!("{CREDENTIAL} is rotated in time for its old key to be dead at {MAX_AGE_SECONDS} s{reason}"))
    }

    /// Somebody at another terminal ran `rotate --compromised`: from then on it is another story.
    fn tell_incident(&mut self, incident: &IncidentView, story: &mut Story) -> Result<(), Failure> {
        let is_new = self.incident.as_ref().and_then(|known| known.since) != incident.since;
        self.incident = Some(incident.clone());
        if !is_new {
            return Ok(());
        }
        (self.due, self.declared) = (true, Some(Instant::now()));
        let left = incident.since.zip(incident.limit_at).map(|(since, limit)| limit.duration_since(since).as_secs());
        let (version, left) = (incident.version.as_deref().unwrap_or("the key"), left.unwrap_or_default());
        story.step("stolen", format!("an operator says that {version} is in other hands: whoever still holds it in {left} s loses it"))
    }

    fn tell_promoted(&mut self, version: &str, at: Instant, story: &mut Story) -> Result<(), Failure> {
        if self.versions.iter().any(|known| known == version) {
            return Ok(());
        }
        self.versions.push(version.to_owned());
        self.promoted.get_or_insert(at);
        let old = match self.declared {
            Some(_) => "the stolen key dies as soon as nobody holds it, and at the limit at the latest".to_owned(),
            None => format!("the old key works on for {OVERLAP_SECONDS} s"),
        };
        story.step("promoted", format!("{version} was stored, read back, proved and accepted: it is current; {old}"))
    }
}
