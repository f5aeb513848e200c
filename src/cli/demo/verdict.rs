//! The proof at the end: what must be so is asked of the provider, of the application and of the disk.

use std::time::Duration;

use crate::cli::failure::Failure;
use crate::domain::ids::FieldName;
use crate::domain::material::{Material, Secret};
use crate::runtime::audit::verify as verify_chain;

use super::application::Application;
use super::folder::{Folder, MAX_AGE_SECONDS, OVERLAP_SECONDS};
use super::loopback::ask_token;
use super::provider::SimulatedProvider;
use super::scan::{Found, Scanner, finds_what_is_planted};
use super::story::{Claim, Story, seconds};
use super::watch::{SOMEBODY_ELSES, SUBMITTED, Seen};
use super::{Stage, counted, random};

/// Fewer looks than this in half a minute, and the application wasn't really there.
const CHECKS_MIN: u64 = 200;
/// What the promotion is seen later than it happened.
const SEEN_LATE: Duration = Duration::from_millis(500);

pub(super) async fn judge(
    stage: Stage,
    application: Application,
    first: &Material,
    seen: &Seen,
    story: &Story,
) -> Result<Vec<Claim>, Failure> {
    let mut claims = vec![
        old_key_is_dead(&stage.sandbox, first).await,
        never_a_dead_key(&application).await,
        confirmed(seen),
        in_time(seen),
        nobody_elses_key(&stage.sandbox),
        no_crossing(&stage.sandbox, &stage.production),
    ];
    application.stop().await;
    let Stage { folder, sandbox, production, daemon, token, .. } = stage;
    let audit_file = daemon.audit_file().to_owned();
    daemon.stop().await?;
    claims.push(audit_is_whole(&audit_file));
    claims.push(no_secret(&folder, &[&sandbox, &production], &token, story)?);
    Ok(claims)
}

fn claim(claim: &str, passed: bool, detail: String) -> Claim {
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

async fn never_a_dead_key(application: &Application) -> Claim {
    let alive = application.holds_a_living_key().await;
    let (accepted, refused, unanswered) = counted(application);
    let passed = alive && refused == 0 && unanswered == 0 && accepted >= CHECKS_MIN;
    let detail = format!("{} checks, {refused} refused, {unanswered} without an answer", accepted + refused + unanswered);
    claim("the application never held a dead key", passed, detail)
}

fn confirmed(seen: &Seen) -> Claim {
    let by = |version: &Option<String>| seen.confirmed.iter().any(|(name, status)| Some(name) == version.as_ref() && *status == 204);
    let passed = by(&seen.first_version) && by(&seen.second_version);
    let detail = format!("{} confirmations", seen.confirmed.len());
    claim("the application confirmed both versions by proof, not by value", passed, detail)
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

/// No orphan of ours, and nothing of anybody else's touched.
fn nobody_elses_key(sandbox: &SimulatedProvider) -> Claim {
    let truth = sandbox.truth();
    let living: Vec<&str> = truth.keys.iter().filter(|key| key.revoked.is_none()).map(|key| key.name.as_str()).collect();
    let ours = living.iter().filter(|name| name.starts_with("kw-")).count();
    let passed = ours == 1 && living.contains(&SOMEBODY_ELSES) && !living.contains(&SUBMITTED) && living.len() == 2;
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
