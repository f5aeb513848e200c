//! The proof at the end: what must be so is asked of the provider, of the application and of the disk.

use std::time::Duration;

use crate::cli::failure::Failure;
use crate::cli::views::{HolderView, IncidentView};
use crate::domain::ids::FieldName;
use crate::domain::material::{Material, Secret};
use crate::runtime::audit::verify as verify_chain;

use super::application::{Application, INSTANCE, NAME};
use super::folder::{Folder, MAX_AGE_SECONDS, OVERLAP_SECONDS};
use super::loopback::ask_token;
use super::provider::SimulatedProvider;
use super::scan::{Found, Scanner, finds_what_is_planted};
use super::stolen::{self, Theft};
use super::story::{Claim, Story, seconds};
use super::watch::{SOMEBODY_ELSES, Seen};
use super::{Stage, counted, random};

/// Fewer looks than this in half a minute, and the application wasn't really there.
const CHECKS_MIN: u64 = 200;
/// One that was there for a shorter time had a chance of so many each second.
const CHECKS_PER_SECOND_MIN: u64 = 7;
/// What the promotion is seen later than it happened.
pub(super) const SEEN_LATE: Duration = Duration::from_millis(500);

pub(super) async fn judge(
    stage: Stage,
    application: Application,
    first: &Material,
    seen: &Seen,
    theft: Option<Theft>,
    story: &Story,
) -> Result<Vec<Claim>, Failure> {
    let mut claims = vec![
        old_key_is_dead(&stage.sandbox, first).await,
        never_a_dead_key(&application, seen, story.elapsed()).await,
        confirmed(seen),
        seen.incident.as_ref().map_or_else(|| in_time(seen), told_of_incident),
        nobody_elses_key(&stage.sandbox, theft.is_some()),
        no_crossing(&stage.sandbox, &stage.production),
    ];
    if let Some(theft) = &theft {
        claims.extend(theft.claims(&stage, &application).await?);
    }
    application.stop().await;
    let Stage { folder, sandbox, production, daemon, token, .. } = stage;
    let audit_file = daemon.audit_file().to_owned();
    daemon.stop().await?;
    if let Some(theft) = theft {
        claims.push(stolen::is_on_record(&audit_file));
        theft.stop().await;
    }
    claims.push(audit_is_whole(&audit_file));
    claims.push(no_secret(&folder, &[&sandbox, &production], &token, story)?);
    Ok(claims)
}

pub(super) fn claim(claim: &str, passed: bool, detail: String) -> Claim {
    Claim { claim: claim.to_owned(), passed, detail }
}

async fn old_key_is_dead(sandbox: &SimulatedProvider, first: &Material) -> Claim {
    let field = |name: &str| name.parse::<FieldName>().ok().and_then(|name| first.get(&name));
    let status = match (field("client_id"), field("client_secret")) {
        (Some(client_id), Some(secret)) => ask_token(sandbox.address, client_id, secret).await,
        _ => None,
    };
    let answer = status.map_or("nothing".to_owned(), |status| status.as_u16().to_string());
    claim("the old key is dead", answer == "401", format!("the provider answers it with {answer}"))
}

async fn never_a_dead_key(application: &Application, seen: &Seen, lived: Duration) -> Claim {
    let alive = application.holds_a_living_key().await;
    let (accepted, refused, unanswered) = counted(application);
    let checks = accepted + refused + unanswered;
    let detail = format!("{checks} checks, {refused} refused, {unanswered} without an answer");
    // Somebody else's incident may end the story early; a key that it killed at its limit is as they ordered.
    let Some(incident) = &seen.incident else {
        let passed = alive && refused == 0 && unanswered == 0 && accepted >= CHECKS_MIN;
        return claim("the application never held a dead key", passed, detail);
    };
    let was_there = accepted >= CHECKS_MIN.min(lived.as_secs() * CHECKS_PER_SECOND_MIN);
    let is_named = incident.stragglers.iter().any(|holder| holder.application == NAME && holder.instance.as_deref() == Some(INSTANCE));
    if is_named {
        let title = "the application is named as holding the stolen key at the limit, and holds a living one now";
        return claim(title, alive && unanswered == 0 && was_there, detail);
    }
    claim("the application never held a dead key", alive && refused == 0 && unanswered == 0 && was_there, detail)
}

fn confirmed(seen: &Seen) -> Claim {
    let by = |version: &String| seen.confirmed.contains(&(version.clone(), 204));
    let passed = seen.versions.len() > 1 && seen.versions.iter().all(by);
    let title = match seen.versions.len() {
        2 => "the application confirmed both versions by proof, not by value".to_owned(),
        versions => format!("the application confirmed all {versions} versions by proof, not by value"),
    };
    claim(&title, passed, format!("{} confirmations", seen.confirmed.len()))
}

fn in_time(seen: &Seen) -> Claim {
    let title = format!("the old key died before {MAX_AGE_SECONDS} s of age and after {OVERLAP_SECONDS} s of overlap");
    let (Some((age, deleted)), Some(promoted)) = (seen.deleted, seen.promoted) else {
        return claim(&title, false, "it wasn't revoked".to_owned());
    };
    let overlap = deleted.saturating_duration_since(promoted);
    let passed = age < Duration::from_secs(MAX_AGE_SECONDS) && overlap + SEEN_LATE >= Duration::from_secs(OVERLAP_SECONDS);
    claim(&title, passed, format!("{} old, {} after the promotion", seconds(age), seconds(overlap)))
}

/// An incident that somebody at another terminal declared: it is over, and what it says of itself is whole.
fn told_of_incident(incident: &IncidentView) -> Claim {
    let title = "the key that was declared stolen is dead, at the limit at the latest, and the report is complete";
    let closed = incident.closed_at.is_some() && incident.closure.as_deref() == Some("proved");
    let (Some(since), Some(limit), Some(died), Some(unknown)) =
        (incident.since, incident.limit_at, incident.revoked_at, &incident.unknown_keys)
    else {
        return claim(title, false, "the report has no times or no list of unknown keys".to_owned());
    };
    let latest = limit.checked_add(stolen::SOON).unwrap_or(limit);
    let took = Duration::try_from(died.duration_since(since)).unwrap_or_default();
    let stragglers: Vec<String> = incident.stragglers.iter().map(HolderView::text).collect();
    let named = if stragglers.is_empty() { "nobody held it then".to_owned() } else { format!("still held by {}", stragglers.join(", ")) };
    let detail = format!("dead {} after it was declared stolen, proved; {named}; {} unknown keys", seconds(took), unknown.len());
    claim(title, closed && died <= latest && unknown.is_empty(), detail)
}

/// No orphan of ours, and nothing of anybody else's touched: a thief's neither.
fn nobody_elses_key(sandbox: &SimulatedProvider, with_a_thief: bool) -> Claim {
    let truth = sandbox.truth();
    let living: Vec<&str> = truth.keys.iter().filter(|key| key.revoked.is_none()).map(|key| key.name.as_str()).collect();
    let ours = living.iter().filter(|name| name.starts_with("kw-")).count();
    let others: Vec<&str> = [SOMEBODY_ELSES].into_iter().chain(with_a_thief.then_some(stolen::THIEFS)).collect();
    let passed = ours == 1 && others.iter().all(|name| living.contains(name)) && living.len() == 1 + others.len();
    let detail = format!("{ours} living key of ours, {} of others", living.len() - ours);
    claim("no key was left behind, and the other team's key is untouched", passed, detail)
}

fn no_crossing(sandbox: &SimulatedProvider, production: &SimulatedProvider) -> Claim {
    let strangers = sandbox.truth().strangers + production.truth().strangers;
    let detail = format!("{strangers} calls with a key of the other environment");
    claim("no key was sent to the other environment", strangers == 0, detail)
}

fn audit_is_whole(file: &std::path::Path) -> Claim {
    let (passed, detail) = match verify_chain(file, None) {
        Ok(verified) => (verified.records > 0, format!("{} records verified", verified.records)),
        Err(error) => (false, error.to_string()),
    };
    claim("the audit trail is whole", passed, detail)
}

fn no_secret(folder: &Folder, providers: &[&SimulatedProvider], token: &str, story: &Story) -> Result<Claim, Failure> {
    let mut scanner = Scanner::default();
    let mut values = 1;
    scanner.add(token.as_bytes());
    for provider in providers {
        let truth = provider.truth();
        truth.keys.iter().for_each(|key| scanner.add(random_part(&key.secret)));
        truth.tokens.keys().for_each(|token| scanner.add(token.trim_start_matches("dinie_at_").as_bytes()));
        values += truth.keys.len() + truth.tokens.len();
    }
    let mut found = Found::default();
    scanner.look_through(folder.path(), &mut found).map_err(|error| Failure::io("looking through what was written", &error))?;
    if scanner.hits(story.text().as_bytes()) {
        found.leaks.push("what the demo printed".to_owned());
    }
    let control = random::letters(32).is_some_and(|planted| finds_what_is_planted(planted.as_bytes()));
    let mut detail = format!("{} files, {} bytes looked through for {values} values, raw, base64 and hex", found.files, found.bytes);
    if !found.leaks.is_empty() {
        detail = format!("{detail}; found in {}", found.leaks.join(", "));
    }
    if !control {
        detail.push_str("; but the search misses what is planted");
    }
    Ok(claim(
        "no secret in the log, the audit trail, on disk or on the screen",
        found.leaks.is_empty() && control && found.files >= 4,
        detail,
    ))
}

/// Without what all secrets of this provider begin with.
fn random_part(secret: &Secret) -> &[u8] {
    let bytes = secret.expose();
    bytes.strip_prefix(b"dinie_cs_live_").unwrap_or(bytes)
}
