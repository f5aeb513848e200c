//! Gathers the facts about one credential, so that the domain can decide.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cell::{Cell, Work};
use super::{Engine, lease_of};
use crate::domain::credential::{Credential, Environment};
use crate::domain::due::{BlockReason, Decision, decide, may_be_held_elsewhere};
use crate::domain::environment::{BaseUrl, FingerprintHit};
use crate::domain::holders::{Blocker, barrier};
use crate::domain::ids::Name;
use crate::domain::ledger::{Fingerprint, Ledger};
use crate::domain::material::Material;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::policy::{Application, Confirmation, Policies, RotationPolicy};
use crate::domain::provider::{FieldClass, Provider};
use crate::domain::rollout::Member;
use crate::domain::rotation::{Facts, Rehearsal, Step, WaitReason};
use crate::issuers::Target;
use crate::stores::Slot;

/// One scope for all fields: the same value is the same under whatever name (I18).
const FINGERPRINT_SCOPE: &str = "value";

/// The documents that bear on one credential.
pub(super) struct Context {
    documents: Arc<Documents>,
    pub(super) credential: Arc<Credential>,
    pub(super) policy: Arc<RotationPolicy>,
    pub(super) provider: Arc<Provider>,
}

/// What holds now, and what follows from it.
pub(super) struct Documents {
    pub(super) policies: Arc<Policies>,
    /// The applications that list a credential: asked for each credential, so it isn't searched for in all of them.
    readers: BTreeMap<Name, Vec<Arc<Application>>>,
    /// The production credentials that rehearse with a sandbox credential.
    rehearsing: BTreeMap<Name, Vec<Name>>,
}

impl Documents {
    pub(super) fn of(policies: Policies) -> Arc<Documents> {
        let mut readers: BTreeMap<Name, Vec<Arc<Application>>> = BTreeMap::new();
        for application in policies.applications.values() {
            for listed in &application.credentials {
                readers.entry(listed.clone()).or_default().push(Arc::clone(application));
            }
        }
        let mut rehearsing: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
        for credential in policies.credentials.values() {
            if let Some(twin) = twin_to_rehearse(&policies, credential) {
                rehearsing.entry(twin.clone()).or_default().push(credential.name.clone());
            }
        }
        Arc::new(Documents { policies: Arc::new(policies), readers, rehearsing })
    }
}

/// What others say of one credential, gathered before anything is decided about it.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Who keeps the old version alive.
    pub(super) blockers: Vec<Blocker>,
    /// Who can be served the new version, while it is rolled out.
    pub(super) crew: Vec<Member>,
    /// A production credential waits for this one's rotation.
    pub(super) rehearses: bool,
}

impl Context {
    /// Tells these documents from all others that anybody still has.
    pub(super) fn documents_id(&self) -> usize {
        Arc::as_ptr(&self.documents).addr()
    }

    /// Applications whose document lists this credential.
    pub(super) fn readers(&self) -> &[Arc<Application>] {
        self.documents.readers.get(&self.credential.name).map_or(&[], Vec::as_slice)
    }

    /// Production credentials that rehearse with this one.
    pub(super) fn rehearsing(&self) -> &[Name] {
        self.documents.rehearsing.get(&self.credential.name).map_or(&[], Vec::as_slice)
    }

    /// The sandbox credential that this one rehearses with.
    pub(super) fn twin_to_rehearse(&self) -> Option<&Name> {
        twin_to_rehearse(&self.documents.policies, &self.credential)
    }

    pub(super) fn slot(&self) -> Slot {
        Slot { credential: self.credential.name.clone(), environment: self.credential.environment, path: self.credential.path.clone() }
    }
}

impl Engine {
    /// `None` for a credential without a document: it is unmanaged.
    pub(super) fn context(&self, name: &Name) -> Option<Context> {
        Engine::context_in(self.documents(), name)
    }

    /// The same for many: the documents are asked for once.
    pub(super) fn context_in(documents: Arc<Documents>, name: &Name) -> Option<Context> {
        let policies = &documents.policies;
        let credential = policies.credentials.get(name)?.clone();
        let policy = policies.rotation_of(&credential)?.clone();
        let provider = policies.provider_of(&credential)?.clone();
        Some(Context { documents, credential, policy, provider })
    }

    /// For calls that the credential signs itself; see [`Engine::signed_target`] for the others.
    pub(super) fn target(&self, context: &Context) -> Target {
        Target {
            credential: context.credential.name.clone(),
            account: context.credential.account.clone(),
            routine: false,
            provider: context.provider.clone(),
            environment: context.credential.environment,
            base_url: self.base_url(context),
            variables: context.credential.variables.clone(),
            administrator: None,
        }
    }

    /// The environment's address: the configuration's where it names one, else the description's.
    pub(super) fn base_url(&self, context: &Context) -> BaseUrl {
        let environment = context.credential.environment;
        let named = self.options.base_urls.get(&context.provider.name).and_then(|urls| urls.get(&environment));
        if let Some(url) = named {
            return BaseUrl { url: url.trim_end_matches('/').to_owned(), overridden: true };
        }
        let base = context.provider.environments.get(&environment).and_then(|site| site.base.as_ref());
        let url = base.map(|base| context.provider.render(base, &context.credential.variables)).unwrap_or_default();
        BaseUrl { url, overridden: false }
    }

    /// Where the sandbox of the same provider is called at.
    pub(super) fn sandbox_url(&self, context: &Context) -> Option<String> {
        let named = self.options.base_urls.get(&context.provider.name).and_then(|urls| urls.get(&Environment::Sandbox));
        if let Some(url) = named {
            return Some(url.trim_end_matches('/').to_owned());
        }
        let base = context.provider.environments.get(&Environment::Sandbox).and_then(|site| site.base.as_ref());
        base.map(|base| context.provider.render(base, &context.credential.variables))
    }

    pub(super) fn facts<'a>(&self, context: &'a Context, ledger: &'a Ledger, work: &'a Work, gathered: &'a Gathered) -> Facts<'a> {
        Facts {
            now: self.seams.clock.now(),
            term: self.term_shown(ledger),
            installation: self.installation,
            credential: &context.credential,
            policy: &context.policy,
            provider: &context.provider,
            ledger,
            blockers: &gathered.blockers,
            crew: &gathered.crew,
            create_unsent: work.create_unsent,
            seen: work.seen.as_ref(),
            living: work.living,
            requested: false,
            all_paused: self.all_paused().is_some(),
            rehearsal: self.rehearsal(context),
            rehearses: gathered.rehearses,
        }
    }

    /// Who follows shows what who leads would do: its term is the one that the journal speaks of.
    fn term_shown(&self, ledger: &Ledger) -> u64 {
        let spoken_of = || ledger.rotation.as_ref().and_then(|rotation| rotation.retired_term.or(rotation.verified_term));
        if self.term() == 0 { spoken_of().unwrap_or_default() } else { self.term() }
    }

    /// Who has a say in what is next.
    pub(super) fn gather(&self, context: &Context, ledger: &Ledger) -> Gathered {
        let rehearses = ledger.rotation.is_none() && context.rehearsing().iter().any(|name| self.waits_for_rehearsal(context, name));
        Gathered { blockers: self.blockers(context, ledger), crew: self.crew(context, ledger), rehearses }
    }

    fn rehearsal<'a>(&self, context: &'a Context) -> Option<Rehearsal<'a>> {
        let twin = context.twin_to_rehearse()?;
        let cell = self.cell(twin)?;
        let ledger = cell.ledger();
        let failing = ledger.failure.is_some() || ledger.refused_since.is_some() || cell.trouble().is_some();
        Some(Rehearsal { twin, rotations: ledger.rotations, failing })
    }

    /// How many rotations its twin has ended, for the plan of a new version.
    pub(super) fn twin_rotations(&self, context: &Context) -> u64 {
        context.credential.twin.as_ref().and_then(|twin| self.cell(twin)).map_or(0, |cell| cell.ledger().rotations)
    }

    /// Whether this production credential is due, and waits for its twin to rotate: it is asked by what it decides itself.
    fn waits_for_rehearsal(&self, context: &Context, name: &Name) -> bool {
        let (Some(cell), Some(waiting)) = (self.cell(name), Engine::context_in(Arc::clone(&context.documents), name)) else { return false };
        let (ledger, work, gathered) = (cell.ledger(), Work::default(), Gathered::default());
        match decide(&self.facts(&waiting, &ledger, &work, &gathered)) {
            Decision::Blocked { reason, .. } => matches!(reason, BlockReason::Rehearsal | BlockReason::RehearsalFailed),
            Decision::Step(Step::Wait(wait)) => matches!(wait.reason, WaitReason::Rehearsal | WaitReason::RehearsalFailed),
            _ => false,
        }
    }

    /// Who keeps the old version alive. Asked only while there is one.
    pub(super) fn blockers(&self, context: &Context, ledger: &Ledger) -> Vec<Blocker> {
        let Some(rotation) = &ledger.rotation else { return Vec::new() };
        if ledger.open_incident().is_some() || rotation.revocation.is_some() {
            return self.holders_of_old(context, ledger);
        }
        self.blockers_by(context, ledger, rotation.plan.terms.confirmation)
    }

    /// As [`Engine::blockers`] where no overlap protects anybody: who wasn't even served the new version counts, whatever the
    /// policy says of confirmations.
    pub(super) fn holders_of_old(&self, context: &Context, ledger: &Ledger) -> Vec<Blocker> {
        let by_policy = ledger.rotation.as_ref().map(|rotation| rotation.plan.terms.confirmation);
        self.blockers_by(context, ledger, by_policy.unwrap_or(Confirmation::Required).max(Confirmation::Observed))
    }

    fn blockers_by(&self, context: &Context, ledger: &Ledger, confirmation: Confirmation) -> Vec<Blocker> {
        let (Some(rotation), Some(current), false) = (&ledger.rotation, &ledger.current, is_on(Mutant::HoldersForgotten)) else {
            return Vec::new();
        };
        let Some(old) = rotation.old.as_ref().filter(|_| *current == rotation.version) else { return Vec::new() };
        let name = &context.credential.name;
        let unseen: Vec<Name> = if may_be_held_elsewhere(ledger) {
            let readers = context.readers().iter().map(|application| application.name.clone());
            readers.filter(|application| !self.book.was_seen(application, name)).collect()
        } else {
            Vec::new()
        };
        let old = ledger.same_key(old);
        barrier(&old, current, confirmation, &self.holdings_of(name, ledger), &unseen)
    }

    /// Keyed fingerprints of the secret fields that belong to one environment.
    pub(super) fn fingerprints(&self, provider: &Provider, material: &Material) -> Vec<Fingerprint> {
        let bound = material
            .iter()
            .filter(|(name, _)| provider.fields.get(*name).is_some_and(|field| field.bound && field.class != FieldClass::Public));
        bound
            .map(|(name, value)| Fingerprint { field: name.clone(), digest: self.seams.keyring.fingerprint(FINGERPRINT_SCOPE, value) })
            .collect()
    }

    /// Where these values were met before.
    pub(super) fn fingerprint_hits(&self, credential: &Name, fingerprints: &[Fingerprint]) -> Vec<FingerprintHit> {
        let policies = self.policies();
        let mut hits = Vec::new();
        for cell in self.all_cells() {
            hits.extend(hits_in(&cell, &policies, credential, fingerprints));
        }
        hits
    }

    /// The lease of the instances of an application, by its document; `None` also for one without a document.
    pub(super) fn lease(&self, application: &Name) -> Option<std::time::Duration> {
        let policies = self.policies();
        policies.applications.get(application).and_then(|application| lease_of(application, &policies))
    }
}

/// The twin that a credential rehearses with: of production only, where its policy says so.
fn twin_to_rehearse<'p>(policies: &Policies, credential: &'p Credential) -> Option<&'p Name> {
    let rehearses = policies.rotation_of(credential).is_some_and(|policy| policy.rehearse);
    credential.twin.as_ref().filter(|_| rehearses && credential.environment == Environment::Production)
}

fn hits_in(cell: &Cell, policies: &Policies, credential: &Name, fingerprints: &[Fingerprint]) -> Vec<FingerprintHit> {
    let ledger = cell.ledger();
    let environment = policies.credentials.get(&cell.name).map(|credential| credential.environment);
    let current = ledger.current_facts().filter(|facts| !facts.is_going());
    let mut hits = Vec::new();
    for facts in ledger.versions.values() {
        for known in &facts.fingerprints {
            if !fingerprints.iter().any(|asked| asked.digest == known.digest) {
                continue;
            }
            hits.push(FingerprintHit {
                field: known.field.clone(),
                credential: cell.name.clone(),
                // Without its document the environment isn't known; the name alone is against.
                environment: environment.unwrap_or(Environment::Production),
                // What the current version has, too, stays with the key while its secrets change: it was never revoked.
                revoked: facts.is_going() && !current.is_some_and(|current| current.fingerprints.contains(known)),
            });
        }
    }
    hits.retain(|hit| !is_on(Mutant::FingerprintsIgnored) && (hit.revoked || hit.credential != *credential));
    hits
}
