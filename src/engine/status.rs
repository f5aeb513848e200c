//! `status`: what stands where, why, and what a person can do about it.

use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::Engine;
use super::cell::{Cell, Work};
use super::deliveries::delivery_problem;
use super::gather::Context;
use super::manual;
use super::views::{ApplicationStatus, CredentialStatus, IncidentStatus, Status, StatusProblem};
use crate::domain::due::{BlockReason, Decision, StuckReason, deadline_of, decide, retry_at, schedule};
use crate::domain::holders::Blocker;
use crate::domain::ids::{KeyId, Name, VersionId};
use crate::domain::ledger::{Closure, Ended, Ledger};
use crate::domain::rotation::{AbandonReason, Phase, Step, WaitReason};

/// One row of `GET …/versions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VersionView {
    pub version: VersionId,
    /// `pending`, `current`, `previous`, `ended`, or `forgotten`: it lives on at the provider, and isn't kept here.
    pub stage: &'static str,
    pub issued_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// What a look at one credential shows, before it is worded.
pub(super) struct Standing {
    pub(super) decision: Decision,
    pub(super) blockers: Vec<Blocker>,
    /// Of the twin, where the policy asks for a rehearsal.
    pub(super) rehearses_with: Option<Name>,
    /// That twin has no key: it was never brought, or was forgotten.
    pub(super) twin_missing: bool,
}

impl Standing {
    /// Whether it waits for its twin; `true` if the twin's last try failed.
    pub(super) fn waits_for_rehearsal(&self) -> Option<bool> {
        match &self.decision {
            Decision::Blocked { reason: BlockReason::Rehearsal, .. } => Some(false),
            Decision::Blocked { reason: BlockReason::RehearsalFailed, .. } => Some(true),
            Decision::Step(Step::Wait(wait)) => match wait.reason {
                WaitReason::Rehearsal => Some(false),
                WaitReason::RehearsalFailed => Some(true),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Engine {
    /// `None` if `name` is no credential, managed or not.
    pub fn status(&self, name: Option<&Name>, after: Option<&Name>, limit: usize) -> Option<Status> {
        if let Some(name) = name {
            self.cell(name)?;
        }
        let now = self.seams.clock.now().wall;
        let policies = self.policies();
        let mut cells = match name {
            Some(name) => self.cell(name).into_iter().filter(|cell| after.is_none_or(|after| cell.name > *after)).collect(),
            None => self.cells_after(after, limit.saturating_add(1)),
        };
        let more = cells.len() > limit;
        cells.truncate(limit);
        let next = cells.last().filter(|_| more).map(|cell| cell.name.clone());
        let mut credentials = Vec::with_capacity(cells.len());
        let mut problems = self.own_problems();
        for cell in &cells {
            match self.context(&cell.name) {
                Some(context) => {
                    let standing = self.standing(cell, &context);
                    credentials.push(self.credential_status(cell, &context, &standing));
                    problems.extend(self.credential_problems(cell, &context, &standing, now));
                }
                None if !policies.credentials.contains_key(&cell.name) && !is_forgotten(cell) => problems.push(unmanaged(cell)),
                None => {}
            }
        }
        problems.extend(self.provider_problems());
        let providers = self.providers_of(cells.iter().map(AsRef::as_ref));
        let deliveries = self.deliveries_of(&credentials);
        problems.extend(deliveries.iter().filter_map(delivery_problem));
        let (store, leadership) = (self.store_status(), self.leadership());
        Some(Status { credentials, problems, providers, store, deliveries, leadership, next })
    }

    pub(super) fn credential_problems(&self, cell: &Cell, context: &Context, standing: &Standing, now: Timestamp) -> Vec<StatusProblem> {
        let mut problems = problems_of(cell, context, standing, now);
        problems.extend(self.outside_problems(cell, context, now));
        problems
    }

    pub(super) fn own_problems(&self) -> Vec<StatusProblem> {
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let own = |(code, message): (&&'static str, &String)| StatusProblem {
            credential: None,
            code: (*code).to_owned(),
            message: message.clone(),
        };
        let clock = (!self.seams.clock.now().trusted).then(clock_untrusted);
        let paused = self.all_paused().map(all_paused);
        let away = self.store_problem();
        problems.iter().map(own).chain(clock).chain(paused).chain(away).collect()
    }

    pub(super) fn standing(&self, cell: &Cell, context: &Context) -> Standing {
        let ledger = cell.ledger();
        let gathered = self.gather(context, &ledger);
        // What only the driving task knows makes no difference to what is shown.
        let decision = decide(&self.facts(context, &ledger, &Work::default(), &gathered));
        let twin = context.twin_to_rehearse();
        let twin_missing = twin.and_then(|twin| self.cell(twin)).is_some_and(|twin| twin.ledger().current.is_none());
        Standing { decision, blockers: gathered.blockers, rehearses_with: twin.cloned(), twin_missing }
    }

    fn credential_status(&self, cell: &Cell, context: &Context, standing: &Standing) -> CredentialStatus {
        let ledger = cell.ledger();
        let now = self.seams.clock.now().wall;
        let current = ledger.current_facts();
        let planned = current.map(|facts| schedule(&context.credential, &context.policy, &context.provider, ledger.generation, facts));
        let previous = ledger.previous().cloned();
        let dying = previous.as_ref().and_then(|version| ledger.facts_of(version)).or(current);
        CredentialStatus {
            name: cell.name.clone(),
            provider: context.provider.name.clone(),
            environment: context.credential.environment,
            endpoint: Some(self.base_url(context).url).filter(|url| !url.is_empty()),
            proof: current.and_then(|facts| facts.proof.clone()),
            version: ledger.current.clone(),
            previous_version: previous,
            phase: phase_of(&ledger),
            generation: ledger.generation,
            issued_at: current.map(|facts| facts.issued_at),
            age_seconds: current.map(|facts| now.duration_since(facts.issued_at).as_secs()),
            due_at: planned.map(|planned| planned.starts_at),
            deadline_at: dying.map(|facts| deadline_of(facts, &context.policy)),
            overlap_ends_at: overlap_end(&ledger),
            reason: reason_of(cell, standing),
            paused: ledger.paused || self.all_paused().is_some(),
            paused_since: ledger.paused_since.or_else(|| self.all_paused()),
            account: context.credential.account.clone(),
            incident: incident_of(&ledger, &standing.blockers),
            request: self.request_status(context, &ledger),
            rollout: self.rollout_status(context, &ledger),
            applications: self.applications_of(context, &ledger),
        }
    }

    /// What somebody else did to the store, and what only a person can do.
    fn outside_problems(&self, cell: &Cell, context: &Context, now: Timestamp) -> Vec<StatusProblem> {
        let ledger = cell.ledger();
        let refusal = cell.refusal().map_or_else(String::new, |why| format!(" ({why})"));
        let drift = cell.drift().map(|drift| ("store-changed", drift.text() + &refusal));
        let request = self.request_status(context, &ledger).map(|request| manual::problem(context, &ledger, &request));
        let unproved = unproved(&ledger, context, now).map(|version| {
            let title = &context.provider.title;
            ("unproved", format!("nothing tells whether the key of {version} is dead: look at {title} whether it is still there"))
        });
        let all = drift.into_iter().chain(request).chain(unproved);
        all.map(|(code, message)| StatusProblem { credential: Some(cell.name.clone()), code: code.to_owned(), message }).collect()
    }

    fn applications_of(&self, context: &Context, ledger: &Ledger) -> Vec<ApplicationStatus> {
        let name = &context.credential.name;
        let holdings = self.holdings_of(name, ledger);
        let mut rows: Vec<ApplicationStatus> = holdings
            .iter()
            .map(|holding| ApplicationStatus {
                name: holding.application.clone(),
                instance: Some(holding.instance.clone()),
                version: Some(holding.newest.clone()),
                state: Some(holding.state(ledger.current.as_ref())),
            })
            .collect();
        let readers = context.readers().iter();
        let absent = readers.filter(|application| holdings.iter().all(|holding| holding.application != application.name));
        rows.extend(absent.map(|application| ApplicationStatus {
            name: application.name.clone(),
            instance: None,
            version: None,
            state: None,
        }));
        rows.sort_by(|a, b| (&a.name, &a.instance).cmp(&(&b.name, &b.instance)));
        rows
    }

    /// All versions that are remembered; `None` for a credential that isn't.
    pub fn versions(&self, name: &Name) -> Option<Vec<VersionView>> {
        let ledger = self.cell(name)?.ledger();
        let pending = ledger.rotation.as_ref().filter(|rotation| rotation.promoted.is_none()).map(|rotation| rotation.version.clone());
        let previous = ledger.previous().cloned();
        let mut views: Vec<VersionView> = ledger
            .versions
            .iter()
            .map(|(version, facts)| VersionView {
                version: version.clone(),
                stage: match version {
                    version if ledger.current.as_ref() == Some(version) => "current",
                    version if previous.as_ref() == Some(version) => "previous",
                    version if pending.as_ref() == Some(version) => "pending",
                    _ if facts.ended.is_none() => "forgotten",
                    _ => "ended",
                },
                issued_at: facts.issued_at,
                revoked_at: facts.ended.as_ref().map(|ended| ended.at),
            })
            .collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.issued_at));
        Some(views)
    }
}

fn phase_of(ledger: &Ledger) -> String {
    match (&ledger.rotation, &ledger.current) {
        (Some(rotation), _) if rotation.abandoning.is_some() => "abandoned".to_owned(),
        (Some(rotation), _) => rotation.phase.as_str().to_owned(),
        // It has begun: a person makes the key.
        (None, Some(_)) if ledger.request.is_some() => Phase::Planned.as_str().to_owned(),
        (None, Some(_)) => "steady".to_owned(),
        (None, None) => "missing".to_owned(),
    }
}

pub(super) fn overlap_end(ledger: &Ledger) -> Option<Timestamp> {
    let rotation = ledger.rotation.as_ref()?;
    rotation.old.as_ref()?;
    let hurried = ledger.open_incident().is_some() || rotation.revocation.is_some();
    let (since, overlap) = match &rotation.rollout {
        _ if hurried => (rotation.promoted, Duration::ZERO),
        Some(rollout) => (rollout.full, rotation.plan.terms.overlap.as_duration()),
        None => (rotation.promoted, rotation.plan.terms.overlap.as_duration()),
    };
    let by_terms = since?.wall.checked_add(overlap).ok()?;
    // Where the provider ends the old key by itself, that may be later.
    let old = rotation.old.as_ref().and_then(|old| ledger.facts_of(old)).filter(|_| !rotation.plan.succession.spares_the_old());
    Some(old.and_then(|old| old.expires_at).map_or(by_terms, |end| end.max(by_terms)))
}

/// Why it stands where it stands: what hinders it comes first, then what it waits for, then why it began.
fn reason_of(cell: &Cell, standing: &Standing) -> Option<String> {
    let ledger = cell.ledger();
    if cell.drift().is_some() && ledger.rotation.is_none() {
        return Some("store-changed".to_owned());
    }
    let word: &str = match &standing.decision {
        Decision::Step(Step::Wait(wait)) => wait.reason.as_str(),
        Decision::Stuck { reason } => reason.as_str(),
        Decision::Blocked { reason: reason @ (BlockReason::Rehearsal | BlockReason::RehearsalFailed), .. } => reason.as_str(),
        Decision::Blocked { reason, .. } => match &ledger.failure {
            Some(failure) => failure.reason.as_str(),
            None => reason.as_str(),
        },
        _ => {
            let abandoning = ledger.rotation.as_ref().and_then(|rotation| rotation.abandoning).map(|reason| reason.as_str());
            let begun = ledger.rotation.as_ref().map(|rotation| rotation.plan.reason.clone());
            // It is about to be tried again: what ended the last attempt still stands in the way, as far as is known.
            let is_due = matches!(standing.decision, Decision::Due { .. });
            let failed = ledger.failure.as_ref().filter(|_| is_due).map(|failure| failure.reason.as_str().to_owned());
            return abandoning.map(str::to_owned).or(cell.trouble().map(|trouble| trouble.code.to_owned())).or(begun).or(failed);
        }
    };
    Some(word.to_owned())
}

pub(super) fn blocker_text(blocker: &Blocker) -> String {
    match &blocker.instance {
        Some(instance) => format!("{}/{instance}", blocker.application),
        None => format!("{}: never seen", blocker.application),
    }
}

/// Nothing goes on until somebody puts a clock right, so it must not wait to be found.
fn clock_untrusted() -> StatusProblem {
    StatusProblem {
        credential: None,
        code: "clock-untrusted".to_owned(),
        message: "our clock jumped, or a provider's and ours disagree: nothing is rotated by time, nor revoked, until they agree"
            .to_owned(),
    }
}

fn all_paused(since: Timestamp) -> StatusProblem {
    StatusProblem {
        credential: None,
        code: "paused".to_owned(),
        message: format!("everything is paused since {since}: nothing is revoked and no rotation begins; `keywright resume` lets it go on"),
    }
}

/// What is known of the incident that is open, or of the last one.
fn incident_of(ledger: &Ledger, blockers: &[Blocker]) -> Option<IncidentStatus> {
    let incident = ledger.incident.as_ref()?;
    let ended = ledger.versions.get(&incident.version).and_then(|facts| facts.ended.as_ref());
    let is_open = incident.closed.is_none();
    let clean = ledger.current.as_ref().filter(|current| !is_open || !ledger.is_stolen(current));
    Some(IncidentStatus {
        since: incident.at.wall,
        limit_at: incident.limit_at(),
        version: incident.version.clone(),
        revoked_at: ended.map(|ended| ended.at),
        closure: ended.map(|ended| ended.closure),
        replaced_by: clean.cloned(),
        holders: if is_open { blockers.to_vec() } else { Vec::new() },
        stragglers: incident.stragglers.clone(),
        unknown_keys: incident.closed.as_ref().and_then(|closed| closed.unknown_keys.clone()),
        closed_at: incident.closed.as_ref().map(|closed| closed.at),
    })
}

fn incident_problem(ledger: &Ledger) -> Option<(&'static str, String)> {
    let incident = ledger.incident.as_ref()?;
    let Some(closed) = &incident.closed else {
        let text =
            format!("its key is reported stolen since {}: it is being replaced, and dies by {}", incident.at.wall, incident.limit_at());
        return Some(("compromised", text));
    };
    let unknown = closed.unknown_keys.as_ref().filter(|keys| !keys.is_empty() && closed.generation == ledger.generation)?;
    let names: Vec<&str> = unknown.iter().map(KeyId::as_str).collect();
    let text = "a thief may have made these keys, which nobody here knows: look at them at the provider, and revoke them there; they are named until the next rotation";
    Some(("unknown-keys", format!("{text}: {}", names.join(", "))))
}

/// Old keys that a person was asked to remove, and that nothing showed to be dead; named for as long as one key lives.
fn unproved<'a>(ledger: &'a Ledger, context: &'a Context, now: Timestamp) -> impl Iterator<Item = &'a VersionId> {
    let max_age = context.policy.max_age.as_duration();
    let is_recent = move |ended: &Ended| ended.at.checked_add(max_age).is_ok_and(|until| until > now);
    let lately = move |ended: &Ended| ended.closure == Closure::Unproved && is_recent(ended);
    let manual = context.provider.is_manual() && context.provider.has_check();
    ledger.versions.iter().filter(move |(_, facts)| manual && facts.ended.as_ref().is_some_and(lately)).map(|(version, _)| version)
}

/// Nothing is kept of it but what is known of its dead keys.
pub(super) fn is_forgotten(cell: &Cell) -> bool {
    let ledger = cell.ledger();
    ledger.current.is_none() && ledger.rotation.is_none()
}

pub(super) fn unmanaged(cell: &Cell) -> StatusProblem {
    StatusProblem {
        credential: Some(cell.name.clone()),
        code: "unmanaged".to_owned(),
        message: "its document is gone: it is neither served nor rotated, and its keys live on; bring the document back, or revoke them at the provider".to_owned(),
    }
}

/// Whether the old key of an open rotation should be dead by now.
pub(super) fn is_overdue(ledger: &Ledger, context: &Context, now: Timestamp) -> bool {
    let old = ledger.previous().and_then(|version| ledger.versions.get(version));
    old.is_some_and(|old| deadline_of(old, &context.policy) <= now)
}

/// Why the last rotation didn't come to its end.
fn failure_problem(ledger: &Ledger, context: &Context, now: Timestamp) -> Option<(&'static str, String)> {
    let failure = ledger.failure.as_ref()?;
    let next = match retry_at(ledger, &context.policy, now) {
        Some(at) => format!("the next try is at {at}"),
        None => "it is tried again when it is due".to_owned(),
    };
    let ended = match failure.reason {
        AbandonReason::CanaryFailed => "the new version didn't work where it was tried first, and was taken back",
        AbandonReason::CanarySilent => "the new version wasn't confirmed in time where it was tried first, and was taken back",
        _ => "the last rotation was abandoned",
    };
    Some((failure.reason.as_str(), format!("{ended}, {} in a row; {next}", failure.count)))
}

/// What a due rotation waits for in the sandbox.
fn rehearsal_problem(standing: &Standing) -> Option<(&'static str, String)> {
    let twin = standing.rehearses_with.as_ref()?;
    Some(if standing.waits_for_rehearsal()? {
        rehearsal_failed(twin)
    } else if standing.twin_missing {
        let bring = "submit one there, or name another `twin`";
        ("rehearsal", format!("it is due, and its sandbox twin `{twin}` has no key to rehearse with: {bring}"))
    } else {
        ("rehearsal", format!("it is due, and waits until its sandbox twin `{twin}` has rotated"))
    })
}

fn rehearsal_failed(twin: &Name) -> (&'static str, String) {
    let why = "couldn't be rotated: see why there; the current key stays until it was";
    ("rehearsal-failed", format!("it is due, and its sandbox twin `{twin}` {why}"))
}

fn problems_of(cell: &Cell, context: &Context, standing: &Standing, now: Timestamp) -> Vec<StatusProblem> {
    let ledger = cell.ledger();
    let mut problems = Vec::new();
    let mut add =
        |code: &str, message: String| problems.push(StatusProblem { credential: Some(cell.name.clone()), code: code.to_owned(), message });
    match &standing.decision {
        Decision::Step(Step::Wait(wait)) if wait.reason == WaitReason::Overdue && standing.blockers.is_empty() => {
            add("overdue", "the old key is past its deadline, and waits for a person to remove it".to_owned());
        }
        Decision::Step(Step::Wait(wait)) if matches!(wait.reason, WaitReason::Held | WaitReason::Overdue | WaitReason::NoInstanceSeen) => {
            let who = standing.blockers.iter().map(blocker_text).collect::<Vec<_>>().join(", ");
            let way_out = "let them confirm, or `keywright release` them";
            if wait.reason == WaitReason::NoInstanceSeen {
                add("no-instance-seen", format!("the submitted key may be in use elsewhere, so it lives on ({who}): {way_out}"));
            }
            if is_overdue(&ledger, context, now) {
                add("overdue", format!("the old key is past its deadline and lives on because of {who}: {way_out}"));
            }
        }
        Decision::Step(Step::Wait(wait)) if wait.reason == WaitReason::RolloutStopped => {
            let way_out =
                format!("`keywright rollback {}` tries it again; what is wrong with the old key stands in the audit trail", cell.name);
            add("rollout-stopped", format!("the new version failed where it was tried first, and could not be taken back: {way_out}"));
        }
        // Said below, whatever else is open.
        Decision::Stuck { reason: StuckReason::CurrentRefused } => {}
        Decision::Stuck { reason: reason @ StuckReason::NoCreateCall } => {
            add(reason.as_str(), format!("it is due and only a person can make a new key: `keywright submit {}` it", cell.name));
        }
        Decision::Stuck { reason } => add(reason.as_str(), "it needs a person: see the rotation's reason".to_owned()),
        _ => {}
    }
    if let Some((code, message)) = rehearsal_problem(standing) {
        add(code, message);
        if ledger.current_facts().is_some_and(|facts| deadline_of(facts, &context.policy) <= now) {
            add("overdue", "the current key is past its deadline and lives on, because its rotation wasn't rehearsed".to_owned());
        }
    }
    if ledger.refused_since.is_some() {
        add(
            "current-refused",
            format!("{} doesn't accept the current key: `keywright submit {}` a working one", context.provider.title, cell.name),
        );
    }
    if ledger.unverified && ledger.refused_since.is_none() {
        add("unverified", "it came back from a backup and isn't served before it was verified again".to_owned());
    }
    if let Some((code, message)) = former_key_problem(cell, context) {
        add(code, message);
    }
    if !ledger.possible_orphans.is_empty() {
        let count = ledger.possible_orphans.len();
        let look = if context.provider.has_secondary() {
            "what they may have left beside the current secret is taken back before the next try"
        } else {
            "and this provider can't list keys: look there for keys that nobody holds"
        };
        add("possible-orphan", format!("{count} replies to a create were lost, {look}"));
    }
    if let Some((code, message)) = incident_problem(&ledger) {
        add(code, message);
    }
    if let Some((code, message)) = failure_problem(&ledger, context, now) {
        add(code, message);
    }
    if let Some(trouble) = cell.trouble() {
        add(trouble.code, trouble.message);
    }
    problems
}

fn former_key_problem(cell: &Cell, context: &Context) -> Option<(&'static str, String)> {
    let keys: Vec<String> = cell.former_keys().iter().map(ToString::to_string).collect();
    let why = "made by this installation before it was restored, or by a copy of it that lives on";
    let message =
        format!("{} has living keys that were {why} ({}): revoke there what nobody uses", context.provider.title, keys.join(", "));
    (!keys.is_empty()).then_some(("former-key", message))
}
