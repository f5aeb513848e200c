//! Tokens and the ways to get one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::engine::Reply;

/// Who may do everything, and for ever.
pub(crate) const ROOT: &str = "hvs.made-for-a-test-root";

pub(crate) struct Logins {
    tokens: BTreeMap<String, Token>,
    /// Role id to secret id.
    pub(crate) roles: BTreeMap<String, String>,
    /// Role to the service account's token that it takes.
    pub(crate) accounts: BTreeMap<String, String>,
    /// What a token of a login gets; a token is renewed up to `longest`.
    pub(crate) lease: Duration,
    pub(crate) longest: Duration,
    pub(crate) logins: usize,
    pub(crate) renewals: usize,
}

struct Token {
    ends: Option<Instant>,
    /// No renewal goes beyond it.
    last: Option<Instant>,
    lease: Duration,
}

impl Default for Logins {
    fn default() -> Self {
        let root = Token { ends: None, last: None, lease: Duration::ZERO };
        Self {
            tokens: BTreeMap::from([(ROOT.to_owned(), root)]),
            roles: BTreeMap::new(),
            accounts: BTreeMap::new(),
            lease: Duration::from_secs(3600),
            longest: Duration::from_secs(86_400),
            logins: 0,
            renewals: 0,
        }
    }
}

impl Logins {
    pub(super) fn takes(&self, token: &str) -> bool {
        self.tokens.get(token).is_some_and(|token| token.ends.is_none_or(|ends| Instant::now() < ends))
    }

    /// A token with a lease, as an administrator makes one.
    pub(crate) fn issue(&mut self) -> String {
        let name = format!("hvs.made-for-a-test-{}", uuid::Uuid::new_v4().simple());
        let now = Instant::now();
        self.tokens.insert(name.clone(), Token { ends: Some(now + self.lease), last: Some(now + self.longest), lease: self.lease });
        name
    }

    /// An administrator revokes them all, but the root token.
    pub(crate) fn revoke_all(&mut self) {
        self.tokens.retain(|name, _| name == ROOT);
    }

    /// The leases of all but the root token end.
    pub(super) fn expire_all(&mut self) {
        self.tokens.values_mut().filter(|token| token.ends.is_some()).for_each(|token| token.ends = Some(Instant::now()));
    }

    pub(super) fn log_in(&mut self, path: &str, body: &Value) -> Option<Result<Value, Reply>> {
        let method = path.strip_prefix("auth/")?.strip_suffix("/login")?;
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let known = match method {
            "approle" => self.roles.get(text("role_id")).is_some_and(|secret| secret == text("secret_id")),
            "kubernetes" => self.accounts.get(text("role")).is_some_and(|jwt| jwt == text("jwt")),
            _ => return None,
        };
        if !known {
            let approle = method == "approle";
            let (status, error) = if approle { (400, "invalid role or secret ID") } else { (403, "permission denied") };
            return Some(Err(Reply::error(status, &[error])));
        }
        self.logins += 1;
        let token = self.issue();
        Some(Ok(self.describe_auth(&token)))
    }

    fn describe_auth(&self, token: &str) -> Value {
        let lease = self.tokens.get(token).and_then(|token| token.ends).map_or(0, left);
        json!({
            "client_token": token, "accessor": "made-for-a-test", "policies": ["default", "keywright"],
            "token_policies": ["default", "keywright"], "metadata": {}, "lease_duration": lease, "renewable": lease > 0,
            "entity_id": "", "token_type": "service", "orphan": true, "mfa_requirement": null, "num_uses": 0,
        })
    }

    pub(super) fn renew(&mut self, token: &str) -> Result<Value, Reply> {
        let Some(found) = self.tokens.get_mut(token) else { return Err(Reply::error(403, &["permission denied"])) };
        let Some(last) = found.last else { return Err(Reply::error(400, &["lease is not renewable"])) };
        found.ends = Some((Instant::now() + found.lease).min(last));
        self.renewals += 1;
        Ok(self.describe_auth(token))
    }

    pub(super) fn look_up(&self, token: &str) -> Reply {
        let ends = self.tokens.get(token).and_then(|token| token.ends);
        Reply::data(json!({
            "accessor": "made-for-a-test", "creation_time": 0, "creation_ttl": 0, "display_name": "token", "entity_id": "",
            "expire_time": null, "explicit_max_ttl": 0, "id": token, "num_uses": 0, "orphan": true, "path": "auth/token/create",
            "policies": ["default"], "renewable": ends.is_some(), "ttl": ends.map_or(0, left),
        }))
    }

    pub(super) fn revoke(&mut self, token: &str) {
        self.tokens.remove(token);
    }
}

/// Whole seconds, as Vault tells them; a lease that lives is never told as none.
fn left(ends: Instant) -> u64 {
    ends.saturating_duration_since(Instant::now()).as_secs_f64().round().max(1.0) as u64
}
