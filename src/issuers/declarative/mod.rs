//! The issuer that reads provider descriptions: a new provider is a document, and no code here.

mod address;
mod check;
mod create;
mod gate;
mod list;
mod meter;
mod reply;
mod request;
mod revoke;
mod secondary;
mod template;
mod transport;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::gate::{Gate, Token};
use self::meter::Meter;
use self::reply::Reply;
use self::request::{Extras, SignedBy, Signer};
use self::transport::Transport;
use super::pace::Demand;
use super::{Administrator, CreateRequest, Issuer, IssuerError, Minted, ProbeReport, ProviderHealth, Revocation, Target};
use crate::domain::credential::Environment;
use crate::domain::ids::{KeyId, Name};
use crate::domain::material::Material;
use crate::domain::provider::{Authentication, Call, ListedKey, Meaning, Signature};

pub use self::meter::{RateLimit, RequestCount};

/// Speaks HTTP as the description says. A call that changes something is sent once; nothing is cached, no token and no
/// connection.
pub struct DeclarativeIssuer {
    transport: Transport,
    meter: Meter,
    gate: Gate,
    /// A list may take so long, all its pages together.
    list_timeout: Duration,
    /// Between two looks at whether a key that was just revoked is dead.
    death_wait: Duration,
    /// An answer that takes longer is late.
    late_after: Duration,
    /// A question whose answers tell nothing is asked again within this time.
    ask_within: Duration,
    observer: Option<AnswerObserver>,
}

/// Is told whose answer came, and after what time.
pub type AnswerObserver = Arc<dyn Fn(&Name, Environment, Duration) + Send + Sync>;

/// How often a question is asked whose answers tell nothing.
const ASKS_MAX: u32 = 4;

impl DeclarativeIssuer {
    /// How long one HTTP call may take where no policy is shorter.
    pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

    /// `timeout` bounds each HTTP call from its name look-up to the last byte of the answer. Short policies scale it down.
    pub fn new(timeout: Duration) -> DeclarativeIssuer {
        DeclarativeIssuer {
            transport: Transport::new(timeout),
            meter: Meter::default(),
            gate: Gate::new(timeout),
            list_timeout: timeout * 6,
            death_wait: timeout / 40,
            late_after: timeout / 4,
            ask_within: timeout,
            observer: None,
        }
    }

    /// Tells it of each answer that came, whatever it said, with the time from sending the request to its last byte.
    #[must_use]
    pub fn observed_by(self, observer: AnswerObserver) -> DeclarativeIssuer {
        DeclarativeIssuer { observer: Some(observer), ..self }
    }

    /// What is left of the providers' quotas, as their answers told last.
    pub fn limits(&self) -> Vec<RateLimit> {
        self.meter.limits()
    }

    /// How many requests were made, by call and outcome.
    pub fn requests(&self) -> Vec<RequestCount> {
        self.meter.requests()
    }

    /// One request. What creates or revokes is sent at once or not at all: what was decided before a wait may not be right after
    /// it.
    async fn call(
        &self,
        target: &Target,
        name: &'static str,
        call: &Call,
        signer: Signer<'_>,
        extras: Extras,
    ) -> Result<Reply, IssuerError> {
        let may_wait = !matches!(name, "create" | "disable" | "revoke" | "promote" | "cancel");
        self.call_in_turn(target, name, call, signer, (extras, may_wait)).await
    }

    async fn call_in_turn(
        &self,
        target: &Target,
        name: &'static str,
        call: &Call,
        signer: Signer<'_>,
        (extras, may_wait): (Extras, bool),
    ) -> Result<Reply, IssuerError> {
        let demand = match signer.token {
            Some(token) => token.demand(),
            None => Some(Demand { calls: if extras.pays_for_next { 2 } else { 1 }, begun: false, routine: target.routine }),
        };
        let prepared = match request::build(target, call, signer, extras) {
            Ok(prepared) => prepared,
            Err(error) => {
                let answer = Err(error);
                self.meter.note(target, name, &answer);
                return answer;
            }
        };
        let entry = self.gate.enter(target, demand, may_wait).await?;
        let sent = tokio::time::Instant::now();
        let answer = self.transport.send(prepared).await;
        if let (Some(observer), Ok(_)) = (&self.observer, &answer) {
            observer(&target.provider.name, target.environment, sent.elapsed());
        }
        entry.told(&answer);
        self.meter.note(target, name, &answer);
        answer
    }

    /// A call that changes nothing at the provider. One answer that tells nothing must not cost the whole of a step that takes
    /// many: it is asked for again, as soon as the provider wishes, within bounds.
    async fn ask(
        &self,
        target: &Target,
        name: &'static str,
        call: &Call,
        signer: Signer<'_>,
        extras: Extras,
    ) -> Result<Reply, IssuerError> {
        let began = tokio::time::Instant::now();
        let mut wait = self.death_wait;
        for _ in 1..ASKS_MAX {
            let answer = self.ask_once(target, name, call, signer, &extras).await;
            let Some(asked_to_wait) = again_after(&answer, call, target) else { return answer };
            let pause = wait.max(asked_to_wait);
            if began.elapsed() + pause > self.ask_within {
                return answer;
            }
            tokio::time::sleep(pause).await;
            wait *= 2;
        }
        self.ask_once(target, name, call, signer, &extras).await
    }

    /// Asks a second time while a late answer is still waited for, and takes the first that tells something: most late answers
    /// are lost ones, and a slow provider isn't cut short.
    async fn ask_once(
        &self,
        target: &Target,
        name: &'static str,
        call: &Call,
        signer: Signer<'_>,
        extras: &Extras,
    ) -> Result<Reply, IssuerError> {
        let first = self.call(target, name, call, signer, extras.clone());
        let second = async {
            tokio::time::sleep(self.late_after).await;
            // Not worth a wait: the first may come any moment.
            self.call_in_turn(target, name, call, signer, (extras.clone(), false)).await
        };
        tokio::pin!(first, second);
        tokio::select! {
            biased;
            answer = &mut first => answer,
            answer = &mut second => if answer.is_ok() && again_after(&answer, call, target).is_none() { answer } else { first.await },
        }
    }

    /// A token for one call, where the description asks for one. Whatever goes wrong here, the call itself wasn't sent.
    async fn token_for(
        &self,
        target: &Target,
        call: &Call,
        acting: &Material,
        administrator: Option<&Administrator>,
    ) -> Result<Option<Token>, IssuerError> {
        if let Some(administrator) = administrator {
            return self.token_of(administrator).await;
        }
        if call.authentication != Authentication::Token {
            return Ok(None);
        }
        let answer = self.ask_for_token(target, acting, true).await.map_err(unsent)?;
        match answer.token {
            Some(token) => Ok(Some(token)),
            None if answer.meaning == Meaning::Dead => Err(IssuerError::Unauthenticated),
            None => Err(IssuerError::Refused { status: answer.status }),
        }
    }

    /// The administering credential's token, from its own provider. That none is given says nothing of whom it signs for.
    async fn token_of(&self, administrator: &Administrator) -> Result<Option<Token>, IssuerError> {
        if administrator.target.provider.signs != Some(Signature::Token) {
            return Ok(None);
        }
        let answer = self.ask_for_token(&administrator.target, &administrator.material, false).await;
        let answer = answer.map_err(|error| match unsent(error) {
            IssuerError::Refused { .. } => IssuerError::AdministratorRefused,
            other => other,
        })?;
        answer.token.map(Some).ok_or(IssuerError::AdministratorRefused)
    }
}

/// How long to wait at least before a question is asked again; `None` if the answer tells something, or asking again won't help.
fn again_after(answer: &Result<Reply, IssuerError>, call: &Call, target: &Target) -> Option<Duration> {
    match answer {
        Ok(reply) if reply.tells_nothing() => Some(Duration::ZERO),
        Ok(reply) if reply.meaning(&call.rules) == Meaning::Throttled => match reply.throttled(&target.provider.limits) {
            IssuerError::Throttled { retry_after } => Some(retry_after.unwrap_or_default()),
            _ => None,
        },
        Err(IssuerError::Unclear(_)) => Some(Duration::ZERO),
        Ok(_) | Err(_) => None,
    }
}

/// What went wrong with the token call, said of the call that the token was for.
fn unsent(error: IssuerError) -> IssuerError {
    match error {
        IssuerError::Unclear(_) | IssuerError::BadValue => IssuerError::Unreachable("the token endpoint's answer tells nothing"),
        other => other,
    }
}

/// What an answer means that brought nothing useful, for calls whose effect matters. A signature that isn't accepted is said of
/// the one whose it is, and of no other.
fn refusal(reply: &Reply, meaning: Meaning, target: &Target, by: SignedBy) -> IssuerError {
    match meaning {
        Meaning::Dead => match by {
            SignedBy::Acting => IssuerError::Unauthenticated,
            SignedBy::Administrator => IssuerError::AdministratorRefused,
            SignedBy::Subject | SignedBy::Nobody => IssuerError::Refused { status: reply.status },
        },
        Meaning::Refused | Meaning::Narrow | Meaning::WrongEnvironment | Meaning::Gone => IssuerError::Refused { status: reply.status },
        Meaning::Full => IssuerError::Full,
        Meaning::Throttled => reply.throttled(&target.provider.limits),
        Meaning::Works | Meaning::Inconclusive => unclear(reply),
    }
}

fn unclear(reply: &Reply) -> IssuerError {
    IssuerError::Unclear(match reply.status {
        300..=399 => "it is a redirect, and none is followed",
        500..=599 => "it is a failure of the provider's own",
        _ => "no rule of the description fits it",
    })
}

#[async_trait]
impl Issuer for DeclarativeIssuer {
    async fn probe(&self, target: &Target, material: &Material) -> Result<ProbeReport, IssuerError> {
        self.check(target, material).await
    }

    async fn is_dead(&self, target: &Target, material: &Material) -> Result<bool, IssuerError> {
        self.check_death(target, material).await
    }

    async fn list(&self, target: &Target, acting: &Material) -> Result<Vec<ListedKey>, IssuerError> {
        self.list_all(target, acting).await
    }

    async fn create(&self, target: &Target, acting: &Material, request: &CreateRequest) -> Result<Minted, IssuerError> {
        self.mint(target, acting, request).await
    }

    async fn disable(&self, target: &Target, acting: &Material, key_id: &KeyId, doomed: Option<&Material>) -> Result<(), IssuerError> {
        self.switch_off(target, acting, key_id, doomed).await
    }

    async fn revoke(
        &self,
        target: &Target,
        acting: &Material,
        key_id: &KeyId,
        doomed: Option<&Material>,
    ) -> Result<Revocation, IssuerError> {
        self.end(target, acting, key_id, doomed).await
    }

    async fn cancel(&self, target: &Target, acting: &Material, doomed: Option<&Material>) -> Result<Revocation, IssuerError> {
        self.take_back(target, acting, doomed).await
    }

    fn health(&self) -> Vec<ProviderHealth> {
        self.gate.health()
    }
}

impl fmt::Debug for DeclarativeIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeclarativeIssuer")
    }
}
