//! What documents say of each other: references resolve, environments agree, nothing is claimed twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::access::Identity;
use crate::domain::credential::{Credential, Environment};
use crate::domain::ids::Name;
use crate::domain::policy::{Application, RotationPolicy};
use crate::domain::provider::{Provider, SignedCall};

use super::credential::{WrittenApplication, WrittenCredential};
use super::problem::{Place, Sink, shown};
use super::reader::At;
use super::{delivery, rollout, rotation};

/// How far `administeredBy` is followed in search of a circle.
const CHAIN_MAX: usize = 1_000;

/// A document by its name: `value` is `None` where the document itself has problems, so that references to it still
/// resolve and one mistake isn't reported twice.
#[derive(Debug)]
pub(super) struct Declared<T> {
    pub(super) place: Place,
    pub(super) value: Option<T>,
}

pub(super) type Table<T> = BTreeMap<Name, Declared<T>>;

/// All documents, by kind and name.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) providers: Table<Arc<Provider>>,
    pub(super) rotations: Table<Arc<RotationPolicy>>,
    pub(super) credentials: Table<WrittenCredential>,
    pub(super) applications: Table<WrittenApplication>,
}

impl Catalogue {
    /// Reports what doesn't fit together, and gives what is whole.
    pub(super) fn link(&self, sink: &Sink<'_>) -> (BTreeMap<Name, Arc<Credential>>, BTreeMap<Name, Arc<Application>>) {
        let written = self.credentials.iter().filter_map(|(name, declared)| Some((name, declared.place, declared.value.as_ref()?)));
        let credentials = written
            .filter_map(|(name, place, written)| Some((name.clone(), Arc::new(self.credential(name, place, written, sink)?))))
            .collect();
        self.check_paths(sink);
        let administrators = self.administrators();
        let applications = self.applications.iter().filter_map(|(name, declared)| {
            let written = declared.value.as_ref()?;
            written.credentials.iter().for_each(|at| self.check_listed(at, written, &administrators, sink));
            Some((name.clone(), Arc::new(application(name, written)?)))
        });
        let applications = applications.collect();
        self.check_identities(sink);
        delivery::check_folders(&self.applications, sink);
        delivery::check_secrets(&self.applications, sink);
        (credentials, applications)
    }

    fn credential(&self, name: &Name, place: Place, written: &WrittenCredential, sink: &Sink<'_>) -> Option<Credential> {
        let provider = resolve(written.provider.as_ref(), "Provider", &self.providers, sink);
        let rotation = resolve(written.rotation.as_ref(), "RotationPolicy", &self.rotations, sink);
        if let (Some(provider), Some(policy), Some(at)) = (provider, rotation, &written.rotation) {
            rotation::check_at_provider(policy, provider, at, sink);
            rollout::check_at_provider(policy, provider, at, sink);
        }
        if let Some(policy) = rotation {
            rollout::check_twin_is_there(policy, written, sink);
        }
        if let Some(provider) = provider {
            check_environment(provider, written, sink);
        }
        self.check_administrator(name, provider.map(Arc::as_ref), written, sink);
        self.check_twin(name, written, sink);
        let variables = provider.map(|provider| variables(provider, written, sink)).unwrap_or_default();
        let (provider, environment) = (written.provider.as_ref()?.value.clone(), written.environment.as_ref()?.value);
        let linked = Credential {
            account: account(&provider, environment, written, place, sink)?,
            name: name.clone(),
            provider,
            environment,
            rotation: written.rotation.as_ref()?.value.clone(),
            path: written.path.as_ref().map_or_else(|| name.to_string(), |path| path.value.clone()),
            variables,
            administered_by: written.administered_by.as_ref().map(|at| at.value.clone()),
            twin: written.twin.as_ref().map(|at| at.value.clone()),
            accept_undetermined: written.accept_undetermined.clone(),
            rehearsal_time: rotation.map(|policy| self.rehearsal_time(policy, written)).unwrap_or_default(),
            require_go_live: written.require_go_live,
        };
        if let (Some(policy), Some(provider), Some(at)) = (rotation, self.providers.get(&linked.provider), &written.twin)
            && let Some(provider) = &provider.value
        {
            rollout::check_time(&linked, policy, provider, at, sink);
        }
        Some(linked)
    }

    fn check_administrator(&self, name: &Name, provider: Option<&Provider>, written: &WrittenCredential, sink: &Sink<'_>) {
        let Some(at) = &written.administered_by else {
            return check_signed_by_itself(provider, written, sink);
        };
        check_administrator_is_used(provider, at, sink);
        let next = |name: &Name| self.credentials.get(name)?.value.as_ref()?.administered_by.as_ref().map(|at| &at.value);
        let circle = std::iter::successors(Some(&at.value), |name| next(name)).take(CHAIN_MAX).any(|other| other == name);
        if circle {
            let help = "name a credential that administers this one and isn't administered by it";
            sink.report(at.place, "administered-by-itself", "a credential can't administer itself", help);
            return;
        }
        let Some(administrator) = resolve(Some(at), "Credential", &self.credentials, sink) else { return };
        let both = (environment_of(administrator), environment_of(written));
        if let (Some(theirs), Some(ours)) = both
            && theirs != ours
        {
            let message = format!("the administering credential is of {theirs}, this one of {ours}");
            sink.report(at.place, "environment-mismatch", message, "name one of the same environment: nothing crosses between the two");
        }
        // Where its provider isn't known, its own document says so.
        let provider = administrator.provider.as_ref().and_then(|at| self.providers.get(&at.value)?.value.as_ref());
        if let Some(provider) = provider
            && provider.signs.is_none()
        {
            let message = format!("the provider `{}` doesn't say how its credentials sign for others", provider.name);
            let help = "name a credential whose provider does, or add `signs` to that description";
            sink.report(at.place, "administrator-signs-nothing", message, help);
        }
    }

    fn check_twin(&self, name: &Name, written: &WrittenCredential, sink: &Sink<'_>) {
        let Some(at) = &written.twin else { return };
        let Some(twin) = resolve(Some(at), "Credential", &self.credentials, sink) else { return };
        let provider = |written: &WrittenCredential| written.provider.as_ref().map(|at| at.value.clone());
        let reason = if at.value == *name || environment_of(written) == Some(Environment::Sandbox) {
            "only a production credential has a twin: its credential in the sandbox"
        } else if environment_of(twin) == Some(Environment::Production) {
            "the twin isn't in the sandbox"
        } else if provider(twin).is_some() && provider(written).is_some() && provider(twin) != provider(written) {
            "the twin is of another provider"
        } else {
            return;
        };
        sink.report(at.place, "bad-twin", reason, "name the sandbox credential of the same provider, or leave `twin` out");
    }

    /// How long the twin's rotation takes, where it comes first. What is wrong with the twin itself is told elsewhere.
    fn rehearsal_time(&self, policy: &RotationPolicy, written: &WrittenCredential) -> Duration {
        let rehearses = policy.rehearse && environment_of(written) == Some(Environment::Production);
        let twin = written.twin.as_ref().filter(|_| rehearses).and_then(|at| self.credentials.get(&at.value)?.value.as_ref());
        let documents = twin.and_then(|twin| {
            let policy = self.rotations.get(&twin.rotation.as_ref()?.value)?.value.as_ref()?;
            Some((policy, self.providers.get(&twin.provider.as_ref()?.value)?.value.as_ref()?))
        });
        documents.map(|(policy, provider)| rollout::time_of(policy, provider)).unwrap_or_default()
    }

    fn check_paths(&self, sink: &Sink<'_>) {
        let mut taken: BTreeMap<(Environment, String), Place> = BTreeMap::new();
        for (name, declared) in in_order(&self.credentials) {
            let Some(written) = &declared.value else { continue };
            let Some(environment) = environment_of(written) else { continue };
            let (path, place) = match &written.path {
                Some(at) => (at.value.clone(), at.place),
                None => (name.to_string(), declared.place),
            };
            match taken.entry((environment, path)) {
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(place);
                }
                std::collections::btree_map::Entry::Occupied(first) => {
                    let message = format!("another credential of {environment} has this path");
                    let help = format!("give one of them another `path`; the first is at {}", sink.locate(*first.get()));
                    sink.report(place, "duplicate-path", message, help);
                }
            }
        }
    }

    /// Credentials that administer others.
    fn administrators(&self) -> BTreeSet<&Name> {
        let written = self.credentials.values().filter_map(|declared| declared.value.as_ref());
        written.filter_map(|credential| credential.administered_by.as_ref()).map(|at| &at.value).collect()
    }

    fn check_listed(&self, at: &At<Name>, written: &WrittenApplication, administrators: &BTreeSet<&Name>, sink: &Sink<'_>) {
        if administrators.contains(&at.value) {
            let help = "give the application a credential of its own";
            sink.report(at.place, "administrator-listed", "a credential that administers others is never served", help);
        }
        let Some(credential) = resolve(Some(at), "Credential", &self.credentials, sink) else { return };
        if let (Some(theirs), Some(ours)) = (environment_of(credential), written.environment.as_ref().map(|at| at.value))
            && theirs != ours
        {
            let message = format!("this credential is of {theirs}, the application of {ours}");
            sink.report(at.place, "environment-mismatch", message, "an application and its credentials are of one environment");
        }
    }

    fn check_identities(&self, sink: &Sink<'_>) {
        let mut taken: BTreeMap<&Identity, Place> = BTreeMap::new();
        for (_, declared) in in_order(&self.applications) {
            let Some(at) = declared.value.as_ref().and_then(|written| written.identity.as_ref()) else { continue };
            if let Some(first) = taken.get(&at.value) {
                let help = format!("give each application its own; the first is at {}", sink.locate(*first));
                sink.report(at.place, "duplicate-identity", "another application has this identity", help);
            } else {
                taken.insert(&at.value, at.place);
            }
        }
    }
}

/// Without an administering credential, every call must be one that the credential can sign itself.
fn check_signed_by_itself(provider: Option<&Provider>, written: &WrittenCredential, sink: &Sink<'_>) {
    let Some(provider) = provider else { return };
    if SignedCall::ALL.iter().any(|call| provider.must_be_administered(*call)) {
        let message = format!("the provider `{}` asks for an administering credential, and none is named", provider.name);
        let help = "add `administeredBy: NAME`, a Credential of the same environment that may make and remove keys there";
        sink.report(written.spec, "missing-administrator", message, help);
    }
}

fn check_administrator_is_used(provider: Option<&Provider>, at: &At<Name>, sink: &Sink<'_>) {
    let Some(provider) = provider else { return };
    if !SignedCall::ALL.iter().any(|call| provider.administrator_signs(*call)) {
        let message = format!("no call of the provider `{}` is signed by another credential", provider.name);
        let help = "leave `administeredBy` out: this provider's credentials sign for themselves";
        sink.report(at.place, "administrator-unused", message, help);
    }
}

fn application(name: &Name, written: &WrittenApplication) -> Option<Application> {
    Some(Application {
        name: name.clone(),
        environment: written.environment.as_ref()?.value,
        credentials: written.credentials.iter().map(|at| at.value.clone()).collect(),
        identity: written.identity.as_ref()?.value.clone(),
        uptake: written.uptake,
        lease: written.lease,
        callback: written.callback.clone(),
        webhook: written.webhook.clone(),
        delivery: written.delivery.deliveries.clone()?,
    })
}

/// In the order in which they are written, so that the second of two is the one that is reported.
fn in_order<T>(table: &Table<T>) -> Vec<(&Name, &Declared<T>)> {
    let mut all: Vec<_> = table.iter().collect();
    all.sort_by_key(|(_, declared)| declared.place);
    all
}

fn environment_of(written: &WrittenCredential) -> Option<Environment> {
    written.environment.as_ref().map(|at| at.value)
}

fn resolve<'t, T>(at: Option<&At<Name>>, kind: &str, table: &'t Table<T>, sink: &Sink<'_>) -> Option<&'t T> {
    let at = at?;
    let Some(declared) = table.get(&at.value) else {
        let message = format!("there is no {kind} {}", shown(at.value.as_str()));
        sink.report(at.place, "unknown-reference", message, known(kind, table));
        return None;
    };
    declared.value.as_ref()
}

fn known<T>(kind: &str, table: &Table<T>) -> String {
    if table.is_empty() {
        return format!("add a document of kind {kind}");
    }
    let mut names: Vec<&str> = table.keys().take(9).map(Name::as_str).collect();
    if names.len() == 9 {
        names[8] = "…";
    }
    format!("use one of: {}; or add a document of kind {kind}", names.join(", "))
}

fn check_environment(provider: &Provider, written: &WrittenCredential, sink: &Sink<'_>) {
    let Some(at) = &written.environment else { return };
    if !provider.environments.contains_key(&at.value) {
        let message = format!("the provider `{}` has no {}", provider.name, at.value);
        sink.report(at.place, "unknown-environment", message, "its description would have to say where that is");
    }
}

fn variables(provider: &Provider, written: &WrittenCredential, sink: &Sink<'_>) -> BTreeMap<String, Name> {
    for (at, _) in &written.variables {
        if !provider.variables.contains_key(&at.value) {
            let all: Vec<&str> = provider.variables.keys().map(String::as_str).collect();
            let message = format!("the provider `{}` has no variable of this name", provider.name);
            let help = if all.is_empty() { "it has none at all: leave it out".to_owned() } else { format!("it has: {}", all.join(", ")) };
            sink.report(at.place, "unknown-variable", message, help);
        }
    }
    for (name, default) in &provider.variables {
        if default.is_none() && !written.variables.iter().any(|(at, _)| at.value == *name) {
            let message = format!("the provider `{}` needs the variable `{name}`", provider.name);
            sink.report(written.spec, "missing-variable", message, format!("add `variables: {{{name}: …}}`, one DNS label"));
        }
    }
    // Defaults are filled in here, so that nobody has to look in two places.
    let defaults = provider.variables.iter().filter_map(|(name, default)| Some((name.clone(), default.clone()?)));
    let given = written.variables.iter().filter_map(|(at, value)| Some((at.value.clone(), value.clone()?)));
    defaults.chain(given).collect()
}

fn account(provider: &Name, environment: Environment, written: &WrittenCredential, place: Place, sink: &Sink<'_>) -> Option<Name> {
    if let Some(at) = &written.account {
        return Some(at.value.clone());
    }
    let default = format!("{provider}-{environment}").parse();
    if default.is_err() {
        let message = "the account has no default: the provider's name is too long for one";
        sink.report(place, "missing-field", message, "add `account: NAME`");
    }
    default.ok()
}
