//! Whether a key lives: the token call, then the probe.

use jiff::Timestamp;
use serde_json::Value;

use super::gate::Token;
use super::request::{Extras, SignedBy, Signer};
use super::{DeclarativeIssuer, refusal, unclear};
use crate::domain::material::{Material, Secret, check_value};
use crate::domain::provider::{Authentication, Meaning};
use crate::issuers::{IssuerError, ProbeOutcome, ProbeReport, Target};

/// What the token endpoint said. Without a token, `meaning` is one of `Dead`, `Narrow`, `WrongEnvironment`.
pub(super) struct TokenAnswer {
    pub meaning: Meaning,
    pub status: u16,
    pub token: Option<Token>,
    pub provider_time: Option<Timestamp>,
}

impl DeclarativeIssuer {
    /// # Errors
    /// [`IssuerError::Impossible`] without a token call; otherwise what the answer means, if it decides nothing about the key.
    pub(super) async fn ask_for_token(
        &self,
        target: &Target,
        material: &Material,
        pays_for_next: bool,
    ) -> Result<TokenAnswer, IssuerError> {
        let call = target.provider.calls.token.as_ref().ok_or(IssuerError::Impossible("the description has no token call"))?;
        let signer = Signer { acting: material, subject: Some(material), token: None, administrator: None };
        let target = &target.for_tokens();
        let reply = self.ask(target, "token", call, signer, Extras { pays_for_next, ..Extras::default() }).await?;
        let meaning = reply.meaning(&call.rules);
        let token = match meaning {
            Meaning::Works => {
                let pointer =
                    call.access_token.as_deref().ok_or(IssuerError::Impossible("the description doesn't say where the token stands"))?;
                Some(Token::new(usable_token(reply.json()?, pointer)?, pays_for_next))
            }
            Meaning::Dead | Meaning::Narrow | Meaning::WrongEnvironment => None,
            other => return Err(as_check(refusal(&reply, other, target, SignedBy::Acting), unclear(&reply))),
        };
        Ok(TokenAnswer { meaning, status: reply.status, token, provider_time: reply.date() })
    }

    /// The strongest check of the description, with a fresh token.
    pub(super) async fn check(&self, target: &Target, material: &Material) -> Result<ProbeReport, IssuerError> {
        let calls = &target.provider.calls;
        if !target.provider.has_check() {
            return Err(IssuerError::Impossible("the description has no check"));
        }
        let mut report = ProbeReport { outcome: ProbeOutcome::Works, proves_environment: false, provider_time: None };
        let mut token = None;
        if let Some(call) = &calls.token {
            let with_probe = calls.probe.as_ref().is_some_and(|probe| probe.authentication == Authentication::Token);
            let answer = self.ask_for_token(target, material, with_probe).await?;
            report.provider_time = answer.provider_time;
            report.outcome = outcome_of(answer.meaning).ok_or(IssuerError::Unclear("no rule of the description fits it"))?;
            if report.outcome != ProbeOutcome::Works {
                return Ok(report);
            }
            report.proves_environment = call.proves_environment;
            token = answer.token;
        }
        let Some(call) = &calls.probe else { return Ok(report) };
        let token = token.as_ref().filter(|_| call.authentication == Authentication::Token);
        let signer = Signer { acting: material, subject: Some(material), token, administrator: None };
        let reply = self.ask(target, "probe", call, signer, Extras::default()).await?;
        let meaning = reply.meaning(&call.rules);
        report.outcome =
            outcome_of(meaning).ok_or_else(|| as_check(refusal(&reply, meaning, target, SignedBy::Acting), unclear(&reply)))?;
        report.provider_time = reply.date().or(report.provider_time);
        match report.outcome {
            ProbeOutcome::Works => {
                reply.is_plausible()?;
                report.proves_environment |= call.proves_environment;
            }
            ProbeOutcome::Narrow => {}
            ProbeOutcome::Dead | ProbeOutcome::WrongEnvironment => report.proves_environment = false,
        }
        Ok(report)
    }

    /// At the token endpoint where there is one: a probe with an older token would still pass.
    pub(super) async fn check_death(&self, target: &Target, material: &Material) -> Result<bool, IssuerError> {
        let outcome = if target.provider.calls.token.is_some() {
            outcome_of(self.ask_for_token(target, material, false).await?.meaning)
        } else {
            Some(self.check(target, material).await?.outcome)
        };
        match outcome {
            Some(ProbeOutcome::Works | ProbeOutcome::Narrow) => Ok(false),
            Some(ProbeOutcome::Dead) => Ok(true),
            // A key of the other environment isn't dead: it lives elsewhere.
            Some(ProbeOutcome::WrongEnvironment) | None => Err(IssuerError::Unclear("the key is of the other environment")),
        }
    }
}

fn outcome_of(meaning: Meaning) -> Option<ProbeOutcome> {
    match meaning {
        Meaning::Works => Some(ProbeOutcome::Works),
        Meaning::Narrow => Some(ProbeOutcome::Narrow),
        Meaning::Dead => Some(ProbeOutcome::Dead),
        Meaning::WrongEnvironment => Some(ProbeOutcome::WrongEnvironment),
        Meaning::Refused | Meaning::Gone | Meaning::Full | Meaning::Throttled | Meaning::Inconclusive => None,
    }
}

/// A check makes and removes nothing: that there is no slot, or that something is gone, tells nothing of the key.
fn as_check(error: IssuerError, unclear: IssuerError) -> IssuerError {
    match error {
        IssuerError::Full => unclear,
        other => other,
    }
}

pub(super) fn usable_token(json: &Value, pointer: &str) -> Result<Secret, IssuerError> {
    let text = json.pointer(pointer).and_then(Value::as_str).ok_or(IssuerError::Unclear("it holds no token"))?;
    let token = Secret::new(text.as_bytes());
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    match check_value(&token) {
        Ok(()) if printable => Ok(token),
        _ => Err(IssuerError::Unclear("the token that it holds can't be one")),
    }
}
