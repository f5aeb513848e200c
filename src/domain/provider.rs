//! A provider as its description says it is: environments, fields, calls and what their answers mean.
//!
//! A new provider is a document, never code: what a description can't express is a reason to extend this language.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::credential::Environment;
use super::form::Form;
use super::ids::{FieldName, KeyId, Name};
use super::launch::LaunchItem;
use super::manual::Manual;
use super::material::{Material, Secret};
pub use super::quota::{Limits, Quota};
use super::recipe::Recipe;
use super::succession::OverlapBounds;
pub use super::template::{JsonTemplate, Piece, Template};

/// A validated `Provider` document.
#[derive(Debug, Clone)]
pub struct Provider {
    pub name: Name,
    pub title: String,
    /// The provider has ceased operations: nothing new is enrolled, checks still work.
    pub retired: bool,
    pub environments: BTreeMap<Environment, Site>,
    /// Variables of the templates, with their defaults.
    pub variables: BTreeMap<String, Option<Name>>,
    pub fields: BTreeMap<FieldName, Field>,
    pub calls: Calls,
    /// How a credential of this provider signs calls for those that it administers; `None`: it administers none.
    pub signs: Option<Signature>,
    pub lifecycle: Lifecycle,
    /// The work of a person, with [`Lifecycle::Manual`].
    pub manual: Manual,
    /// How many keys an account has at most, those among them that are disabled; `None`: no number is known.
    pub slots: Option<u32>,
    pub timing: Timing,
    pub limits: Limits,
    /// Where the facts are from, for people and for `check`.
    pub facts: Vec<Fact>,
    /// What its going-live list asks for, in its order.
    pub go_live: Vec<LaunchItem>,
}

/// Where an environment is reached. Base URLs have scheme, host and path, no closing slash, and may hold `{variable}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// `None`: it isn't known, and the configuration names it.
    pub base: Option<Template>,
    /// Further base URLs of the same environment.
    pub aliases: Vec<Template>,
    /// Where the token call goes, if elsewhere. Both environments may share it.
    pub token: Option<Template>,
}

impl Site {
    /// All addresses that are this environment's.
    pub fn bases(&self) -> impl Iterator<Item = &Template> {
        self.base.iter().chain(&self.aliases)
    }
}

/// One fact of the description, with where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// What the fact is about: `fields.client_id`, `calls.create`, …
    pub about: String,
    pub source: String,
    pub confidence: Confidence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    Documented,
    Inferred,
    Unknown,
}

/// What a field is to those who hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldClass {
    /// May be shown (a client id).
    Public,
    Secret,
    /// Authorises changes of the credential itself: sealed in a record of its own, never served.
    Management,
}

#[derive(Debug, Clone)]
pub struct Field {
    pub class: FieldClass,
    /// Whether one value belongs to one environment and one credential, so that meeting it elsewhere is `against`.
    pub bound: bool,
    /// Whether applications get it. Always false for [`FieldClass::Management`].
    pub served: bool,
    pub form: Form,
    pub usage: Usage,
    /// How we make it, with [`Lifecycle::Generated`].
    pub recipe: Option<Recipe>,
    /// It has the value of this other field, in each version: nobody brings it.
    pub is: Option<FieldName>,
}

/// What an application does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Usage {
    /// It shows or signs with it: the current one only.
    Sign,
    /// It checks what others signed: the previous one too, while they change over.
    Verify,
}

/// How a new key comes to be and an old one goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifecycle {
    /// Several independent pairs live at once; the provider makes each (minted).
    Pairs,
    /// There is one secret, and a call makes the next: the provider ends the old one by itself, after the overlap that the call
    /// asks for (minted).
    Rotate,
    /// There is one secret, and a call replaces it: the old one dies with that call (minted).
    Replace,
    /// There is a primary secret, and at most a secondary one beside it, which a call makes: both work until another call promotes
    /// the secondary one, and the old one dies with that (minted).
    Promote,
    /// A person makes and removes keys in the provider's dashboard.
    Manual,
    /// We make the values ourselves, and nobody but our applications uses them (chosen).
    Generated,
}

/// The calls that the daemon knows how to use. Each is optional: what isn't described isn't done.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    /// Exchanges a pair for an access token; authenticates calls of [`Authentication::Token`].
    pub token: Option<Call>,
    /// A harmless call that only a living key passes, beyond the token.
    pub probe: Option<Call>,
    pub create: Option<Create>,
    pub list: Option<List>,
    /// Ends a key in a way that a person can undo, before it is removed.
    pub disable: Option<Call>,
    pub revoke: Option<Call>,
    /// Puts the secondary secret in the primary one's place, with [`Lifecycle::Promote`]: signed by the primary one, which ends.
    /// Sent again, or late, it is a dead key that asks, and nothing else can end.
    pub promote: Option<Call>,
    /// Takes the secondary secret back, with [`Lifecycle::Promote`]: signed by the primary one.
    pub cancel: Option<Call>,
}

/// One HTTP request and what its answers mean.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    /// Below the environment's base URL, beginning with a slash; or, with `url_field`, unused.
    pub path: Template,
    /// A management field that holds the whole URL (RFC 7592). It must lie on the environment's own origin.
    pub url_field: Option<FieldName>,
    pub query: Vec<(String, Template)>,
    pub headers: Vec<(String, Template)>,
    pub authentication: Authentication,
    pub body: Body,
    /// Tried in order; the first that fits decides. Where none fits, see [`Meaning::by_default`].
    pub rules: Vec<Rule>,
    /// JSON pointer to an access token, for the token call.
    pub access_token: Option<String>,
    /// For probes: whether success proves the environment, or only that the key lives.
    pub proves_environment: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
}

/// How an administering credential signs, with its own fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    Basic {
        username: FieldName,
        password: FieldName,
    },
    Bearer {
        field: FieldName,
    },
    /// An access token, fetched through its own provider's [`Calls::token`] at that provider's own address.
    Token,
}

/// The calls that an administering credential may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedCall {
    Create,
    List,
    Disable,
    Revoke,
}

/// Who signs a call, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// No authentication; for `create` the administering credential's, where the document names one (open registration).
    Open,
    /// HTTP Basic with two fields of the acting version.
    Basic { username: FieldName, password: FieldName },
    /// A field of the acting version as bearer token.
    Bearer { field: FieldName },
    /// An access token, fetched for this call with the acting version through [`Calls::token`].
    Token,
    /// A management field of the version that is acted upon, as bearer token (RFC 7592).
    Management { field: FieldName },
    /// The administering credential, as its own description says ([`Provider::signs`]).
    Administrator,
}

#[derive(Debug, Clone, Default)]
pub enum Body {
    #[default]
    None,
    Form(Vec<(String, Template)>),
    /// JSON whose texts are templates.
    Json(JsonTemplate),
}

/// The create call, and where its answer holds what.
#[derive(Debug, Clone)]
pub struct Create {
    pub call: Call,
    /// Headers that carry the operation id, so that a repeated call is no second key.
    pub idempotency_headers: Vec<String>,
    /// JSON pointer to the provider's id of the new key; `None` where the key stays and only its secret changes.
    pub key_id: Option<String>,
    /// JSON pointer per field that the answer fills; the other fields are carried over from the current version.
    pub fields: BTreeMap<FieldName, String>,
    pub issued_at: Option<String>,
    pub expires_at: Option<String>,
    /// Where it says when the provider ends the secret before this one.
    pub previous_expires_at: Option<String>,
}

/// The list call: pages of keys.
#[derive(Debug, Clone)]
pub struct List {
    pub call: Call,
    /// JSON pointer to the array.
    pub items: String,
    /// Pointers within one item.
    pub key_id: String,
    /// Where the name stands that we put our marker in. Without it, keys can be listed but not told apart.
    pub marker: Option<String>,
    /// Pointer and the texts that mean that the key lives; without it every listed key lives.
    pub alive: Option<(String, Vec<String>)>,
    pub issued_at: Option<String>,
    pub expires_at: Option<String>,
    pub paging: Option<Paging>,
}

/// Cursor paging: the next page begins after the last item of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paging {
    /// Pointer to the truth value that says whether there is more.
    pub more: String,
    /// Query parameter that takes the cursor.
    pub parameter: String,
    /// Pointers to what may be the cursor within an item, tried in turn.
    pub cursors: Vec<String>,
}

/// One rule over an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Statuses that it fits; empty fits all.
    pub statuses: Vec<u16>,
    /// A JSON pointer and the value that must stand there.
    pub equals: Option<(String, serde_json::Value)>,
    pub meaning: Meaning,
}

impl Rule {
    /// What an answer means: the first rule that fits decides, else what HTTP itself says. `body`: the JSON that it holds, if any.
    pub fn decide(rules: &[Rule], status: u16, body: Option<&serde_json::Value>) -> Meaning {
        let fits = |rule: &&Rule| {
            let stands = |(pointer, value): &(String, serde_json::Value)| body.and_then(|body| body.pointer(pointer)) == Some(value);
            rule.is_of(status) && rule.equals.as_ref().is_none_or(stands)
        };
        rules.iter().find(fits).map_or_else(|| Meaning::by_default(status), |rule| rule.meaning)
    }

    pub fn is_of(&self, status: u16) -> bool {
        self.statuses.is_empty() || self.statuses.contains(&status)
    }
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Meaning {
    /// Done, or the key works.
    Works,
    /// The key lives, but may not do this.
    Narrow,
    /// The key that signed the call is not accepted.
    Dead,
    /// The key belongs to the other environment.
    WrongEnvironment,
    /// The request itself is refused: repeating it changes nothing.
    Refused,
    /// What was to be removed isn't there.
    Gone,
    /// No free slot.
    Full,
    Throttled,
    /// Nothing can be concluded: the default.
    Inconclusive,
}

impl Meaning {
    /// What a status means where no rule fits: only what HTTP itself says (RFC 9110, RFC 6585).
    pub fn by_default(status: u16) -> Meaning {
        match status {
            200..=299 => Meaning::Works,
            429 => Meaning::Throttled,
            _ => Meaning::Inconclusive,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timing {
    /// How long a fresh key may be refused before that counts as a failure; `min(120 s, overlap)` where it isn't said.
    pub propagation: Option<Duration>,
    /// How long access tokens outlive the revocation of their key.
    pub tokens_outlive: Option<Duration>,
    /// What a person needs to make a key by hand.
    pub manual_lead: Option<Duration>,
    pub overlap: OverlapBounds,
    /// How long a disabled key is kept before it is removed; `min(1 h, maxAge/20)` where it isn't said.
    pub soak: Option<Duration>,
}

/// One key at the provider, as its list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    pub key_id: KeyId,
    /// The name that may be our marker.
    pub name: Option<String>,
    pub alive: bool,
    pub issued_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
}

impl SignedCall {
    pub const ALL: [SignedCall; 4] = [SignedCall::Create, SignedCall::List, SignedCall::Disable, SignedCall::Revoke];
}

impl Provider {
    /// Fields that applications get, and those that only manage the credential.
    pub fn is_management(&self, field: &FieldName) -> bool {
        self.fields.get(field).is_some_and(|field| field.class == FieldClass::Management)
    }

    /// A base URL with the variables of a credential, the defaults for the others.
    pub fn render(&self, base: &Template, given: &BTreeMap<String, Name>) -> String {
        let default = |name: &String| self.variables.get(name).and_then(Option::as_ref);
        let text = |piece: &Piece| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Variable(name) => given.get(name).or_else(|| default(name)).map(ToString::to_string).unwrap_or_default(),
            Piece::Field(_) => String::new(),
        };
        base.0.iter().map(text).collect::<String>().trim_end_matches('/').to_owned()
    }

    /// Whether a lost reply to `create` can be searched for: by list and marker both.
    pub fn can_find_orphans(&self) -> bool {
        self.calls.list.as_ref().is_some_and(|list| list.marker.is_some())
    }

    /// Whether the provider can be asked whether a key lives. Where it can't, only a person can tell.
    pub fn has_check(&self) -> bool {
        self.calls.token.is_some() || self.calls.probe.is_some()
    }

    /// Whether the administering credential signs this call, where there is one.
    pub fn administrator_signs(&self, call: SignedCall) -> bool {
        let is_open_create = || call == SignedCall::Create && self.authentication_of(call) == Some(&Authentication::Open);
        self.must_be_administered(call) || is_open_create()
    }

    /// Whether this call can't be made without an administering credential.
    pub fn must_be_administered(&self, call: SignedCall) -> bool {
        self.authentication_of(call) == Some(&Authentication::Administrator)
    }

    /// Whether the key's own management fields sign this call.
    pub fn is_managed_by_key(&self, call: SignedCall) -> bool {
        matches!(self.authentication_of(call), Some(Authentication::Management { .. }))
    }

    fn authentication_of(&self, call: SignedCall) -> Option<&Authentication> {
        let calls = &self.calls;
        let call = match call {
            SignedCall::Create => calls.create.as_ref().map(|create| &create.call),
            SignedCall::List => calls.list.as_ref().map(|list| &list.call),
            SignedCall::Disable => calls.disable.as_ref(),
            SignedCall::Revoke => calls.revoke.as_ref(),
        };
        call.map(|call| &call.authentication)
    }

    pub fn can_mint(&self) -> bool {
        let is_minted = !matches!(self.lifecycle, Lifecycle::Manual | Lifecycle::Generated);
        is_minted && self.calls.create.is_some()
    }

    /// Whether we make the values ourselves: there is nobody to ask.
    pub fn is_generated(&self) -> bool {
        self.lifecycle == Lifecycle::Generated
    }

    /// Whether old and new are a primary and a secondary secret of one account: neither has an id, and which one a call ends
    /// follows from their order.
    pub fn has_secondary(&self) -> bool {
        self.lifecycle == Lifecycle::Promote
    }

    /// Whether a person makes and removes the keys.
    pub fn is_manual(&self) -> bool {
        self.lifecycle == Lifecycle::Manual
    }

    /// Gives the fields that depend on others those fields' values.
    pub fn link(&self, material: &mut Material) {
        for (name, field) in &self.fields {
            let value = field.is.as_ref().and_then(|source| material.get(source)).map(Secret::duplicate);
            value.into_iter().for_each(|value| material.insert(name.clone(), value));
        }
    }

    /// Whether a new version comes to be without a person.
    pub fn can_issue(&self) -> bool {
        self.can_mint() || self.is_generated()
    }

    /// Whether applications also get the previous version's fields while both are good.
    pub fn serves_previous(&self) -> bool {
        self.fields.values().any(|field| field.served && field.usage == Usage::Verify)
    }
}
