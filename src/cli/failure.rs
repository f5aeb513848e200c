//! Why a command failed, as one problem document: the daemon's own, or one of the same form made here.

use std::path::Path;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::policies::Problems;

use super::terminal::{counted, printable};

const PROBLEM_BASE: &str = "https://keywright.dev/problems/";

/// An RFC 9457 problem document. Members that are unknown here are kept, so that `--json` passes on all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
    #[serde(flatten)]
    pub(crate) more: serde_json::Map<String, serde_json::Value>,
}

impl Problem {
    /// The last part of `type`: what a program branches on.
    pub(crate) fn slug(&self) -> &str {
        self.kind.strip_prefix(PROBLEM_BASE).unwrap_or(&self.kind)
    }
}

/// A failed command: what to say, what to do next, and the exit status.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// Boxed, so that a result stays small where all goes well.
    pub(crate) problem: Box<Problem>,
    /// What to do next.
    pub(crate) next: Option<String>,
    /// Problems of our own documents, rendered with excerpts; coloured, and stripped where nobody sees it.
    pub(crate) excerpts: Option<String>,
    exit: u8,
}

impl Failure {
    /// Refused or failed: exit status 1.
    pub(crate) fn failed(slug: &str, title: &str, detail: impl Into<String>) -> Failure {
        let problem = Problem {
            kind: format!("{PROBLEM_BASE}{slug}"),
            title: title.to_owned(),
            status: None,
            detail: Some(detail.into()),
            request_id: None,
            more: serde_json::Map::new(),
        };
        Failure { problem: Box::new(problem), next: None, excerpts: None, exit: 1 }
    }

    /// Wrong usage, or invalid policies or configuration: exit status 2.
    pub(crate) fn invalid(slug: &str, title: &str, detail: impl Into<String>) -> Failure {
        Failure { exit: 2, ..Failure::failed(slug, title, detail) }
    }

    /// Policies or a configuration with problems: each with its place. Exit status 2.
    pub(crate) fn documents(slug: &str, title: &str, problems: &Problems) -> Failure {
        let mut failure = Failure::invalid(slug, title, format!("{} in it", counted(problems.as_slice().len(), "problem", "problems")));
        let list = serde_json::to_value(problems.as_slice()).unwrap_or_default();
        failure.problem.more.insert("problems".to_owned(), list);
        failure.excerpts = Some(problems.render(true).trim_end().to_owned());
        failure
    }

    /// What the daemon answered instead of what was asked for.
    pub(crate) fn answered(problem: Problem) -> Failure {
        let next = next_step(problem.slug()).map(str::to_owned);
        Failure { problem: Box::new(problem), next, excerpts: None, exit: 1 }
    }

    pub(crate) fn no_daemon(socket: &Path, reason: &str) -> Failure {
        let detail = format!("no daemon answers at {}: {reason}", socket.display());
        Failure::failed("no-daemon", "the daemon isn't there", detail)
            .then("`keywright run` starts one; if it runs elsewhere, name its configuration with --config FILE")
    }

    /// An error of the operating system, with what was being done.
    pub(crate) fn io(doing: &str, error: &std::io::Error) -> Failure {
        Failure::failed("io", "the operating system refused", format!("{doing}: {}", error.kind()))
    }

    pub(crate) fn then(self, next: impl Into<String>) -> Failure {
        Failure { next: Some(next.into()), ..self }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit)
    }

    /// For people. Control characters are taken out: the text may repeat what another machine sent.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![printable(&self.problem.title)];
        lines.extend(self.problem.detail.as_deref().map(printable));
        lines.extend(self.field_lines());
        lines.extend(self.next.as_deref().map(|next| format!("next: {}", printable(next))));
        lines.extend(self.problem.request_id.as_deref().map(|id| format!("request: {}", printable(id))));
        lines
    }

    /// `invalid-fields` may name each field in a member of its own.
    fn field_lines(&self) -> Vec<String> {
        let Some(serde_json::Value::Array(errors)) = self.problem.more.get("errors") else { return Vec::new() };
        let line = |error: &serde_json::Value| {
            let text = |name: &str| error.get(name).and_then(serde_json::Value::as_str).map(printable);
            Some(format!("  {}: {}", text("field")?, text("message").or_else(|| text("detail"))?))
        };
        errors.iter().filter_map(line).collect()
    }
}

/// What a person does about a refusal. Most tell it in their detail already.
fn next_step(slug: &str) -> Option<&'static str> {
    let text = match slug {
        "unauthenticated" => {
            "send an application's token with --token-file FILE, or call as a user whom `operators` or an Application lists"
        }
        "forbidden" => "an application reads what its document lists; an operator needs the right in `operators` of the configuration",
        "rotation-open" => "wait until it ends (`keywright status` shows where it stands), then try again",
        "not-revocable" => "`keywright status NAME` shows the versions and who holds what",
        "environment-mismatch" => "submit the key of this environment; the one that was offered was not kept",
        "undetermined" => "submit a key that tells its environment, or write `acceptUndetermined: \"reason\"` into the Credential",
        "provider-refused" => "check that the key is complete and not revoked at the provider; it was not kept",
        "invalid-fields" => "send exactly the fields of the provider, as one flat JSON object of texts",
        "not-found" => "`keywright status` lists the names that the policies know",
        "no-version" => "nothing was enrolled yet: `keywright submit NAME`",
        "not-ready" | "store-unavailable" | "audit-unavailable" => "look at the daemon's log, then try again: nothing was changed",
        "too-many" | "timeout" => "try again in a moment",
        "ambiguous-instance" => "give each instance its own name in the header Keywright-Instance",
        _ => return None,
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_a_problem_document_is_passed_on_whole() {
        let text =
            r#"{"type":"https://keywright.dev/problems/rotation-open","title":"t","status":409,"detail":"d","request_id":"r","extra":1}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(problem.slug(), "rotation-open");
        assert_eq!(serde_json::to_value(&problem).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
        let failure = Failure::answered(problem);
        assert_eq!(failure.exit_code(), ExitCode::from(1));
        assert!(failure.lines().iter().any(|line| line.starts_with("next: wait")));
    }

    #[test]
    fn cli_what_another_machine_sent_moves_no_cursor() {
        let failure = Failure::failed("x", "title", "red \u{1b}[31m and\nmore");
        assert!(failure.lines().iter().all(|line| !line.chars().any(char::is_control)), "{failure:?}");
    }

    #[test]
    fn cli_no_daemon_names_the_socket_and_the_way_out() {
        let lines = Failure::no_daemon(Path::new("/x/keywright.sock"), "not found").lines().join("\n");
        assert!(lines.contains("/x/keywright.sock") && lines.contains("keywright run"), "{lines}");
    }
}
