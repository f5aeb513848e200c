//! Judges a list by the facts. Asked twice with the same facts and sign-offs, it answers the same.

use std::collections::BTreeSet;

use super::super::credential::Environment;
use super::super::environment::{Acceptance, Verdict};
use super::super::ids::{ItemId, Name};
use super::super::provider::{Confidence, Usage};
use super::hosts::{host_of, judge_url};
use super::{AGE_MAX_SECONDS, Check, CredentialFacts, Facts, ItemState, Judge, Judged, Launch, LaunchItem, Report};

/// What holds for every provider, also for one whose description has no list: about each credential, and about the application.
const OF_EACH_CREDENTIAL: [(Check, &str, &str); 4] = [
    (
        Check::CredentialProved,
        "Its environment is proved",
        "The current version has all its fields, and is proved to belong to its environment, or accepted with a reason.",
    ),
    (Check::ProductionKeys, "Production keys are in use", "None of them is a key of the sandbox."),
    (Check::SecretsManaged, "It is kept here", "A current version is in the secrets manager."),
    (Check::RotationAge, "It is rotated within 90 days", "The policy lets no key live for longer."),
];
const OF_THE_APPLICATION: [(Check, &str, &str); 2] = [
    (Check::Endpoints, "Endpoints are production's", "What providers call is on HTTPS, and on public hosts of production."),
    (Check::Audit, "The audit trail is written", "Each change and each first disclosure is on record before it happens."),
];

type Finding = (ItemState, Vec<String>);

fn found(state: ItemState, why: impl Into<String>) -> Finding {
    (state, vec![why.into()])
}

/// The whole list of an application. `digest` names a text: the same text by the same name, another one by another.
pub fn report(facts: &Facts, launch: &Launch, digest: fn(&str) -> String) -> Report {
    let asked =
        |credential: &CredentialFacts, check: Check| credential.provider.go_live.iter().any(|item| item.judge == Judge::Daemon(check));
    let mut items = Vec::new();
    let all = |check: Check| facts.credentials.iter().any(|credential| asked(credential, check));
    // Where lists are about each endpoint, there is nothing left to say of all.
    let elsewhere = |check: Check| all(check) || check == Check::Endpoints && all(Check::CallbackUrl) && all(Check::WebhookUrl);
    for (check, title, about) in OF_THE_APPLICATION.into_iter().filter(|(check, ..)| !elsewhere(*check)) {
        items.extend(general(check, title, about).map(|item| judged(facts, None, item, launch, digest)));
    }
    for credential in &facts.credentials {
        let general = OF_EACH_CREDENTIAL
            .iter()
            .filter(|(check, ..)| !asked(credential, *check))
            .filter_map(|(check, title, about)| general(*check, title, about));
        let all = general.chain(credential.provider.go_live.iter().cloned());
        items.extend(all.map(|item| judged(facts, Some(credential), item, launch, digest)));
    }
    Report { items }
}

fn general(check: Check, title: &str, about: &str) -> Option<LaunchItem> {
    Some(LaunchItem {
        id: check.as_str().parse().ok()?,
        title: title.to_owned(),
        about: about.to_owned(),
        judge: Judge::Daemon(check),
        source: "Keywright, for every provider".to_owned(),
        confidence: Confidence::Documented,
    })
}

fn judged(facts: &Facts, of: Option<&CredentialFacts>, item: LaunchItem, launch: &Launch, digest: fn(&str) -> String) -> Judged {
    let credential = of.map(|of| of.credential.name.clone());
    let id = ItemId::of(credential.as_ref(), &item.id);
    let (mut state, mut evidence) = match (item.judge, of) {
        (Judge::Person, _) => (ItemState::NeedsPerson, Vec::new()),
        (Judge::Daemon(check), of) => judge(facts, of, check),
    };
    let word = match item.judge {
        Judge::Person => "person",
        Judge::Daemon(check) => check.as_str(),
    };
    // With what was found, so that who signs for one host hasn't signed for the next one.
    let digest = digest(&format!("{}\n{}\n{word}\n{}", item.title, item.about, evidence.join("\n")));
    let sign_off = launch.sign_offs.get(&id).cloned();
    if state == ItemState::NeedsPerson {
        match &sign_off {
            Some(sign_off) if sign_off.digest == digest => {
                state = ItemState::Confirmed;
                evidence.push(format!("confirmed by {} at {:.0}", sign_off.by, sign_off.at));
            }
            Some(sign_off) => evidence.push(format!("{} confirmed it at {:.0}, and it has changed since", sign_off.by, sign_off.at)),
            None if evidence.is_empty() => evidence.push("only a person can tell".to_owned()),
            None => {}
        }
    }
    Judged { id, credential, item, state, evidence, digest, sign_off }
}

fn judge(facts: &Facts, of: Option<&CredentialFacts>, check: Check) -> Finding {
    match (check, of) {
        (Check::Audit, _) if facts.audited => found(ItemState::Passed, "the audit trail is being written"),
        (Check::Audit, _) => found(ItemState::Failed, "the audit trail can't be written: see the daemon's log"),
        (Check::WebhookSecret, _) => webhook_secret(facts),
        (Check::CallbackUrl, _) => endpoint(facts, "callback", facts.application.callback.as_deref()),
        (Check::WebhookUrl, _) => endpoint(facts, "webhook", facts.application.webhook.as_deref()),
        (Check::Endpoints, _) => endpoints(facts),
        (_, None) => found(ItemState::NeedsPerson, "it is about a credential, and none is meant"),
        (Check::CredentialProved, Some(of)) => proved(of),
        (Check::ProductionKeys, Some(of)) => production_keys(of),
        (Check::BaseUrl, Some(of)) => base_url(of),
        (Check::SecretsManaged, Some(of)) => managed(of),
        (Check::RotationAge, Some(of)) => rotation_age(of),
        (Check::RotationRehearsed, Some(of)) => rehearsed(of),
        (Check::Rollout, Some(of)) => rollout(of),
        (Check::Rollback, Some(of)) => rollback(of),
    }
}

fn nothing_submitted(name: &Name) -> Finding {
    found(ItemState::Failed, format!("nothing is submitted: `keywright submit {name}`"))
}

fn proved(of: &CredentialFacts) -> Finding {
    let (name, ledger) = (&of.credential.name, &of.ledger);
    let Some(facts) = ledger.current_facts() else { return nothing_submitted(name) };
    if let Some(since) = ledger.refused_since {
        return found(
            ItemState::Failed,
            format!("{} refuses it since {since:.0}: `keywright submit {name}` a working one", of.provider.title),
        );
    }
    if ledger.unverified {
        return found(ItemState::Failed, "it came back from a backup, and wasn't verified again yet");
    }
    let Some(proof) = &facts.proof else { return found(ItemState::Failed, "nothing is known of its environment") };
    // What has another field's value is as whole as that one.
    let served = of.provider.fields.iter().filter(|(_, field)| field.served && field.is.is_none()).map(|(name, _)| name);
    let Some(kept) = &of.fields else { return found(ItemState::Failed, "what is kept of it can't be read now: try again") };
    let missing: Vec<String> = served.filter(|field| !kept.contains(*field)).map(|field| format!("`{field}`")).collect();
    if !missing.is_empty() {
        return found(ItemState::Failed, format!("it lacks {}: `keywright submit {name}` all fields", missing.join(", ")));
    }
    let reasons = proof.reasons();
    match (proof.acceptance(&of.credential), &of.credential.accept_undetermined) {
        (Acceptance::Proved, _) => found(ItemState::Passed, reasons),
        (Acceptance::Accepted, Some(reason)) => {
            (ItemState::Passed, vec![format!("nothing proves it: {reasons}"), format!("accepted by its document: {reason}")])
        }
        (Acceptance::Accepted, None) => found(ItemState::Passed, format!("nothing proves it, and the sandbox takes that: {reasons}")),
        (Acceptance::Mismatch, _) => found(ItemState::Failed, format!("it belongs to the other environment: {reasons}")),
        (Acceptance::Undetermined, _) => found(ItemState::Failed, format!("nothing proves its environment: {reasons}")),
    }
}

fn production_keys(of: &CredentialFacts) -> Finding {
    let name = &of.credential.name;
    if of.credential.environment == Environment::Sandbox {
        return found(ItemState::Failed, format!("`{name}` is of the sandbox: list the credential of production instead"));
    }
    let (Some(version), Some(facts)) = (&of.ledger.current, of.ledger.current_facts()) else { return nothing_submitted(name) };
    let Some(proof) = &facts.proof else { return found(ItemState::Failed, "nothing is known of its environment") };
    let reasons = proof.reasons();
    match proof.verdict {
        Verdict::Match => found(ItemState::Passed, reasons),
        Verdict::Mismatch => found(ItemState::Failed, reasons),
        Verdict::Undetermined => {
            let look = format!("compare them with those that {} shows for production", of.provider.title);
            // With the version: who compared these keys hasn't compared the next ones.
            found(ItemState::NeedsPerson, format!("nothing tells the keys of {version} from the sandbox's: {look}"))
        }
    }
}

fn managed(of: &CredentialFacts) -> Finding {
    match &of.ledger.current {
        Some(_) => found(ItemState::Passed, "a current version is kept here, sealed"),
        None => nothing_submitted(&of.credential.name),
    }
}

fn rotation_age(of: &CredentialFacts) -> Finding {
    let policy = &of.policy;
    if policy.max_age.as_secs() <= AGE_MAX_SECONDS {
        return found(ItemState::Passed, format!("by `{}` a key is dead after {}", policy.name, policy.max_age));
    }
    found(ItemState::Failed, format!("`{}` lets a key live for {}: set `maxAge` to 90d at most", policy.name, policy.max_age))
}

fn rehearsed(of: &CredentialFacts) -> Finding {
    let Some((name, ledger)) = &of.twin else {
        let way_out =
            format!("name its sandbox credential as `twin` of `{}`, or confirm that a rotation was rehearsed", of.credential.name);
        return found(ItemState::NeedsPerson, way_out);
    };
    // The first generation was brought by a person; a later one that is current came through a whole rotation.
    if ledger.generation >= 2 && ledger.current.is_some() && ledger.refused_since.is_none() {
        return found(ItemState::Passed, format!("`{name}` has been rotated, and works"));
    }
    let command = if of.provider.can_issue() { "rotate" } else { "submit" };
    found(ItemState::Failed, format!("`{name}` hasn't been rotated yet: `keywright {command} {name}`"))
}

fn rollout(of: &CredentialFacts) -> Finding {
    if of.staged {
        return found(ItemState::Passed, format!("`{}` gives a new version to a part of the instances first", of.policy.name));
    }
    let way_out = "for example `rollout: [1, 10%, 100%]`";
    found(ItemState::Failed, format!("`{}` gives a new version to all instances at once: {way_out}", of.policy.name))
}

fn rollback(of: &CredentialFacts) -> Finding {
    let name = &of.credential.name;
    if of.ledger.previous().is_some() {
        return found(ItemState::Passed, format!("the version before still lives: `keywright rollback {name}` goes back to it"));
    }
    let overlap = of.policy.terms.overlap;
    found(
        ItemState::NeedsPerson,
        format!("no version before lives now; after each rotation it does for {overlap}, and `keywright rollback {name}` goes back"),
    )
}

fn webhook_secret(facts: &Facts) -> Finding {
    let verifies = |of: &&CredentialFacts| of.provider.fields.values().any(|field| field.served && field.usage == Usage::Verify);
    let Some(of) = facts.credentials.iter().find(verifies) else {
        return match &facts.application.webhook {
            Some(_) => found(ItemState::Failed, "the document names a webhook, and lists no credential to verify what comes there with"),
            None => found(
                ItemState::NeedsPerson,
                "no webhook and no secret for one are in the document: add them, or confirm that none is used",
            ),
        };
    };
    let name = &of.credential.name;
    match &of.ledger.current {
        Some(_) => found(ItemState::Passed, format!("`{name}` verifies what comes")),
        None => nothing_submitted(name),
    }
}

fn base_url(of: &CredentialFacts) -> Finding {
    if of.provider.is_generated() {
        return found(ItemState::Passed, "no provider is called");
    }
    let (url, sandbox) = (&of.base_url.url, of.sandbox_url.as_deref());
    if of.base_url.overridden {
        if sandbox == Some(url.as_str()) {
            return found(ItemState::Failed, format!("the configuration sends production and sandbox to one address, `{}`", host_of(url)));
        }
        let why = format!("the configuration sends its calls to `{}`, not to the address of the description", host_of(url));
        return found(ItemState::NeedsPerson, format!("{why}: confirm that it leads to production"));
    }
    if url.is_empty() {
        let way_out = format!("name it in the configuration, under `providers: {{{}: {{production: …}}}}`", of.provider.name);
        return found(ItemState::Failed, format!("the description knows no address: {way_out}"));
    }
    let (state, why) = judge_url("its API", url, &sandbox_hosts(std::slice::from_ref(of)));
    found(state, why)
}

/// Hosts where a provider has nothing but its sandbox.
fn sandbox_hosts(credentials: &[CredentialFacts]) -> Vec<String> {
    let alone = |of: &CredentialFacts| {
        let sandbox = host_of(of.sandbox_url.as_deref()?);
        (!sandbox.is_empty() && sandbox != host_of(&of.base_url.url)).then_some(sandbox)
    };
    credentials.iter().filter(|of| of.credential.environment == Environment::Production).filter_map(alone).collect()
}

fn endpoint(facts: &Facts, name: &str, url: Option<&str>) -> Finding {
    let Some(url) = url else {
        let way_out = format!("add `endpoints: {{{name}: …}}`, or confirm that there is none");
        return found(ItemState::NeedsPerson, format!("the document names no {name}: {way_out}"));
    };
    let (state, why) = judge_url(&format!("the {name}"), url, &sandbox_hosts(&facts.credentials));
    found(state, why)
}

/// The endpoints that no other item is about.
fn endpoints(facts: &Facts) -> Finding {
    let lists = facts.credentials.iter().flat_map(|of| &of.provider.go_live);
    let elsewhere: BTreeSet<Check> =
        lists.filter_map(|item| if let Judge::Daemon(check) = item.judge { Some(check) } else { None }).collect();
    let application = &facts.application;
    let all = [("callback", Check::CallbackUrl, &application.callback), ("webhook", Check::WebhookUrl, &application.webhook)];
    let left = all.into_iter().filter(|(_, check, _)| !elsewhere.contains(check));
    let sandboxes = sandbox_hosts(&facts.credentials);
    let judged: Vec<(ItemState, String)> =
        left.filter_map(|(name, _, url)| Some(judge_url(&format!("the {name}"), url.as_deref()?, &sandboxes))).collect();
    match judged.iter().map(|(state, _)| *state).max() {
        Some(worst) => (worst, judged.into_iter().map(|(_, why)| why).collect()),
        None => found(ItemState::Passed, "the document names none"),
    }
}
