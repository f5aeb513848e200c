//! Sends one message once, and reads of its answer the status and when to come back: no body, so there is nothing to bound or to log.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};

use super::message::body;
use super::signing::sign;
use crate::delivery::{Cargo, CourierError};
use crate::domain::delivery::WebhookDelivery;
use crate::domain::outbox::Message;
use crate::outbound::{self, NOT_ALLOWED, Reach, may_call};

/// From the first packet to the end of the answer's head.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
/// A wait that the receiver asks for is kept up to this part of the time that a message is tried, a half: one that asks for a day, or
/// for more, is asked a second time before the message is given up.
const WAIT_MAX_PART: u32 = 2;

/// What ends a message's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    /// 410: it is never to be sent again.
    Gone,
}

/// One client per reach, made when it is first needed: reading the machine's root certificates takes a while.
#[derive(Debug)]
pub(super) struct Sender {
    timeout: Duration,
    public: OnceLock<Option<Client>>,
    named: OnceLock<Option<Client>>,
    loopback: OnceLock<Option<Client>>,
}

impl Sender {
    pub(super) fn new(timeout: Duration) -> Sender {
        Sender { timeout, public: OnceLock::new(), named: OnceLock::new(), loopback: OnceLock::new() }
    }

    /// # Errors
    /// [`CourierError`] if it wasn't accepted: it is to be sent again, under the same id.
    pub(super) async fn send(&self, cargo: &Cargo<'_>, asked: &WebhookDelivery, message: &Message) -> Result<Answer, CourierError> {
        let (url, reach) = address(asked)?;
        let body = body(message, &cargo.application.name).ok_or(CourierError::Refused("the message can't be written"))?;
        let timestamp = cargo.now.as_second();
        let (secrets, id, signed) = (asked.secrets.clone(), message.id.clone(), body.clone());
        let signature = tokio::task::spawn_blocking(move || sign(&secrets, &id, timestamp, &signed)).await;
        let signature = signature.map_err(|_| CourierError::Unavailable("signing the message broke"))??;
        let slot = match reach {
            Reach::Public => &self.public,
            Reach::Named => &self.named,
            Reach::Loopback => &self.loopback,
        };
        let client = slot.get_or_init(|| outbound::client(reach, self.timeout)).as_ref();
        let client = client.ok_or(CourierError::Refused("TLS can't be used: are root certificates installed?"))?;
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", message.id.as_str())
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body);
        let response = request.send().await.map_err(|error| kind_of(&error))?;
        judge(&response, cargo.give_up_after / WAIT_MAX_PART)
    }
}

/// Where it goes, and how far that may reach.
fn address(asked: &WebhookDelivery) -> Result<(Url, Reach), CourierError> {
    let url = Url::parse(&asked.url).map_err(|_| CourierError::Refused("the address of the webhook is none"))?;
    let reach = match (url.scheme(), asked.allow_private) {
        ("https", false) => Reach::Public,
        ("https", true) => Reach::Named,
        ("http", true) => Reach::Loopback,
        _ => return Err(CourierError::Refused("plain HTTP is for loopback addresses only, with `allowPrivate`")),
    };
    if may_call(&url, reach) { Ok((url, reach)) } else { Err(CourierError::Refused(NOT_ALLOWED)) }
}

/// Errors of the client end here: their text holds addresses.
fn kind_of(error: &reqwest::Error) -> CourierError {
    if outbound::was_refused(error) {
        return CourierError::Refused(NOT_ALLOWED);
    }
    if error.is_builder() {
        return CourierError::Refused("the request can't be built");
    }
    CourierError::Unavailable(match (error.is_connect(), error.is_timeout()) {
        (true, true) => "connecting to the receiver takes too long",
        (true, false) => "the receiver can't be connected to, or its certificate isn't good",
        (false, true) => "the receiver takes too long",
        (false, false) => "the receiver closed the connection before it answered",
    })
}

fn judge(response: &Response, wait_max: Duration) -> Result<Answer, CourierError> {
    let status = response.status();
    match status {
        StatusCode::GONE => Ok(Answer::Gone),
        _ if status.is_success() => Ok(Answer::Accepted),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let why = "the receiver asks to be left alone for a while";
            let asked = retry_after(response.headers(), wait_max);
            Err(asked.map_or(CourierError::Unavailable(why), |wait| CourierError::Later { why, wait }))
        }
        _ if status.is_redirection() => Err(CourierError::Refused("the receiver redirects, which isn't followed: name the address itself")),
        _ if status.is_client_error() => Err(CourierError::Refused("the receiver refuses it (4xx)")),
        _ => Err(CourierError::Unavailable("the receiver fails (5xx)")),
    }
}

/// Seconds, or a date, which is measured by the receiver's own: a clock of ours that is wrong makes us wait for nothing.
fn retry_after(headers: &HeaderMap, wait_max: Duration) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text(RETRY_AFTER)?;
    let wait = match asked.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = |text: &str| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
            Duration::try_from(date(asked)?.duration_since(date(text(DATE)?)?)).unwrap_or_default()
        }
    };
    Some(wait.min(wait_max))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn asked(url: &str, allow_private: bool) -> WebhookDelivery {
        WebhookDelivery { url: url.to_owned(), secrets: Vec::new(), allow_private }
    }

    #[rstest]
    #[case("https://169.254.169.254/latest")]
    #[case("https://127.0.0.1/")]
    #[case("https://0x7f.1/")]
    #[case("https://10.0.0.1/")]
    #[case("https://100.64.0.1/")]
    #[case("https://192.168.1.1/")]
    #[case("https://[::1]/")]
    #[case("https://[fe80::1]/")]
    #[case("https://[fd00::1]/")]
    #[case("https://[::ffff:10.0.0.1]/")]
    #[case("http://127.0.0.1/")]
    fn what_is_not_public_is_refused_unless_it_is_allowed(#[case] url: &str) {
        assert!(matches!(address(&asked(url, false)), Err(CourierError::Refused(_))), "{url}");
        assert!(address(&asked(url, true)).is_ok(), "{url}");
    }

    #[test]
    fn plain_http_goes_to_loopback_only() {
        assert!(matches!(address(&asked("http://10.0.0.1/", true)), Err(CourierError::Refused(_))));
        assert!(address(&asked("https://receiver.example/", false)).is_ok_and(|(_, reach)| reach == Reach::Public));
    }

    #[rstest]
    #[case(&[("retry-after", "7")], Some(7))]
    #[case(&[("retry-after", "43201")], Some(43_200))]
    #[case(&[("retry-after", "999999999")], Some(43_200))]
    #[case(&[("retry-after", "Mon, 07 Nov 1994 08:49:00 GMT"), ("date", "Sun, 06 Nov 1994 08:49:00 GMT")], Some(43_200))]
    #[case(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), ("date", "Sun, 06 Nov 1994 08:49:00 GMT")], Some(37))]
    #[case(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT"), ("date", "Sun, 06 Nov 1994 08:49:00 GMT")], Some(0))]
    #[case(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], None)]
    #[case(&[("retry-after", "later")], None)]
    #[case(&[], None)]
    fn a_receiver_says_when_to_come_back(#[case] headers: &[(&'static str, &'static str)], #[case] seconds: Option<u64>) {
        let headers: HeaderMap = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        assert_eq!(retry_after(&headers, Duration::from_secs(43_200)), seconds.map(Duration::from_secs));
    }
}
