//! `check --credential`: judges fields by what the policies say, offline. Nothing of them is kept or sent anywhere.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::domain::credential::Credential;
use crate::domain::environment::{Acceptance, BaseUrl, Evidence, EvidenceKind, Proof, Says, Verdict, pure_evidence};
use crate::domain::fields::{FieldProblem, misfits};
use crate::domain::ids::{FieldName, Name};
use crate::domain::material::Material;
use crate::domain::provider::Provider;

use super::check::{read, report};
use super::failure::Failure;
use super::settings::Settings;
use super::submit::bring;
use super::terminal::{BAD, GOOD, Terminal};

pub(super) async fn judge(path: Option<PathBuf>, name: &Name, settings: &Settings, terminal: Terminal) -> Result<ExitCode, Failure> {
    // The configuration may say where a provider really is; a folder that was named is judged by itself.
    let named = if path.is_none() { settings.config()?.providers } else { Default::default() };
    let policies = match read(path, settings)? {
        Ok(policies) => policies,
        Err(problems) => return report(&problems, terminal),
    };
    let found = policies.credentials.get(name).and_then(|credential| Some((credential, policies.providers.get(&credential.provider)?)));
    let Some((credential, provider)) = found else {
        let detail = format!("the policies have no Credential `{name}`");
        return Err(Failure::failed("not-found", "there is no such credential", detail).then("name one of the policies"));
    };
    let material = bring(name).await?;
    let problems = misfits(provider, &material);
    if !problems.is_empty() {
        return Err(invalid(&problems, provider));
    }
    let named = named.get(&provider.name).and_then(|urls| urls.get(&credential.environment));
    let proof = weigh(provider, credential, &material, named);
    let acceptance = proof.acceptance(credential);
    let document = json!({
        "name": name,
        "provider": provider.name,
        "environment": credential.environment,
        "accepted": acceptance.is_enough(),
        "proof": proof,
    });
    if terminal.json {
        terminal.print_json(&document)?
    } else {
        terminal.print(&sentence(credential, &proof, &acceptance))?
    }
    Ok(if acceptance.is_enough() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn invalid(problems: &[(FieldName, FieldProblem)], provider: &Provider) -> Failure {
    let told: Vec<String> = problems.iter().map(|(field, problem)| format!("`{field}` {problem}")).collect();
    let fields: Vec<&str> = provider.fields.keys().map(FieldName::as_str).collect();
    let next = format!("the fields of {} are: {}", provider.name, fields.join(", "));
    let mut failure = Failure::failed("invalid-fields", "these are not the fields of this credential", told.join("; ")).then(next);
    let errors = problems.iter().map(|(field, problem)| json!({"field": field, "message": problem.to_string()})).collect();
    failure.problem.more.insert("errors".to_owned(), Value::Array(errors));
    failure
}

fn weigh(provider: &Provider, credential: &Credential, material: &Material, named: Option<&String>) -> Proof {
    let described = provider.environments.get(&credential.environment).and_then(|site| site.base.as_ref());
    let described = described.map(|base| provider.render(base, &credential.variables)).unwrap_or_default();
    let base_url = BaseUrl { url: named.cloned().unwrap_or(described), overridden: named.is_some() };
    let mut evidence = pure_evidence(provider, credential, material, &base_url, &[]);
    // What the daemon has met before isn't known here, and nobody is asked.
    evidence.retain(|piece| piece.kind != EvidenceKind::Fingerprint);
    if provider.has_check() {
        evidence.push(Evidence::new(EvidenceKind::Probe, Says::Nothing, "the provider wasn't asked: `submit` asks it"));
    }
    Proof::weigh(evidence)
}

fn sentence(credential: &Credential, proof: &Proof, acceptance: &Acceptance) -> String {
    let colour = if acceptance.is_enough() { GOOD } else { BAD };
    let taken = match (proof.verdict, acceptance, &credential.accept_undetermined) {
        (Verdict::Undetermined, Acceptance::Accepted, Some(reason)) => format!(", which the policy accepts: {reason}"),
        (Verdict::Undetermined, Acceptance::Accepted, None) => ", which the sandbox takes".to_owned(),
        (Verdict::Undetermined, ..) => ", which production doesn't take without `acceptUndetermined`".to_owned(),
        _ => String::new(),
    };
    let verdict = proof.verdict.as_str();
    let mut lines = vec![format!("{colour}{}: {verdict}{colour:#} for {}{taken}", credential.name, credential.environment)];
    for piece in &proof.evidence {
        let says = match piece.says {
            Says::For => "for",
            Says::Against => "against",
            Says::Nothing => "nothing",
        };
        lines.push(format!("  {says}: {}", piece.why));
    }
    lines.join("\n")
}
