//! Gathers the facts about one credential, so that the domain can decide.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cell::{Cell, Work};
use super::{Engine, lease_of};
use crate::domain::credential::{Credential, Environment};
use crate::domain::due::may_be_held_elsewhere;
use crate::domain::environment::{BaseUrl, FingerprintHit};
use crate::domain::holders::{Blocker, barrier};
use crate::domain::ids::Name;
use crate::domain::ledger::{Fingerprint, Ledger};
use crate::domain::material::Material;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::policy::{Application, Confirmation, Policies, RotationPolicy};
use crate::domain::provider::{FieldClass, Provider};
use crate::domain::rotation::Facts;
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
}

impl Documents {
    pub(super) fn of(policies: Policies) -> Arc<Documents> {
        let mut readers: BTreeMap<Name, Vec<Arc<Application>>> = BTreeMap::new();
        for application in policies.applications.values() {
            for listed in &application.credentials {
                readers.entry(listed.clone()).or_default().push(Arc::clone(application));
            }
        }
        Arc::new(Documents { policies: Arc::new(policies), readers })
    }
}

impl Context {
    /// Applications whose document lists this credential.
    pub(super) fn readers(&self) -> &[Arc<Application>] {
        self.documents.readers.get(&self.credential.name).map_or(&[], Vec::as_slice)
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

    pub(super) fn facts<'a>(
        &self,
        context: &'a Context,
        ledger: &'a Ledger,
        work: &'a Work,
        blockers: &'a [Blocker],
        requested: bool,
    ) -> Facts<'a> {
        Facts {
            now: self.seams.clock.now(),
            term: self.term,
            installation: self.installation,
            credential: &context.credential,
            policy: &context.policy,
            provider: &context.provider,
            ledger,
            blockers,
            create_unsent: work.create_unsent,
            seen: work.seen.as_ref(),
            requested,
            all_paused: self.all_paused().is_some(),
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
        barrier(&old, current, confirmation, &self.book.holdings_of(name), &unseen)
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

fn hits_in(cell: &Cell, policies: &Policies, credential: &Name, fingerprints: &[Fingerprint]) -> Vec<FingerprintHit> {
    let ledger = cell.ledger();
    let environment = policies.credentials.get(&cell.name).map(|credential| credential.environment);
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
                revoked: facts.doomed || facts.ended.is_some(),
            });
        }
    }
    hits.retain(|hit| !is_on(Mutant::FingerprintsIgnored) && (hit.revoked || hit.credential != *credential));
    hits
}
