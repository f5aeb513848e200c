//! The form of the journal's ConfigMaps: their names and labels, and the keyed code over all that one holds.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::domain::delivery::Way;
use crate::domain::ids::Name;
use crate::journal::JournalError;
use crate::sealing::Keyring;

/// What the settings and everything small stand in, as JSON.
pub(super) const STATE: &str = "state";
/// Lower-case hex.
const CODE: &str = "code";
/// The API refuses a ConfigMap of more than 1 MiB; we do so before, so that what is refused is told from what is damaged.
pub(super) const BYTES_MAX: usize = 960 << 10;

/// What an object is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Head,
    Credential,
    Launch,
    Dispatch,
    Holdings,
}

impl Kind {
    /// The label `app.kubernetes.io/component`.
    pub(super) fn component(self) -> &'static str {
        match self {
            Kind::Head => "journal-head",
            Kind::Credential => "journal",
            Kind::Launch => "launch",
            Kind::Dispatch => "dispatch",
            Kind::Holdings => "holdings",
        }
    }

    pub(super) fn of(object: &ConfigMap) -> Option<Kind> {
        let component = object.metadata.labels.as_ref()?.get("app.kubernetes.io/component")?;
        [Kind::Head, Kind::Credential, Kind::Launch, Kind::Dispatch, Kind::Holdings].into_iter().find(|kind| kind.component() == component)
    }
}

/// What tells one installation's objects from another's in the same namespace: the name of its lease.
#[derive(Debug, Clone)]
pub(super) struct Naming {
    pub(super) lease: Name,
}

impl Naming {
    pub(super) fn head(&self) -> String {
        format!("{}-journal", self.lease)
    }

    pub(super) fn credential(&self, credential: &Name) -> String {
        format!("{}-journal-{credential}", self.lease)
    }

    pub(super) fn launch(&self, application: &Name) -> String {
        format!("{}-launch-{application}", self.lease)
    }

    pub(super) fn dispatch(&self, application: &Name, way: Way) -> String {
        format!("{}-dispatch-{application}-{}", self.lease, way.as_str())
    }

    pub(super) fn holdings(&self, shard: u8) -> String {
        format!("{}-holdings-{shard:02x}", self.lease)
    }

    /// Whose journal an object is, or whose going-live list.
    pub(super) fn named(&self, object: &ConfigMap, kind: Kind) -> Option<Name> {
        let infix = if kind == Kind::Launch { "launch" } else { "journal" };
        let name = object.metadata.name.as_deref()?.strip_prefix(self.lease.as_str())?;
        name.strip_prefix('-')?.strip_prefix(infix)?.strip_prefix('-')?.parse().ok()
    }

    /// A selector of labels.
    pub(super) fn selector(&self, kinds: &[Kind]) -> String {
        let components: Vec<&str> = kinds.iter().map(|kind| kind.component()).collect();
        format!(
            "app.kubernetes.io/managed-by=keywright,app.kubernetes.io/instance={},app.kubernetes.io/component in ({})",
            self.lease,
            components.join(",")
        )
    }

    fn labels(&self, kind: Kind) -> BTreeMap<String, String> {
        let labels = [
            ("app.kubernetes.io/managed-by", "keywright"),
            ("app.kubernetes.io/instance", self.lease.as_str()),
            ("app.kubernetes.io/component", kind.component()),
        ];
        labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }
}

/// One writing of an object; it stands in what was written, so that who lost the answer finds out whether it took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WriteId(String);

impl WriteId {
    pub(super) fn new() -> WriteId {
        WriteId(Uuid::new_v4().simple().to_string())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this writing is in it, or was carried on by one that came later.
    pub(super) fn is_in(&self, object: &ConfigMap) -> bool {
        object.data.iter().flatten().any(|(key, text)| key != CODE && text.contains(&self.0))
    }
}

/// The parts of an object whose code is right.
pub(super) type Parts = BTreeMap<String, String>;

/// An object to be written. `version` is that of the one it replaces; `None` for one that isn't there yet.
///
/// # Errors
/// [`JournalError::Unavailable`] if it is too large: nothing was written.
pub(super) fn object(
    keyring: &Keyring,
    naming: &Naming,
    kind: Kind,
    name: String,
    version: Option<String>,
    mut parts: Parts,
) -> Result<ConfigMap, JournalError> {
    let code = code_of(keyring, &name, &parts);
    parts.insert(CODE.to_owned(), code);
    if size(&parts) > BYTES_MAX {
        return Err(JournalError::Unavailable("an object of the journal would grow beyond what Kubernetes keeps in one"));
    }
    let labels = Some(naming.labels(kind));
    let metadata = ObjectMeta { name: Some(name), resource_version: version, labels, ..ObjectMeta::default() };
    Ok(ConfigMap { metadata, data: Some(parts), ..ConfigMap::default() })
}

fn size(parts: &Parts) -> usize {
    parts.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// What an object holds, if it is what was written under its name.
///
/// # Errors
/// [`JournalError::Damaged`].
pub(super) fn parts(keyring: &Keyring, object: &ConfigMap) -> Result<Parts, JournalError> {
    const ALTERED: JournalError = JournalError::Damaged("a ConfigMap of it was altered, or put in another's place");
    let mut parts = object.data.clone().unwrap_or_default();
    let code = parts.remove(CODE).ok_or(ALTERED)?;
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let is_ours = object.binary_data.as_ref().is_none_or(BTreeMap::is_empty) && code == code_of(keyring, name, &parts);
    if is_ours { Ok(parts) } else { Err(ALTERED) }
}

/// Over the object's name and all that it holds. It is no secret: it stands beside what it covers.
fn code_of(keyring: &Keyring, name: &str, parts: &Parts) -> String {
    let mut bytes: Vec<&[u8]> = vec![b"config-map", name.as_bytes()];
    for (key, value) in parts {
        bytes.extend([key.as_bytes(), value.as_bytes()]);
    }
    hex::encode(keyring.row_code(&bytes))
}

/// The JSON under [`STATE`].
///
/// # Errors
/// [`JournalError::Damaged`].
pub(super) fn state<T: DeserializeOwned>(parts: &Parts) -> Result<T, JournalError> {
    let text = parts.get(STATE).ok_or(JournalError::Damaged("a ConfigMap of it is of another format"))?;
    serde_json::from_str(text).map_err(|_| JournalError::Damaged("a ConfigMap of it is of another format"))
}

/// # Errors
/// [`JournalError::Unavailable`].
pub(super) fn with_state<T: Serialize>(state: &T) -> Result<Parts, JournalError> {
    let text = serde_json::to_string(state).map_err(|_| JournalError::Unavailable("a record can't be written"))?;
    Ok([(STATE.to_owned(), text)].into())
}
