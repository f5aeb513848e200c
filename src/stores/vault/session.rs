//! Our token: got by a login, renewed before it ends, got anew when Vault doesn't take it any more.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use rustify::endpoint::Endpoint;
use rustify::enums::RequestMethod;
use serde::Deserialize;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RenewTokenSelfRequest};

use super::settings::Auth;
use super::wire::{Answer, Refusal, Wire};
use crate::domain::material::Secret;
use crate::stores::StoreShare;

/// Longer texts are no tokens.
const FILE_BYTES_MAX: usize = 64 * 1024;
/// A refusal leads to no more than one login in that time: a policy that forbids something isn't mended by logging in.
const LOGIN_EVERY: Duration = Duration::from_secs(1);
/// How often a renewal that failed is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(5);

const NOT_READABLE: Refusal = Refusal::Away("the file that we log in with can't be read");
const LOGIN_REFUSED: Refusal = Refusal::Away("it refuses our login");
const LOGIN_UNCLEAR: Refusal = Refusal::Away("its answer to our login isn't understood");

/// How long a request waits for its turn, and again where Vault says that it is asked too often, if its call had better not stop there.
const FURTHER_WAIT_MAX: Duration = Duration::from_secs(30);

/// How a request waits for our share of the quota. Reads are counted and never wait, but for [`Turn::Aside`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing was done yet: a write whose turn is far off isn't sent.
    First,
    /// The call has had effects: it waits.
    Further,
    /// One of many that aren't urgent: all of these together get half of the share, and wait.
    Aside,
}

/// One token and its lease.
struct Token {
    value: Secret,
    since: Instant,
    /// `None`: it doesn't end.
    lease: Option<Duration>,
    renewable: bool,
}

impl Token {
    fn new(value: Secret, lease_seconds: u64, renewable: bool) -> Token {
        let lease = (lease_seconds > 0).then(|| Duration::from_secs(lease_seconds));
        Token { value, since: Instant::now(), lease, renewable }
    }

    fn is_over(&self) -> bool {
        self.lease.is_some_and(|lease| self.since.elapsed() >= lease)
    }

    /// Two thirds into the lease: a failed renewal leaves time for another.
    fn renew_at(&self) -> Option<Instant> {
        self.lease.map(|lease| self.since + lease * 2 / 3)
    }
}

/// What the `auth` part of an answer says.
#[derive(Deserialize)]
struct Auths {
    auth: Option<Granted>,
}

#[derive(Deserialize)]
struct Granted {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct Looked {
    data: Option<Standing>,
}

#[derive(Deserialize)]
struct Standing {
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

/// Calls with a token that is good.
pub(super) struct Session {
    wire: Wire,
    auth: Auth,
    /// Our share of the quota, for each request.
    share: Option<Arc<StoreShare>>,
    token: RwLock<Option<Arc<Token>>>,
    /// Held during a login, so that many callers lead to one. When the last one was.
    gate: Mutex<Option<Instant>>,
    /// A token has come: the one who renews it looks again.
    changed: Arc<Notify>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("wire", &self.wire).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(wire: Wire, auth: Auth, share: Option<Arc<StoreShare>>) -> Session {
        Session { wire, auth, share, token: RwLock::default(), gate: Mutex::default(), changed: Arc::default() }
    }

    /// Sends it with our token; once more with a new one where that is refused.
    pub(super) async fn call(&self, endpoint: &impl Endpoint, turn: Turn) -> Result<Answer, Refusal> {
        let mut waited = Duration::ZERO;
        loop {
            match self.call_once(endpoint, turn).await {
                // It wasn't taken, so it may be sent again.
                Err(Refusal::Throttled(wait)) if turn != Turn::First && waited + wait <= FURTHER_WAIT_MAX => {
                    tokio::time::sleep(wait).await;
                    waited += wait;
                }
                outcome => return outcome,
            }
        }
    }

    async fn call_once(&self, endpoint: &impl Endpoint, turn: Turn) -> Result<Answer, Refusal> {
        let token = self.token().await?;
        self.wait(endpoint, turn).await?;
        match self.wire.send(endpoint, Some(&token.value)).await {
            Err(Refusal::Denied) => match self.after(&token).await? {
                Some(fresh) => {
                    self.wait(endpoint, turn).await?;
                    self.wire.send(endpoint, Some(&fresh.value)).await
                }
                None => Err(Refusal::Denied),
            },
            outcome => outcome,
        }
    }

    async fn wait(&self, endpoint: &impl Endpoint, turn: Turn) -> Result<(), Refusal> {
        let Some(share) = &self.share else { return Ok(()) };
        let writes = !matches!(endpoint.method(), RequestMethod::GET | RequestMethod::LIST);
        match turn {
            Turn::Aside => share.wait_aside().await,
            Turn::First if writes => share.wait().await.map_err(Refusal::Throttled)?,
            Turn::Further if writes => share.wait_at_most(FURTHER_WAIT_MAX).await.map_err(Refusal::Throttled)?,
            Turn::First | Turn::Further => share.count(),
        }
        Ok(())
    }

    /// What we do for our token's sake. Reads need it, too: it is counted, and doesn't wait.
    async fn send(&self, endpoint: &impl Endpoint, token: Option<&Secret>) -> Result<Answer, Refusal> {
        if let Some(share) = &self.share {
            share.count();
        }
        self.wire.send(endpoint, token).await
    }

    fn current(&self) -> Option<Arc<Token>> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, token: Token) -> Arc<Token> {
        let token = Arc::new(token);
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&token));
        self.changed.notify_one();
        token
    }

    async fn token(&self) -> Result<Arc<Token>, Refusal> {
        let good = || self.current().filter(|token| !token.is_over());
        if let Some(token) = good() {
            return Ok(token);
        }
        let mut last = self.gate.lock().await;
        if let Some(token) = good() {
            return Ok(token);
        }
        *last = Some(Instant::now());
        Ok(self.set(self.log_in().await?))
    }

    /// A token other than the one that was refused; `None` where there is none, because the refusal isn't the token's fault.
    async fn after(&self, refused: &Arc<Token>) -> Result<Option<Arc<Token>>, Refusal> {
        let mut last = self.gate.lock().await;
        if let Some(other) = self.current().filter(|token| !Arc::ptr_eq(token, refused)) {
            return Ok(Some(other));
        }
        if last.is_some_and(|last| last.elapsed() < LOGIN_EVERY) {
            return Ok(None);
        }
        *last = Some(Instant::now());
        if let Auth::Token { file } = &self.auth {
            // Nothing was renewed by reading the same token again.
            let written = read_file(file).await?;
            if written.same_as(&refused.value) {
                return Ok(None);
            }
        }
        Ok(Some(self.set(self.log_in().await?)))
    }

    async fn log_in(&self) -> Result<Token, Refusal> {
        match &self.auth {
            Auth::Token { file } => self.take_up(read_file(file).await?).await,
            Auth::AppRole { mount, role_id, secret_id } => {
                let secret_id = text(read_file(secret_id).await?)?;
                let login = LoginWithApproleRequest { mount: mount.clone(), role_id: role_id.clone(), secret_id };
                granted(self.send(&login, None).await)
            }
            Auth::Kubernetes { mount, role, token } => {
                let jwt = text(read_file(token).await?)?;
                let login = LoginWithKubernetesRequest { mount: mount.clone(), role: role.clone(), jwt };
                granted(self.send(&login, None).await)
            }
        }
    }

    /// A token that somebody else made: Vault says how long it lives.
    async fn take_up(&self, value: Secret) -> Result<Token, Refusal> {
        let answer = match self.send(&LookupTokenSelfRequest {}, Some(&value)).await {
            Ok(answer) => answer,
            Err(Refusal::Denied | Refusal::Rejected) => return Err(LOGIN_REFUSED),
            Err(other) => return Err(other),
        };
        let standing = answer.parse::<Looked>().and_then(|looked| looked.data).ok_or(LOGIN_UNCLEAR)?;
        Ok(Token::new(value, standing.ttl, standing.renewable))
    }

    /// Renews the token, or logs in anew where it can't be renewed or not for long any more.
    async fn renew(&self) -> Result<(), Refusal> {
        let mut last = self.gate.lock().await;
        let Some(token) = self.current().filter(|token| token.renew_at().is_some_and(|at| at <= Instant::now())) else { return Ok(()) };
        if token.renewable && !token.is_over() {
            match granted(self.send(&RenewTokenSelfRequest { increment: None }, Some(&token.value)).await) {
                // As its longest time comes near, leases get shorter: a new login is better, where we can have one.
                Ok(renewed) if !self.logs_in_itself() || renewed.lease >= token.lease.map(|lease| lease / 2) => {
                    self.set(Token { value: token.value.duplicate(), ..renewed });
                    return Ok(());
                }
                Ok(_) => {}
                Err(refused) if refused == LOGIN_REFUSED => {}
                Err(other) => return Err(other),
            }
        }
        *last = Some(Instant::now());
        self.set(self.log_in().await?);
        Ok(())
    }

    fn logs_in_itself(&self) -> bool {
        !matches!(self.auth, Auth::Token { .. })
    }

    /// Renews in time, for as long as the session is there.
    pub(super) async fn keep(session: Weak<Session>) {
        let mut said = false;
        loop {
            let Some((due, changed)) =
                session.upgrade().map(|it| (it.current().and_then(|token| token.renew_at()), Arc::clone(&it.changed)))
            else {
                return;
            };
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                () = changed.notified() => continue,
            }
            let Some(it) = session.upgrade() else { return };
            let renewed = it.renew().await;
            drop(it);
            if renewed.is_err() {
                if !said {
                    tracing::warn!("the token for Vault can't be renewed; it is tried again");
                }
                tokio::time::sleep(RENEW_AGAIN).await;
            }
            said = renewed.is_err();
        }
    }
}

fn granted(answer: Result<Answer, Refusal>) -> Result<Token, Refusal> {
    let answer = match answer {
        Ok(answer) if answer.is_missing => return Err(LOGIN_REFUSED),
        Ok(answer) => answer,
        Err(Refusal::Denied | Refusal::Rejected) => return Err(LOGIN_REFUSED),
        Err(other) => return Err(other),
    };
    let granted = answer.parse::<Auths>().and_then(|auths| auths.auth).ok_or(LOGIN_UNCLEAR)?;
    let value = checked(granted.client_token.into_bytes()).ok_or(LOGIN_UNCLEAR)?;
    Ok(Token::new(value, granted.lease_duration, granted.renewable))
}

async fn read_file(path: &Path) -> Result<Secret, Refusal> {
    let bytes = zeroize::Zeroizing::new(tokio::fs::read(path).await.map_err(|_| NOT_READABLE)?);
    checked(bytes.to_vec()).ok_or(NOT_READABLE)
}

/// Without the newline that an editor leaves. A header takes printable ASCII alone, and the library panics on all else.
fn checked(bytes: Vec<u8>) -> Option<Secret> {
    let trimmed = bytes.trim_ascii();
    let is_token = !trimmed.is_empty() && trimmed.len() <= FILE_BYTES_MAX && trimmed.iter().all(u8::is_ascii_graphic);
    is_token.then(|| Secret::new(trimmed))
}

fn text(secret: Secret) -> Result<String, Refusal> {
    secret.expose_str().map(str::to_owned).ok_or(NOT_READABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_and_nothing_else_is_taken() {
        let taken = |text: &str| checked(text.as_bytes().to_vec()).map(|secret| secret.expose_str().unwrap().to_owned());
        assert_eq!(taken("made-for-a-test\n").as_deref(), Some("made-for-a-test"));
        assert_eq!(taken(" made-for-a-test\r\n").as_deref(), Some("made-for-a-test"));
        for bad in ["", "\n", "two words", "two\nlines", "nul\0", "é", "tab\tin"] {
            assert_eq!(taken(bad), None, "{bad:?}");
        }
    }
}
