//! Confirmations: only once the new program has run for a time, or a check of it passed. Sent earlier, one would have the old key
//! revoked while the program may still come to grief with the new one.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use super::children::{Child, Children, Ended};
use super::daemon::Daemon;
use super::document::{Document, Documents, named};
use super::follow::{spread, told};
use super::{is_passing, say};
use crate::cli::failure::Failure;
use crate::cli::terminal::Terminal;
use crate::domain::ids::FieldName;

/// A check that takes longer has failed.
const CHECK_TIME_MAX: Duration = Duration::from_secs(60);
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// What has to be so before anything is confirmed.
pub(super) struct Proof {
    /// How long the program has to run first.
    pub(super) settle: Duration,
    /// What then has to pass.
    pub(super) check: Option<Command>,
}

/// Confirms all of them, as soon as it may. Dropped when the program ends, or a newer version comes: then nothing was said.
pub(super) async fn confirm(daemon: Arc<Daemon>, children: Children, documents: Documents, proof: Proof, terminal: Terminal) {
    sleep(proof.settle).await;
    if let Some(check) = proof.check {
        until_passed(&children, check, terminal).await;
    }
    let mut confirmed = Vec::new();
    for document in documents.values() {
        if let Err(failure) = until_confirmed(&daemon, document, terminal).await {
            say(terminal, &format!("{} {} couldn't be confirmed: {}", document.name, document.version, told(&failure)));
        } else {
            confirmed.push(document);
        }
    }
    if !confirmed.is_empty() {
        say(terminal, &format!("confirmed: {}", named(confirmed)));
    }
}

/// Killed if nobody waits for it any more.
struct Check(Child);

impl Drop for Check {
    fn drop(&mut self) {
        self.0.signal(Signal::KILL);
    }
}

async fn until_passed(children: &Children, mut check: Command, terminal: Terminal) {
    check.stdin(Stdio::null()).stdout(Stdio::null());
    let (mut again, mut said) = (AGAIN_FIRST, String::new());
    loop {
        let failed = match children.start(&mut check) {
            Ok(child) => {
                let mut running = Check(child);
                match timeout(CHECK_TIME_MAX, running.0.ended()).await {
                    Ok(Ended::Exited(0)) => return,
                    Ok(ended) => ended.to_string(),
                    Err(_) => format!("it took longer than {} seconds", CHECK_TIME_MAX.as_secs()),
                }
            }
            Err(error) => format!("it can't be started: {}", error.kind()),
        };
        if failed != said {
            say(terminal, &format!("the check didn't pass ({failed}): nothing is confirmed, it is tried again"));
            said = failed;
        }
        sleep(again).await;
        again = (again * 2).min(AGAIN_MAX);
    }
}

/// # Errors
/// What doesn't pass by itself.
async fn until_confirmed(daemon: &Daemon, document: &Document, terminal: Terminal) -> Result<(), Failure> {
    let (mut again, mut said) = (AGAIN_FIRST, false);
    loop {
        let failure = match confirm_once(daemon, document).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        // Not its newest: the daemon was away for long, and serves us anew when our stream is back.
        let passes = is_passing(&failure) || matches!(failure.problem.slug(), "version-conflict" | "unauthenticated" | "io");
        if !passes {
            return Err(failure);
        }
        if !said {
            say(terminal, &format!("{} {} isn't confirmed yet: {}", document.name, document.version, told(&failure)));
            said = true;
        }
        sleep(spread(again)).await;
        again = (again * 2).min(AGAIN_MAX);
    }
}

/// The daemon knows which fields are secret, and says `wrong-proof` to the others.
async fn confirm_once(daemon: &Daemon, document: &Document) -> Result<(), Failure> {
    let mut refused = None;
    for field in likely_first(document) {
        match daemon.confirm(document, &field).await {
            Err(failure) if failure.problem.slug() == "wrong-proof" => refused = Some(failure),
            answered => return answered,
        }
    }
    Err(refused.unwrap_or_else(|| Failure::failed("no-field", "there is no field to prove it with", "the credential has no fields")))
}

/// Fields by how likely they are to be secret, so that mostly the first one is right.
fn likely_first(document: &Document) -> Vec<FieldName> {
    const SECRET: [&str; 5] = ["secret", "password", "token", "private", "key"];
    let rank = |field: &FieldName| SECRET.iter().position(|word| field.as_str().contains(word)).unwrap_or(SECRET.len());
    let mut fields: Vec<FieldName> = document.fields.iter().map(|(field, _)| field.clone()).collect();
    fields.sort_by_key(|field| (field.as_str().ends_with("_id"), rank(field)));
    fields
}

#[cfg(test)]
mod tests {
    use super::super::document::document;
    use super::*;

    #[test]
    fn cli_exec_proves_with_what_is_likely_a_secret_first() {
        let names = |fields: &[&str]| -> Vec<String> {
            let fields: Vec<(&str, &str)> = fields.iter().map(|field| (*field, "x")).collect();
            likely_first(&document("a", "v1", 1, &fields)).iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(&["client_id", "client_secret", "host"]), ["client_secret", "host", "client_id"]);
        assert_eq!(names(&["api_key", "api_key_id", "secret_key"]), ["secret_key", "api_key", "api_key_id"]);
        assert_eq!(names(&[]), Vec::<String>::new());
    }
}
