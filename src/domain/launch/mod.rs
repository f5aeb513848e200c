//! Going live: the list of a provider, what the daemon judges of it by itself, and what a person signs off.
//!
//! A list belongs to one application: the lists of all providers that it uses, and what holds for every provider.

mod hosts;
mod judge;
#[cfg(test)]
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::credential::Credential;
use super::environment::BaseUrl;
use super::ids::{FieldName, ItemId, Name};
use super::ledger::Ledger;
use super::policy::{Application, RotationPolicy};
use super::provider::{Confidence, Provider};

pub use judge::report;

/// The most items that one description may have.
pub const ITEMS_MAX: usize = 64;
/// How many sign-offs are kept of items that are in no list any more, before room is made.
pub const SIGN_OFFS_MAX: usize = 1_000;
/// The longest name of who signs off, in characters.
pub const SIGNER_CHARS_MAX: usize = 100;
/// The longest word of it, but for an e-mail address: names are short, keys are not.
const SIGNER_WORD_MAX: usize = 30;
const DAY_SECONDS: u64 = 86_400;
/// The oldest that a key may get.
pub const AGE_MAX_SECONDS: u64 = 90 * DAY_SECONDS;

/// One item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchItem {
    pub id: Name,
    pub title: String,
    /// What is asked for, in a sentence or two. May be empty.
    pub about: String,
    pub judge: Judge,
    /// Where it is known from.
    pub source: String,
    pub confidence: Confidence,
}

/// Who judges an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    Daemon(Check),
    Person,
}

/// What the daemon can judge. Closed: a list names these by their words, and everything else is a person's to confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// The current version has all fields, and is proved or accepted by policy.
    CredentialProved,
    ProductionKeys,
    BaseUrl,
    CallbackUrl,
    WebhookUrl,
    /// All endpoints of the document that no other item is about.
    Endpoints,
    SecretsManaged,
    RotationAge,
    RotationRehearsed,
    WebhookSecret,
    Rollout,
    Rollback,
    Audit,
}

impl Check {
    pub const ALL: [Check; 13] = [
        Check::CredentialProved,
        Check::ProductionKeys,
        Check::BaseUrl,
        Check::CallbackUrl,
        Check::WebhookUrl,
        Check::Endpoints,
        Check::SecretsManaged,
        Check::RotationAge,
        Check::RotationRehearsed,
        Check::WebhookSecret,
        Check::Rollout,
        Check::Rollback,
        Check::Audit,
    ];

    /// The word for it in a description.
    pub const fn as_str(self) -> &'static str {
        match self {
            Check::CredentialProved => "credential-proved",
            Check::ProductionKeys => "production-keys",
            Check::BaseUrl => "base-url",
            Check::CallbackUrl => "callback-url",
            Check::WebhookUrl => "webhook-url",
            Check::Endpoints => "endpoints",
            Check::SecretsManaged => "secrets-managed",
            Check::RotationAge => "rotation-age",
            Check::RotationRehearsed => "rotation-rehearsed",
            Check::WebhookSecret => "webhook-secret",
            Check::Rollout => "rollout",
            Check::Rollback => "rollback",
            Check::Audit => "audit",
        }
    }
}

/// Who signs off, as they are to stand in the audit trail: 1 to [`SIGNER_CHARS_MAX`] characters of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signer(String);

/// Why a text is no name of a person. The text itself isn't repeated: it may be a secret in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "who signs off is a name: one line of 1 to {SIGNER_CHARS_MAX} letters, digits, spaces and . , ' - _ @ + ( ) / &, in words of at most {SIGNER_WORD_MAX}"
)]
pub struct SignerError;

impl Signer {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Signer {
    type Err = SignerError;

    fn from_str(text: &str) -> Result<Signer, SignerError> {
        let text = text.trim();
        let is_part =
            |c: char| c.is_alphanumeric() || matches!(c, ' ' | '.' | ',' | '\'' | '’' | '-' | '_' | '@' | '+' | '(' | ')' | '/' | '&');
        let is_short = |word: &str| word.contains('@') || word.chars().count() <= SIGNER_WORD_MAX;
        let count = text.chars().count();
        if (1..=SIGNER_CHARS_MAX).contains(&count) && text.chars().all(is_part) && text.split(' ').all(is_short) {
            return Ok(Signer(text.to_owned()));
        }
        Err(SignerError)
    }
}

impl TryFrom<String> for Signer {
    type Error = SignerError;

    fn try_from(text: String) -> Result<Signer, SignerError> {
        text.parse()
    }
}

impl From<Signer> for String {
    fn from(signer: Signer) -> String {
        signer.0
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A person says that an item is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignOff {
    pub by: Signer,
    #[serde(default)]
    pub reason: Option<String>,
    pub at: Timestamp,
    /// Of what was signed: an item whose text has changed since asks again.
    pub digest: String,
}

/// What is durable of one application's list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    #[serde(default)]
    pub sign_offs: BTreeMap<ItemId, SignOff>,
    /// Credentials that were let out once the list was passed, and since when. Nothing takes them back.
    #[serde(default)]
    pub live: BTreeMap<Name, Timestamp>,
}

/// What is known of an application, as far as its list asks for it.
#[derive(Debug, Clone)]
pub struct Facts {
    pub application: Arc<Application>,
    /// In the order of the document.
    pub credentials: Vec<CredentialFacts>,
    /// The audit trail is being written.
    pub audited: bool,
}

/// The same of one credential that it lists.
#[derive(Debug, Clone)]
pub struct CredentialFacts {
    pub credential: Arc<Credential>,
    pub provider: Arc<Provider>,
    pub policy: Arc<RotationPolicy>,
    pub ledger: Arc<Ledger>,
    /// The fields of the current version that applications would get. `None`: they can't be read now.
    pub fields: Option<BTreeSet<FieldName>>,
    pub base_url: BaseUrl,
    /// Where the same provider's sandbox is called at.
    pub sandbox_url: Option<String>,
    /// The twin in the sandbox, where one is named.
    pub twin: Option<(Name, Arc<Ledger>)>,
    /// A new version goes to a part of the instances first.
    pub staged: bool,
}

/// How an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ItemState {
    Passed,
    /// A person signed it off.
    Confirmed,
    /// Only a person can tell.
    NeedsPerson,
    Failed,
}

impl ItemState {
    pub const fn as_str(self) -> &'static str {
        match self {
            ItemState::Passed => "passed",
            ItemState::Confirmed => "confirmed",
            ItemState::NeedsPerson => "needs-person",
            ItemState::Failed => "failed",
        }
    }

    pub const fn is_enough(self) -> bool {
        matches!(self, ItemState::Passed | ItemState::Confirmed)
    }
}

/// One item with what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// `<credential>.<item>`, or the item alone where it is about the whole application.
    pub id: ItemId,
    pub credential: Option<Name>,
    pub item: LaunchItem,
    pub state: ItemState,
    /// Why, for people. Nothing of a value.
    pub evidence: Vec<String>,
    /// What a sign-off of it is bound to.
    pub digest: String,
    /// The last sign-off, also if it is of another text than this.
    pub sign_off: Option<SignOff>,
}

impl Judged {
    /// It was signed off, and has changed since.
    pub fn is_outdated(&self) -> bool {
        self.sign_off.as_ref().is_some_and(|sign_off| sign_off.digest != self.digest)
    }
}

/// The whole list, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub items: Vec<Judged>,
}

/// Why no item is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSuchItem {
    Unknown,
    /// Several credentials have an item of this name.
    Ambiguous,
}

impl Report {
    /// Each item passed or was signed off.
    pub fn is_ready(&self) -> bool {
        self.items.iter().all(|judged| judged.state.is_enough())
    }

    /// The item of this id; the credential may be left out where only one has such an item.
    ///
    /// # Errors
    /// [`NoSuchItem`].
    pub fn find(&self, id: &ItemId) -> Result<&Judged, NoSuchItem> {
        if let Some(judged) = self.items.iter().find(|judged| judged.id == *id) {
            return Ok(judged);
        }
        let mut named = self.items.iter().filter(|judged| judged.item.id.as_str() == id.as_str());
        match (named.next(), named.next()) {
            (Some(judged), None) => Ok(judged),
            (Some(_), Some(_)) => Err(NoSuchItem::Ambiguous),
            (None, _) => Err(NoSuchItem::Unknown),
        }
    }
}

impl Launch {
    /// Room for one more: what is in no list any more goes first.
    pub fn make_room(&mut self, report: &Report) {
        if self.sign_offs.len() >= SIGN_OFFS_MAX {
            self.sign_offs.retain(|id, _| report.items.iter().any(|judged| judged.id == *id));
        }
    }
}
